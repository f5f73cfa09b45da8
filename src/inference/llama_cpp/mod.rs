//! llama.cpp's own server (`llama-server`), with one model.
//!
//! - It tells what a plain server does not: the context of a slot, the number of slots, the parameters. All of it is asked
//!   anew by [`Inference::models`], because a restart may change it.
//! - Tokens of a prompt are counted exactly: by its template (`/apply-template`) and its tokenizer (`/tokenize`).
//! - It takes whatever name stands in `model` and answers with the model it has. Names are checked here, and so is that the
//!   model that answered is the one the receipt will name.
//! - It reads control tokens in the text of a message as what they are. They are split before ([`template`]), and every text is
//!   tokenized with and without them: where that makes a difference, the conversation is refused.
//! - Started with `--embeddings` it is for that alone, by its own word. It does not tell; so it is asked for a vector, which one
//!   for text refuses at once.
//! - Closing the connection frees the slot at once. While the model loads, every question is answered 503.

mod answers;
mod template;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;

use self::answers::{About, Listed, Prompt, Tokens};
use super::chat::{self, Bounds, ChatRequest, Dialect, Known, Reading};
use super::control::ControlTokens;
use super::embedding::{self, Gathered};
use super::http::{Server, ServerOptions, Trouble};
use super::{
    Embeddings, Generate, Generation, Inference, InferenceError, JsonSupport, Message, ModelInfo, PromptTokens,
    TextSink, parameters, public_name, told,
};

/// Where it makes embeddings.
const EMBEDDINGS: &str = "v1/embeddings";

/// Which server, and how its model is offered.
#[derive(Debug, Clone)]
pub struct LlamaCppConfig {
    /// Its address, without `/v1`.
    pub url: Url,
    /// Its key, when it was started with one.
    pub key: Option<SecretString>,
    /// The name customers ask for; what the server calls its model, without folders and `.gguf`, when `None`.
    pub model_name: Option<String>,
    /// How many requests it is given at once; as many as it has slots when `None`.
    pub slots: Option<usize>,
    /// Bounds of talking to it.
    pub options: ServerOptions,
}

/// A llama.cpp server.
pub struct LlamaCpp {
    config: LlamaCppConfig,
    server: Server,
    /// What was last heard of its model.
    loaded: watch::Sender<Option<Arc<Loaded>>>,
}

impl fmt::Debug for LlamaCpp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlamaCpp").field("server", &self.server).finish_non_exhaustive()
    }
}

/// The model a server has.
struct Loaded {
    info: ModelInfo,
    /// What the server calls it.
    id: String,
    context_tokens: u32,
    slots: usize,
    control: ControlTokens,
    /// It makes embeddings, and no text.
    embeds: bool,
}

impl Loaded {
    /// What it is offered for as text: its model, or nothing.
    fn for_text(&self) -> &[ModelInfo] {
        if self.embeds { &[] } else { std::slice::from_ref(&self.info) }
    }
}

/// Tokens of a text that it reads at once unless it was told otherwise (`--ubatch-size`), which it does not tell. A longer one
/// it makes no vector of.
const TOKENS_AT_ONCE: u32 = 512;

impl LlamaCpp {
    /// The server as configured. Asks it nothing yet.
    ///
    /// # Errors
    /// [`InferenceError::Unusable`] when the configuration can't be right.
    pub fn new(config: LlamaCppConfig) -> Result<Self, InferenceError> {
        if config.slots == Some(0) {
            return Err(InferenceError::Unusable("slots is 0: at least one request is worked on at once".to_owned()));
        }
        let server = Server::new(&config.url, config.key.as_ref(), config.options)?;
        Ok(Self { config, server, loaded: watch::Sender::new(None) })
    }

    /// What was last heard of the model, or, before the first time, what the server says now.
    async fn loaded(&self) -> Result<Arc<Loaded>, InferenceError> {
        let heard = self.loaded.borrow().clone();
        match heard {
            Some(loaded) => Ok(loaded),
            None => self.ask().await,
        }
    }

    async fn ask(&self) -> Result<Arc<Loaded>, InferenceError> {
        let asked = tokio::try_join!(self.server.get::<About>("props"), self.server.get::<Listed>("v1/models"));
        let (about, listed) = asked.map_err(|trouble| match &trouble {
            Trouble::Status { status, .. } if status.as_u16() == 404 => InferenceError::Unusable(format!(
                "{trouble}; is it a llama.cpp server, and its address the one without /v1?"
            )),
            _ => chat::refused(trouble, Known::default()),
        })?;
        let mut loaded = self.understood(about, listed)?;
        let before = self.loaded.borrow().clone();
        // One that embeds would have to make room for the question. When it no longer does, whoever asks it finds out.
        let known = before.is_some_and(|before| before.embeds && before.id == loaded.id);
        loaded.embeds = known || self.embeds(&loaded.id).await?;
        let loaded = Arc::new(loaded);
        self.loaded.send_replace(Some(Arc::clone(&loaded)));
        Ok(loaded)
    }

    fn understood(&self, about: About, listed: Listed) -> Result<Loaded, InferenceError> {
        let [model] = <[_; 1]>::try_from(listed.data).map_err(|models| {
            InferenceError::Unusable(format!(
                "it lists {} models where a llama.cpp server has one; a router of several is used as an OpenAI-compatible server",
                models.len()
            ))
        })?;
        let context_tokens = about.default_generation_settings.n_ctx;
        let name = self.config.model_name.clone().or_else(|| public_name(told::stem(&model.id)));
        let name = name.ok_or_else(|| {
            InferenceError::Unusable(
                "what it calls its model can't be shown to anybody (too long, or no plain text): set model_name"
                    .to_owned(),
            )
        })?;
        let info = ModelInfo {
            context_tokens: Some(context_tokens),
            parameters: model.meta.and_then(|meta| parameters(meta.n_params?.as_u64()?)),
            json: JsonSupport::Schema,
            ..ModelInfo::named(name)
        };
        let known = [about.bos_token, about.eos_token].into_iter().flatten();
        let control = ControlTokens::usual(known.chain(template::marks(&about.chat_template)));
        Ok(Loaded { info, id: model.id, context_tokens, slots: about.total_slots.max(1), control, embeds: false })
    }

    /// Whether it makes embeddings. Any refusal means that it does not.
    async fn embeds(&self, id: &str) -> Result<bool, InferenceError> {
        match embedding::ask(&self.server, EMBEDDINGS, id, &["a".to_owned()]).await {
            Ok(_) => Ok(true),
            Err(Trouble::Status { status, .. }) if status.as_u16() != 503 => Ok(false),
            Err(trouble) => Err(chat::refused(trouble, Known::default())),
        }
    }

    async fn vectors(&self, model: Option<&str>, texts: &[String]) -> Result<Embeddings, InferenceError> {
        let loaded = self.loaded().await?;
        if !loaded.embeds {
            return Err(InferenceError::NoEmbeddings);
        }
        chat::chosen(std::slice::from_ref(&loaded.info), |info| info, model)?;
        let mut gathered = Gathered::default();
        for texts in texts.chunks(embedding::TEXTS_A_REQUEST) {
            match embedding::ask(&self.server, EMBEDDINGS, &loaded.id, texts).await {
                Ok((vectors, tokens)) => gathered.take(texts, vectors, tokens)?,
                Err(trouble) => return Err(self.no_vectors(trouble, &loaded, texts).await),
            }
        }
        Ok(gathered.by(&loaded.info))
    }

    /// Why it made no vectors. Of a text that is too long it says so in words only, as if the fault were its own.
    async fn no_vectors(&self, trouble: Trouble, loaded: &Loaded, texts: &[String]) -> InferenceError {
        let Trouble::Status { status, .. } = &trouble else { return chat::refused(trouble, Known::default()) };
        match status.as_u16() {
            404 | 501 => {
                // Restarted without embeddings since it was asked.
                self.loaded.send_replace(None);
                InferenceError::NoEmbeddings
            }
            500 => match self.longest(texts).await {
                Ok(prompt_tokens) if prompt_tokens > TOKENS_AT_ONCE.min(loaded.context_tokens) => {
                    let context_tokens = TOKENS_AT_ONCE.min(loaded.context_tokens);
                    InferenceError::ContextOverflow { prompt_tokens, context_tokens }
                }
                _ => chat::refused(trouble, Known::default()),
            },
            _ => chat::refused(trouble, Known::default()),
        }
    }

    /// Tokens of the longest of these texts.
    async fn longest(&self, texts: &[String]) -> Result<u32, Trouble> {
        let mut longest = 0;
        for text in texts {
            let question = json!({"content": text, "add_special": true, "parse_special": true});
            longest = self.server.post::<Tokens>("tokenize", &question).await?.tokens.len().max(longest);
        }
        Ok(u32::try_from(longest).unwrap_or(u32::MAX))
    }

    /// Tokens of the conversation, which is free of the control tokens we know.
    async fn count(&self, messages: &[Message]) -> Result<u32, InferenceError> {
        let texts: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
        let tokenized = async |control: bool| {
            let question = json!({"content": texts, "add_special": false, "parse_special": control});
            let tokens = self.server.post::<Tokens>("tokenize", &question).await;
            tokens.map_err(|trouble| chat::refused(trouble, Known::default()))
        };
        let counted = async {
            let question = json!({"messages": messages});
            let prompt = self.server.post::<Prompt>("apply-template", &question).await.map_err(not_templated)?.prompt;
            // As the server itself does it with a conversation.
            let question = json!({"content": prompt, "add_special": true, "parse_special": true});
            let tokens = self.server.post::<Tokens>("tokenize", &question).await;
            tokens.map_err(|trouble| chat::refused(trouble, Known::default()))
        };
        let (as_text, as_control, counted) = tokio::try_join!(tokenized(false), tokenized(true), counted)?;
        if as_text != as_control {
            return Err(InferenceError::BadRequest("the text holds control tokens of the model".to_owned()));
        }
        Ok(u32::try_from(counted.tokens.len()).unwrap_or(u32::MAX))
    }

    async fn answer(&self, request: &Generate, sink: Option<&TextSink>) -> Result<Generation, InferenceError> {
        let loaded = self.loaded().await?;
        chat::chosen(loaded.for_text(), |info| info, request.model.as_deref())?;
        let messages = chat::conversation(&request.messages, &loaded.control)?;
        // Counted here too: what is sold must be safe whoever calls, and a prompt without room is not worth a slot.
        let prompt_tokens = self.count(&messages).await?;
        let max_tokens = chat::fitting(request.max_tokens, prompt_tokens, loaded.context_tokens)?;
        let known = Known { prompt_tokens: Some(prompt_tokens), context_tokens: Some(loaded.context_tokens) };
        let asked = ChatRequest::new(Dialect::LlamaCpp, &loaded.id, &messages, request, max_tokens, loaded.info.json)?;
        let events = self.server.post_for_events("v1/chat/completions", &asked).await;
        let events = events.map_err(|trouble| chat::refused(trouble, known))?;
        let bounds = Bounds {
            bytes: self.config.options.max_body,
            prompt_tokens: loaded.context_tokens,
            generated_tokens: max_tokens,
        };
        let reading = Reading::new(&request.stop, sink, bounds);
        let answer = chat::read(events, reading).await?;
        if answer.model.is_some_and(|model| model != loaded.id) {
            // Restarted with another one since it was asked.
            self.loaded.send_replace(None);
            return Err(InferenceError::Backend("another model answered than the one it offered".to_owned()));
        }
        Ok(Generation {
            text: answer.text,
            finish: answer.finish,
            usage: answer.usage,
            model: loaded.info.name.clone(),
            parameters: loaded.info.parameters,
            digest: None,
        })
    }
}

/// Why a conversation could not be written as the template has it. A template that refuses it (roles out of turn, no system
/// message allowed) makes the server answer 500: not a fault of the server's, and any customer can bring it about.
fn not_templated(trouble: Trouble) -> InferenceError {
    match &trouble {
        Trouble::Status { status, .. } if status.as_u16() == 500 => {
            InferenceError::BadRequest(format!("the model's chat template refuses the conversation: {trouble}"))
        }
        _ => chat::refused(trouble, Known::default()),
    }
}

#[async_trait]
impl Inference for LlamaCpp {
    async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        self.ask().await.map(|loaded| loaded.for_text().to_vec())
    }

    async fn count_prompt_tokens(
        &self,
        model: Option<&str>,
        messages: &[Message],
    ) -> Result<PromptTokens, InferenceError> {
        let loaded = self.loaded().await?;
        chat::chosen(loaded.for_text(), |info| info, model)?;
        self.count(&chat::conversation(messages, &loaded.control)?).await.map(PromptTokens::exact)
    }

    async fn embedding_models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        let loaded = self.loaded().await?;
        let context_tokens = Some(loaded.context_tokens.min(TOKENS_AT_ONCE));
        let info = ModelInfo { context_tokens, json: JsonSupport::None, ..loaded.info.clone() };
        Ok(if loaded.embeds { vec![info] } else { Vec::new() })
    }

    async fn embed(
        &self,
        model: Option<&str>,
        texts: &[String],
        cancel: &CancellationToken,
    ) -> Result<Embeddings, InferenceError> {
        embedding::check_texts(texts)?;
        tokio::select! {
            biased;
            // What is dropped with this closes the connection.
            () = cancel.cancelled() => Err(InferenceError::Cancelled),
            done = self.vectors(model, texts) => done,
        }
    }

    /// The slots last heard of; one before that.
    fn room(&self, _: Option<&str>) -> usize {
        let heard = || self.loaded.borrow().as_ref().map_or(1, |loaded| loaded.slots);
        self.config.slots.unwrap_or_else(heard)
    }

    async fn generate(
        &self,
        request: &Generate,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Generation, InferenceError> {
        tokio::select! {
            biased;
            // What is dropped with this closes the connection.
            () = cancel.cancelled() => Err(InferenceError::Cancelled),
            answer = self.answer(request, sink.as_ref()) => answer,
        }
    }
}

#[cfg(test)]
mod tests;
