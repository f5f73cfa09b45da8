//! A model that says what a story wants, behind a real server's wire form.

use std::sync::Arc;

use coinop::inference::http::ServerOptions;
use coinop::inference::openai::{OpenAi, OpenAiConfig};
use coinop::inference::{Inference, JsonSupport};
use coinop::testing::openai_server::{Manners, OpenAiServer};
use coinop::testing::scripted_model::{Says, ScriptedModel};

/// The model, and the way to it as long as the server is kept.
pub struct Scripted {
    pub model: ScriptedModel,
    pub backend: Arc<dyn Inference>,
    pub server: OpenAiServer,
}

/// Serves a model that says this.
pub async fn model<S: Into<Says>>(script: impl IntoIterator<Item = S>, json: JsonSupport) -> Scripted {
    // Clients want it chosen, as `main` does.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let model = ScriptedModel::saying(script);
    let manners = Manners { vllm: true, ..Manners::default() };
    let server = OpenAiServer::start(Arc::new(model.clone()), manners).await.unwrap();
    let backend = OpenAi::new(OpenAiConfig {
        url: server.url(),
        key: None,
        models: Vec::new(),
        embeddings: Vec::new(),
        context_tokens: None,
        parameters: Some(1_000_000),
        slots: 4,
        bytes_per_token: 3,
        json,
        options: ServerOptions::default(),
    });
    Scripted { model, backend: Arc::new(backend.unwrap()), server }
}
