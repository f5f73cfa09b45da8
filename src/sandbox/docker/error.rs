//! What an engine's answer means, told by its form and never by its words.

use std::time::Duration;

use bollard::errors::Error;

use crate::sandbox::SandboxError;

/// Why a question to an engine failed. The words are for the operator.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It can't be reached.
    #[error("{step}: it can't be reached: {detail}")]
    Unreachable {
        /// What was asked.
        step: &'static str,
        /// What the system says.
        detail: String,
    },
    /// It takes too long.
    #[error("{step}: no answer within {} s", limit.as_secs())]
    Silent {
        /// What was asked.
        step: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// It said no.
    #[error("{step}: {message} (status {status})")]
    Refused {
        /// What was asked.
        step: &'static str,
        /// The HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// It said something that can't be read.
    #[error("{step}: its answer can't be read: {detail}")]
    Unreadable {
        /// What was asked.
        step: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The files that prove who is who can't be used.
    #[error("TLS: {0}")]
    Tls(String),
}

impl EngineError {
    /// Of a failed question.
    pub(super) fn of(step: &'static str, error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code: status, message } => {
                Self::Refused { step, status, message }
            }
            Error::RequestTimeoutError => Self::Silent { step, limit: super::engine::LONGEST },
            Error::IOError { .. }
            | Error::HyperResponseError { .. }
            | Error::HyperLegacyError { .. }
            | Error::SocketNotFoundError(_) => Self::Unreachable { step, detail: chain(&error) },
            // In the middle of an answer that began well: an import that failed, for one.
            Error::DockerStreamError { error: message } => Self::Refused { step, status: 200, message },
            other => Self::Unreadable { step, detail: chain(&other) },
        }
    }

    /// Whether what was asked for is not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether something else is in the way: what is to be removed is in use.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: 409, .. })
    }

    /// Whether the engine itself is out of reach, so that nothing else will work either.
    pub fn is_down(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Silent { .. })
    }
}

/// An error with its causes: the outermost alone often only says "client error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    text
}

impl From<EngineError> for SandboxError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error.to_string())
    }
}
