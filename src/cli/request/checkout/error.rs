//! What can be wrong with the repository one stands in.

/// Why the local repository is of no use.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// There is none here.
    #[error("this folder is in no git repository")]
    None,
    /// It has no working tree.
    #[error("the git repository here has no working tree")]
    Bare,
    /// Nothing was ever committed.
    #[error("the git repository here has no commits")]
    NoCommit,
    /// Nothing to fetch it from.
    #[error("the git repository here has no remote")]
    NoRemote,
    /// Others can't fetch from its remote.
    #[error("the remote {address} is of no use to others: {why}")]
    NotPublic {
        /// The remote, without secrets.
        address: String,
        /// Why.
        why: &'static str,
    },
    /// A merge is not finished.
    #[error("{0} is in conflict: finish the merge first")]
    Conflict(String),
    /// More than a request has room for.
    #[error("the change here has more than {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// It can't be read.
    #[error("the git repository here can't be read")]
    Unreadable(#[from] gix::Error),
    /// A file of the working tree can't be read.
    #[error("{path} can't be read")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}
