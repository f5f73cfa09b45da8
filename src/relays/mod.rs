//! Relays: where requests come from and answers go. One long-lived pool of websockets.

use async_trait::async_trait;

use crate::nip90::SignedEvent;

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
