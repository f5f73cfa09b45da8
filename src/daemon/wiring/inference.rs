//! What does the work, from its settings: the one place that names concrete backends.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::config::{
    BackendSettings, EndpointSettings, InferenceSettings, JsonAnswers, LlamaCppSettings, MistralRsSettings,
    ModelSettings, OllamaSettings, OpenAiSettings, ServerSettings,
};
use crate::daemon::service::Background;
use crate::executor::inference::ModelTerms;
use crate::inference::echo::Echo;
use crate::inference::http::ServerOptions;
use crate::inference::llama_cpp::{LlamaCpp, LlamaCppConfig};
use crate::inference::metered::Metered;
use crate::inference::ollama::{Ollama, OllamaConfig};
use crate::inference::openai::{OpenAi, OpenAiConfig};
use crate::inference::pool::{Pool, PoolEndpoint, PoolModel, PoolOptions};
use crate::inference::preferred::Preferred;
use crate::inference::{Inference, JsonSupport};
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
        let backend: Arc<dyn Inference> = match default.filter(|_| settings.models.is_empty()) {
            Some(default) => Arc::new(Preferred::new(pool, default)),
            None => pool,
        };
        Ok(Self { backend, metrics, background: vec![check] })
    }
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
            let OpenAiSettings { server, models, slots, context, parameters, json, bytes_per_token } = settings;
            let config = OpenAiConfig {
                url: server.url.clone(),
                key: key(endpoint, server)?,
                models: models.clone(),
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
    let OllamaSettings { server, models, slots, context, bytes_per_token } = settings;
    let config = OllamaConfig {
        url: server.url.clone(),
        key: key(endpoint, server)?,
        models: models.clone(),
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

#[cfg(feature = "mistralrs")]
async fn mistral_rs(model: &MistralRsSettings) -> Result<Arc<dyn Inference>> {
    use crate::inference::mistral_rs::{MistralRs, MistralRsConfig};
    let config = MistralRsConfig {
        model_path: model.model.clone(),
        name: Some(model.model_name.clone()),
        context_tokens: model.context,
        chat_template: model.chat_template.clone(),
    };
    let loaded = MistralRs::load(config, |progress| tracing::info!("{progress}")).await;
    Ok(Arc::new(loaded.with_context(|| format!("the model {} can't be used", model.model.display()))?))
}

#[cfg(not(feature = "mistralrs"))]
async fn mistral_rs(_: &MistralRsSettings) -> Result<Arc<dyn Inference>> {
    bail!(
        "this coinop was built without in-process inference; build it with the default features, or use a model server \
         (Ollama, llama.cpp, vLLM)"
    )
}
