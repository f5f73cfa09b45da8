//! Does what [`super::purchase`] decides: publishes, listens, pays.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use jiff::SignedDuration;

use super::purchase::{Choice, Ending, Limits, Offer, Purchase, Receipt, Step};
use crate::job::id::ProviderId;
use crate::job::{JobId, Refusal};
use crate::money::Msat;
use crate::nip90::{Answer, SignedEvent};
use crate::provider::Clock;
use crate::relays::{PublishReport, Publisher};
use crate::wallet::{Payment, Wallet, WalletError, bolt11};

/// How long the wallet's own word on a payment is waited for once the result is there.
const LAST_WORD: Duration = Duration::from_secs(5);

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
    /// The most to be paid in routing fees on top.
    pub max_fee: Msat,
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
    /// The provider works on it.
    Working {
        /// Who.
        provider: ProviderId,
        /// Its words.
        text: Option<String>,
    },
    /// A piece of output.
    Piece(String),
    /// Somebody refused.
    Refused {
        /// Who.
        provider: ProviderId,
        /// Why.
        refusal: Refusal,
    },
}

/// Why nothing was bought.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuyError {
    /// No relay took the request.
    #[error("no relay accepted the request")]
    NotPosted(PublishReport),
    /// It ended without a result.
    #[error("{ending}{}", if *paid { " (paid: the provider owes you the result or credit)" } else { "" })]
    Ended {
        /// How.
        ending: Ending,
        /// Whether it was paid before.
        paid: bool,
    },
    /// The wallet did not pay.
    #[error("the payment did not go through: {0}")]
    Payment(WalletError),
    /// The listening side closed.
    #[error("the relays are gone")]
    Disconnected,
}

/// A customer.
#[derive(Clone)]
#[allow(missing_debug_implementations)] // Made of traits.
pub struct Buyer {
    /// The way out.
    pub publisher: Arc<dyn Publisher>,
    /// Pays; without one the invoice is only shown.
    pub wallet: Option<Arc<dyn Wallet>>,
    /// The time.
    pub clock: Clock,
}

impl Buyer {
    /// Buys. `answers` must already be listening when this is called, so that none is missed.
    ///
    /// # Errors
    /// [`BuyError`].
    pub async fn buy(
        &self,
        plan: Plan,
        answers: impl Stream<Item = Answer>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Receipt, BuyError> {
        let mut answers = pin!(answers);
        let job = JobId(plan.request.id.0);
        let mut purchase = Purchase::new(job, plan.asked.clone(), plan.limits.clone(), plan.choice, self.clock.now());
        let report = self.publisher.publish(&plan.request, &[]).await;
        if report.accepted() == 0 {
            return Err(BuyError::NotPosted(report));
        }
        progress(Progress::Posted(report));
        let mut paid = false;
        // Paying goes on beside listening: a hold invoice is paid only once the result is there.
        let mut paying = FuturesUnordered::new();
        loop {
            let wait = purchase.wake_at().duration_since(self.clock.now()).max(SignedDuration::ZERO);
            let wait = Duration::try_from(wait).unwrap_or_default();
            let steps = tokio::select! {
                answer = answers.next() => {
                    let answer = answer.ok_or(BuyError::Disconnected)?;
                    let now = self.clock.now();
                    let read = |text: &str| {
                        bolt11::read_for_paying(text, plan.network, now).map_err(|problem| problem.to_string())
                    };
                    purchase.hear(answer, now, read)
                }
                Some((amount, payment)) = paying.next() => {
                    let payment: Option<Payment> = payment?;
                    if let Some(payment) = payment {
                        paid = true;
                        purchase.note_paid();
                        progress(Progress::Paid { amount, fees: payment.fees });
                    }
                    Vec::new()
                }
                () = tokio::time::sleep(wait) => purchase.tick(self.clock.now()),
            };
            for step in steps {
                match step {
                    Step::Offered(offer) => progress(Progress::Offered(offer)),
                    Step::Passed { provider, why } => progress(Progress::Passed { provider, why }),
                    Step::Working { provider, text } => progress(Progress::Working { provider, text }),
                    Step::Piece(text) => progress(Progress::Piece(text)),
                    Step::Refused { provider, refusal } => progress(Progress::Refused { provider, refusal }),
                    Step::Pay(offer) => {
                        progress(Progress::Chosen(offer.clone()));
                        let max_fee = plan.max_fee;
                        paying.push(async move { (offer.amount, self.pay(&offer, max_fee).await) });
                    }
                    Step::Done(mut receipt) => {
                        // The result of a hold is here before the wallet says so.
                        if let Some((amount, Ok(Some(payment)))) =
                            tokio::time::timeout(LAST_WORD, paying.next()).await.ok().flatten()
                        {
                            receipt.paid = amount;
                            progress(Progress::Paid { amount, fees: payment.fees });
                        }
                        return Ok(*receipt);
                    }
                    Step::Over(ending) => return Err(BuyError::Ended { ending, paid }),
                }
            }
        }
    }

    /// Pays, if there is a wallet that can. After an answer that leaves it open whether money moved, the wallet is asked
    /// what became of the payment; it is never made again.
    async fn pay(&self, offer: &Offer, max_fee: Msat) -> Result<Option<Payment>, BuyError> {
        let Some(payer) = self.wallet.as_ref().and_then(|wallet| wallet.payer()) else { return Ok(None) };
        match payer.pay(&offer.bolt11, max_fee).await {
            Ok(payment) => Ok(Some(payment)),
            Err(problem) if problem.is_definitive() => Err(BuyError::Payment(problem)),
            // In doubt: the result tells. It may well have been paid.
            Err(problem) => match payer.payment(&offer.payment_hash).await {
                Ok(Some(payment)) => Ok(Some(payment)),
                Ok(None) => Ok(None),
                // Only this says of the payment, not of the question, that it failed.
                Err(WalletError::PaymentFailed(_)) => Err(BuyError::Payment(problem)),
                Err(_) => Ok(None),
            },
        }
    }
}
