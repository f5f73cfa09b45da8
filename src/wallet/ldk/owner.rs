//! The node for its owner: channels, peers, money on the chain.

use async_trait::async_trait;
use bitcoin::address::NetworkUnchecked;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Txid};
use ldk_node::{ChannelDetails, UserChannelId};

use super::config::socket;
use super::{LdkWallet, Shared, WalletError, msat, sat, translated};
use crate::money::Msat;
use crate::wallet::node::{Channel, Node, NodeAddress, NodeStatus, Peer};

/// The name of a channel: its number in this node, in hexadecimal. It stays when the channel's funding changes.
fn name(id: UserChannelId) -> String {
    format!("{:032x}", id.0)
}

fn described(channel: &ChannelDetails) -> Channel {
    Channel {
        id: name(channel.user_channel_id),
        peer: channel.counterparty_node_id,
        size: sat(channel.channel_value_sats),
        spendable: msat(channel.outbound_capacity_msat),
        receivable: msat(channel.inbound_capacity_msat),
        ready: channel.is_channel_ready,
        usable: channel.is_usable,
        announced: channel.is_announced,
        opened_by_us: channel.is_outbound,
        funding: channel.funding_txo,
    }
}

/// Whole satoshis: the chain knows no smaller step.
fn whole_sats(amount: Msat) -> Result<u64, WalletError> {
    if amount.is_zero() || amount != amount.round_up_to_sat() {
        return Err(WalletError::Refused("the chain knows whole satoshis only, and at least one".into()));
    }
    Ok(amount.as_msat() / Msat::sat(1).as_msat())
}

impl Shared {
    fn status(&self) -> NodeStatus {
        let balances = self.node.list_balances();
        let channels = self.node.list_channels();
        let usable = || channels.iter().filter(|channel| channel.is_usable);
        NodeStatus {
            node: self.key.node_id(),
            listening: self.node.listening_addresses().unwrap_or_default().iter().map(ToString::to_string).collect(),
            height: self.height(),
            on_chain_spendable: sat(balances.spendable_onchain_balance_sats),
            on_chain_total: sat(balances.total_onchain_balance_sats),
            in_channels: sat(balances.total_lightning_balance_sats),
            spendable: usable().map(|channel| msat(channel.outbound_capacity_msat)).sum(),
            receivable: usable().map(|channel| msat(channel.inbound_capacity_msat)).sum(),
        }
    }

    fn channel(&self, id: &str) -> Result<ChannelDetails, WalletError> {
        self.node
            .list_channels()
            .into_iter()
            .find(|channel| name(channel.user_channel_id) == id)
            .ok_or(WalletError::NotFound)
    }
}

impl LdkWallet {
    /// How others reach it: its key at every address it listens on.
    pub fn addresses(&self) -> Vec<NodeAddress> {
        let listening = self.shared.node.listening_addresses().unwrap_or_default();
        let node = self.node_id();
        listening.into_iter().map(|address| NodeAddress { node, address: address.to_string() }).collect()
    }

    /// Opens a private channel of `size` in which `gift` is the other side's from the start. Given is given: this is for two
    /// nodes of one owner, such as those of the demo.
    ///
    /// # Errors
    /// As [`Node::open_channel`].
    pub async fn open_channel_with_gift(
        &self,
        to: &NodeAddress,
        size: Msat,
        gift: Msat,
    ) -> Result<String, WalletError> {
        let (node, at, size) = (to.node, socket(&to.address)?, whole_sats(size)?);
        let gift = (!gift.is_zero()).then_some(gift.as_msat());
        self.run(move |shared| shared.node.open_channel(node, at, size, gift, None).map(name).map_err(translated)).await
    }
}

#[async_trait]
impl Node for LdkWallet {
    async fn status(&self) -> Result<NodeStatus, WalletError> {
        self.run(|shared| Ok(shared.status())).await
    }

    async fn sync(&self) -> Result<(), WalletError> {
        self.run(|shared| {
            shared.node.sync_wallets().map_err(translated)?;
            shared.check_deadlines()
        })
        .await
    }

    async fn new_address(&self) -> Result<String, WalletError> {
        self.run(|shared| {
            shared.node.onchain_payment().new_address().map(|address| address.to_string()).map_err(translated)
        })
        .await
    }

    async fn channels(&self) -> Result<Vec<Channel>, WalletError> {
        self.run(|shared| Ok(shared.node.list_channels().iter().map(described).collect())).await
    }

    async fn open_channel(&self, to: &NodeAddress, size: Msat, announce: bool) -> Result<String, WalletError> {
        let (node, at, size) = (to.node, socket(&to.address)?, whole_sats(size)?);
        self.run(move |shared| {
            let opened = if announce {
                shared.node.open_announced_channel(node, at, size, None, None)
            } else {
                shared.node.open_channel(node, at, size, None, None)
            };
            opened.map(name).map_err(translated)
        })
        .await
    }

    async fn close_channel(&self, id: &str, force: bool) -> Result<(), WalletError> {
        let id = id.to_ascii_lowercase();
        self.run(move |shared| {
            let ChannelDetails { user_channel_id, counterparty_node_id, .. } = shared.channel(&id)?;
            let closed = if force {
                // What the other side is told; it is public.
                let reason = Some("closed by the node's owner".to_owned());
                shared.node.force_close_channel(&user_channel_id, counterparty_node_id, reason)
            } else {
                shared.node.close_channel(&user_channel_id, counterparty_node_id)
            };
            closed.map_err(translated)
        })
        .await
    }

    async fn peers(&self) -> Result<Vec<Peer>, WalletError> {
        self.run(|shared| {
            let peers = shared.node.list_peers().into_iter();
            Ok(peers
                .map(|peer| Peer {
                    node: peer.node_id,
                    address: peer.address.to_string(),
                    connected: peer.is_connected,
                })
                .collect())
        })
        .await
    }

    async fn connect(&self, to: &NodeAddress) -> Result<(), WalletError> {
        let (node, at) = (to.node, socket(&to.address)?);
        self.run(move |shared| shared.node.connect(node, at, true).map_err(translated)).await
    }

    async fn disconnect(&self, node: &PublicKey) -> Result<(), WalletError> {
        let node = *node;
        self.run(move |shared| shared.node.disconnect(node).map_err(translated)).await
    }

    async fn send_on_chain(&self, address: &str, amount: Option<Msat>) -> Result<Txid, WalletError> {
        let address: Address<NetworkUnchecked> =
            address.trim().parse().map_err(|_| WalletError::Refused("it is no bitcoin address".into()))?;
        let amount = amount.map(whole_sats).transpose()?;
        self.run(move |shared| {
            let address = address
                .require_network(shared.network)
                .map_err(|_| WalletError::Refused(format!("the address is not one of {}", shared.network)))?;
            let payment = shared.node.onchain_payment();
            let sent = match amount {
                Some(sats) => payment.send_to_address(&address, sats, None),
                // The reserve stays: channels are safe only as long as their closing can be paid for.
                None => payment.send_all_to_address(&address, true, None),
            };
            sent.map_err(translated)
        })
        .await
    }
}
