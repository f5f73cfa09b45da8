//! Hold invoices on the node.
//!
//! LDK asks for 42 blocks at the last hop and gives a payment back 39 blocks before it expires: a window of three blocks,
//! and no setting. So the invoice it makes is signed again with more blocks ([`NodeKey::lengthen`](super::NodeKey)).
//! What it holds it gives back by itself at the deadline, without a word; a claim after that is answered "yes" and brings
//! nothing. So the height is watched ([`chain_clock`](super::chain_clock)), nothing is claimed near the deadline, and only "received" is settlement.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use ldk_node::lightning::chain::channelmonitor::HTLC_FAIL_BACK_BUFFER;
use ldk_node::lightning_types::payment::PaymentPreimage;
use zeroize::Zeroizing;

use super::book::Stage;
use super::{
    HoldInvoices, Invoice, InvoiceRequest, LdkWallet, PaymentHash, Shared, WalletError, bolt11, ldk_hash, translated,
};
use crate::wallet::hold_window;

/// How an attempt to take a held payment stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// The node was told to take it.
    Asked,
    /// It is ours.
    Taken,
}

fn refused(why: &str) -> WalletError {
    WalletError::Refused(why.to_owned())
}

fn given_back() -> WalletError {
    refused("the payment went back: it was cancelled or came too near to its deadline")
}

impl Shared {
    fn make_hold(
        &self,
        request: &InvoiceRequest,
        hash: &PaymentHash,
        hold_for: Duration,
    ) -> Result<Invoice, WalletError> {
        if hold_for > hold_window::longest(hold_window::MOST_BLOCKS) {
            return Err(refused("no payment can be held for that long"));
        }
        self.chain_answers()?;
        let blocks = hold_window::blocks(hold_for);
        let now = Timestamp::now();
        if let Some(known) = self.book.entry(hash)? {
            let same = known.hold
                && known.stage == Stage::Open
                && known.asked == request.amount
                && known.description.as_deref() == Some(request.description.as_str());
            if !same {
                return Err(refused("the payment hash is in use"));
            }
            if let Some(bolt11) = known.bolt11.filter(|_| now < known.expires_at && blocks <= known.blocks) {
                return bolt11::check_ours(request, Some(hash), &bolt11, self.network, now);
            }
        }
        let (made, description) = self.make(request, Some(hash))?;
        let long = self
            .key
            .lengthen(&made, description, blocks.saturating_add(HTLC_FAIL_BACK_BUFFER))
            .map_err(|error| WalletError::Internal(format!("the node's invoice can't be signed again: {error}")))?;
        let invoice = bolt11::check_ours(request, Some(hash), &long.to_string(), self.network, now)?;
        self.book.open_invoice(&invoice, &request.description, Some(blocks))?;
        Ok(invoice)
    }

    fn take(&self, hash: &PaymentHash, preimage: [u8; 32]) -> Result<Claim, WalletError> {
        self.check_deadlines()?;
        let entry = self.book.entry(hash)?.ok_or(WalletError::NotFound)?;
        match (entry.hold, entry.stage) {
            (false, _) => return Err(refused("it is no hold invoice")),
            (true, Stage::Settled) => return Ok(Claim::Taken),
            (true, Stage::Open) => return Err(refused("nothing is held")),
            (true, Stage::Cancelled) => return Err(given_back()),
            (true, Stage::Held | Stage::Claiming) => {}
        }
        // Written down first: from here on it can't be cancelled any more, whatever happens to this process.
        if !self.book.claim(hash)? {
            return Err(given_back());
        }
        let (claimable, preimage) = (entry.claimable.as_msat(), PaymentPreimage(preimage));
        self.node.bolt11_payment().claim_for_hash(ldk_hash(hash), claimable, preimage).map_err(|error| {
            // Something is wrong with the node's records, not with the caller: nobody knows.
            WalletError::Internal(format!("the node can't claim what it holds: {}", translated(error)))
        })?;
        Ok(Claim::Asked)
    }

    fn withdraw(&self, hash: &PaymentHash) -> Result<(), WalletError> {
        let entry = self.book.entry(hash)?.ok_or(WalletError::NotFound)?;
        if !entry.hold {
            return Err(refused("it is no hold invoice"));
        }
        // Written down first: a payment that comes now goes back.
        if !self.book.cancel(hash)? {
            return Err(refused("it is taken, or about to be"));
        }
        self.give_back(hash)?;
        if entry.stage != Stage::Cancelled {
            self.tell(hash)?;
        }
        Ok(())
    }
}

#[async_trait]
impl HoldInvoices for LdkWallet {
    fn longest_hold(&self) -> Duration {
        hold_window::longest(hold_window::MOST_BLOCKS)
    }

    async fn create_hold_invoice(
        &self,
        request: &InvoiceRequest,
        payment_hash: &PaymentHash,
        hold_for: Duration,
    ) -> Result<Invoice, WalletError> {
        let (request, hash) = (request.clone(), *payment_hash);
        self.run(move |shared| shared.make_hold(&request, &hash, hold_for)).await
    }

    async fn settle(&self, preimage: &[u8; 32]) -> Result<(), WalletError> {
        let hash = bolt11::hash_of(preimage);
        let preimage = Zeroizing::new(*preimage);
        if self.run(move |shared| shared.take(&hash, *preimage)).await? == Claim::Taken {
            return Ok(());
        }
        let ended = move |shared: &Shared| {
            Ok(match shared.book.entry(&hash)?.map(|entry| entry.stage) {
                Some(Stage::Settled) => Some(Ok(())),
                Some(Stage::Cancelled) => Some(Err(given_back())),
                _ => None,
            })
        };
        let doubt = || WalletError::Unreachable("the node does not say yet that the payment is ours".into());
        self.wait_for(self.shared.times.settle, ended).await?.unwrap_or_else(|| Err(doubt()))
    }

    async fn cancel(&self, payment_hash: &PaymentHash) -> Result<(), WalletError> {
        let hash = *payment_hash;
        self.run(move |shared| shared.withdraw(&hash)).await
    }
}
