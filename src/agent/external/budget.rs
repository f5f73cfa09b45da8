//! What an agent's questions may take in all, and what they took.
//!
//! Two numbers are kept of each kind of tokens. What the endpoint *told* is what is paid for. What is *reckoned* is that, or, where
//! an answer broke off and nobody told, an estimate: it only serves to come to an end.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::agent::Stopped;
use crate::job::Usage;

/// What may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) requests: u32,
    pub(super) prompt_tokens: u32,
    pub(super) generated_tokens: u32,
    /// Of requests and answers together.
    pub(super) bytes: u64,
}

/// What was used up first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spent {
    Requests(u32),
    PromptTokens(u32),
    GeneratedTokens(u32),
    Bytes(u64),
}

impl fmt::Display for Spent {
    /// For the agent, which shows it to nobody but its log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this job's budget is spent: ")?;
        match self {
            Self::Requests(most) => write!(f, "it has {most} requests"),
            Self::PromptTokens(most) => write!(f, "the model may read {most} tokens"),
            Self::GeneratedTokens(most) => write!(f, "the model may write {most} tokens"),
            Self::Bytes(most) => write!(f, "requests and answers may have {most} bytes"),
        }
    }
}

impl From<Spent> for Stopped {
    fn from(spent: Spent) -> Self {
        match spent {
            Spent::Requests(_) => Self::OutOfSteps,
            Spent::PromptTokens(_) | Spent::GeneratedTokens(_) | Spent::Bytes(_) => Self::OutOfTokens,
        }
    }
}

/// What one exchange came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Came {
    /// As the endpoint told it.
    pub(super) told: Option<(u32, u32)>,
    /// What was set aside for it when it began.
    pub(super) prompt_estimate: u32,
    /// Whether the endpoint took it up. One that refuses has read nothing that it would want money for.
    pub(super) was_read: bool,
    /// Pieces of text that came, each a token at least.
    pub(super) pieces: u32,
}

#[derive(Debug, Default)]
struct Taken {
    requests: u32,
    told: Usage,
    prompt: u64,
    generated: u64,
    /// Of questions that are being answered, at a guess.
    reading: u64,
    /// Of answers that are being written.
    under_way: u64,
    bytes: u64,
}

/// The budget of a job.
#[derive(Debug)]
pub(super) struct Budget {
    allowed: Allowed,
    taken: Mutex<Taken>,
    spent: watch::Sender<Option<Spent>>,
}

impl Budget {
    pub(super) fn new(allowed: Allowed) -> Self {
        Self { allowed, taken: Mutex::default(), spent: watch::Sender::new(None) }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_spent(&self, what: Spent) -> Spent {
        self.spent.send_if_modified(|spent| spent.is_none() && spent.replace(what).is_none());
        what
    }

    /// Begins a request of so many bytes, about so many tokens; says how many tokens may be written in answer.
    pub(super) fn begin(&self, bytes: u64, prompt_estimate: u32) -> Result<u32, Spent> {
        let Allowed { requests, prompt_tokens, generated_tokens, bytes: most_bytes } = self.allowed;
        let mut taken = self.taken();
        let left = u64::from(generated_tokens).saturating_sub(taken.generated + taken.under_way);
        let spent = if taken.requests >= requests {
            Some(Spent::Requests(requests))
        } else if taken.prompt + taken.reading + u64::from(prompt_estimate) > u64::from(prompt_tokens) {
            Some(Spent::PromptTokens(prompt_tokens))
        } else if left == 0 {
            Some(Spent::GeneratedTokens(generated_tokens))
        } else if taken.bytes + bytes > most_bytes {
            Some(Spent::Bytes(most_bytes))
        } else {
            None
        };
        if let Some(spent) = spent {
            drop(taken);
            return Err(self.is_spent(spent));
        }
        taken.requests += 1;
        taken.bytes += bytes;
        taken.reading += u64::from(prompt_estimate);
        Ok(u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// So much more of an answer came: bytes, and pieces of text.
    pub(super) fn came(&self, bytes: u64, pieces: u32) -> Result<(), Spent> {
        let Allowed { generated_tokens, bytes: most_bytes, .. } = self.allowed;
        let mut taken = self.taken();
        taken.bytes = taken.bytes.saturating_add(bytes);
        taken.under_way += u64::from(pieces);
        let spent = if taken.bytes > most_bytes {
            Spent::Bytes(most_bytes)
        } else if taken.generated + taken.under_way > u64::from(generated_tokens) {
            Spent::GeneratedTokens(generated_tokens)
        } else {
            return Ok(());
        };
        drop(taken);
        Err(self.is_spent(spent))
    }

    /// An exchange is over.
    pub(super) fn end(&self, came: Came) {
        let Came { told, prompt_estimate, was_read, pieces } = came;
        let mut taken = self.taken();
        taken.reading = taken.reading.saturating_sub(u64::from(prompt_estimate));
        taken.under_way = taken.under_way.saturating_sub(u64::from(pieces));
        let guessed = if was_read { prompt_estimate } else { 0 };
        let (prompt, generated) = told.unwrap_or((guessed, pieces));
        taken.prompt += u64::from(prompt);
        taken.generated += u64::from(generated);
        // Of what nobody told only that is paid for which was surely written.
        let (prompt, generated) = told.unwrap_or((0, pieces));
        taken.told.prompt_tokens = taken.told.prompt_tokens.saturating_add(prompt).min(self.allowed.prompt_tokens);
        taken.told.generated_tokens =
            taken.told.generated_tokens.saturating_add(generated).min(self.allowed.generated_tokens);
    }

    /// What was used first, once something is.
    pub(super) fn spent(&self) -> Option<Spent> {
        *self.spent.borrow()
    }

    /// Returns once something is used up.
    pub(super) async fn wait_until_spent(&self) {
        // The sender lives as long as this.
        let _ = self.spent.subscribe().wait_for(Option::is_some).await;
    }

    /// Requests that were let through.
    pub(super) fn requests(&self) -> u32 {
        self.taken().requests
    }

    /// What is paid for: as told, and never more than was allowed.
    pub(super) fn usage(&self) -> Usage {
        self.taken().told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Allowed = Allowed { requests: 3, prompt_tokens: 100, generated_tokens: 50, bytes: 1_000 };

    fn told(prompt: u32, generated: u32) -> Came {
        Came { told: Some((prompt, generated)), was_read: true, ..Came::default() }
    }

    #[test]
    fn what_was_taken_is_no_longer_there() {
        let budget = Budget::new(ALLOWED);
        assert_eq!(budget.begin(10, 20), Ok(50));
        budget.end(Came { prompt_estimate: 20, ..told(40, 20) });
        assert_eq!(budget.begin(10, 20), Ok(30));
        budget.end(Came { prompt_estimate: 20, ..told(40, 20) });
        assert_eq!(budget.spent(), None);
        assert_eq!(budget.begin(10, 21), Err(Spent::PromptTokens(100)));
        assert_eq!(budget.spent(), Some(Spent::PromptTokens(100)));
        assert_eq!(budget.usage(), Usage::tokens(80, 40));
        assert_eq!(budget.requests(), 2);
    }

    #[test]
    fn each_kind_of_limit_ends_it_and_the_first_is_the_reason() {
        let spent = |allowed: Allowed, bytes: u64| {
            let budget = Budget::new(allowed);
            (0..9).find_map(|_| {
                let begun = budget.begin(bytes, 1).err();
                budget.end(Came { prompt_estimate: 1, ..told(1, 10) });
                begun
            })
        };
        assert_eq!(spent(ALLOWED, 1), Some(Spent::Requests(3)));
        assert_eq!(spent(Allowed { requests: 9, ..ALLOWED }, 1), Some(Spent::GeneratedTokens(50)));
        assert_eq!(spent(ALLOWED, 400), Some(Spent::Bytes(1_000)));
        let budget = Budget::new(ALLOWED);
        budget.begin(2_000, 1).unwrap_err();
        budget.begin(1, 1_000).unwrap_err();
        assert_eq!(budget.spent(), Some(Spent::Bytes(1_000)));
    }

    #[test]
    fn an_answer_is_cut_where_the_budget_ends_however_many_are_written_at_once() {
        let budget = Budget::new(ALLOWED);
        budget.begin(1, 1).unwrap();
        budget.begin(1, 1).unwrap();
        budget.came(10, 25).unwrap();
        budget.came(10, 25).unwrap();
        assert_eq!(budget.begin(1, 1), Err(Spent::GeneratedTokens(50)), "it is all being written");
        assert_eq!(budget.came(10, 1), Err(Spent::GeneratedTokens(50)));
        assert_eq!(budget.came(5_000, 0), Err(Spent::Bytes(1_000)));
    }

    #[test]
    fn what_nobody_told_ends_the_budget_but_is_paid_for_only_as_far_as_it_was_seen() {
        let budget = Budget::new(ALLOWED);
        budget.begin(1, 60).unwrap();
        budget.came(1, 7).unwrap();
        budget.end(Came { told: None, prompt_estimate: 60, was_read: true, pieces: 7 });
        assert_eq!(budget.usage(), Usage::tokens(0, 7));
        assert_eq!(budget.begin(1, 60), Err(Spent::PromptTokens(100)));
    }

    #[test]
    fn questions_that_are_answered_at_once_are_counted_together() {
        let budget = Budget::new(ALLOWED);
        budget.begin(1, 60).unwrap();
        assert_eq!(budget.begin(1, 60), Err(Spent::PromptTokens(100)));
        // One that was refused has taken nothing.
        budget.end(Came { prompt_estimate: 60, ..Came::default() });
        budget.begin(1, 100).unwrap();
    }

    #[test]
    fn what_an_endpoint_tells_is_never_paid_for_above_what_was_allowed() {
        let budget = Budget::new(ALLOWED);
        budget.begin(1, 1).unwrap();
        budget.end(told(u32::MAX, u32::MAX));
        assert_eq!(budget.usage(), Usage::tokens(100, 50));
    }
}
