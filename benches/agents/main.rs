//! The agents bench: what coinop adds to a container engine.
//!
//! `cargo bench --bench agents` (see `docs/benchmarks.md`). The limit found in the same run is the bare engine. It prints
//! figures and fails only when something did not work.

#![allow(missing_docs)] // A program, not an interface.

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
    runs::measure(runs::Size::of(quick)).await
}
