//! The engine's thread, watched: who takes requests now, how often it died, and how often it was started again.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mistralrs::{Model, Request};
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;

use crate::inference::InferenceError;

/// How long an engine that died may take to be gone, so that it can be started again: its channel closes a moment before
/// its thread ends, and the library looks at the thread.
const RESTART_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const RESTART_PAUSE: Duration = Duration::from_millis(20);

/// Hands requests to the engine. The engine runs on a thread of its own, so a panic ends that thread and nothing else; the
/// library starts another one with the same weights when the next request is to be sent.
pub(super) struct Supervisor {
    engine: Arc<Model>,
    known: Mutex<Known>,
    restarts: watch::Sender<u32>,
}

/// The engine's thread, as last seen.
struct Known {
    thread: Option<Sender<Request>>,
    /// Whether its death was noticed, so that each is told once.
    dead: bool,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("restarts", &self.restarts()).finish_non_exhaustive()
    }
}

impl Supervisor {
    pub(super) fn new(engine: Model) -> Self {
        let known = Mutex::new(Known { thread: None, dead: false });
        Self { engine: Arc::new(engine), known, restarts: watch::Sender::new(0) }
    }

    /// How often the engine was started again.
    pub(super) fn restarts(&self) -> u32 {
        *self.restarts.borrow()
    }

    /// Hears of each new start.
    pub(super) fn watch_restarts(&self) -> watch::Receiver<u32> {
        self.restarts.subscribe()
    }

    /// Hands a request over, to an engine started again if need be. Returns the thread that has it: when that closes
    /// ([`Sender::closed`]), there will be no answer any more.
    pub(super) async fn send(&self, mut request: Request) -> Result<Sender<Request>, InferenceError> {
        let waiting_since = tokio::time::Instant::now();
        loop {
            let thread = self.thread()?;
            match thread.send(request).await {
                Ok(()) => return Ok(thread),
                Err(refused) => request = refused.0,
            }
            self.notice_death(&thread);
            if waiting_since.elapsed() >= RESTART_PATIENCE {
                return Err(InferenceError::Backend("the engine takes no requests".to_owned()));
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    /// Told by those who wait for a thread that it is gone.
    pub(super) fn notice_death(&self, thread: &Sender<Request>) {
        let mut known = self.known();
        let current = known.thread.as_ref().is_some_and(|known| known.same_channel(thread));
        if current && thread.is_closed() && !known.dead {
            known.dead = true;
            tracing::warn!("The inference engine died; the next request starts it again");
        }
    }

    fn thread(&self) -> Result<Sender<Request>, InferenceError> {
        // Starts it again when it is dead.
        let found = self.engine.inner().get_sender(None);
        let thread = found.map_err(|error| InferenceError::Unusable(error.to_string()))?;
        let mut known = self.known();
        if let Some(before) = known.thread.take()
            && !before.same_channel(&thread)
        {
            if !known.dead {
                tracing::warn!("The inference engine died; it was started again");
            }
            known.dead = false;
            self.restarts.send_modify(|count| *count = count.saturating_add(1));
        }
        known.thread = Some(thread.clone());
        Ok(thread)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
