//! What is asked, paid and given back, on each of the terms.

use super::*;

#[test]
fn a_prepaid_job_runs_when_paid_and_returns_what_was_not_used() {
    let opened = open(Terms::Prepay, Msat::ZERO);
    assert_eq!(opened.effects, [Effect::IssueInvoice { amount: Msat::sat(21) }]);
    let issued = after(&opened.job, &[JobEvent::InvoiceIssued(invoice(Msat::sat(21)))]);
    assert_eq!(issued.effects, [Effect::Publish(Notice::PaymentRequired)]);
    let paid = after(&issued.job, &[JobEvent::PaymentSettled { amount: Msat::sat(21) }]);
    assert_eq!(paid.effects[0], Effect::Run);
    let finished = after(&paid.job, &[used(3)]);
    assert_eq!(finished.effects, [Effect::Publish(Notice::Result)]);
    assert_eq!((finished.job.cost, finished.job.credited), (Some(Msat::sat(14)), Msat::sat(7)));
}

#[test]
fn credit_pays_first_and_a_covered_job_asks_for_no_invoice() {
    let opened = open(Terms::Prepay, Msat::sat(5));
    assert_eq!(opened.effects, [Effect::IssueInvoice { amount: Msat::sat(16) }]);
    let covered = open(Terms::Prepay, Msat::sat(100));
    assert_eq!((covered.job.payment, covered.job.quote.credit), (PaymentState::Covered, Msat::sat(21)));
    assert_eq!(covered.effects[0], Effect::Run);
}

#[test]
fn postpay_charges_what_was_used_and_keeps_the_result_until_it_is_paid() {
    let finished = after(&open(Terms::Postpay, Msat::ZERO).job, &[used(3)]);
    assert_eq!(finished.effects, [Effect::IssueInvoice { amount: Msat::sat(14) }]);
    let paid = after(
        &finished.job,
        &[JobEvent::InvoiceIssued(invoice(Msat::sat(14))), JobEvent::PaymentSettled { amount: Msat::sat(14) }],
    );
    assert_eq!(paid.effects, [Effect::Publish(Notice::Result)]);
}

#[test]
fn a_hold_is_settled_only_after_the_result_is_stored_and_published_only_after_that() {
    let issued = after(&open(Terms::Hold, Msat::ZERO).job, &[JobEvent::InvoiceIssued(invoice(Msat::sat(21)))]);
    let held = after(&issued.job, &[JobEvent::PaymentHeld { amount: Msat::sat(21) }]);
    assert_eq!(held.effects[0], Effect::Run);
    let finished = after(&held.job, &[used(10)]);
    assert_eq!(finished.effects, [Effect::SettleHold]);
    let settled = after(&finished.job, &[JobEvent::PaymentSettled { amount: Msat::sat(21) }]);
    assert_eq!(settled.effects, [Effect::Publish(Notice::Result)]);
    let failed = after(&held.job, &[JobEvent::run_failed(Failure::backend("x"))]);
    assert_eq!(failed.effects[0], Effect::CancelHold);
    let lost = after(&finished.job, &[JobEvent::HoldReleased]);
    assert_eq!((lost.job.work, lost.job.payment), (WorkState::Failed, PaymentState::Released));
}

#[test]
fn expired_invoice_never_starts_a_run_unless_it_is_paid_after_all() {
    let issued = after(&open(Terms::Prepay, Msat::ZERO).job, &[JobEvent::InvoiceIssued(invoice(Msat::sat(21)))]);
    let lapsed = after(&issued.job, &[JobEvent::Lapsed]);
    assert_eq!((lapsed.job.work, lapsed.effects.len()), (WorkState::Expired, 0));
    let paid = JobEvent::PaymentSettled { amount: Msat::sat(21) };
    let late = lapsed.job.apply(&paid, in_time()).unwrap();
    assert_eq!(late.effects[0], Effect::Run);
    let too_late = lapsed.job.apply(&paid, too_late()).unwrap();
    assert_eq!((too_late.job.work, too_late.job.credited), (WorkState::Expired, Msat::sat(21)));
}

#[test]
fn a_payment_of_another_amount_is_credited_and_starts_nothing() {
    let issued = after(&open(Terms::Prepay, Msat::ZERO).job, &[JobEvent::InvoiceIssued(invoice(Msat::sat(21)))]);
    let short = after(&issued.job, &[JobEvent::PaymentSettled { amount: Msat::sat(20) }]);
    assert_eq!((short.job.work, short.job.credited), (WorkState::Failed, Msat::sat(20)));
    assert!(!short.effects.contains(&Effect::Run));
}

#[test]
fn a_bid_below_the_price_opens_nothing_and_states_the_price() {
    let context = Context { now: QUOTED, credit: Msat::ZERO, free_jobs_today: 0 };
    let refused = Job::open(&request(Some(Msat::sat(20))), &draft(Terms::Prepay, false), &context);
    assert_eq!(refused.unwrap_err(), TooDear { price: Msat::sat(21) });
    assert!(Job::open(&request(Some(Msat::sat(21))), &draft(Terms::Prepay, false), &context).is_ok());
}

#[test]
fn the_free_quota_is_used_up_before_anything_is_charged() {
    let draft = QuoteDraft { free_per_day: 2, ..draft(Terms::Prepay, false) };
    let open = |used| {
        let context = Context { now: QUOTED, credit: Msat::ZERO, free_jobs_today: used };
        Job::open(&request(None), &draft, &context).unwrap().job.payment
    };
    assert_eq!((open(0), open(1), open(2)), (PaymentState::Free, PaymentState::Free, PaymentState::Invoicing));
}

#[test]
fn a_wallet_of_whole_sats_rounds_up_and_the_rest_is_credit() {
    let context = Context { now: QUOTED, credit: Msat::msat(500), free_jobs_today: 0 };
    let opened = Job::open(&request(None), &draft(Terms::Prepay, true), &context).unwrap();
    assert_eq!(opened.job.quote.due, Msat::sat(21));
    let paid = after(
        &opened.job,
        &[JobEvent::InvoiceIssued(invoice(Msat::sat(21))), JobEvent::PaymentSettled { amount: Msat::sat(21) }],
    );
    let finished = after(&paid.job, &[used(10)]);
    assert_eq!((finished.job.cost, finished.job.credited), (Some(Msat::sat(21)), Msat::msat(500)));
}
