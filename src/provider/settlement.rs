//! Being paid: the wallet's news, and asking it when there is none.
//!
//! A stream may fall silent without a word, so every open invoice is also looked up: a few at each tick, all of them after
//! the stream broke, and each once more before it is given up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Moment, Provider, lock};
use crate::job::{EffectKey, Job, JobEvent, JobId, PaymentState};
use crate::store::{OpenInvoice, StoreError};
use crate::wallet::watch::{self, WatchEvent};
use crate::wallet::{InvoiceState, InvoiceUpdate, Wallet, WalletError};

/// Invoices looked up at one tick when nothing points at any of them: keeps a wallet with request limits usable.
const LOOKUPS_A_TICK: u32 = 64;

/// Which of the invoices that were given up are looked at first after the wallet was away.
const RECENTLY_GIVEN_UP: SignedDuration = SignedDuration::from_secs(60 * 60);

/// Given-up invoices looked up at one tick, on top.
const GIVEN_UP_A_TICK: u32 = 8;

/// Invoices past their expiry looked up at one tick.
const DUE_A_TICK: usize = 256;

/// Look-ups under way at once.
const LOOKUPS_AT_ONCE: usize = 8;

/// How long after its expiry an invoice is given up: a payment may be under way at the very end.
const EXPIRY_GRACE: SignedDuration = SignedDuration::from_secs(30);

/// How long a wallet that no longer knows an invoice, or does not answer, is given after the expiry before the invoice is
/// given up all the same. A payment that turns up later is still honoured.
const UNKNOWN_GRACE: SignedDuration = SignedDuration::from_secs(60 * 60);

/// The first pause before a hold that the wallet left open is settled or cancelled again.
const FIRST_HOLD_PAUSE: Duration = Duration::from_secs(1);

/// The longest such pause. A block takes ten minutes: nothing is missed by waiting one.
const LONGEST_HOLD_PAUSE: Duration = Duration::from_secs(60);

/// Waits between two attempts to decide a hold.
#[derive(Debug, Default)]
pub(super) struct HoldPause {
    last: Option<Duration>,
    news: Arc<Notify>,
}

impl HoldPause {
    /// The next pause: twice the last one, within bounds.
    fn next(&mut self) -> Duration {
        let next = self.last.map_or(FIRST_HOLD_PAUSE, |last| last.saturating_mul(2).min(LONGEST_HOLD_PAUSE));
        self.last = Some(next);
        next
    }
}

impl Provider {
    /// Watches payments until `shutdown`: hears news and looks up, each without waiting for the other.
    pub async fn watch_payments(self: Arc<Self>, shutdown: CancellationToken) {
        let look_at_all = Notify::new();
        tokio::join!(self.hear_news(&look_at_all, &shutdown), self.keep_looking(&look_at_all, &shutdown));
    }

    async fn hear_news(self: &Arc<Self>, look_at_all: &Notify, shutdown: &CancellationToken) {
        let Some(wallet) = self.parts.wallet.clone() else { return };
        let mut news = Box::pin(watch::updates(wallet, shutdown.clone()));
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = news.next() => event,
            };
            match event {
                Some(WatchEvent::Update(update)) => {
                    if let Err(problem) = self.hear(update).await {
                        warn!(%problem, "A payment could not be recorded; it will be looked up again");
                    }
                }
                Some(WatchEvent::Reconnected) => look_at_all.notify_one(),
                // The stream ends with the shutdown only.
                None => return,
            }
        }
    }

    async fn keep_looking(self: &Arc<Self>, look_at_all: &Notify, shutdown: &CancellationToken) {
        let mut tick = tokio::time::interval(self.settings.payment_poll);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut turn, mut late_from) = (0, Timestamp::MIN);
        loop {
            let look = async {
                tokio::select! {
                    () = look_at_all.notified() => self.look_up_all().await,
                    _ = tick.tick() => {
                        turn += 1;
                        self.look_up_some(turn, &mut late_from).await
                    }
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                looked = look => if let Err(problem) = looked {
                    warn!(%problem, "Open invoices could not be looked up; they will be again");
                },
            }
        }
    }

    /// Records the wallet's word on an invoice.
    ///
    /// # Errors
    /// [`StoreError`]; the invoice stays open and is looked up again.
    pub async fn hear(self: &Arc<Self>, update: InvoiceUpdate) -> Result<(), StoreError> {
        match self.parts.store.job_of_invoice(update.payment_hash).await? {
            Some(job) => {
                self.end_hold_pause(job);
                self.record(job, update.state).await
            }
            // Not an invoice of ours to sell with; or one whose making is not recorded yet, and then it is looked up.
            None => Ok(()),
        }
    }

    /// Asks the wallet about every open invoice, and about those given up last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn look_up_all(self: &Arc<Self>) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        let mut invoices = self.parts.store.open_invoices().await?;
        let recently = now.checked_sub(RECENTLY_GIVEN_UP).unwrap_or(Timestamp::MIN);
        invoices.extend(self.parts.store.given_up_invoices(recently, GIVEN_UP_A_TICK).await?);
        self.look_up(invoices, now).await
    }

    /// Asks the wallet about what is due, a few of those that wait, and the next few of those given up, from `late_from` on.
    async fn look_up_some(self: &Arc<Self>, turn: usize, late_from: &mut Timestamp) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        let invoices = self.parts.store.open_invoices().await?;
        let (due, waiting): (Vec<_>, Vec<_>) = invoices.into_iter().partition(|invoice| is_overdue(invoice, now));
        let few = LOOKUPS_A_TICK as usize;
        let start = if waiting.is_empty() { 0 } else { turn.wrapping_mul(few) % waiting.len() };
        let some = waiting.iter().cycle().skip(start).take(few.min(waiting.len())).copied();
        let given_up =
            self.parts.store.given_up_invoices(self.late_since(now).max(*late_from), GIVEN_UP_A_TICK).await?;
        // Past the last one the round begins anew.
        *late_from = match given_up.last() {
            Some(last) if given_up.len() == GIVEN_UP_A_TICK as usize => {
                last.changed_at + SignedDuration::from_millis(1)
            }
            _ => Timestamp::MIN,
        };
        self.look_up(due.into_iter().take(DUE_A_TICK).chain(some).chain(given_up).collect(), now).await
    }

    async fn look_up(self: &Arc<Self>, invoices: Vec<OpenInvoice>, now: Timestamp) -> Result<(), StoreError> {
        let wallet = self.parts.wallet.as_ref();
        let mut answers = stream::iter(invoices)
            .map(|invoice| async move {
                let answer = match wallet {
                    Some(wallet) => wallet.look_up(&invoice.payment_hash).await,
                    None => Err(WalletError::Refused("no wallet is configured any more".into())),
                };
                (invoice, answer)
            })
            .buffer_unordered(LOOKUPS_AT_ONCE);
        while let Some((invoice, answer)) = answers.next().await {
            let late = now.duration_since(invoice.expires_at);
            match answer {
                // Expired, and the wallet says in so many words that nothing came.
                Ok(InvoiceState::Open) if late > EXPIRY_GRACE && invoice.payment == PaymentState::Awaiting => {
                    self.tell(invoice.job, JobEvent::Lapsed).await?;
                }
                Ok(state) => self.record(invoice.job, state).await?,
                Err(problem) if late > UNKNOWN_GRACE && invoice.payment == PaymentState::Awaiting => {
                    warn!(job.id = %invoice.job, %problem, "The wallet says nothing of the invoice of job {}", invoice.job);
                    self.tell(invoice.job, JobEvent::Lapsed).await?;
                }
                Err(problem) => debug!(%problem, "An invoice could not be looked up"),
            }
        }
        Ok(())
    }

    async fn record(self: &Arc<Self>, job: JobId, state: InvoiceState) -> Result<(), StoreError> {
        if matches!(state, InvoiceState::Settled { .. } | InvoiceState::Cancelled) {
            self.end_hold_pause(job);
        }
        let event = match state {
            InvoiceState::Open => return Ok(()),
            InvoiceState::Held { amount } => JobEvent::PaymentHeld { amount },
            InvoiceState::Settled { amount, .. } => JobEvent::PaymentSettled { amount },
            InvoiceState::Expired => JobEvent::Lapsed,
            InvoiceState::Cancelled => JobEvent::HoldReleased,
        };
        match self.tell(job, event).await {
            Err(StoreError::Illegal { source, .. }) => {
                // A wallet that says what cannot be. Nothing is booked on its word.
                warn!(problem = %source, "The wallet says something impossible about job {job}");
                Ok(())
            }
            told => told.map(|_| ()),
        }
    }

    /// Takes held money. Only the wallet's word that it is settled counts, so that is asked for afterwards.
    pub(super) async fn settle_hold(self: &Arc<Self>, job: &Job) -> Result<(), StoreError> {
        let Some((wallet, hold, key)) = self.hold_side() else { return Ok(()) };
        let settled = match wallet.hold_invoices() {
            Some(invoices) => invoices.settle(&key.preimage(job.id)).await,
            None => Err(WalletError::Refused(hold.to_owned())),
        };
        self.parts.witness.at(Moment::After(EffectKey::SettleHold), job.id).await;
        self.after_hold_act(job, settled, wallet.as_ref()).await
    }

    /// Gives held money back.
    pub(super) async fn cancel_hold(self: &Arc<Self>, job: &Job) -> Result<(), StoreError> {
        let (Some((wallet, hold, _)), Some(invoice)) = (self.hold_side(), &job.invoice) else { return Ok(()) };
        let cancelled = match wallet.hold_invoices() {
            Some(invoices) => invoices.cancel(&invoice.payment_hash).await,
            None => Err(WalletError::Refused(hold.to_owned())),
        };
        self.parts.witness.at(Moment::After(EffectKey::CancelHold), job.id).await;
        self.after_hold_act(job, cancelled, wallet.as_ref()).await
    }

    fn hold_side(&self) -> Option<(Arc<dyn Wallet>, &'static str, super::HoldKey)> {
        let wallet = self.parts.wallet.clone()?;
        Some((wallet, "the wallet no longer makes hold invoices", self.parts.hold_key.clone()?))
    }

    /// After an act on held money nobody assumes anything: the wallet is asked where the invoice stands. While it does not
    /// say, the act stays in the outbox and is done again.
    async fn after_hold_act(
        self: &Arc<Self>,
        job: &Job,
        act: Result<(), WalletError>,
        wallet: &dyn Wallet,
    ) -> Result<(), StoreError> {
        if let Err(problem) = act {
            warn!(%problem, "The wallet would not settle or release the hold of job {}", job.id);
        }
        let Some(invoice) = &job.invoice else { return Ok(()) };
        match wallet.look_up(&invoice.payment_hash).await {
            Ok(state @ (InvoiceState::Settled { .. } | InvoiceState::Cancelled | InvoiceState::Expired)) => {
                let state = if state == InvoiceState::Expired { InvoiceState::Cancelled } else { state };
                self.record(job.id, state).await
            }
            Ok(_) | Err(_) => {
                let (pause, news) = {
                    let mut pauses = lock(&self.hold_pauses);
                    let pause = pauses.entry(job.id).or_default();
                    (pause.next(), Arc::clone(&pause.news))
                };
                info!(pause_s = pause.as_secs(), "The hold of job {} is not decided yet", job.id);
                // The act is under way until then, so nobody else takes it up.
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = news.notified() => {}
                    () = self.closing.cancelled() => {}
                }
                self.stranded.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Something is known of the job's invoice: whoever waits to look again does so now, and the next pause is short.
    fn end_hold_pause(&self, job: JobId) {
        if let Some(pause) = lock(&self.hold_pauses).remove(&job) {
            pause.news.notify_one();
        }
    }

    fn late_since(&self, now: Timestamp) -> Timestamp {
        SignedDuration::try_from(self.settings.late_payment_window)
            .ok()
            .and_then(|window| now.checked_sub(window).ok())
            .unwrap_or(Timestamp::MIN)
    }
}

fn is_overdue(invoice: &OpenInvoice, now: Timestamp) -> bool {
    now.duration_since(invoice.expires_at) > EXPIRY_GRACE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_that_stays_open_is_looked_at_less_and_less_often_but_never_given_up() {
        let mut pause = HoldPause::default();
        let seconds: Vec<u64> = (0..8).map(|_| pause.next().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
