//! An unmodified ldk-node on the simulated chain: the other side of our own node's channels, and the LSP of the tests.

use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Amount, Network};
use ldk_node::config::{Config, EsploraSyncConfig};
use ldk_node::lightning::ln::msgs::SocketAddress;
use ldk_node::{Builder, Node};
use rand::RngCore;
use tempfile::TempDir;

use super::channels::{ChannelPlan, RegtestNode, free_address};
use super::network::ChainAccess;
use crate::wallet::node::NodeAddress;

/// An unmodified node with a folder of its own. Stopped when dropped, which needs a multi-thread runtime, as do all its
/// calls.
pub struct RawNode {
    node: Arc<Node>,
    address: NodeAddress,
    _folder: TempDir,
}

impl std::fmt::Debug for RawNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawNode").field("address", &self.address).finish_non_exhaustive()
    }
}

impl RawNode {
    /// A new node that reads this chain, with what `shape` sets besides.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(chain: &ChainAccess, shape: impl FnOnce(&mut Builder)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listening = free_address().expect("a free port");
        let mut seed = [0; 64];
        rand::thread_rng().fill_bytes(&mut seed);
        let mut builder = Builder::from_config(Config {
            network: Network::Regtest,
            storage_dir_path: folder.path().display().to_string(),
            listening_addresses: Some(vec![SocketAddress::from(listening)]),
            ..Config::default()
        });
        builder.set_entropy_seed_bytes(seed).set_log_facade_logger();
        match chain {
            // It reads the chain when told to: the tests decide when.
            ChainAccess::Esplora { url } => {
                let when_told = EsploraSyncConfig { background_sync_config: None };
                builder.set_chain_source_esplora(url.clone(), Some(when_told));
            }
            ChainAccess::Bitcoind { rpc, user, password } => {
                builder.set_chain_source_bitcoind_rpc(rpc.ip().to_string(), rpc.port(), user.clone(), password.clone());
            }
        }
        shape(&mut builder);
        let node = builder.build().expect("a node");
        node.start().expect("it starts");
        let address = NodeAddress { node: node.node_id(), address: listening.to_string() };
        Self { node: Arc::new(node), address, _folder: folder }
    }

    /// The node itself.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Drop for RawNode {
    fn drop(&mut self) {
        // It fails when the node is stopped already.
        let _ = self.node.stop();
    }
}

#[async_trait]
impl RegtestNode for RawNode {
    fn address(&self) -> NodeAddress {
        self.address.clone()
    }

    async fn new_address(&self) -> Address {
        self.node.onchain_payment().new_address().expect("an address")
    }

    async fn sync(&self) {
        self.node.sync_wallets().expect("the chain can be read");
    }

    async fn on_chain(&self) -> Amount {
        Amount::from_sat(self.node.list_balances().spendable_onchain_balance_sats)
    }

    async fn open_channel(&self, peer: &NodeAddress, plan: ChannelPlan) {
        let address = SocketAddress::from_str(&peer.address).expect("an address");
        let gift = (plan.gift > Amount::ZERO).then(|| plan.gift.to_sat() * 1_000);
        self.node.open_channel(peer.node, address, plan.size.to_sat(), gift, None).expect("a channel is asked for");
    }

    async fn usable_channels(&self, peer: &PublicKey) -> usize {
        let channels = self.node.list_channels();
        channels.iter().filter(|channel| channel.counterparty_node_id == *peer && channel.is_usable).count()
    }
}
