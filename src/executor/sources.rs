//! Where the inputs come from that a request only points at.

use async_trait::async_trait;

use crate::job::id::EventId;
use crate::job::{JobId, Refusal};

/// Fetches what `url`, `event` and `job` inputs name, before anything is promised. Everything fetched is hostile: an
/// implementation bounds size, time, redirects and addresses. Refusals are for the customer.
#[async_trait]
pub trait InputSource: Send + Sync + 'static {
    /// The text at an address.
    async fn fetch_url(&self, url: &str) -> Result<String, Refusal>;

    /// The content of an event, looked for on the hinted relay first.
    async fn event(&self, id: EventId, relay: Option<&str>) -> Result<String, Refusal>;

    /// The result of another job, waited for a bounded time.
    async fn job_result(&self, id: JobId, relay: Option<&str>) -> Result<String, Refusal>;
}

/// Refuses every reference: for a provider that takes text only.
#[derive(Debug, Clone, Copy, Default)]
pub struct TextOnly;

fn refuse(kind: &str) -> Result<String, Refusal> {
    Err(Refusal::unsupported(format!("inputs of type {kind} are not taken here; send the text itself (type text)")))
}

#[async_trait]
impl InputSource for TextOnly {
    async fn fetch_url(&self, _: &str) -> Result<String, Refusal> {
        refuse("url")
    }

    async fn event(&self, _: EventId, _: Option<&str>) -> Result<String, Refusal> {
        refuse("event")
    }

    async fn job_result(&self, _: JobId, _: Option<&str>) -> Result<String, Refusal> {
        refuse("job")
    }
}
