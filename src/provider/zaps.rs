//! Zaps as payment (NIP-57): which receipts count, and for which job.
//!
//! A receipt is only a claim. It counts when all of this holds; the order is cheapest first, and nothing is asked of the
//! wallet before the claim is worth it:
//!
//! 1. it is signed by the key that our own lightning address announces (and its zap request is real, which `nip90` checked);
//! 2. its invoice is of our network, and commits to the zap request; the request names no other amount;
//! 3. the zapped event is one of ours about a job: an offer or a result;
//! 4. the payment hash was not counted before, for this job or another;
//! 5. where our own wallet knows the invoice, it says that it is paid.
//!
//! What the money then does is [`crate::job::transition`]'s.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use super::{Provider, lock};
use crate::job::Purse;
use crate::job::id::{NostrKey, PaymentHash};
use crate::lnurl::{LnurlClient, LnurlError, Target};
use crate::money::Msat;
use crate::nip90::ZapReceipt;
use crate::store::{StoreError, ZapRow};
use crate::wallet::{InvoiceState, WalletError, bolt11};

/// Receipts being weighed at once: each may wait for the wallet. Further ones wait in the relays' queue.
const WEIGHED_AT_ONCE: usize = 16;

/// Receipts kept until the wallet says whether they are paid. Each was signed by our own address's service.
const MOST_UNDECIDED: usize = 1_024;

/// How zaps reach us.
#[derive(Debug, Clone)]
pub struct ZapAddress {
    /// Our lightning address, as the profile says it.
    pub address: Target,
    /// How it is asked.
    pub lnurl: LnurlClient,
}

/// What a provider knows about zaps between two of them.
#[derive(Debug)]
pub(super) struct ZapDesk {
    /// The key our address announces; none before it was asked.
    signer: Mutex<Option<NostrKey>>,
    undecided: Mutex<VecDeque<(Timestamp, ZapReceipt)>>,
    places: Arc<Semaphore>,
}

impl Default for ZapDesk {
    fn default() -> Self {
        Self {
            signer: Mutex::default(),
            undecided: Mutex::default(),
            places: Arc::new(Semaphore::new(WEIGHED_AT_ONCE)),
        }
    }
}

/// What came of weighing a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It was counted.
    Counted,
    /// The wallet could not say yet.
    AskAgain,
    /// It is no payment, whoever asks.
    Never(&'static str),
}

impl Provider {
    /// Asks our lightning address who signs its receipts, and believes that key from now on. `None` when no address is
    /// configured, or its service does no zaps.
    ///
    /// # Errors
    /// [`LnurlError`]; the key known so far stays believed.
    pub async fn learn_zap_signer(&self) -> Result<Option<NostrKey>, LnurlError> {
        let Some(ours) = &self.parts.zaps else { return Ok(None) };
        let endpoint = ours.lnurl.resolve(&ours.address).await?;
        *lock(&self.zap_desk.signer) = endpoint.zap_signer;
        Ok(endpoint.zap_signer)
    }

    /// Takes a receipt the relays brought. Waits while many are being weighed.
    pub(super) async fn take_zap(self: &Arc<Self>, receipt: ZapReceipt) {
        let Ok(place) = Arc::clone(&self.zap_desk.places).acquire_owned().await else { return };
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            tokio::select! {
                () = this.weigh_or_keep(this.parts.clock.now(), receipt) => {}
                // The relays still have it, and the next start asks for it again.
                () = this.stop.cancelled() => {}
            }
            drop(place);
        });
    }

    /// Weighs once more what could not be decided before. Returns how much still can't.
    pub async fn weigh_undecided(self: &Arc<Self>) -> usize {
        let since = SignedDuration::try_from(self.settings.late_payment_window).unwrap_or(SignedDuration::MAX);
        let oldest = self.parts.clock.now().checked_sub(since).unwrap_or(Timestamp::MIN);
        let undecided = std::mem::take(&mut *lock(&self.zap_desk.undecided));
        for (first_seen, receipt) in undecided {
            if first_seen < oldest {
                warn!(receipt = %receipt.id, "Gave up a zap that the wallet never called paid");
            } else {
                self.weigh_or_keep(first_seen, receipt).await;
            }
        }
        lock(&self.zap_desk.undecided).len()
    }

    async fn weigh_or_keep(self: &Arc<Self>, first_seen: Timestamp, receipt: ZapReceipt) {
        match self.weigh(&receipt).await {
            Ok(Verdict::Counted) => return,
            Ok(Verdict::Never(why)) => return info!(receipt = %receipt.id, "A zap does not count: {why}"),
            Ok(Verdict::AskAgain) => debug!(receipt = %receipt.id, "A zap is not decided yet"),
            Err(problem) => warn!(%problem, receipt = %receipt.id, "A zap could not be recorded; it will be again"),
        }
        let mut undecided = lock(&self.zap_desk.undecided);
        if undecided.len() == MOST_UNDECIDED {
            warn!("Too many zaps wait for the wallet's word; the oldest is dropped");
            undecided.pop_front();
        }
        undecided.push_back((first_seen, receipt));
    }

    async fn weigh(self: &Arc<Self>, receipt: &ZapReceipt) -> Result<Verdict, StoreError> {
        let Some(ours) = &self.parts.zaps else { return Ok(Verdict::Never("zaps are not taken as payment")) };
        if *lock(&self.zap_desk.signer) != Some(receipt.signer) {
            return Ok(Verdict::Never("its signer is not the one our lightning address announces"));
        }
        let Ok(read) = bolt11::read_committed(&receipt.bolt11, &receipt.request, ours.lnurl.network()) else {
            return Ok(Verdict::Never("its invoice is not one of our network that commits to the zap request"));
        };
        if receipt.amount.is_some_and(|amount| amount != read.amount) {
            return Ok(Verdict::Never("its invoice is over another amount than the zap request"));
        }
        let store = &self.parts.store;
        let Some(job) = store.job_of_event(receipt.zapped).await? else {
            return Ok(Verdict::Never("the zapped event is no offer or result of ours"));
        };
        if store.knows_zap(read.payment_hash).await? {
            return Ok(Verdict::Never("it was counted before"));
        }
        let (amount, purse) = match self.purse_of(&read.payment_hash, read.amount).await {
            Ok(paid) => paid,
            Err(verdict) => return Ok(verdict),
        };
        let at = self.parts.clock.now();
        let row = ZapRow { payment_hash: read.payment_hash, receipt: receipt.id, job, amount, purse, at };
        match store.count_zap(row).await {
            Ok(Some(advanced)) => {
                info!(job.id = %job, amount_msat = amount.as_msat(), "A zap of {amount} arrived for job {job}");
                self.follow_up(advanced, "zapped").await;
                Ok(Verdict::Counted)
            }
            Ok(None) => Ok(Verdict::Never("it was counted before")),
            Err(StoreError::Illegal { .. }) => Ok(Verdict::Never("the job asks for no money, so it is a gift")),
            Err(StoreError::NoSuchJob(_)) => Ok(Verdict::Never("its job is no longer kept")),
            Err(problem) => Err(problem),
        }
    }

    /// Where a zap's money is. When our own wallet knows the invoice, what the wallet says counts and nothing else.
    async fn purse_of(&self, hash: &PaymentHash, amount: Msat) -> Result<(Msat, Purse), Verdict> {
        let Some(wallet) = &self.parts.wallet else { return Ok((amount, Purse::Address)) };
        match wallet.look_up(hash).await {
            Ok(InvoiceState::Settled { amount, .. }) => Ok((amount, Purse::Wallet)),
            Err(WalletError::NotFound) => Ok((amount, Purse::Address)),
            Ok(InvoiceState::Cancelled) => Err(Verdict::Never("our wallet gave its money back")),
            // Open or held: said to be paid before it is. Expired: it may still settle late.
            Ok(InvoiceState::Open | InvoiceState::Held { .. } | InvoiceState::Expired) | Err(_) => {
                Err(Verdict::AskAgain)
            }
        }
    }
}
