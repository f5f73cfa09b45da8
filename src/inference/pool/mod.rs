//! Several endpoints as one backend: an operator with more than one machine has one of these.
//!
//! [`choice`] says where a job goes and [`breaker`] which endpoints are trusted, both pure; [`offer`] says what is on offer.
//! [`places`] holds who is where and who waits, [`work`] does a job and tries it again elsewhere, [`checks`] asks the endpoints
//! how they are.
//!
//! The rule: a customer gets one text. A job whose endpoint fails before it wrote anything is tried on another; once a piece
//! was written the failure is passed on.

pub mod breaker;
mod checks;
pub mod choice;
mod embedding;
mod offer;
mod places;
#[cfg(test)]
mod tests;
mod work;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use self::breaker::BreakerOptions;
use self::places::Shared;
use super::{
    Embeddings, Format, Generate, Generation, Inference, InferenceError, Message, ModelInfo, PromptTokens, TextSink,
};

/// A model server of a pool.
#[derive(Clone)]
pub struct PoolEndpoint {
    /// The operator's name for it.
    pub name: String,
    /// How it is reached.
    pub backend: Arc<dyn Inference>,
}

impl fmt::Debug for PoolEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolEndpoint").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A model as the operator offers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolModel {
    /// The name customers ask for.
    pub name: String,
    /// What the endpoints call it.
    pub upstream: String,
    /// Other names it is asked for by. Answers and receipts carry the name.
    pub aliases: Vec<String>,
    /// The names of the endpoints that have it. Empty: all that list it.
    pub endpoints: Vec<String>,
    /// Most tokens of prompt and answer together, where an endpoint allows more.
    pub context_tokens: Option<u32>,
    /// Parameters, for endpoints that do not know.
    pub parameters: Option<u64>,
    /// The digest, for endpoints that do not know.
    pub digest: Option<String>,
    /// Most jobs at once, over all endpoints.
    pub at_once: Option<usize>,
}

impl PoolModel {
    /// A model under the endpoints' own name for it, wherever it is listed.
    pub fn named(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            upstream: name.clone(),
            name,
            aliases: Vec::new(),
            endpoints: Vec::new(),
            context_tokens: None,
            parameters: None,
            digest: None,
            at_once: None,
        }
    }
}

/// How a pool treats its endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolOptions {
    /// When an endpoint is given up, and for how long.
    pub breaker: BreakerOptions,
    /// How long a job waits for an endpoint to come back when none of its model's is up.
    pub patience: Duration,
    /// How long an endpoint may take to say how it is.
    pub check_timeout: Duration,
    /// How often one that is well is asked.
    pub check_every: Duration,
    /// How soon one that is not is asked again at first; the pauses grow.
    pub recheck_first: Duration,
    /// The longest of those pauses.
    pub recheck_longest: Duration,
}

impl Default for PoolOptions {
    /// Ten seconds of patience; checks every 15 seconds, of what is broken after 1 to 30.
    fn default() -> Self {
        Self {
            breaker: BreakerOptions::default(),
            patience: Duration::from_secs(10),
            check_timeout: Duration::from_secs(10),
            check_every: Duration::from_secs(15),
            recheck_first: Duration::from_secs(1),
            recheck_longest: Duration::from_secs(30),
        }
    }
}

/// How an endpoint is, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointStatus {
    /// Its name.
    pub name: String,
    /// `up`, `half-open` (one job may try) or `open` (nothing is sent there).
    pub standing: &'static str,
    /// Jobs under way there.
    pub in_use: usize,
    /// How many can be; `usize::MAX` where it states no limit.
    pub room: usize,
    /// The models on offer that it has, by their public names.
    pub models: Vec<String>,
    /// What went wrong last, in words for the operator.
    pub last_error: Option<String>,
    /// Failed jobs and checks so far.
    pub failures: u64,
}

/// Several endpoints as one backend. See the module.
pub struct Pool {
    shared: Arc<Shared>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("endpoints", &self.status()).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool of these endpoints, offering `models` (none: everything the endpoints list, by its own name). Asks nobody
    /// anything yet.
    ///
    /// # Errors
    /// [`InferenceError::Unusable`] when there is no endpoint, a name is used twice, or a model names an endpoint that is
    /// not there.
    pub fn new(
        endpoints: Vec<PoolEndpoint>,
        models: Vec<PoolModel>,
        options: PoolOptions,
    ) -> Result<Self, InferenceError> {
        check_names(&endpoints, &models).map_err(InferenceError::Unusable)?;
        Ok(Self { shared: Arc::new(Shared::new(endpoints, models, options)) })
    }

    /// Asks every endpoint once how it is.
    pub async fn refresh(&self) {
        self.shared.refresh().await;
    }

    /// Asks the endpoints again and again how they are, until `shutdown`.
    pub async fn keep_checking(self: Arc<Self>, shutdown: CancellationToken) {
        self.shared.keep_checking(shutdown).await;
    }

    /// How the endpoints are, in the configured order.
    pub fn status(&self) -> Vec<EndpointStatus> {
        self.shared.status()
    }
}

fn check_names(endpoints: &[PoolEndpoint], models: &[PoolModel]) -> Result<(), String> {
    if endpoints.is_empty() {
        return Err("there is no endpoint".to_owned());
    }
    let known: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    once(known.iter().copied()).map_err(|name| format!("two endpoints are called '{name}'"))?;
    let names = models.iter().flat_map(|model| std::iter::once(&model.name).chain(&model.aliases));
    once(names.map(String::as_str)).map_err(|name| format!("'{name}' is the name or alias of two models"))?;
    for model in models {
        if let Some(missing) = model.endpoints.iter().find(|name| !known.contains(&name.as_str())) {
            let (model, known) = (&model.name, known.join(", "));
            return Err(format!("the model '{model}' names the endpoint '{missing}'; there are {known}"));
        }
    }
    Ok(())
}

/// The first name that comes twice.
fn once<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), &'a str> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(name);
        }
    }
    Ok(())
}

#[async_trait]
impl Inference for Pool {
    /// What was last heard; the endpoints are asked only while there is nothing on offer.
    async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        self.shared.first_look().await;
        match self.shared.offered() {
            offered if offered.is_empty() => Err(self.shared.nothing_on_offer()),
            offered => Ok(offered),
        }
    }

    async fn count_prompt_tokens(
        &self,
        model: Option<&str>,
        messages: &[Message],
    ) -> Result<PromptTokens, InferenceError> {
        self.shared.count(model, messages).await
    }

    fn room(&self, model: Option<&str>) -> usize {
        self.shared.room(model)
    }

    async fn check_format(&self, model: Option<&str>, format: &Format) -> Result<(), InferenceError> {
        self.shared.check_format(model, format).await
    }

    /// Under the endpoints' own names.
    async fn embedding_models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        self.shared.first_look().await;
        Ok(self.shared.embedding_models())
    }

    async fn embed(
        &self,
        model: Option<&str>,
        texts: &[String],
        cancel: &CancellationToken,
    ) -> Result<Embeddings, InferenceError> {
        self.shared.embed(model, texts, cancel).await
    }

    fn restarts(&self) -> u32 {
        self.shared.restarts()
    }

    async fn generate(
        &self,
        request: &Generate,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Generation, InferenceError> {
        self.shared.generate(request, sink.as_ref(), cancel).await
    }
}
