//! Patches: checked, and applied to the repository one is in, or to nothing at all.

use coinop::job::{JobKind, Terms};
use serde_json::Value;

use super::repository::Repository;
use super::shop::{Canned, hash, market, order_in, out, pairs, read};
use crate::buying::err;

const DIFF: &str = "\
diff --git a/greeting b/greeting
--- a/greeting
+++ b/greeting
@@ -1,2 +1,2 @@
 hello
-wrold
+world
diff --git a/docs/new b/docs/new
new file mode 100644
--- /dev/null
+++ b/docs/new
@@ -0,0 +1 @@
+new
";

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_is_ordered_for_the_commit_here_checked_and_applied() {
    let Some(here) = Repository::new() else { return };
    let commit = here.git(&["rev-parse", "HEAD"]);
    let (patch_hash, facts_commit) = (hash(DIFF.as_bytes()), commit.clone());
    let facts = [("patch_sha256", patch_hash.as_str()), ("commit", &facts_commit), ("test_exit_code", "0")];
    let executor = Canned::delivering(DIFF, &facts);
    let (market, shopper) = market(JobKind::PatchGen, &executor, Terms::Prepay).await;
    let folder = shopper.path().join("out");
    let args = ["patch", "the greeting has a typo", "--test", "make test", "--include", "**", "--apply"];
    let args = [&args[..], &["--out", folder.to_str().unwrap()]].concat();
    let bought = order_in(here.path(), &shopper, &args).await;
    assert!(bought.status.success(), "{}", err(&bought));

    let address = "https://example.com/owner/name.git".to_owned();
    let inputs = [(Some("repo".to_owned()), address), (Some("issue".to_owned()), "the greeting has a typo".to_owned())];
    assert_eq!(executor.inputs(), inputs);
    let params = [("git_ref", commit.as_str()), ("test_command", "make test"), ("include_0", "**")];
    assert_eq!(executor.params(), pairs(&params));

    assert_eq!(out(&bought), DIFF);
    for told in [
        "no branch of the remote is known to have this commit",
        "the hash of the diff",
        "it applies to the commit it was made for",
        "the test command exited with 0",
        "Applied: 2 files changed.",
    ] {
        assert!(err(&bought).contains(told), "{told}: {}", err(&bought));
    }
    assert_eq!(read(here.file("greeting")), "hello\nworld\n");
    assert_eq!(read(here.file("docs/new")), "new\n");
    assert_eq!(here.git(&["status", "--porcelain"]), "M greeting\n?? docs/");
    assert_eq!(read(folder.join("patch.diff")), DIFF);
    let kept: Value = serde_json::from_str(&read(folder.join("result.json"))).unwrap();
    assert_eq!(kept["commit"], commit.as_str());

    // Once more it does not fit: what is here is not what it was made for.
    let again = order_in(here.path(), &shopper, &["patch", "again", "--apply"]).await;
    assert_eq!(again.status.code(), Some(1), "{}", err(&again));
    assert!(err(&again).contains("the patch was not applied"), "{}", err(&again));
    assert_eq!(here.git(&["status", "--porcelain"]), "M greeting\n?? docs/");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_that_is_not_what_it_says_or_reaches_too_far_changes_nothing() {
    let Some(here) = Repository::new() else { return };
    let commit = here.git(&["rev-parse", "HEAD"]);
    let hook = format!(
        "{DIFF}diff --git a/.git/hooks/post-checkout b/.git/hooks/post-checkout\nnew file mode 100755\n--- /dev/null\n+++ b/.git/hooks/post-checkout\n@@ -0,0 +1 @@\n+#!/bin/sh\n"
    );
    let outside = DIFF.replace("docs/new", "../outside");
    let elsewhere = DIFF.replace("-wrold", "-other");
    let right = hash(DIFF.as_bytes());
    for (diff, stated) in [
        (DIFF.to_owned(), hash(b"something else")),
        (hook.clone(), hash(hook.as_bytes())),
        (outside.clone(), hash(outside.as_bytes())),
        (elsewhere.clone(), hash(elsewhere.as_bytes())),
        ("Sorry, I can't do that.".to_owned(), right),
    ] {
        let executor = Canned::delivering(&diff, &[("patch_sha256", &stated), ("commit", &commit)]);
        let (market, shopper) = market(JobKind::PatchGen, &executor, Terms::Free).await;
        let bought = order_in(here.path(), &shopper, &["patch", "fix it", "--apply", "--yes"]).await;
        assert_eq!(bought.status.code(), Some(1), "{diff}: {}", err(&bought));
        assert_eq!(here.git(&["status", "--porcelain"]), "", "{diff}");
        market.finish().await;
    }
    assert!(!here.file(".git/hooks/post-checkout").exists());
    assert!(!here.path().parent().unwrap().join("outside").exists());
}
