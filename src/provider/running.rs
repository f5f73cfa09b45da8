//! The work itself: a turn, the executor, the signed result.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Live, Moment, Provider, lock};
use crate::executor::Piece;
use crate::job::{Code, EffectKey, Failure, Job, JobEvent, JobId, Outcome, PaymentState, Terms};
use crate::money::Msat;
use crate::nip90::{Amount, Feedback, JobResult, Receipt, Status};
use crate::store::{FinishedWork, StoreError};

impl Provider {
    /// Does a job's work when its turn comes. A process that dies in between does it again: nothing of it was seen.
    pub(super) async fn run(self: &Arc<Self>, job: &Job) -> Result<(), StoreError> {
        let cancel = self.stop.child_token();
        lock(&self.running).insert(job.id, cancel.clone());
        let done = self.run_until(job, &cancel).await;
        lock(&self.running).remove(&job.id);
        done
    }

    async fn run_until(self: &Arc<Self>, job: &Job, cancel: &CancellationToken) -> Result<(), StoreError> {
        let turn = tokio::select! {
            turn = Arc::clone(&self.turns).acquire_owned() => turn,
            () = cancel.cancelled() => return Ok(()),
        };
        // Shutting down before its turn came: it stays in the outbox.
        let Ok(turn) = turn else { return Ok(()) };
        // Called off before it was noted as running.
        if lock(&self.called_off).contains(&job.id) {
            return Ok(());
        }
        let Some(live) = self.live(job.id).await? else {
            return self.run_failed(job, Failure::backend("the request is no longer kept")).await;
        };
        let now = self.parts.clock.now();
        if live.expires_at.is_some_and(|at| at <= now) {
            let failure = Failure { code: Code::Expired, text: "the request expired before its turn came".into() };
            return self.run_failed(job, failure).await;
        }
        let Some(executor) = self.parts.router.get(job.kind) else {
            return self.run_failed(job, Failure::backend("this kind of job is no longer offered")).await;
        };
        let (partial, pieces) = mpsc::unbounded_channel();
        // Output that is not paid for is not shown, not even in pieces; nor is output whose payment would still be given back
        // in full, were the job cancelled or failed at its last word.
        let streams = live.prepared.stream && job.payment == PaymentState::Free;
        let running = self.parts.metrics.run_begins();
        let outcome = {
            let mut work = executor.run(&live.prepared, streams.then_some(partial), cancel);
            tokio::select! {
                // A piece still waiting for its relays' word is on its way to them; the result does not wait for it.
                outcome = &mut work => outcome,
                // No more pieces come, or they can't be written.
                () = self.publish_partials(&live, pieces) => work.await,
            }
        };
        // The next job may begin: making this one's result durable keeps the disk busy, not the model.
        drop((turn, running));
        self.parts.witness.at(Moment::After(EffectKey::Run), job.id).await;
        match outcome {
            Ok(outcome) => self.run_finished(job, live, outcome).await,
            // Parked by a shutdown: stays in the outbox. Cancelled by somebody: the job is over already.
            Err(_) if cancel.is_cancelled() => Ok(()),
            Err(failure) => self.run_failed(job, failure).await,
        }
    }

    async fn run_failed(self: &Arc<Self>, job: &Job, failure: Failure) -> Result<(), StoreError> {
        info!(code = %failure.code, "Job {} failed", job.id);
        self.tell(job.id, JobEvent::RunFailed(failure)).await?;
        Ok(())
    }

    async fn run_finished(self: &Arc<Self>, job: &Job, live: Arc<Live>, outcome: Outcome) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        info!(
            prompt_tokens = outcome.usage.prompt_tokens,
            generated_tokens = outcome.usage.generated_tokens,
            duration_ms = u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX),
            "Finished job {}",
            job.id
        );
        self.parts.metrics.run_finished(&outcome);
        let codec = self.parts.codec.clone();
        let signed = Arc::clone(&live);
        let sign = move |job: &Job, credit: Msat, outcome: &Outcome| {
            let result = result_of(job, credit, outcome);
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
        if let Some(cancel) = lock(&self.running).get(&job) {
            cancel.cancel();
        }
        self.tell(job, JobEvent::NoticeDone(EffectKey::StopRun)).await?;
        Ok(())
    }

    /// Sends new output as it comes, in pieces of their own, no more often than configured. What is left at the end is not
    /// sent: the result is whole.
    async fn publish_partials(&self, live: &Live, mut pieces: mpsc::UnboundedReceiver<Piece>) {
        let mut seq = 0;
        while let Some(Piece { mut text, .. }) = pieces.recv().await {
            let due =
                tokio::time::sleep(if seq == 0 { std::time::Duration::ZERO } else { self.settings.partial_every });
            tokio::pin!(due);
            loop {
                tokio::select! {
                    () = &mut due => break,
                    piece = pieces.recv() => match piece {
                        Some(piece) => text.push_str(&piece.text),
                        None => return,
                    },
                }
            }
            let feedback = Feedback { seq: Some(seq), content: text, ..Feedback::of(Status::Partial) };
            seq += 1;
            match self.parts.codec.feedback(&live.reply_to, &feedback, self.parts.clock.now()) {
                Ok(event) => {
                    self.parts.publisher.publish(&event, &live.reply_to.relays).await;
                }
                Err(problem) => return warn!(%problem, "A partial result could not be written"),
            }
        }
    }
}

/// The result and its receipt.
fn result_of(job: &Job, credit: Msat, outcome: &Outcome) -> JobResult {
    let charged = job.quote.cost(outcome.usage);
    JobResult {
        content: outcome.content.clone(),
        amount: (job.quote.terms != Terms::Free)
            .then(|| Amount { amount: charged, bolt11: job.invoice.as_ref().map(|invoice| invoice.bolt11.clone()) }),
        receipt: Receipt {
            model: outcome.model.clone(),
            usage: Some(outcome.usage),
            parameters: outcome.parameters,
            mflops: outcome.mflops(),
            digest: outcome.digest.clone(),
            duration: Some(outcome.duration),
            paid: Some(charged),
            credit: (job.payment != PaymentState::Free || !credit.is_zero()).then_some(credit),
            terms: Some(job.quote.terms),
        },
        truncated: None,
    }
}
