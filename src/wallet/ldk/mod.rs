//! The embedded node: a Lightning node of our own (ldk-node) in this process, with keys from the wallet's branch of the seed.
//!
//! [`config`] is what it is opened with, `keys` its key, `book` what the node forgets and we must not, `events` the one task
//! that listens to it; `chain_clock` is how far the chain may be; `holds`, `paying` and `owner` are what it can do, this file the rest of [`Wallet`].
//!
//! Whatever ldk-node does blocks (it writes before it answers), so every call runs on the threads for that, and only on
//! a multi-threaded runtime. Its events are the only source of truth about money: what was claimed is ours when it says
//! "received", not before.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use ldk_node::NodeError;
use ldk_node::lightning::ln::channelmanager::PaymentId;
use ldk_node::lightning_types::payment::PaymentHash as LdkHash;
use ldk_node::payment::PaymentKind;
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

use super::node::{Node as Owner, NodeAddress};
use super::{
    Balance, Capabilities, History, HoldInvoices, Invoice, InvoiceRequest, InvoiceState, InvoiceUpdate, Payer, Payment,
    PaymentHash, Received, Sent, Wallet, WalletError, bolt11,
};
use crate::money::Msat;

mod book;
mod chain_clock;
pub mod config;
mod errors;
mod events;
mod holds;
mod keys;
mod log;
mod owner;
mod paying;

#[cfg(test)]
mod tests;

use book::Book;
pub use config::{BackgroundSync, LdkChain, LdkConfig, LdkLsp, LdkTimes};
use errors::{not_started, translated};
use keys::NodeKey;

/// News a slow listener may be behind before its stream ends, which makes it look up.
const NEWS_KEPT: usize = 1_024;

/// What opening a channel for a payment may cost, in percent of that payment. The liquidity provider keeps it from the money
/// that comes, so it is the seller's cost: a quarter of the first payment for inbound liquidity that stays.
pub const MAX_LSP_FEE_PERCENT: u64 = 25;

/// What must lie on the chain for every channel with a peer that is not trusted, so that its closing can be paid for
/// (ldk-node's default). Without it no channel is opened or accepted.
pub const ANCHOR_RESERVE: Msat = Msat::sat(25_000);

/// The embedded node as a wallet.
pub struct LdkWallet {
    shared: Arc<Shared>,
    closing: CancellationToken,
    /// Listens to the node; ends with the wallet. `None` once it was shut down.
    listener: tokio::sync::Mutex<Option<AbortOnDropHandle<()>>>,
}

/// What calls and the listener share.
struct Shared {
    node: ldk_node::Node,
    key: NodeKey,
    network: Network,
    lsp: bool,
    /// Whether the node looks at the chain by itself, so that its silence means something.
    looks_by_itself: bool,
    times: LdkTimes,
    book: Book,
    opened_at: Timestamp,
    news: broadcast::Sender<InvoiceUpdate>,
    /// Counts what the node told: whoever waits for something looks again.
    changes: watch::Sender<u64>,
    /// Held while a payment is started or found to have failed, so that the failure of an earlier attempt is never taken for
    /// that of a new one.
    paying: Mutex<()>,
    /// Ends the streams of news.
    streams: Mutex<CancellationToken>,
}

impl fmt::Debug for LdkWallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { key, network, .. } = &*self.shared;
        f.debug_struct("LdkWallet").field("node", key).field("network", network).finish_non_exhaustive()
    }
}

impl Drop for LdkWallet {
    /// The last resort for a wallet that nobody shut down: it blocks until the node is stopped, while the runtime is still
    /// there to stop it.
    fn drop(&mut self) {
        self.closing.cancel();
        self.shared.stop();
    }
}

impl LdkWallet {
    /// Opens the node's folder and starts the node with these 64 bytes as its seed (see `docs/identity.md`). The chain source
    /// must answer. Whoever opens it shuts it down with [`Wallet::shut_down`].
    ///
    /// # Errors
    /// [`WalletError::Refused`] when it can't be opened like this; [`WalletError::Unreachable`] when the chain source does not
    /// answer.
    pub async fn open(config: LdkConfig, entropy: &[u8; 64]) -> Result<Self, WalletError> {
        if Handle::current().runtime_flavor() != RuntimeFlavor::MultiThread {
            return Err(WalletError::Refused("the embedded node needs a multi-threaded runtime".into()));
        }
        let entropy = Zeroizing::new(*entropy);
        let announces = config.announces();
        let opened = on_a_thread(move || Shared::start(&config, &entropy)).await??;
        let shared = Arc::new(opened);
        shared.say_limits(announces);
        let closing = CancellationToken::new();
        let listener = tokio::spawn(events::listen(Arc::clone(&shared), closing.clone()));
        Ok(Self { shared, closing, listener: tokio::sync::Mutex::new(Some(AbortOnDropHandle::new(listener))) })
    }

    /// The node's key, by which the network knows it.
    pub fn node_id(&self) -> PublicKey {
        self.shared.key.node_id()
    }

    /// Does something with the node where blocking is no harm. It goes on when the caller stops waiting.
    async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Shared) -> Result<T, WalletError> + Send + 'static,
    ) -> Result<T, WalletError> {
        let shared = Arc::clone(&self.shared);
        on_a_thread(move || act(&shared)).await?
    }

    /// Looks whenever the node has told something, until there is what is looked for or `patience` is over (`None`).
    async fn wait_for<T: Send + 'static>(
        &self,
        patience: Duration,
        look: impl Fn(&Shared) -> Result<Option<T>, WalletError> + Clone + Send + 'static,
    ) -> Result<Option<T>, WalletError> {
        let mut changes = self.shared.changes.subscribe();
        let until = Instant::now() + patience;
        loop {
            changes.mark_unchanged();
            if let Some(found) = self.run(look.clone()).await? {
                return Ok(Some(found));
            }
            match tokio::time::timeout_at(until.into(), changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(WalletError::Unreachable("the node is stopped".into())),
                Err(_) => return Ok(None),
            }
        }
    }
}

async fn on_a_thread<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Result<T, WalletError> {
    tokio::task::spawn_blocking(act).await.map_err(|_| WalletError::Internal("the node failed inside".into()))
}

/// Our hash in LDK's words.
fn ldk_hash(hash: &PaymentHash) -> LdkHash {
    LdkHash(*hash.as_bytes())
}

/// Payments are known by their hash in both directions.
fn payment_id(hash: &PaymentHash) -> PaymentId {
    PaymentId(*hash.as_bytes())
}

/// An amount of the node's. More than all bitcoin there is not.
fn msat(msat: u64) -> Msat {
    Msat::from_msat(msat).unwrap_or(Msat::MAX)
}

fn sat(sat: u64) -> Msat {
    Msat::from_sat(sat).unwrap_or(Msat::MAX)
}

impl Shared {
    fn start(config: &LdkConfig, entropy: &[u8; 64]) -> Result<Self, WalletError> {
        if config.network == Network::Testnet4 {
            // LDK would write invoices of another network.
            let why = "LDK knows no invoices of testnet4: use signet to try it out";
            return Err(WalletError::Refused(format!("the embedded node can't be opened: {why}")));
        }
        make_folder(&config.folder)?;
        let book = Book::open(&config.folder)?;
        let key = NodeKey::of(entropy);
        for (name, value) in [("node", key.node_id().to_string()), ("network", config.network.to_string())] {
            if let Err(found) = book.belongs_to(name, &value)? {
                let why = format!("its folder is that of {name} {found}, not of {value}");
                return Err(WalletError::Refused(format!("the embedded node can't be opened: {why}")));
            }
        }
        let node = config.build(entropy)?;
        if node.node_id() != key.node_id() {
            let why = "ldk-node derives another node key than this version of coinop knows";
            return Err(WalletError::Refused(format!("the embedded node can't be opened: {why}")));
        }
        node.start().map_err(|error| not_started(error, &config.chain.place()))?;
        let shared = Self {
            node,
            key,
            network: config.network,
            lsp: config.lsp.is_some(),
            looks_by_itself: config.looks_by_itself(),
            times: config.times,
            book,
            opened_at: Timestamp::now(),
            news: broadcast::Sender::new(NEWS_KEPT),
            changes: watch::Sender::new(0),
            paying: Mutex::new(()),
            streams: Mutex::new(CancellationToken::new()),
        };
        shared.give_back_again()?;
        Ok(shared)
    }

    /// Stops the node, which it bounds itself: about forty seconds at worst. Stopping twice is no error.
    fn stop(&self) {
        match self.node.stop() {
            Ok(()) | Err(NodeError::NotRunning) => {}
            Err(error) => tracing::warn!(%error, "The embedded node did not stop in order"),
        }
        self.book.close();
        self.streams().cancel();
        self.looked();
    }

    /// Says what the node is and which limits hold.
    fn say_limits(&self, announces: bool) {
        let channels = if announces { "announced and private" } else { "private only (no listen address and alias)" };
        let liquidity = if self.lsp { "bought when a payment comes" } else { "other nodes' channels only" };
        tracing::info!(
            node = %self.key.node_id(),
            network = %self.network,
            height = self.height(),
            channels,
            inbound_liquidity = liquidity,
            anchor_reserve = %ANCHOR_RESERVE,
            most_blocks_held = super::hold_window::MOST_BLOCKS,
            "The embedded Lightning node runs; channels of others take at most a tenth of their size at once"
        );
    }

    /// The height of the chain as the node knows it.
    fn height(&self) -> u32 {
        self.node.status().current_best_block.height
    }

    fn streams(&self) -> CancellationToken {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells listeners where an invoice stands. They look up; nobody listening is no error.
    fn tell(&self, hash: &PaymentHash) -> Result<(), WalletError> {
        if let Some(entry) = self.book.entry(hash)? {
            let update = InvoiceUpdate { payment_hash: *hash, state: entry.state(Timestamp::now()) };
            let _ = self.news.send(update);
        }
        Ok(())
    }

    /// Wakes whoever waits for something.
    fn looked(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// What can come in over channels that are ready, their peers there or not: what is away for a minute is back when the
    /// invoice is paid.
    fn can_receive(&self) -> Msat {
        let room = |channel: ldk_node::ChannelDetails| {
            let at_once = channel.inbound_htlc_maximum_msat.unwrap_or(u64::MAX);
            msat(channel.inbound_capacity_msat.min(at_once))
        };
        self.node.list_channels().into_iter().filter(|channel| channel.is_channel_ready).map(room).sum()
    }

    /// What a liquidity provider kept of a payment: the payer paid it all the same.
    fn skimmed(&self, hash: &PaymentHash) -> Msat {
        match self.node.payment(&payment_id(hash)).map(|payment| payment.kind) {
            Some(PaymentKind::Bolt11Jit { counterparty_skimmed_fee_msat: Some(kept), .. }) => msat(kept),
            _ => Msat::ZERO,
        }
    }

    /// Lets the node make an invoice, over a channel that will be opened for it when there is no room. Nobody could pay an
    /// invoice there is no room for, so none is made then.
    fn make(
        &self,
        request: &InvoiceRequest,
        hash: Option<&PaymentHash>,
    ) -> Result<(Bolt11Invoice, Bolt11InvoiceDescription), WalletError> {
        if request.amount.is_zero() {
            return Err(WalletError::Refused("an invoice needs an amount".into()));
        }
        let description = Description::new(request.description.clone())
            .map(Bolt11InvoiceDescription::Direct)
            .map_err(|_| WalletError::Refused("the description is longer than 639 bytes".into()))?;
        let expiry = u32::try_from(request.expiry.as_secs())
            .map_err(|_| WalletError::Refused("the invoice would live for more than a century".into()))?;
        let amount = request.amount.as_msat();
        let room = self.can_receive();
        let maker = self.node.bolt11_payment();
        let made = if room >= request.amount {
            match hash {
                None => maker.receive(amount, &description, expiry),
                Some(hash) => maker.receive_for_hash(amount, &description, expiry, ldk_hash(hash)),
            }
        } else if self.lsp {
            let limit = Some(request.amount.per(MAX_LSP_FEE_PERCENT, 100).as_msat());
            match hash {
                None => maker.receive_via_jit_channel(amount, &description, expiry, limit),
                Some(hash) => {
                    maker.receive_via_jit_channel_for_hash(amount, &description, expiry, limit, ldk_hash(hash))
                }
            }
        } else {
            let why = format!("its channels have room for {room} to come in, not for {}", request.amount);
            return Err(WalletError::Refused(why));
        };
        made.map(|invoice| (invoice, description)).map_err(translated)
    }
}

/// Makes the node's folder, closed to others: what lies there is worth all the money in the channels.
fn make_folder(folder: &Path) -> Result<(), WalletError> {
    let failed = |error: std::io::Error| {
        WalletError::Refused(format!("the embedded node can't be opened: its folder can't be made ({error})"))
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

#[async_trait]
impl Wallet for LdkWallet {
    fn capabilities(&self) -> Capabilities {
        Capabilities { hold_invoices: true, pay: true, whole_sats: false }
    }

    fn name(&self) -> &str {
        "ldk"
    }

    async fn create_invoice(&self, request: &InvoiceRequest) -> Result<Invoice, WalletError> {
        let request = request.clone();
        self.run(move |shared| {
            let (made, _) = shared.make(&request, None)?;
            let invoice = bolt11::check_ours(&request, None, &made.to_string(), shared.network, Timestamp::now())?;
            shared.book.open_invoice(&invoice, &request.description, None)?;
            Ok(invoice)
        })
        .await
    }

    async fn look_up(&self, payment_hash: &PaymentHash) -> Result<InvoiceState, WalletError> {
        let hash = *payment_hash;
        self.run(move |shared| {
            shared.check_deadlines()?;
            let entry = shared.book.entry(&hash)?.ok_or(WalletError::NotFound)?;
            Ok(entry.state(Timestamp::now()))
        })
        .await
    }

    async fn updates(&self) -> Result<BoxStream<'static, InvoiceUpdate>, WalletError> {
        if self.closing.is_cancelled() {
            return Err(WalletError::Unreachable("the node is stopped".into()));
        }
        let end = self.shared.streams();
        let told = stream::unfold(self.shared.news.subscribe(), |mut news| async move {
            // A listener that is too far behind looks up, as after any other end.
            news.recv().await.ok().map(|update| (update, news))
        });
        Ok(told.take_until(end.cancelled_owned()).boxed())
    }

    async fn balance(&self) -> Result<Option<Balance>, WalletError> {
        let status = Owner::status(self).await?;
        Ok(Some(Balance {
            spendable: status.spendable,
            receivable: Some(status.receivable),
            on_chain: Some(status.on_chain_total),
        }))
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }

    async fn shut_down(&self) {
        self.closing.cancel();
        let Some(listener) = self.listener.lock().await.take() else { return };
        // It ends by itself; an error would only say that it was aborted.
        let _ = listener.await;
        let stopped = self.run(|shared| {
            shared.stop();
            Ok(())
        });
        if stopped.await.is_err() {
            tracing::warn!("The embedded node failed while it was stopped");
        }
    }

    fn node(&self) -> Option<&dyn Owner> {
        Some(self)
    }

    fn hold_invoices(&self) -> Option<&dyn HoldInvoices> {
        Some(self)
    }

    fn payer(&self) -> Option<&dyn Payer> {
        Some(self)
    }
}

#[async_trait]
impl History for LdkWallet {
    async fn received(&self, since: Timestamp) -> Result<Vec<Received>, WalletError> {
        self.run(move |shared| shared.book.received(since)).await
    }

    async fn sent(&self, since: Timestamp) -> Result<Vec<Sent>, WalletError> {
        self.run(move |shared| shared.book.sent(since)).await
    }
}
