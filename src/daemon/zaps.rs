//! Hearing of zaps: who signs our address's receipts, the subscription to them, and how far it has come.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::job::id::NostrKey;
use crate::provider::{Clock, Provider};
use crate::relays::RelayPool;
use crate::store::{Store, StoreError};

/// The cursor's name in the store: up to when receipts have been read and decided.
const ZAP_CURSOR: &str = "zaps";

/// How far before the cursor receipts are asked for again: they are dated when the zap was paid and may come to a relay later.
const CURSOR_OVERLAP: SignedDuration = SignedDuration::from_hours(1);

/// How often the address is asked again who signs for it: services change keys about never.
const ASK_EVERY: Duration = Duration::from_secs(60 * 60);

/// The first and the longest pause before an address that does not answer is asked again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10 * 60));

/// What listening to zaps takes.
#[allow(missing_debug_implementations)] // Made of handles.
pub(super) struct ZapListener {
    pub(super) provider: Arc<Provider>,
    pub(super) relays: Arc<RelayPool>,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) us: NostrKey,
    /// How long after a quote a payment is still looked for: receipts at least as old are asked for.
    pub(super) late: Duration,
    /// How often undecided zaps are weighed again and the cursor is kept.
    pub(super) every: Duration,
}

impl ZapListener {
    /// Listens until `shutdown`.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let since = match self.since().await {
            Ok(since) => since,
            Err(problem) => {
                warn!(%problem, "The cursor of zaps can't be read; as much as ever is asked for");
                self.back(self.late)
            }
        };
        let pauses =
            || ExponentialBuilder::default().with_min_delay(PAUSES.0).with_max_delay(PAUSES.1).without_max_times();
        let mut backoff = pauses().with_jitter().build();
        let mut signer = None;
        let mut ask_at = Instant::now();
        let mut tick = tokio::time::interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep_until(ask_at) => {
                    let learned = tokio::select! {
                        learned = self.provider.learn_zap_signer() => learned,
                        () = shutdown.cancelled() => return,
                    };
                    let pause = match learned {
                        Ok(Some(key)) => {
                            if signer.replace(key) != Some(key) {
                                info!("Zaps count as payment when the lightning address's service signs for them");
                                self.relays.hear_zaps(self.us, key, since);
                            }
                            backoff = pauses().with_jitter().build();
                            ASK_EVERY
                        }
                        Ok(None) => {
                            warn!("The service of profile.lud16 announces no zaps (NIP-57): zaps can't be taken as payment");
                            ASK_EVERY
                        }
                        Err(problem) => {
                            warn!(%problem, "The lightning address (profile.lud16) can't be asked who signs its zap receipts");
                            backoff.next().unwrap_or(PAUSES.1)
                        }
                    };
                    ask_at = Instant::now() + pause;
                }
                _ = tick.tick() => {
                    let undecided = self.provider.weigh_undecided().await;
                    if signer.is_some() && undecided == 0 && let Err(problem) = self.keep_cursor().await {
                        warn!(%problem, "The cursor of zaps could not be kept");
                    }
                }
            }
        }
    }

    /// From when on receipts are asked for: where we were, and at least as far back as a late payment is looked for.
    async fn since(&self) -> Result<Timestamp, StoreError> {
        let late = self.back(self.late);
        let cursor = self.store.cursor(ZAP_CURSOR).await?;
        let cursor = cursor.and_then(|cursor| cursor.checked_sub(CURSOR_OVERLAP).ok());
        Ok(cursor.map_or(late, |cursor| cursor.min(late)))
    }

    /// Up to now, when every relay that is there could tell us. What waits in the inbox is younger than the overlap.
    async fn keep_cursor(&self) -> Result<(), StoreError> {
        if self.relays.health().iter().any(|relay| relay.connected) {
            self.store.set_cursor(ZAP_CURSOR, self.clock.now()).await?;
        }
        Ok(())
    }

    fn back(&self, span: Duration) -> Timestamp {
        let span = SignedDuration::try_from(span).ok();
        span.and_then(|span| self.clock.now().checked_sub(span).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}
