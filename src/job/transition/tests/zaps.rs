//! Zaps instead of a payment, and besides one.

use super::*;
use crate::job::event::Purse;

fn zap(amount: Msat) -> JobEvent {
    JobEvent::Zapped { amount, purse: Purse::Address }
}

fn awaiting(terms: Terms) -> Job {
    after(&open(terms, Msat::ZERO).job, &[JobEvent::InvoiceIssued(invoice(Msat::sat(21)))]).job
}

#[test]
fn a_zap_of_the_price_pays_like_the_invoice() {
    let zapped = after(&awaiting(Terms::Prepay), &[zap(Msat::sat(21))]);
    assert_eq!((zapped.job.work, zapped.job.payment), (WorkState::Running, PaymentState::Settled));
    assert_eq!(zapped.effects[0], Effect::Run);
    let finished = after(&zapped.job, &[used(3)]);
    assert_eq!(finished.effects, [Effect::Publish(Notice::Result)]);
    assert_eq!((finished.job.cost, finished.job.credited), (Some(Msat::sat(14)), Msat::sat(7)));
}

#[test]
fn a_zap_of_too_little_is_credit_and_neither_starts_nor_fails_the_job() {
    let job = awaiting(Terms::Prepay);
    let zapped = after(&job, &[zap(Msat::sat(20))]);
    assert_eq!((zapped.job.work, zapped.job.payment), (job.work, job.payment));
    assert_eq!((zapped.effects.len(), zapped.job.credited), (0, Msat::sat(20)));
}

#[test]
fn the_invoice_paid_after_a_zap_and_a_second_zap_are_credit() {
    let zapped = after(&awaiting(Terms::Prepay), &[zap(Msat::sat(21))]);
    let paid = JobEvent::PaymentSettled { amount: Msat::sat(21) };
    let both = after(&zapped.job, std::slice::from_ref(&paid));
    assert_eq!((both.job.credited, both.job.paid_by), (Msat::sat(21), PaidBy::Both));
    assert_eq!(after(&both.job, std::slice::from_ref(&paid)).job, both.job);
    let twice = after(&both.job, &[zap(Msat::sat(5))]);
    assert_eq!((twice.job.credited, twice.job.paid), (Msat::sat(26), Msat::sat(47)));
    // The other way round: the invoice first.
    let zapped_after = after(&awaiting(Terms::Prepay), &[paid.clone(), zap(Msat::sat(21)), paid]);
    assert_eq!((zapped_after.job.credited, zapped_after.job.paid_by), (Msat::sat(21), PaidBy::Invoice));
}

#[test]
fn a_zap_withdraws_the_hold_invoice_and_a_hold_that_comes_all_the_same_goes_back() {
    let zapped = after(&awaiting(Terms::Hold), &[zap(Msat::sat(21))]);
    assert_eq!(zapped.effects[0], Effect::CancelHold);
    let held = after(&zapped.job, &[JobEvent::PaymentHeld { amount: Msat::sat(21) }]);
    assert_eq!((held.effects, held.job.payment), (vec![Effect::CancelHold], PaymentState::Settled));
    let released = after(&zapped.job, &[JobEvent::HoldReleased]);
    assert_eq!(released.settled_effects, [EffectKey::CancelHold]);
    assert_eq!(released.job, zapped.job);
}

#[test]
fn a_zap_of_a_held_job_is_credit_and_the_hold_stands() {
    let held = after(&awaiting(Terms::Hold), &[JobEvent::PaymentHeld { amount: Msat::sat(21) }]);
    let zapped = after(&held.job, &[zap(Msat::sat(21))]);
    assert_eq!((zapped.job.payment, zapped.job.credited), (PaymentState::Held, Msat::sat(21)));
    assert!(zapped.effects.is_empty());
}

#[test]
fn a_late_zap_is_honoured_like_a_late_payment() {
    let lapsed = after(&awaiting(Terms::Prepay), &[JobEvent::Lapsed]);
    assert_eq!(after(&lapsed.job, &[zap(Msat::sat(21))]).effects[0], Effect::Run);
    let too_late = lapsed.job.apply(&zap(Msat::sat(21)), too_late()).unwrap();
    assert_eq!((too_late.job.work, too_late.job.credited), (WorkState::Expired, Msat::sat(21)));
    let waited_too_long = awaiting(Terms::Prepay).apply(&zap(Msat::sat(21)), self::too_late()).unwrap();
    assert_eq!((waited_too_long.job.work, waited_too_long.job.credited), (WorkState::Expired, Msat::sat(21)));
}

#[test]
fn a_zap_lets_a_postpaid_result_out() {
    let finished =
        after(&open(Terms::Postpay, Msat::ZERO).job, &[used(3), JobEvent::InvoiceIssued(invoice(Msat::sat(14)))]);
    let zapped = after(&finished.job, &[zap(Msat::sat(14))]);
    assert_eq!(zapped.effects, [Effect::Publish(Notice::Result)]);
}

#[test]
fn a_zap_of_a_job_that_asks_for_nothing_is_a_gift() {
    assert!(open(Terms::Free, Msat::ZERO).job.apply(&zap(Msat::sat(21)), in_time()).is_err());
    assert!(open(Terms::Prepay, Msat::sat(21)).job.apply(&zap(Msat::sat(21)), in_time()).is_err());
}
