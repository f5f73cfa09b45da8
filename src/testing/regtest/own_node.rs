//! Our own embedded node on the simulated chain.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Amount, Network};

use super::channels::{ChannelPlan, RegtestNode};
use super::network::ChainAccess;
use crate::money::Msat;
use crate::wallet::Node as _;
use crate::wallet::ldk::{LdkChain, LdkConfig, LdkTimes, LdkWallet};
use crate::wallet::node::NodeAddress;

/// How often a node compares the chain's height with its holds: tests don't wait for it.
const DEADLINE_CHECK: Duration = Duration::from_millis(200);

/// What a node of ours on this chain is opened with: nobody connects to it unless told where to listen, and it reads
/// the chain when told to. (A node on bitcoind also does by itself.)
///
/// # Panics
/// Never: the chain's address is one.
pub fn own_node(chain: &ChainAccess, folder: &Path) -> LdkConfig {
    let chain = match chain {
        ChainAccess::Esplora { url } => LdkChain::Esplora(url.parse().expect("the server's address is one")),
        ChainAccess::Bitcoind { rpc, user, password } => LdkChain::Bitcoind {
            host: rpc.ip().to_string(),
            port: rpc.port(),
            user: user.clone(),
            password: password.clone().into(),
        },
    };
    LdkConfig {
        network: Network::Regtest,
        chain,
        folder: folder.to_owned(),
        listen: Vec::new(),
        alias: None,
        lsp: None,
        background_sync: None,
        times: LdkTimes { deadline_check: DEADLINE_CHECK, ..LdkTimes::default() },
    }
}

fn money(amount: Amount) -> Msat {
    Msat::from_sat(amount.to_sat()).expect("no more than all bitcoin")
}

#[async_trait]
impl RegtestNode for LdkWallet {
    /// Where nobody can connect to it, an address that leads nowhere.
    fn address(&self) -> NodeAddress {
        self.addresses().into_iter().next().unwrap_or(NodeAddress { node: self.node_id(), address: String::new() })
    }

    async fn new_address(&self) -> Address {
        let text = crate::wallet::Node::new_address(self).await.expect("an address");
        text.parse::<Address<_>>().expect("a node writes addresses").assume_checked()
    }

    async fn sync(&self) {
        crate::wallet::Node::sync(self).await.expect("the chain can be read");
    }

    async fn on_chain(&self) -> Amount {
        let status = self.status().await.expect("a node knows its money");
        Amount::from_sat(status.on_chain_spendable.as_msat() / Msat::sat(1).as_msat())
    }

    async fn open_channel(&self, peer: &NodeAddress, plan: ChannelPlan) {
        self.open_channel_with_gift(peer, money(plan.size), money(plan.gift)).await.expect("a channel is asked for");
    }

    async fn usable_channels(&self, peer: &PublicKey) -> usize {
        let channels = self.channels().await.expect("a node knows its channels");
        channels.iter().filter(|channel| channel.peer == *peer && channel.usable).count()
    }
}
