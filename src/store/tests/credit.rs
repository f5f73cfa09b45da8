//! Credit: spent once, told with the result, and paid back within limits.

use super::{START, at, draft, invoice, outcome, prepared, request};
use crate::job::id::{EventId, PaymentHash};
use crate::job::{CustomerId, Failure, Job, JobEvent, JobId, Outcome, Terms};
use crate::money::Msat;
use crate::nip90::SignedEvent;
use crate::store::{FinishedWork, NewRefund, NotReserved, Opened, Store};

#[tokio::test]
async fn two_quotes_at_once_never_spend_the_same_credit() {
    let (store, _closing) = Store::in_memory().unwrap();
    let customer = CustomerId([1; 32]);
    // 42 sat of credit: an overpaid job.
    store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::InvoiceIssued(invoice(1, Msat::sat(21))), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::PaymentSettled { amount: Msat::sat(42) }, START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::run_failed(Failure::backend("x")), START).await.unwrap();
    assert_eq!(store.credit(customer).await.unwrap(), Msat::sat(42));
    let open = |job| store.open_job(request(job, 1), prepared(), draft(Terms::Prepay), START);
    let (two, three, four) = tokio::join!(open(2), open(3), open(4));
    let credits: Vec<Msat> = [two, three, four]
        .into_iter()
        .map(|opened| match opened.unwrap() {
            Opened::New(transition) => transition.job.quote.credit,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(credits.iter().copied().sum::<Msat>(), Msat::sat(42));
    assert_eq!(store.credit(customer).await.unwrap(), Msat::ZERO);
}

#[tokio::test]
async fn the_result_tells_the_credit_the_customer_has_after_it() {
    let (store, _closing) = Store::in_memory().unwrap();
    store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::InvoiceIssued(invoice(1, Msat::sat(21))), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::PaymentSettled { amount: Msat::sat(21) }, START).await.unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let sign = move |job: &Job, credit: Msat, _: &Outcome| {
        tell.send(credit).unwrap();
        Ok(SignedEvent { id: EventId(job.id.0), kind: 6050, json: "{}".into() })
    };
    let done = FinishedWork { outcome: outcome(4), sign: Box::new(sign) };
    store.finish(JobId([1; 32]), done, START).await.unwrap();
    assert_eq!(told.recv().unwrap(), Msat::sat(6));
    assert_eq!(store.credit(CustomerId([1; 32])).await.unwrap(), Msat::sat(6));
}

#[tokio::test]
async fn what_is_paid_back_by_itself_ends_at_the_day_s_limit() {
    let (store, _closing) = Store::in_memory().unwrap();
    store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::InvoiceIssued(invoice(1, Msat::sat(21))), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::PaymentSettled { amount: Msat::sat(100) }, START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::run_failed(Failure::backend("x")), START).await.unwrap();
    let new = |hash: u8, sats: u32, limit: Option<u32>| NewRefund {
        payment_hash: PaymentHash([hash; 32]),
        customer: CustomerId([1; 32]),
        amount: Msat::sat(sats),
        target: "a@example.com".into(),
        expires_at: START,
        automatic_limit: limit.map(Msat::sat),
    };
    let pay = async |new: NewRefund, now| -> Result<(), NotReserved> {
        let hash = new.payment_hash;
        store.reserve_refund(new, now).await.unwrap()?;
        assert!(store.begin_refund(hash).await.unwrap());
        assert!(store.refund_paid(hash, Msat::ZERO, now).await.unwrap().is_some());
        Ok(())
    };
    assert_eq!(pay(new(50, 30, Some(40)), START).await, Ok(()));
    let full = NotReserved::DayIsFull { limit: Msat::sat(40), left: Msat::sat(10) };
    assert_eq!(pay(new(51, 11, Some(40)), START).await, Err(full));
    // Not the operator's own word, and not tomorrow.
    assert_eq!(pay(new(52, 11, None), START).await, Ok(()));
    assert_eq!(pay(new(53, 11, Some(40)), at(90_000)).await, Ok(()));
    assert_eq!(pay(new(53, 11, None), at(90_000)).await, Err(NotReserved::KnownHash));
    assert_eq!(pay(new(1, 11, None), at(90_000)).await, Err(NotReserved::KnownHash));
    assert_eq!(store.check_books().await.unwrap(), Vec::<String>::new());
}
