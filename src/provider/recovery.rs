//! Starting, and finding what was left undone: the normal path, not a special one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Provider;
use crate::job::{Effect, Failure, Job, JobEvent, Notice, PaidBy, PaymentState, WorkState};
use crate::store::{Pending, StoreError};

/// Starts of the process a run may be found undone at before it is given up: a job that ends the process each time it is
/// tried must not keep it from ever working again.
const MOST_RECOVERIES: u32 = 3;

/// How often the outbox is looked at for acts another process (`coinop jobs cancel`) asked for.
const FOREIGN_ACTS_EVERY: Duration = Duration::from_secs(1);

/// How long the request of a quote nobody paid is kept: a payment that is a little late still gets its result.
const UNPAID_REQUESTS_KEPT: Duration = Duration::from_secs(2 * 60 * 60);

/// How often what is no longer needed is forgotten.
const PRUNE_EVERY: Duration = Duration::from_secs(60 * 60);

impl Provider {
    /// Takes up what an earlier process left: counts open jobs and does everything in the outbox. Call once, before the
    /// first request.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn recover(self: &Arc<Self>) -> Result<usize, StoreError> {
        for job in self.parts.store.unfinished_jobs().await? {
            self.census.seat(&job);
        }
        let pending = self.parts.store.recover_pending().await?;
        let found = pending.len();
        if found > 0 {
            info!(acts = found, "Taking up {found} acts an earlier process left undone");
        }
        self.take_up(pending).await?;
        Ok(found)
    }

    async fn take_up(self: &Arc<Self>, pending: Vec<Pending>) -> Result<(), StoreError> {
        for Pending { job, effect, recoveries, .. } in pending {
            // Claimed before the job is looked at: whoever did it before has recorded its outcome by then, and nobody does
            // it at the same time.
            let Some(landing) = self.claim(job, effect.key()) else { continue };
            if effect == Effect::Run && recoveries > MOST_RECOVERIES {
                warn!("Gave up job {job}: found undone at {recoveries} starts");
                let failure = Failure::backend("the job could not be finished over several restarts of the provider");
                self.tell(job, JobEvent::run_failed(failure)).await?;
                continue;
            }
            // The list may be a moment old: what has been done since is not done again.
            if let Some(stored) = self.parts.store.job(job).await?
                && is_still_wanted(&stored.job, &effect)
            {
                self.launch(Arc::new(stored.job), effect, landing);
            }
        }
        Ok(())
    }

    /// Looks after the outbox until `shutdown`: acts asked for by another process, acts whose outcome could not be
    /// recorded, and forgetting what `retention` no longer asks to keep.
    pub async fn keep_house(self: Arc<Self>, retention: Duration, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(FOREIGN_ACTS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut prune = tokio::time::interval(PRUNE_EVERY);
        prune.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = None;
        loop {
            let done = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = tick.tick() => {
                    self.turns.look();
                    self.look_at_outbox(&mut seen).await
                }
                _ = prune.tick() => self.forget_old(retention).await,
            };
            if let Err(problem) = done {
                warn!(%problem, "Housekeeping failed; it will be tried again");
            }
        }
    }

    async fn look_at_outbox(self: &Arc<Self>, seen: &mut Option<i64>) -> Result<(), StoreError> {
        let version = self.parts.store.foreign_version().await?;
        let foreign = seen.replace(version).is_some_and(|before| before != version);
        let stranded = self.stranded.swap(false, Ordering::Relaxed);
        if foreign {
            // Another process may have ended jobs we hold places for.
            for job in
                self.parts.store.list_jobs(crate::store::JobFilter { limit: 1_000, ..Default::default() }).await?
            {
                self.census.note(&job);
            }
        }
        if foreign || stranded {
            self.take_up(self.parts.store.pending().await?).await?;
        }
        Ok(())
    }

    async fn forget_old(&self, retention: Duration) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        let back = |span: Duration| {
            let span = SignedDuration::try_from(span).ok();
            span.and_then(|span| now.checked_sub(span).ok()).unwrap_or(Timestamp::MIN)
        };
        let late = self.settings.late_payment_window;
        let forgotten =
            self.parts.store.prune(back(retention), back(UNPAID_REQUESTS_KEPT.min(late)), back(late)).await?;
        if forgotten > 0 {
            info!(forgotten, "Forgot {forgotten} records older than the retention time");
        }
        Ok(())
    }
}

/// Whether a job in this state still asks for that act.
fn is_still_wanted(job: &Job, effect: &Effect) -> bool {
    match effect {
        Effect::Run => job.work == WorkState::Running,
        Effect::IssueInvoice { .. } => job.payment == PaymentState::Invoicing,
        Effect::SettleHold => job.payment == PaymentState::Settling,
        Effect::CancelHold => {
            let zapped = job.payment == PaymentState::Settled && job.paid_by == PaidBy::Zap;
            zapped || job.payment == PaymentState::Releasing
        }
        Effect::Publish(Notice::PaymentRequired) => job.payment == PaymentState::Awaiting,
        Effect::Publish(Notice::Result) => job.work == WorkState::Finished,
        Effect::StopRun | Effect::Publish(Notice::Processing | Notice::Error(_)) => true,
    }
}
