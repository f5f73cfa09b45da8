//! Images that are handed to an engine.

use std::time::Duration;

use bollard::query_parameters::CreateImageOptionsBuilder;
use bytes::Bytes;
use futures::{Stream, StreamExt};

use super::engine::Engine;
use super::error::EngineError;

/// How long an engine may take to get and unpack an image.
const IMPORTING: Duration = Duration::from_secs(30 * 60);

impl Engine {
    /// Makes an image of a root file system.
    pub(in crate::sandbox) async fn import(
        &self,
        repository: &str,
        tag: &str,
        comment: &str,
        root: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), EngineError> {
        let step = "importing an image";
        let options = CreateImageOptionsBuilder::new()
            .from_src("-")
            .repo(repository)
            .tag(tag)
            .message(comment)
            .changes(vec!["CMD [\"/bin/sh\"]".to_owned()])
            .build();
        let body = bollard::body_try_stream(root);
        let mut told = Box::pin(self.docker.create_image(Some(options), Some(body), None));
        let whole = async {
            while let Some(line) = told.next().await {
                line.map_err(|error| EngineError::of(step, error))?;
            }
            Ok(())
        };
        let limit = IMPORTING;
        tokio::time::timeout(limit, whole).await.unwrap_or(Err(EngineError::Silent { step, limit }))
    }
}
