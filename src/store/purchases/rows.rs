//! Between the book's rows and its types.

use bitcoin::Network;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{BUDGET_WINDOW, DOUBT_KEPT, Received, Spending, SpendingState, Spent, budget};
use crate::job::JobId;
use crate::job::id::{EventId, PaymentHash, ProviderId};
use crate::money::Msat;
use crate::store::columns::{id, millis, time};
use crate::store::error::StoreError;

/// The columns [`payment`] reads.
pub(super) const PAYMENT: &str = "payment_hash, job, provider, network, amount, max_fee, invoice_expires_at, state, began_at, ended_at, \
                       fees, preimage, problem";

pub(super) fn payment(row: &Row<'_>) -> Result<Spent, StoreError> {
    let network: String = row.get(3)?;
    let state: String = row.get(7)?;
    let ended_at: Option<i64> = row.get(9)?;
    let fees: Option<i64> = row.get(10)?;
    let preimage: Option<Vec<u8>> = row.get(11)?;
    Ok(Spent {
        spending: Spending {
            payment_hash: PaymentHash(id(row, 0, "payments.payment_hash")?),
            job: JobId(id(row, 1, "payments.job")?),
            provider: ProviderId(id(row, 2, "payments.provider")?),
            network: network.parse().map_err(|_| StoreError::corrupt("payments.network", "an unknown word"))?,
            amount: amount(row.get(4)?, "payments.amount")?,
            max_fee: amount(row.get(5)?, "payments.max_fee")?,
            invoice_expires_at: time(row.get(6)?, "payments.invoice_expires_at")?,
        },
        state: SpendingState::from_word(&state)
            .ok_or_else(|| StoreError::corrupt("payments.state", "an unknown word"))?,
        began_at: time(row.get(8)?, "payments.began_at")?,
        ended_at: ended_at.map(|at| time(at, "payments.ended_at")).transpose()?,
        fees: fees.map(|fees| amount(fees, "payments.fees")).transpose()?,
        preimage: preimage
            .map(|bytes| bytes.try_into().map_err(|_| StoreError::corrupt("payments.preimage", "not 32 bytes")))
            .transpose()?,
        problem: row.get(12)?,
    })
}

pub(super) fn find(db: &Connection, payment_hash: PaymentHash) -> Result<Option<Spent>, StoreError> {
    let sql = format!("SELECT {PAYMENT} FROM payments WHERE payment_hash = ?1");
    let mut statement = db.prepare_cached(&sql)?;
    statement.query_row([payment_hash.0], |row| Ok(payment(row))).optional()?.transpose()
}

/// What counts towards the budget, or still may.
pub(super) fn claims(db: &Connection, network: Network, now: Timestamp) -> Result<Vec<budget::Claim>, StoreError> {
    let sql = format!(
        "SELECT {PAYMENT} FROM payments WHERE network = ?1 AND (state = 'paying' OR (state = 'paid' AND ended_at >= ?2))"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let window = now.checked_sub(BUDGET_WINDOW).unwrap_or(Timestamp::MIN);
    let mut rows = statement.query(params![network.to_string(), millis(window)])?;
    let mut claims = Vec::new();
    let after = |at: Timestamp, span| at.checked_add(span).unwrap_or(Timestamp::MAX);
    while let Some(row) = rows.next()? {
        let Spent { spending, state, began_at, ended_at, fees, .. } = payment(row)?;
        let in_doubt = state == SpendingState::Paying;
        claims.push(budget::Claim {
            // Fees the wallet does not tell are counted at their most.
            amount: spending.amount.saturating_add(fees.unwrap_or(spending.max_fee)),
            until: if in_doubt {
                after(spending.invoice_expires_at, DOUBT_KEPT)
            } else {
                after(ended_at.unwrap_or(began_at), BUDGET_WINDOW)
            },
            in_doubt,
        });
    }
    Ok(claims)
}

pub(super) fn receipts(db: &Connection, prefix: &str, limit: i64) -> Result<Vec<Received>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT job, provider, result, at, cost, credit FROM receipts
         WHERE substr(lower(hex(job)), 1, length(?1)) = ?1 ORDER BY at DESC LIMIT ?2",
    )?;
    let mut rows = statement.query(params![prefix, limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (cost, credit): (Option<i64>, Option<i64>) = (row.get(4)?, row.get(5)?);
        found.push(Received {
            job: JobId(id(row, 0, "receipts.job")?),
            provider: ProviderId(id(row, 1, "receipts.provider")?),
            result: EventId(id(row, 2, "receipts.result")?),
            at: time(row.get(3)?, "receipts.at")?,
            cost: cost.map(|cost| amount(cost, "receipts.cost")).transpose()?,
            credit: credit.map(|credit| amount(credit, "receipts.credit")).transpose()?,
        });
    }
    Ok(found)
}

pub(super) fn msat(amount: Msat) -> Result<i64, StoreError> {
    i64::try_from(amount.as_msat()).map_err(|error| StoreError::corrupt("an amount", error))
}

fn amount(column: i64, place: &'static str) -> Result<Msat, StoreError> {
    u64::try_from(column)
        .ok()
        .and_then(|msat| Msat::from_msat(msat).ok())
        .ok_or_else(|| StoreError::corrupt(place, "no amount"))
}
