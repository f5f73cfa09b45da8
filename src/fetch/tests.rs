//! Against a small HTTP server on loopback that says what it is told to say.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// Answers every request on its path with the given bytes; ends with the test.
struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            // The client may have hung up, which is what some tests are about.
            let _ = stream.write_all(&answer(path)).await;
        }
    });
    Server { address, task }
}

fn ok(content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\nconnection: close\r\n\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn redirect(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes()
}

fn fetcher() -> Fetcher {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Fetcher::new(FetchLimits { max_bytes: 64, allow_private: true, ..FetchLimits::default() })
}

#[tokio::test]
async fn text_comes_back_whole() {
    let server = serve(|_| ok("text/plain; charset=utf-8", "grüße".as_bytes())).await;
    assert_eq!(fetcher().fetch_text(&format!("http://{}/", server.address)).await, Ok("grüße".to_owned()));
}

#[tokio::test]
async fn redirects_are_followed_up_to_the_limit() {
    let server = serve(|path| match path.trim_start_matches('/').parse::<u32>() {
        Ok(0) | Err(_) => ok("text/plain", b"there"),
        Ok(left) => redirect(&format!("/{}", left - 1)),
    })
    .await;
    assert_eq!(fetcher().fetch_text(&format!("http://{}/3", server.address)).await, Ok("there".to_owned()));
    assert_eq!(fetcher().fetch_text(&format!("http://{}/4", server.address)).await, Err(FetchError::Redirects));
}

#[tokio::test]
async fn a_redirect_to_another_scheme_is_refused() {
    let server = serve(|_| redirect("file:///etc/passwd")).await;
    assert_eq!(fetcher().fetch_text(&format!("http://{}/", server.address)).await, Err(FetchError::Scheme));
}

#[tokio::test]
async fn too_much_content_is_an_error_whether_declared_or_not() {
    let undeclared = serve(|_| ok("text/plain", &[b'a'; 65])).await;
    let declared = serve(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n".to_vec()).await;
    let exact = serve(|_| ok("text/plain", &[b'a'; 64])).await;
    let too_large = Err(FetchError::TooLarge { limit: 64 });
    assert_eq!(fetcher().fetch_text(&format!("http://{}/", undeclared.address)).await, too_large);
    assert_eq!(fetcher().fetch_text(&format!("http://{}/", declared.address)).await, too_large);
    assert_eq!(fetcher().fetch_text(&format!("http://{}/", exact.address)).await, Ok("a".repeat(64)));
}

#[tokio::test]
async fn only_utf8_text_is_taken() {
    let image = serve(|_| ok("image/png", b"x")).await;
    let broken = serve(|_| ok("text/plain", b"\xff\xfe")).await;
    let json = serve(|_| ok("application/ld+json", b"{}")).await;
    assert_eq!(fetcher().fetch_text(&format!("http://{}/", image.address)).await, Err(FetchError::NotText));
    assert_eq!(fetcher().fetch_text(&format!("http://{}/", broken.address)).await, Err(FetchError::NotUtf8));
    assert_eq!(fetcher().fetch_text(&format!("http://{}/", json.address)).await, Ok("{}".to_owned()));
}

#[tokio::test]
async fn bytes_come_back_whatever_they_are_and_under_the_same_rules() {
    let image = serve(|_| ok("image/png", b"\xff\x00\xfe")).await;
    let large = serve(|_| ok("image/png", &[0; 65])).await;
    let at = |server: &Server| format!("http://{}/", server.address);
    assert_eq!(fetcher().fetch_bytes(&at(&image)).await, Ok(b"\xff\x00\xfe".to_vec()));
    assert_eq!(fetcher().fetch_bytes(&at(&large)).await, Err(FetchError::TooLarge { limit: 64 }));
    assert_eq!(Fetcher::default().fetch_bytes(&at(&image)).await, Err(FetchError::NotPublic));
}

#[tokio::test]
async fn a_server_error_is_named_by_its_status() {
    let server = serve(|_| b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    assert_eq!(fetcher().fetch_text(&format!("http://{}/", server.address)).await, Err(FetchError::Status(503)));
}

#[tokio::test]
async fn a_server_that_never_answers_runs_into_the_time_limit() {
    // Bound but never accepted from: the kernel takes the connection and nothing more happens.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let limit = Duration::from_millis(50);
    let limits = FetchLimits { timeout: limit, allow_private: true, ..FetchLimits::default() };
    let url = format!("http://{}/", listener.local_addr().unwrap());
    fetcher();
    assert_eq!(Fetcher::new(limits).fetch_text(&url).await, Err(FetchError::Timeout { limit }));
}

#[tokio::test]
async fn nothing_private_is_fetched_in_any_spelling() {
    let server = serve(|_| ok("text/plain", b"secret")).await;
    let port = server.address.port();
    fetcher();
    let strict = Fetcher::default();
    for host in ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "0"] {
        let url = format!("http://{host}:{port}/");
        assert_eq!(strict.fetch_text(&url).await, Err(FetchError::NotPublic), "{url}");
    }
}

#[tokio::test]
async fn odd_urls_are_refused_before_anything_is_sent() {
    let fetcher = fetcher();
    for (url, error) in [
        ("ftp://example.com/", FetchError::Scheme),
        ("file:///etc/passwd", FetchError::Scheme),
        ("gopher://127.0.0.1:70/", FetchError::Scheme),
        ("http://user:pass@127.0.0.1/", FetchError::Credentials),
        ("http://user@127.0.0.1/", FetchError::Credentials),
        ("not a url", FetchError::BadUrl),
        ("http://", FetchError::BadUrl),
        ("http://[::1", FetchError::BadUrl),
    ] {
        assert_eq!(fetcher.fetch_text(url).await, Err(error), "{url}");
    }
    let long = format!("http://127.0.0.1/{}", "a".repeat(3000));
    assert_eq!(fetcher.fetch_text(&long).await, Err(FetchError::BadUrl));
}

#[test]
fn errors_tell_nothing_of_our_network() {
    for error in [FetchError::NotPublic, FetchError::Unreachable, FetchError::Redirects] {
        let text = error.to_string();
        assert!(!text.contains("127.") && !text.contains("private") && !text.contains("loopback"), "{text}");
    }
}
