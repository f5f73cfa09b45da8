//! Reports: read for people, never to decide anything.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::params;
use serde::Serialize;

use super::Store;
use super::columns::{from_json, millis, optional_id, time};
use super::error::StoreError;
use super::refunds;
use crate::job::{Job, JobId, JobKind, WorkState};
use crate::ledger::{Account, Reason};
use crate::money::{Msat, MsatDelta};

/// Which jobs to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobFilter {
    /// Only in this state.
    pub work: Option<WorkState>,
    /// Only those opened at or after.
    pub since: Option<Timestamp>,
    /// At most so many, newest first. Zero is all.
    pub limit: u32,
}

/// A line of the list of jobs.
pub type JobRow = Job;

/// What a day brought: money by the books, work by the receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DayEarnings {
    /// The day, UTC.
    pub day: jiff::civil::Date,
    /// Which kind of job.
    pub kind: JobKind,
    /// Jobs earned from (free ones are not).
    pub jobs: u32,
    /// Earned, less what was taken back.
    #[serde(rename = "earned_msat")]
    pub earned: MsatDelta,
    /// The work done, free jobs included.
    #[serde(flatten)]
    pub work: WorkDone,
}

/// Work that was done and delivered, for money or for nothing, by the day it was finished. What was shown of jobs that were
/// called off is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct WorkDone {
    /// Jobs delivered.
    pub delivered: u32,
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens written.
    pub generated_tokens: u64,
    /// Millions of floating-point operations of the models whose parameter count is known; `None` when none is.
    pub mflops: Option<u64>,
    /// Milliseconds in sandboxes.
    pub sandbox_ms: u64,
}

impl WorkDone {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let mflops = [self.mflops, other.mflops].into_iter().flatten().reduce(u64::saturating_add);
        Self {
            delivered: self.delivered.saturating_add(other.delivered),
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            generated_tokens: self.generated_tokens.saturating_add(other.generated_tokens),
            mflops,
            sandbox_ms: self.sandbox_ms.saturating_add(other.sandbox_ms),
        }
    }
}

/// A posting with its entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntryRow {
    /// The entry's number, growing.
    pub entry: i64,
    /// When.
    pub at: Timestamp,
    /// For which job, if it is about one.
    pub job: Option<JobId>,
    /// Why.
    #[serde(serialize_with = "word")]
    pub reason: Reason,
    /// Which account.
    #[serde(serialize_with = "text")]
    pub account: Account,
    /// The change.
    #[serde(rename = "msat")]
    pub amount: MsatDelta,
}

fn word<S: serde::Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.word())
}

fn text<S: serde::Serializer>(account: &Account, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(account)
}

/// An account and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountBalance {
    /// Which.
    #[serde(serialize_with = "text")]
    pub account: Account,
    /// How much; what we owe or earned is negative.
    #[serde(rename = "msat")]
    pub balance: MsatDelta,
}

impl Store {
    /// Jobs, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_jobs(&self, filter: JobFilter) -> Result<Vec<JobRow>, StoreError> {
        self.writer
            .run(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT state FROM jobs WHERE (?1 IS NULL OR work = ?1) AND opened_at >= ?2
                     ORDER BY opened_at DESC LIMIT ?3",
                )?;
                let limit = if filter.limit == 0 { -1 } else { i64::from(filter.limit) };
                let since = filter.since.map_or(i64::MIN, millis);
                let states = statement.query_map(params![filter.work.map(WorkState::word), since, limit], |row| {
                    row.get::<_, String>(0)
                })?;
                states.map(|state| from_json(&state?, "jobs.state")).collect()
            })
            .await
    }

    /// Earnings and work by day and kind, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn earnings(&self, since: Option<Timestamp>) -> Result<Vec<DayEarnings>, StoreError> {
        self.writer
            .run(move |db| {
                let since = since.map_or(0, millis);
                let mut days: BTreeMap<(i64, JobKind), DayEarnings> = BTreeMap::new();
                let mut statement = db.prepare_cached(
                    "SELECT at / 86400000 AS day, account, count(DISTINCT job), sum(-msat) FROM postings
                     JOIN entries ON entries.id = postings.entry
                     WHERE account LIKE 'income:%' AND at >= ?1 GROUP BY day, account",
                )?;
                let mut rows = statement.query([since])?;
                while let Some(row) = rows.next()? {
                    let account: String = row.get(1)?;
                    let Ok(Account::Income(kind)) = account.parse() else {
                        return Err(StoreError::corrupt("postings.account", "not an income account"));
                    };
                    let line = line_of(&mut days, row.get(0)?, kind)?;
                    (line.jobs, line.earned) = (row.get(2)?, MsatDelta::from_msat(row.get(3)?));
                }
                let mut statement = db.prepare_cached(
                    "SELECT at / 86400000 AS day, work_done.kind, count(*), sum(prompt_tokens), sum(generated_tokens),
                     sum(mflops), sum(sandbox_ms) FROM work_done JOIN jobs ON jobs.id = work_done.job
                     WHERE at >= ?1 AND work = 'delivered' GROUP BY day, work_done.kind",
                )?;
                let mut rows = statement.query([since])?;
                while let Some(row) = rows.next()? {
                    let kind = JobKind::from_request_kind(row.get(1)?)
                        .ok_or_else(|| StoreError::corrupt("work_done.kind", "not a kind of job"))?;
                    line_of(&mut days, row.get(0)?, kind)?.work = WorkDone {
                        delivered: row.get(2)?,
                        prompt_tokens: row.get(3)?,
                        generated_tokens: row.get(4)?,
                        mflops: row.get(5)?,
                        sandbox_ms: row.get(6)?,
                    };
                }
                Ok(days.into_values().collect())
            })
            .await
    }

    /// The books, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ledger(&self, since: Option<Timestamp>, job: Option<JobId>) -> Result<Vec<EntryRow>, StoreError> {
        self.writer
            .run(move |db| {
                let mut statement = db.prepare_cached(
                    "SELECT entries.id, at, job, reason, account, msat FROM entries
                     JOIN postings ON postings.entry = entries.id
                     WHERE at >= ?1 AND (?2 IS NULL OR job = ?2) ORDER BY entries.id, postings.rowid",
                )?;
                let mut rows = statement.query(params![since.map_or(0, millis), job.map(|job| job.0)])?;
                let mut entries = Vec::new();
                while let Some(row) = rows.next()? {
                    let reason: String = row.get(3)?;
                    let account: String = row.get(4)?;
                    entries.push(EntryRow {
                        entry: row.get(0)?,
                        at: time(row.get(1)?, "entries.at")?,
                        job: optional_id(row, 2, "entries.job")?.map(JobId),
                        reason: Reason::from_word(&reason)
                            .ok_or_else(|| StoreError::corrupt("entries.reason", "an unknown word"))?,
                        account: account.parse().map_err(|error| StoreError::corrupt("postings.account", error))?,
                        amount: MsatDelta::from_msat(row.get(5)?),
                    });
                }
                Ok(entries)
            })
            .await
    }

    /// Every account that is not empty.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn balances(&self) -> Result<Vec<AccountBalance>, StoreError> {
        self.writer
            .run(|db| {
                let mut statement = db.prepare_cached("SELECT account, msat FROM balances ORDER BY account")?;
                let mut rows = statement.query([])?;
                let mut balances = Vec::new();
                while let Some(row) = rows.next()? {
                    let account: String = row.get(0)?;
                    balances.push(AccountBalance {
                        account: account.parse().map_err(|error| StoreError::corrupt("balances.account", error))?,
                        balance: MsatDelta::from_msat(row.get(1)?),
                    });
                }
                Ok(balances)
            })
            .await
    }

    /// Everything the invariants of the books are about, checked: each entry sums to zero, each balance is the sum of its
    /// postings, and no job that is over holds money, and what is
    /// on its way back is what the refunds under way say. Returns what is wrong, in words.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn check_books(&self) -> Result<Vec<String>, StoreError> {
        self.writer
            .run(|db| {
                let mut wrong = Vec::new();
                let unbalanced: u32 = db.query_row(
                    "SELECT count(*) FROM (SELECT entry FROM postings GROUP BY entry HAVING sum(msat) <> 0)",
                    [],
                    |row| row.get(0),
                )?;
                if unbalanced > 0 {
                    wrong.push(format!("{unbalanced} entries do not sum to zero"));
                }
                let drifted: u32 = db.query_row(
                    "SELECT count(*) FROM (SELECT account, sum(msat) AS total FROM postings GROUP BY account) AS sums
                     LEFT JOIN balances USING (account) WHERE total <> coalesce(balances.msat, 0)",
                    [],
                    |row| row.get(0),
                )?;
                if drifted > 0 {
                    wrong.push(format!("{drifted} balances differ from the sum of their postings"));
                }
                let mut statement = db.prepare("SELECT state FROM jobs")?;
                let states = statement.query_map([], |row| row.get::<_, String>(0))?;
                for state in states {
                    let job: Job = from_json(&state?, "jobs.state")?;
                    let booked: i64 = db
                        .prepare_cached("SELECT coalesce(sum(msat), 0) FROM balances WHERE account = ?1")?
                        .query_row([Account::Escrow(job.id).to_string()], |row| row.get(0))?;
                    if MsatDelta::from_msat(booked) != MsatDelta::minus(job.escrow) {
                        wrong.push(format!(
                            "job {}: {} in escrow by the job, {booked} msat by the books",
                            job.id, job.escrow
                        ));
                    }
                    if job.work.is_over() && job.escrow != Msat::ZERO {
                        wrong.push(format!("job {} is over and still holds {}", job.id, job.escrow));
                    }
                }
                wrong.extend(refunds::check(db)?);
                Ok(wrong)
            })
            .await
    }
}

/// The line of a day (since 1970) and kind.
fn line_of(
    days: &mut BTreeMap<(i64, JobKind), DayEarnings>,
    day: i64,
    kind: JobKind,
) -> Result<&mut DayEarnings, StoreError> {
    let midnight = time(day.saturating_mul(86_400_000), "entries.at")?;
    Ok(days.entry((day, kind)).or_insert_with(|| DayEarnings {
        day: midnight.to_zoned(jiff::tz::TimeZone::UTC).date(),
        kind,
        jobs: 0,
        earned: MsatDelta::ZERO,
        work: WorkDone::default(),
    }))
}
