//! LNbits' payments interface.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::HeaderMap;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::front::{self, Door};
use super::{Backing, WalletServer, hash, header, msat};
use crate::money::Msat;
use crate::wallet::fake::FakeWallet;
use crate::wallet::{
    InvoiceRequest, InvoiceState, InvoiceUpdate, Payer, PaymentHash, Sent, Wallet, WalletError, bolt11,
};

/// The key that opens it.
pub const KEY: &str = "5a1b2c3d4e5f60718293a4b5c6d7e8f9";

/// What it sets aside for routing fees of a payment.
const FEE_RESERVE: Msat = Msat::sat(2);

/// Starts one for `wallet`.
///
/// # Errors
/// When there is no port to listen on.
pub async fn start(wallet: FakeWallet) -> io::Result<WalletServer> {
    let backing = Arc::new(Backing::new(wallet));
    let routes = Router::new()
        .route("/api/v1/wallet", get(purse))
        .route("/api/v1/payments", axum::routing::post(create_or_pay))
        .route("/api/v1/payments/paginated", get(list))
        .route(
            "/api/v1/payments/fee-reserve",
            get(async || super::json(200, &json!({"fee_reserve": msat(FEE_RESERVE)}))),
        )
        .route("/api/v1/payments/{hash}", get(look_up))
        .layer(middleware::from_fn(authorize))
        .with_state(Arc::clone(&backing));
    let server = WalletServer::start(backing, routes).await?;
    front::open(server, Door { path: format!("/api/v1/ws/{KEY}"), authorization: None, say }).await
}

fn say(backing: &Backing, update: &InvoiceUpdate) -> Option<String> {
    matches!(update.state, InvoiceState::Settled { .. }).then_some(())?;
    let payment = incoming(backing, &update.payment_hash).ok()?;
    Some(json!({"wallet_balance": 0, "payment": payment}).to_string())
}

type Shared = State<Arc<Backing>>;

async fn authorize(headers: HeaderMap, request: Request, next: Next) -> Response {
    if header(&headers, "x-api-key") == KEY { next.run(request).await } else { failed(401, "Wallet not found.", None) }
}

fn failed(status: u16, detail: &str, of_payment: Option<&str>) -> Response {
    super::json(status, &json!({"detail": detail, "status": of_payment}))
}

async fn purse(State(backing): Shared) -> Response {
    super::json(200, &json!({"name": "stub", "balance": msat(backing.wallet.funds().unwrap_or(Msat::ZERO))}))
}

/// A time as LNbits writes it.
fn written(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+00:00").to_string()
}

fn incoming(backing: &Backing, hash: &PaymentHash) -> Result<Value, WalletError> {
    let record = backing.wallet.record(hash)?;
    let (status, at) = match record.state {
        InvoiceState::Settled { at, .. } => ("success", at),
        InvoiceState::Expired | InvoiceState::Cancelled => ("failed", None),
        InvoiceState::Open | InvoiceState::Held { .. } => ("pending", None),
    };
    let at = written(at.unwrap_or_else(Timestamp::now));
    Ok(json!({
        "checking_id": hash,
        "payment_hash": backing.faults.hash(hash),
        "wallet_id": "stub",
        "amount": msat(record.amount),
        "fee": 0,
        "bolt11": record.bolt11,
        "payment_request": record.bolt11,
        "status": status,
        "memo": record.description,
        "expiry": written(record.expires_at),
        "preimage": "00".repeat(32),
        "time": at,
        "created_at": at,
        "updated_at": at,
        "extra": {},
    }))
}

fn outgoing(backing: &Backing, hash: &PaymentHash, sent: Option<&Sent>) -> Option<Value> {
    let (status, payment) = match backing.wallet.payment_made(hash) {
        Ok(None) => return None,
        Ok(Some(payment)) => (if payment.is_some() { "success" } else { "pending" }, payment),
        Err(_) => ("failed", None),
    };
    let amount = sent.map_or(1, |sent| sent.amount.as_msat().cast_signed());
    let fee = sent.and_then(|sent| sent.fees).map_or(0, |fee| fee.as_msat().cast_signed());
    let at = written(sent.and_then(|sent| sent.at).unwrap_or_else(Timestamp::now));
    Some(json!({
        "checking_id": hash,
        "payment_hash": hash,
        "wallet_id": "stub",
        "amount": -amount,
        "fee": -fee,
        "status": status,
        "preimage": payment.map(|payment| hex::encode(payment.preimage)),
        "time": at,
        "created_at": at,
        "updated_at": at,
    }))
}

async fn look_up(State(backing): Shared, Path(asked): Path<String>) -> Response {
    let unknown = || failed(404, "Payment does not exist.", None);
    let Some(hash) = hash(&asked) else { return unknown() };
    let details = match incoming(&backing, &hash) {
        Ok(details) => Some(details),
        Err(_) => {
            let sent = backing.paid().await.into_iter().find(|one| one.payment_hash == hash);
            outgoing(&backing, &hash, sent.as_ref())
        }
    };
    let Some(details) = details else { return unknown() };
    let body = json!({
        "paid": details["status"] == "success",
        "status": details["status"],
        "preimage": details["preimage"],
        "details": details,
    });
    super::json(200, &body)
}

async fn create_or_pay(State(backing): Shared, body: String) -> Response {
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    if body["out"] == true { pay(&backing, &body).await } else { create(&backing, &body).await }
}

async fn create(backing: &Backing, body: &Value) -> Response {
    let Some(asked) = body["amount"].as_u64().and_then(|sat| Msat::from_sat(sat).ok()) else {
        return super::json(400, &json!({"detail": [{"loc": ["body", "amount"], "msg": "field required"}]}));
    };
    let request = InvoiceRequest {
        amount: backing.faults.amount(asked),
        description: body["memo"].as_str().unwrap_or_default().to_owned(),
        expiry: Duration::from_secs(body["expiry"].as_u64().unwrap_or(3_600)),
    };
    let made = backing.wallet.create_invoice(&request).await;
    match made.and_then(|made| incoming(backing, &made.payment_hash)) {
        Ok(made) => super::json(201, &made),
        Err(error) => failed(520, &error.to_string(), Some("pending")),
    }
}

async fn pay(backing: &Backing, body: &Value) -> Response {
    let invoice = body["bolt11"].as_str().unwrap_or_default();
    let Ok(hash) = bolt11::payment_hash_of(invoice) else {
        return failed(520, "Bolt11 decoding failed.", Some("failed"));
    };
    match backing.wallet.payment_made(&hash) {
        Ok(Some(Some(_))) => return failed(520, "Payment already paid.", Some("success")),
        Ok(Some(None)) => return failed(520, "Payment is still pending.", Some("pending")),
        Ok(None) | Err(_) => {}
    }
    match Payer::pay(&backing.wallet, invoice, FEE_RESERVE).await {
        Ok(_) => {
            let sent = backing.paid().await.into_iter().find(|one| one.payment_hash == hash);
            super::json(201, &outgoing(backing, &hash, sent.as_ref()).unwrap_or_default())
        }
        Err(WalletError::InsufficientFunds) => failed(520, "Insufficient balance.", Some("failed")),
        Err(error) => failed(520, &format!("Payment failed: {error}"), Some("failed")),
    }
}

async fn list(State(backing): Shared, Query(params): Query<HashMap<String, String>>) -> Response {
    let number = |name: &str| params.get(name).and_then(|text| text.parse::<usize>().ok());
    let came = backing.settled().await;
    let mut all: Vec<Value> = came.iter().filter_map(|one| incoming(&backing, &one.payment_hash).ok()).collect();
    for sent in backing.paid().await {
        all.extend(outgoing(&backing, &sent.payment_hash, Some(&sent)));
    }
    all.sort_by_key(|one| std::cmp::Reverse(one["time"].to_string()));
    let total = all.len();
    let page: Vec<Value> =
        all.into_iter().skip(number("offset").unwrap_or(0)).take(number("limit").unwrap_or(20)).collect();
    super::json(200, &json!({"data": page, "total": total}))
}
