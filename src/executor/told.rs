//! What customers are told when a repository can't be fetched or a sandbox fails. The operator reads the rest in the log.

use crate::job::{Code, Refusal};
use crate::repository::RepositoryError;
use crate::sandbox::SandboxError;

/// Why there are no files.
pub(super) fn not_fetched(error: &RepositoryError) -> Refusal {
    match error {
        RepositoryError::Cancelled => cancelled(),
        RepositoryError::Disk(_) => {
            tracing::error!(%error, "A repository can't be kept");
            Refusal::new(Code::Backend, "the provider could not keep the repository; please try again later")
        }
        RepositoryError::Busy => Refusal::new(Code::RateLimited, format!("{error}; try again in a few minutes")),
        RepositoryError::Unreachable | RepositoryError::Timeout { .. } => {
            Refusal::new(Code::BadRequest, format!("input repo: {error}; try again or name another address"))
        }
        RepositoryError::NoSuchRef => {
            Refusal::new(Code::BadRequest, format!("param git_ref: {error}; name another or leave it out"))
        }
        RepositoryError::CommitRefused | RepositoryError::Shortened => {
            Refusal::new(Code::BadRequest, format!("param git_ref: {error}"))
        }
        _ => Refusal::new(Code::BadRequest, format!("input repo: {error}")),
    }
}

/// Why a cell could not do its work, where its size is not the customer's to choose.
pub(super) fn sandbox_failed(error: &SandboxError) -> Refusal {
    match error {
        SandboxError::Cancelled => cancelled(),
        SandboxError::Archive(_) | SandboxError::WorkspaceFull { .. } => Refusal::new(
            Code::BadRequest,
            "input repo: the repository does not fit into this provider's workspace; take a smaller one",
        ),
        SandboxError::UnknownImage { .. }
        | SandboxError::TooBig { .. }
        | SandboxError::NoRuntime(_)
        | SandboxError::Engine(_)
        | SandboxError::Gone(_) => {
            tracing::warn!(%error, "The sandbox failed");
            Refusal::new(Code::Backend, "the sandbox failed; please try again")
        }
    }
}

/// Stopped as asked.
pub(super) fn cancelled() -> Refusal {
    Refusal::new(Code::Cancelled, "the job was cancelled")
}
