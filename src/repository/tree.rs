//! Walks the tree of a commit: which files there are, and where their bytes lie.
//!
//! A tree may name the same folder in many places, so a small repository can describe more files than there are atoms. What
//! is counted is therefore what is walked over, not what is stored.

use std::collections::HashSet;

use gix::ObjectId;
use gix::bstr::{BStr, ByteSlice};
use gix::hash::Kind as HashKind;
use gix::objs::tree::{EntryKind as GitKind, EntryMode};
use gix::objs::{CommitRefIter, Kind, TreeRefIter};
use gix::validate::path::component;

use super::objects::{Objects, Place};
use super::watch::Watch;
use super::{CommitId, RepositoryError, RepositoryLimits, TreeEntry};
use crate::archive::EntryKind;
use crate::job::RelativePath;
use crate::job::text::excerpt;

/// Folders in folders.
const MAX_DEPTH: usize = 128;

/// Bytes of a commit's own text, and of one folder's list.
const MAX_LIST: u64 = 32 * 1024 * 1024;

/// Commits that a merge is made from: git itself never makes one of more.
const MOST_PARENTS: usize = 16;

/// Bytes of all paths together: what a list of files takes in memory.
const MAX_PATHS: usize = 64 * 1024 * 1024;

/// Bytes of a link's target, as Linux has it.
const MAX_TARGET: u64 = 4_096;

/// Names that are refused: those that lead elsewhere on some system, and all disguises of `.git`. Names that only Windows
/// dislikes are fine.
const NAMES: component::Options = component::Options { protect_windows: false, protect_hfs: true, protect_ntfs: true };

/// A folder that is still to be walked over.
struct Folder {
    id: ObjectId,
    path: String,
    depth: usize,
}

struct Walk<'a> {
    objects: &'a mut Objects,
    limits: &'a RepositoryLimits,
    watch: &'a Watch,
    found: Vec<(TreeEntry, u64)>,
    folders: Vec<Folder>,
    /// Entries of all lists walked over, those that are left out too.
    seen: u64,
    bytes: u64,
    path_bytes: usize,
}

/// How many entries a walk may meet: of a real repository's, most are files.
pub(super) fn most_entries(limits: &RepositoryLimits) -> u64 {
    limits.max_files.saturating_mul(2).saturating_add(1_000)
}

/// A commit that was walked over.
#[derive(Debug)]
pub(super) struct Found {
    /// What it was made from.
    pub(super) parents: Vec<CommitId>,
    /// Its files and links, sorted by path, and where the bytes of each lie.
    pub(super) entries: Vec<(TreeEntry, u64)>,
}

/// Finds what a commit holds.
pub(super) fn walk(
    objects: &mut Objects,
    commit: &CommitId,
    limits: &RepositoryLimits,
    watch: &Watch,
) -> Result<Found, RepositoryError> {
    let (root, parents) = root(objects, commit)?;
    let folders = vec![Folder { id: root, path: String::new(), depth: 0 }];
    let mut walk = Walk { objects, limits, watch, found: Vec::new(), folders, seen: 0, bytes: 0, path_bytes: 0 };
    while let Some(folder) = walk.folders.pop() {
        walk.folder(&folder)?;
    }
    walk.found.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    Ok(Found { parents, entries: walk.found })
}

/// The tree of a commit, and the commits it was made from.
fn root(objects: &mut Objects, commit: &CommitId) -> Result<(ObjectId, Vec<CommitId>), RepositoryError> {
    let wrong = || RepositoryError::broken("the commit names no tree");
    let id = ObjectId::from_hex(commit.as_str().as_bytes()).map_err(|_| wrong())?;
    let place = objects.find(&id, Kind::Commit)?;
    let text = list(objects, place)?;
    let mut commit = CommitRefIter::from_bytes(&text, HashKind::Sha1);
    let tree = commit.tree_id().map_err(|_| wrong())?;
    let parents = commit.parent_ids().take(MOST_PARENTS).filter_map(|id| id.to_hex().to_string().parse().ok());
    Ok((tree, parents.collect()))
}

/// The bytes of a commit or a folder.
fn list(objects: &mut Objects, place: Place) -> Result<Vec<u8>, RepositoryError> {
    if place.size > MAX_LIST {
        return Err(RepositoryError::broken(format!("a folder's list has more than {MAX_LIST} bytes")));
    }
    objects.read(place)
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Folder) -> Result<(), RepositoryError> {
        self.watch.check()?;
        if folder.depth > MAX_DEPTH {
            return Err(RepositoryError::broken(format!("its folders nest deeper than {MAX_DEPTH}")));
        }
        let place = self.objects.find(&folder.id, Kind::Tree)?;
        let bytes = list(self.objects, place)?;
        let mut names = HashSet::new();
        for entry in TreeRefIter::from_bytes(&bytes, HashKind::Sha1) {
            let entry = entry.map_err(|_| RepositoryError::broken("a folder's list is damaged"))?;
            self.seen += 1;
            if self.seen > most_entries(self.limits) {
                return Err(RepositoryError::TooManyFiles { limit: self.limits.max_files });
            }
            let kind = kind(entry.mode)?;
            let path = path(&folder.path, entry.filename, kind)?;
            if !names.insert(entry.filename) {
                return Err(RepositoryError::broken(format!("'{}' is there twice", excerpt(&path))));
            }
            self.entry(folder, path, kind, entry.oid.to_owned())?;
        }
        Ok(())
    }

    fn entry(&mut self, folder: &Folder, path: String, kind: GitKind, id: ObjectId) -> Result<(), RepositoryError> {
        let executable = match kind {
            // Somebody else's repository: left out.
            GitKind::Commit => return Ok(()),
            GitKind::Tree => {
                self.folders.push(Folder { id, path: path + "/", depth: folder.depth + 1 });
                return Ok(());
            }
            GitKind::Blob | GitKind::Link => false,
            GitKind::BlobExecutable => true,
        };
        self.path_bytes += path.len();
        if self.found.len() as u64 >= self.limits.max_files || self.path_bytes > MAX_PATHS {
            return Err(RepositoryError::TooManyFiles { limit: self.limits.max_files });
        }
        let place = self.objects.find(&id, Kind::Blob)?;
        self.bytes = self.bytes.saturating_add(place.size);
        if self.bytes > self.limits.max_bytes {
            return Err(RepositoryError::TooLarge { limit: self.limits.max_bytes });
        }
        let kind = if kind == GitKind::Link { self.link(&path, place)? } else { EntryKind::File { executable } };
        let path: RelativePath = path
            .parse()
            .map_err(|error| RepositoryError::broken(format!("the path '{}' is refused: {error}", excerpt(&path))))?;
        self.found.push((TreeEntry { path, kind, size: place.size }, place.at));
        Ok(())
    }

    /// A link's target is a text here and leads nowhere.
    fn link(&mut self, path: &str, place: Place) -> Result<EntryKind, RepositoryError> {
        let wrong = || RepositoryError::broken(format!("the link '{}' leads to what is no path", excerpt(path)));
        if place.size == 0 || place.size > MAX_TARGET {
            return Err(wrong());
        }
        let target = String::from_utf8(self.objects.read(place)?).map_err(|_| wrong())?;
        if target.chars().any(char::is_control) { Err(wrong()) } else { Ok(EntryKind::Link { target }) }
    }
}

/// What an entry is. Other modes than git writes are somebody's trick.
fn kind(mode: EntryMode) -> Result<GitKind, RepositoryError> {
    match mode.value() {
        0o040_000 => Ok(GitKind::Tree),
        0o120_000 => Ok(GitKind::Link),
        0o160_000 => Ok(GitKind::Commit),
        // Old repositories have group-writable files.
        file if file & 0o170_000 == 0o100_000 && file & 0o007_000 == 0 => Ok(mode.kind()),
        other => Err(RepositoryError::broken(format!("an entry has the mode {other:o}"))),
    }
}

/// The path of an entry, when its name is one that anybody may use.
fn path(folder: &str, name: &BStr, kind: GitKind) -> Result<String, RepositoryError> {
    let refused = |why: &str| {
        let path = format!("{folder}{}", name.to_str_lossy());
        RepositoryError::broken(format!("the path '{}' is refused: {why}", excerpt(&path)))
    };
    let text = name.to_str().map_err(|_| refused("it is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(refused("it holds control characters"));
    }
    let link = (kind == GitKind::Link).then_some(component::Mode::Symlink);
    gix::validate::path::component(name, link, NAMES).map_err(|error| {
        refused(match error {
            component::Error::DotGitDir => "it is git's own folder, or looks like it",
            component::Error::Relative | component::Error::PathSeparator => "it leads outside",
            component::Error::Empty => "it is empty",
            _ => "it is not a plain name",
        })
    })?;
    Ok(format!("{folder}{text}"))
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
