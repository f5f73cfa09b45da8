//! Why there is no snapshot, in words for customers.

use std::time::Duration;

use crate::archive::ArchiveError;
use crate::fetch::address::AddressError;

/// Why there is no snapshot. The words are fit for customers: they never tell what lies inside the operator's network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    /// It is no address of a repository.
    #[error("this is no address of a git repository; write https://host/path or git://host/path, without a password")]
    BadUrl,
    /// It leads nowhere public.
    #[error("the repository's address does not lead to a public host")]
    NotPublic,
    /// Nobody answers there, or the connection broke.
    #[error("the repository could not be reached")]
    Unreachable,
    /// There is none, or it wants a password.
    #[error("there is no repository at this address that anybody may read")]
    NotFound,
    /// It has no commits.
    #[error("the repository is empty")]
    Empty,
    /// It has no such branch, tag or commit.
    #[error("the repository has no branch, tag or commit of that name")]
    NoSuchRef,
    /// It does not give the commit that was asked for by its id.
    #[error(
        "the repository's server does not give that commit: it has none of that id, or gives only the tips of branches \
         and tags; name a branch or tag instead"
    )]
    CommitRefused,
    /// The beginning of a commit's id, which servers can't be asked for.
    #[error(
        "a shortened commit is only found where it is the tip of one branch or tag; give all 40 digits of it, or a \
         branch or tag"
    )]
    Shortened,
    /// Too many bytes.
    #[error("the repository is larger than {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: u64,
    },
    /// Too many files.
    #[error("the repository has more than {limit} files")]
    TooManyFiles {
        /// Files allowed.
        limit: u64,
    },
    /// It holds something that is no repository we take: a hostile path, an object that is not what it says.
    #[error("the repository can't be read: {0}")]
    Broken(String),
    /// Took too long.
    #[error("the repository took longer than {} s", .limit.as_secs())]
    Timeout {
        /// Time allowed.
        limit: Duration,
    },
    /// Its turn never came: others, or the same customer's, were being fetched all the time.
    #[error("too many repositories are being fetched")]
    Busy,
    /// Stopped as asked.
    #[error("cancelled")]
    Cancelled,
    /// Our own disk failed.
    #[error("the provider's disk failed")]
    Disk(#[source] std::io::Error),
}

impl RepositoryError {
    /// Something in it that is not as it should be.
    pub(super) fn broken(what: impl Into<String>) -> Self {
        Self::Broken(what.into())
    }
}

impl From<AddressError> for RepositoryError {
    fn from(error: AddressError) -> Self {
        match error {
            AddressError::NoHost => Self::BadUrl,
            AddressError::NotPublic => Self::NotPublic,
        }
    }
}

impl From<ArchiveError> for RepositoryError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::TooLarge { limit } => Self::TooLarge { limit },
            ArchiveError::TooMany { limit } => Self::TooManyFiles { limit },
            ArchiveError::Broken(what) => Self::Broken(what),
            ArchiveError::Disk(error) => Self::Disk(error),
        }
    }
}
