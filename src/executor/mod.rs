//! The executor port: who does the work of a kind, and the router that knows.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use crate::inference::Piece;
use crate::inference::TextSink;
use crate::job::{Estimate, Failure, JobKind, JobRequest, Outcome, Rates, Refusal};
use crate::money::Msat;

/// Work made ready: inputs fetched, parameters checked, size known. Kept with the job, so that what runs after payment is
/// exactly what was quoted.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Prepared {
    /// What it can take at most.
    pub estimate: Estimate,
    /// Whether the prompt's tokens were counted and not estimated, which gives more than there are.
    #[serde(default)]
    pub prompt_is_exact: bool,
    /// Whether the customer wants `partial` feedback.
    pub stream: bool,
    /// Its price list, when it has one of its own instead of the kind's.
    #[serde(default)]
    pub rates: Option<Rates>,
    /// What it waits for a turn at: jobs of one lane share its room.
    #[serde(default)]
    pub lane: Option<String>,
    /// The executor's own description of the work.
    pub work: serde_json::Value,
}

impl std::fmt::Debug for Prepared {
    /// Without the work, which holds the prompt.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared")
            .field("estimate", &self.estimate)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// Does the work of one kind of job.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// Checks the request, fetches its inputs and finds its size, before anything is promised. The refusal is for the
    /// customer.
    async fn prepare(&self, request: &JobRequest) -> Result<Prepared, Refusal>;

    /// Makes the work smaller until it costs at most `bid` at these rates, where the customer left its size to us. What can't
    /// be made small enough stays as it is, and is too dear.
    fn within(&self, prepared: Prepared, _rates: &Rates, _bid: Msat) -> Prepared {
        prepared
    }

    /// Told before a run that nobody pays for. Only then may anything of it be put where others could read it before the
    /// result is out: whoever pays can call the job off until then, and would have it for nothing.
    fn may_publish(&self, _prepared: &mut Prepared) {}

    /// How many jobs of a lane can be under way at once, or with `None` of all lanes together, as far as is known now: lanes
    /// may share what does their work.
    fn room(&self, _lane: Option<&str>) -> usize {
        usize::MAX
    }

    /// Does the work. New text goes to `partial` as it is written. Ends soon after `cancel`. Safe to do again: a process
    /// that dies in a run runs it again.
    async fn run(
        &self,
        prepared: &Prepared,
        partial: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Outcome, Failure>;
}

/// Which executor does which kind.
#[derive(Clone, Default)]
pub struct Router {
    routes: Vec<(JobKind, Arc<dyn Executor>)>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.kinds()).finish()
    }
}

impl Router {
    /// An empty router.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a kind's executor.
    #[must_use]
    pub fn with(mut self, kind: JobKind, executor: Arc<dyn Executor>) -> Self {
        self.routes.retain(|(known, _)| *known != kind);
        self.routes.push((kind, executor));
        self
    }

    /// The executor of a kind.
    pub fn get(&self, kind: JobKind) -> Option<&Arc<dyn Executor>> {
        self.routes.iter().find(|(known, _)| *known == kind).map(|(_, executor)| executor)
    }

    /// The kinds served.
    pub fn kinds(&self) -> impl Iterator<Item = JobKind> + '_ {
        self.routes.iter().map(|(kind, _)| *kind)
    }
}

pub mod code_review;
pub mod inference;
pub mod patch_gen;
pub mod repo_index;
pub mod sandbox_run;
pub mod sources;
mod told;
