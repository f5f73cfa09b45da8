//! Sandboxes, repositories, files, and the four kinds of agent jobs (5930–5933).

use std::time::Duration;

use url::Url;

use super::secret::SecretRef;
use crate::job::{JobKind, Rates, Terms};
use crate::sandbox::Runtime;
pub use crate::sandbox::settings::{HostAddress, HostSettings, ImageSettings, TlsFiles};

pub mod raw;
mod read;
#[cfg(test)]
mod tests;

pub(super) use read::{agents, together};

/// Everything about agent jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSettings {
    /// Where commands run.
    pub sandbox: SandboxSettings,
    /// Fetching repositories.
    pub repositories: RepositorySettings,
    /// Where results go that no event has room for.
    pub files: Option<FileSettings>,
    /// Kind 5930.
    pub sandbox_run: SandboxRunSettings,
    /// Kind 5931.
    pub repo_index: RepoIndexSettings,
    /// Kind 5932.
    pub patch_gen: PatchGenSettings,
    /// Kind 5933.
    pub code_review: CodeReviewSettings,
}

impl AgentSettings {
    /// How each kind is sold, with the section it stands in.
    pub fn sales(&self) -> [(JobKind, &'static str, &Sale); 4] {
        [
            (JobKind::SandboxRun, "sandbox_run", &self.sandbox_run.sale),
            (JobKind::RepoIndex, "repo_index", &self.repo_index.sale),
            (JobKind::PatchGen, "patch_gen", &self.patch_gen.sale),
            (JobKind::CodeReview, "code_review", &self.code_review.sale),
        ]
    }

    /// Takes all of them for sold: for taking back what may be advertised.
    pub fn advertise_all(&mut self) {
        let sandboxed = [&mut self.sandbox_run.sale, &mut self.patch_gen.sale];
        for sale in sandboxed.into_iter().chain([&mut self.repo_index.sale, &mut self.code_review.sale]) {
            sale.enabled = true;
        }
    }

    /// Whether any of them is sold.
    pub fn any(&self) -> bool {
        self.sales().iter().any(|(_, _, sale)| sale.enabled)
    }

    /// Whether what is sold needs a sandbox, and of which runtimes.
    pub fn runtimes(&self) -> Vec<Runtime> {
        let run = self.sandbox_run.sale.enabled.then_some(self.sandbox_run.runtime);
        let patch = self.patch_gen.sale.enabled.then_some(self.patch_gen.runtime);
        let mut runtimes: Vec<Runtime> = run.into_iter().chain(patch).collect();
        runtimes.sort_unstable();
        runtimes.dedup();
        runtimes
    }

    /// Whether what is sold asks a model.
    pub fn asks_a_model(&self) -> bool {
        self.code_review.sale.enabled || (self.patch_gen.sale.enabled && self.patch_gen.agent.is_none())
    }
}

/// How one kind of job is sold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sale {
    /// Whether it is.
    pub enabled: bool,
    /// Terms of payment.
    pub terms: Terms,
    /// The price list; all zero when the terms are free.
    pub rates: Rates,
    /// Free jobs a key and day.
    pub free_per_day: u32,
    /// The longest run.
    pub time_limit: Duration,
}

impl Sale {
    /// Whether anybody may be asked to pay.
    pub fn asks_for_money(&self) -> bool {
        self.enabled && self.terms != Terms::Free && !self.rates.is_free()
    }
}

/// `[sandbox]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSettings {
    /// The engines. This machine's own when none is named.
    pub hosts: Vec<HostSettings>,
    /// What customers may choose from, the default first.
    pub images: Vec<ImageSettings>,
    /// How often leftovers are looked for.
    pub sweep_every: Duration,
}

/// `[repositories]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositorySettings {
    /// Bytes of one.
    pub max_bytes: u64,
    /// Files of one.
    pub max_files: u64,
    /// Time for one.
    pub time_limit: Duration,
    /// Bytes of all that are kept.
    pub cache_bytes: u64,
    /// Whether loopback and private addresses may be fetched from.
    pub allow_private: bool,
}

/// `[files]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSettings {
    /// The Blossom server.
    pub server: Url,
    /// Bytes of one file.
    pub max_bytes: u64,
}

/// `[sandbox_run]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxRunSettings {
    /// How it is sold.
    pub sale: Sale,
    /// What cells run under.
    pub runtime: Runtime,
    /// The most memory.
    pub max_memory_mib: u32,
    /// The largest workspace.
    pub max_disk_mib: u32,
    /// The most cores.
    pub max_cpus: u32,
}

/// `[repo_index]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoIndexSettings {
    /// How it is sold.
    pub sale: Sale,
    /// Whether embeddings are sold, where a model server makes them.
    pub embeddings: bool,
}

/// `[patch_gen]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchGenSettings {
    /// How it is sold.
    pub sale: Sale,
    /// What cells run under.
    pub runtime: Runtime,
    /// The image; `None` for the first.
    pub image: Option<String>,
    /// Commands of the agent.
    pub max_steps: u32,
    /// Tokens read over all steps.
    pub max_prompt_tokens: u32,
    /// Tokens written over all steps.
    pub max_generated_tokens: u32,
    /// Memory of a cell.
    pub memory_mib: u32,
    /// Workspace of a cell.
    pub disk_mib: u32,
    /// Cores of a cell.
    pub cpus: u32,
    /// A program that does the work instead of coinop's own loop.
    pub agent: Option<ExternalSettings>,
}

/// `[patch_gen.agent]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalSettings {
    /// The command.
    pub command: String,
    /// The one endpoint its model traffic may reach.
    pub endpoint: Url,
    /// The key the endpoint wants.
    pub key: Option<SecretRef>,
    /// How the endpoint is shown the key.
    pub key_header: KeyHeader,
    /// The only model it may use.
    pub model: Option<String>,
    /// The model's parameters, exact, for receipts.
    pub parameters: Option<u64>,
    /// Its variables.
    pub env: Vec<(String, String)>,
}

/// How an endpoint is shown its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyHeader {
    /// As that endpoint usually wants it.
    #[default]
    Usual,
    /// `Authorization: Bearer`.
    Bearer,
    /// `x-api-key`.
    XApiKey,
}

/// `[code_review]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeReviewSettings {
    /// How it is sold.
    pub sale: Sale,
    /// Tokens written.
    pub max_generated_tokens: u32,
}
