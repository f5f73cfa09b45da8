//! Zaps: counted once, and never instead of the invoice.

use super::{START, draft, invoice, prepared, request};
use crate::job::event::Purse;
use crate::job::id::{EventId, PaymentHash};
use crate::job::{CustomerId, JobEvent, JobId, Terms};
use crate::money::Msat;
use crate::store::{Store, StoreError, ZapRow};

#[tokio::test]
async fn a_zap_that_the_job_cannot_use_is_not_kept_as_counted() {
    let (store, _closing) = Store::in_memory().unwrap();
    let zap = |job| ZapRow {
        payment_hash: PaymentHash([200; 32]),
        receipt: EventId([200; 32]),
        job: JobId([job; 32]),
        amount: Msat::sat(21),
        purse: Purse::Address,
        at: START,
    };
    store.open_job(request(1, 1), prepared(), draft(Terms::Free), START).await.unwrap();
    assert!(matches!(store.count_zap(zap(1)).await, Err(StoreError::Illegal { .. })));
    assert!(matches!(store.count_zap(zap(9)).await, Err(StoreError::NoSuchJob(_))));
    assert!(!store.knows_zap(PaymentHash([200; 32])).await.unwrap());
    // An invoice of ours counts by itself, whatever a receipt says of it.
    store.open_job(request(2, 1), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.advance(JobId([2; 32]), JobEvent::InvoiceIssued(invoice(2, Msat::sat(21))), START).await.unwrap();
    let own = ZapRow { payment_hash: PaymentHash([2; 32]), ..zap(2) };
    assert_eq!(store.count_zap(own).await.unwrap(), None);
    assert!(store.count_zap(zap(2)).await.unwrap().is_some());
    let zaps = store.zaps().await.unwrap();
    assert_eq!((zaps.len(), zaps[0].job, zaps[0].purse), (1, JobId([2; 32]), Purse::Address));
}

#[tokio::test]
async fn the_invoice_of_a_zapped_job_is_still_looked_up() {
    let (store, _closing) = Store::in_memory().unwrap();
    store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.advance(JobId([1; 32]), JobEvent::InvoiceIssued(invoice(1, Msat::sat(21))), START).await.unwrap();
    assert_eq!(store.given_up_invoices(START, 9).await.unwrap().len(), 0);
    let zap = ZapRow {
        payment_hash: PaymentHash([200; 32]),
        receipt: EventId([200; 32]),
        job: JobId([1; 32]),
        amount: Msat::sat(21),
        purse: Purse::Address,
        at: START,
    };
    store.count_zap(zap).await.unwrap().unwrap();
    assert_eq!(store.given_up_invoices(START, 9).await.unwrap().len(), 1);
    store.advance(JobId([1; 32]), JobEvent::PaymentSettled { amount: Msat::sat(21) }, START).await.unwrap();
    assert_eq!(store.given_up_invoices(START, 9).await.unwrap().len(), 0);
    assert_eq!(store.credit(CustomerId([1; 32])).await.unwrap(), Msat::sat(21));
}
