//! Any server with OpenAI's interface: vLLM, SGLang, LM Studio, a paid API with a key.
//!
//! - Billed is what the server counts. One that sends no usage at the end of a stream is refused: its answers have no price.
//! - The interface has no way to count a prompt before it is answered. vLLM has one beside it (`/tokenize`), which is exact;
//!   elsewhere the count is an estimate ([`counting`]).
//! - It tells neither the context nor the parameters of a model. vLLM and SGLang tell the context (`max_model_len`); the rest is
//!   the operator's word.
//! - It lists models that make embeddings among the others and does not say which they are: the operator does.
//! - Closing the connection is how a run is cancelled; there is no other way.

mod counting;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use reqwest::StatusCode;
use secrecy::SecretString;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;

use self::counting::Counter;
use super::chat::{self, Bounds, ChatRequest, Dialect, Known, Reading};
use super::control::ControlTokens;
use super::embedding::{self, Gathered};
use super::http::{Events, Server, ServerOptions, Trouble};
use super::{
    Embeddings, Generate, Generation, Inference, InferenceError, JsonSupport, Message, ModelInfo, PromptTokens,
    TextSink, parameters, public_name,
};

/// Which server, and what it does not tell about itself.
#[derive(Debug, Clone)]
pub struct OpenAiConfig {
    /// The base of its interface, which usually ends in `/v1`.
    pub url: Url,
    /// Its key, when it wants one.
    pub key: Option<SecretString>,
    /// The models to offer, the default first; empty: all that it lists.
    pub models: Vec<String>,
    /// Its models that make embeddings, the default first: they are never offered for text. It does not tell which do.
    pub embeddings: Vec<String>,
    /// The context of its models, when the server does not tell, or a smaller one.
    pub context_tokens: Option<u32>,
    /// The parameters of its models, exact; `None` leaves them unknown.
    pub parameters: Option<u64>,
    /// How many requests it works on at once; at least 1.
    pub slots: usize,
    /// Bytes of a prompt that make a token at least, for servers that don't count before they answer; at least 1.
    pub bytes_per_token: u32,
    /// Which answers it can be made to give.
    pub json: JsonSupport,
    /// Bounds of talking to it.
    pub options: ServerOptions,
}

/// A server with OpenAI's interface.
pub struct OpenAi {
    config: OpenAiConfig,
    server: Server,
    counter: Counter,
    control: ControlTokens,
    /// The models last heard of.
    known: watch::Sender<Option<Arc<Heard>>>,
    /// It has refused `max_tokens` and wants `max_completion_tokens`.
    limit_renamed: AtomicBool,
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAi").field("server", &self.server).finish_non_exhaustive()
    }
}

/// What there is, of what was listed.
#[derive(Debug)]
struct Heard {
    /// For text.
    text: Vec<Offered>,
    /// For embeddings.
    embedding: Vec<Offered>,
}

/// A model on offer.
#[derive(Debug)]
struct Offered {
    info: ModelInfo,
    /// What the server calls it, which may be a path.
    id: String,
    /// Its context, when the server tells.
    told_context: Option<u32>,
}

/// What `GET models` lists.
#[derive(Deserialize)]
struct Listed {
    data: Vec<ListedModel>,
}

#[derive(Deserialize)]
struct ListedModel {
    id: String,
    /// Of vLLM and SGLang: tokens of prompt and answer together.
    max_model_len: Option<u32>,
}

impl OpenAi {
    /// The server as configured. Asks it nothing yet.
    ///
    /// # Errors
    /// [`InferenceError::Unusable`] when the configuration can't be right.
    pub fn new(config: OpenAiConfig) -> Result<Self, InferenceError> {
        let unusable = |what: &str| InferenceError::Unusable(what.to_owned());
        if config.slots == 0 {
            return Err(unusable("slots is 0: at least one request is worked on at once"));
        }
        if config.bytes_per_token == 0 {
            return Err(unusable("bytes_per_token is 0: a token has at least one byte"));
        }
        let server = Server::new(&config.url, config.key.as_ref(), config.options)?;
        let counter = Counter::new(&config)?;
        let control = ControlTokens::usual([]);
        let (known, limit_renamed) = (watch::Sender::new(None), AtomicBool::new(false));
        Ok(Self { config, server, counter, control, known, limit_renamed })
    }

    /// The models last heard of, or, before the first time, those it lists now.
    async fn known(&self) -> Result<Arc<Heard>, InferenceError> {
        let heard = self.known.borrow().clone();
        match heard {
            Some(models) => Ok(models),
            None => self.ask().await,
        }
    }

    async fn ask(&self) -> Result<Arc<Heard>, InferenceError> {
        let listed = match self.server.get::<Listed>("models").await {
            Ok(listed) => listed.data,
            Err(trouble) if has_no_list(&trouble) && self.names_models() => {
                let unlisted = |id: &String| ListedModel { id: id.clone(), max_model_len: None };
                self.config.models.iter().chain(&self.config.embeddings).map(unlisted).collect()
            }
            Err(trouble) if has_no_list(&trouble) => {
                return Err(InferenceError::Unusable(
                    "there is no list of models at its address (should it end in /v1?), and the configuration names none"
                        .to_owned(),
                ));
            }
            Err(trouble) => return Err(chat::refused(trouble, Known::default())),
        };
        let heard = Arc::new(self.heard(listed)?);
        self.known.send_replace(Some(Arc::clone(&heard)));
        Ok(heard)
    }

    fn names_models(&self) -> bool {
        !self.config.models.is_empty() || !self.config.embeddings.is_empty()
    }

    /// Of what is listed, what is configured, each for what it is for.
    fn heard(&self, listed: Vec<ListedModel>) -> Result<Heard, InferenceError> {
        let OpenAiConfig { models, embeddings, .. } = &self.config;
        let (embedding, mut text): (Vec<_>, Vec<_>) =
            listed.into_iter().partition(|model| embeddings.contains(&model.id));
        let embedding = in_their_order(embedding, embeddings);
        if !models.is_empty() {
            text = in_their_order(text, models);
            if text.is_empty() {
                let wanted = models.join(", ");
                return Err(InferenceError::Unusable(format!("it lists none of the models configured: {wanted}")));
            }
        }
        let plain = |model: Offered| {
            // What is said of its models is said of those for text.
            let info = ModelInfo { context_tokens: model.told_context, ..ModelInfo::named(model.info.name) };
            Offered { info, ..model }
        };
        let heard =
            Heard { text: self.offered(text), embedding: self.offered(embedding).into_iter().map(plain).collect() };
        if heard.text.is_empty() && heard.embedding.is_empty() {
            return Err(InferenceError::Unusable("it offers no model whose name could be shown".to_owned()));
        }
        Ok(heard)
    }

    /// Of two that go by the same name in public the first counts; what has no such name is left out.
    fn offered(&self, listed: Vec<ListedModel>) -> Vec<Offered> {
        let mut offered: Vec<Offered> = Vec::new();
        for ListedModel { id, max_model_len } in listed {
            let Some(name) = public_name(&id).filter(|name| offered.iter().all(|other| other.info.name != *name))
            else {
                continue;
            };
            let info = ModelInfo {
                context_tokens: self.config.context_tokens.into_iter().chain(max_model_len).min(),
                parameters: self.config.parameters.and_then(parameters),
                json: self.config.json,
                ..ModelInfo::named(name)
            };
            offered.push(Offered { info, id, told_context: max_model_len });
        }
        offered
    }

    /// Asks for an answer, once more when all that was wrong is the name of the limit.
    async fn begin(&self, asked: ChatRequest<'_>) -> Result<Events, Trouble> {
        const PATH: &str = "chat/completions";
        if self.limit_renamed.load(Ordering::Relaxed) {
            return self.server.post_for_events(PATH, &asked.with_limit_renamed()).await;
        }
        match self.server.post_for_events(PATH, &asked).await {
            Err(trouble) if chat::wants_limit_renamed(&trouble) => {
                self.limit_renamed.store(true, Ordering::Relaxed);
                self.server.post_for_events(PATH, &asked.with_limit_renamed()).await
            }
            begun => begun,
        }
    }

    async fn answer(&self, request: &Generate, sink: Option<&TextSink>) -> Result<Generation, InferenceError> {
        let messages = chat::conversation(&request.messages, &self.control)?;
        let models = self.known().await?;
        let Offered { info: model, id, .. } =
            chat::chosen(&models.text, |model| &model.info, request.model.as_deref())?;
        let mut known = Known { prompt_tokens: None, context_tokens: model.context_tokens };
        let mut max_tokens = request.max_tokens;
        if let Some(context_tokens) = model.context_tokens {
            let prompt_tokens = self.counter.count(id, &messages).await?.count;
            known.prompt_tokens = Some(prompt_tokens);
            max_tokens = chat::fitting(max_tokens, prompt_tokens, context_tokens)?;
        }
        let asked = ChatRequest::new(Dialect::OpenAi, id, &messages, request, max_tokens, model.json)?;
        let events = self.begin(asked).await.map_err(|trouble| chat::refused(trouble, known))?;
        let bounds = Bounds {
            bytes: self.config.options.max_body,
            prompt_tokens: model.context_tokens.unwrap_or(u32::MAX),
            generated_tokens: max_tokens,
        };
        let reading = Reading::new(&request.stop, sink, bounds);
        let answer = chat::read(events, reading).await?;
        Ok(Generation {
            text: answer.text,
            finish: answer.finish,
            usage: answer.usage,
            model: model.name.clone(),
            parameters: model.parameters,
            digest: None,
        })
    }
}

/// Those that are `named`, in that order.
fn in_their_order(mut listed: Vec<ListedModel>, named: &[String]) -> Vec<ListedModel> {
    let place = |model: &ListedModel| named.iter().position(|name| *name == model.id);
    listed.retain(|model| place(model).is_some());
    listed.sort_by_key(place);
    listed
}

/// Whether a server has no list of models: some only answer.
fn has_no_list(trouble: &Trouble) -> bool {
    const NO_SUCH_PLACE: [StatusCode; 3] =
        [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
    matches!(trouble, Trouble::Status { status, .. } if NO_SUCH_PLACE.contains(status))
}

#[async_trait]
impl Inference for OpenAi {
    async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        Ok(self.ask().await?.text.iter().map(|model| model.info.clone()).collect())
    }

    async fn count_prompt_tokens(
        &self,
        model: Option<&str>,
        messages: &[Message],
    ) -> Result<PromptTokens, InferenceError> {
        let messages = chat::conversation(messages, &self.control)?;
        let models = self.known().await?;
        self.counter.count(&chat::chosen(&models.text, |model| &model.info, model)?.id, &messages).await
    }

    async fn embedding_models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        Ok(self.known().await?.embedding.iter().map(|model| model.info.clone()).collect())
    }

    async fn embed(
        &self,
        model: Option<&str>,
        texts: &[String],
        cancel: &CancellationToken,
    ) -> Result<Embeddings, InferenceError> {
        embedding::check_texts(texts)?;
        let run = async {
            let models = self.known().await?;
            if models.embedding.is_empty() {
                return Err(InferenceError::NoEmbeddings);
            }
            let Offered { info, id, .. } = chat::chosen(&models.embedding, |model| &model.info, model)?;
            let known = Known { prompt_tokens: None, context_tokens: info.context_tokens };
            let mut gathered = Gathered::default();
            for texts in texts.chunks(embedding::TEXTS_A_REQUEST) {
                let asked = embedding::ask(&self.server, "embeddings", id, texts).await;
                let (vectors, tokens) = asked.map_err(|trouble| chat::refused(trouble, known))?;
                gathered.take(texts, vectors, tokens)?;
            }
            Ok(gathered.by(info))
        };
        tokio::select! {
            biased;
            // What is dropped with this closes the connection.
            () = cancel.cancelled() => Err(InferenceError::Cancelled),
            done = run => done,
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
