//! Kind 5933: which change a customer wants to have reviewed, and what a review comes back as.
//!
//! What is reviewed is one of: a diff (an input of type text, marked `diff`); a pull request (url, marked `pr`); of a
//! repository (url, marked `repo`) some commits, some files, or what lies between two refs. An address without a marker is a
//! repository when a parameter says what of it, and a pull request otherwise.
//!
//! | `param` | also | values | meaning |
//! |---|---|---|---|
//! | `commit_N` | `commit`, `commits` | commits, branches or tags | each against its first parent |
//! | `file_N` | `file`, `files` | paths | whole files, at `git_ref` |
//! | `git_ref` | `repo_ref` | a branch, tag or commit | for `file_N`; left out: the default branch |
//! | `base_ref`, `head_ref` | | branches, tags or commits | from one to the other; `head_ref` left out: the default branch |
//! | `focus_N` | `focus` | texts | what to look for above all |
//! | `include_nits` | | `true`, `1`, `false`, `0` | whether trifles are told, too |
//! | `guidelines` | | text | the rules of the house |
//! | `model` | | a name on offer | who reads |
//! | `time_limit_secs` | `timeout_secs` | 1 to the provider's limit | for everything |

mod result;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::result::{Category, Issue, Review, Severity, Stats, TokenCounts, Verdict, WordsOf};
use super::patch_gen::line;
use super::reading::{AskedRepository, Bound, Reader, bad_value, too_long};
use super::text::{LONGEST_MODEL_BYTES, LONGEST_URL_BYTES, PART_SEPARATOR, excerpt};
use super::{Input, InputKind, JobRequest, Refusal, RelativePath};

/// Commits of a request at most.
pub const MOST_COMMITS: usize = 16;
/// Things to look for, at most.
pub const MOST_FOCUS: usize = 16;
/// Bytes of one of those.
pub const LONGEST_FOCUS_BYTES: usize = 200;
/// Bytes of a branch, tag or commit at most.
const LONGEST_REF_BYTES: usize = super::reading::LONGEST_REFERENCE_BYTES;

/// What an operator allows of a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeReviewLimits {
    /// Time for everything.
    pub time: Bound<Duration>,
    /// Tokens of the model's answers together.
    pub max_generated_tokens: u32,
    /// Bytes of what is reviewed.
    pub max_diff_bytes: usize,
    /// Files of what is reviewed.
    pub max_files: usize,
    /// Parts that a change may be cut into to fit the model, each an answer of its own.
    pub max_parts: usize,
    /// Bytes of the customer's guidelines.
    pub max_guideline_bytes: usize,
    /// Bytes of the result: what fits into an event, even encrypted.
    pub result_bytes: usize,
}

impl Default for CodeReviewLimits {
    /// Five minutes, an eighth of a megabyte in at most a dozen parts.
    fn default() -> Self {
        Self {
            time: Bound { default: Duration::from_secs(300), max: Duration::from_secs(900) },
            max_generated_tokens: 8_192,
            max_diff_bytes: 128 * 1024,
            max_files: 100,
            max_parts: 12,
            max_guideline_bytes: 8 * 1024,
            result_bytes: 36 * 1024,
        }
    }
}

/// What is to be reviewed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reviewed {
    /// This diff.
    Diff(String),
    /// The diff of a pull request at this address.
    Pull(String),
    /// Of a repository, each of these commits against its first parent.
    Commits(AskedRepository, Vec<String>),
    /// Of a repository, these files as they are.
    Files(AskedRepository, Vec<RelativePath>),
    /// Of a repository, what lies between two refs.
    Between {
        /// The repository.
        repository: AskedRepository,
        /// The state before.
        base: String,
        /// The state afterwards; `None` is the default branch.
        head: Option<String>,
    },
}

impl fmt::Debug for Reviewed {
    /// The customer's text stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Diff(text) => write!(f, "Diff({} bytes)", text.len()),
            Self::Pull(_) => f.write_str("Pull"),
            Self::Commits(_, commits) => write!(f, "Commits({})", commits.len()),
            Self::Files(_, files) => write!(f, "Files({})", files.len()),
            Self::Between { .. } => f.write_str("Between"),
        }
    }
}

/// A kind 5933 request, read and checked as far as that goes without asking anybody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeReview {
    /// What is to be reviewed.
    pub reviewed: Reviewed,
    /// What to look for above all.
    pub focus: Vec<String>,
    /// Whether trifles are told, too.
    pub include_nits: bool,
    /// The rules of the house.
    pub guidelines: Option<String>,
    /// The wanted model.
    pub model: Option<String>,
    /// The time for everything, when the customer says so.
    pub time_limit: Option<Duration>,
}

impl fmt::Debug for CodeReview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeReview")
            .field("reviewed", &self.reviewed)
            .field("model", &self.model)
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
    }
}

impl CodeReview {
    /// Reads a request. Pure: the same request and limits, the same answer.
    ///
    /// # Errors
    /// The first thing that is wrong, by name, with the cure.
    pub fn parse(request: &JobRequest, limits: &CodeReviewLimits) -> Result<Self, Refusal> {
        check_output(request.output.as_deref())?;
        let read = Reader::new(request);
        let focus = |(name, text): (&str, &str)| match text.trim() {
            text if text.len() > LONGEST_FOCUS_BYTES => Err(too_long(name, text.len(), LONGEST_FOCUS_BYTES)),
            text => Ok(text.to_owned()),
        };
        Ok(Self {
            reviewed: reviewed(request, &read, limits)?,
            focus: read.list(&["focus"], MOST_FOCUS)?.into_iter().map(focus).collect::<Result<_, _>>()?,
            include_nits: read.flag(&["include_nits"])?.unwrap_or(false),
            guidelines: read.text(&["guidelines"], limits.max_guideline_bytes)?.map(str::to_owned),
            model: line(&read, "model", LONGEST_MODEL_BYTES)?,
            time_limit: read.seconds(&["time_limit_secs", "timeout_secs"], limits.time)?,
        })
    }
}

/// A review is JSON whatever is asked; another wish is not silently ignored.
fn check_output(wanted: Option<&str>) -> Result<(), Refusal> {
    match wanted.map(|wanted| wanted.split(';').next().unwrap_or_default().trim()) {
        None => Ok(()),
        Some(bare) if bare.eq_ignore_ascii_case("application/json") => Ok(()),
        Some(other) => Err(Refusal::unsupported(format!(
            "output '{}' is not offered; a review is application/json",
            excerpt(other)
        ))),
    }
}

/// What an input is.
enum Part<'a> {
    Diff(&'a str),
    Pull(&'a str),
    Address(&'a str),
}

fn part(input: &Input) -> Result<Part<'_>, Refusal> {
    let marker = input.marker.as_deref().unwrap_or_default().trim();
    match (input.kind, marker) {
        (InputKind::Text, "" | "diff" | "patch") => Ok(Part::Diff(&input.data)),
        (InputKind::Url, "pr" | "pull" | "pull_request") => Ok(Part::Pull(&input.data)),
        (InputKind::Url, "" | "repo" | "repository") => Ok(Part::Address(&input.data)),
        (kind, marker) => Err(Refusal::unsupported(format!(
            "an input of type {} marked '{}' is not read by this kind of job; send a diff (text), a pr (url) or a repo (url)",
            kind.word(),
            excerpt(marker)
        ))),
    }
}

fn reviewed(request: &JobRequest, read: &Reader<'_>, limits: &CodeReviewLimits) -> Result<Reviewed, Refusal> {
    let (mut diffs, mut pulls, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
    for input in &request.inputs {
        match part(input)? {
            Part::Diff(text) => diffs.push(text),
            Part::Pull(url) => pulls.push(url),
            Part::Address(url) => addresses.push(url),
        }
    }
    let of_repository = of_repository(read, limits)?;
    // An address that nothing is asked of like of a repository.
    if of_repository.is_none() && !request.inputs.iter().any(is_marked_repository) {
        pulls.append(&mut addresses);
    }
    match (&diffs[..], &pulls[..], addresses.is_empty(), of_repository) {
        (diffs @ [_, ..], [], true, None) => {
            let diff = diffs.join(PART_SEPARATOR);
            if diff.len() > limits.max_diff_bytes {
                let (bytes, most) = (diff.len(), limits.max_diff_bytes);
                return Err(Refusal::bad_request(format!(
                    "the diff has {bytes} bytes; this provider reads at most {most}: send it in parts"
                )));
            }
            Ok(Reviewed::Diff(diff))
        }
        ([], [url], true, None) => address(url).map(Reviewed::Pull),
        ([], [], false, Some(of)) => {
            // With one address at least there is a repository, or the reader says what is wrong with it.
            let repository = read.repository()?.ok_or_else(nothing)?;
            Ok(match of {
                Of::Commits(commits) => Reviewed::Commits(repository, commits),
                Of::Files(files) => Reviewed::Files(repository, files),
                Of::Between(base, head) => Reviewed::Between { repository, base, head },
            })
        }
        ([], [], false, None) => Err(Refusal::bad_request(
            "of a repository is reviewed what params commit_0, file_0, or base_ref and head_ref name: add one of them",
        )),
        ([], [], true, Some(_)) => Err(Refusal::bad_request(
            "there is no repository: name it in an i tag, such as [\"i\", \"https://…\", \"url\", \"\", \"repo\"]",
        )),
        ([], [], true, None) => Err(nothing()),
        _ => Err(Refusal::bad_request(
            "the request names several things to review; send one diff (text), or one pr (url), or one repo (url) with \
             commit_0, file_0, or base_ref and head_ref",
        )),
    }
}

fn is_marked_repository(input: &Input) -> bool {
    matches!(input.marker.as_deref().map(str::trim), Some("repo" | "repository"))
}

fn nothing() -> Refusal {
    Refusal::bad_request(
        "there is nothing to review: add a diff, such as [\"i\", \"diff --git …\", \"text\", \"\", \"diff\"]",
    )
}

/// What of a repository.
enum Of {
    Commits(Vec<String>),
    Files(Vec<RelativePath>),
    Between(String, Option<String>),
}

fn of_repository(read: &Reader<'_>, limits: &CodeReviewLimits) -> Result<Option<Of>, Refusal> {
    let commits = read.list(&["commit", "commits"], MOST_COMMITS)?;
    let commits = commits.into_iter().map(|(name, text)| reference(name, text)).collect::<Result<Vec<_>, _>>()?;
    let files = read.paths(&["file", "files"], limits.max_files)?;
    let named = |name: &'static str| match read.value(&[name])? {
        Some((name, text)) => reference(name, text).map(Some),
        None => Ok(None),
    };
    let (base, head) = (named("base_ref")?, named("head_ref")?);
    match (commits.is_empty(), files.is_empty(), base, head) {
        (true, true, None, None) => Ok(None),
        (false, true, None, None) => Ok(Some(Of::Commits(commits))),
        (true, false, None, None) => Ok(Some(Of::Files(files))),
        (true, true, Some(base), head) => Ok(Some(Of::Between(base, head))),
        (true, true, None, Some(_)) => Err(Refusal::bad_request(
            "param head_ref says where the change ends; say in base_ref where it begins, or name the commit in commit_0",
        )),
        _ => Err(Refusal::bad_request(
            "params commit, file, and base_ref with head_ref exclude each other; send one of them",
        )),
    }
}

fn reference(name: &str, text: &str) -> Result<String, Refusal> {
    match text.trim() {
        text if text.len() > LONGEST_REF_BYTES => Err(too_long(name, text.len(), LONGEST_REF_BYTES)),
        text if text.is_empty() || text.starts_with('-') || text.chars().any(|c| c.is_control() || c == ' ') => {
            Err(bad_value(name, text, "the name of a branch, a tag or a commit"))
        }
        text => Ok(text.to_owned()),
    }
}

fn address(url: &str) -> Result<String, Refusal> {
    let url = url.trim();
    if url.is_empty() || url.len() > LONGEST_URL_BYTES {
        return Err(Refusal::bad_request(format!(
            "input pr (url): it must be an address of 1 to {LONGEST_URL_BYTES} bytes"
        )));
    }
    Ok(url.to_owned())
}

#[cfg(test)]
mod tests;
