//! The work itself: a turn, the executor, the signed result.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::delivering::result_of;
use super::{Live, Moment, Offer, Provider, lock};
use crate::executor::{Executor, Piece, Prepared};
use crate::job::queue::{Lane, Ticket};
use crate::job::{Code, EffectKey, Failure, Job, JobEvent, JobId, Outcome, PaymentState, Terms, Usage};
use crate::money::Msat;
use crate::nip90::{Feedback, Status};
use crate::store::{FinishedWork, StoreError};

/// A run from when it is asked for until it ends, its wait included.
#[derive(Debug, Clone, Default)]
pub(super) struct Underway {
    cancel: CancellationToken,
    shown: Shown,
    /// Its turn has come: from here on it takes our time.
    begun: Arc<AtomicBool>,
}

/// What the customer was shown of the output by now: what was sent to where they can read it. A run that ends with the
/// process takes the count with it, and then nothing is charged.
#[derive(Debug, Clone, Default)]
struct Shown(Arc<Mutex<Usage>>);

impl Shown {
    fn so_far(&self) -> Usage {
        *lock(&self.0)
    }
}

/// Output that was written and that nobody was sent yet.
#[derive(Default)]
struct Unsent {
    seq: u32,
    text: String,
    /// Tokens written so far, those sent before included.
    tokens: u32,
}

impl Unsent {
    fn add(&mut self, piece: &Piece) {
        self.text.push_str(&piece.text);
        self.tokens = piece.tokens;
    }

    fn feedback(&self) -> Feedback {
        Feedback { seq: Some(self.seq), content: self.text.clone(), ..Feedback::of(Status::Partial) }
    }

    fn sent(&mut self) {
        self.seq += 1;
        self.text.clear();
    }
}

impl Provider {
    /// Does a job's work when its turn comes. A process that dies in between does it again: nothing of it was promised.
    pub(super) async fn run(self: &Arc<Self>, job: &Job) -> Result<(), StoreError> {
        let underway = Underway { cancel: self.stop.child_token(), ..Underway::default() };
        lock(&self.running).insert(job.id, underway.clone());
        let done = self.run_until(job, &underway).await;
        lock(&self.running).remove(&job.id);
        done
    }

    async fn run_until(self: &Arc<Self>, job: &Job, underway: &Underway) -> Result<(), StoreError> {
        // The request is not kept in memory while its job waits.
        let Some(ticket) = self.live(job.id).await?.map(|live| self.ticket_of(job, &live)) else {
            return self.run_failed(job, Failure::backend("the request is no longer kept"), Usage::NONE).await;
        };
        let lane = ticket.lane.clone();
        let turn = tokio::select! {
            turn = self.turns.wait_for(ticket) => turn,
            () = underway.cancel.cancelled() => return Ok(()),
            // Its lane may never have room again.
            () = self.until_expired(job) => return self.run_failed(job, expired(), Usage::NONE).await,
        };
        // Shutting down before its turn came: it stays in the outbox.
        let Some(turn) = turn else { return Ok(()) };
        // Called off before it was noted as running.
        if lock(&self.called_off).contains(&job.id) {
            return Ok(());
        }
        let Some(live) = self.live(job.id).await? else {
            return self.run_failed(job, Failure::backend("the request is no longer kept"), Usage::NONE).await;
        };
        let now = self.parts.clock.now();
        if live.expires_at.is_some_and(|at| at <= now) {
            return self.run_failed(job, expired(), Usage::NONE).await;
        }
        let Some(executor) = self.parts.router.get(job.kind) else {
            let failure = Failure::backend("this kind of job is no longer offered");
            return self.run_failed(job, failure, Usage::NONE).await;
        };
        // Many may have been promised at once, before the first of them came to nothing.
        if job.quote.terms != Terms::Free
            && let Err(refusal) = self.given_away.check(job.customer, now)
        {
            return self.run_failed(job, refusal.into(), Usage::NONE).await;
        }
        underway.begun.store(true, Ordering::Relaxed);
        if turn.was_waited_for() {
            let text = Some("the work has begun".to_owned());
            self.answer(&live.reply_to, Feedback { text, ..Feedback::of(Status::Processing) });
        }
        let running = self.parts.metrics.run_begins();
        let outcome = self.work(executor.as_ref(), job, &live, underway).await;
        if let Ok(outcome) = &outcome {
            self.turns.note_run(lane, live.prepared.estimate, outcome.duration);
        }
        // The next job may begin: making this one's result durable keeps the disk busy, not the model.
        drop((turn, running));
        self.parts.witness.at(Moment::After(EffectKey::Run), job.id).await;
        match outcome {
            Ok(outcome) => self.run_finished(job, live, outcome, &underway.cancel).await,
            // Parked by a shutdown: stays in the outbox. Cancelled by somebody: the job is over already.
            Err(_) if underway.cancel.is_cancelled() => Ok(()),
            Err(failure) => self.run_failed(job, failure, underway.shown.so_far()).await,
        }
    }

    /// The executor's work, shown while it is done where that is asked for and allowed. A panic in it ends this job alone.
    async fn work(
        self: &Arc<Self>,
        executor: &dyn Executor,
        job: &Job,
        live: &Live,
        underway: &Underway,
    ) -> Result<Outcome, Failure> {
        let (partial, pieces) = mpsc::unbounded_channel();
        // Output that is not paid for is not shown, not even in pieces. What is shown is charged, so only where there is
        // nothing to charge or the money is ours already.
        let streams = live.prepared.stream && job.payment.allows_publishing();
        let mut prepared = live.prepared.clone();
        if job.payment == PaymentState::Free {
            executor.may_publish(&mut prepared);
        }
        let running = executor.run(&prepared, streams.then_some(partial), &underway.cancel);
        let mut work = AssertUnwindSafe(running).catch_unwind();
        let outcome = tokio::select! {
            // A piece still waiting for its relays' word is on its way to them; the result does not wait for it.
            outcome = &mut work => outcome,
            // No more pieces come, or they can't be written.
            () = self.publish_partials(live, &underway.shown, pieces) => work.await,
        };
        outcome.unwrap_or_else(|_| {
            // What it says may hold the customer's words.
            error!("The work on job {} panicked", job.id);
            Err(Failure::backend("the provider failed while working on this job; please try again"))
        })
    }

    /// A job's place in the queue. It waits since it became ready to run, also over a restart.
    fn ticket_of(&self, job: &Job, live: &Live) -> Ticket {
        Ticket {
            job: job.id,
            customer: job.customer,
            price: job.quote.price,
            paid: job.quote.terms != Terms::Free,
            lane: Lane { kind: job.kind, name: live.prepared.lane.clone() },
            estimate: live.prepared.estimate,
            longest: self.settings.offers.get(&job.kind).map_or(Duration::MAX, Offer::time_limit),
            entered: job.changed_at,
        }
    }

    async fn until_expired(&self, job: &Job) {
        match job.expires_at {
            Some(at) => {
                let left = at.duration_since(self.parts.clock.now());
                tokio::time::sleep(Duration::try_from(left).unwrap_or(Duration::ZERO)).await;
            }
            None => std::future::pending().await,
        }
    }

    /// What the customer of a running job was shown of it by now.
    pub(super) fn shown(&self, job: JobId) -> Usage {
        lock(&self.running).get(&job).map_or(Usage::NONE, |underway| underway.shown.so_far())
    }

    /// Whether a job's turn has come, and its run is not over yet.
    pub(super) fn has_begun(&self, job: JobId) -> bool {
        lock(&self.running).get(&job).is_some_and(|underway| underway.begun.load(Ordering::Relaxed))
    }

    async fn run_failed(self: &Arc<Self>, job: &Job, failure: Failure, shown: Usage) -> Result<(), StoreError> {
        info!(code = %failure.code, "Job {} failed", job.id);
        self.tell(job.id, JobEvent::RunFailed { failure, shown }).await?;
        Ok(())
    }

    async fn run_finished(
        self: &Arc<Self>,
        job: &Job,
        live: Arc<Live>,
        outcome: Outcome,
        cancel: &CancellationToken,
    ) -> Result<(), StoreError> {
        let put_away = tokio::select! {
            // What needs no file is finished whatever else happens.
            biased;
            put_away = self.put_away(job, &live, &outcome) => put_away,
            // As a run that is parked, or that nobody wants any more.
            () = cancel.cancelled() => return Ok(()),
        };
        let file = match put_away {
            Ok(file) => file,
            Err(failure) => return self.run_failed(job, failure, Usage::NONE).await,
        };
        let now = self.parts.clock.now();
        info!(
            prompt_tokens = outcome.usage.prompt_tokens,
            generated_tokens = outcome.usage.generated_tokens,
            duration_ms = u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX),
            "Finished job {}",
            job.id
        );
        self.parts.metrics.run_finished(job.kind, &outcome);
        let codec = self.parts.codec.clone();
        let signed = Arc::clone(&live);
        let sign = move |job: &Job, credit: Msat, outcome: &Outcome| {
            let result = result_of(job, credit, outcome, file.clone());
            let event = codec.result(&signed.request, &result, now).map_err(|error| error.to_string())?;
            *lock(&signed.result) = Some(event.clone());
            Ok(event)
        };
        let advanced = self.parts.store.finish(job.id, FinishedWork { outcome, sign: Box::new(sign) }, now).await?;
        self.follow_up(advanced, "run-finished").await;
        Ok(())
    }

    /// Stops a run, here if it runs here.
    pub(super) async fn stop_run(self: &Arc<Self>, job: JobId) -> Result<(), StoreError> {
        lock(&self.called_off).put(job, ());
        if let Some(underway) = lock(&self.running).get(&job) {
            underway.cancel.cancel();
        }
        self.tell(job, JobEvent::NoticeDone(EffectKey::StopRun)).await?;
        Ok(())
    }

    /// Sends new output as it comes, in pieces of their own, no more often than configured, and counts what a relay has. What
    /// none of ours took goes with the next piece, in its place, so that all that counts was sent; but the customer's own
    /// relays, where they name some, have it in any case: whether those took it nobody tells us. What is left at the end is
    /// not sent: the result is whole.
    async fn publish_partials(&self, live: &Live, shown: &Shown, mut pieces: mpsc::UnboundedReceiver<Piece>) {
        let (mut unsent, mut pause) = (Unsent::default(), Duration::ZERO);
        while let Some(piece) = pieces.recv().await {
            unsent.add(&piece);
            let due = tokio::time::sleep(std::mem::replace(&mut pause, self.settings.partial_every));
            tokio::pin!(due);
            loop {
                tokio::select! {
                    () = &mut due => break,
                    piece = pieces.recv() => match piece {
                        Some(piece) => unsent.add(&piece),
                        None => return,
                    },
                }
            }
            match self.parts.codec.feedback(&live.reply_to, &unsent.feedback(), self.parts.clock.now()) {
                Ok(event) => {
                    let report = self.parts.publisher.publish(&event, &live.reply_to.relays).await;
                    if report.accepted() > 0 || !live.reply_to.relays.is_empty() {
                        *lock(&shown.0) = usage_of(&live.prepared, unsent.tokens);
                        unsent.sent();
                        self.parts.witness.at(Moment::Shown, live.reply_to.job).await;
                    }
                }
                Err(problem) => return warn!(%problem, "A partial result could not be written"),
            }
        }
    }
}

/// What is charged for so many tokens that were shown. Not a prompt that was only estimated: nobody knows how much less it
/// has.
fn usage_of(prepared: &Prepared, generated_tokens: u32) -> Usage {
    let prompt_tokens = if prepared.prompt_is_exact { prepared.estimate.prompt_tokens } else { 0 };
    Usage::tokens(prompt_tokens, generated_tokens)
}

fn expired() -> Failure {
    Failure::new(Code::Expired, "the request expired before its turn came")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Estimate;

    #[test]
    fn what_no_relay_took_is_in_the_next_piece_in_the_same_place() {
        let mut unsent = Unsent::default();
        let mut next = |text: &str, tokens, taken: bool| {
            unsent.add(&Piece { text: text.into(), tokens });
            let said = unsent.feedback();
            if taken {
                unsent.sent();
            }
            (said.seq, said.content)
        };
        assert_eq!(next("once ", 1, true), (Some(0), "once ".into()));
        assert_eq!(next("upon ", 2, false), (Some(1), "upon ".into()));
        assert_eq!(next("a ", 3, true), (Some(1), "upon a ".into()));
        assert_eq!(next("time", 4, true), (Some(2), "time".into()));
    }

    #[test]
    fn a_prompt_that_was_only_estimated_is_not_charged_for_what_was_shown() {
        let estimate = Estimate::tokens(900, 100);
        let counted = Prepared {
            estimate,
            prompt_is_exact: true,
            stream: true,
            rates: None,
            lane: None,
            work: serde_json::Value::Null,
        };
        assert_eq!(usage_of(&counted, 7), Usage::tokens(900, 7));
        let estimated = Prepared { prompt_is_exact: false, ..counted };
        assert_eq!(usage_of(&estimated, 7), Usage::tokens(0, 7));
    }
}
