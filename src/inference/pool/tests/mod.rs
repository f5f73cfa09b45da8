//! Stories of pools. Nothing depends on the time: pauses and patience are either none at all or longer than any test.

mod embedding;
mod failing;
mod fakes;
mod health;
mod offering;
mod routing;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::fakes::{Fake, Next};
use super::breaker::BreakerOptions;
use super::*;
use crate::inference::echo::Echo;
use crate::testing::inference_contract::{self, Subject, ask};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3_600);

/// A pool whose broken endpoints stay broken until they are asked again, and whose jobs don't wait for that.
fn impatient() -> PoolOptions {
    PoolOptions {
        breaker: BreakerOptions { failures: 2, pause: LONG },
        patience: Duration::ZERO,
        check_every: LONG,
        ..PoolOptions::default()
    }
}

fn endpoint(name: &str, backend: impl Inference) -> PoolEndpoint {
    PoolEndpoint { name: name.to_owned(), backend: Arc::new(backend) }
}

fn pool_of(backends: &[Fake], options: PoolOptions) -> Arc<Pool> {
    let endpoints = backends.iter().map(|fake| endpoint(fake.name(), fake.clone())).collect();
    Arc::new(Pool::new(endpoints, Vec::new(), options).unwrap())
}

async fn run(pool: &Pool, text: &str) -> Result<Generation, InferenceError> {
    pool.generate(&ask(text), None, &CancellationToken::new()).await
}

/// Starts a job and goes on; it is dropped with the handle's task.
fn start(
    pool: &Arc<Pool>,
    text: &str,
    cancel: &CancellationToken,
) -> tokio::task::JoinHandle<Result<Generation, InferenceError>> {
    let (pool, request, cancel) = (Arc::clone(pool), ask(text), cancel.clone());
    tokio::spawn(async move { pool.generate(&request, None, &cancel).await })
}

fn standings(pool: &Pool) -> Vec<&'static str> {
    pool.status().into_iter().map(|endpoint| endpoint.standing).collect()
}

fn in_use(pool: &Pool) -> Vec<usize> {
    pool.status().into_iter().map(|endpoint| endpoint.in_use).collect()
}
