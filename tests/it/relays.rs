//! Relays that go away, repeat each other, or refuse.

use std::time::Duration;

use coinop::job::{EffectKey, JobId, Terms, WorkState};
use coinop::provider::Moment;
use coinop::testing::market::{TestMarket, within};
use coinop::testing::relay::{RelayRules, TestRelay};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_published_while_the_relay_was_away_is_taken_once() {
    let market = TestMarket::new().terms(Terms::Free).start().await;
    let customer = market.customer().await;
    customer.ping().await;
    market.relay(0).stop().await;
    let request = customer.sign(&customer.order("meanwhile"));
    customer.leave_at(market.relay(0), &request).await;
    let mut posted = customer.follow(JobId(request.id.0));
    market.relay(0).restart().await.unwrap();
    assert_eq!(posted.result().await.content, "meanwhile");
    customer.ping().await;
    assert_eq!(market.moments().times(posted.job, Moment::Opened), 1);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_goes_away_in_the_middle_does_not_lose_the_job() {
    let market = TestMarket::new().start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&customer.order("in the middle")).await;
    let invoice = posted.invoice().await;
    market.relay(0).stop().await;
    customer.pay(&invoice).await.unwrap();
    market.moments().reached(posted.job, Moment::Before(EffectKey::PublishResult)).await;
    market.relay(0).restart().await.unwrap();
    assert_eq!(posted.result().await.content, "in the middle");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_relays_that_deliver_the_same_request_make_one_job() {
    let market = TestMarket::new().relays(2).start().await;
    let customer = market.customer().await;
    let request = customer.sign(&customer.order("twice"));
    customer.leave_at(market.relay(0), &request).await;
    customer.leave_at(market.relay(1), &request).await;
    let mut posted = customer.publish(&request).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    posted.result().await;
    for relay in 0..2 {
        let one = market.customer_at(&[market.relay(relay).url()]).await;
        one.ping().await;
    }
    assert_eq!(market.moments().times(posted.job, Moment::Opened), 1);
    let job = posted.job;
    let closed = market.finish().await;
    assert_eq!(closed.answers_of_kind(job, 6050).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_relay_of_two_delays_nobody_when_one_is_enough() {
    let market = TestMarket::new().relays(2).start().await;
    let customer = market.customer_at(&[market.relay(0).url()]).await;
    customer.ping().await;
    market.relay(1).stop().await;
    assert_eq!(customer.buys("still here").await.content, "still here");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_counts_as_delivered_only_when_the_quorum_has_it() {
    let market = TestMarket::new()
        .relays(2)
        .terms(Terms::Free)
        .pool(|pool| {
            pool.quorum = 2;
            pool.publish_timeout = Duration::from_millis(200);
        })
        .start()
        .await;
    let customer = market.customer_at(&[market.relay(0).url()]).await;
    market.relay(1).set_rules(RelayRules { refuse: Some("blocked: not today".into()), ..RelayRules::default() });
    let mut posted = customer.post(&customer.order("to both")).await;
    posted.result().await;
    assert_eq!(market.job(posted.job).await.work, WorkState::Finished);

    market.relay(1).set_rules(RelayRules::default());
    market.moments().told(posted.job, "result-published").await;
    assert_eq!(market.job(posted.job).await.work, WorkState::Delivered);
    assert_eq!(market.relay(1).events(nostr::Filter::new().kind(nostr::Kind::from_u16(6050))).await.len(), 1);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_also_go_where_the_customer_reads() {
    let market = TestMarket::new().terms(Terms::Free).start().await;
    let theirs = TestRelay::start().await.unwrap();
    let customer = market.customer().await;
    let mut order = customer.order("over there");
    order.relays = vec![theirs.url()];
    let mut posted = customer.post(&order).await;
    posted.result().await;
    within("the customer's relay to have it", theirs.wait_taken(1)).await;
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_asks_who_we_are_is_told() {
    let market = TestMarket::new().terms(Terms::Free).start().await;
    let customer = market.customer().await;
    customer.ping().await;
    market.relay(0).stop().await;
    market.relay(0).set_rules(RelayRules { auth: true, ..RelayRules::default() });
    market.relay(0).restart().await.unwrap();
    assert_eq!(customer.post(&customer.order("it is me")).await.result().await.content, "it is me");
    market.finish().await;
}
