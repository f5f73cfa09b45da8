//! `coinop request review`: a review of a change (kind 5933).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::checkout::{Checkout, CheckoutError};
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
use super::whole;
use crate::cli::exit::CommandError;
use crate::cli::{Globals, table};
use crate::job::code_review::{CodeReviewLimits, Issue, Review, Verdict};
use crate::job::{JobKind, RelativePath};

/// Bytes of a diff that providers take in a request, and relays in an event.
const LONGEST_DIFF: usize = 128 * 1024;

/// Changed files that are named when they can't be part of a diff.
const MOST_NAMED: usize = 5;

pub(super) const EXAMPLES: &str = "\
Without anything else the change that is not committed here is reviewed, staged or not: it is sent in the request, which is
public unless --encrypt is given. --base and --head, --commit and --file name what the provider fetches by itself from the
repository (--repo, or the remote 'origin' of this folder), so it has to be pushed.

The issues go to standard output, the gravest first. The exit code is 0 whatever the verdict is; 'status' in the JSON says it.

Examples:
  coinop request review --provider npub1… --encrypt
  git diff main | coinop request review --diff - --focus security --guidelines CONTRIBUTING.md
  coinop request review --base main --nits
  coinop request review --base v1.0 --head v1.1 --repo https://example.com/owner/name
  coinop request review --pr https://example.com/owner/name/pull/7 --json | jq -r .result.status";

/// What is reviewed.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ReviewArgs {
    /// A file with the diff; '-' reads it from standard input
    #[arg(long, value_name = "FILE", group = "subject", conflicts_with_all = ["repo", "reference"])]
    diff: Option<PathBuf>,
    /// A pull request's address
    #[arg(long, value_name = "URL", group = "subject", conflicts_with_all = ["repo", "reference"])]
    pr: Option<String>,
    /// What the change is compared with: a branch, tag or commit
    #[arg(long, value_name = "REF", group = "subject", conflicts_with = "reference")]
    base: Option<String>,
    /// The change: a branch, tag or commit (default: the commit checked out here; with --repo its default branch)
    #[arg(long, value_name = "REF", requires = "base")]
    head: Option<String>,
    /// A commit; may be given several times
    #[arg(long, value_name = "COMMIT", group = "subject", conflicts_with = "reference")]
    commit: Vec<String>,
    /// A file of the repository, as it is; may be given several times
    #[arg(long, value_name = "PATH", group = "subject")]
    file: Vec<RelativePath>,
    #[command(flatten)]
    repo: RepoArgs,
    /// What to look at most, such as security or performance; may be given several times
    #[arg(long)]
    focus: Vec<String>,
    /// A file with rules that the change has to follow
    #[arg(long, value_name = "FILE")]
    guidelines: Option<PathBuf>,
    /// Matters of taste, too
    #[arg(long)]
    nits: bool,
    /// Which model
    #[arg(long)]
    model: Option<String>,
    /// How long it may take, such as 5m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
}

impl ReviewArgs {
    fn wanted(&self, globals: &Globals) -> Result<Wanted> {
        let mut wanted = Wanted::of(JobKind::CodeReview);
        self.put_subject(&mut wanted, globals)?;
        wanted.list("focus", &self.focus);
        if let Some(file) = &self.guidelines {
            wanted.param("guidelines", flow::file_or_input(file, "guidelines")?);
        }
        if self.nits {
            wanted.param("include_nits", true);
        }
        wanted.maybe("model", self.model.as_ref());
        wanted.maybe("time_limit_secs", self.time.map(whole_seconds));
        wanted.time_limit = Some(self.time.unwrap_or(CodeReviewLimits::default().time.default));
        Ok(wanted)
    }

    fn put_subject(&self, wanted: &mut Wanted, globals: &Globals) -> Result<()> {
        if let Some(file) = &self.diff {
            return put_diff(wanted, flow::file_or_input(file, "diff")?);
        }
        if let Some(pr) = &self.pr {
            wanted.url(pr.clone(), "pr");
            return Ok(());
        }
        if let Some(base) = &self.base {
            wanted.param("base_ref", base);
            match &self.head {
                Some(head) => {
                    self.repo.add_address_to(wanted, globals)?;
                    wanted.param("head_ref", head);
                }
                None => self.repo.add_with("head_ref", wanted, globals)?,
            }
            return Ok(());
        }
        if !self.commit.is_empty() {
            self.repo.add_address_to(wanted, globals)?;
            wanted.list("commit", &self.commit);
            return Ok(());
        }
        if !self.file.is_empty() {
            self.repo.add_to(wanted, globals)?;
            self.repo.warn_of_missing(&self.file, globals);
            wanted.list("file", &self.file);
            return Ok(());
        }
        if self.repo.is_named() {
            return Err(CommandError::usage("of a repository it has to be said what to review")
                .help("give --base and --head, --commit or --file")
                .into());
        }
        put_diff(wanted, local_change(&repo::here()?, globals)?)
    }
}

/// What is not committed here, as a diff.
fn local_change(here: &Checkout, globals: &Globals) -> Result<String> {
    let change = here.change(LONGEST_DIFF).map_err(|problem| match problem {
        CheckoutError::TooLarge { limit } => too_long(limit),
        other => CommandError::failure(in_full(&other)).into(),
    })?;
    if !globals.quiet && !change.left_out.is_empty() {
        let names: Vec<&str> = change.left_out.iter().take(MOST_NAMED).map(String::as_str).collect();
        let more = change.left_out.len() - names.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        put(&format!("Not in the diff, because they are no text or too large: {}{more}.\n", names.join(", ")));
    }
    if change.diff.is_empty() {
        return Err(CommandError::usage("nothing is changed here that is not committed")
            .help("files that git does not track are left out; or give --base and --head, --commit, --file or --diff")
            .into());
    }
    if !globals.quiet {
        let (files, are) = (counted(change.files, "file", "files"), if change.files == 1 { "is" } else { "are" });
        put(&format!("Change: {files} that {are} not committed.\n"));
    }
    Ok(change.diff)
}

fn too_long(limit: usize) -> anyhow::Error {
    CommandError::usage(format!("the diff has more than {limit} bytes, and a request has no room for it"))
        .help("push the change and give --base and --head, or review it in parts")
        .into()
}

fn put_diff(wanted: &mut Wanted, diff: String) -> Result<()> {
    if diff.len() > LONGEST_DIFF {
        return Err(too_long(LONGEST_DIFF));
    }
    wanted.text(diff, Some("diff"));
    Ok(())
}

pub(super) async fn run(args: ReviewArgs, options: &OrderOptions, globals: &Globals) -> Result<ExitCode> {
    let wanted = args.wanted(globals)?;
    flow::order(wanted, options, globals, async |bought, config| {
        let whole = whole::of(&bought, config).await;
        let delivery = match serde_json::from_str::<Review>(&whole.text) {
            Ok(review) => deliver(&whole.text, &review),
            Err(problem) => delivery::unreadable(&whole, &problem.to_string()),
        };
        hand_over(&bought, &whole, &delivery, options, globals)
    })
    .await
}

fn deliver(content: &str, review: &Review) -> Delivery {
    let files = counted(review.stats.files_reviewed, "file", "files");
    let told = format!("Reviewed: {files}, {}.\n", counted(review.stats.lines_reviewed, "line", "lines"));
    let result: Option<Value> = serde_json::from_str(content).ok();
    Delivery {
        checks: vec![seal(review, result.as_ref())],
        result,
        told,
        shown: in_words(review),
        files: vec![OutFile::new("result.json", content)],
        ..Delivery::default()
    }
}

/// Whether the review has the hash it says. One with fields that are not known here can't be judged.
fn seal(review: &Review, as_it_came: Option<&Value>) -> Check {
    if review.is_sealed() {
        return Check::of("the hash of the review", true);
    }
    if serde_json::to_value(review).ok().as_ref() == as_it_came {
        Check::of("the review has another hash", false)
    } else {
        Check::open("the hash of the review, which says more than is known here")
    }
}

/// The verdict, a table of the issues, and each of them, the gravest first.
fn in_words(review: &Review) -> String {
    let verdict = match review.status {
        Verdict::Approve => "approved",
        Verdict::Comment => "nothing that must change",
        Verdict::RequestChanges => "changes requested",
    };
    let mut text = format!("Verdict: {verdict}\n\n{}\n", review.summary.trim());
    let mut issues: Vec<&Issue> = review.issues.iter().collect();
    issues.sort_by_key(|issue| issue.severity);
    if issues.is_empty() {
        return text;
    }
    let mut table = table::new(["severity", "category", "where", "what"]);
    for issue in &issues {
        table.add_row([issue.severity.to_string(), issue.category.to_string(), place(issue), line(&issue.title)]);
    }
    text.push_str(&format!("\n{table}\n"));
    for issue in issues {
        text.push_str(&format!("\n{} ({}): {}\n", place(issue), issue.severity, line(&issue.title)));
        for part in [Some(&issue.description), issue.suggestion.as_ref()].into_iter().flatten() {
            for described in part.trim().lines() {
                text.push_str(&format!("  {described}\n"));
            }
        }
    }
    text
}

fn place(issue: &Issue) -> String {
    let path = issue.path.to_string();
    match (issue.line, issue.end_line) {
        (Some(first), Some(last)) if last > first => format!("{path}:{first}-{last}"),
        (Some(first), _) => format!("{path}:{first}"),
        (None, _) => path,
    }
}

/// A stranger's words on one line.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::job::code_review::{CodeReview, Reviewed};

    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        args: ReviewArgs,
    }

    fn read(words: &[&str]) -> CodeReview {
        let args = Typed::parse_from(["review"].iter().chain(words)).args;
        let wanted = args.wanted(&Globals { quiet: true, ..Globals::default() }).unwrap();
        wanted.read_with(|request| CodeReview::parse(request, &CodeReviewLimits::default())).unwrap()
    }

    #[test]
    fn a_review_is_read_by_the_provider_as_it_was_meant() {
        let repo = ["--repo", "git@example.com:owner/name.git"];
        let between = read(&[&["--base", "v1", "--head", "v2", "--nits", "--time", "90s"], &repo[..]].concat());
        match between.reviewed {
            Reviewed::Between { repository, base, head } => {
                assert_eq!(repository.url, "https://example.com/owner/name.git");
                assert_eq!((base.as_str(), head.as_deref(), repository.reference), ("v1", Some("v2"), None));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!((between.include_nits, between.time_limit), (true, Some(Duration::from_secs(90))));
        let open = read(&[&["--base", "v1"], &repo[..]].concat());
        assert!(matches!(open.reviewed, Reviewed::Between { head: None, .. }), "{open:?}");
        let commits = read(&[&["--commit", "abc", "--commit", "def"], &repo[..]].concat());
        assert!(matches!(commits.reviewed, Reviewed::Commits(_, ref commits) if commits[..] == ["abc", "def"]));
        let files = read(&[&["--file", "a/b", "--ref", "v1", "--focus", "security"], &repo[..]].concat());
        match files.reviewed {
            Reviewed::Files(repository, paths) => {
                assert_eq!((repository.reference.as_deref(), paths[0].as_str()), (Some("v1"), "a/b"));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(files.focus, ["security"]);
        let pull = read(&["--pr", "https://example.com/owner/name/pull/7"]);
        assert!(matches!(pull.reviewed, Reviewed::Pull(_)));
        let folder = tempfile::tempdir().unwrap();
        let (diff, rules) = (folder.path().join("diff"), folder.path().join("rules"));
        std::fs::write(&diff, "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n").unwrap();
        std::fs::write(&rules, "be brief").unwrap();
        let given = read(&["--diff", diff.to_str().unwrap(), "--guidelines", rules.to_str().unwrap()]);
        assert!(matches!(given.reviewed, Reviewed::Diff(ref text) if text.contains("+++ b/x")));
        assert_eq!(given.guidelines.as_deref(), Some("be brief"));
    }
}
