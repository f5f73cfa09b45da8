//! What differs, given both sides. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::job::JobId;
use crate::job::id::PaymentHash;
use crate::money::Msat;
use crate::store::BookedPayment;
use crate::wallet::Sent;

/// What kind of difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceKind {
    /// The wallet has the money of an invoice of ours, the books have nothing.
    Unbooked,
    /// Both have it, with other amounts.
    Amount,
    /// The books have a payment, the wallet says the invoice is not settled.
    Unpaid,
    /// The wallet says the invoice is settled when asked, and does not list it among what came.
    Unlisted,
    /// The wallet has money of an invoice that says it is ours, and no job knows it.
    Unknown,
    /// The books have a refund, the wallet made no such payment.
    RefundUnpaid,
    /// The wallet made the payment of a refund with another amount, or of one the books call failed.
    RefundAmount,
}

impl DifferenceKind {
    /// The word in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unbooked => "unbooked",
            Self::Amount => "amount",
            Self::Unpaid => "unpaid",
            Self::Unlisted => "unlisted",
            Self::Unknown => "unknown",
            Self::RefundUnpaid => "refund-unpaid",
            Self::RefundAmount => "refund-amount",
        }
    }

    /// What to do about it.
    pub const fn what_to_do(self) -> &'static str {
        match self {
            Self::Unbooked => {
                "a running 'coinop serve' books it and honours it; if it stays, look at 'coinop jobs show' of the job"
            }
            Self::Amount => "trust neither: compare with the wallet's own list of payments, and with the customer's",
            Self::Unpaid => {
                "the work was done for money that is not there: look into the wallet itself; if it is right, do not sell \
                 with this wallet"
            }
            Self::Unlisted => {
                "the wallet contradicts itself: look into it for the money, and do not sell with it if that is not there"
            }
            Self::Unknown => {
                "was the database restored from an older copy, or is the wallet shared? The description names the job \
                 whose customer paid"
            }
            Self::RefundUnpaid => "the customer's credit is gone and nothing was paid: pay it by hand, or give it back",
            Self::RefundAmount => "compare with the wallet's own list of payments",
        }
    }
}

/// A difference between the books and the wallet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Which kind.
    pub kind: DifferenceKind,
    /// Of which invoice.
    pub payment_hash: Option<PaymentHash>,
    /// Of which job, if known.
    pub job: Option<JobId>,
    /// What the books have.
    #[serde(rename = "booked_msat")]
    pub booked: Option<Msat>,
    /// What the wallet has.
    #[serde(rename = "wallet_msat")]
    pub in_wallet: Option<Msat>,
    /// When it was booked, or settled.
    pub at: Option<Timestamp>,
    /// What to do about it.
    pub what_to_do: String,
}

impl Difference {
    pub(super) fn new(kind: DifferenceKind, payment_hash: Option<PaymentHash>) -> Self {
        let what_to_do = kind.what_to_do().to_owned();
        Self { kind, payment_hash, job: None, booked: None, in_wallet: None, at: None, what_to_do }
    }
}

/// Whose a settled invoice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A job's; with what the books have for it in all.
    Job(JobId, Option<Msat>),
    /// Ours by what it says, but no job's.
    Nobody,
    /// Somebody else's business.
    Foreign,
}

/// An invoice that is settled in the wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettledInvoice {
    /// Which.
    pub payment_hash: PaymentHash,
    /// What arrived.
    pub amount: Msat,
    /// When, as far as the wallet says.
    pub at: Option<Timestamp>,
    /// Whose.
    pub owner: Owner,
    /// Whether the wallet lists it among what came, as far as it lists anything.
    pub listed: bool,
}

/// Compares payments in the books with settled invoices of the wallet. Each invoice is compared once, however often it is
/// listed.
pub fn compare(booked: &[BookedPayment], settled: &[SettledInvoice]) -> Vec<Difference> {
    let mut differences = Vec::new();
    let settled: BTreeMap<PaymentHash, &SettledInvoice> =
        settled.iter().map(|invoice| (invoice.payment_hash, invoice)).collect();
    for payment in booked {
        let found = payment.payment_hash.and_then(|hash| settled.get(&hash));
        if found.is_none() {
            differences.push(Difference {
                job: Some(payment.job),
                booked: Some(payment.amount),
                at: Some(payment.at),
                ..Difference::new(DifferenceKind::Unpaid, payment.payment_hash)
            });
        }
    }
    for invoice in settled.values() {
        let (kind, job, booked) = match invoice.owner {
            Owner::Job(job, Some(booked)) if booked != invoice.amount => {
                (DifferenceKind::Amount, Some(job), Some(booked))
            }
            Owner::Job(job, Some(booked)) if !invoice.listed => (DifferenceKind::Unlisted, Some(job), Some(booked)),
            Owner::Job(job, None) => (DifferenceKind::Unbooked, Some(job), None),
            Owner::Nobody => (DifferenceKind::Unknown, None, None),
            Owner::Job(..) | Owner::Foreign => continue,
        };
        differences.push(Difference {
            job,
            booked,
            in_wallet: Some(invoice.amount),
            at: invoice.at,
            ..Difference::new(kind, Some(invoice.payment_hash))
        });
    }
    differences
}

/// A refund as the books have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BookedRefund {
    /// Of the invoice it pays.
    pub payment_hash: PaymentHash,
    /// How much, without fees.
    pub amount: Msat,
    /// Paid, or failed for certain. What is under way is not compared.
    pub paid: bool,
}

/// Compares refunds in the books with what the wallet paid. Other payments of the wallet are nobody's business here.
pub fn compare_refunds(booked: &[BookedRefund], sent: &[Sent]) -> Vec<Difference> {
    let sent: BTreeMap<PaymentHash, &Sent> = sent.iter().map(|payment| (payment.payment_hash, payment)).collect();
    let differs = |refund: &BookedRefund| match (refund.paid, sent.get(&refund.payment_hash)) {
        (true, None) => Some((DifferenceKind::RefundUnpaid, None)),
        (true, Some(payment)) if payment.amount != refund.amount => {
            Some((DifferenceKind::RefundAmount, Some(payment.amount)))
        }
        (false, Some(payment)) => Some((DifferenceKind::RefundAmount, Some(payment.amount))),
        (true, Some(_)) | (false, None) => None,
    };
    booked
        .iter()
        .filter_map(|refund| {
            let (kind, in_wallet) = differs(refund)?;
            let booked = Some(if refund.paid { refund.amount } else { Msat::ZERO });
            Some(Difference { booked, in_wallet, ..Difference::new(kind, Some(refund.payment_hash)) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId([1; 32]);
    const HASH: PaymentHash = PaymentHash([2; 32]);
    const PRICE: Msat = Msat::sat(21);

    fn booked(amount: Msat) -> BookedPayment {
        BookedPayment { job: JOB, payment_hash: Some(HASH), amount, at: Timestamp::UNIX_EPOCH }
    }

    fn settled(amount: Msat, owner: Owner) -> SettledInvoice {
        SettledInvoice { payment_hash: HASH, amount, at: None, owner, listed: true }
    }

    fn kinds(differences: &[Difference]) -> Vec<DifferenceKind> {
        differences.iter().map(|difference| difference.kind).collect()
    }

    #[test]
    fn books_and_wallet_that_agree_differ_in_nothing() {
        let both = settled(PRICE, Owner::Job(JOB, Some(PRICE)));
        assert_eq!(compare(&[booked(PRICE)], &[both, both]), []);
        assert_eq!(compare(&[], &[settled(PRICE, Owner::Foreign)]), []);
    }

    #[test]
    fn each_way_to_differ_has_its_name() {
        let found = compare(&[], &[settled(PRICE, Owner::Job(JOB, None))]);
        assert_eq!(kinds(&found), [DifferenceKind::Unbooked]);
        assert_eq!((found[0].job, found[0].in_wallet, found[0].booked), (Some(JOB), Some(PRICE), None));

        let found = compare(&[booked(PRICE)], &[settled(Msat::sat(20), Owner::Job(JOB, Some(PRICE)))]);
        assert_eq!(kinds(&found), [DifferenceKind::Amount]);

        let found = compare(&[booked(PRICE)], &[]);
        assert_eq!((kinds(&found), found[0].booked), (vec![DifferenceKind::Unpaid], Some(PRICE)));

        let unlisted = SettledInvoice { listed: false, ..settled(PRICE, Owner::Job(JOB, Some(PRICE))) };
        assert_eq!(kinds(&compare(&[booked(PRICE)], &[unlisted])), [DifferenceKind::Unlisted]);

        let found = compare(&[], &[settled(PRICE, Owner::Nobody)]);
        assert_eq!((kinds(&found), found[0].job), (vec![DifferenceKind::Unknown], None));
    }

    #[test]
    fn a_payment_booked_for_a_job_without_an_invoice_is_not_there() {
        let nameless = BookedPayment { payment_hash: None, ..booked(PRICE) };
        assert_eq!(kinds(&compare(&[nameless], &[])), [DifferenceKind::Unpaid]);
    }

    #[test]
    fn refunds_are_compared_with_what_was_sent() {
        let refund = |paid| BookedRefund { payment_hash: HASH, amount: PRICE, paid };
        let sent = |amount| Sent { payment_hash: HASH, amount, fees: None, at: None };
        assert_eq!(compare_refunds(&[refund(true)], &[sent(PRICE)]), []);
        assert_eq!(compare_refunds(&[refund(false)], &[]), []);
        assert_eq!(compare_refunds(&[], &[sent(PRICE)]), []);
        let found = |paid, sent: &[Sent]| kinds(&compare_refunds(&[refund(paid)], sent));
        assert_eq!(found(true, &[]), [DifferenceKind::RefundUnpaid]);
        assert_eq!(found(true, &[sent(Msat::sat(1))]), [DifferenceKind::RefundAmount]);
        assert_eq!(found(false, &[sent(PRICE)]), [DifferenceKind::RefundAmount]);
    }
}
