//! The result as a whole: from the event, or from the file server that the event names.

use std::time::Duration;

use super::delivery::Check;
use super::flow::Bought;
use crate::blossom::{self, Blob, BlossomError};
use crate::config::Config;
use crate::fetch::{FetchLimits, Fetcher};

/// Bytes of a file that came with a result.
const LARGEST_FILE: usize = 64 * 1024 * 1024;

/// How long fetching one may take.
const FETCH_PATIENCE: Duration = Duration::from_secs(120);

/// A result's text, and how it came.
#[derive(Debug, Default)]
pub(super) struct Whole {
    /// What there is of it.
    pub(super) text: String,
    /// When that is not all: how many bytes there were.
    pub(super) cut_from: Option<u64>,
    /// What was checked on the way.
    pub(super) checks: Vec<Check>,
}

/// The result of a purchase.
pub(super) async fn of(bought: &Bought, config: &Config) -> Whole {
    let result = &bought.receipt.result;
    let cut_from = result.truncated.as_ref().map(|(size, _)| *size);
    let Some(blob) = &result.file else {
        return Whole { text: result.content.clone(), cut_from, checks: Vec::new() };
    };
    let fetched = fetch(config, blob).await.map_err(|problem| problem.to_string());
    match fetched.and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is no text".to_owned())) {
        Ok(text) => {
            Whole { text, cut_from: None, checks: vec![Check::of("the hash of the file that it came as", true)] }
        }
        Err(problem) => {
            let what = format!("the whole is at {}, and could not be fetched from there: {problem}", blob.url);
            Whole {
                text: result.content.clone(),
                cut_from: cut_from.or(Some(blob.size)),
                checks: vec![Check::of(what, false)],
            }
        }
    }
}

/// A file that the provider named, if it is what the provider said. The address is a stranger's, so only public ones are asked,
/// unless `fetch.allow_private` says otherwise.
pub(super) async fn fetch(config: &Config, blob: &Blob) -> Result<Vec<u8>, BlossomError> {
    let limits = FetchLimits {
        max_bytes: LARGEST_FILE,
        timeout: FETCH_PATIENCE,
        allow_private: config.fetch.allow_private,
        ..FetchLimits::default()
    };
    blossom::fetch(&Fetcher::new(limits), blob).await
}
