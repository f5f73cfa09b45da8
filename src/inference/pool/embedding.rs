//! Embeddings from whichever endpoint makes them.
//!
//! They take no slot: servers run the models for them beside those for text. A failure is tried elsewhere, and teaches nothing
//! of the endpoint's texts; it is only asked how it is before its time.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::places::Shared;
use super::work::{meaning, ours, panicked};
use crate::inference::{Embeddings, InferenceError, meant};

impl Shared {
    pub(super) async fn embed(
        self: &Arc<Self>,
        model: Option<&str>,
        texts: &[String],
        cancel: &CancellationToken,
    ) -> Result<Embeddings, InferenceError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(InferenceError::Cancelled),
            () = self.first_look() => {}
        }
        let name = self.embedding_model(model)?;
        let (mut tried, mut last) = (Vec::new(), None);
        loop {
            let Some(endpoint) = self.embedder(&name, &tried) else {
                let down = || InferenceError::Backend(format!("no endpoint of the embedding model '{name}' is up"));
                return Err(last.map_or_else(down, ours));
            };
            let backend = &self.endpoints[endpoint].backend;
            let embedding = async { backend.embed(Some(&name), texts, cancel).await };
            let done = AssertUnwindSafe(embedding).catch_unwind().await.unwrap_or_else(|_| Err(panicked()));
            let error = match done {
                Ok(embeddings) => return Ok(embeddings),
                Err(error) => error,
            };
            if !meaning(&error).elsewhere {
                return Err(error);
            }
            warn!(endpoint = %self.endpoints[endpoint].name, %error, "An endpoint made no embeddings");
            self.endpoints[endpoint].look_again.notify_one();
            tried.push(endpoint);
            last = Some(error);
        }
    }

    /// The model that is meant, as its endpoints call it.
    fn embedding_model(&self, wanted: Option<&str>) -> Result<String, InferenceError> {
        let models = self.embedding_models();
        let found = match wanted {
            None => models.first(),
            Some(wanted) => meant(models.iter(), wanted, |model, is_it| is_it(&model.name)),
        };
        match (found, wanted) {
            (Some(model), _) => Ok(model.name.clone()),
            (None, Some(wanted)) if !models.is_empty() => Err(InferenceError::UnknownModel {
                wanted: wanted.to_owned(),
                offered: models.into_iter().map(|model| model.name).collect(),
            }),
            (None, _) => Err(InferenceError::NoEmbeddings),
        }
    }
}
