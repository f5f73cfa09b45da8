//! Against a real server on loopback, well and ill behaved.

use super::*;
use crate::fetch::FetchLimits;
use crate::identity::Signer;
use crate::nip90::ReadLimits;
use crate::testing::blossom_server::{BlossomServer, Manners};

fn client(server: &BlossomServer) -> Blossom {
    let config = BlossomConfig { max_bytes: 1_000, ..BlossomConfig::new(server.url()) };
    Blossom::new(config, Codec::new(Signer::random(), ReadLimits::default())).unwrap()
}

fn fetcher(max_bytes: usize) -> Fetcher {
    Fetcher::new(FetchLimits { max_bytes, allow_private: true, ..FetchLimits::default() })
}

#[tokio::test]
async fn what_is_put_there_can_be_fetched_and_is_the_same() {
    let server = BlossomServer::start().await.unwrap();
    let blob = client(&server).upload(b"\x00\xffresult".to_vec(), "application/octet-stream").await.unwrap();
    assert_eq!(blob.size, 8);
    assert_eq!(fetch(&fetcher(8), &blob).await.unwrap(), b"\x00\xffresult");
    // Once more is the same file.
    assert_eq!(client(&server).upload(b"\x00\xffresult".to_vec(), "text/plain").await.unwrap(), blob);
    assert_eq!(server.files().len(), 1);
}

#[tokio::test]
async fn what_is_sealed_says_nothing_to_its_server_and_all_to_who_has_the_seal() {
    let server = BlossomServer::start().await.unwrap();
    let blob = client(&server).upload_sealed(b"the result".to_vec()).await.unwrap();
    assert_eq!(blob.size, 10 + 16);
    let kept = server.files()[&blob.sha256].clone();
    assert!(!kept.windows(6).any(|bytes| bytes == b"result"));
    assert_eq!(fetch(&fetcher(26), &blob).await.unwrap(), b"the result");
    let other = client(&server).upload_sealed(b"the result".to_vec()).await.unwrap();
    assert_ne!(other.sha256, blob.sha256, "nobody sees that two files are the same");
    let mixed_up = Blob { seal: other.seal, ..blob };
    assert_eq!(fetch(&fetcher(26), &mixed_up).await, Err(BlossomError::OtherFile));
}

#[tokio::test]
async fn a_server_with_a_path_is_asked_below_it() {
    let server = BlossomServer::start().await.unwrap();
    for (address, asked) in [("/", "/upload"), ("/files", "/files/upload"), ("/files/", "/files/upload")] {
        let config = BlossomConfig::new(server.url().join(address).unwrap());
        let client = Blossom::new(config, Codec::new(Signer::random(), ReadLimits::default())).unwrap();
        assert_eq!(client.upload.path(), asked);
    }
}

#[tokio::test]
async fn a_server_that_says_something_else_is_not_believed() {
    let server = BlossomServer::start().await.unwrap();
    for (manners, error) in [
        (Manners::TellsAnotherHash, BlossomError::OtherFile),
        (Manners::TellsAnotherSize, BlossomError::OtherFile),
        (Manners::TellsNoAddress, BlossomError::BadAnswer),
        (Manners::TellsNothing, BlossomError::BadAnswer),
    ] {
        server.behave(manners);
        assert_eq!(client(&server).upload("x", "text/plain").await, Err(error), "{manners:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_final_and_a_busy_server_is_asked_again() {
    let server = BlossomServer::start().await.unwrap();
    server.behave(Manners::Refuses(413));
    let reason = "not todayfriend".to_owned();
    let refused = BlossomError::Refused { status: 413, reason };
    assert_eq!(client(&server).upload("x", "text/plain").await, Err(refused));
    assert_eq!(server.uploads(), 1);
    server.behave(Manners::RefusesFirst(503, 2));
    assert!(client(&server).upload("x", "text/plain").await.is_ok());
    assert_eq!(server.uploads(), 3);
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let server = BlossomServer::start().await.unwrap();
    server.behave(Manners::IsSilent);
    let limit = Duration::from_millis(30);
    let config = BlossomConfig { timeout: limit, ..BlossomConfig::new(server.url()) };
    let client = Blossom::new(config, Codec::new(Signer::random(), ReadLimits::default())).unwrap();
    assert_eq!(client.upload("x", "text/plain").await, Err(BlossomError::Timeout { limit }));
}

#[tokio::test]
async fn nobody_there_is_said_in_words() {
    let gone = BlossomServer::start().await.unwrap();
    let client = client(&gone);
    drop(gone);
    let error = client.upload("x", "text/plain").await.unwrap_err();
    assert_eq!(error.to_string(), "the file server can't be reached");
}

#[tokio::test]
async fn too_large_a_file_is_not_sent() {
    let server = BlossomServer::start().await.unwrap();
    let large = client(&server).upload(vec![0; 1_001], "text/plain").await;
    assert_eq!(large, Err(BlossomError::TooLarge { bytes: 1_001, limit: 1_000 }));
    assert_eq!(server.uploads(), 0);
}

#[tokio::test]
async fn a_file_is_fetched_only_if_it_is_what_was_promised() {
    let server = BlossomServer::start().await.unwrap();
    let blob = client(&server).upload("12345", "text/plain").await.unwrap();
    let fetched = |fetcher: Fetcher, blob: Blob| async move { fetch(&fetcher, &blob).await };
    let promised = |change: &dyn Fn(&mut Blob)| {
        let mut other = blob.clone();
        change(&mut other);
        other
    };
    let large = fetched(fetcher(4), blob.clone()).await;
    assert_eq!(large, Err(BlossomError::TooLarge { bytes: 5, limit: 4 }));
    let size = promised(&|blob| blob.size = 4);
    assert_eq!(fetched(fetcher(100), size).await, Err(BlossomError::OtherFile));
    let hash = promised(&|blob| blob.sha256 = "0".repeat(64));
    assert_eq!(fetched(fetcher(100), hash).await, Err(BlossomError::OtherFile));
    let gone = promised(&|blob| blob.url.push('x'));
    assert_eq!(fetched(fetcher(100), gone).await, Err(BlossomError::NotFetched(FetchError::Status(404))));
    // Nobody's private network is asked because a provider names it.
    assert_eq!(fetched(Fetcher::default(), blob.clone()).await, Err(BlossomError::NotFetched(FetchError::NotPublic)));
    server.behave(Manners::KeepsAnother);
    let blob = client(&server).upload("6789", "text/plain").await.unwrap();
    assert_eq!(fetched(fetcher(100), blob).await, Err(BlossomError::OtherFile));
}

#[test]
fn an_address_that_is_none_is_refused_at_the_start() {
    for address in ["ftp://files.example/", "https://me:pw@files.example/", "https://files.example/?x=1", "data:,x"] {
        let config = BlossomConfig::new(address.parse().unwrap());
        let made = Blossom::new(config, Codec::new(Signer::random(), ReadLimits::default()));
        assert_eq!(made.unwrap_err(), BlossomError::BadServer, "{address}");
    }
}
