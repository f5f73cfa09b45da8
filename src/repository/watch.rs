//! What a fetch may still do: how long, how many bytes, and whether it is still wanted.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::RepositoryError;

/// How long a server may say nothing at all. Git's own servers send a sign of life every five seconds while they pack.
const SILENCE: Duration = Duration::from_secs(30);

/// How long something may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time {
    /// In all.
    limit: Duration,
    /// When it is over.
    pub(super) deadline: Instant,
}

impl Time {
    /// From now on.
    pub(super) fn from_now(limit: Duration) -> Self {
        Self { limit, deadline: Instant::now() + limit }
    }

    /// It is over.
    pub(super) fn over(&self) -> RepositoryError {
        RepositoryError::Timeout { limit: self.limit }
    }
}

/// Watches over one fetch, on the thread that waits for it.
///
/// The library under a fetch turns every error into its own; so the first reason why it had to end is kept here and counts
/// more than what the library says of it.
#[derive(Debug)]
pub(super) struct Watch {
    runtime: Handle,
    cancel: CancellationToken,
    time: Time,
    bytes_left: AtomicU64,
    max_bytes: u64,
    cause: Mutex<Option<RepositoryError>>,
}

impl Watch {
    /// A fetch of at most so much.
    pub(super) fn new(runtime: Handle, time: Time, max_bytes: u64, cancel: CancellationToken) -> Self {
        Self { runtime, cancel, time, bytes_left: AtomicU64::new(max_bytes), max_bytes, cause: Mutex::new(None) }
    }

    /// Whether to go on.
    pub(super) fn check(&self) -> Result<(), RepositoryError> {
        if self.cancel.is_cancelled() {
            return Err(RepositoryError::Cancelled);
        }
        if Instant::now() >= self.time.deadline { Err(self.time.over()) } else { Ok(()) }
    }

    /// Takes note of bytes that came in.
    pub(super) fn count(&self, bytes: usize) -> Result<(), RepositoryError> {
        let bytes = bytes as u64;
        let taken = self.bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.map(|_| ()).map_err(|_| RepositoryError::TooLarge { limit: self.max_bytes })
    }

    /// Waits for something of the network, never longer than allowed.
    pub(super) fn wait<T>(&self, coming: impl Future<Output = T>) -> Result<T, RepositoryError> {
        self.check()?;
        let over = tokio::time::sleep_until(self.time.deadline.into());
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => Err(RepositoryError::Cancelled),
                () = over => Err(self.time.over()),
                came = tokio::time::timeout(SILENCE, coming) => came.map_err(|_| RepositoryError::Unreachable),
            }
        })
    }

    /// Keeps why the fetch must end, and gives an error for the library to carry up.
    pub(super) fn end(&self, cause: RepositoryError) -> io::Error {
        let mut kept = self.cause.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.get_or_insert(cause);
        io::Error::other("the fetch was ended")
    }

    /// Why it had to end, if it had to.
    pub(super) fn cause(&self) -> Option<RepositoryError> {
        self.cause.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}
