//! Relays: where requests come from and answers go. One long-lived pool of websockets.
//!
//! In: a relay's socket → the library's checks → [`admission`] → [`Inbox`], bounded all the way. Out: [`Publisher`], one loop a
//! relay that matches each `OK` to its event. nostr-sdk does the connecting; what it would lose or leak is done here (`router`,
//! `link`), and its own log targets must stay off, because they print whole events: [`LOG_TARGETS_WITH_CONTENT`].

pub mod admission;
mod asks;
mod guests;
mod inbox;
mod inputs;
mod link;
mod lookup;
mod outgoing;
mod pool;
mod probe;
mod router;
#[cfg(test)]
mod tests;
mod transport;
mod zaps;

use std::num::NonZeroU32;

use async_trait::async_trait;

pub use self::admission::{AdmissionCounts, IntakeLimits, Rejection};
pub use self::inbox::{DEFAULT_INBOX_ROOM, DEFAULT_LOOKUP_PATIENCE, Inbox, InboxSender};
pub use self::inputs::RelayInputs;
pub use self::lookup::{Answers, Query};
pub use self::pool::{Intake, PoolConfig, RelayHealth, RelayPool};
pub use self::probe::{Probe, probe};
pub use self::zaps::PaymentAddresses;

use crate::nip90::SignedEvent;

/// Log targets of the libraries below that print events and messages whole, some of them at the error level: whoever sets
/// up logging must turn them off, or prompts and results end up in the log. What matters of them is logged here.
pub const LOG_TARGETS_WITH_CONTENT: &[&str] =
    &["nostr_relay_pool", "nostr_sdk", "nostr_relay_builder", "async_wsocket", "tungstenite", "tokio_tungstenite"];

/// How much may come, on average and at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Events a minute on average.
    pub per_minute: NonZeroU32,
    /// Events at once, after a rest.
    pub burst: NonZeroU32,
}

impl Rate {
    /// A rate; zero is taken as one, because nothing at all is no rate.
    pub fn per_minute(per_minute: u32, burst: u32) -> Self {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self { per_minute: at_least_one(per_minute), burst: at_least_one(burst) }
    }
}

/// Why the pool can't do what it is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// No relay at all.
    #[error("no relay is configured")]
    NoRelays,
    /// Not a relay's address.
    #[error("'{0}' is not a relay address (wss://host or ws://host)")]
    BadUrl(String),
    /// More must accept than there are.
    #[error("the quorum is {quorum}, but there are only {relays} relays")]
    Quorum {
        /// How many must accept.
        quorum: usize,
        /// How many there are.
        relays: usize,
    },
    /// The library below failed.
    #[error("the relay pool failed: {0}")]
    Library(String),
}

impl From<nostr_sdk::pool::pool::Error> for RelayError {
    fn from(error: nostr_sdk::pool::pool::Error) -> Self {
        Self::Library(error.to_string())
    }
}

/// What one relay said to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayVerdict {
    /// It has it (`OK true`, or it had it already).
    Accepted,
    /// It will not take it, with its words.
    Refused(String),
    /// It did not answer in time, or is not connected.
    Silent,
}

/// What came of publishing an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishReport {
    /// Each relay asked, and its verdict.
    pub verdicts: Vec<(String, RelayVerdict)>,
    /// Whether as many of our own relays as configured accepted it.
    pub quorum: bool,
}

impl PublishReport {
    /// Relays that have the event.
    pub fn accepted(&self) -> usize {
        self.verdicts.iter().filter(|(_, verdict)| *verdict == RelayVerdict::Accepted).count()
    }
}

/// Sends events out.
#[async_trait]
pub trait Publisher: Send + Sync + 'static {
    /// Sends `event` to our relays, and to the customer's own (`also`) with a short deadline of their own that never delays
    /// the answer. Sending the same event again is harmless.
    async fn publish(&self, event: &SignedEvent, also: &[String]) -> PublishReport;
}
