//! Runs (kind 5930): how soon a cell runs its first command, how many jobs a minute a whole market does, and what an open cell
//! takes of this process. The limit found in the same run is the bare engine: the same image, started and asked for the same
//! command by a few calls with nothing in between.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bollard::Docker;
use bollard::exec::StartExecResults;
use bollard::models::{ContainerCreateBody, ExecConfig, HostConfig};
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions};
use coinop::executor::sandbox_run::SandboxRunExecutor;
use coinop::job::sandbox_run::SandboxRunLimits;
use coinop::job::{JobKind, Params, Rates, Terms};
use coinop::money::Msat;
use coinop::nip90::Order;
use coinop::provider::Offer;
use coinop::sandbox::{Command, Hosts, Runtime, Sandbox};
use coinop::testing::engine;
use coinop::testing::market::{Customer, TestMarket};
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

/// Cells open at once while memory is measured.
const OPEN: u64 = 8;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Containers started, one after the other.
    starts: u64,
    /// Jobs for each number in flight.
    jobs: u64,
}

impl Size {
    /// A smoke run, or one whose figures mean something.
    pub(crate) fn of(quick: bool) -> Self {
        if quick { Self { starts: 1, jobs: 2 } } else { Self { starts: 20, jobs: 48 } }
    }
}

/// Prints the figures of each runtime that this machine's engine has.
pub(crate) async fn measure(size: Size) -> Result<()> {
    for runtime in [Runtime::Runc, Runtime::Runsc] {
        let instance = format!("coinop-bench-{}", std::process::id());
        let Some(hosts) = engine::hosts(&instance, runtime).await else { continue };
        println!("\n## Runs in {runtime}\n");
        // Proves the runtime once, as a provider does at its start.
        hosts.images(runtime).await?;
        memory(&hosts, runtime).await?;
        starts(&hosts, runtime, size).await?;
        throughput(&hosts, runtime, size).await?;
        hosts.shut_down().await;
    }
    Ok(())
}

/// The times of one way to run a command in a new container.
#[derive(Default)]
struct Times {
    /// Until the first command has ended.
    first: Vec<Duration>,
    /// Until the container is gone.
    gone: Vec<Duration>,
}

impl Times {
    fn row(&self, name: &str) -> String {
        let (first, gone) = (&self.first, &self.gone);
        let at = |times: &[Duration], percent| format!("{:.0} ms", quantile(times, percent).as_secs_f64() * 1e3);
        format!(
            "| {name} | {} | {} | {} | {} | {} |",
            first.len(),
            at(first, 50),
            at(first, 95),
            at(gone, 50),
            at(gone, 95)
        )
    }
}

fn quantile(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).copied().unwrap_or_default()
}

async fn starts(hosts: &Arc<Hosts>, runtime: Runtime, size: Size) -> Result<()> {
    let docker = Docker::connect_with_local_defaults()?;
    let (mut bare, mut cells) = (Times::default(), Times::default());
    // In turn, so that a busy moment meets both.
    for number in 0..size.starts {
        bare_start(&docker, runtime, &mut bare).await?;
        cell_start(hosts, runtime, number, &mut cells).await?;
    }
    println!(
        "| `true` in a new container | times | first command p50 | p95 | gone p50 | p95 |\n|---|---|---|---|---|---|"
    );
    println!("{}\n{}", bare.row("bare engine"), cells.row("a cell"));
    Ok(())
}

/// The least an engine can be asked for: no limits, no workspace, nothing looked at.
async fn bare_start(docker: &Docker, runtime: Runtime, times: &mut Times) -> Result<()> {
    let begun = Instant::now();
    let name = started(docker, runtime).await?;
    run_true(docker, &name).await?;
    times.first.push(begun.elapsed());
    removed(docker, &name).await?;
    times.gone.push(begun.elapsed());
    Ok(())
}

async fn started(docker: &Docker, runtime: Runtime) -> Result<String> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = format!("coinop-bare-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let body = ContainerCreateBody {
        image: Some(engine::REFERENCE.to_owned()),
        cmd: Some(vec!["sleep".into(), "600".into()]),
        labels: Some(HashMap::from([("coinop.bench".into(), "bare".into())])),
        host_config: Some(HostConfig {
            runtime: Some(runtime.word().to_owned()),
            network_mode: Some("none".into()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    docker.create_container(Some(options), body).await?;
    docker.start_container(&name, None::<StartContainerOptions>).await?;
    Ok(name)
}

async fn run_true(docker: &Docker, name: &str) -> Result<()> {
    let config = ExecConfig {
        cmd: Some(vec!["/bin/sh".into(), "-c".into(), "true".into()]),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..ExecConfig::default()
    };
    let exec = docker.create_exec(name, config).await?;
    if let StartExecResults::Attached { mut output, .. } = docker.start_exec(&exec.id, None).await? {
        while let Some(piece) = output.next().await {
            piece?;
        }
    }
    ensure!(docker.inspect_exec(&exec.id).await?.exit_code == Some(0), "true failed");
    Ok(())
}

async fn removed(docker: &Docker, name: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    Ok(docker.remove_container(name, Some(options)).await?)
}

async fn cell_start(hosts: &Arc<Hosts>, runtime: Runtime, number: u64, times: &mut Times) -> Result<()> {
    let never = CancellationToken::new();
    let begun = Instant::now();
    let cell = hosts.open(&engine::cell(&format!("bench-{number}"), runtime), &never).await?;
    let ran = cell.run(&command("true"), &never).await?;
    times.first.push(begun.elapsed());
    ensure!(ran.exit_code == 0, "true failed in a cell");
    cell.close().await;
    times.gone.push(begun.elapsed());
    Ok(())
}

fn command(shell: &str) -> Command {
    let timeout = Duration::from_secs(60);
    Command { shell: shell.to_owned(), workdir: None, env: Vec::new(), timeout, keep_bytes: 1_000 }
}

/// Jobs a minute: ordered, quoted, invoiced, paid, run, signed, stored and received, over a real websocket and with play money.
async fn throughput(hosts: &Arc<Hosts>, runtime: Runtime, size: Size) -> Result<()> {
    println!("\n| `true`, 1 and 8 in flight | done | a minute | p50 | p95 |\n|---|---|---|---|---|");
    let docker = Docker::connect_with_local_defaults()?;
    for in_flight in [1, 8] {
        let bare = |_| async {
            let name = started(&docker, runtime).await?;
            run_true(&docker, &name).await?;
            removed(&docker, &name).await
        };
        report(&format!("bare engine, {in_flight} in flight"), size.jobs, in_flight, bare).await?;
        let executor = SandboxRunExecutor::new(hosts.clone(), None, None, runtime, SandboxRunLimits::default());
        let rates = Rates { base: Msat::sat(21), ..Rates::FREE };
        let hold_for = Offer::hold_for(Duration::from_secs(900));
        let offer = Offer { rates, terms: Terms::Prepay, free_per_day: 0, hold_for };
        let market = TestMarket::new()
            .selling(JobKind::SandboxRun, Arc::new(executor), offer)
            .settings(|settings| settings.jobs_running = in_flight)
            .rules(|rules| rules.max_per_customer = in_flight)
            .start()
            .await;
        let customer = market.customer().await;
        let job = |number| buy(&customer, number);
        report(&format!("jobs, {in_flight} in flight"), size.jobs, in_flight, job).await?;
        market.finish().await;
    }
    Ok(())
}

async fn report<F: Future<Output = Result<()>>>(
    name: &str,
    jobs: u64,
    in_flight: usize,
    job: impl Fn(u64) -> F,
) -> Result<()> {
    let begun = Instant::now();
    let timed = |number| {
        let job = job(number);
        async {
            let begun = Instant::now();
            job.await.map(|()| begun.elapsed())
        }
    };
    let times: Vec<Duration> = stream::iter(0..jobs).map(timed).buffer_unordered(in_flight).try_collect().await?;
    let a_minute = jobs as f64 * 60.0 / begun.elapsed().as_secs_f64();
    let at = |percent| quantile(&times, percent).as_secs_f64();
    println!("| {name} | {jobs} | {a_minute:.0} | {:.2} s | {:.2} s |", at(50), at(95));
    Ok(())
}

async fn buy(customer: &Customer, number: u64) -> Result<()> {
    let mut params = Params::default();
    // The same order within a second is the same event, and one job.
    params.push("cmd", vec![format!("true {number}")]);
    let order = Order { kind: JobKind::SandboxRun, inputs: Vec::new(), params, ..customer.order("") };
    let mut posted = customer.post(&order).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.context("the payment did not go through")?;
    let result = posted.result().await;
    ensure!(result.content.starts_with(r#"{"exit_code":0,"#), "a run of 'true' failed: {}", result.content);
    Ok(())
}

/// What open cells take of this process, and of the machine when the engine is on it and little else goes on.
async fn memory(hosts: &Arc<Hosts>, runtime: Runtime) -> Result<()> {
    let never = CancellationToken::new();
    let before = (kib("self/status", "VmRSS:"), kib("meminfo", "MemAvailable:"));
    let mut cells = Vec::new();
    for number in 0..OPEN {
        let cell = hosts.open(&engine::cell(&format!("bench-open-{number}"), runtime), &never).await?;
        cell.run(&command("true"), &never).await?;
        cells.push(cell);
    }
    let after = (kib("self/status", "VmRSS:"), kib("meminfo", "MemAvailable:"));
    println!("| {OPEN} cells open | before | after | a cell |\n|---|---|---|---|");
    let row = |name: &str, (before, after): (u64, u64), taken: u64| {
        println!("| {name} | {before} KiB | {after} KiB | {} KiB |", taken / OPEN);
    };
    row("memory of this process", (before.0, after.0), after.0.saturating_sub(before.0));
    row("memory available on the machine", (before.1, after.1), before.1.saturating_sub(after.1));
    println!();
    for cell in cells {
        cell.close().await;
    }
    Ok(())
}

/// A number of kibibytes that the system tells; zero where it does not.
fn kib(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB"));
    line.and_then(|kib| kib.trim().parse().ok()).unwrap_or(0)
}
