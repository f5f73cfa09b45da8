//! Being found: ads, profile and relay list, published and kept fresh, and the heartbeat that says we are here.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Clock;
use crate::job::JobKind;
use crate::nip90::handler_info::{Ad, HEARTBEAT_LIFE, Profile};
use crate::nip90::{Codec, EncodeError, SignedEvent};
use crate::relays::{PublishReport, Publisher};

/// How long a withdrawal at shutdown may take: the process is wanted gone.
const WITHDRAWAL_DEADLINE: Duration = Duration::from_secs(5);

/// What is said about us, and how often.
#[derive(Clone)]
#[allow(missing_debug_implementations)] // Made of traits.
pub struct Advertiser {
    /// Our key.
    pub codec: Codec,
    /// The way out.
    pub publisher: Arc<dyn Publisher>,
    /// The time.
    pub clock: Clock,
    /// One ad a kind served.
    pub ads: Vec<Ad>,
    /// Kinds that are sold and not offered now: an ad of theirs that stands somewhere is taken back each time, because a
    /// relay may have been away.
    pub withheld: Vec<JobKind>,
    /// Who we are; none leaves a profile that is out there alone.
    pub profile: Option<Profile>,
    /// Where we read and write.
    pub relays: Vec<String>,
    /// Whether we say that we are here.
    pub heartbeat: bool,
    /// How often the ads are published again: relays forget.
    pub refresh: Duration,
    /// Whether the ads are taken back when we stop.
    pub withdraw_on_shutdown: bool,
}

impl Advertiser {
    /// Everything to be published, freshly signed.
    ///
    /// # Errors
    /// [`EncodeError`] when an event can't be signed.
    pub fn events(&self) -> Result<Vec<SignedEvent>, EncodeError> {
        let now = self.clock.now();
        let mut events = Vec::new();
        if !self.withheld.is_empty() {
            events.push(self.codec.withdrawal(&self.withheld, now)?);
        }
        if let Some(profile) = &self.profile {
            events.push(self.codec.profile(profile, now)?);
        }
        events.push(self.codec.relay_list(&self.relays, now)?);
        for ad in &self.ads {
            events.push(self.codec.ad(ad, now)?);
        }
        Ok(events)
    }

    /// Publishes ads, profile and relay list, and takes back what is withheld.
    ///
    /// # Errors
    /// [`EncodeError`] when an event can't be signed. What each relay said is in the reports.
    pub async fn publish(&self) -> Result<Vec<(SignedEvent, PublishReport)>, EncodeError> {
        self.send(self.events()?).await
    }

    /// Takes the ads back.
    ///
    /// # Errors
    /// [`EncodeError`] when the event can't be signed.
    pub async fn withdraw(&self) -> Result<Vec<(SignedEvent, PublishReport)>, EncodeError> {
        let event = self.codec.withdrawal(&self.kinds(), self.clock.now())?;
        self.send(vec![event]).await
    }

    /// Publishes now and at each interval, beats in between, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut refresh = tokio::time::interval(self.refresh);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beat = tokio::time::interval(HEARTBEAT_LIFE);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let said = tokio::select! {
                () = shutdown.cancelled() => break,
                _ = refresh.tick() => self.publish().await.map(|reports| ("ads", reports)),
                _ = beat.tick(), if self.heartbeat => self.beat().await.map(|reports| ("heartbeat", reports)),
            };
            match said {
                Ok((what, reports)) => {
                    let missed = reports.iter().filter(|(_, report)| !report.quorum).count();
                    if missed > 0 {
                        warn!(missed, "Too few relays took the {what}; it is published again later");
                    }
                }
                Err(problem) => warn!(%problem, "The ads could not be written"),
            }
        }
        if self.withdraw_on_shutdown {
            match tokio::time::timeout(WITHDRAWAL_DEADLINE, self.withdraw()).await {
                Ok(Ok(_)) => info!("Withdrew the ads"),
                Ok(Err(problem)) => warn!(%problem, "The withdrawal could not be written"),
                Err(_) => warn!("The relays did not take the withdrawal in time"),
            }
        }
    }

    async fn beat(&self) -> Result<Vec<(SignedEvent, PublishReport)>, EncodeError> {
        let event = self.codec.heartbeat(&self.kinds(), self.clock.now())?;
        self.send(vec![event]).await
    }

    async fn send(&self, events: Vec<SignedEvent>) -> Result<Vec<(SignedEvent, PublishReport)>, EncodeError> {
        let mut reports = Vec::with_capacity(events.len());
        for event in events {
            let report = self.publisher.publish(&event, &[]).await;
            reports.push((event, report));
        }
        Ok(reports)
    }

    fn kinds(&self) -> Vec<JobKind> {
        self.ads.iter().map(|ad| ad.kind).collect()
    }
}
