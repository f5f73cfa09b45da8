//! Limits, on real servers.

use super::*;

fn is_clean(fetches: &Fetches) {
    assert_eq!(fetches.kept(), Vec::<String>::new());
}

/// Bytes that nothing makes smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state & 0xff).unwrap()
    };
    (0..bytes).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_larger_than_allowed_is_left_on_its_server() {
    let Some(server) = GitServer::start().await else { return };
    let limits = RepositoryLimits { max_bytes: 100_000, ..LIMITS };
    let large = server.repository("large");
    large.write("noise", noise(300_000));
    let large = large.commit("more than may come in");
    // A thousandth of this comes in.
    let bomb = server.repository("bomb");
    bomb.write("zeros", vec![0; 30_000_000]);
    let bomb = bomb.commit("more than may come out");
    for (name, commit) in [("large", large), ("bomb", bomb)] {
        for url in [server.http_url(name), server.git_url(name)] {
            let fetches = Fetches::within(limits.clone());
            let fetched = fetches.snapshot(&url, &commit).await;
            assert!(matches!(fetched, Err(RepositoryError::TooLarge { limit: 100_000 })), "{url}: {fetched:?}");
            is_clean(&fetches);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_with_more_files_than_allowed_is_refused() {
    let Some(server) = GitServer::start().await else { return };
    let repository = server.repository("many");
    for n in 0..30 {
        repository.write(&format!("f{n}"), format!("{n}"));
    }
    let commit = repository.commit("many");
    let url = server.git_url("many");
    let fetches = Fetches::within(RepositoryLimits { max_files: 29, ..LIMITS });
    let fetched = fetches.snapshot(&url, &commit).await;
    assert!(matches!(fetched, Err(RepositoryError::TooManyFiles { limit: 29 })), "{fetched:?}");
    is_clean(&fetches);
    let fetches = Fetches::within(RepositoryLimits { max_files: 30, ..LIMITS });
    assert_eq!(fetches.snapshot(&url, &commit).await.unwrap().entries().len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_commit_comes_not_what_was_before() {
    let Some(server) = GitServer::start().await else { return };
    let repository = server.repository("history");
    repository.write("noise", noise(300_000));
    repository.commit("large");
    repository.write("noise", "small");
    let commit = repository.commit("small again");
    for url in [server.git_url("history"), server.http_url("history"), server.http_url("old/history")] {
        let fetches = Fetches::within(RepositoryLimits { max_bytes: 10_000, ..LIMITS });
        let fetched = fetches.snapshot(&url, &commit).await;
        assert_eq!(read(&fetched.unwrap_or_else(|error| panic!("{url}: {error}")), "noise"), "small");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_whether_there_is_a_commit_brings_nothing_in() {
    let Some(server) = GitServer::start().await else { return };
    let repository = server.repository("large");
    repository.write("noise", noise(300_000));
    let commit = repository.commit("large");
    let fetches = Fetches::new();
    for allowed in ["false", "true"] {
        repository.git(&["config", "uploadpack.allowFilter", allowed]);
        for url in [server.git_url("large"), server.http_url("large")] {
            assert_eq!(fetches.resolve(&url, Some(commit.as_str())).await.unwrap(), commit);
        }
    }
    is_clean(&fetches);
}
