//! Acts still to be done, kept until their outcome is recorded.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::Store;
use super::columns::{from_json, id, millis, time, to_json};
use super::error::StoreError;
use crate::job::{Effect, EffectKey, JobId};

/// An act found still to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// For which job.
    pub job: JobId,
    /// What.
    pub effect: Effect,
    /// How often a starting process found it still to be done.
    pub recoveries: u32,
    /// Since when.
    pub since: Timestamp,
}

/// Puts an act in; one already there stays as it is.
pub(super) fn put(db: &Connection, job: JobId, effect: &Effect, at: Timestamp) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO outbox (job, effect, body, recoveries, created_at) VALUES (?1, ?2, ?3, 0, ?4)
         ON CONFLICT (job, effect) DO NOTHING",
    )?
    .execute(params![job.0, effect.key().word(), to_json(effect, "outbox.body")?, millis(at)])?;
    Ok(())
}

/// Takes an act out.
pub(super) fn take(db: &Connection, job: JobId, key: EffectKey) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM outbox WHERE job = ?1 AND effect = ?2")?.execute(params![job.0, key.word()])?;
    Ok(())
}

fn read(db: &Connection) -> Result<Vec<Pending>, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT job, body, recoveries, created_at FROM outbox ORDER BY created_at, job")?;
    let mut rows = statement.query([])?;
    let mut pending = Vec::new();
    while let Some(row) = rows.next()? {
        let body: String = row.get(1)?;
        pending.push(Pending {
            job: JobId(id(row, 0, "outbox.job")?),
            effect: from_json(&body, "outbox.body")?,
            recoveries: row.get(2)?,
            since: time(row.get(3)?, "outbox.created_at")?,
        });
    }
    Ok(pending)
}

impl Store {
    /// Everything still to be done, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn pending(&self) -> Result<Vec<Pending>, StoreError> {
        self.writer.run(read).await
    }

    /// Everything still to be done, for a process that starts: counts that it was found, so that an act that ends the
    /// process every time it is tried can be told and given up.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn recover_pending(&self) -> Result<Vec<Pending>, StoreError> {
        self.writer
            .run(|db| {
                db.execute("UPDATE outbox SET recoveries = recoveries + 1", [])?;
                read(db)
            })
            .await
    }
}
