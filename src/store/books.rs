//! Postings and balances.

use rusqlite::{Connection, OptionalExtension, params};

use super::columns::millis;
use super::error::StoreError;
use crate::job::CustomerId;
use crate::ledger::{Account, Entry};
use crate::money::{Msat, MsatDelta};

/// Writes an entry and brings the balances along.
pub(super) fn post(db: &Connection, entry: &Entry) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO entries (at, job, reason) VALUES (?1, ?2, ?3)")?.execute(params![
        millis(entry.at()),
        entry.job().map(|job| job.0),
        entry.reason().word()
    ])?;
    let number = db.last_insert_rowid();
    for posting in entry.postings() {
        let account = posting.account.to_string();
        db.prepare_cached("INSERT INTO postings (entry, account, msat) VALUES (?1, ?2, ?3)")?.execute(params![
            number,
            account,
            posting.amount.as_msat()
        ])?;
        let before = balance(db, &account)?;
        let after = before
            .checked_add(posting.amount)
            .ok_or_else(|| StoreError::corrupt("balances.msat", "the balance overflows"))?;
        if after == MsatDelta::ZERO {
            db.prepare_cached("DELETE FROM balances WHERE account = ?1")?.execute([account])?;
        } else {
            db.prepare_cached(
                "INSERT INTO balances (account, msat) VALUES (?1, ?2)
                 ON CONFLICT (account) DO UPDATE SET msat = excluded.msat",
            )?
            .execute(params![account, after.as_msat()])?;
        }
    }
    Ok(())
}

fn balance(db: &Connection, account: &str) -> Result<MsatDelta, StoreError> {
    let msat: Option<i64> = db
        .prepare_cached("SELECT msat FROM balances WHERE account = ?1")?
        .query_row([account], |row| row.get(0))
        .optional()?;
    Ok(msat.map_or(MsatDelta::ZERO, MsatDelta::from_msat))
}

/// What we owe a customer.
pub(super) fn credit(db: &Connection, customer: CustomerId) -> Result<Msat, StoreError> {
    let owed = balance(db, &Account::Customer(customer).to_string())?.negated();
    owed.to_msat().ok_or_else(|| StoreError::corrupt("balances.msat", "a customer owes us"))
}
