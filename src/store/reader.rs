//! A second connection that only reads, on a thread of its own.
//!
//! What it is asked does not wait for the commit under way, which with a slow disk is most of the time. It sees what is
//! committed, never what waits to be: so it is for questions whose answer is checked again where it is acted on.

use std::sync::mpsc;
use std::thread;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::StoreError;

type Look = Box<dyn FnOnce(&Connection) + Send>;

/// A handle to the thread. Dropping the last one ends it.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    queue: mpsc::Sender<Look>,
}

impl Reader {
    /// Starts the thread.
    pub(super) fn start(connection: Connection) -> Result<(Self, thread::JoinHandle<()>), std::io::Error> {
        let (queue, looks) = mpsc::channel::<Look>();
        let serve = move || looks.iter().for_each(|look| look(&connection));
        let thread = thread::Builder::new().name("coinop-reader".into()).spawn(serve)?;
        Ok((Self { queue }, thread))
    }

    /// Looks something up.
    pub(super) async fn run<T, F>(&self, look: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let look: Look = Box::new(move |connection| {
            // Whoever asked may have stopped waiting.
            let _ = answer.send(look(connection));
        });
        self.queue.send(look).map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}
