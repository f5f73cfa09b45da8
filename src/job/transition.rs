//! The heart: what a fact makes of a job. Pure: same job, same fact, same time, same answer.
//!
//! | fact | when | work | payment | money | to do |
//! |---|---|---|---|---|---|
//! | opened | free | Running | Free | | run |
//! | | credit covers it | Running | Covered | credit → escrow | run |
//! | | postpay | Running | Deferred | credit → escrow | run |
//! | | prepay, hold | Waiting | Invoicing | credit → escrow | issue invoice |
//! | invoice-issued | Invoicing | | Awaiting | | publish payment-required |
//! | invoice-refused | Invoicing | Failed | Void | escrow → credit | publish error |
//! | payment-settled | Waiting | Running | Settled | wallet → escrow | run |
//! | | Waiting, too little or too late | Failed, Expired | Settled | wallet → escrow → credit | publish error |
//! | | Expired by the invoice, still wanted | Running | Settled | wallet → escrow | run |
//! | | Finished | | Settled | wallet → escrow → income, rest → credit | publish result |
//! | | Running (the wallet settled a hold early) | | Settled | wallet → escrow | |
//! | | over | | Settled | wallet → escrow → credit | |
//! | | Settled by a zap | | | wallet → credit | |
//! | payment-held | Waiting | Running | Held | | run |
//! | | Waiting, too little or too late | Failed, Expired | Releasing | escrow → credit | cancel hold, publish error |
//! | | over | | Releasing | | cancel hold |
//! | | Settled by a zap | | | | cancel hold |
//! | hold-released | Releasing | | Released | | |
//! | | Held, Settling | Failed | Released | escrow → credit | stop run, publish error |
//! | zapped | Waiting | Running | Settled | purse → escrow | run, hold: cancel hold |
//! | | Waiting, too late | Expired | Void | escrow → credit, purse → credit | publish error |
//! | | Expired by the invoice, still wanted | Running | Settled | purse → escrow | run, hold: cancel hold |
//! | | Finished and awaiting | | Settled | purse → escrow → income, rest → credit | publish result |
//! | | too little; held or settled already; over | | | purse → credit | |
//! | lapsed | Waiting | Expired | Void | escrow → credit | |
//! | | Finished, postpay | Expired | Void | escrow → credit | |
//! | run-finished | Free, Covered, Settled | Finished | | escrow → income, rest → credit | publish result |
//! | | Held | Finished | Settling | | settle hold |
//! | | Deferred, credit covers it | Finished | Covered | escrow → income, rest → credit | publish result |
//! | | Deferred | Finished | Invoicing | | issue invoice |
//! | run-failed | Free | Failed | | | publish error |
//! | | Covered, Settled, Deferred | Failed | (Deferred: Void) | escrow → credit | publish error |
//! | | Covered, Settled; by the time limit, part was shown | Failed | | escrow → income for that part, rest → credit | publish error |
//! | | Held | Failed | Releasing | escrow → credit | cancel hold, publish error |
//! | cancelled | Waiting, Running, Finished and not yet settled | Cancelled | as run-failed | escrow → credit | stop run, publish error |
//! | | Running; by the customer, Covered or Settled, part was shown | Cancelled | | escrow → income for that part, rest → credit | stop run, publish error |
//! | result-published | Finished | Delivered | | | |
//! | result-undeliverable | Finished | Failed | | income → credit | |
//!
//! A zap's purse is our wallet, or the one behind our lightning address. A zap of too little changes nothing about the job:
//! strangers can zap, and must not be able to fail a customer's job. With `hold` terms a zap withdraws the hold invoice, so
//! that nobody pays twice.
//!
//! A customer who was shown a part of the output (`partial` feedback) pays for that part when they call the job off, or when
//! it runs into the time limit: the tokens of the prompt, where they were counted exactly, and those shown, by the price list,
//! at most the quote. Otherwise output could be had for nothing by cancelling before the last word. When the failure is ours,
//! or the operator cancels, nothing is charged whatever was shown. Only money that is ours already is taken for it, and only
//! then is anything shown.
//!
//! A fact that comes again, or too late to matter, changes nothing. A fact that cannot be (a run finishing that was never
//! begun) is an [`IllegalMove`]: a defect, or a wallet that lies.

use jiff::Timestamp;

use super::effect::{Effect, EffectKey, Notice};
use super::event::JobEvent;
use super::outcome::{Failure, Usage};
use super::quote::{Quote, QuoteDraft, Terms};
use super::refusal::{Code, Refusal};
use super::request::JobRequest;
use super::state::{Job, PaidBy, PaymentState, WorkState};
use crate::ledger::{Account, Entry, Reason};
use crate::money::Msat;

/// What a decision needs to know besides the job: read in the same transaction that stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The time.
    pub now: Timestamp,
    /// The customer's credit.
    pub credit: Msat,
    /// Free jobs the customer had today.
    pub free_jobs_today: u32,
}

/// A move: the job afterwards, the money moved, and what is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The job afterwards.
    pub job: Job,
    /// To be done, in order.
    pub effects: Vec<Effect>,
    /// No longer to be done: done, or overtaken.
    pub settled_effects: Vec<EffectKey>,
    /// Money moved.
    pub entries: Vec<Entry>,
    /// Whether the fact changed the job. A repeated fact changes nothing.
    pub changed: bool,
}

/// A fact that cannot be true of a job in that state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{event}' cannot happen to a job whose work is {} and whose payment is {}", work.word(), payment.word())]
pub struct IllegalMove {
    /// How far the work was.
    pub work: WorkState,
    /// Where the money was.
    pub payment: PaymentState,
    /// The fact's name.
    pub event: &'static str,
}

/// The job costs more than the customer bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the price is {price}, above the bid")]
pub struct TooDear {
    /// What it costs.
    pub price: Msat,
}

impl Job {
    /// Opens a job from a draft quote: the first rows of the table.
    ///
    /// # Errors
    /// [`TooDear`] when the job costs more than the customer bid.
    pub fn open(request: &JobRequest, draft: &QuoteDraft, context: &Context) -> Result<Transition, TooDear> {
        let quote = Quote::from_draft(draft, context.credit, context.free_jobs_today, context.now);
        // What is asked, rounding included.
        let asked = quote.credit.saturating_add(quote.due);
        if request.bid.is_some_and(|bid| bid < asked) {
            return Err(TooDear { price: asked });
        }
        let (work, payment) = match quote.terms {
            Terms::Free => (WorkState::Running, PaymentState::Free),
            _ if quote.due.is_zero() => (WorkState::Running, PaymentState::Covered),
            Terms::Postpay => (WorkState::Running, PaymentState::Deferred),
            Terms::Prepay | Terms::Hold => (WorkState::Waiting, PaymentState::Invoicing),
        };
        let reserved = quote.credit;
        let due = quote.due;
        let job = Self {
            id: request.id,
            customer: request.customer,
            kind: request.kind,
            work,
            payment,
            quote,
            expires_at: request.expires_at,
            invoice: None,
            escrow: Msat::ZERO,
            paid_by: PaidBy::default(),
            paid: Msat::ZERO,
            cost: None,
            credited: Msat::ZERO,
            usage: None,
            shown: None,
            failure: None,
            cancelled_by: None,
            opened_at: context.now,
            changed_at: context.now,
        };
        let mut next = Move::of(job, context.now);
        next.reserve(reserved);
        match work {
            WorkState::Waiting => next.then(Effect::IssueInvoice { amount: due }),
            _ => next.begin(),
        }
        Ok(next.done())
    }

    /// What `event` makes of this job at `now`.
    ///
    /// # Errors
    /// [`IllegalMove`] for a fact that cannot be true of a job in this state.
    pub fn apply(&self, event: &JobEvent, now: Timestamp) -> Result<Transition, IllegalMove> {
        let mut next = Move::of(self.clone(), now);
        let legal = match event {
            JobEvent::InvoiceIssued(invoice) => next.invoice_issued(invoice),
            JobEvent::InvoiceRefused => next.invoice_refused(),
            JobEvent::PaymentSettled { amount } => next.payment_settled(*amount),
            JobEvent::PaymentHeld { amount } => next.payment_held(*amount),
            JobEvent::HoldReleased => next.hold_released(),
            JobEvent::Zapped { amount, purse } => next.zapped(*amount, *purse),
            JobEvent::Lapsed => next.lapsed(),
            JobEvent::RunFinished { usage } => next.run_finished(*usage),
            JobEvent::RunFailed { failure, shown } => next.run_failed(failure, *shown),
            JobEvent::Cancelled { by, shown } => next.cancelled(*by, *shown),
            JobEvent::ResultPublished => next.result_published(),
            JobEvent::ResultUndeliverable => next.result_undeliverable(),
            JobEvent::NoticeDone(key) => {
                next.settled_effects.push(*key);
                true
            }
        };
        if legal {
            let mut transition = next.done();
            transition.changed = transition.job != *self;
            if transition.changed {
                transition.job.changed_at = now;
            }
            Ok(transition)
        } else {
            Err(IllegalMove { work: self.work, payment: self.payment, event: event.name() })
        }
    }
}

/// A move in the making. Each method is a row of the table and answers whether the fact was possible.
struct Move {
    job: Job,
    now: Timestamp,
    effects: Vec<Effect>,
    settled_effects: Vec<EffectKey>,
    entries: Vec<Entry>,
}

impl Move {
    fn of(job: Job, now: Timestamp) -> Self {
        Self { job, now, effects: Vec::new(), settled_effects: Vec::new(), entries: Vec::new() }
    }

    fn done(self) -> Transition {
        Transition {
            job: self.job,
            effects: self.effects,
            settled_effects: self.settled_effects,
            entries: self.entries,
            changed: true,
        }
    }

    fn then(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn no_longer(&mut self, key: EffectKey) {
        self.settled_effects.push(key);
    }

    fn tell(&mut self, code: Code, text: impl Into<String>) {
        self.then(Effect::Publish(Notice::Error(Refusal::new(code, text))));
    }

    // What several rows have in common.

    /// Starts the work and says so.
    fn begin(&mut self) {
        self.then(Effect::Run);
        self.then(Effect::Publish(Notice::Processing));
    }

    /// Ends the work with a reason the customer hears.
    fn fail(&mut self, failure: Failure) {
        self.job.work = WorkState::Failed;
        self.then(Effect::Publish(Notice::Error(Refusal::from(failure.clone()))));
        self.job.failure = Some(failure);
    }

    fn stop_run(&mut self) {
        self.no_longer(EffectKey::Run);
        if self.job.work == WorkState::Running {
            self.then(Effect::StopRun);
        }
    }

    fn is_too_late(&self) -> bool {
        self.job.expires_at.is_some_and(|at| at <= self.now)
    }

    /// Books the income, returns the rest, and sends the result off.
    fn earn_and_deliver(&mut self) {
        self.earn(self.job.usage.unwrap_or(Usage::NONE));
        self.then(Effect::Publish(Notice::Result));
    }

    /// Books what was used as income, and returns the rest.
    fn earn(&mut self, used: Usage) {
        let all = self.job.escrow;
        let cost = self.job.quote.cost(used).min(all);
        let rest = all.saturating_sub(cost);
        if !all.is_zero() {
            self.entries.push(Entry::earned(self.now, self.job.id, self.job.kind, self.job.customer, cost, rest));
        }
        self.job.escrow = Msat::ZERO;
        self.job.cost = Some(cost);
        self.job.credited = self.job.credited.saturating_add(rest);
    }

    // Money.

    fn post(&mut self, reason: Reason, debit: Account, credit: Account, amount: Msat) {
        if !amount.is_zero() {
            self.entries.push(Entry::transfer(self.now, self.job.id, reason, debit, credit, amount));
        }
    }

    fn reserve(&mut self, credit: Msat) {
        self.post(Reason::CreditReserved, Account::Customer(self.job.customer), Account::Escrow(self.job.id), credit);
        self.job.escrow = self.job.escrow.saturating_add(credit);
    }

    fn receive(&mut self, reason: Reason, from: Account, amount: Msat) {
        self.post(reason, from, Account::Escrow(self.job.id), amount);
        self.job.escrow = self.job.escrow.saturating_add(amount);
        self.job.paid = self.job.paid.saturating_add(amount);
    }

    /// Everything in escrow goes to the customer's credit.
    fn return_escrow(&mut self, reason: Reason) {
        let rest = self.job.escrow;
        self.post(reason, Account::Escrow(self.job.id), Account::Customer(self.job.customer), rest);
        self.job.escrow = Msat::ZERO;
        // Credit set aside and given back unused is not worth telling; returned payments are.
        if reason != Reason::CreditReleased {
            self.job.credited = self.job.credited.saturating_add(rest);
        }
    }
}

mod payments;
mod work;
mod zaps;

#[cfg(test)]
mod tests;
