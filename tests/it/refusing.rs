//! Turning requests away: silence for a broadcast, a reason for those who name us.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use coinop::identity::Signer;
use coinop::inference::echo::Echo;
use coinop::job::{Code, JobId, Terms};
use coinop::money::Msat;
use coinop::provider::Clock;
use coinop::relays::Rate;
use coinop::testing::market::{TestMarket, within};
use jiff::{SignedDuration, Timestamp};

#[tokio::test(flavor = "multi_thread")]
async fn a_bid_below_the_price_is_told_the_price_when_addressed_and_nothing_when_broadcast() {
    let market = TestMarket::new().price(Msat::sat(21)).start().await;
    let customer = market.customer().await;
    let mut low = customer.broadcast("cheap please");
    low.bid = Some(Msat::msat(20_999));
    let broadcast = customer.post(&low).await;
    let mut addressed = customer.order("cheap please");
    addressed.bid = low.bid;
    let mut addressed = customer.post(&addressed).await;
    let refusal = addressed.refusal().await;
    assert_eq!(refusal.code, Code::Price);
    assert!(refusal.text.contains("21000 msat"), "{}", refusal.text);

    let mut enough = customer.order("fair enough");
    enough.bid = Some(Msat::sat(21));
    assert_eq!(customer.post(&enough).await.invoice().await.amount, Msat::sat(21));
    customer.ping().await;
    market.finish().await.was_silent_about(broadcast.job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_we_do_not_have_is_named_with_those_we_have() {
    let market = TestMarket::new().start().await;
    let customer = market.customer().await;
    let mut order = customer.order("think hard");
    order.params.push("model", vec!["gigantic-9000".into()]);
    let refusal = customer.post(&order).await.refusal().await;
    assert_eq!(refusal.code, Code::Unsupported);
    assert!(refusal.text.contains("gigantic-9000") && refusal.text.contains("echo"), "{}", refusal.text);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_customer_has_only_so_many_jobs_open_and_others_still_have_theirs() {
    let echo = Echo::new().gated();
    let market = TestMarket::new().backend(echo.clone()).rules(|rules| rules.max_per_customer = 1).start().await;
    let customer = market.customer().await;
    let mut first = customer.post(&customer.order("first")).await;
    let invoice = first.invoice().await;
    let mut second = customer.post(&customer.order("second")).await;
    assert_eq!(second.refusal().await.code, Code::RateLimited);
    let other = market.customer().await;
    other.post(&other.order("somebody else's")).await.invoice().await;

    echo.release(2);
    customer.pay(&invoice).await.unwrap();
    first.result().await;
    market.moments().told(first.job, "result-published").await;
    customer.post(&customer.order("third")).await.invoice().await;
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_author_who_sends_too_much_is_not_heard_and_the_others_are() {
    let market =
        TestMarket::new().terms(Terms::Free).pool(|pool| pool.limits.per_author = Rate::per_minute(1, 2)).start().await;
    let loud = market.customer().await;
    loud.post(&loud.order("one")).await.result().await;
    loud.post(&loud.order("two")).await.result().await;
    let third = loud.post(&loud.order("three")).await;
    let other = market.customer().await;
    other.ping().await;
    market.finish().await.was_silent_about(third.job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_key_hears_nothing_whatever_it_sends() {
    let denied = Signer::random();
    let key = denied.customer_id();
    let market = TestMarket::new().rules(|rules| rules.deny = [key].into()).start().await;
    let relays = [market.relay(0).url()];
    let denied = market.customer_as(denied, &relays).await;
    let fine = denied.post(&denied.order("please")).await;
    let provider = market.provider().public_hex();
    let broken = denied.raw(5050, &[&["p", &provider], &["bid", "a lot"]], "", Timestamp::now());
    let broken = denied.publish(&broken).await;
    let ping = denied.codec.ping(market.provider().provider_id(), &[], Timestamp::now()).unwrap();
    let ping = denied.publish(&ping).await;

    let other = market.customer().await;
    other.ping().await;
    let closed = market.finish().await;
    closed.was_silent_about(fine.job).await;
    closed.was_silent_about(broken.job).await;
    closed.was_silent_about(ping.job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_allow_list_only_the_invited_are_served() {
    let invited = Signer::random();
    let key = invited.customer_id();
    let market = TestMarket::new().terms(Terms::Free).rules(|rules| rules.allow = [key].into()).start().await;
    let relays = [market.relay(0).url()];
    let invited = market.customer_as(invited, &relays).await;
    let stranger = market.customer().await;
    assert_eq!(stranger.post(&stranger.order("let me in")).await.refusal().await.code, Code::Unsupported);
    let broadcast = stranger.post(&stranger.broadcast("anybody")).await;
    assert_eq!(invited.post(&invited.order("hello")).await.result().await.content, "hello");
    stranger.ping().await;
    market.finish().await.was_silent_about(broadcast.job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_expires_too_soon_is_not_taken() {
    // Wanted for ten minutes, and an hour is asked for: as good as expired, and the relays still carry it.
    let market = TestMarket::new().rules(|rules| rules.min_time_left = Duration::from_secs(3_600)).start().await;
    let customer = market.customer().await;
    let soon = Timestamp::now() + SignedDuration::from_secs(600);
    let mut addressed = customer.order("hurry");
    addressed.expires_at = Some(soon);
    let mut broadcast = customer.broadcast("hurry");
    broadcast.expires_at = Some(soon);
    let broadcast = customer.post(&broadcast).await;
    assert_eq!(customer.post(&addressed).await.refusal().await.code, Code::Expired);
    customer.ping().await;
    market.finish().await.was_silent_about(broadcast.job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_expired_on_the_way_is_silence() {
    let market = TestMarket::new().start().await;
    let customer = market.customer().await;
    let mut order = customer.order("yesterday's news");
    order.expires_at = Some(Timestamp::now() - SignedDuration::from_secs(60));
    // No honest relay passes it on; one that does is no reason to work for nobody.
    let late = customer.sign(&order);
    customer.leave_at(market.relay(0), &late).await;
    customer.ping().await;
    market.finish().await.was_silent_about(JobId(late.id.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_expires_before_its_turn_is_not_started_and_its_price_becomes_credit() {
    let ahead = Arc::new(AtomicI64::new(0));
    let hand = Arc::clone(&ahead);
    let clock = Clock::new(move || Timestamp::now() + SignedDuration::from_secs(hand.load(Ordering::SeqCst)));
    let echo = Echo::new().gated();
    let market = TestMarket::new()
        .backend(echo.clone())
        .clock(clock)
        .settings(|settings| settings.jobs_running = 1)
        .start()
        .await;
    let customer = market.customer().await;
    let mut first = customer.post(&customer.order("takes long")).await;
    let invoice = first.invoice().await;
    customer.pay(&invoice).await.unwrap();
    within("the first run", echo.wait_for_runs(1)).await;

    let mut order = customer.order("too late soon");
    order.expires_at = Some(Timestamp::now() + SignedDuration::from_secs(300));
    let mut second = customer.post(&order).await;
    let invoice = second.invoice().await;
    customer.pay(&invoice).await.unwrap();
    market.moments().told(second.job, "payment-settled").await;
    ahead.store(3_600, Ordering::SeqCst);
    echo.release(2);

    first.result().await;
    let refusal = second.refusal().await;
    assert_eq!(refusal.code, Code::Expired);
    assert!(refusal.text.contains("21 sat became credit"), "{}", refusal.text);
    assert_eq!(echo.runs(), 1);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_is_named_to_those_who_name_us_and_ignored_otherwise() {
    let market = TestMarket::new().start().await;
    let customer = market.customer().await;
    let provider = market.provider().public_hex();
    let now = Timestamp::now();
    let cases: &[(&[&str], &str)] = &[
        (&["bid", "a lot"], "bid"),
        (&["bid", "-5"], "bid"),
        (&["bid"], "bid"),
        (&["expiration", "tomorrow"], "expiration"),
        (&["expiration"], "expiration"),
        (&["output", "prose"], "output"),
        (&["output", "image/png"], "output"),
        (&["i", "x", "hologram"], "hologram"),
        (&["i", "not an address", "url"], "input 2"),
        (&["i", "not an id", "event"], "input 2"),
        (&["i", "not an id", "job"], "input 2"),
        (&["i"], "input 2"),
        (&["param"], "param"),
        (&["param", "temperature"], "temperature"),
        (&["param", "temperature", "hot"], "temperature"),
        (&["param", "temperature", "NaN"], "temperature"),
        (&["param", "max_tokens", "-1"], "max_tokens"),
        (&["param", "max_tokens", "99999999999999999999"], "max_tokens"),
        (&["param", "top_p", "7"], "top_p"),
        (&["param", "top-k", "many"], "top_k"),
        (&["param", "seed", "seed"], "seed"),
        (&["param", "stream", "perhaps"], "stream"),
        (&["encrypted"], "content"),
    ];
    let mut silent = Vec::new();
    for (bad, named) in cases {
        let bad: Vec<String> = bad.iter().map(|word| (*word).to_owned()).collect();
        let good = ["i", "hello", "text"].map(str::to_owned).to_vec();
        let to_us = ["p".to_owned(), provider.clone()].to_vec();
        let broadcast = customer.raw(5050, &[&good, &bad], "", now);
        silent.push(customer.publish(&broadcast).await.job);
        let addressed = customer.raw(5050, &[&good, &to_us, &bad], "", now);
        let refusal = customer.publish(&addressed).await.refusal().await;
        assert!(matches!(refusal.code, Code::BadRequest | Code::Unsupported), "{bad:?}: {refusal:?}");
        assert!(refusal.text.contains(named), "{bad:?} was answered with '{}'", refusal.text);
    }
    let nothing: &[&[&str]] = &[&["p", &provider]];
    let refusal = customer.publish(&customer.raw(5050, nothing, "", now)).await.refusal().await;
    assert_eq!(refusal.code, Code::BadRequest);
    customer.ping().await;
    let closed = market.finish().await;
    for job in silent {
        closed.was_silent_about(job).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_said_once_even_over_a_restart() {
    let mut market = TestMarket::new().start().await;
    let customer = market.customer().await;
    let mut order = customer.order("cheap");
    order.bid = Some(Msat::msat(1));
    let mut posted = customer.post(&order).await;
    posted.refusal().await;
    market.stop(Duration::from_secs(10)).await;
    market.start_again().await.unwrap();
    customer.ping().await;
    let job = posted.job;
    assert_eq!(market.finish().await.answers_of_kind(job, 7000).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_somebody_else_is_none_of_our_business() {
    let market = TestMarket::new().start().await;
    let customer = market.customer().await;
    let mut order = customer.order("for another");
    order.providers = vec![Signer::random().provider_id()];
    let posted = customer.post(&order).await;
    customer.ping().await;
    market.finish().await.was_silent_about(posted.job).await;
}
