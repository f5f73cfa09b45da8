use std::collections::HashSet;

use nostr::Tag;

use super::*;

fn count(events: &[Event], event: &Event) -> usize {
    events.iter().filter(|other| other.id == event.id).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_delivered_by_two_relays_arrives_once() {
    let (left, right) = (TestRelay::start().await.unwrap(), TestRelay::start().await.unwrap());
    let (pool, mut events) = provider(config(&[&left, &right]), 64).await;
    subscribed(&[&left, &right]).await;
    let (both, last_left, last_right) = (request("both"), request("left"), request("right"));
    for (relay, last) in [(&left, &last_left), (&right, &last_right)] {
        relay.publish(both.clone()).await;
        relay.publish(last.clone()).await;
    }
    let read = read_until(&mut events, &[&last_left, &last_right]).await;
    assert_eq!(read.len(), 3);
    assert_eq!(count(&read, &both), 1);
    let counts = pool.admission_counts();
    assert_eq!((counts.admitted, counts.seen), (3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_before_we_came_is_taken() {
    let relay = TestRelay::start().await.unwrap();
    let waiting = request("waiting");
    relay.publish(waiting.clone()).await;
    let (_pool, mut events) = provider(config(&[&relay]), 64).await;
    assert_eq!(soon(events.recv()).await.unwrap(), waiting);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_while_the_relay_was_away_arrives_once() {
    let relay = TestRelay::start().await.unwrap();
    let (_pool, mut events) = provider(config(&[&relay]), 64).await;
    let (before, meanwhile, after) = (request("before"), request("meanwhile"), request("after"));
    relay.publish(before.clone()).await;
    assert_eq!(soon(events.recv()).await.unwrap(), before);
    for _ in 0..3 {
        relay.stop().await;
        relay.publish(meanwhile.clone()).await;
        relay.restart().await.unwrap();
        soon(relay.wait_subscriptions(1)).await;
    }
    relay.publish(after.clone()).await;
    let read = read_until(&mut events, &[&after]).await;
    assert_eq!(read, vec![meanwhile, after]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_not_there_at_first_is_found_later() {
    let (here, late) = (TestRelay::start().await.unwrap(), TestRelay::start().await.unwrap());
    late.stop().await;
    let (inbox, mut events) = InboxSender::bare(8);
    let intake = Intake { kinds: vec![JobKind::TextGeneration], since: Timestamp::now(), inbox };
    let pool = RelayPool::connect(config(&[&here, &late]), &Signer::random(), Some(intake)).await.unwrap();
    assert_eq!(pool.connected(1, PATIENCE).await, 1);
    late.restart().await.unwrap();
    assert_eq!(pool.connected(2, PATIENCE).await, 2);
    let event = request("late");
    late.publish(event.clone()).await;
    assert_eq!(soon(events.recv()).await.unwrap(), event);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_asks_for_a_login_gets_one() {
    let relay = TestRelay::start_with(RelayRules { auth: true, ..RelayRules::default() }).await.unwrap();
    let (stored, live) = (request("stored"), request("live"));
    relay.publish(stored.clone()).await;
    let (_pool, mut events) = provider(config(&[&relay]), 64).await;
    assert_eq!(soon(events.recv()).await.unwrap(), stored);
    relay.publish(live.clone()).await;
    assert_eq!(soon(events.recv()).await.unwrap(), live);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_the_relay_closes_is_asked_for_again() {
    let relay = TestRelay::start().await.unwrap();
    let (_pool, mut events) = provider(config(&[&relay]), 64).await;
    for words in ["rate-limited: slow down", "error: out of memory", "bye"] {
        soon(relay.wait_subscriptions(1)).await;
        relay.close_subscriptions(words);
        soon(relay.wait_subscriptions(1)).await;
        let event = request(words);
        relay.publish(event.clone()).await;
        assert_eq!(soon(events.recv()).await.unwrap(), event);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_with_a_slow_reader_arrives_whole() {
    const BURST: usize = 5000;
    let relay = TestRelay::start().await.unwrap();
    let (pool, mut events) = provider(config(&[&relay]), 4).await;
    subscribed(&[&relay]).await;
    let keys: Vec<Keys> = (0..10).map(|_| Keys::generate()).collect();
    for number in 0..BURST {
        relay.publish(request_by(&keys[number % keys.len()], &number.to_string())).await;
    }
    // Nobody has read anything yet: the inbox holds four, the socket some, the relay the rest.
    assert!(pool.admission_counts().admitted <= 5);
    let mut ids = HashSet::new();
    while ids.len() < BURST {
        assert!(ids.insert(soon(events.recv()).await.unwrap().id), "each comes once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_author_who_sends_too_much_is_cut_off_and_nobody_else() {
    let relay = TestRelay::start().await.unwrap();
    let mut config = config(&[&relay]);
    config.limits.per_author = Rate::per_minute(1, 3);
    let (pool, mut events) = provider(config, 64).await;
    subscribed(&[&relay]).await;
    let loud = Keys::generate();
    for number in 0..10 {
        relay.publish(request_by(&loud, &number.to_string())).await;
    }
    let quiet = request("quiet");
    relay.publish(quiet.clone()).await;
    assert_eq!(read_until(&mut events, &[&quiet]).await.len(), 4);
    assert_eq!(pool.admission_counts().author_rate, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_future_forged_and_oversized_events_are_dropped_and_the_next_is_taken() {
    let relay = TestRelay::start().await.unwrap();
    let mut config = config(&[&relay]);
    config.limits.max_message_bytes = 10_000;
    let (pool, mut events) = provider(config, 64).await;
    subscribed(&[&relay]).await;
    let keys = Keys::generate();
    let now = nostr::Timestamp::now().as_secs();
    // Within the subscription's `since`, which the relay minds, but too old when it arrives.
    let at = |at: u64| {
        let builder = EventBuilder::new(Kind::from_u16(5050), "").custom_created_at(nostr::Timestamp::from_secs(at));
        builder.sign_with_keys(&keys).unwrap()
    };
    let mut forged = request("forged");
    forged.content = "changed".to_owned();
    let expired =
        EventBuilder::new(Kind::from_u16(5050), "").tag(Tag::expiration(nostr::Timestamp::from_secs(now - 1)));
    let large = request(&"x".repeat(20_000));
    let good = request("good");
    for event in [at(now - 3598), at(now + 3600), forged, expired.sign_with_keys(&keys).unwrap(), large, good.clone()] {
        relay.publish(event).await;
    }
    let read = read_until(&mut events, &[&good]).await;
    // The first is two seconds short of too old.
    assert!(read.len() <= 2, "{read:?}");
    assert_eq!(pool.admission_counts().from_the_future, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_copy_does_not_keep_the_real_event_out() {
    let (honest, lying) = (TestRelay::start().await.unwrap(), TestRelay::start().await.unwrap());
    let (_pool, mut events) = provider(config(&[&honest, &lying]), 64).await;
    subscribed(&[&honest, &lying]).await;
    let (real, marker) = (request("real"), request("marker"));
    let mut forged = real.clone();
    forged.sig = marker.sig;
    lying.publish(forged).await;
    lying.publish(marker.clone()).await;
    assert_eq!(soon(events.recv()).await.unwrap(), marker);
    honest.publish(real.clone()).await;
    assert_eq!(soon(events.recv()).await.unwrap(), real);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_and_pings_to_us_come_along_and_other_kinds_do_not() {
    let relay = TestRelay::start().await.unwrap();
    let (inbox, mut events) = InboxSender::bare(8);
    let intake = Intake { kinds: vec![JobKind::TextGeneration], since: Timestamp::now() - PATIENCE, inbox };
    let signer = Signer::random();
    let _pool = RelayPool::connect(config(&[&relay]), &signer, Some(intake)).await.unwrap();
    soon(relay.wait_subscriptions(1)).await;
    let keys = Keys::generate();
    let sign = |kind: u16, tag: Option<Tag>| {
        EventBuilder::new(Kind::from_u16(kind), "").tags(tag).sign_with_keys(&keys).unwrap()
    };
    let ping = sign(7007, Some(Tag::public_key(signer.keys().public_key())));
    let foreign_ping = sign(7007, Some(Tag::public_key(keys.public_key())));
    let deletion = sign(5, Some(Tag::event(request("x").id)));
    for event in [sign(1, None), sign(5999, None), foreign_ping, ping.clone(), deletion.clone()] {
        relay.publish(event).await;
    }
    assert_eq!(read_until(&mut events, &[&deletion]).await, vec![ping, deletion]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_intake_ends_the_inbox_and_the_subscription() {
    let relay = TestRelay::start().await.unwrap();
    let (pool, mut events) = provider(config(&[&relay]), 8).await;
    let event = request("last");
    relay.publish(event.clone()).await;
    assert_eq!(soon(events.recv()).await.unwrap(), event);
    pool.stop_intake();
    assert_eq!(soon(events.recv()).await, None);
    soon(relay.wait_subscriptions(0)).await;
}
