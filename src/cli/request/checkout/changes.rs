//! What differs between the commit that is checked out and the working tree, as `git diff HEAD` shows it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use gix::bstr::{BStr, BString, ByteSlice};
use gix::index::entry::{Flags, Mode as IndexMode, Stage, Stat};
use gix::{ObjectId, Repository};

use super::CheckoutError;
use crate::code::diff::{Mode, PatchBuilder, PatchError, PatchLimits, Version};
use crate::job::RelativePath;

/// Bytes of a file that is still compared line by line: a larger one is no source that anybody reads.
const LARGEST_FILE: u64 = 4 * 1024 * 1024;

/// What is not committed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalChange {
    /// As a diff in git's form.
    pub diff: String,
    /// How many files are in it.
    pub files: usize,
    /// Changed files that are not in it, because they are no text or too large.
    pub left_out: Vec<String>,
}

/// A file of the commit, or as it lies on the disk.
struct Side {
    mode: Mode,
    content: Content,
}

enum Content {
    /// In the object database.
    Stored(ObjectId),
    /// Read from the disk.
    Here(Vec<u8>),
    /// On the disk, and too large to be looked at.
    TooLarge,
}

struct Changed {
    path: BString,
    before: Option<Side>,
    after: Option<Side>,
}

/// Whether anything tracked differs.
pub(super) fn any(repository: &Repository, root: &Path) -> Result<bool, CheckoutError> {
    match changed(repository, root, 1) {
        // An unfinished merge is a change.
        Err(CheckoutError::Conflict(_)) => Ok(true),
        found => Ok(!found?.is_empty()),
    }
}

/// Everything tracked that differs, as a diff of at most so many bytes.
pub(super) fn diff(repository: &Repository, root: &Path, most_bytes: usize) -> Result<LocalChange, CheckoutError> {
    let mut patch = PatchBuilder::new(PatchLimits { bytes: most_bytes, files: usize::MAX });
    let mut left_out = Vec::new();
    for Changed { path, before, after } in changed(repository, root, usize::MAX)? {
        let name = path.to_str().ok().and_then(|name| name.parse::<RelativePath>().ok());
        let sides = bytes_of(repository, before.as_ref())?.zip(bytes_of(repository, after.as_ref())?);
        let shown = || path.to_str_lossy().chars().filter(|c| !c.is_control()).collect();
        let (Some(name), Some((old, new))) = (name, sides) else {
            left_out.push(shown());
            continue;
        };
        let version = |side: &Option<Side>| side.as_ref().map(|side| side.mode);
        let old = version(&before).map(|mode| Version { mode, content: &old });
        let new = version(&after).map(|mode| Version { mode, content: &new });
        match patch.change(&name, old, new) {
            Ok(()) => {}
            Err(PatchError::Binary(_)) => left_out.push(shown()),
            Err(PatchError::TooLarge { .. } | PatchError::TooManyFiles { .. }) => {
                return Err(CheckoutError::TooLarge { limit: most_bytes });
            }
        }
    }
    let patch = patch.finish();
    Ok(LocalChange { diff: patch.text, files: patch.files.len(), left_out })
}

/// What is in a file, nothing for none; `None` when that is too much.
fn bytes_of(repository: &Repository, side: Option<&Side>) -> Result<Option<Vec<u8>>, CheckoutError> {
    match side.map(|side| &side.content) {
        None => Ok(Some(Vec::new())),
        Some(Content::TooLarge) => Ok(None),
        Some(Content::Here(bytes)) => Ok(Some(bytes.clone())),
        Some(Content::Stored(id)) => blob(repository, *id),
    }
}

/// The bytes of an object; `None` when they are too many.
fn blob(repository: &Repository, id: ObjectId) -> Result<Option<Vec<u8>>, CheckoutError> {
    if repository.find_header(id)?.size() > LARGEST_FILE {
        return Ok(None);
    }
    let mut object = repository.find_object(id)?;
    Ok(Some(std::mem::take(&mut object.data)))
}

/// The first `most` tracked files that differ, sorted by path.
fn changed(repository: &Repository, root: &Path, most: usize) -> Result<Vec<Changed>, CheckoutError> {
    let mut committed: BTreeMap<BString, Side> = BTreeMap::new();
    if repository.head_id().is_ok() {
        for entry in repository.head_tree()?.traverse().breadthfirst.files()? {
            if let Some(mode) = mode_of(entry.mode.value().into()) {
                committed.insert(entry.filepath, Side { mode, content: Content::Stored(entry.oid) });
            }
        }
    }
    let index = repository.index_or_empty()?;
    let options = repository.stat_options()?;
    let keeps_modes = repository.config_snapshot().boolean("core.fileMode").unwrap_or(true);
    let mut found = Vec::new();
    for entry in index.entries() {
        let path = entry.path(&index);
        if entry.stage() != Stage::Unconflicted {
            return Err(CheckoutError::Conflict(path.to_str_lossy().into_owned()));
        }
        // Submodules, and folders that are left out of a sparse checkout.
        let Some(mode) = mode_of(entry.mode.bits()) else { continue };
        let staged = Side { mode, content: Content::Stored(entry.id) };
        let after = if entry.flags.intersects(Flags::ASSUME_VALID | Flags::SKIP_WORKTREE) {
            Some(staged)
        } else {
            let is_current =
                |stat: &Stat| stat.matches(&entry.stat, options) && !entry.stat.is_racy(index.timestamp(), options);
            on_disk(root, path, staged, is_current, keeps_modes)
                .map_err(|source| CheckoutError::File { path: path.to_str_lossy().into_owned(), source })?
        };
        let before = committed.remove(path);
        if differs(repository, before.as_ref(), after.as_ref())? {
            found.push(Changed { path: path.to_owned(), before, after });
            if found.len() >= most {
                return Ok(found);
            }
        }
    }
    let deleted = committed.into_iter().map(|(path, before)| Changed { path, before: Some(before), after: None });
    found.extend(deleted.take(most - found.len()));
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// What git's numbers stand for; `None` for what is no file or link.
fn mode_of(bits: u32) -> Option<Mode> {
    match bits {
        bits if bits == IndexMode::SYMLINK.bits() => Some(Mode::Link),
        bits if bits == IndexMode::FILE_EXECUTABLE.bits() => Some(Mode::Executable),
        // Old trees have files with other rights.
        bits if bits & 0o170_000 == 0o100_000 => Some(if bits & 0o100 == 0 { Mode::File } else { Mode::Executable }),
        _ => None,
    }
}

/// A tracked file as it lies on the disk; `None` when it is gone.
fn on_disk(
    root: &Path,
    path: &BStr,
    staged: Side,
    is_current: impl Fn(&Stat) -> bool,
    keeps_modes: bool,
) -> io::Result<Option<Side>> {
    let place = root.join(path.to_path().map_err(io::Error::other)?);
    let metadata = match gix::index::fs::Metadata::from_path_no_follow(&place) {
        Ok(metadata) => metadata,
        Err(gone) if matches!(gone.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(problem) => return Err(problem),
    };
    let mode = match (metadata.is_symlink(), metadata.is_file(), metadata.is_executable()) {
        (true, ..) => Mode::Link,
        // What was a file is a folder, or a pipe: the file is gone.
        (_, false, _) => return Ok(None),
        _ if !keeps_modes && staged.mode != Mode::Link => staged.mode,
        (.., true) => Mode::Executable,
        (.., false) => Mode::File,
    };
    let unchanged = mode == staged.mode && Stat::from_fs(&metadata).is_ok_and(|stat| is_current(&stat));
    let content = if unchanged {
        staged.content
    } else if mode == Mode::Link {
        Content::Here(fs::read_link(&place)?.into_os_string().into_encoded_bytes())
    } else if metadata.len() > LARGEST_FILE {
        Content::TooLarge
    } else {
        Content::Here(fs::read(&place)?)
    };
    Ok(Some(Side { mode, content }))
}

/// Whether two versions of a file are not the same. Line ends that git converts on their way in are no difference.
fn differs(repository: &Repository, before: Option<&Side>, after: Option<&Side>) -> Result<bool, CheckoutError> {
    let (Some(before), Some(after)) = (before, after) else { return Ok(before.is_some() || after.is_some()) };
    if before.mode != after.mode {
        return Ok(true);
    }
    Ok(match (&before.content, &after.content) {
        (Content::Stored(one), Content::Stored(other)) => one != other,
        (Content::Stored(id), Content::Here(bytes)) => match blob(repository, *id)? {
            Some(stored) => stored != *bytes && stored != bytes.replace("\r\n", "\n"),
            None => true,
        },
        _ => true,
    })
}
