//! Kind 5932: what a request for a patch asks for, and what a result says of the patch.
//!
//! | `param` | also | values | meaning |
//! |---|---|---|---|
//! | `git_ref` | `repo_ref` | a branch, tag or commit | where the work begins; left out: the default branch |
//! | `test_command` | | a shell command | must exit with 0 on a fresh checkout with the patch |
//! | `run_tests` | | `true`, `1`, `false`, `0` | whether it does; else it is only told to the agent |
//! | `time_limit_secs` | `timeout_secs` | 1 to the provider's limit | for everything together |
//! | `model` | | a name on offer | who does it |
//! | `context` | | text | what else the agent should know |
//! | `issue_url` | | an address | where the issue comes from; told to the agent, never fetched |
//! | `include_N` | `allowed_paths` | patterns | the files that may change; left out: all |
//! | `exclude_N` | `disallowed_paths` | patterns | the files that may not |
//!
//! The inputs are an address marked `repo` and texts marked `issue`; an only address, or texts without markers, are taken for
//! them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::globs::{Globs, LONGEST_GLOB_BYTES, MOST_GLOBS};
use super::reading::{AskedRepository, Bound, Reader, bad_value, too_long};
use super::text::{LONGEST_MODEL_BYTES, LONGEST_URL_BYTES, PART_SEPARATOR};
use super::{InputKind, JobRequest, Refusal};

/// Bytes of the test command at most.
pub const LONGEST_COMMAND_BYTES: usize = 4_096;

/// What an operator allows a patch to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchGenLimits {
    /// The image that work and tests run in, which must have git; `None` is the first on offer.
    pub image: Option<String>,
    /// Time for everything.
    pub time: Bound<Duration>,
    /// Commands of the agent.
    pub steps: u32,
    /// Tokens it may read, over all steps.
    pub prompt_tokens: u32,
    /// Tokens it may write, over all steps.
    pub generated_tokens: u32,
    /// Time of one of its commands.
    pub command_time: Duration,
    /// Bytes of a command's output that it gets to see.
    pub output_bytes: usize,
    /// Memory of the sandbox, in MiB.
    pub memory_mib: u32,
    /// Disk of the sandbox, in MiB.
    pub disk_mib: u32,
    /// Processor time a second, in thousandths of a core.
    pub milli_cpus: u32,
    /// Processes and threads at once.
    pub pids: u32,
    /// Bytes of issue and context together.
    pub max_input_bytes: usize,
    /// Bytes of the patch: what fits in an event, unless there is a server for files.
    pub max_patch_bytes: usize,
    /// Files the patch may change.
    pub max_patch_files: usize,
    /// Files and folders of the workspace.
    pub max_workspace_files: u64,
}

impl Default for PatchGenLimits {
    /// Fifteen minutes, forty commands, a gigabyte of memory; a patch that fits into an event even when it is encrypted.
    fn default() -> Self {
        Self {
            image: None,
            time: Bound { default: Duration::from_secs(900), max: Duration::from_secs(1_800) },
            steps: 40,
            prompt_tokens: 400_000,
            generated_tokens: 40_000,
            command_time: Duration::from_secs(120),
            output_bytes: 8 * 1024,
            memory_mib: 1_024,
            disk_mib: 512,
            milli_cpus: 1_000,
            pids: 256,
            max_input_bytes: 32 * 1024,
            max_patch_bytes: 40 * 1024,
            max_patch_files: 200,
            max_workspace_files: 100_000,
        }
    }
}

/// A kind 5932 request, read and checked as far as that goes without asking anybody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchGen {
    /// The repository.
    pub repository: AskedRepository,
    /// What is to be done.
    pub issue: String,
    /// Where that comes from.
    pub issue_url: Option<String>,
    /// What else to know.
    pub context: Option<String>,
    /// What must succeed with the patch.
    pub test_command: Option<String>,
    /// Whether it is run.
    pub run_tests: bool,
    /// The wanted model.
    pub model: Option<String>,
    /// The time for everything, when the customer says so.
    pub time_limit: Option<Duration>,
    /// Patterns of files that may change; empty means all.
    pub include: Vec<String>,
    /// Patterns of files that may not.
    pub exclude: Vec<String>,
}

impl fmt::Debug for PatchGen {
    /// The customer's words stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PatchGen")
            .field("issue_bytes", &self.issue.len())
            .field("run_tests", &self.run_tests)
            .field("model", &self.model)
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
    }
}

impl PatchGen {
    /// Reads a request. Pure: the same request and limits, the same answer.
    ///
    /// # Errors
    /// The first thing that is wrong, by name, with the cure.
    pub fn parse(request: &JobRequest, limits: &PatchGenLimits) -> Result<Self, Refusal> {
        check_output(request.output.as_deref())?;
        let read = Reader::new(request);
        let repository = read.repository()?.ok_or_else(|| {
            Refusal::bad_request(
                "the request names no repository: add [\"i\", \"https://host/path\", \"url\", \"\", \"repo\"]",
            )
        })?;
        let issue = issue(request)?;
        let context = read.text(&["context"], limits.max_input_bytes)?;
        let bytes = issue.len().saturating_add(context.map_or(0, str::len));
        if bytes > limits.max_input_bytes {
            return Err(Refusal::bad_request(format!(
                "issue and context hold {bytes} bytes together; this provider reads at most {}: shorten them",
                limits.max_input_bytes
            )));
        }
        let asked = Self {
            repository,
            issue,
            issue_url: line(&read, "issue_url", LONGEST_URL_BYTES)?,
            context: context.map(str::to_owned),
            test_command: test_command(&read)?,
            run_tests: read.flag(&["run_tests"])?.unwrap_or(true),
            model: line(&read, "model", LONGEST_MODEL_BYTES)?,
            time_limit: read.seconds(&["time_limit_secs", "timeout_secs"], limits.time)?,
            include: patterns(&read, &["include", "allowed_paths"])?,
            exclude: patterns(&read, &["exclude", "disallowed_paths"])?,
        };
        asked.paths()?;
        Ok(asked)
    }

    /// What the patch is verified with besides that it applies.
    pub fn verified_with(&self) -> Option<&str> {
        self.test_command.as_deref().filter(|_| self.run_tests)
    }

    /// Which files may change.
    ///
    /// # Errors
    /// Never for what [`PatchGen::parse`] read.
    pub fn paths(&self) -> Result<Globs, Refusal> {
        Globs::new(&self.include, &self.exclude)
    }
}

/// A patch is a diff whatever is asked; another wish is not silently ignored.
fn check_output(wanted: Option<&str>) -> Result<(), Refusal> {
    match wanted.map(|wanted| wanted.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()) {
        None => Ok(()),
        Some(bare) if ["text/plain", "text/x-diff", "text/x-patch"].contains(&bare.as_str()) => Ok(()),
        Some(other) => Err(Refusal::unsupported(format!(
            "output '{}' is not offered; a patch is text/x-diff",
            super::text::excerpt(&other)
        ))),
    }
}

/// The texts that say what is to be done.
fn issue(request: &JobRequest) -> Result<String, Refusal> {
    let mut texts = Vec::new();
    for input in &request.inputs {
        let marker = input.marker.as_deref().unwrap_or_default().trim();
        match (input.kind, marker) {
            // The repository.
            (InputKind::Url, _) => {}
            (InputKind::Text, "" | "issue") => texts.push(input.data.as_str()),
            (kind, marker) => {
                return Err(Refusal::unsupported(format!(
                    "an input of type {} marked '{}' is not read by this kind of job; send the repository (url) and the \
                     issue (text)",
                    kind.word(),
                    super::text::excerpt(marker)
                )));
            }
        }
    }
    let issue = texts.join(PART_SEPARATOR);
    if issue.trim().is_empty() {
        return Err(Refusal::bad_request(
            "the request has no issue: add [\"i\", \"what is to be done\", \"text\", \"\", \"issue\"]; issue_url is not fetched",
        ));
    }
    Ok(issue)
}

fn test_command(read: &Reader<'_>) -> Result<Option<String>, Refusal> {
    match read.text(&["test_command"], LONGEST_COMMAND_BYTES)? {
        Some(command) if command.contains('\0') => Err(bad_value("test_command", command, "a command for a shell")),
        command => Ok(command.map(str::to_owned)),
    }
}

/// A text of one line.
pub(super) fn line(read: &Reader<'_>, name: &'static str, most_bytes: usize) -> Result<Option<String>, Refusal> {
    match read.text(&[name], most_bytes)? {
        Some(text) if text.chars().any(char::is_control) => Err(bad_value(name, text, "one line of text")),
        text => Ok(text.map(str::to_owned)),
    }
}

fn patterns(read: &Reader<'_>, names: &[&'static str]) -> Result<Vec<String>, Refusal> {
    let pattern = |(name, text): (&str, &str)| match text.trim() {
        text if text.len() > LONGEST_GLOB_BYTES => Err(too_long(name, text.len(), LONGEST_GLOB_BYTES)),
        text => Ok(text.to_owned()),
    };
    read.list(names, MOST_GLOBS)?.into_iter().map(pattern).collect()
}

/// What a result says of its patch, in `["result", key, value]` tags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PatchFacts {
    /// SHA-256 of the patch, in hexadecimal digits.
    pub patch_sha256: String,
    /// The commit it was made for.
    pub commit: String,
    /// Whether `git apply` took it on a fresh checkout. A patch for which that is not so is not delivered.
    pub applies_cleanly: bool,
    /// How the test command ended there; `None` when there was none.
    pub test_exit_code: Option<i64>,
    /// Files changed.
    pub files_changed: u64,
    /// Lines added.
    pub lines_added: u64,
    /// Lines removed.
    pub lines_removed: u64,
    /// The model, when it is known.
    pub model: Option<String>,
    /// Commands the agent ran.
    pub steps: u64,
    /// SHA-256 of the agent's transcript, which the provider keeps for a while.
    pub transcript_sha256: Option<String>,
    /// The image that work and tests ran in, to the byte.
    pub image_digest: Option<String>,
    /// The runtime they ran under.
    pub runtime: Option<String>,
}

impl PatchFacts {
    /// As keys and values.
    pub fn pairs(&self) -> Vec<(String, String)> {
        let some = |key: &str, value: Option<String>| value.map(|value| (key.to_owned(), value));
        [
            some("patch_sha256", Some(self.patch_sha256.clone())),
            some("commit", Some(self.commit.clone())),
            some("applies_cleanly", Some(self.applies_cleanly.to_string())),
            some("test_exit_code", self.test_exit_code.map(|code| code.to_string())),
            some("files_changed", Some(self.files_changed.to_string())),
            some("lines_added", Some(self.lines_added.to_string())),
            some("lines_removed", Some(self.lines_removed.to_string())),
            some("model", self.model.clone()),
            some("steps", Some(self.steps.to_string())),
            some("transcript_sha256", self.transcript_sha256.clone()),
            some("image_digest", self.image_digest.clone()),
            some("runtime", self.runtime.clone()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Reads what a provider says. What is missing or no number stays empty: it is a claim.
    pub fn read(pairs: &[(String, String)]) -> Self {
        let text = |key: &str| pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
        let number = |key: &str| text(key).and_then(|value| value.parse().ok()).unwrap_or(0);
        Self {
            patch_sha256: text("patch_sha256").unwrap_or_default(),
            commit: text("commit").unwrap_or_default(),
            applies_cleanly: text("applies_cleanly").as_deref() == Some("true"),
            test_exit_code: text("test_exit_code").and_then(|code| code.parse().ok()),
            files_changed: number("files_changed"),
            lines_added: number("lines_added"),
            lines_removed: number("lines_removed"),
            model: text("model"),
            steps: number("steps"),
            transcript_sha256: text("transcript_sha256"),
            image_digest: text("image_digest"),
            runtime: text("runtime"),
        }
    }
}

#[cfg(test)]
#[path = "patch_gen_tests.rs"]
mod tests;
