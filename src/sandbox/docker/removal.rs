//! Nothing is left over: what was begun is removed, whoever forgets it.
//!
//! A cell is known here by its name from before the engine hears of it until it is gone. Removing it is a task of its own,
//! so that it goes on when whoever waits for it stops waiting; [`Removals::finish`] waits for all of them. An engine that does
//! not answer is asked again and again; until the cell is gone its place is taken.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bollard::query_parameters::{RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, trace, warn};

use super::engine::{Engine, QUICK, timed};
use super::error::EngineError;
use crate::sandbox::slots::Slot;

/// How long the engine may take to kill and remove a container. It waits for the runtime.
const LIMIT: Duration = Duration::from_secs(20);
/// Between two tries, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Everything that is there now, and is being removed.
#[derive(Clone, Default)]
pub(in crate::sandbox) struct Removals {
    known: Arc<Mutex<HashMap<String, Arc<Removal>>>>,
    tasks: TaskTracker,
}

impl fmt::Debug for Removals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Removals").field("known", &self.lock().len()).finish_non_exhaustive()
    }
}

/// A container with its volume, which have the same name.
pub(super) struct Removal {
    name: String,
    unwanted: CancellationToken,
    gone: CancellationToken,
    phase: Mutex<Phase>,
    all: Removals,
    runtime: Handle,
}

/// How far it is.
enum Phase {
    /// The engine may still be making it: what is removed too early comes back.
    Opening(Engine, Option<Slot>),
    /// It is there.
    Open(Engine, Option<Slot>),
    /// It is being removed, or gone.
    Ending,
}

/// The cell's own hold on its removal: dropping it begins it.
pub(super) struct Owned(pub(super) Arc<Removal>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.begin();
    }
}

impl Removals {
    /// A new name, known from now on. `slot` is given back when what bears the name is gone.
    pub(super) fn register(&self, engine: Engine, slot: Option<Slot>) -> Owned {
        let name = format!("coinop-{:016x}", rand::random::<u64>());
        let removal = Arc::new(Removal {
            name: name.clone(),
            unwanted: CancellationToken::new(),
            gone: CancellationToken::new(),
            phase: Mutex::new(Phase::Opening(engine, slot)),
            all: self.clone(),
            runtime: Handle::current(),
        });
        self.lock().insert(name, Arc::clone(&removal));
        Owned(removal)
    }

    /// Whether somebody here has it or is removing it.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    /// Ends it, if it is known here.
    pub(super) fn end(&self, name: &str) {
        let known = self.lock().get(name).cloned();
        if let Some(removal) = known {
            removal.end();
        }
    }

    /// Does something that must come to its end, whoever stops waiting for it.
    pub(super) fn see_through<T: Send + 'static>(
        &self,
        what: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = Option<T>> {
        let (tell, told) = oneshot::channel();
        self.tasks.spawn(async move {
            // Nobody waits any more: what came of it is dropped, and with it the cell.
            let _ = tell.send(what.await);
        });
        async move { told.await.ok() }
    }

    /// Removes all there is and waits until it is gone.
    pub(in crate::sandbox) async fn finish(&self) {
        let known: Vec<_> = self.lock().values().cloned().collect();
        for removal in known {
            removal.end();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Removal>>> {
        self.known.lock().expect("nobody panics while holding it")
    }
}

impl Removal {
    /// What the container and its volume are called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Cancelled when the cell is of no more use.
    pub(super) fn unwanted(&self) -> &CancellationToken {
        &self.unwanted
    }

    /// The engine has made it. Says whether it is still wanted.
    pub(super) fn opened(&self) -> bool {
        let mut phase = self.phase();
        *phase = match std::mem::replace(&mut *phase, Phase::Ending) {
            Phase::Opening(engine, slot) => Phase::Open(engine, slot),
            other => other,
        };
        !self.unwanted.is_cancelled()
    }

    /// Ends it on somebody else's word: at once when it is open, and as soon as it is when it is being made.
    fn end(self: &Arc<Self>) {
        let opening = {
            let phase = self.phase();
            self.unwanted.cancel();
            matches!(*phase, Phase::Opening(..))
        };
        if !opening {
            self.begin();
        }
    }

    /// Begins to remove it, once. For whoever had it made, or gave that up.
    pub(super) fn begin(self: &Arc<Self>) {
        let (engine, slot) = match std::mem::replace(&mut *self.phase(), Phase::Ending) {
            Phase::Opening(engine, slot) | Phase::Open(engine, slot) => (engine, slot),
            Phase::Ending => return,
        };
        self.unwanted.cancel();
        let removal = Arc::clone(self);
        self.all.tasks.spawn_on(
            async move {
                removal.until_gone(&engine).await;
                removal.all.lock().remove(&removal.name);
                drop(slot);
                removal.gone.cancel();
            },
            &self.runtime,
        );
    }

    /// Begins to remove it and waits until it is gone, but no longer than `patience`. Goes on in any case.
    pub(super) async fn wait(self: &Arc<Self>, patience: Duration) -> bool {
        self.begin();
        tokio::time::timeout(patience, self.gone.cancelled()).await.is_ok()
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().expect("nobody panics while holding it")
    }

    async fn until_gone(&self, engine: &Engine) {
        let pauses = ExponentialBuilder::new()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times()
            .with_jitter();
        for pause in pauses.build() {
            match engine.remove(&self.name).await {
                Ok(()) => {
                    debug!(cell = self.name, "A cell is gone");
                    return;
                }
                Err(error) => warn!(cell = self.name, %error, "A cell can't be removed yet"),
            }
            tokio::time::sleep(pause).await;
        }
    }
}

impl Engine {
    /// Kills and removes a container and the volume of its name. What is not there is gone.
    ///
    /// One that stands still, as at its time limit, is let go on just before: gVisor does not hear of being killed while it
    /// stands still, and the engine waits ten seconds until it ends it in another way. Of what runs in between nothing counts:
    /// nobody reads its files or outputs any more.
    pub(super) async fn remove(&self, name: &str) -> Result<(), EngineError> {
        // Of most there is nothing to let go on, and the engine refuses. Whatever it says, the removal decides.
        if let Err(error) = self.resume(name).await {
            trace!(cell = name, %error, "Nothing to let go on before the removal");
        }
        let container = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        absent_is_fine(timed("removing a cell", LIMIT, self.docker.remove_container(name, Some(container))).await)?;
        let volume = RemoveVolumeOptionsBuilder::new().force(true).build();
        absent_is_fine(timed("removing a workspace", LIMIT, self.docker.remove_volume(name, Some(volume))).await)
    }

    /// Lets what was stopped go on.
    pub(super) async fn resume(&self, name: &str) -> Result<(), EngineError> {
        timed("resuming a cell", QUICK, self.docker.unpause_container(name)).await
    }
}

fn absent_is_fine(done: Result<(), EngineError>) -> Result<(), EngineError> {
    match done {
        Err(error) if error.is_absent() => Ok(()),
        done => done,
    }
}
