//! What a result is: the output with its receipt, and where the whole output is when no event has room for it.

use tracing::{info, warn};

use super::{Live, Moment, Provider};
use crate::blossom::BlossomError;
use crate::job::{Failure, Job, JobKind, Outcome, PaymentState, Terms};
use crate::money::Msat;
use crate::nip90::{Amount, Blob, JobResult, Receipt};

impl Provider {
    /// Puts an output that no event has room for on the server of files, before the result is signed that tells of it: sealed,
    /// unless it is free and for everybody, so that nobody has it before the result is out. Money that is ours already is no
    /// reason to leave it open: a customer who calls the job off has it back. A text that can't be put there is cut as without a server. A process that dies before the result is stored puts it there once
    /// more.
    ///
    /// # Errors
    /// When it can't be put there and is worth nothing cut, as half a patch: nobody shall pay for that.
    pub(super) async fn put_away(&self, job: &Job, live: &Live, outcome: &Outcome) -> Result<Option<Blob>, Failure> {
        let Some(files) = &self.parts.files else { return Ok(None) };
        // The receipt is longest with the most credit there can be.
        let longest = result_of(job, Msat::MAX, outcome, None);
        if self.parts.codec.has_room_for(&live.request, &longest) {
            return Ok(None);
        }
        let content = outcome.content.clone();
        let put = if job.payment == PaymentState::Free && live.request.encryption.is_none() {
            files.upload(content, media_type(live, job.kind)).await
        } else {
            files.upload_sealed(content.into_bytes()).await
        };
        match put {
            Ok(blob) => {
                info!(bytes = blob.size, "Put the output of job {} on the server of files", job.id);
                self.parts.witness.at(Moment::PutAway, job.id).await;
                Ok(Some(blob))
            }
            Err(problem) if job.kind == JobKind::TextGeneration => {
                warn!(%problem, "The output of job {} is cut: it could not be uploaded", job.id);
                Ok(None)
            }
            Err(problem) => {
                warn!(%problem, "Job {} fails: its output could not be uploaded, and is worth nothing cut", job.id);
                let failure =
                    Failure::backend("the result is larger than an event, and the server for it does not take it now");
                // How large it is follows from what was asked.
                Err(if matches!(problem, BlossomError::TooLarge { .. }) { failure.in_vain() } else { failure })
            }
        }
    }
}

/// What the output is, as the customer asked or as the kind says.
fn media_type(live: &Live, kind: JobKind) -> &str {
    let of_the_kind = match kind {
        JobKind::TextGeneration => "text/plain; charset=utf-8",
        JobKind::PatchGen => "text/x-diff; charset=utf-8",
        JobKind::SandboxRun | JobKind::RepoIndex | JobKind::CodeReview => "application/json",
    };
    match live.request.output.as_deref() {
        Some("text/markdown") if kind == JobKind::TextGeneration => "text/markdown; charset=utf-8",
        Some("application/json") if kind == JobKind::TextGeneration => "application/json",
        _ => of_the_kind,
    }
}

/// The result and its receipt.
pub(super) fn result_of(job: &Job, credit: Msat, outcome: &Outcome, file: Option<Blob>) -> JobResult {
    let charged = job.quote.cost(outcome.usage);
    JobResult {
        content: outcome.content.clone(),
        amount: (job.quote.terms != Terms::Free)
            .then(|| Amount { amount: charged, bolt11: job.invoice.as_ref().map(|invoice| invoice.bolt11.clone()) }),
        receipt: Receipt {
            model: outcome.model.clone(),
            // Work without a model has no tokens to speak of.
            usage: (outcome.usage.total() > 0).then_some(outcome.usage),
            parameters: outcome.parameters,
            mflops: outcome.mflops(),
            digest: outcome.digest.clone(),
            facts: outcome.facts.clone(),
            duration: Some(outcome.duration),
            tokens_per_second: outcome.tokens_per_second(),
            paid: Some(charged),
            credit: (job.payment != PaymentState::Free || !credit.is_zero()).then_some(credit),
            terms: Some(job.quote.terms),
        },
        file,
        truncated: None,
    }
}
