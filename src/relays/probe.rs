//! Tries a relay out, for `coinop doctor`.

use std::time::Duration;

use jiff::SignedDuration;
use nostr::{EventBuilder, JsonUtil, Kind};
use tokio::time::Instant;

use super::pool::{PoolConfig, RelayPool};
use super::{Publisher, RelayError, RelayVerdict};
use crate::identity::Signer;
use crate::job::id::EventId;
use crate::nip90::SignedEvent;

/// The kind of event published to see whether the relay takes ours. Ephemeral (NIP-01): nobody keeps it.
const PROBE_KIND: u16 = 20_590;

/// What was found out about a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// How long connecting took, or why there is no connection.
    pub connected: Result<Duration, String>,
    /// What it said to an event of ours.
    pub verdict: RelayVerdict,
    /// Time from sending the event to the answer.
    pub round_trip: Option<Duration>,
    /// How far its server's clock is ahead of ours (behind, when negative), to the second, if it tells.
    pub clock_skew: Option<SignedDuration>,
}

/// Connects to a relay over its own socket, logs in if asked to (NIP-42), and publishes one ephemeral event signed by
/// `signer`. Connecting and publishing may take `patience` each.
pub async fn probe(url: &str, signer: &Signer, patience: Duration) -> Result<Probe, RelayError> {
    let config = PoolConfig {
        relays: vec![url.to_owned()],
        connect_timeout: patience,
        publish_timeout: patience,
        ..PoolConfig::default()
    };
    let event = EventBuilder::new(Kind::from_u16(PROBE_KIND), "")
        .sign_with_keys(signer.keys())
        .map_err(|error| RelayError::Library(error.to_string()))?;
    let event = SignedEvent { id: EventId(event.id.to_bytes()), kind: PROBE_KIND, json: event.as_json() };

    let begun = Instant::now();
    let pool = RelayPool::connect(config, signer, None).await?;
    let reached = pool.connected(1, patience).await == 1;
    let connecting = begun.elapsed();
    let meeting = pool.links.first().map(|link| pool.meeting(link)).unwrap_or_default();
    if !reached {
        pool.shutdown().await;
        let problem = meeting.problem.unwrap_or_else(|| format!("no connection within {} s", patience.as_secs()));
        let verdict = RelayVerdict::Silent;
        return Ok(Probe { connected: Err(problem), verdict, round_trip: None, clock_skew: None });
    }
    let sent = Instant::now();
    let report = pool.publish(&event, &[]).await;
    let round_trip = sent.elapsed();
    pool.shutdown().await;
    let verdict = report.verdicts.into_iter().next().map_or(RelayVerdict::Silent, |(_, verdict)| verdict);
    let round_trip = (verdict != RelayVerdict::Silent).then_some(round_trip);
    Ok(Probe { connected: Ok(connecting), verdict, round_trip, clock_skew: meeting.skew })
}
