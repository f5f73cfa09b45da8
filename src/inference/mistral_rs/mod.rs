//! mistral.rs in the same process: a GGUF file and nothing else.
//!
//! What the engine (0.8.1) gets wrong, and what is done about it:
//! - Two sequences at once on a CPU mix their answers up: one sequence (`with_max_num_seqs(1)`) and one permit of ours.
//! - A caller that stops listening kills the engine where it sends and unwraps: answers are always streamed into a task of
//!   their own ([`run`]) that listens until the engine has begun, and counting is never abandoned half-way.
//! - The engine waits for a slow reader, and everybody with it: that task drains into an unbounded channel.
//! - A dead engine ends its streams without an error: a stream that ends without a finish reason is one. The next send
//!   fails once, then the library restarts the engine: sends are tried again.
//! - Running into the context's end is an error there, not `length`: `max_tokens` is capped before.
//! - Stop strings are found late and shown: [`super::stop`] does it. Seeds are unknown: [`sampling`] draws the tokens.
//! - Control tokens in a customer's text would be control tokens: [`super::control`] splits them.
//! - The prefix cache grows without end: it is off.

mod load;
mod run;
mod sampling;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mistralrs::error::Error as EngineError;
use mistralrs::{MessageContent, Model, TextMessageRole, TextMessages};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use self::load::LoadProgress;
use super::control::ControlTokens;
use super::{Generate, Generation, Inference, InferenceError, Message, ModelInfo, PromptTokens, Role, TextSink};

/// How often a request is handed to an engine that doesn't take it: once, and again after it was restarted.
const SEND_ATTEMPTS: u32 = 3;
/// How long a dying engine gets to be noticed as dead before the last attempt.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// Which model, and how it is offered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MistralRsConfig {
    /// The GGUF file.
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
    engine: Arc<Model>,
    turn: Arc<Semaphore>,
    info: ModelInfo,
    context_tokens: u32,
    control: Arc<ControlTokens>,
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
            let mut attempt = 1;
            loop {
                // The engine's `Either` is not re-exported; this is the way to name one.
                let text = MessageContent::Left(String::new()).map_left(|_| chat.clone()).map_right(|_| String::new());
                match engine.tokenize(text, None, true, true, None).await {
                    Err(EngineError::Channel(_)) if attempt < SEND_ATTEMPTS => pause_before(attempt).await,
                    done => return done,
                }
                attempt += 1;
            }
        });
        match counting.await {
            Ok(Ok(tokens)) => Ok(u32::try_from(tokens.len()).unwrap_or(u32::MAX)),
            // The template speaks here ("roles must alternate"), never the tokenizer.
            Ok(Err(EngineError::Inference(error))) => {
                Err(InferenceError::BadRequest(format!("the model's chat template refuses the conversation: {error}")))
            }
            Ok(Err(error)) => Err(InferenceError::Backend(error.to_string())),
            Err(_) => Err(InferenceError::Backend("counting tokens broke off".to_owned())),
        }
    }
}

/// A dead engine's channel closes a moment before its thread ends, and only the latter is noticed.
async fn pause_before(attempt: u32) {
    if attempt > 1 {
        tokio::time::sleep(RESTART_PAUSE).await;
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
        let answer = run::Run { request, chat, prompt_tokens, max_tokens, sink }.on(&self.engine, turn);
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
