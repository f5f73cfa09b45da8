//! A backend whose default is another of its models: what was found has an order of its own, and this machine suits one of
//! them best.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{
    Embeddings, Format, Generate, Generation, Inference, InferenceError, Message, ModelInfo, PromptTokens, TextSink,
    meant,
};

/// Puts one model first. While the backend does not list it, nothing changes.
pub struct Preferred {
    inner: Arc<dyn Inference>,
    default: String,
}

impl std::fmt::Debug for Preferred {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Preferred").field("default", &self.default).finish_non_exhaustive()
    }
}

impl Preferred {
    /// What `inner` does, with `default` for whoever names no model.
    pub fn new(inner: Arc<dyn Inference>, default: String) -> Self {
        Self { inner, default }
    }

    /// The model that is meant, as the backend calls it. Asked only of whoever named none.
    async fn meant(&self) -> Option<String> {
        self.preferred(&self.inner.models().await.unwrap_or_default())
    }

    fn preferred(&self, models: &[ModelInfo]) -> Option<String> {
        meant(models.iter(), &self.default, |model, is_it| is_it(&model.name)).map(|model| model.name.clone())
    }
}

#[async_trait]
impl Inference for Preferred {
    async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        let mut models = self.inner.models().await?;
        let preferred = self.preferred(&models);
        // A stable sort: the others stay in their order.
        models.sort_by_key(|model| Some(&model.name) != preferred.as_ref());
        Ok(models)
    }

    async fn count_prompt_tokens(
        &self,
        model: Option<&str>,
        messages: &[Message],
    ) -> Result<PromptTokens, InferenceError> {
        let model = match model {
            Some(model) => Some(model.to_owned()),
            None => self.meant().await,
        };
        self.inner.count_prompt_tokens(model.as_deref(), messages).await
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
        self.inner.embed(model, texts, cancel).await
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
        if request.model.is_some() {
            return self.inner.generate(request, sink, cancel).await;
        }
        let request = Generate { model: self.meant().await, ..request.clone() };
        self.inner.generate(&request, sink, cancel).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;

    /// Two models; an answer is the name of the model that was asked.
    struct Two;

    #[async_trait]
    impl Inference for Two {
        async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
            Ok(["small", "large"].map(ModelInfo::named).into())
        }

        async fn count_prompt_tokens(
            &self,
            model: Option<&str>,
            _: &[Message],
        ) -> Result<PromptTokens, InferenceError> {
            Ok(PromptTokens::exact(model.map_or(0, |model| model.len() as u32)))
        }

        async fn generate(
            &self,
            request: &Generate,
            _: Option<TextSink>,
            _: &CancellationToken,
        ) -> Result<Generation, InferenceError> {
            Err(InferenceError::BadRequest(request.model.clone().unwrap_or_default()))
        }
    }

    async fn asked(backend: &Preferred, model: Option<&str>) -> String {
        let request = Generate {
            model: model.map(ToOwned::to_owned),
            messages: vec![Message::new(Role::User, "x")],
            sampling: super::super::Sampling::default(),
            stop: Vec::new(),
            max_tokens: 1,
            format: super::super::Format::Text,
        };
        match backend.generate(&request, None, &CancellationToken::new()).await {
            Err(InferenceError::BadRequest(asked)) => asked,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_preferred_model_is_first_and_meant_when_none_is_named() {
        let large = Preferred::new(Arc::new(Two), "large".into());
        let names: Vec<_> = large.models().await.unwrap().into_iter().map(|model| model.name).collect();
        assert_eq!(names, ["large", "small"]);
        assert_eq!((asked(&large, None).await, asked(&large, Some("small")).await), ("large".into(), "small".into()));
        assert_eq!(large.count_prompt_tokens(None, &[]).await.unwrap().count, 5);
    }

    #[tokio::test]
    async fn a_preferred_model_that_is_gone_changes_nothing() {
        let gone = Preferred::new(Arc::new(Two), "gone".into());
        assert_eq!(gone.models().await.unwrap()[0].name, "small");
        assert_eq!(asked(&gone, None).await, "");
    }
}
