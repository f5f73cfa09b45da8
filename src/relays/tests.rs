//! The pool over real websockets, against relays in this process.

mod customers;
mod intake;
mod publishing;

use std::time::Duration;

use futures::Future;
use jiff::Timestamp;
use nostr::{Event, EventBuilder, JsonUtil, Keys, Kind};
use tokio::sync::mpsc;

use super::*;
use crate::identity::Signer;
use crate::job::JobKind;
use crate::job::id::EventId;
use crate::nip90::SignedEvent;
use crate::testing::relay::{RelayRules, TestRelay};

/// Longer than anything here takes, on a machine that does much else; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it should have happened by now")
}

fn config(relays: &[&TestRelay]) -> PoolConfig {
    PoolConfig {
        relays: relays.iter().map(|relay| relay.url()).collect(),
        retry_interval: Duration::from_millis(20),
        limits: IntakeLimits { per_author: Rate::per_minute(1_000_000, 100_000), ..IntakeLimits::default() },
        ..PoolConfig::default()
    }
}

/// A pool that takes in kind 5050, connected to all its relays, and what it takes in.
async fn provider(config: PoolConfig, room: usize) -> (RelayPool, mpsc::Receiver<Event>) {
    let (inbox, events) = InboxSender::bare(room);
    let since = Timestamp::now() - Duration::from_secs(3600);
    let intake = Intake { kinds: vec![JobKind::TextGeneration], since, inbox };
    let count = config.relays.len();
    let pool = RelayPool::connect(config, &Signer::random(), Some(intake)).await.unwrap();
    assert_eq!(pool.connected(count, PATIENCE).await, count);
    (pool, events)
}

/// Waits until each relay has the subscription: from then on it sends events in the order in which it gets them.
async fn subscribed(relays: &[&TestRelay]) {
    for relay in relays {
        soon(relay.wait_subscriptions(1)).await;
    }
}

fn request_by(keys: &Keys, text: &str) -> Event {
    EventBuilder::new(Kind::from_u16(5050), text).sign_with_keys(keys).unwrap()
}

fn request(text: &str) -> Event {
    request_by(&Keys::generate(), text)
}

fn signed(event: &Event) -> SignedEvent {
    SignedEvent { id: EventId(event.id.to_bytes()), kind: event.kind.as_u16(), json: event.as_json() }
}

/// The address of a relay that is not there.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("ws://{}", listener.local_addr().unwrap())
}

/// Reads until all of `last` have come; returns everything that came.
async fn read_until(events: &mut mpsc::Receiver<Event>, last: &[&Event]) -> Vec<Event> {
    let mut read: Vec<Event> = Vec::new();
    while !last.iter().all(|event| read.iter().any(|other| other.id == event.id)) {
        read.push(soon(events.recv()).await.expect("the pool is alive"));
    }
    read
}
