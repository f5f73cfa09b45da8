//! A run from its files to its result.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::super::told::{cancelled, not_fetched};
use super::artifacts::{Collected, collect};
use super::fitting::{MOST_KEPT, end, end_in_words, fitted};
use super::{RunWork, SandboxRunExecutor, does_not_fit, told};
use crate::archive::{Archive, ArchiveLimits};
use crate::job::sandbox_run::{Artifact, MissingArtifact};
use crate::job::{Code, Compute, Failure, FinishReason, Outcome, Usage};
use crate::repository::{RepositoryError, Snapshot};
use crate::sandbox::{Cell, CellLimits, CellSpec, CellUsage, Command, Ended, Output, Ran, Runtime, SandboxError};

/// How long after its time a cell is still there, for its files to be taken out.
const LAST_WORD: Duration = Duration::from_secs(30);

/// The exit code of what was ended from outside: a shell's 128 + 9.
const KILLED: i64 = 137;

/// Bytes of a failure's log: enough to see why, and no result in disguise.
const LOG_BYTES: usize = 4 * 1024;

/// Bytes of a mebibyte.
const MIB: u64 = 1024 * 1024;

/// What came of a run, before it is written down.
pub(super) struct Report {
    /// The commands that were run, in order.
    pub(super) ran: Vec<(String, Ran)>,
    pub(super) artifacts: Vec<Artifact>,
    pub(super) missing: Vec<MissingArtifact>,
    pub(super) usage: CellUsage,
    pub(super) image_digest: String,
    pub(super) runtime: Runtime,
}

impl Report {
    /// That of the last command: no other is run behind one that failed.
    pub(super) fn exit_code(&self) -> i64 {
        self.ran.last().map_or(0, |(_, ran)| ran.exit_code)
    }
}

/// What is taken out of a cell.
struct Done {
    ran: Vec<(String, Ran)>,
    collected: Collected,
    usage: CellUsage,
}

impl SandboxRunExecutor {
    /// Does a run. Whatever comes of it, its cell is gone afterwards.
    pub(super) async fn run_in_cell(&self, work: &RunWork, cancel: &CancellationToken) -> Result<Outcome, Failure> {
        let files = self.files_of(work, cancel).await?;
        // Waits for room; the clock starts when there is some.
        let cell = self.sandbox.open(&spec(work, self), cancel).await.map_err(|error| told(&error))?;
        let opened = Instant::now();
        let at_work = tokio::time::timeout(
            work.time.saturating_add(LAST_WORD),
            self.at_work(cell.as_ref(), work, files.as_ref(), opened, cancel),
        );
        let done = tokio::select! {
            done = at_work => done.unwrap_or_else(|_| Err(Failure::backend("the sandbox does not answer; please try again"))),
            () = cancel.cancelled() => Err(cancelled().into()),
        };
        let wall = opened.elapsed().min(work.time);
        let (image_digest, runtime) = (cell.image().digest.clone(), cell.runtime());
        cell.close().await;
        drop(cell);
        let Done { ran, collected, usage } = done?;
        let mut report = Report { ran, artifacts: Vec::new(), missing: Vec::new(), usage, image_digest, runtime };
        if let Some(failure) = unmet(work, &report) {
            return Err(failure);
        }
        let delivering = collected.deliver(self.files.as_ref(), work.may_publish && !work.private);
        (report.artifacts, report.missing) = tokio::select! {
            delivered = delivering => delivered?,
            () = cancel.cancelled() => return Err(cancelled().into()),
        };
        Ok(self.outcome(work, &report, wall))
    }

    /// The repository's files, ready to be unpacked.
    async fn files_of(&self, work: &RunWork, cancel: &CancellationToken) -> Result<Option<Archive>, Failure> {
        let (Some(repository), Some(commit)) = (&work.asked.repository, &work.commit) else { return Ok(None) };
        let Some(repositories) = &self.repositories else {
            return Err(Failure::backend("repositories are no longer fetched here"));
        };
        let fetched = repositories.snapshot(&repository.url, commit, work.customer, cancel).await;
        let snapshot = fetched.map_err(|error| not_fetched(&error))?;
        let disk_mib = work.asked.disk_mib;
        let packing = tokio::task::spawn_blocking(move || packed(&snapshot, disk_mib));
        packing.await.map_err(|_| Failure::backend("the provider failed while packing the repository"))?.map(Some)
    }

    /// What is done in the cell.
    async fn at_work(
        &self,
        cell: &dyn Cell,
        work: &RunWork,
        files: Option<&Archive>,
        opened: Instant,
        cancel: &CancellationToken,
    ) -> Result<Done, Failure> {
        if let Some(files) = files {
            cell.put(files).await.map_err(|error| told(&error))?;
        }
        let mut ran: Vec<(String, Ran)> = Vec::new();
        for shell in &work.asked.commands {
            let left = work.time.saturating_sub(opened.elapsed());
            let one = if left.is_zero() {
                never_begun(Ended::TimedOut)
            } else {
                run(cell, work, shell, left, cancel).await?
            };
            let goes_on = one.ended == Ended::Exited && one.exit_code == 0;
            ran.push((shell.clone(), one));
            if !goes_on {
                break;
            }
        }
        let collected = collect(cell, &work.asked.artifacts, &self.limits).await?;
        Ok(Done { ran, collected, usage: cell.usage().await })
    }

    fn outcome(&self, work: &RunWork, report: &Report, wall: Duration) -> Outcome {
        let compute = Compute { wall, memory_mib: work.asked.memory_mib };
        let fact = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut facts = vec![
            fact("exit_code", &report.exit_code().to_string()),
            fact("image_digest", &report.image_digest),
            fact("runtime", report.runtime.word()),
        ];
        facts.extend(work.commit.as_ref().map(|commit| fact("commit", commit.as_str())));
        Outcome {
            content: fitted(report, self.limits.result_bytes),
            usage: Usage { compute, ..Usage::NONE },
            finish: FinishReason::Stop,
            model: None,
            parameters: None,
            digest: None,
            facts,
            duration: wall,
        }
    }
}

fn spec(work: &RunWork, executor: &SandboxRunExecutor) -> CellSpec {
    CellSpec {
        job: work.job.to_string(),
        image: work.image.clone(),
        runtime: executor.runtime,
        limits: CellLimits {
            memory_mib: work.asked.memory_mib,
            disk_mib: work.asked.disk_mib,
            milli_cpus: work.asked.milli_cpus,
            pids: executor.limits.pids,
            // Commands are ended at the run's time; this is for what nobody foresaw.
            time: work.time.saturating_add(LAST_WORD),
        },
    }
}

/// The files as an archive that fits the workspace. Waits for the disk.
fn packed(snapshot: &Snapshot, disk_mib: u32) -> Result<Archive, Failure> {
    let limits = ArchiveLimits { bytes: u64::from(disk_mib) * MIB, entries: snapshot.entries().len() as u64 };
    // Known without reading any of it.
    if snapshot.entries().iter().map(|entry| entry.size).fold(0, u64::saturating_add) > limits.bytes {
        return Err(does_not_fit(disk_mib).into());
    }
    let packed = snapshot.archive(limits).map_err(|error| match error {
        RepositoryError::TooLarge { .. } => does_not_fit(disk_mib),
        other => not_fetched(&other),
    })?;
    Ok(packed)
}

async fn run(
    cell: &dyn Cell,
    work: &RunWork,
    shell: &str,
    timeout: Duration,
    cancel: &CancellationToken,
) -> Result<Ran, Failure> {
    let command = Command {
        shell: shell.to_owned(),
        workdir: work.asked.workdir.clone(),
        env: work.asked.env.clone(),
        timeout,
        keep_bytes: MOST_KEPT,
    };
    match cell.run(&command, cancel).await {
        Ok(ran) => Ok(ran),
        // What an earlier command left running used it up.
        Err(SandboxError::Gone(ended)) if ended != Ended::Exited => Ok(never_begun(ended)),
        // Or took the cell down with it.
        Err(error @ SandboxError::Gone(_)) => Err(Failure::from(told(&error)).in_vain()),
        Err(error) => Err(told(&error).into()),
    }
}

/// A command whose cell had nothing left for it.
fn never_begun(ended: Ended) -> Ran {
    let nothing = || Output { sha256: EMPTY_SHA256.to_owned(), ..Output::default() };
    Ran { exit_code: KILLED, ended, stdout: nothing(), stderr: nothing(), duration: Duration::ZERO }
}

/// SHA-256 of nothing.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The failure of a run that did not end as its customer asked.
fn unmet(work: &RunWork, report: &Report) -> Option<Failure> {
    let wanted = work.asked.expect_exit.filter(|wanted| report.exit_code() != i64::from(*wanted))?;
    let (shell, last) = report.ran.last()?;
    let why = end_in_words(last.ended).words();
    let ended = match why {
        None => format!("the run ended with exit code {}", last.exit_code),
        Some(why) => format!("the run was ended because {why}"),
    };
    let code = if last.ended == Ended::TimedOut { Code::Timeout } else { Code::BadRequest };
    let text = format!(
        "param expect_exit: {ended}, not with {wanted} as asked, at command {} of {}; nothing is charged, and the content \
         holds the end of what it wrote",
        report.ran.len(),
        work.asked.commands.len()
    );
    Some(Failure::new(code, text).with_log(log_of(shell, last)))
}

/// What a command wrote last, standard error behind standard output.
fn log_of(shell: &str, ran: &Ran) -> String {
    let line: String = shell.lines().next().unwrap_or_default().chars().take(200).collect();
    let half = (LOG_BYTES - line.len()) / 2;
    let (stdout, stderr) = (end(&ran.stdout.text, half), end(&ran.stderr.text, half));
    let parts = [stdout, stderr].into_iter().filter(|part| !part.is_empty());
    parts.fold(format!("$ {line}"), |log, part| format!("{log}\n{part}"))
}
