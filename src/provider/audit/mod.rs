//! Do the books say what the wallet says? Compared, never corrected: what is missing is fed to the normal way of a payment,
//! and everything else is for a person to look at.
//!
//! [`compare()`] is pure. [`audit`] asks both sides; the wallet's [`History`](crate::wallet::History) where it tells one, else
//! look-ups of every invoice we know of. What a history does not list is looked up before it is reported, which tells a
//! payment that never came from a wallet that contradicts itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Provider;
use crate::job::id::PaymentHash;
use crate::ledger::{Refund, RefundState};
use crate::money::Msat;
use crate::store::{Store, StoreError};
use crate::wallet::{InvoiceState, InvoiceUpdate, Received, Wallet, WalletError};

mod compare;

pub use compare::{BookedRefund, Difference, DifferenceKind, Owner, SettledInvoice, compare, compare_refunds};

/// How the descriptions of our invoices begin: what tells them from others of the same wallet.
pub const OUR_INVOICES: &str = "coinop ";

/// How much further than the late payment window a running provider looks back.
const LOOK_BACK: Duration = Duration::from_secs(24 * 60 * 60);

/// How much earlier than the time asked for the wallet's history is read: an invoice is made some time before it is settled,
/// wallets list by either, and the books write a payment down a little later than the wallet.
const SLACK: SignedDuration = SignedDuration::from_hours(3 * 24);

/// Look-ups under way at once.
const LOOK_UPS_AT_ONCE: usize = 8;

/// Unpaid invoices looked up at most, newest first, of a wallet without a history: strangers decide how many there are.
const MOST_UNPAID: u32 = 2_000;

/// Differences logged one by one.
const MOST_WARNINGS: usize = 20;

/// Where the wallet's side comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WalletSide {
    /// The wallet's own list of what came.
    History,
    /// Look-ups of the invoices we know of: what else came can't be seen.
    LookUps,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// From when on both sides were compared; `None`: from the beginning.
    pub since: Option<Timestamp>,
    /// Where the wallet's side comes from.
    pub wallet_side: WalletSide,
    /// Payments in the books that were compared.
    pub booked: usize,
    /// Settled invoices of the wallet that were compared.
    pub settled: usize,
    /// Invoices the wallet gave no answer about: nothing is known of them.
    pub unanswered: usize,
    /// What differs.
    pub differences: Vec<Difference>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The books can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The wallet does not tell.
    #[error("the wallet does not tell what it received: {0}")]
    Wallet(#[from] WalletError),
}

/// Compares the books with the wallet, from `since` on.
///
/// # Errors
/// [`AuditError`]: then nothing is known.
pub async fn audit(store: &Store, wallet: &dyn Wallet, since: Option<Timestamp>) -> Result<AuditReport, AuditError> {
    let from = since.unwrap_or(Timestamp::UNIX_EPOCH).max(Timestamp::UNIX_EPOCH);
    let read_from = from.checked_sub(SLACK).unwrap_or(Timestamp::UNIX_EPOCH).max(Timestamp::UNIX_EPOCH);
    let mut look_ups = LookUps { store, wallet, unanswered: BTreeSet::new() };
    // The wallet first: what it has by then was, or is being, booked.
    let (wallet_side, settled, booked) = match wallet.history() {
        Some(history) => {
            let received = history.received(read_from).await?;
            let booked = store.booked_payments(from).await?;
            let paid: BTreeSet<PaymentHash> = booked.iter().filter_map(|payment| payment.payment_hash).collect();
            let listed: BTreeSet<PaymentHash> = received.iter().map(|one| one.payment_hash).collect();
            let mut settled = Vec::new();
            for one in received {
                // What has no time may be new.
                let due = one.at.is_none_or(|at| at >= from) || paid.contains(&one.payment_hash);
                if due {
                    settled.push(owned(store, one).await?);
                }
            }
            settled.extend(look_ups.settled(paid.difference(&listed).copied().collect(), false).await?);
            (WalletSide::History, settled, booked)
        }
        None => {
            let booked = store.booked_payments(from).await?;
            let unbooked = store.unbooked_invoices(from, MOST_UNPAID).await?;
            let hashes = booked.iter().filter_map(|payment| payment.payment_hash);
            let hashes = hashes.chain(unbooked.into_iter().map(|(_, hash)| hash)).collect();
            (WalletSide::LookUps, look_ups.settled(hashes, true).await?, booked)
        }
    };
    let unanswered = look_ups.unanswered;
    let ours: Vec<SettledInvoice> = settled.into_iter().filter(|invoice| invoice.owner != Owner::Foreign).collect();
    let mut differences = compare(&booked, &ours);
    // Of what the wallet gave no answer about, nothing is said.
    differences.retain(|difference| difference.payment_hash.is_none_or(|hash| !unanswered.contains(&hash)));
    let refunds = refunds(store, from).await?;
    if let (false, Some(history)) = (refunds.is_empty(), wallet.history()) {
        differences.extend(compare_refunds(&refunds, &history.sent(read_from).await?));
    }
    differences.sort_by_key(|difference| (difference.kind, difference.at));
    let (booked, settled) = (booked.len(), ours.len());
    Ok(AuditReport { since, wallet_side, booked, settled, unanswered: unanswered.len(), differences })
}

/// Whose a received payment is.
async fn owned(store: &Store, one: Received) -> Result<SettledInvoice, StoreError> {
    let owner = match store.booked_of_invoice(one.payment_hash).await? {
        Some((job, booked)) => Owner::Job(job, booked),
        None if one.description.is_some_and(|said| said.starts_with(OUR_INVOICES)) => Owner::Nobody,
        None => Owner::Foreign,
    };
    Ok(SettledInvoice { payment_hash: one.payment_hash, amount: one.amount, at: one.at, owner, listed: true })
}

/// Refunds booked at `since` or later that are paid, or failed for certain.
async fn refunds(store: &Store, since: Timestamp) -> Result<Vec<BookedRefund>, StoreError> {
    let booked = store.refunds().await?.into_iter().filter(|refund| refund.at >= since);
    Ok(booked
        .filter_map(|Refund { payment_hash, amount, state, .. }| match state {
            RefundState::Paid => Some(BookedRefund { payment_hash, amount, paid: true }),
            RefundState::Failed => Some(BookedRefund { payment_hash, amount, paid: false }),
            RefundState::Reserved | RefundState::Paying => None,
        })
        .collect())
}

/// Asks about single invoices.
struct LookUps<'a> {
    store: &'a Store,
    wallet: &'a dyn Wallet,
    /// Those the wallet gave no answer about.
    unanswered: BTreeSet<PaymentHash>,
}

impl LookUps<'_> {
    /// Those of these invoices that are settled, by the wallet's word on each.
    async fn settled(&mut self, hashes: Vec<PaymentHash>, listed: bool) -> Result<Vec<SettledInvoice>, StoreError> {
        let wallet = self.wallet;
        let mut answers = stream::iter(hashes)
            .map(|hash| async move { (hash, wallet.look_up(&hash).await) })
            .buffer_unordered(LOOK_UPS_AT_ONCE);
        let mut settled = Vec::new();
        while let Some((payment_hash, answer)) = answers.next().await {
            match answer {
                Ok(InvoiceState::Settled { amount, at }) => {
                    let received = Received { payment_hash, amount, at, description: None };
                    settled.push(SettledInvoice { listed, ..owned(self.store, received).await? });
                }
                Ok(_) | Err(WalletError::NotFound) => {}
                Err(_) => {
                    self.unanswered.insert(payment_hash);
                }
            }
        }
        Ok(settled)
    }
}

impl Provider {
    /// Compares the books with the wallet now and every [`audit_every`](super::Settings::audit_every), until `shutdown`.
    pub async fn watch_books(self: Arc<Self>, shutdown: CancellationToken) {
        let (Some(wallet), false) = (self.parts.wallet.clone(), self.settings.audit_every.is_zero()) else {
            return shutdown.cancelled().await;
        };
        let mut tick = tokio::time::interval(self.settings.audit_every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let audited = async {
                tick.tick().await;
                self.compare_books(wallet.as_ref()).await
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                audited = audited => if let Err(problem) = audited {
                    warn!(%problem, "The books could not be compared with the wallet; they will be again");
                },
            }
        }
    }

    /// Compares the books of the last days with the wallet. A settled invoice nobody told of is honoured; the rest is
    /// logged.
    ///
    /// # Errors
    /// [`AuditError`].
    pub async fn compare_books(self: &Arc<Self>, wallet: &dyn Wallet) -> Result<AuditReport, AuditError> {
        let back = SignedDuration::try_from(self.settings.late_payment_window.saturating_add(LOOK_BACK)).ok();
        let since = back.and_then(|back| self.parts.clock.now().checked_sub(back).ok());
        let since = since.unwrap_or(Timestamp::UNIX_EPOCH);
        let mut report = audit(&self.parts.store, wallet, Some(since)).await?;
        let mut honoured = Vec::new();
        for (place, difference) in report.differences.iter().enumerate() {
            let (DifferenceKind::Unbooked, Some(payment_hash), Some(amount)) =
                (difference.kind, difference.payment_hash, difference.in_wallet)
            else {
                continue;
            };
            let state = InvoiceState::Settled { amount, at: difference.at };
            self.hear(InvoiceUpdate { payment_hash, state }).await?;
            if let Some((job, Some(booked))) = self.parts.store.booked_of_invoice(payment_hash).await? {
                info!(job.id = %job, "A payment of {booked} for job {job}, of which there was no news, is booked");
                honoured.push(place);
            }
        }
        for place in honoured.into_iter().rev() {
            report.differences.remove(place);
        }
        for difference in report.differences.iter().take(MOST_WARNINGS) {
            let job = difference.job.map(|job| job.to_string()).unwrap_or_default();
            let amount = |side: Option<Msat>| side.map_or_else(|| "nothing".to_owned(), |amount| amount.to_string());
            warn!(
                kind = difference.kind.word(),
                job.id = job,
                booked = amount(difference.booked),
                in_wallet = amount(difference.in_wallet),
                "The books and the wallet differ; see 'coinop ledger audit'"
            );
        }
        if report.differences.len() > MOST_WARNINGS {
            warn!("The books and the wallet differ in {} places in all", report.differences.len());
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobId;
    use crate::store::BookedPayment;

    #[test]
    fn a_report_goes_over_a_wire_and_back() {
        let booked =
            BookedPayment { job: JobId([1; 32]), payment_hash: None, amount: Msat::sat(21), at: Timestamp::UNIX_EPOCH };
        let report = AuditReport {
            since: None,
            wallet_side: WalletSide::History,
            booked: 1,
            settled: 0,
            unanswered: 0,
            differences: compare(&[booked], &[]),
        };
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains("\"kind\":\"unpaid\"") && text.contains("\"booked_msat\":21000"), "{text}");
        assert_eq!(serde_json::from_str::<AuditReport>(&text).unwrap(), report);
    }
}
