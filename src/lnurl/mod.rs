//! LNURL-pay: paying to an address instead of an invoice (LUD-01, LUD-06, LUD-16), and what such an address says about zaps
//! (NIP-57).
//!
//! Addresses come from strangers and so do the answers. Everything goes through [`crate::fetch`] (public addresses only,
//! bounded size, time and redirects), and an invoice is believed only when it is over the amount asked, for our network, and
//! commits to the metadata the endpoint showed.

mod answers;
mod error;
mod target;

#[cfg(test)]
mod tests;

use std::time::Duration;

use bitcoin::Network;
use jiff::Timestamp;
use url::Url;

pub use answers::PayEndpoint;
pub use error::{LnurlError, TargetError};
pub use target::Target;

use crate::fetch::{FetchLimits, Fetcher};
use crate::money::Msat;
use crate::wallet::{PayableInvoice, bolt11};

/// Bytes of an answer: metadata may hold a small picture.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Time for one question, redirects included.
const PATIENCE: Duration = Duration::from_secs(15);

/// Redirects followed: services move, none moves more often.
const MAX_REDIRECTS: usize = 3;

/// Asks pay endpoints. Copies are the same client.
#[derive(Debug, Clone, Copy)]
pub struct LnurlClient {
    fetcher: Fetcher,
    network: Network,
}

impl LnurlClient {
    /// A client for invoices of `network`. `allow_private` also lets it speak plain HTTP, for tests and closed networks.
    pub fn new(network: Network, allow_private: bool) -> Self {
        let limits = FetchLimits {
            max_bytes: MAX_ANSWER_BYTES,
            timeout: PATIENCE,
            max_redirects: MAX_REDIRECTS,
            allow_private,
            https_only: !allow_private,
        };
        Self { fetcher: Fetcher::new(limits), network }
    }

    /// The network invoices must be for.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Asks an address how to pay it (LUD-06, first step).
    ///
    /// # Errors
    /// [`LnurlError`]: it leads nowhere public, does not answer, or answers something else than a pay endpoint.
    pub async fn resolve(&self, target: &Target) -> Result<PayEndpoint, LnurlError> {
        let url = target.url(self.fetcher.allows_private())?;
        let body = self.fetcher.fetch_text(url.as_str()).await?;
        let endpoint = answers::read_endpoint(&body)?;
        self.check_scheme(&endpoint.callback)?;
        Ok(endpoint)
    }

    /// Asks an endpoint for an invoice over exactly this amount (LUD-06, second step). Asking pays nothing.
    ///
    /// # Errors
    /// [`LnurlError`]: it will not take that amount, or its invoice is not the one asked for.
    pub async fn invoice(
        &self,
        endpoint: &PayEndpoint,
        amount: Msat,
        now: Timestamp,
    ) -> Result<PayableInvoice, LnurlError> {
        if amount < endpoint.min_sendable || amount > endpoint.max_sendable {
            let (min, max) = (endpoint.min_sendable, endpoint.max_sendable);
            return Err(LnurlError::AmountNotTaken { amount, min, max });
        }
        let mut callback = endpoint.callback.clone();
        callback.query_pairs_mut().append_pair("amount", &amount.as_msat().to_string());
        let body = self.fetcher.fetch_text(callback.as_str()).await?;
        let text = answers::read_invoice(&body)?;
        let invoice = bolt11::read_for_paying(&text, self.network, now)?;
        let committed = bolt11::read_committed(&text, &endpoint.metadata, self.network)?;
        if committed.amount != amount {
            return Err(LnurlError::OtherAmount { asked: amount, invoiced: committed.amount });
        }
        Ok(invoice)
    }

    /// Who reads or changes an answer on its way could have the money: HTTPS only, except where private addresses are
    /// allowed.
    fn check_scheme(&self, url: &Url) -> Result<(), LnurlError> {
        if url.scheme() == "https" || (url.scheme() == "http" && self.fetcher.allows_private()) {
            Ok(())
        } else {
            Err(LnurlError::Insecure)
        }
    }
}
