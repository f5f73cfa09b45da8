//! What phoenixd says: JSON for what it found, plain text for what went wrong. Amounts are whole satoshis, fees mostly
//! millisatoshis, times milliseconds since 1970.

use bitcoin::Network;
use jiff::Timestamp;
use serde::Deserialize;

use crate::money::Msat;
use crate::wallet::http::{Answer, Outgoing, amount_of_sat, proof};
use crate::wallet::{InvoiceState, PaymentHash, WalletError};

/// The answer as `T`, or the error it is: phoenixd has only statuses and words.
pub(super) fn read<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Result<T, WalletError> {
    if answer.status.is_success() { answer.json() } else { Err(answer.failure(answer.words())) }
}

/// What was looked up, or that there is none.
pub(super) fn found<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Result<T, WalletError> {
    // Both are "no such payment" here, by version; that the address is right was seen when connecting.
    if matches!(answer.status.as_u16(), 404 | 204) { Err(WalletError::NotFound) } else { read(answer) }
}

/// `POST /createinvoice`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Made {
    pub(super) payment_hash: PaymentHash,
    pub(super) serialized: String,
}

/// `GET /payments/incoming/{hash}`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Incoming {
    pub(super) payment_hash: PaymentHash,
    #[serde(default)]
    pub(super) description: Option<String>,
    is_paid: bool,
    #[serde(default)]
    is_expired: bool,
    #[serde(default)]
    received_sat: u64,
    /// In millisatoshis.
    #[serde(default)]
    fees: u64,
    #[serde(default)]
    expires_at: Option<i64>,
    #[serde(default)]
    completed_at: Option<i64>,
}

impl Incoming {
    /// Where it stands at `now`.
    pub(super) fn standing(&self, now: Timestamp) -> Result<InvoiceState, WalletError> {
        if self.is_paid {
            return Ok(InvoiceState::Settled { amount: self.paid()?, at: self.completed_at.and_then(milliseconds) });
        }
        let over = self.is_expired || self.expires_at.is_some_and(|at| at <= now.as_millisecond());
        Ok(if over { InvoiceState::Expired } else { InvoiceState::Open })
    }

    /// What the payer paid. What phoenixd keeps of it, for a channel it had to open, is our cost and not the payer's; what is
    /// left was rounded down.
    fn paid(&self) -> Result<Msat, WalletError> {
        let impossible = |_| WalletError::BadAnswer("it names more money than there is".into());
        let left = amount_of_sat(self.received_sat)?;
        let kept = Msat::from_msat(self.fees).map_err(impossible)?;
        let paid = left.checked_add(kept).map_err(impossible)?.round_up_to_sat();
        if paid.is_zero() {
            return Err(WalletError::BadAnswer("it says that money came, but not how much".into()));
        }
        Ok(paid)
    }
}

/// `POST /payinvoice`: made or failed, both with status 200.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Paid {
    #[serde(rename_all = "camelCase")]
    Sent { payment_hash: PaymentHash, payment_preimage: String, routing_fee_sat: u64 },
    #[serde(rename_all = "camelCase")]
    Failed { reason: String },
}

/// `GET /payments/outgoingbyhash/{hash}`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sent {
    /// Payments on the chain have none.
    #[serde(default)]
    pub(super) payment_hash: Option<PaymentHash>,
    #[serde(default)]
    preimage: Option<String>,
    pub(super) is_paid: bool,
    /// With fees, rounded down.
    #[serde(default)]
    sent: u64,
    /// In millisatoshis.
    #[serde(default)]
    fees: u64,
    #[serde(default)]
    completed_at: Option<i64>,
    #[serde(default)]
    created_at: i64,
}

impl Sent {
    /// What it says of the payment to `hash`.
    pub(super) fn outgoing(&self, hash: &PaymentHash) -> Result<Outgoing, WalletError> {
        match (self.is_paid, self.completed_at) {
            (true, _) => Ok(Outgoing::Made(proof(self.preimage.as_deref().unwrap_or_default(), self.fees(), hash)?)),
            (false, Some(_)) => Ok(Outgoing::Failed("the wallet says it failed".into())),
            (false, None) => Ok(Outgoing::UnderWay),
        }
    }

    /// What arrived: phoenixd pays whole satoshis.
    pub(super) fn amount(&self) -> Result<Msat, WalletError> {
        Ok(amount_of_sat(self.sent)?.saturating_sub(self.fees().unwrap_or(Msat::ZERO)).round_up_to_sat())
    }

    pub(super) fn fees(&self) -> Option<Msat> {
        Msat::from_msat(self.fees).ok()
    }

    pub(super) fn at(&self) -> Option<Timestamp> {
        self.completed_at.and_then(milliseconds).or_else(|| milliseconds(self.created_at))
    }
}

/// `GET /getbalance`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Balance {
    pub(super) balance_sat: u64,
}

/// `GET /getinfo`.
#[derive(Deserialize)]
pub(super) struct Info {
    chain: String,
}

impl Info {
    /// The network it says it is on.
    pub(super) fn network(&self) -> Option<Network> {
        match self.chain.as_str() {
            "mainnet" => Some(Network::Bitcoin),
            "testnet" | "testnet3" => Some(Network::Testnet),
            "testnet4" => Some(Network::Testnet4),
            "signet" => Some(Network::Signet),
            "regtest" => Some(Network::Regtest),
            _ => None,
        }
    }
}

/// The payment a message of the websocket tells of.
pub(super) fn hint(text: &str) -> Option<PaymentHash> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Event {
        payment_hash: PaymentHash,
    }
    serde_json::from_str::<Event>(text).ok().map(|event| event.payment_hash)
}

fn milliseconds(ms: i64) -> Option<Timestamp> {
    if ms > 0 { Timestamp::from_millisecond(ms).ok() } else { None }
}
