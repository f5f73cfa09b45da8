//! Waiting for a turn: who is next, what the waiting are told, and who is refused before they pay.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coinop::executor::{Executor, Prepared};
use coinop::inference::TextSink;
use coinop::inference::echo::{Echo, MODEL_NAME};
use coinop::job::queue::{Lane, Standing};
use coinop::job::{
    Code, EffectKey, Estimate, Failure, JobId, JobKind, JobRequest, Outcome, PaymentState, Rates, Refusal, Terms,
    WorkState,
};
use coinop::money::Msat;
use coinop::nip90::{AnswerBody, Order, Status};
use coinop::provider::{Clock, Moment, Witness};
use coinop::testing::market::{Customer, Posted, TestMarket, within};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

/// A market whose model does one job at a time, a hundred seconds for each token budgeted as far as the queue knows, and none
/// for more than a quarter of an hour. Its clock stands still, so that its sums come out even.
async fn one_at_a_time(echo: &Echo, terms: Terms) -> (TestMarket, Timestamp) {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let market = TestMarket::new()
        .backend(echo.clone())
        .terms(terms)
        .clock(Clock::new(move || now))
        .time_limit(Duration::from_secs(15 * 60))
        .settings(|settings| settings.jobs_running = 1)
        .start()
        .await;
    let lane = Lane { kind: JobKind::TextGeneration, name: Some(MODEL_NAME.to_owned()) };
    let one = Estimate::tokens(0, 1);
    market.service().provider().note_pace(lane, one, Duration::from_secs(100));
    (market, now)
}

/// One word, to be answered by at most five: six tokens, ten minutes.
fn order(customer: &Customer, expires_at: Option<Timestamp>) -> Order {
    let mut order = customer.order("word");
    order.params.push("max_tokens", vec!["5".into()]);
    order.expires_at = expires_at;
    order
}

async fn ask(customer: &Customer, expires_at: Option<Timestamp>) -> Posted {
    customer.post(&order(customer, expires_at)).await
}

async fn standing(posted: &mut Posted) -> Standing {
    posted
        .until(|body| match body {
            AnswerBody::Feedback(feedback) => feedback.queue,
            AnswerBody::Result(_) => panic!("the result of a job that waits"),
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_hears_where_they_stand_and_then_that_the_work_has_begun() {
    let echo = Echo::new().gated();
    let (market, _) = one_at_a_time(&echo, Terms::Free).await;
    let (one, other) = (market.customer().await, market.customer().await);
    let mut first = ask(&one, None).await;
    within("the first run", echo.wait_for_runs(1)).await;
    let mut second = ask(&other, None).await;
    let told = second.status(Status::Processing).await;
    assert_eq!(told.queue, Some(Standing { position: 1, wait: Some(Duration::from_secs(600)) }));
    assert_eq!(told.text.as_deref(), Some("position 1 in the queue, about 10 min"));

    echo.release(1);
    first.result().await;
    let begun = second.status(Status::Processing).await;
    assert_eq!((begun.text.as_deref(), begun.queue), (Some("the work has begun"), None));
    echo.release(1);
    second.result().await;
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_job_goes_before_the_free_ones_that_wait() {
    let echo = Echo::new().gated();
    let market = TestMarket::new()
        .backend(echo.clone())
        .free_per_day(2)
        .settings(|settings| settings.jobs_running = 1)
        .start()
        .await;
    let customer = market.customer().await;
    let mut running = customer.post(&customer.order("free and running")).await;
    within("the first run", echo.wait_for_runs(1)).await;
    let mut free = customer.post(&customer.order("free and waiting")).await;
    standing(&mut free).await;
    let mut paid = customer.post(&customer.order("paid")).await;
    let invoice = paid.invoice().await;
    customer.pay(&invoice).await.unwrap();
    assert_eq!(standing(&mut paid).await.position, 1);
    echo.release(2);
    running.result().await;
    paid.result().await;
    market.moments().reached(paid.job, Moment::After(EffectKey::Run)).await;
    assert_eq!(market.moments().times(free.job, Moment::After(EffectKey::Run)), 0);
    echo.release(1);
    free.result().await;
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_would_begin_after_it_expires_is_refused_before_it_is_paid() {
    let echo = Echo::new().gated();
    let (market, now) = one_at_a_time(&echo, Terms::Prepay).await;
    let (one, other) = (market.customer().await, market.customer().await);
    let (soon, late) = (now + SignedDuration::from_mins(5), now + SignedDuration::from_mins(60));
    // Nothing is in its way.
    let mut first = ask(&one, Some(soon)).await;
    let invoice = first.invoice().await;
    one.pay(&invoice).await.unwrap();
    within("the first run", echo.wait_for_runs(1)).await;

    let mut hasty = ask(&other, Some(soon)).await;
    let refusal = hasty.refusal().await;
    assert_eq!(refusal.code, Code::RateLimited);
    assert!(refusal.text.contains("begin in about 10 min"), "{}", refusal.text);
    assert!(refusal.text.contains("expires in 5 min"), "{}", refusal.text);
    let broadcast = other.post(&Order { providers: Vec::new(), ..order(&other, Some(soon)) }).await;
    // There is time enough for these.
    ask(&other, Some(late)).await.invoice().await;
    ask(&other, None).await.invoice().await;
    assert!(market.stored(hasty.job).await.is_none());
    echo.release(1);
    first.result().await;
    let jobs = [hasty.job, broadcast.job];
    let closed = market.finish().await;
    assert_eq!(closed.answers_of_kind(jobs[0], 7000).await, 1);
    closed.was_silent_about(jobs[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_held_payment_would_go_back_before_its_turn_is_refused() {
    let echo = Echo::new().gated();
    let (market, _) = one_at_a_time(&echo, Terms::Hold).await;
    let (one, other) = (market.customer().await, market.customer().await);
    let mut first = ask(&one, None).await;
    let invoice = first.invoice().await;
    assert_eq!(invoice.feedback.terms, Some(Terms::Hold));
    let paying = one.begin_to_pay(&invoice);
    within("the first run", echo.wait_for_runs(1)).await;
    let mut second = ask(&other, None).await;
    let waiting = other.begin_to_pay(&second.invoice().await);
    standing(&mut second).await;
    // Behind both: its customer was given the first run.
    let mut third = order(&one, None);
    third.inputs[0].data = "another".into();
    let refusal = one.post(&third).await.refusal().await;
    assert_eq!(refusal.code, Code::RateLimited);
    assert!(refusal.text.contains("begin in about 20 min"), "{}", refusal.text);
    assert!(refusal.text.contains("held for at most 15 min"), "{}", refusal.text);
    echo.release(2);
    first.result().await;
    second.result().await;
    paying.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_lane_never_has_room_again_ends_when_it_expires() {
    let ahead = Arc::new(AtomicI64::new(0));
    let hand = Arc::clone(&ahead);
    let market = TestMarket::new()
        .clock(Clock::new(move || Timestamp::now() + SignedDuration::from_secs(hand.load(Ordering::SeqCst))))
        .witness(Arc::new(PaidAndTooLate(ahead)))
        .executor_behind(|text| Arc::new(Fronted { room: Some(0), ..Fronted::of(text) }))
        .start()
        .await;
    let customer = market.customer().await;
    let mut posted = ask(&customer, Some(Timestamp::now() + SignedDuration::from_mins(10))).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    let refusal = posted.refusal().await;
    assert_eq!(refusal.code, Code::Expired);
    assert!(refusal.text.contains("21 sat became credit"), "{}", refusal.text);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_with_prices_of_its_own_is_quoted_by_them() {
    let rates = Rates { base: Msat::sat(3), ..Rates::default() };
    let front = move |text| Arc::new(Fronted { rates: Some(rates), ..Fronted::of(text) }) as Arc<dyn Executor>;
    let market = TestMarket::new().price(Msat::sat(21)).executor_behind(front).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("cheap")).await;
    let invoice = posted.invoice().await;
    assert_eq!(invoice.amount, Msat::sat(3));
    customer.pay(&invoice).await.unwrap();
    assert_eq!(posted.result().await.receipt.paid, Some(Msat::sat(3)));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_work_ends_that_job_alone_and_frees_its_place() {
    let market = TestMarket::new()
        .settings(|settings| settings.jobs_running = 1)
        .executor_behind(|text| Arc::new(Fronted { panics: true, ..Fronted::of(text) }))
        .start()
        .await;
    let customer = market.customer().await;
    let mut order = customer.order("fall over");
    order.params.push("stream", vec!["true".into()]);
    let mut posted = customer.post(&order).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    let refusal = posted.refusal().await;
    assert_eq!(refusal.code, Code::Backend);
    assert!(refusal.text.contains("21 sat became credit"), "{}", refusal.text);
    let job = market.job(posted.job).await;
    assert_eq!((job.work, job.payment), (WorkState::Failed, PaymentState::Settled));

    let unready = customer.post(&customer.order("fall over at once")).await.refusal().await;
    assert_eq!(unready.code, Code::Backend);

    // The credit pays, and there is a place.
    let mut next = customer.post(&customer.order("stand firm")).await;
    assert_eq!(next.result().await.content, "stand firm");
    market.finish().await;
}

/// An hour passes as soon as something is paid.
struct PaidAndTooLate(Arc<AtomicI64>);

#[async_trait]
impl Witness for PaidAndTooLate {
    async fn at(&self, moment: Moment, _: JobId) {
        if moment == Moment::Told("payment-settled") {
            self.0.store(3_600, Ordering::SeqCst);
        }
    }
}

/// An executor that is changed in one way.
struct Fronted {
    behind: Arc<dyn Executor>,
    room: Option<usize>,
    rates: Option<Rates>,
    panics: bool,
}

impl Fronted {
    fn of(behind: Arc<dyn Executor>) -> Self {
        Self { behind, room: None, rates: None, panics: false }
    }
}

#[async_trait]
impl Executor for Fronted {
    async fn prepare(&self, request: &JobRequest) -> Result<Prepared, Refusal> {
        assert!(!self.panics || request.inputs[0].data != "fall over at once", "as told");
        let prepared = self.behind.prepare(request).await?;
        Ok(Prepared { rates: self.rates, ..prepared })
    }

    fn room(&self, lane: Option<&str>) -> usize {
        self.room.unwrap_or_else(|| self.behind.room(lane))
    }

    async fn run(
        &self,
        prepared: &Prepared,
        partial: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Outcome, Failure> {
        assert!(!self.panics || !prepared.work.to_string().contains("fall over"), "as told");
        self.behind.run(prepared, partial, cancel).await
    }
}
