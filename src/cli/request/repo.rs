//! Which repository a job works on: the one that was named, or the one the user stands in.

use std::path::Path;

use anyhow::Result;

use super::checkout::{self, Checkout, CheckoutError};
use super::in_full;
use super::screen::put;
use super::wanted::Wanted;
use crate::cli::Globals;
use crate::cli::exit::CommandError;

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
