//! Do the books say what the wallet says? Compared, never corrected: what is missing is fed to the normal way of a payment,
//! and everything else is for a person to look at.
//!
//! [`compare`] is pure. [`audit`] asks both sides; the wallet's [`History`](crate::wallet::History) where it tells one, else
//! look-ups of every invoice we know of. What a history does not list is looked up before it is reported, which tells a
//! payment that never came from a wallet that contradicts itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Provider;
use crate::job::JobId;
use crate::job::id::PaymentHash;
use crate::money::Msat;
use crate::store::{BookedPayment, Store, StoreError};
use crate::wallet::{InvoiceState, InvoiceUpdate, Received, Sent, Wallet, WalletError};

/// How the descriptions of our invoices begin: what tells them from others of the same wallet.
pub const OUR_INVOICES: &str = "coinop ";

/// How far a running provider looks back. Longer than any payment may be late.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(8 * 24);

/// How much earlier than the time asked for the wallet's history is read: an invoice is made some time before it is settled,
/// wallets list by either, and the books write a payment down a little later than the wallet.
const SLACK: SignedDuration = SignedDuration::from_hours(3 * 24);

/// Look-ups under way at once.
const LOOK_UPS_AT_ONCE: usize = 8;

/// Unpaid invoices looked up at most, newest first, of a wallet without a history: strangers decide how many there are.
const MOST_UNPAID: u32 = 2_000;

/// Differences logged one by one.
const MOST_WARNINGS: usize = 20;

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
    fn new(kind: DifferenceKind, payment_hash: Option<PaymentHash>) -> Self {
        let what_to_do = kind.what_to_do().to_owned();
        Self { kind, payment_hash, job: None, booked: None, in_wallet: None, at: None, what_to_do }
    }
}

/// Where the wallet's side comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WalletSide {
    /// The wallet's own list of what came.
    History,
    /// Look-ups of the invoices we know of: what else came can't be seen.
    LookUps,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// From when on both sides were compared; `None`: from the beginning.
    pub since: Option<Timestamp>,
    /// Where the wallet's side comes from.
    pub wallet_side: WalletSide,
    /// Payments in the books that were compared.
    pub booked: usize,
    /// Settled invoices of the wallet that were compared.
    pub settled: usize,
    /// Invoices the wallet gave no answer about: nothing is known of them.
    pub unanswered: usize,
    /// What differs.
    pub differences: Vec<Difference>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The books can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The wallet does not tell.
    #[error("the wallet does not tell what it received: {0}")]
    Wallet(#[from] WalletError),
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

/// Compares the books with the wallet, from `since` on.
///
/// # Errors
/// [`AuditError`]: then nothing is known.
pub async fn audit(store: &Store, wallet: &dyn Wallet, since: Option<Timestamp>) -> Result<AuditReport, AuditError> {
    let from = since.unwrap_or(Timestamp::UNIX_EPOCH).max(Timestamp::UNIX_EPOCH);
    let read_from = from.checked_sub(SLACK).unwrap_or(Timestamp::UNIX_EPOCH).max(Timestamp::UNIX_EPOCH);
    let mut look_ups = LookUps { store, wallet, unanswered: BTreeSet::new() };
    // The wallet first: what it has by then was, or is being, booked.
    let (wallet_side, settled, booked) = match wallet.history() {
        Some(history) => {
            let received = history.received(read_from).await?;
            let booked = store.booked_payments(from).await?;
            let paid: BTreeSet<PaymentHash> = booked.iter().filter_map(|payment| payment.payment_hash).collect();
            let listed: BTreeSet<PaymentHash> = received.iter().map(|one| one.payment_hash).collect();
            let mut settled = Vec::new();
            for one in received {
                // What has no time may be new.
                let due = one.at.is_none_or(|at| at >= from) || paid.contains(&one.payment_hash);
                if due {
                    settled.push(owned(store, one).await?);
                }
            }
            settled.extend(look_ups.settled(paid.difference(&listed).copied().collect(), false).await?);
            (WalletSide::History, settled, booked)
        }
        None => {
            let booked = store.booked_payments(from).await?;
            let unbooked = store.unbooked_invoices(from, MOST_UNPAID).await?;
            let hashes = booked.iter().filter_map(|payment| payment.payment_hash);
            let hashes = hashes.chain(unbooked.into_iter().map(|(_, hash)| hash)).collect();
            (WalletSide::LookUps, look_ups.settled(hashes, true).await?, booked)
        }
    };
    let unanswered = look_ups.unanswered;
    let ours: Vec<SettledInvoice> = settled.into_iter().filter(|invoice| invoice.owner != Owner::Foreign).collect();
    let mut differences = compare(&booked, &ours);
    // Of what the wallet gave no answer about, nothing is said.
    differences.retain(|difference| difference.payment_hash.is_none_or(|hash| !unanswered.contains(&hash)));
    let refunds = refunds(store, from).await?;
    if let (false, Some(history)) = (refunds.is_empty(), wallet.history()) {
        differences.extend(compare_refunds(&refunds, &history.sent(read_from).await?));
    }
    differences.sort_by_key(|difference| (difference.kind, difference.at));
    let (booked, settled) = (booked.len(), ours.len());
    Ok(AuditReport { since, wallet_side, booked, settled, unanswered: unanswered.len(), differences })
}

/// Whose a received payment is.
async fn owned(store: &Store, one: Received) -> Result<SettledInvoice, StoreError> {
    let owner = match store.booked_of_invoice(one.payment_hash).await? {
        Some((job, booked)) => Owner::Job(job, booked),
        None if one.description.is_some_and(|said| said.starts_with(OUR_INVOICES)) => Owner::Nobody,
        None => Owner::Foreign,
    };
    Ok(SettledInvoice { payment_hash: one.payment_hash, amount: one.amount, at: one.at, owner, listed: true })
}

/// Refunds booked at `since` or later that are paid, or failed for certain. None yet: nothing pays credit back so far.
async fn refunds(_store: &Store, _since: Timestamp) -> Result<Vec<BookedRefund>, StoreError> {
    Ok(Vec::new())
}

/// Asks about single invoices.
struct LookUps<'a> {
    store: &'a Store,
    wallet: &'a dyn Wallet,
    /// Those the wallet gave no answer about.
    unanswered: BTreeSet<PaymentHash>,
}

impl LookUps<'_> {
    /// Those of these invoices that are settled, by the wallet's word on each.
    async fn settled(&mut self, hashes: Vec<PaymentHash>, listed: bool) -> Result<Vec<SettledInvoice>, StoreError> {
        let wallet = self.wallet;
        let mut answers = stream::iter(hashes)
            .map(|hash| async move { (hash, wallet.look_up(&hash).await) })
            .buffer_unordered(LOOK_UPS_AT_ONCE);
        let mut settled = Vec::new();
        while let Some((payment_hash, answer)) = answers.next().await {
            match answer {
                Ok(InvoiceState::Settled { amount, at }) => {
                    let received = Received { payment_hash, amount, at, description: None };
                    settled.push(SettledInvoice { listed, ..owned(self.store, received).await? });
                }
                Ok(_) | Err(WalletError::NotFound) => {}
                Err(_) => {
                    self.unanswered.insert(payment_hash);
                }
            }
        }
        Ok(settled)
    }
}

impl Provider {
    /// Compares the books with the wallet now and every [`audit_every`](super::Settings::audit_every), until `shutdown`.
    pub async fn watch_books(self: Arc<Self>, shutdown: CancellationToken) {
        let (Some(wallet), false) = (self.parts.wallet.clone(), self.settings.audit_every.is_zero()) else {
            return shutdown.cancelled().await;
        };
        let mut tick = tokio::time::interval(self.settings.audit_every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let audited = async {
                tick.tick().await;
                self.compare_books(wallet.as_ref()).await
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                audited = audited => if let Err(problem) = audited {
                    warn!(%problem, "The books could not be compared with the wallet; they will be again");
                },
            }
        }
    }

    /// Compares the books of the last days with the wallet. A settled invoice nobody told of is honoured; the rest is
    /// logged.
    ///
    /// # Errors
    /// [`AuditError`].
    pub async fn compare_books(self: &Arc<Self>, wallet: &dyn Wallet) -> Result<AuditReport, AuditError> {
        let since = self.parts.clock.now().checked_sub(LOOK_BACK).unwrap_or(Timestamp::UNIX_EPOCH);
        let mut report = audit(&self.parts.store, wallet, Some(since)).await?;
        let mut honoured = Vec::new();
        for (place, difference) in report.differences.iter().enumerate() {
            let (DifferenceKind::Unbooked, Some(payment_hash), Some(amount)) =
                (difference.kind, difference.payment_hash, difference.in_wallet)
            else {
                continue;
            };
            let state = InvoiceState::Settled { amount, at: difference.at };
            self.hear(InvoiceUpdate { payment_hash, state }).await?;
            if let Some((job, Some(booked))) = self.parts.store.booked_of_invoice(payment_hash).await? {
                info!(job.id = %job, "A payment of {booked} for job {job}, of which there was no news, is booked");
                honoured.push(place);
            }
        }
        for place in honoured.into_iter().rev() {
            report.differences.remove(place);
        }
        for difference in report.differences.iter().take(MOST_WARNINGS) {
            let job = difference.job.map(|job| job.to_string()).unwrap_or_default();
            let amount = |side: Option<Msat>| side.map_or_else(|| "nothing".to_owned(), |amount| amount.to_string());
            warn!(
                kind = difference.kind.word(),
                job.id = job,
                booked = amount(difference.booked),
                in_wallet = amount(difference.in_wallet),
                "The books and the wallet differ; see 'coinop ledger audit'"
            );
        }
        if report.differences.len() > MOST_WARNINGS {
            warn!("The books and the wallet differ in {} places in all", report.differences.len());
        }
        Ok(report)
    }
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

    #[test]
    fn a_report_goes_over_a_wire_and_back() {
        let report = AuditReport {
            since: None,
            wallet_side: WalletSide::History,
            booked: 1,
            settled: 0,
            unanswered: 0,
            differences: compare(&[booked(PRICE)], &[]),
        };
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains("\"kind\":\"unpaid\"") && text.contains("\"booked_msat\":21000"), "{text}");
        assert_eq!(serde_json::from_str::<AuditReport>(&text).unwrap(), report);
    }
}
