//! The payments book of the buying side: one SQLite file of its own, which any number of buying processes use at once.
//!
//! The rule: a payment stands here before the wallet is asked to make it, and what stands here is never paid again. The
//! budget is checked and reserved in the same transaction, so two processes cannot spend the same money.
//!
//! ```text
//! (nothing) ──▶ Paying ──▶ Paid      the wallet has the proof; also from Failed and Lapsed, should it turn up later
//!                  ├─────▶ Failed    the wallet says for certain that nothing was paid: the reservation is released
//!                  └─────▶ Lapsed    in doubt for so long that the reservation is released; still never paid again
//! ```

use std::path::Path;

use bitcoin::Network;
use jiff::{SignedDuration, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};
use rusqlite_migration::{M, Migrations};
use serde::Serialize;

use super::columns::millis;
use super::error::StoreError;
use super::writer::Writer;
use super::{BUSY_TIMEOUT, Closing, no_thread};
use crate::job::JobId;
use crate::job::id::{EventId, PaymentHash, ProviderId};
use crate::money::Msat;

mod budget;
mod rows;
#[cfg(test)]
mod tests;

pub use budget::{BUDGET_WINDOW, OverBudget};
use rows::{PAYMENT, claims, find, msat, payment, receipts};

/// How long after its invoice's expiry a payment that the wallet knows nothing of keeps its reservation. As long as the
/// budget looks back, and longer than held payments usually last.
pub const DOUBT_KEPT: SignedDuration = SignedDuration::from_hours(24);

/// How long after its invoice's expiry the wallet is still asked about a payment whose reservation was given up: 2,016
/// blocks, the longest that payers lock their money for (BOLT 4).
pub const ASKED_FOR: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Payments in doubt that are asked about at once, newest first.
const DOUBTS_A_TIME: u32 = 256;

/// The file whose lock is held while the book is opened: two processes that make it at once would both make its tables.
const LOCK_EXTENSION: &str = "lock";

/// The payments book. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Purchases {
    writer: Writer,
}

/// A payment about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spending {
    /// What it is known by, for ever.
    pub payment_hash: PaymentHash,
    /// The request it is for.
    pub job: JobId,
    /// Who gets it.
    pub provider: ProviderId,
    /// Whose money: each network has a budget of its own, so that play money uses up no real one.
    pub network: Network,
    /// The invoice's amount.
    pub amount: Msat,
    /// The most that goes on top in routing fees.
    pub max_fee: Msat,
    /// When the invoice can no longer be paid.
    pub invoice_expires_at: Timestamp,
}

/// How far a payment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SpendingState {
    /// Under way, or in doubt: the wallet was asked, or the process died just before.
    Paying,
    /// Paid.
    Paid,
    /// Not paid, for certain.
    Failed,
    /// Never heard of again.
    Lapsed,
}

impl SpendingState {
    /// The word in the book and in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Paying => "paying",
            Self::Paid => "paid",
            Self::Failed => "failed",
            Self::Lapsed => "lapsed",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Paying, Self::Paid, Self::Failed, Self::Lapsed].into_iter().find(|state| state.word() == word)
    }
}

/// A payment in the book.
#[derive(Clone, PartialEq, Eq)]
pub struct Spent {
    /// What was to be paid.
    pub spending: Spending,
    /// How far it is.
    pub state: SpendingState,
    /// When it was written down, which is before the wallet was asked.
    pub began_at: Timestamp,
    /// When the wallet's last word came.
    pub ended_at: Option<Timestamp>,
    /// Routing fees, as far as the wallet says.
    pub fees: Option<Msat>,
    /// The proof of payment. Secret towards third parties.
    pub preimage: Option<[u8; 32]>,
    /// Why it failed.
    pub problem: Option<String>,
}

impl std::fmt::Debug for Spent {
    /// Without the preimage: it must not reach logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spent").field("spending", &self.spending).field("state", &self.state).finish_non_exhaustive()
    }
}

/// What came of writing a payment down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It is written down: pay.
    Begun,
    /// It was written down before: do not pay.
    Known(Box<Spent>),
    /// There is no room for it: do not pay.
    OverBudget(OverBudget),
}

/// A result that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The request.
    pub job: JobId,
    /// Who signed the result.
    pub provider: ProviderId,
    /// The result event.
    pub result: EventId,
    /// When it came.
    pub at: Timestamp,
    /// What the provider says it cost.
    pub cost: Option<Msat>,
    /// What the provider says it owes us now.
    pub credit: Option<Msat>,
}

impl Purchases {
    /// Opens (and if need be makes or migrates) the book. Its folder must be there.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::Migration`].
    pub fn open(path: &Path) -> Result<(Self, Closing), StoreError> {
        let wrap = |source| StoreError::Open { path: path.to_owned(), source };
        let io = |error: std::io::Error| wrap(rusqlite::Error::ToSqlConversionFailure(Box::new(error)));
        let turn = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.with_extension(LOCK_EXTENSION))
            .map_err(io)?;
        turn.lock().map_err(io)?;
        make_private(path).map_err(io)?;
        let opened = Self::start(Connection::open(path).map_err(wrap)?, path);
        drop(turn);
        opened
    }

    /// A book in memory: SQLite itself, for tests.
    ///
    /// # Errors
    /// As [`Purchases::open`].
    pub fn in_memory() -> Result<(Self, Closing), StoreError> {
        Self::start(Connection::open_in_memory()?, Path::new(":memory:"))
    }

    fn start(mut connection: Connection, path: &Path) -> Result<(Self, Closing), StoreError> {
        let open = |source| StoreError::Open { path: path.to_owned(), source };
        connection.busy_timeout(BUSY_TIMEOUT).map_err(open)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(open)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(open)?;
        migrations().to_latest(&mut connection)?;
        let (writer, thread) = Writer::start(connection).map_err(|error| open(no_thread(error)))?;
        Ok((Self { writer }, Closing(vec![thread])))
    }

    /// Writes a payment down before it is made: checks that it was not made before and that the budget of 24 hours has
    /// room for it and its fees, and takes that room. Pay after [`Begun::Begun`] only.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing may be paid.
    pub async fn begin(
        &self,
        spending: Spending,
        max_per_day: Option<Msat>,
        now: Timestamp,
    ) -> Result<Begun, StoreError> {
        self.writer
            .run(move |db| {
                if let Some(known) = find(db, spending.payment_hash)? {
                    return Ok(Begun::Known(Box::new(known)));
                }
                if let Some(budget) = max_per_day {
                    let needed = spending.amount.saturating_add(spending.max_fee);
                    if let Err(over) = budget::check(claims(db, spending.network, now)?, budget, needed, now) {
                        return Ok(Begun::OverBudget(over));
                    }
                }
                db.prepare_cached(
                    "INSERT INTO payments (payment_hash, job, provider, network, amount, max_fee, invoice_expires_at, state,
                     began_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'paying', ?8)",
                )?
                .execute(params![
                    spending.payment_hash.0,
                    spending.job.0,
                    spending.provider.0,
                    spending.network.to_string(),
                    msat(spending.amount)?,
                    msat(spending.max_fee)?,
                    millis(spending.invoice_expires_at),
                    millis(now),
                ])?;
                Ok(Begun::Begun)
            })
            .await
    }

    /// What is left of a budget.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn left(&self, network: Network, max_per_day: Msat, now: Timestamp) -> Result<Msat, StoreError> {
        self.writer.run(move |db| Ok(budget::left(&claims(db, network, now)?, max_per_day, now))).await
    }

    /// It was paid: here is the proof. Its reservation becomes what it really took.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn paid(
        &self,
        payment_hash: PaymentHash,
        fees: Option<Msat>,
        preimage: [u8; 32],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.writer
            .run(move |db| {
                let fees = fees.map(msat).transpose()?;
                // The first word stays: it says when.
                db.prepare_cached(
                    "UPDATE payments SET state = 'paid', fees = ?2, preimage = ?3, ended_at = ?4, problem = NULL
                     WHERE payment_hash = ?1 AND state <> 'paid'",
                )?
                .execute(params![payment_hash.0, fees, preimage, millis(now)])?;
                Ok(())
            })
            .await
    }

    /// It was not paid, for certain: its reservation is released. What is known to be paid stays paid.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn failed(&self, payment_hash: PaymentHash, why: String, now: Timestamp) -> Result<(), StoreError> {
        self.writer
            .run(move |db| {
                db.prepare_cached(
                    "UPDATE payments SET state = 'failed', problem = ?2, ended_at = ?3
                     WHERE payment_hash = ?1 AND state IN ('paying', 'lapsed')",
                )?
                .execute(params![payment_hash.0, why, millis(now)])?;
                Ok(())
            })
            .await
    }

    /// The wallet, asked at `now`, knows nothing of it. Once its invoice expired [`DOUBT_KEPT`] ago its reservation is
    /// released, and whether that is so is answered; before, nothing changes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unheard_of(&self, payment_hash: PaymentHash, now: Timestamp) -> Result<bool, StoreError> {
        self.writer
            .run(move |db| {
                let long_ago = now.checked_sub(DOUBT_KEPT).unwrap_or(Timestamp::MIN);
                let changed = db
                    .prepare_cached(
                        "UPDATE payments SET state = 'lapsed', ended_at = ?2
                         WHERE payment_hash = ?1 AND state = 'paying' AND invoice_expires_at < ?3",
                    )?
                    .execute(params![payment_hash.0, millis(now), millis(long_ago)])?;
                Ok(changed > 0)
            })
            .await
    }

    /// Payments the wallet is to be asked about: those in doubt, and those that were given up not long ago.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn in_doubt(&self, network: Network, now: Timestamp) -> Result<Vec<Spent>, StoreError> {
        let since = now.checked_sub(ASKED_FOR).unwrap_or(Timestamp::MIN);
        self.select(
            "network = ? AND (state = 'paying' OR (state = 'lapsed' AND invoice_expires_at >= ?))",
            vec![network.to_string().into(), millis(since).into()],
            DOUBTS_A_TIME,
        )
        .await
    }

    /// The payments of a job: one, unless it failed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn of_job(&self, job: JobId) -> Result<Vec<Spent>, StoreError> {
        self.select("job = ?", vec![job.0.to_vec().into()], 0).await
    }

    /// Payments, newest first; at most `limit`, and all for zero.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn payments(&self, limit: u32) -> Result<Vec<Spent>, StoreError> {
        self.select("true", Vec::new(), limit).await
    }

    async fn select(&self, which: &'static str, values: Vec<Value>, limit: u32) -> Result<Vec<Spent>, StoreError> {
        self.writer
            .run(move |db| {
                let sql = format!("SELECT {PAYMENT} FROM payments WHERE {which} ORDER BY began_at DESC LIMIT ?");
                let mut statement = db.prepare_cached(&sql)?;
                let values = values.into_iter().chain([all_or(limit).into()]);
                let mut rows = statement.query(params_from_iter(values))?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.push(payment(row)?);
                }
                Ok(found)
            })
            .await
    }

    /// Keeps that a result came. Another result of the same job changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_receipt(&self, receipt: Received) -> Result<(), StoreError> {
        self.writer
            .run(move |db| {
                db.prepare_cached(
                    "INSERT INTO receipts (job, provider, result, at, cost, credit) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT (job) DO NOTHING",
                )?
                .execute(params![
                    receipt.job.0,
                    receipt.provider.0,
                    receipt.result.0,
                    millis(receipt.at),
                    receipt.cost.map(msat).transpose()?,
                    receipt.credit.map(msat).transpose()?,
                ])?;
                Ok(())
            })
            .await
    }

    /// Results that came, newest first, each with the payments of its job; at most `limit`, and all for zero.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn receipts(&self, limit: u32) -> Result<Vec<Received>, StoreError> {
        self.writer.run(move |db| receipts(db, "", all_or(limit))).await
    }

    /// The results of jobs whose id begins with these hex digits, for people who type; at most two, to tell one from
    /// several.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn receipts_beginning(&self, prefix: String) -> Result<Vec<Received>, StoreError> {
        self.writer.run(move |db| receipts(db, &prefix.to_ascii_lowercase(), 2)).await
    }
}

fn migrations() -> Migrations<'static> {
    Migrations::new(vec![M::up(include_str!("0001_payments.sql"))])
}

fn all_or(limit: u32) -> i64 {
    if limit == 0 { -1 } else { i64::from(limit) }
}

/// Makes the file, readable by its owner alone, before anything is in it: it will hold proofs of payment. A file that is
/// there is not opened here: closing it again would release the locks SQLite holds on it in this process.
#[cfg(unix)]
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    match std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        }
        made => made.map(|_| ()),
    }
}

#[cfg(not(unix))]
fn make_private(_path: &Path) -> std::io::Result<()> {
    Ok(())
}
