//! A patch from the commit's files to its receipt.

use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, sha256};
use tokio_util::sync::CancellationToken;

use super::super::told::{cancelled, not_fetched, sandbox_failed};
use super::changes::{Allowed, NoPatch, between};
use super::log::end_of;
use super::verifying::{NamedPatch, Verified};
use super::{PatchGenExecutor, PatchWork, instructions};
use crate::agent::{Stopped, Task, WorkError, Worked};
use crate::archive::{Archive, ArchiveLimits};
use crate::code::diff::{Patch, PatchLimits};
use crate::job::patch_gen::PatchFacts;
use crate::job::{Code, Compute, Failure, FinishReason, Outcome, Usage};
use crate::repository::{RepositoryError, Snapshot};
use crate::sandbox::{Cell, CellLimits, CellSpec, Command, SandboxError};

/// How long after its time a cell is still there, for its files to be taken out.
const LAST_WORD: Duration = Duration::from_secs(60);

/// How long the agent's cell may take to remember the files as they were.
const REMEMBER_SECONDS: u32 = 30;

/// Bytes of a mebibyte.
const MIB: u64 = 1024 * 1024;

/// What came out of the agent's cell.
struct Made {
    worked: Worked,
    /// The files as they were left, when the agent says that it is done.
    workspace: Option<Archive>,
}

impl PatchGenExecutor {
    /// Does the work. Whatever comes of it, both cells are gone afterwards.
    pub(super) async fn make_patch(&self, work: &PatchWork, cancel: &CancellationToken) -> Result<Outcome, Failure> {
        let repository = &work.asked.repository.url;
        let fetched = self.repositories.snapshot(repository, &work.commit, work.customer, cancel).await;
        let snapshot = fetched.map_err(|error| not_fetched(&error))?;
        let files = self.packed(&snapshot).await?;

        // The first cell: the agent's.
        let cell = self.open(work, cancel).await?;
        let opened = Instant::now();
        let (image_digest, runtime) = (cell.image().digest.clone(), cell.runtime());
        let made = in_time(work.size.work_time(), self.agents_work(&*cell, work, &files, cancel), cancel).await;
        let work_time = opened.elapsed().min(work.size.work_time());
        cell.close().await;
        drop(cell);
        let Made { worked, workspace } = made?;
        let transcript_sha256 = self.keep(work, &worked).await;
        let workspace =
            workspace.ok_or_else(|| unfinished(worked.stopped).in_vain().with_log(end_of(&worked.transcript)))?;
        let patch = self.patch(work, snapshot, workspace).await?;

        // The second cell: nobody's yet.
        let patch_sha256 = sha256::Hash::hash(patch.text.as_bytes()).to_string();
        let cell = self.open(work, cancel).await?;
        let opened = Instant::now();
        let left = work.size.time.saturating_sub(work_time);
        let named = NamedPatch::new(&patch.text, &patch_sha256);
        let verified = in_time(left, self.verify(&*cell, work, &files, &named, left, cancel), cancel).await;
        let verify_time = opened.elapsed().min(left);
        cell.close().await;
        drop(cell);
        let Verified { test_exit_code } = verified?;

        let facts = PatchFacts {
            patch_sha256,
            commit: work.commit.to_string(),
            applies_cleanly: true,
            test_exit_code,
            files_changed: patch.files.len() as u64,
            lines_added: patch.added,
            lines_removed: patch.removed,
            model: worked.model.clone(),
            steps: u64::from(worked.steps),
            transcript_sha256: Some(transcript_sha256),
            image_digest: Some(image_digest),
            runtime: Some(runtime.word().to_owned()),
        };
        let wall = work_time.saturating_add(verify_time);
        Ok(Outcome {
            content: patch.text,
            usage: Usage { compute: Compute { wall, memory_mib: self.limits.memory_mib }, ..worked.usage },
            finish: FinishReason::Stop,
            model: worked.model,
            parameters: worked.parameters,
            digest: worked.digest,
            facts: facts.pairs(),
            duration: wall,
        })
    }

    /// Opens a cell when there is room for one. Waiting does not count as work.
    async fn open(&self, work: &PatchWork, cancel: &CancellationToken) -> Result<Box<dyn Cell>, Failure> {
        let spec = CellSpec {
            job: work.job.to_string(),
            image: work.image.clone(),
            runtime: self.runtime,
            limits: CellLimits {
                memory_mib: self.limits.memory_mib,
                disk_mib: self.limits.disk_mib,
                milli_cpus: self.limits.milli_cpus,
                pids: self.limits.pids,
                time: work.size.time.saturating_add(LAST_WORD),
            },
        };
        self.sandbox.open(&spec, cancel).await.map_err(|error| sandbox_failed(&error).into())
    }

    /// The agent's part, up to the files it leaves.
    async fn agents_work(
        &self,
        cell: &dyn Cell,
        work: &PatchWork,
        files: &Archive,
        cancel: &CancellationToken,
    ) -> Result<Made, Failure> {
        cell.put(files).await.map_err(|error| sandbox_failed(&error))?;
        let begun = Instant::now();
        let with_git = remember(cell, cancel).await?;
        let mut limits = self.work_limits(work.size);
        limits.time = limits.time.saturating_sub(begun.elapsed());
        let task = Task { instructions: instructions::of(work, with_git), model: work.model.clone(), limits };
        let worked = self.worker.work(&task, cell, cancel).await.map_err(work_failed)?;
        let workspace = match worked.stopped {
            Stopped::Submitted => Some(self.workspace_of(cell).await?),
            _ => None,
        };
        Ok(Made { worked, workspace })
    }

    async fn workspace_of(&self, cell: &dyn Cell) -> Result<Archive, Failure> {
        match cell.get(None, self.workspace_limits()).await {
            Ok(Some(archive)) => Ok(archive),
            Err(SandboxError::Archive(error)) => Err(no_patch(&NoPatch::Workspace(error))),
            Ok(None) => Err(Failure::backend("the agent removed its own workspace; nothing is charged").in_vain()),
            Err(error) => Err(sandbox_failed(&error).into()),
        }
    }

    /// What an archive of a workspace may hold: its files, and a header and padding for each.
    fn workspace_limits(&self) -> ArchiveLimits {
        let entries = self.limits.max_workspace_files;
        ArchiveLimits { bytes: u64::from(self.limits.disk_mib) * MIB + entries.saturating_mul(2 * 1024), entries }
    }

    /// The commit's files as an archive that fits the workspace, for both cells.
    async fn packed(&self, snapshot: &Snapshot) -> Result<Archive, Failure> {
        let (snapshot, limits) = (snapshot.clone(), self.workspace_limits());
        let bytes = u64::from(self.limits.disk_mib) * MIB;
        let packing = tokio::task::spawn_blocking(move || {
            // Known without reading any of it.
            if snapshot.entries().iter().map(|entry| entry.size).fold(0, u64::saturating_add) > bytes {
                return Err(RepositoryError::TooLarge { limit: bytes });
            }
            snapshot.archive(limits)
        });
        let packed = packing.await.map_err(|_| Failure::backend("the provider failed while packing the repository"))?;
        packed.map_err(|error| not_fetched(&error).into())
    }

    /// The diff between commit and workspace, made and judged here.
    async fn patch(&self, work: &PatchWork, snapshot: Snapshot, workspace: Archive) -> Result<Patch, Failure> {
        let paths = work.asked.paths()?;
        let size = PatchLimits { bytes: self.limits.max_patch_bytes, files: self.limits.max_patch_files };
        let workspace_limits = self.workspace_limits();
        let comparing = tokio::task::spawn_blocking(move || {
            between(&snapshot, &workspace, &Allowed { paths: &paths, size, workspace: workspace_limits })
        });
        let compared =
            comparing.await.map_err(|_| Failure::backend("the provider failed while comparing the files"))?;
        compared.map_err(|error| no_patch(&error))
    }

    /// Keeps what the worker did, where the operator wants it kept, whatever came of it. Returns its hash.
    async fn keep(&self, work: &PatchWork, worked: &Worked) -> String {
        if let Some(transcripts) = &self.transcripts
            && let Err(error) = transcripts.keep(work.job, worked.transcript.clone()).await
        {
            // The work is no worse for it.
            tracing::error!(%error, "The transcript of job {} could not be kept", work.job);
        }
        sha256::Hash::hash(worked.transcript.as_bytes()).to_string()
    }
}

/// Ends what takes much longer than it may, and what is cancelled. The cell is the caller's to close.
async fn in_time<T>(
    time: Duration,
    work: impl Future<Output = Result<T, Failure>>,
    cancel: &CancellationToken,
) -> Result<T, Failure> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(cancelled().into()),
        done = tokio::time::timeout(time.saturating_add(LAST_WORD), work) => {
            done.unwrap_or_else(|_| Err(Failure::backend("the sandbox does not answer; please try again")))
        }
    }
}

/// Has the cell's own git remember the files as they are, so that the agent can see what it changed. Nobody else believes it;
/// where it can't be done the agent does without.
async fn remember(cell: &dyn Cell, cancel: &CancellationToken) -> Result<bool, Failure> {
    let commit =
        "git init -q . && git add -A -f && git -c user.name=coinop -c user.email=coinop@localhost commit -q -m start";
    let command = Command {
        shell: format!("timeout -k 2 {REMEMBER_SECONDS} /bin/sh -c '{commit}' || {{ rm -rf .git; exit 1; }}"),
        workdir: None,
        env: vec![("GIT_CONFIG_GLOBAL".to_owned(), "/dev/null".to_owned())],
        timeout: Duration::from_secs(u64::from(REMEMBER_SECONDS) * 2),
        keep_bytes: 1024,
    };
    let ran = cell.run(&command, cancel).await.map_err(|error| sandbox_failed(&error))?;
    Ok(ran.exit_code == 0)
}

/// The failure of an agent that did not come to an end.
fn unfinished(stopped: Stopped) -> Failure {
    let (code, why) = match stopped {
        // Not asked for this one.
        Stopped::Submitted => (Code::Backend, "the provider lost its work"),
        Stopped::OutOfSteps => (Code::Backend, "it used up its commands"),
        Stopped::OutOfTokens => (Code::Backend, "it used up its tokens"),
        Stopped::OutOfTime => (Code::Timeout, "its time was over; ask for more with time_limit_secs"),
        Stopped::Lost => (Code::Backend, "it went in circles or could not be understood"),
        Stopped::CellEnded => {
            (Code::Backend, "one of its commands took more time or memory, or wrote more, than there is")
        }
    };
    Failure::new(
        code,
        format!("the agent did not finish: {why}; nothing is charged, and the content holds its last steps"),
    )
}

fn no_patch(why: &NoPatch) -> Failure {
    match why {
        NoPatch::Repository(error) => not_fetched(error).into(),
        NoPatch::Workspace(_) => {
            tracing::warn!(%why, "A workspace could not be read");
            Failure::backend(
                "the agent left more files behind than can be looked at, or none that can be read; nothing is charged",
            )
            .in_vain()
        }
        why => Failure::backend(format!("{why}; nothing is charged")).in_vain(),
    }
}

fn work_failed(error: WorkError) -> Failure {
    match error {
        WorkError::Cancelled => cancelled().into(),
        WorkError::Sandbox(error) => sandbox_failed(&error).into(),
        WorkError::Model(reason) => {
            tracing::warn!(%reason, "The model failed at work on a patch");
            Failure::backend("the model failed; please try again")
        }
    }
}
