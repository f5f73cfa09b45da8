//! What the buying side pays with: the wallet of the configuration, its network, and the payments book.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bitcoin::Network;
use secrecy::ExposeSecret;

use super::{CommandError, Globals, table};
use crate::config::{Config, Paths, PayFrom, WalletSettings};
use crate::daemon::wiring::{self, wallets, wallets::OpenWallet};
use crate::identity::Identity;
use crate::provider::Clock;
use crate::requester::Book;
use crate::store::Closing;
use crate::store::purchases::{Purchases, Spent};
use crate::wallet::Wallet;

/// How long the wallet may take to say what became of earlier payments: a wallet that is away must not keep a new request.
const QUESTIONS_PATIENCE: Duration = Duration::from_secs(20);

/// Where the money for a purchase comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurseKind {
    /// Whatever `requester.wallet` says.
    Configured,
    /// The play money of this installation.
    PlayMoney,
    /// Nowhere: invoices are shown.
    None,
}

/// The network invoices must be of, unless the command line says otherwise.
pub fn network(config: &Config, kind: PurseKind) -> Network {
    let own_play = config.requester.wallet == Some(PayFrom::Own) && config.wallet == WalletSettings::PlayMoney;
    if kind == PurseKind::PlayMoney || own_play { wiring::PLAY_NETWORK } else { config.network }
}

/// Opens the wallet that pays. `identity` is opened when the wallet is this installation's own.
///
/// # Errors
/// When it can't be used, or does not pay.
pub async fn wallet(
    config: &Config,
    paths: &Paths,
    kind: PurseKind,
    network: Network,
    identity: impl FnOnce() -> Result<Identity>,
) -> Result<Option<OpenWallet>> {
    let opened = match (kind, &config.requester.wallet) {
        (PurseKind::None, _) | (PurseKind::Configured, None) => return Ok(None),
        (PurseKind::PlayMoney, _) => OpenWallet::of(Arc::new(wiring::play_purse(&paths.data_dir)?)),
        (PurseKind::Configured, Some(PayFrom::Own)) => {
            // A provider that runs beside us may have the embedded node: then it pays.
            let own = wallets::for_command(config, paths, identity).await.context("requester.wallet")?;
            own.ok_or_else(|| {
                CommandError::usage("requester.wallet is \"own\", and there is no wallet of your own")
                    .help("set wallet.backend, or name another wallet in requester.wallet")
            })?
        }
        (PurseKind::Configured, Some(PayFrom::Nwc(connection))) => {
            let secret = connection.reveal("requester.wallet")?;
            OpenWallet::of(Arc::new(
                wiring::connect_nwc(secret.expose_secret(), network).await.context("requester.wallet")?,
            ))
        }
    };
    if opened.wallet.payer().is_none() {
        let name = opened.wallet.name().to_owned();
        opened.close().await;
        return Err(CommandError::usage(format!("the wallet to pay from ({name}) does not pay"))
            .help("give its connection the right to pay, or show the invoice with --no-pay")
            .into());
    }
    Ok(Some(opened))
}

/// Opens the payments book, in the data folder.
///
/// # Errors
/// When it can't be.
pub fn book(config: &Config, paths: &Paths) -> Result<(Book, Closing)> {
    std::fs::create_dir_all(&paths.data_dir)
        .with_context(|| format!("the folder {} can't be made", paths.data_dir.display()))?;
    let (purchases, closing) = Purchases::open(&paths.payments())?;
    Ok((Book { purchases, max_per_day: config.requester.max_per_day }, closing))
}

/// Asks the wallet what became of payments in doubt, and says what came of it.
///
/// # Errors
/// When the book can't be used.
pub async fn settle_doubts(book: &Book, wallet: &dyn Wallet, network: Network, globals: &Globals) -> Result<()> {
    let Some(payer) = wallet.payer() else { return Ok(()) };
    let found = book.reconcile(payer, network, Clock::system().now(), QUESTIONS_PATIENCE).await?;
    let say = |payments: &[Spent], what: &str| {
        for spent in payments.iter().filter(|_| !globals.quiet) {
            let spending = &spent.spending;
            let short = &spending.payment_hash.to_string()[..12];
            eprintln!("The payment of {} begun {} ({short}…) {what}.", spending.amount, table::time(spent.began_at));
        }
    };
    say(&found.paid, "went through");
    say(&found.not_paid, "failed: nothing was paid");
    say(&found.lapsed, "was never heard of again: its money counts as free, and the invoice stays unpaid");
    say(&found.in_doubt, "is still in doubt: it stays reserved, and is not made again");
    Ok(())
}
