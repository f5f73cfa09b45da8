//! Models that an Ollama server runs.
//!
//! What it tells exactly: the tokens it read and wrote, a model's parameters and its digest. What it does not tell is how
//! many tokens a prompt has before it is read, so that [`Inference::count_prompt_tokens`] estimates: bytes of text divided by
//! [`OllamaConfig::bytes_per_token`], rounded up, [`MESSAGE_TOKENS`] for each message and [`CONVERSATION_TOKENS`] for all.
//! Whether the prompt really fits is decided by the server, which is told to refuse instead of cutting it.

mod answer;
mod model;
mod pull;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use url::Url;

use self::answer::Answer;
use self::model::OfferedModel;
pub use self::pull::PullProgress;
use self::wire::{Chat, Embed, Embedded, Listed, Show, Shown, Tag, Version, full_name, overflow};
use super::embedding::{self, Gathered};
use super::http::{Server, ServerOptions, Trouble};
use super::{
    Embeddings, Generate, Generation, Inference, InferenceError, Message, ModelInfo, PromptTokens, TextSink,
    public_name,
};
use crate::job::text::BYTES_PER_TOKEN;

/// Where Ollama listens when nobody says otherwise.
pub const DEFAULT_ADDRESS: &str = "http://127.0.0.1:11434";

/// The context of a model when the configuration says none: no more than this, because the server sets memory aside for
/// all of it, and models are made for contexts that no machine has the memory for.
pub const DEFAULT_CONTEXT_TOKENS: u32 = 8_192;

/// Bytes of text a token is taken to have when the configuration says nothing.
pub const DEFAULT_BYTES_PER_TOKEN: u32 = BYTES_PER_TOKEN;

/// Tokens a template puts around a message, in an estimate. The usual ones put four to six.
pub const MESSAGE_TOKENS: u32 = 8;

/// Tokens a template puts around a conversation, in an estimate. Most put one or none, the largest a preamble of about 80.
pub const CONVERSATION_TOKENS: u32 = 96;

/// How an Ollama server is used.
#[derive(Debug, Clone)]
pub struct OllamaConfig {
    /// Where it is.
    pub url: Url,
    /// What opens it, when a proxy in front of it wants a key. Ollama itself has none.
    pub key: Option<SecretString>,
    /// The models to offer, the default first. Empty: all that can chat and run on that server.
    pub models: Vec<String>,
    /// Its models that make embeddings, the default first: they are never offered for text. Empty: none when `models` are
    /// named, else all that are made for it and run on that server.
    pub embeddings: Vec<String>,
    /// Tokens of prompt and answer together. `None`: as many as the model was made for, at most
    /// [`DEFAULT_CONTEXT_TOKENS`].
    pub context_tokens: Option<u32>,
    /// How many answers the server writes at once for one model (`OLLAMA_NUM_PARALLEL`), which it doesn't tell.
    pub slots: usize,
    /// Bytes of text that make a token, in an estimate. Too large, and prompts turn out longer than they were quoted.
    pub bytes_per_token: u32,
    /// Bounds of talking to it.
    pub options: ServerOptions,
}

impl OllamaConfig {
    /// The server at `url` with everything else at its default.
    pub fn at(url: Url) -> Self {
        Self {
            url,
            key: None,
            models: Vec::new(),
            embeddings: Vec::new(),
            context_tokens: None,
            slots: 1,
            bytes_per_token: DEFAULT_BYTES_PER_TOKEN,
            options: ServerOptions::default(),
        }
    }
}

/// A model that is on the server's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledModel {
    /// As the server lists it, with its tag.
    pub name: String,
    /// Bytes on the disk.
    pub bytes: u64,
    /// `sha256:` and hexadecimal digits, when it is told.
    pub digest: Option<String>,
    /// Whether it is in memory now.
    pub loaded: bool,
}

/// An Ollama server.
pub struct Ollama {
    server: Server,
    config: OllamaConfig,
    known: Mutex<Known>,
}

impl fmt::Debug for Ollama {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ollama")
            .field("server", &self.server)
            .field("models", &self.config.models)
            .finish_non_exhaustive()
    }
}

/// What was last heard.
#[derive(Default)]
struct Known {
    /// Whether it can do what we need of it.
    new_enough: bool,
    /// The models on offer, the default first.
    offered: Option<Arc<[OfferedModel]>>,
    /// The models for embeddings, the default first.
    embedding: Arc<[OfferedModel]>,
    /// What models are, by their digest: it stays the same.
    shown: HashMap<String, Arc<Shown>>,
}

impl Ollama {
    /// The server that `config` describes. Nothing is asked yet: it may be down.
    ///
    /// # Errors
    /// [`InferenceError::Unusable`] when the configuration makes no sense.
    pub fn new(config: OllamaConfig) -> Result<Self, InferenceError> {
        let server = Server::new(&config.url, config.key.as_ref(), config.options)?;
        for (number, name) in [
            (config.slots, "slots"),
            (config.bytes_per_token as usize, "bytes_per_token"),
            (config.context_tokens.unwrap_or(1) as usize, "context_tokens"),
        ] {
            if number == 0 {
                return Err(InferenceError::Unusable(format!("{name} is 0; it must be at least 1")));
            }
        }
        Ok(Self { server, config, known: Mutex::default() })
    }

    /// The models on its disk, those that can't chat too.
    ///
    /// # Errors
    /// When the server is down or isn't one.
    pub async fn installed(&self) -> Result<Vec<InstalledModel>, InferenceError> {
        let (installed, loaded) = self.listed().await?;
        let is_loaded = |tag: &Tag| loaded.iter().any(|other| full_name(&other.name) == full_name(&tag.name));
        let describe = |tag: Tag| {
            let (digest, loaded) = (tag.digest(), is_loaded(&tag));
            InstalledModel { name: tag.name, bytes: tag.size, digest, loaded }
        };
        Ok(installed.into_iter().map(describe).collect())
    }

    /// Makes the server fetch a model, saying how far it is. Dropping the future stops the download, and asking again takes
    /// it up where it was.
    ///
    /// # Errors
    /// With the server's own words, when there is no such model or it can't be fetched.
    pub async fn pull(&self, model: &str, progress: impl FnMut(PullProgress) + Send) -> Result<(), InferenceError> {
        pull::pull(self.server.base(), &self.config, model, progress).await
    }

    /// What is on the disk, and what is in memory, the one used last first.
    async fn listed(&self) -> Result<(Vec<Tag>, Vec<Tag>), InferenceError> {
        let (installed, loaded) =
            tokio::try_join!(self.server.get::<Listed>("api/tags"), self.server.get::<Listed>("api/ps"))?;
        // Its names are no paths: one that can't stand in public as it is was not written by Ollama.
        let shown = |listed: Listed| -> Vec<Tag> {
            let tags = listed.models.into_iter();
            tags.filter(|tag| public_name(&tag.name).as_deref() == Some(tag.name.as_str())).collect()
        };
        Ok((shown(installed), shown(loaded)))
    }

    /// The models on offer, asked anew.
    async fn ask(&self) -> Result<Arc<[OfferedModel]>, InferenceError> {
        self.check_version().await?;
        let (installed, loaded) = self.listed().await?;
        let (mut offered, mut embedding, mut shown) = (Vec::new(), Vec::new(), HashMap::new());
        let named = &self.config.embeddings;
        let for_embeddings = model::named(&installed, named);
        let for_text = model::candidates(installed, &loaded, &self.config.models);
        let for_text = for_text.into_iter().filter(|tag| !for_embeddings.iter().any(|other| other.name == tag.name));
        // Those named for embeddings are taken at the operator's word, whatever they were made for.
        let all = for_embeddings.iter().cloned().map(|tag| (tag, true)).chain(for_text.map(|tag| (tag, false)));
        for (tag, is_named) in all.collect::<Vec<_>>() {
            let known = offered.iter().chain(&embedding);
            if known.clone().any(|other: &OfferedModel| other.info.name == tag.name) {
                continue;
            }
            let Some(details) = self.show(&tag).await? else { continue };
            let looked_for = named.is_empty() && self.config.models.is_empty();
            if is_named || (looked_for && details.can_embed() && !details.can_chat()) {
                embedding.push(OfferedModel::embedding(&tag, &details));
            } else if details.can_chat() {
                offered.push(OfferedModel::new(&tag, &details, self.config.context_tokens));
            }
            if let Some(digest) = tag.digest() {
                shown.insert(digest, details);
            }
        }
        if offered.is_empty() && !self.config.models.is_empty() {
            let names = self.config.models.join(", ");
            return Err(InferenceError::Unusable(format!("none of these models is there and can chat: {names}")));
        }
        let offered: Arc<[OfferedModel]> = offered.into();
        let mut known = self.known();
        known.offered = Some(Arc::clone(&offered));
        known.embedding = embedding.into();
        known.shown = shown;
        Ok(offered)
    }

    async fn check_version(&self) -> Result<(), InferenceError> {
        if self.known().new_enough {
            return Ok(());
        }
        let version: Version = self.server.get("api/version").await?;
        if version.is_too_old() {
            let (major, minor, patch) = wire::OLDEST_VERSION;
            return Err(InferenceError::Unusable(format!(
                "this Ollama cuts long prompts without saying so; update it to {major}.{minor}.{patch} or later"
            )));
        }
        self.known().new_enough = true;
        Ok(())
    }

    /// What a model is; `None` when the server can't say: it has just been removed, or its files are broken.
    async fn show(&self, tag: &Tag) -> Result<Option<Arc<Shown>>, InferenceError> {
        let seen = tag.digest().and_then(|digest| self.known().shown.get(&digest).cloned());
        if seen.is_some() {
            return Ok(seen);
        }
        match self.server.post::<Shown>("api/show", &Show { model: &tag.name }).await {
            Ok(shown) => Ok(Some(Arc::new(shown))),
            Err(trouble @ Trouble::Status { .. }) => {
                tracing::warn!(model = tag.name, %trouble, "Ollama can't show a model that it lists; it is not offered");
                Ok(None)
            }
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// The model of that name or the default, from what was last heard; asked anew when it isn't there.
    async fn model(&self, wanted: Option<&str>) -> Result<OfferedModel, InferenceError> {
        let known = self.known().offered.clone();
        if let Some(model) = known.as_deref().and_then(|models| model::find(models, wanted)) {
            return Ok(model.clone());
        }
        let models = self.ask().await?;
        match (model::find(&models, wanted), wanted) {
            (Some(model), _) => Ok(model.clone()),
            (None, Some(wanted)) => Err(unknown(wanted, &models)),
            (None, None) => Err(InferenceError::Unusable("it has no model that can chat; pull one".to_owned())),
        }
    }

    /// Why the server refused a conversation that is well-formed, estimated at `estimate` tokens.
    async fn refused(&self, trouble: Trouble, model: &OfferedModel, estimate: u32) -> InferenceError {
        let Trouble::Status { status, body } = &trouble else { return trouble.into() };
        let context_tokens = model.context_tokens;
        if let Some((prompt_tokens, context)) = overflow(body) {
            return InferenceError::ContextOverflow { prompt_tokens, context_tokens: context.min(context_tokens) };
        }
        match status.as_u16() {
            // Removed since it was listed.
            404 => match self.ask().await {
                Ok(models) => unknown(&model.info.name, &models),
                Err(error) => error,
            },
            // Older versions say it in words only. A text is at most about twice as dense as it is estimated.
            400 if estimate > context_tokens / 2 => InferenceError::ContextOverflow {
                prompt_tokens: estimate.max(context_tokens.saturating_add(1)),
                context_tokens,
            },
            400 => InferenceError::BadRequest(trouble.to_string()),
            _ => trouble.into(),
        }
    }

    /// The models for embeddings, from what was last heard.
    async fn embedding(&self) -> Result<Arc<[OfferedModel]>, InferenceError> {
        if self.known().offered.is_none() {
            self.ask().await?;
        }
        Ok(Arc::clone(&self.known().embedding))
    }

    async fn vectors(&self, model: Option<&str>, texts: &[String]) -> Result<Embeddings, InferenceError> {
        let models = self.embedding().await?;
        if models.is_empty() {
            return Err(InferenceError::NoEmbeddings);
        }
        let model = model::find(&models, model).ok_or_else(|| unknown(model.unwrap_or_default(), &models))?;
        let mut gathered = Gathered::default();
        for texts in texts.chunks(embedding::TEXTS_A_REQUEST) {
            let asked = Embed::new(&model.info.name, texts, model.context_tokens);
            match self.server.post_for_work::<Embedded>("api/embed", &asked).await {
                Ok(made) => gathered.take(texts, made.embeddings, made.prompt_eval_count.unwrap_or(0))?,
                Err(trouble) => {
                    let longest = texts.iter().map(String::len).max().unwrap_or(0);
                    let estimate = longest.div_ceil(self.config.bytes_per_token.max(1) as usize);
                    let estimate = u32::try_from(estimate).unwrap_or(u32::MAX);
                    return Err(self.refused(trouble, model, estimate).await);
                }
            }
        }
        Ok(gathered.by(&model.info))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(wanted: &str, models: &[OfferedModel]) -> InferenceError {
    let offered = models.iter().map(|model| model.info.name.clone()).collect();
    InferenceError::UnknownModel { wanted: wanted.to_owned(), offered }
}

fn check_conversation(messages: &[Message]) -> Result<(), InferenceError> {
    if messages.is_empty() {
        return Err(InferenceError::BadRequest("the conversation is empty".to_owned()));
    }
    Ok(())
}

#[async_trait]
impl Inference for Ollama {
    async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        Ok(self.ask().await?.iter().map(|model| model.info.clone()).collect())
    }

    async fn count_prompt_tokens(
        &self,
        model: Option<&str>,
        messages: &[Message],
    ) -> Result<PromptTokens, InferenceError> {
        let model = self.model(model).await?;
        check_conversation(messages)?;
        Ok(PromptTokens::estimate(model.estimate(&model.tamed(messages), self.config.bytes_per_token)))
    }

    async fn embedding_models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        Ok(self.embedding().await?.iter().map(|model| model.info.clone()).collect())
    }

    async fn embed(
        &self,
        model: Option<&str>,
        texts: &[String],
        cancel: &CancellationToken,
    ) -> Result<Embeddings, InferenceError> {
        embedding::check_texts(texts)?;
        // Dropping the run closes the connection, at which the server stops.
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(InferenceError::Cancelled),
            done = self.vectors(model, texts) => done,
        }
    }

    fn room(&self, _: Option<&str>) -> usize {
        self.config.slots
    }

    async fn generate(
        &self,
        request: &Generate,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Generation, InferenceError> {
        check_conversation(&request.messages)?;
        if request.max_tokens == 0 {
            return Err(InferenceError::BadRequest("max_tokens is 0".to_owned()));
        }
        let run = async {
            let model = self.model(request.model.as_deref()).await?;
            let messages = model.tamed(&request.messages);
            let estimate = model.estimate(&messages, self.config.bytes_per_token);
            let chat = Chat::new(&model.info.name, request, messages, model.context_tokens, model.thinks);
            let lines = match self.server.post_for_lines("api/chat", &chat).await {
                Ok(lines) => lines,
                Err(trouble) => return Err(self.refused(trouble, &model, estimate).await),
            };
            let (text, finish, usage) =
                Answer::new(request, sink, self.config.options.max_body, model.context_tokens).read(lines).await?;
            let ModelInfo { name, parameters, digest, .. } = model.info;
            Ok(Generation { text, finish, usage, model: name, parameters, digest })
        };
        // Dropping the run closes the connection, at which the server stops.
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(InferenceError::Cancelled),
            done = run => done,
        }
    }
}

#[cfg(test)]
mod tests;
