//! What strangers try, tried for real: each attack on cells of the engine of this machine, under both runtimes.
//!
//! `docs/sandbox.md` has the table of attacks with what stops each and the name of its test.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Cell, CellSpec, Command, Hosts, Ran, Runtime, Sandbox, SandboxError};
use crate::archive::{Archive, ArchiveBuilder, ArchiveLimits};
use crate::sandbox::docker::{Engine, JOB_LABEL};
use crate::testing::engine;

mod archives;
mod disk;
mod escape;
mod memory;
mod network;
mod output;
mod processes;

/// Time that is never up in a test that goes well.
const PATIENCE: Duration = Duration::from_secs(120);

/// Room for what is read out.
const LIMITS: ArchiveLimits = ArchiveLimits { bytes: 4 << 20, entries: 2000 };

/// Makes each attack a test under each runtime.
macro_rules! attacks {
    ($($attack:ident)*) => {
        mod runc {
            $(#[tokio::test] async fn $attack() { super::$attack(crate::sandbox::Runtime::Runc).await })*
        }
        mod runsc {
            $(#[tokio::test] async fn $attack() { super::$attack(crate::sandbox::Runtime::Runsc).await })*
        }
    };
}
use attacks;

/// An attacked engine, with one cell open.
struct Scene {
    hosts: Arc<Hosts>,
    cell: Box<dyn Cell>,
    job: String,
}

impl Scene {
    /// A cell of the usual size; nothing where there is no engine.
    async fn open(runtime: Runtime) -> Option<Self> {
        Self::open_with(runtime, |_| ()).await
    }

    async fn open_with(runtime: Runtime, change: impl FnOnce(&mut CellSpec)) -> Option<Self> {
        let hosts = engine::sandbox(runtime).await?;
        let job = format!("attack-{:016x}", rand::random::<u64>());
        let mut spec = engine::cell(&job, runtime);
        change(&mut spec);
        let cell = hosts.open(&spec, &CancellationToken::new()).await.expect("a cell can be opened");
        Some(Self { hosts, cell, job })
    }

    /// What a command does that has all the time it wants.
    async fn run(&self, shell: &str) -> Ran {
        self.try_run(shell, PATIENCE).await.expect("the command is run")
    }

    async fn try_run(&self, shell: &str, timeout: Duration) -> Result<Ran, SandboxError> {
        self.cell.run(&command(shell, timeout), &CancellationToken::new()).await
    }

    /// What is in the workspace.
    async fn everything(&self) -> Archive {
        self.cell.get(None, LIMITS).await.expect("it can be read out").expect("the workspace is there")
    }

    /// Ends the cell and makes sure that nothing is left of it.
    async fn close(self) {
        self.cell.close().await;
        assert_eq!(leftovers(&self.job).await, [] as [&str; 0]);
    }

    /// Whether another customer notices nothing.
    async fn others_are_well(&self) -> bool {
        let spec = engine::cell("somebody else", self.cell.runtime());
        let cell = self.hosts.open(&spec, &CancellationToken::new()).await.expect("another cell can be opened");
        let ran = cell.run(&command("echo well", PATIENCE), &CancellationToken::new()).await.expect("it runs");
        cell.close().await;
        ran.stdout.text == "well\n"
    }
}

fn command(shell: &str, timeout: Duration) -> Command {
    Command { shell: shell.into(), workdir: None, env: Vec::new(), timeout, keep_bytes: 16 * 1024 }
}

/// What the engine still has of a job.
async fn leftovers(job: &str) -> Vec<String> {
    let (_, engine): (_, Engine) = engine::engine().await.expect("it was there before");
    let found = engine.labelled(&format!("{JOB_LABEL}={job}")).await.expect("it answers");
    found.into_iter().map(|(name, _)| name).collect()
}

/// An archive of files.
fn files(each: &[(&str, &[u8])]) -> Archive {
    let mut builder = ArchiveBuilder::new(ArchiveLimits { bytes: 256 << 20, entries: 1 << 20 }).unwrap();
    for (path, content) in each {
        builder.file(&path.parse().unwrap(), false, content).unwrap();
    }
    builder.finish().unwrap()
}
