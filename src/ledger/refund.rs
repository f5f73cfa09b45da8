//! Credit paid back: what is remembered of each refund, and how far it is.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::job::CustomerId;
use crate::job::id::PaymentHash;
use crate::money::Msat;

/// How far a refund is.
///
/// ```text
/// Reserved ──▶ Paying ──▶ Paid
///    │            └─────▶ Failed
///    └──────────────────▶ Failed
/// ```
///
/// `Reserved` says for certain that the wallet was not asked yet, so after a crash it is simply given back. `Paying` says
/// that it may have been: only the wallet's word on the payment hash ends it, and it is never asked to pay again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RefundState {
    /// Set aside; the wallet was not asked yet.
    Reserved,
    /// The wallet may have been asked.
    Paying,
    /// Paid.
    Paid,
    /// Not paid, for certain: credit again.
    Failed,
}

impl RefundState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Reserved, Self::Paying, Self::Paid, Self::Failed];

    /// The word in the store and in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Paying => "paying",
            Self::Paid => "paid",
            Self::Failed => "failed",
        }
    }

    /// The state a word stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

impl fmt::Display for RefundState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A refund. Known by the payment hash of the one invoice it pays, which is stored before the wallet is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refund {
    /// The invoice's payment hash: at most one refund each, ever.
    pub payment_hash: PaymentHash,
    /// Whose credit.
    pub customer: CustomerId,
    /// How much, without fees.
    #[serde(rename = "amount_msat")]
    pub amount: Msat,
    /// The lightning address or LNURL it goes to.
    pub target: String,
    /// Whether nobody asked for it: only such count towards the day's limit.
    pub automatic: bool,
    /// How far it is.
    pub state: RefundState,
    /// Routing fees paid on top.
    #[serde(rename = "fees_msat")]
    pub fees: Option<Msat>,
    /// When it was set aside.
    pub at: Timestamp,
    /// When its invoice can no longer be paid.
    pub expires_at: Timestamp,
}
