//! Kind 5930, SandboxRun: a customer's commands in a cell, on a repository's files.
//!
//! What costs little is checked before a quote: the parameters, the image, the repository's commit. The files are fetched
//! once it is paid, the cell is opened when there is room for it, and what is charged is its time. Commands run in order; after
//! one that fails, or that is ended at a limit, no other is run. That is a result. Only where the customer asked for an
//! exit code (`expect_exit`) and the run ended with another is it a failure, which costs nothing and brings the log.

mod artifacts;
mod fitting;
mod running;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::told::{cancelled, not_fetched};
use super::{Executor, Prepared};
use crate::blossom::Blossom;
use crate::inference::TextSink;
use crate::job::sandbox_run::{SandboxRun, SandboxRunLimits};
use crate::job::text::excerpt;
use crate::job::{Code, Compute, CustomerId, Estimate, Failure, JobId, JobRequest, Outcome, Rates, Refusal, Usage};
use crate::money::Msat;
use crate::repository::{CommitId, Repositories};
use crate::sandbox::{Image, Runtime, Sandbox, SandboxError};

/// The shortest time a run is made to fit a bid: less is not enough for anything.
const LEAST_TIME: Duration = Duration::from_secs(10);

/// Most image names an error lists.
const IMAGES_LISTED: usize = 20;

/// Runs commands in cells.
#[derive(Clone)]
pub struct SandboxRunExecutor {
    sandbox: Arc<dyn Sandbox>,
    repositories: Option<Repositories>,
    files: Option<Blossom>,
    runtime: Runtime,
    limits: SandboxRunLimits,
}

impl std::fmt::Debug for SandboxRunExecutor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SandboxRunExecutor")
            .field("runtime", &self.runtime)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// What is kept between quote and run.
#[derive(Serialize, Deserialize)]
struct RunWork {
    job: JobId,
    customer: CustomerId,
    asked: SandboxRun,
    /// The image's name.
    image: String,
    /// The repository's commit, when there is one.
    commit: Option<CommitId>,
    /// Time of the whole run.
    time: Duration,
    /// The request was encrypted: nothing of it is put where others can read it.
    private: bool,
    /// Nobody pays: files may be put where anybody can read them. Whoever pays could call the job off, and would have them
    /// for nothing.
    #[serde(default)]
    may_publish: bool,
}

impl SandboxRunExecutor {
    /// Runs in cells of that runtime. Without repositories only empty workspaces are offered; files that no result has room
    /// for go to `files`, if there is a server.
    pub fn new(
        sandbox: Arc<dyn Sandbox>,
        repositories: Option<Repositories>,
        files: Option<Blossom>,
        runtime: Runtime,
        limits: SandboxRunLimits,
    ) -> Self {
        Self { sandbox, repositories, files, runtime, limits }
    }

    async fn image(&self, wanted: Option<&str>) -> Result<Image, Refusal> {
        let images = self.sandbox.images(self.runtime).await.map_err(|error| told(&error))?;
        let found = match wanted {
            None => images.first(),
            Some(wanted) => images.iter().find(|image| image.name == wanted),
        };
        match (found, wanted) {
            (Some(image), _) => Ok(image.clone()),
            (None, Some(wanted)) if !images.is_empty() => {
                Err(unknown_image(wanted, images.iter().map(|image| image.name.as_str())))
            }
            (None, _) => Err(Refusal::new(Code::Backend, "the sandbox is out of order; please try again later")),
        }
    }

    async fn commit(&self, asked: &SandboxRun) -> Result<Option<CommitId>, Refusal> {
        let Some(asked) = &asked.repository else { return Ok(None) };
        let Some(repositories) = &self.repositories else {
            return Err(Refusal::unsupported(
                "repositories are not fetched here; leave the input out, and make the files with a command",
            ));
        };
        let found = repositories.resolve(&asked.url, asked.reference.as_deref()).await;
        found.map(Some).map_err(|error| not_fetched(&error))
    }
}

#[async_trait]
impl Executor for SandboxRunExecutor {
    async fn prepare(&self, request: &JobRequest) -> Result<Prepared, Refusal> {
        let asked = SandboxRun::parse(request, &self.limits)?;
        // A wrong name costs nobody a connection.
        let image = self.image(asked.image.as_deref()).await?;
        let commit = self.commit(&asked).await?;
        let time = asked.time.unwrap_or(self.limits.time.usual());
        let compute = Compute { wall: time, memory_mib: asked.memory_mib };
        let work = RunWork {
            job: request.id,
            customer: request.customer,
            asked,
            image: image.name,
            commit,
            time,
            private: request.encryption.is_some(),
            may_publish: false,
        };
        Ok(Prepared {
            estimate: Estimate { compute, ..Estimate::tokens(0, 0) },
            prompt_is_exact: true,
            stream: false,
            rates: None,
            lane: None,
            work: serde_json::to_value(work).expect("plain data is always JSON"),
        })
    }

    fn within(&self, prepared: Prepared, rates: &Rates, bid: Msat) -> Prepared {
        let Ok(mut work) = RunWork::deserialize(&prepared.work) else { return prepared };
        let compute = prepared.estimate.compute;
        let affordable = rates.affordable_wall(bid, Usage::NONE, compute.memory_mib);
        // Whole seconds, so that it can be said and asked for.
        let affordable = affordable.map(|wall| Duration::from_secs(wall.as_secs()));
        match affordable {
            Some(wall) if work.asked.time.is_none() && wall >= LEAST_TIME && wall < work.time => {
                work.time = wall;
                let compute = Compute { wall, ..compute };
                let work = serde_json::to_value(work).expect("plain data is always JSON");
                Prepared { estimate: Estimate { compute, ..prepared.estimate }, work, ..prepared }
            }
            _ => prepared,
        }
    }

    fn may_publish(&self, prepared: &mut Prepared) {
        if let Some(work) = prepared.work.as_object_mut() {
            work.insert("may_publish".to_owned(), true.into());
        }
    }

    fn room(&self, _lane: Option<&str>) -> usize {
        self.sandbox.room(self.runtime)
    }

    async fn run(
        &self,
        prepared: &Prepared,
        _partial: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Outcome, Failure> {
        let work = RunWork::deserialize(&prepared.work).map_err(|error| {
            tracing::error!(%error, "A prepared run can't be read: was it made by another version?");
            Failure::backend("the job can't be run any more; please ask again")
        })?;
        self.run_in_cell(&work, cancel).await
    }
}

fn unknown_image<'a>(wanted: &str, offered: impl Iterator<Item = &'a str>) -> Refusal {
    let names: Vec<&str> = offered.take(IMAGES_LISTED).collect();
    let (wanted, names) = (excerpt(wanted), names.join(", "));
    Refusal::unsupported(format!("param image: there is no '{wanted}' here; on offer: {names}"))
}

/// What a customer may know of the sandbox's trouble; the operator reads the rest in the log.
fn told(error: &SandboxError) -> Refusal {
    match error {
        SandboxError::UnknownImage { wanted, offered } => unknown_image(wanted, offered.iter().map(String::as_str)),
        SandboxError::Archive(_) => Refusal::new(
            Code::BadRequest,
            "the files can't go into the workspace; ask for more max_disk_mb or take fewer",
        ),
        SandboxError::WorkspaceFull { limit_mib } => does_not_fit(*limit_mib),
        SandboxError::TooBig { .. } => Refusal::bad_request(
            "param max_memory_mb: with max_disk_mb it is more than any machine here has; ask for less of both",
        ),
        SandboxError::Cancelled => cancelled(),
        SandboxError::NoRuntime(_) | SandboxError::Engine(_) | SandboxError::Gone(_) => {
            tracing::warn!(%error, "The sandbox failed");
            Refusal::new(Code::Backend, "the sandbox failed; please try again")
        }
    }
}

fn does_not_fit(limit_mib: u32) -> Refusal {
    Refusal::new(
        Code::BadRequest,
        format!(
            "param max_disk_mb: the repository does not fit into {limit_mib} MiB; ask for more or take a smaller one"
        ),
    )
}
