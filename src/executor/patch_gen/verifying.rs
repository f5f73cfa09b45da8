//! Whether a patch holds good: on the commit's files, in a cell that has seen nothing else.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::told::{cancelled, sandbox_failed};
use super::log::{LOG_BYTES, end};
use super::{PatchGenExecutor, PatchWork};
use crate::archive::{Archive, ArchiveBuilder, ArchiveLimits};
use crate::job::{Code, Failure, RelativePath};
use crate::sandbox::{Cell, Command, Ended, Ran, SandboxError};

/// Time of `git apply`: much for what takes a moment.
const APPLY_TIME: Duration = Duration::from_secs(60);

/// What a shell exits with when there is no such program.
const NO_PROGRAM: i64 = 127;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verified {
    /// How the test command ended, when there was one. 0, or it would be a failure.
    pub(super) test_exit_code: Option<i64>,
}

impl PatchGenExecutor {
    /// Applies the patch to the commit's files in this cell, and runs the test command there.
    pub(super) async fn verify(
        &self,
        cell: &dyn Cell,
        work: &PatchWork,
        files: &Archive,
        patch: &NamedPatch<'_>,
        time: Duration,
        cancel: &CancellationToken,
    ) -> Result<Verified, Failure> {
        cell.put(files).await.map_err(|error| sandbox_failed(&error))?;
        cell.put(&patch.archive()?).await.map_err(|error| sandbox_failed(&error))?;
        let begun = tokio::time::Instant::now();
        let applied = run(cell, &patch.command(), APPLY_TIME.min(time), cancel).await?;
        if applied.exit_code == NO_PROGRAM {
            tracing::error!(image = %work.image, "There is no git in the image that patches are made in");
            return Err(Failure::backend(
                "the provider's sandbox lacks what patches are verified with; please try elsewhere",
            ));
        }
        if applied.ended != Ended::Exited || applied.exit_code != 0 {
            let text = "the patch does not apply to a fresh checkout of the commit; nothing is charged";
            return Err(Failure::backend(text).in_vain().with_log(log_of(&applied)));
        }
        let Some(test) = work.asked.verified_with() else { return Ok(Verified { test_exit_code: None }) };
        let left = time.saturating_sub(begun.elapsed());
        let command =
            Command { shell: test.to_owned(), workdir: None, env: Vec::new(), timeout: left, keep_bytes: LOG_BYTES };
        let tested = cell.run(&command, cancel).await.map_err(|error| match error {
            // It took the cell down with it.
            error @ SandboxError::Gone(_) => Failure::from(sandbox_failed(&error)).in_vain(),
            error => sandbox_failed(&error).into(),
        })?;
        match (tested.ended, tested.exit_code) {
            (Ended::Exited, 0) => Ok(Verified { test_exit_code: Some(0) }),
            (ended, code) => Err(failed(ended, code, left).in_vain().with_log(log_of(&tested))),
        }
    }
}

/// The failure of a patch whose test did not succeed.
fn failed(ended: Ended, exit_code: i64, time: Duration) -> Failure {
    let (code, how) = match ended {
        Ended::Exited if exit_code == NO_PROGRAM => (
            Code::Backend,
            format!("it ended with exit code {exit_code}; perhaps this provider's image does not have the program"),
        ),
        Ended::Exited => (Code::Backend, format!("it ended with exit code {exit_code}")),
        Ended::TimedOut => {
            (Code::Timeout, format!("it took longer than the {} s that were left for it", time.as_secs()))
        }
        Ended::OutOfMemory => (Code::Backend, "it wanted more memory than there is".to_owned()),
        Ended::TooMuchOutput => (Code::Backend, "it wrote too much".to_owned()),
    };
    let text = format!(
        "the patch does not pass its test command: {how}; nothing is charged, and the content holds the end of what it wrote"
    );
    Failure::new(code, text)
}

async fn run(cell: &dyn Cell, shell: &str, timeout: Duration, cancel: &CancellationToken) -> Result<Ran, Failure> {
    let env = [("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")];
    let command = Command {
        shell: shell.to_owned(),
        workdir: None,
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        timeout,
        keep_bytes: LOG_BYTES,
    };
    match cell.run(&command, cancel).await {
        Ok(ran) => Ok(ran),
        Err(SandboxError::Cancelled) => Err(cancelled().into()),
        Err(error) => Err(sandbox_failed(&error).into()),
    }
}

/// What a command wrote last, standard error behind standard output.
fn log_of(ran: &Ran) -> String {
    let half = LOG_BYTES / 2 - 8;
    let parts = [&ran.stdout, &ran.stderr].map(|output| end(output.text.trim_end(), half));
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

/// A patch as a file of the workspace, under a name that follows from its hash: so no file of the repository, and none of the
/// patch, has it.
pub(super) struct NamedPatch<'a> {
    text: &'a str,
    path: RelativePath,
}

impl<'a> NamedPatch<'a> {
    /// The patch of that hash.
    pub(super) fn new(text: &'a str, sha256: &str) -> Self {
        let path = format!(".{sha256}.patch").parse().expect("a dot, digits and letters are a name");
        Self { text, path }
    }

    fn archive(&self) -> Result<Archive, Failure> {
        // A header, the file and padding, and the archive's end.
        let limits = ArchiveLimits { bytes: self.text.len() as u64 + 4 * 1024, entries: 1 };
        let made = ArchiveBuilder::new(limits).and_then(|mut builder| {
            builder.file(&self.path, false, self.text.as_bytes())?;
            builder.finish()
        });
        made.map_err(|error| {
            tracing::error!(%error, "A patch can't be put into an archive");
            Failure::backend("the provider's disk failed; please try again")
        })
    }

    /// Applies it, and removes the file.
    fn command(&self) -> String {
        let path = self.path.as_str();
        format!("git apply --whitespace=nowarn {path} && rm {path}")
    }
}
