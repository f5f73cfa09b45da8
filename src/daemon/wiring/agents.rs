//! What agent jobs are made of, from the configuration: engines, repositories, files, workers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::offers::Sold;
use crate::agent::external::{self, ExternalAgent, ExternalAgentSettings};
use crate::agent::{ModelWorker, Transcripts, Worker};
use crate::blossom::{Blossom, BlossomConfig, SEAL_BYTES};
use crate::config::{AgentSettings, Config, ExternalSettings, KeyHeader, Paths};
use crate::daemon::service::Background;
use crate::executor::code_review::CodeReviewExecutor;
use crate::executor::patch_gen::PatchGenExecutor;
use crate::executor::repo_index::RepoIndexExecutor;
use crate::executor::sandbox_run::SandboxRunExecutor;
use crate::executor::sources::InputSource;
use crate::executor::{Executor, Router};
use crate::inference::Inference;
use crate::job::JobKind;
use crate::job::code_review::CodeReviewLimits;
use crate::job::patch_gen::PatchGenLimits;
use crate::job::reading::Bound;
use crate::job::repo_index::RepoIndexLimits;
use crate::job::sandbox_run::SandboxRunLimits;
use crate::nip90::Codec;
use crate::provider::Clock;
use crate::repository::{Repositories, RepositoryLimits};
use crate::sandbox::{self, Hosts, Image, Runtime, Sandbox};

mod proven;

pub use self::proven::{Withheld, proven_ads, take_back};

/// The folder of fetched repositories, in the data folder.
const REPOSITORIES_FOLDER: &str = "repositories";

/// The folder of what agents did, in the data folder.
const TRANSCRIPTS_FOLDER: &str = "transcripts";

/// How often transcripts that are past their time are removed.
const PRUNE_EVERY: Duration = Duration::from_secs(60 * 60);

/// Bytes of an index that has to fit into an event, JSON escapes included.
const INDEX_IN_AN_EVENT_BYTES: usize = 36 * 1024;

/// Bytes of the largest patch when there is a server of files to put it on: nobody reads more.
const MAX_PATCH_BYTES: usize = 1024 * 1024;

/// Thousandths of a core.
const MILLI_CPUS: u32 = 1_000;

/// Engines, repositories and files, opened.
pub struct OpenAgents {
    hosts: Option<Arc<Hosts>>,
    /// What cells can be made from now, by runtime; none where the runtime was not proven to work.
    images: BTreeMap<Runtime, Vec<Image>>,
    /// Whether the image that patches are made in was seen to have git.
    patches_with_git: bool,
    repositories: Repositories,
    transcripts: Transcripts,
    keep_transcripts: Duration,
    sweep_every: Duration,
    /// Where results go that no event has room for.
    pub files: Option<Blossom>,
}

impl std::fmt::Debug for OpenAgents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenAgents").field("images", &self.images).finish_non_exhaustive()
    }
}

/// The engines of the configuration.
///
/// # Errors
/// When the data folder can't be written.
pub fn engines(config: &Config, paths: &Paths) -> Result<Hosts> {
    Ok(Hosts::new(super::sandbox::settings(&config.agents.sandbox, paths)?))
}

/// The image that patches are made in.
fn patch_image(config: &Config) -> Option<String> {
    let first = || config.agents.sandbox.images.first().map(|image| image.name.clone());
    config.agents.patch_gen.image.clone().or_else(first)
}

/// Whether the image that patches are made in has git, without which none can be verified.
///
/// # Errors
/// What is wrong with it.
pub async fn has_git(sandbox: &dyn Sandbox, config: &Config) -> Result<(), String> {
    let image = patch_image(config).ok_or("there is no image")?;
    has(sandbox, config.agents.patch_gen.runtime, &image, "git").await
}

/// Whether the image that patches are made in has what the agent program of the configuration is started with: Python for
/// the relay to its model, and the program. Nothing without such a program.
///
/// # Errors
/// What is wrong with it.
pub async fn has_agent(sandbox: &dyn Sandbox, config: &Config) -> Option<Result<(), String>> {
    let agent = config.agents.patch_gen.agent.as_ref()?;
    let image = patch_image(config)?;
    for program in [Some(external::detect::PYTHON), program_of(agent)].into_iter().flatten() {
        if let Err(why) = has(sandbox, config.agents.patch_gen.runtime, &image, program).await {
            return Some(Err(why));
        }
    }
    Some(Ok(()))
}

/// The images of these that have no shell, which every command needs, and what is wrong with each.
pub async fn without_shell(sandbox: &dyn Sandbox, runtime: Runtime, images: &[&str]) -> Vec<String> {
    let tried = images.iter().map(|image| has(sandbox, runtime, image, "sh"));
    futures::future::join_all(tried).await.into_iter().filter_map(Result::err).collect()
}

async fn has(sandbox: &dyn Sandbox, runtime: Runtime, image: &str, program: &str) -> Result<(), String> {
    match sandbox::finds(sandbox, runtime, image, program).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("the image '{image}' has no {program}")),
        Err(error) => Err(format!("the image '{image}' can't be tried: {error}")),
    }
}

/// The program that an agent's command begins with, where that is as plain as that: a shell may be told anything.
fn program_of(agent: &ExternalSettings) -> Option<&str> {
    let first = agent.command.split_whitespace().next()?;
    let is_plain = first.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_+./".contains(&byte));
    let elsewhere = agent.env.iter().any(|(name, _)| name == "PATH");
    (is_plain && !elsewhere).then_some(first)
}

impl OpenAgents {
    /// Opens what the configuration sells. Engines that don't answer, and runtimes that a probe does not find as safe as they
    /// should be, are no error here: what needs them is not offered.
    ///
    /// # Errors
    /// When the file server's address can't be used, or the data folder can't be written.
    pub async fn open(config: &Config, paths: &Paths, codec: &Codec) -> Result<Self> {
        let agents = &config.agents;
        let runtimes = agents.runtimes();
        let hosts = (!runtimes.is_empty()).then(|| engines(config, paths).map(Arc::new)).transpose()?;
        let mut images = BTreeMap::new();
        if let Some(hosts) = &hosts {
            for runtime in runtimes {
                let found = hosts.images(runtime).await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "No engine can be used with the runtime {runtime}");
                    Vec::new()
                });
                images.insert(runtime, found);
            }
        }
        let patches_with_git = match &hosts {
            Some(hosts) if agents.patch_gen.sale.enabled => has_git(hosts.as_ref(), config).await.is_ok(),
            _ => false,
        };
        let files = agents.files.as_ref().map(|files| {
            let config = BlossomConfig { max_bytes: files.max_bytes, ..BlossomConfig::new(files.server.clone()) };
            Blossom::new(config, codec.clone()).context("files.server")
        });
        let limits = RepositoryLimits {
            max_bytes: agents.repositories.max_bytes,
            max_files: agents.repositories.max_files,
            time: agents.repositories.time_limit,
            cache_bytes: agents.repositories.cache_bytes,
            allow_private: agents.repositories.allow_private,
        };
        Ok(Self {
            hosts,
            images,
            patches_with_git,
            repositories: Repositories::new(paths.data_dir.join(REPOSITORIES_FOLDER), limits),
            transcripts: Transcripts::new(paths.data_dir.join(TRANSCRIPTS_FOLDER)),
            keep_transcripts: config.limits.retention,
            sweep_every: agents.sandbox.sweep_every,
            files: files.transpose()?,
        })
    }

    /// The images customers may choose from.
    pub fn images(&self, config: &Config) -> Vec<String> {
        let images = self.images.get(&config.agents.sandbox_run.runtime);
        images.into_iter().flatten().map(|image| image.name.clone()).collect()
    }

    /// What must run meanwhile.
    pub fn background(&self) -> Vec<Background> {
        let sweeper = self.hosts.clone().map(|hosts| {
            let every = self.sweep_every;
            Background {
                name: "sandboxes",
                run: Box::new(move |shutdown| Box::pin(hosts.run_sweeper(every, shutdown))),
            }
        });
        let (transcripts, keep) = (self.transcripts.clone(), self.keep_transcripts);
        let pruner = Background {
            name: "transcripts",
            run: Box::new(move |shutdown| Box::pin(prune(transcripts, keep, shutdown))),
        };
        sweeper.into_iter().chain([pruner]).collect()
    }

    /// What does the work of the kinds that are sold.
    ///
    /// # Errors
    /// When a secret is missing, or a kind needs a model and there is none.
    pub fn work(&self, config: &Config, sold: &[Sold], backend: Option<&Arc<dyn Inference>>) -> Result<AgentWork> {
        let agents = &config.agents;
        let is_sold = |kind| sold.iter().any(|sold| sold.kind == kind);
        let mut executors: Vec<(JobKind, Arc<dyn Executor>)> = Vec::new();
        let sandbox = self.hosts.clone().map(|hosts| -> Arc<dyn Sandbox> { hosts });
        if let Some(sandbox) = sandbox.clone().filter(|_| is_sold(JobKind::SandboxRun)) {
            let run = SandboxRunExecutor::new(
                sandbox,
                Some(self.repositories.clone()),
                self.files.clone(),
                agents.sandbox_run.runtime,
                run_limits(agents),
            );
            executors.push((JobKind::SandboxRun, Arc::new(run)));
        }
        if is_sold(JobKind::RepoIndex) {
            let sale = &agents.repo_index.sale;
            let usual = RepoIndexLimits::default();
            // An index that is cut is none: it has to fit into an event, or onto the server of files.
            let on_a_server = largest_file(self.files.as_ref());
            let limits = RepoIndexLimits {
                time: sale.time_limit,
                embeddings: agents.repo_index.embeddings,
                max_result_bytes: usual.max_result_bytes.min(on_a_server.max(INDEX_IN_AN_EVENT_BYTES)),
                ..usual
            };
            let index = RepoIndexExecutor::new(self.repositories.clone(), backend.cloned(), limits);
            executors.push((JobKind::RepoIndex, Arc::new(index)));
        }
        if let Some(sandbox) = sandbox.filter(|_| is_sold(JobKind::PatchGen)) {
            let worker: Arc<dyn Worker> = match &agents.patch_gen.agent {
                Some(external) => Arc::new(external_agent(external)?),
                None => Arc::new(ModelWorker::new(backend.context("patch_gen: there is no model")?.clone())),
            };
            let patch = PatchGenExecutor::new(
                sandbox,
                self.repositories.clone(),
                worker,
                agents.patch_gen.runtime,
                patch_limits(agents, self.files.as_ref()),
            );
            executors.push((JobKind::PatchGen, Arc::new(patch.with_transcripts(self.transcripts.clone()))));
        }
        let review = is_sold(JobKind::CodeReview).then(|| -> Result<Review> {
            Ok(Review {
                backend: backend.context("code_review: there is no model")?.clone(),
                repositories: self.repositories.clone(),
                limits: review_limits(agents),
            })
        });
        Ok(AgentWork { executors, review: review.transpose()? })
    }
}

/// What does the work of agent jobs.
#[allow(missing_debug_implementations)] // Made of traits.
pub struct AgentWork {
    executors: Vec<(JobKind, Arc<dyn Executor>)>,
    review: Option<Review>,
}

/// A review reads addresses, and those are read through the relays' pool as other inputs are.
struct Review {
    backend: Arc<dyn Inference>,
    repositories: Repositories,
    limits: CodeReviewLimits,
}

impl AgentWork {
    /// Adds it to a router.
    pub fn route(self, router: Router, sources: &Arc<dyn InputSource>) -> Router {
        let router = self.executors.into_iter().fold(router, |router, (kind, executor)| router.with(kind, executor));
        match self.review {
            None => router,
            Some(Review { backend, repositories, limits }) => {
                let review = CodeReviewExecutor::new(backend, Some(repositories), Arc::clone(sources), limits);
                router.with(JobKind::CodeReview, Arc::new(review))
            }
        }
    }
}

/// At most what the operator says, and what is usual when the customer says nothing.
fn up_to<T: Ord + Copy>(usual: Bound<T>, max: T) -> Bound<T> {
    Bound { default: usual.default.min(max), max }
}

fn run_limits(agents: &AgentSettings) -> SandboxRunLimits {
    let (run, usual) = (&agents.sandbox_run, SandboxRunLimits::default());
    SandboxRunLimits {
        time: up_to(usual.time, run.sale.time_limit),
        memory_mib: up_to(usual.memory_mib, run.max_memory_mib),
        disk_mib: up_to(usual.disk_mib, run.max_disk_mib),
        milli_cpus: up_to(usual.milli_cpus, run.max_cpus.saturating_mul(MILLI_CPUS)),
        ..usual
    }
}

fn patch_limits(agents: &AgentSettings, files: Option<&Blossom>) -> PatchGenLimits {
    let (patch, usual) = (&agents.patch_gen, PatchGenLimits::default());
    PatchGenLimits {
        max_patch_bytes: usual.max_patch_bytes.max(largest_file(files).min(MAX_PATCH_BYTES)),
        image: patch.image.clone(),
        time: up_to(usual.time, patch.sale.time_limit),
        steps: patch.max_steps,
        prompt_tokens: patch.max_prompt_tokens,
        generated_tokens: patch.max_generated_tokens,
        memory_mib: patch.memory_mib,
        disk_mib: patch.disk_mib,
        milli_cpus: patch.cpus.saturating_mul(MILLI_CPUS),
        ..usual
    }
}

/// Bytes of the largest output that the server of files takes, sealed or not; none without a server.
fn largest_file(files: Option<&Blossom>) -> usize {
    let bytes = files.map_or(0, |files| files.max_bytes().saturating_sub(SEAL_BYTES));
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn review_limits(agents: &AgentSettings) -> CodeReviewLimits {
    let usual = CodeReviewLimits::default();
    CodeReviewLimits {
        time: up_to(usual.time, agents.code_review.sale.time_limit),
        max_generated_tokens: agents.code_review.max_generated_tokens,
        ..usual
    }
}

fn external_agent(settings: &ExternalSettings) -> Result<ExternalAgent> {
    let key = settings.key.as_ref().map(|key| key.reveal("patch_gen.agent.key")).transpose()?;
    let usual = ExternalAgentSettings::new(settings.command.clone(), settings.endpoint.clone());
    let agent = ExternalAgentSettings {
        key,
        key_header: match settings.key_header {
            KeyHeader::Usual => usual.key_header,
            KeyHeader::Bearer => external::KeyHeader::Bearer,
            KeyHeader::XApiKey => external::KeyHeader::XApiKey,
        },
        model: settings.model.clone(),
        parameters: settings.parameters,
        env: settings.env.clone(),
        ..usual
    };
    ExternalAgent::new(agent).context("patch_gen.agent")
}

async fn prune(transcripts: Transcripts, keep: Duration, shutdown: CancellationToken) {
    let keep = SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX);
    loop {
        let before = Clock::system().now().checked_sub(keep).unwrap_or(Timestamp::UNIX_EPOCH);
        if let Err(error) = transcripts.prune(before).await {
            tracing::warn!(%error, "Old transcripts can't be removed");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PRUNE_EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_an_agent_is_known_where_the_command_is_plain() {
        let of = |command: &str, env: &[(&str, &str)]| {
            let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let endpoint = "https://example.com/v1".parse().unwrap();
            let key_header = KeyHeader::default();
            let command = command.to_owned();
            let agent =
                ExternalSettings { command, endpoint, key: None, key_header, model: None, parameters: None, env };
            program_of(&agent).map(str::to_owned)
        };
        assert_eq!(of("node /opt/agent.js < {instructions_file}", &[]).as_deref(), Some("node"));
        assert_eq!(of("/opt/agent-2.1/bin/go", &[("HOME", "/tmp")]).as_deref(), Some("/opt/agent-2.1/bin/go"));
        for told in ["A=b agent", "\"$AGENT\" run", "(cd x; agent)", ""] {
            assert_eq!(of(told, &[]), None, "{told}");
        }
        assert_eq!(of("agent", &[("PATH", "/opt/bin")]), None, "it is looked for elsewhere");
    }
}
