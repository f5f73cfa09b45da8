//! A wallet service (NIP-47) on the other side of the wire, so that the client is tested over real relays.
//!
//! Behind it is a [`FakeWallet`]; in front of it are [`ServiceFaults`] for what goes wrong on the way.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use nostr::{Event, EventBuilder, Filter, Keys, Kind, RelayUrl, Tag, TagKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::money::Msat;
use crate::wallet::fake::FakeWallet;
use crate::wallet::nwc::cipher::Cipher;
use crate::wallet::nwc::link::ENCRYPTION_TAG;
use crate::wallet::nwc::meeting::{Arrival, Arrivals, Meeting};
use crate::wallet::nwc::wire::{
    Balance, ByHash, Call, ListTransactions, MakeInvoice, Method, Notification, Paid, PayInvoice, Reply, ReplyError,
    SettleHoldInvoice, Transaction, Transactions,
};
use crate::wallet::watch::{self, WatchEvent};
use crate::wallet::{
    HoldInvoices, InvoiceRequest, InvoiceState, InvoiceUpdate, Payer, PaymentHash, Wallet, WalletError,
};

/// Between attempts to reach a relay that went away.
const RETRY: Duration = Duration::from_millis(50);

/// An ephemeral kind nobody reads, sent to learn that a relay has heard us.
const KNOCK: Kind = Kind::Custom(20_047);

/// What a service offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NwcServiceOptions {
    /// Reads and writes NIP-44.
    pub nip44: bool,
    /// Reads and writes NIP-04.
    pub nip04: bool,
    /// Offers the hold methods.
    pub hold_invoices: bool,
    /// Offers `pay_invoice`.
    pub pay: bool,
    /// Tells of payments.
    pub notifications: bool,
    /// Publishes an info event (kind 13194).
    pub introduces_itself: bool,
    /// Offers `list_transactions`.
    pub lists_transactions: bool,
    /// Says how high the chain is, at first; see [`ServiceFaults::reach_block`].
    pub block_height: Option<u32>,
    /// By which block held payments have to be taken, as the service says.
    pub settle_deadline: Option<u32>,
}

/// Transactions in one answer at most, whatever is asked.
const PAGE: usize = 2;

impl Default for NwcServiceOptions {
    fn default() -> Self {
        Self {
            nip44: true,
            nip04: true,
            hold_invoices: true,
            pay: true,
            notifications: true,
            introduces_itself: true,
            lists_transactions: true,
            block_height: None,
            settle_deadline: None,
        }
    }
}

/// What goes wrong with a service. All off at first.
#[derive(Debug, Default)]
pub struct ServiceFaults {
    set: Mutex<Set>,
}

#[derive(Debug, Default)]
struct Set {
    silent: bool,
    lie: Option<Msat>,
    fail_next: Option<&'static str>,
    garble_next: bool,
    stranger: bool,
    height: Option<u32>,
}

impl ServiceFaults {
    /// Requests are not answered, nor carried out.
    pub fn go_silent(&self, silent: bool) {
        self.lock().silent = silent;
    }

    /// Invoices are over this amount, whatever was asked.
    pub fn lie_about_amount(&self, amount: Option<Msat>) {
        self.lock().lie = amount;
    }

    /// The next request is answered with this error code, and not carried out.
    pub fn fail_next(&self, code: &'static str) {
        self.lock().fail_next = Some(code);
    }

    /// The next answer is no JSON.
    pub fn garble_next(&self) {
        self.lock().garble_next = true;
    }

    /// The chain is this high now.
    pub fn reach_block(&self, height: u32) {
        self.lock().height = Some(height);
    }

    /// Somebody else answers every request first.
    pub fn answer_as_stranger_first(&self, stranger: bool) {
        self.lock().stranger = stranger;
    }

    fn lock(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running service with one client.
pub struct NwcService {
    uri: String,
    service: Arc<Service>,
    task: AbortOnDropHandle<()>,
}

impl std::fmt::Debug for NwcService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NwcService").field("wallet", &self.service.wallet).finish_non_exhaustive()
    }
}

impl NwcService {
    /// Starts a service for `wallet` on these relays. When this returns, it is listening.
    ///
    /// # Errors
    /// When a relay address is none or no relay answers.
    pub async fn start(relays: &[String], wallet: FakeWallet, options: NwcServiceOptions) -> Result<Self, WalletError> {
        let relays: Vec<RelayUrl> = relays
            .iter()
            .map(|relay| RelayUrl::parse(relay).map_err(|error| WalletError::Refused(error.to_string())))
            .collect::<Result<_, _>>()?;
        let (keys, client) = (Keys::generate(), Keys::generate());
        let wanted = Filter::new().kind(Kind::WalletConnectRequest).pubkey(keys.public_key());
        let (meeting, arrivals) = Meeting::join(keys.clone(), &relays, wanted, RETRY).await?;
        let mut uri =
            format!("nostr+walletconnect://{}?secret={}", keys.public_key(), client.secret_key().to_secret_hex());
        for relay in &relays {
            uri.push_str("&relay=");
            uri.push_str(relay.as_str());
        }
        let faults = Arc::default();
        let service = Arc::new(Service { meeting, keys, client, wallet, options, faults });
        // A relay handles what we say in order: once it has this, it has our subscription.
        service.publish(EventBuilder::new(KNOCK, "")).await?;
        service.introduce().await?;
        let mut news = watch::updates(Arc::new(service.wallet.clone()), CancellationToken::new()).boxed();
        // The first event says that news flows from here on.
        news.next().await;
        let running = Arc::clone(&service);
        let task = AbortOnDropHandle::new(tokio::spawn(async move { running.run(arrivals, news).await }));
        Ok(Self { uri, service, task })
    }

    /// The connection string for its client.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The wallet behind it.
    pub fn wallet(&self) -> &FakeWallet {
        &self.service.wallet
    }

    /// What goes wrong with it.
    pub fn faults(&self) -> &ServiceFaults {
        &self.service.faults
    }

    /// Leaves the relays.
    pub async fn shutdown(self) {
        self.service.meeting.leave().await;
        // Leaving ends it; an error would only say that it was aborted.
        let _ = self.task.await;
    }
}

struct Service {
    meeting: Meeting,
    keys: Keys,
    client: Keys,
    wallet: FakeWallet,
    options: NwcServiceOptions,
    faults: Arc<ServiceFaults>,
}

impl Service {
    async fn run(self: Arc<Self>, mut arrivals: Arrivals, mut news: Pin<Box<dyn Stream<Item = WatchEvent> + Send>>) {
        let mut answered = std::collections::HashSet::new();
        // Each request on its own: a payment may wait for long. All end with this task.
        let mut answering = JoinSet::new();
        loop {
            tokio::select! {
                arrival = arrivals.next() => match arrival {
                    Some(Arrival::Event(event)) if answered.insert(event.id) => {
                        let service = Arc::clone(&self);
                        answering.spawn(async move { service.answer(&event).await });
                    }
                    Some(Arrival::Event(_)) => {}
                    Some(Arrival::Gap) => {
                        // The relay may have forgotten us. If it is gone again, there will be another gap.
                        let _ = self.introduce().await;
                    }
                    None => return,
                },
                Some(event) = news.next() => if let WatchEvent::Update(update) = event {
                    self.notify(update).await;
                },
                Some(_) = answering.join_next() => {}
            }
        }
    }

    async fn introduce(&self) -> Result<(), WalletError> {
        if !self.options.introduces_itself {
            return Ok(());
        }
        let methods: Vec<_> = self.methods().into_iter().map(Method::word).collect();
        let ciphers: Vec<_> = self.ciphers().into_iter().map(Cipher::word).collect();
        let introduction = EventBuilder::new(Kind::WalletConnectInfo, methods.join(" "))
            .tag(Tag::custom(TagKind::custom(ENCRYPTION_TAG), [ciphers.join(" ")]))
            .tag(Tag::custom(TagKind::custom("notifications"), ["payment_received hold_invoice_accepted"]));
        self.publish(introduction).await
    }

    fn methods(&self) -> Vec<Method> {
        let mut methods = vec![Method::GetInfo, Method::GetBalance, Method::MakeInvoice, Method::LookupInvoice];
        if self.options.pay {
            methods.push(Method::PayInvoice);
        }
        if self.options.lists_transactions {
            methods.push(Method::ListTransactions);
        }
        if self.options.hold_invoices {
            methods.extend([Method::MakeHoldInvoice, Method::SettleHoldInvoice, Method::CancelHoldInvoice]);
        }
        methods
    }

    fn ciphers(&self) -> Vec<Cipher> {
        [(self.options.nip44, Cipher::Nip44), (self.options.nip04, Cipher::Nip04)]
            .into_iter()
            .filter_map(|(offered, cipher)| offered.then_some(cipher))
            .collect()
    }

    async fn answer(&self, event: &Event) {
        if event.is_expired() || self.faults.lock().silent {
            return;
        }
        let cipher = Cipher::of(&event.content);
        let Ok(text) = cipher.decrypt(&self.keys, &event.pubkey, &event.content) else { return };
        let Ok(call) = serde_json::from_str::<Call>(&text) else { return };
        let done = if event.pubkey != self.client.public_key() {
            Err(error("UNAUTHORIZED"))
        } else if !self.ciphers().contains(&cipher) {
            Err(error("UNSUPPORTED_ENCRYPTION"))
        } else if let Some(code) = self.faults.lock().fail_next.take() {
            Err(error(code))
        } else {
            self.carry_out(&call).await
        };
        let (failed, result) = match done {
            Ok(result) => (None, Some(result)),
            Err(error) => (Some(error), None),
        };
        let reply = Reply { result_type: call.method, error: failed, result };
        if self.faults.lock().stranger {
            let stranger = Keys::generate();
            let lie = json!({"result_type": reply.result_type, "result": {}}).to_string();
            if let Ok(content) = cipher.encrypt(&stranger, &event.pubkey, &lie)
                && let Ok(lie) = response(content, event).sign_with_keys(&stranger)
            {
                let _ = self.meeting.send(&lie).await;
            }
        }
        let garbled = std::mem::take(&mut self.faults.lock().garble_next);
        let text = if garbled { "no JSON".to_owned() } else { to_text(&reply) };
        if let Ok(content) = cipher.encrypt(&self.keys, &event.pubkey, &text) {
            // A client that does not hear us asks again.
            let _ = self.publish(response(content, event)).await;
        }
    }

    async fn carry_out(&self, call: &Call) -> Result<Value, ReplyError> {
        let method = self.methods().into_iter().find(|method| method.word() == call.method);
        let method = method.ok_or_else(|| error("NOT_IMPLEMENTED"))?;
        match method {
            Method::GetInfo => {
                let methods: Vec<_> = self.methods().into_iter().map(Method::word).collect();
                let height = self.faults.lock().height.or(self.options.block_height);
                Ok(json!({"alias": "fake", "network": "regtest", "block_height": height, "methods": methods}))
            }
            Method::GetBalance => Ok(to_value(&Balance { balance: self.wallet.funds().map_err(coded)? })),
            Method::MakeInvoice | Method::MakeHoldInvoice => self.make(method, params(call)?).await,
            Method::LookupInvoice => {
                let ByHash { payment_hash } = params(call)?;
                Ok(to_value(&self.transaction(&payment_hash).map_err(coded)?))
            }
            Method::PayInvoice => {
                let PayInvoice { invoice } = params(call)?;
                let payment = Payer::pay(&self.wallet, &invoice, Msat::MAX).await.map_err(coded)?;
                Ok(to_value(&Paid { preimage: hex::encode(payment.preimage), fees_paid: payment.fees }))
            }
            Method::ListTransactions => self.list(&params(call)?).await,
            Method::SettleHoldInvoice => {
                let SettleHoldInvoice { preimage } = params(call)?;
                let preimage: [u8; 32] =
                    hex::decode(preimage).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| error("OTHER"))?;
                HoldInvoices::settle(&self.wallet, &preimage).await.map_err(coded)?;
                Ok(json!({}))
            }
            Method::CancelHoldInvoice => {
                let ByHash { payment_hash } = params(call)?;
                self.wallet.cancel(&payment_hash).await.map_err(coded)?;
                Ok(json!({}))
            }
        }
    }

    async fn list(&self, asked: &ListTransactions) -> Result<Value, ReplyError> {
        let since = i64::try_from(asked.from).ok().and_then(|second| Timestamp::from_second(second).ok());
        let since = since.ok_or_else(|| error("OTHER"))?;
        let history = self.wallet.history().ok_or_else(|| error("NOT_IMPLEMENTED"))?;
        let mut transactions: Vec<Transaction> = match asked.direction.as_str() {
            "incoming" => {
                let received = history.received(since).await.map_err(coded)?;
                let told = received.iter().map(|one| self.transaction(&one.payment_hash));
                told.collect::<Result<_, _>>().map_err(coded)?
            }
            _ => {
                let sent = history.sent(since).await.map_err(coded)?;
                let told = sent.iter().map(|one| {
                    let settled_at = one.at.map(|at| at.as_second());
                    Ok(Transaction { amount: Some(one.amount), settled_at, ..self.outgoing(&one.payment_hash)? })
                });
                told.collect::<Result<_, _>>().map_err(coded)?
            }
        };
        transactions.sort_unstable_by_key(|told| told.payment_hash);
        let page = transactions.iter().skip(asked.offset as usize).take(PAGE.min(asked.limit as usize));
        let transactions = page.map(to_value).collect();
        Ok(to_value(&Transactions { transactions }))
    }

    async fn make(&self, method: Method, asked: MakeInvoice) -> Result<Value, ReplyError> {
        let amount = self.faults.lock().lie.unwrap_or(asked.amount);
        let request =
            InvoiceRequest { amount, description: asked.description, expiry: Duration::from_secs(asked.expiry) };
        let made = match (method, asked.payment_hash) {
            (Method::MakeHoldInvoice, Some(hash)) => {
                self.wallet.create_hold_invoice(&request, &hash, Duration::from_secs(60)).await
            }
            (Method::MakeHoldInvoice, None) => return Err(error("OTHER")),
            _ => self.wallet.create_invoice(&request).await,
        };
        let made = made.map_err(coded)?;
        Ok(to_value(&self.transaction(&made.payment_hash).map_err(coded)?))
    }

    fn transaction(&self, hash: &PaymentHash) -> Result<Transaction, WalletError> {
        match self.wallet.record(hash) {
            Err(WalletError::NotFound) => self.outgoing(hash),
            Err(error) => Err(error),
            Ok(record) => {
                let (state, amount, settled_at) = match record.state {
                    InvoiceState::Open => ("pending", record.amount, None),
                    InvoiceState::Held { amount } => ("accepted", amount, None),
                    InvoiceState::Settled { amount, at } => ("settled", amount, at.map(|at| at.as_second())),
                    InvoiceState::Expired => ("expired", record.amount, None),
                    InvoiceState::Cancelled => ("failed", record.amount, None),
                };
                Ok(Transaction {
                    direction: Some("incoming".into()),
                    state: Some(state.into()),
                    invoice: Some(record.bolt11),
                    description: Some(record.description),
                    payment_hash: Some(*hash),
                    amount: Some(amount),
                    expires_at: Some(record.expires_at.as_second()),
                    settled_at,
                    settle_deadline: self.options.settle_deadline.filter(|_| state == "accepted"),
                    ..Transaction::default()
                })
            }
        }
    }

    fn outgoing(&self, hash: &PaymentHash) -> Result<Transaction, WalletError> {
        let (state, payment) = match self.wallet.payment_made(hash) {
            Ok(None) => return Err(WalletError::NotFound),
            Ok(Some(None)) => ("pending", None),
            Ok(Some(Some(payment))) => ("settled", Some(payment)),
            Err(WalletError::PaymentFailed(_)) => ("failed", None),
            Err(error) => return Err(error),
        };
        Ok(Transaction {
            direction: Some("outgoing".into()),
            state: Some(state.into()),
            payment_hash: Some(*hash),
            preimage: payment.as_ref().map(|payment| hex::encode(payment.preimage)),
            fees_paid: payment.and_then(|payment| payment.fees),
            ..Transaction::default()
        })
    }

    async fn notify(&self, update: InvoiceUpdate) {
        let word = match update.state {
            InvoiceState::Settled { .. } => "payment_received",
            InvoiceState::Held { .. } => "hold_invoice_accepted",
            InvoiceState::Open | InvoiceState::Expired | InvoiceState::Cancelled => return,
        };
        if !self.options.notifications || self.faults.lock().silent {
            return;
        }
        let Ok(told) = self.transaction(&update.payment_hash) else { return };
        let text = to_text(&Notification { notification_type: word.into(), notification: to_value(&told) });
        let client = self.client.public_key();
        // As the NIP wants it: in each encryption, under the kind of each.
        for cipher in self.ciphers() {
            if let Ok(content) = cipher.encrypt(&self.keys, &client, &text) {
                let _ = self
                    .publish(EventBuilder::new(cipher.notification_kind(), content).tag(Tag::public_key(client)))
                    .await;
            }
        }
    }

    async fn publish(&self, event: EventBuilder) -> Result<(), WalletError> {
        let event = event.sign_with_keys(&self.keys).map_err(|error| WalletError::Internal(error.to_string()))?;
        self.meeting.send(&event).await
    }
}

fn response(content: String, request: &Event) -> EventBuilder {
    EventBuilder::new(Kind::WalletConnectResponse, content)
        .tag(Tag::public_key(request.pubkey))
        .tag(Tag::event(request.id))
}

fn params<T: DeserializeOwned>(call: &Call) -> Result<T, ReplyError> {
    serde_json::from_value(call.params.clone()).map_err(|_| error("OTHER"))
}

fn to_value(message: &impl Serialize) -> Value {
    serde_json::to_value(message).expect("wire messages have string keys only")
}

fn to_text(message: &impl Serialize) -> String {
    to_value(message).to_string()
}

fn error(code: &str) -> ReplyError {
    ReplyError { code: code.to_owned(), message: format!("the fake service says {code}") }
}

/// A wallet's error in the codes of NIP-47.
fn coded(failure: WalletError) -> ReplyError {
    let code = match &failure {
        WalletError::InsufficientFunds => "INSUFFICIENT_BALANCE",
        WalletError::RateLimited => "RATE_LIMITED",
        WalletError::NotFound => "NOT_FOUND",
        WalletError::PaymentFailed(_) => "PAYMENT_FAILED",
        WalletError::Unauthorized(_) => "UNAUTHORIZED",
        WalletError::Internal(_) | WalletError::Unreachable(_) => "INTERNAL",
        _ => "OTHER",
    };
    ReplyError { code: code.to_owned(), message: failure.to_string() }
}
