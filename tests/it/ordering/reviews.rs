//! Reviews, of what is here and of what was pushed.

use std::fs;

use coinop::job::code_review::{Category, Issue, Review, Severity, Stats, TokenCounts, Verdict};
use coinop::job::{JobKind, Terms};

use super::repository::Repository;
use super::shop::{Canned, market, order_in, out, pairs};
use crate::buying::err;

fn review() -> String {
    let issue = |severity, title: &str, line| Issue {
        path: "greeting".parse().unwrap(),
        line: Some(line),
        end_line: None,
        severity,
        category: Category::Bug,
        title: title.into(),
        description: "what is wrong".into(),
        suggestion: Some("what to do".into()),
    };
    let issues = vec![issue(Severity::Nit, "a trifle", 1), issue(Severity::Critical, "a catastrophe", 2)];
    let review = Review {
        status: Verdict::RequestChanges,
        summary: "It can't stay so.".into(),
        stats: Stats::of(1, 3, &issues),
        issues,
        review_sha256: String::new(),
        model: "m".into(),
        tokens: TokenCounts::default(),
    };
    serde_json::to_string(&review.sealed()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_is_reviewed_and_the_gravest_comes_first() {
    let Some(here) = Repository::new() else { return };
    let executor = Canned::delivering(&review(), &[]);
    let (market, shopper) = market(JobKind::CodeReview, &executor, Terms::Free).await;
    let nothing = order_in(here.path(), &shopper, &["review"]).await;
    assert_eq!(nothing.status.code(), Some(2), "{}", err(&nothing));

    fs::write(here.file("greeting"), "hello\nworld\n").unwrap();
    let rules = shopper.path().join("rules");
    fs::write(&rules, "be brief").unwrap();
    let args = ["review", "--nits", "--focus", "style", "--guidelines", rules.to_str().unwrap()];
    let bought = order_in(here.path(), &shopper, &args).await;
    assert!(bought.status.success(), "{}", err(&bought));
    let inputs = executor.inputs();
    let [(Some(marker), diff)] = inputs.as_slice() else { panic!("{} inputs", inputs.len()) };
    assert_eq!(marker, "diff");
    assert!(diff.contains("-wrold\n+world\n"), "{diff}");
    let params = [("focus_0", "style"), ("guidelines", "be brief"), ("include_nits", "true")];
    assert_eq!(executor.params(), pairs(&params));
    let shown = out(&bought);
    assert!(shown.starts_with("Verdict: changes requested\n"), "{shown}");
    assert!(shown.find("a catastrophe").unwrap() < shown.find("a trifle").unwrap(), "{shown}");
    assert!(shown.contains("greeting:2") && shown.contains("what to do"), "{shown}");
    assert!(err(&bought).contains("the hash of the review"), "{}", err(&bought));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_of_what_was_pushed_names_it_and_sends_nothing() {
    let Some(here) = Repository::new() else { return };
    for (args, marker, params) in [
        (vec!["--base", "main", "--head", "topic"], "repo", vec![("base_ref", "main"), ("head_ref", "topic")]),
        (vec!["--commit", "abc", "--commit", "def"], "repo", vec![("commit_0", "abc"), ("commit_1", "def")]),
        (vec!["--pr", "https://example.com/owner/name.git"], "pr", vec![]),
        (vec!["--ref", "v1", "--file", "greeting"], "repo", vec![("git_ref", "v1"), ("file_0", "greeting")]),
    ] {
        let executor = Canned::delivering(&review().replace("a trifle", "a lie"), &[]);
        let (market, shopper) = market(JobKind::CodeReview, &executor, Terms::Free).await;
        let bought = order_in(here.path(), &shopper, &[&["review"], &args[..]].concat()).await;
        assert_eq!(bought.status.code(), Some(1), "it was changed after it was sealed: {}", err(&bought));
        let address = "https://example.com/owner/name.git".to_owned();
        assert_eq!(executor.inputs(), [(Some(marker.to_owned()), address)], "{args:?}");
        assert_eq!(executor.params(), pairs(&params), "{args:?}");
        market.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_the_commit_has_not_is_told_of_before_anybody_is_asked() {
    let Some(here) = Repository::new() else { return };
    let executor = Canned::delivering(&review(), &[]);
    let (market, shopper) = market(JobKind::CodeReview, &executor, Terms::Free).await;
    fs::write(here.file("new.py"), "print()\n").unwrap();
    let files = ["review", "--file", "greeting", "--file", "new.py", "--file", "nope.py"];
    let bought = order_in(here.path(), &shopper, &files).await;
    let told = err(&bought);
    let (warnings, _) = told.split_once("Posted").unwrap_or_else(|| panic!("{told}"));
    assert!(warnings.contains("Warning: nope.py is not in commit "), "{told}");
    assert!(warnings.contains("Warning: new.py is not in commit "), "{told}");
    assert!(!warnings.contains("greeting is"), "{told}");
    // Of a branch or tag only the remote knows what it is.
    let named = order_in(here.path(), &shopper, &["review", "--ref", "v1", "--file", "nope.py"]).await;
    assert!(!err(&named).contains("Warning: nope.py"), "{}", err(&named));
    market.finish().await;
}
