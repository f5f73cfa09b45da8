//! Files into a workspace and out of it.

use std::collections::BTreeSet;
use std::time::Duration;

use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures::{Stream, StreamExt};

use super::cell::{DockerCell, Fate, State};
use super::engine::{QUICK, timed};
use super::error::EngineError;
use super::spec::{self, WORKSPACE};
use crate::archive::{Archive, ArchiveBuilder, ArchiveError, ArchiveLimits, EntryKind, Listing};
use crate::job::RelativePath;
use crate::sandbox::{Ended, SandboxError};

/// How long files may be on their way.
const MOVING: Duration = Duration::from_secs(120);

/// What the kernel gives a file at least, and in steps of.
const PAGE: u64 = 4096;

/// A tar file is made of such blocks: one or a few before each file.
const TAR_BLOCK: u64 = 512;

impl DockerCell {
    /// Unpacks files into the workspace.
    pub(super) async fn unpack(&self, files: &Archive) -> Result<(), SandboxError> {
        let mut state = self.state.lock().await;
        if let Some(ended) = state.ended {
            return Err(SandboxError::Gone(ended));
        }
        let full = SandboxError::WorkspaceFull { limit_mib: self.limits.disk_mib };
        let limits = ArchiveLimits { bytes: u64::MAX, entries: spec::inodes(self.limits.disk_mib) };
        let listing = match list(files.clone(), None, limits).await {
            Err(ArchiveError::TooMany { .. }) => return Err(full),
            listing => listing?,
        };
        let need = Need::of(&listing);
        if !need.fits(&Need::default(), self.limits.disk_mib) {
            return Err(full);
        }
        let paused = self.still(&mut state).await?;
        let unpacked = self.send(files, &listing).await;
        let unpacked = match unpacked {
            // What was there before may be what leaves no room. The engine only says that it failed.
            Err(EngineError::Refused { status: 500, .. }) if state.used => match self.need().await? {
                Some(there) if need.fits(&there, self.limits.disk_mib) => unpacked.map_err(SandboxError::from),
                _ => Err(full),
            },
            unpacked => unpacked.map_err(SandboxError::from),
        };
        self.go_on(&mut state, paused).await?;
        unpacked
    }

    async fn send(&self, files: &Archive, listing: &Listing) -> Result<(), EngineError> {
        // The engine gives folders that are not listed to root.
        let folders = unlisted_folders(listing);
        if !folders.is_empty() {
            let limits = ArchiveLimits { bytes: u64::MAX, entries: u64::MAX };
            let made = async {
                let mut builder = ArchiveBuilder::new(limits)?;
                for folder in &folders {
                    builder.folder(folder)?;
                }
                builder.finish()
            };
            let made = made.await.map_err(|error: ArchiveError| EngineError::Unreadable {
                step: "packing folders",
                detail: error.to_string(),
            })?;
            self.upload(&made).await?;
        }
        self.upload(files).await
    }

    async fn upload(&self, files: &Archive) -> Result<(), EngineError> {
        let options = UploadToContainerOptionsBuilder::new().path(WORKSPACE).build();
        let body = bollard::body_try_stream(files.chunks());
        timed("sending files", MOVING, self.engine.docker.upload_to_container(self.name(), Some(options), body)).await
    }

    /// A file or folder of the workspace.
    pub(super) async fn pack(
        &self,
        path: Option<&RelativePath>,
        limits: ArchiveLimits,
    ) -> Result<Option<Archive>, SandboxError> {
        let mut state = self.state.lock().await;
        if self.owned.0.unwanted().is_cancelled() {
            return Err(SandboxError::Gone(state.ended.unwrap_or(Ended::Exited)));
        }
        let paused = self.still(&mut state).await?;
        let packed = self.receive(path, limits).await;
        let packed = match packed {
            Err(SandboxError::Engine(_)) if self.fate().await? != Some(Fate::Running) => {
                Err(SandboxError::Gone(state.ended.unwrap_or(Ended::Exited)))
            }
            packed => packed,
        };
        self.go_on(&mut state, paused).await?;
        packed
    }

    async fn receive(
        &self,
        path: Option<&RelativePath>,
        limits: ArchiveLimits,
    ) -> Result<Option<Archive>, SandboxError> {
        let limit = tokio::time::Instant::now() + MOVING;
        let silent = || EngineError::Silent { step: "fetching files", limit: MOVING };
        let mut stream = self.download(path);
        let first = tokio::time::timeout_at(limit, stream.next()).await.map_err(|_| silent())?;
        let first = match first {
            Some(Err(error)) if error.is_absent() => {
                return match self.fate().await? {
                    Some(Fate::Running) => Ok(None),
                    Some(Fate::Ended(ended)) => Err(SandboxError::Gone(ended)),
                    None => Err(SandboxError::Gone(Ended::Exited)),
                };
            }
            // No such path for another reason: a file where a folder should be, links in a circle.
            Some(Err(EngineError::Refused { status: 500, .. })) if path.is_some() && self.has_workspace().await? => {
                return Ok(None);
            }
            first => first,
        };
        // What fails on the way is the engine's failure, and no broken archive.
        let mut failed = None;
        let pieces = futures::stream::iter(first).chain(stream).map(|piece| {
            piece.map_err(|error| {
                let words = error.to_string();
                failed = Some(error);
                words
            })
        });
        let received = tokio::time::timeout_at(limit, Archive::receive(pieces, limits)).await.map_err(|_| silent())?;
        match (received, failed) {
            (_, Some(error)) => Err(error.into()),
            (received, None) => Ok(Some(received?)),
        }
    }

    fn download(
        &self,
        path: Option<&RelativePath>,
    ) -> std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, EngineError>> + Send>> {
        let path = match path {
            Some(path) => format!("{WORKSPACE}/{path}"),
            None => WORKSPACE.to_owned(),
        };
        let options = DownloadFromContainerOptionsBuilder::new().path(&path).build();
        let stream = self.engine.docker.download_from_container(self.name(), Some(options));
        Box::pin(stream.map(|piece| piece.map_err(|error| EngineError::of("fetching files", error))))
    }

    /// Whether the engine finds at least the workspace.
    async fn has_workspace(&self) -> Result<bool, EngineError> {
        let options = ContainerArchiveInfoOptionsBuilder::new().path(WORKSPACE).build();
        let looked = self.engine.docker.get_container_archive_info(self.name(), Some(options));
        match timed("looking at a workspace", QUICK, looked).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_down() => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// What the workspace holds now; `None` when that looks like more than it can hold, as files with holes do.
    async fn need(&self) -> Result<Option<Need>, SandboxError> {
        let entries = spec::inodes(self.limits.disk_mib);
        let headers = entries * 4 * TAR_BLOCK;
        let limits = ArchiveLimits { bytes: (u64::from(self.limits.disk_mib) << 20) + headers, entries };
        let listed = match self.receive(None, limits).await {
            Ok(Some(all)) => list(all, Some("workspace"), limits).await,
            Ok(None) => return Ok(None),
            Err(SandboxError::Archive(error)) => Err(error),
            Err(error) => return Err(error),
        };
        match listed {
            Ok(listing) => Ok(Some(Need::of(&listing))),
            Err(ArchiveError::TooLarge { .. } | ArchiveError::TooMany { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Stops what runs, so that nobody changes files while the engine follows paths. Says whether it has to be resumed.
    async fn still(&self, state: &mut State) -> Result<bool, SandboxError> {
        if !state.used || state.ended.is_some() {
            return Ok(false);
        }
        match self.pause().await {
            Ok(()) => Ok(true),
            Err(error) if error.is_down() => Err(error.into()),
            Err(error) => match self.fate().await? {
                Some(Fate::Running) => Err(error.into()),
                Some(Fate::Ended(ended)) => {
                    state.ended = Some(ended);
                    Err(SandboxError::Gone(ended))
                }
                None => Err(SandboxError::Gone(Ended::Exited)),
            },
        }
    }

    async fn go_on(&self, state: &mut State, paused: bool) -> Result<(), SandboxError> {
        if !paused || state.ended.is_some() {
            return Ok(());
        }
        self.resume().await.map_err(|error| {
            self.owned.0.begin();
            error.into()
        })
    }
}

async fn list(files: Archive, root: Option<&'static str>, limits: ArchiveLimits) -> Result<Listing, ArchiveError> {
    tokio::task::spawn_blocking(move || files.list(root, limits))
        .await
        .map_err(|error| ArchiveError::Disk(std::io::Error::other(error)))?
}

/// Room that files take in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Need {
    bytes: u64,
    entries: u64,
}

impl Need {
    fn of(listing: &Listing) -> Self {
        let pages = |size: u64| size.div_ceil(PAGE).saturating_mul(PAGE);
        let bytes = listing.entries.iter().map(|entry| pages(entry.size)).fold(0, u64::saturating_add);
        Self { bytes, entries: listing.entries.len() as u64 }
    }

    fn fits(&self, there: &Self, disk_mib: u32) -> bool {
        let fits = |one: u64, other: u64, limit: u64| one.checked_add(other).is_some_and(|sum| sum <= limit);
        fits(self.bytes, there.bytes, u64::from(disk_mib) << 20)
            // The workspace itself is an entry.
            && fits(self.entries, there.entries, spec::inodes(disk_mib) - 1)
    }
}

/// Folders that files lie in and that no entry makes, outermost first.
fn unlisted_folders(listing: &Listing) -> Vec<RelativePath> {
    let listed: BTreeSet<&str> = (listing.entries.iter())
        .filter(|entry| entry.kind == EntryKind::Folder)
        .map(|entry| entry.path.as_str())
        .collect();
    let mut missing = BTreeSet::new();
    for entry in &listing.entries {
        let path = entry.path.as_str();
        for (at, _) in path.match_indices('/') {
            if !listed.contains(&path[..at]) {
                missing.insert(&path[..at]);
            }
        }
    }
    missing.into_iter().filter_map(|path| path.parse().ok()).collect()
}
