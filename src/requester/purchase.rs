//! The buying side's decisions. Pure: fed answers and the time, it says what to do next.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::job::id::{EventId, PaymentHash, ProviderId};
use crate::job::queue::Standing;
use crate::job::{Failure, JobId, Refusal, Terms};
use crate::money::Msat;
use crate::nip90::{Answer, AnswerBody, Feedback, JobResult, Status};

/// What the customer allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The most to be paid for the job.
    pub max_cost: Msat,
    /// How long offers are collected after the first one, when the request went to anybody.
    pub offer_window: SignedDuration,
    /// How long the whole purchase may take.
    pub timeout: SignedDuration,
}

/// How to choose among offers within the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// The lowest price; the first of equals.
    #[default]
    Cheapest,
    /// The first that fits.
    First,
}

/// A provider's offer: an invoice that was read and found to be what the provider said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Whose.
    pub provider: ProviderId,
    /// What is to be paid.
    pub amount: Msat,
    /// The invoice.
    pub bolt11: String,
    /// What the payment is matched by.
    pub payment_hash: PaymentHash,
    /// When it can no longer be paid.
    pub expires_at: Timestamp,
    /// The terms, when the provider names them.
    pub terms: Option<Terms>,
    /// The provider's words.
    pub text: Option<String>,
}

/// What the customer has at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The request.
    pub job: JobId,
    /// Who did it.
    pub provider: ProviderId,
    /// The result event.
    pub event: EventId,
    /// What was paid by this purchase.
    pub paid: Msat,
    /// What the invoice asks that was chosen to be paid, by whomever; `None` where there was none.
    pub invoice: Option<Msat>,
    /// The result.
    pub result: JobResult,
}

impl Receipt {
    /// Whether it was paid from the customer's credit alone: it cost something, and there was no invoice.
    pub fn is_from_credit(&self) -> bool {
        self.invoice.is_none() && self.result.receipt.paid.is_some_and(|cost| !cost.is_zero())
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Show an offer that came in.
    Offered(Offer),
    /// An offer that is not taken into account, and why.
    Passed {
        /// Whose.
        provider: ProviderId,
        /// Why.
        why: String,
    },
    /// Pay this one (or show it to be paid). Comes at most once.
    Pay(Offer),
    /// A provider says it is working.
    Working {
        /// Which.
        provider: ProviderId,
        /// Its words.
        text: Option<String>,
        /// Where the job waits for its turn.
        queue: Option<Standing>,
    },
    /// A piece of output, in order, none twice.
    Piece(String),
    /// Nobody has said anything yet to a request that names nobody. Comes at most once.
    Unanswered,
    /// A provider will not do it.
    Refused {
        /// Which.
        provider: ProviderId,
        /// Why.
        refusal: Refusal,
        /// Whether they had begun, or were chosen to.
        had_begun: bool,
        /// Whether the purchase ends with it, and for no other reason.
        is_the_end: bool,
    },
    /// The end: here it is.
    Done(Box<Receipt>),
    /// The end: no result.
    Over(Ending),
}

/// Why a purchase ended without a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    /// Every provider asked refused.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The chosen provider failed after it was chosen.
    #[error("the provider failed: {0}")]
    Failed(Refusal),
    /// Nobody offered it within the limit.
    #[error("the cheapest offer is {cheapest}, above your limit of {limit}")]
    TooDear {
        /// The cheapest.
        cheapest: Msat,
        /// The limit.
        limit: Msat,
    },
    /// Nobody answered in time.
    #[error("no provider answered in time")]
    NoOffer,
    /// Somebody was chosen, but no result came in time.
    #[error("the provider sent no result in time")]
    NoResult,
    /// The invoice's time is over and it was not paid.
    #[error("the invoice expired unpaid")]
    InvoiceExpired,
}

/// A purchase under way.
#[derive(Debug, Clone)]
pub struct Purchase {
    job: JobId,
    /// The providers the request names; empty when it went to anybody.
    asked: Vec<ProviderId>,
    limits: Limits,
    choice: Choice,
    began: Timestamp,
    first_offer: Option<Timestamp>,
    offers: BTreeMap<ProviderId, Offer>,
    too_dear: Option<Msat>,
    refused: BTreeMap<ProviderId, Refusal>,
    chosen: Option<Offer>,
    paid: bool,
    /// This side pays by itself: then only the wallet's word, not the invoice's expiry, says that it was not paid.
    paying: bool,
    /// The chosen provider has begun: it has the payment, whoever made it.
    begun: bool,
    /// Who said that they are at work.
    working: BTreeSet<ProviderId>,
    next_piece: u32,
    pieces: BTreeMap<u32, String>,
    /// That nobody answers was said.
    told_unanswered: bool,
    /// The customer does not want it any more.
    called_off: bool,
    over: bool,
}

/// How long a request that names nobody may meet with silence before that is said: providers offer within seconds.
const UNANSWERED_AFTER: SignedDuration = SignedDuration::from_secs(15);

/// Pieces of partial output kept while an earlier one is missing.
const MOST_EARLY_PIECES: usize = 256;

impl Purchase {
    /// A purchase of a request that is out.
    pub fn new(job: JobId, asked: Vec<ProviderId>, limits: Limits, choice: Choice, began: Timestamp) -> Self {
        Self {
            job,
            asked,
            limits,
            choice,
            began,
            first_offer: None,
            offers: BTreeMap::new(),
            too_dear: None,
            refused: BTreeMap::new(),
            chosen: None,
            paid: false,
            paying: false,
            begun: false,
            working: BTreeSet::new(),
            next_piece: 0,
            pieces: BTreeMap::new(),
            told_unanswered: false,
            called_off: false,
            over: false,
        }
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The offer that was chosen, if one was.
    pub fn chosen(&self) -> Option<&Offer> {
        self.chosen.as_ref()
    }

    /// The customer does not want it any more: no offer counts from here on. A result that comes all the same still does,
    /// for it may be paid.
    pub fn call_off(&mut self) {
        self.called_off = true;
    }

    /// Whether somebody may be at work on it: their word on a cancellation is worth waiting for. Whoever made an offer that
    /// was not taken waits for a payment.
    pub fn may_be_at_work(&self) -> bool {
        let silent = |asked: &ProviderId| !self.offers.contains_key(asked) && !self.refused.contains_key(asked);
        !self.over && (self.chosen.is_some() || !self.working.is_empty() || self.asked.iter().any(silent))
    }

    /// Whether somebody began without an invoice: it is free, or runs on the customer's credit, or is paid afterwards.
    pub fn runs_without_an_invoice(&self) -> bool {
        self.chosen.is_none() && self.offers.is_empty() && !self.working.is_empty()
    }

    /// Whether somebody made an offer that counts.
    pub fn has_an_offer(&self) -> bool {
        !self.offers.is_empty()
    }

    /// When [`Purchase::tick`] has something to decide at the latest.
    pub fn wake_at(&self) -> Timestamp {
        let end = later(self.began, self.limits.timeout);
        match (&self.chosen, self.first_offer) {
            (Some(offer), _) if self.waits_for_payment() => end.min(later(offer.expires_at, INVOICE_GRACE)),
            (None, Some(first)) => end.min(later(first, self.limits.offer_window)),
            (None, None) if self.is_unanswered() => end.min(later(self.began, UNANSWERED_AFTER)),
            _ => end,
        }
    }

    /// Whether a request that names nobody has met with silence, and that was not said yet.
    fn is_unanswered(&self) -> bool {
        let somebody_spoke = self.first_offer.is_some() || !self.refused.is_empty() || !self.working.is_empty();
        self.asked.is_empty() && !somebody_spoke && !self.told_unanswered && !self.called_off
    }

    /// The payment is being made. What is held can last longer than the time to pay.
    pub fn note_paying(&mut self) {
        self.paying = true;
    }

    /// The payment went through.
    pub fn note_paid(&mut self) {
        self.paid = true;
    }

    /// Hears an answer. `read` reads an invoice for paying (network, expiry, signature).
    pub fn hear(
        &mut self,
        answer: Answer,
        now: Timestamp,
        read: impl FnOnce(&str) -> Result<crate::wallet::PayableInvoice, String>,
    ) -> Vec<Step> {
        let provider = answer.provider;
        // Answers of others than those asked are somebody's attempt to be paid for another's work.
        let foreign = !self.asked.is_empty() && !self.asked.contains(&provider);
        let other = self.chosen.as_ref().is_some_and(|offer| offer.provider != provider);
        if self.over || answer.job != self.job || foreign || other {
            return Vec::new();
        }
        // Once there is an offer, only those who made one are listened to for results: a stranger's empty result must not
        // end the purchase.
        let idle = self.chosen.is_none() && !self.offers.is_empty() && !self.offers.contains_key(&provider);
        match answer.body {
            AnswerBody::Result(_) if idle => Vec::new(),
            AnswerBody::Result(result) => {
                self.over = true;
                let paid = self.chosen.as_ref().filter(|_| self.paid).map_or(Msat::ZERO, |offer| offer.amount);
                let invoice = self.chosen.as_ref().map(|offer| offer.amount);
                let receipt = Receipt { job: self.job, provider, event: answer.id, paid, invoice, result };
                vec![Step::Done(Box::new(receipt))]
            }
            AnswerBody::Feedback(feedback) => self.hear_feedback(provider, feedback, now, read),
        }
    }

    fn hear_feedback(
        &mut self,
        provider: ProviderId,
        feedback: Feedback,
        now: Timestamp,
        read: impl FnOnce(&str) -> Result<crate::wallet::PayableInvoice, String>,
    ) -> Vec<Step> {
        if matches!(feedback.status, Status::Processing | Status::Partial) {
            self.working.insert(provider);
            self.begun |= self.chosen.is_some();
        }
        match feedback.status {
            Status::PaymentRequired if self.called_off => Vec::new(),
            Status::PaymentRequired if self.chosen.is_none() => match self.consider(provider, &feedback, read) {
                Ok(offer) => {
                    self.first_offer.get_or_insert(now);
                    self.offers.entry(provider).or_insert_with(|| offer.clone());
                    let mut steps = vec![Step::Offered(offer)];
                    if self.choice == Choice::First || self.everybody_answered() {
                        steps.extend(self.choose(now));
                    }
                    steps
                }
                Err(why) => {
                    // An answer all the same, if not a usable one.
                    let refusal =
                        Refusal::new(crate::job::Code::BadRequest, format!("its invoice is not usable: {why}"));
                    self.refused.entry(provider).or_insert(refusal);
                    let mut steps = vec![Step::Passed { provider, why }];
                    if self.everybody_answered() && self.offers.is_empty() {
                        steps.extend(self.give_up_choosing());
                    }
                    steps
                }
            },
            Status::PaymentRequired | Status::Success | Status::Pong => Vec::new(),
            Status::Processing => vec![Step::Working { provider, text: feedback.text, queue: feedback.queue }],
            Status::Partial => self.piece(feedback),
            Status::Error => {
                let refusal = refusal_of(feedback);
                let had_begun = self.chosen.is_some() || self.working.contains(&provider);
                self.offers.remove(&provider);
                self.refused.insert(provider, refusal.clone());
                // Without an invoice (free, or covered by credit) whoever began is who was chosen.
                let next = if self.chosen.is_some() || had_begun && self.offers.is_empty() {
                    vec![self.end(Ending::Failed(refusal.clone()))]
                } else if !self.everybody_answered() {
                    Vec::new()
                } else if self.offers.is_empty() {
                    self.give_up_choosing()
                } else {
                    self.choose(now)
                };
                let is_the_end = next.iter().any(|step| match step {
                    Step::Over(Ending::Failed(reason) | Ending::Refused(reason)) => *reason == refusal,
                    _ => false,
                });
                let mut steps = vec![Step::Refused { provider, refusal, had_begun, is_the_end }];
                steps.extend(next);
                steps
            }
        }
    }

    /// Looks at the clock.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Step> {
        if self.over {
            return Vec::new();
        }
        if now >= later(self.began, self.limits.timeout) {
            let ending = match (&self.chosen, self.paid) {
                (Some(_), _) => Ending::NoResult,
                (None, _) => return self.give_up_choosing(),
            };
            return vec![self.end(ending)];
        }
        match (&self.chosen, self.first_offer) {
            (Some(offer), _) if self.waits_for_payment() && now >= later(offer.expires_at, INVOICE_GRACE) => {
                vec![self.end(Ending::InvoiceExpired)]
            }
            (None, Some(first)) if now >= later(first, self.limits.offer_window) => self.choose(now),
            (None, None) if self.is_unanswered() && now >= later(self.began, UNANSWERED_AFTER) => {
                self.told_unanswered = true;
                vec![Step::Unanswered]
            }
            _ => Vec::new(),
        }
    }

    /// An offer, if the invoice says what the provider says and it is within the limit.
    fn consider(
        &mut self,
        provider: ProviderId,
        feedback: &Feedback,
        read: impl FnOnce(&str) -> Result<crate::wallet::PayableInvoice, String>,
    ) -> Result<Offer, String> {
        let amount = feedback.amount.as_ref().ok_or("it asks for payment without an amount")?;
        let bolt11 = amount.bolt11.as_deref().ok_or("it asks for payment without an invoice")?;
        let invoice = read(bolt11)?;
        if invoice.amount != amount.amount {
            return Err(format!("it says {} and its invoice asks {}", amount.amount, invoice.amount));
        }
        if invoice.amount > self.limits.max_cost {
            self.too_dear = Some(self.too_dear.map_or(invoice.amount, |least| least.min(invoice.amount)));
            // An offer over the limit is an answer all the same.
            let refusal = crate::job::admission::too_dear(invoice.amount);
            self.refused.insert(provider, refusal);
            return Err(format!("{} is above your limit of {}", invoice.amount, self.limits.max_cost));
        }
        Ok(Offer {
            provider,
            amount: invoice.amount,
            bolt11: invoice.bolt11,
            payment_hash: invoice.payment_hash,
            expires_at: invoice.expires_at,
            terms: feedback.terms,
            text: feedback.text.clone(),
        })
    }

    /// Somebody else is to pay, and may not have.
    fn waits_for_payment(&self) -> bool {
        !self.paid && !self.paying && !self.begun
    }

    fn everybody_answered(&self) -> bool {
        !self.asked.is_empty()
            && self.asked.iter().all(|asked| self.offers.contains_key(asked) || self.refused.contains_key(asked))
    }

    fn choose(&mut self, now: Timestamp) -> Vec<Step> {
        if self.called_off {
            return Vec::new();
        }
        let best =
            self.offers.values().filter(|offer| offer.expires_at > now).min_by_key(|offer| offer.amount).cloned();
        match best {
            Some(offer) => {
                self.chosen = Some(offer.clone());
                vec![Step::Pay(offer)]
            }
            None => self.give_up_choosing(),
        }
    }

    fn give_up_choosing(&mut self) -> Vec<Step> {
        let ending = match (self.too_dear, self.refused.values().next()) {
            (Some(cheapest), _) => Ending::TooDear { cheapest, limit: self.limits.max_cost },
            (None, Some(refusal)) => Ending::Refused(refusal.clone()),
            (None, None) => Ending::NoOffer,
        };
        vec![self.end(ending)]
    }

    fn end(&mut self, ending: Ending) -> Step {
        self.over = true;
        Step::Over(ending)
    }

    /// Puts pieces in order: relays keep none.
    fn piece(&mut self, feedback: Feedback) -> Vec<Step> {
        let seq = feedback.seq.unwrap_or(self.next_piece);
        if seq < self.next_piece || self.pieces.len() >= MOST_EARLY_PIECES {
            return Vec::new();
        }
        self.pieces.insert(seq, feedback.content);
        let mut steps = Vec::new();
        while let Some(text) = self.pieces.remove(&self.next_piece) {
            self.next_piece += 1;
            steps.push(Step::Piece(text));
        }
        steps
    }
}

/// An error as the provider tells it, with the log that goes with it. Some providers put their reason where the log belongs.
fn refusal_of(feedback: Feedback) -> Refusal {
    let code = feedback.code.unwrap_or(crate::job::Code::Backend);
    let text = feedback.text.unwrap_or_else(|| "no reason given".into());
    let log = if feedback.content.trim() == text { String::new() } else { feedback.content };
    // Bounded like one of ours, whoever wrote it.
    Failure::new(code, text).with_log(log).into()
}

/// How long after an invoice's expiry a payment at the last moment may still be answered.
const INVOICE_GRACE: SignedDuration = SignedDuration::from_secs(10);

fn later(at: Timestamp, span: SignedDuration) -> Timestamp {
    at.checked_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
