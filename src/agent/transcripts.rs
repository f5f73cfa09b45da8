//! Where transcripts are kept: on the provider's machine, a file for each job, for the operator's eyes. Receipts name their
//! hash.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::job::JobId;

/// What files of transcripts end with.
const ENDING: &str = "jsonl";

/// A folder of transcripts.
#[derive(Debug, Clone)]
pub struct Transcripts {
    folder: PathBuf,
}

impl Transcripts {
    /// In that folder, which is made when it is not there.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Keeps a job's transcript, readable for the owner of the process alone: wholly, or not at all.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn keep(&self, job: JobId, transcript: String) -> io::Result<()> {
        let folder = self.folder.clone();
        blocking(move || {
            std::fs::create_dir_all(&folder)?;
            // Made with mode 0600.
            let mut file = tempfile::NamedTempFile::new_in(&folder)?;
            file.write_all(transcript.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(folder.join(format!("{job}.{ENDING}")))?;
            Ok(())
        })
        .await
    }

    /// Removes the transcripts that were kept before that time, and what a process that died left half written. Returns how
    /// many files are gone.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn prune(&self, before: Timestamp) -> io::Result<usize> {
        let folder = self.folder.clone();
        blocking(move || {
            let entries = match std::fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
                entries => entries?,
            };
            let mut gone = 0;
            for entry in entries {
                let entry = entry?;
                let kept = Timestamp::try_from(entry.metadata()?.modified()?).map_err(io::Error::other)?;
                if kept < before && is_ours(&entry.path()) {
                    std::fs::remove_file(entry.path())?;
                    gone += 1;
                }
            }
            Ok(gone)
        })
        .await
    }
}

/// Whether a file is a transcript, or was going to be one.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    path.extension().is_some_and(|ending| ending == ENDING) || name.starts_with(".tmp")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use jiff::SignedDuration;

    use super::*;

    #[tokio::test]
    async fn a_transcript_is_kept_for_its_owner_until_its_time_is_over() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("transcripts");
        let transcripts = Transcripts::new(folder.clone());
        let now = Timestamp::now();
        assert_eq!(transcripts.prune(now).await.unwrap(), 0);
        let job = JobId([7; 32]);
        transcripts.keep(job, "old\n".into()).await.unwrap();
        transcripts.keep(job, "new\n".into()).await.unwrap();
        let file = folder.join(format!("{job}.jsonl"));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new\n");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(folder.join("somebody else's"), "").unwrap();
        assert_eq!(transcripts.prune(now - SignedDuration::from_hours(1)).await.unwrap(), 0);
        assert_eq!(transcripts.prune(now + SignedDuration::from_hours(1)).await.unwrap(), 1);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }
}
