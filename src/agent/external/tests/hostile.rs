//! What a hostile cell may try. Nothing panics, nothing grows without bound, and the endpoint hears of none of it.

use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use super::*;

/// Bounds that are soon reached.
fn tight() -> ProxyBounds {
    let soon = Duration::from_millis(50);
    ProxyBounds { request_bytes: 10_000, at_once: 1, head_time: soon, body_time: soon, ..ProxyBounds::default() }
}

#[tokio::test]
async fn garbage_on_the_pipe_ends_the_link_and_nothing_else() {
    let server = chatting().await;
    let proxy = proxy(&server.url(), PLENTY, ProxyBounds::default());
    for garbage in
        [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &[0; 64], &[0xff; 7], &[3, 0, 0, 0, 9, 0, 1, 7], &[1, 0, 0, 0, 0, 0, 1, 1]]
    {
        let mut relay = Relay::of(&proxy).await;
        relay.raw(garbage).await;
        let broken = relay.link.await.unwrap();
        assert!(matches!(broken, Broken::Garbage | Broken::OutOfPlace(_)), "{garbage:?}: {broken}");
    }
    // Half a frame is waited for, and is nothing once the pipe ends.
    let mut relay = Relay::of(&proxy).await;
    relay.raw(&[3, 0, 0]).await;
    assert!(matches!(relay.hang_up().await, Broken::Closed | Broken::Pipe(_)));
    assert_eq!(server.asked(), [""; 0]);
}

#[tokio::test]
async fn a_relay_that_says_no_hello_is_none() {
    for said in [&b""[..], b"python3: not found", &[1, 0, 0, 0, 0, 0, 1, 99], &[2, 0, 0, 0, 1, 0, 0]] {
        let (mut to_us, stdout) = tokio::io::duplex(1_024);
        let (stdin, mut from_us) = tokio::io::duplex(1_024);
        let pipe = Pipe { stdin: Box::new(stdin), stdout: Box::new(stdout) };
        to_us.write_all(said).await.unwrap();
        drop(to_us);
        let opened = Link::open(pipe, "", LONG, u64::MAX).await;
        assert!(opened.is_err(), "{said:?}");
        let mut told = Vec::new();
        from_us.read_to_end(&mut told).await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_a_relay_says_the_link_ends_without_a_panic(said in proptest::collection::vec(any::<u8>(), 0..4_000)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let proxy = proxy(&"http://127.0.0.1:1/".parse().unwrap(), PLENTY, ProxyBounds::default());
            let mut relay = Relay::of(&proxy).await;
            // The link may have ended before all is said.
            let _ = relay.to_us.write_all(&said).await;
            relay.hang_up().await;
        });
    }

    #[test]
    fn whatever_a_connection_says_the_next_one_is_served(said in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let proxy = proxy(&"http://127.0.0.1:1/".parse().unwrap(), PLENTY, ProxyBounds::default());
            let mut relay = Relay::of(&proxy).await;
            let id = relay.connect(&said).await;
            relay.send(Kind::End, id, &[]).await;
            let mut garbled = b"POST /v1/chat/completions HTTP/1.1\r\n".to_vec();
            garbled.extend_from_slice(&said);
            let other = relay.connect(&garbled).await;
            relay.send(Kind::End, other, &[]).await;
            assert_eq!(relay.ask(get("/v1/models")).await.status, 200);
        });
    }
}

#[tokio::test]
async fn connections_that_say_nothing_are_few_and_do_not_last() {
    let server = chatting().await;
    let proxy = proxy(&server.url(), PLENTY, tight());
    let mut relay = Relay::of(&proxy).await;
    for _ in 0..1_000 {
        relay.connect(b"").await;
        // Turned away at once, or after a while.
        while relay.last as usize - relay.over.len() > super::super::connections::MOST_OPEN {
            assert!(relay.hear().await);
        }
    }
    while relay.over.len() < 1_000 {
        assert!(relay.hear().await);
    }
    assert_eq!(relay.chat(&json!({"messages": []})).await.status, 200);
}

#[tokio::test]
async fn a_request_that_never_comes_to_its_end_is_given_up() {
    let server = chatting().await;
    let proxy = proxy(&server.url(), PLENTY, tight());
    let mut relay = Relay::of(&proxy).await;
    for half in ["POST /v1/chat/comp", "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-a"] {
        let reply = relay.ask(half).await;
        assert!(matches!(reply.status, 0 | 408), "{reply:?}");
    }
    let half = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"mess";
    assert_eq!(relay.ask(half).await.status, 408);
    let half = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"a\":";
    assert_eq!(relay.ask(half).await.status, 408);
    // The only turn there is was given back.
    assert_eq!(relay.chat(&json!({"messages": []})).await.status, 200);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn heads_and_bodies_are_bounded() {
    let server = chatting().await;
    let bounds = ProxyBounds { request_bytes: 10_000, ..ProxyBounds::default() };
    let proxy = proxy(&server.url(), PLENTY, bounds);
    let mut relay = Relay::of(&proxy).await;
    let line = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n";
    let long = format!("{line}x-long: {}\r\n\r\n", "a".repeat(40_000));
    let many = format!("{line}{}\r\n", "x-many: a\r\n".repeat(200));
    let endless = format!("{line}x-endless: {}", "a".repeat(60_000));
    let path = format!("POST /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(40_000));
    for (said, status) in [(long, 431), (many, 431), (endless, 431), (path, 431)] {
        let reply = relay.ask(&said).await;
        assert!(reply.status == status || reply.status == 414, "{reply:?}");
    }
    let announced = format!("{line}content-length: 99999999999\r\n\r\n{{");
    assert_eq!(relay.ask(announced).await.status, 413);
    let chunk = format!("2000\r\n{}\r\n", "a".repeat(0x2000));
    let chunked = format!("{line}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}");
    assert_eq!(relay.ask(chunked).await.status, 413);
    let exact = json!({"messages": [], "pad": "a".repeat(9_900)});
    assert_eq!(relay.chat(&exact).await.status, 200);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn nothing_can_be_smuggled_past_a_request() {
    let server = chatting().await;
    let proxy = proxy(&server.url(), PLENTY, ProxyBounds::default());
    let mut relay = Relay::of(&proxy).await;
    let line = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let inner = "GET /v1/secret HTTP/1.1\r\nhost: x\r\n\r\n";
    let body = "{\"messages\":[]}";
    for said in [
        format!("{line}content-length: 4\r\ncontent-length: 15\r\n\r\n{body}{inner}"),
        format!("{line}content-length: 4, 15\r\n\r\n{body}{inner}"),
        format!("{line}content-length: +15\r\n\r\n{body}{inner}"),
        format!("{line}content-length: 15\r\ntransfer-encoding: chunked\r\n\r\nf\r\n{body}\r\n0\r\n\r\n{inner}"),
        format!(
            "{line}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\nf\r\n{body}\r\n0\r\n\r\n{inner}"
        ),
        format!("{line}transfer-encoding: xchunked\r\n\r\nf\r\n{body}\r\n0\r\n\r\n{inner}"),
        format!("{line}transfer-encoding : chunked\r\n\r\nf\r\n{body}\r\n0\r\n\r\n{inner}"),
        format!("{line}x-a: b\r\n c: d\r\ncontent-length: 15\r\n\r\n{body}{inner}"),
        format!("{line}content-length: 15\r\n\r\n{body}{inner}"),
        "POST /v1/chat/completions\r\nGET /v1/secret HTTP/1.1\r\n\r\n".into(),
        format!("{line}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{body}"),
    ] {
        relay.ask(&said).await;
    }
    for heard in server.heard() {
        let (head, body) = heard.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("post /v1/chat/completions http/1.1"), "{head}");
        assert!(
            !head.contains("transfer-encoding") && head.contains(&format!("content-length: {}", body.len())),
            "{head}"
        );
        assert_eq!(serde_json::from_str::<Value>(body).unwrap(), json!({"messages": [], "model": "fixed"}));
    }
    assert!(!server.heard().concat().contains("secret"));
}

#[tokio::test]
async fn a_cell_that_takes_no_answers_makes_nobody_hold_them() {
    let body = json!({"content": "a".repeat(4 * 1024 * 1024), "usage": {"prompt_tokens": 1, "completion_tokens": 1}});
    let server = endpoint("200 OK\r\ncontent-type: application/json", body.to_string()).await;
    let bounds = ProxyBounds { at_once: 2, ..ProxyBounds::default() };
    let mut relay = Relay::of(&proxy(&server.url(), PLENTY, bounds)).await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(relay.connect(post("/v1/chat/completions", &json!({"messages": []})).as_bytes()).await);
    }
    // Each gets a window and no more, until it takes what it was sent.
    let mut came: BTreeMap<u32, usize> = BTreeMap::new();
    while came.values().sum::<usize>() < 2 * super::super::connections::WINDOW {
        let frame = relay.from_us.next().await.unwrap().unwrap();
        *came.entry(frame.id).or_default() += frame.carried.len();
    }
    assert!(came.values().all(|came| *came <= super::super::connections::WINDOW), "{came:?}");
    assert!(matches!(relay.hang_up().await, Broken::Closed | Broken::Pipe(_)));
}
