//! What the engine tells of one cell while commands run in it.

use std::collections::HashMap;
use std::pin::Pin;

use bollard::errors::Error;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::{Stream, StreamExt};
use jiff::Timestamp;

use super::engine::Engine;

/// Something that happened to a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// A command ended.
    Exited {
        /// Which, by the engine's id.
        exec: String,
        /// What it said.
        code: i64,
    },
    /// The kernel killed something in it for want of memory.
    OutOfMemory,
    /// The cell itself ended.
    Died,
    /// The engine tells no more.
    Silence,
}

/// The news of one cell, from its beginning.
pub(super) struct Wire {
    events: Pin<Box<dyn Stream<Item = Result<EventMessage, Error>> + Send>>,
}

impl Wire {
    /// Of the container, since it was started by the engine's clock, which may be another than ours. Nothing is asked before
    /// somebody wants to hear.
    pub(super) fn of(engine: &Engine, container: &str, started: Timestamp) -> Self {
        let filters = HashMap::from([
            ("type", vec!["container"]),
            ("container", vec![container]),
            ("event", vec!["exec_die", "oom", "die"]),
        ]);
        let since = format!("{}.{:09}", started.as_second(), started.subsec_nanosecond());
        let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
        Self { events: Box::pin(engine.docker.events(Some(options))) }
    }

    /// What happens next.
    pub(super) async fn next(&mut self) -> News {
        loop {
            let Some(Ok(event)) = self.events.next().await else { return News::Silence };
            if let Some(news) = read(&event) {
                return news;
            }
        }
    }
}

fn read(event: &EventMessage) -> Option<News> {
    let attribute = |name: &str| event.actor.as_ref()?.attributes.as_ref()?.get(name).cloned();
    match event.action.as_deref()? {
        "oom" => Some(News::OutOfMemory),
        "die" => Some(News::Died),
        "exec_die" => {
            let code = attribute("exitCode").and_then(|code| code.parse().ok()).unwrap_or(-1);
            Some(News::Exited { exec: attribute("execID")?, code })
        }
        _ => None,
    }
}
