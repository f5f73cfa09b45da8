//! What a job that was not finished costs its customer, and what they are told.

use std::time::Duration;

use super::*;
use crate::job::event::Canceller;

fn running(terms: Terms) -> Job {
    let issued = after(&open(terms, Msat::ZERO).job, &[JobEvent::InvoiceIssued(invoice(Msat::sat(21)))]);
    let amount = Msat::sat(21);
    let paid =
        if terms == Terms::Hold { JobEvent::PaymentHeld { amount } } else { JobEvent::PaymentSettled { amount } };
    after(&issued.job, &[paid]).job
}

fn told(transition: &Transition) -> &Refusal {
    let told = transition.effects.iter().find_map(|effect| match effect {
        Effect::Publish(Notice::Error(refusal)) => Some(refusal),
        _ => None,
    });
    told.unwrap()
}

#[test]
fn a_customer_who_cancels_pays_for_what_was_shown_and_has_the_rest_as_credit() {
    let cancelled = |tokens| JobEvent::Cancelled { by: Canceller::Customer, shown: shown(tokens) };
    let ended = after(&running(Terms::Prepay), &[cancelled(3)]);
    assert_eq!((ended.job.work, ended.effects[0].key()), (WorkState::Cancelled, EffectKey::StopRun));
    assert_eq!((ended.job.cost, ended.job.credited), (Some(Msat::sat(14)), Msat::sat(7)));
    let words = "cancelled as you asked; 14 sat was charged for the 3 tokens you were shown; 7 sat became credit";
    assert!(told(&ended).text.starts_with(words), "{}", told(&ended).text);
    // Credit pays for what was shown like a payment does.
    let covered = after(&open(Terms::Prepay, Msat::sat(100)).job, &[cancelled(3)]);
    assert_eq!((covered.job.cost, covered.job.credited), (Some(Msat::sat(14)), Msat::sat(7)));
    // Never more than the quote, and nothing for nothing.
    assert_eq!(after(&running(Terms::Prepay), &[cancelled(99)]).job.cost, Some(Msat::sat(21)));
    let unseen = after(&running(Terms::Prepay), &[cancelled(0)]);
    assert_eq!((unseen.job.cost, unseen.job.credited), (None, Msat::sat(21)));
    // Money that is not ours is not taken.
    let held = after(&running(Terms::Hold), &[cancelled(3)]);
    assert_eq!((held.job.cost, held.effects.contains(&Effect::CancelHold)), (None, true));
}

#[test]
fn what_was_shown_is_charged_at_the_time_limit_and_not_when_the_failure_is_ours() {
    let failed = |failure| after(&running(Terms::Prepay), &[JobEvent::RunFailed { failure, shown: shown(3) }]).job;
    let late = failed(Failure::timeout(Duration::from_secs(1)));
    assert_eq!((late.cost, late.credited, late.work), (Some(Msat::sat(14)), Msat::sat(7), WorkState::Failed));
    let broken = failed(Failure::backend("x"));
    assert_eq!((broken.cost, broken.credited), (None, Msat::sat(21)));
    let by = Canceller::Operator;
    let stopped = after(&running(Terms::Prepay), &[JobEvent::Cancelled { by, shown: shown(3) }]).job;
    assert_eq!((stopped.cost, stopped.credited), (None, Msat::sat(21)));
}

#[test]
fn what_ends_uncharged_by_the_customers_doing_was_given_away() {
    let given_away = |job: &Job, fact: JobEvent| after(job, &[fact]).job.was_given_away(job.work);
    let cancelled = |by, tokens| JobEvent::Cancelled { by, shown: shown(tokens) };
    let failed = |failure| JobEvent::RunFailed { failure, shown: shown(3) };
    let broken = || Failure::backend("x");
    let (prepaid, held) = (running(Terms::Prepay), running(Terms::Hold));
    for (fact, from_prepaid, from_held) in [
        (cancelled(Canceller::Customer, 0), true, true),
        // Shown before it was paid it can't be, so nothing is charged for it.
        (cancelled(Canceller::Customer, 3), false, true),
        (cancelled(Canceller::Operator, 0), false, false),
        (failed(Failure::new(Code::BadRequest, "the tests fail")), true, true),
        (failed(Failure::timeout(Duration::from_secs(1))), false, true),
        (failed(broken()), false, false),
        (failed(broken().in_vain()), true, true),
        (used(10), false, false),
    ] {
        let found = (given_away(&prepaid, fact.clone()), given_away(&held, fact.clone()));
        assert_eq!(found, (from_prepaid, from_held), "{fact:?}");
    }
    // Free jobs are given away in any case.
    let free = open(Terms::Free, Msat::ZERO).job;
    assert!(!given_away(&free, cancelled(Canceller::Customer, 0)));
    // What was done before it was to be paid.
    let done =
        after(&open(Terms::Postpay, Msat::ZERO).job, &[used(10), JobEvent::InvoiceIssued(invoice(Msat::sat(21)))]).job;
    assert_eq!(done.work, WorkState::Finished);
    assert!(given_away(&done, JobEvent::Lapsed) && given_away(&done, cancelled(Canceller::Customer, 0)));
    assert!(!given_away(&done, cancelled(Canceller::Operator, 0)));
    let unpaid = open(Terms::Prepay, Msat::ZERO).job;
    assert!(!given_away(&unpaid, JobEvent::Lapsed), "nothing was done");
}

#[test]
fn a_failure_is_told_with_its_log() {
    let failure = Failure::new(Code::BadRequest, "the tests fail").with_log("$ make test");
    let failed = after(&running(Terms::Hold), &[JobEvent::RunFailed { failure: failure.clone(), shown: Usage::NONE }]);
    assert!(failed.effects.contains(&Effect::Publish(Notice::Error(failure.clone().into()))));
    assert_eq!(failed.job.failure, Some(failure));
}
