//! phoenixd's HTTP interface.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::HeaderMap;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::front::{self, Door};
use super::{Backing, WalletServer, code, hash, header, sat};
use crate::money::Msat;
use crate::wallet::fake::FakeWallet;
use crate::wallet::{InvoiceRequest, InvoiceState, Payer, PaymentHash, Sent, Wallet, WalletError, bolt11};

/// The password that opens it.
pub const PASSWORD: &str = "d8c6f5b2e1a94730";

/// Starts one for `wallet`.
///
/// # Errors
/// When there is no port to listen on.
pub async fn start(wallet: FakeWallet) -> io::Result<WalletServer> {
    let backing = Arc::new(Backing::new(wallet));
    let routes = Router::new()
        .route("/getinfo", get(async || super::json(200, &json!({"nodeId": "02", "channels": [], "chain": "regtest"}))))
        .route("/getbalance", get(balance))
        .route("/createinvoice", post(create))
        .route("/payments/incoming", get(incoming))
        .route("/payments/incoming/{hash}", get(look_up))
        .route("/payinvoice", post(pay))
        .route("/payments/outgoing", get(outgoing))
        .route("/payments/outgoingbyhash/{hash}", get(look_up_outgoing))
        .layer(middleware::from_fn(authorize))
        .with_state(Arc::clone(&backing));
    let server = WalletServer::start(backing, routes).await?;
    let door = Door { path: "/websocket".into(), authorization: Some(basic()), say };
    front::open(server, door).await
}

fn say(_: &Backing, update: &crate::wallet::InvoiceUpdate) -> Option<String> {
    let InvoiceState::Settled { amount, .. } = update.state else { return None };
    let (sat, hash) = (sat(amount), update.payment_hash);
    Some(json!({"type": "payment_received", "timestamp": 1, "amountSat": sat, "paymentHash": hash}).to_string())
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode(format!(":{PASSWORD}")))
}

type Shared = State<Arc<Backing>>;

async fn authorize(headers: HeaderMap, request: Request, next: Next) -> Response {
    if header(&headers, "authorization") == basic() {
        next.run(request).await
    } else {
        words(401, "Invalid authentication (use basic auth with the http password set in phoenix.conf)")
    }
}

fn words(status: u16, words: &str) -> Response {
    (code(status), words.to_owned()).into_response()
}

fn refused(error: &WalletError) -> Response {
    match error {
        WalletError::NotFound => words(404, "Not found"),
        error => words(400, &error.to_string()),
    }
}

async fn balance(State(backing): Shared) -> Response {
    let funds = backing.wallet.funds().unwrap_or(Msat::ZERO);
    super::json(200, &json!({"balanceSat": sat(funds), "feeCreditSat": 0}))
}

fn form(body: &str) -> HashMap<String, String> {
    form_urlencoded::parse(body.as_bytes()).into_owned().collect()
}

async fn create(State(backing): Shared, body: String) -> Response {
    let fields = form(&body);
    let number = |name: &str| fields.get(name).and_then(|text| text.parse::<u64>().ok());
    let asked = number("amountSat").and_then(|sat| Msat::from_sat(sat).ok());
    let (Some(asked), Some(description)) = (asked, fields.get("description")) else {
        return words(400, "Must provide either a description or descriptionHash");
    };
    if description.encode_utf16().count() > 128 {
        return words(400, "Request parameter description is too long (max 128 characters)");
    }
    let request = InvoiceRequest {
        amount: backing.faults.amount(asked),
        description: description.clone(),
        expiry: Duration::from_secs(number("expirySeconds").unwrap_or(3_600)),
    };
    match backing.wallet.create_invoice(&request).await {
        Ok(made) => {
            let (hash, invoice) = (made.payment_hash, made.bolt11);
            super::json(200, &json!({"amountSat": sat(made.amount), "paymentHash": hash, "serialized": invoice}))
        }
        Err(error) => refused(&error),
    }
}

fn describe(backing: &Backing, hash: &PaymentHash) -> Result<Value, WalletError> {
    let record = backing.wallet.record(hash)?;
    let mut told = json!({
        "type": "incoming_payment",
        "subType": "lightning",
        "paymentHash": backing.faults.hash(hash),
        "preimage": "00".repeat(32),
        "description": record.description,
        "invoice": record.bolt11,
        "isPaid": false,
        "isExpired": record.state == InvoiceState::Expired,
        "requestedSat": sat(record.amount),
        "receivedSat": 0,
        "fees": 0,
        "expiresAt": record.expires_at.as_millisecond(),
        "createdAt": 1,
    });
    if let InvoiceState::Settled { amount, at } = record.state {
        told["isPaid"] = true.into();
        told["receivedSat"] = sat(amount).into();
        told["completedAt"] = at.map_or(0, Timestamp::as_millisecond).into();
    }
    Ok(told)
}

async fn look_up(State(backing): Shared, Path(asked): Path<String>) -> Response {
    let Some(hash) = hash(&asked) else { return words(400, "Invalid paymentHash (should be hex32)") };
    match describe(&backing, &hash) {
        Ok(told) => super::json(200, &told),
        Err(error) => refused(&error),
    }
}

/// The part of a list that a page asks for.
fn page<T>(all: Vec<T>, params: &HashMap<String, String>) -> Vec<T> {
    let number = |name: &str| params.get(name).and_then(|text| text.parse::<usize>().ok());
    all.into_iter().skip(number("offset").unwrap_or(0)).take(number("limit").unwrap_or(20)).collect()
}

async fn incoming(State(backing): Shared, Query(params): Query<HashMap<String, String>>) -> Response {
    let settled = page(backing.settled().await, &params);
    let told: Vec<_> = settled.iter().filter_map(|one| describe(&backing, &one.payment_hash).ok()).collect();
    super::json(200, &told.into())
}

async fn pay(State(backing): Shared, body: String) -> Response {
    let Some(invoice) = form(&body).remove("invoice") else { return words(400, "Missing parameter: invoice") };
    let Ok(hash) = bolt11::payment_hash_of(&invoice) else {
        return words(400, "Invalid invoice (should be bolt11invoice)");
    };
    let failed =
        |reason: &str| super::json(200, &json!({"type": "payment_failed", "paymentHash": hash, "reason": reason}));
    if matches!(backing.wallet.payment_made(&hash), Ok(Some(Some(_)))) {
        return failed("this invoice has already been paid");
    }
    match Payer::pay(&backing.wallet, &invoice, Msat::MAX).await {
        Ok(payment) => super::json(
            200,
            &json!({
                "type": "payment_sent",
                "recipientAmountSat": 0,
                "routingFeeSat": payment.fees.map_or(0, sat),
                "paymentId": "961d413c-91ca-4f3d-9d91-760a08405901",
                "paymentHash": hash,
                "paymentPreimage": hex::encode(payment.preimage),
            }),
        ),
        Err(WalletError::InsufficientFunds) => failed("insufficient balance"),
        Err(error) => failed(&error.to_string()),
    }
}

fn describe_outgoing(backing: &Backing, hash: &PaymentHash, sent: Option<&Sent>) -> Option<Value> {
    let (paid, payment) = match backing.wallet.payment_made(hash) {
        Ok(None) => return None,
        Ok(Some(payment)) => (payment.is_some(), payment),
        Err(_) => (false, None),
    };
    let fees = sent.and_then(|sent| sent.fees).unwrap_or(Msat::ZERO);
    let with_fees = sent.map_or(Msat::ZERO, |sent| sent.amount.saturating_add(fees));
    let mut told = json!({
        "type": "outgoing_payment",
        "subType": "lightning",
        "paymentId": "961d413c-91ca-4f3d-9d91-760a08405901",
        "paymentHash": hash,
        "isPaid": paid,
        "sent": sat(with_fees),
        "fees": fees.as_msat(),
        "createdAt": sent.and_then(|sent| sent.at).map_or(1, Timestamp::as_millisecond),
    });
    if let Some(payment) = payment {
        told["preimage"] = hex::encode(payment.preimage).into();
        told["completedAt"] = told["createdAt"].clone();
    }
    Some(told)
}

async fn look_up_outgoing(State(backing): Shared, Path(asked): Path<String>) -> Response {
    let Some(hash) = hash(&asked) else { return words(400, "Invalid paymentHash (should be hex32)") };
    let sent = backing.paid().await.into_iter().find(|one| one.payment_hash == hash);
    match describe_outgoing(&backing, &hash, sent.as_ref()) {
        Some(told) => super::json(200, &told),
        None => words(404, "Not found"),
    }
}

async fn outgoing(State(backing): Shared, Query(params): Query<HashMap<String, String>>) -> Response {
    let sent = page(backing.paid().await, &params);
    let told: Vec<_> =
        sent.iter().filter_map(|one| describe_outgoing(&backing, &one.payment_hash, Some(one))).collect();
    super::json(200, &told.into())
}
