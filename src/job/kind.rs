//! What can be ordered.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A kind of job. The number on the wire is the request's event kind; the result's is 1,000 higher (NIP-90).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// 5050: text generation.
    TextGeneration,
    /// 5930: commands in a sandbox.
    SandboxRun,
    /// 5931: an index of a repository.
    RepoIndex,
    /// 5932: a patch for an issue.
    PatchGen,
    /// 5933: a review of a change.
    CodeReview,
}

impl JobKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::TextGeneration, Self::SandboxRun, Self::RepoIndex, Self::PatchGen, Self::CodeReview];

    /// The event kind of a request.
    pub const fn request_kind(self) -> u16 {
        match self {
            Self::TextGeneration => 5050,
            Self::SandboxRun => 5930,
            Self::RepoIndex => 5931,
            Self::PatchGen => 5932,
            Self::CodeReview => 5933,
        }
    }

    /// The event kind of a result.
    pub const fn result_kind(self) -> u16 {
        self.request_kind() + 1000
    }

    /// The kind whose requests carry this number.
    pub fn from_request_kind(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.request_kind() == number)
    }

    /// The name used in configuration, reports and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TextGeneration => "text-generation",
            Self::SandboxRun => "sandbox-run",
            Self::RepoIndex => "repo-index",
            Self::PatchGen => "patch-gen",
            Self::CodeReview => "code-review",
        }
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no kind of job; the kinds are text-generation (5050), sandbox-run (5930), repo-index (5931), patch-gen (5932) and code-review (5933)"
)]
pub struct UnknownKind(pub String);

impl FromStr for JobKind {
    type Err = UnknownKind;
    /// Reads the name or the request's number.
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text || kind.request_kind().to_string() == text)
            .ok_or_else(|| UnknownKind(text.chars().take(40).collect()))
    }
}
