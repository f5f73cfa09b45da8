//! What NIP-47 messages say inside their encryption. Amounts are millisatoshis, times are Unix seconds.
//!
//! Read leniently (wallets leave out what the NIP calls optional, and more), written strictly. Both sides of the wire
//! use it: the client here and the wallet service of the tests.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::money::Msat;
use crate::wallet::words::spoken;
use crate::wallet::{InvoiceState, InvoiceUpdate, Payment, PaymentHash, Received, Sent, WalletError, bolt11};

/// What can be asked of a wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Method {
    GetInfo,
    GetBalance,
    MakeInvoice,
    LookupInvoice,
    PayInvoice,
    ListTransactions,
    MakeHoldInvoice,
    SettleHoldInvoice,
    CancelHoldInvoice,
}

impl Method {
    /// The word on the wire.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::GetInfo => "get_info",
            Self::GetBalance => "get_balance",
            Self::MakeInvoice => "make_invoice",
            Self::LookupInvoice => "lookup_invoice",
            Self::PayInvoice => "pay_invoice",
            Self::ListTransactions => "list_transactions",
            Self::MakeHoldInvoice => "make_hold_invoice",
            Self::SettleHoldInvoice => "settle_hold_invoice",
            Self::CancelHoldInvoice => "cancel_hold_invoice",
        }
    }
}

/// A request (kind 23194).
#[derive(Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) params: Value,
}

/// A response (kind 23195): an error or a result.
#[derive(Serialize, Deserialize)]
pub(crate) struct Reply {
    pub(crate) result_type: String,
    #[serde(default)]
    pub(crate) error: Option<ReplyError>,
    #[serde(default)]
    pub(crate) result: Option<Value>,
}

/// Why the wallet will not.
#[derive(Serialize, Deserialize)]
pub(crate) struct ReplyError {
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) message: String,
}

/// A notification (kinds 23196 and 23197).
#[derive(Serialize, Deserialize)]
pub(crate) struct Notification {
    pub(crate) notification_type: String,
    pub(crate) notification: Value,
}

/// Parameters of `make_invoice` and, with the hash, of `make_hold_invoice`.
#[derive(Serialize, Deserialize)]
pub(crate) struct MakeInvoice {
    pub(crate) amount: Msat,
    pub(crate) description: String,
    pub(crate) expiry: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) payment_hash: Option<PaymentHash>,
    /// Blocks to ask for at the last hop, so that the payment can be held for as long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) min_cltv_expiry_delta: Option<u32>,
}

/// Parameters of `list_transactions`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ListTransactions {
    /// When they were made, at the earliest.
    pub(crate) from: u64,
    pub(crate) limit: u32,
    pub(crate) offset: u32,
    pub(crate) unpaid: bool,
    /// `incoming` or `outgoing`.
    #[serde(rename = "type")]
    pub(crate) direction: String,
}

/// Result of `list_transactions`. Each is read by itself: one that can't be read must not hide the others.
#[derive(Serialize, Deserialize)]
pub(crate) struct Transactions {
    pub(crate) transactions: Vec<Value>,
}

/// Parameters of `lookup_invoice` and `cancel_hold_invoice`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ByHash {
    pub(crate) payment_hash: PaymentHash,
}

/// Parameters of `pay_invoice`.
#[derive(Serialize, Deserialize)]
pub(crate) struct PayInvoice {
    pub(crate) invoice: String,
}

/// Parameters of `settle_hold_invoice`.
#[derive(Serialize, Deserialize)]
pub(crate) struct SettleHoldInvoice {
    pub(crate) preimage: String,
}

/// Result of `pay_invoice`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Paid {
    pub(crate) preimage: String,
    #[serde(default)]
    pub(crate) fees_paid: Option<Msat>,
}

/// Result of `get_balance`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Balance {
    pub(crate) balance: Msat,
}

/// Result of `get_info`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Info {
    #[serde(default)]
    pub(crate) alias: Option<String>,
    #[serde(default)]
    pub(crate) network: Option<String>,
    /// The height of the chain as the wallet sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) block_height: Option<u32>,
    #[serde(default)]
    pub(crate) methods: Vec<String>,
}

/// An invoice or a payment as wallets tell of it.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Transaction {
    /// `incoming` or `outgoing`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub(crate) direction: Option<String>,
    /// `pending`, `accepted`, `settled`, `expired` or `failed`. Older wallets leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) invoice: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) preimage: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) payment_hash: Option<PaymentHash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) amount: Option<Msat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fees_paid: Option<Msat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) settled_at: Option<i64>,
    /// The block by which a held payment has to be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) settle_deadline: Option<u32>,
}

impl Reply {
    /// The result of a call of `method`.
    pub(crate) fn into_result(self, method: Method) -> Result<Value, WalletError> {
        if let Some(error) = self.error {
            return Err(error.into());
        }
        if self.result_type != method.word() {
            return Err(WalletError::BadAnswer(format!("it answers something else than {}", method.word())));
        }
        self.result.ok_or_else(|| WalletError::BadAnswer("it has neither result nor error".into()))
    }
}

impl From<ReplyError> for WalletError {
    /// Every code of NIP-47. A code nobody knows says nothing for certain.
    fn from(error: ReplyError) -> Self {
        let words = spoken(&error.message);
        match error.code.as_str() {
            "RATE_LIMITED" => Self::RateLimited,
            "INSUFFICIENT_BALANCE" | "QUOTA_EXCEEDED" => Self::InsufficientFunds,
            "NOT_IMPLEMENTED" | "RESTRICTED" | "UNSUPPORTED_ENCRYPTION" => Self::Refused(words),
            "UNAUTHORIZED" => Self::Unauthorized(words),
            "PAYMENT_FAILED" => Self::PaymentFailed(words),
            "NOT_FOUND" => Self::NotFound,
            // INTERNAL, OTHER, and whatever a later revision brings.
            _ => Self::Internal(words),
        }
    }
}

impl Transaction {
    /// Where an invoice of ours stands, as this says at `now`.
    pub(crate) fn invoice_state(&self, now: Timestamp) -> Result<InvoiceState, WalletError> {
        if self.direction.as_deref() == Some("outgoing") {
            return Err(WalletError::NotFound);
        }
        let settled_at = self.settled_at.filter(|second| *second > 0);
        let expired = self.expires_at.is_some_and(|second| second > 0 && second <= now.as_second());
        match self.state.as_deref() {
            Some("settled") => self.settled(settled_at),
            Some("accepted") => Ok(InvoiceState::Held { amount: self.said_amount()? }),
            Some("expired") => Ok(InvoiceState::Expired),
            Some("failed" | "cancelled" | "canceled") => Ok(InvoiceState::Cancelled),
            // `pending` stays the word of some wallets after the expiry.
            Some("pending") if expired => Ok(InvoiceState::Expired),
            Some("pending") => Ok(InvoiceState::Open),
            Some(_) => Err(WalletError::BadAnswer("it gives a state that NIP-47 does not have".into())),
            // Before NIP-47 had states, a time of settlement said it.
            None if settled_at.is_some() => self.settled(settled_at),
            None if expired => Ok(InvoiceState::Expired),
            None => Ok(InvoiceState::Open),
        }
    }

    /// What became of a payment of ours to `hash`.
    pub(crate) fn payment(&self, hash: &PaymentHash) -> Result<Option<Payment>, WalletError> {
        if self.direction.as_deref() == Some("incoming") {
            return Ok(None);
        }
        match self.state.as_deref() {
            Some("failed" | "expired") => Err(WalletError::PaymentFailed("the wallet says it failed".into())),
            Some("settled") => Ok(Some(proof(self.preimage.as_deref(), self.fees_paid, hash)?)),
            None if self.settled_at.is_some_and(|second| second > 0) => {
                Ok(Some(proof(self.preimage.as_deref(), self.fees_paid, hash)?))
            }
            _ => Ok(None),
        }
    }

    /// What it is known by: the hash it names, else its invoice's.
    pub(crate) fn hash(&self) -> Option<PaymentHash> {
        self.payment_hash.or_else(|| bolt11::payment_hash_of(self.invoice.as_deref()?).ok())
    }

    /// The payment that came, if this says that one did.
    pub(crate) fn received(&self, now: Timestamp) -> Option<Received> {
        match self.invoice_state(now).ok()? {
            InvoiceState::Settled { amount, at } => {
                Some(Received { payment_hash: self.hash()?, amount, at, description: self.description.clone() })
            }
            _ => None,
        }
    }

    /// The payment that went, if this says that one did.
    pub(crate) fn sent(&self) -> Option<Sent> {
        let settled_at = self.settled_at.filter(|second| *second > 0);
        let settled = match self.state.as_deref() {
            Some(state) => state == "settled",
            None => settled_at.is_some(),
        };
        if !settled || self.direction.as_deref() == Some("incoming") {
            return None;
        }
        let at = settled_at.and_then(|second| Timestamp::from_second(second).ok());
        Some(Sent { payment_hash: self.hash()?, amount: self.amount?, fees: self.fees_paid, at })
    }

    fn settled(&self, at: Option<i64>) -> Result<InvoiceState, WalletError> {
        let at = at.and_then(|second| Timestamp::from_second(second).ok());
        Ok(InvoiceState::Settled { amount: self.said_amount()?, at })
    }

    fn said_amount(&self) -> Result<Msat, WalletError> {
        self.amount.ok_or_else(|| WalletError::BadAnswer("it says that money came, but not how much".into()))
    }
}

impl Notification {
    /// The news in it, if it is of an invoice of ours.
    pub(crate) fn update(&self, now: Timestamp) -> Option<InvoiceUpdate> {
        let mut told: Transaction = serde_json::from_value(self.notification.clone()).ok()?;
        // The type says what happened where the transaction does not.
        let said = match self.notification_type.as_str() {
            "payment_received" => "settled",
            "hold_invoice_accepted" => "accepted",
            _ => return None,
        };
        told.state.get_or_insert_with(|| said.to_owned());
        Some(InvoiceUpdate { payment_hash: told.payment_hash?, state: told.invoice_state(now).ok()? })
    }
}

/// The proof that `hash` is paid.
pub(crate) fn proof(preimage: Option<&str>, fees: Option<Msat>, hash: &PaymentHash) -> Result<Payment, WalletError> {
    let mut bytes = [0; 32];
    match hex::decode_to_slice(preimage.unwrap_or_default(), &mut bytes) {
        Ok(()) if bolt11::is_preimage(&bytes, hash) => Ok(Payment { preimage: bytes, fees }),
        _ => Err(WalletError::BadAnswer("it claims a payment without its preimage".into())),
    }
}
