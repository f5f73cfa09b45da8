//! Telling the customer, until enough relays have it.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use super::{Live, Moment, Provider, lock};
use crate::job::{Code, EffectKey, Job, JobEvent, Refusal};
use crate::nip90::{Amount, Feedback, SignedEvent, Status};
use crate::store::StoreError;

/// The longest pause between two attempts to publish.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// How long a job runs, or waits for its turn, before the customer is told that it is being worked on.
const ANNOUNCE_AFTER: Duration = Duration::from_millis(150);

/// What became of an attempt to publish for as long as it is worth it.
enum Published {
    Yes,
    GaveUp,
    /// We are shutting down: the outbox keeps it.
    Interrupted,
}

impl Provider {
    /// Publishes the stored result. Only ever asked for when the payment allows it; checked here once more, because this
    /// is the door.
    pub(super) async fn publish_result(self: &Arc<Self>, job: &Job) -> Result<(), StoreError> {
        if !job.payment.allows_publishing() {
            warn!(payment = job.payment.word(), "Refused to publish the result of job {} unpaid", job.id);
            return Ok(());
        }
        let Some(live) = self.live(job.id).await? else { return self.give_up_result(job).await };
        let stored = lock(&live.result).clone();
        let Some(event) = stored else { return self.give_up_result(job).await };
        let until = self.after(job.changed_at, self.settings.result_retry_for);
        match self.publish_until(job, EffectKey::PublishResult, &event, &live, until).await {
            Published::Yes => {
                self.tell(job.id, JobEvent::ResultPublished).await?;
                self.forget(job.id);
            }
            Published::GaveUp => self.give_up_result(job).await?,
            Published::Interrupted => {}
        }
        Ok(())
    }

    async fn give_up_result(self: &Arc<Self>, job: &Job) -> Result<(), StoreError> {
        warn!("Gave up publishing the result of job {}; what it cost became the customer's credit", job.id);
        self.tell(job.id, JobEvent::ResultUndeliverable).await?;
        Ok(())
    }

    /// Publishes the invoice, for as long as it can be paid.
    pub(super) async fn publish_payment_required(self: &Arc<Self>, job: &Job) -> Result<(), StoreError> {
        let Some(invoice) = &job.invoice else {
            return self.notice_done(job, EffectKey::PublishPaymentRequired).await;
        };
        let mut text = format!("pay {} for {}", invoice.amount, job.kind);
        if !job.quote.credit.is_zero() {
            text = format!("{text}; {} of your credit is set aside for it", job.quote.credit);
        }
        if job.quote.whole_sats && invoice.amount != job.quote.price.saturating_sub(job.quote.credit) {
            text = format!("{text}; rounded up to whole sats, the rest becomes credit");
        }
        let feedback = Feedback {
            text: Some(text),
            amount: Some(Amount { amount: invoice.amount, bolt11: Some(invoice.bolt11.clone()) }),
            terms: Some(job.quote.terms),
            ..Feedback::of(Status::PaymentRequired)
        };
        self.publish_notice(job, EffectKey::PublishPaymentRequired, &feedback, invoice.expires_at).await
    }

    /// Says that the work begins, or where the job waits for its turn, if it has not ended by then: a job that takes no time
    /// needs no announcement.
    pub(super) async fn publish_processing(self: &Arc<Self>, job: &Job) -> Result<(), StoreError> {
        tokio::select! {
            () = tokio::time::sleep(ANNOUNCE_AFTER) => {}
            () = self.closing.cancelled() => return Ok(()),
        }
        if lock(&self.running).contains_key(&job.id)
            && let Some(live) = self.live(job.id).await?
        {
            let queue = self.turns.tell(job.id);
            let text = queue.map(|standing| standing.to_string());
            self.answer(&live.reply_to, Feedback { text, queue, ..Feedback::of(Status::Processing) });
        }
        Ok(())
    }

    /// Says why it will not be done.
    pub(super) async fn publish_error(self: &Arc<Self>, job: &Job, refusal: &Refusal) -> Result<(), StoreError> {
        let until = self.after(job.changed_at, self.settings.notice_retry_for);
        // A broadcast request that the operator's wallet could not serve is no conversation yet.
        let silent = refusal.code == Code::Backend && job.invoice.is_none() && job.usage.is_none();
        if silent && self.live(job.id).await?.is_some_and(|live| !live.reply_to.addressed) && job.paid.is_zero() {
            return self.notice_done(job, EffectKey::PublishError).await;
        }
        self.publish_notice(job, EffectKey::PublishError, &Feedback::error(refusal), until).await
    }

    async fn publish_notice(
        self: &Arc<Self>,
        job: &Job,
        key: EffectKey,
        feedback: &Feedback,
        until: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(live) = self.live(job.id).await? else { return self.notice_done(job, key).await };
        let event = match self.parts.codec.feedback(&live.reply_to, feedback, self.parts.clock.now()) {
            Ok(event) => event,
            Err(problem) => {
                warn!(%problem, "Feedback could not be written");
                return self.notice_done(job, key).await;
            }
        };
        // Before anybody can zap it. Without a lightning address nobody does.
        if key == EffectKey::PublishPaymentRequired && self.parts.zaps.is_some() {
            self.parts.store.remember_event(event.id, job.id, self.parts.clock.now()).await?;
        }
        match self.publish_until(job, key, &event, &live, until).await {
            Published::Yes | Published::GaveUp => self.notice_done(job, key).await,
            Published::Interrupted => Ok(()),
        }
    }

    async fn notice_done(self: &Arc<Self>, job: &Job, key: EffectKey) -> Result<(), StoreError> {
        self.tell(job.id, JobEvent::NoticeDone(key)).await?;
        Ok(())
    }

    async fn publish_until(
        &self,
        job: &Job,
        key: EffectKey,
        event: &SignedEvent,
        live: &Live,
        until: Timestamp,
    ) -> Published {
        let pauses = ExponentialBuilder::default().with_jitter().with_max_delay(LONGEST_PAUSE).without_max_times();
        for pause in pauses.build() {
            let report = self.parts.publisher.publish(event, &live.reply_to.relays).await;
            if report.quorum {
                self.parts.witness.at(Moment::After(key), job.id).await;
                return Published::Yes;
            }
            if self.parts.clock.now() >= until {
                // Too few relays for the operator's taste, and yet the customer can have it.
                return if report.accepted() > 0 { Published::Yes } else { Published::GaveUp };
            }
            info!(accepted = report.accepted(), of = report.verdicts.len(), "Too few relays took {key}; trying again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.closing.cancelled() => return Published::Interrupted,
            }
        }
        Published::GaveUp
    }

    fn after(&self, at: Timestamp, span: Duration) -> Timestamp {
        SignedDuration::try_from(span).ok().and_then(|span| at.checked_add(span).ok()).unwrap_or(Timestamp::MAX)
    }
}
