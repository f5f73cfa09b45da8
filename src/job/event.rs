//! What can happen to a job: facts, in the past tense, each reported by the part of coinop that saw it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::effect::EffectKey;
use super::id::PaymentHash;
use super::outcome::{Failure, Usage};
use crate::ledger::Account;
use crate::money::Msat;

/// An invoice the wallet made for a job. Debug leaves the invoice's text out: logs never hold it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoice {
    /// The BOLT 11 string.
    pub bolt11: String,
    /// What a payment is matched by.
    pub payment_hash: PaymentHash,
    /// The amount asked.
    pub amount: Msat,
    /// When it can no longer be paid.
    pub expires_at: Timestamp,
}

impl fmt::Debug for Invoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invoice")
            .field("payment_hash", &self.payment_hash)
            .field("amount", &self.amount)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Where a zap's money is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purse {
    /// In our wallet, which serves our lightning address itself and says that it is paid.
    Wallet,
    /// With whoever serves our lightning address, whose receipt says that it is paid.
    Address,
}

impl Purse {
    /// Every purse.
    pub const ALL: [Self; 2] = [Self::Wallet, Self::Address];

    /// The word in the store.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Wallet => "wallet",
            Self::Address => "address",
        }
    }

    /// Its account in the books.
    pub const fn account(self) -> Account {
        match self {
            Self::Wallet => Account::Wallet,
            Self::Address => Account::Address,
        }
    }
}

/// Who cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Canceller {
    /// The customer, by a deletion (kind 5).
    Customer,
    /// The operator, by `coinop jobs cancel`.
    Operator,
}

/// A fact about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// The wallet made the invoice.
    InvoiceIssued(Invoice),
    /// The wallet will not make one, and said so for certain.
    InvoiceRefused,
    /// The invoice is paid and the money is ours.
    PaymentSettled {
        /// What arrived.
        amount: Msat,
    },
    /// The money is committed to a hold invoice but not ours yet.
    PaymentHeld {
        /// What is held.
        amount: Msat,
    },
    /// The held money went back: we cancelled, or the deadline passed.
    HoldReleased,
    /// Somebody zapped our offer or our result (NIP-57), and the money arrived. Always news: which zaps were counted
    /// already is known by their payment hash, to the store, in the same transaction.
    Zapped {
        /// What arrived.
        amount: Msat,
        /// Where it is.
        purse: Purse,
    },
    /// The time to pay, or the request's own time, is over and nothing was paid.
    Lapsed,
    /// The work is done; the result event is signed, so that whatever is published later is this and nothing else.
    RunFinished {
        /// What was used.
        usage: Usage,
    },
    /// The work failed.
    RunFailed {
        /// Why.
        failure: Failure,
        /// What the customer was shown of it by then.
        shown: Usage,
    },
    /// Customer or operator no longer want it.
    Cancelled {
        /// Which of them.
        by: Canceller,
        /// What the customer was shown of it by then.
        shown: Usage,
    },
    /// Enough relays have the result.
    ResultPublished,
    /// No relay took the result for so long that we gave up.
    ResultUndeliverable,
    /// Feedback is out, or too old to matter. Changes nothing but the outbox.
    NoticeDone(EffectKey),
}

impl JobEvent {
    /// The work failed, and nothing of it was shown.
    pub const fn run_failed(failure: Failure) -> Self {
        Self::RunFailed { failure, shown: Usage::NONE }
    }

    /// Customer or operator no longer want it, and nothing of it was shown.
    pub const fn cancelled(by: Canceller) -> Self {
        Self::Cancelled { by, shown: Usage::NONE }
    }

    /// The name used in logs and in the record of the job.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::InvoiceIssued(_) => "invoice-issued",
            Self::InvoiceRefused => "invoice-refused",
            Self::PaymentSettled { .. } => "payment-settled",
            Self::PaymentHeld { .. } => "payment-held",
            Self::HoldReleased => "hold-released",
            Self::Zapped { .. } => "zapped",
            Self::Lapsed => "lapsed",
            Self::RunFinished { .. } => "run-finished",
            Self::RunFailed { .. } => "run-failed",
            Self::Cancelled { .. } => "cancelled",
            Self::ResultPublished => "result-published",
            Self::ResultUndeliverable => "result-undeliverable",
            Self::NoticeDone(_) => "notice-done",
        }
    }
}
