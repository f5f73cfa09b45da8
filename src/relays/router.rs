//! Where an event that passed the library's checks goes, by the subscription that brought it.
//!
//! The library awaits [`AdmitPolicy::admit_event`] in the relay's own receive loop, before its database and before its
//! broadcast channel that forgets what is not read in time. Events leave here into our own bounded channels; while a channel
//! is full the loop waits, and the relay's socket with it: nothing is lost. The answer is always "rejected", so that the
//! library neither keeps nor broadcasts anything.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use lru::LruCache;
use nostr::util::BoxedFuture;
use nostr::{Event, EventId, RelayUrl, SubscriptionId};
use nostr_sdk::pool::policy::{AdmitPolicy, AdmitStatus, PolicyError};
use tokio::sync::mpsc;

use super::admission::{Admission, Arrival, Bounds};
use crate::job::id::NostrKey;

/// Answers to one job that are told apart from duplicates. A job has a handful; more is a stranger's noise.
const REMEMBERED_ANSWERS: NonZeroUsize = NonZeroUsize::new(1024).expect("is not zero");

/// The subscription that brings requests, cancellations and pings.
pub(super) fn intake_id() -> SubscriptionId {
    SubscriptionId::new("coinop-requests")
}

/// What the ids of subscriptions to zap receipts begin with.
const ZAPS_PREFIX: &str = "coinop-zaps-";

/// The subscription that brings zap receipts (NIP-57) of the one key that is believed: named after that key, because a
/// relay is not asked again for what has the same name.
pub(super) fn zaps_id(signer: NostrKey) -> SubscriptionId {
    SubscriptionId::new(format!("{ZAPS_PREFIX}{}", &signer.to_string()[..16]))
}

/// Whether a subscription brings zap receipts.
pub(super) fn brings_zaps(id: &SubscriptionId) -> bool {
    id.as_str().starts_with(ZAPS_PREFIX)
}

/// What a lookup hears.
#[derive(Debug)]
pub(super) enum Found {
    /// An event that matches.
    Event(Box<Event>),
    /// The relay has no more.
    Done,
}

#[derive(Debug, Clone)]
enum Route {
    /// A customer follows a job.
    Follow { seen: Arc<Mutex<LruCache<EventId, ()>>>, to: mpsc::Sender<Event> },
    /// Stored events are looked up at one relay.
    Lookup(mpsc::Sender<Found>),
}

/// Knows who waits for what.
#[derive(Debug)]
pub(super) struct Router {
    admission: Admission,
    inbox: Mutex<Option<mpsc::Sender<Event>>>,
    routes: Mutex<HashMap<SubscriptionId, Route>>,
}

impl Router {
    pub(super) fn new(admission: Admission, inbox: Option<mpsc::Sender<Event>>) -> Self {
        Self { admission, inbox: Mutex::new(inbox), routes: Mutex::default() }
    }

    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Takes no more requests; the inbox ends when it has been read empty.
    pub(super) fn close_inbox(&self) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn follow(&self, id: SubscriptionId, to: mpsc::Sender<Event>) {
        let seen = Arc::new(Mutex::new(LruCache::new(REMEMBERED_ANSWERS)));
        self.routes().insert(id, Route::Follow { seen, to });
    }

    pub(super) fn look_up(&self, id: SubscriptionId, to: mpsc::Sender<Found>) {
        self.routes().insert(id, Route::Lookup(to));
    }

    pub(super) fn forget(&self, id: &SubscriptionId) {
        self.routes().remove(id);
    }

    /// A relay has sent all it has stored for a lookup.
    pub(super) fn done(&self, id: &SubscriptionId) {
        if let Some(Route::Lookup(to)) = self.routes().get(id) {
            // Without room the lookup has more than it can take and ends by its own deadline.
            let _ = to.try_send(Found::Done);
        }
    }

    async fn deliver(&self, subscription: &SubscriptionId, event: &Event) {
        let bounds = match subscription {
            id if *id == intake_id() => Some(Bounds::Strangers),
            id if brings_zaps(id) => Some(Bounds::Receipts),
            _ => None,
        };
        if let Some(bounds) = bounds {
            let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(inbox) = inbox {
                self.take_in(&inbox, event, bounds).await;
            }
            return;
        }
        let route = self.routes().get(subscription).cloned();
        match route {
            Some(Route::Follow { seen, to }) => {
                let Ok(room) = to.reserve().await else { return };
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.put(event.id, ()).is_none() {
                    room.send(event.clone());
                }
            }
            Some(Route::Lookup(to)) => {
                let _ = to.try_send(Found::Event(Box::new(event.clone())));
            }
            None => {}
        }
    }

    /// Remembers the event as seen only once there is room for it: while waiting, the connection may break and this future
    /// be dropped, and then the event must be able to come again.
    async fn take_in(&self, inbox: &mpsc::Sender<Event>, event: &Event, bounds: Bounds) {
        let arrival = Arrival { bounds, ..Arrival::from(event) };
        if let Err(reason) = self.admission.glance(&arrival, Timestamp::now()) {
            tracing::trace!(event.id = %event.id, %reason, "Dropped event {}: {reason}", event.id);
            return;
        }
        let Ok(room) = inbox.reserve().await else { return };
        match self.admission.admit(&arrival, Timestamp::now()) {
            Ok(()) => room.send(event.clone()),
            Err(reason) => tracing::trace!(event.id = %event.id, %reason, "Dropped event {}: {reason}", event.id),
        }
    }

    fn routes(&self) -> MutexGuard<'_, HashMap<SubscriptionId, Route>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The router as the library sees it.
#[derive(Debug)]
pub(super) struct Gate(pub(super) Arc<Router>);

impl AdmitPolicy for Gate {
    fn admit_event<'a>(
        &'a self,
        _relay: &'a RelayUrl,
        subscription: &'a SubscriptionId,
        event: &'a Event,
    ) -> BoxedFuture<'a, Result<AdmitStatus, PolicyError>> {
        Box::pin(async move {
            // The library takes an id it has verified once for verified, whatever else the event says: a copy under that id
            // with another author in it would pass. The id commits to all of it.
            if event.verify_id() {
                self.0.deliver(subscription, event).await;
            }
            Ok(AdmitStatus::Rejected { reason: None })
        })
    }
}
