//! Fetching a model into Ollama, with the library's client.

use std::time::Duration;

use futures::StreamExt;
use ollama_rs::Ollama as Library;
use ollama_rs::error::OllamaError;
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use secrecy::ExposeSecret;
use tokio::time::timeout;
use url::Url;

use super::super::InferenceError;
use super::super::http::{Trouble, broken, words};
use super::OllamaConfig;

/// How long a download may say nothing. It says nothing while it checks what it fetched, which takes minutes for a model
/// of hundreds of gigabytes on a slow disk.
const SILENCE: Duration = Duration::from_secs(15 * 60);

/// What Ollama says last.
const SUCCESS: &str = "success";

/// How far a download has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    /// What it does just now, in Ollama's words: `pulling manifest`, `verifying sha256 digest`.
    pub status: String,
    /// The file it fetches; a model is several.
    pub digest: Option<String>,
    /// Bytes of that file.
    pub total: Option<u64>,
    /// Bytes of it that are here.
    pub completed: Option<u64>,
}

/// Fetches `model` into the server at `base`. Dropping the future stops the download, and another takes it up again.
pub(super) async fn pull(
    base: &Url,
    config: &OllamaConfig,
    model: &str,
    mut progress: impl FnMut(PullProgress) + Send,
) -> Result<(), InferenceError> {
    if model.trim().is_empty() {
        return Err(InferenceError::BadRequest("the model to fetch has no name".to_owned()));
    }
    let library = Library::builder().url(base.clone()).reqwest_client(client(config)?).build();
    let begun = library.pull_model_stream(model.to_owned(), false);
    let mut statuses = within(begun).await?.map_err(failed)?;
    while let Some(status) = within(statuses.next()).await? {
        let status = status.map_err(failed)?;
        let succeeded = status.message == SUCCESS;
        progress(PullProgress {
            status: status.message,
            digest: status.digest,
            total: status.total,
            completed: status.completed,
        });
        if succeeded {
            return Ok(());
        }
    }
    Err(InferenceError::Backend("the download broke off; begin it again, it goes on where it was".to_owned()))
}

/// As bounded as [`super::super::http::Server`]'s, with the key in every request.
fn client(config: &OllamaConfig) -> Result<Client, InferenceError> {
    let unusable = |what: &str| InferenceError::Unusable(what.to_owned());
    let mut headers = HeaderMap::new();
    if let Some(key) = &config.key {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
            .map_err(|_| unusable("its key holds characters that no key has"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(config.options.connect_timeout)
        .user_agent(concat!("coinop/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .build()
        .map_err(|_| unusable("no HTTP client can be made here"))
}

async fn within<T>(waiting: impl Future<Output = T>) -> Result<T, InferenceError> {
    Ok(timeout(SILENCE, waiting).await.map_err(|_| Trouble::Silent(SILENCE))?)
}

/// The operator reads this: the server's own words, bounded, are what helps.
fn failed(error: OllamaError) -> InferenceError {
    let said = match &error {
        OllamaError::ReqwestError(error) => return broken(error).into(),
        OllamaError::JsonError(_) => return Trouble::Garbage("a line of a download is no progress").into(),
        OllamaError::InternalError(said) => said.message.as_str(),
        OllamaError::Other(said) => said.as_str(),
        OllamaError::ToolCallError(_) => "it called a tool",
    };
    InferenceError::Backend(format!("it can't fetch the model: {}", words(said.as_bytes())))
}
