//! Output as it is written.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use coinop::executor::{Executor, Prepared};
use coinop::inference::TextSink;
use coinop::job::{
    Code, EffectKey, Failure, JobRequest, Outcome, PaymentState, Rates, Refusal, Terms, Usage, WorkState,
};
use coinop::money::Msat;
use coinop::nip90::{AnswerBody, Order, Status};
use coinop::provider::Moment;
use coinop::testing::market::{Customer, Posted, TestMarket};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::backends::Dictated;

/// A satoshi for the job, and one for each token read or written.
const RATES: Rates =
    Rates { base: Msat::sat(1), per_1k_prompt: Msat::sat(1_000), per_1k_generated: Msat::sat(1_000), ..Rates::FREE };

/// Two words, to be answered in at most ten, in pieces: 13 sat.
fn order(customer: &Customer) -> Order {
    let mut order = customer.order("tell me");
    order.params.push("stream", vec!["true".into()]);
    order.params.push("max_tokens", vec!["10".into()]);
    order
}

/// Orders, pays, and has so many pieces dictated and shown.
async fn paid_and_shown(
    market: &TestMarket,
    customer: &Customer,
    dictate: &mpsc::Sender<String>,
    pieces: u32,
) -> Posted {
    let mut posted = customer.post(&order(customer)).await;
    let invoice = posted.invoice().await;
    assert_eq!(invoice.amount, Msat::sat(13));
    customer.pay(&invoice).await.unwrap();
    market.moments().told(posted.job, "payment-settled").await;
    for seq in 0..pieces {
        dictate.send(format!("piece {seq} ")).await.unwrap();
        assert_eq!(posted.until(piece).await, (Some(seq), format!("piece {seq} ")));
        // The customer may have it a moment before the provider knows.
        market.moments().reached_times(posted.job, Moment::Shown, seq as usize + 1).await;
    }
    posted
}

fn piece(body: &AnswerBody) -> Option<(Option<u32>, String)> {
    match body {
        AnswerBody::Feedback(feedback) if feedback.status == Status::Partial => {
            Some((feedback.seq, feedback.content.clone()))
        }
        AnswerBody::Feedback(_) => None,
        AnswerBody::Result(result) => panic!("the result came before its pieces: {}", result.content),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_come_numbered_in_order_each_with_new_text_only() {
    let (dictate, backend) = Dictated::new();
    let market = TestMarket::new().terms(Terms::Free).backend(backend).start().await;
    let customer = market.customer().await;
    let mut order = customer.order("tell me");
    order.params.push("stream", vec!["true".into()]);
    let mut posted = customer.post(&order).await;
    for (seq, text) in ["once ", "upon ", "a time"].into_iter().enumerate() {
        dictate.send(text.into()).await.unwrap();
        let heard = posted.until(piece).await;
        assert_eq!(heard, (u32::try_from(seq).ok(), text.to_owned()));
    }
    drop(dictate);
    assert_eq!(posted.result().await.content, "once upon a time");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_no_second_relay_takes_does_not_keep_the_result_waiting() {
    let (dictate, backend) = Dictated::new();
    let market = TestMarket::new()
        .relays(2)
        .terms(Terms::Free)
        .backend(backend)
        .pool(|pool| {
            pool.quorum = 2;
            pool.publish_timeout = Duration::from_secs(3_600);
        })
        .start()
        .await;
    let customer = market.customer_at(&[market.relay(0).url()]).await;
    customer.ping().await;
    market.relay(1).stop().await;
    let mut order = customer.order("tell me");
    order.params.push("stream", vec!["true".into()]);
    let mut posted = customer.post(&order).await;
    dictate.send("once".into()).await.unwrap();
    assert_eq!(posted.until(piece).await.1, "once");
    drop(dictate);
    assert_eq!(posted.result().await.content, "once");
    market.relay(1).restart().await.unwrap();
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_piece_is_shown_to_who_has_not_paid_or_not_asked() {
    let market = TestMarket::new().terms(Terms::Postpay).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&order(&customer)).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    posted.result().await;
    assert_eq!(pieces(&posted), 0);
    market.finish().await;
}

fn pieces(posted: &Posted) -> usize {
    let is_piece = |body: &AnswerBody| matches!(body, AnswerBody::Feedback(said) if said.status == Status::Partial);
    posted.heard.iter().filter(|answer| is_piece(&answer.body)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_payment_shows_nothing_before_it_is_taken() {
    let market = TestMarket::new().terms(Terms::Hold).rates(RATES).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&order(&customer)).await;
    let invoice = posted.invoice().await;
    let paying = customer.begin_to_pay(&invoice);
    posted.result().await;
    paying.await.unwrap().unwrap();
    assert_eq!(pieces(&posted), 0);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_still_turn_out_to_be_no_json_is_not_shown() {
    let market = TestMarket::new().terms(Terms::Free).start().await;
    let customer = market.customer().await;
    let mut json = order(&customer);
    json.inputs[0].data = "[1, 2]".into();
    json.output = Some("application/json".into());
    let mut posted = customer.post(&json).await;
    assert_eq!(posted.result().await.content, "[1, 2]");
    assert_eq!(pieces(&posted), 0);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_paid_sees_the_pieces_and_has_the_whole_result_and_pays_for_it_once() {
    let (dictate, backend) = Dictated::new();
    let market = TestMarket::new().rates(RATES).backend(backend).start().await;
    let customer = market.customer().await;
    let mut posted = paid_and_shown(&market, &customer, &dictate, 2).await;
    drop(dictate);
    let result = posted.result().await;
    assert_eq!(result.content, "piece 0 piece 1 ");
    // The dictated answer is counted like the echo's: two tokens.
    assert_eq!(result.receipt.usage, Some(Usage::tokens(2, 2)));
    assert_eq!((result.receipt.paid, result.receipt.credit), (Some(Msat::sat(5)), Some(Msat::sat(8))));
    assert_eq!(market.job(posted.job).await.shown, None);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_that_pays_for_the_job_shows_pieces_too() {
    let (dictate, backend) = Dictated::new();
    let market = TestMarket::new().rates(RATES).backend(backend).start().await;
    let customer = market.customer().await;
    // 13 sat of credit: a job that was cancelled before it was shown.
    let mut posted = paid_and_shown(&market, &customer, &dictate, 0).await;
    customer.cancel(posted.job).await;
    posted.refusal().await;
    market.moments().reached(posted.job, Moment::After(EffectKey::Run)).await;
    // The same order within the same second would be the same event.
    let mut another = order(&customer);
    another.inputs[0].data = "tell more".into();
    let mut covered = customer.post(&another).await;
    dictate.send("bought on credit".into()).await.unwrap();
    assert_eq!(covered.until(piece).await.1, "bought on credit");
    assert_eq!(market.job(covered.job).await.payment, PaymentState::Covered);
    drop(dictate);
    covered.result().await;
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cancels_after_pieces_pays_for_what_was_shown_and_has_the_rest_as_credit() {
    let (dictate, backend) = Dictated::new();
    let market = TestMarket::new().rates(RATES).backend(backend).start().await;
    let customer = market.customer().await;
    let mut posted = paid_and_shown(&market, &customer, &dictate, 3).await;
    customer.cancel(posted.job).await;
    let refusal = posted.refusal().await;
    assert_eq!(refusal.code, Code::Cancelled);
    let words = "6 sat was charged for the 3 tokens you were shown; 7 sat became credit for your next job";
    assert!(refusal.text.contains(words), "{}", refusal.text);
    let job = market.job(posted.job).await;
    assert_eq!((job.work, job.cost, job.credited), (WorkState::Cancelled, Some(Msat::sat(6)), Msat::sat(7)));
    let store = market.service().provider().store();
    assert_eq!(store.credit(customer.signer.customer_id()).await.unwrap(), Msat::sat(7));
    let earned = store.earnings(None).await.unwrap();
    assert_eq!((earned[0].earned.as_msat(), earned[0].work.delivered), (6_000, 0));
    drop(dictate);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cancels_before_the_first_piece_pays_nothing() {
    let (dictate, backend) = Dictated::new();
    let market = TestMarket::new().rates(RATES).backend(backend).start().await;
    let customer = market.customer().await;
    let mut posted = paid_and_shown(&market, &customer, &dictate, 0).await;
    customer.cancel(posted.job).await;
    let refusal = posted.refusal().await;
    assert!(refusal.text.contains("13 sat became credit"), "{}", refusal.text);
    assert_eq!(market.job(posted.job).await.cost, None);
    drop(dictate);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_charged_for_what_was_shown_when_the_operator_cancels() {
    let (dictate, backend) = Dictated::new();
    let market = TestMarket::new().rates(RATES).backend(backend).start().await;
    let customer = market.customer().await;
    let mut posted = paid_and_shown(&market, &customer, &dictate, 2).await;
    market.service().provider().cancel(posted.job).await.unwrap();
    let refusal = posted.refusal().await;
    assert!(refusal.text.contains("13 sat became credit"), "{}", refusal.text);
    drop(dictate);
    market.finish().await;
}

/// Work that ends with this failure when told.
struct CutShort {
    behind: Arc<dyn Executor>,
    cut: Arc<Notify>,
    failure: Failure,
}

#[async_trait]
impl Executor for CutShort {
    async fn prepare(&self, request: &JobRequest) -> Result<Prepared, Refusal> {
        self.behind.prepare(request).await
    }

    async fn run(
        &self,
        prepared: &Prepared,
        partial: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Outcome, Failure> {
        tokio::select! {
            done = self.behind.run(prepared, partial, cancel) => done,
            () = self.cut.notified() => Err(self.failure.clone()),
        }
    }
}

/// A market whose work is cut short by this failure after two pieces, and what the customer then hears.
async fn cut_short(failure: Failure) -> (TestMarket, Posted, Refusal) {
    let (dictate, backend) = Dictated::new();
    let cut = Arc::new(Notify::new());
    let told = Arc::clone(&cut);
    let front = move |behind| -> Arc<dyn Executor> {
        Arc::new(CutShort { behind, cut: Arc::clone(&told), failure: failure.clone() })
    };
    let market = TestMarket::new().rates(RATES).backend(backend).executor_behind(front).start().await;
    let customer = market.customer().await;
    let mut posted = paid_and_shown(&market, &customer, &dictate, 2).await;
    cut.notify_one();
    let refusal = posted.refusal().await;
    (market, posted, refusal)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_shown_before_the_time_limit_is_charged() {
    let (market, posted, refusal) = cut_short(Failure::timeout(Duration::from_secs(3))).await;
    assert_eq!(refusal.code, Code::Timeout);
    assert!(refusal.text.contains("5 sat was charged for the 2 tokens you were shown"), "{}", refusal.text);
    assert_eq!(market.job(posted.job).await.credited, Msat::sat(8));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_charged_for_what_was_shown_when_the_failure_is_ours() {
    let (market, posted, refusal) = cut_short(Failure::backend("the model failed")).await;
    assert_eq!(refusal.code, Code::Backend);
    assert!(refusal.text.contains("13 sat became credit"), "{}", refusal.text);
    assert_eq!(market.job(posted.job).await.cost, None);
    market.finish().await;
}
