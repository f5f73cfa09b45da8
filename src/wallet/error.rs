//! What can go wrong with a wallet, and whether that is certain.

use crate::money::Msat;

/// A wallet's refusal or failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
