//! Inputs that a request only points at.

use coinop::inference::echo::Echo;
use coinop::job::{Code, Input, InputKind, Terms};
use coinop::nip90::Order;
use coinop::testing::market::{Customer, TestMarket, within};

fn order_of(customer: &Customer, data: String, kind: InputKind) -> Order {
    let inputs = vec![Input { data, kind, relay: None, marker: None }];
    Order { inputs, ..customer.order("") }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_read_from_the_relays() {
    let market = TestMarket::new().terms(Terms::Free).start().await;
    let customer = market.customer().await;
    let note = customer.raw::<&str>(1, &[], "a note to work on", jiff::Timestamp::now());
    customer.send(&note).await;
    let mut posted = customer.post(&order_of(&customer, note.id.to_string(), InputKind::Event)).await;
    assert_eq!(posted.result().await.content, "a note to work on");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_waited_for_and_its_result_is_the_input() {
    let echo = Echo::new().gated();
    let market = TestMarket::new().terms(Terms::Free).backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut first = customer.post(&customer.order("the first of two")).await;
    within("the first run", echo.wait_for_runs(1)).await;
    let mut second = customer.post(&order_of(&customer, first.job.to_string(), InputKind::Job)).await;
    echo.release(2);
    assert_eq!(first.result().await.content, "the first of two");
    assert_eq!(second.result().await.content, "the first of two");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_refused_by_who_does_not_fetch() {
    let market = TestMarket::new().start().await;
    let customer = market.customer().await;
    let order = order_of(&customer, "https://example.com/prompt.txt".to_owned(), InputKind::Url);
    let refusal = customer.post(&order).await.refusal().await;
    assert_eq!(refusal.code, Code::Unsupported);
    market.finish().await;
}
