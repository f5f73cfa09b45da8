//! A worker in a cell: somebody who is told what to do, runs commands in a sandbox until it is done, and is stopped when it
//! takes too much.
//!
//! The model is asked by this process; in the cell are only its commands and what they print. No key and no network ever go in.
//! [`ModelWorker`] is coinop's own loop: `answer` is what a model may say, `conversation` what it is shown, `transcript` what is
//! kept of it.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::job::{Refusal, Usage};
use crate::sandbox::{Cell, SandboxError};

mod answer;
mod conversation;
mod model_worker;
mod shell;
mod transcript;
pub mod transcripts;

pub use self::model_worker::ModelWorker;
pub use self::transcripts::Transcripts;
pub mod external;

/// What a worker may take at most, in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkLimits {
    /// Commands.
    pub steps: u32,
    /// Tokens read, over all steps: a conversation is read again at each.
    pub prompt_tokens: u32,
    /// Tokens written, over all steps.
    pub generated_tokens: u32,
    /// Time in all.
    pub time: Duration,
    /// Time of one command.
    pub command_time: Duration,
    /// Bytes of a command's output that the worker gets to see.
    pub output_bytes: usize,
}

/// What is to be done. The workspace holds the files already.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The words for the worker: the issue, what it may change, how it is tested.
    pub instructions: String,
    /// The model that was promised, when the worker has one to choose.
    pub model: Option<String>,
    /// What it may take.
    pub limits: WorkLimits,
}

impl fmt::Debug for Task {
    /// The customer's text stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("model", &self.model).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Why a worker stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// It says that it is done.
    Submitted,
    /// No steps left.
    OutOfSteps,
    /// No tokens left.
    OutOfTokens,
    /// No time left.
    OutOfTime,
    /// It did not do what a worker does: its answers can't be read, or it goes in circles.
    Lost,
    /// One of its commands was ended from outside (time, memory, output), and the cell with it.
    CellEnded,
}

/// Work that was done; whether it is any good is for others to find out.
#[derive(Clone, PartialEq, Eq)]
pub struct Worked {
    /// Why it stopped.
    pub stopped: Stopped,
    /// Commands that were run.
    pub steps: u32,
    /// Tokens used.
    pub usage: Usage,
    /// The model's name.
    pub model: Option<String>,
    /// Its parameter count, when known.
    pub parameters: Option<u64>,
    /// Its digest, when known.
    pub digest: Option<String>,
    /// Everything that was said and run, as JSON lines: kept with the job, its hash on the receipt.
    pub transcript: String,
}

impl fmt::Debug for Worked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worked")
            .field("stopped", &self.stopped)
            .field("steps", &self.steps)
            .field("usage", &self.usage)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// Why a worker could not go on. What it took until then is lost to the operator, not charged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// The model failed; the words are for the operator.
    #[error("the model failed: {0}")]
    Model(String),
    /// The sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Stopped as asked.
    #[error("cancelled")]
    Cancelled,
}

/// What a worker can take, found before anything is promised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// The model it will use, by its public name.
    pub model: Option<String>,
    /// Tokens of prompt and answer together, when known.
    pub context_tokens: Option<u32>,
}

/// Somebody who does tasks in cells.
#[async_trait]
pub trait Worker: Send + Sync + 'static {
    /// Whether it can work, with that model if one is wanted.
    ///
    /// # Errors
    /// A refusal for the customer: no such model, or nobody to work now.
    async fn capacity(&self, model: Option<&str>) -> Result<Capacity, Refusal>;

    /// How many tasks with that model can be under way at once, or with `None` of all models together.
    fn room(&self, _model: Option<&str>) -> usize {
        usize::MAX
    }

    /// Works until it is done or out of something.
    async fn work(&self, task: &Task, cell: &dyn Cell, cancel: &CancellationToken) -> Result<Worked, WorkError>;
}
