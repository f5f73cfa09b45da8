//! Repositories that are missing, private, empty or made to hurt, on real servers.

use super::*;

const NOWHERE: &str = "1234567890123456789012345678901234567890";

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_missing_private_or_empty_says_which() {
    let Some(server) = GitServer::start().await else { return };
    server.repository("empty");
    of_two_commits(&server, "two");
    let fetches = Fetches::new();
    let commit: CommitId = NOWHERE.parse().unwrap();
    for url in [server.http_url("missing"), server.git_url("missing"), server.http_url("private/two")] {
        let resolved = fetches.resolve(&url, None).await;
        assert!(matches!(resolved, Err(RepositoryError::NotFound)), "{url}: {resolved:?}");
        let fetched = fetches.snapshot(&url, &commit).await;
        assert!(matches!(fetched, Err(RepositoryError::NotFound)), "{url}: {fetched:?}");
    }
    for url in [server.http_url("empty"), server.git_url("empty"), server.http_url("old/empty")] {
        let resolved = fetches.resolve(&url, None).await;
        assert!(matches!(resolved, Err(RepositoryError::Empty)), "{url}: {resolved:?}");
        let resolved = fetches.resolve(&url, Some("main")).await;
        assert!(matches!(resolved, Err(RepositoryError::NoSuchRef)), "{url}: {resolved:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_that_is_not_there_says_so() {
    let Some(server) = GitServer::start().await else { return };
    let (repository, first, _) = of_two_commits(&server, "two");
    let fetches = Fetches::new();
    for url in [server.http_url("two"), server.git_url("two"), server.http_url("old/two")] {
        for name in ["nope", "refs/heads/nope", "main/", "--upload-pack=id", "a..b", "a b", "a\nb", "@{-1}", "HEAD~1"] {
            let resolved = fetches.resolve(&url, Some(name)).await;
            assert!(matches!(resolved, Err(RepositoryError::NoSuchRef)), "{name}: {resolved:?}");
        }
        let long = "x".repeat(10_000);
        assert!(matches!(fetches.resolve(&url, Some(&long)).await, Err(RepositoryError::NoSuchRef)));
        for short in ["1234", "deadbeef", "abcdef0123456789"] {
            let resolved = fetches.resolve(&url, Some(short)).await;
            assert!(matches!(resolved, Err(RepositoryError::Shortened)), "{short}: {resolved:?}");
        }
        let resolved = fetches.resolve(&url, Some(NOWHERE)).await;
        assert!(matches!(resolved, Err(RepositoryError::CommitRefused)), "{url}: {resolved:?}");
        let fetched = fetches.snapshot(&url, &NOWHERE.parse().unwrap()).await;
        assert!(matches!(fetched, Err(RepositoryError::CommitRefused)), "{url}: {fetched:?}");
    }
    // A commit that no branch or tag leads to any more: older servers do not give it.
    repository.git(&["tag", "--delete", "plain", "told"]);
    repository.git(&["branch", "--delete", "side"]);
    let blob = repository.blob(b"begun anew");
    repository.commit_entries(&[("100644", b"a", &blob)]);
    assert_eq!(fetches.resolve(&server.http_url("two"), Some(first.as_str())).await.unwrap(), first);
    let resolved = fetches.resolve(&server.http_url("old/two"), Some(first.as_str())).await;
    assert!(matches!(resolved, Err(RepositoryError::CommitRefused)), "{resolved:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_branch_without_commits_beside_others_is_no_empty_repository() {
    let Some(server) = GitServer::start().await else { return };
    let (repository, _, second) = of_two_commits(&server, "two");
    repository.git(&["symbolic-ref", "HEAD", "refs/heads/nothing-yet"]);
    let fetches = Fetches::new();
    let resolved = fetches.resolve(&server.git_url("two"), None).await;
    assert!(matches!(resolved, Err(RepositoryError::NoSuchRef)), "{resolved:?}");
    assert_eq!(fetches.resolve(&server.git_url("two"), Some("main")).await.unwrap(), second);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_paths_are_refused_and_nothing_is_kept_of_them() {
    let Some(server) = GitServer::start().await else { return };
    let names: &[&[u8]] = &[b"..", b".git", b".GIT", b"a\nb", b"caf\xe9"];
    for (n, name) in names.iter().enumerate() {
        let repository = server.repository(&format!("hostile{n}"));
        let blob = repository.blob(b"#!/bin/sh\nid\n");
        let inner = repository.tree(&[("100755", b"post-checkout", &blob)]);
        let commit = repository.commit_entries(&[("100644", b"README", &blob), ("40000", name, &inner)]);
        let fetches = Fetches::new();
        let fetched = fetches.snapshot(&server.git_url(&format!("hostile{n}")), &commit).await;
        assert!(matches!(fetched, Err(RepositoryError::Broken(_))), "{name:?}: {fetched:?}");
        assert_eq!(fetches.kept(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_of_what_is_no_commit_is_no_repository() {
    let Some(server) = GitServer::start().await else { return };
    let (repository, ..) = of_two_commits(&server, "two");
    let blob = repository.blob(b"not a commit");
    repository.git(&["tag", "odd", &blob]);
    let fetches = Fetches::new();
    let url = server.git_url("two");
    let odd = fetches.resolve(&url, Some("odd")).await.unwrap();
    let fetched = fetches.snapshot(&url, &odd).await;
    assert!(matches!(fetched, Err(RepositoryError::Broken(_))), "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_with_other_names_of_objects_is_told_apart() {
    let Some(server) = GitServer::start().await else { return };
    let repository = server.repository("sha256");
    std::fs::remove_dir_all(repository.folder().join(".git")).unwrap();
    repository.git(&["init", "--quiet", "--object-format=sha256", "--initial-branch=main"]);
    repository.git(&["commit", "--quiet", "--allow-empty", "--message", "x"]);
    for url in [server.git_url("sha256"), server.http_url("sha256")] {
        let resolved = Fetches::new().resolve(&url, None).await;
        assert!(matches!(&resolved, Err(RepositoryError::Broken(what)) if what.contains("SHA-256")), "{resolved:?}");
    }
}
