//! Calling an order off: the provider is told (NIP-09), and for a while it is heard what becomes of the work and the money.

use std::pin::{Pin, pin};
use std::time::Duration;

use futures::{Stream, StreamExt};
use tracing::warn;

use super::buyer::{BuyError, Buyer, Fate, Money, PaymentEnded, Progress};
use super::purchase::{Purchase, Step};
use crate::job::Refusal;
use crate::money::Msat;
use crate::nip90::{Answer, EncodeError, SignedEvent};
use crate::relays::PublishReport;

/// How long a relay's, the provider's and the wallet's word on a cancellation is waited for, in all.
const CALLING_OFF_PATIENCE: Duration = Duration::from_secs(8);

/// How an order ended that was called off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalledOff {
    /// Relays that took the cancellation within the time.
    pub taken: usize,
    /// The provider's word on it.
    pub word: Option<Refusal>,
    /// Whether somebody may be at work on it who has not said a word.
    pub may_be_at_work: bool,
    /// What the invoice asks that was chosen to be paid.
    pub amount: Option<Msat>,
    /// Whether that invoice was shown, to be paid by somebody else.
    pub was_shown: bool,
    /// Whether somebody was at work without an invoice: for nothing, or on the customer's credit.
    pub without_an_invoice: bool,
    /// What became of the money.
    pub fate: Fate,
}

impl Buyer {
    /// Calls off what was ordered, and waits for what can be known soon. What the wallet says of the payment meanwhile stands
    /// in the book; what it has not said by the end is in doubt there, and asked about at the next start.
    ///
    /// # Errors
    /// [`BuyError::CalledOff`]; unless the result came all the same.
    pub(super) async fn call_off(
        &self,
        cancellation: Result<SignedEvent, EncodeError>,
        purchase: &mut Purchase,
        mut answers: Pin<&mut impl Stream<Item = Answer>>,
        paying: &mut (impl Stream<Item = PaymentEnded> + Unpin),
        money: &mut Money,
        progress: &mut impl FnMut(Progress),
    ) -> Result<super::Receipt, BuyError> {
        purchase.call_off();
        let was_offered = purchase.has_an_offer();
        progress(Progress::CallingOff);
        let mut telling = pin!(self.tell(cancellation));
        let mut taken = None;
        let mut word = None;
        let until = tokio::time::Instant::now() + CALLING_OFF_PATIENCE;
        // Whom no relay tells has no word on it.
        while taken.is_none() || taken != Some(0) && purchase.may_be_at_work() || money.fate() == Fate::InDoubt {
            tokio::select! {
                report = &mut telling, if taken.is_none() => taken = Some(report.accepted()),
                answer = answers.next() => {
                    let Some(answer) = answer else { break };
                    let unread = |_: &str| Err("it was called off".to_owned());
                    for step in purchase.hear(answer, self.clock.now(), unread) {
                        match step {
                            Step::Done(receipt) => return Ok(self.received(*receipt, paying, progress).await),
                            Step::Refused { refusal, .. } => word = Some(refusal),
                            _ => {}
                        }
                    }
                }
                Some((offer, payment)) = paying.next() => {
                    // What became of it is all that counts now.
                    let _ = self.note(money, &offer, payment, purchase, progress);
                }
                () = tokio::time::sleep_until(until) => break,
            }
        }
        let amount = purchase.chosen().map(|offer| offer.amount);
        Err(BuyError::CalledOff(Box::new(CalledOff {
            taken: taken.unwrap_or(0),
            // Whoever answers without having asked for a payment had begun.
            without_an_invoice: purchase.runs_without_an_invoice() || word.is_some() && !was_offered,
            may_be_at_work: word.is_none() && purchase.may_be_at_work(),
            word,
            amount,
            was_shown: amount.is_some() && self.payer().is_none(),
            fate: money.fate(),
        })))
    }

    async fn tell(&self, cancellation: Result<SignedEvent, EncodeError>) -> PublishReport {
        match cancellation {
            Ok(event) => self.publisher.publish(&event, &[]).await,
            Err(problem) => {
                warn!(%problem, "The cancellation could not be signed");
                PublishReport::default()
            }
        }
    }
}
