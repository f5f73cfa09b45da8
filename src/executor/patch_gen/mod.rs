//! Kind 5932, PatchGen: an agent works on a repository in a cell, and what it changed is delivered when it holds good in a
//! fresh one.
//!
//! Nothing of what happened in the first cell is believed. Its files are taken out ([`changes`]) and compared here with those
//! of the commit; what the comparison may hold is decided here, too. The diff is then applied to the commit's files in a
//! cell that has seen nothing, by `git apply`, and the customer's test command is run there ([`verifying`]). Only what passes is
//! a result; everything else is a failure, which costs nothing and brings the end of the log.

mod changes;
mod ignored;
mod instructions;
mod log;
#[cfg(test)]
mod tests;
mod verifying;
mod working;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::told::{not_fetched, sandbox_failed};
use super::{Executor, Prepared};
use crate::agent::{Transcripts, WorkLimits, Worker};
use crate::inference::TextSink;
use crate::job::patch_gen::{PatchGen, PatchGenLimits};
use crate::job::{Code, Compute, CustomerId, Estimate, Failure, JobId, JobRequest, Outcome, Rates, Refusal, Usage};
use crate::money::Msat;
use crate::repository::{CommitId, Repositories};
use crate::sandbox::{Image, Runtime, Sandbox};

/// What work is never made smaller than to fit a bid, in thousandths of the usual size: less is not enough for anything.
const LEAST_SIZE: u32 = 250;

/// The usual size of work, in thousandths.
const WHOLE: u32 = 1_000;

/// Makes patches.
#[derive(Clone)]
pub struct PatchGenExecutor {
    sandbox: Arc<dyn Sandbox>,
    repositories: Repositories,
    worker: Arc<dyn Worker>,
    runtime: Runtime,
    limits: PatchGenLimits,
    transcripts: Option<Transcripts>,
}

impl std::fmt::Debug for PatchGenExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PatchGenExecutor")
            .field("runtime", &self.runtime)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// What is kept between quote and run.
#[derive(Serialize, Deserialize)]
struct PatchWork {
    job: JobId,
    customer: CustomerId,
    asked: PatchGen,
    /// The image's name.
    image: String,
    commit: CommitId,
    /// The model that was promised.
    model: Option<String>,
    /// What may be used.
    size: Size,
}

/// How much may be used for a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Size {
    /// Time in both cells together.
    time: Duration,
    /// Tokens read, over all steps.
    prompt_tokens: u32,
    /// Tokens written, over all steps.
    generated_tokens: u32,
}

impl Size {
    /// Time for the agent. The rest is for applying and testing what it made.
    fn work_time(self) -> Duration {
        self.time / 3 * 2
    }

    fn usage(self, memory_mib: u32) -> Usage {
        let compute = Compute { wall: self.time, memory_mib };
        Usage { compute, ..Usage::tokens(self.prompt_tokens, self.generated_tokens) }
    }

    /// So many thousandths of it. The time is whole seconds, so that it can be said and asked for, and stays when the customer
    /// asked for it.
    fn part(self, thousandths: u32, with_time: bool) -> Self {
        let of = |whole: u32| {
            let part = u64::from(whole) * u64::from(thousandths) / u64::from(WHOLE);
            u32::try_from(part).unwrap_or(whole)
        };
        let seconds = self.time.as_secs() * u64::from(thousandths) / u64::from(WHOLE);
        Self {
            time: if with_time { Duration::from_secs(seconds) } else { self.time },
            prompt_tokens: of(self.prompt_tokens),
            generated_tokens: of(self.generated_tokens),
        }
    }
}

impl PatchGenExecutor {
    /// Patches repositories with what `worker` does in cells of that runtime.
    pub fn new(
        sandbox: Arc<dyn Sandbox>,
        repositories: Repositories,
        worker: Arc<dyn Worker>,
        runtime: Runtime,
        limits: PatchGenLimits,
    ) -> Self {
        Self { sandbox, repositories, worker, runtime, limits, transcripts: None }
    }

    /// Keeps what workers did there.
    #[must_use]
    pub fn with_transcripts(mut self, transcripts: Transcripts) -> Self {
        self.transcripts = Some(transcripts);
        self
    }

    /// The image that work and tests run in: the operator's choice, or the first.
    async fn image(&self) -> Result<Image, Refusal> {
        let images = self.sandbox.images(self.runtime).await.map_err(|error| sandbox_failed(&error))?;
        let wanted = self.limits.image.as_deref();
        let found = images.iter().find(|image| wanted.is_none_or(|wanted| image.name == wanted));
        found.cloned().ok_or_else(|| {
            tracing::error!(wanted, "The image that patches are made in is not on offer");
            Refusal::new(Code::Backend, "the sandbox is out of order; please try again later")
        })
    }

    fn work_limits(&self, size: Size) -> WorkLimits {
        WorkLimits {
            steps: self.limits.steps,
            prompt_tokens: size.prompt_tokens,
            generated_tokens: size.generated_tokens,
            time: size.work_time(),
            command_time: self.limits.command_time,
            output_bytes: self.limits.output_bytes,
        }
    }

    fn estimate(&self, size: Size) -> Estimate {
        let Usage { prompt_tokens, generated_tokens, compute } = size.usage(self.limits.memory_mib);
        Estimate { compute, ..Estimate::tokens(prompt_tokens, generated_tokens) }
    }
}

#[async_trait]
impl Executor for PatchGenExecutor {
    async fn prepare(&self, request: &JobRequest) -> Result<Prepared, Refusal> {
        let asked = PatchGen::parse(request, &self.limits)?;
        // A wrong name costs nobody a connection.
        let capacity = self.worker.capacity(asked.model.as_deref()).await?;
        let image = self.image().await?;
        let repository = &asked.repository;
        let found = self.repositories.resolve(&repository.url, repository.reference.as_deref()).await;
        let commit = found.map_err(|error| not_fetched(&error))?;
        let size = Size {
            time: asked.time_limit.unwrap_or(self.limits.time.usual()),
            prompt_tokens: self.limits.prompt_tokens,
            generated_tokens: self.limits.generated_tokens,
        };
        let model = capacity.model;
        let work = PatchWork {
            job: request.id,
            customer: request.customer,
            asked,
            image: image.name,
            commit,
            model: model.clone(),
            size,
        };
        Ok(Prepared {
            estimate: self.estimate(size),
            prompt_is_exact: false,
            stream: false,
            rates: None,
            lane: model,
            work: serde_json::to_value(work).expect("plain data is always JSON"),
        })
    }

    /// Fewer tokens and less time, both by the same part; the time only when the customer did not ask for it.
    fn within(&self, prepared: Prepared, rates: &Rates, bid: Msat) -> Prepared {
        let Ok(mut work) = PatchWork::deserialize(&prepared.work) else { return prepared };
        let with_time = work.asked.time_limit.is_none();
        let fits =
            |thousandths: u32| rates.cost(work.size.part(thousandths, with_time).usage(self.limits.memory_mib)) <= bid;
        if fits(WHOLE) || !fits(LEAST_SIZE) {
            return prepared;
        }
        // More never costs less.
        let (mut fitting, mut too_dear) = (LEAST_SIZE, WHOLE);
        while too_dear - fitting > 1 {
            let middle = fitting + (too_dear - fitting) / 2;
            if fits(middle) { fitting = middle } else { too_dear = middle }
        }
        work.size = work.size.part(fitting, with_time);
        let estimate = self.estimate(work.size);
        Prepared { estimate, work: serde_json::to_value(work).expect("plain data is always JSON"), ..prepared }
    }

    fn room(&self, lane: Option<&str>) -> usize {
        self.sandbox.room(self.runtime).min(self.worker.room(lane))
    }

    async fn run(
        &self,
        prepared: &Prepared,
        _partial: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Outcome, Failure> {
        let work = PatchWork::deserialize(&prepared.work).map_err(|error| {
            tracing::error!(%error, "Prepared work on a patch can't be read: was it made by another version?");
            Failure::backend("the job can't be run any more; please ask again")
        })?;
        self.make_patch(&work, cancel).await
    }
}
