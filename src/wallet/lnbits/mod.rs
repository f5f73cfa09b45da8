//! LNbits, over its HTTP interface: somebody's accounts over somebody's node.
//!
//! Invoices are asked for in whole satoshis. There are no hold invoices here even where its source makes them: LNbits takes
//! them with neither expiry nor blocks and never says that one is held. It tells the amount of the invoice, not of the
//! payment. Its websocket says that something was paid; what, is looked up.

mod wire;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::Network;
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};

use super::http::{
    Caller, Credential, Endpoint, HttpOptions, Outgoing, after_failure, hash_or_other, hints, known_payment,
    until_error,
};
use super::{
    Balance, Capabilities, History, Invoice, InvoiceRequest, InvoiceState, InvoiceUpdate, Payer, Payment, PaymentHash,
    Received, Sent, Wallet, WalletError, bolt11,
};
use crate::money::Msat;

/// Its payments.
const PAYMENTS: &str = "api/v1/payments";

/// How many entries of its history are asked for at once.
const PAGE: u64 = 100;

/// Pages looked through at most: a bound against a server that never ends.
const MOST_PAGES: u64 = 5_000;

/// How long before its settlement an invoice may have been made. Histories are ordered by when things began.
const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(31 * 24);

/// A wallet of LNbits.
pub struct LnbitsWallet {
    inner: Arc<Inner>,
}

struct Inner {
    caller: Caller,
    /// The path of its websocket. A secret: the key is in it.
    news: SecretString,
    /// The network invoices are checked against: LNbits names none.
    network: Network,
}

impl fmt::Debug for LnbitsWallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { caller, network, .. } = &*self.inner;
        f.debug_struct("LnbitsWallet").field("caller", caller).field("network", network).finish_non_exhaustive()
    }
}

impl LnbitsWallet {
    /// Connects. The admin key pays too, the invoice key only receives.
    ///
    /// # Errors
    /// [`WalletError::Unreachable`] when it does not answer (trying again is fine), [`WalletError::Unauthorized`] when it
    /// does not take the key.
    pub async fn connect(
        endpoint: Endpoint,
        key: &SecretString,
        network: Network,
        options: HttpOptions,
    ) -> Result<Self, WalletError> {
        if key.expose_secret().bytes().any(|byte| !byte.is_ascii_alphanumeric()) {
            return Err(WalletError::Unauthorized("the key holds characters no key has".into()));
        }
        let caller = Caller::new(endpoint, Credential::header("x-api-key", key), options)?;
        let _: wire::Purse = wire::read(&caller.get("api/v1/wallet", &[]).await?)?;
        let news = SecretString::from(format!("api/v1/ws/{}", key.expose_secret()));
        Ok(Self { inner: Arc::new(Inner { caller, news, network }) })
    }

    async fn outgoing(&self, hash: &PaymentHash) -> Result<Outgoing, WalletError> {
        match self.inner.payment(hash).await {
            Ok(known) => known.outgoing(hash),
            Err(WalletError::NotFound) => Ok(Outgoing::Unknown),
            Err(error) => Err(error),
        }
    }

    /// What LNbits would set aside for fees.
    async fn fee_reserve(&self, invoice: &bolt11::PayableInvoice) -> Result<Msat, WalletError> {
        let path = format!("{PAYMENTS}/fee-reserve");
        let answer = self.inner.caller.get(&path, &[("invoice", invoice.bolt11.as_str())]).await?;
        Ok(wire::read::<wire::FeeReserve>(&answer)?.fee_reserve)
    }

    async fn send(&self, invoice: &bolt11::PayableInvoice) -> Result<Payment, WalletError> {
        let patience = self.inner.caller.options().payment_timeout;
        let body = wire::Pay { out: true, bolt11: &invoice.bolt11 };
        let taken: wire::Taken = wire::read(&self.inner.caller.post_within(PAYMENTS, &body, patience).await?)?;
        hash_or_other(&taken.payment_hash, &invoice.payment_hash)?;
        // Taken on is not made: it may be under way still, and not every version shows the proof here.
        match self.outgoing(&invoice.payment_hash).await? {
            Outgoing::Made(payment) => Ok(payment),
            Outgoing::Failed(why) => Err(WalletError::PaymentFailed(why)),
            Outgoing::Unknown | Outgoing::UnderWay => {
                Err(WalletError::Internal("the payment is under way still".into()))
            }
        }
    }

    async fn page(&self, page: u64) -> Result<Vec<wire::Details>, WalletError> {
        let (limit, offset) = (PAGE.to_string(), (page * PAGE).to_string());
        let query = [("limit", limit.as_str()), ("offset", offset.as_str()), ("sortby", "time"), ("direction", "desc")];
        let found: wire::Page = wire::read(&self.inner.caller.get(&format!("{PAYMENTS}/paginated"), &query).await?)?;
        Ok(found.data)
    }

    /// What succeeded at `since` or later, in or out.
    async fn succeeded(&self, since: Timestamp) -> Result<Vec<wire::Details>, WalletError> {
        let began = since.checked_sub(LONGEST_LIFE).unwrap_or(Timestamp::MIN);
        let mut found: Vec<wire::Details> = Vec::new();
        for page in 0..MOST_PAGES {
            let entries = self.page(page).await?;
            let older = entries.iter().any(|entry| entry.begun().is_some_and(|at| at < began));
            let last = older || (entries.len() as u64) < PAGE;
            let recent = |entry: &wire::Details| entry.ended().is_none_or(|at| at >= since);
            found.extend(entries.into_iter().filter(|entry| entry.succeeded() && recent(entry)));
            if last {
                // What came in between moves a page's edge: an entry may have been seen on both sides.
                found.sort_by_key(|entry| (entry.payment_hash, entry.amount > 0));
                found.dedup_by_key(|entry| (entry.payment_hash, entry.amount > 0));
                return Ok(found);
            }
        }
        Err(WalletError::BadAnswer("its history has no end".into()))
    }
}

impl Inner {
    async fn payment(&self, hash: &PaymentHash) -> Result<wire::Looked, WalletError> {
        let found: wire::Looked = wire::read(&self.caller.get(&format!("{PAYMENTS}/{hash}"), &[]).await?)?;
        hash_or_other(&found.details()?.payment_hash, hash)?;
        Ok(found)
    }
}

#[async_trait]
impl Wallet for LnbitsWallet {
    fn capabilities(&self) -> Capabilities {
        Capabilities { hold_invoices: false, pay: true, whole_sats: true }
    }

    fn name(&self) -> &str {
        "lnbits"
    }

    async fn create_invoice(&self, request: &InvoiceRequest) -> Result<Invoice, WalletError> {
        if request.amount != request.amount.round_up_to_sat() {
            return Err(WalletError::Refused("LNbits is asked for whole satoshis only".into()));
        }
        let body = wire::NewInvoice {
            out: false,
            amount: request.amount.as_msat() / 1_000,
            unit: "sat",
            memo: &request.description,
            expiry: request.expiry.as_secs(),
        };
        let made: wire::Made = wire::read(&self.inner.caller.post(PAYMENTS, &body).await?)?;
        let invoice = bolt11::check_ours(request, None, made.invoice()?, self.inner.network, Timestamp::now())?;
        if made.payment_hash != invoice.payment_hash {
            return Err(WalletError::BadInvoice("its payment hash is not the one the wallet says".into()));
        }
        Ok(invoice)
    }

    async fn look_up(&self, payment_hash: &PaymentHash) -> Result<InvoiceState, WalletError> {
        self.inner.payment(payment_hash).await?.standing(Timestamp::now())
    }

    async fn updates(&self) -> Result<BoxStream<'static, InvoiceUpdate>, WalletError> {
        let named = hints(&self.inner.caller, self.inner.news.expose_secret(), false, wire::hint).await?;
        let inner = Arc::clone(&self.inner);
        let looked_up = named.filter_map(move |payment_hash| {
            let inner = Arc::clone(&inner);
            async move {
                match inner.payment(&payment_hash).await.and_then(|known| known.standing(Timestamp::now())) {
                    Ok(state) => Some(Ok(InvoiceUpdate { payment_hash, state })),
                    // Not an invoice: a payment of ours.
                    Err(WalletError::NotFound) => None,
                    Err(error) => Some(Err(error)),
                }
            }
        });
        Ok(until_error("lnbits", looked_up))
    }

    async fn balance(&self) -> Result<Option<Balance>, WalletError> {
        let told: wire::Purse = wire::read(&self.inner.caller.get("api/v1/wallet", &[]).await?)?;
        Ok(Some(Balance { spendable: told.spendable(), receivable: None, on_chain: None }))
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }

    fn payer(&self) -> Option<&dyn Payer> {
        Some(self)
    }
}

#[async_trait]
impl Payer for LnbitsWallet {
    /// LNbits can't be told a limit, but tells the one it would give its node: what that exceeds `max_fee` by is not paid
    /// at all.
    async fn pay(&self, bolt11: &str, max_fee: Msat) -> Result<Payment, WalletError> {
        let invoice = bolt11::read_for_paying(bolt11, self.inner.network, Timestamp::now())?;
        let reserve = self.fee_reserve(&invoice).await?;
        if reserve > max_fee {
            return Err(WalletError::Refused(format!("LNbits may take {reserve} in fees, more than the fee limit")));
        }
        match self.send(&invoice).await {
            Ok(payment) => Ok(payment),
            Err(error) => after_failure(error, self.outgoing(&invoice.payment_hash)).await,
        }
    }

    async fn payment(&self, payment_hash: &PaymentHash) -> Result<Option<Payment>, WalletError> {
        known_payment(self.outgoing(payment_hash).await?)
    }
}

#[async_trait]
impl History for LnbitsWallet {
    async fn received(&self, since: Timestamp) -> Result<Vec<Received>, WalletError> {
        let came = self.succeeded(since).await?.into_iter().filter(|entry| entry.amount > 0);
        came.map(|entry| {
            let (payment_hash, amount, at) = (entry.payment_hash, entry.size()?, entry.ended());
            Ok(Received { payment_hash, amount, at, description: entry.memo })
        })
        .collect()
    }

    async fn sent(&self, since: Timestamp) -> Result<Vec<Sent>, WalletError> {
        let went = self.succeeded(since).await?.into_iter().filter(|entry| entry.amount < 0);
        went.map(|entry| {
            let (payment_hash, amount, at) = (entry.payment_hash, entry.size()?, entry.ended());
            Ok(Sent { payment_hash, amount, fees: entry.fees(), at })
        })
        .collect()
    }
}
