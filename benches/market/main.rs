//! The market bench: a provider, a relay and customers on loopback, each in a process of its own, with durability on.
//!
//! `cargo bench --bench market --no-default-features` (see `docs/benchmarks.md`). It prints figures and ends with an error
//! only when a job was lost, done twice or answered wrongly: speed is for people to judge.
//!
//! The provider is the real one ([`coinop::daemon::service::Service`]) over a database file, its answers come from the echo
//! backend, and its invoices from a wallet in another process, as in life. Beside it the limit found in the same run: an
//! echo with nothing but the signatures, behind the same relay and before the same customers.

#![allow(missing_docs)] // A program, not an interface.

mod child;
mod customers;
mod echo;
mod figures;
mod journey;
mod provider;
mod relay;
mod signatures;
mod wallet;

use std::process::ExitCode;

use clap::Parser;

use child::Role;
use journey::{Journey, Scale};

/// Measures a provider on loopback.
#[derive(Debug, Parser)]
#[command(name = "market")]
struct Args {
    /// A smoke run of some seconds: everything is exercised, the figures mean little.
    #[arg(long)]
    quick: bool,
    /// Only the parts whose name contains this (free, prepaid, bare, kill).
    filter: Option<String>,
    /// Given by `cargo bench`; without it (`cargo test --benches`) the run is a quick one.
    #[arg(long, hide = true)]
    bench: bool,
    /// Given by test runners that look for tests: there are none.
    #[arg(long, hide = true)]
    list: bool,
    /// Given by test runners.
    #[arg(long, hide = true)]
    test: bool,
    /// What this process is, when the bench started itself again.
    #[arg(long, hide = true)]
    role: Option<Role>,
    /// What that process needs to know, in JSON.
    #[arg(long, hide = true, requires = "role")]
    task: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        return ExitCode::SUCCESS;
    }
    let task = args.task.unwrap_or_default();
    let ended = match args.role {
        Some(Role::Provider) => provider::serve(&task).map(|()| true),
        Some(Role::Echo) => echo::serve(&task).map(|()| true),
        Some(Role::Relay) => relay::serve().map(|()| true),
        None => {
            let quick = args.quick || args.test || !args.bench;
            let scale = if quick { Scale::quick() } else { Scale::full() };
            Journey::new(scale, args.filter).run()
        }
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("the bench could not be run: {problem:#}");
            ExitCode::FAILURE
        }
    }
}
