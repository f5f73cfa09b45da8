//! What every inference backend must do, checked the same way for each: [`check`] panics with what is wrong.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::inference::{Format, Generate, Generation, Inference, InferenceError, Message, Role, Sampling};
use crate::job::FinishReason;

/// A backend that takes longer than this for one of the short questions hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Tokens the answers to the questions fit in.
const ENOUGH_TOKENS: u32 = 60;
/// Questions asked at the same time.
const AT_ONCE: usize = 20;

/// A backend with what is needed to ask it something.
#[derive(Clone)]
pub struct Subject {
    /// The backend.
    pub backend: Arc<dyn Inference>,
    /// Different questions, at least two, whose greedy answers differ, have several words and end within 60 tokens.
    pub questions: Vec<String>,
    /// A question whose answer takes long enough to be cancelled in, when there is one.
    pub endless: Option<String>,
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("questions", &self.questions).finish_non_exhaustive()
    }
}

/// Runs the whole suite.
pub async fn check(subject: &Subject) {
    subject.offers_a_model_by_name().await;
    subject.answers_the_same_streamed_and_whole().await;
    subject.counts_what_it_bills().await;
    subject.ends_at_the_token_limit().await;
    subject.ends_before_a_stop_string().await;
    subject.names_its_models_when_asked_for_another().await;
    subject.refuses_a_conversation_without_messages().await;
    subject.refuses_a_prompt_larger_than_the_context().await;
    subject.does_not_mind_a_closed_sink().await;
    subject.does_not_begin_what_is_cancelled().await;
    subject.stops_soon_when_cancelled().await;
    subject.forgets_a_dropped_run().await;
    subject.keeps_concurrent_answers_apart().await;
}

/// A greedy question.
pub fn ask(question: &str) -> Generate {
    Generate {
        model: None,
        messages: vec![Message::new(Role::User, question)],
        sampling: Sampling { temperature: Some(0.0), ..Sampling::default() },
        stop: Vec::new(),
        max_tokens: ENOUGH_TOKENS,
        format: Format::Text,
    }
}

impl Subject {
    async fn answer(&self, request: &Generate) -> Result<Generation, InferenceError> {
        let cancel = CancellationToken::new();
        let answer = self.backend.generate(request, None, &cancel);
        tokio::time::timeout(PATIENCE, answer).await.expect("the backend hangs")
    }

    fn question(&self) -> Generate {
        ask(&self.questions[0])
    }

    async fn offers_a_model_by_name(&self) {
        let models = self.backend.models().await.expect("the models are listed");
        assert!(!models.is_empty(), "no model on offer");
        let named = Generate { model: Some(models[0].name.clone()), ..self.question() };
        let (by_name, by_default) = (self.answer(&named).await, self.answer(&self.question()).await);
        assert_eq!(by_name.expect("an answer").model, models[0].name, "the first model on offer");
        assert_eq!(by_default.expect("an answer").model, models[0].name, "the first model is the default");
    }

    async fn answers_the_same_streamed_and_whole(&self) {
        let (sink, mut pieces) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let whole = self.backend.generate(&self.question(), Some(sink), &cancel).await.expect("an answer");
        let (mut streamed, mut tokens) = (String::new(), 0);
        while let Some(piece) = pieces.recv().await {
            assert!(!piece.text.is_empty(), "an empty piece was sent");
            assert!(piece.tokens >= tokens, "tokens are counted up");
            tokens = piece.tokens;
            streamed.push_str(&piece.text);
        }
        assert_eq!(streamed, whole.text, "streamed and whole text");
        assert!((1..=whole.usage.generated_tokens).contains(&tokens), "{tokens} tokens were shown");
        assert_eq!(whole.finish, FinishReason::Stop);
        assert!(!whole.text.trim().is_empty(), "an empty answer");
    }

    async fn counts_what_it_bills(&self) {
        for question in &self.questions {
            let request = ask(question);
            let counted = self.backend.count_prompt_tokens(None, &request.messages).await.expect("a count");
            let usage = self.answer(&request).await.expect("an answer").usage;
            if counted.exact {
                assert_eq!(
                    usage.prompt_tokens, counted.count,
                    "tokens counted before and billed after, for {question:?}"
                );
            } else {
                assert!(usage.prompt_tokens <= counted.count, "an estimate below what was billed, for {question:?}");
            }
            assert!((1..=ENOUGH_TOKENS).contains(&usage.generated_tokens), "{} tokens written", usage.generated_tokens);
        }
    }

    async fn ends_at_the_token_limit(&self) {
        let whole = self.answer(&self.question()).await.expect("an answer").text;
        let short = self.answer(&Generate { max_tokens: 2, ..self.question() }).await.expect("an answer");
        assert_eq!((short.finish, short.usage.generated_tokens), (FinishReason::Length, 2));
        assert!(whole.starts_with(&short.text) && whole != short.text, "{:?} of {whole:?}", short.text);
    }

    async fn ends_before_a_stop_string(&self) {
        let whole = self.answer(&self.question()).await.expect("an answer");
        // A stop string from the middle, beginning inside a word.
        let middle: Vec<usize> = whole.text.char_indices().map(|(at, _)| at).collect();
        let (from, to) = (middle[middle.len() / 2], middle[middle.len() / 2 + 2]);
        let stop = &whole.text[from..to];
        let request = Generate { stop: vec!["never in it".into(), stop.into()], ..self.question() };
        let (sink, mut pieces) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let cut = self.backend.generate(&request, Some(sink), &cancel).await.expect("an answer");
        let expected = &whole.text[..whole.text.find(stop).expect("taken from it")];
        assert_eq!(cut.text, expected, "cut before {stop:?}");
        assert_eq!(cut.finish, FinishReason::Stop);
        assert!(cut.usage.generated_tokens <= whole.usage.generated_tokens);
        let mut streamed = String::new();
        while let Some(piece) = pieces.recv().await {
            streamed.push_str(&piece.text);
        }
        assert_eq!(streamed, expected, "what was streamed");
    }

    async fn names_its_models_when_asked_for_another(&self) {
        let offered: Vec<String> =
            self.backend.models().await.expect("the models").into_iter().map(|model| model.name).collect();
        let error = InferenceError::UnknownModel { wanted: "no-such-model".into(), offered };
        let request = Generate { model: Some("no-such-model".into()), ..self.question() };
        assert_eq!(self.answer(&request).await.expect_err("an unknown model answered"), error);
        let count = self.backend.count_prompt_tokens(Some("no-such-model"), &request.messages).await;
        assert_eq!(count.expect_err("an unknown model counted"), error);
    }

    async fn refuses_a_conversation_without_messages(&self) {
        let request = Generate { messages: Vec::new(), ..self.question() };
        assert!(matches!(self.answer(&request).await, Err(InferenceError::BadRequest(_))));
        assert!(matches!(self.backend.count_prompt_tokens(None, &[]).await, Err(InferenceError::BadRequest(_))));
    }

    async fn refuses_a_prompt_larger_than_the_context(&self) {
        let Some(context) = self.backend.models().await.expect("the models")[0].context_tokens else { return };
        let request = ask(&"word ".repeat(context as usize + 1));
        match self.answer(&request).await {
            Err(InferenceError::ContextOverflow { prompt_tokens, context_tokens }) => {
                assert_eq!(context_tokens, context);
                assert!(prompt_tokens > context);
            }
            other => panic!("a prompt of {context} words and more gave {other:?}"),
        }
    }

    async fn does_not_mind_a_closed_sink(&self) {
        let (sink, pieces) = mpsc::unbounded_channel();
        drop(pieces);
        let cancel = CancellationToken::new();
        let unread = self.backend.generate(&self.question(), Some(sink), &cancel).await.expect("an answer");
        assert_eq!(unread.text, self.answer(&self.question()).await.expect("an answer").text);
    }

    async fn does_not_begin_what_is_cancelled(&self) {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let answer = self.backend.generate(&self.question(), None, &cancel).await;
        assert_eq!(answer.expect_err("a cancelled run answered"), InferenceError::Cancelled);
    }

    async fn stops_soon_when_cancelled(&self) {
        let Some(question) = &self.endless else { return };
        let request = Generate { max_tokens: u32::MAX, ..ask(question) };
        let (sink, mut pieces) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let running = self.backend.generate(&request, Some(sink), &cancel);
        let cancelling = async {
            pieces.recv().await.expect("it writes");
            cancel.cancel();
        };
        let (answer, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(running, cancelling) })
            .await
            .expect("a cancelled run goes on");
        assert_eq!(answer.expect_err("a cancelled run answered"), InferenceError::Cancelled);
        self.answer(&self.question()).await.expect("an answer after a cancelled one");
    }

    async fn forgets_a_dropped_run(&self) {
        let Some(question) = &self.endless else { return };
        let request = Generate { max_tokens: u32::MAX, ..ask(question) };
        let (sink, mut pieces) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let running = self.backend.generate(&request, Some(sink), &cancel);
        tokio::select! {
            answer = running => panic!("an endless answer ended: {answer:?}"),
            piece = pieces.recv() => assert!(piece.is_some()),
        }
        // Dropped here: whoever asks next must not notice.
        self.answer(&self.question()).await.expect("an answer after a dropped one");
    }

    async fn keeps_concurrent_answers_apart(&self) {
        let mut alone = Vec::new();
        for question in &self.questions {
            alone.push(self.answer(&ask(question)).await.expect("an answer").text);
        }
        let runs = (0..AT_ONCE).map(|index| {
            let which = index % self.questions.len();
            let (expected, request) = (&alone[which], ask(&self.questions[which]));
            async move {
                let cancel = CancellationToken::new();
                let (sink, mut pieces) = mpsc::unbounded_channel();
                let running = self.backend.generate(&request, Some(sink), &cancel);
                if index % 3 == 2 {
                    // Cancelled in the middle, or after its end when it was quick.
                    let cancelling = async {
                        pieces.recv().await;
                        cancel.cancel();
                    };
                    let _ = tokio::join!(running, cancelling);
                } else {
                    let answer = running.await.expect("an answer among others");
                    assert_eq!(&answer.text, expected, "the answer to question {which} among others");
                }
            }
        });
        tokio::time::timeout(PATIENCE, join_all(runs)).await.expect("concurrent runs hang");
    }
}
