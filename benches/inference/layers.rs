//! What each layer of coinop adds to the backend below it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use coinop::inference::metered::Metered;
use coinop::inference::pool::{Pool, PoolEndpoint, PoolOptions};
use coinop::inference::{
    Format, Generate, Generation, Inference, InferenceError, Message, ModelInfo, PromptTokens, Role, Sampling, TextSink,
};
use coinop::job::Terms;
use coinop::metrics::Metrics;
use coinop::nip90::{AnswerBody, Status};
use coinop::testing::market::{TestMarket, within};
use tokio_util::sync::CancellationToken;

use crate::Size;
use crate::bare::asked;
use crate::figures::{self, Layer, Timed};

/// Makes the tiny model write until it is stopped.
pub(crate) const QUESTION: &str = "Repeat: omega";

/// Tokens of each answer.
pub(crate) const TOKENS: u32 = 64;

/// The same question as everywhere.
pub(crate) fn question() -> Generate {
    Generate {
        model: None,
        messages: vec![Message::new(Role::User, QUESTION)],
        sampling: Sampling { temperature: Some(0.0), ..Sampling::default() },
        stop: Vec::new(),
        max_tokens: TOKENS,
        format: Format::Text,
    }
}

/// A backend that several own.
pub(crate) struct Shared(pub(crate) Arc<dyn Inference>);

#[async_trait]
impl Inference for Shared {
    async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        self.0.models().await
    }

    async fn count_prompt_tokens(
        &self,
        model: Option<&str>,
        messages: &[Message],
    ) -> Result<PromptTokens, InferenceError> {
        self.0.count_prompt_tokens(model, messages).await
    }

    fn room(&self, model: Option<&str>) -> usize {
        self.0.room(model)
    }

    async fn generate(
        &self,
        request: &Generate,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Generation, InferenceError> {
        self.0.generate(request, sink, cancel).await
    }
}

/// The backend as `coinop serve` has it: measured, in a pool.
pub(crate) async fn pooled(backend: Arc<dyn Inference>) -> Result<Arc<dyn Inference>> {
    let metered = Metered::new(backend, "bench", Metrics::new());
    let endpoint = PoolEndpoint { name: "bench".into(), backend: Arc::new(metered) };
    let pool = Pool::new(vec![endpoint], Vec::new(), PoolOptions::default())?;
    pool.refresh().await;
    Ok(Arc::new(pool))
}

/// Prints the table of all layers above `bare`.
pub(crate) async fn measure(bare: Layer, backend: Arc<dyn Inference>, size: Size) -> Result<()> {
    let adapter = Layer { name: "coinop's adapter", answers: asked(backend.as_ref(), size.answers).await? };
    let pool = pooled(backend).await?;
    let through_pool = Layer { name: "… in a measured pool", answers: asked(pool.as_ref(), size.answers).await? };
    let silent =
        Layer { name: "… a whole job over a relay", answers: jobs(Arc::clone(&pool), size.answers, false).await? };
    let streamed =
        Layer { name: "… a whole job, streamed to the customer", answers: jobs(pool, size.answers, true).await? };
    println!("{}", figures::layers(&[bare, adapter, through_pool, silent, streamed]));
    Ok(())
}

/// Free jobs, one after the other: from the request's publication to what the customer sees.
async fn jobs(backend: Arc<dyn Inference>, answers: usize, stream: bool) -> Result<Vec<Timed>> {
    let market = TestMarket::new().terms(Terms::Free).backend(Shared(backend)).start().await;
    let customer = market.customer().await;
    let mut timed = Vec::with_capacity(answers);
    for round in 0..=answers {
        let mut order = customer.order(QUESTION);
        order.params.push("max_tokens", vec![TOKENS.to_string()]);
        order.params.push("temperature", vec!["0".into()]);
        order.params.push("stream", vec![stream.to_string()]);
        // Two equal requests within a second are one event.
        order.params.push("round", vec![round.to_string()]);
        let begun = Instant::now();
        let mut posted = customer.post(&order).await;
        let mut first = None;
        let result = loop {
            match within("an answer", posted.next()).await.body {
                AnswerBody::Feedback(feedback) if feedback.status == Status::Partial => {
                    first.get_or_insert_with(|| begun.elapsed());
                }
                AnswerBody::Feedback(feedback) => {
                    ensure!(feedback.status != Status::Error, "the job failed: {:?}", feedback.text);
                }
                AnswerBody::Result(result) => break result,
            }
        };
        let whole = begun.elapsed();
        let usage = result.receipt.usage.context("the receipt names no tokens")?;
        ensure!(usage.generated_tokens == TOKENS, "{} tokens written", usage.generated_tokens);
        ensure!(!stream || first.is_some(), "nothing was streamed");
        if round > 0 {
            timed.push(Timed { first, whole, tokens: TOKENS });
        }
    }
    market.finish().await;
    Ok(timed)
}
