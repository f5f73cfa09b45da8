//! A Lightning node as its owner sees it: channels, peers, money on the chain. Plain data, the same whether the node runs in
//! this process or in a `coinop serve` beside it.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use bitcoin::OutPoint;
use bitcoin::Txid;
use bitcoin::secp256k1::PublicKey;
use serde::{Deserialize, Serialize};

use super::WalletError;
use crate::money::Msat;

/// What the owner of a node does with it. Every call may take as long as the chain source and the peers take.
#[async_trait]
pub trait Node: Send + Sync {
    /// Where it stands.
    async fn status(&self) -> Result<NodeStatus, WalletError>;

    /// Looks at the chain now.
    async fn sync(&self) -> Result<(), WalletError>;

    /// An address to put money on the chain into this node, never given out before.
    async fn new_address(&self) -> Result<String, WalletError>;

    /// Its channels.
    async fn channels(&self) -> Result<Vec<Channel>, WalletError>;

    /// Opens a channel of that size with our money on the chain; the network hears of it when `announce`. Answers its
    /// name ([`Channel::id`]).
    async fn open_channel(&self, to: &NodeAddress, size: Msat, announce: bool) -> Result<String, WalletError>;

    /// Closes a channel: together with the peer, or by force (slower, dearer, for a peer that is gone).
    async fn close_channel(&self, id: &str, force: bool) -> Result<(), WalletError>;

    /// The nodes we have to do with.
    async fn peers(&self) -> Result<Vec<Peer>, WalletError>;

    /// Connects to a node, and keeps doing so.
    async fn connect(&self, to: &NodeAddress) -> Result<(), WalletError>;

    /// Lets go of a node.
    async fn disconnect(&self, node: &PublicKey) -> Result<(), WalletError>;

    /// Sends money on the chain to an address: an amount in whole satoshis, or everything but the channels' reserve.
    async fn send_on_chain(&self, address: &str, amount: Option<Msat>) -> Result<Txid, WalletError>;
}

/// A node and where it is reached: `node-id@host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeAddress {
    /// Its key.
    pub node: PublicKey,
    /// Its `host:port`.
    pub address: String,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.node, self.address)
    }
}

impl FromStr for NodeAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write the node as node-id@host:port, such as 02…@203.0.113.7:9735".to_owned();
        let (node, address) = text.trim().split_once('@').ok_or_else(wrong)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || port.parse::<u16>().map_or(true, |port| port == 0) {
            return Err(wrong());
        }
        Ok(Self { node: node.parse().map_err(|_| wrong())?, address: address.to_owned() })
    }
}

impl TryFrom<String> for NodeAddress {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<NodeAddress> for String {
    fn from(address: NodeAddress) -> Self {
        address.to_string()
    }
}

/// The node itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its key, which others open channels to.
    pub node: PublicKey,
    /// Where it listens; empty when nobody can connect to it.
    pub listening: Vec<String>,
    /// The height of the chain as the node knows it, in blocks.
    pub height: u32,
    /// On the chain and spendable, the reserve for closing channels left out.
    pub on_chain_spendable: Msat,
    /// On the chain, all of it, unconfirmed money and the reserve included.
    pub on_chain_total: Msat,
    /// Ours in channels, what is reserved or pending in them included.
    pub in_channels: Msat,
    /// What can be paid over Lightning now.
    pub spendable: Msat,
    /// What can be received over Lightning now.
    pub receivable: Msat,
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Its name in this node: what `close` takes, in hexadecimal.
    pub id: String,
    /// Who is on the other side.
    pub peer: PublicKey,
    /// All the money in it, ours and theirs.
    pub size: Msat,
    /// What can be paid through it.
    pub spendable: Msat,
    /// What can be received through it.
    pub receivable: Msat,
    /// Whether its funding is confirmed deeply enough.
    pub ready: bool,
    /// Whether it can be used now: ready, and the peer connected.
    pub usable: bool,
    /// Whether the network knows of it.
    pub announced: bool,
    /// Whether we opened it.
    pub opened_by_us: bool,
    /// Its funding transaction, once there is one.
    pub funding: Option<OutPoint>,
}

/// A node we have to do with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its key.
    pub node: PublicKey,
    /// Its `host:port`, as far as known.
    pub address: String,
    /// Whether it is connected now.
    pub connected: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619";

    #[test]
    fn a_node_is_written_as_everybody_writes_it() {
        for host in ["203.0.113.7:9735", "[2001:db8::1]:9735", "node.example:9735"] {
            let text = format!("{NODE}@{host}");
            assert_eq!(text.parse::<NodeAddress>().unwrap().to_string(), text);
        }
        for wrong in
            ["", NODE, "02@host:1", &format!("{NODE}@host"), &format!("{NODE}@:9735"), &format!("{NODE}@host:0")]
        {
            assert!(wrong.parse::<NodeAddress>().is_err(), "{wrong}");
        }
    }
}
