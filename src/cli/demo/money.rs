//! The demo's money: two Lightning nodes on a private bitcoin network, or play money where the build has no node.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use super::timeline::Timeline;
use crate::identity::Identity;
use crate::wallet::Wallet;

/// A wallet of either side.
pub(super) type Purse = Arc<dyn Wallet>;

/// Both sides' wallets and the network between them.
pub(super) struct Market {
    till: Purse,
    purse: Purse,
    /// The chain the nodes live on.
    #[cfg(feature = "ldk")]
    _regtest: crate::testing::regtest::Regtest,
}

impl Market {
    /// The provider's wallet.
    pub(super) fn till(&self) -> Purse {
        self.till.clone()
    }

    /// The customer's wallet.
    pub(super) fn purse(&self) -> Purse {
        self.purse.clone()
    }

    /// Ends what the wallets run.
    pub(super) async fn close(self) {
        self.purse.shut_down().await;
        self.till.shut_down().await;
    }
}

#[cfg(not(feature = "ldk"))]
impl Market {
    /// Opens a wallet for the provider (`identity`) and one with money for the customer.
    pub(super) async fn open(
        _: &Path,
        identity: &Identity,
        customer: &Identity,
        timeline: &mut Timeline,
    ) -> Result<Self> {
        use crate::money::Msat;
        use crate::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions};

        /// What the customer begins with.
        const POCKET_MONEY: Msat = Msat::sat(1_000);

        let network = FakeNetwork::in_memory();
        let open = |identity: &Identity, opening_balance| -> Result<Purse> {
            let options = FakeWalletOptions { opening_balance, ..FakeWalletOptions::default() };
            let key = identity.wallet.play_money_node_key().secret_bytes();
            Ok(Arc::new(FakeWallet::open(&network, &key, options)?))
        };
        timeline.tell(None, None, "wallet", "play money: this build has no Lightning node".into(), None);
        Ok(Self { till: open(identity, Msat::ZERO)?, purse: open(customer, POCKET_MONEY)? })
    }
}

#[cfg(feature = "ldk")]
mod nodes {
    use anyhow::Context as _;
    use bitcoin::{Amount, Network};

    use super::{Arc, Identity, Market, Path, Purse, Result, Timeline};
    use crate::money::Msat;
    use crate::testing::regtest::{ChannelPlan, Regtest, free_address};
    use crate::wallet::ldk::{LdkChain, LdkConfig, LdkTimes, LdkWallet};

    /// What the customer puts into the channel.
    const CHANNEL: Amount = Amount::from_sat(200_000);

    /// What either side has on the chain at first: the channel, its fees, and the reserve for closing it.
    const ON_CHAIN: Amount = Amount::from_sat(300_000);

    impl Market {
        /// Opens a node for the provider (`identity`) and one for the customer, and a channel from the latter.
        pub(in super::super) async fn open(
            folder: &Path,
            identity: &Identity,
            customer: &Identity,
            timeline: &mut Timeline,
        ) -> Result<Self> {
            let regtest = Regtest::start().await.context("no private bitcoin network can be started on loopback")?;
            let till = node(&folder.join("provider"), &regtest, identity).await?;
            let purse = node(&folder.join("customer"), &regtest, customer).await?;
            for (who, node) in [("provider", &till), ("customer", &purse)] {
                let id = node.node_id().to_string();
                timeline.tell(None, None, who, format!("Lightning node {}… is up", &id[..16]), None);
                regtest.fund(node.as_ref(), ON_CHAIN).await;
            }
            let plan = ChannelPlan { size: CHANNEL, gift: Amount::ZERO };
            regtest.open_channel(purse.as_ref(), till.as_ref(), plan).await;
            let size = Msat::from_sat(CHANNEL.to_sat()).ok();
            let height = regtest.chain().height();
            timeline.tell(None, None, "customer", format!("channel to the provider, open at block {height}"), size);
            Ok(Self { till: till as Purse, purse: purse as Purse, _regtest: regtest })
        }
    }

    async fn node(folder: &Path, regtest: &Regtest, identity: &Identity) -> Result<Arc<LdkWallet>> {
        let config = LdkConfig {
            network: Network::Regtest,
            chain: LdkChain::Esplora(regtest.url().parse()?),
            folder: folder.to_owned(),
            listen: vec![free_address().context("no port is free on loopback")?.to_string()],
            alias: None,
            lsp: None,
            background_sync: None,
            times: LdkTimes::default(),
        };
        Ok(Arc::new(LdkWallet::open(config, identity.wallet.entropy()).await?))
    }
}
