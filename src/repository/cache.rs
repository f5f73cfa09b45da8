//! Commits that were fetched lately, on the disk.
//!
//! A commit is a folder with its objects, side by side in one file, and the list of its files. It is made under another name
//! and renamed when it is whole, so what is there is whole whenever the process ends. What was used longest ago leaves first;
//! whoever still reads it has the file open and is not disturbed.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::objects::Objects;
use super::snapshot::{Blobs, CommitId, Snapshot, TreeEntry};
use super::tree::{self, Found};
use super::{RepositoryError, pack};
use crate::archive::EntryKind;
use crate::job::RelativePath;

/// How folders that are not whole yet, or not any more, begin.
const UNFINISHED: &str = "unfinished-";
/// Held by every process that uses the folder.
const LOCK: &str = "in-use";
/// In a commit's folder: the objects.
const OBJECTS: &str = "objects";
/// In a commit's folder: the list.
const LIST: &str = "list.json";
/// In a commit's folder: when it was used, as a number that grows.
const USED: &str = "used";

/// The folder.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    max_bytes: u64,
    opened: Mutex<Option<Opened>>,
}

#[derive(Debug)]
struct Opened {
    /// Tells other processes that this one is alive, until it ends.
    _lock: File,
    used: u64,
}

/// A commit's list on the disk.
#[derive(Serialize, Deserialize)]
struct List {
    parents: Vec<CommitId>,
    entries: Vec<Listed>,
}

/// A file or link as it is listed on the disk.
#[derive(Serialize, Deserialize)]
struct Listed {
    path: RelativePath,
    kind: ListedKind,
    size: u64,
    at: u64,
}

#[derive(Serialize, Deserialize)]
enum ListedKind {
    File,
    Executable,
    Link(String),
}

impl Cache {
    /// The cache in that folder, which is made when it is first used.
    pub(super) fn new(folder: PathBuf, max_bytes: u64) -> Self {
        Self { folder, max_bytes, opened: Mutex::new(None) }
    }

    /// Makes the folder, and clears away what a process left behind that ended in the middle, unless another is using it.
    fn open(&self) -> io::Result<MutexGuard<'_, Option<Opened>>> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.is_none() {
            fs::create_dir_all(&self.folder)?;
            let lock = File::options().create(true).truncate(false).write(true).open(self.folder.join(LOCK))?;
            if lock.try_lock().is_ok() {
                for entry in fs::read_dir(&self.folder)? {
                    let entry = entry?;
                    if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                        fs::remove_dir_all(entry.path())?;
                    }
                }
                lock.unlock()?;
            }
            lock.lock_shared()?;
            let used = self.kept()?.iter().map(|kept| kept.used).max().unwrap_or(0);
            *opened = Some(Opened { _lock: lock, used });
        }
        Ok(opened)
    }

    /// A commit that is there. One that is damaged is not.
    pub(super) fn find(&self, key: &str, commit: &CommitId) -> Result<Option<Snapshot>, RepositoryError> {
        let mut opened = self.open().map_err(RepositoryError::Disk)?;
        let folder = self.folder.join(key);
        match read(&folder, commit) {
            Ok(snapshot) => {
                self.mark(&mut opened, &folder);
                Ok(Some(snapshot))
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, "A kept repository is damaged and will be fetched again");
                    self.remove(&folder).map_err(RepositoryError::Disk)?;
                }
                Ok(None)
            }
        }
    }

    /// A folder for a commit that is being fetched. It is removed when it is dropped.
    pub(super) fn begin(&self) -> Result<Unfinished, RepositoryError> {
        drop(self.open().map_err(RepositoryError::Disk)?);
        let folder = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&self.folder);
        Ok(Unfinished { folder: folder.map_err(RepositoryError::Disk)? })
    }

    /// Keeps what is whole, and lets go of what was used longest ago until there is room.
    pub(super) fn keep(
        &self,
        unfinished: Unfinished,
        key: &str,
        commit: &CommitId,
        mut objects: Objects,
        found: Found,
    ) -> Result<Snapshot, RepositoryError> {
        let whole = unfinished.folder.path();
        objects.sync()?;
        write_list(&whole.join(LIST), found).map_err(RepositoryError::Disk)?;
        // Opened before it has its name: from then on it may be removed any time.
        let snapshot = read(whole, commit).map_err(RepositoryError::Disk)?;
        let mut opened = self.open().map_err(RepositoryError::Disk)?;
        let folder = self.folder.join(key);
        self.mark(&mut opened, whole);
        // Where another process has just put the same there is nothing to do.
        if fs::rename(whole, &folder).is_ok() {
            self.make_room().map_err(RepositoryError::Disk)?;
        }
        Ok(snapshot)
    }

    /// Says that a commit is used. That it could not be said is no reason to fail.
    fn mark(&self, opened: &mut Option<Opened>, folder: &Path) {
        if let Some(opened) = opened {
            opened.used += 1;
            let _ = fs::write(folder.join(USED), opened.used.to_string());
        }
    }

    fn make_room(&self) -> io::Result<()> {
        let mut kept = self.kept()?;
        kept.sort_by_key(|kept| kept.used);
        let mut bytes: u64 = kept.iter().map(|kept| kept.bytes).sum();
        for oldest in kept {
            if bytes <= self.max_bytes {
                break;
            }
            self.remove(&oldest.folder)?;
            bytes -= oldest.bytes;
        }
        Ok(())
    }

    fn kept(&self) -> io::Result<Vec<Kept>> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
            if unfinished || !entry.file_type()?.is_dir() {
                continue;
            }
            let folder = entry.path();
            let size = |name| fs::metadata(folder.join(name)).map_or(0, |metadata| metadata.len());
            let bytes = size(OBJECTS) + size(LIST);
            let used = fs::read_to_string(folder.join(USED)).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
            kept.push(Kept { folder, bytes, used });
        }
        Ok(kept)
    }

    /// Removes a commit so that nobody finds half of it.
    fn remove(&self, folder: &Path) -> io::Result<()> {
        let leaving = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&self.folder)?;
        match fs::rename(folder, leaving.path().join("leaving")) {
            // Another process was quicker.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => leaving.close(),
        }
    }
}

struct Kept {
    folder: PathBuf,
    bytes: u64,
    used: u64,
}

/// A folder that is not whole yet.
pub(super) struct Unfinished {
    folder: TempDir,
}

impl Unfinished {
    /// The file for the objects.
    pub(super) fn objects(&self) -> Result<Objects, RepositoryError> {
        let file = File::options().read(true).write(true).create_new(true).open(self.folder.path().join(OBJECTS));
        Ok(Objects::new(file.map_err(RepositoryError::Disk)?))
    }

    /// A file for the pack. It has no name.
    pub(super) fn pack(&self) -> Result<File, RepositoryError> {
        tempfile::tempfile_in(self.folder.path()).map_err(RepositoryError::Disk)
    }

    /// Unpacks, and finds what files there are.
    pub(super) fn unpack(
        &self,
        packed: File,
        commit: &CommitId,
        limits: &super::RepositoryLimits,
        watch: &super::watch::Watch,
    ) -> Result<(Objects, Found), RepositoryError> {
        let mut objects = self.objects()?;
        let most = tree::most_entries(limits);
        let pack_limits = pack::PackLimits { bytes: limits.max_bytes, objects: most, files: limits.max_files };
        pack::unpack(packed, &mut objects, pack_limits, watch)?;
        let found = tree::walk(&mut objects, commit, limits, watch)?;
        Ok((objects, found))
    }
}

fn write_list(path: &Path, found: Found) -> io::Result<()> {
    let listed = found.entries.into_iter().map(|(entry, at)| {
        let kind = match entry.kind {
            EntryKind::Link { target } => ListedKind::Link(target),
            EntryKind::File { executable: true } => ListedKind::Executable,
            EntryKind::File { executable: false } | EntryKind::Folder => ListedKind::File,
        };
        Listed { path: entry.path, kind, size: entry.size, at }
    });
    let mut file = BufWriter::new(File::create_new(path)?);
    serde_json::to_writer(&mut file, &List { parents: found.parents, entries: listed.collect() })?;
    file.flush()?;
    file.get_ref().sync_all()
}

fn read(folder: &Path, commit: &CommitId) -> io::Result<Snapshot> {
    let list = BufReader::new(File::open(folder.join(LIST))?);
    let List { parents, entries: listed } = serde_json::from_reader(list)?;
    let file = File::open(folder.join(OBJECTS))?;
    let end = file.metadata()?.len();
    let fits = |listed: &Listed| listed.at.checked_add(listed.size).is_some_and(|listed_end| listed_end <= end);
    if !listed.iter().all(fits) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let places = listed.iter().map(|listed| (listed.at, listed.size)).collect();
    let entries = listed.into_iter().map(|listed| TreeEntry {
        path: listed.path,
        kind: match listed.kind {
            ListedKind::File => EntryKind::File { executable: false },
            ListedKind::Executable => EntryKind::File { executable: true },
            ListedKind::Link(target) => EntryKind::Link { target },
        },
        size: listed.size,
    });
    let snapshot = Snapshot::new(commit.clone(), entries.collect(), Arc::new(OnDisk { file, places }));
    Ok(snapshot.with_parents(parents))
}

/// The bytes of a commit that is kept.
struct OnDisk {
    file: File,
    places: Vec<(u64, u64)>,
}

impl Blobs for OnDisk {
    fn read(&self, entry: usize) -> Result<Vec<u8>, RepositoryError> {
        let Some(&(at, size)) = self.places.get(entry) else { return Ok(Vec::new()) };
        let size = usize::try_from(size).map_err(|_| RepositoryError::broken("a file is too large"))?;
        let mut bytes = vec![0; size];
        self.file.read_exact_at(&mut bytes, at).map_err(RepositoryError::Disk)?;
        Ok(bytes)
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
