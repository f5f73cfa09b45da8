//! Nostr Wallet Connect (NIP-47): somebody's wallet, reached over relays with a key of its own.
//!
//! Ours rather than a library's: the released clients know neither hold invoices nor NIP-44 here. [`uri`] is the
//! connection string, `cipher` the two encryptions, `wire` the messages, `meeting` the relays, `link` calls and news; this
//! file makes a [`Wallet`] of them.
//!
//! Messages are ephemeral and may be lost. A call that is not answered in time is [`WalletError::Unreachable`], which says
//! nothing about what happened; news is a hint, and after every gap its stream ends, so that whoever reads it looks up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Network;
use futures::stream::BoxStream;
use jiff::Timestamp;
use nostr::{Event, Filter, Kind, TagKind};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Balance, Capabilities, History, HoldInvoices, Invoice, InvoiceRequest, InvoiceState, InvoiceUpdate, Payer, Payment,
    PaymentHash, Wallet, WalletError, bolt11, hold_window,
};
use crate::money::Msat;

pub(crate) mod cipher;
mod history;
pub(crate) mod link;
pub(crate) mod meeting;
pub mod uri;
pub(crate) mod wire;

#[cfg(test)]
mod tests;

use cipher::{Cipher, NIP44_NOTIFICATION};
use link::{ENCRYPTION_TAG, Link};
use meeting::Meeting;
use wire::Method;

pub use uri::NwcUri;

/// How far the wallet's clock may be behind ours before its messages are taken for old ones.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(600);

/// Stored messages asked for at most: some relays keep ephemeral events for a while.
const STORED_MESSAGES: usize = 100;

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NwcOptions {
    /// The network invoices must be for. `None`: the one the wallet says it is on, else bitcoin.
    pub network: Option<Network>,
    /// For the relays to connect and the wallet to introduce itself.
    pub connect_timeout: Duration,
    /// For an answer.
    pub request_timeout: Duration,
    /// For the answer to a payment. A hold invoice is paid only when its receiver takes the money, which may be later than
    /// this: then ask [`Payer::payment`].
    pub payment_timeout: Duration,
    /// Between attempts to reach a relay.
    pub retry: Duration,
}

impl Default for NwcOptions {
    /// Generous where wallets on telephones answer, short enough to retry within an invoice's life.
    fn default() -> Self {
        Self {
            network: None,
            connect_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(30),
            payment_timeout: Duration::from_secs(90),
            retry: Duration::from_secs(5),
        }
    }
}

/// What the wallet says of itself and of what this connection may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NwcInfo {
    /// The wallet's name for itself.
    pub alias: Option<String>,
    /// The network invoices are checked against.
    pub network: Network,
    /// The methods this connection may call, in the words of NIP-47.
    pub methods: Vec<String>,
    /// Whether messages are encrypted with NIP-44. If not, the wallet knows only NIP-04, which protects less.
    pub nip44: bool,
    /// Whether the wallet says how high the chain is, without which no deadline of a hold can be compared with it.
    pub tells_height: bool,
}

impl NwcInfo {
    fn allows(&self, method: Method) -> bool {
        self.methods.iter().any(|known| known == method.word())
    }
}

/// A wallet reached over Nostr Wallet Connect.
pub struct NwcWallet {
    link: Arc<Link>,
    options: NwcOptions,
    info: NwcInfo,
    relays: Vec<String>,
    /// Ends with the wallet.
    listener: AbortOnDropHandle<()>,
}

impl fmt::Debug for NwcWallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NwcWallet").field("relays", &self.relays).field("info", &self.info).finish_non_exhaustive()
    }
}

impl NwcWallet {
    /// Connects and gets to know the wallet: its encryption from the info event (kind 13194; without one NIP-04 is
    /// assumed), its network and this connection's methods from `get_info`.
    ///
    /// # Errors
    /// [`WalletError::Unreachable`] when neither relay nor wallet answers in time (trying again is fine),
    /// [`WalletError::Refused`] when it is on another network or speaks no encryption of ours.
    pub async fn connect(uri: &NwcUri, options: NwcOptions) -> Result<Self, WalletError> {
        let wanted = Filter::new()
            .kinds([Kind::WalletConnectResponse, Kind::WalletConnectNotification, NIP44_NOTIFICATION])
            .author(*uri.wallet())
            .pubkey(uri.keys().public_key())
            .since(nostr::Timestamp::now() - CLOCK_TOLERANCE)
            .limit(STORED_MESSAGES);
        let (meeting, arrivals) = Meeting::join(uri.keys().clone(), uri.relays(), wanted, options.retry).await?;
        let introduction = Filter::new().kind(Kind::WalletConnectInfo).author(*uri.wallet()).limit(1);
        let introduction = meeting.find(introduction, options.connect_timeout).await?;
        let offered = introduction.as_ref().and_then(encryption);
        let cipher = match &introduction {
            Some(_) => Cipher::choose(offered.as_deref()),
            None => Some(Cipher::Nip04),
        };
        let cipher = cipher
            .ok_or_else(|| WalletError::Refused("the wallet offers neither NIP-44 nor NIP-04 encryption".into()))?;
        let link = Arc::new(Link::new(meeting, uri.keys().clone(), *uri.wallet(), cipher));
        let listening = Arc::clone(&link);
        let listener = AbortOnDropHandle::new(tokio::spawn(async move { listening.listen(arrivals).await }));
        let advertised = introduction.map(|event| event.content).unwrap_or_default();
        let info = introduce(&link, &advertised, cipher, options).await?;
        let relays = uri.relays().iter().map(ToString::to_string).collect();
        Ok(Self { link, options, info, relays, listener })
    }

    /// What the wallet said of itself when it was connected.
    pub fn info(&self) -> &NwcInfo {
        &self.info
    }

    /// Closes the connection. Calls under way end as unreachable, streams of news end.
    pub async fn shutdown(self) {
        self.link.leave().await;
        // Leaving ends it; an error would only say that it was aborted.
        let _ = self.listener.await;
    }

    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        params: impl serde::Serialize,
    ) -> Result<T, WalletError> {
        self.link.call(method, params, self.options.request_timeout).await
    }

    /// Makes an invoice: a hold invoice when a hash and the blocks it needs are given.
    async fn make(&self, request: &InvoiceRequest, hold: Option<(&PaymentHash, u32)>) -> Result<Invoice, WalletError> {
        let method = if hold.is_some() { Method::MakeHoldInvoice } else { Method::MakeInvoice };
        if !self.info.allows(method) {
            return Err(not_allowed(method));
        }
        let params = wire::MakeInvoice {
            amount: request.amount,
            description: request.description.clone(),
            expiry: request.expiry.as_secs(),
            payment_hash: hold.map(|(hash, _)| *hash),
            min_cltv_expiry_delta: hold.map(|(_, blocks)| blocks),
        };
        let made: wire::Transaction = self.call(method, params).await?;
        let bolt11 = made.invoice.ok_or_else(|| WalletError::BadAnswer("it has no invoice".into()))?;
        let invoice =
            bolt11::check_ours(request, hold.map(|(hash, _)| hash), &bolt11, self.info.network, Timestamp::now())?;
        if made.payment_hash.is_some_and(|said| said != invoice.payment_hash) {
            return Err(WalletError::BadInvoice("its payment hash is not the one the wallet says".into()));
        }
        // A wallet that does not know the parameter makes one whose payment the network takes back in the middle of the job.
        if let Some((_, blocks)) = hold
            && bolt11::final_blocks(&invoice.bolt11)? < blocks
        {
            return Err(WalletError::BadInvoice(format!("its payment can't be held for {blocks} blocks")));
        }
        Ok(invoice)
    }

    /// Whether a held payment must be taken by a block that has come: then the network takes it back at any moment, and
    /// taking it would end on the chain. What the wallet does not tell is not known to be over.
    async fn is_past_deadline(&self, hash: &PaymentHash) -> Result<bool, WalletError> {
        if !self.info.tells_height {
            return Ok(false);
        }
        let held = match self.transaction(hash).await {
            Ok(told) => told,
            Err(error @ WalletError::Unreachable(_)) => return Err(error),
            // Taking it will say what is wrong.
            Err(_) => return Ok(false),
        };
        let accepted = held.state.as_deref() == Some("accepted");
        let Some(deadline) = held.settle_deadline.filter(|block| accepted && *block > 0) else { return Ok(false) };
        let info: wire::Info = self.call(Method::GetInfo, serde_json::json!({})).await?;
        Ok(info.block_height.is_some_and(|height| height >= deadline))
    }

    async fn transaction(&self, hash: &PaymentHash) -> Result<wire::Transaction, WalletError> {
        let told: wire::Transaction = self.call(Method::LookupInvoice, wire::ByHash { payment_hash: *hash }).await?;
        match told.payment_hash {
            Some(said) if said != *hash => Err(WalletError::BadAnswer("it tells of another payment hash".into())),
            _ => Ok(told),
        }
    }

    /// A settle or cancel that the wallet answered with an error may have been done before: the state decides.
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

/// Asks who it is; a wallet that does not let us ask is taken at its advertisement.
async fn introduce(link: &Link, advertised: &str, cipher: Cipher, options: NwcOptions) -> Result<NwcInfo, WalletError> {
    let told = link.call(Method::GetInfo, serde_json::json!({}), options.connect_timeout).await;
    let told: wire::Info = match told {
        Ok(told) => told,
        Err(WalletError::Refused(_)) => {
            wire::Info { alias: None, network: None, block_height: None, methods: Vec::new() }
        }
        Err(error) => return Err(error),
    };
    let found = told.network.as_deref().and_then(network);
    let network = match (options.network, found) {
        // Most wallets have one word for both test networks.
        (Some(Network::Testnet4), Some(Network::Testnet)) => Network::Testnet4,
        (Some(expected), Some(found)) if expected != found => {
            return Err(WalletError::Refused(format!("the wallet is on {found}, and wallet.network is {expected}")));
        }
        (Some(expected), _) => expected,
        (None, found) => found.unwrap_or(Network::Bitcoin),
    };
    let methods =
        if told.methods.is_empty() { advertised.split_whitespace().map(str::to_owned).collect() } else { told.methods };
    let tells_height = told.block_height.is_some();
    Ok(NwcInfo { alias: told.alias, network, methods, nip44: cipher == Cipher::Nip44, tells_height })
}

/// The `encryption` tag of an info event.
fn encryption(event: &Event) -> Option<String> {
    event.tags.find(TagKind::custom(ENCRYPTION_TAG)).and_then(|tag| tag.content()).map(str::to_owned)
}

/// The network by its name in `get_info`.
fn network(name: &str) -> Option<Network> {
    match name {
        "mainnet" | "bitcoin" => Some(Network::Bitcoin),
        "testnet" => Some(Network::Testnet),
        "testnet4" => Some(Network::Testnet4),
        "signet" | "mutinynet" => Some(Network::Signet),
        "regtest" => Some(Network::Regtest),
        _ => None,
    }
}

fn not_allowed(method: Method) -> WalletError {
    WalletError::Refused(format!("the wallet connection does not allow {}: make one that does", method.word()))
}

#[async_trait]
impl Wallet for NwcWallet {
    fn capabilities(&self) -> Capabilities {
        let all = |methods: &[Method]| methods.iter().all(|method| self.info.allows(*method));
        Capabilities {
            hold_invoices: all(&[
                Method::MakeHoldInvoice,
                Method::SettleHoldInvoice,
                Method::CancelHoldInvoice,
                Method::LookupInvoice,
            ]),
            pay: all(&[Method::PayInvoice]),
            // Many wallets behind NWC know no smaller step and NIP-47 does not say; the rest becomes credit.
            whole_sats: true,
        }
    }

    fn name(&self) -> &str {
        "nwc"
    }

    async fn create_invoice(&self, request: &InvoiceRequest) -> Result<Invoice, WalletError> {
        self.make(request, None).await
    }

    async fn look_up(&self, payment_hash: &PaymentHash) -> Result<InvoiceState, WalletError> {
        self.transaction(payment_hash).await?.invoice_state(Timestamp::now())
    }

    async fn updates(&self) -> Result<BoxStream<'static, InvoiceUpdate>, WalletError> {
        if self.listener.is_finished() {
            return Err(WalletError::Unreachable("the connection was closed".into()));
        }
        Ok(self.link.updates())
    }

    async fn balance(&self) -> Result<Option<Balance>, WalletError> {
        if !self.info.allows(Method::GetBalance) {
            return Ok(None);
        }
        let told: wire::Balance = self.call(Method::GetBalance, serde_json::json!({})).await?;
        Ok(Some(Balance { spendable: told.balance, receivable: None, on_chain: None }))
    }

    fn history(&self) -> Option<&dyn History> {
        self.info.allows(Method::ListTransactions).then_some(self)
    }

    fn hold_invoices(&self) -> Option<&dyn HoldInvoices> {
        self.capabilities().hold_invoices.then_some(self)
    }

    fn payer(&self) -> Option<&dyn Payer> {
        self.capabilities().pay.then_some(self)
    }
}

#[async_trait]
impl HoldInvoices for NwcWallet {
    fn longest_hold(&self) -> Duration {
        hold_window::longest(hold_window::MOST_BLOCKS)
    }

    async fn create_hold_invoice(
        &self,
        request: &InvoiceRequest,
        payment_hash: &PaymentHash,
        hold_for: Duration,
    ) -> Result<Invoice, WalletError> {
        self.make(request, Some((payment_hash, hold_window::blocks(hold_for)))).await
    }

    async fn settle(&self, preimage: &[u8; 32]) -> Result<(), WalletError> {
        let hash = bolt11::hash_of(preimage);
        if self.is_past_deadline(&hash).await? {
            self.cancel(&hash).await?;
            return Err(WalletError::Refused("the time to take the held payment is over: it was given back".into()));
        }
        let params = wire::SettleHoldInvoice { preimage: hex::encode(preimage) };
        match self.call::<serde_json::Value>(Method::SettleHoldInvoice, params).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let settled = |state| matches!(state, InvoiceState::Settled { .. });
                self.unless_already(&hash, error, settled).await
            }
        }
    }

    async fn cancel(&self, payment_hash: &PaymentHash) -> Result<(), WalletError> {
        let params = wire::ByHash { payment_hash: *payment_hash };
        match self.call::<serde_json::Value>(Method::CancelHoldInvoice, params).await {
            Ok(_) => Ok(()),
            Err(error) => self.unless_already(payment_hash, error, |state| state == InvoiceState::Cancelled).await,
        }
    }
}

#[async_trait]
impl Payer for NwcWallet {
    /// NIP-47 has no way to limit the fee: `max_fee` is up to the budget of the connection, and what was paid is reported.
    async fn pay(&self, bolt11: &str, _max_fee: Msat) -> Result<Payment, WalletError> {
        let invoice = bolt11::read_for_paying(bolt11, self.info.network, Timestamp::now())?;
        let params = wire::PayInvoice { invoice: invoice.bolt11 };
        let paid = self.link.call::<wire::Paid>(Method::PayInvoice, params, self.options.payment_timeout).await;
        match paid {
            Ok(paid) => wire::proof(Some(&paid.preimage), paid.fees_paid, &invoice.payment_hash),
            // The code also stands for timeouts, after which the payment may still be under way.
            Err(failed @ WalletError::PaymentFailed(_)) => match self.transaction(&invoice.payment_hash).await {
                Ok(told) => match told.payment(&invoice.payment_hash) {
                    Ok(Some(payment)) => Ok(payment),
                    Ok(None) if told.direction.as_deref() != Some("incoming") => {
                        Err(WalletError::Internal("the payment seems to be under way still".into()))
                    }
                    _ => Err(failed),
                },
                Err(WalletError::PaymentFailed(_)) => Err(failed),
                // Only a wallet that keeps a list of what it paid is believed to know nothing of it: others look up
                // incoming payments alone.
                Err(WalletError::NotFound) if self.info.allows(Method::ListTransactions) => Err(failed),
                Err(WalletError::NotFound) => {
                    Err(WalletError::Internal("it says that the payment failed, and does not know it".into()))
                }
                // An answer about the question, not about the payment: that stays in doubt.
                Err(error) => Err(WalletError::Internal(format!("what became of the payment is unknown: {error}"))),
            },
            Err(error) => Err(error),
        }
    }

    async fn payment(&self, payment_hash: &PaymentHash) -> Result<Option<Payment>, WalletError> {
        match self.transaction(payment_hash).await {
            Ok(told) => told.payment(payment_hash),
            Err(WalletError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
