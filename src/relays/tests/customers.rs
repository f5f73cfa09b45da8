use std::num::NonZeroUsize;

use nostr::{Filter, Tag};

use super::*;
use crate::job::JobId;
use crate::job::id::ProviderId;
use crate::nip90::{Codec, ReadLimits};

async fn pool(config: PoolConfig) -> RelayPool {
    let count = config.relays.len();
    let pool = RelayPool::connect(config, &Signer::random(), None).await.unwrap();
    assert_eq!(pool.connected(count, PATIENCE).await, count);
    pool
}

fn answer_to(job: &Event, kind: u16, text: &str) -> Event {
    let builder = EventBuilder::new(Kind::from_u16(kind), text).tag(Tag::event(job.id));
    builder.sign_with_keys(&Keys::generate()).unwrap()
}

fn codec() -> Codec {
    Codec::new(Signer::random(), ReadLimits::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_to_the_customers_relay_too() {
    let (ours, theirs) = (TestRelay::start().await.unwrap(), TestRelay::start().await.unwrap());
    let pool = pool(PoolConfig { allow_private: true, ..config(&[&ours]) }).await;
    let event = request("a");
    let also = [theirs.url(), nobody(), "not a url".to_owned(), ours.url()];
    let report = soon(pool.publish(&signed(&event), &also)).await;
    assert_eq!(report.verdicts.len(), 1);
    soon(theirs.wait_taken(1)).await;
    assert_eq!(theirs.events(Filter::new()).await, vec![event]);
    assert_eq!(ours.taken(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customers_relay_may_want_a_login() {
    let ours = TestRelay::start().await.unwrap();
    let theirs = TestRelay::start_with(RelayRules { auth: true, ..RelayRules::default() }).await.unwrap();
    let pool = pool(PoolConfig { allow_private: true, ..config(&[&ours]) }).await;
    soon(pool.publish(&signed(&request("a")), &[theirs.url()])).await;
    soon(theirs.wait_taken(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customers_relay_on_a_private_address_is_not_connected_to() {
    let (ours, theirs) = (TestRelay::start().await.unwrap(), TestRelay::start().await.unwrap());
    let pool = pool(config(&[&ours])).await;
    let named = theirs.url().replace("127.0.0.1", "localhost");
    assert!(soon(pool.publish(&signed(&request("a")), &[theirs.url(), named])).await.quorum);
    soon(pool.shutdown()).await;
    assert_eq!((ours.taken(), theirs.taken()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_customers_relays_than_may_be_connected_take_turns() {
    let ours = TestRelay::start().await.unwrap();
    let (one, two) = (TestRelay::start().await.unwrap(), TestRelay::start().await.unwrap());
    let at_once = NonZeroUsize::MIN;
    let pool = pool(PoolConfig { allow_private: true, max_customer_relays: at_once, ..config(&[&ours]) }).await;
    for round in 1..=3 {
        for relay in [&one, &two] {
            soon(pool.publish(&signed(&request("a")), &[relay.url()])).await;
            soon(relay.wait_taken(round)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_customers_relay_is_left_and_found_again() {
    let (ours, theirs) = (TestRelay::start().await.unwrap(), TestRelay::start().await.unwrap());
    let idle = Duration::from_millis(50);
    let pool = pool(PoolConfig { allow_private: true, customer_relay_idle: idle, ..config(&[&ours]) }).await;
    for round in 1..=3 {
        soon(pool.publish(&signed(&request("a")), &[theirs.url()])).await;
        soon(theirs.wait_taken(round)).await;
        soon(theirs.wait_connections(0)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_hears_each_answer_once_from_all_relays() {
    let (left, right) = (TestRelay::start().await.unwrap(), TestRelay::start().await.unwrap());
    let pool = pool(config(&[&left, &right])).await;
    let job = request("job");
    let since = Timestamp::now() - PATIENCE;
    let (early, late) = (answer_to(&job, 7000, "early"), answer_to(&job, 6050, "late"));
    left.publish(early.clone()).await;
    let mut answers = pool.follow(JobId(job.id.to_bytes()), JobKind::TextGeneration, &[], since, codec());
    assert_eq!(soon(answers.events.recv()).await.unwrap(), early);
    soon(left.wait_subscriptions(1)).await;
    soon(right.wait_subscriptions(1)).await;
    right.publish(early.clone()).await;
    right.publish(answer_to(&request("another job"), 6050, "not ours")).await;
    right.publish(late.clone()).await;
    left.publish(late.clone()).await;
    assert_eq!(soon(answers.events.recv()).await.unwrap(), late);
    let last = answer_to(&job, 7000, "last");
    left.publish(last.clone()).await;
    assert_eq!(soon(answers.events.recv()).await.unwrap(), last);
    drop(answers);
    soon(left.wait_subscriptions(0)).await;
    soon(right.wait_subscriptions(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn following_goes_on_after_a_reconnect() {
    let relay = TestRelay::start().await.unwrap();
    let pool = pool(config(&[&relay])).await;
    let job = request("job");
    let (id, since) = (JobId(job.id.to_bytes()), Timestamp::now() - PATIENCE);
    let mut answers = pool.follow(id, JobKind::TextGeneration, &[], since, codec());
    soon(relay.wait_subscriptions(1)).await;
    relay.stop().await;
    let answer = answer_to(&job, 6050, "meanwhile");
    relay.publish(answer.clone()).await;
    relay.restart().await.unwrap();
    assert_eq!(soon(answers.events.recv()).await.unwrap(), answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_found_on_our_relays_or_where_the_hint_points() {
    let (ours, theirs) = (TestRelay::start().await.unwrap(), TestRelay::start().await.unwrap());
    let pool = pool(PoolConfig { allow_private: true, ..config(&[&ours]) }).await;
    let (here, there) = (request("here"), request("there"));
    ours.publish(here.clone()).await;
    theirs.publish(there.clone()).await;
    let id = |event: &Event| EventId(event.id.to_bytes());
    assert_eq!(pool.fetch_event(id(&here), None, PATIENCE).await, Some(here.clone()));
    assert_eq!(pool.fetch_event(id(&there), None, PATIENCE).await, None);
    assert_eq!(pool.fetch_event(id(&there), Some(&theirs.url()), PATIENCE).await, Some(there));
    assert_eq!(pool.fetch_event(id(&here), Some(&ours.url()), PATIENCE).await, Some(here));
    assert_eq!(pool.fetch_event(EventId([7; 32]), None, PATIENCE).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_does_not_wait_longer_than_told() {
    let config = PoolConfig { relays: vec![nobody()], ..PoolConfig::default() };
    let pool = RelayPool::connect(config, &Signer::random(), None).await.unwrap();
    assert_eq!(soon(pool.fetch_event(EventId([7; 32]), None, Duration::from_millis(50))).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn ads_are_found_by_kind_and_provider_newest_only() {
    let (left, right) = (TestRelay::start().await.unwrap(), TestRelay::start().await.unwrap());
    let pool = pool(config(&[&left, &right])).await;
    let (alice, bob) = (Keys::generate(), Keys::generate());
    let ad = |keys: &Keys, kind: &str, at: u64| {
        let builder = EventBuilder::new(Kind::from_u16(31990), at.to_string());
        let builder = builder.tags([Tag::identifier(format!("coinop-{kind}")), Tag::parse(["k", kind]).unwrap()]);
        builder.custom_created_at(nostr::Timestamp::from_secs(at)).sign_with_keys(keys).unwrap()
    };
    let (old, new) = (ad(&alice, "5050", 1), ad(&alice, "5050", 2));
    let (patch, bobs) = (ad(&alice, "5932", 3), ad(&bob, "5050", 4));
    left.publish(old).await;
    right.publish(new.clone()).await;
    for relay in [&left, &right] {
        relay.publish(patch.clone()).await;
        relay.publish(bobs.clone()).await;
    }
    let all = pool.fetch(&Query::ads(JobKind::TextGeneration, &[]), PATIENCE).await;
    assert_eq!(all, vec![bobs, new.clone()]);
    let hers = Query::ads(JobKind::TextGeneration, &[ProviderId(alice.public_key().to_bytes())]);
    assert_eq!(pool.fetch(&hers, PATIENCE).await, vec![new]);
}
