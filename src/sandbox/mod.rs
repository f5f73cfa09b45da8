//! The sandbox port: a place where strangers' commands run and nothing of ours is.
//!
//! A [`Cell`] is one container with an empty workspace: no network, a root nobody can write, no privileges, and limits on
//! memory, disk, processors, processes, time and output. Files go in and come out as [`Archive`]s, never by a shared folder, so
//! that the engine may be on another machine. What is inside is hostile from the first command on.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::archive::{Archive, ArchiveError, ArchiveLimits};
use crate::job::RelativePath;

#[cfg(test)]
mod attacks;
pub mod docker;
mod hosts;
#[cfg(test)]
mod hosts_tests;
pub mod images;
mod probe;
mod program;
pub mod settings;
mod slots;

pub use docker::{Engine, EngineError, EngineFacts, Swept};
pub use hosts::{HostReport, Hosts, TooOld};
pub use probe::Proof;
pub use program::finds;
pub use settings::{AddressError, HostAddress, HostSettings, ImageSettings, SandboxSettings, TlsFiles};

/// What stands between a cell and the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// The machine's own kernel, with namespaces and a filter of system calls.
    Runc,
    /// gVisor: a kernel of its own, written in a memory-safe language.
    Runsc,
}

impl Runtime {
    /// Every runtime, the safest first.
    pub const ALL: [Self; 2] = [Self::Runsc, Self::Runc];

    /// The name the engine, the configuration and receipts know it by.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Runsc => "runsc",
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Runtime {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|runtime| runtime.word() == text)
            .ok_or_else(|| format!("'{text}' is no runtime; they are runsc (gVisor) and runc"))
    }
}

/// What a cell may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellLimits {
    /// Memory of its processes, in MiB.
    pub memory_mib: u32,
    /// What the workspace holds at most, in MiB.
    pub disk_mib: u32,
    /// Processor time a second, in thousandths of a core.
    pub milli_cpus: u32,
    /// Processes and threads at once.
    pub pids: u32,
    /// How long it lives: afterwards it is killed, whatever it does. Each command has a limit of its own.
    pub time: Duration,
}

/// What cell is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellSpec {
    /// Whose it is, for labels and logs: the job's id.
    pub job: String,
    /// The image's name, as the operator lists it.
    pub image: String,
    /// What it must run under. Never something weaker.
    pub runtime: Runtime,
    /// What it may use.
    pub limits: CellLimits,
}

/// An image that cells are made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What customers call it.
    pub name: String,
    /// What it is, to the byte: the engine's `sha256:` id.
    pub digest: String,
}

/// A command for a cell's shell.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// What `/bin/sh -c` gets: less than 128 KiB, the most the kernel hands to a program at once. A longer one exits with 126.
    pub shell: String,
    /// Where, below the workspace.
    pub workdir: Option<RelativePath>,
    /// Variables besides `HOME`, `PATH` and `LANG`.
    pub env: Vec<(String, String)>,
    /// How long it may take. What runs longer is killed, and the cell with it.
    pub timeout: Duration,
    /// Bytes kept of each of its two outputs, from the beginning and the end; the rest is counted and hashed.
    pub keep_bytes: usize,
}

impl fmt::Debug for Command {
    /// What is run is the customer's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("bytes", &self.shell.len())
            .field("workdir", &self.workdir)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// By itself.
    Exited,
    /// At its time limit, or the cell's.
    TimedOut,
    /// Something in the cell wanted more memory than there was.
    OutOfMemory,
    /// It wrote more than anybody reads.
    TooMuchOutput,
}

/// What a command wrote to one of its outputs.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// The beginning and, when `bytes` is more than was to be kept, a line that says how much is left out, and the end. Bytes
    /// that are no UTF-8 are replaced.
    pub text: String,
    /// Bytes in all.
    pub bytes: u64,
    /// SHA-256 of all of them, in hexadecimal digits.
    pub sha256: String,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output({} bytes)", self.bytes)
    }
}

/// A command that was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// What it said of itself; a shell's 128 + signal for a killed one. Where the command was ended from outside, 137.
    pub exit_code: i64,
    /// How it ended.
    pub ended: Ended,
    /// Standard output.
    pub stdout: Output,
    /// Standard error.
    pub stderr: Output,
    /// How long it took.
    pub duration: Duration,
}

/// What a cell used so far, as far as the engine tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CellUsage {
    /// Processor time.
    pub cpu_time: Duration,
    /// The most memory at once, in bytes.
    pub peak_memory_bytes: u64,
    /// Bytes written to disk.
    pub disk_writes_bytes: u64,
    /// Bytes sent and received. There is no network: always 0.
    pub network_bytes: u64,
}

/// What can go wrong with a sandbox. The words are for the operator; customers get a [`crate::job::Failure`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// No image of that name.
    #[error("no image '{wanted}'; on offer: {}", offered.join(", "))]
    UnknownImage {
        /// What was asked.
        wanted: String,
        /// What there is.
        offered: Vec<String>,
    },
    /// No engine that is up has that runtime.
    #[error("no engine offers the runtime {0}")]
    NoRuntime(Runtime),
    /// What should go in or come out is too large, or leads outside.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The workspace has no room left for it.
    #[error("it does not fit into the workspace's {limit_mib} MiB")]
    WorkspaceFull {
        /// The workspace's size.
        limit_mib: u32,
    },
    /// The cell is gone: its time was over, or what ran in it ended it.
    #[error("the cell has ended: {0:?}")]
    Gone(Ended),
    /// No engine has that much memory.
    #[error("no engine has {memory_mib} MiB of memory for a cell")]
    TooBig {
        /// What it would take with its workspace, in MiB.
        memory_mib: u64,
    },
    /// Stopped as asked.
    #[error("cancelled")]
    Cancelled,
    /// The engine failed, or does not answer.
    #[error("the container engine failed: {0}")]
    Engine(String),
}

/// Both ends of a program in a cell that talks to us.
#[allow(missing_debug_implementations)]
pub struct Pipe {
    /// What it reads.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    /// What it writes to standard output. Standard error is dropped.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
}

/// Engines that make cells.
#[async_trait]
pub trait Sandbox: Send + Sync + 'static {
    /// The images that a cell of that runtime can be made from now, in the operator's order, the default first. Empty when no
    /// engine offers the runtime.
    async fn images(&self, runtime: Runtime) -> Result<Vec<Image>, SandboxError>;

    /// Cells of that runtime that can be open at once.
    fn room(&self, runtime: Runtime) -> usize;

    /// Opens a cell, when there is room for it. Nothing is left of one that can't be opened, or is no longer wanted.
    async fn open(&self, spec: &CellSpec, cancel: &CancellationToken) -> Result<Box<dyn Cell>, SandboxError>;
}

/// A container at work. Killed and removed when it is dropped, too; [`Cell::close`] waits for it.
#[async_trait]
pub trait Cell: Send + Sync {
    /// What it was made from.
    fn image(&self) -> &Image;

    /// What it runs under.
    fn runtime(&self) -> Runtime;

    /// Unpacks files into the workspace, owned by who runs commands.
    async fn put(&self, files: &Archive) -> Result<(), SandboxError>;

    /// Runs a command. A command that fails, or is ended at a limit, is a [`Ran`]; after one that was ended from outside the
    /// cell only gives its files. Ends with [`SandboxError::Cancelled`] within a second of `cancel`, and the cell with it.
    async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Ran, SandboxError>;

    /// Starts a program that talks to us, as the same user as commands, for as long as either end of the pipe is held.
    async fn pipe(&self, program: &[String]) -> Result<Pipe, SandboxError>;

    /// A file or folder of the workspace, or with `None` all of it; `Ok(None)` when there is no such path. In the archive
    /// everything lies below its last name (`get("a/b")` has `b` and `b/c.txt`), or below `workspace`. What runs in the
    /// background stands still meanwhile.
    async fn get(&self, path: Option<&RelativePath>, limits: ArchiveLimits) -> Result<Option<Archive>, SandboxError>;

    /// What it used so far.
    async fn usage(&self) -> CellUsage;

    /// Kills and removes it, and waits until it is gone.
    async fn close(&self);
}
