//! What the wallet says of a job: rows `invoice-*`, `payment-*`, `hold-released` and `lapsed`.

use super::Move;
use crate::job::effect::{Effect, EffectKey, Notice};
use crate::job::event::Invoice;
use crate::job::outcome::Failure;
use crate::job::quote::Terms;
use crate::job::refusal::Code;
use crate::job::state::{PaidBy, PaymentState, WorkState};
use crate::ledger::{Account, Reason};
use crate::money::Msat;

impl Move {
    // Facts about the invoice.

    pub(super) fn invoice_issued(&mut self, invoice: &Invoice) -> bool {
        self.no_longer(EffectKey::IssueInvoice);
        match self.job.payment {
            PaymentState::Invoicing => {
                self.job.payment = PaymentState::Awaiting;
                self.job.invoice = Some(invoice.clone());
                self.then(Effect::Publish(Notice::PaymentRequired));
                true
            }
            // Given up while the wallet was asked: nobody has seen this invoice, so nobody can pay it.
            PaymentState::Void => true,
            // Issued twice by a restart: the first one counts.
            _ => self.job.invoice.is_some(),
        }
    }

    pub(super) fn invoice_refused(&mut self) -> bool {
        self.no_longer(EffectKey::IssueInvoice);
        match self.job.payment {
            PaymentState::Invoicing => {
                self.job.payment = PaymentState::Void;
                self.fail(Failure::backend("the provider's wallet could not make an invoice; try again later"));
                self.return_escrow(Reason::CreditReleased);
                true
            }
            PaymentState::Void => true,
            _ => self.job.invoice.is_some(),
        }
    }

    pub(super) fn lapsed(&mut self) -> bool {
        let unpaid = matches!(self.job.payment, PaymentState::Invoicing | PaymentState::Awaiting);
        if unpaid && matches!(self.job.work, WorkState::Waiting | WorkState::Finished) {
            self.job.work = WorkState::Expired;
            self.job.payment = PaymentState::Void;
            self.no_longer(EffectKey::IssueInvoice);
            self.no_longer(EffectKey::PublishPaymentRequired);
            self.return_escrow(Reason::CreditReleased);
        }
        true
    }

    // Facts about the money.

    pub(super) fn payment_settled(&mut self, amount: Msat) -> bool {
        if self.job.invoice.is_none() {
            return false;
        }
        match self.job.payment {
            PaymentState::Settled => {
                self.settled_besides(amount);
                return true;
            }
            PaymentState::Free | PaymentState::Covered | PaymentState::Deferred | PaymentState::Invoicing => {
                return false;
            }
            _ => {}
        }
        let enough = self.job.invoice.as_ref().is_some_and(|invoice| amount >= invoice.amount);
        let was_lapsed = self.job.payment == PaymentState::Void && self.job.work == WorkState::Expired;
        self.job.payment = PaymentState::Settled;
        self.no_longer(EffectKey::SettleHold);
        self.no_longer(EffectKey::CancelHold);
        self.no_longer(EffectKey::PublishPaymentRequired);
        self.receive(Reason::Payment, Account::Wallet, amount);
        match self.job.work {
            WorkState::Waiting if !enough => self.underpaid(amount),
            WorkState::Waiting if self.is_too_late() => {
                self.job.work = WorkState::Expired;
                self.credit_late_payment();
            }
            WorkState::Waiting => {
                self.job.work = WorkState::Running;
                self.begin();
            }
            // A run whose time came and went unpaid starts after all when the payment covers it alone: credit set
            // aside for it was given back.
            WorkState::Expired
                if was_lapsed
                    && enough
                    && self.job.usage.is_none()
                    && self.job.quote.credit.is_zero()
                    && !self.is_too_late() =>
            {
                self.job.work = WorkState::Running;
                self.begin();
            }
            WorkState::Running => {}
            WorkState::Finished if enough => self.earn_and_deliver(),
            WorkState::Finished => self.underpaid(amount),
            WorkState::Expired => self.credit_late_payment(),
            WorkState::Delivered | WorkState::Failed | WorkState::Cancelled => self.return_escrow(Reason::Returned),
        }
        true
    }

    pub(super) fn payment_held(&mut self, amount: Msat) -> bool {
        if self.job.quote.terms != Terms::Hold || self.job.invoice.is_none() {
            return false;
        }
        match self.job.payment {
            PaymentState::Awaiting | PaymentState::Void => {}
            PaymentState::Settled if self.job.paid_by == PaidBy::Zap => {
                self.then(Effect::CancelHold);
                return true;
            }
            // Reported again, or overtaken.
            _ => return true,
        }
        self.no_longer(EffectKey::PublishPaymentRequired);
        let enough = self.job.invoice.as_ref().is_some_and(|invoice| amount >= invoice.amount);
        if self.job.work == WorkState::Waiting && enough && !self.is_too_late() {
            self.job.payment = PaymentState::Held;
            self.job.work = WorkState::Running;
            self.begin();
            return true;
        }
        self.job.payment = PaymentState::Releasing;
        self.then(Effect::CancelHold);
        if self.job.work == WorkState::Waiting {
            self.return_escrow(Reason::CreditReleased);
            if enough {
                self.job.work = WorkState::Expired;
                self.tell(Code::Expired, "the payment came after the request expired and is given back");
            } else {
                self.fail(Failure::new(
                    Code::Price,
                    format!("{amount} is less than the invoice's amount and is given back"),
                ));
            }
        }
        true
    }

    pub(super) fn hold_released(&mut self) -> bool {
        self.no_longer(EffectKey::CancelHold);
        match self.job.payment {
            PaymentState::Releasing => {
                self.job.payment = PaymentState::Released;
                true
            }
            // The network gave it back before we took it: nothing was paid, so nothing goes out.
            PaymentState::Held | PaymentState::Settling => {
                self.no_longer(EffectKey::SettleHold);
                self.job.payment = PaymentState::Released;
                self.stop_run();
                self.return_escrow(Reason::CreditReleased);
                self.fail(Failure::new(
                    Code::Expired,
                    "the held payment went back before the job was done; nothing was charged",
                ));
                true
            }
            PaymentState::Released => true,
            PaymentState::Awaiting => self.lapsed(),
            _ => self.job.quote.terms == Terms::Hold && self.job.invoice.is_some(),
        }
    }

    fn underpaid(&mut self, amount: Msat) {
        self.return_escrow(Reason::Returned);
        self.fail(Failure::new(
            Code::Price,
            format!("{amount} is less than the invoice's amount; it became credit for your next job"),
        ));
    }

    fn credit_late_payment(&mut self) {
        self.return_escrow(Reason::Returned);
        self.tell(
            Code::Expired,
            format!("the payment came too late for this job; {} became credit for your next one", self.job.credited),
        );
    }
}
