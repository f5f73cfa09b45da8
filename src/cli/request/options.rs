//! What every order takes: whom to ask, what to pay, how to wait, and where the result goes.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::exit::CommandError;
use crate::cli::purse::PurseKind;
use crate::identity::provider_from_npub;
use crate::job::id::ProviderId;
use crate::money::Msat;

/// Options of every order, before or behind the kind's name.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Buying")]
pub struct OrderOptions {
    /// Only this provider (npub or hex); may be given several times
    #[arg(long, global = true, value_name = "NPUB", value_parser = provider_from_npub)]
    pub provider: Vec<ProviderId>,
    /// The most the request says it pays, such as 50sat (default: --max-cost)
    #[arg(long, global = true, value_name = "AMOUNT")]
    pub bid: Option<Msat>,
    /// The most that is paid, such as 100sat (default: requester.max_cost)
    #[arg(long, global = true, value_name = "AMOUNT")]
    pub max_cost: Option<Msat>,
    /// Encrypt request and result for the one provider named (NIP-44)
    #[arg(long, global = true)]
    pub encrypt: bool,
    /// Another parameter as KEY=VALUE; may be given several times
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    pub param: Vec<(String, String)>,
    /// Take the first offer that fits instead of waiting for cheaper ones
    #[arg(long, global = true)]
    pub first: bool,
    /// A relay to post to and listen on; may be given several times (default: relays.urls)
    #[arg(long, global = true, value_name = "URL")]
    pub relay: Vec<String>,
    /// How long to wait in all, such as 5m (default: requester.timeout, or longer when the job may take longer)
    #[arg(long, global = true, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
    /// Show the invoice even when a wallet is configured
    #[arg(long, global = true)]
    pub no_pay: bool,
    /// Pay with the play money of this installation: for a 'coinop serve' with wallet.backend = "fake" beside it
    #[arg(long, global = true, conflicts_with_all = ["no_pay", "network"])]
    pub play_money: bool,
    /// Sign with a key made up for this request instead of the identity (credit is lost with it)
    #[arg(long, global = true)]
    pub anonymous: bool,
    /// The Lightning network invoices must be of: bitcoin, testnet4, signet or regtest (default: wallet.network)
    #[arg(long, global = true, value_name = "NETWORK")]
    pub network: Option<bitcoin::Network>,
    /// Write a receipt (request, result, provider, amounts, proof of payment) to this file, as JSON
    #[arg(long, global = true, value_name = "FILE")]
    pub receipt: Option<PathBuf>,
    /// Write everything that was delivered into this folder, which is made or must be empty
    #[arg(long, global = true, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// With --out: use a folder that holds something, and overwrite files there
    #[arg(long, global = true)]
    pub force: bool,
}

impl OrderOptions {
    /// Where the money comes from.
    pub fn purse(&self) -> PurseKind {
        match (self.play_money, self.no_pay) {
            (true, _) => PurseKind::PlayMoney,
            (false, true) => PurseKind::None,
            (false, false) => PurseKind::Configured,
        }
    }

    /// Checks what can be wrong before anybody is asked.
    ///
    /// # Errors
    /// When options contradict each other.
    pub fn check(&self) -> Result<(), CommandError> {
        if self.encrypt && self.provider.len() != 1 {
            return Err(CommandError::usage(
                "--encrypt needs exactly one --provider: only its key can read the request",
            ));
        }
        // Options before and behind the kind's name are told apart by the parser.
        if self.play_money && (self.no_pay || self.network.is_some()) {
            return Err(CommandError::usage("--play-money goes with neither --no-pay nor --network"));
        }
        if self.force && self.out.is_none() {
            return Err(CommandError::usage("--force belongs to --out"));
        }
        Ok(())
    }
}

/// Reads KEY=VALUE.
pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().into(), value.into())),
        _ => Err("write it as KEY=VALUE".into()),
    }
}

/// Reads MiB.
pub(super) fn mebibytes(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "write MiB as a whole number, such as 2048".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mebibytes_are_a_whole_number_and_that_is_said() {
        assert_eq!(mebibytes("2048"), Ok(2048));
        for wrong in ["2GB", "1.5", "-1", "", "4294967296"] {
            let problem = mebibytes(wrong).unwrap_err();
            assert!(problem.contains("MiB as a whole number, such as 2048"), "{problem}");
        }
    }

    #[test]
    fn a_parameter_is_written_with_an_equals_sign() {
        assert_eq!(key_value("top_k=5"), Ok(("top_k".into(), "5".into())));
        assert!(key_value("top_k").is_err());
    }
}
