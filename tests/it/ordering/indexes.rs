//! Indexes, and what is none.

use coinop::job::{JobKind, Terms};
use serde_json::json;

use super::shop::{Canned, hash, market, order, out, pairs, read};
use crate::buying::err;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_result_of_its_kind_is_shown_as_it_came() {
    let executor = Canned::delivering("I am a teapot\u{1b}[2J", &[]);
    let (market, shopper) = market(JobKind::RepoIndex, &executor, Terms::Free).await;
    let args =
        ["index", "--repo", "https://example.com/owner/name", "--type", "symbols,digests", "--include", "src/**"];
    let bought = order(&shopper, &args).await;
    assert_eq!(bought.status.code(), Some(1), "{}", err(&bought));
    assert!(out(&bought).starts_with("I am a teapot"), "{}", out(&bought));
    let params = [("index_type_0", "symbols"), ("index_type_1", "digests"), ("include_0", "src/**")];
    assert_eq!(executor.params(), pairs(&params));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_counted_kept_and_its_tree_is_hashed_again() {
    let line = format!("{}  src/lib.rs\n", "a".repeat(64));
    let digests = json!([{"path": "src/lib.rs", "sha256": "a".repeat(64), "size": 10, "lines": 2}]);
    let index = |tree_sha256: &str| {
        json!({
            "commit": "c".repeat(40), "tree_sha256": tree_sha256, "indexes": {"digests": digests},
            "files_indexed": 1, "bytes_processed": 10, "tokens_processed": 0, "duration_ms": 3,
            "errors": ["big.bin: larger than allowed"]
        })
        .to_string()
    };
    let args = ["index", "--repo", "https://example.com/owner/name", "--type", "digests", "--out"];
    for (tree, code) in [(hash(line.as_bytes()), 0), (hash(b"another tree"), 1)] {
        let content = index(&tree);
        let executor = Canned::delivering(&content, &[]);
        let (market, shopper) = market(JobKind::RepoIndex, &executor, Terms::Free).await;
        let folder = shopper.path().join("out");
        let bought = order(&shopper, &[&args[..], &[folder.to_str().unwrap()]].concat()).await;
        assert_eq!(bought.status.code(), Some(code), "{}", err(&bought));
        assert!(out(&bought).contains(&tree) && out(&bought).contains("digests"), "{}", out(&bought));
        assert!(err(&bought).contains("Left out: big.bin: larger than allowed"), "{}", err(&bought));
        assert_eq!(read(folder.join("result.json")), content);
        market.finish().await;
    }
}
