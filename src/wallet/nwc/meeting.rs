//! The relays where a wallet service and its client meet: one pool, one subscription, and news of both.
//!
//! Why not the pool alone: it says nothing when it was cut off and came back, it skips a subscription made within the
//! second of the reconnection, and its notifications may lag. What is sent on these relays is ephemeral, so each of those
//! means lost messages, and whoever waits for one has to ask again.

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use nostr::{Event, Filter, Keys, RelayMessage, RelayUrl, SubscriptionId};
use nostr_sdk::pool::monitor::{Monitor, MonitorNotification};
use nostr_sdk::pool::relay::{Error as RelayError, ReqExitPolicy};
use nostr_sdk::{Client, RelayOptions, RelayPoolNotification, RelayStatus, SubscribeOptions};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::wallet::WalletError;

/// Changes of connection kept for the reader. More than ever come between two reads.
const STATUS_CHANGES_KEPT: usize = 256;

/// The name of the one subscription.
const SUBSCRIPTION: &str = "nwc";

/// Our place on the relays. Cloning shares it; dropping the last one leaves.
#[derive(Clone)]
pub(crate) struct Meeting {
    client: Client,
    wanted: Filter,
}

/// What comes in.
pub(crate) struct Arrivals {
    meeting: Meeting,
    inbox: Receiver<RelayPoolNotification>,
    statuses: Receiver<MonitorNotification>,
    met: HashSet<RelayUrl>,
    /// Something may have been missed and the subscriptions are to be made again. Kept here so that a caller that stops
    /// waiting in between loses nothing.
    missed: bool,
}

/// Something that came in.
pub(crate) enum Arrival {
    /// An event with a good signature, perhaps not for the first time.
    Event(Box<Event>),
    /// A relay came back, or we were too slow: messages may be lost.
    Gap,
}

impl Meeting {
    /// Joins as `keys` and subscribes to `wanted`. Returns before anything is connected; `retry` is the wait between
    /// attempts to.
    pub(crate) async fn join(
        keys: Keys,
        relays: &[RelayUrl],
        wanted: Filter,
        retry: Duration,
    ) -> Result<(Self, Arrivals), WalletError> {
        let monitor = Monitor::new(STATUS_CHANGES_KEPT);
        let statuses = monitor.subscribe();
        let client = Client::builder().signer(keys).monitor(monitor).build();
        for relay in relays {
            let options = RelayOptions::new().reconnect(true).retry_interval(retry).adjust_retry_interval(false);
            client.pool().add_relay(relay.clone(), options).await.map_err(unreachable)?;
        }
        let inbox = client.notifications();
        client.connect().await;
        let meeting = Self { client, wanted };
        meeting.subscribe().await;
        let arrivals = Arrivals { meeting: meeting.clone(), inbox, statuses, met: HashSet::new(), missed: false };
        Ok((meeting, arrivals))
    }

    /// Sends an event to every relay. Done when one has it, or may have it.
    pub(crate) async fn send(&self, event: &Event) -> Result<(), WalletError> {
        let relays = self.client.relays().await;
        let mut sending: FuturesUnordered<_> = relays.values().map(|relay| relay.send_event(event)).collect();
        let mut reason = "no relay".to_owned();
        while let Some(sent) = sending.next().await {
            match sent {
                // Some relays never confirm ephemeral events.
                Ok(_) | Err(RelayError::Timeout) => return Ok(()),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(WalletError::Unreachable(format!("no relay took the message: {reason}")))
    }

    /// The newest stored event that matches, from the first relay that has one.
    pub(crate) async fn find(&self, filter: Filter, patience: Duration) -> Result<Option<Event>, WalletError> {
        let relays = self.client.relays().await;
        let mut searches: FuturesUnordered<_> = relays
            .values()
            .map(|relay| relay.fetch_events(filter.clone(), patience, ReqExitPolicy::ExitOnEOSE))
            .collect();
        while let Some(found) = searches.next().await {
            if let Some(event) = found.ok().and_then(|events| events.into_iter().next()) {
                return Ok(Some(event));
            }
        }
        if relays.values().any(|relay| relay.is_connected()) {
            return Ok(None);
        }
        Err(WalletError::Unreachable("none of the connection's relays could be reached".into()))
    }

    /// Leaves for good.
    pub(crate) async fn leave(&self) {
        self.client.shutdown().await;
    }

    /// Asks every relay for what is wanted, in place of what was asked before. A relay that is not connected is asked when
    /// it is.
    async fn subscribe(&self) {
        for (url, relay) in self.client.relays().await {
            let id = SubscriptionId::new(SUBSCRIPTION);
            if let Err(error) = relay.subscribe_with_id(id, self.wanted.clone(), SubscribeOptions::default()).await {
                tracing::debug!(relay = %url, %error, "Can't subscribe at the wallet's relay yet");
            }
        }
    }
}

impl Arrivals {
    /// Waits for the next one; `None` when we left. May be cancelled and called again.
    pub(crate) async fn next(&mut self) -> Option<Arrival> {
        loop {
            if self.missed {
                self.meeting.subscribe().await;
                self.missed = false;
                return Some(Arrival::Gap);
            }
            tokio::select! {
                notification = self.inbox.recv() => match notification {
                    Ok(RelayPoolNotification::Message { message: RelayMessage::Event { event, .. }, .. }) => {
                        return Some(Arrival::Event(Box::new(event.into_owned())));
                    }
                    Ok(RelayPoolNotification::Shutdown) | Err(RecvError::Closed) => return None,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => self.missed = true,
                },
                status = self.statuses.recv() => match status {
                    Ok(MonitorNotification::StatusChanged { relay_url, status: RelayStatus::Connected }) => {
                        self.missed |= !self.met.insert(relay_url);
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => self.missed = true,
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }
}

fn unreachable(error: impl std::fmt::Display) -> WalletError {
    WalletError::Unreachable(error.to_string())
}
