//! Customers and operators who change their minds.

use coinop::inference::echo::Echo;
use coinop::job::{Canceller, Code, JobEvent, JobId, PaymentState, Terms, WorkState};
use coinop::money::Msat;
use coinop::testing::market::{TestMarket, within};

use crate::backends::SlowToCount;

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_before_the_payment_nothing_is_done() {
    let echo = Echo::new();
    let market = TestMarket::new().backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("never mind")).await;
    posted.invoice().await;
    customer.cancel(posted.job).await;
    assert_eq!(posted.refusal().await.code, Code::Cancelled);
    let job = market.job(posted.job).await;
    assert_eq!(
        (job.work, job.payment, job.cancelled_by),
        (WorkState::Cancelled, PaymentState::Void, Some(Canceller::Customer))
    );
    assert_eq!(echo.runs(), 0);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paid_after_the_cancellation_it_becomes_credit() {
    let echo = Echo::new();
    let market = TestMarket::new().backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("crossing")).await;
    let invoice = posted.invoice().await;
    customer.cancel(posted.job).await;
    posted.refusal().await;
    customer.pay(&invoice).await.unwrap();
    market.moments().told(posted.job, "payment-settled").await;
    let credit = market.service().provider().store().credit(customer.signer.customer_id()).await.unwrap();
    assert_eq!((credit, echo.runs()), (Msat::sat(21), 0));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_during_the_run_it_stops_and_the_price_becomes_credit() {
    let echo = Echo::new().gated();
    let market = TestMarket::new().backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("stop")).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    within("the run", echo.wait_for_runs(1)).await;
    customer.cancel(posted.job).await;
    let refusal = posted.refusal().await;
    assert_eq!(refusal.code, Code::Cancelled);
    assert!(refusal.text.contains("21 sat became credit"), "{}", refusal.text);
    let job = posted.job;
    // The gate was never opened: only a stopped run lets the market close.
    assert_eq!(market.finish().await.answers_of_kind(job, 6050).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_during_the_run_held_money_goes_back() {
    let echo = Echo::new().gated();
    let market = TestMarket::new().terms(Terms::Hold).backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("stop")).await;
    let invoice = posted.invoice().await;
    let paying = customer.begin_to_pay(&invoice);
    within("the run", echo.wait_for_runs(1)).await;
    customer.cancel(posted.job).await;
    assert_eq!(posted.refusal().await.code, Code::Cancelled);
    assert!(paying.await.unwrap().is_err());
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_that_comes_before_its_request_counts() {
    let market = TestMarket::new().relays(2).terms(Terms::Free).start().await;
    let one = market.customer_at(&[market.relay(0).url()]).await;
    let request = one.sign(&one.order("already over"));
    let job = JobId(request.id.0);
    one.cancel(job).await;
    one.ping().await;
    // The other relay has not heard of the deletion.
    one.leave_at(market.relay(1), &request).await;
    let other = market.customer_at(&[market.relay(1).url()]).await;
    other.ping().await;
    market.finish().await.was_silent_about(job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_that_comes_while_the_request_is_made_ready_counts() {
    let slow = SlowToCount::new(Echo::new().gated());
    let market = TestMarket::new().backend(slow.clone()).terms(Terms::Free).start().await;
    let customer = market.customer().await;
    let posted = customer.post(&customer.order("quick change of mind")).await;
    within("the request to be looked at", slow.counting.acquire()).await.unwrap().forget();
    customer.cancel(posted.job).await;
    customer.ping().await;
    slow.may_count.add_permits(1);
    let job = posted.job;
    // The gate was never opened: were the job still wanted, the market could not close.
    assert_eq!(market.finish().await.answers_of_kind(job, 6050).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_cancels_somebody_else_s_job() {
    let market = TestMarket::new().start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("mine")).await;
    let invoice = posted.invoice().await;
    let stranger = market.customer().await;
    stranger.cancel(posted.job).await;
    stranger.ping().await;
    customer.pay(&invoice).await.unwrap();
    assert_eq!(posted.result().await.content, "mine");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_s_early_cancellation_does_not_count() {
    let market = TestMarket::new().terms(Terms::Free).start().await;
    let customer = market.customer().await;
    let request = customer.sign(&customer.order("mine alone"));
    let stranger = market.customer().await;
    stranger.cancel(JobId(request.id.0)).await;
    stranger.ping().await;
    assert_eq!(customer.publish(&request).await.result().await.content, "mine alone");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_cancels_beside_the_running_provider() {
    let echo = Echo::new().gated();
    let market = TestMarket::new().backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("operator's choice")).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    within("the run", echo.wait_for_runs(1)).await;

    let (store, closing) = market.second_store();
    let now = jiff::Timestamp::now();
    let cancelled = store.advance(posted.job, JobEvent::cancelled(Canceller::Operator), now).await.unwrap();
    assert_eq!(cancelled.job.work, WorkState::Cancelled);
    drop(store);
    closing.wait();

    let refusal = posted.refusal().await;
    assert_eq!(refusal.code, Code::Cancelled);
    assert!(refusal.text.contains("21 sat became credit"), "{}", refusal.text);
    market.finish().await;
}
