//! mistral.rs in the same process: a GGUF file or a folder of safetensors, and nothing else.
//!
//! What the engine (0.8.1) gets wrong, and what is done about it:
//! - Two sequences at once on a CPU mix their answers up: one sequence (`with_max_num_seqs(1)`) and one permit of ours.
//! - A caller that stops listening kills the engine where it sends and unwraps: answers are always streamed into a task of
//!   their own ([`run`]) that listens until the engine has begun, and counting is never abandoned half-way.
//! - The engine waits for a slow reader, and everybody with it: that task drains into an unbounded channel.
//! - A dead engine ends its streams without an error, or not at all: a stream that ends without a finish reason is one, and
//!   the thread is watched beside it. [`supervisor`] counts deaths and has the engine started again with the next request.
//! - Running into the context's end is an error there, not `length`: `max_tokens` is capped before.
//! - Stop strings are found late and shown: [`super::stop`] does it. Seeds are unknown: [`sampling`] draws the tokens.
//! - Its JSON constraint doesn't end where the model ends: [`grammar`] makes one that does.
//! - Control tokens in a customer's text would be control tokens: [`super::control`] splits them.
//! - The prefix cache grows without end: it is off (`with_prefix_cache_n(None)`).
//! - What is wrong with a file is a panic there: [`facts`], [`folder`] and [`weights`] find it before.

mod digest;
mod facts;
mod folder;
mod grammar;
mod load;
mod run;
mod sampling;
mod supervisor;
mod template;
mod weights;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use mistralrs::core::TokenizationRequest;
use mistralrs::{MessageContent, Request, TextMessageRole, TextMessages};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use self::facts::{ModelFacts, inspect};
pub use self::load::LoadProgress;
use self::supervisor::Supervisor;
use super::control::ControlTokens;
use super::{
    Format, Generate, Generation, Inference, InferenceError, Message, ModelInfo, PromptTokens, Role, TextSink,
};

/// How often a count is asked for: once, and again when the engine died over another request.
const COUNT_ATTEMPTS: u32 = 3;

/// Which model, and how it is offered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MistralRsConfig {
    /// The GGUF file, or the folder with `config.json`, `tokenizer.json` and `.safetensors` files.
    pub model_path: PathBuf,
    /// The name customers ask for; the file's own when `None`.
    pub name: Option<String>,
    /// A smaller context than the model's own, to save memory.
    pub context_tokens: Option<u32>,
    /// A chat template (`.jinja`, or a `tokenizer_config.json`) instead of the one in the file.
    pub chat_template: Option<PathBuf>,
}

/// A model in this process. One job at a time; the others wait. Clones are the same engine.
#[derive(Clone)]
pub struct MistralRs {
    engine: Arc<Supervisor>,
    turn: Arc<Semaphore>,
    info: ModelInfo,
    context_tokens: u32,
    control: Arc<ControlTokens>,
    end_tokens: Arc<[u32]>,
}

impl fmt::Debug for MistralRs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MistralRs").field("info", &self.info).finish_non_exhaustive()
    }
}

impl MistralRs {
    /// Loads the model; takes seconds to minutes. `progress` hears of each step and every few seconds in between.
    ///
    /// # Errors
    /// [`InferenceError::Unusable`], naming the file, what is wrong with it and the cure.
    pub async fn load(config: MistralRsConfig, progress: impl Fn(LoadProgress)) -> Result<Self, InferenceError> {
        load::load(config, progress).await
    }

    /// How often the engine died and was started again, as it changes.
    pub fn watch_restarts(&self) -> watch::Receiver<u32> {
        self.engine.watch_restarts()
    }

    fn check_model(&self, model: Option<&str>) -> Result<(), InferenceError> {
        match model {
            Some(wanted) if wanted != self.info.name => {
                Err(InferenceError::UnknownModel { wanted: wanted.to_owned(), offered: vec![self.info.name.clone()] })
            }
            _ => Ok(()),
        }
    }

    /// The conversation as the engine takes it, free of control tokens.
    fn to_engine(&self, messages: &[Message]) -> Result<TextMessages, InferenceError> {
        if messages.is_empty() {
            return Err(InferenceError::BadRequest("the conversation is empty".to_owned()));
        }
        Ok(messages.iter().fold(TextMessages::new(), |chat, message| {
            let role = match message.role {
                Role::System => TextMessageRole::System,
                Role::User => TextMessageRole::User,
                Role::Assistant => TextMessageRole::Assistant,
            };
            chat.add_message(role, self.control.split(&message.content))
        }))
    }

    async fn count(&self, chat: &TextMessages) -> Result<u32, InferenceError> {
        let (engine, chat) = (Arc::clone(&self.engine), chat.clone());
        // In a task of its own: the engine dies when nobody waits for its answer any more.
        let counting = tokio::spawn(async move {
            for _ in 0..COUNT_ATTEMPTS {
                let (response, mut answer) = mpsc::channel(1);
                // The engine's `Either` is not re-exported; this is the way to name one.
                let messages: Vec<_> = chat.clone().into();
                let request = TokenizationRequest {
                    text: MessageContent::Left(String::new()).map_left(|_| messages).map_right(|_| String::new()),
                    tools: None,
                    add_generation_prompt: true,
                    add_special_tokens: true,
                    enable_thinking: None,
                    reasoning_effort: None,
                    response,
                };
                let thread = engine.send(Request::Tokenize(request)).await?;
                let counted = tokio::select! {
                    biased;
                    counted = answer.recv() => counted,
                    () = thread.closed() => answer.try_recv().ok(),
                };
                match counted {
                    Some(Ok(tokens)) => return Ok(u32::try_from(tokens.len()).unwrap_or(u32::MAX)),
                    // The template speaks here ("roles must alternate"), never the tokenizer.
                    Some(Err(error)) => {
                        return Err(InferenceError::BadRequest(format!(
                            "the model's chat template refuses the conversation: {error}"
                        )));
                    }
                    None => engine.notice_death(&thread),
                }
            }
            Err(InferenceError::Backend("the engine died over and over".to_owned()))
        });
        counting.await.unwrap_or_else(|_| Err(InferenceError::Backend("counting tokens broke off".to_owned())))
    }
}

#[async_trait]
impl Inference for MistralRs {
    async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        Ok(vec![self.info.clone()])
    }

    async fn count_prompt_tokens(
        &self,
        model: Option<&str>,
        messages: &[Message],
    ) -> Result<PromptTokens, InferenceError> {
        self.check_model(model)?;
        self.count(&self.to_engine(messages)?).await.map(PromptTokens::exact)
    }

    fn room(&self, _: Option<&str>) -> usize {
        1
    }

    fn restarts(&self) -> u32 {
        self.engine.restarts()
    }

    async fn check_format(&self, model: Option<&str>, format: &Format) -> Result<(), InferenceError> {
        self.check_model(model)?;
        let (format, end_tokens) = (format.clone(), Arc::clone(&self.end_tokens));
        let checked = tokio::task::spawn_blocking(move || grammar::check(&format, &end_tokens)).await;
        checked.unwrap_or_else(|_| Err(InferenceError::BadRequest("no grammar for this schema".to_owned())))
    }

    async fn generate(
        &self,
        request: &Generate,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Generation, InferenceError> {
        self.check_model(request.model.as_deref())?;
        if request.max_tokens == 0 {
            return Err(InferenceError::BadRequest("max_tokens is 0".to_owned()));
        }
        let chat = self.to_engine(&request.messages)?;
        let begin = async {
            let prompt_tokens = self.count(&chat).await?;
            // One token stays free: the engine fails at the very end of the context.
            let room = self.context_tokens.saturating_sub(prompt_tokens).saturating_sub(1);
            if room == 0 {
                return Err(InferenceError::ContextOverflow { prompt_tokens, context_tokens: self.context_tokens });
            }
            let turn = Arc::clone(&self.turn).acquire_owned().await.expect("the semaphore is never closed");
            Ok((prompt_tokens, request.max_tokens.min(room), turn))
        };
        let (prompt_tokens, max_tokens, turn) = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(InferenceError::Cancelled),
            begun = begin => begun?,
        };
        let end_tokens = &self.end_tokens;
        let run = run::Run { request, chat, prompt_tokens, max_tokens, end_tokens, sink };
        let answer = run.on(&self.engine, turn);
        let (text, finish, usage) = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(InferenceError::Cancelled),
            answer = answer => answer?,
        };
        Ok(Generation {
            text,
            finish,
            usage,
            model: self.info.name.clone(),
            parameters: self.info.parameters,
            digest: self.info.digest.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
