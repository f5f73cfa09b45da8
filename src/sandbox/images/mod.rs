//! Images made here and handed to an engine: no registry is asked.

mod busybox;
mod debian;

pub use busybox::{BusyboxError, busybox, tools};
pub use debian::{Debian, DebianError, MMDEBSTRAP, Stop};

use bytes::Bytes;
use futures::Stream;

use super::docker::{Discarded, Engine, EngineError};

/// What engines call the image that is made and expected when nothing else is said.
pub const DEFAULT_REFERENCE: &str = "coinop-default";

/// The command that makes an image of that reference, for whoever lacks it.
pub fn build_command(reference: &str) -> String {
    let command = "coinop sandbox image build";
    if split_reference(reference) == split_reference(DEFAULT_REFERENCE) {
        return command.to_owned();
    }
    format!("{command} --name {reference}")
}

/// Makes an image of a root file system, a tar stream, under a reference such as `coinop-default`. Gives its digest. A
/// `comment` says where it comes from.
///
/// # Errors
/// When the engine does not answer, or can't make one of it.
pub async fn import(
    engine: &Engine,
    reference: &str,
    comment: &str,
    root: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> Result<String, EngineError> {
    let (repository, tag) = split_reference(reference);
    engine.import(repository, tag, comment, root).await?;
    match engine.image(reference, reference).await? {
        Ok(image) => Ok(image.digest),
        Err(detail) => Err(EngineError::Unreadable { step: "importing an image", detail }),
    }
}

/// An image that took another one's name.
#[derive(Debug)]
pub struct Replaced {
    /// The new image's digest.
    pub digest: String,
    /// The one that bore the name before, if another one did.
    pub before: Option<Before>,
}

/// An image that lost its name.
#[derive(Debug)]
pub struct Before {
    /// Its digest.
    pub digest: String,
    /// What became of it.
    pub fate: Result<Discarded, EngineError>,
}

/// Does as [`import`], and removes the image that bore the reference before, if nothing uses it any more.
///
/// # Errors
/// As [`import`]. That the one from before can't be removed is none.
pub async fn replace(
    engine: &Engine,
    reference: &str,
    comment: &str,
    root: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> Result<Replaced, EngineError> {
    let (repository, tag) = split_reference(reference);
    let before = engine.image_called(&format!("{repository}:{tag}")).await?;
    let digest = import(engine, reference, comment, root).await?;
    let before = match before.filter(|before| *before != digest) {
        None => None,
        Some(before) => Some(Before { fate: engine.discard(&before).await, digest: before }),
    };
    Ok(Replaced { digest, before })
}

/// The tag is what follows the last colon, unless that is a port's.
fn split_reference(reference: &str) -> (&str, &str) {
    match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (reference, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_makes_an_image_names_it_unless_it_is_the_usual_one() {
        for usual in ["coinop-default", "coinop-default:latest"] {
            assert_eq!(build_command(usual), "coinop sandbox image build");
        }
        for other in ["coinop-default:2", "rust"] {
            assert_eq!(build_command(other), format!("coinop sandbox image build --name {other}"));
        }
    }

    #[test]
    fn a_port_is_no_tag() {
        assert_eq!(split_reference("coinop-default"), ("coinop-default", "latest"));
        assert_eq!(split_reference("coinop/default:2"), ("coinop/default", "2"));
        assert_eq!(split_reference("localhost:5000/default"), ("localhost:5000/default", "latest"));
    }
}
