//! Repositories: fetched by this process with a library, never with a shell, and never written out as files.
//!
//! A [`Snapshot`] is the tree of one commit, read from objects. Links, attributes, hooks, filters, submodules and LFS are
//! therefore words in a list, and nothing acts on them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::archive::{Archive, ArchiveBuilder, ArchiveError, ArchiveLimits, EntryKind};
use crate::job::RelativePath;

/// A commit, by its SHA-1 in 40 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitId(String);

impl CommitId {
    /// As hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CommitId {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let is_hash = text.len() == 40 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hash.then(|| Self(text.to_ascii_lowercase())).ok_or("a commit is 40 hexadecimal digits")
    }
}

impl TryFrom<String> for CommitId {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse()
    }
}

impl From<CommitId> for String {
    fn from(commit: CommitId) -> Self {
        commit.0
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why there is no snapshot. The words are fit for customers: they never tell what lies inside the operator's network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// It is no address of a repository.
    #[error("this is no address of a git repository; write https://host/path or git://host/path, without a password")]
    BadUrl,
    /// It leads nowhere public.
    #[error("the repository's address does not lead to a public host")]
    NotPublic,
    /// Nobody answers there, or the connection broke.
    #[error("the repository could not be reached")]
    Unreachable,
    /// There is none, or it wants a password.
    #[error("there is no repository at this address that anybody may read")]
    NotFound,
    /// It has no commits.
    #[error("the repository is empty")]
    Empty,
    /// It has no such branch, tag or commit.
    #[error("the repository has no branch, tag or commit of that name")]
    NoSuchRef,
    /// Too many bytes.
    #[error("the repository is larger than {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: u64,
    },
    /// Too many files.
    #[error("the repository has more than {limit} files")]
    TooManyFiles {
        /// Files allowed.
        limit: u64,
    },
    /// It holds something that is no repository we take: a hostile path, an object that is not what it says.
    #[error("the repository can't be read: {0}")]
    Broken(String),
    /// Took too long.
    #[error("the repository took longer than {} s", .limit.as_secs())]
    Timeout {
        /// Time allowed.
        limit: std::time::Duration,
    },
    /// Stopped as asked.
    #[error("cancelled")]
    Cancelled,
    /// Our own disk failed.
    #[error("the provider's disk failed")]
    Disk(#[source] std::io::Error),
}

/// A file or link of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Where.
    pub path: RelativePath,
    /// A file or a link; folders are not listed.
    pub kind: EntryKind,
    /// Bytes.
    pub size: u64,
}

/// Where a snapshot's bytes come from.
pub trait Blobs: Send + Sync {
    /// The bytes of the entry at this place in the list. Waits for the disk.
    fn read(&self, entry: usize) -> Result<Vec<u8>, RepositoryError>;
}

/// The tree of one commit.
#[derive(Clone)]
pub struct Snapshot {
    commit: CommitId,
    entries: Arc<[TreeEntry]>,
    blobs: Arc<dyn Blobs>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("commit", &self.commit)
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    /// The files of a commit, sorted by path.
    pub fn new(commit: CommitId, entries: Vec<TreeEntry>, blobs: Arc<dyn Blobs>) -> Self {
        Self { commit, entries: entries.into(), blobs }
    }

    /// A snapshot of files that are in memory.
    pub fn of_files(commit: CommitId, mut files: Vec<(RelativePath, Vec<u8>)>) -> Self {
        files.sort();
        let entry = |(path, content): &(RelativePath, Vec<u8>)| TreeEntry {
            path: path.clone(),
            kind: EntryKind::File { executable: content.starts_with(b"#!") },
            size: content.len() as u64,
        };
        let entries = files.iter().map(entry).collect();
        Self::new(commit, entries, Arc::new(InMemory(files)))
    }

    /// Which commit.
    pub fn commit(&self) -> &CommitId {
        &self.commit
    }

    /// Its files and links, sorted by path.
    pub fn entries(&self) -> &[TreeEntry] {
        &self.entries
    }

    /// The bytes of a file, or the target of a link. `None` when there is no such entry. Waits for the disk.
    pub fn read(&self, path: &RelativePath) -> Result<Option<Vec<u8>>, RepositoryError> {
        match self.entries.binary_search_by(|entry| entry.path.cmp(path)) {
            Ok(at) => self.blobs.read(at).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// All of it as a workspace. Links are in it as links; where they lead is settled inside the sandbox. Waits for the disk.
    ///
    /// # Errors
    /// When it is larger than `limits` say, or can't be read.
    pub fn archive(&self, limits: ArchiveLimits) -> Result<Archive, RepositoryError> {
        let mut builder = ArchiveBuilder::new(limits).map_err(archive_error)?;
        for (at, entry) in self.entries.iter().enumerate() {
            match &entry.kind {
                EntryKind::File { executable } => builder.file(&entry.path, *executable, &self.blobs.read(at)?),
                EntryKind::Link { target } => builder.link(&entry.path, target),
                EntryKind::Folder => builder.folder(&entry.path),
            }
            .map_err(archive_error)?;
        }
        builder.finish().map_err(archive_error)
    }
}

fn archive_error(error: ArchiveError) -> RepositoryError {
    match error {
        ArchiveError::TooLarge { limit } => RepositoryError::TooLarge { limit },
        ArchiveError::TooMany { limit } => RepositoryError::TooManyFiles { limit },
        ArchiveError::Broken(what) => RepositoryError::Broken(what),
        ArchiveError::Disk(error) => RepositoryError::Disk(error),
    }
}

struct InMemory(Vec<(RelativePath, Vec<u8>)>);

impl Blobs for InMemory {
    fn read(&self, entry: usize) -> Result<Vec<u8>, RepositoryError> {
        Ok(self.0.get(entry).map(|(_, content)| content.clone()).unwrap_or_default())
    }
}

/// Bounds on a fetch, and where it may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryLimits {
    /// Bytes of what is fetched, and of the files in it.
    pub max_bytes: u64,
    /// Files.
    pub max_files: u64,
    /// Time for everything.
    pub time: std::time::Duration,
    /// Bytes of the cache in all.
    pub cache_bytes: u64,
    /// Whether loopback and private addresses may be fetched from (tests, own networks).
    pub allow_private: bool,
}

/// Fetches repositories, and keeps those that were fetched lately.
#[derive(Debug, Clone)]
pub struct Repositories {
    folder: std::path::PathBuf,
    limits: RepositoryLimits,
}

impl Repositories {
    /// With a cache in that folder.
    pub fn new(folder: std::path::PathBuf, limits: RepositoryLimits) -> Self {
        Self { folder, limits }
    }

    /// Which commit a branch, tag, commit or (with `None`) the default branch is now. Asks for the list of references only.
    pub async fn resolve(&self, url: &str, reference: Option<&str>) -> Result<CommitId, RepositoryError> {
        let _ = (url, reference, &self.folder, &self.limits);
        Err(RepositoryError::Unreachable)
    }

    /// The tree of a commit, from the cache or fetched.
    pub async fn snapshot(
        &self,
        url: &str,
        commit: &CommitId,
        cancel: &CancellationToken,
    ) -> Result<Snapshot, RepositoryError> {
        let _ = (url, commit, cancel);
        Err(RepositoryError::Unreachable)
    }
}
