//! What became of a commit's files: the workspace as it came out of a cell, compared with the commit, as a diff.
//!
//! The workspace is hostile. Names are below it (the archive sees to that), modes are only whether a file can be run, and links are
//! text. A change that adds or alters a link, touches git's own files, or files the customer did not allow, is refused.

use std::collections::{BTreeMap, BTreeSet};

use super::ignored::Ignored;
use crate::archive::{Archive, ArchiveEntry, ArchiveError, ArchiveLimits, EntryKind};
use crate::code::diff::{Mode, Patch, PatchBuilder, PatchError, PatchLimits, Version, is_git_s_own};
use crate::job::RelativePath;
use crate::job::globs::Globs;
use crate::repository::{RepositoryError, Snapshot, TreeEntry};

/// Bytes of a file that is compared line by line, at most.
const MOST_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// What a change may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed<'a> {
    /// Files that may change.
    pub(super) paths: &'a Globs,
    /// How large it may be.
    pub(super) size: PatchLimits,
    /// What the workspace's archive may hold.
    pub(super) workspace: ArchiveLimits,
}

/// Why there is no patch, in words for the customer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoPatch {
    /// Nothing changed.
    #[error("the agent changed nothing")]
    Empty,
    /// A file that may not change.
    #[error("the agent changed {0}, which include and exclude do not allow")]
    NotAllowed(RelativePath),
    /// A file of git's own.
    #[error("the agent changed {0}, which is git's own")]
    GitsOwn(RelativePath),
    /// A link that is new or leads elsewhere.
    #[error("the agent made or altered the symbolic link {0}; patches with links are not delivered")]
    Link(RelativePath),
    /// A file that is too large.
    #[error("the agent changed {0}, which has more than {MOST_FILE_BYTES} bytes")]
    LargeFile(RelativePath),
    /// No text, or too much of it.
    #[error("the agent's change can't be delivered: {0}")]
    Patch(#[from] PatchError),
    /// The workspace can't be read.
    #[error("what the agent left behind can't be read: {0}")]
    Workspace(#[from] ArchiveError),
    /// The commit can't be read any more.
    #[error("the repository can't be read")]
    Repository(#[from] RepositoryError),
}

/// The change from the commit to the workspace. Waits for the disk.
pub(super) fn between(snapshot: &Snapshot, workspace: &Archive, allowed: &Allowed<'_>) -> Result<Patch, NoPatch> {
    let listing = workspace.list(Some("workspace"), allowed.workspace)?;
    let is_folder = |entry: &&ArchiveEntry| entry.kind == EntryKind::Folder;
    let new: BTreeMap<&RelativePath, &ArchiveEntry> =
        listing.entries.iter().filter(|entry| !is_folder(entry)).map(|entry| (&entry.path, entry)).collect();
    let old: BTreeMap<&RelativePath, &TreeEntry> =
        snapshot.entries().iter().map(|entry| (&entry.path, entry)).collect();
    let ignored = Ignored::of(snapshot)?;
    let mut builder = PatchBuilder::new(allowed.size);
    let paths: BTreeSet<&RelativePath> = old.keys().chain(new.keys()).copied().collect();
    for path in paths {
        let (was, is) = (old.get(path).copied(), new.get(path).copied());
        if was.is_none() && ignored.has(path) {
            continue;
        }
        let sizes = (was.map_or(0, |entry| entry.size), is.map_or(0, |entry| entry.size));
        let is_large = sizes.0.max(sizes.1) > MOST_FILE_BYTES;
        // A large file is only looked at when it could be the same.
        if is_large && (was.is_none() || is.is_none() || sizes.0 != sizes.1) {
            check(path, is, was, allowed)?;
            return Err(NoPatch::LargeFile(path.clone()));
        }
        let before = was.map(|entry| snapshot_version(snapshot, entry)).transpose()?;
        let afterwards = is.map(|entry| workspace_version(workspace, entry)).transpose()?;
        if before == afterwards {
            continue;
        }
        check(path, is, was, allowed)?;
        if is_large {
            return Err(NoPatch::LargeFile(path.clone()));
        }
        builder.change(path, as_version(before.as_ref()), as_version(afterwards.as_ref()))?;
    }
    let patch = builder.finish();
    if patch.files.is_empty() { Err(NoPatch::Empty) } else { Ok(patch) }
}

/// Whether a file that changed may.
fn check(
    path: &RelativePath,
    is: Option<&ArchiveEntry>,
    was: Option<&TreeEntry>,
    allowed: &Allowed<'_>,
) -> Result<(), NoPatch> {
    if is_git_s_own(path) {
        return Err(NoPatch::GitsOwn(path.clone()));
    }
    let is_link = |kind: &EntryKind| matches!(kind, EntryKind::Link { .. });
    // A link that is gone is gone; one that became a file is an alteration.
    let altered = is.is_some() && was.is_some_and(|entry| is_link(&entry.kind));
    if altered || is.is_some_and(|entry| is_link(&entry.kind)) {
        return Err(NoPatch::Link(path.clone()));
    }
    if allowed.paths.allow(path) { Ok(()) } else { Err(NoPatch::NotAllowed(path.clone())) }
}

fn snapshot_version(snapshot: &Snapshot, entry: &TreeEntry) -> Result<(Mode, Vec<u8>), NoPatch> {
    Ok(match mode_of(&entry.kind) {
        (mode, Some(target)) => (mode, target.as_bytes().to_vec()),
        (mode, None) => (mode, snapshot.read(&entry.path)?.unwrap_or_default()),
    })
}

fn workspace_version(workspace: &Archive, entry: &ArchiveEntry) -> Result<(Mode, Vec<u8>), NoPatch> {
    Ok(match mode_of(&entry.kind) {
        (mode, Some(target)) => (mode, target.as_bytes().to_vec()),
        (mode, None) => (mode, workspace.read(entry)?),
    })
}

/// What an entry is to git, and where it leads when it is a link.
fn mode_of(kind: &EntryKind) -> (Mode, Option<&str>) {
    match kind {
        EntryKind::File { executable: true } => (Mode::Executable, None),
        EntryKind::File { executable: false } | EntryKind::Folder => (Mode::File, None),
        EntryKind::Link { target } => (Mode::Link, Some(target)),
    }
}

fn as_version(of: Option<&(Mode, Vec<u8>)>) -> Option<Version<'_>> {
    of.map(|(mode, content)| Version { mode: *mode, content })
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
