//! Wallets that lie, repeat themselves, fall silent; payments that are late or too small.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use coinop::inference::echo::Echo;
use coinop::job::{Code, EffectKey, PaymentState, Terms, WorkState};
use coinop::money::Msat;
use coinop::provider::{Clock, Moment};
use coinop::testing::market::TestMarket;
use jiff::{SignedDuration, Timestamp};

/// Asks the wallet often: for stories in which its news does not come.
const OFTEN: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_over_another_amount_never_reaches_a_customer() {
    let market = TestMarket::new().start().await;
    market.wallet().faults().lie_about_amount(Some(Msat::sat(2_100)));
    let customer = market.customer().await;
    let broadcast = customer.post(&customer.broadcast("x")).await;
    let mut addressed = customer.post(&customer.order("x")).await;
    assert_eq!(addressed.refusal().await.code, Code::Backend);
    assert!(addressed.heard.iter().all(|answer| !format!("{answer:?}").contains("lnbcrt")));
    market.moments().told(broadcast.job, "invoice-refused").await;
    market.finish().await.was_silent_about(broadcast.job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_wallet_is_asked_again_until_it_is_back() {
    let market = TestMarket::new().settings(|settings| settings.payment_poll = OFTEN).start().await;
    market.wallet().faults().go_silent(true);
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("patience")).await;
    market.moments().reached(posted.job, Moment::Before(EffectKey::IssueInvoice)).await;
    market.wallet().faults().go_silent(false);
    let invoice = posted.invoice().await;

    // And again while the customer pays.
    market.wallet().faults().go_silent(true);
    customer.pay(&invoice).await.unwrap();
    market.wallet().faults().go_silent(false);
    assert_eq!(posted.result().await.content, "patience");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_without_news_is_found_by_asking() {
    let market = TestMarket::new().settings(|settings| settings.payment_poll = OFTEN).start().await;
    market.wallet().faults().drop_updates(true);
    let customer = market.customer().await;
    assert_eq!(customer.buys("quietly").await.content, "quietly");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_of_news_loses_no_payment() {
    let market = TestMarket::new().start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("through the gap")).await;
    let invoice = posted.invoice().await;
    market.wallet().faults().break_streams();
    customer.pay(&invoice).await.unwrap();
    assert_eq!(posted.result().await.content, "through the gap");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_makes_no_second_invoice_public() {
    let market = TestMarket::new().start().await;
    market.wallet().faults().lose_next_answer();
    let customer = market.customer().await;
    assert_eq!(customer.buys("once").await.content, "once");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_news_twice_is_one_payment_and_one_run() {
    let echo = Echo::new();
    let market = TestMarket::new().backend(echo.clone()).start().await;
    market.wallet().faults().duplicate_updates(true);
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("twice told")).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    posted.result().await;
    market.wallet().repeat_news(&invoice.payment_hash).unwrap();
    // The next payment's news comes after the repeated one.
    customer.buys("next").await;
    assert_eq!(echo.runs(), 2);
    assert_eq!(market.job(posted.job).await.paid, Msat::sat(21));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_does_not_start_the_work_and_is_kept_as_credit() {
    let echo = Echo::new();
    let market = TestMarket::new().backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("nearly")).await;
    let invoice = posted.invoice().await;
    market.wallet().settle_amount(&invoice.payment_hash, Msat::msat(20_999)).unwrap();
    let refusal = posted.refusal().await;
    assert_eq!(refusal.code, Code::Price);
    let credit = market.service().provider().store().credit(customer.signer.customer_id()).await.unwrap();
    assert_eq!((credit, echo.runs()), (Msat::msat(20_999), 0));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_is_earned_only_as_far_as_it_was_asked() {
    let market = TestMarket::new().start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("generous")).await;
    let invoice = posted.invoice().await;
    market.wallet().settle_amount(&invoice.payment_hash, Msat::sat(30)).unwrap();
    assert_eq!(posted.result().await.receipt.credit, Some(Msat::sat(9)));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_invoice_never_starts_a_run_and_a_late_payment_does() {
    let echo = Echo::new();
    let market = TestMarket::new().backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("better late")).await;
    let invoice = posted.invoice().await;
    market.wallet().expire(&invoice.payment_hash).unwrap();
    market.moments().told(posted.job, "lapsed").await;
    let job = market.job(posted.job).await;
    assert_eq!((job.work, job.payment, echo.runs()), (WorkState::Expired, PaymentState::Void, 0));

    market.wallet().settle(&invoice.payment_hash).unwrap();
    assert_eq!(posted.result().await.content, "better late");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_payment_of_a_postpaid_job_is_not_lost() {
    let market = TestMarket::new().terms(Terms::Postpay).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("late")).await;
    let invoice = posted.invoice().await;
    market.wallet().expire(&invoice.payment_hash).unwrap();
    market.moments().told(posted.job, "lapsed").await;
    market.wallet().settle(&invoice.payment_hash).unwrap();
    market.moments().told(posted.job, "payment-settled").await;
    // Its result, or credit: nothing else will do.
    let job = market.job(posted.job).await;
    let credit = market.service().provider().store().credit(customer.signer.customer_id()).await.unwrap();
    assert!(credit == Msat::sat(21) || job.payment.allows_publishing() && job.work != WorkState::Expired, "{job:?}");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_comes_after_the_request_expired_becomes_credit() {
    let ahead = Arc::new(AtomicI64::new(0));
    let hand = Arc::clone(&ahead);
    let clock = Clock::new(move || Timestamp::now() + SignedDuration::from_secs(hand.load(Ordering::SeqCst)));
    let echo = Echo::new();
    let market = TestMarket::new().backend(echo.clone()).clock(clock).start().await;
    let customer = market.customer().await;
    let mut order = customer.order("only if soon");
    order.expires_at = Some(Timestamp::now() + SignedDuration::from_secs(300));
    let mut posted = customer.post(&order).await;
    let invoice = posted.invoice().await;
    ahead.store(301, Ordering::SeqCst);
    customer.pay(&invoice).await.unwrap();
    let refusal = posted.refusal().await;
    assert_eq!(refusal.code, Code::Expired);
    assert!(refusal.text.contains("21 sat became credit"), "{}", refusal.text);
    assert_eq!(echo.runs(), 0);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_the_wallet_leaves_open_is_decided_when_there_is_news() {
    let echo = Echo::new().gated();
    let market = TestMarket::new().terms(Terms::Hold).backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("undecided")).await;
    let invoice = posted.invoice().await;
    let paying = customer.begin_to_pay(&invoice);
    market.moments().told(posted.job, "payment-held").await;
    market.wallet().faults().go_silent(true);
    echo.release(1);
    // Asked to settle, and silent: the next attempt waits.
    market.moments().reached(posted.job, Moment::After(EffectKey::SettleHold)).await;
    market.wallet().faults().go_silent(false);
    market.wallet().repeat_news(&invoice.payment_hash).unwrap();
    assert_eq!(posted.result().await.content, "undecided");
    paying.await.unwrap().unwrap();
    market.finish().await;
}
