//! What came of the work.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::refusal::{Code, Refusal};

/// Tokens a job used, from the backend's own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read.
    pub prompt_tokens: u32,
    /// Tokens written, the end-of-sequence token included.
    pub generated_tokens: u32,
}

impl Usage {
    /// Both together.
    pub fn total(self) -> u64 {
        u64::from(self.prompt_tokens) + u64::from(self.generated_tokens)
    }
}

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model or a stop string ended it.
    Stop,
    /// It reached the token limit.
    Length,
}

/// Finished work, with what a receipt needs. Debug shows how long the output is, not what it says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The output, as the customer gets it.
    pub content: String,
    /// Tokens used, when the kind counts tokens.
    pub usage: Usage,
    /// Why it ended.
    pub finish: FinishReason,
    /// The model's public name.
    pub model: Option<String>,
    /// The model's parameter count, when the backend knows it. Unknown stays unknown, never zero.
    pub parameters: Option<u64>,
    /// The model's digest, when the backend knows it: `sha256:` and hexadecimal digits.
    #[serde(default)]
    pub digest: Option<String>,
    /// Time spent working.
    pub duration: Duration,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome")
            .field("bytes", &self.content.len())
            .field("usage", &self.usage)
            .field("finish", &self.finish)
            .field("model", &self.model)
            .field("duration", &self.duration)
            .finish_non_exhaustive()
    }
}

impl Outcome {
    /// Millions of floating-point operations, `2 × parameters × tokens / 1e6` rounded down; `None` when the parameter
    /// count is unknown.
    pub fn mflops(&self) -> Option<u64> {
        let exact = 2 * u128::from(self.parameters?) * u128::from(self.usage.total()) / 1_000_000;
        Some(u64::try_from(exact).unwrap_or(u64::MAX))
    }
}

/// Work that failed. `text` is for the customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What kind of reason.
    pub code: Code,
    /// The reason and the cure, without host names, paths or backend internals.
    pub text: String,
}

impl Failure {
    /// A failure of our side.
    pub fn backend(text: impl Into<String>) -> Self {
        Self { code: Code::Backend, text: text.into() }
    }

    /// The work took longer than allowed.
    pub fn timeout(limit: Duration) -> Self {
        Self { code: Code::Timeout, text: format!("the job took longer than its limit of {} s", limit.as_secs()) }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { code: refusal.code, text: refusal.text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mflops_is_exact_and_unknown_stays_unknown() {
        let mut outcome = Outcome {
            content: String::new(),
            usage: Usage { prompt_tokens: 10, generated_tokens: 5 },
            finish: FinishReason::Stop,
            model: None,
            parameters: Some(885_888),
            digest: None,
            duration: Duration::ZERO,
        };
        assert_eq!(outcome.mflops(), Some(26)); // 26,576,640 FLOP
        outcome.parameters = None;
        assert_eq!(outcome.mflops(), None);
    }
}
