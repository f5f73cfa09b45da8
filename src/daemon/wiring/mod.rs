//! From a configuration to parts: the one place that names concrete wallets, backends and sources.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bitcoin::Network;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use url::Url;

use crate::config::{
    ClnSettings, Config, EndpointSettings, InferenceSettings, LdkSettings, Limits, LndSettings, Paths, WalletSettings,
};
use crate::daemon::service::{AdPlan, Plan, REFUNDS_EVERY, RefundPlan};
use crate::executor::Router;
use crate::executor::inference::TextExecutor;
use crate::executor::sources::InputSource;
use crate::fetch::{FetchLimits, Fetcher};
use crate::identity::Identity;
use crate::inference::ModelInfo;
use crate::job::JobKind;
use crate::job::text::TextLimits;
use crate::lnurl::LnurlClient;
use crate::metrics::Metrics;
use crate::money::Msat;
use crate::nip90::{Codec, ReadLimits};
use crate::provider::{AutomaticRefunds, Clock, HoldKey, ZapAddress};
use crate::relays::{DEFAULT_LOOKUP_PATIENCE, IntakeLimits, PoolConfig, Rate, RelayInputs};
use crate::wallet::Wallet;
use crate::wallet::cln::ClnWallet;
use crate::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions};
use crate::wallet::http::{Endpoint, HttpOptions};
use crate::wallet::lnbits::LnbitsWallet;
use crate::wallet::lnd::LndWallet;
use crate::wallet::nwc::{NwcOptions, NwcUri, NwcWallet};
use crate::wallet::phoenixd::PhoenixdWallet;

pub mod agents;
pub mod found;
pub mod inference;
pub mod offers;
pub mod sandbox;
pub mod wallets;

use self::agents::{OpenAgents, Withheld};
use self::inference::{OpenInference, model_terms};
pub use self::offers::{Choices, ad_plan, check_terms, configured_ads, sold, terms_in_force};

/// The file play money is kept in, in the data folder.
pub const PLAY_MONEY_FILE: &str = "play-money.journal";

/// How often play-money invoices are looked at.
const PLAY_MONEY_POLL: Duration = Duration::from_secs(1);

/// Bytes of a certificate file at most; a chain of several is some kilobytes.
const MAX_CERTIFICATE_BYTES: u64 = 64 * 1024;

/// How long another job's result is waited for when it is an input.
const JOB_INPUT_PATIENCE: Duration = Duration::from_secs(60);

/// Bytes an event has around what the customer wrote: tags, keys, signature, JSON escapes.
const EVENT_OVERHEAD_BYTES: usize = 16 * 1024;

/// The parameters of a 5050 request that are understood, for the ad.
const TEXT_PARAMS: [&str; 12] = [
    "model",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "stop",
    "seed",
    "json_schema",
    "system",
    "stream",
];

/// Opens the wallet of the configuration.
///
/// # Errors
/// When it can't be reached, or its secret is missing.
pub async fn wallet(config: &Config, identity: &Identity, data: &Path) -> Result<Option<Arc<dyn Wallet>>> {
    Ok(match &config.wallet {
        WalletSettings::None => None,
        WalletSettings::PlayMoney => {
            let network =
                FakeNetwork::open(&data.join(PLAY_MONEY_FILE)).context("the play-money wallet can't be opened")?;
            let key = identity.wallet.play_money_node_key().secret_bytes();
            Some(Arc::new(FakeWallet::open(&network, &key, FakeWalletOptions::default())?))
        }
        WalletSettings::Nwc { connection } => {
            let secret = connection.reveal("wallet.nwc.connection")?;
            let connected = connect_nwc(secret.expose_secret(), config.network).await;
            Some(Arc::new(connected.context("wallet.nwc.connection")?))
        }
        WalletSettings::Ldk(settings) => Some(embedded_node(config, settings, identity, data).await?),
        WalletSettings::Lnd(LndSettings { url, macaroon, certificate }) => {
            let endpoint = endpoint("wallet.lnd", url, certificate.as_deref())?;
            let secret = macaroon.reveal("wallet.lnd.macaroon")?;
            let connected = LndWallet::connect(endpoint, &secret, config.network, HttpOptions::default()).await;
            Some(Arc::new(connected.with_context(|| unusable("wallet.lnd", url))?))
        }
        WalletSettings::Cln(ClnSettings { url, rune, certificate }) => {
            let endpoint = endpoint("wallet.cln", url, certificate.as_deref())?;
            let secret = rune.reveal("wallet.cln.rune")?;
            let connected = ClnWallet::connect(endpoint, &secret, config.network, HttpOptions::default()).await;
            Some(Arc::new(connected.with_context(|| unusable("wallet.cln", url))?))
        }
        WalletSettings::Phoenixd { url, password } => {
            let endpoint = endpoint("wallet.phoenixd", url, None)?;
            let secret = password.reveal("wallet.phoenixd.password")?;
            let connected = PhoenixdWallet::connect(endpoint, &secret, config.network, HttpOptions::default()).await;
            Some(Arc::new(connected.with_context(|| unusable("wallet.phoenixd", url))?))
        }
        WalletSettings::Lnbits { url, key } => {
            let endpoint = endpoint("wallet.lnbits", url, None)?;
            let secret = key.reveal("wallet.lnbits.key")?;
            let connected = LnbitsWallet::connect(endpoint, &secret, config.network, HttpOptions::default()).await;
            Some(Arc::new(connected.with_context(|| unusable("wallet.lnbits", url))?))
        }
    })
}

/// The folder of the embedded node, in the data folder.
#[cfg(feature = "ldk")]
const NODE_FOLDER: &str = "ldk";

/// Opens the embedded node.
#[cfg(feature = "ldk")]
async fn embedded_node(
    config: &Config,
    settings: &LdkSettings,
    identity: &Identity,
    data: &Path,
) -> Result<Arc<dyn Wallet>> {
    use crate::config::ChainSource;
    use crate::wallet::ldk::{BackgroundSync, LdkChain, LdkConfig, LdkLsp, LdkTimes, LdkWallet};
    use crate::wallet::node::NodeAddress;
    if config.network == bitcoin::Network::Bitcoin {
        tracing::warn!(
            "The embedded node holds REAL MONEY: a stolen machine or phrase, a lost or restored storage folder, or a long \
             outage can cost all of it. Keep little in it"
        );
    }
    let chain = match &settings.chain {
        ChainSource::Esplora(url) => LdkChain::Esplora(url.clone()),
        ChainSource::Electrum(url) => LdkChain::Electrum(url.clone()),
        ChainSource::Bitcoind { host, port, user, password } => LdkChain::Bitcoind {
            host: host.clone(),
            port: *port,
            user: user.clone(),
            password: password.reveal("wallet.ldk.bitcoind_password")?,
        },
    };
    let lsp = settings.lsp.as_ref().map(|lsp| -> Result<LdkLsp> {
        let token = lsp.token.as_ref().map(|token| token.reveal("wallet.ldk.lsp_token")).transpose()?;
        Ok(LdkLsp { node: NodeAddress { node: lsp.node, address: lsp.address.clone() }, token })
    });
    let node = LdkConfig {
        network: config.network,
        chain,
        folder: settings.folder.clone().unwrap_or_else(|| data.join(NODE_FOLDER)),
        listen: settings.listen.clone(),
        alias: settings.alias.clone(),
        lsp: lsp.transpose()?,
        background_sync: Some(BackgroundSync::default()),
        times: LdkTimes::default(),
    };
    let opened = LdkWallet::open(node, identity.wallet.entropy()).await;
    Ok(Arc::new(opened.context("the embedded node (wallet.ldk) can't be started")?))
}

#[cfg(not(feature = "ldk"))]
async fn embedded_node(_: &Config, _: &LdkSettings, _: &Identity, _: &Path) -> Result<Arc<dyn Wallet>> {
    anyhow::bail!(
        "this coinop was built without the embedded node; build it with the default features, or set wallet.backend to a \
         wallet it has"
    )
}

/// Where a wallet's HTTP interface is, with the certificate that is pinned.
fn endpoint(section: &str, url: &Url, certificate: Option<&Path>) -> Result<Endpoint> {
    let pem = certificate.map(|path| read_certificate(path).with_context(|| format!("{section}.certificate")));
    Endpoint::new(url, pem.transpose()?.as_deref()).with_context(|| format!("{section}.url"))
}

/// Which wallet can't be used, by its section and address.
fn unusable(section: &str, url: &Url) -> String {
    let at = url.origin().ascii_serialization();
    let hint = match (section, url.scheme()) {
        ("wallet.lnd" | "wallet.cln", "https") => {
            format!("; its certificate is usually its own: then {section}.certificate names the file")
        }
        _ => String::new(),
    };
    format!(
        "the wallet at {at} ({section}.url) can't be used: does it run there, and is its secret the right one{hint}?"
    )
}

fn read_certificate(path: &Path) -> Result<Vec<u8>> {
    let unreadable = || format!("can't read {}", path.display());
    let mut pem = Vec::new();
    let file = File::open(path).with_context(unreadable)?;
    file.take(MAX_CERTIFICATE_BYTES + 1).read_to_end(&mut pem).with_context(unreadable)?;
    anyhow::ensure!(pem.len() as u64 <= MAX_CERTIFICATE_BYTES, "{} is far too large", path.display());
    Ok(pem)
}

/// What a customer trying things out has.
const PLAY_PURSE: Msat = Msat::sat(10_000);

/// The purse's key on the play-money network. No secret: there is nothing to guard.
const PLAY_PURSE_KEY: [u8; 32] = [0x70; 32];

/// The network play money is on.
pub const PLAY_NETWORK: Network = crate::wallet::fake::NETWORK;

/// A customer's play money, on the same invented network as the provider of that data folder.
///
/// # Errors
/// When its file can't be used.
pub fn play_purse(data: &Path) -> Result<FakeWallet> {
    let network = FakeNetwork::open(&data.join(PLAY_MONEY_FILE)).context("the play money can't be opened")?;
    let options = FakeWalletOptions { opening_balance: PLAY_PURSE, ..FakeWalletOptions::default() };
    Ok(FakeWallet::open(&network, &PLAY_PURSE_KEY, options)?)
}

/// Connects a wallet by its Nostr Wallet Connect string.
///
/// # Errors
/// When the string can't be read, the wallet does not answer, or it is on another network.
pub async fn connect_nwc(connection: &str, network: Network) -> Result<NwcWallet> {
    let uri: NwcUri = connection.parse()?;
    let options = NwcOptions { network: Some(network), ..NwcOptions::default() };
    NwcWallet::connect(&uri, options).await.context("the wallet behind the NWC connection can't be used")
}

/// The models as the configuration names them, without asking anybody: what the ad says of them before the backends run.
pub fn configured_models(settings: &InferenceSettings) -> Vec<ModelInfo> {
    let mut names: Vec<String> = settings.models.iter().map(|model| model.name.clone()).collect();
    if names.is_empty() {
        names.extend(settings.endpoints.iter().flat_map(EndpointSettings::named_models));
    }
    let mut seen = BTreeSet::new();
    names.into_iter().filter(|name| seen.insert(name.clone())).map(ModelInfo::named).collect()
}

/// Everything a service needs, from a configuration, an identity, and the parts that were opened.
///
/// # Errors
/// When the backend does not answer, the wallet can't do what the terms ask, or nothing that is sold can be done.
pub async fn plan(
    config: &Config,
    paths: &Paths,
    identity: &Identity,
    wallet: Option<Arc<dyn Wallet>>,
    opened: Option<OpenInference>,
) -> Result<Plan> {
    let models = match &opened {
        Some(opened) => opened.models().await?,
        None => Vec::new(),
    };
    let (backend, metrics, mut background) = match opened {
        Some(OpenInference { backend, metrics, background, .. }) => (Some(backend), metrics, background),
        None => (None, Metrics::new(), Vec::new()),
    };
    let mut sold = sold(config);
    check_terms(&sold, wallet.as_deref())?;
    let read_limits = read_limits(config);
    let codec = Codec::new(identity.signer.clone(), read_limits);
    let agents = OpenAgents::open(config, paths, &codec).await?;
    let mut withheld = BTreeSet::new();
    for Withheld { kind, why } in agents.keep_what_works(config, &mut sold) {
        tracing::error!("{kind} is not offered, and an ad for it is taken back: {why} ('coinop doctor' says more)");
        withheld.insert(kind);
    }
    let withheld_kinds: Vec<JobKind> = withheld.iter().copied().collect();
    if sold.is_empty() {
        if config.ad.enabled {
            agents::take_back(config, &identity.signer, &withheld_kinds).await;
        }
        anyhow::bail!("nothing that is sold can be done: 'coinop doctor' says what is missing");
    }
    let terms = terms_in_force(&sold, wallet.as_deref());
    let settings = offers::settings(config, &sold, withheld);
    let choices = Choices { models, images: agents.images(config) };
    let us = identity.signer.provider_id();
    let text_limits = TextLimits {
        max_input_bytes: config.text.max_input_bytes,
        max_tokens: config.text.max_output_tokens,
        default_max_tokens: config.text.default_output_tokens,
    };
    let time_limit = config.text.time_limit;
    let fetcher = config.fetch.enabled.then(|| {
        Fetcher::new(FetchLimits {
            max_bytes: config.fetch.max_bytes,
            timeout: config.fetch.timeout,
            allow_private: config.fetch.allow_private,
            ..FetchLimits::default()
        })
    });
    let terms_of_models = model_terms(&config.inference);
    let sells_text = config.text.enabled;
    background.extend(agents.background());
    let files = agents.files.clone();
    let work = agents.work(config, &sold, backend.as_ref())?;
    let router = move |relays| {
        let sources = RelayInputs {
            relays,
            codec,
            us,
            fetcher,
            lookup: DEFAULT_LOOKUP_PATIENCE,
            job_patience: JOB_INPUT_PATIENCE,
        };
        let sources: Arc<dyn InputSource> = Arc::new(sources);
        let router = work.route(Router::new(), &sources);
        match backend.filter(|_| sells_text) {
            Some(backend) => {
                let text = TextExecutor::new(backend, sources, text_limits, time_limit).with_models(terms_of_models);
                router.with(JobKind::TextGeneration, Arc::new(text))
            }
            None => router,
        }
    };
    Ok(Plan {
        signer: identity.signer.clone(),
        read_limits,
        database: Some(paths.database()),
        relays: pool(config),
        inbox_room: crate::relays::DEFAULT_INBOX_ROOM,
        settings,
        retention: config.limits.retention,
        desk: None,
        files,
        hold_key: Some(HoldKey::new(*identity.wallet.hold_secret())),
        wallet,
        zaps: zap_address(config)?,
        refunds: Some(refunds(config)),
        router: Box::new(router),
        ad: config.ad.enabled.then(|| AdPlan { withheld: withheld_kinds, ..ad_plan(config, &sold, &choices, &terms) }),
        clock: Clock::system(),
        witness: Arc::new(()),
        metrics,
        metrics_at: metrics_listener(config).await?,
        background,
    })
}

/// Where the numbers are shown.
async fn metrics_listener(config: &Config) -> Result<Option<TcpListener>> {
    let Some(at) = config.metrics.listen else { return Ok(None) };
    let listener = TcpListener::bind(at).await.with_context(|| {
        format!("metrics.listen: nothing can be shown at {at}; write another address of this machine, or another port")
    });
    Ok(Some(listener?))
}

/// How addresses are asked: only public ones, unless the operator lets everything private be fetched.
pub fn lnurl(config: &Config) -> LnurlClient {
    LnurlClient::new(wallets::network(config), config.fetch.allow_private)
}

/// Our lightning address, when zaps of it are to count.
fn zap_address(config: &Config) -> Result<Option<ZapAddress>> {
    let Some(address) = config.profile.lud16.as_ref().filter(|_| config.zaps.accept) else { return Ok(None) };
    let address = address.parse().context("profile.lud16")?;
    Ok(Some(ZapAddress { address, lnurl: lnurl(config) }))
}

fn refunds(config: &Config) -> RefundPlan {
    let automatic =
        config.refund.automatic_above.map(|above| AutomaticRefunds { above, max_per_day: config.refund.max_per_day });
    RefundPlan { lnurl: lnurl(config), max_fee_percent: config.refund.max_fee_percent, automatic, every: REFUNDS_EVERY }
}

/// How strangers' events are read.
pub fn read_limits(config: &Config) -> ReadLimits {
    ReadLimits {
        max_value_bytes: config.limits.max_event_bytes,
        allow_private_relays: config.relays.allow_private,
        ..ReadLimits::default()
    }
}

/// The relay pool of the configuration.
pub fn pool(config: &Config) -> PoolConfig {
    let Limits { max_event_bytes, max_request_age, max_clock_skew, .. } = config.limits;
    PoolConfig {
        relays: config.relays.urls.iter().map(ToString::to_string).collect(),
        quorum: config.relays.quorum,
        publish_timeout: config.relays.publish_timeout,
        allow_private: config.relays.allow_private,
        limits: IntakeLimits {
            max_message_bytes: max_event_bytes.saturating_add(EVENT_OVERHEAD_BYTES),
            max_request_age,
            max_clock_skew,
            per_author: Rate::per_minute(config.limits.per_customer_per_minute, config.limits.per_customer_per_minute),
            overall: Rate::per_minute(
                config.limits.events_per_second.saturating_mul(60),
                config.limits.events_per_second,
            ),
            ..IntakeLimits::default()
        },
        ..PoolConfig::default()
    }
}
