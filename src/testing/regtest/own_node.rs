//! Our own embedded node on the simulated chain.

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Amount};

use super::channels::{ChannelPlan, RegtestNode};
use crate::money::Msat;
use crate::wallet::Node as _;
use crate::wallet::ldk::LdkWallet;
use crate::wallet::node::NodeAddress;

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
