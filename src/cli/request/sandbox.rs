//! `coinop request sandbox`: commands run in a provider's sandbox (kind 5930).

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bitcoin::hashes::{Hash as _, sha256};

use super::counted;
use super::delivery::{self, Check, Delivery, Unfetched, hand_over};
use super::flow;
use super::folder::OutFile;
use super::options::{OrderOptions, key_value, mebibytes};
use super::repo::RepoArgs;
use super::wanted::Wanted;
use super::whole;
use crate::blossom::{Blob, BlossomError, SEAL_BYTES, Seal};
use crate::cli::exit::CommandError;
use crate::cli::{Globals, table};
use crate::config::Config;
use crate::job::sandbox_run::{Artifact, CommandResult, RunResult, SandboxRunLimits, SealedFile};
use crate::job::{JobKind, RelativePath};

/// The exit code of a command that was stopped because its time was over, as timeout(1) has it.
const TIMED_OUT: u8 = 124;

/// Files that are fetched from file servers.
const MOST_FETCHED: usize = 256;

/// Bytes of all of them: no provider returns more.
const MOST_FETCHED_BYTES: u64 = 64 * 1024 * 1024;

/// How long fetching all of them may take.
const FETCHING_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Characters of a stranger's word in a line.
const MOST_SHOWN: usize = 200;

/// Characters of a command in the table.
const SHORT_COMMAND: usize = 60;

pub(super) const EXAMPLES: &str = "\
Without --repo the repository in this folder is meant: its remote 'origin', at the commit that is checked out. The provider
fetches that by itself, so the commit has to be pushed, and the repository public. The commands run in order until one
fails, without network, in an image of the provider's choice or the one named. What they write to standard output and
standard error is shown there.

A command that fails is a result like any other: the exit code is 0, unless --exit-code passes the job's on. With
--expect-exit the job is paid only if it ends so; else the purchase fails (exit code 6) and shows the log.

Examples:
  coinop request sandbox --cmd \"make test\"
  coinop request sandbox --cmd \"./configure\" --cmd \"make -j4\" --artifact build/app --out result
  coinop request sandbox --repo https://example.com/owner/name --ref v1.2 --cmd \"cargo test\" --time 10m --exit-code
  coinop request sandbox --no-repo --cmd \"python3 -c 'print(2**64)'\" --expect-exit 0";

/// What is run.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SandboxArgs {
    /// A command for the shell; may be given several times, and they run in order until one fails
    #[arg(long = "cmd", value_name = "COMMAND", required = true)]
    commands: Vec<String>,
    #[command(flatten)]
    repo: RepoArgs,
    /// Begin with an empty workspace
    #[arg(long, conflicts_with_all = ["repo", "reference"])]
    no_repo: bool,
    /// Where in the repository the commands run
    #[arg(long, value_name = "PATH")]
    workdir: Option<RelativePath>,
    /// A variable as NAME=VALUE; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = key_value)]
    env: Vec<(String, String)>,
    /// One of the provider's images
    #[arg(long)]
    image: Option<String>,
    /// How long the commands may take together, such as 10m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// Memory, in MiB
    #[arg(long, value_name = "MIB", value_parser = mebibytes)]
    memory: Option<u32>,
    /// Room for files, in MiB
    #[arg(long, value_name = "MIB", value_parser = mebibytes)]
    disk: Option<u32>,
    /// Processors, such as 0.5
    #[arg(long)]
    cpus: Option<f64>,
    /// A file or folder of the workspace to be returned; may be given several times
    #[arg(long, value_name = "PATH")]
    artifact: Vec<RelativePath>,
    /// The exit code the job must end with, or it is not paid
    #[arg(long, value_name = "CODE")]
    expect_exit: Option<u8>,
    /// Exit with the code of the job's last command (124 when its time was over)
    #[arg(long)]
    exit_code: bool,
}

impl SandboxArgs {
    fn wanted(&self, globals: &Globals) -> Result<Wanted> {
        if self.commands.iter().any(|command| command.trim().is_empty()) {
            return Err(CommandError::usage("a command is empty").help("such as: --cmd \"make test\"").into());
        }
        let mut wanted = Wanted::of(JobKind::SandboxRun);
        if !self.no_repo {
            self.repo.add_to(&mut wanted, globals)?;
        }
        self.put_params(&mut wanted);
        Ok(wanted)
    }

    fn put_params(&self, wanted: &mut Wanted) {
        wanted.list("cmd", &self.commands);
        wanted.maybe("workdir", self.workdir.as_ref());
        for (name, value) in &self.env {
            // Under a key of its own the name would lose its case.
            wanted.param("env", format!("{name}={value}"));
        }
        wanted.maybe("image", self.image.as_ref());
        wanted.maybe("max_time_secs", self.time.map(whole_seconds));
        wanted.maybe("max_memory_mb", self.memory);
        wanted.maybe("max_disk_mb", self.disk);
        wanted.maybe("max_cpu_cores", self.cpus);
        wanted.list("artifact", &self.artifact);
        wanted.maybe("expect_exit", self.expect_exit);
        wanted.time_limit = Some(self.time.unwrap_or(SandboxRunLimits::default().time.default));
    }
}

/// Seconds, begun ones included.
pub(super) fn whole_seconds(time: Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

pub(super) async fn run(args: SandboxArgs, options: &OrderOptions, globals: &Globals) -> Result<ExitCode> {
    let wanted = args.wanted(globals)?;
    flow::order(wanted, options, globals, async |bought, config| {
        let whole = whole::of(&bought, config).await;
        let delivery = match serde_json::from_str::<RunResult>(&whole.text) {
            Ok(result) => {
                // They are only fetched for somebody who keeps them.
                let wanted = if options.out.is_some() { result.artifacts.as_slice() } else { &[] };
                let fetched = fetch(wanted, config).await;
                deliver(&whole.text, &result, &args.commands, fetched, args.exit_code)
            }
            Err(problem) => delivery::unreadable(&whole, &problem.to_string()),
        };
        hand_over(&bought, &whole, &delivery, options, globals)
    })
    .await
}

/// Files that came through a file server, by their place in the list.
type Fetched = BTreeMap<usize, Result<Vec<u8>, BlossomError>>;

/// Fetches what lies on file servers, as much as is kept and waited for.
async fn fetch(artifacts: &[Artifact], config: &Config) -> Fetched {
    let mut fetched = Fetched::new();
    let until = tokio::time::Instant::now() + FETCHING_PATIENCE;
    let mut left = MOST_FETCHED_BYTES;
    for (place, artifact) in artifacts.iter().enumerate() {
        let Some(url) = artifact.url.as_ref().filter(|_| artifact.data.is_none()) else { continue };
        if fetched.len() >= MOST_FETCHED {
            break;
        }
        let content = match blob_of(artifact, url) {
            None => Err(BlossomError::BadAnswer),
            Some(_) if artifact.size > left => Err(BlossomError::TooLarge { bytes: artifact.size, limit: left }),
            Some(blob) => {
                left -= artifact.size;
                let fetching = whole::fetch(config, &blob);
                let timeout = BlossomError::Timeout { limit: FETCHING_PATIENCE };
                tokio::time::timeout_at(until, fetching).await.unwrap_or(Err(timeout))
            }
        };
        fetched.insert(place, content);
    }
    fetched
}

/// The file that an artifact names, sealed or not, of the artifact's own size; `None` when it can't be one.
fn blob_of(artifact: &Artifact, url: &str) -> Option<Blob> {
    let Some(sealed) = &artifact.sealed else { return Blob::told(url, &artifact.sha256, artifact.size) };
    let SealedFile { encryption_algorithm, decryption_key, decryption_nonce, sha256, size } = sealed;
    let seal = Seal::told(encryption_algorithm, decryption_key, decryption_nonce, &artifact.sha256)?;
    if artifact.size.checked_add(SEAL_BYTES) != Some(*size) {
        return None;
    }
    Some(Blob { seal: Some(seal), ..Blob::told(url, sha256, *size)? })
}

fn deliver(content: &str, result: &RunResult, asked: &[String], fetched: Fetched, passes_code: bool) -> Delivery {
    let mut files = vec![OutFile::new("result.json", content)];
    let (mut told, mut shown) = (format!("{}\n", commands_table(&result.command_results, asked)), String::new());
    for (place, command) in result.command_results.iter().enumerate() {
        files.push(OutFile::new(&format!("commands/{place}.stdout"), command.stdout.as_bytes()));
        files.push(OutFile::new(&format!("commands/{place}.stderr"), command.stderr.as_bytes()));
        told.push_str(&on_a_line(&command.stderr));
        shown.push_str(&on_a_line(&command.stdout));
    }
    for missing in &result.missing_artifacts {
        told.push_str(&not_returned(&missing.path, &missing.why));
    }
    for artifact in result.artifacts.iter().filter(|artifact| artifact.data.is_none() && artifact.url.is_none()) {
        let why = artifact.why.as_deref().unwrap_or("the provider does not say why");
        told.push_str(&not_returned(&artifact.path, why));
    }
    let mut checks: Vec<Check> = outputs(&result.command_results).into_iter().collect();
    if !result.artifacts.is_empty() {
        told.push_str(&format!("{}\n", artifacts_table(&result.artifacts)));
        let (kept, check) = artifacts(&result.artifacts, fetched);
        files.extend(kept);
        checks.extend(check);
    }
    Delivery {
        result: serde_json::from_str(content).ok(),
        told,
        shown,
        files,
        checks,
        code: if passes_code { job_code(result) } else { 0 },
        ..Delivery::default()
    }
}

/// Whether what the commands wrote is all here: by its hash, which is of everything. What is cut can't be compared.
fn outputs(commands: &[CommandResult]) -> Option<Check> {
    let texts = commands
        .iter()
        .flat_map(|command| [(&command.stdout, &command.stdout_sha256), (&command.stderr, &command.stderr_sha256)]);
    let whole = texts.filter(|(text, hash)| {
        !text.is_empty() && sha256::Hash::hash(text.as_bytes()).to_string() == hash.to_ascii_lowercase()
    });
    match whole.count() {
        0 => None,
        count => Some(hashes(counted(count, "output", "outputs"), count)),
    }
}

/// That all of these are what the result says.
fn hashes(of_what: String, count: usize) -> Check {
    Check::of(format!("the {} of {of_what}", if count == 1 { "hash" } else { "hashes" }), true)
}

/// Each text ends with its line.
fn on_a_line(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

/// That a file is not among what came, and why.
fn not_returned(path: &str, why: &str) -> String {
    format!("Not returned: {}: {}\n", word(path), word(why))
}

/// A stranger's word for a line.
fn word(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MOST_SHOWN).collect()
}

/// What was run, and what was not because something before it failed.
fn commands_table(commands: &[CommandResult], asked: &[String]) -> String {
    let short = |command: &str| command.chars().take(SHORT_COMMAND).filter(|c| !c.is_control()).collect::<String>();
    let mut table = table::new(["", "command", "exit code", "time", ""]);
    for (place, command) in commands.iter().enumerate() {
        let seconds = Duration::from_millis(command.duration_ms).as_secs_f64();
        table.add_row([
            place.to_string(),
            short(&command.command),
            command.exit_code.to_string(),
            format!("{seconds:.1} s"),
            command.ended.words().unwrap_or_default().to_owned(),
        ]);
    }
    for (place, command) in asked.iter().enumerate().skip(commands.len()) {
        table.add_row([place.to_string(), short(command), String::new(), String::new(), "not run".to_owned()]);
    }
    table.to_string()
}

fn artifacts_table(artifacts: &[Artifact]) -> String {
    let mut table = table::new(["artifact", "bytes", "sha256", ""]);
    for artifact in artifacts {
        let how = match (&artifact.data, &artifact.url) {
            (Some(_), _) => "in the result",
            (None, Some(url)) => url.as_str(),
            (None, None) => "not returned",
        };
        let size = artifact.size.to_string();
        table.add_row([artifact.path.as_str(), &size, &artifact.sha256, how].map(word));
    }
    table.to_string()
}

/// The files that came with the result, and whether they are what the result says. One that is not, or that would lead out
/// of the folder, is never written.
fn artifacts(artifacts: &[Artifact], mut fetched: Fetched) -> (Vec<OutFile>, Vec<Check>) {
    let (mut files, mut checks, mut good) = (Vec::new(), Vec::new(), 0);
    for (place, artifact) in artifacts.iter().enumerate() {
        let name = word(&artifact.path);
        let content = match (&artifact.data, fetched.remove(&place)) {
            (Some(data), _) => inline(artifact, data).ok_or_else(|| "it has other bytes than its hash says".to_owned()),
            (None, Some(Err(problem))) => match Unfetched::of(&problem) {
                Some(why) => {
                    let where_it_is =
                        if artifact.sealed.is_some() { "its address and key are" } else { "its address is" };
                    let what =
                        format!("the artifact '{name}' could not be fetched: {problem}; {where_it_is} in result.json");
                    checks.push(Check::unfetched(what, why));
                    continue;
                }
                None => Err(problem.to_string()),
            },
            (None, Some(Ok(content))) => Ok(content),
            (None, None) => continue,
        };
        let file = content.and_then(|content| {
            let path = artifact.path.parse::<RelativePath>().map_err(|why| why.to_string())?;
            OutFile::below("artifacts", &path, content).ok_or_else(|| "its name is too long".to_owned())
        });
        match file {
            Ok(file) => {
                files.push(file);
                good += 1;
            }
            Err(why) => checks.push(Check::of(format!("the artifact '{name}' is not kept: {why}"), false)),
        }
    }
    if good > 0 {
        checks.push(hashes(counted(good, "artifact", "artifacts"), good));
    }
    (files, checks)
}

/// The bytes that stand in the result, when they are those it says.
fn inline(artifact: &Artifact, data: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(data).ok().filter(|content| {
        content.len() as u64 == artifact.size
            && sha256::Hash::hash(content).to_string() == artifact.sha256.to_ascii_lowercase()
    })
}

/// The code that the job itself ended with, as a process can have it.
fn job_code(result: &RunResult) -> u8 {
    let timed_out = result.command_results.last().is_some_and(|command| command.timed_out);
    match u8::try_from(result.exit_code) {
        _ if timed_out => TIMED_OUT,
        Ok(code) => code,
        Err(_) => 1,
    }
}

#[cfg(test)]
#[path = "sandbox_tests.rs"]
mod tests;
