//! The bench of agent jobs: how fast a sandbox is there, how many trivial jobs a second go through a whole market, and how
//! fast a repository is indexed.
//!
//! `cargo bench --bench agents` (see `docs/benchmarks.md`). Each figure stands beside a limit found in the same run: the same
//! container made by a bare call of the engine, the same files parsed and hashed with nothing around it. Without an engine
//! that part says so and is left out.

#![allow(missing_docs)] // A program, not an interface.

mod index;
mod runs;
#[path = "../shared/mod.rs"]
mod shared;

use std::process::ExitCode;

use anyhow::Result;

fn main() -> ExitCode {
    shared::main(run)
}

async fn run(quick: bool) -> Result<()> {
    runs::measure(runs::Size::of(quick)).await?;
    index::measure(quick).await
}
