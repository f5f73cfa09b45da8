//! Images that are handed to an engine, and those that are taken away for it.

use std::time::Duration;

use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptions};
use bytes::Bytes;
use futures::{Stream, StreamExt};

use super::engine::{Engine, QUICK, timed};
use super::error::EngineError;

/// How long an engine may take to get and unpack an image.
const IMPORTING: Duration = Duration::from_secs(30 * 60);

/// How long it may take to remove one's files.
const REMOVING: Duration = Duration::from_secs(60);

/// What became of an image that may be wanted no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discarded {
    /// It is removed.
    Removed,
    /// It bears a name, or a container uses it: it stays.
    InUse,
}

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

    /// The id of the image that bears that name, `repository:tag`, if one does.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub(in crate::sandbox) async fn image_called(&self, name: &str) -> Result<Option<String>, EngineError> {
        match timed("looking for an image", QUICK, self.docker.inspect_image(name)).await {
            // The engine takes the beginning of an id for a name, too.
            Ok(found) => Ok(found.id.filter(|_| found.repo_tags.unwrap_or_default().iter().any(|tag| tag == name))),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes an image that bears no name any more and that no container uses. Nothing is forced.
    ///
    /// # Errors
    /// When the engine does not answer, or can't remove it.
    pub(in crate::sandbox) async fn discard(&self, id: &str) -> Result<Discarded, EngineError> {
        let found = timed("looking for an image", QUICK, self.docker.inspect_image(id)).await;
        match found {
            // Removing it by its id would take its only name, too.
            Ok(found) if found.repo_tags.as_ref().is_some_and(|names| !names.is_empty()) => {
                return Ok(Discarded::InUse);
            }
            Ok(_) => {}
            // Some engines forget an image with its last name.
            Err(error) if error.is_absent() => return Ok(Discarded::Removed),
            Err(error) => return Err(error),
        }
        let removing = self.docker.remove_image(id, None::<RemoveImageOptions>, None);
        match timed("removing an image", REMOVING, removing).await {
            Ok(_) => Ok(Discarded::Removed),
            Err(error) if error.is_conflict() => Ok(Discarded::InUse),
            Err(error) if error.is_absent() => Ok(Discarded::Removed),
            Err(error) => Err(error),
        }
    }
}
