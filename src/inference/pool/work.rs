//! Doing a job, and doing it elsewhere when an endpoint fails before it wrote anything.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::breaker::Verdict;
use super::offer::Offer;
use super::places::{NoPlace, Shared};
use crate::inference::{Format, Generate, Generation, InferenceError, Message, PromptTokens, TextSink, relay};

/// What an endpoint's error means for the job and for the endpoint.
pub(super) struct Meaning {
    /// Whether another endpoint may do better.
    pub(super) elsewhere: bool,
    verdict: Verdict,
}

pub(super) fn meaning(error: &InferenceError) -> Meaning {
    let (elsewhere, verdict) = match error {
        InferenceError::Backend(_) => (true, Verdict::Failed),
        InferenceError::Unusable(_) => (true, Verdict::Broken),
        InferenceError::Busy(_) => (true, Verdict::None),
        // It is there; it only has the model no longer.
        InferenceError::UnknownModel { .. } | InferenceError::NoEmbeddings => (true, Verdict::Answered),
        InferenceError::BadRequest(_) | InferenceError::ContextOverflow { .. } => (false, Verdict::Answered),
        InferenceError::Cancelled => (false, Verdict::None),
    };
    Meaning { elsewhere, verdict }
}

/// An endpoint's failure as the pool's own. What the endpoint calls its models is nobody's business.
pub(super) fn ours(error: InferenceError) -> InferenceError {
    match error {
        InferenceError::UnknownModel { .. } | InferenceError::NoEmbeddings => {
            InferenceError::Backend("an endpoint no longer has its model".to_owned())
        }
        error => error,
    }
}

pub(super) fn panicked() -> InferenceError {
    InferenceError::Backend("it panicked".to_owned())
}

fn out_of_order(offer: &Offer) -> InferenceError {
    InferenceError::Backend(format!("no endpoint of the model '{}' is up", offer.name))
}

impl Shared {
    pub(super) async fn generate(
        self: &Arc<Self>,
        request: &Generate,
        sink: Option<&TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Generation, InferenceError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(InferenceError::Cancelled),
            () = self.first_look() => {}
        }
        let offer = self.find(request.model.as_deref())?;
        let upstream = Generate { model: Some(offer.upstream.clone()), ..request.clone() };
        let mut tried = Vec::new();
        let mut again = offer.endpoints.len() == 1;
        let mut last = None;
        loop {
            if last.is_some() && offer.endpoints.iter().all(|endpoint| tried.contains(endpoint)) {
                return Err(last.map_or_else(|| out_of_order(&offer), ours));
            }
            let place = match self.place(&offer.name, &tried, cancel).await {
                Ok(place) => place,
                Err(NoPlace::Cancelled) => return Err(InferenceError::Cancelled),
                Err(NoPlace::Down) => return Err(last.map_or_else(|| out_of_order(&offer), ours)),
            };
            let (endpoint, mut wrote) = (place.endpoint, false);
            let backend = &*self.endpoints[endpoint].backend;
            let running = async { relay::generate(backend, &upstream, sink, cancel, |_| wrote = true).await };
            let done = AssertUnwindSafe(running).catch_unwind().await.unwrap_or_else(|_| Err(panicked()));
            let error = match done {
                Ok(generation) => {
                    place.give_back(Verdict::Worked, None);
                    return Ok(Generation {
                        model: offer.name.to_string(),
                        parameters: generation.parameters.or(offer.parameters),
                        digest: generation.digest.or(offer.digest),
                        ..generation
                    });
                }
                Err(error) => error,
            };
            let Meaning { elsewhere, verdict } = meaning(&error);
            place.give_back(verdict, elsewhere.then(|| error.to_string()));
            if wrote || !elsewhere {
                return Err(ours(error));
            }
            warn!(endpoint = %self.endpoints[endpoint].name, %error, "An endpoint failed before it wrote anything");
            // With nobody else to ask, one that still answers gets a second try.
            let second =
                again && matches!(error, InferenceError::Backend(_)) && self.still_answers(endpoint, cancel).await;
            again = false;
            if !second {
                tried.push(endpoint);
            }
            last = Some(error);
        }
    }

    async fn still_answers(self: &Arc<Self>, endpoint: usize, cancel: &CancellationToken) -> bool {
        tokio::select! {
            biased;
            () = cancel.cancelled() => false,
            answers = self.check(endpoint) => answers,
        }
    }

    /// Counts a prompt, before anything is paid: any stranger's. So it waits for no endpoint to come up, and a conversation
    /// that some endpoint fails at teaches nothing about that endpoint; it is only asked how it is before its time.
    pub(super) async fn count(
        self: &Arc<Self>,
        model: Option<&str>,
        messages: &[Message],
    ) -> Result<PromptTokens, InferenceError> {
        self.first_look().await;
        let offer = self.find(model)?;
        let (mut tried, mut last) = (Vec::new(), None);
        loop {
            let Some(endpoint) = self.counter(&offer.name, &tried) else {
                return Err(last.map_or_else(|| out_of_order(&offer), ours));
            };
            let backend = &self.endpoints[endpoint].backend;
            let counting = async { backend.count_prompt_tokens(Some(&offer.upstream), messages).await };
            let done = AssertUnwindSafe(counting).catch_unwind().await.unwrap_or_else(|_| Err(panicked()));
            let error = match done {
                Ok(counted) => {
                    self.counted(endpoint, counted.exact);
                    self.learn(endpoint, Verdict::Answered, None);
                    return Ok(counted);
                }
                Err(error) => error,
            };
            if !meaning(&error).elsewhere {
                return Err(error);
            }
            warn!(endpoint = %self.endpoints[endpoint].name, %error, "An endpoint did not count a prompt");
            self.endpoints[endpoint].look_again.notify_one();
            tried.push(endpoint);
            last = Some(error);
        }
    }

    /// Whether the model can write that format wherever it may be asked to: nobody knows yet where that will be.
    pub(super) async fn check_format(&self, model: Option<&str>, format: &Format) -> Result<(), InferenceError> {
        let offer = self.find(model)?;
        for endpoint in &offer.endpoints {
            let backend = &self.endpoints[*endpoint].backend;
            let checking = backend.check_format(Some(&offer.upstream), format);
            AssertUnwindSafe(checking).catch_unwind().await.unwrap_or_else(|_| Err(panicked())).map_err(ours)?;
        }
        Ok(())
    }

    /// Restarts of all endpoints together.
    pub(super) fn restarts(&self) -> u32 {
        self.endpoints.iter().map(|endpoint| endpoint.backend.restarts()).fold(0, u32::saturating_add)
    }
}
