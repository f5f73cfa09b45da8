//! What the wallets behind an HTTP interface have in common: where they are and how that is proven ([`Endpoint`],
//! [`Pin`]), asking them within bounds (`caller`, `socket`), hearing from them (`news`, `follow`) and being sure about
//! payments (`paying`).
//!
//! Everything that comes back is hostile: its size and time are bounded, redirects and proxies are not followed, and an
//! answer that can't be understood leaves in doubt what happened.

mod caller;
pub mod endpoint;
mod follow;
mod news;
mod paying;
mod socket;
pub mod tls;
mod wire;

#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

pub use endpoint::{Endpoint, EndpointError};
pub use tls::Pin;

pub(crate) use caller::{Answer, Caller, Credential, Line, Lines, in_time, parse};
pub(crate) use follow::{Followed, followed_updates};
pub(crate) use news::{News, told, until_error};
pub(crate) use paying::{Outgoing, after_failure, known_payment, proof};
pub(crate) use socket::hints;
pub(crate) use wire::{amount_of_sat, hash_or_other, number, optional_number, seconds};

/// How long things may take, and how much may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpOptions {
    /// For an answer, from the first byte sent to the last one read.
    pub request_timeout: Duration,
    /// For the answer to a payment. A hold invoice is paid only when its receiver takes the money, which may be later
    /// than this: then ask [`Payer::payment`](super::Payer::payment).
    pub payment_timeout: Duration,
    /// Bytes of an answer, or of one line of a stream.
    pub max_body: usize,
    /// How often what gives no news by itself is looked at.
    pub poll: Duration,
}

impl Default for HttpOptions {
    /// Long enough for a node on a slow disk, short enough to retry within an invoice's life. A page of a node's history
    /// is some hundred kilobytes.
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(30),
            payment_timeout: Duration::from_secs(90),
            max_body: 8 * 1024 * 1024,
            poll: Duration::from_secs(2),
        }
    }
}
