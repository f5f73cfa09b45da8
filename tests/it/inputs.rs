//! Inputs that a request only points at.

use std::net::SocketAddr;
use std::time::Duration;

use coinop::fetch::{FetchLimits, Fetcher};
use coinop::identity::Signer;
use coinop::inference::echo::Echo;
use coinop::job::{Code, Input, InputKind, Terms};
use coinop::nip90::Order;
use coinop::testing::market::{Customer, TestMarket, within};
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

fn order_of(customer: &Customer, data: String, kind: InputKind) -> Order {
    let inputs = vec![Input { data, kind, relay: None, marker: None }];
    Order { inputs, ..customer.order("") }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_read_from_the_relays() {
    let market = TestMarket::new().terms(Terms::Free).start().await;
    let customer = market.customer().await;
    let note = customer.raw::<&str>(1, &[], "a note to work on", jiff::Timestamp::now());
    customer.send(&note).await;
    let mut posted = customer.post(&order_of(&customer, note.id.to_string(), InputKind::Event)).await;
    assert_eq!(posted.result().await.content, "a note to work on");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_waited_for_and_its_result_is_the_input() {
    let echo = Echo::new().gated();
    let market = TestMarket::new().terms(Terms::Free).backend(echo.clone()).start().await;
    let customer = market.customer().await;
    let mut first = customer.post(&customer.order("the first of two")).await;
    within("the first run", echo.wait_for_runs(1)).await;
    let mut second = customer.post(&order_of(&customer, first.job.to_string(), InputKind::Job)).await;
    echo.release(2);
    assert_eq!(first.result().await.content, "the first of two");
    assert_eq!(second.result().await.content, "the first of two");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_refused_by_who_does_not_fetch() {
    let market = TestMarket::new().start().await;
    let customer = market.customer().await;
    let order = order_of(&customer, "https://example.com/prompt.txt".to_owned(), InputKind::Url);
    let refusal = customer.post(&order).await.refusal().await;
    assert_eq!(refusal.code, Code::Unsupported);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_fetched_by_who_does() {
    let page = Page::with(b"what the page says".to_vec()).await;
    let market = TestMarket::new().terms(Terms::Free).fetcher(fetcher()).start().await;
    let customer = market.customer().await;
    let mut posted = customer.post(&order_of(&customer, page.url(), InputKind::Url)).await;
    assert_eq!(posted.result().await.content, "what the page says");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_of_another_provider_that_the_job_named_is_an_input_and_nobody_else_s_is() {
    let market = TestMarket::new().terms(Terms::Free).start().await;
    let relays = [market.relay(0).url()];
    let customer = market.customer().await;
    let (other, stranger) = (Signer::random(), market.customer().await);
    let order = Order { providers: vec![other.provider_id()], ..customer.order("for another provider") };
    let request = customer.sign(&order);
    customer.send(&request).await;
    let (job, asker) = (request.id.to_string(), customer.signer.public_hex());
    let answer = |by: &Customer, words: &str| {
        by.raw(6050, &[["e", job.as_str()].as_slice(), &["p", asker.as_str()]], words, Timestamp::now())
    };
    stranger.send(&answer(&stranger, "what a stranger says")).await;
    let mut second = customer.post(&order_of(&customer, job.clone(), InputKind::Job)).await;
    // Waited for: the second job is there before the first one's result.
    customer.ping().await;
    let other = market.customer_as(other, &relays).await;
    other.send(&answer(&other, "what the other provider says")).await;
    assert_eq!(second.result().await.content, "what the other provider says");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_never_ends_is_waited_for_a_bounded_time_and_before_anything_is_paid() {
    let market = TestMarket::new().job_patience(Duration::from_millis(50)).start().await;
    let customer = market.customer().await;
    let unpaid = customer.post(&customer.order("never paid")).await;
    let refusal = customer.post(&order_of(&customer, unpaid.job.to_string(), InputKind::Job)).await.refusal().await;
    assert_eq!(refusal.code, Code::Timeout);
    assert!(refusal.text.contains(&unpaid.job.to_string()), "{}", refusal.text);
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_before_money_moves() {
    let (huge, broken) = (Page::with(vec![b'w'; 10_000_000]).await, Page::with(b"caf\xe9".to_vec()).await);
    let echo = Echo::new();
    let market = TestMarket::new().backend(echo.clone()).fetcher(fetcher()).start().await;
    let customer = market.customer().await;
    let provider = market.provider().public_hex();
    let to_us = ["p", provider.as_str()];
    let (huge, broken, long, words) = (huge.url(), broken.url(), "w".repeat(100_000), "w ".repeat(5_000));
    let hello: &[&str] = &["i", "hello", "text"];
    let cases: &[(&[&[&str]], &[&str])] = &[
        (&[hello, &["param", "model", "gpt-9"]], &["param model", "gpt-9", "echo"]),
        (&[hello, &["param", "temperature", "2.1"]], &["param temperature", "2.1", "0 to 2"]),
        (&[hello, &["param", "temperature", "-0.1"]], &["param temperature", "-0.1"]),
        (&[hello, &["param", "max_tokens", "0"]], &["param max_tokens", "'0'", "1 to 4096"]),
        (&[hello, &["param", "max_tokens", "4097"]], &["param max_tokens", "4097", "1 to 4096"]),
        (&[hello, &["param", "max_tokens", "4096"]], &["param max_tokens", "the prompt has 1 tokens", "4096 together"]),
        (&[], &["no prompt", "i tag"]),
        (&[&["i", "", "text"]], &["no prompt", "i tag"]),
        (&[&["i", " \n", "text"]], &["no prompt", "i tag"]),
        (&[&["i", &long, "text"]], &["inputs", "100000 bytes", "at most 32768"]),
        (&[&["i", &words, "text"]], &["the prompt has 5000 tokens", "4096 together"]),
        (&[&["i", &huge, "url"]], &["input url", "larger than 131072 bytes"]),
        (&[&["i", &broken, "url"]], &["input url", "not valid UTF-8"]),
    ];
    for (bad, named) in cases {
        let mut tags = vec![to_us.as_slice()];
        tags.extend(*bad);
        let refusal = customer.publish(&customer.raw(5050, &tags, "", Timestamp::now())).await.refusal().await;
        assert!(matches!(refusal.code, Code::BadRequest | Code::Unsupported), "{refusal:?}");
        for name in *named {
            assert!(refusal.text.contains(name), "'{}' does not say '{name}'", refusal.text);
        }
        assert!(!refusal.text.contains("127.0.0.1"), "{}", refusal.text);
    }
    // What is larger than any event may be is not even read.
    let million = "w".repeat(1_000_000);
    let tags = [to_us.as_slice(), &["i", &million, "text"]];
    let dropped = customer.publish(&customer.raw(5050, &tags, "", Timestamp::now())).await;
    customer.ping().await;

    let store = market.service().provider().store();
    assert!(store.list_jobs(Default::default()).await.unwrap().is_empty(), "no job, so no invoice");
    assert_eq!(echo.runs(), 0);
    market.finish().await.was_silent_about(dropped.job).await;
}

fn fetcher() -> Fetcher {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Fetcher::new(FetchLimits { allow_private: true, ..FetchLimits::default() })
}

/// A page on loopback that says the same to everybody.
struct Page {
    address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl Page {
    async fn with(body: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n";
                // Who has read enough hangs up.
                let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
            }
        });
        Self { address, _serving: AbortOnDropHandle::new(serving) }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}
