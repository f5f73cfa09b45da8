//! The one task that listens to the node, and looks at the clock and the height of the chain between its events.
//!
//! An event is written down first and acknowledged then: what was acknowledged is never told again, what was not is told
//! again after a restart. So everything here may happen twice.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use ldk_node::Event;
use ldk_node::payment::{PaymentDirection, PaymentStatus};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::book::Stage;
use super::{Payment, PaymentHash, Shared, WalletError, ldk_hash, msat, on_a_thread, payment_id, translated};
use crate::money::Msat;
use crate::wallet::hold_window::SETTLE_MARGIN_BLOCKS;
use ldk_node::lightning::chain::channelmonitor::HTLC_FAIL_BACK_BUFFER;

/// How long to wait before an event that could not be written down is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Unpaid invoices are forgotten this long after they expired: LDK takes no payment more than two hours late, and nobody
/// asks about such an invoice after a month.
const REMEMBER_UNPAID: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Unpaid invoices forgotten at a time, so that no call waits for a long sweep.
const SWEEP: u32 = 500;

/// A payment that was begun before this process and that the node knows nothing of is given up this long after the node was
/// opened. By then whatever was half done when the process died has gone out or not.
const DOUBT: SignedDuration = SignedDuration::from_mins(10);

/// Blocks that may be found between the payer's choice of an expiry and our look at the payment, and are no fault of the
/// payer's.
pub(super) const BLOCKS_ON_THE_WAY: u32 = 3;

/// Listens until `closing`.
pub(super) async fn listen(shared: Arc<Shared>, closing: CancellationToken) {
    let mut tick = tokio::time::interval(shared.times.deadline_check);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            biased;
            () = closing.cancelled() => return,
            event = shared.node.next_event_async() => {
                let shared = Arc::clone(&shared);
                on_a_thread(move || shared.take_in(event)).await
            }
            _ = tick.tick() => {
                let shared = Arc::clone(&shared);
                on_a_thread(move || shared.keep_house()).await
            }
        };
        if let Err(error) = done.and_then(|done| done) {
            tracing::error!(%error, "What the embedded node told could not be written down; it is tried again");
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
}

/// Whether a payment that came at `height` can't be held for the `blocks` that were asked for.
fn is_too_short(deadline: u32, height: u32, blocks: u32) -> bool {
    deadline.saturating_add(BLOCKS_ON_THE_WAY) < height.saturating_add(blocks)
}

impl Shared {
    /// Writes down what an event says and acknowledges it.
    fn take_in(&self, event: Event) -> Result<(), WalletError> {
        self.write_down(event)?;
        self.node.event_handled().map_err(translated)?;
        self.looked();
        Ok(())
    }

    /// Writes down what an event says, and tells it.
    pub(super) fn write_down(&self, event: Event) -> Result<(), WalletError> {
        match event {
            Event::PaymentReceived { payment_hash, amount_msat, .. } => {
                let hash = PaymentHash(payment_hash.0);
                let received = msat(amount_msat).saturating_add(self.skimmed(&hash));
                self.book.settle(&hash, received, Timestamp::now())?;
                self.tell(&hash)?;
            }
            Event::PaymentClaimable { payment_hash, claimable_amount_msat, claim_deadline, .. } => {
                // LDK always says until when; a hold without end would be one nobody watches.
                let deadline = claim_deadline.unwrap_or_else(|| self.height());
                self.write_down_hold(&PaymentHash(payment_hash.0), msat(claimable_amount_msat), deadline)?;
            }
            Event::PaymentSuccessful { payment_hash, payment_preimage: Some(preimage), fee_paid_msat, .. } => {
                let payment = Payment { preimage: preimage.0, fees: fee_paid_msat.map(msat) };
                self.write_down_paid(&PaymentHash(payment_hash.0), &payment)?;
            }
            Event::PaymentFailed { payment_hash: Some(hash), reason, .. } => {
                tracing::debug!(?reason, "A payment failed");
                self.write_down_failure(&PaymentHash(hash.0))?;
            }
            Event::ChannelPending { channel_id, counterparty_node_id, .. } => {
                tracing::info!(channel = %channel_id, peer = %counterparty_node_id, "A channel waits for its confirmation");
            }
            Event::ChannelReady { channel_id, .. } => tracing::info!(channel = %channel_id, "A channel is ready"),
            Event::ChannelClosed { channel_id, reason, .. } => {
                tracing::warn!(channel = %channel_id, ?reason, "A channel was closed");
            }
            // Old versions' forms of events, which this folder never had; and what moves no money of ours.
            Event::PaymentSuccessful { payment_preimage: None, .. }
            | Event::PaymentFailed { payment_hash: None, .. }
            | Event::PaymentForwarded { .. }
            | Event::SplicePending { .. }
            | Event::SpliceFailed { .. } => {}
        }
        Ok(())
    }

    fn write_down_hold(&self, hash: &PaymentHash, claimable: Msat, deadline: u32) -> Result<(), WalletError> {
        // LDK takes whatever leaves it its own 42 blocks, so a payer could choose a window too short for the work and have its
        // money back after it. Only a payment that comes is looked at: a held one was good, an event told again is no news.
        let asked = self.book.entry(hash)?.filter(|entry| entry.hold && entry.stage == Stage::Open);
        if asked.is_some_and(|entry| is_too_short(deadline, self.height(), entry.blocks)) {
            // The invoice stays open: whoever pays it as it asks is welcome.
            tracing::warn!(payment_hash = %hash, "A payment that can't be held for as long as was asked for goes back");
            return self.give_back(hash);
        }
        let held = claimable.saturating_add(self.skimmed(hash));
        if self.book.hold(hash, held, claimable, deadline)? {
            self.tell(hash)?;
            return self.check_deadlines();
        }
        tracing::info!(payment_hash = %hash, "A payment for a withdrawn invoice goes back");
        self.give_back(hash)
    }

    pub(super) fn write_down_paid(&self, hash: &PaymentHash, payment: &Payment) -> Result<(), WalletError> {
        let amount = self.node.payment(&payment_id(hash)).and_then(|payment| payment.amount_msat).map(msat);
        self.book.paid(hash, amount.unwrap_or_default(), payment, Timestamp::now())
    }

    /// Only what the node's own records say now counts: the event may be that of an earlier attempt.
    fn write_down_failure(&self, hash: &PaymentHash) -> Result<(), WalletError> {
        let _starting = self.paying.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = self.node.payment(&payment_id(hash)).is_some_and(|payment| {
            payment.direction == PaymentDirection::Outbound && payment.status == PaymentStatus::Failed
        });
        if failed { self.book.payment_failed(hash, Timestamp::now()) } else { Ok(()) }
    }

    /// Gives back what is too near to its deadline, and gives up claims that led to nothing.
    pub(super) fn check_deadlines(&self) -> Result<(), WalletError> {
        // The node fails a payment back at the deadline it told; what it could still claim then it would have said by the
        // time the payment itself expires, so many blocks later.
        // That is said only of blocks it has seen; to give back, what may have been found since is enough.
        let needed = self.estimated_height().saturating_add(SETTLE_MARGIN_BLOCKS);
        let over = self.book.expire_holds(needed, self.height().saturating_sub(HTLC_FAIL_BACK_BUFFER))?;
        for hash in over {
            tracing::warn!(payment_hash = %hash, "A held payment came too near to its deadline and goes back");
            self.give_back(&hash)?;
            self.tell(&hash)?;
            self.looked();
        }
        Ok(())
    }

    /// Lets the node fail a payment back; one it does not have is one that is back already.
    pub(super) fn give_back(&self, hash: &PaymentHash) -> Result<(), WalletError> {
        match self.node.bolt11_payment().fail_for_hash(ldk_hash(hash)) {
            Ok(()) | Err(ldk_node::NodeError::InvalidPaymentHash) => Ok(()),
            Err(error) => Err(translated(error)),
        }
    }

    /// After a start: what was to go back may not have gone, when the process died in between.
    pub(super) fn give_back_again(&self) -> Result<(), WalletError> {
        self.book.given_back_before(self.height())?.iter().try_for_each(|hash| self.give_back(hash))
    }

    fn keep_house(&self) -> Result<(), WalletError> {
        self.check_deadlines()?;
        let now = Timestamp::now();
        for hash in self.book.forget_unpaid(now - REMEMBER_UNPAID, SWEEP)? {
            // The node's list of payments would grow for ever; it finds the preimage without it.
            self.node.remove_payment(&payment_id(&hash)).map_err(translated)?;
        }
        if now.duration_since(self.opened_at) > DOUBT {
            self.end_doubts()?;
        }
        Ok(())
    }

    /// Payments of an earlier process of which the node knows nothing were never made.
    fn end_doubts(&self) -> Result<(), WalletError> {
        for hash in self.book.doubtful_payments(self.opened_at)? {
            let _starting = self.paying.lock().unwrap_or_else(PoisonError::into_inner);
            if self.node.payment(&payment_id(&hash)).is_none() && !self.has_on_the_way(&hash) {
                self.book.payment_failed(&hash, Timestamp::now())?;
                self.looked();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_blocks_on_the_way_are_no_fault_of_the_payers() {
        assert!(!is_too_short(1_020, 1_000, 20));
        assert!(!is_too_short(1_020, 1_000 + BLOCKS_ON_THE_WAY, 20));
        assert!(is_too_short(1_020, 1_001 + BLOCKS_ON_THE_WAY, 20));
        assert!(is_too_short(1_003, 1_000, 20), "LDK's own minimum");
    }
}
