use super::*;

const BUDGET: Option<Msat> = Some(Msat::sat(100));

fn spending(number: u8, sat: u32) -> Spending {
    Spending {
        payment_hash: PaymentHash([number; 32]),
        job: JobId([number; 32]),
        provider: ProviderId([9; 32]),
        network: Network::Regtest,
        amount: Msat::sat(sat),
        max_fee: Msat::sat(5),
        invoice_expires_at: at(1),
    }
}

fn at(hour: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hour)
}

fn book() -> Purchases {
    Purchases::in_memory().unwrap().0
}

async fn state(book: &Purchases, number: u8) -> SpendingState {
    book.of_job(JobId([number; 32])).await.unwrap()[0].state
}

#[test]
fn the_migrations_are_valid() {
    assert_eq!(migrations().validate(), Ok(()));
}

#[tokio::test]
async fn a_hash_is_begun_once_whatever_became_of_it() {
    let book = book();
    assert_eq!(book.begin(spending(1, 10), BUDGET, at(0)).await.unwrap(), Begun::Begun);
    for _ in 0..2 {
        assert!(matches!(book.begin(spending(1, 10), BUDGET, at(0)).await.unwrap(), Begun::Known(_)));
        book.failed(PaymentHash([1; 32]), "no route".into(), at(0)).await.unwrap();
    }
    assert_eq!(state(&book, 1).await, SpendingState::Failed);
}

#[tokio::test]
async fn amount_and_fee_limit_are_reserved_until_the_fees_are_known() {
    let book = book();
    book.begin(spending(1, 50), BUDGET, at(0)).await.unwrap();
    let left = async || book.left(Network::Regtest, Msat::sat(100), at(2)).await.unwrap();
    assert_eq!(left().await, Msat::sat(45));
    let over = book.begin(spending(2, 41), BUDGET, at(0)).await.unwrap();
    assert!(matches!(over, Begun::OverBudget(over) if over.left == Msat::sat(45)), "{over:?}");
    book.paid(PaymentHash([1; 32]), Some(Msat::sat(1)), [7; 32], at(1)).await.unwrap();
    assert_eq!(left().await, Msat::sat(49));
    assert_eq!(book.begin(spending(2, 41), BUDGET, at(2)).await.unwrap(), Begun::Begun);
    book.failed(PaymentHash([2; 32]), "no route".into(), at(2)).await.unwrap();
    assert_eq!(left().await, Msat::sat(49));
    // A day after the payment its money is free again.
    assert_eq!(book.left(Network::Regtest, Msat::sat(100), at(25)).await.unwrap(), Msat::sat(100));
    assert_eq!(book.left(Network::Bitcoin, Msat::sat(100), at(1)).await.unwrap(), Msat::sat(100));
}

#[tokio::test]
async fn doubt_keeps_its_reservation_until_time_and_wallet_agree() {
    let book = book();
    let hash = PaymentHash([1; 32]);
    book.begin(spending(1, 50), BUDGET, at(0)).await.unwrap();
    assert!(!book.unheard_of(hash, at(25)).await.unwrap());
    // The time alone does not release it.
    assert_eq!(book.left(Network::Regtest, Msat::sat(100), at(1_000)).await.unwrap(), Msat::sat(45));
    assert!(book.unheard_of(hash, at(26)).await.unwrap());
    assert_eq!(book.left(Network::Regtest, Msat::sat(100), at(26)).await.unwrap(), Msat::sat(100));
    assert_eq!(book.in_doubt(Network::Regtest, at(26)).await.unwrap().len(), 1, "it is asked about still");
    assert!(book.in_doubt(Network::Regtest, at(15 * 24)).await.unwrap().is_empty());
    assert!(matches!(book.begin(spending(1, 50), BUDGET, at(27)).await.unwrap(), Begun::Known(_)));
    // And should it turn out to be paid, it is.
    book.paid(hash, None, [7; 32], at(28)).await.unwrap();
    assert_eq!(state(&book, 1).await, SpendingState::Paid);
    assert_eq!(book.left(Network::Regtest, Msat::sat(100), at(29)).await.unwrap(), Msat::sat(45));
}

#[tokio::test]
async fn what_is_paid_stays_paid() {
    let book = book();
    let hash = PaymentHash([1; 32]);
    book.begin(spending(1, 50), None, at(0)).await.unwrap();
    book.paid(hash, Some(Msat::ZERO), [7; 32], at(1)).await.unwrap();
    book.failed(hash, "never mind".into(), at(2)).await.unwrap();
    assert!(!book.unheard_of(hash, at(100)).await.unwrap());
    let spent = book.payments(0).await.unwrap().remove(0);
    assert_eq!((spent.state, spent.preimage, spent.ended_at), (SpendingState::Paid, Some([7; 32]), Some(at(1))));
    assert!(!format!("{spent:?}").contains("preimage"));
}

#[tokio::test]
async fn a_receipt_is_kept_once_and_found_by_its_first_digits() {
    let book = book();
    let receipt = Received {
        job: JobId([0xab; 32]),
        provider: ProviderId([9; 32]),
        result: EventId([3; 32]),
        at: at(1),
        cost: Some(Msat::sat(4)),
        credit: None,
    };
    book.keep_receipt(receipt.clone()).await.unwrap();
    book.keep_receipt(Received { result: EventId([4; 32]), ..receipt.clone() }).await.unwrap();
    assert_eq!(book.receipts_beginning("ABAB".into()).await.unwrap(), std::slice::from_ref(&receipt));
    assert_eq!(book.receipts(0).await.unwrap(), [receipt]);
    assert!(book.receipts_beginning("ac".into()).await.unwrap().is_empty());
}

/// Each with connections of its own, as processes have.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_who_open_the_book_at_once_cannot_overspend() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("payments.db");
    let buyers = (0..12_u8).map(|number| {
        let path = path.clone();
        tokio::spawn(async move {
            let (book, closing) = tokio::task::spawn_blocking(move || Purchases::open(&path)).await.unwrap().unwrap();
            let begun = book.begin(spending(number, 25), BUDGET, at(0)).await.unwrap();
            drop(book);
            tokio::task::spawn_blocking(|| closing.wait()).await.unwrap();
            begun == Begun::Begun
        })
    });
    let begun = futures::future::join_all(buyers).await.into_iter().filter(|begun| *begun.as_ref().unwrap()).count();
    assert_eq!(begun, 3, "100 sat pay for three times 25 and 5 in fees");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
