use std::time::Instant;

use super::*;

/// A pool without intake, connected to those of its relays that are there.
async fn publisher(config: PoolConfig, reachable: usize) -> RelayPool {
    let pool = RelayPool::connect(config, &Signer::random(), None).await.unwrap();
    assert_eq!(pool.connected(reachable, PATIENCE).await, reachable);
    pool
}

#[tokio::test(flavor = "multi_thread")]
async fn each_relay_has_its_own_verdict() {
    let (taking, refusing) = (TestRelay::start().await.unwrap(), TestRelay::start().await.unwrap());
    refusing.set_rules(RelayRules { refuse: Some("blocked: not here".to_owned()), ..RelayRules::default() });
    let mut config = config(&[&taking, &refusing]);
    config.relays.push(nobody());
    config.publish_timeout = Duration::from_millis(500);
    config.quorum = 2;
    let pool = publisher(config, 2).await;
    let event = request("a");
    let report = soon(pool.publish(&signed(&event), &[])).await;
    let verdicts: Vec<&RelayVerdict> = report.verdicts.iter().map(|(_, verdict)| verdict).collect();
    let refused = RelayVerdict::Refused("blocked: not here".to_owned());
    assert_eq!(verdicts, [&RelayVerdict::Accepted, &refused, &RelayVerdict::Silent]);
    assert!(!report.quorum);
    assert_eq!(report.accepted(), 1);
    assert_eq!(taking.events(nostr::Filter::new()).await, vec![event]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_is_enough_and_a_dead_relay_is_not_waited_for() {
    let taking = TestRelay::start().await.unwrap();
    let mut config = config(&[&taking]);
    config.relays.insert(0, nobody());
    config.publish_timeout = PATIENCE;
    let pool = publisher(config, 1).await;
    let begun = Instant::now();
    let report = pool.publish(&signed(&request("a")), &[]).await;
    assert!(report.quorum);
    assert!(begun.elapsed() < PATIENCE / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_has_already_counts_as_accepted() {
    let relay = TestRelay::start().await.unwrap();
    let pool = publisher(config(&[&relay]), 1).await;
    let event = signed(&request("a"));
    for _ in 0..2 {
        assert!(soon(pool.publish(&event, &[])).await.quorum);
    }
    assert_eq!(relay.taken(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_wants_a_login_gets_the_event_after_it() {
    let relay = TestRelay::start_with(RelayRules { auth: true, ..RelayRules::default() }).await.unwrap();
    let pool = publisher(config(&[&relay]), 1).await;
    for number in 0..20 {
        assert!(soon(pool.publish(&signed(&request(&number.to_string())), &[])).await.quorum);
    }
    assert_eq!(relay.taken(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_comes_back_in_time_still_gets_the_event() {
    let relay = TestRelay::start().await.unwrap();
    let mut config = config(&[&relay]);
    config.publish_timeout = PATIENCE;
    let pool = publisher(config, 1).await;
    relay.stop().await;
    let event = signed(&request("a"));
    let (report, restarted) = tokio::join!(pool.publish(&event, &[]), relay.restart());
    restarted.unwrap();
    assert!(report.quorum);
    assert_eq!(relay.taken(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_accepted_whole() {
    const BURST: usize = 3000;
    let relay = TestRelay::start().await.unwrap();
    let mut config = config(&[&relay]);
    config.publish_timeout = PATIENCE;
    let pool = publisher(config, 1).await;
    let keys = Keys::generate();
    let events: Vec<SignedEvent> = (0..BURST).map(|number| signed(&request_by(&keys, &number.to_string()))).collect();
    let reports = soon(futures::future::join_all(events.iter().map(|event| pool.publish(event, &[])))).await;
    assert!(reports.iter().all(|report| report.quorum));
    assert_eq!(relay.taken(), BURST);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_with_the_timeout() {
    let relay = TestRelay::start_with(RelayRules { mute: true, ..RelayRules::default() }).await.unwrap();
    let mut config = config(&[&relay]);
    config.publish_timeout = Duration::from_millis(200);
    let pool = publisher(config, 1).await;
    let report = soon(pool.publish(&signed(&request("a")), &[])).await;
    assert_eq!(report.verdicts[0].1, RelayVerdict::Silent);
    assert_eq!(relay.taken(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_waits_for_the_answers_still_owed() {
    let (quick, slow) = (TestRelay::start().await.unwrap(), TestRelay::start().await.unwrap());
    let pool = publisher(config(&[&quick, &slow]), 2).await;
    let keys = Keys::generate();
    for number in 0..200 {
        assert!(soon(pool.publish(&signed(&request_by(&keys, &number.to_string())), &[])).await.quorum);
    }
    soon(pool.shutdown()).await;
    assert_eq!((quick.taken(), slow.taken()), (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impossible_configuration_is_refused() {
    let signer = Signer::random();
    let none = RelayPool::connect(PoolConfig::default(), &signer, None).await;
    assert_eq!(none.err(), Some(RelayError::NoRelays));
    let bad = PoolConfig { relays: vec!["https://example.com".to_owned()], ..PoolConfig::default() };
    assert_eq!(
        RelayPool::connect(bad, &signer, None).await.err(),
        Some(RelayError::BadUrl("https://example.com".to_owned()))
    );
    let greedy = PoolConfig { relays: vec![nobody()], quorum: 2, ..PoolConfig::default() };
    let error = RelayPool::connect(greedy, &signer, None).await.err();
    assert_eq!(error, Some(RelayError::Quorum { quorum: 2, relays: 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_tells_a_good_relay_from_a_refusing_and_a_missing_one() {
    let relay = TestRelay::start().await.unwrap();
    let signer = Signer::random();
    let good = probe(&relay.url(), &signer, PATIENCE).await.unwrap();
    assert!(good.connected.is_ok() && good.round_trip.is_some());
    assert_eq!(good.verdict, RelayVerdict::Accepted);

    relay.set_rules(RelayRules { refuse: Some("restricted: pay first".to_owned()), ..RelayRules::default() });
    let refused = probe(&relay.url(), &signer, PATIENCE).await.unwrap();
    assert_eq!(refused.verdict, RelayVerdict::Refused("restricted: pay first".to_owned()));

    relay.set_rules(RelayRules { auth: true, ..RelayRules::default() });
    assert_eq!(probe(&relay.url(), &signer, PATIENCE).await.unwrap().verdict, RelayVerdict::Accepted);

    let missing = probe(&nobody(), &signer, Duration::from_millis(200)).await.unwrap();
    assert!(missing.connected.is_err());
}
