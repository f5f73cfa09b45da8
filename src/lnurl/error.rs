//! What can go wrong with paying to an address. Nothing here quotes an invoice.

use crate::fetch::FetchError;
use crate::money::Msat;
use crate::wallet::InvoiceError;

/// Text that is no address to pay to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither of the three forms.
    #[error("it is no lightning address (name@host), no LNURL (lnurl1…) and no https address")]
    NoAddress,
    /// Longer than anybody's honest address.
    #[error("it is too long for a lightning address or LNURL")]
    TooLong,
    /// `lnurl1…` with a mistyped letter, or of something that is no address.
    #[error("the LNURL can't be read: {0}")]
    BadLnurl(&'static str),
    /// Anybody on the way could change the answer.
    #[error("it is not an https address")]
    NotHttps,
}

/// Why an address gave no invoice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LnurlError {
    /// No address.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// It leads nowhere public, or there is no answer.
    #[error("the lightning address can't be used: {0}")]
    Fetch(#[from] FetchError),
    /// The callback is not HTTPS.
    #[error("the address wants to be asked without encryption")]
    Insecure,
    /// The service said no, in its own words.
    #[error("the address's service answers: {0}")]
    Refused(String),
    /// An answer that is none, or not one of LNURL-pay.
    #[error("the address's answer can't be used: {0}")]
    BadAnswer(&'static str),
    /// Outside of what the address takes.
    #[error("{amount} is not between {min} and {max}, which is what the address takes")]
    AmountNotTaken {
        /// What was to be paid.
        amount: Msat,
        /// The least it takes.
        min: Msat,
        /// The most it takes.
        max: Msat,
    },
    /// A cheat, or a service of whole satoshis that rounds.
    #[error("the address made an invoice over {invoiced} when asked for {asked}")]
    OtherAmount {
        /// What was asked.
        asked: Msat,
        /// What came.
        invoiced: Msat,
    },
    /// Not an invoice to pay.
    #[error("the address's invoice is not usable: {0}")]
    Invoice(#[from] InvoiceError),
}

impl LnurlError {
    /// Whether the same question may be answered later without anybody changing anything.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Fetch(FetchError::Status(status)) => *status >= 500 || *status == 429,
            Self::Fetch(error) => matches!(error, FetchError::Unreachable | FetchError::Timeout { .. }),
            _ => false,
        }
    }
}
