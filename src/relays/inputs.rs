//! Inputs that a request only points at: addresses through the fetcher, events and other jobs' results from the relays.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nostr::Event;
use tracing::debug;

use super::{Query, RelayPool};
use crate::executor::sources::InputSource;
use crate::fetch::Fetcher;
use crate::job::id::EventId;
use crate::job::{Code, JobId, JobKind, Refusal};
use crate::nip90::{AnswerBody, Codec};

/// Fetches inputs. Bounds on size come from the fetcher and from what a relay may send.
#[derive(Debug)]
pub struct RelayInputs {
    /// Where events are.
    pub relays: Arc<RelayPool>,
    /// Reads other jobs' results.
    pub codec: Codec,
    /// Fetches addresses; `None` when the operator does not allow it.
    pub fetcher: Option<Fetcher>,
    /// How long an event is looked for.
    pub lookup: Duration,
    /// How long another job's result is waited for.
    pub job_patience: Duration,
}

impl RelayInputs {
    fn result_in(&self, event: &Event) -> Option<String> {
        match self.codec.read_answer(event) {
            Ok(answer) => match answer.body {
                AnswerBody::Result(result) => Some(result.content),
                AnswerBody::Feedback(_) => None,
            },
            Err(problem) => {
                debug!(%problem, "A result named as input can't be read");
                None
            }
        }
    }
}

#[async_trait]
impl InputSource for RelayInputs {
    async fn fetch_url(&self, url: &str) -> Result<String, Refusal> {
        let fetcher = self.fetcher.as_ref().ok_or_else(|| {
            Refusal::unsupported("this provider does not fetch addresses; send the text itself (input type text)")
        })?;
        fetcher.fetch_text(url).await.map_err(|problem| Refusal::bad_request(format!("the input url: {problem}")))
    }

    async fn event(&self, id: EventId, relay: Option<&str>) -> Result<String, Refusal> {
        let found = self.relays.fetch_event(id, relay, self.lookup).await;
        found.map(|event| event.content).ok_or_else(|| {
            Refusal::bad_request(format!("the input event {id} was not found; name a relay that has it in the i tag"))
        })
    }

    async fn job_result(&self, id: JobId, relay: Option<&str>) -> Result<String, Refusal> {
        // A result may be the input by its own id too.
        if relay.is_some()
            && let Some(event) = self.relays.fetch_event(id.into(), relay, self.lookup).await
            && let Some(content) = self.result_in(&event)
        {
            return Ok(content);
        }
        let mut answers =
            self.relays.follow(id, JobKind::TextGeneration, &[], jiff::Timestamp::UNIX_EPOCH, self.codec.clone());
        for event in self.relays.fetch(&Query::results(id), self.lookup).await {
            if let Some(content) = self.result_in(&event) {
                return Ok(content);
            }
        }
        let wait = async {
            while let Some(answer) = answers.next().await {
                if let Ok(crate::nip90::Answer { body: AnswerBody::Result(result), .. }) = answer {
                    return Some(result.content);
                }
            }
            None
        };
        tokio::time::timeout(self.job_patience, wait).await.ok().flatten().ok_or_else(|| {
            Refusal::new(
                Code::Timeout,
                format!("the result of job {id} did not come within {} s", self.job_patience.as_secs()),
            )
        })
    }
}
