//! Tokens a second with several jobs in flight.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use coinop::inference::Inference;
use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::Size;
use crate::figures::memory;
use crate::layers::{TOKENS, pooled, question};

/// Prints tokens a second with 1, 4 and 16 jobs in flight.
pub(crate) async fn measure(name: &str, backend: Arc<dyn Inference>, size: Size) -> Result<()> {
    let pool = pooled(backend).await?;
    println!("\n| {name} | jobs | tokens/s | memory |\n|---|---|---|---|");
    for in_flight in [1, 4, 16] {
        let begun = Instant::now();
        let texts: Vec<String> = stream::iter(0..size.jobs)
            .map(|_| {
                let pool = Arc::clone(&pool);
                async move {
                    let answer = pool.generate(&question(), None, &CancellationToken::new()).await?;
                    ensure!(answer.usage.generated_tokens == TOKENS, "an answer of another length");
                    Ok(answer.text)
                }
            })
            .buffer_unordered(in_flight)
            .try_collect()
            .await?;
        let took = begun.elapsed();
        let first = texts.first().context("no answers")?;
        ensure!(texts.iter().all(|text| text == first), "answers mixed up with {in_flight} in flight");
        let tokens = f64::from(TOKENS) * texts.len() as f64;
        println!("| {in_flight} in flight | {} | {:.0} | {} MiB |", texts.len(), tokens / took.as_secs_f64(), memory());
    }
    Ok(())
}
