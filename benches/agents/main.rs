//! The bench of agent jobs: how fast a sandbox is there, how many trivial jobs a second go through a whole market, and how
//! fast a repository is indexed.
//!
//! `cargo bench --bench agents` (see `docs/benchmarks.md`). Each figure stands beside a limit found in the same run: the same
//! container made by a bare call of the engine, the same files parsed and hashed with nothing around it. Without an engine
//! that part says so and is left out.

#![allow(missing_docs)] // A program, not an interface.

mod index;
mod runs;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

/// Measures agent jobs.
#[derive(Debug, Parser)]
#[command(name = "agents")]
struct Args {
    /// A smoke run: everything is exercised, the figures mean little.
    #[arg(long)]
    quick: bool,
    /// Given by `cargo bench`; without it (`cargo test --benches`) the run is a quick one.
    #[arg(long, hide = true)]
    bench: bool,
    /// Given by test runners that look for tests: there are none.
    #[arg(long, hide = true)]
    list: bool,
    /// Given by test runners.
    #[arg(long, hide = true)]
    test: bool,
    /// Ignored: given by test runners.
    #[arg(hide = true)]
    filter: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        return ExitCode::SUCCESS;
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let quick = args.quick || args.test || !args.bench;
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the system gave us no threads")
        .and_then(|runtime| runtime.block_on(run(quick)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("the bench could not be run: {problem:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(quick: bool) -> Result<()> {
    runs::measure(runs::Size::of(quick)).await?;
    index::measure(quick).await
}
