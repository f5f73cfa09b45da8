//! Servers that are made to hurt: slow, endless, garbled, or leading elsewhere.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use gix_transport::client::blocking_io::http::Http;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::repository::http::PinnedHttp;

const COMMIT: &str = "1234567890123456789012345678901234567890";

/// Answers whoever connects.
struct Server {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    async fn at<F>(address: &str, answer: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut answers = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // Who has heard enough hangs up.
                answers.spawn(answer(stream));
            }
        });
        Self { address, _task: AbortOnDropHandle::new(task) }
    }

    /// Says this, and then the end over and over again, if there is one.
    async fn saying(first: Vec<u8>, endlessly: Vec<u8>) -> Self {
        let (first, endlessly) = (Arc::new(first), Arc::new(endlessly));
        Self::at("127.0.0.1:0", move |mut stream| {
            let (first, endlessly) = (Arc::clone(&first), Arc::clone(&endlessly));
            async move {
                // The question comes first: who answers before it is read may be hung up on.
                let _ = stream.read(&mut [0; 4096]).await?;
                stream.write_all(&first).await?;
                while !endlessly.is_empty() {
                    stream.write_all(&endlessly).await?;
                }
                stream.shutdown().await?;
                // What else is asked is heard out.
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
            }
        })
        .await
    }

    fn git_url(&self) -> String {
        format!("git://{}/x", self.address)
    }

    fn http_url(&self) -> String {
        format!("http://{}/x", self.address)
    }
}

/// Lines as git packs them.
fn lines(lines: &[&str]) -> Vec<u8> {
    let one = |line: &&str| match *line {
        "flush" => b"0000".to_vec(),
        "delimiter" => b"0001".to_vec(),
        text => format!("{:04x}{text}", text.len() + 4).into_bytes(),
    };
    lines.iter().flat_map(one).collect()
}

/// The greeting of a server of today.
fn greeting() -> Vec<u8> {
    lines(&["version 2\n", "agent=git/2\n", "ls-refs=unborn\n", "fetch=shallow\n", "object-format=sha1\n", "flush"])
}

/// A greeting, and a pack that begins like this.
fn greeting_and_pack(pack: &[u8]) -> Vec<u8> {
    let mut band = format!("{:04x}\x01", pack.len() + 5).into_bytes();
    band.extend_from_slice(pack);
    [greeting(), lines(&["packfile\n"]), band, lines(&["flush"])].concat()
}

fn http_answer(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";

fn hurried() -> RepositoryLimits {
    RepositoryLimits { time: Duration::from_millis(700), ..LIMITS }
}

async fn both(fetches: &Fetches, url: &str) -> [RepositoryError; 2] {
    let resolved = fetches.resolve(url, None).await.unwrap_err();
    let fetched = fetches.snapshot(url, &COMMIT.parse().unwrap()).await.unwrap_err();
    assert!(fetches.kept().is_empty());
    [resolved, fetched]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drips_is_left_when_the_time_is_over() {
    let drip = |words: &'static [u8]| {
        move |mut stream: TcpStream| async move {
            let _ = stream.read(&mut [0; 4096]).await?;
            for byte in words.iter().chain([b'0'; 1_000].iter()) {
                stream.write_all(&[*byte]).await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        }
    };
    let http = Server::at("127.0.0.1:0", drip(b"HTTP/1.1 200 OK\r\n")).await;
    let git = Server::at("127.0.0.1:0", drip(b"000eversion 2\n")).await;
    let silent = |stream: TcpStream| async move {
        let _held = stream;
        std::future::pending().await
    };
    let silent = Server::at("127.0.0.1:0", silent).await;
    for url in [http.http_url(), git.git_url(), silent.http_url(), silent.git_url()] {
        for error in both(&Fetches::within(hurried()), &url).await {
            assert!(matches!(error, RepositoryError::Timeout { .. }), "{url}: {error:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cancels_does_not_wait_for_a_silent_server() {
    let silent = Server::at("127.0.0.1:0", |stream| async move {
        let _held = stream;
        std::future::pending().await
    })
    .await;
    let fetches = Fetches::new();
    let cancel = CancellationToken::new();
    let (url, commit) = (silent.git_url(), COMMIT.parse().unwrap());
    let fetching = fetches.repositories.snapshot(&url, &commit, CUSTOMER, &cancel);
    let (fetched, ()) = tokio::join!(fetching, async {
        tokio::task::yield_now().await;
        cancel.cancel();
    });
    assert!(matches!(fetched, Err(RepositoryError::Cancelled)), "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_ends_is_left_when_it_is_too_much() {
    let chunk = format!("{:04x}\x01{}", 60_005, "x".repeat(60_000)).into_bytes();
    let progress = format!("{:04x}\x02{}", 60_005, "x".repeat(60_000)).into_bytes();
    let pack = [greeting(), lines(&["packfile\n"])].concat();
    let shallow = [greeting(), lines(&["shallow-info\n"])].concat();
    let one_more = lines(&[&format!("shallow {COMMIT}\n")]);
    for (first, endlessly) in [(pack.clone(), chunk), (pack, progress), (shallow, one_more)] {
        let server = Server::saying(first, endlessly).await;
        let fetched = Fetches::new().snapshot(&server.git_url(), &COMMIT.parse().unwrap()).await;
        assert!(matches!(fetched, Err(RepositoryError::TooLarge { .. })), "{fetched:?}");
    }
    let reference = lines(&[&format!("{COMMIT} refs/heads/x\n")]).repeat(1_000);
    let old = lines(&[&format!("{COMMIT} HEAD\0side-band-64k shallow multi_ack_detailed\n")]);
    let capability = lines(&["agent=x\n"]).repeat(1_000);
    for (first, endlessly) in [(greeting(), reference.clone()), (old, reference), (lines(&["version 2\n"]), capability)]
    {
        let server = Server::saying(first, endlessly).await;
        let resolved = Fetches::new().resolve(&server.git_url(), None).await;
        assert!(matches!(resolved, Err(RepositoryError::TooLarge { .. })), "{resolved:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_no_repository() {
    let page = b"<html>Welcome</html>";
    let pack = |bytes: &[u8]| greeting_and_pack(bytes);
    let garbage = [
        b"".to_vec(),
        b"\0\0\0\0".to_vec(),
        b"zzzz".to_vec(),
        b"fffe".to_vec(),
        b"0003".to_vec(),
        b"0000".to_vec(),
        b"00000000".to_vec(),
        b"0001".to_vec(),
        b"0004".to_vec(),
        b"SSH-2.0-x\r\n".to_vec(),
        lines(&["ERR no\n"]),
        lines(&["version 3\n", "flush"]),
        lines(&["version 2\n", "flush"]),
        lines(&["version 1\n", "flush"]),
        lines(&["x y\0z\n", "flush"]),
        greeting(),
        [greeting(), lines(&["flush"])].concat(),
        [greeting(), lines(&["ERR x\n"])].concat(),
        [greeting(), lines(&["nonsense\n", "flush"])].concat(),
        [greeting(), lines(&["x refs/heads/x\n", "flush"])].concat(),
        [greeting(), lines(&["packfile\n", "\x03it broke\n", "flush"])].concat(),
        [greeting(), lines(&["packfile\n", "\x09what\n", "flush"])].concat(),
        pack(b""),
        pack(b"PACK"),
        pack(b"PACK\0\0\0\x02\0\0\0\x01"),
        pack(b"PACK\0\0\0\x02\xff\xff\xff\xff"),
        pack(b"PACK\0\0\0\x02\0\0\0\0"),
        pack(b"PACK\0\0\0\x09\0\0\0\x01"),
        pack(b"PACK\0\0\0\x02\0\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        pack(&[0xff; 1_000]),
    ];
    let said = garbage.map(|bytes| async move {
        let git = Server::saying(bytes.clone(), Vec::new()).await;
        let http = Server::saying(http_answer(ADVERTISEMENT, &bytes), Vec::new()).await;
        for url in [git.git_url(), http.http_url()] {
            // Neither a panic, nor a wait for the end of all time.
            for error in both(&Fetches::within(hurried()), &url).await {
                assert!(!matches!(error, RepositoryError::Disk(_)), "{bytes:?}: {error:?}");
            }
        }
    });
    futures::future::join_all(said).await;
    let http = Server::saying(http_answer("text/html", page), Vec::new()).await;
    for error in both(&Fetches::new(), &http.http_url()).await {
        assert!(matches!(error, RepositoryError::Broken(_)), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_without_the_commit_that_was_asked_for_is_no_repository() {
    // An empty pack is whole, but has nothing.
    let server = Server::saying(greeting_and_pack(b"PACK\0\0\0\x02\0\0\0\0"), Vec::new()).await;
    let fetched = Fetches::new().snapshot(&server.git_url(), &COMMIT.parse().unwrap()).await;
    assert!(matches!(&fetched, Err(RepositoryError::Broken(what)) if what.contains("missing")), "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_are_told_apart() {
    for (status, found) in [("404 Not Found", true), ("403 Forbidden", true), ("410 Gone", true), ("500 Oops", false)] {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let server = Server::saying(answer.into_bytes(), Vec::new()).await;
        for error in both(&Fetches::new(), &server.http_url()).await {
            assert_eq!(matches!(error, RepositoryError::NotFound), found, "{status}: {error:?}");
            assert_eq!(matches!(error, RepositoryError::Unreachable), !found, "{status}: {error:?}");
        }
    }
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for url in [format!("http://{nobody}/x"), format!("git://{nobody}/x")] {
        for error in both(&Fetches::new(), &url).await {
            assert!(matches!(error, RepositoryError::Unreachable), "{error:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_inside_are_refused_unless_they_are_allowed() {
    let inside = Server::saying(greeting(), Vec::new()).await;
    let port = inside.address.port();
    let fetches = Fetches::within(RepositoryLimits { allow_private: false, ..LIMITS });
    for host in ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "10.0.0.1", "169.254.169.254"] {
        for scheme in ["https", "git"] {
            for error in both(&fetches, &format!("{scheme}://{host}:{port}/x")).await {
                assert!(matches!(error, RepositoryError::NotPublic), "{scheme} {host}: {error:?}");
            }
        }
    }
}

/// Asks at an address from which only 127.0.0.1 may be reached.
async fn redirected(url: String) -> Option<RepositoryError> {
    let watch = Watch::new(Handle::current(), Time::from_now(Duration::from_secs(30)), 1_000, CancellationToken::new());
    let rules = Rules { may_connect: |ip| ip == IpAddr::V4(Ipv4Addr::LOCALHOST), plain_http: true };
    let asked = tokio::task::spawn_blocking(move || {
        let watch = Arc::new(watch);
        let mut http = PinnedHttp::new(Arc::clone(&watch), rules);
        let whole = format!("{url}/info/refs?service=git-upload-pack");
        http.get(&whole, &url, ["Accept: */*"]).err().and_then(|_| watch.cause())
    });
    asked.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_redirect_is_judged_like_the_first_address() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Also loopback, but not what is allowed here: it stands for the operator's network.
    let inside = Server::at("127.0.0.2:0", |_| async { Ok(()) }).await;
    let tail = "info/refs?service=git-upload-pack";
    let to = |target: String| async move {
        let answer =
            format!("HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let server = Server::saying(answer.into_bytes(), Vec::new()).await;
        (redirected(server.http_url()).await, server)
    };
    for target in [format!("{}/{tail}", inside.http_url()), format!("file:///etc/{tail}"), format!("git://x/{tail}")] {
        let (error, _) = to(target.clone()).await;
        assert!(matches!(error, Some(RepositoryError::NotPublic)), "{target}: {error:?}");
    }
    for (target, why) in [
        (format!("http://user:pass@127.0.0.1:1/{tail}"), "a password"),
        ("http://127.0.0.1:1/elsewhere".to_owned(), "not where a repository would be"),
    ] {
        let (error, _) = to(target).await;
        assert!(matches!(error, Some(RepositoryError::NotFound)), "{why}: {error:?}");
    }
    // To itself, on and on.
    let (error, _) = to(format!("/x/{tail}")).await;
    assert!(matches!(error, Some(RepositoryError::Unreachable)), "{error:?}");
    assert!(redirected("http://127.0.0.2:1/x".to_owned()).await.is_some());
}
