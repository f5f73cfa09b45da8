//! The books: double entry, pure. Every transaction sums to zero, so money can change hands but not appear.
//!
//! Accounts, with the sign of their usual balance:
//!
//! | account | what it holds | usual sign |
//! |---|---|---|
//! | `wallet` | money in our wallet: what arrived, less what was paid back | + |
//! | `address` | money that arrived at our lightning address when another wallet than ours serves it (zaps) | + |
//! | `customer:<key>` | what we owe that customer (credit) | − |
//! | `escrow:<job>` | money of a job not yet earned or returned | − |
//! | `income:<kind>` | what we earned | − |
//! | `refunds` | credit on its way back to customers: set aside, and not yet known to be paid or not | − |
//! | `fees` | routing fees of what was paid back | + |
//!
//! So `wallet` + `address` + `fees` is what customers hold, what was earned, and what is under way in either direction.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

pub use refund::{Refund, RefundState};

use crate::job::{CustomerId, JobId, JobKind};
use crate::money::{Msat, MsatDelta};

mod refund;

/// A place money can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// Our wallet.
    Wallet,
    /// The wallet behind our lightning address, when it is another than ours.
    Address,
    /// A customer's credit.
    Customer(CustomerId),
    /// A job's money, between payment and delivery.
    Escrow(JobId),
    /// Earnings from a kind of job.
    Income(JobKind),
    /// On the way back to customers.
    Refunds,
    /// Routing fees.
    Fees,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wallet => f.write_str("wallet"),
            Self::Address => f.write_str("address"),
            Self::Customer(key) => write!(f, "customer:{key}"),
            Self::Escrow(job) => write!(f, "escrow:{job}"),
            Self::Income(kind) => write!(f, "income:{kind}"),
            Self::Refunds => f.write_str("refunds"),
            Self::Fees => f.write_str("fees"),
        }
    }
}

/// Text that names no account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Postings that do not sum to zero.
    #[error("the postings of '{reason}' sum to {sum} instead of nothing")]
    Unbalanced {
        /// What the transaction was for.
        reason: Reason,
        /// What is left over.
        sum: MsatDelta,
    },
    /// A sum too large to count.
    #[error("the postings of '{reason}' overflow")]
    Overflow {
        /// What the transaction was for.
        reason: Reason,
    },
    /// Text that names no account.
    #[error("'{0}' names no account")]
    UnknownAccount(String),
}

impl FromStr for Account {
    type Err = LedgerError;
    fn from_str(text: &str) -> Result<Self, LedgerError> {
        let unknown = || LedgerError::UnknownAccount(text.chars().take(100).collect());
        match text.split_once(':') {
            None if text == "wallet" => Ok(Self::Wallet),
            None if text == "address" => Ok(Self::Address),
            None if text == "refunds" => Ok(Self::Refunds),
            None if text == "fees" => Ok(Self::Fees),
            Some(("customer", key)) => key.parse().map(Self::Customer).map_err(|_| unknown()),
            Some(("escrow", job)) => job.parse().map(Self::Escrow).map_err(|_| unknown()),
            Some(("income", kind)) => kind.parse().map(Self::Income).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

/// Why money moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Credit set aside for a quote.
    CreditReserved,
    /// Credit given back because the quote lapsed.
    CreditReleased,
    /// A payment arrived.
    Payment,
    /// A zap arrived.
    Zap,
    /// A job was done, or the customer ended it after a part of it was shown: earned, and the unused part returned as credit.
    Earned,
    /// A paid job was not done, and nothing is charged for it: everything became credit.
    Returned,
    /// A result nobody could be given: the income was taken back.
    Undelivered,
    /// Credit set aside to be paid back.
    RefundReserved,
    /// Credit paid back.
    Refunded,
    /// A refund that could not be paid: credit again.
    RefundReturned,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::CreditReserved,
        Self::CreditReleased,
        Self::Payment,
        Self::Zap,
        Self::Earned,
        Self::Returned,
        Self::Undelivered,
        Self::RefundReserved,
        Self::Refunded,
        Self::RefundReturned,
    ];

    /// The word in the books.
    pub const fn word(self) -> &'static str {
        match self {
            Self::CreditReserved => "credit-reserved",
            Self::CreditReleased => "credit-released",
            Self::Payment => "payment",
            Self::Zap => "zap",
            Self::Earned => "earned",
            Self::Returned => "returned",
            Self::Undelivered => "undelivered",
            Self::RefundReserved => "refund-reserved",
            Self::Refunded => "refunded",
            Self::RefundReturned => "refund-returned",
        }
    }

    /// The reason a word stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A change of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    /// Which account.
    pub account: Account,
    /// By how much.
    pub amount: MsatDelta,
}

/// A balanced movement of money. Made only by [`Entry::new`], so an unbalanced one cannot exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    at: Timestamp,
    job: Option<JobId>,
    reason: Reason,
    postings: Vec<Posting>,
}

impl Entry {
    /// A movement of money; postings of nothing are left out.
    ///
    /// # Errors
    /// [`LedgerError::Unbalanced`] unless the postings sum to zero.
    pub fn new(
        at: Timestamp,
        job: impl Into<Option<JobId>>,
        reason: Reason,
        postings: impl IntoIterator<Item = (Account, MsatDelta)>,
    ) -> Result<Self, LedgerError> {
        let postings: Vec<Posting> = postings
            .into_iter()
            .filter(|(_, amount)| *amount != MsatDelta::ZERO)
            .map(|(account, amount)| Posting { account, amount })
            .collect();
        let sum = postings
            .iter()
            .try_fold(MsatDelta::ZERO, |sum, posting| sum.checked_add(posting.amount))
            .ok_or(LedgerError::Overflow { reason })?;
        if sum != MsatDelta::ZERO {
            return Err(LedgerError::Unbalanced { reason, sum });
        }
        Ok(Self { at, job: job.into(), reason, postings })
    }

    /// `amount` debited to one account and credited to another. A debit adds to what we have and takes from what we owe;
    /// a credit does the opposite.
    pub fn transfer(
        at: Timestamp,
        job: impl Into<Option<JobId>>,
        reason: Reason,
        debit: Account,
        credit: Account,
        amount: Msat,
    ) -> Self {
        Self {
            at,
            job: job.into(),
            reason,
            postings: vec![
                Posting { account: debit, amount: MsatDelta::plus(amount) },
                Posting { account: credit, amount: MsatDelta::minus(amount) },
            ],
        }
    }

    /// A job done: what was in escrow for it is income as far as it cost, and the customer's credit for the rest.
    pub fn earned(at: Timestamp, job: JobId, kind: JobKind, customer: CustomerId, cost: Msat, rest: Msat) -> Self {
        let postings = [
            (Account::Escrow(job), MsatDelta::plus(cost.saturating_add(rest))),
            (Account::Income(kind), MsatDelta::minus(cost)),
            (Account::Customer(customer), MsatDelta::minus(rest)),
        ];
        let postings = postings.into_iter().filter(|(_, amount)| *amount != MsatDelta::ZERO);
        let postings = postings.map(|(account, amount)| Posting { account, amount }).collect();
        Self { at, job: Some(job), reason: Reason::Earned, postings }
    }

    /// A refund set aside: the customer's credit is on its way.
    pub fn refund_reserved(at: Timestamp, customer: CustomerId, amount: Msat) -> Self {
        Self::transfer(at, None, Reason::RefundReserved, Account::Customer(customer), Account::Refunds, amount)
    }

    /// A refund paid: what was on its way left our wallet, and the routing fees with it.
    pub fn refunded(at: Timestamp, amount: Msat, fees: Msat) -> Self {
        let postings = [
            (Account::Refunds, MsatDelta::plus(amount)),
            (Account::Fees, MsatDelta::plus(fees)),
            (Account::Wallet, MsatDelta::minus(amount.saturating_add(fees))),
        ];
        let postings = postings.into_iter().filter(|(_, amount)| *amount != MsatDelta::ZERO);
        let postings = postings.map(|(account, amount)| Posting { account, amount }).collect();
        Self { at, job: None, reason: Reason::Refunded, postings }
    }

    /// A refund that was not paid, for certain: credit again.
    pub fn refund_returned(at: Timestamp, customer: CustomerId, amount: Msat) -> Self {
        Self::transfer(at, None, Reason::RefundReturned, Account::Refunds, Account::Customer(customer), amount)
    }

    /// When.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// For which job. A refund is for none: credit may be left of several.
    pub fn job(&self) -> Option<JobId> {
        self.job
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The changes.
    pub fn postings(&self) -> &[Posting] {
        &self.postings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId([1; 32]);

    #[test]
    fn an_unbalanced_entry_cannot_be_made() {
        let lopsided =
            Entry::new(Timestamp::UNIX_EPOCH, JOB, Reason::Payment, [(Account::Wallet, MsatDelta::plus(Msat::sat(1)))]);
        assert!(matches!(lopsided, Err(LedgerError::Unbalanced { .. })));
    }

    #[test]
    fn an_account_reads_as_it_is_written() {
        let key = CustomerId([7; 32]);
        for account in [
            Account::Wallet,
            Account::Address,
            Account::Refunds,
            Account::Fees,
            Account::Customer(key),
            Account::Escrow(JOB),
            Account::Income(JobKind::TextGeneration),
        ] {
            assert_eq!(account.to_string().parse(), Ok(account));
        }
        assert!("customer:xyz".parse::<Account>().is_err());
    }
}
