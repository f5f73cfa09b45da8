//! What people type: one file a subcommand, each with its arguments and a `run`.
//!
//! Adding one: a file with `pub struct XArgs` (clap, examples in `after_help`) and
//! `pub async fn run(args: XArgs, globals: &Globals) -> anyhow::Result<ExitCode>`, a variant of [`Command`], an arm in
//! `dispatch`. Results go to standard output through [`Globals::print`], everything else to standard error.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::{Config, LogSettings};

pub mod ad;
pub mod completions;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod earnings;
pub mod exit;
pub mod globals;
mod help;
pub mod identity;
pub mod init;
pub mod jobs;
pub mod ledger;
pub mod logging;
pub mod models;
pub mod pay_screen;
pub mod payments;
pub mod phrase_input;
pub mod prompt;
pub mod purse;
pub mod refund;
pub mod report;
pub mod request;
pub mod sandbox;
pub mod serve;
pub mod servers;
pub mod table;
pub mod wallet;

pub use exit::{CommandError, Exit};
pub use globals::Globals;

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed (the reason is on standard error), 2 a command line or configuration to correct.

Begin with:
  coinop init     write a configuration and an identity
  coinop config check";

/// How long threads that block (a name being looked up, a wallet that never answers) keep a command that has ended. What
/// must be done is awaited before.
const BLOCKED_PATIENCE: Duration = Duration::from_secs(2);

/// A coin-operated machine for compute: sell inference for Lightning payments over Nostr (NIP-90), and buy it
#[derive(Debug, Parser)]
#[command(name = "coinop", version, after_help = EXIT_CODES, propagate_version = true, max_term_width = 120)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(Box<init::InitArgs>),
    Identity(identity::IdentityArgs),
    Demo(demo::DemoArgs),
    Serve(serve::ServeArgs),
    Request(Box<request::RequestArgs>),
    Payments(payments::PaymentsArgs),
    Ad(ad::AdArgs),
    Models(models::ModelsArgs),
    Doctor(doctor::DoctorArgs),
    Jobs(jobs::JobsArgs),
    Earnings(earnings::EarningsArgs),
    Ledger(ledger::LedgerArgs),
    Wallet(wallet::WalletArgs),
    Refund(refund::RefundArgs),
    Sandbox(sandbox::SandboxArgs),
    Config(config::ConfigArgs),
    Completions(completions::CompletionsArgs),
}

impl Command {
    /// Whether it runs for long and logs as the configuration says; the others log warnings only.
    fn is_daemon(&self) -> bool {
        match self {
            Self::Init(_)
            | Self::Identity(_)
            | Self::Demo(_)
            | Self::Request(_)
            | Self::Payments(_)
            | Self::Ad(_)
            | Self::Models(_)
            | Self::Doctor(_)
            | Self::Jobs(_)
            | Self::Earnings(_)
            | Self::Ledger(_)
            | Self::Wallet(_)
            | Self::Refund(_)
            | Self::Sandbox(_)
            | Self::Config(_)
            | Self::Completions(_) => false,
            Self::Serve(_) => true,
        }
    }
}

/// Parses the command line, runs the command and reports how it ended. All of `main` but process-wide set-up.
pub fn main() -> ExitCode {
    let Cli { globals, command } = typed();
    let globals = globals.or_of(|variable| std::env::var_os(variable));
    logging::start(&log_settings(&globals, &command), globals.verbose, globals.quiet);
    let ended = runtime().and_then(|runtime| {
        let ended = runtime.block_on(dispatch(command, &globals));
        runtime.shutdown_timeout(BLOCKED_PATIENCE);
        ended
    });
    ended.unwrap_or_else(|error| {
        eprint!("{}", report::render(&error));
        ExitCode::from(report::code(&error))
    })
}

/// The command line, if it can be read; else clap says why not and ends the process.
fn typed() -> Cli {
    let mut command = help::reflowed(Cli::command());
    let mut matches = command.get_matches_mut();
    Cli::from_arg_matches_mut(&mut matches).unwrap_or_else(|problem| problem.format(&mut command).exit())
}

async fn dispatch(command: Command, globals: &Globals) -> Result<ExitCode> {
    match command {
        Command::Init(args) => init::run(*args, globals).await,
        Command::Identity(args) => identity::run(args, globals).await,
        Command::Demo(args) => demo::run(args, globals).await,
        Command::Serve(args) => serve::run(args, globals).await,
        Command::Request(args) => request::run(*args, globals).await,
        Command::Payments(args) => payments::run(args, globals).await,
        Command::Ad(args) => ad::run(args, globals).await,
        Command::Models(args) => models::run(args, globals).await,
        Command::Doctor(args) => doctor::run(args, globals).await,
        Command::Jobs(args) => jobs::run(args, globals).await,
        Command::Earnings(args) => earnings::run(args, globals).await,
        Command::Ledger(args) => ledger::run(args, globals).await,
        Command::Wallet(args) => wallet::run(args, globals).await,
        Command::Refund(args) => refund::run(args, globals).await,
        Command::Sandbox(args) => sandbox::run(args, globals).await,
        Command::Config(args) => config::run(args, globals).await,
        Command::Completions(args) => completions::run(args, globals).await,
    }
}

/// Several threads: wallets block theirs now and then.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the system gave us no threads")
}

/// A configuration that can't be read is the command's to report; until then the defaults do.
fn log_settings(globals: &Globals, command: &Command) -> LogSettings {
    if !command.is_daemon() {
        return logging::quiet_settings();
    }
    globals
        .paths()
        .ok()
        .and_then(|paths| Config::load_or_default(&paths).ok())
        .map_or_else(logging::quiet_settings, |config| config.log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_without_subcommands_shows_an_example() {
        fn visit(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                let path = format!("{path} {}", sub.get_name());
                if sub.has_subcommands() {
                    visit(sub, &path);
                    continue;
                }
                let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains(&path), "'{path} --help' has no example");
            }
        }
        visit(&Cli::command(), "coinop");
    }
}
