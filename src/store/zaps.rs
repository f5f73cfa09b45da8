//! Zaps: which events of ours can be zapped, and which zaps were counted.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::Store;
use super::columns::{id, millis, time};
use super::error::StoreError;
use super::jobs::{self, Advanced};
use crate::job::id::{EventId, PaymentHash};
use crate::job::{JobEvent, JobId, Purse};
use crate::money::Msat;

/// A zap that is to be counted, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZapRow {
    /// The payment hash of its invoice: it is counted once, for one job.
    pub payment_hash: PaymentHash,
    /// The receipt.
    pub receipt: EventId,
    /// Which job it paid for.
    pub job: JobId,
    /// How much.
    pub amount: Msat,
    /// Where the money is.
    pub purse: Purse,
    /// When it was counted.
    pub at: Timestamp,
}

/// Remembers what an event of ours is about.
pub(super) fn remember_event(db: &Connection, event: EventId, job: JobId, at: Timestamp) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO our_events (id, job, at) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO NOTHING")?
        .execute(params![event.0, job.0, millis(at)])?;
    Ok(())
}

impl Store {
    /// Remembers what an event of ours is about, before anybody sees it, so that a zap of it finds the job. Results are
    /// remembered with the job itself.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remember_event(&self, event: EventId, job: JobId, now: Timestamp) -> Result<(), StoreError> {
        self.writer.run(move |db| remember_event(db, event, job, now)).await
    }

    /// The job an event of ours is about.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_of_event(&self, event: EventId) -> Result<Option<JobId>, StoreError> {
        self.look(move |db| {
            let mut statement = db.prepare_cached("SELECT job FROM our_events WHERE id = ?1")?;
            let mut rows = statement.query([event.0])?;
            rows.next()?.map(|row| id(row, 0, "our_events.job").map(JobId)).transpose()
        })
        .await
    }

    /// Whether a payment hash was counted as a zap. Only a hint, that saves asking: counting looks again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn knows_zap(&self, payment_hash: PaymentHash) -> Result<bool, StoreError> {
        self.look(move |db| {
            Ok(db.prepare_cached("SELECT 1 FROM zaps WHERE payment_hash = ?1")?.exists([payment_hash.0])?)
        })
        .await
    }

    /// Counts a zap: the receipt and what it makes of the job become durable together. `None` when this payment hash was
    /// counted before, for whatever job, or is that of an invoice of ours, which counts by itself.
    ///
    /// # Errors
    /// [`StoreError::Illegal`] when the job asks for no money, and then nothing is kept.
    pub async fn count_zap(&self, zap: ZapRow) -> Result<Option<Advanced>, StoreError> {
        self.writer
            .run(move |db| {
                let ZapRow { payment_hash, receipt, job, amount, purse, at } = zap;
                if db.prepare_cached("SELECT 1 FROM jobs WHERE payment_hash = ?1")?.exists([payment_hash.0])? {
                    return Ok(None);
                }
                let new = db
                    .prepare_cached(
                        "INSERT INTO zaps (payment_hash, receipt, job, msat, purse, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                         ON CONFLICT (payment_hash) DO NOTHING",
                    )?
                    .execute(params![payment_hash.0, receipt.0, job.0, amount.as_msat(), purse.word(), millis(at)])?;
                if new == 0 {
                    return Ok(None);
                }
                jobs::advance(db, job, &JobEvent::Zapped { amount, purse }, at).map(Some)
            })
            .await
    }

    /// The zaps that were counted, oldest first: what a wallet's or an address's history is compared with.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn zaps(&self) -> Result<Vec<ZapRow>, StoreError> {
        self.look(|db| {
            let mut statement =
                db.prepare_cached("SELECT payment_hash, receipt, job, msat, purse, at FROM zaps ORDER BY at")?;
            let mut rows = statement.query([])?;
            let mut zaps = Vec::new();
            while let Some(row) = rows.next()? {
                let purse: String = row.get(4)?;
                zaps.push(ZapRow {
                    payment_hash: PaymentHash(id(row, 0, "zaps.payment_hash")?),
                    receipt: EventId(id(row, 1, "zaps.receipt")?),
                    job: JobId(id(row, 2, "zaps.job")?),
                    amount: Msat::from_msat(row.get(3)?).map_err(|error| StoreError::corrupt("zaps.msat", error))?,
                    purse: Purse::ALL
                        .into_iter()
                        .find(|known| known.word() == purse)
                        .ok_or_else(|| StoreError::corrupt("zaps.purse", "an unknown word"))?,
                    at: time(row.get(5)?, "zaps.at")?,
                });
            }
            Ok(zaps)
        })
        .await
    }
}
