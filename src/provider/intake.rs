//! What strangers send: requests to quoting, cancellations to the job, zaps to the scales, pings to the answer.

use std::sync::Arc;

use futures::future::Either;
use tracing::{Instrument, debug, info, info_span, warn};

use super::{Provider, lock};
use crate::job::{Canceller, Code, CustomerId, InputKind, JobEvent, JobId, Refusal};
use crate::nip90::{Feedback, Incoming, ReplyTo, Status, Unreadable};

/// Jobs one deletion event may name; further ones are ignored.
const MAX_CANCELLED_AT_ONCE: usize = 100;

/// Of those, the ones remembered for requests that have not come yet: everybody's deletions come by here.
const MAX_EARLY_AT_ONCE: usize = 8;

impl Provider {
    /// Takes what the relays brought. Waits while as many requests as allowed are being made ready, so that the wait is
    /// felt by the relay's socket and not by our memory.
    pub async fn receive(self: &Arc<Self>, incoming: Result<Incoming, Unreadable>) {
        match incoming {
            Ok(Incoming::Request(request)) => {
                let place = if request.inputs.iter().all(|input| input.kind == InputKind::Text) {
                    let Ok(place) = Arc::clone(&self.preparing).acquire_owned().await else { return };
                    Either::Left(place)
                } else if self.closing.is_cancelled() {
                    return;
                } else {
                    // After a restart the relays tell of many jobs at once that are in the house: those take no place.
                    match self.parts.store.knows(request.id).await {
                        Ok(false) => {}
                        Ok(true) => return debug!("Known already"),
                        Err(problem) => return warn!(%problem, "A request could not be looked up"),
                    }
                    match self.fetching.take(request.customer) {
                        Ok(place) => Either::Right(place),
                        Err(refusal) => {
                            let to = ReplyTo::from(&*request);
                            if to.addressed && self.settings.rules.may_speak(to.customer) {
                                self.refuse(&to, &refusal).await;
                            }
                            return;
                        }
                    }
                };
                let this = Arc::clone(self);
                let span = info_span!("request", id = %request.id, kind = request.kind.request_kind());
                self.tasks.spawn(
                    async move {
                        let job = request.id;
                        if let Err(problem) = this.quote(*request).await {
                            // Nothing was promised; the relays still have the request and a restart takes it again.
                            warn!(%problem, "A request could not be taken");
                            this.census.leave(job);
                        }
                        drop(place);
                    }
                    .instrument(span),
                );
            }
            Ok(Incoming::Cancel { customer, jobs }) => {
                let jobs: Vec<JobId> = jobs.into_iter().take(MAX_CANCELLED_AT_ONCE).collect();
                self.cancel_for_customer(jobs, customer).await;
            }
            Ok(Incoming::Zap(receipt)) => self.take_zap(*receipt).await,
            Ok(Incoming::Ping { to }) if self.settings.rules.may_speak(to.customer) => self.pong(&to).await,
            Ok(Incoming::Ping { .. }) => debug!("Ignored a ping"),
            Err(Unreadable::Refused { to, refusal }) if to.addressed && self.settings.rules.may_speak(to.customer) => {
                self.refuse(&to, &refusal).await;
            }
            Err(reason) => debug!(%reason, "Ignored an event"),
        }
    }

    /// Cancels a job for the operator.
    ///
    /// # Errors
    /// [`crate::store::StoreError`].
    pub async fn cancel(self: &Arc<Self>, job: JobId) -> Result<crate::job::Job, crate::store::StoreError> {
        self.tell(job, JobEvent::cancelled(Canceller::Operator)).await
    }

    async fn cancel_for_customer(self: &Arc<Self>, jobs: Vec<JobId>, customer: CustomerId) {
        {
            // Remembered first: the request may not have come yet (relays keep no order), or may be being made ready right
            // now. Quoting looks here before and after it opens a job.
            let mut early = lock(&self.cancelled_early);
            for job in jobs.iter().take(MAX_EARLY_AT_ONCE) {
                early.put((*job, customer), ());
            }
        }
        match self.parts.store.jobs_of(customer, jobs).await {
            Ok(own) => {
                for job in own {
                    self.cancel_opened(job).await;
                }
            }
            Err(problem) => warn!(%problem, "A cancellation could not be looked up"),
        }
    }

    /// Cancels an open job for its customer.
    pub(super) async fn cancel_opened(self: &Arc<Self>, job: JobId) {
        let event = JobEvent::Cancelled { by: Canceller::Customer, shown: self.shown(job) };
        if let Err(problem) = self.tell(job, event).await {
            warn!(%problem, "A cancellation could not be recorded");
        }
    }

    /// Whether a customer cancelled this request before it became a job.
    pub(super) fn was_cancelled_early(&self, job: JobId, customer: CustomerId) -> bool {
        lock(&self.cancelled_early).contains(&(job, customer))
    }

    /// Says why a request that names us is not taken: once, also over restarts.
    pub(super) async fn refuse(self: &Arc<Self>, to: &ReplyTo, refusal: &Refusal) {
        let is_new = if refusal.code == Code::RateLimited {
            // The house is full: not worth a write for each of those who knock. But relays tell of jobs again that are in
            // the house.
            self.parts.store.knows(to.job).await.map(|known| !known)
        } else {
            self.parts.store.decline(to.job, self.parts.clock.now()).await
        };
        match is_new {
            Ok(true) => {}
            Ok(false) => return,
            Err(problem) => return warn!(%problem, "A refusal could not be recorded"),
        }
        self.parts.metrics.refused(refusal.code);
        info!(job.id = %to.job, code = %refusal.code, "Refused request {}", to.job);
        self.answer(to, Feedback::error(refusal));
    }

    /// Answers a ping: once, also over restarts, after which the relays tell the last ones again.
    async fn pong(self: &Arc<Self>, to: &ReplyTo) {
        match self.parts.store.decline(to.job, self.parts.clock.now()).await {
            Ok(true) => self.answer(to, Feedback::of(Status::Pong)),
            Ok(false) => debug!("Answered that ping before"),
            Err(problem) => warn!(%problem, "A ping could not be recorded"),
        }
    }

    /// Sends feedback that is worth sending once and not worth keeping.
    pub(super) fn answer(self: &Arc<Self>, to: &ReplyTo, feedback: Feedback) {
        let (this, to) = (Arc::clone(self), to.clone());
        self.tasks.spawn(async move {
            match this.parts.codec.feedback(&to, &feedback, this.parts.clock.now()) {
                Ok(event) => {
                    tokio::select! {
                        _ = this.parts.publisher.publish(&event, &to.relays) => {}
                        () = this.stop.cancelled() => {}
                    }
                }
                Err(problem) => warn!(%problem, "An answer could not be written"),
            }
        });
    }
}
