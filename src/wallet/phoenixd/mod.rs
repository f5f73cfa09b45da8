//! phoenixd, over its HTTP interface: whole satoshis, no hold invoices.
//!
//! Its websocket says that something was paid; what, is looked up.

mod wire;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::Network;
use bitcoin::hashes::{Hash, sha256};
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::http::{
    Caller, Credential, Endpoint, HttpOptions, Outgoing, after_failure, amount_of_sat, hash_or_other, hints,
    known_payment, until_error,
};
use super::{
    Balance, Capabilities, History, Invoice, InvoiceRequest, InvoiceState, InvoiceUpdate, Payer, Payment, PaymentHash,
    Received, Sent, Wallet, WalletError, bolt11,
};
use crate::money::Msat;

/// The longest description phoenixd takes, in characters as Java counts them. A longer one is given as its hash (BOLT 11
/// `h`).
const MAX_DESCRIPTION: usize = 128;

/// What phoenixd's provider takes for forwarding a payment: a fixed part and a share. It can't be asked for less.
const FEE_BASE: Msat = Msat::sat(4);
const FEE_PER_MILLION: u64 = 4_000;

/// How many entries of its history are asked for at once.
const PAGE: u64 = 200;

/// Pages looked through at most: a bound against a server that never ends.
const MOST_PAGES: u64 = 5_000;

/// How long before its settlement an invoice may have been made. Histories are asked for by when things began.
const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(31 * 24);

/// phoenixd.
pub struct PhoenixdWallet {
    inner: Arc<Inner>,
}

struct Inner {
    caller: Caller,
    network: Network,
}

impl fmt::Debug for PhoenixdWallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { caller, network } = &*self.inner;
        f.debug_struct("PhoenixdWallet").field("caller", caller).field("network", network).finish()
    }
}

impl PhoenixdWallet {
    /// Connects and checks that it is on `network`. Either password of `phoenix.conf` will do; the limited one can't pay.
    ///
    /// # Errors
    /// [`WalletError::Unreachable`] when it does not answer (trying again is fine), [`WalletError::Refused`] when it is on
    /// another network, [`WalletError::Unauthorized`] when it does not take the password.
    pub async fn connect(
        endpoint: Endpoint,
        password: &SecretString,
        network: Network,
        options: HttpOptions,
    ) -> Result<Self, WalletError> {
        let plain = Zeroizing::new(format!(":{}", password.expose_secret()));
        let basic = SecretString::from(format!("Basic {}", STANDARD.encode(plain.as_bytes())));
        let caller = Caller::new(endpoint, Credential::header("authorization", &basic), options)?;
        let info: wire::Info = wire::read(&caller.get("getinfo", &[]).await?)?;
        match info.network() {
            Some(found) if found == network => {}
            Some(found) => return Err(WalletError::Refused(format!("phoenixd is on {found}, not on {network}"))),
            None => return Err(WalletError::BadAnswer("it names no network".into())),
        }
        Ok(Self { inner: Arc::new(Inner { caller, network }) })
    }

    async fn outgoing(&self, hash: &PaymentHash) -> Result<Outgoing, WalletError> {
        let answer = self.inner.caller.get(&format!("payments/outgoingbyhash/{hash}"), &[]).await?;
        let sent: wire::Sent = match wire::found(&answer) {
            Ok(sent) => sent,
            Err(WalletError::NotFound) => return Ok(Outgoing::Unknown),
            Err(error) => return Err(error),
        };
        let said = sent.payment_hash.ok_or_else(|| WalletError::BadAnswer("it names no payment hash".into()))?;
        hash_or_other(&said, hash)?;
        sent.outgoing(hash)
    }

    async fn send(&self, invoice: &bolt11::PayableInvoice) -> Result<Payment, WalletError> {
        let patience = self.inner.caller.options().payment_timeout;
        let fields = [("invoice", invoice.bolt11.as_str())];
        match wire::read(&self.inner.caller.post_form("payinvoice", &fields, patience).await?)? {
            wire::Paid::Sent { payment_hash, payment_preimage, routing_fee_sat } => {
                hash_or_other(&payment_hash, &invoice.payment_hash)?;
                super::http::proof(&payment_preimage, amount_of_sat(routing_fee_sat).ok(), &invoice.payment_hash)
            }
            wire::Paid::Failed { reason } => Err(WalletError::PaymentFailed(super::words::spoken(&reason))),
        }
    }
}

/// What a payment costs on top.
fn fee(amount: Msat) -> Msat {
    FEE_BASE.saturating_add(amount.per(FEE_PER_MILLION, 1_000_000))
}

impl Inner {
    async fn standing(&self, hash: &PaymentHash) -> Result<InvoiceState, WalletError> {
        let answer = self.caller.get(&format!("payments/incoming/{hash}"), &[]).await?;
        let found: wire::Incoming = wire::found(&answer)?;
        hash_or_other(&found.payment_hash, hash)?;
        found.standing(Timestamp::now())
    }
}

#[async_trait]
impl Wallet for PhoenixdWallet {
    fn capabilities(&self) -> Capabilities {
        Capabilities { hold_invoices: false, pay: true, whole_sats: true }
    }

    fn name(&self) -> &str {
        "phoenixd"
    }

    async fn create_invoice(&self, request: &InvoiceRequest) -> Result<Invoice, WalletError> {
        if request.amount != request.amount.round_up_to_sat() {
            return Err(WalletError::Refused("phoenixd knows whole satoshis only".into()));
        }
        let amount = (request.amount.as_msat() / 1_000).to_string();
        let expiry = request.expiry.as_secs().to_string();
        let hash = sha256::Hash::hash(request.description.as_bytes()).to_string();
        let description = if request.description.encode_utf16().count() <= MAX_DESCRIPTION {
            ("description", request.description.as_str())
        } else {
            ("descriptionHash", hash.as_str())
        };
        let fields = [description, ("amountSat", amount.as_str()), ("expirySeconds", expiry.as_str())];
        let patience = self.inner.caller.options().request_timeout;
        let made: wire::Made = wire::read(&self.inner.caller.post_form("createinvoice", &fields, patience).await?)?;
        let invoice = bolt11::check_ours(request, None, &made.serialized, self.inner.network, Timestamp::now())?;
        if made.payment_hash != invoice.payment_hash {
            return Err(WalletError::BadInvoice("its payment hash is not the one the wallet says".into()));
        }
        Ok(invoice)
    }

    async fn look_up(&self, payment_hash: &PaymentHash) -> Result<InvoiceState, WalletError> {
        self.inner.standing(payment_hash).await
    }

    async fn updates(&self) -> Result<BoxStream<'static, InvoiceUpdate>, WalletError> {
        let named = hints(&self.inner.caller, "websocket", true, wire::hint).await?;
        let inner = Arc::clone(&self.inner);
        let looked_up = named.filter_map(move |payment_hash| {
            let inner = Arc::clone(&inner);
            async move {
                match inner.standing(&payment_hash).await {
                    Ok(state) => Some(Ok(InvoiceUpdate { payment_hash, state })),
                    // Not an invoice: an offer was paid.
                    Err(WalletError::NotFound) => None,
                    Err(error) => Some(Err(error)),
                }
            }
        });
        Ok(until_error("phoenixd", looked_up))
    }

    async fn balance(&self) -> Result<Option<Balance>, WalletError> {
        let told: wire::Balance = wire::read(&self.inner.caller.get("getbalance", &[]).await?)?;
        // phoenixd gets inbound liquidity by itself when a payment needs it: what there is now says little.
        Ok(Some(Balance { spendable: amount_of_sat(told.balance_sat)?, receivable: None, on_chain: None }))
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }

    fn payer(&self) -> Option<&dyn Payer> {
        Some(self)
    }
}

#[async_trait]
impl Payer for PhoenixdWallet {
    /// phoenixd's fee is fixed and can't be limited: what it would exceed `max_fee` by is not paid at all.
    async fn pay(&self, bolt11: &str, max_fee: Msat) -> Result<Payment, WalletError> {
        let invoice = bolt11::read_for_paying(bolt11, self.inner.network, Timestamp::now())?;
        let fee = fee(invoice.amount);
        if fee > max_fee {
            return Err(WalletError::Refused(format!(
                "phoenixd takes {fee} for this payment, more than the fee limit"
            )));
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
impl History for PhoenixdWallet {
    async fn received(&self, since: Timestamp) -> Result<Vec<Received>, WalletError> {
        let mut found: Vec<Received> = Vec::new();
        for page in 0..MOST_PAGES {
            let entries: Vec<wire::Incoming> = self.page("payments/incoming", since, page).await?;
            let last = (entries.len() as u64) < PAGE;
            for entry in entries {
                if let InvoiceState::Settled { amount, at } = entry.standing(Timestamp::now())?
                    && at.is_none_or(|at| at >= since)
                {
                    let (payment_hash, description) = (entry.payment_hash, entry.description);
                    found.push(Received { payment_hash, amount, at, description });
                }
            }
            if last {
                // What came in between moves a page's edge: an entry may have been seen on both sides.
                found.sort_by_key(|one| one.payment_hash);
                found.dedup_by_key(|one| one.payment_hash);
                return Ok(found);
            }
        }
        Err(WalletError::BadAnswer("its history has no end".into()))
    }

    async fn sent(&self, since: Timestamp) -> Result<Vec<Sent>, WalletError> {
        let mut found: Vec<Sent> = Vec::new();
        for page in 0..MOST_PAGES {
            let entries: Vec<wire::Sent> = self.page("payments/outgoing", since, page).await?;
            let last = (entries.len() as u64) < PAGE;
            for entry in entries.iter().filter(|entry| entry.is_paid) {
                let at = entry.at();
                if let Some(payment_hash) = entry.payment_hash
                    && at.is_none_or(|at| at >= since)
                {
                    found.push(Sent { payment_hash, amount: entry.amount()?, fees: entry.fees(), at });
                }
            }
            if last {
                found.sort_by_key(|one| one.payment_hash);
                found.dedup_by_key(|one| one.payment_hash);
                return Ok(found);
            }
        }
        Err(WalletError::BadAnswer("its history has no end".into()))
    }
}

impl PhoenixdWallet {
    async fn page<T: for<'de> serde::Deserialize<'de>>(
        &self,
        path: &str,
        since: Timestamp,
        page: u64,
    ) -> Result<Vec<T>, WalletError> {
        let from = since.checked_sub(LONGEST_LIFE).map_or(0, |began| began.as_millisecond().max(0)).to_string();
        let (limit, offset) = (PAGE.to_string(), (page * PAGE).to_string());
        let query = [("from", from.as_str()), ("limit", limit.as_str()), ("offset", offset.as_str())];
        wire::read(&self.inner.caller.get(path, &query).await?)
    }
}
