//! What the benches have in common: their command line, and how they end.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

/// What can be said to a bench.
#[derive(Debug, Parser)]
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

/// Runs a bench, told whether it is to be a quick one, and says when it could not be run.
pub fn main(bench: impl AsyncFnOnce(bool) -> Result<()>) -> ExitCode {
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
        .and_then(|runtime| runtime.block_on(bench(quick)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("the bench could not be run: {problem:#}");
            ExitCode::FAILURE
        }
    }
}
