//! Why a delivered patch is not applied.

use crate::code::diff::DiffError;
use crate::job::path::BadPath;

/// Why a patch can't be applied. Until it is said otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// It can't be read as a diff.
    #[error("it is no diff: {0}")]
    NoDiff(DiffError),
    /// It can't be read as a diff that changes files.
    #[error("it can't be applied: {0}")]
    Unreadable(String),
    /// It changes nothing.
    #[error("it changes no file")]
    Empty,
    /// Something stands in it that only some programs would apply.
    #[error("it holds changes that belong to no file header, which programs read differently")]
    Ambiguous,
    /// A name that leads outside, or can't be printed.
    #[error("it names a file outside of the tree ({0})")]
    Outside(#[from] BadPath),
    /// Git's own files.
    #[error("it touches {0}, which is git's own")]
    Git(String),
    /// Not text.
    #[error("it changes {0} as a binary file, which can't be looked at")]
    Binary(String),
    /// A link or a submodule.
    #[error("it makes {0} a link or a submodule")]
    Link(String),
    /// Two changes that would have to be told apart by their order.
    #[error("it changes {0} twice")]
    Twice(String),
    /// A rename without saying so.
    #[error("it calls one file {0} and {1}")]
    TwoNames(String, String),
    /// What is to be changed is not there.
    #[error("{0} is not there")]
    Missing(String),
    /// What is to be made is there.
    #[error("{0} is there already")]
    Exists(String),
    /// It is a folder or a link, or lies behind a link.
    #[error("{0} is a folder or a link, or lies behind a link")]
    NotAFile(String),
    /// The lines around the change are others.
    #[error("it does not fit {path}: {why}")]
    DoesNotFit {
        /// Which file.
        path: String,
        /// What does not fit.
        why: String,
    },
    /// A file changed while the patch was looked at.
    #[error("{0} changed meanwhile")]
    Moved(String),
    /// The disk.
    #[error("{path} can't be read")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The disk. What was done before was undone.
    #[error("{path} can't be written; everything is as it was before")]
    Write {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The disk, and what was done before could not all be undone.
    #[error("{path} can't be written, and these could not be put back: {left}")]
    HalfWritten {
        /// Which file.
        path: String,
        /// What is not as it was.
        left: String,
        /// Why.
        source: std::io::Error,
    },
}
