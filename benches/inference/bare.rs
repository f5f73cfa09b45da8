//! The limit: the backend alone.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use coinop::inference::Inference;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::figures::{Layer, Timed};
use crate::layers::{QUESTION, TOKENS, question};

/// The server, asked by a few lines of HTTP.
pub(crate) async fn over_http(base: &Url, answers: usize) -> Result<Layer> {
    // The server closes a connection soon after a stream: each answer has one of its own, as in coinop.
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build()?;
    let address = base.join("v1/chat/completions")?;
    let body = serde_json::to_vec(&serde_json::json!({
        "messages": [{ "role": "user", "content": QUESTION }],
        "max_tokens": TOKENS,
        "temperature": 0,
        "stream": true,
        "stream_options": { "include_usage": true },
    }))?;
    let mut timed = Vec::with_capacity(answers);
    for round in 0..=answers {
        let begun = Instant::now();
        let mut first = None;
        let response = client
            .post(address.clone())
            .header("content-type", "application/json")
            .body(body.clone())
            .send()
            .await?
            .error_for_status()?;
        let mut chunks = response.bytes_stream();
        let mut tail = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            // The role comes before the first token, with no content.
            if first.is_none() && String::from_utf8_lossy(&chunk).contains("\"content\":\"") {
                first = Some(begun.elapsed());
            }
            tail = chunk.to_vec();
        }
        ensure!(String::from_utf8_lossy(&tail).contains("[DONE]"), "the server broke off");
        // The first answer warms up.
        if round > 0 {
            timed.push(Timed { first, whole: begun.elapsed(), tokens: TOKENS });
        }
    }
    Ok(Layer { name: "bare server, a few lines of HTTP", answers: timed })
}

/// The backend in this process, called directly.
#[cfg_attr(not(feature = "mistralrs"), allow(dead_code))] // Only the engine runs in this process.
pub(crate) async fn in_process(backend: &dyn Inference, answers: usize) -> Result<Layer> {
    let timed = asked(backend, answers).await?;
    Ok(Layer { name: "bare engine, called directly", answers: timed })
}

/// Answers of a backend, one after the other, streamed.
pub(crate) async fn asked(backend: &dyn Inference, answers: usize) -> Result<Vec<Timed>> {
    let mut timed = Vec::with_capacity(answers);
    for round in 0..=answers {
        let (sink, mut pieces) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let begun = Instant::now();
        let request = question();
        let answering = backend.generate(&request, Some(sink), &cancel);
        let watching = async {
            let first = pieces.recv().await.map(|_| begun.elapsed());
            while pieces.recv().await.is_some() {}
            first
        };
        let (answer, first) = tokio::join!(answering, watching);
        let answer = answer.context("the backend failed")?;
        ensure!(answer.usage.generated_tokens == TOKENS, "{} tokens written", answer.usage.generated_tokens);
        if round > 0 {
            timed.push(Timed { first, whole: begun.elapsed(), tokens: TOKENS });
        }
    }
    Ok(timed)
}
