//! `coinop request patch`: a patch for an issue (kind 5932), checked here and, if wanted, applied here.

mod error;
mod plan;
mod tree;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bitcoin::hashes::{Hash as _, sha256};

pub use error::PatchError;
pub use plan::{Edits, Found, Tree, plan};
pub use tree::WorkTree;

use super::checkout::Checkout;
use super::delivery::{Check, Delivery, hand_over};
use super::flow::{self, Bought};
use super::folder::OutFile;
use super::options::OrderOptions;
use super::repo::{self, RepoArgs};
use super::sandbox::whole_seconds;
use super::screen::put;
use super::wanted::Wanted;
use crate::cli::exit::CommandError;
use crate::cli::prompt::{Ask, Terminal};
use crate::cli::{Globals, table};
use crate::job::JobKind;

/// How long a provider works on a patch unless told otherwise.
const USUAL_TIME: Duration = Duration::from_secs(900);

pub(super) const EXAMPLES: &str = "\
Without --repo the repository in this folder is meant: its remote 'origin', at the commit that is checked out, which has to
be pushed. The diff goes to standard output. Its hash is checked always, and that it applies where this repository has the
commit it was made for.

--apply changes the files here: all of them or none, only if every line around the changes is as the diff says, and never
outside of the working tree, in .git, or through a link. At a terminal it asks first. Nothing is committed.

Examples:
  coinop request patch \"cargo test fails on Windows: paths are joined with /\" --test \"cargo test\"
  coinop request patch - --test \"make check\" --max-cost 500sat --apply < issue.md
  coinop request patch \"Fix the typo in the greeting\" --repo https://example.com/owner/name --include 'src/**' > fix.diff";

/// Which patch.
#[derive(Debug, Clone, clap::Args)]
pub(in crate::cli::request) struct PatchArgs {
    /// What is wrong, or wanted; '-' reads it from standard input
    issue: String,
    #[command(flatten)]
    repo: RepoArgs,
    /// Where the issue can be read
    #[arg(long, value_name = "URL")]
    issue_url: Option<String>,
    /// The command that must succeed with the patch
    #[arg(long, value_name = "COMMAND")]
    test: Option<String>,
    /// Only files that match this pattern may change, such as 'src/**'; may be given several times
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// No file that matches this pattern may change; may be given several times
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Which model
    #[arg(long)]
    model: Option<String>,
    /// A file with what else is worth knowing
    #[arg(long, value_name = "FILE")]
    context: Option<PathBuf>,
    /// How long it may take, such as 15m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// Apply the patch to the working tree in this folder
    #[arg(long)]
    apply: bool,
    /// Do not ask before it is applied
    #[arg(long, requires = "apply")]
    yes: bool,
}

impl PatchArgs {
    fn wanted(&self, globals: &Globals) -> Result<Wanted> {
        let mut wanted = Wanted::of(JobKind::PatchGen);
        self.repo.add_to(&mut wanted, globals)?;
        wanted.text(flow::typed(&self.issue, "issue")?, Some("issue"));
        wanted.maybe("issue_url", self.issue_url.as_ref());
        wanted.maybe("test_command", self.test.as_ref());
        wanted.list("include", &self.include);
        wanted.list("exclude", &self.exclude);
        wanted.maybe("model", self.model.as_ref());
        if let Some(file) = &self.context {
            wanted.param("context", flow::file_or_input(file, "context")?);
        }
        wanted.maybe("time_limit_secs", self.time.map(whole_seconds));
        wanted.time_limit = Some(self.time.unwrap_or(USUAL_TIME));
        Ok(wanted)
    }
}

pub(super) async fn run(args: PatchArgs, options: &OrderOptions, globals: &Globals) -> Result<ExitCode> {
    // Where there is nothing to apply it to, nothing is bought.
    let here = if args.apply { Some(repo::here()?) } else { repo::here().ok() };
    let wanted = args.wanted(globals)?;
    flow::order(wanted, options, globals, async |bought, _| {
        let diff = bought.receipt.result.content.clone();
        let delivery = deliver(&bought, &diff, here.as_ref());
        let code = hand_over(&bought, &diff, &delivery, options, globals)?;
        if let Some(here) = here.as_ref().filter(|_| args.apply) {
            let mut ask = Terminal::open();
            apply(&diff, &WorkTree::at(here.root()), args.yes, &mut *ask, globals)?;
        }
        Ok(code)
    })
    .await
}

fn deliver(bought: &Bought, diff: &str, here: Option<&Checkout>) -> Delivery {
    let facts = Facts(&bought.receipt.result.receipt.facts);
    let mut checks = Vec::new();
    if let Some((size, _)) = &bought.receipt.result.truncated {
        checks.push(Check::of(format!("the provider cut the diff: {} of {size} bytes", diff.len()), false));
    }
    checks.push(match facts.get("patch_sha256") {
        Some(hash) => {
            let holds = sha256::Hash::hash(diff.as_bytes()).to_string() == hash.to_ascii_lowercase();
            Check::of(if holds { "the hash of the diff" } else { "the diff has another hash" }, holds)
        }
        None => Check::open("the hash of the diff, which the provider does not say"),
    });
    let mut told = String::new();
    let commit = facts.get("commit").unwrap_or_default();
    match here.and_then(|here| here.tree_of(commit)) {
        None => checks.push(Check::open("whether it applies: this repository has not the commit it was made for")),
        Some(tree) => match plan(diff, &tree) {
            Ok(edits) => {
                told.push_str(&format!("{}\n", stat(&edits)));
                checks.push(Check::of("it applies to the commit it was made for", true));
            }
            Err(problem) => {
                checks.push(Check::of(format!("it does not apply to the commit it was made for: {problem}"), false));
            }
        },
    }
    told.push_str(&facts.in_words());
    let facts_json = serde_json::Value::Object(
        facts.0.iter().map(|(key, value)| (key.clone(), serde_json::Value::String(value.clone()))).collect(),
    );
    Delivery {
        told,
        shown: diff.to_owned(),
        files: vec![OutFile::new("patch.diff", diff), OutFile::new("result.json", format!("{facts_json:#}\n"))],
        checks,
        ..Delivery::default()
    }
}

/// What the provider says of the patch.
struct Facts<'a>(&'a [(String, String)]);

impl Facts<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn in_words(&self) -> String {
        match (self.get("test_exit_code"), self.get("applies_cleanly")) {
            (Some(code), _) => format!("By the provider's word the test command exited with {code} after the patch.\n"),
            (None, Some("true")) => "By the provider's word the patch was applied to a fresh checkout.\n".into(),
            _ => String::new(),
        }
    }
}

/// Which files change, and how.
fn stat(edits: &Edits) -> String {
    let mut table = table::new(["", "file"]);
    for edit in &edits.edits {
        let how = match (&edit.before, &edit.after) {
            (None, _) => "new",
            (_, None) => "removed",
            _ => "changed",
        };
        table.add_row([how, edit.path.as_str()]);
    }
    format!("{table}\n{} files, {} lines added, {} removed.", edits.edits.len(), edits.added, edits.removed)
}

/// Applies the diff to the files here: all of it, or nothing.
fn apply(diff: &str, tree: &WorkTree, yes: bool, ask: &mut dyn Ask, globals: &Globals) -> Result<()> {
    let refused = |problem: PatchError| {
        let help = match problem {
            PatchError::HalfWritten { .. } => "'git status' shows what changed",
            PatchError::DoesNotFit { .. } | PatchError::Missing(_) | PatchError::Exists(_) => {
                "the files here are not those of the commit it was made for: check that out and apply the diff there"
            }
            _ => "nothing was changed; the diff stands above",
        };
        let told = CommandError::failure(format!("the patch was not applied: {problem}")).help(help);
        match std::error::Error::source(&problem) {
            Some(_) => anyhow::Error::from(problem).context(told),
            None => told.into(),
        }
    };
    let edits = plan(diff, tree).map_err(refused)?;
    if !yes && ask.is_there() {
        let question = format!("Apply it: change {} files in {}?", edits.edits.len(), tree.root().display());
        if !ask.confirm(&question, false)? {
            return Err(CommandError::failure("the patch was not applied").into());
        }
    }
    tree.write(&edits.edits).map_err(refused)?;
    if !globals.quiet {
        put(&format!("Applied: {} files changed.\n", edits.edits.len()));
    }
    Ok(())
}
