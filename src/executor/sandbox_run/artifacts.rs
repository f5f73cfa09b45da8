//! The files of a run: taken out of the cell, then given to the customer. Small ones stand in the result, larger ones are put
//! on a server of files if there is one, sealed where others may not read them (yet); any other is named with its hash, so
//! that a later run can show that it made the same.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bitcoin::hashes::{Hash, sha256};

use super::fitting::NO_ROOM;
use super::told;
use crate::archive::{Archive, ArchiveEntry, ArchiveError, ArchiveLimits, EntryKind};
use crate::blossom::{Blob, Blossom, BlossomError, SEALED_WITH};
use crate::job::sandbox_run::{Artifact, MissingArtifact, SandboxRunLimits, SealedFile};
use crate::job::{Failure, RelativePath};
use crate::sandbox::{Cell, SandboxError};

/// Bytes of a file that stands in the result.
const INLINE_BYTES: u64 = 8 * 1024;

/// Bytes of all of those together: the commands' texts want room, too.
const INLINE_BYTES_IN_ALL: u64 = 14 * 1024;

/// How long uploading all of a run's files may take: the run keeps its place until then.
const UPLOADING: Duration = Duration::from_secs(120);

/// Bytes an archive may have beside its files: a header and padding for each, and room for long names.
const BESIDE_A_FILE: u64 = 4 * 1024;

/// What was taken out of a cell.
pub(super) struct Collected {
    archives: Vec<(RelativePath, Archive, ArchiveLimits)>,
    missing: Vec<MissingArtifact>,
    limits: SandboxRunLimits,
}

/// Takes the files out. What is not there, or too large, is missing and no failure: it is the customer's own doing.
pub(super) async fn collect(
    cell: &dyn Cell,
    paths: &[RelativePath],
    limits: &SandboxRunLimits,
) -> Result<Collected, Failure> {
    let mut collected = Collected { archives: Vec::new(), missing: Vec::new(), limits: *limits };
    let most_files = limits.max_artifact_files as u64;
    let most_bytes = limits.max_artifact_bytes.saturating_add(most_files.saturating_mul(BESIDE_A_FILE));
    let mut left = most_bytes;
    for path in paths {
        // Twice as many entries as files: folders are entries, too.
        let bounds = ArchiveLimits { bytes: left, entries: most_files.saturating_mul(2) };
        let why = match cell.get(Some(path), bounds).await {
            Ok(Some(archive)) => {
                left = left.saturating_sub(archive.bytes());
                collected.archives.push((path.clone(), archive, bounds));
                continue;
            }
            Ok(None) => "there is no such file or folder".to_owned(),
            Err(SandboxError::Archive(error)) => not_taken(&error, limits),
            Err(SandboxError::Gone(_)) => "it went with the run's time or memory".to_owned(),
            Err(error) => return Err(told(&error).into()),
        };
        collected.missing.push(MissingArtifact { path: path.to_string(), why });
    }
    Ok(collected)
}

fn not_taken(error: &ArchiveError, limits: &SandboxRunLimits) -> String {
    match error {
        ArchiveError::TooLarge { .. } => too_large(limits),
        ArchiveError::TooMany { .. } => too_many(limits),
        ArchiveError::Broken(_) | ArchiveError::Disk(_) => "it can't be read".to_owned(),
    }
}

fn too_large(limits: &SandboxRunLimits) -> String {
    format!("what is returned has at most {} bytes in all", limits.max_artifact_bytes)
}

fn too_many(limits: &SandboxRunLimits) -> String {
    format!("at most {} files are returned", limits.max_artifact_files)
}

impl Collected {
    /// Hands the files on, to `files` what the result has no room for: as it is when it is `open` to all, else sealed.
    pub(super) async fn deliver(
        self,
        files: Option<&Blossom>,
        open: bool,
    ) -> Result<(Vec<Artifact>, Vec<MissingArtifact>), Failure> {
        let Self { archives, mut missing, limits } = self;
        let (mut artifacts, mut bytes) = (Vec::new(), 0_u64);
        let mut handing =
            Handing { files, open, inline: 0, until: tokio::time::Instant::now() + UPLOADING, gone: false };
        for (asked, archive, bounds) in archives {
            let listed = blocking({
                let archive = archive.clone();
                move || archive.list(None, bounds).map(|listing| listing.entries)
            })
            .await?;
            let entries = match listed {
                Ok(entries) => entries,
                Err(error) => {
                    missing.push(MissingArtifact { path: asked.into(), why: not_taken(&error, &limits) });
                    continue;
                }
            };
            for entry in entries {
                let path = in_workspace(&asked, &entry.path);
                let why = match entry.kind {
                    EntryKind::Folder => continue,
                    EntryKind::Link { .. } => "it is a link; ask for what it leads to".to_owned(),
                    EntryKind::File { .. } if artifacts.len() >= limits.max_artifact_files => too_many(&limits),
                    EntryKind::File { .. } if bytes.saturating_add(entry.size) > limits.max_artifact_bytes => {
                        too_large(&limits)
                    }
                    EntryKind::File { .. } => {
                        bytes += entry.size;
                        let content = read(&archive, entry).await?;
                        artifacts.push(handing.hand_on(path, content).await);
                        continue;
                    }
                };
                missing.push(MissingArtifact { path, why });
            }
        }
        Ok((artifacts, missing))
    }
}

/// Where an entry of what was asked for lies. The last name of what was asked for is the entry's first.
fn in_workspace(asked: &RelativePath, entry: &RelativePath) -> String {
    asked.parent().map_or_else(|| entry.to_string(), |parent| format!("{parent}/{entry}"))
}

async fn read(archive: &Archive, entry: ArchiveEntry) -> Result<Vec<u8>, Failure> {
    let archive = archive.clone();
    blocking(move || archive.read(&entry)).await?.map_err(|error| {
        tracing::warn!(%error, "A file of a run can't be read");
        Failure::backend("the run's files could not be read; please try again")
    })
}

/// How a run's files reach the customer.
struct Handing<'a> {
    files: Option<&'a Blossom>,
    open: bool,
    /// Bytes of files that stand in the result.
    inline: u64,
    until: tokio::time::Instant,
    /// The server is out of order, after several tries: nobody waits for it another time.
    gone: bool,
}

impl Handing<'_> {
    async fn hand_on(&mut self, path: String, content: Vec<u8>) -> Artifact {
        let size = content.len() as u64;
        let sha256 = sha256::Hash::hash(&content).to_string();
        let mut artifact = Artifact { path, sha256, size, url: None, sealed: None, data: None, why: None };
        if size <= INLINE_BYTES && self.inline + size <= INLINE_BYTES_IN_ALL {
            self.inline += size;
            artifact.data = Some(STANDARD.encode(content));
            return artifact;
        }
        let Some(files) = self.files else {
            artifact.why = Some(NO_ROOM.to_owned());
            return artifact;
        };
        match self.upload(files, content).await {
            Some(Blob { url, sha256, size, seal }) => {
                artifact.url = Some(url);
                artifact.sealed = seal.map(|seal| SealedFile {
                    encryption_algorithm: SEALED_WITH.to_owned(),
                    decryption_key: seal.key,
                    decryption_nonce: seal.nonce,
                    sha256,
                    size,
                });
            }
            None => artifact.why = Some(format!("it could not be uploaded, and {NO_ROOM}")),
        }
        artifact
    }

    async fn upload(&mut self, files: &Blossom, content: Vec<u8>) -> Option<Blob> {
        if self.gone {
            return None;
        }
        let open = self.open;
        let uploading = async move {
            if open {
                files.upload(content, "application/octet-stream").await
            } else {
                files.upload_sealed(content).await
            }
        };
        let timeout = BlossomError::Timeout { limit: UPLOADING };
        let put = tokio::time::timeout_at(self.until, uploading).await.unwrap_or(Err(timeout));
        put.inspect_err(|error| {
            tracing::warn!(%error, "A run's file could not be uploaded");
            self.gone = error.is_passing();
        })
        .ok()
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Failure::backend("the provider failed while reading the run's files"))
}
