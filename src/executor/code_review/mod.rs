//! Kind 5933, CodeReview: a model reads a change and says what is wrong with it, as data.
//!
//! A diff that is sent, and one that a pull request's page gives, is read before a quote: so what can't be read, or is more
//! than there is room for, costs nobody anything, and the quote is exact. Of a repository only the commits are found before;
//! the quote is then for the most that is read, and what is not needed goes back. Where the model can be held to a schema it is;
//! elsewhere its answer is read as strictly, and asked for once more when it can't be ([`answers`]). What it says is then
//! checked against what it was shown ([`settling`]). Nothing of it is run, so there is no sandbox.

mod answers;
mod asking;
mod material;
mod settling;
mod sources;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::hashes::{Hash, sha256};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::settling::{Frame, settle};
use super::sources::InputSource;
use super::told::cancelled;
use super::{Executor, Prepared};
use crate::inference::{Inference, ModelInfo, TextSink, choose, refusal};
use crate::job::code_review::{CodeReview, CodeReviewLimits, Reviewed, TokenCounts};
use crate::job::text::BYTES_PER_TOKEN;
use crate::job::{CustomerId, Estimate, Failure, FinishReason, JobId, JobRequest, Outcome, Rates, Refusal, Usage};
use crate::money::Msat;
use crate::repository::{CommitId, Repositories};

/// What work is never made smaller than to fit a bid, in thousandths of the usual size.
const LEAST_SIZE: u32 = 250;

/// The usual size of work, in thousandths.
const WHOLE: u32 = 1_000;

/// Tokens of rules and marks around each part, at most.
const AROUND_A_PART: u32 = 900;

/// Reviews changes.
#[derive(Clone)]
pub struct CodeReviewExecutor {
    inference: Arc<dyn Inference>,
    repositories: Option<Repositories>,
    sources: Arc<dyn InputSource>,
    limits: CodeReviewLimits,
}

impl std::fmt::Debug for CodeReviewExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeReviewExecutor").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What is kept between quote and run.
#[derive(Serialize, Deserialize)]
struct ReviewWork {
    job: JobId,
    customer: CustomerId,
    asked: CodeReview,
    /// The diff that the pull request's page gave.
    pulled: Option<String>,
    /// Of a repository: each commit that is reviewed, or the commit of the files, or those before and afterwards.
    commits: Vec<CommitId>,
    /// The model that was promised.
    model: ModelInfo,
    size: Size,
    time: Duration,
}

/// How many tokens may be used for a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Size {
    prompt_tokens: u32,
    generated_tokens: u32,
}

impl Size {
    /// So many thousandths of it; what is read stays when it is known.
    fn part(self, thousandths: u32, with_prompt: bool) -> Self {
        let of = |whole: u32| {
            let part = u64::from(whole) * u64::from(thousandths) / u64::from(WHOLE);
            u32::try_from(part).unwrap_or(whole)
        };
        Self {
            prompt_tokens: if with_prompt { of(self.prompt_tokens) } else { self.prompt_tokens },
            generated_tokens: of(self.generated_tokens),
        }
    }
}

impl ReviewWork {
    /// The diff, when it is known before the run.
    fn diff(&self) -> Option<&str> {
        match &self.asked.reviewed {
            Reviewed::Diff(text) => Some(text),
            _ => self.pulled.as_deref(),
        }
    }
}

impl CodeReviewExecutor {
    /// Reviews with a model of `inference`. Pull requests are fetched by `sources`; without repositories only diffs and pull
    /// requests are reviewed.
    pub fn new(
        inference: Arc<dyn Inference>,
        repositories: Option<Repositories>,
        sources: Arc<dyn InputSource>,
        limits: CodeReviewLimits,
    ) -> Self {
        Self { inference, repositories, sources, limits }
    }

    /// What is read at most of what is not known yet.
    fn most_prompt_tokens(&self) -> u32 {
        let bytes = u32::try_from(self.limits.max_diff_bytes).unwrap_or(u32::MAX);
        let guidelines = u32::try_from(self.limits.max_guideline_bytes).unwrap_or(u32::MAX) / BYTES_PER_TOKEN;
        let parts = u32::try_from(self.limits.max_parts).unwrap_or(u32::MAX);
        let around = AROUND_A_PART.saturating_add(guidelines).saturating_mul(parts);
        (bytes / BYTES_PER_TOKEN).saturating_add(around)
    }

    async fn review(&self, work: &ReviewWork, cancel: &CancellationToken) -> Result<Outcome, Failure> {
        let begun = tokio::time::Instant::now();
        let material = match work.diff() {
            Some(diff) => self.material_of(diff, "the diff")?,
            None => self.of_repository(work, cancel).await?,
        };
        let plan = self.plan(&work.asked, &work.model, &material, work.size.generated_tokens).await?;
        if work.diff().is_none() && plan.prompt_tokens > work.size.prompt_tokens {
            return Err(Refusal::bad_request(format!(
                "what is to be reviewed has {} tokens; the quote was for {} at most: raise the bid, or name less",
                plan.prompt_tokens, work.size.prompt_tokens
            ))
            .into());
        }
        let mut said = Vec::with_capacity(plan.parts.len());
        let mut usage = Usage::NONE;
        for place in 0..plan.parts.len() {
            said.push(self.ask(work, &plan, place, &mut usage, cancel).await?);
        }
        let frame = Frame {
            material: &material,
            include_nits: work.asked.include_nits,
            model: &work.model.name,
            tokens: TokenCounts { prompt: usage.prompt_tokens, generated: usage.generated_tokens },
            most_bytes: self.limits.result_bytes,
        };
        let review = settle(said, &frame).map_err(|error| {
            tracing::error!(%error, "A review is not what it should be");
            Failure::backend("the provider failed while writing the review; please try again")
        })?;
        let fact = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut facts = vec![fact("status", &review.status.to_string()), fact("review_sha256", &review.review_sha256)];
        facts.extend(work.diff().map(|diff| fact("diff_sha256", &sha256::Hash::hash(diff.as_bytes()).to_string())));
        facts.extend(work.commits.iter().map(|commit| fact("commit", commit.as_str())));
        Ok(Outcome {
            content: serde_json::to_string(&review).expect("a review is JSON"),
            usage,
            finish: FinishReason::Stop,
            model: Some(work.model.name.clone()),
            parameters: work.model.parameters,
            digest: work.model.digest.clone(),
            facts,
            duration: begun.elapsed(),
        })
    }
}

#[async_trait]
impl Executor for CodeReviewExecutor {
    async fn prepare(&self, request: &JobRequest) -> Result<Prepared, Refusal> {
        let asked = CodeReview::parse(request, &self.limits)?;
        // A wrong name costs nobody a connection.
        let models = self.inference.models().await.map_err(refusal)?;
        let model = choose(&models, asked.model.as_deref())?;
        let pulled = match &asked.reviewed {
            Reviewed::Pull(url) => Some(self.pull(url).await?),
            _ => None,
        };
        let commits = self.commits_of(&asked.reviewed).await?;
        let mut work = ReviewWork {
            job: request.id,
            customer: request.customer,
            pulled,
            commits,
            time: asked.time_limit.unwrap_or(self.limits.time.usual()),
            size: Size { prompt_tokens: self.most_prompt_tokens(), generated_tokens: self.limits.max_generated_tokens },
            asked,
            model,
        };
        if let Some(diff) = work.diff() {
            let what = if work.pulled.is_some() { "input pr (url)" } else { "input diff" };
            let material = self.material_of(diff, what)?;
            let plan = self.plan(&work.asked, &work.model, &material, work.size.generated_tokens).await?;
            let generated = plan.answer_tokens.saturating_mul(u32::try_from(plan.parts.len()).unwrap_or(u32::MAX));
            work.size = Size { prompt_tokens: plan.prompt_tokens, generated_tokens: generated };
        }
        let Size { prompt_tokens, generated_tokens } = work.size;
        Ok(Prepared {
            estimate: Estimate::tokens(prompt_tokens, generated_tokens),
            prompt_is_exact: false,
            stream: false,
            rates: None,
            lane: Some(work.model.name.clone()),
            work: serde_json::to_value(work).expect("plain data is always JSON"),
        })
    }

    /// Shorter answers, and less to read where that is not known yet.
    fn within(&self, prepared: Prepared, rates: &Rates, bid: Msat) -> Prepared {
        let Ok(mut work) = ReviewWork::deserialize(&prepared.work) else { return prepared };
        let with_prompt = work.diff().is_none();
        let part = |thousandths| {
            let part = work.size.part(thousandths, with_prompt);
            (part, rates.cost(Usage::tokens(part.prompt_tokens, part.generated_tokens)) <= bid)
        };
        if part(WHOLE).1 || !part(LEAST_SIZE).1 {
            return prepared;
        }
        // More never costs less.
        let (mut fitting, mut too_dear) = (LEAST_SIZE, WHOLE);
        while too_dear - fitting > 1 {
            let middle = fitting + (too_dear - fitting) / 2;
            if part(middle).1 { fitting = middle } else { too_dear = middle }
        }
        work.size = part(fitting).0;
        let estimate = Estimate::tokens(work.size.prompt_tokens, work.size.generated_tokens);
        Prepared { estimate, work: serde_json::to_value(work).expect("plain data is always JSON"), ..prepared }
    }

    fn room(&self, lane: Option<&str>) -> usize {
        self.inference.room(lane)
    }

    async fn run(
        &self,
        prepared: &Prepared,
        _partial: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Outcome, Failure> {
        let work = ReviewWork::deserialize(&prepared.work).map_err(|error| {
            tracing::error!(%error, "A prepared review can't be read: was it made by another version?");
            Failure::backend("the job can't be run any more; please ask again")
        })?;
        // Dropping the future would do; the token also reaches work that runs beside it.
        let stop = cancel.child_token();
        let _stop_when_done = stop.clone().drop_guard();
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(cancelled().into()),
            done = tokio::time::timeout(work.time, self.review(&work, &stop)) => {
                done.unwrap_or_else(|_| Err(Failure::timeout(work.time)))
            }
        }
    }
}
