//! Several engines as one sandbox.
//!
//! An engine is looked at before it is used and again every now and then. One that does not answer is left out until it does;
//! then everything it can do has to be proven again. A runtime is offered only while a probe on that engine has shown that it
//! keeps what is in it inside.

mod report;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::docker::{
    DockerCell, Engine, EngineError, EngineFacts, Identity, Opening, Removals, STARTING, Scope, Swept, memory_mib,
    sweep,
};
use super::images::build_command;
use super::probe::{self, Proof};
use super::settings::{HostSettings, ImageSettings, SandboxSettings};
use super::slots::{NoPlace, Offer, Slot, Slots, Want};
use super::{Cell, CellSpec, Image, Runtime, Sandbox, SandboxError};

pub use report::{HostReport, TooOld};

/// How long what an engine said is believed.
const FRESH: Duration = Duration::from_secs(10);
/// How long an engine that does not answer is not asked again: whoever asks has to wait for it.
const DOWN: Duration = Duration::from_secs(30);
/// How long a failed probe is believed: it may have been a moment's overload.
const DOUBT: Duration = Duration::from_secs(60);
/// How long stopping waits for cells to be gone.
const STOPPING: Duration = Duration::from_secs(30);

/// The engines of an installation.
pub struct Hosts {
    images: Vec<ImageSettings>,
    hosts: Vec<Host>,
    slots: Slots,
    removals: Removals,
    identity: Identity,
    closing: CancellationToken,
    /// How long a runtime may take to start a cell.
    pub(super) starting: Duration,
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosts")
            .field("hosts", &self.hosts.len())
            .field("images", &self.images.len())
            .finish_non_exhaustive()
    }
}

struct Host {
    settings: HostSettings,
    view: Mutex<View>,
}

/// What is known of an engine.
#[derive(Default)]
struct View {
    looked: Option<Instant>,
    up: Option<Up>,
    /// Why it is not up.
    trouble: Option<String>,
}

/// An engine that answers.
#[derive(Clone)]
struct Up {
    engine: Engine,
    facts: EngineFacts,
    /// As the operator lists them.
    images: Vec<Result<Image, String>>,
    proofs: BTreeMap<Runtime, (Instant, Proof)>,
}

impl Hosts {
    /// Nothing is asked yet.
    pub fn new(settings: SandboxSettings) -> Self {
        let SandboxSettings { instance, hosts, images } = settings;
        let slots = Slots::new(hosts.iter().map(|host| host.slots));
        let hosts = hosts.into_iter().map(|settings| Host { settings, view: Mutex::default() }).collect();
        Self {
            images,
            hosts,
            slots,
            removals: Removals::default(),
            identity: Identity::of(&instance),
            closing: CancellationToken::new(),
            starting: STARTING,
        }
    }

    /// Removes what this installation's processes left on its engines. For the start, when no other of them runs.
    pub async fn sweep_all(&self) -> Swept {
        self.sweep(Scope::AllButOwn).await
    }

    /// Removes what is past its time, or was made here and is in nobody's hands.
    pub async fn sweep_leftovers(&self) -> Swept {
        self.sweep(Scope::Leftovers).await
    }

    async fn sweep(&self, scope: Scope) -> Swept {
        let each = join_all(self.hosts.iter().map(|host| async move {
            let swept = async {
                let known = host.view.lock().await.up.as_ref().map(|up| up.engine.clone());
                let engine = match known {
                    Some(engine) => engine,
                    None => Engine::connect(&host.settings).await?,
                };
                sweep(&engine, &self.identity, &self.removals, scope).await
            };
            swept.await.unwrap_or_else(|error| {
                warn!(host = host.settings.name, %error, "An engine can't be swept");
                Swept { unseen: 1, ..Swept::default() }
            })
        }));
        each.await.into_iter().fold(Swept::default(), |sum, swept| Swept {
            removed: sum.removed + swept.removed,
            failed: sum.failed + swept.failed,
            unseen: sum.unseen + swept.unseen,
        })
    }

    /// Keeps the engines swept and what is known of them fresh: at once everything that earlier processes left, then leftovers
    /// every so often. On `shutdown` ends all cells and waits until they are gone.
    pub async fn run_sweeper(self: Arc<Self>, every: Duration, shutdown: CancellationToken) {
        let sweeping = async {
            self.sweep_all().await;
            loop {
                self.refresh().await;
                tokio::time::sleep(every).await;
                self.sweep_leftovers().await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = sweeping => {}
        }
        self.shut_down().await;
    }

    /// Opens no more cells, ends those there are and waits until they are gone.
    pub async fn shut_down(&self) {
        self.closing.cancel();
        if tokio::time::timeout(STOPPING, self.removals.finish()).await.is_err() {
            warn!("Some cells are not gone yet: the next start removes them");
        }
    }

    async fn refresh(&self) {
        join_all((0..self.hosts.len()).map(|index| async move {
            let mut view = self.hosts[index].view.lock().await;
            let believed = if view.up.is_some() { FRESH } else { DOWN };
            if view.looked.is_none_or(|looked| looked.elapsed() >= believed) {
                self.look(index, &mut view).await;
            }
        }))
        .await;
    }

    /// Asks an engine how it is, and has proven what is not.
    async fn look(&self, index: usize, view: &mut View) {
        let host = &self.hosts[index];
        let name = &host.settings.name;
        let was_up = view.up.is_some();
        match self.examine(host, view.up.take()).await {
            Ok(up) => {
                if !was_up {
                    info!(host = name, version = up.facts.version, "A container engine is up");
                }
                self.slots.offer(index, up.offer(&host.settings));
                view.up = Some(up);
                view.trouble = None;
            }
            Err(error) => {
                if was_up || view.looked.is_none() {
                    warn!(host = name, %error, "A container engine is left out until it answers");
                }
                self.slots.offer(index, Offer::default());
                view.trouble = Some(error.to_string());
            }
        }
        view.looked = Some(Instant::now());
    }

    async fn examine(&self, host: &Host, known: Option<Up>) -> Result<Up, EngineError> {
        let mut up = match known {
            Some(up) => {
                up.engine.ping().await?;
                up
            }
            None => {
                let engine = Engine::connect(&host.settings).await?;
                let facts = engine.facts().await?;
                Up { engine, facts, images: Vec::new(), proofs: BTreeMap::new() }
            }
        };
        let mut images = Vec::new();
        for image in &self.images {
            images.push(up.engine.image(&image.name, &image.reference).await?);
        }
        up.images = images;
        for runtime in &host.settings.runtimes {
            let known = up.proofs.get(runtime);
            if known.is_some_and(|(at, proof)| proof.holds() || at.elapsed() < DOUBT) {
                continue;
            }
            let proof = self.prove(&up, *runtime).await;
            if !proof.holds() {
                warn!(host = host.settings.name, %runtime, "Not offered: {}", proof.failures.join("; "));
            }
            up.proofs.insert(*runtime, (Instant::now(), proof));
        }
        Ok(up)
    }

    async fn prove(&self, up: &Up, runtime: Runtime) -> Proof {
        let Up { facts, images, .. } = up;
        let Some(image) = images.iter().find_map(|image| image.as_ref().ok()) else {
            let command = self.images.first().map(|image| build_command(&image.reference)).unwrap_or_default();
            return Proof::failed(format!("there is no image to try it with: '{command}' makes one"));
        };
        if !Engine::knows(facts, runtime) {
            return Proof::failed(format!("the engine knows no runtime {runtime}"));
        }
        let spec = probe::spec(&image.name, runtime);
        match self.opening(up, spec, image, None).open().await {
            Ok(cell) => {
                let proof = probe::prove(&cell, facts).await;
                cell.close().await;
                proof
            }
            Err(error) => Proof::failed(format!("no cell can be opened: {error}")),
        }
    }

    async fn place(&self, spec: &CellSpec) -> Result<Slot, SandboxError> {
        let wanted = self.images.iter().position(|image| image.name == spec.image);
        let image = wanted.ok_or_else(|| SandboxError::UnknownImage {
            wanted: spec.image.clone(),
            offered: self.images.iter().map(|image| image.name.clone()).collect(),
        })?;
        let memory_mib = memory_mib(spec.runtime, &spec.limits);
        match self.slots.take(Want { runtime: spec.runtime, image, memory_mib }).await {
            Ok(slot) => Ok(slot),
            Err(NoPlace::NoOffer) => Err(SandboxError::NoRuntime(spec.runtime)),
            Err(NoPlace::TooBig) => Err(SandboxError::TooBig { memory_mib }),
        }
    }

    fn opening(&self, up: &Up, spec: CellSpec, image: &Image, slot: Option<Slot>) -> Opening {
        Opening {
            engine: up.engine.clone(),
            cpus: up.facts.cpus,
            identity: self.identity.clone(),
            spec,
            image: image.clone(),
            slot,
            removals: self.removals.clone(),
            starting: self.starting,
        }
    }

    async fn open_somewhere(&self, spec: &CellSpec) -> Result<DockerCell, SandboxError> {
        if self.slots.offering(spec.runtime) == 0 {
            self.refresh().await;
        }
        let mut failed = None;
        // Each engine may turn out to be down, and is then left out.
        let mut tries = self.hosts.len();
        while tries > 0 {
            tries -= 1;
            let slot = match self.place(spec).await {
                Ok(slot) => slot,
                // What went wrong before says more than that nothing is left.
                Err(error) => return Err(failed.unwrap_or(error)),
            };
            let host = &self.hosts[slot.host()];
            let up = host.view.lock().await.up.clone();
            let position = self.images.iter().position(|image| image.name == spec.image);
            let image = up.as_ref().zip(position).and_then(|(up, at)| up.images.get(at)?.as_ref().ok());
            let Some((up, image)) = up.as_ref().zip(image) else { continue };
            match self.opening(up, spec.clone(), image, Some(slot)).open().await {
                Err(SandboxError::Engine(error)) => {
                    warn!(host = host.settings.name, job.id = spec.job, error, "No cell could be opened");
                    failed = Some(SandboxError::Engine(error));
                    host.view.lock().await.looked = None;
                    self.refresh().await;
                    // Made anew meanwhile, and the one from before removed: that is the image's fault, not the engine's.
                    let view = host.view.lock().await;
                    let now = view.up.as_ref().zip(position).and_then(|(up, at)| up.images.get(at)?.as_ref().ok());
                    tries += usize::from(now.is_some_and(|now| now.digest != image.digest));
                }
                opened => return opened,
            }
        }
        Err(failed.unwrap_or(SandboxError::NoRuntime(spec.runtime)))
    }
}

impl Up {
    fn offer(&self, settings: &HostSettings) -> Offer {
        let proven = self.proofs.iter().filter(|(_, (_, proof))| proof.holds()).map(|(runtime, _)| *runtime);
        let images = self.images.iter().enumerate().filter(|(_, image)| image.is_ok()).map(|(at, _)| at);
        Offer {
            runtimes: proven.collect(),
            images: images.collect(),
            memory_mib: settings.memory_mib.unwrap_or(self.facts.memory_mib),
        }
    }
}

#[async_trait]
impl Sandbox for Hosts {
    async fn images(&self, runtime: Runtime) -> Result<Vec<Image>, SandboxError> {
        self.refresh().await;
        let mut offered: BTreeMap<usize, Image> = BTreeMap::new();
        for host in &self.hosts {
            let view = host.view.lock().await;
            let Some(up) = &view.up else { continue };
            if !up.offer(&host.settings).runtimes.contains(&runtime) {
                continue;
            }
            for (at, image) in up.images.iter().enumerate() {
                if let Ok(image) = image {
                    offered.entry(at).or_insert_with(|| image.clone());
                }
            }
        }
        Ok(offered.into_values().collect())
    }

    fn room(&self, runtime: Runtime) -> usize {
        self.slots.offering(runtime)
    }

    async fn open(&self, spec: &CellSpec, cancel: &CancellationToken) -> Result<Box<dyn Cell>, SandboxError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(SandboxError::Cancelled),
            () = self.closing.cancelled() => Err(SandboxError::Cancelled),
            opened = self.open_somewhere(spec) => Ok(Box::new(opened?)),
        }
    }
}
