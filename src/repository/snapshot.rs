//! The tree of one commit, as a list of files whose bytes are read one by one.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::RepositoryError;
use crate::archive::{Archive, ArchiveBuilder, ArchiveLimits, EntryKind};
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
    parents: Arc<[CommitId]>,
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
        Self { commit, parents: Arc::default(), entries: entries.into(), blobs }
    }

    /// With the commits it was made from.
    #[must_use]
    pub fn with_parents(mut self, parents: Vec<CommitId>) -> Self {
        self.parents = parents.into();
        self
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

    /// The commits it was made from, the first being the one it follows. Of a merge with very many only the first ones.
    pub fn parents(&self) -> &[CommitId] {
        &self.parents
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
        let mut builder = ArchiveBuilder::new(limits)?;
        for (at, entry) in self.entries.iter().enumerate() {
            match &entry.kind {
                EntryKind::File { executable } => builder.file(&entry.path, *executable, &self.blobs.read(at)?)?,
                EntryKind::Link { target } => builder.link(&entry.path, target)?,
                EntryKind::Folder => builder.folder(&entry.path)?,
            }
        }
        Ok(builder.finish()?)
    }
}

struct InMemory(Vec<(RelativePath, Vec<u8>)>);

impl Blobs for InMemory {
    fn read(&self, entry: usize) -> Result<Vec<u8>, RepositoryError> {
        Ok(self.0.get(entry).map(|(_, content)| content.clone()).unwrap_or_default())
    }
}
