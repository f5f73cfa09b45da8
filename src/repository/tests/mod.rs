//! Real repositories from real servers on loopback, over both ways that a repository can be fetched.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::archive::EntryKind;
use crate::testing::git_server::{GitRepository, GitServer};

mod bounds;
mod hostile;
mod servers;

pub(super) const LIMITS: RepositoryLimits = RepositoryLimits {
    max_bytes: 4 * 1024 * 1024,
    max_files: 500,
    time: Duration::from_secs(60),
    cache_bytes: 64 * 1024 * 1024,
    allow_private: true,
};

/// For whom everything is fetched here.
pub(super) const CUSTOMER: CustomerId = CustomerId([1; 32]);

/// A folder that is removed, and what fetches into it.
struct Fetches {
    folder: TempDir,
    repositories: Repositories,
}

impl Fetches {
    fn within(limits: RepositoryLimits) -> Self {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let repositories = Repositories::new(folder.path().join("cache"), limits);
        Self { folder, repositories }
    }

    fn new() -> Self {
        Self::within(LIMITS)
    }

    async fn resolve(&self, url: &str, reference: Option<&str>) -> Result<CommitId, RepositoryError> {
        self.repositories.resolve(url, reference).await
    }

    async fn snapshot(&self, url: &str, commit: &CommitId) -> Result<Snapshot, RepositoryError> {
        self.repositories.snapshot(url, commit, CUSTOMER, &CancellationToken::new()).await
    }

    /// Names in the cache's folder.
    fn kept(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join("cache"));
        let names = entries.into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != "in-use").collect();
        names.sort();
        names
    }
}

fn paths(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.entries().iter().map(|entry| entry.path.as_str()).collect()
}

fn read(snapshot: &Snapshot, path: &str) -> String {
    String::from_utf8(snapshot.read(&path.parse().unwrap()).unwrap().unwrap()).unwrap()
}

/// A repository with two commits, a branch and two tags.
fn of_two_commits(server: &GitServer, name: &str) -> (GitRepository, CommitId, CommitId) {
    let repository = server.repository(name);
    repository.write("README.md", "first\n").write("src/main.rs", "fn main() {}\n");
    let first = repository.commit("first");
    repository.git(&["tag", "plain"]);
    repository.git(&["tag", "--annotate", "told", "--message", "a tag with a message"]);
    repository.git(&["branch", "side"]);
    repository.write("README.md", "second\n");
    let second = repository.commit("second");
    (repository, first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_a_tag_and_a_commit_are_found_over_both_protocols() {
    let Some(server) = GitServer::start().await else { return };
    let (_repository, first, second) = of_two_commits(&server, "two");
    let fetches = Fetches::new();
    let old = server.http_url("old/two");
    for url in [server.http_url("two"), server.git_url("two"), server.http_url("moved/two"), old.clone()] {
        for (reference, commit) in [
            (None, &second),
            (Some("HEAD"), &second),
            (Some("main"), &second),
            (Some("refs/heads/main"), &second),
            (Some("heads/main"), &second),
            (Some("side"), &first),
            (Some("plain"), &first),
            (Some("told"), &first),
            (Some("refs/tags/told"), &first),
            (Some(second.as_str()), &second),
            (Some(&first.as_str()[..8]), &first),
            (Some(first.as_str()), &first),
        ] {
            let found = fetches.resolve(&url, reference).await;
            assert_eq!(found.unwrap(), *commit, "{reference:?} of {url}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_the_tree_of_that_commit_and_read_file_by_file() {
    let Some(server) = GitServer::start().await else { return };
    let (repository, first, second) = of_two_commits(&server, "two");
    let fetches = Fetches::new();
    for url in [server.http_url("two"), server.git_url("two"), server.http_url("moved/two"), server.http_url("old/two")]
    {
        for (commit, text) in [(&first, "first\n"), (&second, "second\n")] {
            let snapshot = fetches.snapshot(&url, commit).await.unwrap();
            assert_eq!(snapshot.commit(), commit);
            assert_eq!(snapshot.parents(), if commit == &second { std::slice::from_ref(&first) } else { &[] });
            assert_eq!(paths(&snapshot), ["README.md", "src/main.rs"]);
            assert_eq!(read(&snapshot, "README.md"), text, "{url}");
            assert_eq!(snapshot.entries()[0].size, text.len() as u64);
            assert!(snapshot.read(&"nowhere".parse().unwrap()).unwrap().is_none());
        }
    }
    repository.write("bin/run", "#!/bin/sh\n");
    std::fs::set_permissions(repository.folder().join("bin/run"), Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("../README.md", repository.folder().join("bin/link")).unwrap();
    let third = repository.commit("a program and a link");
    let snapshot = fetches.snapshot(&server.git_url("two"), &third).await.unwrap();
    let kinds: Vec<_> = snapshot.entries().iter().map(|entry| (entry.path.as_str(), entry.kind.clone())).collect();
    let link = EntryKind::Link { target: "../README.md".into() };
    let file = |executable| EntryKind::File { executable };
    let expected =
        [("README.md", file(false)), ("bin/link", link), ("bin/run", file(true)), ("src/main.rs", file(false))];
    assert_eq!(kinds, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_git_packs_as_differences_are_whole_again() {
    let Some(server) = GitServer::start().await else { return };
    let repository = server.repository("alike");
    let text =
        |n: usize| (0..2_000).map(|line| format!("line {line} of {n}, {}\n", line % (n + 7))).collect::<String>();
    for n in 0..20 {
        repository.write(&format!("many/file{n}"), text(n).replace("of 1", "OF 1"));
    }
    let commit = repository.commit("alike");
    repository.git(&["repack", "-adf", "--depth=50", "--window=50"]);
    let fetches = Fetches::new();
    let snapshot = fetches.snapshot(&server.git_url("alike"), &commit).await.unwrap();
    for n in 0..20 {
        assert_eq!(read(&snapshot, &format!("many/file{n}")), text(n).replace("of 1", "OF 1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_is_not_fetched_again_and_survives_a_restart() {
    let Some(server) = GitServer::start().await else { return };
    let (_repository, first, _) = of_two_commits(&server, "two");
    let fetches = Fetches::new();
    let url = server.git_url("two");
    fetches.snapshot(&url, &first).await.unwrap();
    let asked = server.asked();
    fetches.snapshot(&url, &first).await.unwrap();
    let again = Repositories::new(fetches.folder.path().join("cache"), LIMITS);
    let snapshot = again.snapshot(&url, &first, CUSTOMER, &CancellationToken::new()).await.unwrap();
    assert_eq!(read(&snapshot, "README.md"), "first\n");
    assert_eq!(server.asked(), asked);
    // What is known under one address is not given out under another.
    assert!(fetches.snapshot(&server.git_url("other"), &first).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_want_the_same_commit_at_once_fetch_it_once() {
    let Some(server) = GitServer::start().await else { return };
    let (_repository, first, _) = of_two_commits(&server, "two");
    let fetches = Fetches::new();
    let url = server.git_url("two");
    let all = (0..8).map(|_| fetches.snapshot(&url, &first));
    for snapshot in futures::future::join_all(all).await {
        assert_eq!(read(&snapshot.unwrap(), "README.md"), "first\n");
    }
    assert_eq!(server.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_are_left_out() {
    let Some(server) = GitServer::start().await else { return };
    let repository = server.repository("outer");
    let blob = repository.blob(b"here\n");
    let elsewhere = "1234567890123456789012345678901234567890";
    let modules = repository.blob(b"[submodule \"inner\"]\n\tpath = inner\n\turl = ext::sh -c id\n");
    let commit = repository.commit_entries(&[
        ("100644", b".gitmodules", &modules),
        ("100644", b"a", &blob),
        ("160000", b"inner", elsewhere),
    ]);
    let snapshot = Fetches::new().snapshot(&server.git_url("outer"), &commit).await.unwrap();
    assert_eq!(paths(&snapshot), [".gitmodules", "a"]);
}
