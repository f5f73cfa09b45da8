//! Core Lightning, over clnrest.
//!
//! News is a long poll (`waitanyinvoice`) that goes on where it was. Hold invoices need the plugin `hold` of BoltzExchange:
//! it alone takes a payment hash whose preimage stays with us. Its own command makes invoices without description and
//! expiry, so the invoice is written here, signed by the node (`signinvoice`) and handed to the plugin (`injectholdinvoice`).
//! The plugin gives back by itself what nears its deadline.

mod history;
mod hold;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use futures::stream::{self, BoxStream};
use jiff::{SignedDuration, Timestamp};
use rand::RngCore;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::http::{
    Answer, Caller, Credential, Endpoint, Followed, HttpOptions, News, Outgoing, after_failure, followed_updates,
    hash_or_other, known_payment, told,
};
use super::{
    Balance, Capabilities, History, HoldInvoices, Invoice, InvoiceRequest, InvoiceState, InvoiceUpdate, Payer, Payment,
    PaymentHash, Wallet, WalletError, bolt11,
};
use crate::money::Msat;

/// How long the node waits for a payment before it says that none came.
const LONG_POLL: Duration = Duration::from_secs(60);

/// How much longer its answer is waited for.
const POLL_GRACE: Duration = Duration::from_secs(15);

/// How much sooner the node gives up paying than we give up waiting for it.
const PAY_GRACE: Duration = Duration::from_secs(30);

/// How long the node may go on trying to pay after it was asked, with plenty to spare: it is asked to give up before our
/// patience ends.
const TRYING: SignedDuration = SignedDuration::from_mins(15);

/// Core Lightning.
pub struct ClnWallet {
    inner: Arc<Inner>,
}

struct Inner {
    caller: Caller,
    network: Network,
    /// Whether the hold plugin is there.
    holds: bool,
    held: Arc<Followed>,
    /// The last payment told of (`pay_index`).
    told: AtomicU64,
}

impl fmt::Debug for ClnWallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { caller, network, holds, .. } = &*self.inner;
        f.debug_struct("ClnWallet")
            .field("caller", caller)
            .field("network", network)
            .field("holds", holds)
            .finish_non_exhaustive()
    }
}

impl ClnWallet {
    /// Connects, checks that the node is on `network`, and sees whether the hold plugin is there.
    ///
    /// # Errors
    /// [`WalletError::Unreachable`] when it does not answer (trying again is fine), [`WalletError::Refused`] when it is on
    /// another network, [`WalletError::Unauthorized`] when it does not take the rune.
    pub async fn connect(
        endpoint: Endpoint,
        rune: &SecretString,
        network: Network,
        options: HttpOptions,
    ) -> Result<Self, WalletError> {
        let caller = Caller::new(endpoint, Credential::header("rune", rune), options)?;
        let mut inner = Inner { caller, network, holds: false, held: Arc::default(), told: AtomicU64::new(0) };
        let info: wire::Info = inner.call("getinfo", &serde_json::json!({})).await?;
        match info.network() {
            Some(found) if found == network => {}
            Some(found) => return Err(WalletError::Refused(format!("the node is on {found}, not on {network}"))),
            None => return Err(WalletError::BadAnswer("it names no network".into())),
        }
        inner.holds = match inner.call::<wire::Help>("help", &serde_json::json!({})).await {
            Ok(help) => help.has(&hold::METHODS),
            // A rune that does not allow to ask is one for a node without.
            Err(WalletError::Unauthorized(_) | WalletError::Refused(_)) => false,
            Err(error) => return Err(error),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What became of a payment. While the node still tries, it may say "failed" between two attempts and succeed with the
    /// next: so only a payment begun longer ago than any trying lasts is believed to have failed.
    async fn ended(&self, hash: &PaymentHash) -> Result<Outgoing, WalletError> {
        self.outgoing(hash, Timestamp::now() - TRYING).await
    }

    /// What became of a payment; of those that failed, those begun after `tried_until` may still be tried.
    async fn outgoing(&self, hash: &PaymentHash, tried_until: Timestamp) -> Result<Outgoing, WalletError> {
        let found: wire::Pays = self.inner.call("listpays", &wire::ByHash { payment_hash: *hash }).await?;
        let mut known = Outgoing::Unknown;
        for attempt in &found.pays {
            hash_or_other(&attempt.payment_hash, hash)?;
            // One that succeeded decides, then one that still may.
            match (attempt.outgoing()?, &known) {
                (made @ Outgoing::Made(_), _) => return Ok(made),
                (Outgoing::Failed(_), _) if attempt.began_at() > tried_until => known = Outgoing::UnderWay,
                (Outgoing::UnderWay, _) => known = Outgoing::UnderWay,
                (failed, Outgoing::Unknown) => known = failed,
                _ => {}
            }
        }
        Ok(known)
    }

    async fn send(&self, invoice: &bolt11::PayableInvoice, max_fee: Msat) -> Result<Payment, WalletError> {
        let patience = self.inner.caller.options().payment_timeout;
        let retry_for = patience.saturating_sub(PAY_GRACE).as_secs().max(1);
        let body = wire::Pay { bolt11: &invoice.bolt11, maxfee: max_fee, retry_for };
        let paid: wire::Paid = wire::read(&self.inner.caller.post_within("v1/pay", &body, patience).await?)?;
        hash_or_other(&paid.payment_hash, &invoice.payment_hash)?;
        match paid.outgoing()? {
            Outgoing::Made(payment) => Ok(payment),
            Outgoing::Failed(why) => Err(WalletError::PaymentFailed(why)),
            Outgoing::Unknown | Outgoing::UnderWay => {
                Err(WalletError::Internal("the payment is under way still".into()))
            }
        }
    }
}

impl Inner {
    async fn ask(&self, method: &str, params: &impl Serialize) -> Result<Answer, WalletError> {
        self.caller.post(&format!("v1/{method}"), params).await
    }

    async fn call<T: for<'de> Deserialize<'de>>(
        &self,
        method: &str,
        params: &impl Serialize,
    ) -> Result<T, WalletError> {
        wire::read(&self.ask(method, params).await?)
    }

    async fn invoice(&self, hash: &PaymentHash) -> Result<wire::Invoice, WalletError> {
        let found: wire::Invoices = self.call("listinvoices", &wire::ByHash { payment_hash: *hash }).await?;
        let invoice = found.invoices.into_iter().next().ok_or(WalletError::NotFound)?;
        hash_or_other(&invoice.payment_hash, hash)?;
        Ok(invoice)
    }

    async fn standing(&self, hash: &PaymentHash) -> Result<InvoiceState, WalletError> {
        match self.invoice(hash).await {
            Ok(invoice) => invoice.standing(Timestamp::now()),
            Err(WalletError::NotFound) if self.holds => {
                let state = self.hold_invoice(hash).await?.standing(Timestamp::now())?;
                match state {
                    InvoiceState::Open | InvoiceState::Held { .. } => self.held.add(*hash),
                    _ => self.held.remove(hash),
                }
                Ok(state)
            }
            Err(error) => Err(error),
        }
    }

    /// The next payment after `last`, or `None` when none comes in time. Any that came before is told at once.
    async fn payment_after(&self, last: u64, wait: Duration) -> Result<Option<wire::Invoice>, WalletError> {
        let body = wire::WaitAny { lastpay_index: last, timeout: wait.as_secs() };
        let patience = wait.saturating_add(POLL_GRACE);
        let answer = self.caller.post_within("v1/waitanyinvoice", &body, patience).await?;
        if wire::nothing_came(&answer) { Ok(None) } else { wire::read(&answer).map(Some) }
    }

    /// The index of the last payment there was: found by doubling and halving, since nothing tells it.
    async fn last_payment(&self) -> Result<u64, WalletError> {
        let later =
            async |index: u64| Ok::<bool, WalletError>(self.payment_after(index, Duration::ZERO).await?.is_some());
        // There is one after `low`, and none after `high`.
        let (mut low, mut high) = (0_u64, 1_u64);
        if !later(0).await? {
            return Ok(0);
        }
        while high < u64::MAX / 2 && later(high).await? {
            (low, high) = (high, high * 2);
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if later(middle).await? { low = middle } else { high = middle }
        }
        Ok(high)
    }
}

/// Payments after the last one told of.
fn payments(inner: Arc<Inner>) -> BoxStream<'static, News> {
    Box::pin(stream::unfold(Some(inner), |inner| async move {
        let inner = inner?;
        loop {
            let last = inner.told.load(Ordering::Relaxed);
            let paid = match inner.payment_after(last, LONG_POLL).await {
                Ok(None) => continue,
                Ok(Some(paid)) => paid,
                Err(error) => return Some((Err(error), None)),
            };
            let Some(index) = paid.pay_index.filter(|index| *index > last) else {
                return Some((Err(WalletError::BadAnswer("its payments are out of order".into())), None));
            };
            inner.told.store(index, Ordering::Relaxed);
            return Some(match paid.standing(Timestamp::now()) {
                Ok(state) => (Ok(InvoiceUpdate { payment_hash: paid.payment_hash, state }), Some(inner)),
                Err(error) => (Err(error), None),
            });
        }
    }))
}

#[async_trait]
impl Wallet for ClnWallet {
    fn capabilities(&self) -> Capabilities {
        Capabilities { hold_invoices: self.inner.holds, pay: true, whole_sats: false }
    }

    fn name(&self) -> &str {
        "cln"
    }

    async fn create_invoice(&self, request: &InvoiceRequest) -> Result<Invoice, WalletError> {
        let mut unique = [0; 16];
        rand::thread_rng().fill_bytes(&mut unique);
        let body = wire::NewInvoice {
            amount_msat: request.amount,
            label: format!("coinop-{}", hex::encode(unique)),
            description: &request.description,
            expiry: request.expiry.as_secs(),
        };
        let made: wire::Made = self.inner.call("invoice", &body).await?;
        bolt11::check_ours(request, None, &made.bolt11, self.inner.network, Timestamp::now())
    }

    async fn look_up(&self, payment_hash: &PaymentHash) -> Result<InvoiceState, WalletError> {
        self.inner.standing(payment_hash).await
    }

    async fn updates(&self) -> Result<BoxStream<'static, InvoiceUpdate>, WalletError> {
        if self.inner.told.load(Ordering::Relaxed) == 0 {
            let last = self.inner.last_payment().await?;
            self.inner.told.fetch_max(last, Ordering::Relaxed);
        }
        let inner = Arc::clone(&self.inner);
        let held = followed_updates(Arc::clone(&self.inner.held), move |hash| hold::changes(Arc::clone(&inner), hash));
        Ok(told("cln", stream::select(payments(Arc::clone(&self.inner)), held)))
    }

    async fn balance(&self) -> Result<Option<Balance>, WalletError> {
        let channels: wire::Channels = self.inner.call("listpeerchannels", &serde_json::json!({})).await?;
        // The rune need not allow it.
        let funds = self.inner.ask("listfunds", &serde_json::json!({})).await?;
        let on_chain = wire::read::<wire::Funds>(&funds).ok().map(|funds| funds.on_chain());
        let (spendable, receivable) = channels.room();
        Ok(Some(Balance { spendable, receivable: Some(receivable), on_chain }))
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }

    fn hold_invoices(&self) -> Option<&dyn HoldInvoices> {
        self.inner.holds.then_some(self)
    }

    fn payer(&self) -> Option<&dyn Payer> {
        Some(self)
    }
}

#[async_trait]
impl Payer for ClnWallet {
    async fn pay(&self, bolt11: &str, max_fee: Msat) -> Result<Payment, WalletError> {
        let invoice = bolt11::read_for_paying(bolt11, self.inner.network, Timestamp::now())?;
        match self.send(&invoice, max_fee).await {
            Ok(payment) => Ok(payment),
            Err(error) => after_failure(error, self.outgoing(&invoice.payment_hash, Timestamp::MAX)).await,
        }
    }

    async fn payment(&self, payment_hash: &PaymentHash) -> Result<Option<Payment>, WalletError> {
        known_payment(self.ended(payment_hash).await?)
    }
}
