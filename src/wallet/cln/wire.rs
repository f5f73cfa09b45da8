//! What clnrest says: the node's JSON-RPC, a method a path, errors as `{"code", "message"}` with the node's codes.

use bitcoin::Network;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize};

use crate::money::Msat;
use crate::wallet::http::{Answer, Outgoing, proof, seconds};
use crate::wallet::words::spoken;
use crate::wallet::{InvoiceError, InvoiceState, PaymentHash, WalletError, bolt11};

/// Core Lightning's error codes (`common/jsonrpc_errors.h`), as far as they mean something here.
mod code {
    pub(super) const INVALID_REQUEST: i64 = -32_600;
    pub(super) const METHOD_NOT_FOUND: i64 = -32_601;
    pub(super) const INVALID_PARAMS: i64 = -32_602;
    pub(super) const PAY_IN_PROGRESS: i64 = 200;
    pub(super) const PAY_RHASH_ALREADY_USED: i64 = 201;
    pub(super) const PAY_UNPARSEABLE_ONION: i64 = 202;
    pub(super) const PAY_DESTINATION_PERM_FAIL: i64 = 203;
    pub(super) const PAY_TRY_OTHER_ROUTE: i64 = 204;
    pub(super) const PAY_ROUTE_NOT_FOUND: i64 = 205;
    pub(super) const PAY_ROUTE_TOO_EXPENSIVE: i64 = 206;
    pub(super) const PAY_INVOICE_EXPIRED: i64 = 207;
    pub(super) const PAY_NO_SUCH_PAYMENT: i64 = 208;
    pub(super) const PAY_STOPPED_RETRYING: i64 = 210;
    pub(super) const PAY_INVOICE_REQUEST_INVALID: i64 = 212;
    pub(super) const PAY_INVOICE_PREAPPROVAL_DECLINED: i64 = 213;
    pub(super) const INVOICE_LABEL_ALREADY_EXISTS: i64 = 900;
    pub(super) const INVOICE_PREIMAGE_ALREADY_EXISTS: i64 = 901;
    pub(super) const INVOICE_HINTS_GAVE_NO_ROUTES: i64 = 902;
    pub(super) const INVOICE_WAIT_TIMED_OUT: i64 = 904;
    pub(super) const RUNE_NOT_AUTHORIZED: i64 = 1_501;
    pub(super) const RUNE_NOT_PERMITTED: i64 = 1_502;
    pub(super) const RUNE_BLACKLISTED: i64 = 1_503;
}

/// An error of the node, of a plugin, or of clnrest.
#[derive(Deserialize)]
struct Failure {
    /// Without one it is clnrest's own.
    #[serde(default)]
    code: Option<i64>,
    message: String,
}

/// What an answer that is no success means.
pub(super) fn failure(answer: &Answer) -> WalletError {
    let Ok(told) = answer.json::<Failure>() else { return answer.failure(answer.words()) };
    let words = spoken(&told.message);
    let Some(code) = told.code else { return answer.failure(words) };
    match code {
        code::RUNE_NOT_AUTHORIZED | code::RUNE_NOT_PERMITTED | code::RUNE_BLACKLISTED => {
            WalletError::Unauthorized(words)
        }
        code::INVALID_REQUEST
        | code::METHOD_NOT_FOUND
        | code::INVALID_PARAMS
        | code::INVOICE_LABEL_ALREADY_EXISTS
        | code::INVOICE_PREIMAGE_ALREADY_EXISTS
        | code::INVOICE_HINTS_GAVE_NO_ROUTES => WalletError::Refused(words),
        code::PAY_NO_SUCH_PAYMENT => WalletError::NotFound,
        code::PAY_RHASH_ALREADY_USED
        | code::PAY_UNPARSEABLE_ONION
        | code::PAY_DESTINATION_PERM_FAIL
        | code::PAY_TRY_OTHER_ROUTE
        | code::PAY_ROUTE_NOT_FOUND
        | code::PAY_ROUTE_TOO_EXPENSIVE
        | code::PAY_INVOICE_EXPIRED
        | code::PAY_STOPPED_RETRYING
        | code::PAY_INVOICE_REQUEST_INVALID
        | code::PAY_INVOICE_PREAPPROVAL_DECLINED => WalletError::PaymentFailed(words),
        code::PAY_IN_PROGRESS => WalletError::Internal(words),
        // Unspecified ones, -1 and -3 among them, and whatever a plugin brings.
        _ if matches!(answer.status.as_u16(), 401 | 403) => WalletError::Unauthorized(words),
        _ => WalletError::Internal(words),
    }
}

/// Whether the node waited for nothing.
pub(super) fn nothing_came(answer: &Answer) -> bool {
    !answer.status.is_success()
        && answer.json::<Failure>().is_ok_and(|told| told.code == Some(code::INVOICE_WAIT_TIMED_OUT))
}

/// The answer as `T`, or the error it is.
pub(super) fn read<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Result<T, WalletError> {
    if answer.status.is_success() { answer.json() } else { Err(failure(answer)) }
}

/// Millisatoshis as a number, or with `msat` behind as older nodes write it.
fn msat<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Msat>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u64),
        Text(String),
    }
    let msat = match Option::<Written>::deserialize(deserializer)? {
        None => return Ok(None),
        Some(Written::Number(msat)) => msat,
        Some(Written::Text(text)) => {
            text.strip_suffix("msat").unwrap_or(&text).parse().map_err(serde::de::Error::custom)?
        }
    };
    Msat::from_msat(msat).map(Some).map_err(serde::de::Error::custom)
}

/// `invoice`.
#[derive(Serialize)]
pub(super) struct NewInvoice<'a> {
    pub(super) amount_msat: Msat,
    /// Unique in the node.
    pub(super) label: String,
    pub(super) description: &'a str,
    /// In seconds.
    pub(super) expiry: u64,
}

/// What is made of it, or of a signed one.
#[derive(Deserialize)]
pub(super) struct Made {
    pub(super) bolt11: String,
}

/// `signinvoice`: everything but the signature is taken as it is.
#[derive(Serialize)]
pub(super) struct Sign<'a> {
    pub(super) invstring: &'a str,
}

/// `listinvoices`, `listholdinvoices` and `listpays` of one hash.
#[derive(Serialize)]
pub(super) struct ByHash {
    pub(super) payment_hash: PaymentHash,
}

/// A page of `listinvoices` or `listsendpays`.
#[derive(Serialize)]
pub(super) struct Page {
    pub(super) index: &'static str,
    pub(super) start: u64,
    pub(super) limit: u64,
}

impl Page {
    /// The last index on it.
    pub(super) fn last(&self) -> u64 {
        self.start.saturating_add(self.limit).saturating_sub(1)
    }
}

/// `wait` for an index that is there already: tells the highest.
#[derive(Serialize)]
pub(super) struct Wait {
    pub(super) subsystem: &'static str,
    pub(super) indexname: &'static str,
    pub(super) nextvalue: u64,
}

/// Its answer.
#[derive(Deserialize)]
pub(super) struct Waited {
    #[serde(default)]
    pub(super) created: u64,
}

/// `waitanyinvoice`.
#[derive(Serialize)]
pub(super) struct WaitAny {
    pub(super) lastpay_index: u64,
    /// In seconds.
    pub(super) timeout: u64,
}

/// `listinvoices`.
#[derive(Deserialize)]
pub(super) struct Invoices {
    pub(super) invoices: Vec<Invoice>,
}

/// An invoice.
#[derive(Deserialize)]
pub(super) struct Invoice {
    pub(super) payment_hash: PaymentHash,
    pub(super) status: String,
    #[serde(default)]
    pub(super) description: Option<String>,
    #[serde(default)]
    expires_at: i64,
    #[serde(default)]
    pub(super) created_index: u64,
    #[serde(default)]
    pub(super) pay_index: Option<u64>,
    #[serde(default, deserialize_with = "msat")]
    amount_received_msat: Option<Msat>,
    #[serde(default)]
    paid_at: i64,
}

impl Invoice {
    /// Whether it could no longer be paid at `second`.
    pub(super) fn ended_before(&self, second: i64) -> bool {
        self.expires_at > 0 && self.expires_at < second
    }

    /// Where it stands at `now`.
    pub(super) fn standing(&self, now: Timestamp) -> Result<InvoiceState, WalletError> {
        match self.status.as_str() {
            "unpaid" if self.expires_at > 0 && self.expires_at <= now.as_second() => Ok(InvoiceState::Expired),
            "unpaid" => Ok(InvoiceState::Open),
            "expired" => Ok(InvoiceState::Expired),
            "paid" => {
                let amount = self.amount_received_msat.ok_or_else(no_amount)?;
                Ok(InvoiceState::Settled { amount, at: seconds(self.paid_at) })
            }
            _ => Err(WalletError::BadAnswer("it gives a state that Core Lightning does not have".into())),
        }
    }
}

fn unreadable(error: InvoiceError) -> WalletError {
    WalletError::BadAnswer(error.to_string())
}

fn no_amount() -> WalletError {
    WalletError::BadAnswer("it says that money came, but not how much".into())
}

/// `listholdinvoices` (plugin).
#[derive(Deserialize)]
pub(super) struct HoldInvoices {
    pub(super) holdinvoices: Vec<HoldInvoice>,
}

/// A hold invoice (plugin).
#[derive(Deserialize)]
pub(super) struct HoldInvoice {
    pub(super) payment_hash: PaymentHash,
    #[serde(alias = "bolt11")]
    pub(super) invoice: String,
    pub(super) state: String,
    #[serde(default)]
    settled_at: Option<String>,
    #[serde(default)]
    htlcs: Vec<Htlc>,
}

#[derive(Deserialize)]
struct Htlc {
    state: String,
    msat: i64,
}

impl HoldInvoice {
    /// Where it stands at `now`. The plugin knows no expiry: that is in the invoice.
    pub(super) fn standing(&self, now: Timestamp) -> Result<InvoiceState, WalletError> {
        match self.state.as_str() {
            "unpaid" if bolt11::expiry_of(&self.invoice).map_err(unreadable)? <= now => Ok(InvoiceState::Expired),
            "unpaid" => Ok(InvoiceState::Open),
            "accepted" => Ok(InvoiceState::Held { amount: self.arrived()? }),
            "paid" => Ok(InvoiceState::Settled { amount: self.arrived()?, at: self.settled_at() }),
            "cancelled" => Ok(InvoiceState::Cancelled),
            _ => Err(WalletError::BadAnswer("it gives a state that the hold plugin does not have".into())),
        }
    }

    /// When it was settled: a time of UTC without saying so.
    pub(super) fn settled_at(&self) -> Option<Timestamp> {
        let written = self.settled_at.as_ref()?.parse::<DateTime>().ok()?;
        written.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    }

    fn arrived(&self) -> Result<Msat, WalletError> {
        let come = self.htlcs.iter().filter(|htlc| matches!(htlc.state.as_str(), "accepted" | "paid"));
        let msat = come.fold(0_i64, |sum, htlc| sum.saturating_add(htlc.msat));
        let amount = u64::try_from(msat).ok().and_then(|msat| Msat::from_msat(msat).ok());
        amount.filter(|amount| !amount.is_zero()).ok_or_else(no_amount)
    }
}

/// `injectholdinvoice` (plugin).
#[derive(Serialize)]
pub(super) struct Inject<'a> {
    pub(super) invoice: &'a str,
}

/// `settleholdinvoice` (plugin).
#[derive(Serialize)]
pub(super) struct Settle {
    /// In hexadecimal.
    pub(super) preimage: String,
}

/// `pay`.
#[derive(Serialize)]
pub(super) struct Pay<'a> {
    pub(super) bolt11: &'a str,
    pub(super) maxfee: Msat,
    /// In seconds.
    pub(super) retry_for: u64,
}

/// What `pay` answers.
#[derive(Deserialize)]
pub(super) struct Paid {
    pub(super) payment_hash: PaymentHash,
    pub(super) status: String,
    #[serde(default)]
    payment_preimage: String,
    #[serde(default, deserialize_with = "msat")]
    amount_msat: Option<Msat>,
    #[serde(default, deserialize_with = "msat")]
    amount_sent_msat: Option<Msat>,
}

impl Paid {
    /// What it says of the payment.
    pub(super) fn outgoing(&self) -> Result<Outgoing, WalletError> {
        let fees = fees(self.amount_msat, self.amount_sent_msat);
        of_status(&self.status, &self.payment_preimage, fees, &self.payment_hash)
    }
}

/// `listpays`.
#[derive(Deserialize)]
pub(super) struct Pays {
    pub(super) pays: Vec<Attempt>,
}

/// An attempt to pay a hash; there may have been several.
#[derive(Deserialize)]
pub(super) struct Attempt {
    pub(super) payment_hash: PaymentHash,
    status: String,
    /// Unix seconds.
    #[serde(default)]
    created_at: i64,
    #[serde(default)]
    preimage: String,
    #[serde(default, deserialize_with = "msat")]
    amount_msat: Option<Msat>,
    #[serde(default, deserialize_with = "msat")]
    amount_sent_msat: Option<Msat>,
}

impl Attempt {
    /// When it began; long ago when the node does not say.
    pub(super) fn began_at(&self) -> Timestamp {
        Timestamp::from_second(self.created_at).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// What it says of the payment.
    pub(super) fn outgoing(&self) -> Result<Outgoing, WalletError> {
        of_status(&self.status, &self.preimage, fees(self.amount_msat, self.amount_sent_msat), &self.payment_hash)
    }
}

fn fees(amount: Option<Msat>, sent: Option<Msat>) -> Option<Msat> {
    sent?.checked_sub(amount?).ok()
}

fn of_status(status: &str, preimage: &str, fees: Option<Msat>, hash: &PaymentHash) -> Result<Outgoing, WalletError> {
    match status {
        "complete" => Ok(Outgoing::Made(proof(preimage, fees, hash)?)),
        "pending" => Ok(Outgoing::UnderWay),
        "failed" => Ok(Outgoing::Failed("the node says it failed".into())),
        _ => Err(WalletError::BadAnswer("it gives a state that Core Lightning does not have".into())),
    }
}

/// `listsendpays`.
#[derive(Deserialize)]
pub(super) struct SendPays {
    pub(super) payments: Vec<Part>,
}

/// A part of a payment.
#[derive(Deserialize)]
pub(super) struct Part {
    pub(super) payment_hash: PaymentHash,
    pub(super) status: String,
    #[serde(default)]
    pub(super) created_index: u64,
    #[serde(default)]
    pub(super) created_at: i64,
    #[serde(default)]
    pub(super) completed_at: i64,
    #[serde(default, deserialize_with = "msat")]
    pub(super) amount_msat: Option<Msat>,
    #[serde(default, deserialize_with = "msat")]
    pub(super) amount_sent_msat: Option<Msat>,
}

/// `getinfo`.
#[derive(Deserialize)]
pub(super) struct Info {
    network: String,
}

impl Info {
    /// The network it says it is on.
    pub(super) fn network(&self) -> Option<Network> {
        match self.network.as_str() {
            "bitcoin" => Some(Network::Bitcoin),
            "testnet" => Some(Network::Testnet),
            "testnet4" => Some(Network::Testnet4),
            "signet" => Some(Network::Signet),
            "regtest" => Some(Network::Regtest),
            _ => None,
        }
    }
}

/// `help`: what it can do.
#[derive(Deserialize)]
pub(super) struct Help {
    help: Vec<Command>,
}

#[derive(Deserialize)]
struct Command {
    command: String,
}

impl Help {
    /// Whether all of these methods are there.
    pub(super) fn has(&self, methods: &[&str]) -> bool {
        methods
            .iter()
            .all(|method| self.help.iter().any(|known| known.command.split_whitespace().next() == Some(*method)))
    }
}

/// `listpeerchannels`.
#[derive(Deserialize)]
pub(super) struct Channels {
    channels: Vec<Channel>,
}

#[derive(Deserialize)]
struct Channel {
    #[serde(default)]
    state: String,
    #[serde(default, deserialize_with = "msat")]
    spendable_msat: Option<Msat>,
    #[serde(default, deserialize_with = "msat")]
    receivable_msat: Option<Msat>,
}

impl Channels {
    /// What can be paid and received through channels in use.
    pub(super) fn room(&self) -> (Msat, Msat) {
        let used = self.channels.iter().filter(|channel| channel.state.starts_with("CHANNELD_"));
        used.fold((Msat::ZERO, Msat::ZERO), |(out, into), channel| {
            let add = |sum: Msat, more: Option<Msat>| sum.saturating_add(more.unwrap_or(Msat::ZERO));
            (add(out, channel.spendable_msat), add(into, channel.receivable_msat))
        })
    }
}

/// `listfunds`.
#[derive(Deserialize)]
pub(super) struct Funds {
    #[serde(default)]
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    #[serde(default)]
    status: String,
    #[serde(default, deserialize_with = "msat")]
    amount_msat: Option<Msat>,
}

impl Funds {
    /// What is confirmed on the chain.
    pub(super) fn on_chain(&self) -> Msat {
        let confirmed = self.outputs.iter().filter(|output| output.status == "confirmed");
        confirmed.fold(Msat::ZERO, |sum, output| sum.saturating_add(output.amount_msat.unwrap_or(Msat::ZERO)))
    }
}
