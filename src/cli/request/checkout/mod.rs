//! The git repository one stands in: where others can fetch it, at which commit, and what is not committed yet.
//!
//! It is read with a library. Nothing is run: no git, no hooks, no filters.

mod address;
mod changes;
mod error;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use gix::revision::walk::Sorting;
use gix::traverse::commit::simple::CommitTimeOrder;

pub use address::public;
pub use changes::LocalChange;
pub use error::CheckoutError;

use super::patch::{Found, Tree};
use crate::job::RelativePath;

/// The remote that is meant unless there is only another one.
const USUAL_REMOTE: &str = "origin";

/// A repository with its working tree.
pub struct Checkout {
    repository: gix::Repository,
    root: PathBuf,
}

impl std::fmt::Debug for Checkout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkout").field("root", &self.root).finish_non_exhaustive()
    }
}

/// What a stranger who fetches the commit checked out here would not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unshared {
    /// The commit itself: no branch of the remote, as it was last seen, has it.
    pub commit: bool,
    /// Changes that are not committed.
    pub changes: bool,
}

impl Checkout {
    /// The repository that `folder` is in.
    ///
    /// # Errors
    /// When there is none, or it can't be used.
    pub fn around(folder: &Path) -> Result<Self, CheckoutError> {
        // That there is none is told apart from one that can't be opened.
        gix::discover::upwards(folder).map_err(|_| CheckoutError::None)?;
        let repository = gix::discover(folder)?;
        let root = repository.workdir().ok_or(CheckoutError::Bare)?.to_owned();
        Ok(Self { repository, root })
    }

    /// Where its working tree is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The commit that is checked out, as 40 hexadecimal digits.
    ///
    /// # Errors
    /// When there is none yet.
    pub fn commit(&self) -> Result<String, CheckoutError> {
        self.repository.head_id().map(|id| id.to_string()).map_err(|_| CheckoutError::NoCommit)
    }

    /// Where others can fetch it: `origin`, or the only remote there is.
    ///
    /// # Errors
    /// When there is no such address.
    pub fn address(&self) -> Result<String, CheckoutError> {
        let name = self.remote_name().ok_or(CheckoutError::NoRemote)?;
        let remote = self.repository.find_remote(name.as_str())?;
        let url = remote.url(gix::remote::Direction::Fetch).ok_or(CheckoutError::NoRemote)?;
        public(&url.to_bstring().to_string())
    }

    fn remote_name(&self) -> Option<String> {
        let mut names: Vec<String> = self.repository.remote_names().iter().map(ToString::to_string).collect();
        if names.iter().any(|name| name == USUAL_REMOTE) {
            return Some(USUAL_REMOTE.to_owned());
        }
        names.pop().filter(|_| names.is_empty())
    }

    /// What of this the remote does not have.
    ///
    /// # Errors
    /// When the repository can't be read.
    pub fn unshared(&self) -> Result<Unshared, CheckoutError> {
        Ok(Unshared { commit: !self.is_published()?, changes: changes::any(&self.repository, &self.root)? })
    }

    /// Whether a branch of the remote, as it was last seen, has the commit.
    fn is_published(&self) -> Result<bool, CheckoutError> {
        let Some(remote) = self.remote_name() else { return Ok(false) };
        let commit = self.repository.head_commit()?;
        let ours = format!("refs/remotes/{remote}/");
        let mut tips = Vec::new();
        for branch in self.repository.references()?.remote_branches()?.peeled()?.flatten() {
            if branch.name().as_bstr().starts_with(ours.as_bytes()) {
                tips.push(branch.id().detach());
            }
        }
        // What is older than the commit can't have it as an ancestor.
        let seconds = commit.time()?.seconds;
        let order = Sorting::ByCommitTimeCutoff { order: CommitTimeOrder::NewestFirst, seconds };
        let mut newer = self.repository.rev_walk(tips).sorting(order).all()?;
        Ok(newer.any(|seen| seen.is_ok_and(|seen| seen.id == commit.id)))
    }

    /// Everything tracked that differs from the commit, staged or not, as a diff.
    ///
    /// # Errors
    /// When the repository can't be read, a merge is not finished, or it is more than `most_bytes`.
    pub fn change(&self, most_bytes: usize) -> Result<LocalChange, CheckoutError> {
        changes::diff(&self.repository, &self.root, most_bytes)
    }

    /// The files of a commit; `None` when it is not in this repository.
    pub fn tree_of(&self, commit: &str) -> Option<CommitTree<'_>> {
        let id = gix::ObjectId::from_hex(commit.as_bytes()).ok()?;
        let tree = self.repository.find_object(id).ok()?.try_into_commit().ok()?.tree().ok()?;
        Some(CommitTree { tree })
    }
}

/// The files of a commit.
#[derive(Debug)]
pub struct CommitTree<'a> {
    tree: gix::Tree<'a>,
}

impl Tree for CommitTree<'_> {
    fn find(&self, path: &RelativePath) -> std::io::Result<Found> {
        let entry = self.tree.lookup_entry_by_path(path.as_str()).map_err(std::io::Error::other)?;
        let Some(entry) = entry else { return Ok(Found::Nothing) };
        let mode = entry.mode();
        if !mode.is_blob() {
            return Ok(Found::Other);
        }
        let mut blob = entry.object().map_err(std::io::Error::other)?;
        Ok(Found::File { content: std::mem::take(&mut blob.data), executable: mode.is_executable() })
    }
}
