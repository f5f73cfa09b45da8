//! A model that repeats what it was told: deterministic, offline and instant, for tests and benchmarks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::embedding::{self, Gathered};
use super::stop::StopFilter;
use super::{
    Embeddings, Generate, Generation, Inference, InferenceError, JsonSupport, Message, ModelInfo, Piece, PromptTokens,
    Role, TextSink,
};
use crate::job::outcome::{FinishReason, Usage};

/// The model's name.
pub const MODEL_NAME: &str = "echo";

/// The name of the one that makes embeddings.
pub const EMBEDDING_MODEL_NAME: &str = "echo-embed";

/// Numbers of its vectors.
const DIMENSION: usize = 16;

/// Answers with the last user message. Tokens are words: a prompt counts the words of all messages, an answer ends after
/// `max_tokens` words or at a stop string. Clones are the same backend.
#[derive(Debug, Clone)]
pub struct Echo {
    context_tokens: u32,
    json: JsonSupport,
    embeds: bool,
    gate: Option<Arc<Semaphore>>,
    failures_left: Arc<AtomicU32>,
    runs: Arc<watch::Sender<u32>>,
}

impl Default for Echo {
    fn default() -> Self {
        Self::new()
    }
}

impl Echo {
    /// An echo with a context of 4,096 words.
    pub fn new() -> Self {
        Self {
            context_tokens: 4_096,
            json: JsonSupport::None,
            embeds: false,
            gate: None,
            failures_left: Arc::default(),
            runs: Arc::new(watch::Sender::new(0)),
        }
    }

    /// With another context.
    #[must_use]
    pub fn with_context(mut self, tokens: u32) -> Self {
        self.context_tokens = tokens;
        self
    }

    /// That says of itself it can be made to give JSON. It still repeats what it was told.
    #[must_use]
    pub fn with_json(mut self, json: JsonSupport) -> Self {
        self.json = json;
        self
    }

    /// With a second model, which makes embeddings: texts of the same words have the same vector.
    #[must_use]
    pub fn with_embeddings(mut self) -> Self {
        self.embeds = true;
        self
    }

    /// Holds every run until [`Echo::release`] lets it go.
    #[must_use]
    pub fn gated(mut self) -> Self {
        self.gate = Some(Arc::new(Semaphore::new(0)));
        self
    }

    /// Lets `runs` held runs go, or the next ones when fewer are held. Does nothing on an echo without a gate.
    pub fn release(&self, runs: usize) {
        if let Some(gate) = &self.gate {
            gate.add_permits(runs);
        }
    }

    /// Fails the next `times` runs.
    pub fn fail(&self, times: u32) {
        self.failures_left.store(times, Ordering::SeqCst);
    }

    /// Runs begun so far, failed and cancelled ones included: what "at most once" is asserted on.
    pub fn runs(&self) -> u32 {
        *self.runs.borrow()
    }

    /// Waits until `runs` runs have begun.
    pub async fn wait_for_runs(&self, runs: u32) {
        let mut begun = self.runs.subscribe();
        begun.wait_for(|count| *count >= runs).await.expect("the echo keeps the sender");
    }

    fn check_model(model: Option<&str>) -> Result<(), InferenceError> {
        match model {
            None | Some(MODEL_NAME) => Ok(()),
            Some(wanted) => {
                Err(InferenceError::UnknownModel { wanted: wanted.to_owned(), offered: vec![MODEL_NAME.to_owned()] })
            }
        }
    }

    /// What every run goes through first: the gate, and the failures it was told of.
    async fn begin(&self, cancel: &CancellationToken) -> Result<(), InferenceError> {
        self.runs.send_modify(|runs| *runs += 1);
        if cancel.is_cancelled() {
            return Err(InferenceError::Cancelled);
        }
        if let Some(gate) = &self.gate {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(InferenceError::Cancelled),
                permit = gate.acquire() => permit.expect("the gate is never closed").forget(),
            }
        }
        let fail = |left: u32| left.checked_sub(1);
        if self.failures_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fail).is_ok() {
            return Err(InferenceError::Backend("the echo was told to fail".to_owned()));
        }
        Ok(())
    }

    fn answer(&self, request: &Generate, sink: Option<&TextSink>) -> Result<Generation, InferenceError> {
        let prompt_tokens = count_words(&request.messages)?;
        let room = self.context_tokens.saturating_sub(prompt_tokens).saturating_sub(1);
        if room == 0 {
            return Err(InferenceError::ContextOverflow { prompt_tokens, context_tokens: self.context_tokens });
        }
        let said = request.messages.iter().rfind(|message| message.role == Role::User);
        let said = said.map_or("", |message| message.content.trim());
        let limit = request.max_tokens.min(room);

        let (mut text, mut generated_tokens, mut finish) = (String::new(), 0, FinishReason::Stop);
        let mut filter = StopFilter::new(&request.stop);
        let show = |piece: &str, tokens: u32, text: &mut String| {
            text.push_str(piece);
            if let Some(sink) = sink.filter(|_| !piece.is_empty()) {
                // Nobody has to read.
                let _ = sink.send(Piece { text: piece.to_owned(), tokens });
            }
        };
        let mut stopped = false;
        for word in words_with_space(said) {
            if generated_tokens == limit {
                finish = FinishReason::Length;
                break;
            }
            generated_tokens += 1;
            let passed = filter.push(word);
            show(&passed.text, generated_tokens, &mut text);
            if passed.stopped {
                stopped = true;
                break;
            }
        }
        if !stopped {
            show(&filter.finish(), generated_tokens, &mut text);
        }
        let usage = Usage::tokens(prompt_tokens, generated_tokens);
        Ok(Generation { text, finish, usage, model: MODEL_NAME.to_owned(), parameters: None, digest: None })
    }
}

/// The words, each with the space in front of it, so that together they are the text.
fn words_with_space(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let begins = rest.find(|c: char| !c.is_whitespace())?;
        let ends = rest[begins..].find(char::is_whitespace).map_or(rest.len(), |size| begins + size);
        let (word, after) = rest.split_at(ends);
        rest = after;
        Some(word)
    })
}

/// The words counted by where their bytes lead, and made as long as 1.
fn vector(text: &str) -> Vec<f32> {
    let mut numbers = vec![0.0_f32; DIMENSION];
    for word in text.split_whitespace() {
        let place = word.bytes().fold(7_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        numbers[place % DIMENSION] += 1.0;
    }
    let length = numbers.iter().map(|number| number * number).sum::<f32>().sqrt();
    numbers.into_iter().map(|number| number / length).collect()
}

fn count_words(messages: &[Message]) -> Result<u32, InferenceError> {
    if messages.is_empty() {
        return Err(InferenceError::BadRequest("the conversation is empty".to_owned()));
    }
    let words: usize = messages.iter().map(|message| message.content.split_whitespace().count()).sum();
    Ok(u32::try_from(words).unwrap_or(u32::MAX))
}

#[async_trait]
impl Inference for Echo {
    async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        Ok(vec![ModelInfo {
            context_tokens: Some(self.context_tokens),
            json: self.json,
            ..ModelInfo::named(MODEL_NAME)
        }])
    }

    async fn count_prompt_tokens(
        &self,
        model: Option<&str>,
        messages: &[Message],
    ) -> Result<PromptTokens, InferenceError> {
        Self::check_model(model)?;
        count_words(messages).map(PromptTokens::exact)
    }

    async fn embedding_models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        let model = ModelInfo { context_tokens: Some(self.context_tokens), ..ModelInfo::named(EMBEDDING_MODEL_NAME) };
        Ok(if self.embeds { vec![model] } else { Vec::new() })
    }

    async fn embed(
        &self,
        model: Option<&str>,
        texts: &[String],
        cancel: &CancellationToken,
    ) -> Result<Embeddings, InferenceError> {
        if !self.embeds {
            return Err(InferenceError::NoEmbeddings);
        }
        if let Some(wanted) = model.filter(|model| *model != EMBEDDING_MODEL_NAME) {
            let offered = vec![EMBEDDING_MODEL_NAME.to_owned()];
            return Err(InferenceError::UnknownModel { wanted: wanted.to_owned(), offered });
        }
        embedding::check_texts(texts)?;
        self.begin(cancel).await?;
        let words = |text: &String| u32::try_from(text.split_whitespace().count()).unwrap_or(u32::MAX);
        if let Some(prompt_tokens) = texts.iter().map(words).find(|words| *words > self.context_tokens) {
            return Err(InferenceError::ContextOverflow { prompt_tokens, context_tokens: self.context_tokens });
        }
        let mut gathered = Gathered::default();
        gathered.take(texts, texts.iter().map(|text| vector(text)).collect(), texts.iter().map(words).sum())?;
        Ok(gathered.by(&ModelInfo::named(EMBEDDING_MODEL_NAME)))
    }

    async fn generate(
        &self,
        request: &Generate,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Generation, InferenceError> {
        Self::check_model(request.model.as_deref())?;
        self.begin(cancel).await?;
        self.answer(request, sink.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::Format;
    use crate::job::text::Sampling;
    use crate::testing::embedding_contract;
    use crate::testing::inference_contract::{self, Subject};

    fn ask(text: &str) -> Generate {
        Generate {
            model: None,
            messages: vec![Message::new(Role::System, "Be brief."), Message::new(Role::User, text)],
            sampling: Sampling::default(),
            stop: Vec::new(),
            max_tokens: 100,
            format: Format::Text,
        }
    }

    async fn run(echo: &Echo, request: &Generate) -> Result<Generation, InferenceError> {
        echo.generate(request, None, &CancellationToken::new()).await
    }

    #[tokio::test]
    async fn the_answer_is_the_question_word_for_word() {
        let answer = run(&Echo::new(), &ask(" two  words\nand three ")).await.unwrap();
        assert_eq!(answer.text, "two  words\nand three");
        assert_eq!(answer.usage, Usage::tokens(6, 4));
        assert_eq!(answer.finish, FinishReason::Stop);
    }

    #[tokio::test]
    async fn a_gated_run_waits_and_can_be_cancelled() {
        let echo = Echo::new().gated();
        let cancel = CancellationToken::new();
        let held = tokio::spawn({
            let (echo, cancel) = (echo.clone(), cancel.clone());
            async move { echo.generate(&ask("a"), None, &cancel).await }
        });
        echo.wait_for_runs(1).await;
        cancel.cancel();
        assert_eq!(held.await.unwrap(), Err(InferenceError::Cancelled));

        echo.release(1);
        assert_eq!(run(&echo, &ask("b")).await.unwrap().text, "b");
        assert_eq!(echo.runs(), 2);
    }

    #[tokio::test]
    async fn it_fails_as_often_as_told() {
        let echo = Echo::new();
        echo.fail(2);
        assert!(run(&echo, &ask("a")).await.is_err());
        assert!(run(&echo, &ask("a")).await.is_err());
        assert!(run(&echo, &ask("a")).await.is_ok());
        assert_eq!(echo.runs(), 3);
    }

    #[tokio::test]
    async fn echo_keeps_the_contract_of_embeddings() {
        embedding_contract::check(&Echo::new().with_embeddings()).await;
        let none = Echo::new().embed(None, &["a".into()], &CancellationToken::new()).await;
        assert_eq!(none, Err(InferenceError::NoEmbeddings));
    }

    #[tokio::test]
    async fn echo_keeps_the_contract() {
        let questions = ["say three words", "one after another", "and yet a third one"].map(str::to_owned).to_vec();
        let subject = Subject { backend: Arc::new(Echo::new()), questions, endless: None };
        inference_contract::check(&subject).await;
    }
}
