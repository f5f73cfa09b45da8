//! What we ask for a job, and when it is due.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::outcome::{Compute, Usage};
use super::pricing::Rates;
use crate::money::Msat;

/// The order of work and payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Terms {
    /// Hold invoice, work, settle: any failure cancels the hold. Needs a wallet with hold invoices.
    Hold,
    /// Invoice, payment, work: a failure becomes credit.
    Prepay,
    /// Work, invoice, payment, result.
    Postpay,
    /// Nothing to pay.
    Free,
}

impl Terms {
    /// The word on the wire and in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Prepay => "prepay",
            Self::Postpay => "postpay",
            Self::Free => "free",
        }
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Terms {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Hold, Self::Prepay, Self::Postpay, Self::Free]
            .into_iter()
            .find(|terms| terms.word() == text)
            .ok_or_else(|| format!("'{text}' is no terms of payment; they are hold, prepay, postpay and free"))
    }
}

/// What a job will take, found before anything is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Tokens of the prompt, counted by the backend.
    pub prompt_tokens: u32,
    /// The most tokens that may be written.
    pub max_generated_tokens: u32,
    /// The longest it may be in a sandbox, and with how much memory.
    #[serde(default)]
    pub compute: Compute,
}

impl Estimate {
    /// Work that takes tokens and nothing else.
    pub const fn tokens(prompt: u32, max_generated: u32) -> Self {
        Self { prompt_tokens: prompt, max_generated_tokens: max_generated, compute: Compute::NONE }
    }

    /// The most the job can use: what is quoted.
    pub fn most(self) -> Usage {
        Usage { prompt_tokens: self.prompt_tokens, generated_tokens: self.max_generated_tokens, compute: self.compute }
    }
}

/// A quote before the customer's account is looked at: what the price list and the operator's rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteDraft {
    /// The price list in force.
    pub rates: Rates,
    /// What the job can use at most.
    pub estimate: Estimate,
    /// The terms for paid work.
    pub terms: Terms,
    /// The customer's key is on the list of those who never pay.
    pub on_the_house: bool,
    /// Free jobs a key has a day.
    pub free_per_day: u32,
    /// The wallet knows whole satoshis only.
    pub whole_sats: bool,
    /// How long the customer has to pay.
    pub payment_window: SignedDuration,
}

impl QuoteDraft {
    /// The price for the most the job can use.
    pub fn price(&self) -> Msat {
        self.rates.cost(self.estimate.most())
    }
}

/// A promise: this job, at most this much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// When the work is paid.
    pub terms: Terms,
    /// The price list the quote was made with; the final cost follows it.
    pub rates: Rates,
    /// What the job can use at most.
    pub estimate: Estimate,
    /// The most the job costs. Zero when free.
    pub price: Msat,
    /// The customer's credit set aside for this job.
    pub credit: Msat,
    /// What remains to be paid for the most the job can cost, rounded up to whole satoshis where the wallet needs it;
    /// what is not used becomes credit.
    pub due: Msat,
    /// Whether the wallet knows whole satoshis only.
    pub whole_sats: bool,
    /// How long an invoice of this job stays open.
    pub payment_window: SignedDuration,
    /// When it was made.
    pub quoted_at: Timestamp,
}

impl Quote {
    /// Makes the promise from a draft: free when the house, the price list or the day's quota says so, else the
    /// customer's credit first. Pure: same inputs, same quote.
    pub fn from_draft(draft: &QuoteDraft, credit: Msat, free_jobs_today: u32, now: Timestamp) -> Self {
        let price = draft.price();
        let free =
            draft.on_the_house || draft.terms == Terms::Free || price.is_zero() || free_jobs_today < draft.free_per_day;
        let (terms, price, credit) =
            if free { (Terms::Free, Msat::ZERO, Msat::ZERO) } else { (draft.terms, price, credit.min(price)) };
        let rest = price.saturating_sub(credit);
        Self {
            terms,
            rates: draft.rates,
            estimate: draft.estimate,
            price,
            credit,
            due: if draft.whole_sats { rest.round_up_to_sat() } else { rest },
            whole_sats: draft.whole_sats,
            payment_window: draft.payment_window,
            quoted_at: now,
        }
    }

    /// What the job costs in the end: the price list's word on what was used, never above the quote.
    pub fn cost(&self, usage: Usage) -> Msat {
        if self.terms == Terms::Free { Msat::ZERO } else { self.rates.cost(usage).min(self.price) }
    }
}
