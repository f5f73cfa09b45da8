//! What relays brought, decoded: the provider's side of the intake, free of Nostr types.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::nip90::{Codec, Incoming, Unreadable};

/// Room for events that wait to be read; beyond it the relays' sockets wait. A request is about 1 kB.
pub const DEFAULT_INBOX_ROOM: usize = 1024;

/// The end that [`RelayPool`](super::RelayPool) fills.
#[derive(Debug, Clone)]
pub struct InboxSender(mpsc::Sender<nostr::Event>);

impl InboxSender {
    #[cfg(test)]
    pub(super) fn bare(room: usize) -> (Self, mpsc::Receiver<nostr::Event>) {
        let (sender, events) = mpsc::channel(room);
        (Self(sender), events)
    }

    pub(super) fn sender(&self) -> mpsc::Sender<nostr::Event> {
        self.0.clone()
    }

    /// Puts an event in as if a relay had brought it (tests, replays).
    pub async fn put(&self, event: nostr::Event) {
        // Nobody reads any more: then nobody misses it.
        let _ = self.0.send(event).await;
    }
}

/// Events that passed every check, in order of arrival, each read by the [`Codec`].
#[derive(Debug)]
pub struct Inbox {
    events: mpsc::Receiver<nostr::Event>,
    codec: Codec,
}

impl Inbox {
    /// An inbox with room for `room` events, and the end to fill it.
    pub fn channel(codec: Codec, room: usize) -> (InboxSender, Self) {
        let (sender, events) = mpsc::channel(room.max(1));
        (InboxSender(sender), Self { events, codec })
    }

    /// The next event. None when the intake was stopped and everything was read.
    pub async fn next(&mut self) -> Option<Result<Incoming, Unreadable>> {
        let event = self.events.recv().await?;
        Some(self.codec.read(&event))
    }

    /// How many events wait.
    pub fn waiting(&self) -> usize {
        self.events.len()
    }
}

/// How long a lookup for a `job` or `event` input may take unless configured otherwise.
pub const DEFAULT_LOOKUP_PATIENCE: Duration = Duration::from_secs(10);
