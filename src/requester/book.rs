//! Paying at most once, within a budget: a payment is written down before the wallet is asked, and what the wallet says of
//! it afterwards is written down too.
//!
//! After an attempt to pay nothing is assumed. What the wallet leaves open stays open in the book, and is asked about again
//! at the next start.

use std::time::Duration;

use bitcoin::Network;
use futures::{StreamExt, stream};
use jiff::Timestamp;

use crate::money::Msat;
use crate::store::StoreError;
use crate::store::purchases::{Begun, OverBudget, Purchases, Spending, SpendingState, Spent};
use crate::wallet::{Payer, Payment, PaymentHash, WalletError, bolt11};

/// The least fee limit, unless fees are forbidden: a percentage of a small price is less than any route costs.
pub const LEAST_FEE_LIMIT: Msat = Msat::sat(5);

/// Questions about earlier payments under way at once.
const ASKED_AT_ONCE: usize = 4;

/// The most that may go into routing fees on top of `amount`: so many percent of it, at least [`LEAST_FEE_LIMIT`]; with 0
/// percent nothing at all.
pub fn fee_limit(amount: Msat, percent: u32) -> Msat {
    if percent == 0 { Msat::ZERO } else { amount.per(u64::from(percent), 100).max(LEAST_FEE_LIMIT) }
}

/// The payments book with the budget that is kept.
#[derive(Debug, Clone)]
pub struct Book {
    /// The book.
    pub purchases: Purchases,
    /// The most to be paid in 24 hours, fees included.
    pub max_per_day: Option<Msat>,
}

/// Why a payment was not even tried.
#[derive(Debug, thiserror::Error)]
pub enum NotBegun {
    /// It was tried before; what became of it stands in the book.
    #[error("this invoice was paid before, or may have been (it is '{}' in the book): it is never paid twice", .0.word())]
    Known(SpendingState),
    /// The budget.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    /// The order was called off before the wallet was asked.
    #[error("the order was called off before it was paid")]
    CalledOff,
    /// The book can't be written: then nothing is paid.
    #[error("the payments book can't be written, so nothing was paid: {0}")]
    Book(#[from] StoreError),
}

/// What the wallet says of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Made: here is the proof.
    Paid(Payment),
    /// Nothing was paid, for certain.
    NotPaid(WalletError),
    /// It does not say.
    Open,
}

impl Word {
    /// What an answer to [`Payer::pay`] says. A claim without the proof says nothing: money went, or the wallet lies.
    pub(super) fn of_paying(answer: Result<Payment, WalletError>, hash: &PaymentHash) -> Self {
        match answer {
            Ok(payment) if bolt11::is_preimage(&payment.preimage, hash) => Self::Paid(payment),
            Ok(_) => Self::Open,
            Err(problem) if problem.is_definitive() => Self::NotPaid(problem),
            Err(_) => Self::Open,
        }
    }

    /// What an answer to [`Payer::payment`] says.
    pub(super) fn of_asking(answer: Result<Option<Payment>, WalletError>, hash: &PaymentHash) -> Self {
        match answer {
            Ok(Some(payment)) if bolt11::is_preimage(&payment.preimage, hash) => Self::Paid(payment),
            // Only this says of the payment, not of the question, that it failed.
            Err(problem @ WalletError::PaymentFailed(_)) => Self::NotPaid(problem),
            Ok(_) | Err(_) => Self::Open,
        }
    }
}

/// What came of asking about earlier payments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Found to be paid.
    pub paid: Vec<Spent>,
    /// Found not to be paid: their reservation is released.
    pub not_paid: Vec<Spent>,
    /// Given up after a long time: their reservation is released.
    pub lapsed: Vec<Spent>,
    /// Still in doubt.
    pub in_doubt: Vec<Spent>,
}

impl Book {
    /// Writes a payment down, which is the permission to make it.
    ///
    /// # Errors
    /// [`NotBegun`]: nothing may be paid.
    pub async fn begin(&self, spending: Spending, now: Timestamp) -> Result<(), NotBegun> {
        match self.purchases.begin(spending, self.max_per_day, now).await? {
            Begun::Begun => Ok(()),
            Begun::Known(spent) => Err(NotBegun::Known(spent.state)),
            Begun::OverBudget(over) => Err(over.into()),
        }
    }

    /// Writes down what the wallet says of a payment. Nothing, when it leaves it open.
    ///
    /// # Errors
    /// [`StoreError`]; the payment stays in doubt and is asked about at the next start.
    pub async fn note(&self, spending: &Spending, word: &Word, now: Timestamp) -> Result<(), StoreError> {
        match word {
            Word::Paid(payment) => {
                self.purchases.paid(spending.payment_hash, payment.fees, payment.preimage, now).await
            }
            Word::NotPaid(problem) => self.purchases.failed(spending.payment_hash, problem.to_string(), now).await,
            Word::Open => Ok(()),
        }
    }

    /// Asks the wallet about every payment in doubt on its network, for at most `patience` in all: what is not answered by
    /// then stays in doubt.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reconcile(
        &self,
        payer: &dyn Payer,
        network: Network,
        now: Timestamp,
        patience: Duration,
    ) -> Result<Reconciled, StoreError> {
        let doubts = self.purchases.in_doubt(network, now).await?;
        let until = tokio::time::Instant::now() + patience;
        let mut answers = stream::iter(doubts)
            .map(|spent| async move {
                let asked = tokio::time::timeout_at(until, payer.payment(&spent.spending.payment_hash)).await;
                (spent, asked.unwrap_or_else(|_| Err(WalletError::Unreachable("it took too long".into()))))
            })
            .buffer_unordered(ASKED_AT_ONCE);
        let mut found = Reconciled::default();
        while let Some((spent, answer)) = answers.next().await {
            let heard_of_nothing = answer == Ok(None);
            let payment_hash = spent.spending.payment_hash;
            let word = Word::of_asking(answer, &payment_hash);
            self.note(&spent.spending, &word, now).await?;
            match word {
                Word::Paid(_) => found.paid.push(spent),
                Word::NotPaid(_) => found.not_paid.push(spent),
                // Given up before.
                Word::Open if spent.state == SpendingState::Lapsed => {}
                Word::Open if heard_of_nothing && self.purchases.unheard_of(payment_hash, now).await? => {
                    found.lapsed.push(spent);
                }
                Word::Open => found.in_doubt.push(spent),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use jiff::SignedDuration;

    use super::*;
    use crate::job::JobId;
    use crate::job::id::ProviderId;

    const PATIENCE: Duration = Duration::from_secs(5);
    const PREIMAGE: [u8; 32] = [7; 32];

    /// Answers what it is told to.
    struct Told(Mutex<Result<Option<Payment>, WalletError>>);

    #[async_trait]
    impl Payer for Told {
        async fn pay(&self, _: &str, _: Msat) -> Result<Payment, WalletError> {
            panic!("reconciling never pays")
        }

        async fn payment(&self, _: &PaymentHash) -> Result<Option<Payment>, WalletError> {
            self.0.lock().unwrap().clone()
        }
    }

    fn told(answer: Result<Option<Payment>, WalletError>) -> Told {
        Told(Mutex::new(answer))
    }

    fn at(hour: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hour)
    }

    async fn book_in_doubt() -> Book {
        let book = Book { purchases: Purchases::in_memory().unwrap().0, max_per_day: Some(Msat::sat(100)) };
        let spending = Spending {
            payment_hash: bolt11::hash_of(&PREIMAGE),
            job: JobId([2; 32]),
            provider: ProviderId([3; 32]),
            network: Network::Regtest,
            amount: Msat::sat(50),
            max_fee: Msat::sat(5),
            invoice_expires_at: at(1),
        };
        book.begin(spending, at(0)).await.unwrap();
        book
    }

    async fn left(book: &Book, now: Timestamp) -> Msat {
        book.purchases.left(Network::Regtest, Msat::sat(100), now).await.unwrap()
    }

    #[test]
    fn small_prices_have_a_fee_limit_that_routes_can_meet() {
        assert_eq!(fee_limit(Msat::sat(21), 1), Msat::sat(5));
        assert_eq!(fee_limit(Msat::sat(100_000), 1), Msat::sat(1_000));
        assert_eq!(fee_limit(Msat::sat(100_000), 0), Msat::ZERO);
    }

    #[tokio::test]
    async fn what_was_paid_before_a_crash_is_found_with_its_proof() {
        let book = book_in_doubt().await;
        let payment = Payment { preimage: PREIMAGE, fees: Some(Msat::sat(1)) };
        let found = book.reconcile(&told(Ok(Some(payment))), Network::Regtest, at(2), PATIENCE).await.unwrap();
        assert_eq!(found.paid.len(), 1);
        assert_eq!(book.purchases.payments(0).await.unwrap()[0].preimage, Some(PREIMAGE));
        assert_eq!(left(&book, at(3)).await, Msat::sat(49));
    }

    #[tokio::test]
    async fn a_claim_without_the_proof_decides_nothing() {
        let book = book_in_doubt().await;
        let claim = Payment { preimage: [8; 32], fees: None };
        let found = book.reconcile(&told(Ok(Some(claim))), Network::Regtest, at(100), PATIENCE).await.unwrap();
        assert_eq!((found.in_doubt.len(), left(&book, at(100)).await), (1, Msat::sat(45)));
    }

    #[tokio::test]
    async fn what_failed_for_certain_frees_its_money() {
        let book = book_in_doubt().await;
        let failed = told(Err(WalletError::PaymentFailed("the payee gave it back".into())));
        let found = book.reconcile(&failed, Network::Regtest, at(2), PATIENCE).await.unwrap();
        assert_eq!((found.not_paid.len(), left(&book, at(2)).await), (1, Msat::sat(100)));
    }

    #[tokio::test]
    async fn no_answer_and_any_other_error_leave_the_doubt_however_old_it_is() {
        let book = book_in_doubt().await;
        for error in [WalletError::NotFound, WalletError::Unreachable("x".into()), WalletError::RateLimited] {
            let found = book.reconcile(&told(Err(error)), Network::Regtest, at(1_000), PATIENCE).await.unwrap();
            assert_eq!((found.in_doubt.len(), left(&book, at(1_000)).await), (1, Msat::sat(45)));
        }
        // Another network's wallet is not even asked.
        let found = book.reconcile(&told(Ok(None)), Network::Bitcoin, at(1_000), PATIENCE).await.unwrap();
        assert_eq!(found, Reconciled::default());
    }

    #[tokio::test]
    async fn what_the_wallet_never_heard_of_is_given_up_after_a_day() {
        let book = book_in_doubt().await;
        let none = told(Ok(None));
        let found = book.reconcile(&none, Network::Regtest, at(3), PATIENCE).await.unwrap();
        assert_eq!((found.in_doubt.len(), left(&book, at(3)).await), (1, Msat::sat(45)));
        let found = book.reconcile(&none, Network::Regtest, at(26), PATIENCE).await.unwrap();
        assert_eq!((found.lapsed.len(), left(&book, at(26)).await), (1, Msat::sat(100)));
        let found = book.reconcile(&none, Network::Regtest, at(27), PATIENCE).await.unwrap();
        assert_eq!(found, Reconciled::default());
    }
}
