//! Asking the endpoints how they are.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::FutureExt;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::places::Shared;
use crate::inference::InferenceError;

impl Shared {
    /// Asks every endpoint once, all at the same time.
    pub(super) async fn refresh(self: &Arc<Self>) {
        join_all((0..self.endpoints.len()).map(|endpoint| self.check(endpoint))).await;
    }

    /// Hears what there is, once, before anything is answered; and again as long as nothing was heard.
    pub(super) async fn first_look(self: &Arc<Self>) {
        let unasked = || join_all(self.unasked().into_iter().map(|endpoint| self.check(endpoint)));
        self.first_look.get_or_init(|| async { drop(unasked().await) }).await;
        if self.offers_nothing() {
            self.refresh().await;
        }
    }

    /// Asks one endpoint. One that does not answer gets no jobs; nor does one that is too busy, or still loading, to say
    /// what it has.
    pub(super) async fn check(self: &Arc<Self>, endpoint: usize) -> bool {
        let backend = &self.endpoints[endpoint].backend;
        let asked = AssertUnwindSafe(async {
            let models = backend.models().await?;
            // What it heard just now. A backend whose texts are sold is not given up for its vectors.
            Ok::<_, InferenceError>((models, backend.embedding_models().await.unwrap_or_default()))
        })
        .catch_unwind();
        let problem = match tokio::time::timeout(self.options.check_timeout, asked).await {
            Ok(Ok(Ok((models, embedding)))) => {
                self.heard(endpoint, models, embedding);
                return true;
            }
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_)) => "it panicked when it was asked for its models".to_owned(),
            Err(_) => format!("it did not list its models within {} s", self.options.check_timeout.as_secs()),
        };
        debug!(endpoint = %self.endpoints[endpoint].name, %problem, "An endpoint is not well");
        self.silent(endpoint, problem);
        false
    }

    /// Keeps asking until `shutdown`: what is well now and then, or when it failed at a job; what is not after pauses that
    /// grow.
    pub(super) async fn keep_checking(self: &Arc<Self>, shutdown: CancellationToken) {
        let watching = join_all((0..self.endpoints.len()).map(|endpoint| self.watch(endpoint)));
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            _ = watching => {}
        }
    }

    async fn watch(self: &Arc<Self>, endpoint: usize) {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(self.options.recheck_first)
            .with_max_delay(self.options.recheck_longest)
            .with_jitter()
            .without_max_times();
        let mut growing = pauses.build();
        loop {
            if self.check(endpoint).await {
                growing = pauses.build();
                tokio::select! {
                    () = tokio::time::sleep(self.options.check_every) => {}
                    () = self.endpoints[endpoint].look_again.notified() => {}
                }
            } else {
                tokio::time::sleep(growing.next().unwrap_or(self.options.recheck_longest)).await;
            }
        }
    }
}
