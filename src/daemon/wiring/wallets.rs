//! Opening the wallet: for the provider, or for a command beside it.

use std::sync::Arc;

use anyhow::Result;
use bitcoin::Network;

use crate::config::{Config, Paths, WalletSettings};
use crate::daemon::lock::{LockError, NodeLock};
use crate::identity::Identity;
use crate::wallet::desk::DeskWallet;
use crate::wallet::{Wallet, fake};

/// A wallet in use, and what keeps others from opening it meanwhile.
pub struct OpenWallet {
    /// The wallet.
    pub wallet: Arc<dyn Wallet>,
    /// Whether it runs in this process: else a running `coinop serve` has it.
    pub is_ours: bool,
    _lock: Option<NodeLock>,
}

impl std::fmt::Debug for OpenWallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenWallet").field("wallet", &self.wallet.name()).finish_non_exhaustive()
    }
}

impl OpenWallet {
    /// A wallet any process may open beside others.
    pub fn of(wallet: Arc<dyn Wallet>) -> Self {
        Self { wallet, is_ours: true, _lock: None }
    }

    /// Ends it in order.
    pub async fn close(self) {
        self.wallet.shut_down().await;
    }
}

/// The wallet for the provider itself; `None` when none is configured.
///
/// # Errors
/// When it can't be opened, or another process has its node.
pub async fn for_serving(config: &Config, paths: &Paths, identity: &Identity) -> Result<Option<OpenWallet>> {
    let lock = match &config.wallet {
        WalletSettings::Ldk(_) => Some(NodeLock::take(&paths.data_dir)?),
        _ => None,
    };
    let wallet = super::wallet(config, identity, &paths.data_dir).await?;
    Ok(wallet.map(|wallet| OpenWallet { wallet, is_ours: true, _lock: lock }))
}

/// The wallet for a command: the running provider's, when it has the node, else opened here. `identity` is only asked for
/// in the second case.
///
/// # Errors
/// As [`for_serving`], or when the provider does not answer.
pub async fn for_command(
    config: &Config,
    paths: &Paths,
    identity: impl FnOnce() -> Result<Identity>,
) -> Result<Option<OpenWallet>> {
    if config.wallet == WalletSettings::None {
        return Ok(None);
    }
    std::fs::create_dir_all(&paths.data_dir)?;
    let is_node = matches!(config.wallet, WalletSettings::Ldk(_));
    let lock = match is_node.then(|| NodeLock::take(&paths.data_dir)).transpose() {
        Ok(lock) => lock,
        Err(taken @ LockError::NodeTaken(_)) => {
            let wallet = DeskWallet::connect(&paths.data_dir).await.map_err(|_| taken)?;
            return Ok(Some(OpenWallet { wallet: Arc::new(wallet), is_ours: false, _lock: None }));
        }
        Err(error) => return Err(error.into()),
    };
    let wallet = super::wallet(config, &identity()?, &paths.data_dir).await?;
    Ok(wallet.map(|wallet| OpenWallet { wallet, is_ours: true, _lock: lock }))
}

/// The network the wallet's invoices are of.
pub fn network(config: &Config) -> Network {
    match config.wallet {
        WalletSettings::PlayMoney => fake::NETWORK,
        _ => config.network,
    }
}
