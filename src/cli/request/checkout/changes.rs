//! What differs between the commit that is checked out and the working tree, as `git diff HEAD` shows it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use diffy::{DiffOptions, PatchFormatter};
use gix::bstr::{BStr, BString, ByteSlice};
use gix::index::entry::{Flags, Mode, Stage, Stat};
use gix::{ObjectId, Repository};

use super::CheckoutError;

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

/// A file of the commit, of the index, or as it lies on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    mode: u32,
    content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
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
    before: Option<Version>,
    after: Option<Version>,
}

/// Whether anything tracked differs.
pub(super) fn any(repository: &Repository, root: &Path) -> Result<bool, CheckoutError> {
    match changed(repository, root, 1) {
        // An unfinished merge is a change.
        Err(CheckoutError::Conflict(_)) => Ok(true),
        found => Ok(!found?.is_empty()),
    }
}

/// Everything tracked that differs, as a diff.
pub(super) fn diff(repository: &Repository, root: &Path) -> Result<LocalChange, CheckoutError> {
    let mut all = LocalChange::default();
    for Changed { path, before, after } in changed(repository, root, usize::MAX)? {
        let name = path.to_str_lossy().into_owned();
        let printable = path.to_str().is_ok_and(|path| !path.contains(['"', '\\']) && !path.contains(char::is_control));
        let before_text = text_of(repository, before.as_ref())?;
        let after_text = text_of(repository, after.as_ref())?;
        match (printable, before_text, after_text) {
            (true, Some(before_text), Some(after_text)) => {
                let modes = (before.map(|version| version.mode), after.map(|version| version.mode));
                all.diff.push_str(&file_diff(&name, modes, &before_text, &after_text));
                all.files += 1;
            }
            _ => all.left_out.push(name.chars().filter(|c| !c.is_control()).collect()),
        }
    }
    Ok(all)
}

/// One file's part of the diff.
fn file_diff(path: &str, modes: (Option<u32>, Option<u32>), before: &str, after: &str) -> String {
    let mut text = format!("diff --git a/{path} b/{path}\n");
    match modes {
        (None, Some(new)) => text.push_str(&format!("new file mode {new:o}\n")),
        (Some(old), None) => text.push_str(&format!("deleted file mode {old:o}\n")),
        (Some(old), Some(new)) if old != new => text.push_str(&format!("old mode {old:o}\nnew mode {new:o}\n")),
        _ => {}
    }
    if before == after {
        return text;
    }
    let side = |there: bool, name: String| if there { name } else { "/dev/null".to_owned() };
    let mut options = DiffOptions::new();
    options.set_original_filename(side(modes.0.is_some(), format!("a/{path}")));
    options.set_modified_filename(side(modes.1.is_some(), format!("b/{path}")));
    let patch = options.create_patch(before, after);
    text.push_str(&PatchFormatter::new().suppress_blank_empty(false).fmt_patch(&patch).to_string());
    text
}

/// The text of a version, nothing for none; `None` when it is no text.
fn text_of(repository: &Repository, version: Option<&Version>) -> Result<Option<String>, CheckoutError> {
    let bytes = match version.map(|version| &version.content) {
        None => Vec::new(),
        Some(Content::TooLarge) => return Ok(None),
        Some(Content::Here(bytes)) => bytes.clone(),
        Some(Content::Stored(id)) => match blob(repository, *id)? {
            Some(bytes) => bytes,
            None => return Ok(None),
        },
    };
    if bytes.contains(&0) {
        return Ok(None);
    }
    Ok(String::from_utf8(bytes).ok())
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
    let mut committed: BTreeMap<BString, Version> = BTreeMap::new();
    if repository.head_id().is_ok() {
        for entry in repository.head_tree()?.traverse().breadthfirst.files()? {
            if entry.mode.is_blob_or_symlink() {
                let version = Version { mode: entry.mode.value().into(), content: Content::Stored(entry.oid) };
                committed.insert(entry.filepath, version);
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
        if entry.mode.contains(Mode::COMMIT) || entry.mode == Mode::DIR {
            continue;
        }
        let staged = Version { mode: entry.mode.bits(), content: Content::Stored(entry.id) };
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

/// A tracked file as it lies on the disk; `None` when it is gone.
fn on_disk(
    root: &Path,
    path: &BStr,
    staged: Version,
    is_current: impl Fn(&Stat) -> bool,
    keeps_modes: bool,
) -> io::Result<Option<Version>> {
    let place = root.join(path.to_path().map_err(io::Error::other)?);
    let metadata = match gix::index::fs::Metadata::from_path_no_follow(&place) {
        Ok(metadata) => metadata,
        Err(gone) if matches!(gone.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(problem) => return Err(problem),
    };
    let mode = match (metadata.is_symlink(), metadata.is_file(), metadata.is_executable()) {
        (true, ..) => Mode::SYMLINK.bits(),
        // What was a file is a folder, or a pipe: the file is gone.
        (_, false, _) => return Ok(None),
        _ if !keeps_modes && staged.mode != Mode::SYMLINK.bits() => staged.mode,
        (.., true) => Mode::FILE_EXECUTABLE.bits(),
        (.., false) => Mode::FILE.bits(),
    };
    let unchanged = Stat::from_fs(&metadata).is_ok_and(|stat| is_current(&stat));
    let content = if unchanged {
        staged.content
    } else if metadata.is_symlink() {
        Content::Here(gix::path::into_bstr(fs::read_link(&place)?).to_vec())
    } else if metadata.len() > LARGEST_FILE {
        Content::TooLarge
    } else {
        Content::Here(fs::read(&place)?)
    };
    Ok(Some(Version { mode, content }))
}

/// Whether two versions of a file are not the same. What git would convert on its way in (line ends) is no difference.
fn differs(repository: &Repository, before: Option<&Version>, after: Option<&Version>) -> Result<bool, CheckoutError> {
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
