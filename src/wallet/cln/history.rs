//! What the node remembers, read backwards in pages.

use std::collections::HashMap;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::{ClnWallet, wire};
use crate::money::Msat;
use crate::wallet::http::seconds;
use crate::wallet::{History, InvoiceState, PaymentHash, Received, Sent, WalletError, bolt11};

/// How many entries are asked for at once.
const PAGE: u64 = 500;

/// Pages looked through at most: a bound against a node that invents its highest index.
const MOST_PAGES: usize = 5_000;

/// How long before its settlement something may have begun. Pages are ordered by that.
const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(31 * 24);

#[async_trait]
impl History for ClnWallet {
    async fn received(&self, since: Timestamp) -> Result<Vec<Received>, WalletError> {
        let mut found = Vec::new();
        let began = began(since);
        for page in pages(self.last_created("invoices").await?) {
            let invoices: wire::Invoices = self.inner.call("listinvoices", &page).await?;
            let mut older = false;
            for invoice in invoices.invoices.into_iter().filter(|one| one.created_index <= page.last()) {
                // Invoices do not say when they were made; when they were to expire is near enough.
                older |= invoice.ended_before(began);
                if let InvoiceState::Settled { amount, at } = invoice.standing(Timestamp::now())?
                    && at.is_none_or(|at| at >= since)
                {
                    let (payment_hash, description) = (invoice.payment_hash, invoice.description);
                    found.push(Received { payment_hash, amount, at, description });
                }
            }
            if older {
                break;
            }
        }
        if self.inner.holds {
            found.extend(self.held(since).await?);
        }
        Ok(found)
    }

    async fn sent(&self, since: Timestamp) -> Result<Vec<Sent>, WalletError> {
        let began = began(since);
        let mut found: HashMap<PaymentHash, Sent> = HashMap::new();
        for page in pages(self.last_created("sendpays").await?) {
            let parts: wire::SendPays = self.inner.call("listsendpays", &page).await?;
            // Where some were deleted a page runs into the one after it.
            let parts: Vec<_> = parts.payments.into_iter().filter(|part| part.created_index <= page.last()).collect();
            for part in parts.iter().filter(|part| part.status == "complete") {
                let amount = part.amount_msat.unwrap_or(Msat::ZERO);
                let fees = part.amount_sent_msat.and_then(|sent| sent.checked_sub(amount).ok());
                let at = seconds(part.completed_at).or_else(|| seconds(part.created_at));
                let payment_hash = part.payment_hash;
                found
                    .entry(payment_hash)
                    .and_modify(|sent| {
                        sent.amount = sent.amount.saturating_add(amount);
                        sent.fees = sent.fees.zip(fees).map(|(sum, more)| sum.saturating_add(more));
                        sent.at = sent.at.max(at);
                    })
                    .or_insert(Sent { payment_hash, amount, fees, at });
            }
            if parts.iter().any(|part| part.created_at < began) {
                break;
            }
        }
        Ok(found.into_values().filter(|sent| sent.at.is_none_or(|at| at >= since)).collect())
    }
}

impl ClnWallet {
    /// The highest index there is: how many were ever made.
    async fn last_created(&self, subsystem: &'static str) -> Result<u64, WalletError> {
        let body = wire::Wait { subsystem, indexname: "created", nextvalue: 0 };
        let told: wire::Waited = self.inner.call("wait", &body).await?;
        Ok(told.created)
    }

    /// What the plugin remembers: it cleans up after itself, and has no pages.
    async fn held(&self, since: Timestamp) -> Result<Vec<Received>, WalletError> {
        let all: wire::HoldInvoices = self.inner.call("listholdinvoices", &serde_json::json!({})).await?;
        let mut found = Vec::new();
        for invoice in all.holdinvoices {
            if let InvoiceState::Settled { amount, at } = invoice.standing(Timestamp::now())?
                && at.is_none_or(|at| at >= since)
            {
                let description = bolt11::description_of(&invoice.invoice).ok().flatten();
                found.push(Received { payment_hash: invoice.payment_hash, amount, at, description });
            }
        }
        Ok(found)
    }
}

/// The pages up to index `last`, newest first.
fn pages(last: u64) -> impl Iterator<Item = wire::Page> {
    let page = |last: u64| {
        let start = last.saturating_sub(PAGE - 1).max(1);
        (last > 0).then(|| wire::Page { index: "created", start, limit: last - start + 1 })
    };
    std::iter::successors(page(last), move |page_after| page(page_after.start - 1)).take(MOST_PAGES)
}

/// The second before which nothing began that ended after `since`.
fn began(since: Timestamp) -> i64 {
    since.checked_sub(LONGEST_LIFE).map_or(i64::MIN, Timestamp::as_second)
}
