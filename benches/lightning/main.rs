//! The lightning bench: what it takes to be paid, with real Lightning payments between embedded nodes and durability on.
//!
//! `cargo bench --bench lightning` (see `docs/benchmarks.md`). A private bitcoin network, the provider's node and the
//! customer's with a channel between them, relay, provider and customer, all in this process. It prints figures and fails
//! only when a payment or a job was lost. Beside coinop runs the limit found in the same run: the same nodes paying each
//! other without it.

#![allow(missing_docs)] // A program, not an interface.

mod invoices;
mod payments;
#[path = "../shared/mod.rs"]
mod shared;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bitcoin::Amount;
use coinop::testing::regtest::{ChannelPlan, Regtest, free_address, own_node};
use coinop::wallet::Wallet as _;
use coinop::wallet::ldk::LdkWallet;
use tempfile::TempDir;

/// What each node has on the chain at first, and the channel from the customer to the provider.
const ON_CHAIN: Amount = Amount::from_sat(20_000_000);
const CHANNEL: ChannelPlan = ChannelPlan { size: Amount::from_sat(15_000_000), gift: Amount::ZERO };

fn main() -> ExitCode {
    shared::main(async |quick| run(if quick { 5 } else { 60 }).await)
}

/// Two nodes with a channel, and the chain they are on.
struct Nodes {
    till: Arc<LdkWallet>,
    purse: Arc<LdkWallet>,
    till_folder: std::path::PathBuf,
    _regtest: Regtest,
    _folder: TempDir,
}

impl Nodes {
    async fn open() -> Result<Self> {
        let regtest = Regtest::start().await?;
        let folder = tempfile::tempdir()?;
        let till_folder = folder.path().join("till");
        let till = node(&regtest, &till_folder, [1; 64]).await?;
        let purse = node(&regtest, &folder.path().join("purse"), [2; 64]).await?;
        for node in [&till, &purse] {
            regtest.fund(node.as_ref(), ON_CHAIN).await;
        }
        regtest.open_channel(purse.as_ref(), till.as_ref(), CHANNEL).await;
        Ok(Self { till, purse, till_folder, _regtest: regtest, _folder: folder })
    }
}

async fn node(regtest: &Regtest, folder: &Path, seed: [u8; 64]) -> Result<Arc<LdkWallet>> {
    let mut config = own_node(&regtest.access(), folder);
    config.listen = vec![free_address()?.to_string()];
    Ok(Arc::new(LdkWallet::open(config, &seed).await?))
}

async fn run(payments: usize) -> Result<()> {
    let before = memory()?;
    let nodes = Nodes::open().await?;
    let open = memory()?;
    println!("## Payments ({payments} of each, one channel, durability on)\n");
    payments::measure(&nodes, payments).await?;
    println!("\n## Invoices\n");
    invoices::measure(nodes.till.clone(), payments * 5).await?;
    println!("\n## The node\n");
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("two nodes and the chain take {:.0} MiB of memory after opening", mebibytes(open.saturating_sub(before)));
    println!("the whole bench takes {:.0} MiB at the end", mebibytes(memory()?));
    println!("the provider's node takes {:.1} MiB on disk at the end", mebibytes(disk(&nodes.till_folder)?));
    nodes.purse.shut_down().await;
    nodes.till.shut_down().await;
    Ok(())
}

/// The resident memory of this process, in bytes.
fn memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("memory is told by Linux only")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("the system tells no memory")?;
    let kibibytes: u64 = line.split_whitespace().nth(1).context("the system tells no memory")?.parse()?;
    Ok(kibibytes * 1_024)
}

/// What a folder takes, in bytes.
fn disk(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        sum += if about.is_dir() { disk(&entry.path())? } else { about.len() };
    }
    Ok(sum)
}

/// The time that `percent` of them did not exceed (nearest rank).
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// A row of figures.
fn row(name: &str, mut times: Vec<Duration>, took: Duration) {
    times.sort_unstable();
    let millis = |time: Duration| time.as_secs_f64() * 1_000.0;
    println!(
        "| {name} | {} | {:.1} ms | {:.1} ms | {:.1} a second |",
        times.len(),
        millis(percentile(&times, 50)),
        millis(percentile(&times, 95)),
        times.len() as f64 / took.as_secs_f64().max(f64::EPSILON),
    );
}
