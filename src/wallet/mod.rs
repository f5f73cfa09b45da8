//! The wallet port: how coinop is paid and pays.
//!
//! A wallet is never believed beyond its own invoices: settlement is what it says, when asked, of a payment hash we hold.
//! Watching is both a stream and a look-up, because streams fall silent without a word.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use crate::job::event::Invoice;
pub use crate::job::id::PaymentHash;
use crate::money::Msat;

pub mod bolt11;
pub mod cln;
pub mod desk;
pub mod error;
pub mod fake;
pub mod hold_window;
pub mod http;
#[cfg(feature = "ldk")]
pub mod ldk;
pub mod lnbits;
pub mod lnd;
pub mod node;
pub mod nwc;
pub mod phoenixd;
pub mod watch;
mod words;

pub use bolt11::PayableInvoice;
pub use error::{InvoiceError, NwcUriError, WalletError};
pub use node::Node;

/// What a wallet can do; the terms offered follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Makes and settles hold invoices (see [`HoldInvoices`]).
    pub hold_invoices: bool,
    /// Pays invoices.
    pub pay: bool,
    /// Knows whole satoshis only.
    pub whole_sats: bool,
}

/// An invoice to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceRequest {
    /// What to ask. Never zero.
    pub amount: Msat,
    /// What the payer's wallet shows; names the request id. At most 639 bytes (BOLT 11 `d`), wallets may take less.
    pub description: String,
    /// How long it can be paid.
    pub expiry: Duration,
}

/// Where an invoice of ours stands, in the wallet's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InvoiceState {
    /// Not paid.
    Open,
    /// Committed to a hold invoice, waiting for our settle or cancel.
    Held {
        /// What is held.
        amount: Msat,
    },
    /// Paid: the money is ours.
    Settled {
        /// What arrived.
        amount: Msat,
        /// When, if the wallet says.
        at: Option<Timestamp>,
    },
    /// Can no longer be paid.
    Expired,
    /// A hold invoice whose money went back.
    Cancelled,
}

/// News of an invoice. Only a hint to look: the same news may come twice, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvoiceUpdate {
    /// Which invoice.
    pub payment_hash: PaymentHash,
    /// Where it stands now.
    pub state: InvoiceState,
}

/// A payment we made.
#[derive(Clone, PartialEq, Eq)]
pub struct Payment {
    /// Proof of payment: the preimage of the payment hash. Secret towards third parties, so never logged.
    pub preimage: [u8; 32],
    /// Routing fees on top of the invoice's amount, if the wallet says.
    pub fees: Option<Msat>,
}

impl std::fmt::Debug for Payment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payment").field("fees", &self.fees).finish_non_exhaustive()
    }
}

/// What a wallet has, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// What can be paid over Lightning.
    pub spendable: Msat,
    /// What can still be received over Lightning (inbound liquidity), if the wallet says.
    pub receivable: Option<Msat>,
    /// What is on the chain, if the wallet has such.
    pub on_chain: Option<Msat>,
}

/// An invoice of the wallet that was paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Which.
    pub payment_hash: PaymentHash,
    /// What arrived.
    pub amount: Msat,
    /// When it was settled, as far as the wallet says.
    pub at: Option<Timestamp>,
    /// What the invoice said, as far as the wallet says.
    pub description: Option<String>,
}

/// A payment the wallet made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// To which invoice.
    pub payment_hash: PaymentHash,
    /// How much, without fees.
    pub amount: Msat,
    /// Routing fees on top, if the wallet says.
    pub fees: Option<Msat>,
    /// When, as far as the wallet says.
    pub at: Option<Timestamp>,
}

/// What a wallet remembers: for comparing the books with it.
#[async_trait]
pub trait History: Send + Sync {
    /// Invoices settled at `since` or later (those whose time is unknown included), in no order, none twice.
    async fn received(&self, since: Timestamp) -> Result<Vec<Received>, WalletError>;

    /// Payments made at `since` or later (those whose time is unknown included), in no order, none twice.
    async fn sent(&self, since: Timestamp) -> Result<Vec<Sent>, WalletError>;
}

/// Makes invoices and says what became of them.
#[async_trait]
pub trait Wallet: Send + Sync + 'static {
    /// What it can do, as far as is known without asking.
    fn capabilities(&self) -> Capabilities;

    /// A short name for logs and `coinop doctor`, without secrets.
    fn name(&self) -> &str;

    /// Makes an invoice for exactly the amount asked. The adapter checks what the wallet returned (amount, network,
    /// signature, expiry) before handing it on.
    async fn create_invoice(&self, request: &InvoiceRequest) -> Result<Invoice, WalletError>;

    /// Where an invoice of ours stands.
    async fn look_up(&self, payment_hash: &PaymentHash) -> Result<InvoiceState, WalletError>;

    /// News of invoices, for as long as the stream lives. It may end or fall silent at any time: whoever reads it also
    /// looks up.
    async fn updates(&self) -> Result<BoxStream<'static, InvoiceUpdate>, WalletError>;

    /// What it has. `None`: it does not say.
    async fn balance(&self) -> Result<Option<Balance>, WalletError>;

    /// What it remembers, when it tells.
    fn history(&self) -> Option<&dyn History> {
        None
    }

    /// Ends in order what the wallet runs in this process. Called once, after everything else that uses it has ended.
    async fn shut_down(&self) {}

    /// The node itself, when it is ours to run.
    fn node(&self) -> Option<&dyn Node> {
        None
    }

    /// The hold-invoice side, when [`Capabilities::hold_invoices`].
    fn hold_invoices(&self) -> Option<&dyn HoldInvoices> {
        None
    }

    /// The paying side, when [`Capabilities::pay`].
    fn payer(&self) -> Option<&dyn Payer> {
        None
    }
}

/// Hold invoices: the payment is committed first and taken, or given back, later.
#[async_trait]
pub trait HoldInvoices: Send + Sync {
    /// The longest a payment can be held before the network takes it back, whoever pays. A block is counted as ten
    /// minutes, so it is a promise about blocks, not about a clock.
    fn longest_hold(&self) -> Duration;

    /// Makes a hold invoice for a hash whose preimage we keep, whose payment can be held for at least `hold_for` (at most
    /// [`HoldInvoices::longest_hold`]). Asked again for the same hash, after a crash, it makes or finds one that can be
    /// paid: at most one of them ever is.
    async fn create_hold_invoice(
        &self,
        request: &InvoiceRequest,
        payment_hash: &PaymentHash,
        hold_for: Duration,
    ) -> Result<Invoice, WalletError>;

    /// Takes the held money. Not settlement itself: only [`InvoiceState::Settled`] is. Taking what is taken already is
    /// no error, so that an outbox may ask twice. Past the deadline of the hold it takes nothing, gives the money back and
    /// is an error, so that no payment ever goes to the chain.
    async fn settle(&self, preimage: &[u8; 32]) -> Result<(), WalletError>;

    /// Gives the held money back, or withdraws the invoice when nothing is held yet. Giving back twice is no error.
    async fn cancel(&self, payment_hash: &PaymentHash) -> Result<(), WalletError>;
}

/// Pays invoices.
#[async_trait]
pub trait Payer: Send + Sync {
    /// Pays `bolt11` (which must name its amount), with at most `max_fee` on top. After an indefinite error
    /// ([`WalletError::is_definitive`] false) nobody may assume it failed: ask [`Payer::payment`].
    async fn pay(&self, bolt11: &str, max_fee: Msat) -> Result<Payment, WalletError>;

    /// What became of an earlier payment to that hash: `None` when the wallet knows of none, or it is under way.
    /// [`WalletError::PaymentFailed`] when the wallet knows of one that failed for certain.
    async fn payment(&self, payment_hash: &PaymentHash) -> Result<Option<Payment>, WalletError>;
}
