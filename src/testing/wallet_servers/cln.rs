//! clnrest: the node's methods, with those of the hold plugin if wanted.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use futures::StreamExt;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use lightning_invoice::{Bolt11Invoice, SignedRawBolt11Invoice};
use serde_json::{Value, json};

use super::{Backing, WalletServer, hash, header, msat};
use crate::money::Msat;
use crate::wallet::fake::{FakeWallet, NETWORK};
use crate::wallet::{
    HoldInvoices, InvoiceRequest, InvoiceState, Payer, PaymentHash, Received, Wallet, WalletError, bolt11,
};

/// The rune that opens it.
pub const RUNE: &str =
    "tU-RLjMiDpY2U0o3W1oFowar36RFGpWloPbW9-RuZdo9MyZpZD0wMjRiOWE1ZmE4ZTAwNmYxZTM5MzdmNjVmNjZjNDA4ZTZkYThlMWNhNzI4ZWE";

#[derive(Debug)]
struct Cln {
    backing: Arc<Backing>,
    plugin: bool,
    made: Mutex<Made>,
}

/// What was made: invoices in their order, hold invoices as they were injected.
#[derive(Debug, Default)]
struct Made {
    invoices: Vec<PaymentHash>,
    held: HashMap<PaymentHash, String>,
}

/// Starts one for `wallet`, with the hold plugin or without.
///
/// # Errors
/// When there is no port to listen on.
pub async fn start(wallet: FakeWallet, plugin: bool) -> io::Result<WalletServer> {
    let backing = Arc::new(Backing::new(wallet));
    let cln = Arc::new(Cln { backing: Arc::clone(&backing), plugin, made: Mutex::default() });
    let routes = Router::new().route("/v1/{method}", post(call)).with_state(cln);
    WalletServer::start(backing, routes).await
}

/// An error of the node.
type Failure = (i64, String);

fn refused(error: &WalletError) -> Failure {
    (-1, error.to_string())
}

async fn call(State(cln): State<Arc<Cln>>, Path(method): Path<String>, headers: HeaderMap, body: String) -> Response {
    match header(&headers, "rune") {
        RUNE => {}
        "" => return failed(403, 1_501, "Not authorized: Missing rune"),
        _ => return failed(401, 1_502, "Not permitted: rune is not valid"),
    }
    let params: Value = serde_json::from_str(&body).unwrap_or_default();
    match cln.carry_out(&method, &params).await {
        Ok(result) => super::json(201, &result),
        Err((-32_601, message)) => failed(404, -32_601, &message),
        Err((code, message)) => failed(500, code, &message),
    }
}

fn failed(status: u16, code: i64, message: &str) -> Response {
    super::json(status, &json!({"code": code, "message": message, "data": null}))
}

fn text(params: &Value, name: &str) -> String {
    params[name].as_str().unwrap_or_default().to_owned()
}

impl Cln {
    async fn carry_out(&self, method: &str, params: &Value) -> Result<Value, Failure> {
        match method {
            "getinfo" => Ok(json!({"id": "02", "alias": "stub", "network": "regtest", "version": "v25.09"})),
            "help" => Ok(self.help()),
            "invoice" => self.invoice(params).await,
            "listinvoices" => Ok(self.list_invoices(params).await),
            "waitanyinvoice" => self.wait_any(params).await,
            "wait" => Ok(self.wait(params).await),
            "pay" => self.pay(params).await,
            "listpays" => Ok(self.list_pays(params)),
            "listsendpays" => Ok(self.list_sendpays().await),
            "listpeerchannels" => {
                let funds = self.backing.wallet.funds().unwrap_or(Msat::ZERO);
                let used =
                    json!({"state": "CHANNELD_NORMAL", "spendable_msat": msat(funds), "receivable_msat": 5_000_000});
                let closing = json!({"state": "ONCHAIN", "spendable_msat": 1, "receivable_msat": 1});
                Ok(json!({"channels": [used, closing]}))
            }
            "listfunds" => Ok(json!({"outputs": [{"status": "confirmed", "amount_msat": 25_000_000}], "channels": []})),
            "signinvoice" => sign(params),
            "injectholdinvoice" if self.plugin => self.inject(params).await,
            "listholdinvoices" if self.plugin => Ok(self.list_held(params)),
            "settleholdinvoice" if self.plugin => {
                let preimage = hex::decode(text(params, "preimage")).ok().and_then(|bytes| bytes.try_into().ok());
                let preimage: [u8; 32] = preimage.ok_or((-32_602, "preimage".to_owned()))?;
                HoldInvoices::settle(&self.backing.wallet, &preimage).await.map_err(|error| refused(&error))?;
                Ok(json!({}))
            }
            "cancelholdinvoice" if self.plugin => {
                let hash = hash(&text(params, "payment_hash")).ok_or((-32_602, "payment_hash".to_owned()))?;
                self.backing.wallet.cancel(&hash).await.map_err(|error| refused(&error))?;
                Ok(json!({}))
            }
            other => Err((-32_601, format!("Unknown command '{other}'"))),
        }
    }

    fn help(&self) -> Value {
        let node = ["getinfo", "invoice amount_msat label description [expiry]", "signinvoice invstring"];
        let plugin = [
            "listholdinvoices [payment_hash] [bolt11]",
            "injectholdinvoice invoice",
            "settleholdinvoice preimage",
            "cancelholdinvoice payment_hash",
        ];
        let known = node.iter().chain(plugin.iter().filter(|_| self.plugin));
        json!({"help": known.map(|command| json!({"command": command})).collect::<Vec<_>>()})
    }

    async fn invoice(&self, params: &Value) -> Result<Value, Failure> {
        let asked = params["amount_msat"].as_u64().and_then(|msat| Msat::from_msat(msat).ok());
        let request = InvoiceRequest {
            amount: self.backing.faults.amount(asked.ok_or((-32_602, "amount_msat".to_owned()))?),
            description: text(params, "description"),
            expiry: Duration::from_secs(params["expiry"].as_u64().unwrap_or(604_800)),
        };
        let made = self.backing.wallet.create_invoice(&request).await.map_err(|error| refused(&error))?;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).invoices.push(made.payment_hash);
        Ok(json!({"bolt11": made.bolt11, "payment_hash": made.payment_hash, "expires_at": made.expires_at.as_second()}))
    }

    fn made(&self) -> Vec<PaymentHash> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).invoices.clone()
    }

    /// Payments of the node's own invoices, in their order.
    async fn payments(&self) -> Vec<Received> {
        let made = self.made();
        let settled = self.backing.settled().await.into_iter();
        settled.filter(|one| made.contains(&one.payment_hash)).collect()
    }

    async fn describe(&self, hash: &PaymentHash) -> Option<Value> {
        let created_index = self.made().iter().position(|one| one == hash)? + 1;
        let record = self.backing.wallet.record(hash).ok()?;
        let mut told = json!({
            "label": format!("stub-{created_index}"),
            "bolt11": record.bolt11,
            "payment_hash": self.backing.faults.hash(hash),
            "amount_msat": msat(record.amount),
            "description": record.description,
            "expires_at": record.expires_at.as_second(),
            "created_index": created_index,
        });
        match record.state {
            InvoiceState::Settled { amount, at } => {
                let index = self.payments().await.iter().position(|one| one.payment_hash == *hash)? + 1;
                told["status"] = "paid".into();
                told["pay_index"] = index.into();
                told["amount_received_msat"] = msat(amount);
                told["paid_at"] = at?.as_second().into();
            }
            InvoiceState::Open => told["status"] = "unpaid".into(),
            _ => told["status"] = "expired".into(),
        }
        Some(told)
    }

    async fn list_invoices(&self, params: &Value) -> Value {
        let wanted = match hash(&text(params, "payment_hash")) {
            Some(hash) => vec![hash],
            None => {
                let start = params["start"].as_u64().unwrap_or(1).max(1) as usize;
                let limit = params["limit"].as_u64().unwrap_or(u64::MAX) as usize;
                self.made().into_iter().skip(start - 1).take(limit).collect()
            }
        };
        let mut found = Vec::new();
        for hash in wanted {
            found.extend(self.describe(&hash).await);
        }
        json!({"invoices": found})
    }

    async fn wait_any(&self, params: &Value) -> Result<Value, Failure> {
        let last = params["lastpay_index"].as_u64().unwrap_or(0) as usize;
        let timeout = Duration::from_secs(params["timeout"].as_u64().unwrap_or(u64::MAX));
        let nothing = || (904, "Timed out while waiting for invoice to be paid".to_owned());
        let _listener = (!timeout.is_zero()).then(|| self.backing.listen());
        let mut news = self.backing.wallet.updates().await.map_err(|error| refused(&error))?;
        let paid = async {
            loop {
                if let Some(paid) = self.payments().await.get(last) {
                    return self.describe(&paid.payment_hash).await.ok_or_else(nothing);
                }
                news.next().await.ok_or((-4, "shutting down".to_owned()))?;
            }
        };
        if timeout.is_zero() {
            return match self.payments().await.get(last) {
                Some(paid) => self.describe(&paid.payment_hash).await.ok_or_else(nothing),
                None => Err(nothing()),
            };
        }
        tokio::time::timeout(timeout, paid).await.unwrap_or_else(|_| Err(nothing()))
    }

    async fn wait(&self, params: &Value) -> Value {
        let created = match text(params, "subsystem").as_str() {
            "invoices" => self.made().len(),
            _ => self.backing.paid().await.len(),
        };
        json!({"subsystem": params["subsystem"], "created": created})
    }

    async fn pay(&self, params: &Value) -> Result<Value, Failure> {
        let invoice = text(params, "bolt11");
        let limit = params["maxfee"].as_u64().and_then(|msat| Msat::from_msat(msat).ok()).unwrap_or(Msat::ZERO);
        let read = bolt11::read_for_paying(&invoice, NETWORK, Timestamp::now())
            .map_err(|error| (-32_602, error.to_string()))?;
        match Payer::pay(&self.backing.wallet, &invoice, limit).await {
            Ok(payment) => {
                let sent = read.amount.saturating_add(payment.fees.unwrap_or(Msat::ZERO));
                Ok(json!({
                    "payment_hash": read.payment_hash,
                    "payment_preimage": hex::encode(payment.preimage),
                    "amount_msat": msat(read.amount),
                    "amount_sent_msat": msat(sent),
                    "parts": 1,
                    "status": "complete",
                }))
            }
            Err(error @ (WalletError::InsufficientFunds | WalletError::PaymentFailed(_))) => {
                Err((210, format!("Ran out of routes to try: {error}")))
            }
            Err(error) => Err(refused(&error)),
        }
    }

    fn list_pays(&self, params: &Value) -> Value {
        let Some(hash) = hash(&text(params, "payment_hash")) else { return json!({"pays": []}) };
        let pay = match self.backing.wallet.payment_made(&hash) {
            Ok(None) => return json!({"pays": []}),
            Ok(Some(None)) => json!({"payment_hash": hash, "status": "pending"}),
            Ok(Some(Some(payment))) => {
                json!({"payment_hash": hash, "status": "complete", "preimage": hex::encode(payment.preimage)})
            }
            Err(_) => json!({"payment_hash": hash, "status": "failed"}),
        };
        json!({"pays": [pay]})
    }

    async fn list_sendpays(&self) -> Value {
        let parts = self.backing.paid().await.into_iter().zip(1_u64..).map(|(sent, created_index)| {
            let with_fee = sent.amount.saturating_add(sent.fees.unwrap_or(Msat::ZERO));
            let at = sent.at.map_or(0, Timestamp::as_second);
            json!({
                "created_index": created_index,
                "payment_hash": sent.payment_hash,
                "status": "complete",
                "created_at": at,
                "completed_at": at,
                "amount_msat": msat(sent.amount),
                "amount_sent_msat": msat(with_fee),
            })
        });
        json!({"payments": parts.collect::<Vec<_>>()})
    }

    async fn inject(&self, params: &Value) -> Result<Value, Failure> {
        let invoice = text(params, "invoice");
        let bad = || (-32_602, "could not parse request".to_owned());
        let read: Bolt11Invoice = invoice.parse().map_err(|_| bad())?;
        let request = InvoiceRequest {
            amount: Msat::from_msat(read.amount_milli_satoshis().unwrap_or(0)).map_err(|_| bad())?,
            description: bolt11::description_of(&invoice).ok().flatten().unwrap_or_default(),
            expiry: read.expiry_time(),
        };
        let hash = bolt11::payment_hash_of(&invoice).map_err(|_| bad())?;
        if self.backing.wallet.record(&hash).is_ok() {
            return Err((-32_700, "UNIQUE constraint failed: invoices.payment_hash".to_owned()));
        }
        let held = self.backing.wallet.create_hold_invoice(&request, &hash, Duration::from_secs(3_600)).await;
        held.map_err(|error| refused(&error))?;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).held.insert(hash, invoice);
        Ok(json!({}))
    }

    fn list_held(&self, params: &Value) -> Value {
        let held = self.made.lock().unwrap_or_else(PoisonError::into_inner).held.clone();
        let wanted = hash(&text(params, "payment_hash"));
        let found = held.iter().filter(|(hash, _)| wanted.is_none_or(|wanted| wanted == **hash));
        let told = found.filter_map(|(hash, invoice)| {
            let record = self.backing.wallet.record(hash).ok()?;
            let part = |amount: Msat, state: &str| json!([{"state": state, "scid": "1x1x1", "msat": msat(amount)}]);
            let (state, htlcs, at) = match record.state {
                InvoiceState::Open | InvoiceState::Expired => ("unpaid", json!([]), None),
                InvoiceState::Held { amount } => ("accepted", part(amount, "accepted"), None),
                InvoiceState::Settled { amount, at } => ("paid", part(amount, "paid"), at),
                InvoiceState::Cancelled => ("cancelled", part(record.amount, "cancelled"), None),
            };
            let mut told = json!({
                "id": 1,
                "payment_hash": self.backing.faults.hash(hash),
                "invoice": invoice,
                "state": state,
                "created_at": "2026-11-20T10:00:00.000000",
                "htlcs": htlcs,
            });
            if let Some(at) = at {
                // As the plugin writes it: in UTC, without saying so.
                told["settled_at"] = at.to_zoned(TimeZone::UTC).datetime().to_string().into();
            }
            Some(told)
        });
        json!({"holdinvoices": told.collect::<Vec<_>>()})
    }
}

/// Signs with the node's key, whatever was signed before.
fn sign(params: &Value) -> Result<Value, Failure> {
    let bad = || (-32_602, "invstring: bad bech32 string".to_owned());
    let signed: SignedRawBolt11Invoice = text(params, "invstring").parse().map_err(|_| bad())?;
    let key = SecretKey::from_slice(&[0x42; 32]).map_err(|_| bad())?;
    let raw = signed.into_parts().0;
    let again = raw
        .sign(|digest| {
            Ok::<_, std::convert::Infallible>(Secp256k1::signing_only().sign_ecdsa_recoverable(digest, &key))
        })
        .map_err(|_| bad())?;
    Ok(json!({"bolt11": again.to_string()}))
}
