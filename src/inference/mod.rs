//! The inference port: a model that continues a conversation, or turns texts into vectors.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::job::outcome::{FinishReason, Usage};
pub use crate::job::text::{Role, Sampling};

mod chat;
mod control;
pub mod detect;
pub mod echo;
mod embedding;
pub mod gguf;
pub mod http;
pub mod llama_cpp;
pub mod metered;
#[cfg(feature = "mistralrs")]
pub mod mistral_rs;
pub mod ollama;
pub mod openai;
pub mod pool;
pub mod preferred;
mod refusing;
mod relay;
pub mod stop;
pub mod tiny;
mod told;

pub use self::embedding::{Embeddings, MOST_BATCH_BYTES, MOST_DIMENSIONS, MOST_TEXTS};
pub use self::refusing::{MODELS_LISTED, choose, refusal, unknown_model};
pub use self::told::{MOST_PARAMETERS, meant, names, parameters, public_name};

/// A message of a conversation.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

impl fmt::Debug for Message {
    /// The customer's text stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({} bytes)", self.role, self.content.len())
    }
}

/// What to generate.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Generate {
    /// The model, or `None` for the backend's default.
    pub model: Option<String>,
    /// The conversation, at least one message.
    pub messages: Vec<Message>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// The most tokens to write. At least 1.
    pub max_tokens: u32,
    /// What the answer must look like.
    #[serde(default)]
    pub format: Format,
}

/// What an answer must look like. A backend that can't see to it says so in [`ModelInfo::json`], and is not asked to.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Anything.
    #[default]
    Text,
    /// Some JSON value.
    Json,
    /// JSON that this JSON Schema describes; checked by [`crate::job::schema`] before it comes here.
    Schema(serde_json::Value),
}

impl fmt::Debug for Format {
    /// A schema is the customer's text too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "Text",
            Self::Json => "Json",
            Self::Schema(_) => "Schema(…)",
        })
    }
}

impl fmt::Debug for Generate {
    /// Stop strings are the customer's text too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generate")
            .field("model", &self.model)
            .field("messages", &self.messages)
            .field("sampling", &self.sampling)
            .field("stops", &self.stop.len())
            .field("max_tokens", &self.max_tokens)
            .field("format", &self.format)
            .finish()
    }
}

/// A finished generation.
#[derive(Clone, PartialEq, Eq)]
pub struct Generation {
    /// The whole text.
    pub text: String,
    /// Why it ended.
    pub finish: FinishReason,
    /// Tokens, from the backend's own count.
    pub usage: Usage,
    /// The model's name.
    pub model: String,
    /// Its parameter count when known.
    pub parameters: Option<u64>,
    /// Its digest when known, see [`ModelInfo::digest`].
    pub digest: Option<String>,
}

impl fmt::Debug for Generation {
    /// Results stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("text", &format_args!("{} bytes", self.text.len()))
            .field("finish", &self.finish)
            .field("usage", &self.usage)
            .field("model", &self.model)
            .field("parameters", &self.parameters)
            .field("digest", &self.digest)
            .finish()
    }
}

/// Which answers a backend can be made to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JsonSupport {
    /// Whatever the model writes.
    #[default]
    None,
    /// JSON of any shape.
    Any,
    /// JSON that a schema describes.
    Schema,
}

/// A model on offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The name customers ask for.
    pub name: String,
    /// Tokens of prompt and answer together.
    pub context_tokens: Option<u32>,
    /// Parameters, exact, when known. Unknown stays unknown: a receipt is never made of a rounded number.
    pub parameters: Option<u64>,
    /// What the model is, to the byte, as `sha256:` and hexadecimal digits: the hash of its file, or what its server calls
    /// its digest.
    pub digest: Option<String>,
    /// Which answers it can be made to give.
    pub json: JsonSupport,
}

impl ModelInfo {
    /// A model of which nothing but its name is known.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), context_tokens: None, parameters: None, digest: None, json: JsonSupport::None }
    }
}

/// Tokens of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptTokens {
    /// How many.
    pub count: u32,
    /// Whether that is the backend's own count, with the model's tokenizer and template. Otherwise it is an estimate, made
    /// so that real prompts have fewer.
    pub exact: bool,
}

impl PromptTokens {
    /// The backend's own count.
    pub const fn exact(count: u32) -> Self {
        Self { count, exact: true }
    }

    /// An estimate.
    pub const fn estimate(count: u32) -> Self {
        Self { count, exact: false }
    }
}

/// A piece of an answer, as it is written.
#[derive(Clone, PartialEq, Eq)]
pub struct Piece {
    /// New text, never empty.
    pub text: String,
    /// Tokens written so far, this piece's included: by the backend's count where it tells, else one a piece, which is never
    /// too many.
    pub tokens: u32,
}

impl fmt::Debug for Piece {
    /// The answer stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Piece({} bytes, {} tokens so far)", self.text.len(), self.tokens)
    }
}

/// What can go wrong with a backend. The words are for the operator; customers get a [`crate::job::Failure`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InferenceError {
    /// No model of that name.
    #[error("no model '{wanted}'; on offer: {}", offered.join(", "))]
    UnknownModel {
        /// What was asked.
        wanted: String,
        /// What there is.
        offered: Vec<String>,
    },
    /// Prompt and answer do not fit.
    #[error("{prompt_tokens} prompt tokens leave no room in a context of {context_tokens}")]
    ContextOverflow {
        /// Tokens of the prompt.
        prompt_tokens: u32,
        /// The model's context.
        context_tokens: u32,
    },
    /// The request can't be served as it is.
    #[error("{0}")]
    BadRequest(String),
    /// Nothing here turns texts into vectors.
    #[error("no model on offer makes embeddings")]
    NoEmbeddings,
    /// Stopped as asked.
    #[error("cancelled")]
    Cancelled,
    /// The backend has its hands full; it did not begin.
    #[error("the backend is busy: {0}")]
    Busy(String),
    /// The backend failed or broke off; trying again may help.
    #[error("the backend failed: {0}")]
    Backend(String),
    /// The backend can't be used until somebody changes something.
    #[error("the backend is not usable: {0}")]
    Unusable(String),
}

/// Where new text goes while it is written. Unbounded on purpose: the engine must never wait for a slow reader, and what
/// can pile up is bounded by `max_tokens`.
pub type TextSink = mpsc::UnboundedSender<Piece>;

/// A model server.
#[async_trait]
pub trait Inference: Send + Sync + 'static {
    /// The models on offer, the default first.
    async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError>;

    /// Tokens the conversation takes in that model's own tokenizer and template, or a guess where the server does not tell.
    async fn count_prompt_tokens(
        &self,
        model: Option<&str>,
        messages: &[Message],
    ) -> Result<PromptTokens, InferenceError>;

    /// How many jobs of that model can be under way at once, or with `None` of all models together, as far as is known now.
    /// More would only wait inside, where nobody asks who paid.
    fn room(&self, _model: Option<&str>) -> usize {
        usize::MAX
    }

    /// Whether that model can be made to write answers of a format that [`ModelInfo::json`] promises in general: some
    /// schemas are beyond a backend's grammars. Asked before anything is promised to a customer.
    async fn check_format(&self, _model: Option<&str>, _format: &Format) -> Result<(), InferenceError> {
        Ok(())
    }

    /// The models that turn texts into vectors, the default first; none of them is among [`Inference::models`]. As heard when
    /// those were asked for last, or now when they never were.
    async fn embedding_models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        Ok(Vec::new())
    }

    /// Turns texts into vectors, by that model or the default: at most [`MOST_TEXTS`] of [`MOST_BATCH_BYTES`] bytes together,
    /// none of them empty. A text that is longer than the model's context is refused, never cut. Ends with
    /// [`InferenceError::Cancelled`] soon after `cancel`.
    async fn embed(
        &self,
        _model: Option<&str>,
        _texts: &[String],
        _cancel: &CancellationToken,
    ) -> Result<Embeddings, InferenceError> {
        Err(InferenceError::NoEmbeddings)
    }

    /// How often it broke down so that it had to be started again. Only what runs in this process knows.
    fn restarts(&self) -> u32 {
        0
    }

    /// Writes the answer, sending each new piece of text to `sink` (a closed sink is fine). Ends with
    /// [`InferenceError::Cancelled`] soon after `cancel`.
    async fn generate(
        &self,
        request: &Generate,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Generation, InferenceError>;
}
