//! `coinop request patch`: a patch for an issue (kind 5932), checked here and, if wanted, applied here.

mod error;
mod plan;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use bitcoin::hashes::{Hash as _, sha256};
use serde_json::Value;

pub use error::PatchError;
pub use plan::{Edits, Found, Tree, plan};
pub use tree::WorkTree;

use super::checkout::Checkout;
use super::counted;
use super::delivery::{self, Check, Delivery, hand_over};
use super::flow;
use super::folder::OutFile;
use super::in_full;
use super::options::OrderOptions;
use super::repo::{self, RepoArgs};
use super::sandbox::whole_seconds;
use super::screen::put;
use super::wanted::Wanted;
use super::whole::{self, Whole};
use crate::cli::exit::CommandError;
use crate::cli::prompt::{Ask, Terminal};
use crate::cli::{Globals, table};
use crate::job::globs::Globs;
use crate::job::patch_gen::{PatchFacts, PatchGenLimits};
use crate::job::{JobKind, RelativePath};

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
        wanted.time_limit = Some(self.time.unwrap_or(PatchGenLimits::default().time.default));
        Ok(wanted)
    }
}

pub(super) async fn run(args: PatchArgs, options: &OrderOptions, globals: &Globals) -> Result<ExitCode> {
    // Where there is nothing to apply it to, nothing is bought.
    let here = if args.apply { Some(repo::here()?) } else { repo::here().ok() };
    let wanted = args.wanted(globals)?;
    flow::order(wanted, options, globals, async |bought, config| {
        let whole = whole::of(&bought, config).await;
        let mut delivery = deliver(&bought.receipt.result.receipt.facts, &whole, here.as_ref());
        let outside = outside(&whole.text, &args.include, &args.exclude);
        delivery.checks.extend(outside.iter().map(|path| Check::of(format!("{path} was not to be changed"), false)));
        let code = hand_over(&bought, &whole, &delivery, options, globals)?;
        if let Some(path) = outside.first().filter(|_| args.apply) {
            let why =
                format!("the patch was not applied: it changes {path}, which --include and --exclude do not allow");
            return Err(CommandError::failure(why).help("nothing was changed; the diff stands above").into());
        }
        if args.apply && bought.was_called_off {
            let why = "the patch was not applied: the order had been called off";
            return Err(CommandError::interrupted(why).help("nothing was changed; the diff stands above").into());
        }
        if let Some(here) = here.as_ref().filter(|_| args.apply) {
            let mut ask = Terminal::open();
            apply(&whole.text, &WorkTree::at(here.root()), args.yes, &mut *ask, globals)?;
        }
        Ok(code)
    })
    .await
}

fn deliver(facts: &[(String, String)], whole: &Whole, here: Option<&Checkout>) -> Delivery {
    let diff = whole.text.as_str();
    let said = PatchFacts::read(facts);
    let mut told = String::new();
    let checks = if whole.is_here() {
        let (checks, stat) = checks(&said, whole, here);
        told.extend(stat);
        checks
    } else {
        // A part has another hash, and applies to nothing.
        vec![Check::open("the diff, which is not all here")]
    };
    match said.test_exit_code {
        Some(code) => {
            told.push_str(&format!("By the provider's word the test command exited with {code} after the patch.\n"));
        }
        None if said.applies_cleanly => {
            told.push_str("By the provider's word the patch was applied to a fresh checkout.\n");
        }
        None => {}
    }
    let facts = facts.iter().map(|(key, value)| (key.clone(), Value::String(value.clone()))).collect();
    let facts = format!("{:#}\n", Value::Object(facts));
    Delivery {
        told,
        shown: diff.to_owned(),
        files: vec![OutFile::new("patch.diff", diff), OutFile::new("result.json", facts)],
        checks,
        ..Delivery::default()
    }
}

/// Whether the diff is what the provider says of it, and what it does where that can be seen.
fn checks(said: &PatchFacts, whole: &Whole, here: Option<&Checkout>) -> (Vec<Check>, Option<String>) {
    let diff = whole.text.as_str();
    let mut checks: Vec<Check> = delivery::cut(whole).map(|cut| Check::of(cut, false)).into_iter().collect();
    let hash = sha256::Hash::hash(diff.as_bytes()).to_string();
    checks.push(match said.patch_sha256.to_ascii_lowercase() {
        told if told == hash => Check::of("the hash of the diff", true),
        told if told.is_empty() => Check::open("the hash of the diff, which the provider does not say"),
        _ => Check::of("the diff has another hash", false),
    });
    let Some(tree) = here.and_then(|here| here.tree_of(&said.commit)) else {
        checks.push(Check::open("whether it applies: this repository has not the commit it was made for"));
        return (checks, None);
    };
    match plan(diff, &tree) {
        Ok(edits) => {
            checks.push(Check::of("it applies to the commit it was made for", true));
            (checks, Some(format!("{}\n", stat(&edits))))
        }
        Err(problem) => {
            checks.push(Check::of(format!("it does not apply to the commit it was made for: {problem}"), false));
            (checks, None)
        }
    }
}

/// The files that a diff changes though they were not to be.
fn outside(diff: &str, include: &[String], exclude: &[String]) -> Vec<String> {
    let Ok(allowed) = Globs::new(include, exclude) else { return Vec::new() };
    let named = diff.lines().filter_map(|line| {
        let names = line.strip_prefix("--- a/").or_else(|| line.strip_prefix("+++ b/"));
        let names = names.or_else(|| line.strip_prefix("rename from ")).or_else(|| line.strip_prefix("rename to "));
        names.map(|name| name.trim_end_matches(['\t', '\r']))
    });
    let paths = named.filter_map(|name| name.parse::<RelativePath>().ok());
    let wrong: BTreeSet<String> = paths.filter(|path| !allowed.allow(path)).map(|path| path.to_string()).collect();
    wrong.into_iter().collect()
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
    let files = counted(edits.edits.len(), "file", "files");
    let added = counted(edits.added, "line", "lines");
    format!("{table}\n{files}, {added} added, {} removed.", edits.removed)
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
        CommandError::failure(format!("the patch was not applied: {}", in_full(&problem))).help(help)
    };
    let edits = plan(diff, tree).map_err(refused)?;
    if !yes && ask.is_there() {
        let files = counted(edits.edits.len(), "file", "files");
        let question = format!("Apply it: change {files} in {}?", tree.root().display());
        if !ask.confirm(&question, false)? {
            return Err(CommandError::failure("the patch was not applied").into());
        }
    }
    tree.write(&edits.edits).map_err(refused)?;
    if !globals.quiet {
        put(&format!("Applied: {} changed.\n", counted(edits.edits.len(), "file", "files")));
    }
    Ok(())
}
