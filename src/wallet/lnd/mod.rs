//! LND, over its REST interface.
//!
//! Hold invoices are LND's own; it gives back by itself what nears its deadline. Its stream of news tells of settled invoices
//! and nothing of held ones, so these are subscribed to one by one. It answers a subscription only when there is
//! something to tell, so nobody can wait for it to be open: it is given the index of the last settlement known, and what came
//! since is told.

mod wire;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::http::{
    Answer, Caller, Credential, Endpoint, Followed, HttpOptions, Outgoing, after_failure, followed_updates,
    hash_or_other, known_payment, told,
};
use super::{
    Balance, Capabilities, History, HoldInvoices, Invoice, InvoiceRequest, InvoiceState, InvoiceUpdate, Payer, Payment,
    PaymentHash, Received, Sent, Wallet, WalletError, bolt11, hold_window,
};
use crate::money::Msat;
use crate::wallet::http::{Line, Lines, News, in_time, parse};

/// Blocks before the network takes a held payment back at which LND itself gives it back (`invoices.holdexpirydelta`).
/// Asked for on top of what the hold needs.
const GIVEN_BACK_BEFORE: u32 = 12;

/// How many entries of its history are asked for at once: each can be some kilobytes long.
const PAGE: u64 = 200;

/// Pages looked through at most: a history this long is not compared from that far back.
const MOST_PAGES: usize = 5_000;

/// How long before its settlement an invoice may have been made. Histories are ordered by when things began.
const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(31 * 24);

/// How long after asking for news the last invoices are looked through once: what was settled before LND heard us and has
/// no index before it is found there.
const CATCH_UP: Duration = Duration::from_secs(1);

/// LND.
pub struct LndWallet {
    inner: Arc<Inner>,
}

struct Inner {
    caller: Caller,
    network: Network,
    holds: Arc<Followed>,
    /// The highest settlement index seen (`Invoice.settle_index`).
    settled: AtomicU64,
}

impl fmt::Debug for LndWallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LndWallet").field("caller", &self.inner.caller).field("network", &self.inner.network).finish()
    }
}

impl LndWallet {
    /// Connects and checks that the node is on `network`. The macaroon is hexadecimal.
    ///
    /// # Errors
    /// [`WalletError::Unreachable`] when it does not answer (trying again is fine), [`WalletError::Refused`] when it is on
    /// another network, [`WalletError::Unauthorized`] or [`WalletError::Internal`] when it does not take the macaroon.
    pub async fn connect(
        endpoint: Endpoint,
        macaroon: &SecretString,
        network: Network,
        options: HttpOptions,
    ) -> Result<Self, WalletError> {
        if macaroon.expose_secret().bytes().any(|byte| !byte.is_ascii_hexdigit()) {
            return Err(WalletError::Unauthorized("the macaroon is not written in hexadecimal".into()));
        }
        let caller = Caller::new(endpoint, Credential::header("grpc-metadata-macaroon", macaroon), options)?;
        let info: wire::Info = wire::read(&caller.get("v1/getinfo", &[]).await?)?;
        match info.network() {
            Some(found) if found == network => {}
            Some(found) => {
                return Err(WalletError::Refused(format!("the node is on {found}, not on {network}")));
            }
            None => return Err(WalletError::BadAnswer("it names no network".into())),
        }
        let inner = Inner { caller, network, holds: Arc::default(), settled: AtomicU64::new(0) };
        Ok(Self { inner: Arc::new(inner) })
    }

    async fn outgoing(&self, hash: &PaymentHash) -> Result<Outgoing, WalletError> {
        let path = format!("v2/router/track/{}", wire::base64url(hash));
        let mut lines = self.inner.caller.get_lines(&path, &[("no_inflight_updates", "false")]);
        let found = in_time(self.inner.caller.options().request_timeout, next_of::<wire::Payment>(&mut lines)).await;
        match found {
            Ok(Some(payment)) => {
                hash_or_other(&payment.payment_hash, hash)?;
                payment.outgoing()
            }
            Ok(None) => Err(WalletError::BadAnswer("it says nothing of the payment".into())),
            Err(WalletError::NotFound) => Ok(Outgoing::Unknown),
            Err(error) => Err(error),
        }
    }

    async fn send(&self, invoice: &bolt11::PayableInvoice, max_fee: Msat) -> Result<Payment, WalletError> {
        let patience = self.inner.caller.options().payment_timeout;
        let body = wire::Send {
            payment_request: &invoice.bolt11,
            timeout_seconds: patience.as_secs().max(1),
            fee_limit_msat: max_fee.as_msat().to_string(),
            no_inflight_updates: true,
        };
        let mut lines = self.inner.caller.post_lines("v2/router/send", &body);
        let sent = async {
            loop {
                let payment: wire::Payment = match lines.next().await? {
                    None => return Err(WalletError::Internal("it stopped telling of the payment".into())),
                    Some(Line::Refused(answer)) => return Err(wire::refusal(&answer)),
                    Some(Line::Said(line)) => match parse(&line)? {
                        wire::Streamed::Result(payment) => payment,
                        wire::Streamed::Error(failure) => return Err(failure.into()),
                    },
                };
                hash_or_other(&payment.payment_hash, &invoice.payment_hash)?;
                match payment.outgoing()? {
                    Outgoing::Made(made) => return Ok(made),
                    Outgoing::Failed(_) if payment.lacked_money() => return Err(WalletError::InsufficientFunds),
                    Outgoing::Failed(why) => return Err(WalletError::PaymentFailed(why)),
                    Outgoing::Unknown | Outgoing::UnderWay => {}
                }
            }
        };
        in_time(patience, sent).await
    }

    /// A settle or cancel that LND answered with an error may have been done before: the state decides.
    async fn unless_already(
        &self,
        hash: &PaymentHash,
        error: WalletError,
        done: impl Fn(InvoiceState) -> bool,
    ) -> Result<(), WalletError> {
        if matches!(error, WalletError::Unreachable(_)) {
            return Err(error);
        }
        match self.look_up(hash).await {
            Ok(state) if done(state) => Ok(()),
            _ => Err(error),
        }
    }
}

async fn next_of<T: for<'de> Deserialize<'de>>(lines: &mut Lines) -> Result<Option<T>, WalletError> {
    match lines.next().await? {
        None => Ok(None),
        Some(Line::Refused(answer)) => Err(wire::failure(&answer)),
        Some(Line::Said(line)) => match parse(&line)? {
            wire::Streamed::Result(said) => Ok(Some(said)),
            wire::Streamed::Error(failure) => Err(failure.into()),
        },
    }
}

impl Inner {
    async fn invoice(&self, hash: &PaymentHash) -> Result<wire::Invoice, WalletError> {
        let found: wire::Invoice = wire::read(&self.caller.get(&format!("v1/invoice/{hash}"), &[]).await?)?;
        hash_or_other(&found.payment_hash()?, hash)?;
        Ok(found)
    }

    /// A page of invoices, newest first, from before `offset` (0: from the newest).
    async fn page(&self, offset: u64) -> Result<wire::Invoices, WalletError> {
        let (offset, size) = (offset.to_string(), PAGE.to_string());
        let query = [("reversed", "true"), ("index_offset", offset.as_str()), ("num_max_invoices", size.as_str())];
        wire::read(&self.caller.get("v1/invoices", &query).await?)
    }

    /// The news in an invoice as LND tells of it.
    fn update(&self, invoice: &wire::Invoice) -> Option<News> {
        self.settled.fetch_max(invoice.settle_index, Ordering::Relaxed);
        let read = invoice.payment_hash().and_then(|hash| Ok((hash, invoice.standing(Timestamp::now())?)));
        match read {
            Ok((_, InvoiceState::Open)) => None,
            Ok((payment_hash, state)) => Some(Ok(InvoiceUpdate { payment_hash, state })),
            // The node has other users. One invoice that can't be read must not end the news of all.
            Err(error) => {
                tracing::debug!(wallet = "lnd", %error, "Left out an invoice that can't be read");
                None
            }
        }
    }

    /// The invoices of a subscription, as news.
    fn news(self: &Arc<Self>, lines: Lines) -> BoxStream<'static, News> {
        let inner = Arc::clone(self);
        stream::unfold(Some((inner, lines)), |open| async move {
            let (inner, mut lines) = open?;
            loop {
                match next_of::<wire::Invoice>(&mut lines).await {
                    Ok(None) => return None,
                    Ok(Some(invoice)) => {
                        if let Some(said) = inner.update(&invoice) {
                            return Some((said, Some((inner, lines))));
                        }
                    }
                    Err(error) => return Some((Err(error), None)),
                }
            }
        })
        .boxed()
    }

    /// Settlements from now on. `known` is what was settled when the invoices were looked through.
    fn settlements(self: &Arc<Self>, known: u64) -> BoxStream<'static, News> {
        let since = known.to_string();
        let live = self.news(self.caller.get_lines("v1/invoices/subscribe", &[("settle_index", since.as_str())]));
        // A subscription that ends is an end of all news.
        let ended = stream::once(async { Err(WalletError::Unreachable("its stream of news ended".into())) });
        let inner = Arc::clone(self);
        let missed = stream::once(async move {
            tokio::time::sleep(CATCH_UP).await;
            let found = match inner.page(0).await {
                Ok(page) => page
                    .invoices
                    .iter()
                    .filter(|one| one.settle_index > known)
                    .filter_map(|one| inner.update(one))
                    .collect(),
                Err(error) => vec![Err(error)],
            };
            stream::iter(found)
        })
        .flatten();
        stream::select(live.chain(ended), missed).boxed()
    }

    /// What becomes of one hold invoice. LND tells at once where it stands, and ends when it is over.
    fn hold(self: &Arc<Self>, hash: PaymentHash) -> BoxStream<'static, News> {
        let told = self.news(self.caller.get_lines(&format!("v2/invoices/subscribe/{}", wire::base64url(&hash)), &[]));
        let holds = Arc::clone(&self.holds);
        told.inspect(move |said| {
            if let Ok(InvoiceUpdate { state, .. }) = said
                && !matches!(state, InvoiceState::Open | InvoiceState::Held { .. })
            {
                holds.remove(&hash);
            }
        })
        .boxed()
    }
}

#[async_trait]
impl Wallet for LndWallet {
    fn capabilities(&self) -> Capabilities {
        Capabilities { hold_invoices: true, pay: true, whole_sats: false }
    }

    fn name(&self) -> &str {
        "lnd"
    }

    async fn create_invoice(&self, request: &InvoiceRequest) -> Result<Invoice, WalletError> {
        let body = new_invoice(request);
        let made: wire::NewInvoiceMade = wire::read(&self.inner.caller.post("v1/invoices", &body).await?)?;
        bolt11::check_ours(request, None, &made.payment_request, self.inner.network, Timestamp::now())
    }

    async fn look_up(&self, payment_hash: &PaymentHash) -> Result<InvoiceState, WalletError> {
        let invoice = self.inner.invoice(payment_hash).await?;
        if invoice.may_be_held() {
            self.inner.holds.add(*payment_hash);
        } else {
            self.inner.holds.remove(payment_hash);
        }
        invoice.standing(Timestamp::now())
    }

    async fn updates(&self) -> Result<BoxStream<'static, InvoiceUpdate>, WalletError> {
        let newest = self.inner.page(0).await?;
        let last = newest.invoices.iter().map(|invoice| invoice.settle_index).max().unwrap_or_default();
        // What a broken stream left out comes again.
        let known = match self.inner.settled.load(Ordering::Relaxed) {
            0 => last,
            seen => seen,
        };
        self.inner.settled.fetch_max(known, Ordering::Relaxed);
        let inner = Arc::clone(&self.inner);
        let holds = followed_updates(Arc::clone(&self.inner.holds), move |hash| inner.hold(hash));
        Ok(told("lnd", stream::select(self.inner.settlements(known), holds)))
    }

    async fn balance(&self) -> Result<Option<Balance>, WalletError> {
        let channels: wire::ChannelBalance = wire::read(&self.inner.caller.get("v1/balance/channels", &[]).await?)?;
        let chain: Answer = self.inner.caller.get("v1/balance/blockchain", &[]).await?;
        // The macaroon need not allow it.
        let on_chain = wire::read::<wire::ChainBalance>(&chain).ok().and_then(|chain| chain.on_chain());
        Ok(Some(Balance { spendable: channels.spendable()?, receivable: channels.receivable(), on_chain }))
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }

    fn hold_invoices(&self) -> Option<&dyn HoldInvoices> {
        Some(self)
    }

    fn payer(&self) -> Option<&dyn Payer> {
        Some(self)
    }
}

fn new_invoice(request: &InvoiceRequest) -> wire::NewInvoice<'_> {
    wire::NewInvoice {
        memo: &request.description,
        hash: None,
        value_msat: request.amount.as_msat().to_string(),
        expiry: request.expiry.as_secs().to_string(),
        cltv_expiry: None,
        private: true,
    }
}

#[async_trait]
impl HoldInvoices for LndWallet {
    fn longest_hold(&self) -> Duration {
        hold_window::longest(hold_window::MOST_BLOCKS - GIVEN_BACK_BEFORE)
    }

    async fn create_hold_invoice(
        &self,
        request: &InvoiceRequest,
        payment_hash: &PaymentHash,
        hold_for: Duration,
    ) -> Result<Invoice, WalletError> {
        let blocks = hold_window::blocks(hold_for).saturating_add(GIVEN_BACK_BEFORE);
        if blocks > hold_window::MOST_BLOCKS {
            return Err(WalletError::Refused("no payment can be held that long".into()));
        }
        let body = wire::NewInvoice {
            hash: Some(wire::base64(payment_hash.as_bytes())),
            cltv_expiry: Some(blocks.to_string()),
            ..new_invoice(request)
        };
        let made = match wire::read::<wire::NewInvoiceMade>(&self.inner.caller.post("v2/invoices/hodl", &body).await?) {
            Ok(made) => made.payment_request,
            // LND makes one a hash. Asked again after a crash, the one there is will do, if it is the same.
            Err(error) => match self.inner.invoice(payment_hash).await {
                Ok(known) if known.may_be_held() => known.payment_request,
                _ => return Err(error),
            },
        };
        let invoice = bolt11::check_ours(request, Some(payment_hash), &made, self.inner.network, Timestamp::now())?;
        self.inner.holds.add(*payment_hash);
        Ok(invoice)
    }

    async fn settle(&self, preimage: &[u8; 32]) -> Result<(), WalletError> {
        let body = wire::Settle { preimage: wire::base64(preimage) };
        let answer = self.inner.caller.post("v2/invoices/settle", &body).await?;
        match wire::read::<serde_json::Value>(&answer) {
            Ok(_) => Ok(()),
            Err(error) => {
                let settled = |state| matches!(state, InvoiceState::Settled { .. });
                self.unless_already(&bolt11::hash_of(preimage), error, settled).await
            }
        }
    }

    async fn cancel(&self, payment_hash: &PaymentHash) -> Result<(), WalletError> {
        let body = wire::Cancel { payment_hash: wire::base64(payment_hash.as_bytes()) };
        let answer = self.inner.caller.post("v2/invoices/cancel", &body).await?;
        match wire::read::<serde_json::Value>(&answer) {
            Ok(_) => Ok(()),
            Err(error) => {
                let over = |state| matches!(state, InvoiceState::Cancelled | InvoiceState::Expired);
                self.unless_already(payment_hash, error, over).await
            }
        }
    }
}

#[async_trait]
impl Payer for LndWallet {
    async fn pay(&self, bolt11: &str, max_fee: Msat) -> Result<Payment, WalletError> {
        let invoice = bolt11::read_for_paying(bolt11, self.inner.network, Timestamp::now())?;
        match self.send(&invoice, max_fee).await {
            Ok(payment) => Ok(payment),
            // "Already exists" is one of these: LND pays a hash once.
            Err(error) => after_failure(error, self.outgoing(&invoice.payment_hash)).await,
        }
    }

    async fn payment(&self, payment_hash: &PaymentHash) -> Result<Option<Payment>, WalletError> {
        known_payment(self.outgoing(payment_hash).await?)
    }
}

#[async_trait]
impl History for LndWallet {
    async fn received(&self, since: Timestamp) -> Result<Vec<Received>, WalletError> {
        let began = began(since);
        let (mut found, mut offset) = (Vec::new(), 0);
        for _ in 0..MOST_PAGES {
            let page = self.inner.page(offset).await?;
            for invoice in &page.invoices {
                if let InvoiceState::Settled { amount, at } = invoice.standing(Timestamp::now())?
                    && at.is_none_or(|at| at >= since)
                {
                    let description = Some(invoice.memo.clone()).filter(|memo| !memo.is_empty());
                    found.push(Received { payment_hash: invoice.payment_hash()?, amount, at, description });
                }
            }
            let older = page.invoices.iter().any(|invoice| invoice.creation_date < began);
            let next = page.first_index_offset;
            // 1 is the first there ever was; an offset that does not move would never end.
            if older || next <= 1 || (offset != 0 && next >= offset) {
                return Ok(found);
            }
            offset = next;
        }
        Err(WalletError::BadAnswer("its history has no end".into()))
    }

    async fn sent(&self, since: Timestamp) -> Result<Vec<Sent>, WalletError> {
        let began = began(since);
        let (mut found, mut offset) = (Vec::new(), 0_u64);
        for _ in 0..MOST_PAGES {
            let (from, size) = (offset.to_string(), PAGE.to_string());
            let query = [
                ("reversed", "true"),
                ("include_incomplete", "false"),
                ("index_offset", from.as_str()),
                ("max_payments", size.as_str()),
            ];
            let page: wire::Payments = wire::read(&self.inner.caller.get("v1/payments", &query).await?)?;
            for payment in page.payments.iter().filter(|payment| payment.status == "SUCCEEDED") {
                let at = payment.made_at();
                if at.is_none_or(|at| at >= since) {
                    let (payment_hash, amount) = (payment.payment_hash, payment.amount()?);
                    found.push(Sent { payment_hash, amount, fees: payment.fee(), at });
                }
            }
            let older = page.payments.iter().any(|payment| payment.creation_date < began);
            let next = page.first_index_offset;
            if older || next <= 1 || (offset != 0 && next >= offset) {
                return Ok(found);
            }
            offset = next;
        }
        Err(WalletError::BadAnswer("its history has no end".into()))
    }
}

/// The second before which nothing began that ended after `since`.
fn began(since: Timestamp) -> i64 {
    since.checked_sub(LONGEST_LIFE).map_or(i64::MIN, Timestamp::as_second)
}
