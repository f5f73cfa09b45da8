//! What LNbits says: JSON in millisatoshis, negative for what went out; errors as `{"detail", "status"}`.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::money::Msat;
use crate::wallet::http::{Answer, Outgoing, optional_number, proof, seconds};
use crate::wallet::words::spoken;
use crate::wallet::{InvoiceState, PaymentHash, WalletError};

/// The status of errors of payments and invoices; what happened is in the body.
const PAYMENT_ERROR: u16 = 520;

/// An error. `detail` is a list where the request itself was wrong.
#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    detail: serde_json::Value,
    #[serde(default)]
    status: Option<String>,
}

/// What an answer that is no success means.
fn failure(answer: &Answer) -> WalletError {
    let Ok(told) = answer.json::<Failure>() else { return answer.failure(answer.words()) };
    let words = told.detail.as_str().map_or_else(|| "it does not like the request".to_owned(), spoken);
    match answer.status.as_u16() {
        // "pending" and "success" say that something may have happened, and so does nothing at all.
        PAYMENT_ERROR if told.status.as_deref() == Some("failed") => WalletError::PaymentFailed(words),
        404 if told.detail.is_string() => WalletError::NotFound,
        _ => answer.failure(words),
    }
}

/// The answer as `T`, or the error it is.
pub(super) fn read<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Result<T, WalletError> {
    if answer.status.is_success() { answer.json() } else { Err(failure(answer)) }
}

/// `POST /api/v1/payments` for an invoice.
#[derive(Serialize)]
pub(super) struct NewInvoice<'a> {
    pub(super) out: bool,
    /// In satoshis.
    pub(super) amount: u64,
    pub(super) unit: &'static str,
    pub(super) memo: &'a str,
    /// In seconds.
    pub(super) expiry: u64,
}

/// What is made of it. The preimage that may stand beside it is not read.
#[derive(Deserialize)]
pub(super) struct Made {
    pub(super) payment_hash: PaymentHash,
    /// Since 1.0.
    #[serde(default)]
    bolt11: Option<String>,
    /// Before 1.0, and beside the other since.
    #[serde(default)]
    payment_request: Option<String>,
}

impl Made {
    pub(super) fn invoice(&self) -> Result<&str, WalletError> {
        let told = self.bolt11.as_deref().or(self.payment_request.as_deref());
        told.ok_or_else(|| WalletError::BadAnswer("it has no invoice".into()))
    }
}

/// `POST /api/v1/payments` for a payment.
#[derive(Serialize)]
pub(super) struct Pay<'a> {
    pub(super) out: bool,
    pub(super) bolt11: &'a str,
}

/// That it was taken on.
#[derive(Deserialize)]
pub(super) struct Taken {
    pub(super) payment_hash: PaymentHash,
}

/// `GET /api/v1/payments/fee-reserve`.
#[derive(Deserialize)]
pub(super) struct FeeReserve {
    /// In millisatoshis.
    pub(super) fee_reserve: Msat,
}

/// `GET /api/v1/payments/{hash}`.
#[derive(Deserialize)]
pub(super) struct Looked {
    #[serde(default)]
    paid: bool,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    preimage: Option<String>,
    /// Only for the key's own wallet.
    pub(super) details: Option<Details>,
}

/// A payment, in or out.
#[derive(Deserialize)]
pub(super) struct Details {
    pub(super) payment_hash: PaymentHash,
    /// In millisatoshis, negative for what went out.
    pub(super) amount: i64,
    #[serde(default)]
    fee: i64,
    #[serde(default)]
    pub(super) memo: Option<String>,
    #[serde(default)]
    status: Option<String>,
    /// Of LNbits before 1.0, instead of a status.
    #[serde(default)]
    pending: Option<bool>,
    #[serde(default)]
    preimage: Option<String>,
    #[serde(default)]
    expiry: Option<Moment>,
    #[serde(default)]
    time: Option<Moment>,
    #[serde(default)]
    created_at: Option<Moment>,
    #[serde(default)]
    updated_at: Option<Moment>,
}

/// A time: seconds, or text with or without a zone (then UTC), by version.
#[derive(Deserialize)]
#[serde(untagged)]
enum Moment {
    Seconds(#[serde(deserialize_with = "optional_number")] Option<i64>),
    Fraction(f64),
    Text(String),
}

impl Moment {
    fn read(&self) -> Option<Timestamp> {
        match self {
            Self::Seconds(second) => seconds((*second)?),
            // Whole seconds are enough, and no time is that far away.
            Self::Fraction(second) => seconds(*second as i64),
            Self::Text(text) => text.parse().ok().or_else(|| {
                let written = text.parse::<DateTime>().ok()?;
                written.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
            }),
        }
    }
}

fn moment(written: Option<&Moment>) -> Option<Timestamp> {
    written.and_then(Moment::read)
}

impl Details {
    /// When it was begun, as far as it says.
    pub(super) fn begun(&self) -> Option<Timestamp> {
        moment(self.created_at.as_ref()).or_else(|| moment(self.time.as_ref()))
    }

    /// When it was last changed: when it was settled, for what is.
    pub(super) fn ended(&self) -> Option<Timestamp> {
        moment(self.updated_at.as_ref()).or_else(|| moment(self.time.as_ref()))
    }

    /// Whether it is done.
    pub(super) fn succeeded(&self) -> bool {
        match (&self.status, self.pending) {
            (Some(status), _) => matches!(status.as_str(), "success" | "complete"),
            (None, pending) => pending == Some(false),
        }
    }

    /// What came, or what went without fees.
    pub(super) fn size(&self) -> Result<Msat, WalletError> {
        Msat::from_msat(self.amount.unsigned_abs())
            .map_err(|_| WalletError::BadAnswer("it names more money than there is".into()))
    }

    pub(super) fn fees(&self) -> Option<Msat> {
        Msat::from_msat(self.fee.unsigned_abs()).ok()
    }

    fn is_failed(&self) -> bool {
        self.status.as_deref() == Some("failed")
    }
}

impl Looked {
    /// The payment asked for, when it is one of this wallet.
    pub(super) fn details(&self) -> Result<&Details, WalletError> {
        let missing = || WalletError::BadAnswer("it does not tell of the payment: is the key of this wallet?".into());
        self.details.as_ref().ok_or_else(missing)
    }

    /// Where the invoice stands at `now`.
    pub(super) fn standing(&self, now: Timestamp) -> Result<InvoiceState, WalletError> {
        let details = self.details()?;
        if details.amount <= 0 {
            return Err(WalletError::NotFound);
        }
        if self.succeeded(details) {
            return Ok(InvoiceState::Settled { amount: details.size()?, at: details.ended() });
        }
        let over = moment(details.expiry.as_ref()).is_some_and(|at| at <= now);
        Ok(match over || self.failed(details) {
            true => InvoiceState::Expired,
            false => InvoiceState::Open,
        })
    }

    /// What it says of a payment of ours to `hash`.
    pub(super) fn outgoing(&self, hash: &PaymentHash) -> Result<Outgoing, WalletError> {
        let details = self.details()?;
        if details.amount >= 0 {
            return Ok(Outgoing::Unknown);
        }
        if self.succeeded(details) {
            let preimage = self.preimage.as_deref().or(details.preimage.as_deref()).unwrap_or_default();
            return Ok(Outgoing::Made(proof(preimage, details.fees(), hash)?));
        }
        Ok(match self.failed(details) {
            true => Outgoing::Failed("the wallet says it failed".into()),
            false => Outgoing::UnderWay,
        })
    }

    fn succeeded(&self, details: &Details) -> bool {
        // The first two are what its source says now, the details what was known before.
        self.paid || self.status.as_deref() == Some("success") || details.succeeded()
    }

    fn failed(&self, details: &Details) -> bool {
        self.status.as_deref() == Some("failed") || details.is_failed()
    }
}

/// `GET /api/v1/payments/paginated`.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) data: Vec<Details>,
}

/// `GET /api/v1/wallet`.
#[derive(Deserialize)]
pub(super) struct Purse {
    /// In millisatoshis.
    balance: i64,
}

impl Purse {
    /// What it has. LNbits lets a wallet fall below zero by fees.
    pub(super) fn spendable(&self) -> Msat {
        u64::try_from(self.balance).ok().and_then(|msat| Msat::from_msat(msat).ok()).unwrap_or(Msat::ZERO)
    }
}

/// The payment a message of the websocket tells of.
pub(super) fn hint(text: &str) -> Option<PaymentHash> {
    #[derive(Deserialize)]
    struct Event {
        payment: Named,
    }
    #[derive(Deserialize)]
    struct Named {
        payment_hash: PaymentHash,
    }
    serde_json::from_str::<Event>(text).ok().map(|event| event.payment.payment_hash)
}
