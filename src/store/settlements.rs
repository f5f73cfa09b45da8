//! What the books and the jobs say of invoices, for comparing with the wallet.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::Store;
use super::columns::{from_json, id, millis, time};
use super::error::StoreError;
use crate::job::id::PaymentHash;
use crate::job::{Job, JobId};
use crate::money::{Msat, MsatDelta};

/// Payments of a job, as the books have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BookedPayment {
    /// Which job.
    pub job: JobId,
    /// Of its invoice. `None`: money was booked for a job that has none.
    pub payment_hash: Option<PaymentHash>,
    /// What was booked into the wallet.
    pub amount: Msat,
    /// When, at last.
    pub at: Timestamp,
}

impl Store {
    /// Payments of invoices booked at `since` or later, one line a job, newest first. Zaps are booked for another reason
    /// and are not among them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn booked_payments(&self, since: Timestamp) -> Result<Vec<BookedPayment>, StoreError> {
        self.look(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT entries.job, jobs.payment_hash, sum(msat), max(at) AS last FROM entries
                 JOIN postings ON postings.entry = entries.id AND account = 'wallet'
                 LEFT JOIN jobs ON jobs.id = entries.job
                 WHERE reason = 'payment' AND at >= ?1 GROUP BY entries.job ORDER BY last DESC",
            )?;
            let mut rows = statement.query([millis(since)])?;
            let mut booked = Vec::new();
            while let Some(row) = rows.next()? {
                let has_hash: Option<Vec<u8>> = row.get(1)?;
                booked.push(BookedPayment {
                    job: JobId(id(row, 0, "entries.job")?),
                    payment_hash: match has_hash {
                        Some(_) => Some(PaymentHash(id(row, 1, "jobs.payment_hash")?)),
                        None => None,
                    },
                    amount: amount(row.get(2)?)?,
                    at: time(row.get(3)?, "entries.at")?,
                });
            }
            Ok(booked)
        })
        .await
    }

    /// The job an invoice belongs to, and what the books have for it (nothing: `None`), whenever that was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn booked_of_invoice(
        &self,
        payment_hash: PaymentHash,
    ) -> Result<Option<(JobId, Option<Msat>)>, StoreError> {
        self.look(move |db| {
            let found: Option<(Vec<u8>, Option<i64>)> = db
                .prepare_cached(
                    "SELECT jobs.id, (SELECT sum(msat) FROM entries
                         JOIN postings ON postings.entry = entries.id AND account = 'wallet'
                         WHERE entries.job = jobs.id AND reason = 'payment') FROM jobs WHERE payment_hash = ?1",
                )?
                .query_row([payment_hash.0], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((job, booked)) = found else { return Ok(None) };
            let job = job.try_into().map_err(|_| StoreError::corrupt("jobs.id", "not 32 bytes"))?;
            Ok(Some((JobId(job), booked.map(amount).transpose()?)))
        })
        .await
    }

    /// Invoices of jobs opened at `since` or later for which nothing is booked, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unbooked_invoices(
        &self,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<(JobId, PaymentHash)>, StoreError> {
        self.look(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT state FROM jobs WHERE payment_hash IS NOT NULL AND opened_at >= ?1
                 AND NOT EXISTS (SELECT 1 FROM entries WHERE entries.job = jobs.id AND reason = 'payment')
                 ORDER BY opened_at DESC LIMIT ?2",
            )?;
            let states = statement.query_map(params![millis(since), limit], |row| row.get::<_, String>(0))?;
            let mut invoices = Vec::new();
            for state in states {
                let job: Job = from_json(&state?, "jobs.state")?;
                if let Some(invoice) = job.invoice {
                    invoices.push((job.id, invoice.payment_hash));
                }
            }
            Ok(invoices)
        })
        .await
    }
}

fn amount(msat: i64) -> Result<Msat, StoreError> {
    let delta = MsatDelta::from_msat(msat);
    delta.to_msat().ok_or_else(|| StoreError::corrupt("postings.msat", "more left the wallet by payments than came"))
}
