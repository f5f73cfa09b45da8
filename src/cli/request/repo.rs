//! Which repository a job works on: the one that was named, or the one the user stands in.

use std::path::Path;

use anyhow::Result;

use super::checkout::{self, Checkout, CheckoutError};
use super::in_full;
use super::patch::{Found, Tree as _};
use super::screen::put;
use super::wanted::Wanted;
use crate::cli::Globals;
use crate::cli::exit::CommandError;
use crate::job::RelativePath;

/// Digits of a commit that name it well enough for a line.
const SHORT_COMMIT: usize = 12;

/// Which repository.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct RepoArgs {
    /// The repository's address, in any form git takes (default: the remote of the repository in this folder)
    #[arg(long, value_name = "URL")]
    repo: Option<String>,
    /// The branch, tag or commit (default: with --repo its default branch, else the commit checked out here)
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
}

impl RepoArgs {
    /// Whether one was named.
    pub(super) fn is_named(&self) -> bool {
        self.repo.is_some() || self.reference.is_some()
    }

    /// Puts the repository into an order: its address, and which commit. Says which it is, and what of what lies here others
    /// don't have.
    ///
    /// # Errors
    /// When there is none that others can fetch.
    pub(super) fn add_to(&self, wanted: &mut Wanted, globals: &Globals) -> Result<()> {
        self.add_with("git_ref", wanted, globals)
    }

    /// The same, with the commit under another name.
    ///
    /// # Errors
    /// When there is none that others can fetch.
    pub(super) fn add_with(&self, key: &str, wanted: &mut Wanted, globals: &Globals) -> Result<()> {
        let (address, reference) = self.choose(Path::new("."), |line| {
            if !globals.quiet {
                put(&format!("{line}\n"));
            }
        })?;
        wanted.url(address, "repo");
        wanted.maybe(key, reference);
        Ok(())
    }

    /// Puts the repository's address alone into an order: which commits are meant is said otherwise.
    ///
    /// # Errors
    /// When there is none that others can fetch.
    pub(super) fn add_address_to(&self, wanted: &mut Wanted, globals: &Globals) -> Result<()> {
        let address = match &self.repo {
            Some(typed) => typed_address(typed)?,
            None => Checkout::around(Path::new(".")).and_then(|here| here.address()).map_err(no_repository)?,
        };
        if !globals.quiet {
            put(&format!("Repository: {address}.\n"));
        }
        wanted.url(address, "repo");
        Ok(())
    }

    /// Says which of these files the ordered commit has not, where it is one of the repository here.
    pub(super) fn warn_of_missing(&self, files: &[RelativePath], globals: &Globals) {
        if globals.quiet || self.repo.is_some() {
            return;
        }
        // What is wrong with the repository is said by whoever needs it.
        let Ok(here) = Checkout::around(Path::new(".")) else { return };
        for warning in self.missing(&here, files) {
            put(&format!("{warning}\n"));
        }
    }

    /// A branch or tag may be another one at the remote: only a commit tells for certain.
    fn missing(&self, here: &Checkout, files: &[RelativePath]) -> Vec<String> {
        let commit = self.reference.clone().or_else(|| here.commit().ok());
        let Some((commit, tree)) = commit.and_then(|commit| here.tree_of(&commit).map(|tree| (commit, tree))) else {
            return Vec::new();
        };
        let short: String = commit.chars().take(SHORT_COMMIT).collect();
        let warning = |file: &RelativePath| match tree.find(file) {
            Ok(Found::Nothing) => Some(format!("Warning: {file} is not in commit {short}.")),
            Ok(Found::Other) => Some(format!("Warning: {file} is no file in commit {short}.")),
            Ok(Found::File { .. }) | Err(_) => None,
        };
        files.iter().filter_map(warning).collect()
    }

    fn choose(&self, folder: &Path, mut say: impl FnMut(&str)) -> Result<(String, Option<String>)> {
        if let Some(typed) = &self.repo {
            return Ok((typed_address(typed)?, self.reference.clone()));
        }
        let here = Checkout::around(folder).map_err(no_repository)?;
        let address = here.address().map_err(no_repository)?;
        if let Some(reference) = &self.reference {
            say(&format!("Repository: {address} at {reference}."));
            return Ok((address, Some(reference.clone())));
        }
        let commit = here.commit().map_err(no_repository)?;
        say(&format!("Repository: {address} at {}.", &commit[..SHORT_COMMIT]));
        let missing = here.unshared().map_err(no_repository)?;
        if missing.commit {
            say(
                "Warning: no branch of the remote is known to have this commit; push it, or the provider can't fetch it.",
            );
        }
        if missing.changes {
            say("Warning: what is not committed here is not part of the job.");
        }
        Ok((address, Some(commit)))
    }
}

fn typed_address(typed: &str) -> Result<String> {
    Ok(checkout::public(typed)
        .map_err(|problem| CommandError::usage(problem.to_string()).help("write it as https://host/owner/name"))?)
}

/// The problem with the repository here, with what to do about it.
fn no_repository(problem: CheckoutError) -> anyhow::Error {
    CommandError::usage(in_full(&problem)).help("name one that others can fetch with --repo URL").into()
}

/// The repository in this folder, for what is done with the files here.
///
/// # Errors
/// When there is none.
pub(super) fn here() -> Result<Checkout, CommandError> {
    Checkout::around(Path::new("."))
        .map_err(|problem| CommandError::usage(format!("there is no working tree here: {}", in_full(&problem))))
}
