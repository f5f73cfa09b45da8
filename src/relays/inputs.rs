//! Inputs that a request only points at: addresses through the fetcher, events and other jobs' results from the relays.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nostr::Event;
use tracing::debug;

use super::{Query, RelayPool};
use crate::executor::sources::InputSource;
use crate::fetch::Fetcher;
use crate::job::id::{EventId, ProviderId};
use crate::job::{Code, JobId, JobKind, Refusal};
use crate::nip90::{Answer, AnswerBody, Codec};

/// Fetches inputs. Bounds on size come from the fetcher and from what a relay may send.
#[derive(Debug)]
pub struct RelayInputs {
    /// Where events are.
    pub relays: Arc<RelayPool>,
    /// Reads other jobs' results.
    pub codec: Codec,
    /// Our own key: results of ours are believed.
    pub us: ProviderId,
    /// Fetches addresses; `None` when the operator does not allow it.
    pub fetcher: Option<Fetcher>,
    /// How long an event is looked for.
    pub lookup: Duration,
    /// How long another job's result is waited for.
    pub job_patience: Duration,
}

impl RelayInputs {
    /// Whose results of a job are believed: ours, and those of the providers its request names. Anybody can sign an event
    /// that calls itself the result of a job.
    fn believed(&self, request: &Event) -> HashSet<ProviderId> {
        request.tags.public_keys().map(|key| ProviderId(key.to_bytes())).chain([self.us]).collect()
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
        let request = self.relays.fetch_event(id.into(), relay, self.lookup).await.ok_or_else(|| {
            Refusal::bad_request(format!("the input job {id} was not found; name a relay that has it in the i tag"))
        })?;
        let kind = JobKind::from_request_kind(request.kind.as_u16())
            .ok_or_else(|| Refusal::unsupported(format!("the input job {id} is of a kind not known here")))?;
        let believed = self.believed(&request);
        let authors: Vec<ProviderId> = believed.iter().copied().collect();
        let content = |answer: Answer| match answer.body {
            AnswerBody::Result(result) if believed.contains(&answer.provider) => Some(result.content),
            _ => None,
        };
        let mut answers = self.relays.follow(id, kind, &authors, jiff::Timestamp::UNIX_EPOCH, self.codec.clone());
        let query = Query { authors: authors.clone(), ..Query::results(id) };
        for event in self.relays.fetch(&query, self.lookup).await {
            match self.codec.read_answer(&event).map(content) {
                Ok(Some(content)) => return Ok(content),
                Ok(None) => {}
                Err(problem) => debug!(%problem, "A result named as input can't be read"),
            }
        }
        let wait = async {
            while let Some(answer) = answers.next().await {
                if let Some(content) = answer.ok().and_then(content) {
                    return Some(content);
                }
            }
            None
        };
        tokio::time::timeout(self.job_patience, wait).await.ok().flatten().ok_or_else(|| {
            Refusal::new(
                Code::Timeout,
                format!(
                    "no result of job {id} by us or a provider it names came within {} s; name another provider's result \
                     by its own event id (input type event)",
                    self.job_patience.as_secs()
                ),
            )
        })
    }
}
