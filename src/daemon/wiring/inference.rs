//! What does the work, from its settings: the one place that names concrete backends.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};

use crate::config::{
    BackendSettings, EndpointSettings, InferenceSettings, JsonAnswers, LlamaCppSettings, MistralRsSettings,
    ModelSettings, OllamaSettings, OpenAiSettings, ServerSettings,
};
use crate::daemon::service::Background;
use crate::executor::inference::ModelTerms;
use crate::inference::echo::Echo;
use crate::inference::gguf::GgufHeader;
use crate::inference::http::ServerOptions;
use crate::inference::llama_cpp::{LlamaCpp, LlamaCppConfig};
use crate::inference::metered::Metered;
use crate::inference::ollama::{Ollama, OllamaConfig};
use crate::inference::openai::{OpenAi, OpenAiConfig};
use crate::inference::pool::{Pool, PoolEndpoint, PoolModel, PoolOptions};
use crate::inference::preferred::Preferred;
use crate::inference::{Inference, JsonSupport, ModelInfo};
use crate::metrics::Metrics;

/// Jobs an Ollama does at once when nobody says: its own default.
const OLLAMA_SLOTS: usize = 1;

/// Jobs an OpenAI-compatible server does at once when nobody says: such servers work on several together, and none tells
/// on how many.
const OPENAI_SLOTS: usize = 4;

/// What does the work, opened.
pub struct OpenInference {
    /// All endpoints as one.
    pub backend: Arc<dyn Inference>,
    /// What is counted.
    pub metrics: Metrics,
    /// What must run meanwhile.
    pub background: Vec<Background>,
    pool: Arc<Pool>,
    /// Where each endpoint is, in their order.
    places: Vec<String>,
}

impl std::fmt::Debug for OpenInference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenInference").finish_non_exhaustive()
    }
}

impl OpenInference {
    /// Opens the endpoints and puts them together. A model in this process is loaded, which takes a while; servers may be
    /// down. `default` is the model a customer gets who names none, when the settings don't say.
    ///
    /// # Errors
    /// When a model can't be loaded, a secret is missing, or there is no endpoint.
    pub async fn open(settings: &InferenceSettings, default: Option<String>) -> Result<Self> {
        let metrics = Metrics::new();
        let mut endpoints = Vec::new();
        for endpoint in &settings.endpoints {
            let backend = open_endpoint(endpoint).await?;
            let backend = Arc::new(Metered::new(backend, &endpoint.name, metrics.clone()));
            endpoints.push(PoolEndpoint { name: endpoint.name.clone(), backend });
        }
        let models = settings.models.iter().map(pool_model).collect();
        let pool = Arc::new(Pool::new(endpoints, models, PoolOptions::default()).context("[inference]")?);
        let checked = Arc::clone(&pool);
        let check = Background {
            name: "model servers",
            run: Box::new(move |shutdown| Box::pin(checked.keep_checking(shutdown))),
        };
        let all: Arc<dyn Inference> = Arc::<Pool>::clone(&pool);
        let backend: Arc<dyn Inference> = match default.filter(|_| settings.models.is_empty()) {
            Some(default) => Arc::new(Preferred::new(all, default)),
            None => all,
        };
        let places = settings.endpoints.iter().map(EndpointSettings::place).collect();
        Ok(Self { backend, metrics, background: vec![check], pool, places })
    }

    /// The models on offer.
    ///
    /// # Errors
    /// When there is none: with each endpoint, and why it has none.
    pub async fn models(&self) -> Result<Vec<ModelInfo>> {
        if let Ok(models) = self.backend.models().await {
            return Ok(models);
        }
        let whys = self.pool.status().into_iter().map(|endpoint| endpoint.last_error);
        Err(anyhow!(no_model(self.places.iter().cloned().zip(whys))))
    }
}

/// That there is nothing to sell: each endpoint's place, and why it has no model, when it has said more than that.
pub fn no_model(endpoints: impl IntoIterator<Item = (String, Option<String>)>) -> String {
    let line = |(place, why): (String, Option<String>)| {
        format!("{place}: {}", why.unwrap_or_else(|| "it has no model".to_owned()))
    };
    format!("there is no model to sell: {}", endpoints.into_iter().map(line).collect::<Vec<_>>().join("; "))
}

fn pool_model(model: &ModelSettings) -> PoolModel {
    PoolModel {
        name: model.name.clone(),
        upstream: model.upstream.clone(),
        aliases: model.aliases.clone(),
        endpoints: model.endpoints.clone(),
        context_tokens: model.context,
        parameters: model.parameters,
        digest: model.digest.clone(),
        at_once: model.at_once,
    }
}

/// What holds for some models only, for the executor.
pub fn model_terms(settings: &InferenceSettings) -> BTreeMap<String, ModelTerms> {
    let terms = |model: &ModelSettings| ModelTerms {
        rates: model.rates,
        max_tokens: model.max_output_tokens,
        aliases: model.aliases.clone(),
    };
    settings.models.iter().map(|model| (model.name.clone(), terms(model))).collect()
}

/// Opens one endpoint. Only a model in this process is loaded; a server is not asked anything yet.
///
/// # Errors
/// When the model can't be loaded, this build can't do it, or the key is not where the configuration says.
pub async fn open_endpoint(endpoint: &EndpointSettings) -> Result<Arc<dyn Inference>> {
    Ok(match &endpoint.backend {
        BackendSettings::Echo => Arc::new(Echo::new()),
        BackendSettings::MistralRs(model) => mistral_rs(model).await?,
        BackendSettings::Ollama(settings) => Arc::new(ollama(endpoint, settings)?),
        BackendSettings::LlamaCpp(LlamaCppSettings { server, model_name, slots }) => {
            let config = LlamaCppConfig {
                url: server.url.clone(),
                key: key(endpoint, server)?,
                model_name: model_name.clone(),
                slots: *slots,
                options: ServerOptions::default(),
            };
            Arc::new(LlamaCpp::new(config).with_context(|| unusable(endpoint))?)
        }
        BackendSettings::OpenAi(settings) => {
            let OpenAiSettings { server, models, embeddings, slots, context, parameters, json, bytes_per_token } =
                settings;
            let config = OpenAiConfig {
                url: server.url.clone(),
                key: key(endpoint, server)?,
                models: models.clone(),
                embeddings: embeddings.clone(),
                context_tokens: *context,
                parameters: *parameters,
                slots: slots.unwrap_or(OPENAI_SLOTS),
                bytes_per_token: *bytes_per_token,
                json: match json {
                    JsonAnswers::None => JsonSupport::None,
                    JsonAnswers::Any => JsonSupport::Any,
                    JsonAnswers::Schema => JsonSupport::Schema,
                },
                options: ServerOptions::default(),
            };
            Arc::new(OpenAi::new(config).with_context(|| unusable(endpoint))?)
        }
    })
}

fn ollama(endpoint: &EndpointSettings, settings: &OllamaSettings) -> Result<Ollama> {
    let OllamaSettings { server, models, embeddings, slots, context, bytes_per_token } = settings;
    let config = OllamaConfig {
        url: server.url.clone(),
        key: key(endpoint, server)?,
        models: models.clone(),
        embeddings: embeddings.clone(),
        context_tokens: *context,
        slots: slots.unwrap_or(OLLAMA_SLOTS),
        bytes_per_token: *bytes_per_token,
        options: ServerOptions::default(),
    };
    Ollama::new(config).with_context(|| unusable(endpoint))
}

fn key(endpoint: &EndpointSettings, server: &ServerSettings) -> Result<Option<secrecy::SecretString>> {
    Ok(server.key.as_ref().map(|key| key.reveal(&endpoint.field("key"))).transpose()?)
}

fn unusable(endpoint: &EndpointSettings) -> String {
    format!("the endpoint {} ({}) can't be used", endpoint.name, endpoint.section)
}

/// How far a download has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulling {
    /// What is being done, in the server's words.
    pub doing: String,
    /// Bytes that are here.
    pub done: Option<u64>,
    /// Bytes there are.
    pub total: Option<u64>,
}

/// Has an endpoint's server fetch a model.
///
/// # Errors
/// When it can't, or is no server that fetches models.
pub async fn pull(endpoint: &EndpointSettings, model: &str, mut progress: impl FnMut(Pulling) + Send) -> Result<()> {
    let BackendSettings::Ollama(settings) = &endpoint.backend else {
        bail!("the endpoint {} is no Ollama: only an Ollama fetches models", endpoint.name);
    };
    let ollama = ollama(endpoint, settings)?;
    let pulled = ollama.pull(model, |at| {
        progress(Pulling { doing: at.status, done: at.completed, total: at.total });
    });
    Ok(pulled.await?)
}

/// What the files of a model in this process say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFiles {
    /// Its family.
    pub architecture: String,
    /// Its exact parameters.
    pub parameters: Option<u64>,
    /// Tokens of prompt and answer together.
    pub context_tokens: Option<u32>,
    /// Bytes of its weights.
    pub bytes: u64,
    /// Bytes of the keys and values of a token.
    pub kv_bytes_a_token: Option<u64>,
}

/// Reads what the files of a model say, and whether the engine in this process can run it, as far as they tell. Nothing is
/// loaded; blocks while headers are read.
///
/// # Errors
/// What is wrong, naming the file, for the operator.
pub fn model_files(model: &MistralRsSettings) -> Result<ModelFiles, String> {
    let by_engine = by_engine(model)?;
    let path = &model.model;
    if path.is_dir() {
        return by_engine.ok_or_else(|| format!("{} is a folder, and {NO_ENGINE}", path.display()));
    }
    let header = GgufHeader::read(path).map_err(|error| format!("{} {error}", path.display()))?;
    let kv_bytes_a_token = header.kv_bytes_a_token;
    Ok(match by_engine {
        Some(files) => ModelFiles { kv_bytes_a_token, ..files },
        None => ModelFiles {
            architecture: header.architecture,
            parameters: Some(header.parameters),
            context_tokens: model.context.into_iter().chain(header.context_tokens).min(),
            bytes: header.file_bytes,
            kv_bytes_a_token,
        },
    })
}

/// What to say of a build that can't do it.
const NO_ENGINE: &str = "this coinop was built without in-process inference; build it with the default features, or use a \
                         model server (Ollama, llama.cpp, vLLM)";

#[cfg(feature = "mistralrs")]
fn by_engine(model: &MistralRsSettings) -> Result<Option<ModelFiles>, String> {
    use crate::inference::InferenceError;
    let facts = crate::inference::mistral_rs::inspect(&engine_config(model)).map_err(|error| match error {
        InferenceError::Unusable(what) => what,
        other => other.to_string(),
    })?;
    Ok(Some(ModelFiles {
        architecture: facts.architecture,
        parameters: facts.parameters,
        context_tokens: Some(facts.context_tokens),
        bytes: facts.weight_bytes,
        kv_bytes_a_token: None,
    }))
}

#[cfg(not(feature = "mistralrs"))]
fn by_engine(_: &MistralRsSettings) -> Result<Option<ModelFiles>, String> {
    Ok(None)
}

#[cfg(feature = "mistralrs")]
fn engine_config(model: &MistralRsSettings) -> crate::inference::mistral_rs::MistralRsConfig {
    crate::inference::mistral_rs::MistralRsConfig {
        model_path: model.model.clone(),
        name: Some(model.model_name.clone()),
        context_tokens: model.context,
        chat_template: model.chat_template.clone(),
    }
}

#[cfg(feature = "mistralrs")]
async fn mistral_rs(model: &MistralRsSettings) -> Result<Arc<dyn Inference>> {
    use crate::inference::mistral_rs::MistralRs;
    let loaded = MistralRs::load(engine_config(model), |progress| tracing::info!("{progress}")).await;
    Ok(Arc::new(loaded.with_context(|| format!("the model {} can't be used", model.model.display()))?))
}

#[cfg(not(feature = "mistralrs"))]
async fn mistral_rs(_: &MistralRsSettings) -> Result<Arc<dyn Inference>> {
    bail!(NO_ENGINE)
}
