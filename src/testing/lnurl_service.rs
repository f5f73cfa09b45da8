//! A lightning address service on loopback, backed by a fake wallet: the other side of LNURL-pay (LUD-06, LUD-16) and of zaps
//! (NIP-57). Its invoices are real BOLT 11, its receipts really signed, and it can be told to cheat.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use jiff::Timestamp;
use nostr::{Event, EventBuilder, JsonUtil, Keys, Kind, Tag};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::identity::Signer;
use crate::job::id::{EventId, ProviderId};
use crate::money::Msat;
use crate::nip90::kinds;
use crate::wallet::fake::{FakeWallet, NETWORK};
use crate::wallet::{InvoiceRequest, PayableInvoice, bolt11};

/// How long its invoices can be paid.
const EXPIRY: Duration = Duration::from_secs(600);

/// How it cheats. The default is honest.
#[derive(Debug, Clone, Default)]
pub struct Cheats {
    /// Answers the address with this instead.
    pub endpoint: Option<Value>,
    /// Makes its invoices over this amount.
    pub amount: Option<Msat>,
    /// Its invoices commit to this text.
    pub commits_to: Option<String>,
    /// Answers the callback with this instead.
    pub invoice: Option<Value>,
    /// Says it does no zaps.
    pub no_zaps: bool,
}

/// A service with one wallet behind every name. Dropping it closes the port.
#[derive(Debug)]
pub struct LnurlService {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    wallet: Mutex<FakeWallet>,
    keys: Mutex<Keys>,
    cheats: Mutex<Cheats>,
    asked: Mutex<usize>,
}

impl Drop for LnurlService {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl LnurlService {
    /// Opens a service that pays into this wallet.
    pub async fn start(wallet: FakeWallet) -> Self {
        // Its clients use TLS elsewhere; `main` chooses for the program.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound port has an address");
        let shared = Arc::new(Shared {
            address,
            wallet: Mutex::new(wallet),
            keys: Mutex::new(Keys::generate()),
            cheats: Mutex::default(),
            asked: Mutex::default(),
        });
        let app = Router::new()
            .route("/.well-known/lnurlp/{name}", get(endpoint))
            .route("/pay/{name}", get(callback))
            .with_state(shared.clone());
        let serving = tokio::spawn(async move {
            // Ends with the task.
            let _ = axum::serve(listener, app).await;
        });
        Self { address, shared, serving }
    }

    /// Somebody's lightning address here.
    pub fn address_of(&self, name: &str) -> String {
        format!("{name}@{}", self.address)
    }

    /// The web address behind a name, without LUD-16.
    pub fn url_of(&self, name: &str) -> String {
        format!("http://{}/.well-known/lnurlp/{name}", self.address)
    }

    /// Pays into another wallet from now on.
    pub fn pay_into(&self, wallet: FakeWallet) {
        *lock(&self.shared.wallet) = wallet;
    }

    /// How it cheats from now on.
    pub fn cheat(&self, cheats: Cheats) {
        *lock(&self.shared.cheats) = cheats;
    }

    /// How often it was asked for an invoice.
    pub fn invoices_asked(&self) -> usize {
        *lock(&self.shared.asked)
    }

    /// Signs its receipts with another key from now on.
    pub fn change_key(&self) {
        *lock(&self.shared.keys) = Keys::generate();
    }

    /// A zap request (kind 9734) of `zapper` for an event of `provider`.
    pub fn zap_request(zapper: &Signer, provider: ProviderId, zapped: EventId, amount: Msat) -> Event {
        let tags = [
            vec!["relays".to_owned(), "wss://relay.example.com".to_owned()],
            vec!["amount".to_owned(), amount.as_msat().to_string()],
            vec!["p".to_owned(), provider.to_string()],
            vec!["e".to_owned(), zapped.to_string()],
        ];
        let tags = tags.into_iter().map(|words| Tag::parse(words).expect("a tag has a name"));
        let builder = EventBuilder::new(Kind::from_u16(kinds::ZAP_REQUEST), "").tags(tags);
        builder.sign_with_keys(zapper.keys()).expect("keys sign")
    }

    /// What the callback answers to a zap request: an invoice that commits to it.
    pub fn zap_invoice(&self, request: &Event, amount: Msat) -> PayableInvoice {
        self.shared.invoice(amount, request.as_json())
    }

    /// The receipt of a zap, signed by the key the service announces, whether it is paid or not.
    pub fn receipt(&self, request: &Event, invoice: &PayableInvoice) -> Event {
        self.receipt_at(request, invoice, Timestamp::now())
    }

    /// The same with another date, so another event.
    pub fn receipt_at(&self, request: &Event, invoice: &PayableInvoice, at: Timestamp) -> Event {
        let keys = lock(&self.shared.keys).clone();
        Self::receipt_by(&keys, request, &invoice.bolt11, at)
    }

    /// Signs anything with the key the service announces.
    pub fn sign(&self, event: EventBuilder) -> Event {
        event.sign_with_keys(&lock(&self.shared.keys)).expect("keys sign")
    }

    /// A receipt signed by anybody.
    pub fn receipt_by(keys: &Keys, request: &Event, bolt11: &str, at: Timestamp) -> Event {
        let tag = |words: [String; 2]| Tag::parse(words).expect("a tag has a name");
        let mut tags: Vec<Tag> = request
            .tags
            .iter()
            .filter(|tag| matches!(tag.as_slice().first().map(String::as_str), Some("p" | "e")))
            .cloned()
            .collect();
        tags.push(tag(["bolt11".into(), bolt11.into()]));
        tags.push(tag(["description".into(), request.as_json()]));
        let at = nostr::Timestamp::from_secs(u64::try_from(at.as_second()).expect("after 1970"));
        let builder = EventBuilder::new(Kind::from_u16(kinds::ZAP_RECEIPT), "").tags(tags).custom_created_at(at);
        builder.sign_with_keys(keys).expect("keys sign")
    }
}

impl Shared {
    /// What it shows to everybody.
    fn metadata(&self, name: &str) -> String {
        json!([["text/plain", format!("for {name}")], ["text/identifier", format!("{name}@{}", self.address)]])
            .to_string()
    }

    fn invoice(&self, amount: Msat, text: String) -> PayableInvoice {
        let request = InvoiceRequest { amount, description: text, expiry: EXPIRY };
        let wallet = lock(&self.wallet).clone();
        let made = wallet.commit_to(&request).expect("the fake wallet makes invoices");
        bolt11::read_for_paying(&made.bolt11, NETWORK, wallet.network().now()).expect("its invoices are good")
    }
}

async fn endpoint(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> impl IntoResponse {
    let cheats = lock(&shared.cheats).clone();
    let answer = cheats.endpoint.unwrap_or_else(|| {
        json!({
            "tag": "payRequest",
            "callback": format!("http://{}/pay/{name}", shared.address),
            "minSendable": 1_000,
            "maxSendable": 100_000_000,
            "metadata": shared.metadata(&name),
            "commentAllowed": 0,
            "allowsNostr": !cheats.no_zaps,
            "nostrPubkey": lock(&shared.keys).public_key().to_hex(),
        })
    });
    ([(CONTENT_TYPE, "application/json")], answer.to_string())
}

async fn callback(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> impl IntoResponse {
    *lock(&shared.asked) += 1;
    let cheats = lock(&shared.cheats).clone();
    let amount = query.get("amount").and_then(|msat| msat.parse().ok()).and_then(|msat| Msat::from_msat(msat).ok());
    let answer = match (cheats.invoice, amount) {
        (Some(answer), _) => answer,
        (None, None) => json!({ "status": "ERROR", "reason": "how much?" }),
        (None, Some(asked)) => {
            let text = query.get("nostr").cloned().unwrap_or_else(|| shared.metadata(&name));
            let text = cheats.commits_to.unwrap_or(text);
            json!({ "pr": shared.invoice(cheats.amount.unwrap_or(asked), text).bolt11, "routes": [] })
        }
    };
    ([(CONTENT_TYPE, "application/json")], answer.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
