//! Stopping and starting again, in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use coinop::inference::echo::Echo;
use coinop::job::{Code, EffectKey, JobId, Terms, WorkState};
use coinop::money::Msat;
use coinop::nip90::Status;
use coinop::provider::{Clock, Moment};
use coinop::testing::market::{PATIENCE, TestMarket, within};
use jiff::{SignedDuration, Timestamp};

use crate::backends::{SlowToCount, Unanswering};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_outlasts_the_grace_period_is_parked_and_done_after_the_restart() {
    let echo = Echo::new().gated();
    let mut market = TestMarket::new().backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("parked")).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    within("the run", echo.wait_for_runs(1)).await;

    assert!(!market.stop(Duration::ZERO).await);
    echo.release(1);
    market.start_again().await.unwrap();
    assert_eq!(posted.result().await.content, "parked");
    assert_eq!(echo.runs(), 2);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_within_the_grace_period_is_delivered_before_the_end() {
    let echo = Echo::new().gated();
    let mut market = TestMarket::new().backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("just in time")).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    within("the run", echo.wait_for_runs(1)).await;

    let (finished, ()) = tokio::join!(market.stop(PATIENCE), async { echo.release(1) });
    assert!(finished);
    assert_eq!(posted.result().await.content, "just in time");
    market.start_again().await.unwrap();
    assert_eq!(market.job(posted.job).await.work, WorkState::Delivered);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_whose_turn_had_not_come_run_after_the_restart_and_each_once() {
    let echo = Echo::new().gated();
    let mut market = TestMarket::new()
        .backend(echo.clone())
        .terms(Terms::Free)
        .settings(|settings| settings.jobs_running = 1)
        .start()
        .await;
    let customer = market.customer().await;
    let mut posted = Vec::new();
    for text in ["first", "second", "third"] {
        posted.push(customer.post(&customer.order(text)).await);
    }
    for one in &posted {
        market.moments().reached(one.job, Moment::Before(EffectKey::Run)).await;
    }
    within("the first run", echo.wait_for_runs(1)).await;
    market.stop(Duration::ZERO).await;
    echo.release(3);
    market.start_again().await.unwrap();
    for (one, text) in posted.iter_mut().zip(["first", "second", "third"]) {
        assert_eq!(one.result().await.content, text);
    }
    assert_eq!(echo.runs(), 4);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_published_while_nobody_served_is_taken_after_the_start() {
    let mut market = TestMarket::new().terms(Terms::Free).start().await;
    let customer = market.customer().await;
    customer.ping().await;
    market.stop(PATIENCE).await;
    let mut posted = customer.post(&customer.order("good morning")).await;
    market.start_again().await.unwrap();
    assert_eq!(posted.result().await.content, "good morning");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_relays_tell_again_after_a_restart_is_not_done_again() {
    let echo = Echo::new();
    let mut market = TestMarket::new().backend(echo.clone()).start().await;
    let customer = market.customer().await;
    customer.buys("only once").await;
    let mut unpaid = customer.post(&customer.order("not paid yet")).await;
    let invoice = unpaid.invoice().await;
    for _ in 0..2 {
        market.stop(PATIENCE).await;
        market.start_again().await.unwrap();
        customer.ping().await;
    }
    customer.pay(&invoice).await.unwrap();
    assert_eq!(unpaid.result().await.content, "not paid yet");
    assert_eq!(echo.runs(), 2);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_paid_while_nobody_served_is_honoured_after_the_start() {
    let mut market = TestMarket::new().start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("paid in the dark")).await;
    let invoice = posted.invoice().await;
    market.stop(PATIENCE).await;
    customer.pay(&invoice).await.unwrap();
    market.start_again().await.unwrap();
    assert_eq!(posted.result().await.content, "paid in the dark");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_found_undone_at_start_after_start_is_given_up_and_credited() {
    let echo = Echo::new().gated();
    let mut market = TestMarket::new().backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("poison")).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    for run in 1..=4 {
        within("another run", echo.wait_for_runs(run)).await;
        market.stop(Duration::ZERO).await;
        market.start_again().await.unwrap();
    }
    let refusal = posted.refusal().await;
    assert_eq!(refusal.code, Code::Backend);
    assert!(refusal.text.contains("21 sat became credit"), "{}", refusal.text);
    assert_eq!(echo.runs(), 4);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_is_forgotten_and_the_books_are_kept() {
    let ahead = Arc::new(AtomicI64::new(0));
    let hand = Arc::clone(&ahead);
    let clock = Clock::new(move || Timestamp::now() + SignedDuration::from_hours(hand.load(Ordering::SeqCst)));
    let day = Duration::from_secs(24 * 3_600);
    let mut market = TestMarket::new().clock(clock).retention(2 * day).start().await;
    let customer = market.customer().await;
    let mut paid = customer.post(&customer.order("remember the money")).await;
    let invoice = paid.invoice().await;
    customer.pay(&invoice).await.unwrap();
    paid.result().await;
    market.moments().told(paid.job, "result-published").await;
    let mut unpaid = customer.post(&customer.order("forget me")).await;
    let invoice = unpaid.invoice().await;
    market.wallet().expire(&invoice.payment_hash).unwrap();
    market.moments().told(unpaid.job, "lapsed").await;

    market.stop(PATIENCE).await;
    ahead.store(3 * 24, Ordering::SeqCst);
    market.start_again().await.unwrap();
    until_gone(&market, unpaid.job).await;
    let stored = market.stored(paid.job).await.expect("its money is in the books");
    assert_eq!((stored.request, stored.result, stored.outcome), (None, None, None));
    let earned = market.service().provider().store().earnings(None).await.unwrap();
    assert_eq!(earned.iter().map(|line| line.earned.as_msat()).sum::<i64>(), 21_000);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpaid_quote_is_kept_for_as_long_as_a_late_payment_may_come() {
    let ahead = Arc::new(AtomicI64::new(0));
    let hand = Arc::clone(&ahead);
    let clock = Clock::new(move || Timestamp::now() + SignedDuration::from_hours(hand.load(Ordering::SeqCst)));
    let hours = |count: u64| Duration::from_secs(count * 3_600);
    let mut market = TestMarket::new()
        .clock(clock)
        .retention(hours(1))
        .settings(|settings| settings.late_payment_window = hours(48))
        .start()
        .await;
    let customer = market.customer().await;
    let mut marker = customer.order("refused at once");
    marker.bid = Some(Msat::msat(1));
    let mut marker = customer.post(&marker).await;
    marker.refusal().await;
    ahead.store(30, Ordering::SeqCst);
    let mut posted = customer.post(&customer.order("late but welcome")).await;
    let invoice = posted.invoice().await;
    market.wallet().expire(&invoice.payment_hash).unwrap();
    market.moments().told(posted.job, "lapsed").await;

    market.stop(PATIENCE).await;
    ahead.store(60, Ordering::SeqCst);
    market.start_again().await.unwrap();
    // The refusal is older than even a late payment may be; when it is gone, what could be forgotten has been.
    let store = market.service().provider().store().clone();
    let forgotten = async {
        while store.knows(marker.job).await.unwrap() {
            tokio::task::yield_now().await
        }
    };
    within("old refusals to be forgotten", forgotten).await;
    drop(store);
    market.wallet().settle(&invoice.payment_hash).unwrap();
    market.moments().told(posted.job, "payment-settled").await;
    // The prompt of a quote nobody paid is kept for hours, not days: so late, the payment becomes credit.
    market.moments().told(posted.job, "run-failed").await;
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_being_made_ready_does_not_hold_up_the_end_and_is_taken_after_the_start() {
    let slow = SlowToCount::new(Echo::new());
    let mut market = TestMarket::new().terms(Terms::Free).backend(slow.clone()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("not ready yet")).await;
    within("the request to be looked at", slow.counting.acquire()).await.unwrap().forget();
    market.stop(Duration::ZERO).await;
    slow.may_count.add_permits(1);
    market.start_again().await.unwrap();
    assert_eq!(posted.result().await.content, "not ready yet");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_never_answers_does_not_hold_up_the_end() {
    let mut market = TestMarket::new().wallet_behind(|wallet| Arc::new(Unanswering(wallet))).start().await;
    let customer = market.customer().await;
    let posted = customer.post(&customer.order("hello?")).await;
    market.moments().reached(posted.job, Moment::Before(EffectKey::IssueInvoice)).await;
    assert!(!market.stop(Duration::ZERO).await);
    let (store, _closing) = market.second_store();
    let pending = store.pending().await.unwrap();
    assert_eq!(pending.iter().map(|act| act.effect.key()).collect::<Vec<_>>(), [EffectKey::IssueInvoice]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_is_answered_once_even_over_a_restart() {
    let ahead = Arc::new(AtomicI64::new(0));
    let hand = Arc::clone(&ahead);
    let clock = Clock::new(move || Timestamp::now() + SignedDuration::from_secs(hand.load(Ordering::SeqCst)));
    let mut market = TestMarket::new().clock(clock).start().await;
    let customer = market.customer().await;
    let ping = customer.codec.ping(market.provider().provider_id(), &[], Timestamp::now()).unwrap();
    let mut posted = customer.publish(&ping).await;
    posted.status(Status::Pong).await;
    market.stop(PATIENCE).await;
    // In another second the same answer is another event.
    ahead.store(2, Ordering::SeqCst);
    market.start_again().await.unwrap();
    customer.ping().await;
    let job = posted.job;
    assert_eq!(market.finish().await.answers_of_kind(job, 7000).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_that_writes_makes_nothing_run_twice() {
    const JOBS: usize = 1_500;
    let echo = Echo::new();
    let market = TestMarket::new()
        .terms(Terms::Free)
        .backend(echo.clone())
        .rules(|rules| {
            rules.max_per_customer = JOBS;
            rules.max_queued = JOBS;
        })
        .start()
        .await;
    let (store, closing) = market.second_store();
    let customer = market.customer().await;
    let meddling = tokio::spawn(async move {
        let mut at = Timestamp::UNIX_EPOCH;
        loop {
            at += SignedDuration::from_secs(1);
            store.set_cursor("somebody else", at).await.unwrap();
        }
    });
    for number in 0..JOBS {
        customer.leave_at(market.relay(0), &customer.sign(&customer.order(&format!("job {number}")))).await;
    }
    market.moments().told_in_all("result-published", JOBS).await;
    meddling.abort();
    assert!(meddling.await.is_err());
    closing.wait();
    market.finish().await;
    assert_eq!(usize::try_from(echo.runs()).unwrap(), JOBS);
}

/// Pruning tells nobody, so it is looked for.
async fn until_gone(market: &TestMarket, job: JobId) {
    let gone = async {
        while market.stored(job).await.is_some() {
            tokio::task::yield_now().await
        }
    };
    within("the quote to be forgotten", gone).await;
}
