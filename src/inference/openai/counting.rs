//! Tokens of a prompt that is not answered yet.
//!
//! vLLM counts exactly (`POST /tokenize`, beside the interface and not below it). Whether a server has that is tried once and
//! remembered, by an answer that no customer can bring about. Elsewhere the count is estimated so that it is not too small: every `bytes_per_token` bytes a token, and
//! what templates put around the texts.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use url::Url;

use super::OpenAiConfig;
use crate::inference::chat::{Known, refused};
use crate::inference::http::{Server, Trouble};
use crate::inference::{InferenceError, Message, PromptTokens};

/// Tokens around every message: the marks of its begin and end, its role, line breaks.
const TOKENS_A_MESSAGE: u32 = 8;
/// Tokens a template adds to a conversation: some write a system message of their own, with the date and the model's name.
const TOKENS_A_CONVERSATION: u32 = 96;

/// Counts with the server where it can, and estimates otherwise.
pub(super) struct Counter {
    /// Where `/tokenize` would be; none when the base is not of the usual form.
    beside: Option<Server>,
    bytes_per_token: u32,
    /// It has counted.
    proven: AtomicBool,
    /// It can't count.
    missing: AtomicBool,
}

#[derive(Serialize)]
struct Question<'a> {
    model: &'a str,
    messages: &'a [Message],
    add_generation_prompt: bool,
}

#[derive(Deserialize)]
struct Counted {
    count: u32,
}

impl Counter {
    pub(super) fn new(config: &OpenAiConfig) -> Result<Self, InferenceError> {
        let beside = beside(&config.url).map(|url| Server::new(&url, config.key.as_ref(), config.options));
        Ok(Self {
            beside: beside.transpose()?,
            bytes_per_token: config.bytes_per_token,
            proven: AtomicBool::new(false),
            missing: AtomicBool::new(false),
        })
    }

    /// Tokens of the conversation, which is free of control tokens.
    pub(super) async fn count(&self, model: &str, messages: &[Message]) -> Result<PromptTokens, InferenceError> {
        let estimate = PromptTokens::estimate(estimate(messages, self.bytes_per_token));
        let Some(server) = self.beside.as_ref().filter(|_| !self.missing.load(Ordering::Relaxed)) else {
            return Ok(estimate);
        };
        let question = Question { model, messages, add_generation_prompt: true };
        match server.post::<Counted>("tokenize", &question).await {
            Ok(Counted { count }) => {
                self.proven.store(true, Ordering::Relaxed);
                Ok(PromptTokens::exact(count))
            }
            Err(trouble) => match Meaning::of(&trouble, self.proven.load(Ordering::Relaxed)) {
                Meaning::NoSuchQuestion => {
                    self.missing.store(true, Ordering::Relaxed);
                    Ok(estimate)
                }
                Meaning::NotThisOne => Ok(estimate),
                Meaning::Trouble => Err(refused(trouble, Known::default())),
            },
        }
    }
}

/// What `bytes_per_token` and the usual templates make of a conversation at most.
fn estimate(messages: &[Message], bytes_per_token: u32) -> u32 {
    let bytes: usize = messages.iter().map(|message| message.content.len()).sum();
    let text = u32::try_from(bytes).unwrap_or(u32::MAX).div_ceil(bytes_per_token);
    let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
    text.saturating_add(count.saturating_mul(TOKENS_A_MESSAGE)).saturating_add(TOKENS_A_CONVERSATION)
}

/// What it means that a prompt was not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// The server has no such interface, or another one there.
    NoSuchQuestion,
    /// It does not count this conversation. That says nothing about the next: it may be a stranger who brought it about, with
    /// a conversation that the model's template refuses.
    NotThisOne,
    /// It can't be asked just now, or, having counted before, refuses the conversation.
    Trouble,
}

impl Meaning {
    fn of(trouble: &Trouble, proven: bool) -> Self {
        let status = match trouble {
            Trouble::Status { status, .. } => status.as_u16(),
            Trouble::Garbage(_) if !proven => return Self::NoSuchQuestion,
            Trouble::Garbage(_) | Trouble::Broken(_) | Trouble::Silent(_) | Trouble::TooLarge(_) => {
                return Self::Trouble;
            }
        };
        match status {
            404 | 405 | 501 if !proven => Self::NoSuchQuestion,
            408 | 429 | 502..=504 => Self::Trouble,
            400 | 401 | 403 | 404 | 405 | 413 | 422 | 501 if proven => Self::Trouble,
            _ => Self::NotThisOne,
        }
    }
}

/// The address beside the interface: `…/v1` without its end.
fn beside(base: &Url) -> Option<Url> {
    let path = base.path().trim_end_matches('/').strip_suffix("/v1")?;
    let mut url = base.clone();
    url.set_path(&format!("{path}/"));
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::Role;

    #[test]
    fn the_counter_stands_beside_the_interface() {
        let beside = |base: &str| beside(&base.parse().unwrap()).map(|url| url.to_string());
        assert_eq!(beside("http://a:8000/v1").as_deref(), Some("http://a:8000/"));
        assert_eq!(beside("https://a/api/v1/").as_deref(), Some("https://a/api/"));
        assert_eq!(beside("https://a/openai"), None);
    }

    #[test]
    fn no_customer_can_stop_a_server_from_counting() {
        let meaning = |status: u16, proven| {
            let status = reqwest::StatusCode::from_u16(status).unwrap();
            Meaning::of(&Trouble::Status { status, body: bytes::Bytes::new() }, proven)
        };
        for status in [404, 405, 501] {
            assert_eq!(meaning(status, false), Meaning::NoSuchQuestion, "{status}");
            assert_eq!(meaning(status, true), Meaning::Trouble, "{status}");
        }
        for status in [307, 400, 401, 403, 422, 500] {
            assert_eq!(meaning(status, false), Meaning::NotThisOne, "{status}");
        }
        assert_eq!((meaning(500, true), meaning(400, true)), (Meaning::NotThisOne, Meaning::Trouble));
        assert_eq!([408, 429, 503].map(|status| meaning(status, false)), [Meaning::Trouble; 3]);
        assert_eq!(Meaning::of(&Trouble::Garbage("x"), false), Meaning::NoSuchQuestion);
        assert_eq!(Meaning::of(&Trouble::Broken("x"), false), Meaning::Trouble);
    }

    #[test]
    fn an_estimate_counts_every_byte_and_what_templates_add() {
        let messages = ["", "abcde"].map(|text| Message::new(Role::User, text));
        assert_eq!(estimate(&messages, 1), 5 + 2 * TOKENS_A_MESSAGE + TOKENS_A_CONVERSATION);
        assert_eq!(estimate(&messages, 2), 3 + 2 * TOKENS_A_MESSAGE + TOKENS_A_CONVERSATION);
    }
}
