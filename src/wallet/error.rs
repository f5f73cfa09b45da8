//! What can go wrong with a wallet, and whether that is certain.

use bitcoin::Network;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::money::Msat;

/// A wallet's refusal or failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum WalletError {
    /// The wallet did not answer in time, or the connection broke. Nobody knows what happened.
    #[error("the wallet did not answer: {0}")]
    Unreachable(String),
    /// The wallet answered that it failed inside. What happened is not known.
    #[error("the wallet failed: {0}")]
    Internal(String),
    /// The wallet will not take our word for who we are.
    #[error("the wallet refused our credentials: {0}")]
    Unauthorized(String),
    /// The wallet will not do this, for certain.
    #[error("the wallet refused: {0}")]
    Refused(String),
    /// Asked for more than the wallet has or may spend.
    #[error("the wallet's balance or limit is too low")]
    InsufficientFunds,
    /// Too many requests; later is fine.
    #[error("the wallet asks us to slow down")]
    RateLimited,
    /// The wallet knows no such invoice or payment.
    #[error("the wallet knows no such invoice or payment")]
    NotFound,
    /// The payment found no way, for certain: nothing was paid.
    #[error("the payment failed: {0}")]
    PaymentFailed(String),
    /// The wallet's invoice is not the one asked for: a lying or broken wallet.
    #[error("the wallet made an invoice over {invoiced} when asked for {asked}")]
    InvoiceAmountMismatch {
        /// What we asked.
        asked: Msat,
        /// What it made.
        invoiced: Msat,
    },
    /// What the wallet returned as an invoice is none, or not one for this request.
    #[error("the wallet's invoice is not usable: {0}")]
    BadInvoice(String),
    /// An answer that can't be read.
    #[error("the wallet's answer can't be read: {0}")]
    BadAnswer(String),
}

impl WalletError {
    /// Whether the error says for certain that nothing happened: no invoice made, no money moved. After any other,
    /// ask the wallet again; never compensate on doubt.
    pub const fn is_definitive(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Internal(_) | Self::BadAnswer(_) => false,
            Self::Unauthorized(_)
            | Self::Refused(_)
            | Self::InsufficientFunds
            | Self::RateLimited
            | Self::NotFound
            | Self::PaymentFailed(_)
            | Self::InvoiceAmountMismatch { .. }
            | Self::BadInvoice(_) => true,
        }
    }

    /// Whether the same request may work later without anybody changing anything.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Internal(_) | Self::RateLimited)
    }
}

/// Why a BOLT 11 string is not one to hand out or to pay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvoiceError {
    /// No BOLT 11 at all, or one whose checksum, signature or mandatory fields are wrong. The reason never quotes it.
    #[error("it is no valid BOLT 11 invoice ({0})")]
    Unreadable(&'static str),
    /// The payer would have to choose the amount.
    #[error("it names no amount")]
    NoAmount,
    /// An amount there cannot be: zero, or more than all bitcoin.
    #[error("its amount is impossible")]
    ImpossibleAmount,
    /// For another network than ours.
    #[error("it is for {found}, not {expected}")]
    WrongNetwork {
        /// Ours.
        expected: Network,
        /// The invoice's.
        found: Network,
    },
    /// Too old to pay.
    #[error("it expired at {at}")]
    Expired {
        /// When.
        at: Timestamp,
    },
    /// An expiry past the end of time.
    #[error("its expiry is not a date")]
    ImpossibleExpiry,
    /// Over another payment hash than the one asked for.
    #[error("it is for another payment hash")]
    OtherHash,
    /// Says something else than was asked: it may belong to another request.
    #[error("it carries another description")]
    OtherDescription,
}

impl From<InvoiceError> for WalletError {
    fn from(error: InvoiceError) -> Self {
        Self::BadInvoice(error.to_string())
    }
}

/// Why a Nostr Wallet Connect string can't be used. Never quotes it: it holds a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NwcUriError {
    /// Something else altogether.
    #[error("a wallet connection begins with nostr+walletconnect://: copy the whole string from your wallet")]
    OtherScheme,
    /// The wallet's public key is missing or malformed.
    #[error("the wallet connection names no wallet: after nostr+walletconnect:// come 64 hexadecimal digits")]
    NoWallet,
    /// No relay to meet the wallet on.
    #[error("the wallet connection names no relay: it needs at least one relay=wss://… parameter")]
    NoRelay,
    /// A relay that is none.
    #[error("a relay of the wallet connection is no ws:// or wss:// address")]
    BadRelay,
    /// The key to speak to the wallet with is missing or malformed.
    #[error("the wallet connection has no usable secret: it needs secret= and 64 hexadecimal digits")]
    NoSecret,
}
