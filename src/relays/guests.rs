//! Relays that customers name: connected when needed, few at once, dropped when idle, and never waited for.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use nostr::{Event, RelayUrl, Url};
use nostr_sdk::pool::RelayLimits;
use nostr_sdk::{Client, RelayOptions, RelayServiceFlags};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::asks::Wants;
use super::link::Link;
use super::router::Router;
use crate::fetch::address::literal_is_public;

/// How long a customer's relay that could not be reached is left alone: its next customers don't make us dial in vain.
const GRUDGE: Duration = Duration::from_secs(5 * 60);

/// Relays against which a grudge is held at once.
const MAX_GRUDGES: NonZeroUsize = NonZeroUsize::new(256).expect("is not zero");

/// Messages of a relay kept until its loop hears them. They take room whether used or not, and what is missed is only sent
/// again.
const MESSAGES_KEPT: usize = 64;

/// What a guest may do.
#[derive(Debug, Clone)]
pub(super) struct GuestRules {
    /// Time for an event to be delivered, connecting included.
    pub(super) patience: Duration,
    /// Connections at once; the one used longest ago makes room.
    pub(super) at_once: NonZeroUsize,
    /// Rest after which a connection is closed.
    pub(super) idle: Duration,
    pub(super) allow_private: bool,
    pub(super) limits: RelayLimits,
}

/// The customers' relays of the moment.
#[derive(Debug)]
pub(super) struct Guests {
    client: Client,
    router: Arc<Router>,
    rules: GuestRules,
    tasks: TaskTracker,
    cancel: CancellationToken,
    present: tokio::sync::Mutex<LruCache<RelayUrl, Guest>>,
    grudges: Mutex<LruCache<RelayUrl, Instant>>,
    /// Wants nothing, for as long as the guests live.
    wants: watch::Sender<Arc<Wants>>,
}

#[derive(Debug)]
struct Guest {
    link: Arc<Link>,
    leave: CancellationToken,
}

impl Guests {
    pub(super) fn new(
        client: Client,
        router: Arc<Router>,
        rules: GuestRules,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            present: tokio::sync::Mutex::new(LruCache::new(rules.at_once)),
            grudges: Mutex::new(LruCache::new(MAX_GRUDGES)),
            wants: watch::Sender::default(),
            client,
            router,
            rules,
            tasks,
            cancel,
        })
    }

    /// Sends an event to a customer's relay, some time soon, if it can be reached.
    pub(super) async fn deliver(self: &Arc<Self>, url: &RelayUrl, event: &Arc<Event>) {
        while let Some(link) = self.link(url).await {
            // One that has just left is found to have, and the next is a new one.
            if link.submit(event).is_some() {
                return;
            }
        }
    }

    /// Waits until no relay that is connected owes an answer.
    pub(super) async fn settled(&self) {
        let links: Vec<Arc<Link>> = self.present.lock().await.iter().map(|(_, guest)| guest.link.clone()).collect();
        futures::future::join_all(links.iter().map(|link| link.settled())).await;
    }

    /// The link to a customer's relay, which may be connecting still. None for those that are not to be connected to.
    pub(super) async fn link(self: &Arc<Self>, url: &RelayUrl) -> Option<Arc<Link>> {
        let plain: &Url = url.into();
        if !self.rules.allow_private && !literal_is_public(plain) {
            return None;
        }
        let grudge = self.grudges.lock().unwrap_or_else(PoisonError::into_inner).get(url).copied();
        if grudge.is_some_and(|since| since.elapsed() < GRUDGE) {
            return None;
        }
        let mut present = self.present.lock().await;
        if let Some(guest) = present.get(url).filter(|guest| !guest.link.is_closed()) {
            return Some(guest.link.clone());
        }
        if self.cancel.is_cancelled() {
            return None;
        }
        // Not to be read from: it would inherit the request subscription. Lookups turn reading on.
        let options = RelayOptions::new()
            .read(false)
            .reconnect(false)
            .verify_subscriptions(true)
            .notification_channel_size(MESSAGES_KEPT)
            .limits(self.rules.limits.clone());
        let pool = self.client.pool();
        // One that has just ended may be there still.
        let _ = pool.force_remove_relay(url).await;
        pool.add_relay(url, options).await.ok()?;
        let relay = pool.relay(url).await.ok()?;
        relay.flags().add(RelayServiceFlags::READ);
        let (patience, idle) = (self.rules.patience, Some(self.rules.idle));
        let wants = self.wants.subscribe();
        let link = Arc::new(Link::new(relay, self.router.clone(), wants, patience, patience, idle));
        let leave = self.cancel.child_token();
        if let Some((_, oldest)) = present.push(url.clone(), Guest { link: link.clone(), leave: leave.clone() }) {
            oldest.leave.cancel();
        }
        drop(present);
        self.tasks.spawn(self.clone().host(url.clone(), link.clone(), leave));
        Some(link)
    }

    /// Serves one guest until it leaves.
    async fn host(self: Arc<Self>, url: RelayUrl, link: Arc<Link>, leave: CancellationToken) {
        link.run(leave.clone()).await;
        let reached = link.relay().stats().success() > 0;
        if !reached && !leave.is_cancelled() {
            self.grudges.lock().unwrap_or_else(PoisonError::into_inner).put(url.clone(), Instant::now());
        }
        let mut present = self.present.lock().await;
        // Another may sit in its place already.
        if present.peek(&url).is_none_or(|guest| Arc::ptr_eq(&guest.link, &link)) {
            present.pop(&url);
            let _ = self.client.pool().force_remove_relay(&url).await;
        }
    }
}
