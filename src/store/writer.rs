//! The one thread that owns the database connection.
//!
//! Group commit: whatever has queued up while the last transaction was being made durable goes into the next one, each
//! piece of work in a savepoint of its own, so one `fsync` serves them all and a failing piece takes nobody with it.
//! Nobody is answered before the commit.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::StoreError;

/// The most pieces of work in one transaction: bounds how long the first waits for the last.
const GROUP: usize = 512;

/// The part of a commit's time that the next group waits for company. Those who were just answered come back with their
/// next piece a moment later: a group that begins without them makes them wait for two commits instead of one.
const COMPANY_SHARE: u32 = 8;

/// The longest wait for company, however slow the disk.
const LONGEST_WAIT: Duration = Duration::from_millis(1);

/// What a piece of work wants to hear after the commit.
type Reply = Box<dyn FnOnce(Result<(), String>) + Send>;

/// A piece of work: whether it succeeded, and what to do after the commit.
type Work = Box<dyn FnOnce(&Connection) -> (bool, Reply) + Send>;

/// A handle to the thread. Dropping the last one ends it after the work in its queue.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Work>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(connection: Connection) -> Result<(Self, thread::JoinHandle<()>), std::io::Error> {
        let (queue, work) = mpsc::channel();
        let thread = thread::Builder::new().name("coinop-store".into()).spawn(move || serve(&connection, &work))?;
        Ok((Self { queue }, thread))
    }

    /// Does `work` inside the next transaction and answers once that is durable.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            let result = work(connection);
            let succeeded = result.is_ok();
            let reply: Reply = Box::new(move |committed| {
                let answer_with = match committed {
                    Ok(()) => result,
                    Err(problem) => Err(StoreError::Commit(problem)),
                };
                // Whoever asked may have stopped waiting; the work is done all the same.
                let _ = answer.send(answer_with);
            });
            (succeeded, reply)
        });
        self.queue.send(work).map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Commit("the group it was in could not be begun".into()))?
    }
}

fn serve(connection: &Connection, queue: &mpsc::Receiver<Work>) {
    let mut wait = Duration::ZERO;
    while let Ok(first) = queue.recv() {
        if !wait.is_zero() {
            #[expect(clippy::disallowed_methods, reason = "this thread is the writer's own, no runtime waits for it")]
            thread::sleep(wait);
        }
        let begun = Instant::now();
        let group = std::iter::once(first).chain(queue.try_iter().take(GROUP - 1));
        let mut replies = Vec::new();
        let committed = commit(connection, group, &mut replies).map_err(|error| error.to_string());
        if let Err(problem) = &committed {
            tracing::error!(%problem, "The database could not commit; nothing of the group was done");
            // A transaction left open would swallow the next group. Failing to roll back means none is open.
            let _ = connection.execute_batch("ROLLBACK");
        }
        // Who was alone has nobody to wait for.
        wait = if replies.len() > 1 { (begun.elapsed() / COMPANY_SHARE).min(LONGEST_WAIT) } else { Duration::ZERO };
        for reply in replies {
            reply(committed.clone());
        }
    }
}

fn commit(
    connection: &Connection,
    group: impl Iterator<Item = Work>,
    replies: &mut Vec<Reply>,
) -> Result<(), rusqlite::Error> {
    // Take the write lock first, so that no read inside is overtaken by another process. Work that is dropped unanswered
    // tells whoever waits for it that it was not done.
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    for work in group {
        connection.prepare_cached("SAVEPOINT piece")?.execute([])?;
        let (succeeded, reply) = work(connection);
        replies.push(reply);
        if !succeeded {
            connection.prepare_cached("ROLLBACK TO piece")?.execute([])?;
        }
        connection.prepare_cached("RELEASE piece")?.execute([])?;
    }
    connection.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}
