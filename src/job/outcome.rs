//! What came of the work.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::refusal::{Code, Refusal};

/// Time in a sandbox, with the memory that was set aside for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Compute {
    /// How long, by the clock on the wall.
    pub wall: Duration,
    /// Memory set aside, in MiB; used or not, nobody else could have it.
    pub memory_mib: u32,
}

impl Compute {
    /// Nothing at all.
    pub const NONE: Self = Self { wall: Duration::ZERO, memory_mib: 0 };

    /// Milliseconds, begun ones included.
    pub fn wall_ms(self) -> u64 {
        u64::try_from(self.wall.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }

    /// Memory times time, in MiB × ms.
    pub fn mib_ms(self) -> u64 {
        self.wall_ms().saturating_mul(u64::from(self.memory_mib))
    }
}

/// What a job used: tokens, from the backend's own count, and time in a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read.
    pub prompt_tokens: u32,
    /// Tokens written, the end-of-sequence token included.
    pub generated_tokens: u32,
    /// Time in a sandbox.
    #[serde(default)]
    pub compute: Compute,
}

impl Usage {
    /// Nothing at all.
    pub const NONE: Self = Self::tokens(0, 0);

    /// Tokens and nothing else.
    pub const fn tokens(prompt: u32, generated: u32) -> Self {
        Self { prompt_tokens: prompt, generated_tokens: generated, compute: Compute::NONE }
    }

    /// Tokens read and written together.
    pub fn total(self) -> u64 {
        u64::from(self.prompt_tokens) + u64::from(self.generated_tokens)
    }
}

/// Tokens written a second, in hundredths: exact where a floating-point number is not. Follows from two other facts of a
/// receipt (tokens and whole milliseconds), so anybody can do the sum again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenRate(u64);

impl TokenRate {
    /// The rate of so many tokens in that time, rounded down; `None` below a millisecond.
    pub fn of(generated_tokens: u32, duration: Duration) -> Option<Self> {
        let hundredths = (u128::from(generated_tokens) * 100_000).checked_div(duration.as_millis())?;
        u64::try_from(hundredths).ok().map(Self)
    }
}

impl fmt::Display for TokenRate {
    /// With two decimals: `12.34`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{:02}", self.0 / 100, self.0 % 100))
    }
}

/// Text that is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rate is written with digits and at most one point, such as 12.34")]
pub struct NoTokenRate;

impl FromStr for TokenRate {
    type Err = NoTokenRate;

    /// Reads `12`, `12.3` and `12.34`; further decimals are dropped.
    fn from_str(text: &str) -> Result<Self, NoTokenRate> {
        let (whole, decimals) = text.trim().split_once('.').unwrap_or((text.trim(), "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        if !is_number(whole) || !is_number(decimals) {
            return Err(NoTokenRate);
        }
        let hundredths: u64 = format!("{decimals}0")[..2].parse().map_err(|_| NoTokenRate)?;
        let whole: u64 = whole.parse().map_err(|_| NoTokenRate)?;
        whole.checked_mul(100).and_then(|whole| whole.checked_add(hundredths)).map(Self).ok_or(NoTokenRate)
    }
}

impl TryFrom<String> for TokenRate {
    type Error = NoTokenRate;
    fn try_from(text: String) -> Result<Self, NoTokenRate> {
        text.parse()
    }
}

impl From<TokenRate> for String {
    fn from(rate: TokenRate) -> Self {
        rate.to_string()
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
    /// What else the receipt says, key and value each: the `["result", key, value]` tags of agent jobs.
    #[serde(default)]
    pub facts: Vec<(String, String)>,
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

    /// Tokens written a second; `None` for work without a model, or that took no time worth measuring.
    pub fn tokens_per_second(&self) -> Option<TokenRate> {
        // Nobody wrote, nobody was fast or slow.
        let wrote = self.usage.generated_tokens > 0;
        wrote.then(|| TokenRate::of(self.usage.generated_tokens, self.duration))?
    }
}

/// Bytes of a failure's log: it is given away, and an error must fit an event however it is written.
pub const MAX_LOG_BYTES: usize = 8 * 1024;

/// Work that failed. `text` is for the customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What kind of reason.
    pub code: Code,
    /// The reason and the cure, without host names, paths or backend internals.
    pub text: String,
    /// What the customer needs to see why: the end of what their commands wrote. Empty for most.
    #[serde(default)]
    pub log: String,
    /// Nothing of ours broke: the work was done as asked, and what was asked came to nothing. Said where the code does not.
    #[serde(default)]
    pub in_vain: bool,
}

impl Failure {
    /// A failure.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), log: String::new(), in_vain: false }
    }

    /// A failure of our side.
    pub fn backend(text: impl Into<String>) -> Self {
        Self::new(Code::Backend, text)
    }

    /// With what the customer needs to see why; of a long one the end.
    #[must_use]
    pub fn with_log(mut self, log: impl Into<String>) -> Self {
        self.log = log.into();
        let too_many = self.log.len().saturating_sub(MAX_LOG_BYTES);
        let begin = (too_many..=self.log.len()).find(|at| self.log.is_char_boundary(*at)).unwrap_or(0);
        self.log.drain(..begin);
        self
    }

    /// Nothing of ours broke: what was asked came to nothing.
    #[must_use]
    pub fn in_vain(mut self) -> Self {
        self.in_vain = true;
        self
    }

    /// Whether it lies with what the customer asked for, and not with us.
    pub fn is_the_customers(&self) -> bool {
        self.in_vain
            || match self.code {
                // What was asked for is wrong, or is more than fits into the time that was offered.
                Code::BadRequest | Code::Timeout => true,
                // What was checked before the quote and is gone since (a model, an image) is ours.
                Code::Unsupported | Code::Backend => false,
                // No work was done.
                Code::Price | Code::RateLimited | Code::Expired | Code::Cancelled => false,
            }
    }

    /// The work took longer than allowed.
    pub fn timeout(limit: Duration) -> Self {
        Self::new(Code::Timeout, format!("the job took longer than its limit of {} s", limit.as_secs()))
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { code: failure.code, text: failure.text, log: failure.log }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { code: refusal.code, text: refusal.text, log: refusal.log, in_vain: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mflops_is_exact_and_unknown_stays_unknown() {
        let mut outcome = Outcome {
            content: String::new(),
            usage: Usage::tokens(10, 5),
            finish: FinishReason::Stop,
            model: None,
            parameters: Some(885_888),
            digest: None,
            facts: Vec::new(),
            duration: Duration::ZERO,
        };
        assert_eq!(outcome.mflops(), Some(26)); // 26,576,640 FLOP
        outcome.parameters = None;
        assert_eq!(outcome.mflops(), None);
        assert_eq!(outcome.tokens_per_second(), None);
        outcome.duration = Duration::from_micros(412_999);
        assert_eq!(outcome.tokens_per_second().unwrap().to_string(), "12.13"); // 5 / 0.412 s
    }

    #[test]
    fn a_failure_of_ours_is_not_the_customers() {
        let theirs = |code| Failure::new(code, "").is_the_customers();
        let found: Vec<Code> = Code::ALL.into_iter().filter(|code| theirs(*code)).collect();
        assert_eq!(found, [Code::BadRequest, Code::Timeout]);
        assert!(Failure::backend("the patch does not pass its test").in_vain().is_the_customers());
    }

    #[test]
    fn of_a_long_log_the_end_is_kept_in_whole_characters() {
        let log = |text: String| Failure::backend("x").with_log(text).log;
        assert_eq!(log("short".into()), "short");
        let long = log(format!("é{}", "x".repeat(MAX_LOG_BYTES - 1)));
        assert_eq!((long.len(), long.starts_with('x')), (MAX_LOG_BYTES - 1, true));
        assert_eq!(log(format!("{}end", "⚡".repeat(10_000))).len() % 3, 0);
    }

    #[test]
    fn a_rate_reads_as_it_is_written() {
        for (tokens, millis, written) in
            [(5, 1_000, "5.00"), (1, 3_000, "0.33"), (0, 10, "0.00"), (u32::MAX, 1, "4294967295000.00")]
        {
            let rate = TokenRate::of(tokens, Duration::from_millis(millis)).unwrap();
            assert_eq!(rate.to_string(), written);
            assert_eq!(written.parse(), Ok(rate));
        }
        assert_eq!(" 12".parse::<TokenRate>(), "12.009".parse());
        for junk in ["", ".", "1.", ".5", "-1", "+1", "1,5", "1e3", "1.é", "99999999999999999999", "184467440737095517"]
        {
            assert_eq!(junk.parse::<TokenRate>(), Err(NoTokenRate), "{junk}");
        }
    }
}
