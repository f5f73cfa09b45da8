//! Where jobs, money and things still to be done are kept: one SQLite file.
//!
//! The rule: a job's new state, the money it moved and the acts it asks for become durable together or not at all, and
//! nothing is done in the world before. Every change goes through the writer's queue, so the database is also the lock.

mod books;
mod columns;
mod error;
mod jobs;
mod outbox;
pub mod purchases;
mod reader;
mod refunds;
mod schema;
mod settlements;
#[cfg(test)]
mod tests;
mod views;
mod writer;
mod zaps;

use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

pub use error::StoreError;
pub use jobs::{Advanced, FinishedWork, OpenInvoice, Opened, StoredJob};
pub use outbox::Pending;
pub use refunds::{NewRefund, NotReserved};
pub use settlements::BookedPayment;
pub use views::{AccountBalance, DayEarnings, EntryRow, JobFilter, JobRow, WorkDone};
pub use zaps::ZapRow;

use columns::{millis, time};
use reader::Reader;
use writer::Writer;

/// How long a write waits for another process (`coinop jobs cancel` beside `coinop serve`) to finish its own.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Prepared statements kept: more than there are.
const STATEMENT_CACHE: usize = 128;

/// Pages of write-ahead log (4 KiB each) before it is folded into the database.
const WAL_PAGES: u32 = 4_000;

/// The store. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Writer,
    /// A database in memory has one connection only.
    reader: Option<Reader>,
}

/// Waits for the writer to finish its queue; see [`Store::open`].
#[derive(Debug)]
pub struct Closing(Vec<JoinHandle<()>>);

impl Closing {
    /// Returns when everything queued is durable and the file is closed. All clones of the [`Store`] must be dropped
    /// first, or this waits for them.
    pub fn wait(self) {
        for thread in self.0 {
            // A panic of the thread has been printed already and everybody waiting was told.
            let _ = thread.join();
        }
    }
}

impl Store {
    /// Opens (and if need be makes or migrates) the database file.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::Migration`].
    pub fn open(path: &Path) -> Result<(Self, Closing), StoreError> {
        let wrap = |source| StoreError::Open { path: path.to_owned(), source };
        restrict(path).map_err(|error| wrap(rusqlite::Error::ToSqlConversionFailure(Box::new(error))))?;
        let (mut store, mut closing) = Self::start(Connection::open(path).map_err(wrap)?, path)?;
        // Opened after the migrations.
        let connection = Connection::open(path).map_err(wrap)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(wrap)?;
        connection.pragma_update(None, "query_only", true).map_err(wrap)?;
        let (reader, thread) = Reader::start(connection).map_err(|error| wrap(no_thread(error)))?;
        store.reader = Some(reader);
        closing.0.push(thread);
        Ok((store, closing))
    }

    /// A store in memory: SQLite itself, for tests.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn in_memory() -> Result<(Self, Closing), StoreError> {
        Self::start(Connection::open_in_memory()?, Path::new(":memory:"))
    }

    fn start(mut connection: Connection, path: &Path) -> Result<(Self, Closing), StoreError> {
        let open = |source| StoreError::Open { path: path.to_owned(), source };
        connection.busy_timeout(BUSY_TIMEOUT).map_err(open)?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        connection.pragma_update(None, "journal_mode", "WAL").map_err(open)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(open)?;
        connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES).map_err(open)?;
        schema::migrations().to_latest(&mut connection)?;
        let (writer, thread) = Writer::start(connection).map_err(|error| open(no_thread(error)))?;
        Ok((Self { writer, reader: None }, Closing(vec![thread])))
    }

    /// Looks up what is committed, without waiting for what is being committed.
    async fn look<T, F>(&self, look: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        match &self.reader {
            Some(reader) => reader.run(look).await,
            None => self.writer.run(look).await,
        }
    }

    /// Up to when `name` has been read; see [`Store::set_cursor`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cursor(&self, name: &'static str) -> Result<Option<Timestamp>, StoreError> {
        self.writer
            .run(move |db| {
                let at: Option<i64> = db
                    .prepare_cached("SELECT at FROM cursors WHERE name = ?1")?
                    .query_row([name], |row| row.get(0))
                    .optional()?;
                at.map(|at| time(at, "cursors.at")).transpose()
            })
            .await
    }

    /// Remembers up to when `name` has been read. Never goes back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_cursor(&self, name: &'static str, at: Timestamp) -> Result<(), StoreError> {
        self.writer
            .run(move |db| {
                db.prepare_cached(
                    "INSERT INTO cursors (name, at) VALUES (?1, ?2)
                     ON CONFLICT (name) DO UPDATE SET at = max(at, excluded.at)",
                )?
                .execute(params![name, millis(at)])?;
                Ok(())
            })
            .await
    }

    /// A number that changes whenever another process has written: `coinop jobs cancel` beside a running provider.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn foreign_version(&self) -> Result<i64, StoreError> {
        self.writer.run(|db| Ok(db.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)).await
    }

    /// Forgets what is no longer needed: requests and results of jobs that were over before `before` and owe nobody
    /// anything, refusals, and counts of free jobs; of quotes that nobody paid the request once they lapsed before
    /// `unpaid_before` and all the rest once before `too_late`, when no payment is looked for any more. The books are kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn prune(
        &self,
        before: Timestamp,
        unpaid_before: Timestamp,
        too_late: Timestamp,
    ) -> Result<usize, StoreError> {
        self.writer
            .run(move |db| {
                let before_millis = millis(before);
                let over =
                    "SELECT id FROM jobs WHERE changed_at < ?1 AND work NOT IN ('waiting', 'running', 'finished')
                            AND id NOT IN (SELECT job FROM outbox)";
                let mut forgotten = 0;
                for table in ["requests", "results"] {
                    forgotten += db.execute(&format!("DELETE FROM {table} WHERE job IN ({over})"), [before_millis])?;
                }
                // Strangers decide how many quotes nobody pays, and how long their prompts are. A payment that comes after
                // the prompt is gone becomes credit.
                forgotten += db.execute(
                    "DELETE FROM requests WHERE job IN (SELECT id FROM jobs WHERE changed_at < ?1 AND payment = 'void'
                     AND work IN ('expired', 'cancelled', 'failed'))",
                    [millis(unpaid_before)],
                )?;
                forgotten += db.execute(
                    "DELETE FROM jobs WHERE changed_at < ?1 AND work IN ('expired', 'cancelled', 'failed') AND payment = 'void'
                     AND id NOT IN (SELECT job FROM outbox)
                     AND id NOT IN (SELECT job FROM entries WHERE job IS NOT NULL)",
                    [millis(too_late)],
                )?;
                forgotten += db.execute("DELETE FROM our_events WHERE at < ?1", [before_millis])?;
                // Whoever never paid has nothing to be given back.
                forgotten += db.execute(
                    "DELETE FROM refund_targets WHERE at < ?1
                     AND 'customer:' || lower(hex(customer)) NOT IN (SELECT account FROM balances)",
                    [millis(too_late)],
                )?;
                forgotten += db.execute("DELETE FROM declined WHERE at < ?1", [before_millis])?;
                forgotten += db.execute("DELETE FROM free_jobs WHERE day < ?1", [jobs::day(before)])?;
                Ok(forgotten)
            })
            .await
    }
}

fn no_thread(error: std::io::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

/// Makes the file readable by its owner alone before anything is in it: it will hold customers' prompts.
#[cfg(unix)]
fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn restrict(_path: &Path) -> std::io::Result<()> {
    Ok(())
}
