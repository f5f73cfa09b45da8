//! How the work goes, and ends: rows `run-*`, `cancelled` and `result-*`.

use super::Move;
use crate::job::effect::{Effect, EffectKey};
use crate::job::event::Canceller;
use crate::job::outcome::{Failure, Usage};
use crate::job::refusal::Code;
use crate::job::state::{PaymentState, WorkState};
use crate::ledger::{Account, Reason};
use crate::money::Msat;

impl Move {
    pub(super) fn run_finished(&mut self, usage: Usage) -> bool {
        self.no_longer(EffectKey::Run);
        match self.job.work {
            WorkState::Running => {}
            // Cancelled or failed while the last token was written.
            _ => return self.job.usage.is_some() || self.job.work.is_over(),
        }
        self.job.usage = Some(usage);
        self.job.work = WorkState::Finished;
        let cost = self.job.quote.cost(usage);
        match self.job.payment {
            PaymentState::Free | PaymentState::Covered | PaymentState::Settled => self.earn_and_deliver(),
            PaymentState::Held => {
                self.job.payment = PaymentState::Settling;
                self.then(Effect::SettleHold);
            }
            PaymentState::Deferred if cost <= self.job.escrow => {
                self.job.payment = PaymentState::Covered;
                self.earn_and_deliver();
            }
            PaymentState::Deferred => {
                self.job.payment = PaymentState::Invoicing;
                let rest = cost.saturating_sub(self.job.escrow);
                let amount = if self.job.quote.whole_sats { rest.round_up_to_sat() } else { rest };
                self.then(Effect::IssueInvoice { amount });
            }
            _ => return false,
        }
        true
    }

    pub(super) fn run_failed(&mut self, failure: &Failure, shown: Usage) -> bool {
        self.no_longer(EffectKey::Run);
        if self.job.work != WorkState::Running {
            return self.job.usage.is_some() || self.job.work.is_over();
        }
        // The time limit was part of the offer; any other failure is ours.
        let ours = failure.code != Code::Timeout;
        self.part(if ours { Usage::NONE } else { shown });
        let text = self.with_the_money(failure.text.clone());
        self.fail(Failure { text, ..failure.clone() });
        true
    }

    pub(super) fn cancelled(&mut self, by: Canceller, shown: Usage) -> bool {
        let stoppable = match self.job.work {
            WorkState::Waiting | WorkState::Running => true,
            WorkState::Finished => matches!(self.job.payment, PaymentState::Invoicing | PaymentState::Awaiting),
            _ => false,
        };
        if !stoppable {
            return true;
        }
        self.stop_run();
        self.no_longer(EffectKey::IssueInvoice);
        self.no_longer(EffectKey::PublishPaymentRequired);
        let (text, shown) = match by {
            Canceller::Customer => ("cancelled as you asked", shown),
            Canceller::Operator => ("cancelled by the provider", Usage::NONE),
        };
        self.part(shown);
        self.job.work = WorkState::Cancelled;
        self.job.cancelled_by = Some(by);
        let text = self.with_the_money(text.to_owned());
        self.tell(Code::Cancelled, text);
        true
    }

    pub(super) fn result_published(&mut self) -> bool {
        self.no_longer(EffectKey::PublishResult);
        match self.job.work {
            WorkState::Finished if self.job.payment.allows_publishing() => {
                self.job.work = WorkState::Delivered;
                true
            }
            WorkState::Delivered => true,
            // Given up as undeliverable, and a relay answered after all.
            WorkState::Failed => self.job.usage.is_some(),
            _ => false,
        }
    }

    pub(super) fn result_undeliverable(&mut self) -> bool {
        self.no_longer(EffectKey::PublishResult);
        match self.job.work {
            WorkState::Finished if self.job.payment.allows_publishing() => {
                let earned = self.job.cost.take().unwrap_or(Msat::ZERO);
                self.post(
                    Reason::Undelivered,
                    Account::Income(self.job.kind),
                    Account::Customer(self.job.customer),
                    earned,
                );
                self.job.credited = self.job.credited.saturating_add(earned);
                self.job.work = WorkState::Failed;
                self.job.failure = Some(Failure::backend("no relay accepted the result"));
                true
            }
            WorkState::Delivered | WorkState::Failed => true,
            _ => false,
        }
    }

    /// Settles with the customer of a job that will not be finished: what was shown of it is charged, if its payment is
    /// ours, and the rest goes back.
    fn part(&mut self, shown: Usage) {
        let is_ours = matches!(self.job.payment, PaymentState::Covered | PaymentState::Settled);
        if is_ours && self.job.work == WorkState::Running && shown.generated_tokens > 0 {
            self.job.shown = Some(shown);
            self.earn(shown);
        } else {
            self.give_back();
        }
    }

    /// What a customer whose job was not finished is told, and what became of their money.
    fn with_the_money(&self, mut text: String) -> String {
        if let (Some(shown), Some(cost)) = (self.job.shown, self.job.cost) {
            text = format!("{text}; {cost} was charged for the {} tokens you were shown", shown.generated_tokens);
        }
        if !self.job.credited.is_zero() {
            text = format!("{text}; {} became credit for your next job", self.job.credited);
        }
        text
    }

    /// Undoes the payment of a job that will not be done, whatever its state.
    fn give_back(&mut self) {
        match self.job.payment {
            PaymentState::Held => {
                self.job.payment = PaymentState::Releasing;
                self.then(Effect::CancelHold);
                self.return_escrow(Reason::CreditReleased);
            }
            PaymentState::Deferred | PaymentState::Invoicing | PaymentState::Awaiting => {
                self.job.payment = PaymentState::Void;
                self.return_escrow(Reason::CreditReleased);
            }
            PaymentState::Covered | PaymentState::Settled => self.return_escrow(Reason::Returned),
            _ => {}
        }
    }
}
