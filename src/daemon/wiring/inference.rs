//! What does the work, from its settings: the one place that names concrete backends.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::config::{BackendSettings, EndpointSettings, InferenceSettings, MistralRsSettings, ModelSettings};
use crate::daemon::service::Background;
use crate::executor::inference::ModelTerms;
use crate::inference::Inference;
use crate::inference::echo::Echo;
use crate::inference::preferred::Preferred;

/// What does the work, opened.
pub struct OpenInference {
    /// All endpoints as one.
    pub backend: Arc<dyn Inference>,
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
        let first = settings.endpoints.first().context("[inference] names no endpoint")?;
        let backend = open_endpoint(first).await?;
        let backend: Arc<dyn Inference> = match default.filter(|_| settings.models.is_empty()) {
            Some(default) => Arc::new(Preferred::new(backend, default)),
            None => backend,
        };
        Ok(Self { backend, background: Vec::new() })
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
        _ => bail!("the endpoint {} ({}) can't be used by this build", endpoint.name, endpoint.section),
    })
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
    progress(Pulling { doing: model.to_owned(), done: None, total: None });
    bail!("the endpoint {} is no Ollama: only an Ollama fetches models", endpoint.name)
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
