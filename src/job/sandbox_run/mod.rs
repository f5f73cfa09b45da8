//! Kind 5930: which commands a customer wants to be run, and what a run comes back as.
//!
//! # Parameters
//!
//! Keys are read in either spelling (`max-time-secs`, `max_time_secs`). A bad value is refused with its name and range, never
//! replaced by a default; unknown parameters are ignored; of a repeated one the first counts, lists excepted ([`reading`]
//! says how those are written).
//!
//! | `param` | also | values | meaning |
//! |---|---|---|---|
//! | `cmd_N` | `cmd`, `command`, `command_N` | a text for the shell | run in order, until one fails |
//! | `git_ref` | `repo_ref` | branch, tag or commit | of the repository; its default branch otherwise |
//! | `workdir` | | a path below the workspace | where commands run |
//! | `env_KEY` | | a value | a variable; the name is taken in capitals, since keys of parameters have none |
//! | `env` | | `KEY=value` | a variable whose name is taken as it stands |
//! | `image` | | a name on offer | the provider's default otherwise |
//! | `max_time_secs` | `timeout_secs` | 1 to the provider's limit | time of the whole run |
//! | `max_memory_mb` | `memory_mb` | [`LEAST_MEMORY_MIB`] to the limit | memory, in MiB |
//! | `max_disk_mb` | | 1 to the limit | what the workspace holds, in MiB |
//! | `max_cpu_cores` | `cpu_limit` | 0.1 to the limit | processors |
//! | `allow_network` | | `false` | runs have no network |
//! | `artifact_N` | `artifact` | a path below the workspace | a file or folder to be returned |
//! | `expect_exit` | | 0 to 255 | the exit code the run must end with, or it costs nothing |
//!
//! [`reading`]: super::reading

mod result;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::reading::{AskedRepository, Bound, Reader, above, bad_value, path, too_long};
use super::text::excerpt;
use super::{Input, InputKind, JobRequest, Refusal, RelativePath};

pub use result::{
    Artifact, CommandEnd, CommandResult, MissingArtifact, RunEnvironment, RunResult, RunUsage, SealedFile,
};

/// The least memory worth making a sandbox for.
pub const LEAST_MEMORY_MIB: u32 = 32;

/// The least part of a processor, in thousandths.
const LEAST_MILLI_CPUS: u32 = 100;

/// Bytes of an image's name.
const LONGEST_IMAGE_BYTES: usize = 128;

/// Bytes of a variable's name.
const LONGEST_VARIABLE_BYTES: usize = 64;

/// The names a command is known by.
const COMMANDS: [&str; 2] = ["cmd", "command"];

/// What an operator allows of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxRunLimits {
    /// Most commands.
    pub max_commands: usize,
    /// Most bytes of one command: a kernel takes 128 KiB.
    pub max_command_bytes: usize,
    /// Most bytes of all commands together.
    pub max_commands_bytes: usize,
    /// Most variables.
    pub max_env: usize,
    /// Most bytes of all variables together.
    pub max_env_bytes: usize,
    /// Most paths to be returned.
    pub max_artifacts: usize,
    /// Most files that are returned: a path may be a folder.
    pub max_artifact_files: usize,
    /// Most bytes of all of them together.
    pub max_artifact_bytes: u64,
    /// Time of the whole run.
    pub time: Bound<Duration>,
    /// Memory, in MiB.
    pub memory_mib: Bound<u32>,
    /// The workspace's size, in MiB.
    pub disk_mib: Bound<u32>,
    /// Processor time a second, in thousandths of a core.
    pub milli_cpus: Bound<u32>,
    /// Processes and threads at once. Not the customer's to choose.
    pub pids: u32,
    /// Bytes of a result that is to fit into an event.
    pub result_bytes: usize,
}

impl Default for SandboxRunLimits {
    /// A small machine's: 15 minutes, 4 GiB of memory, 2 GiB of files, two cores.
    fn default() -> Self {
        let time = Bound { default: Duration::from_secs(300), max: Duration::from_secs(900) };
        Self {
            max_commands: 64,
            max_command_bytes: 32 * 1024,
            max_commands_bytes: 128 * 1024,
            max_env: 64,
            max_env_bytes: 32 * 1024,
            max_artifacts: 32,
            max_artifact_files: 256,
            max_artifact_bytes: 64 * 1024 * 1024,
            time,
            memory_mib: Bound { default: 1_024, max: 4_096 },
            disk_mib: Bound { default: 512, max: 2_048 },
            milli_cpus: Bound { default: 1_000, max: 2_000 },
            pids: 256,
            result_bytes: 36 * 1024,
        }
    }
}

/// A kind 5930 request, read and checked as far as that goes without asking anybody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRun {
    /// What the workspace holds at first; nothing without it.
    pub repository: Option<AskedRepository>,
    /// For the shell, in order.
    pub commands: Vec<String>,
    /// Where, below the workspace.
    pub workdir: Option<RelativePath>,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// The wanted image; `None` is the provider's default.
    pub image: Option<String>,
    /// Time of the whole run, when the customer says so.
    pub time: Option<Duration>,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// The workspace's size, in MiB.
    pub disk_mib: u32,
    /// Processor time a second, in thousandths of a core.
    pub milli_cpus: u32,
    /// Files and folders to be returned.
    pub artifacts: Vec<RelativePath>,
    /// The exit code the run must end with, or it costs nothing.
    pub expect_exit: Option<u8>,
}

impl std::fmt::Debug for SandboxRun {
    /// What is run is the customer's business.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SandboxRun")
            .field("commands", &self.commands.len())
            .field("image", &self.image)
            .field("time", &self.time)
            .field("memory_mib", &self.memory_mib)
            .field("expect_exit", &self.expect_exit)
            .finish_non_exhaustive()
    }
}

impl SandboxRun {
    /// Reads a request. Pure: the same request and limits, the same answer.
    ///
    /// # Errors
    /// The first thing that is wrong, by name, with the cure.
    pub fn parse(request: &JobRequest, limits: &SandboxRunLimits) -> Result<Self, Refusal> {
        check_output(request.output.as_deref())?;
        let read = Reader::new(request);
        let repository = read.repository()?;
        check_inputs(&request.inputs, repository.is_some())?;
        check_network(&read)?;
        let sizes = Sizes(&read);
        Ok(Self {
            repository,
            commands: commands(&read, limits)?,
            workdir: workdir(&read)?,
            env: variables(request, limits)?,
            image: read.text(&["image"], LONGEST_IMAGE_BYTES)?.map(str::to_owned),
            time: read.seconds(&["max_time_secs", "timeout_secs"], limits.time)?,
            memory_mib: sizes.mib(&["max_memory_mb", "memory_mb"], LEAST_MEMORY_MIB, limits.memory_mib)?,
            disk_mib: sizes.mib(&["max_disk_mb"], 1, limits.disk_mib)?,
            milli_cpus: sizes.cores(&["max_cpu_cores", "cpu_limit"], limits.milli_cpus)?,
            artifacts: read.paths(&["artifact"], limits.max_artifacts)?,
            expect_exit: read
                .number(&["expect_exit"], 0, u64::from(u8::MAX), "")?
                .and_then(|code| u8::try_from(code).ok()),
        })
    }
}

/// A run's result is JSON whatever is asked; another wish is not silently ignored.
fn check_output(wanted: Option<&str>) -> Result<(), Refusal> {
    let bare = wanted.map(|wanted| wanted.split(';').next().unwrap_or_default().trim());
    match bare {
        None => Ok(()),
        Some(bare) if bare.eq_ignore_ascii_case("application/json") => Ok(()),
        Some(other) => Err(Refusal::unsupported(format!(
            "output '{}' is not offered; the result of a run is application/json",
            excerpt(other)
        ))),
    }
}

fn check_inputs(inputs: &[Input], has_repository: bool) -> Result<(), Refusal> {
    if inputs.len() == usize::from(has_repository) {
        return Ok(());
    }
    let other = inputs.iter().position(|input| input.kind != InputKind::Url).unwrap_or_default();
    let kind = inputs.get(other).map_or("?", |input| input.kind.word());
    Err(Refusal::unsupported(format!(
        "input {} ({kind}): a run takes one url input, marked repo; put commands into params cmd_0, cmd_1 and so on",
        other + 1
    )))
}

fn check_network(read: &Reader<'_>) -> Result<(), Refusal> {
    match read.flag(&["allow_network"])? {
        Some(true) => Err(Refusal::unsupported(
            "param allow_network: runs have no network here; leave it out, and bring what is needed in the repository or \
             choose an image that has it",
        )),
        _ => Ok(()),
    }
}

fn commands(read: &Reader<'_>, limits: &SandboxRunLimits) -> Result<Vec<String>, Refusal> {
    let listed = read.list(&COMMANDS, limits.max_commands)?;
    if listed.is_empty() {
        return Err(Refusal::bad_request(
            "the request has no command: put one in a param tag, such as [\"param\", \"cmd_0\", \"make test\"]",
        ));
    }
    let mut bytes = 0;
    for (name, command) in &listed {
        if command.contains('\0') {
            return Err(bad_value(name, command, "a text for a shell: it holds a zero byte"));
        }
        if command.len() > limits.max_command_bytes {
            return Err(too_long(name, command.len(), limits.max_command_bytes));
        }
        bytes += command.len();
    }
    if bytes > limits.max_commands_bytes {
        return Err(too_long("cmd (all commands together)", bytes, limits.max_commands_bytes));
    }
    Ok(listed.into_iter().map(|(_, command)| command.to_owned()).collect())
}

fn workdir(read: &Reader<'_>) -> Result<Option<RelativePath>, Refusal> {
    match read.value(&["workdir"])? {
        None | Some((_, "." | "./")) => Ok(None),
        Some((name, text)) => path(name, text).map(Some),
    }
}

/// `env_KEY` and `env KEY=value`. A name that is given twice is refused: shells differ in which one counts.
fn variables(request: &JobRequest, limits: &SandboxRunLimits) -> Result<Vec<(String, String)>, Refusal> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for (key, values) in request.params.iter() {
        if let Some(name) = key.strip_prefix("env_") {
            let [value] = values else {
                return Err(Refusal::bad_request(format!("param {key}: it has {} values; give it one", values.len())));
            };
            add_variable(&mut variables, key, &name.to_ascii_uppercase(), value, limits)?;
        } else if key == "env" {
            for text in values {
                let (name, value) =
                    text.split_once('=').ok_or_else(|| bad_value(key, text, "of the form KEY=value"))?;
                add_variable(&mut variables, key, name, value, limits)?;
            }
        }
    }
    let bytes: usize = variables.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > limits.max_env_bytes {
        return Err(too_long("env (all variables together)", bytes, limits.max_env_bytes));
    }
    Ok(variables)
}

fn add_variable(
    variables: &mut Vec<(String, String)>,
    key: &str,
    name: &str,
    value: &str,
    limits: &SandboxRunLimits,
) -> Result<(), Refusal> {
    let mut bytes = name.bytes();
    let begins = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
    let goes_on = bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !begins || !goes_on || name.len() > LONGEST_VARIABLE_BYTES {
        return Err(Refusal::bad_request(format!(
            "param {key}: '{}' is no name of a variable; use up to {LONGEST_VARIABLE_BYTES} letters, digits and \
             underscores, and begin with no digit",
            excerpt(name)
        )));
    }
    if value.contains('\0') {
        return Err(Refusal::bad_request(format!("param {key}: the value holds a zero byte; leave it out")));
    }
    if variables.iter().any(|(known, _)| known == name) {
        return Err(Refusal::bad_request(format!("param {key}: the variable {name} is given twice; give it once")));
    }
    if variables.len() >= limits.max_env {
        return Err(Refusal::bad_request(format!(
            "param {key}: more than {0} variables; this provider takes at most {0}: send fewer",
            limits.max_env
        )));
    }
    variables.push((name.to_owned(), value.to_owned()));
    Ok(())
}

/// What a cell is to have, where the customer may say so.
struct Sizes<'r, 'a>(&'r Reader<'a>);

impl Sizes<'_, '_> {
    fn mib(&self, names: &[&'static str], least: u32, bound: Bound<u32>) -> Result<u32, Refusal> {
        let asked = self.0.number(names, u64::from(least), u64::from(bound.max), "")?;
        Ok(asked.and_then(|asked| u32::try_from(asked).ok()).unwrap_or(bound.usual()))
    }

    /// Cores with up to three decimals, as thousandths.
    fn cores(&self, names: &[&'static str], bound: Bound<u32>) -> Result<u32, Refusal> {
        let Some((name, text)) = self.0.value(names)? else { return Ok(bound.usual()) };
        match thousandths(text) {
            Some(asked) if asked > bound.max => Err(above(name, text, &cores_in_words(bound.max))),
            Some(asked) if asked >= LEAST_MILLI_CPUS => Ok(asked),
            _ => {
                let (least, most) = (cores_in_words(LEAST_MILLI_CPUS), cores_in_words(bound.max));
                Err(bad_value(name, text, &format!("a number of cores from {least} to {most}")))
            }
        }
    }
}

/// Reads `2`, `0.5` and `1.25`.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) {
        return None;
    }
    // Further decimals are nobody's processor.
    let parts: u32 = format!("{decimals}000").get(..3)?.parse().ok()?;
    // A number that is too large to count is above every limit.
    Some(whole.parse::<u32>().ok().and_then(|whole| whole.checked_mul(1_000)).map_or(u32::MAX, |whole| whole + parts))
}

fn cores_in_words(milli: u32) -> String {
    let text = format!("{}.{:03}", milli / 1_000, milli % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
