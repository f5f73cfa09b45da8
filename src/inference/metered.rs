//! A backend with a meter in front of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Embeddings, Format, Generate, Generation, Inference, InferenceError, Message, ModelInfo, PromptTokens, TextSink,
    relay,
};
use crate::metrics::{BackendEnd, Metrics};

/// Counts what a backend does: how its requests end, how many are under way, how long the first piece takes, how fast the
/// rest comes, and whether it answers at all. What it does stays as it is.
pub struct Metered {
    inner: Arc<dyn Inference>,
    name: Arc<str>,
    metrics: Metrics,
    /// Restarts that were counted.
    restarts: AtomicU32,
}

impl std::fmt::Debug for Metered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metered").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Metered {
    /// Counts what `inner` does under this name, which is the operator's for it.
    pub fn new(inner: Arc<dyn Inference>, name: &str, metrics: Metrics) -> Self {
        let name = name.into();
        metrics.backend(&name);
        Self { inner, name, metrics, restarts: AtomicU32::new(0) }
    }
}

impl Metered {
    /// Counts what was started again since the last look.
    fn count_restarts(&self) {
        let now = self.inner.restarts();
        let before = self.restarts.fetch_max(now, Ordering::Relaxed);
        for _ in before..now {
            self.metrics.backend_restarted(&self.name);
        }
    }
}

#[async_trait]
impl Inference for Metered {
    /// What a backend is asked most often, and so what says whether it is up.
    async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        let models = self.inner.models().await;
        self.metrics.backend_up(&self.name, models.is_ok());
        self.count_restarts();
        if models.is_ok() {
            self.metrics.backend_slots(&self.name, self.inner.room(None));
        }
        models
    }

    async fn count_prompt_tokens(
        &self,
        model: Option<&str>,
        messages: &[Message],
    ) -> Result<PromptTokens, InferenceError> {
        self.inner.count_prompt_tokens(model, messages).await
    }

    fn room(&self, model: Option<&str>) -> usize {
        self.inner.room(model)
    }

    async fn check_format(&self, model: Option<&str>, format: &Format) -> Result<(), InferenceError> {
        self.inner.check_format(model, format).await
    }

    async fn embedding_models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        self.inner.embedding_models().await
    }

    async fn embed(
        &self,
        model: Option<&str>,
        texts: &[String],
        cancel: &CancellationToken,
    ) -> Result<Embeddings, InferenceError> {
        let run = self.metrics.backend_begins(&self.name);
        let done = self.inner.embed(model, texts, cancel).await;
        run.ended(end_of(&done));
        done
    }

    fn restarts(&self) -> u32 {
        self.inner.restarts()
    }

    async fn generate(
        &self,
        request: &Generate,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Generation, InferenceError> {
        let run = self.metrics.backend_begins(&self.name);
        let begun = Instant::now();
        let mut first = None;
        let done = relay::generate(&*self.inner, request, sink.as_ref(), cancel, |piece| {
            if first.is_none() {
                let now = Instant::now();
                self.metrics.first_token_after(&self.name, now - begun);
                first = Some((now, piece.tokens));
            }
        })
        .await;
        if let (Ok(generation), Some((since, tokens))) = (&done, first) {
            let after = generation.usage.generated_tokens.saturating_sub(tokens);
            self.metrics.wrote(&self.name, after, since.elapsed());
        }
        match &done {
            Ok(_) => self.metrics.backend_up(&self.name, true),
            Err(InferenceError::Unusable(_)) => self.metrics.backend_up(&self.name, false),
            Err(_) => {}
        }
        self.count_restarts();
        run.ended(end_of(&done));
        done
    }
}

fn end_of<T>(done: &Result<T, InferenceError>) -> BackendEnd {
    match done {
        Ok(_) => BackendEnd::Answered,
        Err(InferenceError::Backend(_)) => BackendEnd::Failed,
        Err(InferenceError::Busy(_)) => BackendEnd::Busy,
        Err(InferenceError::Unusable(_)) => BackendEnd::Unusable,
        Err(InferenceError::Cancelled) => BackendEnd::Cancelled,
        Err(
            InferenceError::BadRequest(_)
            | InferenceError::ContextOverflow { .. }
            | InferenceError::NoEmbeddings
            | InferenceError::UnknownModel { .. },
        ) => BackendEnd::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::echo::Echo;
    use crate::testing::inference_contract::{self, Subject, ask};

    fn metered(echo: &Echo) -> (Metered, Metrics) {
        let metrics = Metrics::new();
        (Metered::new(Arc::new(echo.clone()), "gpu1", metrics.clone()), metrics)
    }

    fn has(metrics: &Metrics, line: &str) {
        let text = metrics.encode();
        assert!(text.lines().any(|found| found == line), "no '{line}' in\n{text}");
    }

    #[tokio::test]
    async fn what_a_backend_does_is_counted_by_how_it_ends() {
        let echo = Echo::new().with_context(10);
        let (backend, metrics) = metered(&echo);
        let cancel = CancellationToken::new();
        backend.models().await.unwrap();
        has(&metrics, r#"coinop_backend_up{backend="gpu1"} 1"#);
        assert_eq!(backend.generate(&ask("one two"), None, &cancel).await.unwrap().text, "one two");
        echo.fail(1);
        assert!(backend.generate(&ask("one"), None, &cancel).await.is_err());
        assert!(backend.generate(&ask(&"word ".repeat(20)), None, &cancel).await.is_err());
        cancel.cancel();
        assert!(backend.generate(&ask("one"), None, &cancel).await.is_err());
        for outcome in ["answered", "failed", "refused", "cancelled"] {
            has(&metrics, &format!(r#"coinop_backend_requests_total{{backend="gpu1",outcome="{outcome}"}} 1"#));
        }
        has(&metrics, r#"coinop_time_to_first_token_seconds_count{backend="gpu1"} 1"#);
        has(&metrics, r#"coinop_output_tokens_per_second_count{backend="gpu1"} 1"#);
    }

    #[tokio::test]
    async fn a_request_under_way_makes_its_backend_busy_until_nobody_waits_for_it() {
        let echo = Echo::new().gated();
        let (backend, metrics) = metered(&echo);
        has(&metrics, r#"coinop_backend_busy{backend="gpu1"} 0"#);
        let cancel = CancellationToken::new();
        let request = ask("one");
        let mut running = backend.generate(&request, None, &cancel);
        tokio::select! {
            _ = &mut running => panic!("a gated run ended"),
            () = echo.wait_for_runs(1) => {}
        }
        has(&metrics, r#"coinop_backend_busy{backend="gpu1"} 1"#);
        drop(running);
        has(&metrics, r#"coinop_backend_busy{backend="gpu1"} 0"#);
        has(&metrics, r#"coinop_backend_requests_total{backend="gpu1",outcome="cancelled"} 1"#);
    }

    #[tokio::test]
    async fn a_meter_changes_nothing_about_its_backend() {
        let questions = ["say three words", "one after another", "and yet a third one"].map(str::to_owned).to_vec();
        let (backend, _) = metered(&Echo::new());
        let subject = Subject { backend: Arc::new(backend), questions, endless: None };
        inference_contract::check(&subject).await;
    }

    /// Writes no JSON, and was started again twice.
    struct Frail;

    #[async_trait]
    impl Inference for Frail {
        async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
            Ok(vec![ModelInfo::named("m")])
        }

        async fn count_prompt_tokens(&self, _: Option<&str>, _: &[Message]) -> Result<PromptTokens, InferenceError> {
            Ok(PromptTokens::exact(1))
        }

        async fn check_format(&self, _: Option<&str>, format: &Format) -> Result<(), InferenceError> {
            match format {
                Format::Text => Ok(()),
                Format::Json | Format::Schema(_) => Err(InferenceError::BadRequest("no grammar".into())),
            }
        }

        async fn embedding_models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
            Ok(vec![ModelInfo::named("e")])
        }

        async fn embed(
            &self,
            _: Option<&str>,
            _: &[String],
            _: &CancellationToken,
        ) -> Result<Embeddings, InferenceError> {
            Err(InferenceError::BadRequest("no texts".into()))
        }

        fn restarts(&self) -> u32 {
            2
        }

        async fn generate(
            &self,
            _: &Generate,
            _: Option<TextSink>,
            _: &CancellationToken,
        ) -> Result<Generation, InferenceError> {
            Err(InferenceError::Cancelled)
        }
    }

    #[tokio::test]
    async fn what_wraps_a_backend_hands_on_what_it_says_of_formats_embeddings_and_restarts() {
        use crate::inference::pool::{Pool, PoolEndpoint, PoolOptions};
        use crate::inference::preferred::Preferred;
        let metrics = Metrics::new();
        let backend = Arc::new(Metered::new(Arc::new(Frail), "gpu1", metrics.clone()));
        let endpoint = PoolEndpoint { name: "gpu1".into(), backend };
        let pool = Pool::new(vec![endpoint], Vec::new(), PoolOptions::default()).unwrap();
        pool.refresh().await;
        pool.refresh().await;
        let wrapped = Preferred::new(Arc::new(pool), "m".into());
        let refused = InferenceError::BadRequest("no grammar".into());
        assert_eq!(wrapped.check_format(Some("m"), &Format::Json).await, Err(refused));
        assert_eq!(wrapped.check_format(Some("m"), &Format::Text).await, Ok(()));
        assert_eq!(wrapped.embedding_models().await, Ok(vec![ModelInfo::named("e")]));
        let refused = InferenceError::BadRequest("no texts".into());
        assert_eq!(wrapped.embed(Some("e"), &["a".into()], &CancellationToken::new()).await, Err(refused));
        has(&metrics, r#"coinop_backend_requests_total{backend="gpu1",outcome="refused"} 1"#);
        assert_eq!(wrapped.restarts(), 2);
        has(&metrics, r#"coinop_backend_restarts_total{backend="gpu1"} 2"#);
    }
}
