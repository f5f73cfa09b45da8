//! One relay: the loop that reads what it says, sends what it is to get, and keeps its subscriptions alive.
//!
//! The library connects, reconnects (its pause grows with failures up to a minute, give or take three seconds so that relays
//! don't come back all at once), answers NIP-42 challenges and reads events. This loop hears the rest over the library's
//! broadcast channel. That channel forgets when it is not read in time; then everything unanswered is sent again.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nostr::message::MachineReadablePrefix;
use nostr::{ClientMessage, Event, RelayMessage, SubscriptionId};
use nostr_sdk::pool::RelayNotification;
use nostr_sdk::{Relay, RelayStatus, SubscribeOptions};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::RelayVerdict;
use super::asks::{Ask, Wants};
use super::outgoing::Outgoing;
use super::router::Router;

/// Events handed to the library at once.
const BATCH: usize = 64;

/// Batches the library may hold for the socket. It refuses what is beyond 1,024, so we stay well below.
const MAX_QUEUED: usize = 256;

/// How soon to look again whether the socket has taken what is queued; the library has no signal for it.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// A relay and what is under way to it.
#[derive(Debug)]
pub(super) struct Link {
    relay: Relay,
    router: Arc<Router>,
    wants: watch::Receiver<Arc<Wants>>,
    retry_interval: Duration,
    /// Ends the loop when nothing was sent for so long (customers' relays).
    idle: Option<Duration>,
    outgoing: Mutex<Outgoing>,
    wake: Notify,
    connected: watch::Sender<bool>,
    settled: watch::Sender<bool>,
    /// Whether it has been said that the relay can't be reached: once is enough.
    warned: AtomicBool,
}

impl Link {
    pub(super) fn new(
        relay: Relay,
        router: Arc<Router>,
        wants: watch::Receiver<Arc<Wants>>,
        patience: Duration,
        retry_interval: Duration,
        idle: Option<Duration>,
    ) -> Self {
        Self {
            relay,
            router,
            wants,
            retry_interval,
            idle,
            outgoing: Mutex::new(Outgoing::new(patience)),
            wake: Notify::new(),
            connected: watch::Sender::new(false),
            settled: watch::Sender::new(true),
            warned: AtomicBool::new(false),
        }
    }

    pub(super) fn relay(&self) -> &Relay {
        &self.relay
    }

    pub(super) fn url(&self) -> &str {
        self.relay.url().as_str()
    }

    /// Whether it is connected, to be watched.
    pub(super) fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    /// Whether its loop has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.outgoing().is_closed()
    }

    /// Sends an event, unless its loop has ended. The receiver hears the verdict; that it closes without one means silence.
    pub(super) fn submit(&self, event: &Arc<Event>) -> Option<oneshot::Receiver<RelayVerdict>> {
        let mut outgoing = self.outgoing();
        let verdict = outgoing.submit(event);
        self.settled.send_replace(outgoing.is_settled());
        drop(outgoing);
        self.wake.notify_one();
        verdict
    }

    /// Waits until the relay owes no answer, or is not there to give one.
    pub(super) async fn settled(&self) {
        let (mut settled, mut connected) = (self.settled.subscribe(), self.connected.subscribe());
        // The senders live in `self`, so waiting can't fail.
        tokio::select! {
            _ = settled.wait_for(|settled| *settled) => {}
            _ = connected.wait_for(|connected| !*connected) => {}
        }
    }

    /// Connects and serves the relay until cancelled, idle, or (without reconnecting) disconnected.
    pub(super) async fn run(&self, cancel: CancellationToken) {
        let mut heard = self.relay.notifications();
        let mut wants = self.wants.clone();
        let mut asks = HashMap::new();
        self.relay.connect();
        loop {
            let wanted = wants.borrow_and_update().clone();
            self.review_asks(&wanted, &mut asks).await;
            let resting = self.send_and_expire();
            let next = asks.values().filter(|_| self.is_connected()).filter_map(Ask::due_at).chain(resting).min();
            tokio::select! {
                () = cancel.cancelled() => break,
                message = heard.recv() => match message {
                    Ok(notification) => {
                        if !self.hear(notification, &mut asks) {
                            break;
                        }
                    }
                    Err(RecvError::Lagged(missed)) => {
                        tracing::debug!(relay = self.url(), missed, "Missed {missed} messages of {}", self.url());
                        self.set_connected(self.relay.is_connected(), &mut asks);
                        self.outgoing().send_all_again();
                    }
                    Err(RecvError::Closed) => break,
                },
                () = self.wake.notified() => {}
                Ok(()) = wants.changed() => {}
                () = sleep_until(next) => {}
            }
            if self.is_idle() {
                break;
            }
        }
        self.outgoing().close();
        self.settled.send_replace(true);
        self.connected.send_replace(false);
        self.relay.disconnect();
    }

    /// Hears one notification. False when there will be no more.
    fn hear(&self, notification: RelayNotification, asks: &mut HashMap<SubscriptionId, Ask>) -> bool {
        match notification {
            RelayNotification::RelayStatus { status: RelayStatus::Connected } => self.set_connected(true, asks),
            RelayNotification::RelayStatus { status: RelayStatus::Terminated | RelayStatus::Banned } => return false,
            RelayNotification::RelayStatus { status: RelayStatus::Disconnected } => self.set_connected(false, asks),
            RelayNotification::Shutdown => return false,
            RelayNotification::Authenticated => {
                tracing::info!(relay = self.url(), "Logged in to relay {}", self.url());
                self.outgoing().logged_in();
            }
            RelayNotification::AuthenticationFailed => {
                tracing::warn!(relay = self.url(), "Relay {} did not accept our login", self.url());
                self.outgoing().login_failed();
            }
            RelayNotification::Message { message: RelayMessage::Ok { event_id, status, message } } => {
                let mut outgoing = self.outgoing();
                outgoing.settle(&event_id, status, &message);
                self.settled.send_replace(outgoing.is_settled());
            }
            RelayNotification::Message { message: RelayMessage::EndOfStoredEvents(id) } => match asks.get_mut(&*id) {
                Some(ask) => ask.stored_events_came(),
                None => self.router.done(&id),
            },
            RelayNotification::Message { message: RelayMessage::Closed { subscription_id, message } } => {
                let locked =
                    matches!(MachineReadablePrefix::parse(&message), Some(MachineReadablePrefix::AuthRequired));
                match asks.get_mut(&*subscription_id) {
                    Some(ask) => {
                        let pause = ask.closed(self.retry_interval);
                        tracing::debug!(relay = self.url(), ?pause, "Relay {} closed a subscription", self.url());
                    }
                    // The library asks again after the login.
                    None if locked => {}
                    None => self.router.done(&subscription_id),
                }
            }
            // Events go through the router; notices, counts and negentropy are not our business.
            RelayNotification::RelayStatus { .. }
            | RelayNotification::Message { .. }
            | RelayNotification::Event { .. } => {}
        }
        true
    }

    fn set_connected(&self, connected: bool, asks: &mut HashMap<SubscriptionId, Ask>) {
        let before = self.connected.send_replace(connected);
        match (before, connected) {
            (_, true) => {
                tracing::info!(relay = self.url(), "Connected to relay {}", self.url());
                asks.values_mut().for_each(|ask| ask.connected(self.relay.stats().connected_at()));
                self.outgoing().send_all_again();
            }
            (true, false) => tracing::warn!(relay = self.url(), "Lost relay {}, trying again", self.url()),
            (false, false) if !self.warned.swap(true, Ordering::Relaxed) => {
                tracing::warn!(relay = self.url(), "Relay {} can't be reached; trying again until it can", self.url());
            }
            (false, false) => tracing::debug!(relay = self.url(), "Relay {} is not reached yet", self.url()),
        }
    }

    /// Makes the relay's subscriptions what they should be.
    async fn review_asks(&self, wants: &Wants, asks: &mut HashMap<SubscriptionId, Ask>) {
        let unwanted: Vec<SubscriptionId> = asks.keys().filter(|id| !wants.contains_key(*id)).cloned().collect();
        for id in unwanted {
            asks.remove(&id);
            // Fails when there is no connection; then there is nothing to close either.
            let _ = self.relay.unsubscribe(&id).await;
        }
        for (id, want) in wants {
            if !asks.contains_key(id) {
                let registered = self.relay.subscription(id).await.is_some();
                let ask = if registered { Ask::registered(want.clone()) } else { Ask::new(want.clone()) };
                asks.insert(id.clone(), ask);
            }
        }
        if !self.is_connected() {
            return;
        }
        let now = Instant::now();
        for (id, ask) in asks {
            let Some(filters) = ask.take_due(now) else { continue };
            let registered = self.relay.subscription(id).await.is_some();
            let asked = self.relay.subscribe_with_id(id.clone(), filters.clone(), SubscribeOptions::default()).await;
            // The library asks first and registers afterwards, and drops events of a subscription it does not know: a fast
            // relay's first answer may fall between. So what was unknown is asked for once more.
            if asked.is_ok() && !registered {
                let _ = self.relay.send_msg(ClientMessage::req(id.clone(), filters));
            }
        }
    }

    /// Sends what is to be sent and forgets what took too long. Returns when to come back, at the latest.
    fn send_and_expire(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut outgoing = self.outgoing();
        outgoing.expire(now);
        let mut full = false;
        while self.is_connected() && outgoing.has_unsent() && !full {
            full = self.relay.queue() >= MAX_QUEUED;
            if !full {
                let batch = outgoing.next_batch(BATCH);
                let messages = batch.iter().map(|event| ClientMessage::Event(Cow::Borrowed(&**event))).collect();
                // Fails when the connection is just going: the next one gets everything again.
                if !batch.is_empty() && self.relay.batch_msg(messages).is_err() {
                    break;
                }
            }
        }
        self.settled.send_replace(outgoing.is_settled());
        let retry = full.then(|| now + QUEUE_PAUSE);
        let idle = self.idle.filter(|_| outgoing.is_settled()).map(|idle| outgoing.last_used + idle);
        [retry, idle, outgoing.next_deadline()].into_iter().flatten().min()
    }

    fn is_idle(&self) -> bool {
        let mut outgoing = self.outgoing();
        let idle = self.idle.is_some_and(|idle| outgoing.is_settled() && outgoing.last_used.elapsed() >= idle);
        if idle {
            // Under the same lock, so that nothing is submitted to a loop that has just decided to end.
            outgoing.close();
        }
        idle
    }

    fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
