//! Does what [`super::purchase`] decides: publishes, listens, pays.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::book::{Book, NotBegun, Word, fee_limit};
use super::calling_off::CalledOff;
use super::purchase::{Choice, Ending, Limits, Offer, Purchase, Receipt, Step};
use crate::job::id::ProviderId;
use crate::job::queue::Standing;
use crate::job::{JobId, Refusal, Terms};
use crate::money::Msat;
use crate::nip90::{Answer, EncodeError, SignedEvent};
use crate::provider::Clock;
use crate::relays::{PublishReport, Publisher};
use crate::store::purchases::{Received, Spending};
use crate::wallet::{Payer, Payment, Wallet, WalletError, bolt11};

/// How long the wallet's own word on a payment is waited for once the purchase is over, and the provider's once the
/// payment came back.
const LAST_WORD: Duration = Duration::from_secs(5);

/// The first pause between two questions about a payment in doubt.
const FIRST_QUESTION: Duration = Duration::from_secs(1);

/// The longest such pause: a hold is paid within minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What to buy, and within which limits.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The signed request.
    pub request: SignedEvent,
    /// The providers it names; empty for anybody.
    pub asked: Vec<ProviderId>,
    /// What is allowed.
    pub limits: Limits,
    /// How to choose.
    pub choice: Choice,
    /// The most to be paid in routing fees on top, in percent of the price; see [`fee_limit`].
    pub max_fee_percent: u32,
    /// The network invoices must be of.
    pub network: bitcoin::Network,
}

/// News for whoever watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The request is out.
    Posted(PublishReport),
    /// An offer came in.
    Offered(Offer),
    /// An offer that does not count.
    Passed {
        /// Whose.
        provider: ProviderId,
        /// Why.
        why: String,
    },
    /// This offer was chosen and its invoice is to be paid.
    Chosen(Offer),
    /// Paid.
    Paid {
        /// How much.
        amount: Msat,
        /// Routing fees, if known.
        fees: Option<Msat>,
    },
    /// The payment came back: nothing was paid, for certain.
    Returned {
        /// How much would have been paid.
        amount: Msat,
    },
    /// The provider works on it.
    Working {
        /// Who.
        provider: ProviderId,
        /// Its words.
        text: Option<String>,
        /// Where the job waits for its turn.
        queue: Option<Standing>,
    },
    /// A piece of output.
    Piece(String),
    /// Nobody has answered a request that names nobody.
    Unanswered,
    /// Somebody refused.
    Refused {
        /// Who.
        provider: ProviderId,
        /// Why.
        refusal: Refusal,
        /// Whether they had begun, or were paid to.
        had_begun: bool,
        /// Whether the purchase ends with it.
        is_the_end: bool,
    },
    /// The order is called off: the provider is being told.
    CallingOff,
}

/// What became of the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing was paid, by this side at least.
    NotPaid,
    /// Paid.
    Paid,
    /// It was committed and came back: nothing was paid.
    Returned,
    /// Under way, or nobody knows: it stands in the book and is asked about at the next start.
    InDoubt,
}

/// Why nothing was bought.
#[derive(Debug, thiserror::Error)]
pub enum BuyError {
    /// No relay took the request.
    #[error("no relay accepted the request")]
    NotPosted(PublishReport),
    /// It ended without a result.
    #[error("{ending}{}", match fate {
        Fate::NotPaid => "",
        Fate::Paid => " (paid: the provider owes you the result or credit)",
        Fate::Returned => " (the payment came back: nothing was paid)",
        Fate::InDoubt => " (the payment is still under way or in doubt)",
    })]
    Ended {
        /// How.
        ending: Ending,
        /// What became of the money.
        fate: Fate,
    },
    /// The wallet did not pay, for certain.
    #[error("the payment did not go through: {0}")]
    Payment(WalletError),
    /// Paying was not even tried.
    #[error(transparent)]
    NotBegun(#[from] NotBegun),
    /// It was called off before there was a result.
    #[error("the order was called off")]
    CalledOff(Box<CalledOff>),
    /// The listening side closed.
    #[error("the relays are gone{}", if *fate == Fate::NotPaid { "" } else { " after the payment was begun" })]
    Disconnected {
        /// What became of the money.
        fate: Fate,
    },
}

/// A customer.
#[derive(Clone)]
#[allow(missing_debug_implementations)] // Made of traits.
pub struct Buyer {
    /// The way out.
    pub publisher: Arc<dyn Publisher>,
    /// Pays; without one the invoice is only shown.
    pub wallet: Option<Arc<dyn Wallet>>,
    /// Remembers what was paid, and keeps the budget. Without one nothing is remembered: for play only.
    pub book: Option<Book>,
    /// The time.
    pub clock: Clock,
}

/// An invoice, and what became of paying it.
pub(super) type PaymentEnded = (Offer, Result<Option<Payment>, BuyError>);

/// The payment that is under way, from the buyer's point of view.
#[derive(Default)]
pub(super) struct Money {
    fate: Option<Fate>,
    /// Why it came back, and how long the provider's own words are waited for.
    returned: Option<(WalletError, tokio::time::Instant)>,
}

impl Money {
    pub(super) fn fate(&self) -> Fate {
        self.fate.unwrap_or(Fate::NotPaid)
    }
}

impl Buyer {
    /// Buys. `answers` must already be listening when this is called, so that none is missed.
    ///
    /// Dropping the future stops the purchase at any moment. A payment that was begun by then stands in the book.
    ///
    /// # Errors
    /// [`BuyError`].
    pub async fn buy(
        &self,
        plan: Plan,
        answers: impl Stream<Item = Answer>,
        progress: impl FnMut(Progress),
    ) -> Result<Receipt, BuyError> {
        self.buy_unless(plan, answers, std::future::pending(), progress).await
    }

    /// Buys, unless it is called off: when `called_off` ends, with the cancellation to publish, the provider is told and
    /// what becomes of work and money is waited for, shortly.
    ///
    /// # Errors
    /// [`BuyError`].
    pub async fn buy_unless(
        &self,
        plan: Plan,
        answers: impl Stream<Item = Answer>,
        called_off: impl Future<Output = Result<SignedEvent, EncodeError>>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Receipt, BuyError> {
        let mut answers = pin!(answers);
        let mut called_off = pin!(called_off);
        let job = JobId(plan.request.id.0);
        let mut purchase = Purchase::new(job, plan.asked.clone(), plan.limits.clone(), plan.choice, self.clock.now());
        let mut money = Money::default();
        // From when it is called off on nothing is paid any more that the wallet was not asked for before.
        let too_late = CancellationToken::new();
        // Paying goes on beside listening: a hold invoice is paid only once the result is there.
        let mut paying = FuturesUnordered::new();
        let report = tokio::select! {
            biased;
            cancellation = &mut called_off => {
                // Some relay may have it already.
                let (purchase, money) = (&mut purchase, &mut money);
                return self.call_off(cancellation, purchase, answers, &mut paying, money, &mut progress).await;
            }
            report = self.publisher.publish(&plan.request, &[]) => report,
        };
        if report.accepted() == 0 {
            return Err(BuyError::NotPosted(report));
        }
        progress(Progress::Posted(report));
        loop {
            let wait = purchase.wake_at().duration_since(self.clock.now()).max(SignedDuration::ZERO);
            let wait = Duration::try_from(wait).unwrap_or_default();
            let silence = money.returned.as_ref().map(|(_, until)| *until);
            let steps = tokio::select! {
                // Who calls off is heard before any offer; and who talks without end, last.
                biased;
                cancellation = &mut called_off => {
                    too_late.cancel();
                    let (purchase, money) = (&mut purchase, &mut money);
                    return self
                        .call_off(cancellation, purchase, answers, &mut paying, money, &mut progress)
                        .await;
                }
                Some((offer, payment)) = paying.next() => {
                    self.note(&mut money, &offer, payment, &mut purchase, &mut progress)?;
                    Vec::new()
                }
                () = sleep_until(silence), if silence.is_some() => {
                    let (problem, _) = money.returned.take().expect("only a payment that came back is waited out");
                    return Err(BuyError::Payment(problem));
                }
                () = tokio::time::sleep(wait) => purchase.tick(self.clock.now()),
                answer = answers.next() => {
                    let answer = answer.ok_or(BuyError::Disconnected { fate: money.fate() })?;
                    let now = self.clock.now();
                    let read = |text: &str| {
                        bolt11::read_for_paying(text, plan.network, now).map_err(|problem| problem.to_string())
                    };
                    purchase.hear(answer, now, read)
                }
            };
            for step in steps {
                match step {
                    Step::Offered(offer) => progress(Progress::Offered(offer)),
                    Step::Passed { provider, why } => progress(Progress::Passed { provider, why }),
                    Step::Working { provider, text, queue } => progress(Progress::Working { provider, text, queue }),
                    Step::Piece(text) => progress(Progress::Piece(text)),
                    Step::Unanswered => progress(Progress::Unanswered),
                    Step::Refused { provider, refusal, had_begun, is_the_end } => {
                        progress(Progress::Refused { provider, refusal, had_begun, is_the_end });
                    }
                    Step::Pay(offer) => {
                        progress(Progress::Chosen(offer.clone()));
                        let (plan, too_late) = (&plan, &too_late);
                        paying.push(async move {
                            let paid = self.pay(plan, job, &offer, too_late).await;
                            (offer, paid)
                        });
                        if self.payer().is_some() {
                            money.fate = Some(Fate::InDoubt);
                            purchase.note_paying();
                        }
                    }
                    Step::Done(receipt) => return Ok(self.received(*receipt, &mut paying, &mut progress).await),
                    Step::Over(ending) => {
                        if let Some((offer, payment)) = last_word(&mut paying).await {
                            // What the provider said goes before what the wallet says of the same end.
                            let _ = self.note(&mut money, &offer, payment, &mut purchase, &mut progress);
                        }
                        return Err(BuyError::Ended { ending, fate: money.fate() });
                    }
                }
            }
        }
    }

    /// Takes in the result: with the wallet's word on the payment, and into the book.
    pub(super) async fn received(
        &self,
        mut receipt: Receipt,
        paying: &mut (impl Stream<Item = PaymentEnded> + Unpin),
        progress: &mut impl FnMut(Progress),
    ) -> Receipt {
        // The result of a hold is here before the wallet says so.
        if let Some((offer, Ok(Some(payment)))) = last_word(paying).await {
            receipt.paid = offer.amount;
            progress(Progress::Paid { amount: offer.amount, fees: payment.fees });
        }
        self.keep(&receipt).await;
        receipt
    }

    /// What pays, if anything does.
    pub(super) fn payer(&self) -> Option<&dyn Payer> {
        self.wallet.as_ref().and_then(|wallet| wallet.payer())
    }

    /// Takes in what became of the payment.
    pub(super) fn note(
        &self,
        money: &mut Money,
        offer: &Offer,
        payment: Result<Option<Payment>, BuyError>,
        purchase: &mut Purchase,
        progress: &mut impl FnMut(Progress),
    ) -> Result<(), BuyError> {
        let amount = offer.amount;
        match payment {
            Ok(Some(payment)) => {
                money.fate = Some(Fate::Paid);
                purchase.note_paid();
                progress(Progress::Paid { amount, fees: payment.fees });
                Ok(())
            }
            Ok(None) => Ok(()),
            // A provider that fails gives held money back, and says why: that is worth more than the wallet's words.
            Err(BuyError::Payment(problem @ WalletError::PaymentFailed(_))) if offer.terms == Some(Terms::Hold) => {
                money.fate = Some(Fate::Returned);
                money.returned = Some((problem, tokio::time::Instant::now() + LAST_WORD));
                progress(Progress::Returned { amount });
                Ok(())
            }
            Err(problem) => {
                money.fate = Some(Fate::NotPaid);
                Err(problem)
            }
        }
    }

    /// Pays, if there is a wallet that can, at most once: the book is written before. As long as the wallet's answers leave
    /// open whether money moved, it is asked again; it is never paid again. When it is `too_late` before the wallet is asked,
    /// nothing is paid.
    async fn pay(
        &self,
        plan: &Plan,
        job: JobId,
        offer: &Offer,
        too_late: &CancellationToken,
    ) -> Result<Option<Payment>, BuyError> {
        let Some(payer) = self.payer() else { return Ok(None) };
        if too_late.is_cancelled() {
            return Err(NotBegun::CalledOff.into());
        }
        let spending = Spending {
            payment_hash: offer.payment_hash,
            job,
            provider: offer.provider,
            network: plan.network,
            amount: offer.amount,
            max_fee: fee_limit(offer.amount, plan.max_fee_percent),
            invoice_expires_at: offer.expires_at,
        };
        if let Some(book) = &self.book {
            book.begin(spending, self.clock.now()).await?;
        }
        if too_late.is_cancelled() {
            let word = Word::NotPaid(WalletError::PaymentFailed("the order was called off".into()));
            if let Some(book) = &self.book {
                book.note(&spending, &word, self.clock.now()).await.map_err(NotBegun::Book)?;
            }
            return Err(NotBegun::CalledOff.into());
        }
        let mut word = Word::of_paying(payer.pay(&offer.bolt11, spending.max_fee).await, &offer.payment_hash);
        let mut pause = FIRST_QUESTION;
        loop {
            if word == Word::Open {
                word = Word::of_asking(payer.payment(&offer.payment_hash).await, &offer.payment_hash);
            }
            if let Some(book) = &self.book
                && let Err(problem) = book.note(&spending, &word, self.clock.now()).await
            {
                warn!(%problem, "What became of a payment could not be written down; it is asked about at the next start");
            }
            match word {
                Word::Paid(payment) => return Ok(Some(payment)),
                Word::NotPaid(problem) => return Err(BuyError::Payment(problem)),
                Word::Open => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn keep(&self, receipt: &Receipt) {
        let Some(book) = &self.book else { return };
        let told = &receipt.result.receipt;
        let received = Received {
            job: receipt.job,
            provider: receipt.provider,
            result: receipt.event,
            at: self.clock.now(),
            cost: told.paid,
            credit: told.credit,
        };
        if let Err(problem) = book.purchases.keep_receipt(received).await {
            warn!(%problem, "The receipt could not be kept");
        }
    }
}

/// What the payment under way ends with, if it does so soon.
async fn last_word<T>(paying: &mut (impl Stream<Item = T> + Unpin)) -> Option<T> {
    tokio::time::timeout(LAST_WORD, paying.next()).await.ok().flatten()
}

async fn sleep_until(until: Option<tokio::time::Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
