//! A workspace on its way into a sandbox or out of it: a tar file of bounded size whose paths stay inside.
//!
//! It lies in a temporary file without a name, so that a process that dies leaves nothing behind. What comes out of a sandbox
//! is hostile: a path or link that leads outside, a device, a name that can't be printed is never handed on.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tar::{EntryType, Header};

use crate::job::RelativePath;

/// Who owns the files in a sandbox, and runs the commands: nobody on the machine outside.
pub const OWNER: u64 = 65_532;

/// When files were changed, for all of them the same: archives of the same files are the same. Not 1970, which some archivers
/// take for an error; in seconds.
const CHANGED_AT: u64 = 1_000_000_000;

/// Bytes read from an archive at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Bounds on an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Bytes of the tar file, headers included.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

/// Why an archive can't be made or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Too much.
    #[error("the files have more than {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: u64,
    },
    /// Too many.
    #[error("there are more than {limit} files and folders")]
    TooMany {
        /// Entries allowed.
        limit: u64,
    },
    /// It is no tar file, or one that leads outside.
    #[error("it is no archive of a workspace: {0}")]
    Broken(String),
    /// Our own disk failed.
    #[error("a temporary file can't be used")]
    Disk(#[from] io::Error),
}

/// A tar file.
#[derive(Debug, Clone)]
pub struct Archive {
    file: Arc<File>,
    bytes: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File {
        /// Whether it can be run.
        executable: bool,
    },
    /// A folder.
    Folder,
    /// A symbolic link. Where it leads is only a text here.
    Link {
        /// Its target as written.
        target: String,
    },
}

/// A file, folder or link of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// Where.
    pub path: RelativePath,
    /// What.
    pub kind: EntryKind,
    /// Bytes of a file.
    pub size: u64,
    at: u64,
}

/// What is in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// In the order of the archive.
    pub entries: Vec<ArchiveEntry>,
    /// Entries that are left out: devices, pipes, names that are no text.
    pub skipped: u64,
}

impl Archive {
    /// Bytes of the tar file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes in a tar file from a stream.
    ///
    /// # Errors
    /// When it is larger than `limits` say or the stream fails; how many entries it has is found by [`Archive::list`].
    pub async fn receive<E: std::fmt::Display>(
        stream: impl Stream<Item = Result<Bytes, E>>,
        limits: ArchiveLimits,
    ) -> Result<Self, ArchiveError> {
        let mut file = tempfile::tempfile()?;
        let mut bytes = 0_u64;
        let mut stream = std::pin::pin!(stream);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| ArchiveError::Broken(error.to_string()))?;
            bytes += chunk.len() as u64;
            if bytes > limits.bytes {
                return Err(ArchiveError::TooLarge { limit: limits.bytes });
            }
            file = blocking(move || file.write_all(&chunk).map(|()| file)).await?;
        }
        Ok(Self { file: Arc::new(file), bytes })
    }

    /// The tar file in pieces.
    pub fn chunks(&self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static + use<> {
        let reader = self.reader();
        futures::stream::try_unfold(reader, |mut reader| async move {
            blocking(move || {
                let mut chunk = vec![0; CHUNK_BYTES];
                let read = reader.read(&mut chunk)?;
                chunk.truncate(read);
                Ok((read > 0).then(|| (Bytes::from(chunk), reader)))
            })
            .await
        })
    }

    /// The tar file from its beginning, for as many readers as like.
    pub fn reader(&self) -> ArchiveReader {
        ArchiveReader { file: Arc::clone(&self.file), at: 0, end: self.bytes }
    }

    /// What is in it. `root` is the folder that everything lies in and that is left out of the paths, if there is one. Waits for
    /// the disk.
    ///
    /// # Errors
    /// When it is no tar file, has more entries than `limits` say, or a path in it leads outside.
    pub fn list(&self, root: Option<&str>, limits: ArchiveLimits) -> Result<Listing, ArchiveError> {
        let mut listing = Listing::default();
        let mut files: HashMap<RelativePath, (EntryKind, u64, u64)> = HashMap::new();
        let mut archive = tar::Archive::new(self.reader());
        let broken = |error: io::Error| ArchiveError::Broken(error.to_string());
        let mut seen = 0_u64;
        for entry in archive.entries().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            seen += 1;
            if seen > limits.entries {
                return Err(ArchiveError::TooMany { limit: limits.entries });
            }
            let path = match within(&entry.path_bytes(), root)? {
                Found::Path(path) => path,
                Found::Root => continue,
                Found::Unprintable => {
                    listing.skipped += 1;
                    continue;
                }
            };
            let executable = entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0);
            let (kind, size, at) = match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    (EntryKind::File { executable }, entry.size(), entry.raw_file_position())
                }
                EntryType::Directory => (EntryKind::Folder, 0, 0),
                EntryType::Symlink => {
                    let target = entry.link_name_bytes().unwrap_or_default();
                    match String::from_utf8(target.into_owned()) {
                        Ok(target) => (EntryKind::Link { target }, 0, 0),
                        Err(_) => {
                            listing.skipped += 1;
                            continue;
                        }
                    }
                }
                // Another name of a file that came before.
                EntryType::Link => {
                    let target = entry.link_name_bytes().unwrap_or_default();
                    match within(&target, root)? {
                        Found::Path(target) => match files.get(&target) {
                            Some(known) => known.clone(),
                            None => return Err(ArchiveError::Broken("a hard link to nothing in it".into())),
                        },
                        Found::Root | Found::Unprintable => {
                            listing.skipped += 1;
                            continue;
                        }
                    }
                }
                _ => {
                    listing.skipped += 1;
                    continue;
                }
            };
            if matches!(kind, EntryKind::File { .. }) {
                files.insert(path.clone(), (kind.clone(), size, at));
            }
            listing.entries.push(ArchiveEntry { path, kind, size, at });
        }
        Ok(listing)
    }

    /// The bytes of a file that [`Archive::list`] listed. Waits for the disk.
    ///
    /// # Errors
    /// When the archive ends before the file does.
    pub fn read(&self, entry: &ArchiveEntry) -> Result<Vec<u8>, ArchiveError> {
        let ends = entry.at.checked_add(entry.size).is_some_and(|end| end <= self.bytes);
        let size = usize::try_from(entry.size).ok().filter(|_| ends);
        let size = size.ok_or_else(|| ArchiveError::Broken("it ends in the middle of a file".into()))?;
        let mut content = vec![0; size];
        self.file.read_exact_at(&mut content, entry.at)?;
        Ok(content)
    }
}

enum Found {
    Path(RelativePath),
    Root,
    Unprintable,
}

/// A path of an archive without the folder that everything lies in.
fn within(path: &[u8], root: Option<&str>) -> Result<Found, ArchiveError> {
    let outside = || ArchiveError::Broken("a path that leads outside".into());
    let Ok(path) = std::str::from_utf8(path) else { return Ok(Found::Unprintable) };
    let path = match root {
        None => path,
        Some(root) => {
            let inside = path.strip_prefix(root).ok_or_else(outside)?;
            match inside.strip_prefix('/') {
                Some(inside) => inside,
                None if inside.is_empty() => inside,
                None => return Err(outside()),
            }
        }
    };
    if matches!(path, "" | "." | "./") {
        return Ok(Found::Root);
    }
    match path.parse() {
        Ok(path) => Ok(Found::Path(path)),
        Err(crate::job::BadPath::Control) => Ok(Found::Unprintable),
        Err(_) => Err(outside()),
    }
}

/// Reads an archive from its beginning, whoever else reads it.
#[derive(Debug)]
pub struct ArchiveReader {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for ArchiveReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..left], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Makes an archive. Waits for the disk.
pub struct ArchiveBuilder {
    tar: tar::Builder<Counted>,
    entries: u64,
    limits: ArchiveLimits,
}

impl std::fmt::Debug for ArchiveBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveBuilder").field("entries", &self.entries).finish_non_exhaustive()
    }
}

/// A file that counts and stops at a limit.
struct Counted {
    file: File,
    bytes: u64,
    limit: u64,
}

impl Write for Counted {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.bytes + buffer.len() as u64 > self.limit {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let written = self.file.write(buffer)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl ArchiveBuilder {
    /// An empty archive.
    ///
    /// # Errors
    /// When no temporary file can be made.
    pub fn new(limits: ArchiveLimits) -> Result<Self, ArchiveError> {
        let file = tempfile::tempfile()?;
        let mut tar = tar::Builder::new(Counted { file, bytes: 0, limit: limits.bytes });
        tar.follow_symlinks(false);
        Ok(Self { tar, entries: 0, limits })
    }

    /// Adds a folder.
    ///
    /// # Errors
    /// When a limit is reached, here as below.
    pub fn folder(&mut self, path: &RelativePath) -> Result<(), ArchiveError> {
        self.append(EntryType::Directory, &format!("{path}/"), 0o755, &[], None)
    }

    /// Adds a file. What its folders are is the unpacker's business.
    pub fn file(&mut self, path: &RelativePath, executable: bool, content: &[u8]) -> Result<(), ArchiveError> {
        let mode = if executable { 0o755 } else { 0o644 };
        self.append(EntryType::Regular, path.as_str(), mode, content, None)
    }

    /// Adds a symbolic link. It leads where it says inside the sandbox, and nobody follows it outside.
    pub fn link(&mut self, path: &RelativePath, target: &str) -> Result<(), ArchiveError> {
        self.append(EntryType::Symlink, path.as_str(), 0o777, &[], Some(target))
    }

    /// The whole.
    pub fn finish(self) -> Result<Archive, ArchiveError> {
        let limit = self.limits.bytes;
        let counted = self.tar.into_inner().map_err(|error| disk(error, limit))?;
        Ok(Archive { file: Arc::new(counted.file), bytes: counted.bytes })
    }

    fn append(
        &mut self,
        kind: EntryType,
        path: &str,
        mode: u32,
        content: &[u8],
        target: Option<&str>,
    ) -> Result<(), ArchiveError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(ArchiveError::TooMany { limit: self.limits.entries });
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(OWNER);
        header.set_gid(OWNER);
        header.set_mtime(CHANGED_AT);
        header.set_size(content.len() as u64);
        let limit = self.limits.bytes;
        match target {
            Some(target) => self.tar.append_link(&mut header, path, target),
            None => self.tar.append_data(&mut header, path, content),
        }
        .map_err(|error| disk(error, limit))
    }
}

fn disk(error: io::Error, limit: u64) -> ArchiveError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => ArchiveError::TooLarge { limit },
        _ => ArchiveError::Disk(error),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ArchiveLimits = ArchiveLimits { bytes: 64 * 1024, entries: 8 };

    fn path(text: &str) -> RelativePath {
        text.parse().unwrap()
    }

    fn raw(entries: &[(EntryType, &[u8], &[u8])]) -> Archive {
        let mut bytes = Vec::new();
        for (kind, path, target) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(0);
            header.as_old_mut().name[..path.len()].copy_from_slice(path);
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
        }
        bytes.extend_from_slice(&[0; 1024]);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        Archive { file: Arc::new(file), bytes: bytes.len() as u64 }
    }

    #[tokio::test]
    async fn what_goes_in_comes_out() {
        let mut builder = ArchiveBuilder::new(LIMITS).unwrap();
        builder.folder(&path("src")).unwrap();
        builder.file(&path("src/run.sh"), true, b"echo hi\n").unwrap();
        builder.file(&path(&"long/".repeat(40)), false, b"x").unwrap();
        builder.link(&path("link"), "src/run.sh").unwrap();
        let made = builder.finish().unwrap();
        let archive = Archive::receive(made.chunks(), LIMITS).await.unwrap();
        assert_eq!(archive.bytes(), made.bytes());
        let listing = archive.list(None, LIMITS).unwrap();
        let kinds: Vec<_> = listing.entries.iter().map(|entry| entry.kind.clone()).collect();
        let link = EntryKind::Link { target: "src/run.sh".into() };
        let file = |executable| EntryKind::File { executable };
        assert_eq!(kinds, [EntryKind::Folder, file(true), file(false), link]);
        assert_eq!(archive.read(&listing.entries[1]).unwrap(), b"echo hi\n");
        assert_eq!(archive.read(&listing.entries[2]).unwrap(), b"x");
    }

    #[tokio::test]
    async fn an_archive_stays_within_its_limits() {
        let mut builder = ArchiveBuilder::new(LIMITS).unwrap();
        let large = vec![b'x'; 70_000];
        assert!(matches!(builder.file(&path("a"), false, &large), Err(ArchiveError::TooLarge { limit: 65_536 })));
        let mut builder = ArchiveBuilder::new(LIMITS).unwrap();
        (0..8).for_each(|n| builder.file(&path(&format!("f{n}")), false, b"").unwrap());
        assert!(matches!(builder.file(&path("one-more"), false, b""), Err(ArchiveError::TooMany { limit: 8 })));
        let archive = builder.finish().unwrap();
        let tight = ArchiveLimits { bytes: 2_000, entries: 7 };
        assert!(matches!(
            Archive::receive(archive.chunks(), tight).await,
            Err(ArchiveError::TooLarge { limit: 2_000 })
        ));
        assert!(matches!(archive.list(None, tight), Err(ArchiveError::TooMany { limit: 7 })));
    }

    #[test]
    fn what_leads_outside_is_no_workspace() {
        for (kind, name, target) in [
            (EntryType::Regular, &b"../up"[..], &b""[..]),
            (EntryType::Regular, b"/etc/passwd", b""),
            (EntryType::Regular, b"workspace/../../x", b""),
            (EntryType::Regular, b"workspaces/x", b""),
            (EntryType::Link, b"workspace/x", b"workspace/never-seen"),
            (EntryType::Link, b"workspace/x", b"/etc/shadow"),
        ] {
            let found = raw(&[(kind, name, target)]).list(Some("workspace"), LIMITS);
            assert!(matches!(found, Err(ArchiveError::Broken(_))), "{name:?} {found:?}");
        }
    }

    #[test]
    fn devices_and_unprintable_names_are_left_out_and_hard_links_are_files() {
        let archive = raw(&[
            (EntryType::Directory, b"workspace/", b""),
            (EntryType::Regular, b"workspace/a", b""),
            (EntryType::Link, b"workspace/b", b"workspace/a"),
            (EntryType::Block, b"workspace/sda", b""),
            (EntryType::Fifo, b"workspace/pipe", b""),
            (EntryType::Regular, b"workspace/\xff", b""),
            (EntryType::Regular, b"workspace/\x1b[2J", b""),
        ]);
        let listing = archive.list(Some("workspace"), LIMITS).unwrap();
        let names: Vec<_> = listing.entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!((names, listing.skipped), (vec!["a", "b"], 4));
        assert!(listing.entries.iter().all(|entry| matches!(entry.kind, EntryKind::File { .. })));
    }

    #[test]
    fn a_file_that_claims_more_than_there_is_can_not_be_read() {
        let archive = raw(&[(EntryType::Regular, b"a", b"")]);
        let mut entry = archive.list(None, LIMITS).unwrap().entries.remove(0);
        for size in [4_096, u64::MAX] {
            entry.size = size;
            assert!(archive.read(&entry).is_err());
        }
    }
}
