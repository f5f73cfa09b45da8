//! A model that says what a script tells it to, for tests of what is done with a model's answers.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::inference::{
    Generate, Generation, Inference, InferenceError, JsonSupport, Message, ModelInfo, Piece, PromptTokens, TextSink,
};
use crate::job::{FinishReason, Usage};

/// The model's name.
pub const MODEL_NAME: &str = "scripted";

/// Bytes of a token.
const TOKEN_BYTES: usize = 4;

/// What the model does when it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    /// It answers.
    Text(String),
    /// It fails.
    Fails(InferenceError),
    /// It thinks for ever: only a cancellation ends it.
    Hangs,
}

impl From<&str> for Says {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Says {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

type Script = dyn Fn(&Generate, usize) -> Says + Send + Sync;

/// A model with a script. Four bytes are a token. Clones are the same one.
#[derive(Clone)]
pub struct ScriptedModel(Arc<Shared>);

struct Shared {
    script: Box<Script>,
    info: Mutex<ModelInfo>,
    asked: Mutex<Vec<Generate>>,
    begun: watch::Sender<usize>,
}

impl fmt::Debug for ScriptedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedModel").field("begun", &*self.0.begun.borrow()).finish_non_exhaustive()
    }
}

impl ScriptedModel {
    /// Says these one after the other, and fails when there is nothing left to say.
    pub fn saying<S: Into<Says>>(answers: impl IntoIterator<Item = S>) -> Self {
        let answers: Vec<Says> = answers.into_iter().map(Into::into).collect();
        Self::new(move |_, place| {
            let nothing = || Says::Fails(InferenceError::Unusable("the script is at its end".into()));
            answers.get(place).cloned().unwrap_or_else(nothing)
        })
    }

    /// Does what `script` says of what is asked, and of how often it was asked before.
    pub fn new(script: impl Fn(&Generate, usize) -> Says + Send + Sync + 'static) -> Self {
        let info =
            ModelInfo { context_tokens: Some(8_192), parameters: Some(1_000_000), ..ModelInfo::named(MODEL_NAME) };
        Self(Arc::new(Shared {
            script: Box::new(script),
            info: Mutex::new(info),
            asked: Mutex::default(),
            begun: watch::Sender::new(0),
        }))
    }

    /// With another context; `None` tells nobody.
    #[must_use]
    pub fn with_context(self, tokens: Option<u32>) -> Self {
        lock(&self.0.info).context_tokens = tokens;
        self
    }

    /// That says of itself it can be made to give JSON. It says what its script says all the same.
    #[must_use]
    pub fn with_json(self, json: JsonSupport) -> Self {
        lock(&self.0.info).json = json;
        self
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Generate> {
        lock(&self.0.asked).clone()
    }

    /// Waits until it was asked so often in all.
    pub async fn begun(&self, times: usize) {
        self.0.begun.subscribe().wait_for(|count| *count >= times).await.expect("the sender is kept here");
    }

    fn check(&self, model: Option<&str>) -> Result<(), InferenceError> {
        match model {
            None | Some(MODEL_NAME) => Ok(()),
            Some(wanted) => {
                Err(InferenceError::UnknownModel { wanted: wanted.into(), offered: vec![MODEL_NAME.into()] })
            }
        }
    }
}

fn tokens(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(TOKEN_BYTES)).unwrap_or(u32::MAX)
}

fn prompt_tokens(messages: &[Message]) -> u32 {
    tokens(messages.iter().map(|message| message.content.len()).sum())
}

#[async_trait]
impl Inference for ScriptedModel {
    async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        Ok(vec![lock(&self.0.info).clone()])
    }

    async fn count_prompt_tokens(
        &self,
        model: Option<&str>,
        messages: &[Message],
    ) -> Result<PromptTokens, InferenceError> {
        self.check(model)?;
        Ok(PromptTokens::exact(prompt_tokens(messages)))
    }

    async fn generate(
        &self,
        request: &Generate,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Generation, InferenceError> {
        self.check(request.model.as_deref())?;
        let place = {
            let mut asked = lock(&self.0.asked);
            asked.push(request.clone());
            asked.len() - 1
        };
        let says = (self.0.script)(request, place);
        self.0.begun.send_modify(|count| *count += 1);
        let mut text = match says {
            Says::Text(text) => text,
            Says::Fails(error) => return Err(error),
            Says::Hangs => {
                cancel.cancelled().await;
                return Err(InferenceError::Cancelled);
            }
        };
        let info = lock(&self.0.info).clone();
        let prompt_tokens = prompt_tokens(&request.messages);
        if let Some(context_tokens) = info.context_tokens.filter(|context| prompt_tokens >= *context) {
            return Err(InferenceError::ContextOverflow { prompt_tokens, context_tokens });
        }
        let most = usize::try_from(request.max_tokens).unwrap_or(usize::MAX).saturating_mul(TOKEN_BYTES);
        let finish = if text.len() > most { FinishReason::Length } else { FinishReason::Stop };
        text.truncate(text.floor_char_boundary(most));
        let usage = Usage::tokens(prompt_tokens, tokens(text.len()));
        if let Some(sink) = sink.filter(|_| !text.is_empty()) {
            // Nobody has to read.
            let _ = sink.send(Piece { text: text.clone(), tokens: usage.generated_tokens });
        }
        Ok(Generation { text, finish, usage, model: info.name, parameters: info.parameters, digest: info.digest })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
