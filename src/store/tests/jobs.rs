//! Jobs: opened once, there after a restart, and nobody else's to read.

use super::{START, at, draft, prepared, request};
use crate::job::{EffectKey, JobEvent, JobId, Terms};
use crate::store::{Opened, Store, StoreError};

#[tokio::test]
async fn a_request_opens_one_job_however_often_it_comes() {
    let (store, _closing) = Store::in_memory().unwrap();
    let open = || store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START);
    let (first, second, third) = tokio::join!(open(), open(), open());
    let new = [first, second, third].into_iter().filter(|opened| matches!(opened, Ok(Opened::New(_)))).count();
    assert_eq!(new, 1);
}

#[tokio::test]
async fn everything_durable_is_there_after_closing_and_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coinop.db");
    let (store, closing) = Store::open(&path).unwrap();
    store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START).await.unwrap();
    store.set_cursor("relays", at(5)).await.unwrap();
    store.set_cursor("relays", at(3)).await.unwrap();
    drop(store);
    closing.wait();
    let (store, _closing) = Store::open(&path).unwrap();
    let pending = store.recover_pending().await.unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!((pending[0].effect.key(), pending[0].recoveries), (EffectKey::IssueInvoice, 1));
    assert_eq!(store.cursor("relays").await.unwrap(), Some(at(5)));
    assert!(store.knows(JobId([1; 32])).await.unwrap());
}

#[cfg(unix)]
#[tokio::test]
async fn the_database_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coinop.db");
    let _store = Store::open(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
}

#[tokio::test]
async fn a_failing_piece_of_a_group_takes_nobody_with_it() {
    let (store, _closing) = Store::in_memory().unwrap();
    let good = store.open_job(request(1, 1), prepared(), draft(Terms::Prepay), START);
    let bad = store.advance(JobId([9; 32]), JobEvent::Lapsed, START);
    let also_good = store.open_job(request(2, 2), prepared(), draft(Terms::Prepay), START);
    let (good, bad, also_good) = tokio::join!(good, bad, also_good);
    assert!(matches!((good, also_good), (Ok(Opened::New(_)), Ok(Opened::New(_)))));
    assert!(matches!(bad, Err(StoreError::NoSuchJob(_))));
}
