//! A model that breaks down in the middle of its work, to show what a customer pays then: nothing.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::inference::{Generate, Generation, Inference, InferenceError, Message, ModelInfo, PromptTokens, TextSink};

/// The model, with its plug pulled after it was started.
pub(super) struct Unplugged(pub(super) Arc<dyn Inference>);

#[async_trait]
impl Inference for Unplugged {
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

    async fn generate(
        &self,
        request: &Generate,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Generation, InferenceError> {
        self.0.generate(request, sink, cancel).await?;
        Err(InferenceError::Backend("the demo pulled the plug".into()))
    }
}
