//! An endpoint that does what a story needs.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::inference::echo::{Echo, MODEL_NAME};
use crate::inference::{
    Generate, Generation, Inference, InferenceError, Message, ModelInfo, Piece, PromptTokens, TextSink,
};

/// What the next job meets.
#[derive(Debug, Clone)]
pub(super) enum Next {
    Fail(InferenceError),
    /// Writes a word first.
    WriteAndFail(InferenceError),
    Panic,
    /// Waits until [`Fake::release`].
    Hold,
}

/// An echo under another model's name, with slots, that fails, panics, dies and comes back as told. Clones are the same.
#[derive(Clone)]
pub(super) struct Fake(Arc<Inner>);

struct Inner {
    name: &'static str,
    models: Mutex<Vec<ModelInfo>>,
    room: Mutex<usize>,
    next: Mutex<VecDeque<Next>>,
    down: Mutex<Option<InferenceError>>,
    exact: bool,
    gate: Semaphore,
    begun: watch::Sender<usize>,
    checks: watch::Sender<usize>,
    counts: watch::Sender<usize>,
}

impl Fake {
    pub(super) fn new(name: &'static str) -> Self {
        Self::with(name, 1, true)
    }

    pub(super) fn with(name: &'static str, room: usize, exact: bool) -> Self {
        Self(Arc::new(Inner {
            name,
            models: Mutex::new(vec![ModelInfo { context_tokens: Some(100), ..ModelInfo::named(MODEL_NAME) }]),
            room: Mutex::new(room),
            next: Mutex::default(),
            down: Mutex::default(),
            exact,
            gate: Semaphore::new(0),
            begun: watch::Sender::new(0),
            checks: watch::Sender::new(0),
            counts: watch::Sender::new(0),
        }))
    }

    pub(super) fn name(&self) -> &'static str {
        self.0.name
    }

    pub(super) fn lists(&self, models: &[&str]) {
        *self.0.models.lock().unwrap() = models.iter().map(|name| ModelInfo::named(*name)).collect();
    }

    pub(super) fn next(&self, next: Next) {
        self.0.next.lock().unwrap().push_back(next);
    }

    /// Fails every job and every check from now on.
    pub(super) fn dies(&self) {
        *self.0.down.lock().unwrap() = Some(InferenceError::Backend("the connection broke".into()));
    }

    pub(super) fn comes_back(&self) {
        *self.0.down.lock().unwrap() = None;
    }

    /// Lets a held job go.
    pub(super) fn release(&self) {
        self.0.gate.add_permits(1);
    }

    /// Jobs begun here.
    pub(super) fn begun(&self) -> usize {
        *self.0.begun.borrow()
    }

    pub(super) fn counts(&self) -> usize {
        *self.0.counts.borrow()
    }

    pub(super) async fn has_begun(&self, jobs: usize) {
        self.0.begun.subscribe().wait_for(|begun| *begun >= jobs).await.unwrap();
    }

    /// Waits until it was asked for its models so often in all.
    pub(super) async fn was_checked(&self, times: usize) {
        self.0.checks.subscribe().wait_for(|checks| *checks >= times).await.unwrap();
    }

    fn alive(&self) -> Result<(), InferenceError> {
        self.0.down.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn has(&self, model: Option<&str>) -> Result<(), InferenceError> {
        let models = self.0.models.lock().unwrap();
        let offered: Vec<String> = models.iter().map(|model| model.name.clone()).collect();
        match model {
            Some(wanted) if !offered.iter().any(|name| name == wanted) => {
                Err(InferenceError::UnknownModel { wanted: wanted.to_owned(), offered })
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Inference for Fake {
    async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        self.0.checks.send_modify(|checks| *checks += 1);
        self.alive()?;
        Ok(self.0.models.lock().unwrap().clone())
    }

    async fn count_prompt_tokens(&self, model: Option<&str>, said: &[Message]) -> Result<PromptTokens, InferenceError> {
        self.0.counts.send_modify(|counts| *counts += 1);
        self.alive()?;
        self.has(model)?;
        let count = Echo::new().count_prompt_tokens(None, said).await?.count;
        Ok(PromptTokens { count, exact: self.0.exact })
    }

    fn room(&self, _model: Option<&str>) -> usize {
        *self.0.room.lock().unwrap()
    }

    async fn generate(
        &self,
        request: &Generate,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Generation, InferenceError> {
        self.0.begun.send_modify(|begun| *begun += 1);
        self.alive()?;
        self.has(request.model.as_deref())?;
        let next = self.0.next.lock().unwrap().pop_front();
        match next {
            None => {}
            Some(Next::Fail(error)) => return Err(error),
            Some(Next::WriteAndFail(error)) => {
                let _ = sink.unwrap().send(Piece { text: "once ".into(), tokens: 1 });
                return Err(error);
            }
            Some(Next::Panic) => panic!("a panic that a test asked for"),
            Some(Next::Hold) => tokio::select! {
                () = cancel.cancelled() => return Err(InferenceError::Cancelled),
                permit = self.0.gate.acquire() => permit.unwrap().forget(),
            },
        }
        let request = Generate { model: None, ..request.clone() };
        let answer = Echo::new().generate(&request, sink, cancel).await?;
        // Tells where it was done.
        Ok(Generation { digest: Some(self.0.name.to_owned()), ..answer })
    }
}
