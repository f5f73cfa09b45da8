//! A container at work.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, StartContainerOptions, StatsOptionsBuilder,
};
use futures::StreamExt;
use jiff::Timestamp;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::engine::{Engine, QUICK, timed};
use super::error::EngineError;
use super::labels::{self, Identity};
use super::news::Wire;
use super::removal::{Owned, Removals};
use super::spec;
use crate::archive::{Archive, ArchiveLimits};
use crate::job::RelativePath;
use crate::sandbox::slots::Slot;
use crate::sandbox::{Cell, CellLimits, CellSpec, CellUsage, Command, Ended, Image, Pipe, Ran, Runtime, SandboxError};

/// How long the engine may take to make a container. It copies nothing.
const MAKING: Duration = Duration::from_secs(30);
/// How long a runtime may take to start one. Some hang instead of failing.
pub(in crate::sandbox) const STARTING: Duration = Duration::from_secs(30);
/// How long [`Cell::close`] waits. The removal goes on afterwards.
const CLOSING: Duration = Duration::from_secs(30);
/// How long the engine may take for what is only told for the record.
const MEASURING: Duration = Duration::from_secs(3);
/// Waits for late news of the engine's: a little more than a second in all.
const WAITS: usize = 6;
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// A cell on a Docker engine.
pub(in crate::sandbox) struct DockerCell {
    pub(super) engine: Engine,
    pub(super) limits: CellLimits,
    /// When its time is over.
    pub(super) deadline: Instant,
    started: Timestamp,
    image: Image,
    runtime: Runtime,
    pub(super) owned: Owned,
    /// One thing at a time happens in a cell, but for a program at the end of a pipe.
    pub(super) state: tokio::sync::Mutex<State>,
    usage: Mutex<CellUsage>,
}

/// What happened in a cell.
#[derive(Default)]
pub(super) struct State {
    /// Ended from outside or by itself: no more commands.
    pub(super) ended: Option<Ended>,
    /// Something ran, and may still run.
    pub(super) used: bool,
    /// The engine's news.
    pub(super) wire: Option<Wire>,
}

/// What it takes to open a cell.
pub(in crate::sandbox) struct Opening {
    /// Where.
    pub(in crate::sandbox) engine: Engine,
    /// How many processors there are.
    pub(in crate::sandbox) cpus: u32,
    /// Who opens it.
    pub(in crate::sandbox) identity: Identity,
    /// What is wanted.
    pub(in crate::sandbox) spec: CellSpec,
    /// What it is made from.
    pub(in crate::sandbox) image: Image,
    /// Its place, given back when it is gone.
    pub(in crate::sandbox) slot: Option<Slot>,
    /// Where it is known until then.
    pub(in crate::sandbox) removals: Removals,
    /// How long the runtime may take.
    pub(in crate::sandbox) starting: Duration,
}

impl Opening {
    /// Makes the cell. What is begun and does not come to its end is removed again.
    pub(in crate::sandbox) async fn open(self) -> Result<DockerCell, SandboxError> {
        let removals = self.removals.clone();
        removals.see_through(self.make()).await.unwrap_or(Err(SandboxError::Cancelled))
    }

    async fn make(self) -> Result<DockerCell, SandboxError> {
        let Self { engine, cpus, identity, spec, image, slot, removals, starting } = self;
        let CellSpec { job, runtime, limits, .. } = spec;
        let owned = removals.register(engine.clone(), slot);
        let name = owned.0.name().to_owned();
        let labels = labels::labels(&identity, &job, spec::life(&limits));
        let docker = &engine.docker;

        let volume = spec::volume(&name, labels.clone(), &limits);
        timed("making a workspace", QUICK, docker.create_volume(volume)).await?;
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let container = spec::container(&name, labels, &image.digest, runtime, &limits, cpus);
        let made = timed("making a cell", MAKING, docker.create_container(Some(options), container)).await?;
        for warning in made.warnings {
            warn!(cell = name, job.id = job, warning, "The engine warns of a cell");
        }
        let deadline = Instant::now() + limits.time;
        timed("starting a cell", starting, docker.start_container(&name, None::<StartContainerOptions>)).await?;
        let started = engine.started(&name).await?.ok_or(SandboxError::Gone(Ended::Exited))?;
        if !owned.0.opened() {
            return Err(SandboxError::Cancelled);
        }
        debug!(cell = name, job.id = job, %runtime, "A cell is open");
        Ok(DockerCell {
            engine,
            limits,
            deadline,
            started,
            image,
            runtime,
            owned,
            state: tokio::sync::Mutex::default(),
            usage: Mutex::default(),
        })
    }
}

impl DockerCell {
    /// What the engine knows it by.
    pub(super) fn name(&self) -> &str {
        self.owned.0.name()
    }

    /// Its news from the beginning.
    pub(super) fn wire(&self) -> Wire {
        Wire::of(&self.engine, self.name(), self.started)
    }

    /// Stops all that runs in it, for good, but keeps the files readable. A cell that can't be stopped is removed. Only
    /// [`Engine::remove`] lets it go on again, for the moment that killing it takes.
    pub(super) async fn freeze(&self, state: &mut State, ended: Ended) {
        state.ended = Some(ended);
        if let Err(error) = self.pause().await {
            warn!(cell = self.name(), %error, "A cell can't be stopped and is removed");
            self.owned.0.begin();
        }
    }

    /// Stops all that runs in it, until it is resumed.
    pub(super) async fn pause(&self) -> Result<(), EngineError> {
        let once = || timed("stopping a cell", QUICK, self.engine.docker.pause_container(self.name()));
        self.when_known(once).await
    }

    pub(super) async fn resume(&self) -> Result<(), EngineError> {
        self.when_known(|| self.engine.resume(self.name())).await
    }

    /// Does it, and once more while the engine refuses it to a container that runs: it takes in late what its containers tell
    /// it, and may think for a moment that one stands still that was let go on just now, or the other way round.
    async fn when_known<F: Future<Output = Result<(), EngineError>> + Send>(
        &self,
        act: impl Fn() -> F + Send + Sync,
    ) -> Result<(), EngineError> {
        let waits = ExponentialBuilder::new().with_min_delay(FIRST_WAIT).with_max_times(WAITS);
        for wait in waits.build() {
            let error = match act().await {
                Err(error @ EngineError::Refused { .. }) if !error.is_absent() => error,
                done => return done,
            };
            if !matches!(self.fate().await, Ok(Some(Fate::Running))) {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
        }
        act().await
    }

    /// Whether it is there, and if it ended why; `None` when the engine does not know it.
    pub(super) async fn fate(&self) -> Result<Option<Fate>, EngineError> {
        let question = self.engine.docker.inspect_container(self.name(), None::<InspectContainerOptions>);
        match timed("looking at a cell", QUICK, question).await {
            Ok(found) => {
                let state = found.state.unwrap_or_default();
                let ended = if state.oom_killed == Some(true) { Ended::OutOfMemory } else { Ended::Exited };
                Ok(Some(if state.running == Some(true) { Fate::Running } else { Fate::Ended(ended) }))
            }
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes down what it used so far. The engine looks once a second.
    async fn measure(&self) -> Option<()> {
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let mut stats = Box::pin(self.engine.docker.stats(self.name(), Some(options)));
        let stats = timeout(MEASURING, stats.next()).await.ok()??.ok()?;
        let cpu = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage).map(Duration::from_nanos);
        let memory = stats.memory_stats.unwrap_or_default();
        let peak = memory.max_usage.or(memory.usage).unwrap_or(0);
        let written = stats.blkio_stats.and_then(|blkio| blkio.io_service_bytes_recursive).unwrap_or_default();
        let is_write = |word: &str| word.eq_ignore_ascii_case("write");
        let written = written.iter().filter(|entry| entry.op.as_deref().is_some_and(is_write));
        let written: u64 = written.filter_map(|entry| entry.value).sum();
        // A cell that ended has nothing to tell: what was known stays.
        let mut usage = self.usage.lock().expect("nobody panics while holding it");
        usage.cpu_time = usage.cpu_time.max(cpu.unwrap_or_default());
        usage.peak_memory_bytes = usage.peak_memory_bytes.max(peak);
        usage.disk_writes_bytes = usage.disk_writes_bytes.max(written);
        Some(())
    }
}

/// What became of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It runs, or is stopped by us.
    Running,
    /// It ended.
    Ended(Ended),
}

impl Engine {
    /// When the container was started, if it runs.
    async fn started(&self, name: &str) -> Result<Option<Timestamp>, EngineError> {
        let step = "looking at a new cell";
        let found = timed(step, QUICK, self.docker.inspect_container(name, None::<InspectContainerOptions>)).await?;
        let state = found.state.unwrap_or_default();
        if state.running != Some(true) {
            return Ok(None);
        }
        let started = state.started_at.unwrap_or_default();
        let parsed = started
            .parse()
            .map_err(|error: jiff::Error| EngineError::Unreadable { step, detail: error.to_string() })?;
        Ok(Some(parsed))
    }
}

#[async_trait]
impl Cell for DockerCell {
    fn image(&self) -> &Image {
        &self.image
    }

    fn runtime(&self) -> Runtime {
        self.runtime
    }

    async fn put(&self, files: &Archive) -> Result<(), SandboxError> {
        self.unpack(files).await
    }

    async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Ran, SandboxError> {
        self.execute(command, cancel).await
    }

    async fn pipe(&self, program: &[String]) -> Result<Pipe, SandboxError> {
        self.connect(program).await
    }

    async fn get(&self, path: Option<&RelativePath>, limits: ArchiveLimits) -> Result<Option<Archive>, SandboxError> {
        self.pack(path, limits).await
    }

    async fn usage(&self) -> CellUsage {
        self.measure().await;
        *self.usage.lock().expect("nobody panics while holding it")
    }

    async fn close(&self) {
        if !self.owned.0.wait(CLOSING).await {
            warn!(cell = self.name(), "A cell is not gone yet; the engine is asked again");
        }
    }
}
