//! Inputs that are always there.

use std::collections::HashMap;

use async_trait::async_trait;

use crate::executor::sources::InputSource;
use crate::job::id::EventId;
use crate::job::{JobId, Refusal};

/// Serves what it was given and refuses everything else.
#[derive(Debug, Clone, Default)]
pub struct FixedInputs {
    urls: HashMap<String, String>,
    events: HashMap<EventId, String>,
    jobs: HashMap<JobId, String>,
}

impl FixedInputs {
    /// With the text at an address.
    #[must_use]
    pub fn url(mut self, url: &str, text: &str) -> Self {
        self.urls.insert(url.to_owned(), text.to_owned());
        self
    }

    /// With an event's content.
    #[must_use]
    pub fn event(mut self, id: EventId, content: &str) -> Self {
        self.events.insert(id, content.to_owned());
        self
    }

    /// With a job's result.
    #[must_use]
    pub fn job(mut self, id: JobId, result: &str) -> Self {
        self.jobs.insert(id, result.to_owned());
        self
    }
}

fn found(text: Option<&String>, what: &str) -> Result<String, Refusal> {
    text.cloned().ok_or_else(|| Refusal::bad_request(format!("the {what} was not found")))
}

#[async_trait]
impl InputSource for FixedInputs {
    async fn fetch_url(&self, url: &str) -> Result<String, Refusal> {
        found(self.urls.get(url), "address")
    }

    async fn event(&self, id: EventId, _: Option<&str>) -> Result<String, Refusal> {
        found(self.events.get(&id), "event")
    }

    async fn job_result(&self, id: JobId, _: Option<&str>) -> Result<String, Refusal> {
        found(self.jobs.get(&id), "job's result")
    }
}
