//! What LND's REST interface says: gRPC messages as JSON, 64-bit numbers as text, bytes as base64, errors as
//! `{"code", "message"}` with gRPC's codes.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bitcoin::Network;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::money::Msat;
use crate::wallet::http::{Answer, Outgoing, number, proof, seconds};
use crate::wallet::words::spoken;
use crate::wallet::{InvoiceState, PaymentHash, WalletError};

/// gRPC's codes, as far as they mean something here.
mod code {
    pub(super) const CANCELLED: i64 = 1;
    pub(super) const UNKNOWN: i64 = 2;
    pub(super) const INVALID_ARGUMENT: i64 = 3;
    pub(super) const DEADLINE_EXCEEDED: i64 = 4;
    pub(super) const NOT_FOUND: i64 = 5;
    pub(super) const ALREADY_EXISTS: i64 = 6;
    pub(super) const PERMISSION_DENIED: i64 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i64 = 8;
    pub(super) const FAILED_PRECONDITION: i64 = 9;
    pub(super) const ABORTED: i64 = 10;
    pub(super) const OUT_OF_RANGE: i64 = 11;
    pub(super) const UNIMPLEMENTED: i64 = 12;
    pub(super) const INTERNAL: i64 = 13;
    pub(super) const UNAVAILABLE: i64 = 14;
    pub(super) const DATA_LOSS: i64 = 15;
    pub(super) const UNAUTHENTICATED: i64 = 16;
}

/// An error, on its own or as `error` of a stream's line.
#[derive(Deserialize)]
pub(super) struct Failure {
    #[serde(alias = "grpc_code")]
    code: i64,
    #[serde(default)]
    message: String,
}

impl From<Failure> for WalletError {
    fn from(failure: Failure) -> Self {
        let words = spoken(&failure.message);
        match failure.code {
            code::NOT_FOUND => Self::NotFound,
            code::PERMISSION_DENIED | code::UNAUTHENTICATED => Self::Unauthorized(words),
            code::RESOURCE_EXHAUSTED => Self::RateLimited,
            code::INVALID_ARGUMENT
            | code::ALREADY_EXISTS
            | code::FAILED_PRECONDITION
            | code::OUT_OF_RANGE
            | code::UNIMPLEMENTED => Self::Refused(words),
            // Most of LND's own refusals, bad macaroons among them, are "unknown": no certainty in that.
            code::UNKNOWN
            | code::CANCELLED
            | code::DEADLINE_EXCEEDED
            | code::ABORTED
            | code::INTERNAL
            | code::UNAVAILABLE
            | code::DATA_LOSS => Self::Internal(words),
            _ => Self::Internal(words),
        }
    }
}

/// What an answer that is no success means.
pub(super) fn failure(answer: &Answer) -> WalletError {
    match own_words(answer) {
        Some(told) => told.into(),
        // Something stands in between.
        None => answer.failure(answer.words()),
    }
}

/// The error in LND's own words, plain or as a stream's only line.
fn own_words(answer: &Answer) -> Option<Failure> {
    #[derive(Deserialize)]
    struct Streamed {
        error: Failure,
    }
    answer.json::<Failure>().or_else(|_| answer.json::<Streamed>().map(|streamed| streamed.error)).ok()
}

/// What it means that LND did not start a payment. Its own "unknown" is a refusal then: it answers before it begins.
pub(super) fn refusal(answer: &Answer) -> WalletError {
    match own_words(answer) {
        Some(own) if own.code == code::UNKNOWN => WalletError::Refused(spoken(&own.message)),
        _ => failure(answer),
    }
}

/// The answer as `T`, or the error it is.
pub(super) fn read<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Result<T, WalletError> {
    if answer.status.is_success() { answer.json() } else { Err(failure(answer)) }
}

/// A line of a stream.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Streamed<T> {
    Result(T),
    Error(Failure),
}

/// `POST /v1/invoices` and `POST /v2/invoices/hodl`.
#[derive(Serialize)]
pub(super) struct NewInvoice<'a> {
    pub(super) memo: &'a str,
    /// In base64; only for hold invoices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hash: Option<String>,
    pub(super) value_msat: String,
    /// In seconds.
    pub(super) expiry: String,
    /// Blocks at the last hop; only for hold invoices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cltv_expiry: Option<String>,
    /// Whether to name channels the network does not know, so that a node with no others can be paid.
    pub(super) private: bool,
}

/// What is made of it.
#[derive(Deserialize)]
pub(super) struct NewInvoiceMade {
    pub(super) payment_request: String,
}

/// An invoice (`lnrpc.Invoice`).
#[derive(Deserialize)]
pub(super) struct Invoice {
    #[serde(default)]
    pub(super) memo: String,
    /// In base64.
    r_hash: String,
    /// In base64; empty for a hold invoice that is not settled. Kept only as that.
    #[serde(default)]
    r_preimage: String,
    #[serde(default)]
    pub(super) payment_request: String,
    #[serde(default, deserialize_with = "number")]
    pub(super) creation_date: i64,
    #[serde(default, deserialize_with = "number")]
    settle_date: i64,
    /// In seconds.
    #[serde(default, deserialize_with = "number")]
    expiry: i64,
    #[serde(default, deserialize_with = "number")]
    amt_paid_msat: i64,
    #[serde(default, deserialize_with = "number")]
    pub(super) settle_index: u64,
    #[serde(default)]
    state: String,
    #[serde(default)]
    htlcs: Vec<Htlc>,
}

#[derive(Deserialize)]
struct Htlc {
    #[serde(default, deserialize_with = "number")]
    amt_msat: i64,
    #[serde(default)]
    state: String,
}

impl Invoice {
    pub(super) fn payment_hash(&self) -> Result<PaymentHash, WalletError> {
        let bytes = STANDARD.decode(&self.r_hash).or_else(|_| URL_SAFE.decode(&self.r_hash)).ok();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(PaymentHash)
            .ok_or_else(|| WalletError::BadAnswer("it gives no payment hash".into()))
    }

    /// Whether it is a hold invoice that may still be held or is.
    pub(super) fn may_be_held(&self) -> bool {
        self.r_preimage.is_empty() && matches!(self.state.as_str(), "OPEN" | "ACCEPTED")
    }

    pub(super) fn settled_at(&self) -> Option<Timestamp> {
        seconds(self.settle_date)
    }

    /// Where it stands at `now`.
    pub(super) fn standing(&self, now: Timestamp) -> Result<InvoiceState, WalletError> {
        let over = self.creation_date.saturating_add(self.expiry) <= now.as_second();
        match self.state.as_str() {
            "OPEN" if over => Ok(InvoiceState::Expired),
            "OPEN" => Ok(InvoiceState::Open),
            "ACCEPTED" => Ok(InvoiceState::Held { amount: self.arrived()? }),
            "SETTLED" => Ok(InvoiceState::Settled { amount: self.arrived()?, at: self.settled_at() }),
            // LND cancels what expires. With parts that came and went it was a hold that was given back.
            "CANCELED" if over && self.htlcs.is_empty() => Ok(InvoiceState::Expired),
            "CANCELED" => Ok(InvoiceState::Cancelled),
            _ => Err(WalletError::BadAnswer("it gives a state that LND does not have".into())),
        }
    }

    fn arrived(&self) -> Result<Msat, WalletError> {
        let parts = || {
            let come = self.htlcs.iter().filter(|htlc| matches!(htlc.state.as_str(), "ACCEPTED" | "SETTLED"));
            come.fold(0_i64, |sum, htlc| sum.saturating_add(htlc.amt_msat))
        };
        let msat = if self.amt_paid_msat > 0 { self.amt_paid_msat } else { parts() };
        amount(msat)
            .filter(|amount| !amount.is_zero())
            .ok_or_else(|| WalletError::BadAnswer("it says that money came, but not how much".into()))
    }
}

/// `GET /v1/invoices`.
#[derive(Deserialize)]
pub(super) struct Invoices {
    #[serde(default)]
    pub(super) invoices: Vec<Invoice>,
    #[serde(default, deserialize_with = "number")]
    pub(super) first_index_offset: u64,
}

/// `GET /v1/payments`.
#[derive(Deserialize)]
pub(super) struct Payments {
    #[serde(default)]
    pub(super) payments: Vec<Payment>,
    #[serde(default, deserialize_with = "number")]
    pub(super) first_index_offset: u64,
}

/// `POST /v2/router/send`.
#[derive(Serialize)]
pub(super) struct Send<'a> {
    pub(super) payment_request: &'a str,
    pub(super) timeout_seconds: u64,
    pub(super) fee_limit_msat: String,
    pub(super) no_inflight_updates: bool,
}

/// A payment (`lnrpc.Payment`).
#[derive(Deserialize)]
pub(super) struct Payment {
    /// In hexadecimal.
    pub(super) payment_hash: PaymentHash,
    #[serde(default)]
    payment_preimage: String,
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    failure_reason: String,
    #[serde(default, deserialize_with = "number")]
    value_msat: i64,
    #[serde(default, deserialize_with = "number")]
    fee_msat: i64,
    #[serde(default, deserialize_with = "number")]
    pub(super) creation_date: i64,
    #[serde(default)]
    htlcs: Vec<Part>,
}

/// A part of a payment.
#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    status: String,
    #[serde(default, deserialize_with = "number")]
    resolve_time_ns: i64,
}

impl Payment {
    /// When its last part arrived, else when it began.
    pub(super) fn made_at(&self) -> Option<Timestamp> {
        let arrived =
            self.htlcs.iter().filter(|part| part.status == "SUCCEEDED").map(|part| part.resolve_time_ns).max();
        let arrived = arrived.filter(|nanosecond| *nanosecond > 0);
        arrived.and_then(|ns| Timestamp::from_nanosecond(ns.into()).ok()).or_else(|| seconds(self.creation_date))
    }

    pub(super) fn amount(&self) -> Result<Msat, WalletError> {
        amount(self.value_msat).ok_or_else(|| WalletError::BadAnswer("it names an impossible amount".into()))
    }

    pub(super) fn fee(&self) -> Option<Msat> {
        amount(self.fee_msat)
    }

    /// What became of it. An error for one that has certainly failed for lack of money.
    pub(super) fn outgoing(&self) -> Result<Outgoing, WalletError> {
        match self.status.as_str() {
            "SUCCEEDED" => Ok(Outgoing::Made(proof(&self.payment_preimage, self.fee(), &self.payment_hash)?)),
            "FAILED" => Ok(Outgoing::Failed(self.reason().into())),
            "IN_FLIGHT" | "INITIATED" | "UNKNOWN" => Ok(Outgoing::UnderWay),
            _ => Err(WalletError::BadAnswer("it gives a state that LND does not have".into())),
        }
    }

    /// Whether it failed because the money was not there.
    pub(super) fn lacked_money(&self) -> bool {
        self.failure_reason == "FAILURE_REASON_INSUFFICIENT_BALANCE"
    }

    fn reason(&self) -> &'static str {
        match self.failure_reason.as_str() {
            "FAILURE_REASON_TIMEOUT" => "no way was found in time",
            "FAILURE_REASON_NO_ROUTE" => "there is no way to the payee within the fee limit",
            "FAILURE_REASON_INCORRECT_PAYMENT_DETAILS" => "the payee does not take it",
            "FAILURE_REASON_INSUFFICIENT_BALANCE" => "the wallet has not enough in its channels",
            "FAILURE_REASON_CANCELED" => "it was cancelled",
            _ => "the wallet gives no reason",
        }
    }
}

/// `POST /v2/invoices/settle`: the preimage in base64.
#[derive(Serialize)]
pub(super) struct Settle {
    pub(super) preimage: String,
}

/// `POST /v2/invoices/cancel`: the hash in base64.
#[derive(Serialize)]
pub(super) struct Cancel {
    pub(super) payment_hash: String,
}

/// `GET /v1/getinfo`.
#[derive(Deserialize)]
pub(super) struct Info {
    #[serde(default)]
    chains: Vec<Chain>,
}

#[derive(Deserialize)]
struct Chain {
    #[serde(default)]
    network: String,
}

impl Info {
    /// The network it says it is on.
    pub(super) fn network(&self) -> Option<Network> {
        match self.chains.first()?.network.as_str() {
            "mainnet" => Some(Network::Bitcoin),
            "testnet" => Some(Network::Testnet),
            "testnet4" => Some(Network::Testnet4),
            "signet" => Some(Network::Signet),
            "regtest" | "simnet" => Some(Network::Regtest),
            _ => None,
        }
    }
}

/// `GET /v1/balance/channels`.
#[derive(Deserialize)]
pub(super) struct ChannelBalance {
    local_balance: Option<Amount>,
    remote_balance: Option<Amount>,
}

#[derive(Deserialize)]
struct Amount {
    #[serde(default, deserialize_with = "number")]
    msat: i64,
}

impl ChannelBalance {
    pub(super) fn spendable(&self) -> Result<Msat, WalletError> {
        let told = self.local_balance.as_ref().and_then(|local| amount(local.msat));
        told.ok_or_else(|| WalletError::BadAnswer("it gives no balance".into()))
    }

    pub(super) fn receivable(&self) -> Option<Msat> {
        self.remote_balance.as_ref().and_then(|remote| amount(remote.msat))
    }
}

/// `GET /v1/balance/blockchain`.
#[derive(Deserialize)]
pub(super) struct ChainBalance {
    #[serde(default, deserialize_with = "number")]
    confirmed_balance: u64,
}

impl ChainBalance {
    pub(super) fn on_chain(&self) -> Option<Msat> {
        Msat::from_sat(self.confirmed_balance).ok()
    }
}

pub(super) fn base64(bytes: &[u8; 32]) -> String {
    STANDARD.encode(bytes)
}

/// As a segment of a path.
pub(super) fn base64url(hash: &PaymentHash) -> String {
    URL_SAFE.encode(hash.as_bytes())
}

fn amount(msat: i64) -> Option<Msat> {
    u64::try_from(msat).ok().and_then(|msat| Msat::from_msat(msat).ok())
}
