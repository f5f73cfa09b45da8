//! Leftovers: what a process that died, or a start that failed half-way, left on an engine.

use std::collections::{BTreeSet, HashMap};

use bollard::query_parameters::{ListContainersOptionsBuilder, ListVolumesOptionsBuilder};
use tracing::{info, warn};

use super::engine::{Engine, QUICK, timed};
use super::error::EngineError;
use super::labels::{self, Identity};
use super::removal::Removals;

/// What a sweep takes away, of this installation's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sandbox) enum Scope {
    /// All that this process has not open: whatever other processes left, when there can be no other.
    AllButOwn,
    /// What this process made and has not open, and whatever is past its time.
    Leftovers,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Leftovers that are gone.
    pub removed: usize,
    /// Leftovers that could not be removed.
    pub failed: usize,
    /// Engines that could not be looked at.
    pub unseen: usize,
}

/// Removes leftovers.
pub(in crate::sandbox) async fn sweep(
    engine: &Engine,
    identity: &Identity,
    removals: &Removals,
    scope: Scope,
) -> Result<Swept, EngineError> {
    let mut swept = Swept::default();
    for (name, labels) in engine.labelled(&labels::of_instance(&identity.instance)).await? {
        let own = labels.get(labels::PROCESS) == Some(&identity.process);
        let expired = labels::has_expired(&labels);
        if removals.knows(&name) {
            // Its job should have ended it long ago.
            if expired {
                removals.end(&name);
            }
            continue;
        }
        if !(own || expired || scope == Scope::AllButOwn) {
            continue;
        }
        match engine.remove(&name).await {
            Ok(()) => {
                info!(cell = name, "A leftover cell is removed");
                swept.removed += 1;
            }
            Err(error) => {
                warn!(cell = name, %error, "A leftover cell can't be removed");
                swept.failed += 1;
            }
        }
    }
    Ok(swept)
}

impl Engine {
    /// Containers and volumes that bear a label, `key=value`: by name, with all their labels.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn labelled(&self, label: &str) -> Result<Vec<(String, HashMap<String, String>)>, EngineError> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let containers = timed("listing cells", QUICK, self.docker.list_containers(Some(options))).await?;
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let volumes = timed("listing workspaces", QUICK, self.docker.list_volumes(Some(options))).await?;
        let containers = containers.into_iter().filter_map(|found| {
            let name = found.names?.into_iter().next()?;
            Some((name.trim_start_matches('/').to_owned(), found.labels.unwrap_or_default()))
        });
        let volumes = volumes.volumes.unwrap_or_default().into_iter().map(|found| (found.name, found.labels));
        let mut seen = BTreeSet::new();
        Ok(containers.chain(volumes).filter(|(name, _)| seen.insert(name.clone())).collect())
    }
}
