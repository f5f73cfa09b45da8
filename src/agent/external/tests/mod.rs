//! Whole stories. Those of the proxy talk to it as a relay does, frame by frame, so that they can say what no relay would; those
//! of an agent run the relay itself, in a stand-in for a cell.

mod celled;
mod host_cell;
mod hostile;
mod passing;
mod working;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio_util::codec::FramedRead;

use super::frame::{Frames, Kind, MOST_CARRIED, VERSION, put};
use super::*;
use crate::sandbox::Pipe;
use crate::testing::faulty_server::FaultyServer;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);

/// What a job may take where that is not what it is about.
const PLENTY: Allowed =
    Allowed { requests: 100, prompt_tokens: 100_000, generated_tokens: 10_000, bytes: 64 * 1024 * 1024 };

/// The operator's key.
const KEY: &str = "sk-operator-0123456789";

/// A proxy in front of that endpoint, with the model fixed.
fn proxy(endpoint: &Url, allowed: Allowed, bounds: ProxyBounds) -> Arc<Proxy> {
    proxy_with(endpoint, allowed, bounds, KeyHeader::Bearer, Some("fixed"))
}

fn proxy_with(
    endpoint: &Url,
    allowed: Allowed,
    bounds: ProxyBounds,
    header: KeyHeader,
    model: Option<&str>,
) -> Arc<Proxy> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options =
        ServerOptions { connect_timeout: LONG, answer_timeout: LONG, silence: LONG, ..ServerOptions::default() };
    let upstream = Upstream::new(&endpoint.join("v1").unwrap(), Some(&KEY.into()), header, options).unwrap();
    let model = model.map(str::to_owned);
    Arc::new(Proxy::new(Arc::new(upstream), Door::ALL.into(), model, Budget::new(allowed), bounds))
}

/// An endpoint that answers everything so.
async fn endpoint(head: &'static str, body: impl Into<String>) -> FaultyServer {
    let body = body.into();
    let whole = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    FaultyServer::scripted(move |_| Some(whole.clone())).await.unwrap()
}

/// An endpoint that answers a chat.
async fn chatting() -> FaultyServer {
    let answer =
        json!({"choices": [{"message": {"content": "hello"}}], "usage": {"prompt_tokens": 7, "completion_tokens": 3}});
    endpoint("200 OK\r\ncontent-type: application/json\r\nset-cookie: a=b\r\nx-request-id: 7", answer.to_string()).await
}

/// The test as a relay, and the link it talks to.
struct Relay {
    to_us: DuplexStream,
    from_us: FramedRead<DuplexStream, Frames>,
    last: u32,
    came: BTreeMap<u32, Vec<u8>>,
    over: Vec<u32>,
    link: JoinHandle<Broken>,
}

impl Relay {
    /// A relay that has said hello, in front of that proxy.
    async fn of(proxy: &Arc<Proxy>) -> Self {
        let (to_us, stdout) = tokio::io::duplex(64 * 1024);
        let (stdin, from_us) = tokio::io::duplex(64 * 1024);
        let pipe = Pipe { stdin: Box::new(stdin), stdout: Box::new(stdout) };
        let proxy = Arc::clone(proxy);
        let link = tokio::spawn(async move {
            match Link::open(pipe, "do it", LONG, u64::MAX).await {
                Ok(link) => link.serve(|wire| Arc::clone(&proxy).serve(wire).boxed()).await,
                Err(broken) => broken,
            }
        });
        let from_us = FramedRead::new(from_us, Frames);
        let mut relay = Self { to_us, from_us, last: 0, came: BTreeMap::new(), over: Vec::new(), link };
        relay.send(Kind::Hello, 0, &[VERSION]).await;
        let file = relay.from_us.next().await.unwrap().unwrap();
        assert_eq!((file.kind, &file.carried[..]), (Kind::File, &b"do it"[..]));
        assert_eq!(relay.from_us.next().await.unwrap().unwrap().kind, Kind::Start);
        relay
    }

    async fn send(&mut self, kind: Kind, id: u32, carried: &[u8]) {
        let mut bytes = BytesMut::new();
        put(&mut bytes, kind, id, carried);
        self.raw(&bytes).await;
    }

    async fn raw(&mut self, bytes: &[u8]) {
        self.to_us.write_all(bytes).await.expect("the link is open");
    }

    /// Opens a connection and says that.
    async fn connect(&mut self, said: &[u8]) -> u32 {
        self.last += 1;
        let id = self.last;
        self.send(Kind::Open, id, &[]).await;
        for piece in said.chunks(MOST_CARRIED) {
            self.send(Kind::Data, id, piece).await;
        }
        id
    }

    /// Takes the next frame; `false` when there is none.
    async fn hear(&mut self) -> bool {
        let Some(Ok(frame)) = self.from_us.next().await else { return false };
        match frame.kind {
            Kind::Data => {
                let size = u32::try_from(frame.carried.len()).unwrap();
                self.came.entry(frame.id).or_default().extend_from_slice(&frame.carried);
                self.send(Kind::Credit, frame.id, &size.to_be_bytes()).await;
            }
            Kind::End | Kind::Reset => self.over.push(frame.id),
            _ => {}
        }
        true
    }

    /// All that comes on a connection until it ends.
    async fn answer(&mut self, id: u32) -> Reply {
        while !self.over.contains(&id) && self.hear().await {}
        Reply::read(&self.came.remove(&id).unwrap_or_default())
    }

    /// Says that on a connection of its own, and takes the answer.
    async fn ask(&mut self, said: impl AsRef<[u8]>) -> Reply {
        let id = self.connect(said.as_ref()).await;
        self.answer(id).await
    }

    async fn chat(&mut self, body: &Value) -> Reply {
        self.ask(post("/v1/chat/completions", body)).await
    }

    /// Ends the pipe, and says why the link ended.
    async fn hang_up(self) -> Broken {
        let Self { to_us, from_us, link, .. } = self;
        drop((to_us, from_us));
        link.await.unwrap()
    }
}

/// A request that is the last on its connection.
fn post(path: &str, body: &Value) -> String {
    let body = body.to_string();
    format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn read(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            chunks(body)
        } else {
            body.to_owned()
        };
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_ascii_lowercase(), body }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The word for programs, in an error.
    fn kind(&self) -> String {
        self.json()["error"]["type"].as_str().unwrap_or_default().to_owned()
    }
}

/// A body without what its chunks are told by, as far as it came.
fn chunks(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        let Some(chunk) = rest.get(..size) else { break };
        whole.push_str(chunk);
        body = rest.get(size + 2..).unwrap_or_default();
    }
    whole
}

/// The lines of a transcript.
fn lines(journal: &str) -> Vec<Value> {
    journal.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
