//! What is forgotten in time, and what is counted before it is.

use std::time::Duration;

use super::{START, at, draft, invoice, outcome, prepared, request, work};
use crate::job::id::PaymentHash;
use crate::job::{Compute, CustomerId, EffectKey, JobEvent, JobId, Outcome, Terms};
use crate::money::{Msat, MsatDelta};
use crate::store::{FinishedWork, NewRefund, Store, WorkDone};

#[tokio::test]
async fn quotes_nobody_paid_are_forgotten_after_a_refund_too() {
    let (store, _closing) = Store::in_memory().unwrap();
    store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::InvoiceIssued(invoice(1, Msat::sat(21))), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::PaymentSettled { amount: Msat::sat(20) }, START).await.unwrap();
    let new = NewRefund {
        payment_hash: PaymentHash([50; 32]),
        customer: CustomerId([1; 32]),
        amount: Msat::sat(20),
        target: "a@example.com".into(),
        expires_at: START,
        automatic_limit: None,
    };
    store.reserve_refund(new, START).await.unwrap().unwrap();
    store.open_job(request(2, 2), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.advance(JobId([2; 32]), JobEvent::InvoiceIssued(invoice(2, Msat::sat(21))), START).await.unwrap();
    store.advance(JobId([2; 32]), JobEvent::Lapsed, START).await.unwrap();
    store.prune(at(1), at(1), at(1)).await.unwrap();
    assert!(store.job(JobId([2; 32])).await.unwrap().is_none());
    assert!(store.job(JobId([1; 32])).await.unwrap().is_some());
}

#[tokio::test]
async fn pruning_forgets_prompts_but_never_the_books() {
    let (store, _closing) = Store::in_memory().unwrap();
    store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::InvoiceIssued(invoice(1, Msat::sat(21))), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::PaymentSettled { amount: Msat::sat(21) }, START).await.unwrap();
    store.finish(JobId([1; 32]), work(4), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::ResultPublished, START).await.unwrap();
    for key in EffectKey::ALL {
        store.advance(JobId([1; 32]), JobEvent::NoticeDone(key), START).await.unwrap();
    }
    let before = store.ledger(None, None).await.unwrap();
    store.prune(at(1), at(1), at(1)).await.unwrap();
    let kept = store.job(JobId([1; 32])).await.unwrap().unwrap();
    assert!(kept.request.is_none() && kept.result.is_none());
    assert_eq!(store.ledger(None, None).await.unwrap(), before);
    assert_eq!(store.check_books().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn the_work_of_free_and_paid_jobs_is_counted_by_day_and_outlives_their_results() {
    let (store, _closing) = Store::in_memory().unwrap();
    let deliver = async |job: u8, terms, parameters, now| {
        store.open_job(request(job, 1), prepared(), draft(terms), START).await.unwrap();
        if terms != Terms::Free {
            let issued = JobEvent::InvoiceIssued(invoice(job, Msat::sat(21)));
            store.advance(JobId([job; 32]), issued, START).await.unwrap();
            let paid = JobEvent::PaymentSettled { amount: Msat::sat(21) };
            store.advance(JobId([job; 32]), paid, START).await.unwrap();
        }
        let mut outcome = Outcome { parameters, ..outcome(4) };
        outcome.usage.compute = Compute { wall: Duration::from_millis(1_500), memory_mib: 64 };
        store.finish(JobId([job; 32]), FinishedWork { outcome, ..work(4) }, now).await.unwrap();
        store.advance(JobId([job; 32]), JobEvent::ResultPublished, now).await.unwrap();
    };
    deliver(1, Terms::Prepay, Some(1_000_000), START).await;
    deliver(2, Terms::Free, Some(500_000), START).await;
    deliver(3, Terms::Free, None, at(90_000)).await;
    // Finished, and not out yet.
    store.open_job(request(4, 1), prepared(), draft(Terms::Free), START).await.unwrap();
    store.finish(JobId([4; 32]), work(4), START).await.unwrap();
    let days = store.earnings(None).await.unwrap();
    let of = |delivered, tokens: u64, mflops| WorkDone {
        delivered,
        prompt_tokens: 10 * u64::from(delivered),
        generated_tokens: tokens,
        mflops,
        sandbox_ms: 1_500 * u64::from(delivered),
    };
    assert_eq!(days.iter().map(|day| day.work).collect::<Vec<_>>(), [of(2, 8, Some(28 + 14)), of(1, 4, None)]);
    assert_eq!((days[0].jobs, days[0].earned, days[1].jobs), (1, MsatDelta::plus(Msat::sat(15)), 0));
    assert_eq!(days[0].work.plus(days[1].work), of(3, 12, Some(42)));
    store.prune(at(100_000), at(100_000), at(100_000)).await.unwrap();
    assert!(store.job(JobId([3; 32])).await.unwrap().unwrap().outcome.is_none());
    assert_eq!(store.earnings(None).await.unwrap(), days);
    assert_eq!(store.earnings(Some(at(90_000))).await.unwrap(), days[1..]);
}
