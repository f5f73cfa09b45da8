//! Kind 5931, RepoIndex: what is in a repository, as lists.
//!
//! What costs little is checked before a quote: the parameters, the model for embeddings, the repository's commit. The files
//! are fetched once it is paid and read one by one on a thread; nothing of them is run, and nothing is written to the disk but
//! what the cache of repositories keeps. What is charged is the time from then on, and the tokens that embeddings took. The result is held
//! against its published schema before anybody gets it.

mod embedding;
mod fitting;
mod reading;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::embedding::Embedded;
use self::fitting::{Problems, Room};
use self::reading::{Read, ReadError, Reading};
use super::told::{cancelled, not_fetched};
use super::{Executor, Prepared};
use crate::inference::{Inference, InferenceError, MODELS_LISTED, ModelInfo, TextSink, meant, refusal};
use crate::job::repo_index::{RepoIndex, RepoIndexLimits, RepoIndexResult, Wanted};
use crate::job::text::excerpt;
use crate::job::{
    Compute, CustomerId, Estimate, Failure, FinishReason, JobRequest, Outcome, Rates, Refusal, Usage, schema,
};
use crate::money::Msat;
use crate::repository::{CommitId, Repositories, RepositoryError, Snapshot};

/// What a result looks like, as it is published.
const SCHEMA: &str = include_str!("../../../nips/5931.schema.json");

/// The shortest time an index is made to fit a bid: less is not enough for anything.
const LEAST_TIME: Duration = Duration::from_secs(10);

/// The fewest tokens that embeddings are made to fit a bid.
const LEAST_TOKENS: u32 = 1_000;

/// Makes indexes of repositories.
#[derive(Clone)]
pub struct RepoIndexExecutor {
    repositories: Repositories,
    inference: Option<Arc<dyn Inference>>,
    limits: RepoIndexLimits,
}

impl std::fmt::Debug for RepoIndexExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RepoIndexExecutor").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What is kept between quote and run.
#[derive(Serialize, Deserialize)]
struct IndexWork {
    customer: CustomerId,
    asked: RepoIndex,
    commit: CommitId,
    /// What makes embeddings, when there are to be any.
    model: Option<EmbeddingModel>,
    /// Time of the whole run.
    time: Duration,
}

/// A model that makes embeddings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct EmbeddingModel {
    name: String,
    context_tokens: Option<u32>,
    /// The most that may be read.
    max_tokens: u32,
}

impl IndexWork {
    fn usage(&self) -> Usage {
        let tokens = self.model.as_ref().map_or(0, |model| model.max_tokens);
        Usage { compute: Compute { wall: self.time, memory_mib: 0 }, ..Usage::tokens(tokens, 0) }
    }

    fn prepared(self) -> Prepared {
        let Usage { prompt_tokens, compute, .. } = self.usage();
        Prepared {
            estimate: Estimate { compute, ..Estimate::tokens(prompt_tokens, 0) },
            prompt_is_exact: self.model.is_none(),
            stream: false,
            rates: None,
            lane: None,
            work: serde_json::to_value(self).expect("plain data is always JSON"),
        }
    }
}

/// Why an index was not finished.
enum Stop {
    Cancelled,
    Repository(RepositoryError),
    Inference(InferenceError),
    /// A file made a reader stumble.
    Broken,
}

impl RepoIndexExecutor {
    /// Indexes what `repositories` fetch. Embeddings are made by `inference`, where it can.
    pub fn new(repositories: Repositories, inference: Option<Arc<dyn Inference>>, limits: RepoIndexLimits) -> Self {
        Self { repositories, inference, limits }
    }

    /// The model for embeddings, when they are wanted and there is one.
    async fn model(&self, asked: &RepoIndex) -> Result<Option<EmbeddingModel>, Refusal> {
        if asked.types.embeddings == Wanted::No {
            return Ok(None);
        }
        let models = match &self.inference {
            Some(backend) if self.limits.embeddings => backend.embedding_models().await.map_err(refusal)?,
            _ => Vec::new(),
        };
        let chosen = match asked.embedding_model.as_deref() {
            None => models.first(),
            Some(wanted) => meant(models.iter(), wanted, |model, is_it| is_it(&model.name)),
        };
        match (chosen, asked.embedding_model.as_deref()) {
            (Some(ModelInfo { name, context_tokens, .. }), _) => Ok(Some(EmbeddingModel {
                name: name.clone(),
                context_tokens: *context_tokens,
                max_tokens: self.limits.max_tokens,
            })),
            (None, Some(wanted)) if !models.is_empty() => {
                let names: Vec<&str> = models.iter().take(MODELS_LISTED).map(|model| model.name.as_str()).collect();
                Err(Refusal::unsupported(format!(
                    "param embedding_model: there is no '{}' here; on offer: {}",
                    excerpt(wanted),
                    names.join(", ")
                )))
            }
            (None, _) if asked.types.embeddings == Wanted::IfOffered => Ok(None),
            (None, _) => Err(Refusal::unsupported(
                "param index_type: embeddings are not offered here; leave them out or ask another provider",
            )),
        }
    }

    async fn index(&self, work: &IndexWork, cancel: &CancellationToken) -> Result<(Outcome, Value), Stop> {
        let asked = &work.asked;
        let fetched = self.repositories.snapshot(&asked.repository.url, &work.commit, work.customer, cancel).await;
        let snapshot = fetched.map_err(Stop::Repository)?;
        // What is fetched is not charged by the second: a slow host is not the customer's fault.
        let begun = Instant::now();
        let mut room = Room::new(self.limits.max_result_bytes);
        let mut problems = room.problems();
        if asked.types.embeddings == Wanted::IfOffered && work.model.is_none() {
            problems.add("embeddings: not offered by this provider");
        }
        let read = self.read(&snapshot, asked, &mut room, &mut problems, cancel).await?;
        let embedded = match (&work.model, &self.inference) {
            (Some(model), Some(backend)) => {
                let globs = asked.globs().map_err(|_| Stop::Broken)?;
                let task = embedding::Task {
                    backend: &**backend,
                    model: &model.name,
                    context_tokens: model.context_tokens,
                    snapshot: &snapshot,
                    globs: &globs,
                    max_file_bytes: asked.max_file_bytes,
                    max_tokens: model.max_tokens,
                    cancel,
                };
                Some(embedding::embed(&task, &mut room, &mut problems).await?)
            }
            _ => None,
        };
        Ok(outcome(work, read, embedded, problems, begun.elapsed()))
    }

    /// Reads the files on a thread, which ends soon after `cancel`.
    async fn read(
        &self,
        snapshot: &Snapshot,
        asked: &RepoIndex,
        room: &mut Room,
        problems: &mut Problems,
        cancel: &CancellationToken,
    ) -> Result<Read, Stop> {
        let globs = asked.globs().map_err(|_| Stop::Broken)?;
        let (snapshot, types, max_file_bytes) = (snapshot.clone(), asked.types, asked.max_file_bytes);
        let (mut its_room, mut its_problems, cancel) = (room.clone(), problems.clone(), cancel.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let go_on = || !cancel.is_cancelled();
            let reading = Reading { snapshot: &snapshot, globs: &globs, types, max_file_bytes, go_on: &go_on };
            let read = reading::read(&reading, &mut its_room, &mut its_problems);
            (read, its_room, its_problems)
        });
        let (read, its_room, its_problems) = reading.await.map_err(|panicked| {
            // Readers are fed by strangers; what makes one stumble ends one job and no more.
            tracing::error!(error = %panicked, "Reading the files of a repository ended in a panic");
            Stop::Broken
        })?;
        (*room, *problems) = (its_room, its_problems);
        read.map_err(|error| match error {
            ReadError::Stopped => Stop::Cancelled,
            ReadError::Repository(error) => Stop::Repository(error),
        })
    }
}

fn outcome(
    work: &IndexWork,
    read: Read,
    embedded: Option<Embedded>,
    problems: Problems,
    duration: Duration,
) -> (Outcome, Value) {
    let Read { tree_sha256, mut indexes, files, bytes, mut truncated } = read;
    let mut usage = Usage { compute: Compute { wall: duration, memory_mib: 0 }, ..Usage::NONE };
    let (mut model, mut parameters, mut digest) = (None, None, None);
    if let Some(made) = embedded {
        usage.prompt_tokens = made.tokens;
        truncated |= made.truncated;
        (model, parameters, digest) = (Some(made.index.model.clone()), made.parameters, made.digest);
        indexes.embeddings = Some(made.index);
    }
    let facts =
        [("commit", work.commit.to_string()), ("tree_sha256", tree_sha256.clone()), ("files", files.to_string())];
    let result = RepoIndexResult {
        commit: work.commit.to_string(),
        tree_sha256,
        indexes,
        files_indexed: files,
        bytes_processed: bytes,
        tokens_processed: u64::from(usage.prompt_tokens),
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        truncated,
        errors: problems.finish(),
    };
    let value = serde_json::to_value(&result).expect("plain data is always JSON");
    let outcome = Outcome {
        // Not of the value, which writes the numbers of vectors with twice the digits.
        content: serde_json::to_string(&result).expect("plain data is always JSON"),
        usage,
        finish: FinishReason::Stop,
        model,
        parameters,
        digest,
        facts: facts.map(|(key, value)| (key.to_owned(), value)).to_vec(),
        duration,
    };
    (outcome, value)
}

#[async_trait]
impl Executor for RepoIndexExecutor {
    async fn prepare(&self, request: &JobRequest) -> Result<Prepared, Refusal> {
        let asked = RepoIndex::parse(request, &self.limits)?;
        // A wrong name costs nobody a connection.
        let model = self.model(&asked).await?;
        let found = self.repositories.resolve(&asked.repository.url, asked.repository.reference.as_deref()).await;
        let commit = found.map_err(|error| not_fetched(&error))?;
        Ok(IndexWork { customer: request.customer, asked, commit, model, time: self.limits.time }.prepared())
    }

    fn within(&self, prepared: Prepared, rates: &Rates, bid: Msat) -> Prepared {
        let Ok(mut work) = IndexWork::deserialize(&prepared.work) else { return prepared };
        while rates.cost(work.usage()) > bid {
            let shorter = LEAST_TIME.max(work.time / 2).min(work.time);
            let tokens = work.model.as_ref().map_or(0, |model| model.max_tokens);
            let fewer = LEAST_TOKENS.max(tokens / 2).min(tokens);
            if shorter == work.time && fewer == tokens {
                return prepared;
            }
            work.time = shorter;
            work.model.iter_mut().for_each(|model| model.max_tokens = fewer);
        }
        work.prepared()
    }

    fn room(&self, _lane: Option<&str>) -> usize {
        self.limits.at_once
    }

    async fn run(
        &self,
        prepared: &Prepared,
        _partial: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Outcome, Failure> {
        let work = IndexWork::deserialize(&prepared.work).map_err(|error| {
            tracing::error!(%error, "A prepared index can't be read: was it made by another version?");
            Failure::backend("the job can't be run any more; please ask again")
        })?;
        // The token also reaches the thread that reads.
        let cancel = cancel.child_token();
        let _stop_when_done = cancel.clone().drop_guard();
        let (outcome, value) = match tokio::time::timeout(work.time, self.index(&work, &cancel)).await {
            Ok(done) => done.map_err(told)?,
            Err(_) => return Err(Failure::timeout(work.time)),
        };
        let schema: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON: a test reads it");
        schema::matches(&schema, &value).map_err(|mismatch| {
            tracing::error!(%mismatch, "An index does not match its schema");
            Failure::backend("the index came out wrong and is not delivered; nothing is charged")
        })?;
        Ok(outcome)
    }
}

/// What a customer may know; the operator reads the rest in the log.
fn told(stop: Stop) -> Failure {
    match stop {
        Stop::Cancelled => cancelled().into(),
        Stop::Repository(error) => not_fetched(&error).into(),
        Stop::Inference(error) => refusal(error).into(),
        Stop::Broken => Failure::backend("a file of the repository can't be read; leave it out with exclude").in_vain(),
    }
}
