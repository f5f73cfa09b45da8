//! The result as a whole: from the event, or from the file server that the event names.

use std::time::Duration;

use super::delivery::{Check, Unfetched};
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

impl Whole {
    /// Whether it is all here, as far as this side can be to blame: nothing of it could not be fetched.
    pub(super) fn is_here(&self) -> bool {
        !self.checks.iter().any(Check::is_unfetched)
    }
}

/// The result of a purchase.
pub(super) async fn of(bought: &Bought, config: &Config) -> Whole {
    let result = &bought.receipt.result;
    let cut_from = result.truncated.as_ref().map(|(size, _)| *size);
    let Some(blob) = &result.file else {
        return Whole { text: result.content.clone(), cut_from, checks: Vec::new() };
    };
    match text_of(fetch(config, blob).await, &blob.url) {
        Ok(text) => {
            Whole { text, cut_from: None, checks: vec![Check::of("the hash of the file that it came as", true)] }
        }
        Err(check) => {
            Whole { text: result.content.clone(), cut_from: cut_from.or(Some(blob.size)), checks: vec![check] }
        }
    }
}

/// The text that was fetched, or what is said where there is none.
fn text_of(fetched: Result<Vec<u8>, BlossomError>, url: &str) -> Result<String, Check> {
    let wrong = |problem: &str| Check::of(format!("what lies at {url} is not the result: {problem}"), false);
    match fetched {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| wrong("it is no text")),
        Err(problem) => Err(match Unfetched::of(&problem) {
            None => wrong(&problem.to_string()),
            Some(why) => {
                let what = format!("the whole result is at {url}, and could not be fetched from there: {problem}");
                Check::unfetched(what, why)
            }
        }),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::FetchError;

    #[test]
    fn a_file_that_can_not_be_had_is_told_from_another_one() {
        let url = "https://example.com/0";
        assert_eq!(text_of(Ok(b"fine".to_vec()), url).unwrap(), "fine");
        let away = text_of(Err(FetchError::Unreachable.into()), url).unwrap_err();
        assert!(away.is_unfetched() && away.what().contains(url), "{away:?}");
        for wrong in [Err(BlossomError::OtherFile), Ok(vec![0xff])] {
            let wrong = text_of(wrong, url).unwrap_err();
            assert!(!wrong.is_unfetched() && wrong.what().contains("is not the result"), "{wrong:?}");
        }
    }
}
