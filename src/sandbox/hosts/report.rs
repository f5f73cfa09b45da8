//! What engines can do, told to people: more is tried for it than before a cell is opened.

use futures::future::join_all;
use tracing::debug;

use super::{Host, Hosts, Up, View};
use crate::sandbox::docker::EngineFacts;
use crate::sandbox::probe::Proof;
use crate::sandbox::{Cell, Image, Runtime, SandboxError, program};

/// What an engine can do, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    /// What the operator calls it.
    pub host: String,
    /// What it says of itself, or why it does not.
    pub engine: Result<EngineFacts, String>,
    /// Each image by name: its digest, or why it can't be used.
    pub images: Vec<(String, Result<String, String>)>,
    /// Each configured runtime: what the probe found.
    pub runtimes: Vec<(Runtime, Proof)>,
    /// Runtimes that hold and are too old for an image, by its name. Cells are made all the same: most of their programs run.
    pub too_old: Vec<TooOld>,
}

/// A runtime whose kernel refuses what tools of an image ask of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooOld {
    /// The runtime.
    pub runtime: Runtime,
    /// The image's name.
    pub image: String,
}

impl TooOld {
    /// What to do about it.
    pub const CURE: &str = "take a newer runsc from gvisor.dev (docs/sandbox.md)";
}

impl std::fmt::Display for TooOld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { runtime, image } = self;
        write!(
            f,
            "{image} under {runtime}: this gVisor is too old for the image's coreutils: `ls -l` and `stat` fail in it"
        )
    }
}

impl Hosts {
    /// Looks at every engine, whatever was known, and tells what each can do.
    pub async fn report(&self) -> Vec<HostReport> {
        join_all(self.hosts.iter().enumerate().map(|(index, host)| async move {
            let mut view = host.view.lock().await;
            *view = View::default();
            self.look(index, &mut view).await;
            self.of_view(host, &view).await
        }))
        .await
    }

    async fn of_view(&self, host: &Host, view: &View) -> HostReport {
        let names = self.images.iter().map(|image| image.name.clone());
        match &view.up {
            Some(up) => HostReport {
                host: host.settings.name.clone(),
                engine: Ok(up.facts.clone()),
                images: names.zip(up.images.iter().map(|found| found.clone().map(|image| image.digest))).collect(),
                runtimes: up.proofs.iter().map(|(runtime, (_, proof))| (*runtime, proof.clone())).collect(),
                too_old: self.too_old(host, up).await,
            },
            None => HostReport {
                host: host.settings.name.clone(),
                engine: Err(view.trouble.clone().unwrap_or_default()),
                images: Vec::new(),
                runtimes: Vec::new(),
                too_old: Vec::new(),
            },
        }
    }

    /// Only gVisor is asked: under `runc` programs meet the machine's own kernel, which Docker needs to be newer than that.
    async fn too_old(&self, host: &Host, up: &Up) -> Vec<TooOld> {
        let runtime = Runtime::Runsc;
        if !up.proofs.get(&runtime).is_some_and(|(_, proof)| proof.holds()) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for image in up.images.iter().flatten() {
            match self.refuses_to_list(up, runtime, image).await {
                Ok(true) => found.push(TooOld { runtime, image: image.name.clone() }),
                Ok(false) => {}
                // An image without a shell, for one, of which others tell.
                Err(error) => debug!(host = host.settings.name, image = image.name, %error, "An image can't be tried"),
            }
        }
        found
    }

    async fn refuses_to_list(&self, up: &Up, runtime: Runtime, image: &Image) -> Result<bool, SandboxError> {
        let cell = self.opening(up, program::spec(&image.name, runtime), image, None).open().await?;
        let refused = program::refuses_to_list(&cell).await;
        cell.close().await;
        refused
    }
}
