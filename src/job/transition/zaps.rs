//! What a zap makes of a job, and what the invoice still brings after one.

use super::Move;
use crate::job::effect::{Effect, EffectKey};
use crate::job::event::Purse;
use crate::job::quote::Terms;
use crate::job::refusal::Code;
use crate::job::state::{PaidBy, PaymentState, WorkState};
use crate::ledger::{Account, Reason};
use crate::money::Msat;

impl Move {
    /// Rows `zapped`. A job without an invoice asks for nothing: a zap of it is a gift, and not booked.
    pub(super) fn zapped(&mut self, amount: Msat, purse: Purse) -> bool {
        let Some(invoice) = &self.job.invoice else { return false };
        let enough = amount >= invoice.amount;
        let unpaid = matches!(self.job.payment, PaymentState::Awaiting | PaymentState::Void);
        let can_start = match self.job.work {
            WorkState::Waiting => true,
            // As for a late payment: credit set aside for the job was given back, so it must be paid whole.
            WorkState::Expired => self.job.usage.is_none() && self.job.quote.credit.is_zero(),
            _ => false,
        };
        let delivers = self.job.work == WorkState::Finished;
        if !(enough && unpaid && (delivers || can_start && !self.is_too_late())) {
            let missed = enough && unpaid && self.job.work == WorkState::Waiting;
            if missed {
                self.lapsed();
            }
            self.credit(Reason::Zap, purse.account(), amount);
            if missed {
                let text = format!("the zap came too late for this job; {amount} became credit for your next one");
                self.tell(Code::Expired, text);
            }
            return true;
        }
        self.job.payment = PaymentState::Settled;
        self.job.paid_by = PaidBy::Zap;
        self.no_longer(EffectKey::PublishPaymentRequired);
        self.receive(Reason::Zap, purse.account(), amount);
        if self.job.quote.terms == Terms::Hold {
            // Gives back what is held by now, and withdraws the invoice if nothing is.
            self.then(Effect::CancelHold);
        }
        if delivers {
            self.earn_and_deliver();
        } else {
            self.job.work = WorkState::Running;
            self.begin();
        }
        true
    }

    /// Row `payment-settled` of a job that is settled: after a zap it is a second payment, else the same one again.
    pub(super) fn settled_besides(&mut self, amount: Msat) {
        if self.job.paid_by == PaidBy::Zap {
            self.job.paid_by = PaidBy::Both;
            self.no_longer(EffectKey::CancelHold);
            self.credit(Reason::Payment, Account::Wallet, amount);
        }
    }

    /// Money that this job does not need is the customer's.
    fn credit(&mut self, reason: Reason, from: Account, amount: Msat) {
        self.post(reason, from, Account::Customer(self.job.customer), amount);
        self.job.paid = self.job.paid.saturating_add(amount);
        self.job.credited = self.job.credited.saturating_add(amount);
    }
}
