//! Why a job is not done, in words for the customer.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The `["code", word]` of error feedback: a small set a program can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// Something in the request is wrong; the text names the field.
    BadRequest,
    /// The bid is below our price, or the payment below the quote; the text states the price.
    Price,
    /// Asked for what we do not offer (kind, model, input type, output format).
    Unsupported,
    /// Too many requests, or the queue is full; later is fine.
    RateLimited,
    /// The work took longer than allowed.
    Timeout,
    /// Our side failed.
    Backend,
    /// The request's or the invoice's time is over.
    Expired,
    /// The customer or the operator cancelled.
    Cancelled,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 8] = [
        Self::BadRequest,
        Self::Price,
        Self::Unsupported,
        Self::RateLimited,
        Self::Timeout,
        Self::Backend,
        Self::Expired,
        Self::Cancelled,
    ];

    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::Price => "price",
            Self::Unsupported => "unsupported",
            Self::RateLimited => "rate-limited",
            Self::Timeout => "timeout",
            Self::Backend => "backend",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// The code a word stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.word() == word)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A job that is not taken, or not finished: what was wrong and what to change. For the customer's eyes, so it never
/// holds host names, paths or a backend's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// What kind of reason.
    pub code: Code,
    /// The reason and the cure.
    pub text: String,
    /// What goes with it: the end of what the customer's commands wrote. Empty for most.
    #[serde(default)]
    pub log: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), log: String::new() }
    }

    /// Something in the request is wrong: names the field, the problem and the cure in `text`.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, text)
    }

    /// Asked for what we do not offer.
    pub fn unsupported(text: impl Into<String>) -> Self {
        Self::new(Code::Unsupported, text)
    }
}
