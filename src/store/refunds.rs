//! Refunds: credit set aside before it is paid back, and what became of it.
//!
//! Every step is a compare-and-set on the refund's state in the transaction that moves the money in the books, so two
//! processes can't do the same step twice, and a process that dies leaves behind exactly what it had decided.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::columns::{id, millis, time};
use super::error::StoreError;
use super::{Store, books};
use crate::job::CustomerId;
use crate::job::id::PaymentHash;
use crate::ledger::{Account, Entry, Refund, RefundState};
use crate::money::Msat;

/// Bytes of a refund target that is remembered: the longest LNURL read.
const MAX_TARGET_BYTES: usize = 2_048;

/// The span of the limit of automatic refunds.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A refund to be set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRefund {
    /// The payment hash of the invoice to be paid.
    pub payment_hash: PaymentHash,
    /// Whose credit.
    pub customer: CustomerId,
    /// How much.
    pub amount: Msat,
    /// Where it goes.
    pub target: String,
    /// When the invoice can no longer be paid.
    pub expires_at: Timestamp,
    /// For a refund nobody asked for: the most that is paid back so in 24 hours.
    pub automatic_limit: Option<Msat>,
}

/// Why nothing was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReserved {
    /// There is less credit than that.
    #[error("the customer's credit is {credit} only")]
    TooLittleCredit {
        /// What there is.
        credit: Msat,
    },
    /// The invoice was used for another refund, or is one of ours.
    #[error("the payment hash of the invoice is known already")]
    KnownHash,
    /// A refund of the same customer is under way.
    #[error("another refund of this customer is under way")]
    UnderWay,
    /// Enough was paid back by itself today.
    #[error("of the {limit} that are paid back by themselves in 24 hours, {left} are left")]
    DayIsFull {
        /// The limit.
        limit: Msat,
        /// What is left of it.
        left: Msat,
    },
}

/// Remembers where a customer wants credit paid back; what is too long to be an address is left alone.
pub(super) fn remember_target(
    db: &Connection,
    customer: CustomerId,
    target: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    if target.is_empty() || target.len() > MAX_TARGET_BYTES {
        return Ok(());
    }
    db.prepare_cached(
        "INSERT INTO refund_targets (customer, target, at) VALUES (?1, ?2, ?3)
         ON CONFLICT (customer) DO UPDATE SET target = excluded.target, at = excluded.at",
    )?
    .execute(params![customer.0, target, millis(now)])?;
    Ok(())
}

/// What is wrong between the refunds under way and the books, in words.
pub(super) fn check(db: &Connection) -> Result<Vec<String>, StoreError> {
    let under_way: i64 =
        db.query_row("SELECT coalesce(sum(msat), 0) FROM refunds WHERE state IN ('reserved', 'paying')", [], |row| {
            row.get(0)
        })?;
    let booked: Option<i64> = db
        .prepare_cached("SELECT msat FROM balances WHERE account = ?1")?
        .query_row([Account::Refunds.to_string()], |row| row.get(0))
        .optional()?;
    let booked = booked.unwrap_or(0);
    if booked == -under_way {
        Ok(Vec::new())
    } else {
        Ok(vec![format!("{under_way} msat of refunds are under way, {} msat by the books", -booked)])
    }
}

const COLUMNS: &str = "payment_hash, customer, msat, target, automatic, state, fees, at, expires_at";

fn read(row: &Row<'_>) -> Result<Refund, StoreError> {
    let msat = |column: usize, place| -> Result<Msat, StoreError> {
        Msat::from_msat(row.get(column)?).map_err(|error| StoreError::corrupt(place, error))
    };
    let state: String = row.get(5)?;
    let has_fees = !matches!(row.get_ref(6)?, rusqlite::types::ValueRef::Null);
    Ok(Refund {
        payment_hash: PaymentHash(id(row, 0, "refunds.payment_hash")?),
        customer: CustomerId(id(row, 1, "refunds.customer")?),
        amount: msat(2, "refunds.msat")?,
        target: row.get(3)?,
        automatic: row.get(4)?,
        state: RefundState::from_word(&state).ok_or_else(|| StoreError::corrupt("refunds.state", "an unknown word"))?,
        fees: if has_fees { Some(msat(6, "refunds.fees")?) } else { None },
        at: time(row.get(7)?, "refunds.at")?,
        expires_at: time(row.get(8)?, "refunds.expires_at")?,
    })
}

fn refund(db: &Connection, hash: PaymentHash) -> Result<Option<Refund>, StoreError> {
    let mut statement = db.prepare_cached(&format!("SELECT {COLUMNS} FROM refunds WHERE payment_hash = ?1"))?;
    let mut rows = statement.query([hash.0])?;
    rows.next()?.map(read).transpose()
}

/// Moves a refund on from one of `from`. `None` when it is in no such state (any more).
fn step(
    db: &Connection,
    hash: PaymentHash,
    from: &[RefundState],
    to: RefundState,
    fees: Option<Msat>,
) -> Result<Option<Refund>, StoreError> {
    let Some(before) = refund(db, hash)?.filter(|refund| from.contains(&refund.state)) else { return Ok(None) };
    db.prepare_cached("UPDATE refunds SET state = ?2, fees = ?3 WHERE payment_hash = ?1")?.execute(params![
        hash.0,
        to.word(),
        fees.map(Msat::as_msat)
    ])?;
    Ok(Some(Refund { state: to, fees, ..before }))
}

impl Store {
    /// Sets credit aside for a refund, whose payment hash is durable from here on. Nothing has been paid.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reserve_refund(&self, new: NewRefund, now: Timestamp) -> Result<Result<(), NotReserved>, StoreError> {
        self.writer
            .run(move |db| {
                let credit = books::credit(db, new.customer)?;
                if credit < new.amount {
                    return Ok(Err(NotReserved::TooLittleCredit { credit }));
                }
                let known = db.prepare_cached("SELECT 1 FROM jobs WHERE payment_hash = ?1")?.exists([new.payment_hash.0])?
                    || refund(db, new.payment_hash)?.is_some();
                if known {
                    return Ok(Err(NotReserved::KnownHash));
                }
                let under_way = db
                    .prepare_cached("SELECT 1 FROM refunds WHERE customer = ?1 AND state IN ('reserved', 'paying')")?
                    .exists([new.customer.0])?;
                if under_way {
                    return Ok(Err(NotReserved::UnderWay));
                }
                if let Some(limit) = new.automatic_limit {
                    let since = now.checked_sub(DAY).unwrap_or(Timestamp::MIN);
                    let today: i64 = db
                        .prepare_cached(
                            "SELECT coalesce(sum(msat + coalesce(fees, 0)), 0) FROM refunds WHERE automatic = 1 AND state <> 'failed' AND at > ?1",
                        )?
                        .query_row([millis(since)], |row| row.get(0))?;
                    let today = u64::try_from(today).ok().and_then(|msat| Msat::from_msat(msat).ok()).unwrap_or(Msat::MAX);
                    let left = limit.saturating_sub(today);
                    if new.amount > left {
                        return Ok(Err(NotReserved::DayIsFull { limit, left }));
                    }
                }
                db.prepare_cached(&format!("INSERT INTO refunds ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, ?7, ?8)"))?
                    .execute(params![
                        new.payment_hash.0,
                        new.customer.0,
                        new.amount.as_msat(),
                        new.target,
                        new.automatic_limit.is_some(),
                        RefundState::Reserved.word(),
                        millis(now),
                        millis(new.expires_at),
                    ])?;
                books::post(db, &Entry::refund_reserved(now, new.customer, new.amount))?;
                Ok(Ok(()))
            })
            .await
    }

    /// Records that the wallet is about to be asked: from here on only its word counts. `false` when the refund is no longer
    /// reserved, and then it must not be asked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin_refund(&self, hash: PaymentHash) -> Result<bool, StoreError> {
        self.writer
            .run(move |db| Ok(step(db, hash, &[RefundState::Reserved], RefundState::Paying, None)?.is_some()))
            .await
    }

    /// Records that a refund was paid, and books it. `None` when that is known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn refund_paid(
        &self,
        hash: PaymentHash,
        fees: Msat,
        now: Timestamp,
    ) -> Result<Option<Refund>, StoreError> {
        self.writer
            .run(move |db| {
                let paid = step(db, hash, &[RefundState::Paying], RefundState::Paid, Some(fees))?;
                if let Some(refund) = &paid {
                    books::post(db, &Entry::refunded(now, refund.amount, fees))?;
                }
                Ok(paid)
            })
            .await
    }

    /// Records that a refund was not paid, for certain, and gives the credit back. `None` when it is over already.
    /// `from` says what is certain: that the wallet was never asked, or what it answered.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn refund_failed(
        &self,
        hash: PaymentHash,
        from: RefundState,
        now: Timestamp,
    ) -> Result<Option<Refund>, StoreError> {
        self.writer
            .run(move |db| {
                let from = match from {
                    RefundState::Paid | RefundState::Failed => return Ok(None),
                    state => state,
                };
                let failed = step(db, hash, &[from], RefundState::Failed, None)?;
                if let Some(refund) = &failed {
                    books::post(db, &Entry::refund_returned(now, refund.customer, refund.amount))?;
                }
                Ok(failed)
            })
            .await
    }

    /// Refunds whose end is not known yet, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_refunds(&self) -> Result<Vec<Refund>, StoreError> {
        self.writer
            .run(|db| {
                let mut statement = db.prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM refunds WHERE state IN ('reserved', 'paying') ORDER BY at"
                ))?;
                let mut rows = statement.query([])?;
                let mut refunds = Vec::new();
                while let Some(row) = rows.next()? {
                    refunds.push(read(row)?);
                }
                Ok(refunds)
            })
            .await
    }

    /// Every refund, oldest first: what the wallet's history is compared with.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn refunds(&self) -> Result<Vec<Refund>, StoreError> {
        self.look(|db| {
            let mut statement = db.prepare_cached(&format!("SELECT {COLUMNS} FROM refunds ORDER BY at"))?;
            let mut rows = statement.query([])?;
            let mut refunds = Vec::new();
            while let Some(row) = rows.next()? {
                refunds.push(read(row)?);
            }
            Ok(refunds)
        })
        .await
    }

    /// Customers with credit of at least `least`, and how much each has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn creditors(&self, least: Msat) -> Result<Vec<(CustomerId, Msat)>, StoreError> {
        self.look(move |db| {
            let mut statement = db.prepare_cached(
                "SELECT account, -msat FROM balances WHERE account LIKE 'customer:%' AND -msat >= ?1 ORDER BY msat",
            )?;
            let mut rows = statement.query([least.as_msat()])?;
            let mut creditors = Vec::new();
            while let Some(row) = rows.next()? {
                let account: String = row.get(0)?;
                let Ok(Account::Customer(customer)) = account.parse() else {
                    return Err(StoreError::corrupt("balances.account", "not a customer's account"));
                };
                let credit =
                    Msat::from_msat(row.get(1)?).map_err(|error| StoreError::corrupt("balances.msat", error))?;
                creditors.push((customer, credit));
            }
            Ok(creditors)
        })
        .await
    }

    /// Where a customer's requests said that credit should be paid back to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn refund_target(&self, customer: CustomerId) -> Result<Option<String>, StoreError> {
        self.look(move |db| {
            Ok(db
                .prepare_cached("SELECT target FROM refund_targets WHERE customer = ?1")?
                .query_row([customer.0], |row| row.get(0))
                .optional()?)
        })
        .await
    }
}
