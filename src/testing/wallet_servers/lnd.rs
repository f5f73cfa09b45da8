//! LND's REST interface, as the gateway in front of its gRPC speaks it: a subscription is not even answered before there is
//! something to tell.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::HeaderMap;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use futures::Stream;
use futures::stream::{self, BoxStream, StreamExt};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Backing, WalletServer, hash, header, sat};
use crate::money::Msat;
use crate::wallet::fake::FakeWallet;
use crate::wallet::{
    HoldInvoices, InvoiceRequest, InvoiceState, InvoiceUpdate, Payer, Payment, PaymentHash, Wallet, WalletError, bolt11,
};

/// The macaroon that opens it, in hexadecimal.
pub const MACAROON: &str = "0201036c6e64";

#[derive(Debug)]
struct Lnd {
    backing: Arc<Backing>,
    made: Mutex<HashMap<PaymentHash, Made>>,
}

#[derive(Debug, Clone, Copy)]
struct Made {
    add_index: u64,
    at: Timestamp,
    expiry: Duration,
    hold: bool,
}

/// Starts one for `wallet`.
///
/// # Errors
/// When there is no port to listen on.
pub async fn start(wallet: FakeWallet) -> io::Result<WalletServer> {
    let backing = Arc::new(Backing::new(wallet));
    let lnd = Arc::new(Lnd { backing: Arc::clone(&backing), made: Mutex::default() });
    let routes = Router::new()
        .route("/v1/getinfo", get(info))
        .route("/v1/balance/channels", get(channels))
        .route("/v1/balance/blockchain", get(chain))
        .route("/v1/invoices", get(list).post(add))
        .route("/v1/invoices/subscribe", get(subscribe))
        .route("/v1/invoice/{hash}", get(look_up))
        .route("/v1/payments", get(payments))
        .route("/v2/invoices/hodl", post(add))
        .route("/v2/invoices/settle", post(settle))
        .route("/v2/invoices/cancel", post(cancel))
        .route("/v2/invoices/subscribe/{hash}", get(subscribe_one))
        .route("/v2/router/send", post(send))
        .route("/v2/router/track/{hash}", get(track))
        .layer(middleware::from_fn(authorize))
        .with_state(lnd);
    WalletServer::start(backing, routes).await
}

type Shared = State<Arc<Lnd>>;
type Params = Query<HashMap<String, String>>;

async fn authorize(headers: HeaderMap, request: Request, next: Next) -> Response {
    if header(&headers, "grpc-metadata-macaroon") == MACAROON {
        next.run(request).await
    } else {
        failed(500, 2, "verification failed: signature mismatch after caveat verification")
    }
}

fn failed(status: u16, code: i64, message: &str) -> Response {
    super::json(status, &json!({"code": code, "message": message, "details": []}))
}

fn refused(error: &WalletError) -> Response {
    match error {
        WalletError::NotFound => failed(404, 5, "unable to locate invoice"),
        error => failed(500, 2, &error.to_string()),
    }
}

async fn info() -> Response {
    let chains = json!([{"chain": "bitcoin", "network": "regtest"}]);
    super::json(200, &json!({"version": "0.19.3-beta", "alias": "stub", "num_peers": 1, "chains": chains}))
}

async fn channels(State(lnd): Shared) -> Response {
    let funds = lnd.backing.wallet.funds().unwrap_or(Msat::ZERO);
    let local = json!({"sat": sat(funds).to_string(), "msat": funds.as_msat().to_string()});
    let remote = json!({"sat": "5000", "msat": "5000000"});
    let body = json!({"balance": sat(funds).to_string(), "local_balance": local, "remote_balance": remote});
    super::json(200, &body)
}

async fn chain() -> Response {
    super::json(200, &json!({"total_balance": "25000", "confirmed_balance": "25000", "unconfirmed_balance": "0"}))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn amount(value: &Value) -> Option<Msat> {
    Msat::from_msat(text(value).parse().ok()?).ok()
}

async fn add(State(lnd): Shared, body: String) -> Response {
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let Some(asked) = amount(&body["value_msat"]) else { return failed(400, 3, "no value") };
    let expiry = Duration::from_secs(text(&body["expiry"]).parse().unwrap_or(3_600));
    let request = InvoiceRequest {
        amount: lnd.backing.faults.amount(asked),
        description: text(&body["memo"]).to_owned(),
        expiry,
    };
    let held = STANDARD.decode(text(&body["hash"])).ok().and_then(|bytes| bytes.try_into().ok()).map(PaymentHash);
    let wallet = &lnd.backing.wallet;
    let made = match held {
        Some(hash) if wallet.record(&hash).is_ok() => {
            return failed(500, 2, "invoice with payment hash already exists");
        }
        Some(hash) => wallet.create_hold_invoice(&request, &hash, expiry).await,
        None => wallet.create_invoice(&request).await,
    };
    match made {
        Err(error) => refused(&error),
        Ok(made) => {
            let mut known = lnd.made.lock().unwrap_or_else(PoisonError::into_inner);
            let add_index = known.len() as u64 + 1;
            known.insert(made.payment_hash, Made { add_index, at: Timestamp::now(), expiry, hold: held.is_some() });
            let index = add_index.to_string();
            super::json(200, &json!({"payment_request": made.bolt11, "add_index": index, "payment_addr": ""}))
        }
    }
}

impl Lnd {
    fn made(&self) -> HashMap<PaymentHash, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An invoice as LND tells of it.
    async fn invoice(&self, hash: &PaymentHash) -> Result<Value, WalletError> {
        let record = self.backing.wallet.record(hash)?;
        let made = self.made().get(hash).copied().ok_or(WalletError::NotFound)?;
        let settled = self.backing.settled().await;
        let index = settled.iter().position(|one| one.payment_hash == *hash).map_or(0, |before| before + 1);
        let parts = |amount: Msat, state: &str| json!([{"amt_msat": amount.as_msat().to_string(), "state": state}]);
        let (state, paid, htlcs, at) = match record.state {
            InvoiceState::Open => ("OPEN", Msat::ZERO, json!([]), None),
            InvoiceState::Held { amount } => ("ACCEPTED", amount, parts(amount, "ACCEPTED"), None),
            InvoiceState::Settled { amount, at } => ("SETTLED", amount, parts(amount, "SETTLED"), at),
            InvoiceState::Expired => ("CANCELED", Msat::ZERO, json!([]), None),
            InvoiceState::Cancelled => ("CANCELED", Msat::ZERO, parts(record.amount, "CANCELED"), None),
        };
        // One that was made to expire was made so long ago.
        let age = if record.state == InvoiceState::Expired { made.expiry.as_secs().cast_signed() + 1 } else { 0 };
        let known_preimage = !made.hold || state == "SETTLED";
        Ok(json!({
            "memo": record.description,
            "r_preimage": if known_preimage { STANDARD.encode([9; 32]) } else { String::new() },
            "r_hash": STANDARD.encode(self.backing.faults.hash(hash).as_bytes()),
            "value": sat(record.amount).to_string(),
            "value_msat": record.amount.as_msat().to_string(),
            "settled": state == "SETTLED",
            "creation_date": (made.at.as_second() - age).to_string(),
            "settle_date": at.map_or(0, Timestamp::as_second).to_string(),
            "payment_request": record.bolt11,
            "expiry": made.expiry.as_secs().to_string(),
            "cltv_expiry": "144",
            "add_index": made.add_index.to_string(),
            "settle_index": index.to_string(),
            "amt_paid": paid.as_msat().to_string(),
            "amt_paid_sat": sat(paid).to_string(),
            "amt_paid_msat": paid.as_msat().to_string(),
            "state": state,
            "htlcs": htlcs,
            "is_keysend": false,
        }))
    }

    /// News of invoices, each told as it stands.
    async fn news(
        self: &Arc<Self>,
        wanted: impl Fn(&InvoiceUpdate) -> bool + Send + Sync + 'static,
    ) -> BoxStream<'static, Value> {
        let Ok(updates) = self.backing.wallet.updates().await else { return stream::empty().boxed() };
        let lnd = Arc::clone(self);
        let told = updates.filter_map(move |update| {
            let lnd = wanted(&update).then(|| Arc::clone(&lnd));
            async move { lnd?.invoice(&update.payment_hash).await.ok() }
        });
        told.boxed()
    }

    /// Streams as the gateway does: nothing is answered before the first line.
    async fn lines(self: &Arc<Self>, mut lines: impl Stream<Item = Value> + Send + Unpin + 'static) -> Response {
        let listener = self.backing.listen();
        let Some(first) = lines.next().await else { return failed(503, 14, "the server is shutting down") };
        let rest = stream::iter([first]).chain(lines).map(move |line| {
            let _ = &listener;
            Ok::<_, io::Error>(format!("{}\n", json!({"result": line})))
        });
        Body::from_stream(rest).into_response()
    }
}

async fn look_up(State(lnd): Shared, Path(asked): Path<String>) -> Response {
    let Some(hash) = hash(&asked) else { return failed(400, 3, "no hash") };
    match lnd.invoice(&hash).await {
        Ok(invoice) => super::json(200, &invoice),
        Err(error) => refused(&error),
    }
}

async fn list(State(lnd): Shared, Query(params): Params) -> Response {
    let number = |name: &str| params.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let offset = number("index_offset");
    let made = lnd.made();
    let mut page: Vec<_> = made.iter().filter(|(_, made)| offset == 0 || made.add_index < offset).collect();
    page.sort_by_key(|(_, made)| made.add_index);
    let skipped = page.len().saturating_sub(number("num_max_invoices") as usize);
    let mut invoices = Vec::new();
    for (hash, _) in page.split_off(skipped) {
        invoices.extend(lnd.invoice(hash).await.ok());
    }
    let index = |invoice: Option<&Value>| invoice.map_or("0".into(), |invoice| text(&invoice["add_index"]).to_owned());
    let (first, last) = (index(invoices.first()), index(invoices.last()));
    super::json(200, &json!({"invoices": invoices, "last_index_offset": last, "first_index_offset": first}))
}

async fn subscribe(State(lnd): Shared, Query(params): Params) -> Response {
    let live = lnd.news(|update| matches!(update.state, InvoiceState::Settled { .. })).await;
    let since: usize = params.get("settle_index").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut missed = Vec::new();
    if since > 0 {
        for settled in lnd.backing.settled().await.iter().skip(since) {
            missed.extend(lnd.invoice(&settled.payment_hash).await.ok());
        }
    }
    lnd.lines(stream::iter(missed).chain(live)).await
}

fn from_url(text: &str) -> Option<PaymentHash> {
    URL_SAFE.decode(text).ok()?.try_into().ok().map(PaymentHash)
}

async fn subscribe_one(State(lnd): Shared, Path(asked): Path<String>) -> Response {
    let Some(hash) = from_url(&asked) else { return failed(400, 3, "no hash") };
    let live = lnd.news(move |update| update.payment_hash == hash).await;
    let now = match lnd.invoice(&hash).await {
        Ok(now) => now,
        Err(error) => return refused(&error),
    };
    let over = |line: &Value| matches!(text(&line["state"]), "SETTLED" | "CANCELED");
    let mut ended = false;
    let until_over = stream::iter([now]).chain(live).take_while(move |line| {
        let told = !ended;
        ended = over(line);
        std::future::ready(told)
    });
    lnd.lines(until_over).await
}

async fn settle(State(lnd): Shared, body: String) -> Response {
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let preimage: Option<[u8; 32]> = STANDARD.decode(text(&body["preimage"])).ok().and_then(|it| it.try_into().ok());
    let Some(preimage) = preimage else { return failed(400, 3, "no preimage") };
    match HoldInvoices::settle(&lnd.backing.wallet, &preimage).await {
        Ok(()) => super::json(200, &json!({})),
        Err(error) => failed(500, 2, &error.to_string()),
    }
}

async fn cancel(State(lnd): Shared, body: String) -> Response {
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let hash = STANDARD.decode(text(&body["payment_hash"])).ok().and_then(|bytes| bytes.try_into().ok());
    let Some(hash) = hash.map(PaymentHash) else { return failed(400, 3, "no hash") };
    match lnd.backing.wallet.cancel(&hash).await {
        Ok(()) => super::json(200, &json!({})),
        Err(error) => failed(500, 2, &error.to_string()),
    }
}

async fn outgoing(lnd: &Lnd, hash: &PaymentHash, status: &str, reason: &str, payment: Option<Payment>) -> Value {
    let sent = lnd.backing.paid().await.into_iter().find(|one| one.payment_hash == *hash);
    let amount = sent.map_or(Msat::ZERO, |sent| sent.amount);
    let fee = sent.and_then(|sent| sent.fees).unwrap_or(Msat::ZERO);
    let at = sent.and_then(|sent| sent.at).unwrap_or_else(Timestamp::now);
    let parts = payment.as_ref().map(|_| json!({"status": status, "resolve_time_ns": at.as_nanosecond().to_string()}));
    json!({
        "payment_hash": hash,
        "value_sat": sat(amount).to_string(),
        "value_msat": amount.as_msat().to_string(),
        "creation_date": at.as_second().to_string(),
        "fee_msat": fee.as_msat().to_string(),
        "payment_preimage": payment.map_or_else(|| "00".repeat(32), |payment| hex::encode(payment.preimage)),
        "status": status,
        "failure_reason": reason,
        "htlcs": parts.into_iter().collect::<Vec<_>>(),
    })
}

async fn send(State(lnd): Shared, body: String) -> Response {
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let invoice = text(&body["payment_request"]).to_owned();
    let limit = amount(&body["fee_limit_msat"]).unwrap_or(Msat::ZERO);
    let Ok(hash) = bolt11::payment_hash_of(&invoice) else { return failed(500, 2, "invalid payment request") };
    match lnd.backing.wallet.payment_made(&hash) {
        Ok(Some(Some(_))) => return failed(409, 6, "invoice is already paid"),
        Ok(Some(None)) => return failed(409, 6, "payment is in transition"),
        Ok(None) | Err(_) => {}
    }
    let line = match Payer::pay(&lnd.backing.wallet, &invoice, limit).await {
        Ok(payment) => outgoing(&lnd, &hash, "SUCCEEDED", "FAILURE_REASON_NONE", Some(payment)).await,
        Err(WalletError::InsufficientFunds) => {
            outgoing(&lnd, &hash, "FAILED", "FAILURE_REASON_INSUFFICIENT_BALANCE", None).await
        }
        Err(WalletError::PaymentFailed(_)) => outgoing(&lnd, &hash, "FAILED", "FAILURE_REASON_NO_ROUTE", None).await,
        Err(error) => return failed(500, 2, &error.to_string()),
    };
    Body::from(format!("{}\n", json!({"result": line}))).into_response()
}

async fn track(State(lnd): Shared, Path(asked): Path<String>) -> Response {
    let Some(hash) = from_url(&asked) else { return failed(400, 3, "no hash") };
    let line = match lnd.backing.wallet.payment_made(&hash) {
        Ok(None) => {
            let error = json!({"code": 5, "message": "payment isn't initiated", "details": []});
            return super::json(404, &json!({"error": error}));
        }
        Ok(Some(None)) => outgoing(&lnd, &hash, "IN_FLIGHT", "FAILURE_REASON_NONE", None).await,
        Ok(Some(Some(payment))) => outgoing(&lnd, &hash, "SUCCEEDED", "FAILURE_REASON_NONE", Some(payment)).await,
        Err(_) => outgoing(&lnd, &hash, "FAILED", "FAILURE_REASON_INCORRECT_PAYMENT_DETAILS", None).await,
    };
    Body::from(format!("{}\n", json!({"result": line}))).into_response()
}

async fn payments(State(lnd): Shared) -> Response {
    let mut found = Vec::new();
    for sent in lnd.backing.paid().await {
        let payment = lnd.backing.wallet.payment_made(&sent.payment_hash).ok().flatten().flatten();
        found.push(outgoing(&lnd, &sent.payment_hash, "SUCCEEDED", "FAILURE_REASON_NONE", payment).await);
    }
    super::json(200, &json!({"payments": found, "first_index_offset": "1", "last_index_offset": "1"}))
}
