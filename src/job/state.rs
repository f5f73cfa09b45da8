//! Where a job stands, on two axes: the work and the payment.
//!
//! ```text
//! work                                            payment
//!
//! Waiting ──▶ Running ──▶ Finished ──▶ Delivered  Free                          nothing to pay
//!    │           │            │                   Covered                       the customer's credit pays
//!    ├──▶ Expired│            │                   Deferred ──▶ Invoicing        postpay: due after the work
//!    ├──▶ Failed◀┴────────────┤                   Invoicing ──▶ Awaiting ──▶ Settled
//!    └──▶ Cancelled◀──────────┘                                    ├──▶ Held ──▶ Settling ──▶ Settled
//!         (Expired ──▶ Running: paid late)                         │      └──▶ Releasing ──▶ Released
//!                                                                  └──▶ Void ──▶ Settled  (paid late)
//!
//! A zap settles from Awaiting and Void, too; [`PaidBy`] says which of the two it was.
//! ```
//!
//! The moves themselves, and the money that goes with each, are the table in [`super::transition`].

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::event::{Canceller, Invoice};
use super::outcome::{Failure, Usage};
use super::quote::{Quote, Terms};
use super::{CustomerId, JobId, JobKind};
use crate::money::Msat;

/// How far the work is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkState {
    /// Quoted; begins when it is paid or held.
    Waiting,
    /// Being done, or queued for it.
    Running,
    /// Done; the result is signed and stored.
    Finished,
    /// The result is out.
    Delivered,
    /// Given up; [`Job::failure`] says why.
    Failed,
    /// No longer wanted.
    Cancelled,
    /// Never paid in time.
    Expired,
}

impl WorkState {
    /// Every state.
    pub const ALL: [Self; 7] =
        [Self::Waiting, Self::Running, Self::Finished, Self::Delivered, Self::Failed, Self::Cancelled, Self::Expired];

    /// Whether nothing more is done for the job unless money arrives.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Delivered | Self::Failed | Self::Cancelled | Self::Expired)
    }

    /// The word in the store and in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// Where the money is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaymentState {
    /// Nothing to pay.
    Free,
    /// The customer's credit covers the most it can cost; that part is in escrow.
    Covered,
    /// Postpay: due when the work is done.
    Deferred,
    /// The wallet is asked for an invoice.
    Invoicing,
    /// The invoice is with the customer.
    Awaiting,
    /// Committed to our hold invoice, not ours.
    Held,
    /// We are taking the held money.
    Settling,
    /// Ours.
    Settled,
    /// We are giving the held money back.
    Releasing,
    /// Given back.
    Released,
    /// Nothing is expected any more; money that still comes becomes credit or, where it can, starts the work.
    Void,
}

impl PaymentState {
    /// Every state.
    pub const ALL: [Self; 11] = [
        Self::Free,
        Self::Covered,
        Self::Deferred,
        Self::Invoicing,
        Self::Awaiting,
        Self::Held,
        Self::Settling,
        Self::Settled,
        Self::Releasing,
        Self::Released,
        Self::Void,
    ];

    /// Whether the wallet may still report something about the job's invoice that we act on.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Awaiting | Self::Held | Self::Settling | Self::Releasing)
    }

    /// Whether a result may be published: the rule no paid job escapes.
    pub const fn allows_publishing(self) -> bool {
        matches!(self, Self::Free | Self::Covered | Self::Settled)
    }

    /// The word in the store and in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Covered => "covered",
            Self::Deferred => "deferred",
            Self::Invoicing => "invoicing",
            Self::Awaiting => "awaiting",
            Self::Held => "held",
            Self::Settling => "settling",
            Self::Settled => "settled",
            Self::Releasing => "releasing",
            Self::Released => "released",
            Self::Void => "void",
        }
    }
}

/// What made a payment [`PaymentState::Settled`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaidBy {
    /// The invoice. (Also what jobs of before zaps say.)
    #[default]
    Invoice,
    /// A zap. The invoice may still be paid or held; that money is credit, or goes back.
    Zap,
    /// A zap, and the invoice besides.
    Both,
}

/// A job: what was promised and where it stands. Small; the request and the result are kept beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The request event's id.
    pub id: JobId,
    /// Whose it is.
    pub customer: CustomerId,
    /// What kind.
    pub kind: JobKind,
    /// How far the work is.
    pub work: WorkState,
    /// Where the money is.
    pub payment: PaymentState,
    /// What was promised.
    pub quote: Quote,
    /// When the customer stops caring.
    pub expires_at: Option<Timestamp>,
    /// The one invoice.
    pub invoice: Option<Invoice>,
    /// Money in escrow for this job: credit set aside and payment received, less what was earned or returned.
    pub escrow: Msat,
    /// What made the payment settled; says nothing in any other state.
    #[serde(default)]
    pub paid_by: PaidBy,
    /// What arrived for this job, in all, zaps included.
    pub paid: Msat,
    /// What the job cost in the end.
    pub cost: Option<Msat>,
    /// What went (back) to the customer's credit from a payment.
    pub credited: Msat,
    /// What was used.
    pub usage: Option<Usage>,
    /// What was charged for of a job that was not finished: the part of its output that was shown.
    #[serde(default)]
    pub shown: Option<Usage>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Who cancelled it.
    pub cancelled_by: Option<Canceller>,
    /// When it was quoted.
    pub opened_at: Timestamp,
    /// When it last changed.
    pub changed_at: Timestamp,
}

impl Job {
    /// Whether its work, which was under way or done `before`, was for nothing by its customer's doing: they called it off,
    /// what they asked for failed, or they never paid for what was done. A free job is given away in any case, and counted
    /// elsewhere.
    pub fn was_given_away(&self, before: WorkState) -> bool {
        let done = before == WorkState::Finished;
        let theirs = match self.work {
            WorkState::Cancelled => self.cancelled_by == Some(Canceller::Customer),
            WorkState::Failed => self.failure.as_ref().is_some_and(Failure::is_the_customers),
            // With `postpay` terms the invoice comes after the work; where there is none, nobody could pay it.
            WorkState::Expired => done && self.invoice.is_some(),
            WorkState::Waiting | WorkState::Running | WorkState::Finished | WorkState::Delivered => false,
        };
        theirs && (done || before == WorkState::Running) && self.shown.is_none() && self.quote.terms != Terms::Free
    }
}
