//! The configuration as the rest of coinop takes it: checked, typed, with its paths made absolute from the file's folder.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use url::Url;

use super::agents::{AgentSettings, Sale};
use super::inference::InferenceSettings;
use super::secret::SecretRef;
use crate::identity::{Account, Keystore};
use crate::job::{CustomerId, Rates, Terms};
use crate::money::Msat;

/// A configuration whose values all work together. That everything needed to sell is there too is another question:
/// [`Config::check_ready_to_serve`](super::Config::check_ready_to_serve).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Who we are.
    pub identity: IdentitySettings,
    /// Where requests come from and answers go.
    pub relays: RelaySettings,
    /// What customers see.
    pub profile: Profile,
    /// Text generation.
    pub text: TextSettings,
    /// What does the work.
    pub inference: InferenceSettings,
    /// Sandboxes, and what is done in them.
    pub agents: AgentSettings,
    /// Where the money comes in.
    pub wallet: WalletSettings,
    /// The Lightning network invoices are of.
    pub network: Network,
    /// Being paid by zaps.
    pub zaps: ZapSettings,
    /// Paying credit back.
    pub refund: RefundSettings,
    /// How much of what we take on.
    pub limits: Limits,
    /// Who is served.
    pub access: Access,
    /// How customers find us.
    pub ad: AdSettings,
    /// Figures for Prometheus.
    pub metrics: MetricsSettings,
    /// How long running jobs may take to finish when we are asked to stop.
    pub shutdown_grace: Duration,
    /// Inputs behind addresses.
    pub fetch: FetchSettings,
    /// What is told, and how.
    pub log: LogSettings,
    /// The buyer's side.
    pub requester: RequesterSettings,
}

impl Config {
    /// Whether anything is sold.
    pub fn sells(&self) -> bool {
        self.text.enabled || self.agents.any()
    }

    /// Whether anybody may be asked to pay.
    pub fn asks_for_money(&self) -> bool {
        self.text.asks_for_money() || self.agents.sales().iter().any(|(_, _, sale)| sale.asks_for_money())
    }

    /// Whether anything that is sold asks a model.
    pub fn asks_a_model(&self) -> bool {
        self.text.enabled || self.agents.asks_a_model()
    }
}

/// `[identity]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentitySettings {
    /// NIP-06 account.
    pub account: Account,
    /// The encrypted phrase.
    pub keystore: Keystore,
}

/// `[relays]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySettings {
    /// Websocket addresses, none twice, at least one.
    pub urls: Vec<Url>,
    /// How many must accept an event: 1 to as many as there are.
    pub quorum: usize,
    /// How long one may take to accept an event.
    pub publish_timeout: Duration,
    /// Whether relays that customers name may be at loopback and private addresses.
    pub allow_private: bool,
}

/// `[profile]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// Name.
    pub name: Option<String>,
    /// A few words.
    pub about: Option<String>,
    /// A picture.
    pub picture: Option<Url>,
    /// A page.
    pub website: Option<Url>,
    /// Lightning address.
    pub lud16: Option<String>,
}

/// `[text]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextSettings {
    /// Whether it is sold.
    pub enabled: bool,
    /// Terms of payment.
    pub terms: Terms,
    /// The price list; all zero when the terms are free.
    pub rates: Rates,
    /// Free jobs a key and day.
    pub free_per_day: u32,
    /// Bytes of all inputs together.
    pub max_input_bytes: usize,
    /// The most tokens a customer may ask for.
    pub max_output_tokens: u32,
    /// Tokens when none are asked for; at most [`TextSettings::max_output_tokens`].
    pub default_output_tokens: u32,
    /// The longest run.
    pub time_limit: Duration,
}

impl TextSettings {
    /// How it is sold.
    pub fn sale(&self) -> Sale {
        Sale {
            enabled: self.enabled,
            terms: self.terms,
            rates: self.rates,
            free_per_day: self.free_per_day,
            time_limit: self.time_limit,
        }
    }

    /// Whether anybody may be asked to pay.
    pub fn asks_for_money(&self) -> bool {
        self.enabled && self.terms != Terms::Free && !self.rates.is_free()
    }
}

/// `[wallet]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalletSettings {
    /// No wallet: only free work.
    None,
    /// Play money, by the operator's explicit word.
    PlayMoney,
    /// Nostr Wallet Connect.
    Nwc {
        /// Where the connection string stands.
        connection: SecretRef,
    },
    /// The embedded node.
    Ldk(Box<LdkSettings>),
    /// LND's REST interface.
    Lnd(LndSettings),
    /// Core Lightning's clnrest.
    Cln(ClnSettings),
    /// phoenixd.
    Phoenixd {
        /// Its address.
        url: Url,
        /// Its HTTP password.
        password: SecretRef,
    },
    /// LNbits.
    Lnbits {
        /// Its address.
        url: Url,
        /// The wallet's admin key.
        key: SecretRef,
    },
}

/// `[wallet.ldk]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdkSettings {
    /// Where the chain is seen.
    pub chain: ChainSource,
    /// The node's own storage; `None` for its place in the data folder.
    pub folder: Option<PathBuf>,
    /// Socket addresses (`host:port`) other nodes connect to; none for a node nobody connects to.
    pub listen: Vec<String>,
    /// The node's name in the network, at most 32 bytes (BOLT 7).
    pub alias: Option<String>,
    /// Opens channels to us when a payment comes (LSPS2).
    pub lsp: Option<LspSettings>,
}

/// Where the embedded node sees the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainSource {
    /// An Esplora HTTP API.
    Esplora(Url),
    /// An Electrum server, `tcp://` or `ssl://`.
    Electrum(Url),
    /// bitcoind's RPC.
    Bitcoind {
        /// Its host.
        host: String,
        /// Its RPC port.
        port: u16,
        /// Its RPC user.
        user: String,
        /// Its RPC password.
        password: SecretRef,
    },
}

/// A Lightning service provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LspSettings {
    /// Its node.
    pub node: PublicKey,
    /// Its `host:port`.
    pub address: String,
    /// What it wants to see before it serves us.
    pub token: Option<SecretRef>,
}

/// `[wallet.lnd]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LndSettings {
    /// Its REST address.
    pub url: Url,
    /// What we may do.
    pub macaroon: SecretRef,
    /// The one certificate that is accepted (`tls.cert`); `None` asks the public authorities.
    pub certificate: Option<PathBuf>,
}

/// `[wallet.cln]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClnSettings {
    /// The address of clnrest.
    pub url: Url,
    /// What we may do.
    pub rune: SecretRef,
    /// The one certificate that is accepted; `None` asks the public authorities.
    pub certificate: Option<PathBuf>,
}

/// `[zaps]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZapSettings {
    /// Whether a zap counts as payment, given a lightning address in the profile.
    pub accept: bool,
}

/// `[refund]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefundSettings {
    /// Credit from this amount on is paid back without being asked; `None` for never.
    pub automatic_above: Option<Msat>,
    /// The most that is paid back a day without the operator.
    pub max_per_day: Msat,
    /// Routing fees, in percent of the amount.
    pub max_fee_percent: u32,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an event.
    pub max_event_bytes: usize,
    /// Older requests are left alone.
    pub max_request_age: Duration,
    /// How far ahead a customer's clock may be.
    pub max_clock_skew: Duration,
    /// Jobs running at once; `None` for as many as the backends have room for.
    pub jobs_running: Option<usize>,
    /// Jobs waiting for their turn.
    pub jobs_queued: usize,
    /// Quotes waiting for payment.
    pub open_quotes: usize,
    /// Quotes and jobs of one customer at once.
    pub per_customer_open: usize,
    /// Requests of one customer a minute.
    pub per_customer_per_minute: u32,
    /// Runs of one customer an hour that end uncharged by their own doing.
    pub per_customer_given_away_per_hour: usize,
    /// Events from all relays a second.
    pub events_per_second: u32,
    /// How long an invoice can be paid.
    pub payment_window: Duration,
    /// How long after that a payment is looked for.
    pub late_payment_window: Duration,
    /// How long finished jobs are kept.
    pub retention: Duration,
}

/// `[access]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// When not empty, nobody else is served.
    pub allow: BTreeSet<CustomerId>,
    /// Never served.
    pub deny: BTreeSet<CustomerId>,
    /// Never pay.
    pub free: BTreeSet<CustomerId>,
    /// Leading zero bits of a request's id (NIP-13).
    pub proof_of_work: u32,
}

/// `[ad]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdSettings {
    /// Whether it is published.
    pub enabled: bool,
    /// Topics.
    pub topics: Vec<String>,
    /// Whether we say that we are here.
    pub heartbeat: bool,
    /// How often it is published again.
    pub refresh: Duration,
    /// Whether it is taken back when we stop.
    pub withdraw_on_shutdown: bool,
}

/// `[metrics]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetricsSettings {
    /// Where they can be read; nowhere when `None`.
    pub listen: Option<SocketAddr>,
}

impl MetricsSettings {
    /// Whether others than this machine can read them: they tell what is earned.
    pub fn is_exposed(&self) -> bool {
        self.listen.is_some_and(|at| !at.ip().is_loopback())
    }
}

/// `[fetch]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchSettings {
    /// Whether inputs behind addresses are fetched.
    pub enabled: bool,
    /// Bytes of one.
    pub max_bytes: usize,
    /// Time for one.
    pub timeout: Duration,
    /// Whether loopback and private addresses are allowed.
    pub allow_private: bool,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// `tracing` directives, known to be readable.
    pub filter: String,
}

/// `[requester]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequesterSettings {
    /// The most a job may cost.
    pub max_cost: Msat,
    /// How long to wait.
    pub timeout: Duration,
    /// A wallet that pays.
    pub wallet: Option<PayFrom>,
    /// The most paid for jobs in 24 hours, fees included; `None` for no limit.
    pub max_per_day: Option<Msat>,
    /// Routing fees, in percent of the amount.
    pub max_fee_percent: u32,
}

/// What the requester pays from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayFrom {
    /// The wallet of this installation (`[wallet]`).
    Own,
    /// A wallet of its own, behind a Nostr Wallet Connect string.
    Nwc(SecretRef),
}
