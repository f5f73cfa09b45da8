//! What the bench does, in order, and what it says of it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use coinop::money::Msat;
use coinop::wallet::fake::{FakeNetwork, FakeWallet, FakeWalletOptions};
use nostr::Keys;
use serde::Serialize;

use crate::child::{Child, Role, own_cpu};
use crate::customers::Customers;
use crate::figures::{self, Stretch, mebibytes, micros, millis, rate};
use crate::provider::{PRICE, Task};
use crate::signatures::SignatureCost;
use crate::wallet;

/// Requests under way at once in the busy stretches.
const MANY: usize = 50;

/// Jobs worked on at once: the default of the configuration.
const JOBS_RUNNING: usize = 4;

/// How long nothing may come before nothing more is expected.
const QUIET: Duration = Duration::from_millis(500);

/// How long a job takes that a killed provider is to be in the middle of.
const WORK_WHEN_KILLED: Duration = Duration::from_millis(50);

/// What is asked of a provider.
pub(crate) struct Scale {
    /// Jobs one after another.
    one: usize,
    /// Jobs before anything is measured with [`MANY`] in flight.
    warm: usize,
    /// Jobs with [`MANY`] in flight.
    many: usize,
    /// The same, paid.
    many_paid: usize,
    /// Requests at once.
    burst: usize,
    /// Jobs queued when the provider is killed.
    killed: usize,
    /// Time to measure each signature operation.
    signatures: Duration,
}

impl Scale {
    /// The whole bench, some two minutes.
    pub(crate) fn full() -> Self {
        Self {
            one: 500,
            warm: 500,
            many: 9_000,
            many_paid: 4_000,
            burst: 5_000,
            killed: 200,
            signatures: Duration::from_secs(1),
        }
    }

    /// Some seconds, for a smoke run.
    pub(crate) fn quick() -> Self {
        Self {
            one: 50,
            warm: 50,
            many: 400,
            many_paid: 200,
            burst: 300,
            killed: 40,
            signatures: Duration::from_millis(100),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Market {
    Free,
    Prepaid,
    /// The bare echo.
    Bare,
}

impl Market {
    const fn word(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Prepaid => "prepaid",
            Self::Bare => "bare echo",
        }
    }

    /// Events the provider signs for a job: the result, and before it the invoice.
    const fn answers(self) -> u32 {
        if matches!(self, Self::Prepaid) { 2 } else { 1 }
    }
}

/// A relay, a provider, customers, and the money of both sides.
struct Square {
    relay: Child,
    provider: Child,
    customers: Customers,
    seller: FakeWallet,
    task: Task,
}

pub(crate) struct Journey {
    scale: Scale,
    filter: String,
    stretches: Vec<Stretch>,
    notes: Vec<String>,
    sound: bool,
}

impl Journey {
    pub(crate) fn new(scale: Scale, filter: Option<String>) -> Self {
        Self { scale, filter: filter.unwrap_or_default(), stretches: Vec::new(), notes: Vec::new(), sound: true }
    }

    /// Does everything and prints it. False when something was lost, doubled or wrong.
    pub(crate) fn run(mut self) -> Result<bool> {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        println!("{cores} cores, load before: {}", load.split_whitespace().next().unwrap_or("unknown"));
        let signatures = SignatureCost::measure(self.scale.signatures)?;
        println!(
            "one core: {} signatures verified ({} each), {} made ({} each)",
            rate(signatures.verify),
            micros(signatures.verify),
            rate(signatures.sign),
            micros(signatures.sign),
        );
        // One thread for the customers: the processor is for the others, and a message needs no second one to be woken.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            for market in [Market::Bare, Market::Free, Market::Prepaid] {
                if market.word().contains(&self.filter) {
                    self.visit(market).await.with_context(|| format!("the {} market", market.word()))?;
                }
            }
            for market in [Market::Free, Market::Prepaid] {
                if format!("kill {}", market.word()).contains(&self.filter) {
                    self.kill(market).await.with_context(|| format!("the killed {} provider", market.word()))?;
                }
            }
            anyhow::Ok(())
        })?;
        println!("\n{}\n", figures::table(&self.stretches, signatures));
        self.compare();
        self.notes.iter().for_each(|note| println!("{note}"));
        println!("{}", if self.sound { "nothing lost, nothing doubled" } else { "NOT SOUND: see above" });
        Ok(self.sound)
    }

    /// One market from empty to burst.
    async fn visit(&mut self, market: Market) -> Result<()> {
        let word = market.word();
        println!("{word} …");
        let folder = tempfile::tempdir()?;
        let mut square = Square::open(market, folder.path(), JOBS_RUNNING, Duration::ZERO).await?;
        let many = if market == Market::Prepaid { self.scale.many_paid } else { self.scale.many };
        self.stretch(&mut square, market, word, self.scale.one, 1).await?;
        square.order(self.scale.warm, MANY).await?;
        let (early, so_far) = (square.provider.memory(), self.scale.one + self.scale.warm);
        self.stretch(&mut square, market, word, many, MANY).await?;
        let late = square.provider.memory();
        self.stretch(&mut square, market, "… burst", self.scale.burst, self.scale.burst).await?;
        square.customers.linger(QUIET).await?;
        square.customers.check()?;
        self.notes.push(format!(
            "{word}: memory {} after {so_far} jobs, {} after {} ({:+.0} bytes a job), {} after the burst of {}, never above {}",
            mebibytes(early),
            mebibytes(late),
            so_far + many,
            (late as f64 - early as f64) / many as f64,
            mebibytes(square.provider.memory()),
            self.scale.burst,
            mebibytes(square.provider.most_memory()),
        ));
        self.judge(word, &square)?;
        square.close().await
    }

    /// Kills the provider twice with jobs queued, running and being delivered.
    async fn kill(&mut self, market: Market) -> Result<()> {
        let word = format!("kill {}", market.word());
        println!("{word} …");
        let count = self.scale.killed;
        let folder = tempfile::tempdir()?;
        let mut square = Square::open(market, folder.path(), JOBS_RUNNING, WORK_WHEN_KILLED).await?;
        let orders = square.customers.sign(count)?;
        square.customers.publish_all(orders).await?;
        square.customers.all_taken().await?;
        let mut done = vec![square.customers.done()];
        square = square.restart().await?;
        square.customers.results(count.midpoint(done[0])).await?;
        done.push(square.customers.done());
        square = square.restart().await?;
        square.customers.results(count).await?;
        square.customers.faults.lost += count - square.customers.done();
        square.customers.linger(QUIET).await?;
        square.customers.check()?;
        self.notes.push(format!(
            "{word}: {count} jobs queued, killed with {} and again with {} of them done; {} done in the end",
            done[0],
            done[1],
            square.customers.done(),
        ));
        self.judge(&word, &square)?;
        square.close().await
    }

    async fn stretch(
        &mut self,
        square: &mut Square,
        market: Market,
        name: &'static str,
        count: usize,
        in_flight: usize,
    ) -> Result<()> {
        let orders = square.customers.sign(count)?;
        let before = square.cpu();
        let (took, latencies) = square.customers.order(orders, in_flight).await?;
        let after = square.cpu();
        let stretch = Stretch {
            name,
            in_flight,
            took,
            latencies,
            cpu: [0, 1, 2].map(|part| after[part].saturating_sub(before[part])),
            answers: market.answers(),
            memory: square.provider.memory(),
        };
        println!(
            "  {} jobs, {in_flight} in flight: {:.0} jobs/s, p50 {}",
            stretch.latencies.len(),
            stretch.jobs_per_second(),
            millis(stretch.percentile(50)),
        );
        self.stretches.push(stretch);
        square.customers.check()
    }

    /// Says what was wrong, if anything was.
    fn judge(&mut self, word: &str, square: &Square) -> Result<()> {
        let faults = square.customers.faults;
        if faults != Default::default() {
            self.sound = false;
            self.notes.push(format!("{word}: {faults:?}"));
        }
        let (paid, got) = (square.customers.paid(&square.seller)?, square.seller.funds()?);
        let done = u64::try_from(square.customers.done())?;
        let owed = if square.task.wallet.is_some() { PRICE.per(done, 1) } else { Msat::ZERO };
        if paid != got || got != owed {
            self.sound = false;
            self.notes.push(format!("{word}: the customers paid {paid}, the provider got {got}, the jobs cost {owed}"));
        }
        Ok(())
    }

    fn compare(&self) {
        let find = |name: &str, in_flight| {
            self.stretches.iter().find(|stretch| stretch.name == name && stretch.in_flight == in_flight)
        };
        for (market, in_flight) in [("free", 1), ("free", MANY), ("prepaid", 1), ("prepaid", MANY)] {
            if let (Some(ours), Some(bare)) = (find(market, in_flight), find("bare echo", in_flight)) {
                println!(
                    "{market}, {in_flight} in flight: {:.2} of the bare echo's jobs/s, {:.1} times its p50",
                    ours.jobs_per_second() / bare.jobs_per_second(),
                    ours.percentile(50).as_secs_f64() / bare.percentile(50).as_secs_f64(),
                );
            }
        }
    }
}

impl Square {
    async fn open(market: Market, folder: &Path, jobs_running: usize, work: Duration) -> Result<Self> {
        let network = FakeNetwork::in_memory();
        let rich = FakeWalletOptions { opening_balance: Msat::sat(1_000_000), ..FakeWalletOptions::default() };
        let buyer = FakeWallet::open(&network, &[1; 32], rich)?;
        let seller = FakeWallet::open(&network, &[2; 32], FakeWalletOptions::default())?;
        let relay = start(Role::Relay, ()).await?;
        let paid = market == Market::Prepaid;
        let task = Task {
            relay: relay.greeting.clone(),
            database: folder.join("market.sqlite"),
            secret_key: Keys::generate().secret_key().to_secret_hex(),
            wallet: if paid { Some(wallet::offer(seller.clone()).await?) } else { None },
            jobs_running,
            work,
        };
        let customers = Customers::connect(&relay.greeting, paid.then_some(buyer)).await?;
        let provider = match market {
            Market::Bare => start(Role::Echo, relay.greeting.clone()).await?,
            Market::Free | Market::Prepaid => start(Role::Provider, task.clone()).await?,
        };
        Ok(Self { relay, provider, customers, seller, task })
    }

    async fn order(&mut self, count: usize, in_flight: usize) -> Result<()> {
        let orders = self.customers.sign(count)?;
        self.customers.order(orders, in_flight).await?;
        self.customers.check()
    }

    /// Kills the provider and starts it again over the same database.
    async fn restart(self) -> Result<Self> {
        let Self { relay, provider, customers, seller, task } = self;
        aside(move || provider.kill()).await?;
        let provider = start(Role::Provider, task.clone()).await?;
        Ok(Self { relay, provider, customers, seller, task })
    }

    /// Processor time of the provider, the relay, and ours.
    fn cpu(&self) -> [Duration; 3] {
        [self.provider.cpu(), self.relay.cpu(), own_cpu()]
    }

    async fn close(self) -> Result<()> {
        let Self { relay, provider, customers, .. } = self;
        aside(move || provider.stop()).await?;
        drop(customers);
        aside(move || relay.stop()).await
    }
}

async fn start(role: Role, task: impl Serialize + Send + 'static) -> Result<Child> {
    aside(move || Child::start(role, &task)).await
}

/// Waits for another process without keeping the wallets of this one waiting.
async fn aside<T: Send + 'static>(wait: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(wait).await?
}
