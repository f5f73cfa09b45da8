//! The books: double entry, pure. Every transaction sums to zero, so money can change hands but not appear.
//!
//! Accounts, with the sign of their usual balance:
//!
//! | account | what it holds | usual sign |
//! |---|---|---|
//! | `wallet` | money that arrived in our wallet | + |
//! | `customer:<key>` | what we owe that customer (credit) | − |
//! | `escrow:<job>` | money of a job not yet earned or returned | − |
//! | `income:<kind>` | what we earned | − |
//! | `refunds` | money paid back out of the wallet | + |

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::job::{CustomerId, JobId, JobKind};
use crate::money::{Msat, MsatDelta};

/// A place money can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// Our wallet.
    Wallet,
    /// A customer's credit.
    Customer(CustomerId),
    /// A job's money, between payment and delivery.
    Escrow(JobId),
    /// Earnings from a kind of job.
    Income(JobKind),
    /// Paid back.
    Refunds,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wallet => f.write_str("wallet"),
            Self::Customer(key) => write!(f, "customer:{key}"),
            Self::Escrow(job) => write!(f, "escrow:{job}"),
            Self::Income(kind) => write!(f, "income:{kind}"),
            Self::Refunds => f.write_str("refunds"),
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
            None if text == "refunds" => Ok(Self::Refunds),
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
    /// A job was done: earned, and the unused part returned as credit.
    Earned,
    /// A paid job was not done: everything became credit.
    Returned,
    /// A result nobody could be given: the income was taken back.
    Undelivered,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::CreditReserved, Self::CreditReleased, Self::Payment, Self::Earned, Self::Returned, Self::Undelivered];

    /// The word in the books.
    pub const fn word(self) -> &'static str {
        match self {
            Self::CreditReserved => "credit-reserved",
            Self::CreditReleased => "credit-released",
            Self::Payment => "payment",
            Self::Earned => "earned",
            Self::Returned => "returned",
            Self::Undelivered => "undelivered",
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
    job: JobId,
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
        job: JobId,
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
        Ok(Self { at, job, reason, postings })
    }

    /// `amount` debited to one account and credited to another. A debit adds to what we have and takes from what we owe;
    /// a credit does the opposite.
    pub fn transfer(at: Timestamp, job: JobId, reason: Reason, debit: Account, credit: Account, amount: Msat) -> Self {
        Self {
            at,
            job,
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
        Self { at, job, reason: Reason::Earned, postings }
    }

    /// When.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// For which job.
    pub fn job(&self) -> JobId {
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
            Account::Refunds,
            Account::Customer(key),
            Account::Escrow(JOB),
            Account::Income(JobKind::TextGeneration),
        ] {
            assert_eq!(account.to_string().parse(), Ok(account));
        }
        assert!("customer:xyz".parse::<Account>().is_err());
    }
}
