//! What the embedded node is opened with, and how ldk-node is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use ldk_node::config::{BackgroundSyncConfig, Config, ElectrumSyncConfig, EsploraSyncConfig};
use ldk_node::lightning::ln::msgs::SocketAddress;
use ldk_node::{Builder, Node};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::errors::not_built;
use super::log::Quiet;
use super::{NodeAddress, WalletError};

/// How long [`pay`](crate::wallet::Payer::pay) waits for the end of a payment. A hold invoice is paid only when its receiver
/// takes the money, which may be hours later: then ask.
pub const PAYMENT_TIMEOUT: Duration = Duration::from_secs(90);

/// How long settling waits for the node to say that the money is ours. It takes milliseconds unless the disk is slow.
pub const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);

/// How often the height of the chain is compared with the deadlines of holds. The node itself sees a block within
/// [`BackgroundSync::lightning`]; asking it costs nothing.
const DEADLINE_CHECK: Duration = Duration::from_secs(5);

/// All an embedded node needs but its seed.
#[derive(Debug, Clone)]
pub struct LdkConfig {
    /// The network. `Bitcoin`, `Signet`, `Regtest` or `Testnet`; invoices of `Testnet4` are unknown to LDK.
    pub network: Network,
    /// Where the chain is seen.
    pub chain: LdkChain,
    /// The node's own folder. Two nodes on one folder would lose all their money, so the second one is refused; an old copy
    /// of it must never be used again.
    pub folder: PathBuf,
    /// Socket addresses (`host:port`) other nodes connect to; none for a node nobody connects to.
    pub listen: Vec<String>,
    /// The node's name in the network, at most 32 bytes (BOLT 7). Needs [`LdkConfig::listen`].
    pub alias: Option<String>,
    /// Opens channels to us when a payment comes (LSPS2). Trusted: its channels are used before they confirm, and it is
    /// relied on to bring their closing into the chain.
    pub lsp: Option<LdkLsp>,
    /// How often the node looks at the chain by itself. `None`: only when [`Node::sync`](crate::wallet::Node::sync) is
    /// called, as tests do. (A node on bitcoind always looks by itself.)
    pub background_sync: Option<BackgroundSync>,
    /// How long things may take.
    pub times: LdkTimes,
}

/// Where the embedded node sees the chain.
#[derive(Debug, Clone)]
pub enum LdkChain {
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
        password: SecretString,
    },
}

impl LdkChain {
    /// Its host and port, for people to read: a path or what stands before the host may be a secret.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Esplora(url) | Self::Electrum(url) => {
                let host = url.host_str().unwrap_or_default();
                url.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
            }
            Self::Bitcoind { host, port, .. } => format!("{host}:{port}"),
        }
    }
}

/// A liquidity provider (LSPS2).
#[derive(Debug, Clone)]
pub struct LdkLsp {
    /// Its node.
    pub node: NodeAddress,
    /// What it wants to see before it serves us.
    pub token: Option<SecretString>,
}

/// How often the node looks at the chain by itself. At least ten seconds each: ldk-node goes no faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackgroundSync {
    /// For money on the chain.
    pub on_chain: Duration,
    /// For channels; new blocks are seen within this.
    pub lightning: Duration,
    /// For fee rates.
    pub fees: Duration,
}

impl Default for BackgroundSync {
    /// ldk-node's own: far below the time of a block, and kind to a public server.
    fn default() -> Self {
        Self { on_chain: Duration::from_secs(80), lightning: Duration::from_secs(30), fees: Duration::from_secs(600) }
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LdkTimes {
    /// For a payment to end before it is reported as in doubt.
    pub payment: Duration,
    /// For the node to say that a claimed payment is ours.
    pub settle: Duration,
    /// Between comparisons of the chain's height with the deadlines of holds.
    pub deadline_check: Duration,
}

impl Default for LdkTimes {
    fn default() -> Self {
        Self { payment: PAYMENT_TIMEOUT, settle: SETTLE_TIMEOUT, deadline_check: DEADLINE_CHECK }
    }
}

impl LdkConfig {
    /// Whether the network may know of the node and its channels.
    pub fn announces(&self) -> bool {
        !self.listen.is_empty() && self.alias.is_some()
    }

    /// Whether the node looks at the chain by itself. With bitcoind it always does.
    pub(super) fn looks_by_itself(&self) -> bool {
        self.background_sync.is_some() || matches!(self.chain, LdkChain::Bitcoind { .. })
    }

    /// Makes the node, not started. Every default of ldk-node that names a place (network, folder, chain source, log file)
    /// is overridden.
    pub(super) fn build(&self, entropy: &[u8; 64]) -> Result<Node, WalletError> {
        let mut config = Config {
            network: self.network,
            storage_dir_path: self.folder.to_str().ok_or_else(|| refused("its folder's name is no text"))?.to_owned(),
            ..Config::default()
        };
        if let (Some(lsp), Some(anchors)) = (&self.lsp, &mut config.anchor_channels_config) {
            // So that a node without a coin on the chain can take its first channel.
            anchors.trusted_peers_no_reserve.push(lsp.node.node);
        }
        let mut builder = Builder::from_config(config);
        builder.set_entropy_seed_bytes(*entropy).set_custom_logger(Arc::new(Quiet)).set_gossip_source_p2p();
        match &self.chain {
            LdkChain::Esplora(url) => {
                let background_sync_config = self.background_sync.map(Into::into);
                builder.set_chain_source_esplora(base(url), Some(EsploraSyncConfig { background_sync_config }));
            }
            LdkChain::Electrum(url) => {
                let background_sync_config = self.background_sync.map(Into::into);
                builder.set_chain_source_electrum(base(url), Some(ElectrumSyncConfig { background_sync_config }));
            }
            LdkChain::Bitcoind { host, port, user, password } => {
                let password = password.expose_secret().to_owned();
                builder.set_chain_source_bitcoind_rpc(host.clone(), *port, user.clone(), password);
            }
        }
        if let Some(lsp) = &self.lsp {
            let token = lsp.token.as_ref().map(|token| token.expose_secret().to_owned());
            builder.set_liquidity_source_lsps2(lsp.node.node, socket(&lsp.node.address)?, token);
        }
        if !self.listen.is_empty() {
            let addresses = self.listen.iter().map(|text| socket(text)).collect::<Result<_, _>>()?;
            builder.set_listening_addresses(addresses).map_err(|error| not_built(&error))?;
            if let Some(alias) = &self.alias {
                builder.set_node_alias(alias.clone()).map_err(|error| not_built(&error))?;
            }
        }
        builder.build().map_err(|error| not_built(&error))
    }
}

impl From<BackgroundSync> for BackgroundSyncConfig {
    fn from(sync: BackgroundSync) -> Self {
        Self {
            onchain_wallet_sync_interval_secs: sync.on_chain.as_secs(),
            lightning_wallet_sync_interval_secs: sync.lightning.as_secs(),
            fee_rate_cache_update_interval_secs: sync.fees.as_secs(),
        }
    }
}

/// A `host:port` in LDK's words.
pub(super) fn socket(text: &str) -> Result<SocketAddress, WalletError> {
    text.parse().map_err(|_| refused(&format!("'{}' is no host and port", text.chars().take(60).collect::<String>())))
}

/// The address without the slash that clients would double.
fn base(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

fn refused(why: &str) -> WalletError {
    WalletError::Refused(format!("the embedded node can't be opened: {why}"))
}

#[cfg(test)]
mod tests {
    use ldk_node::NodeError;

    use super::super::errors::not_started;
    use super::*;

    #[test]
    fn a_chain_source_that_does_not_answer_is_named_without_its_secrets() {
        let place = |url: &str| LdkChain::Esplora(url.parse().unwrap()).place();
        assert_eq!(place("https://user:secret@esplora.example.com/secret/api?key=secret"), "esplora.example.com:443");
        assert_eq!(place("http://[::1]:3002"), "[::1]:3002");
        assert_eq!(LdkChain::Electrum("ssl://e.example.com:50002".parse().unwrap()).place(), "e.example.com:50002");
        let said = not_started(NodeError::FeerateEstimationUpdateFailed, "e.example.com:50002");
        let why = "the chain source at e.example.com:50002 does not answer (wallet.ldk.chain_url)";
        assert_eq!(said, WalletError::Unreachable(why.to_owned()));
        let said = not_started(NodeError::PersistenceFailed, "e.example.com:50002");
        assert!(!said.to_string().contains("example.com"), "{said}");
    }
}
