//! The demo's money: two Lightning nodes on a private bitcoin network, or play money where the build has no node.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use super::timeline::Timeline;
use crate::identity::Identity;
use crate::money::Msat;
use crate::wallet::Wallet;
use crate::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions};

/// A wallet of either side.
pub(super) type Purse = Arc<dyn Wallet>;

/// What the customer begins with.
const POCKET_MONEY: Msat = Msat::sat(1_000);

/// Both sides' wallets and the network between them.
pub(super) struct Market {
    till: Purse,
    purse: Purse,
}

impl Market {
    /// Opens a wallet for the provider (`identity`) and one with money for the customer.
    pub(super) async fn open(
        _: &Path,
        identity: &Identity,
        customer: &Identity,
        timeline: &mut Timeline,
    ) -> Result<Self> {
        let network = FakeNetwork::in_memory();
        let open = |identity: &Identity, opening_balance| -> Result<Purse> {
            let options = FakeWalletOptions { opening_balance, ..FakeWalletOptions::default() };
            let key = identity.wallet.play_money_node_key().secret_bytes();
            Ok(Arc::new(FakeWallet::open(&network, &key, options)?))
        };
        timeline.tell(None, None, "wallet", "play money: this build has no Lightning node".into(), None);
        Ok(Self { till: open(identity, Msat::ZERO)?, purse: open(customer, POCKET_MONEY)? })
    }

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
