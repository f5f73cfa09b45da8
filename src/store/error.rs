//! What can go wrong with the store.

use std::path::PathBuf;

use crate::job::{IllegalMove, JobId};

/// A failure of the database, or a move the state machine forbids.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database file can't be opened.
    #[error("the database {} can't be opened: {source}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The database is from a newer coinop, or its migration failed.
    #[error("the database can't be brought to this version: {0}")]
    Migration(#[from] rusqlite_migration::Error),
    /// SQLite failed.
    #[error("the database failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// What was read makes no sense.
    #[error("the database holds something unreadable in {place}: {problem}")]
    Corrupt {
        /// Table and column.
        place: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A group of writes could not be committed; none of it happened.
    #[error("the database could not commit: {0}")]
    Commit(String),
    /// No such job.
    #[error("there is no job {0}")]
    NoSuchJob(JobId),
    /// Somebody else changed the job in between.
    #[error("job {0} was changed by somebody else at the same time")]
    Conflict(JobId),
    /// A fact that cannot be true.
    #[error("job {job}: {source}")]
    Illegal {
        /// Which job.
        job: JobId,
        /// Why not.
        source: IllegalMove,
    },
    /// The result event could not be signed.
    #[error("the result of job {job} could not be written: {problem}")]
    Unwritten {
        /// Which job.
        job: JobId,
        /// Why.
        problem: String,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(super) fn corrupt(place: &'static str, problem: impl std::fmt::Display) -> Self {
        Self::Corrupt { place, problem: problem.to_string() }
    }
}
