//! Work given away: who calls running jobs off, or has them fail for what was asked, is served only so often an hour.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coinop::executor::{Executor, Prepared};
use coinop::identity::Signer;
use coinop::inference::TextSink;
use coinop::inference::echo::Echo;
use coinop::job::{
    Code, Estimate, Failure, FinishReason, JobKind, JobRequest, Outcome, Rates, Refusal, Terms, Usage, WorkState,
};
use coinop::money::Msat;
use coinop::nip90::Order;
use coinop::provider::Offer;
use coinop::testing::market::{Customer, MarketBuilder, Posted, TestMarket, within};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const KIND: JobKind = JobKind::CodeReview;

/// Does what the request's first word says: `hang` until it is called off, `fail` for what was asked, `come-to-nothing`,
/// `break` for reasons of ours, or `work`.
struct AsTold {
    begun: Arc<Semaphore>,
}

#[async_trait]
impl Executor for AsTold {
    async fn prepare(&self, request: &JobRequest) -> Result<Prepared, Refusal> {
        Ok(Prepared {
            estimate: Estimate::tokens(0, 0),
            prompt_is_exact: true,
            stream: false,
            rates: None,
            lane: None,
            work: Value::from(request.inputs[0].data.clone()),
        })
    }

    async fn run(
        &self,
        prepared: &Prepared,
        _: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Outcome, Failure> {
        self.begun.add_permits(1);
        match prepared.work.as_str().and_then(|told| told.split(' ').next()) {
            Some("hang") => {
                cancel.cancelled().await;
                Err(Failure::new(Code::Cancelled, "the job was cancelled"))
            }
            Some("fail") => Err(Failure::new(Code::BadRequest, "the tests fail")),
            Some("come-to-nothing") => Err(Failure::backend("the patch does not pass its test").in_vain()),
            Some("break") => Err(Failure::backend("the sandbox failed")),
            _ => Ok(Outcome {
                content: "done".into(),
                usage: Usage::NONE,
                finish: FinishReason::Stop,
                model: None,
                parameters: None,
                digest: None,
                facts: Vec::new(),
                duration: Duration::from_millis(3),
            }),
        }
    }
}

/// A market where a customer may have so much for nothing, and what says that a run has begun.
fn giving_away(most: usize) -> (MarketBuilder, Arc<Semaphore>) {
    let begun = Arc::new(Semaphore::new(0));
    let rates = Rates { base: Msat::sat(21), ..Rates::default() };
    let hold_for = Offer::hold_for(Duration::from_secs(60));
    let offer = Offer { rates, terms: Terms::Hold, free_per_day: 0, hold_for };
    let executor = Arc::new(AsTold { begun: Arc::clone(&begun) });
    let market = TestMarket::new().selling(KIND, executor, offer).rules(|rules| rules.max_given_away = most);
    (market, begun)
}

fn told(customer: &Customer, what: &str) -> Order {
    Order { kind: KIND, ..customer.order(what) }
}

async fn one_run(begun: &Semaphore) {
    within("a run to begin", begun.acquire()).await.unwrap().forget();
}

/// Orders, pays and calls off what has begun.
async fn call_off(customer: &Customer, what: &str, begun: &Semaphore) {
    let mut posted = customer.post(&told(customer, what)).await;
    let invoice = posted.invoice().await;
    let paying = customer.begin_to_pay(&invoice);
    one_run(begun).await;
    customer.cancel(posted.job).await;
    assert_eq!(posted.refusal().await.code, Code::Cancelled);
    assert!(paying.await.unwrap().is_err(), "nothing is charged");
}

/// Orders and pays what fails; with what code.
async fn fails(customer: &Customer, what: &str) -> Code {
    let mut posted = customer.post(&told(customer, what)).await;
    let invoice = posted.invoice().await;
    let paying = customer.begin_to_pay(&invoice);
    let code = posted.refusal().await.code;
    assert!(paying.await.unwrap().is_err(), "nothing is charged");
    code
}

/// Orders and pays what is delivered.
async fn is_served(customer: &Customer, what: &str) {
    let mut posted = customer.post(&told(customer, what)).await;
    let invoice = posted.invoice().await;
    let paying = customer.begin_to_pay(&invoice);
    assert_eq!(posted.result().await.content, "done");
    paying.await.unwrap().unwrap();
}

/// Is refused without an invoice.
async fn is_turned_away(market: &TestMarket, mut posted: Posted) -> String {
    let refusal = posted.refusal().await;
    assert_eq!(refusal.code, Code::RateLimited);
    assert!(market.stored(posted.job).await.is_none(), "there is no job, so no invoice");
    refusal.text
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_running_jobs_off_too_often_is_refused_before_an_invoice_and_others_are_served() {
    let (market, begun) = giving_away(2);
    let market = market.start().await;
    let customer = market.customer().await;
    call_off(&customer, "hang once", &begun).await;
    // What is paid makes up for as much.
    is_served(&customer, "work as well").await;
    one_run(&begun).await;
    call_off(&customer, "hang again", &begun).await;
    call_off(&customer, "hang for ever", &begun).await;
    let text = is_turned_away(&market, customer.post(&told(&customer, "work now")).await).await;
    assert!(text.starts_with("2 of your jobs in the last hour"), "{text}");
    assert!(text.contains("machine's time") && text.contains("try again in about"), "{text}");
    is_served(&market.customer().await, "work for me").await;
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_for_what_was_asked_count_whatever_the_kind_and_those_of_ours_do_not() {
    let (market, _) = giving_away(3);
    let echo = Echo::new().gated();
    let market = market.backend(echo.clone()).terms(Terms::Hold).start().await;
    let customer = market.customer().await;
    for what in ["break one", "break two", "break three", "break four"] {
        assert_eq!(fails(&customer, what).await, Code::Backend);
    }
    assert_eq!(fails(&customer, "fail").await, Code::BadRequest);
    assert_eq!(fails(&customer, "come-to-nothing").await, Code::Backend);
    let mut text = customer.post(&customer.order("of another kind")).await;
    let invoice = text.invoice().await;
    let paying = customer.begin_to_pay(&invoice);
    within("the run", echo.wait_for_runs(1)).await;
    customer.cancel(text.job).await;
    assert_eq!(text.refusal().await.code, Code::Cancelled);
    assert!(paying.await.unwrap().is_err());
    for order in [told(&customer, "work"), customer.order("a text")] {
        is_turned_away(&market, customer.post(&order).await).await;
    }
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_called_off_before_it_has_begun_does_not_count() {
    let (market, begun) = giving_away(1);
    let market = market.settings(|settings| settings.jobs_running = 1).start().await;
    let (customer, other) = (market.customer().await, market.customer().await);
    let mut unpaid = customer.post(&told(&customer, "work unpaid")).await;
    unpaid.invoice().await;
    customer.cancel(unpaid.job).await;
    assert_eq!(unpaid.refusal().await.code, Code::Cancelled);

    let mut first = other.post(&told(&other, "hang on")).await;
    let invoice = first.invoice().await;
    let others = other.begin_to_pay(&invoice);
    one_run(&begun).await;
    let mut queued = customer.post(&told(&customer, "work later")).await;
    let invoice = queued.invoice().await;
    let paying = customer.begin_to_pay(&invoice);
    market.moments().told(queued.job, "payment-held").await;
    customer.cancel(queued.job).await;
    assert_eq!(queued.refusal().await.code, Code::Cancelled);
    assert!(paying.await.unwrap().is_err());

    other.cancel(first.job).await;
    first.refusal().await;
    assert!(others.await.unwrap().is_err());
    is_served(&customer, "work at last").await;
    is_turned_away(&market, other.post(&told(&other, "work")).await).await;
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_before_is_not_begun_and_its_money_goes_back() {
    let (market, begun) = giving_away(1);
    let market = market.settings(|settings| settings.jobs_running = 1).start().await;
    let customer = market.customer().await;
    let mut first = customer.post(&told(&customer, "hang")).await;
    let invoice = first.invoice().await;
    let paying_first = customer.begin_to_pay(&invoice);
    one_run(&begun).await;
    let mut second = customer.post(&told(&customer, "work")).await;
    let invoice = second.invoice().await;
    let paying_second = customer.begin_to_pay(&invoice);
    market.moments().told(second.job, "payment-held").await;
    customer.cancel(first.job).await;
    first.refusal().await;
    assert_eq!(second.refusal().await.code, Code::RateLimited);
    assert!(paying_first.await.unwrap().is_err() && paying_second.await.unwrap().is_err());
    assert_eq!(market.job(second.job).await.work, WorkState::Failed);
    assert_eq!(begun.available_permits(), 0, "it was not run");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_pays_by_the_operator_s_wish_may_call_off_what_they_like() {
    let signer = Signer::random();
    let key = signer.customer_id();
    let (market, begun) = giving_away(1);
    let market = market.rules(|rules| rules.on_the_house = [key].into()).start().await;
    let friend = market.customer_as(signer, &[market.relay(0).url()]).await;
    for what in ["hang once", "hang twice"] {
        let mut posted = friend.post(&told(&friend, what)).await;
        one_run(&begun).await;
        friend.cancel(posted.job).await;
        assert_eq!(posted.refusal().await.code, Code::Cancelled);
    }
    assert_eq!(friend.post(&told(&friend, "work")).await.result().await.content, "done");
    market.finish().await;
}
