//! What is too long for an event lies on a file server: it is fetched and compared.

use std::fs;

use coinop::blossom::{Blob, Blossom, BlossomConfig};
use coinop::identity::Signer;
use coinop::job::{JobKind, Terms};
use coinop::nip90::{Codec, ReadLimits};
use coinop::testing::blossom_server::{BlossomServer, Manners};
use serde_json::json;

use super::shop::{Canned, hash, market, order, out, read, run_result, selling};
use crate::buying::{Shopper, err};

/// A server of files on this machine, and somebody who may upload there.
async fn file_server() -> (BlossomServer, Blossom) {
    let server = BlossomServer::start().await.unwrap();
    let codec = Codec::new(Signer::random(), ReadLimits::default());
    let files = Blossom::new(BlossomConfig::new(server.url()), codec).unwrap();
    (server, files)
}

/// Has files fetched from this machine, too.
fn allow_private(shopper: &Shopper) {
    let config = shopper.path().join("config.toml");
    fs::write(&config, format!("{}[fetch]\nallow_private = true\n", read(config.clone()))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_no_event_has_room_for_is_fetched_whole_and_compared() {
    let (server, files) = file_server().await;
    let long = "a line of the output\n".repeat(10_000);
    let content = run_result(0, &long, "", &json!([]));
    let executor = Canned::delivering(&content, &[]);
    let market = selling(JobKind::SandboxRun, executor, Terms::Free).files(files).start().await;
    let shopper = Shopper::at(&market, "").await;
    allow_private(&shopper);
    let bought = order(&shopper, &["sandbox", "--no-repo", "--cmd", "make test"]).await;
    assert!(bought.status.success(), "{}", err(&bought));
    assert_eq!(out(&bought), long);
    assert!(err(&bought).contains("the hash of the file that it came as"), "{}", err(&bought));

    server.behave(Manners::KeepsAnother);
    let other = order(&shopper, &["sandbox", "--no-repo", "--cmd", "make test"]).await;
    assert_eq!(other.status.code(), Some(1), "{}", err(&other));
    assert!(err(&other).contains("is not the result"), "{}", err(&other));
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_can_not_be_fetched_is_not_held_against_the_provider() {
    let (_server, files) = file_server().await;
    let long = "a line of the output\n".repeat(10_000);
    let executor = Canned::delivering(&run_result(0, &long, "", &json!([])), &[]);
    let market = selling(JobKind::SandboxRun, executor, Terms::Free).files(files).start().await;
    let shopper = Shopper::at(&market, "").await;
    // A server on this machine is none that strangers may send us to.
    let careful = order(&shopper, &["sandbox", "--no-repo", "--cmd", "make test"]).await;
    assert_eq!(careful.status.code(), Some(1), "{}", err(&careful));
    for told in ["the whole result is at http", "could not be fetched from there", "fetch.allow_private"] {
        assert!(err(&careful).contains(told), "{told}: {}", err(&careful));
    }
    for blame in ["is not what the provider says", "ask somebody else"] {
        assert!(!err(&careful).contains(blame), "{blame}: {}", err(&careful));
    }
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_on_a_file_server_is_fetched_and_compared() {
    let (_server, files) = file_server().await;
    let Blob { url, sha256, size, .. } = files.upload(b"large".to_vec(), "application/octet-stream").await.unwrap();
    let sealed = files.upload_sealed(b"secret".to_vec()).await.unwrap();
    let seal = sealed.seal.unwrap();
    let opened_by = json!({
        "encryption_algorithm": "aes-gcm", "decryption_key": seal.key, "decryption_nonce": seal.nonce,
        "sha256": sealed.sha256, "size": sealed.size,
    });
    let artifacts = json!([
        {"path": "large", "sha256": sha256, "size": size, "url": url},
        {"path": "another", "sha256": hash(b"another"), "size": 7, "url": url},
        {"path": "sealed", "sha256": hash(b"secret"), "size": 6, "url": sealed.url, "sealed": opened_by},
    ]);
    let executor = Canned::delivering(&run_result(0, "", "", &artifacts), &[]);
    let (market, shopper) = market(JobKind::SandboxRun, &executor, Terms::Free).await;
    let folder = shopper.path().join("out");
    let args = ["sandbox", "--no-repo", "--cmd", "x", "--force", "--out", folder.to_str().unwrap()];
    // A server on this machine is none that strangers may send us to.
    let careful = order(&shopper, &args).await;
    assert_eq!(careful.status.code(), Some(1), "{}", err(&careful));
    assert!(!folder.join("artifacts/large").exists());
    for told in [
        "the artifact 'large' could not be fetched",
        "its address is in result.json",
        "its address and key are in result.json",
        "fetch.allow_private",
    ] {
        assert!(err(&careful).contains(told), "{told}: {}", err(&careful));
    }
    for blame in ["is not what the provider says", "ask somebody else"] {
        assert!(!err(&careful).contains(blame), "{blame}: {}", err(&careful));
    }

    allow_private(&shopper);
    let bought = order(&shopper, &args).await;
    assert_eq!(bought.status.code(), Some(1), "the other file is not what was promised: {}", err(&bought));
    assert!(err(&bought).contains("the artifact 'another' is not kept"), "{}", err(&bought));
    assert!(!err(&bought).contains("could not be fetched"), "{}", err(&bought));
    assert_eq!(read(folder.join("artifacts/large")), "large");
    assert_eq!(read(folder.join("artifacts/sealed")), "secret");
    assert!(!folder.join("artifacts/another").exists());
    market.finish().await;
}
