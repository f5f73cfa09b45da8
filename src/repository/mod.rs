//! Repositories: fetched by this process with a library, never with a shell, and never written out as files.
//!
//! A [`Snapshot`] is the tree of one commit, read from objects. Links, attributes, hooks, filters, submodules and LFS are
//! therefore words in a list, and nothing acts on them.
//!
//! One commit is asked for, alone, over https or git's own protocol ([`talk`]). What comes is counted and timed ([`watch`]),
//! unpacked within limits that are looked at first ([`pack`]), walked over ([`tree`]) and kept for a while ([`cache`]). No
//! configuration, credential or environment of whoever runs this process is looked at.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

mod cache;
mod daemon;
mod delta;
mod error;
mod http;
mod objects;
mod pack;
mod places;
mod reference;
mod remote;
mod snapshot;
mod talk;
mod tree;
mod watch;

pub use self::error::RepositoryError;
pub use self::snapshot::{Blobs, CommitId, Snapshot, TreeEntry};

use self::cache::Cache;
use self::places::Places;
use self::remote::{Remote, Rules};
use self::talk::Talk;
use self::watch::{Time, Watch};
use crate::job::CustomerId;

/// How long finding a commit may take: the customer has not paid yet.
const RESOLVE_TIME: Duration = Duration::from_secs(20);

/// Bytes of a list of references at most: a hundred thousand of them.
const RESOLVE_BYTES: u64 = 8 * 1024 * 1024;

/// Bounds on a fetch, and where it may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryLimits {
    /// Bytes of what is fetched, and of the files in it.
    pub max_bytes: u64,
    /// Files.
    pub max_files: u64,
    /// Time for everything.
    pub time: Duration,
    /// Bytes of the cache in all.
    pub cache_bytes: u64,
    /// Whether loopback and private addresses may be fetched from (tests, own networks), and over plain HTTP.
    pub allow_private: bool,
}

/// Fetches repositories, and keeps those that were fetched lately.
#[derive(Debug, Clone)]
pub struct Repositories {
    limits: RepositoryLimits,
    cache: Arc<Cache>,
    fetching: Arc<Fetching>,
}

/// Fetches that are under way.
#[derive(Debug)]
struct Fetching {
    places: Places,
    /// Who wants a commit that somebody is fetching waits for them.
    turns: Mutex<HashMap<String, Weak<Turn>>>,
}

/// One fetch of a commit at a time.
type Turn = tokio::sync::Mutex<()>;

impl Repositories {
    /// With a cache in that folder. The process must have a default rustls provider (`main` installs it).
    pub fn new(folder: PathBuf, limits: RepositoryLimits) -> Self {
        let cache = Arc::new(Cache::new(folder, limits.cache_bytes));
        let fetching = Fetching { places: Places::default(), turns: Mutex::default() };
        Self { limits, cache, fetching: Arc::new(fetching) }
    }

    /// Which commit a branch, tag, commit or (with `None`) the default branch is now. Nothing is fetched. A commit is named by
    /// all its digits, or by the first ones where it is the tip of one branch or tag.
    pub async fn resolve(&self, url: &str, reference: Option<&str>) -> Result<CommitId, RepositoryError> {
        let remote = Remote::parse(url, self.limits.allow_private)?;
        let time = Time::from_now(self.limits.time.min(RESOLVE_TIME));
        let rules = Rules::new(self.limits.allow_private);
        let reference = reference.map(str::to_owned);
        let never = CancellationToken::new();
        on_a_thread(time, RESOLVE_BYTES, &never, move |watch| {
            let mut talk = Talk::begin(&remote, rules, Arc::clone(watch))?;
            reference::resolve(&mut talk, reference.as_deref())
        })
        .await
    }

    /// The tree of a commit, from the cache or fetched. `customer` is for whom: nobody's fetches take all the places there are.
    pub async fn snapshot(
        &self,
        url: &str,
        commit: &CommitId,
        customer: CustomerId,
        cancel: &CancellationToken,
    ) -> Result<Snapshot, RepositoryError> {
        let remote = Remote::parse(url, self.limits.allow_private)?;
        let (limits, time) = (self.limits.clone(), Time::from_now(self.limits.time));
        let key = remote.key(commit);
        if let Some(kept) = self.kept(&key, commit, time, cancel).await? {
            return Ok(kept);
        }
        // In this order: who waits for a share of their own keeps neither a commit from others nor a place.
        let share = in_time(time, cancel, self.fetching.places.share_of(customer)).await;
        let share = share.map_err(if_busy)?;
        let turn = self.fetching.turn(&key);
        let _ours = in_time(time, cancel, turn.lock()).await?;
        // Somebody may just have fetched it.
        if let Some(kept) = self.kept(&key, commit, time, cancel).await? {
            return Ok(kept);
        }
        let place = in_time(time, cancel, self.fetching.places.place(share)).await;
        let _place = place.map_err(if_busy)?;
        let (cache, commit) = (Arc::clone(&self.cache), commit.clone());
        on_a_thread(time, limits.max_bytes, cancel, move |watch| {
            let unfinished = cache.begin()?;
            let mut pack = unfinished.pack()?;
            let mut talk = Talk::begin(&remote, Rules::new(limits.allow_private), Arc::clone(watch))?;
            talk.receive(&commit, &mut pack)?;
            drop(talk);
            let (objects, found) = unfinished.unpack(pack, &commit, &limits, watch)?;
            cache.keep(unfinished, &key, &commit, objects, found)
        })
        .await
    }

    /// The tree of a commit, if it is in the cache.
    async fn kept(
        &self,
        key: &str,
        commit: &CommitId,
        time: Time,
        cancel: &CancellationToken,
    ) -> Result<Option<Snapshot>, RepositoryError> {
        let (cache, key, commit) = (Arc::clone(&self.cache), key.to_owned(), commit.clone());
        on_a_thread(time, self.limits.max_bytes, cancel, move |_| cache.find(&key, &commit)).await
    }
}

/// What it is when the time was over before a place was free: nobody's repository was too slow but others'.
fn if_busy(error: RepositoryError) -> RepositoryError {
    match error {
        RepositoryError::Timeout { .. } => RepositoryError::Busy,
        error => error,
    }
}

impl Fetching {
    fn turn(&self, key: &str) -> Arc<Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Turn::default());
        turns.insert(key.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

/// Waits for a turn. What is under way in a thread watches its time by itself, so that when it is over nothing is left of it.
async fn in_time<T>(
    time: Time,
    cancel: &CancellationToken,
    coming: impl Future<Output = T>,
) -> Result<T, RepositoryError> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(RepositoryError::Cancelled),
        came = tokio::time::timeout_at(time.deadline.into(), coming) => came.map_err(|_| time.over()),
    }
}

/// Does what waits for network and disk on a thread of its own, and tells it to stop when nobody waits for it any more.
async fn on_a_thread<T: Send + 'static>(
    time: Time,
    max_bytes: u64,
    cancel: &CancellationToken,
    work: impl FnOnce(&Arc<Watch>) -> Result<T, RepositoryError> + Send + 'static,
) -> Result<T, RepositoryError> {
    let cancel = cancel.child_token();
    let _stop_when_dropped = cancel.clone().drop_guard();
    let watch = Arc::new(Watch::new(Handle::current(), time, max_bytes, cancel));
    match tokio::task::spawn_blocking(move || work(&watch)).await {
        Ok(done) => done,
        Err(panicked) => {
            // The library is fed by strangers; what makes it stumble ends one job and no more.
            tracing::error!(error = %panicked, "Reading a repository ended in a panic");
            Err(RepositoryError::broken("its server said something that can't be read"))
        }
    }
}

#[cfg(test)]
mod tests;
