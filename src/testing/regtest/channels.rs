//! Nodes on the private network: money, and from there to a channel that can be paid through.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Amount, Transaction};
use rand::Rng as _;

use super::network::Regtest;
use crate::wallet::node::NodeAddress;

/// How long a node may take for one step. Far more than it needs on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at a node that tells nobody when it is done.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Confirmations after which both sides take a channel for open.
const FUNDING_DEPTH: u32 = 6;

/// Ports nobody is given by chance: below those the system hands out to whoever connects somewhere (Linux: from 32768), so
/// that a node that is started again finds its port as it left it.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// How many of them are tried.
const TRIES: u32 = 1_000;

/// A free port of the loopback interface, to be listened on now and again after a restart.
///
/// # Errors
/// When there is none.
pub fn free_address() -> io::Result<SocketAddr> {
    let mut taken = None;
    for _ in 0..TRIES {
        let port = rand::thread_rng().gen_range(PORTS);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return listener.local_addr(),
            Err(error) => taken = Some(error),
        }
    }
    Err(taken.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

/// A node as the simulated network handles it, whatever it is made of. What it does must not fail on a healthy network:
/// it panics when it does, which is the failure of the test.
#[async_trait]
pub trait RegtestNode: Send + Sync {
    /// Its key and where it listens.
    fn address(&self) -> NodeAddress;

    /// A new address on the chain.
    async fn new_address(&self) -> Address;

    /// Reads the chain up to its tip.
    async fn sync(&self);

    /// What it could put into a channel.
    async fn on_chain(&self) -> Amount;

    /// Connects to `peer` and asks it for a channel.
    async fn open_channel(&self, peer: &NodeAddress, plan: ChannelPlan);

    /// How many channels with `peer` can be paid through now.
    async fn usable_channels(&self, peer: &PublicKey) -> usize;
}

/// A channel to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelPlan {
    /// All the money in it.
    pub size: Amount,
    /// How much of it is the other side's from the start.
    pub gift: Amount,
}

impl Regtest {
    /// Pays `amount` to the node, confirmed and known to it when this returns.
    ///
    /// # Panics
    /// When the node does not see the money in time.
    pub async fn fund(&self, node: &dyn RegtestNode, amount: Amount) {
        node.sync().await;
        let before = node.on_chain().await;
        self.pay(&node.new_address().await, amount).await;
        self.mine(1, &[node]).await;
        until("the node sees its money", node, async || node.on_chain().await > before).await;
    }

    /// Mines `blocks` blocks and has the nodes read them, one after the other.
    pub async fn mine(&self, blocks: u32, nodes: &[&dyn RegtestNode]) {
        self.mine_blocks(blocks).await;
        for node in nodes {
            node.sync().await;
        }
    }

    /// A channel `from` opens and pays for, usable by both when this returns. `from` needs its size on the chain and a
    /// little for fees, and both need the reserve for closing it ([`Regtest::fund`]).
    ///
    /// # Panics
    /// When there is no such channel in time.
    pub async fn open_channel(&self, from: &dyn RegtestNode, to: &dyn RegtestNode, plan: ChannelPlan) {
        let (ours, theirs) = (from.address(), to.address());
        let had = (from.usable_channels(&theirs.node).await, to.usable_channels(&ours.node).await);
        from.open_channel(&theirs, plan).await;
        let funds = |tx: &Transaction| tx.output.iter().any(|output| output.value == plan.size);
        self.until_waiting(|waiting| waiting.iter().any(funds).then_some(())).await;
        self.mine(FUNDING_DEPTH, &[from, to]).await;
        until("the channel is usable here", from, async || from.usable_channels(&theirs.node).await > had.0).await;
        until("the channel is usable there", to, async || to.usable_channels(&ours.node).await > had.1).await;
    }
}

/// Looks until it is so, with the node reading the chain now and then.
async fn until(what: &str, node: &dyn RegtestNode, so: impl AsyncFn() -> bool) {
    let looking = async {
        while !so().await {
            tokio::time::sleep(LOOK_AGAIN).await;
            node.sync().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looking).await.is_ok(), "it should be so by now: {what}");
}
