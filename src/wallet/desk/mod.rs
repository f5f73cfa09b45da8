//! The wallet of a running `coinop serve`, used by the commands beside it.
//!
//! An embedded node can be opened by one process only. So the one that has it keeps a desk: a Unix socket in the data folder
//! that only its user can open, where a question is one line of JSON and its answer another. [`Desk`] is the desk,
//! [`DeskWallet`] whoever stands before it: a [`Wallet`](super::Wallet) like any
//! other, without hold invoices, which belong to the seller.

use serde::{Deserialize, Serialize};

use super::node::NodeAddress;
use super::{Capabilities, InvoiceRequest, PaymentHash};
use crate::money::Msat;

mod client;
mod server;

pub use client::DeskWallet;
pub use server::{Desk, DeskError};

/// The socket's file, in the data folder.
pub const SOCKET_FILE: &str = "wallet.sock";

/// The longest question or answer, in bytes: far above an invoice, and a bound for a history.
const MOST_BYTES: u64 = 8 * 1024 * 1024;

/// A question.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    Hello,
    CreateInvoice(InvoiceRequest),
    LookUp(PaymentHash),
    Balance,
    Pay { bolt11: String, max_fee: Msat },
    Payment(PaymentHash),
    Received { since: jiff::Timestamp },
    Sent { since: jiff::Timestamp },
    Status,
    Sync,
    NewAddress,
    Channels,
    OpenChannel { to: NodeAddress, size: Msat, announce: bool },
    CloseChannel { id: String, force: bool },
    Peers,
    Connect { to: NodeAddress },
    Disconnect { node: bitcoin::secp256k1::PublicKey },
    SendOnChain { address: String, amount: Option<Msat> },
}

/// The answer to [`Ask::Hello`].
#[derive(Serialize, Deserialize)]
struct Introduction {
    name: String,
    can: Capabilities,
    remembers: bool,
    is_node: bool,
}

/// A payment on its way through the socket.
#[derive(Serialize, Deserialize)]
struct Proof {
    preimage: String,
    fees: Option<Msat>,
}

#[cfg(test)]
mod tests;
