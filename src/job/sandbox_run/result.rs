//! What a run comes back as: the JSON of a kind 6930 result, written by the provider and read by the buyer.
//!
//! Everything in it was made by the customer's own commands, or says what they took. A reader takes fields that it does not
//! know as said to somebody else.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A run's result. Debug shows how much was written, not what.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResult {
    /// The exit code of the last command that was run: 0 when none failed, 137 when one was ended from outside.
    pub exit_code: i64,
    /// What that command wrote to standard output.
    pub stdout: String,
    /// What that command wrote to standard error.
    pub stderr: String,
    /// The commands that were run, in order. Those behind one that failed are not among them.
    pub command_results: Vec<CommandResult>,
    /// The files that were asked for and found.
    pub artifacts: Vec<Artifact>,
    /// What was asked for and can't be returned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_artifacts: Vec<MissingArtifact>,
    /// What it took.
    pub usage: RunUsage,
    /// Where it was run.
    pub env: RunEnvironment,
}

impl fmt::Debug for RunResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunResult")
            .field("exit_code", &self.exit_code)
            .field("command_results", &self.command_results)
            .field("artifacts", &self.artifacts)
            .field("missing_artifacts", &self.missing_artifacts)
            .field("usage", &self.usage)
            .field("env", &self.env)
            .finish_non_exhaustive()
    }
}

/// A command that was run.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    /// The command; of a long one the beginning.
    pub command: String,
    /// Its exit code; 137 when it was ended from outside.
    pub exit_code: i64,
    /// The beginning and end of what it wrote to standard output, with a line between them that says how much is left out.
    pub stdout: String,
    /// The same of standard error.
    pub stderr: String,
    /// SHA-256 of everything that it wrote to standard output.
    pub stdout_sha256: String,
    /// The same of standard error.
    pub stderr_sha256: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Whether it was ended because the run's time was over.
    pub timed_out: bool,
    /// How it ended.
    #[serde(default)]
    pub ended: CommandEnd,
}

impl fmt::Debug for CommandResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandResult")
            .field("exit_code", &self.exit_code)
            .field("ended", &self.ended)
            .field("duration_ms", &self.duration_ms)
            .finish_non_exhaustive()
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandEnd {
    /// By itself, or by a signal of its own making.
    #[default]
    Exited,
    /// The run's time was over.
    TimedOut,
    /// The run wanted more memory than there was.
    OutOfMemory,
    /// It wrote more than anybody reads.
    TooMuchOutput,
}

impl CommandEnd {
    /// What to say of a run that ended so, if it is worth a word.
    pub const fn words(self) -> Option<&'static str> {
        match self {
            Self::Exited => None,
            Self::TimedOut => Some("the time was over"),
            Self::OutOfMemory => Some("there was no memory left"),
            Self::TooMuchOutput => Some("it wrote too much"),
        }
    }
}

/// A file that was asked for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Where it lay, below the workspace.
    pub path: String,
    /// SHA-256 of its content.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Where it can be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What lies there and how it is opened, when it lies there sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedFile>,
    /// Its content in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Why there is neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl fmt::Debug for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifact")
            .field("size", &self.size)
            .field("has_url", &self.url.is_some())
            .field("has_data", &self.data.is_some())
            .field("why", &self.why)
            .finish_non_exhaustive()
    }
}

/// A file on a server that can't read it, as NIP-17 says it of a message's file. Debug does not show the key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedFile {
    /// How it is sealed: `aes-gcm`.
    pub encryption_algorithm: String,
    /// The key, in hexadecimal digits.
    pub decryption_key: String,
    /// The nonce, in hexadecimal digits.
    pub decryption_nonce: String,
    /// SHA-256 of what lies there.
    pub sha256: String,
    /// Bytes that lie there.
    pub size: u64,
}

impl fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedFile").field("sha256", &self.sha256).field("size", &self.size).finish_non_exhaustive()
    }
}

/// What was asked for and can't be returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingArtifact {
    /// The path as asked.
    pub path: String,
    /// Why.
    pub why: String,
}

/// What a run took, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunUsage {
    /// Processor time.
    pub cpu_time_ms: u64,
    /// The most memory at once.
    pub peak_memory_bytes: u64,
    /// Bytes written to disk.
    pub disk_writes_bytes: u64,
    /// Bytes sent and received: there is no network.
    pub network_bytes: u64,
}

/// Where a run was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnvironment {
    /// The image, to the byte.
    pub image_digest: String,
    /// What stood between it and the machine: `runsc` or `runc`.
    pub runtime: String,
}
