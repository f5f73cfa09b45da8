//! Servers that speak as LND, clnrest, phoenixd and LNbits do, so that the clients are tested over real HTTP.
//!
//! Behind each is a [`FakeWallet`], which settles on command; in front of it are [`ServerFaults`] for what goes wrong. Their
//! bodies are of the documented forms, with the fields nobody reads left out.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::money::Msat;
use crate::wallet::fake::FakeWallet;
use crate::wallet::{History, PaymentHash, Received, Sent};

pub mod cln;
mod front;
pub mod lnbits;
pub mod lnd;
pub mod phoenixd;

/// What a server does instead of answering.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answers this, and does nothing.
    Answer {
        /// With this status.
        status: u16,
        /// And this body.
        body: String,
    },
    /// Never answers.
    Silence,
    /// Begins to answer and never ends.
    Drip,
    /// Answers without an end.
    Flood,
    /// Does what was asked, and answers this.
    Garble(String),
}

/// What goes wrong with a server. All off at first.
#[derive(Debug, Default)]
pub struct ServerFaults {
    set: Mutex<Set>,
}

#[derive(Debug, Default)]
struct Set {
    next: VecDeque<Fault>,
    lie: Option<Msat>,
    other_hash: bool,
}

impl ServerFaults {
    /// The next request meets this. Further ones queue up.
    pub fn next(&self, fault: Fault) {
        self.lock().next.push_back(fault);
    }

    /// Invoices are over this amount, whatever was asked.
    pub fn lie_about_amount(&self, amount: Option<Msat>) {
        self.lock().lie = amount;
    }

    /// Whatever is looked up, another invoice is told of.
    pub fn tell_of_another(&self, other: bool) {
        self.lock().other_hash = other;
    }

    fn amount(&self, asked: Msat) -> Msat {
        self.lock().lie.unwrap_or(asked)
    }

    /// The hash to tell of when `asked` was asked for.
    fn hash(&self, asked: &PaymentHash) -> PaymentHash {
        if self.lock().other_hash { PaymentHash([0x0f; 32]) } else { *asked }
    }

    fn lock(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What every server has behind it.
#[derive(Debug)]
struct Backing {
    wallet: FakeWallet,
    faults: ServerFaults,
    /// How many listen for news.
    listening: watch::Sender<usize>,
}

impl Backing {
    fn new(wallet: FakeWallet) -> Self {
        Self { wallet, faults: ServerFaults::default(), listening: watch::Sender::new(0) }
    }

    /// What was settled, in the order it was.
    async fn settled(&self) -> Vec<Received> {
        let mut settled = History::received(&self.wallet, Timestamp::MIN).await.unwrap_or_default();
        settled.sort_by_key(|one| (one.at, one.payment_hash));
        settled
    }

    /// What was paid, in the order it was.
    async fn paid(&self) -> Vec<Sent> {
        let mut paid = History::sent(&self.wallet, Timestamp::MIN).await.unwrap_or_default();
        paid.sort_by_key(|one| (one.at, one.payment_hash));
        paid
    }

    /// Counts somebody who listens, as long as what is returned lives.
    fn listen(self: &Arc<Self>) -> Listener {
        self.listening.send_modify(|count| *count += 1);
        Listener(Arc::clone(self))
    }
}

struct Listener(Arc<Backing>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.listening.send_modify(|count| *count -= 1);
    }
}

/// A running server.
#[derive(Debug)]
pub struct WalletServer {
    address: SocketAddr,
    backing: Arc<Backing>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl WalletServer {
    /// Serves the routes, behind the faults.
    async fn start(backing: Arc<Backing>, routes: Router) -> io::Result<Self> {
        let guarded = routes.layer(middleware::from_fn_with_state(Arc::clone(&backing), meet_fault));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        // Small answers must not wait for each other.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let task = tokio::spawn(async move {
            // It ends with the process or when it is aborted.
            let _ = axum::serve(listener, guarded).await;
        });
        Ok(Self { address, backing, _tasks: vec![AbortOnDropHandle::new(task)] })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address for a client on this machine.
    pub fn url(&self) -> Url {
        url_of("http", self.address)
    }

    /// The wallet behind it.
    pub fn wallet(&self) -> &FakeWallet {
        &self.backing.wallet
    }

    /// What goes wrong with it.
    pub fn faults(&self) -> &ServerFaults {
        &self.backing.faults
    }

    /// Returns once somebody listens for news.
    pub async fn somebody_listens(&self) {
        let mut listening = self.backing.listening.subscribe();
        // The sender lives as long as the server.
        let _ = listening.wait_for(|count| *count > 0).await;
    }
}

/// The address of a server on loopback.
///
/// # Panics
/// Never: a socket address makes a URL.
pub fn url_of(scheme: &str, address: SocketAddr) -> Url {
    format!("{scheme}://{address}/").parse().expect("a socket address makes a URL")
}

async fn meet_fault(State(backing): State<Arc<Backing>>, request: Request, next: Next) -> Response {
    let fault = backing.faults.lock().next.pop_front();
    match fault {
        None => next.run(request).await,
        Some(Fault::Answer { status, body }) => (code(status), body).into_response(),
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Drip) => {
            let first = stream::iter([Ok::<_, io::Error>("{")]);
            Body::from_stream(first.chain(stream::pending())).into_response()
        }
        Some(Fault::Flood) => {
            let endless = stream::repeat_with(|| Ok::<_, io::Error>("[".repeat(64 * 1024)));
            Body::from_stream(endless).into_response()
        }
        Some(Fault::Garble(body)) => {
            let status = next.run(request).await.status();
            (status, body).into_response()
        }
    }
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// An answer in JSON.
fn json(status: u16, body: &Value) -> Response {
    (code(status), [("content-type", "application/json")], body.to_string()).into_response()
}

/// A header of a request as text.
fn header<'a>(request: &'a axum::http::HeaderMap, name: &str) -> &'a str {
    request.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A hash in hexadecimal, or none.
fn hash(text: &str) -> Option<PaymentHash> {
    text.parse().ok()
}

/// A number of an answer.
fn msat(amount: Msat) -> Value {
    Value::from(amount.as_msat())
}

fn sat(amount: Msat) -> u64 {
    amount.as_msat() / 1_000
}
