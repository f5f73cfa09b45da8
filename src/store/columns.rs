//! Between columns and the domain's types.

use jiff::Timestamp;
use rusqlite::Row;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::StoreError;

/// A time as the store keeps it: Unix milliseconds.
pub(super) fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// The time a column holds.
pub(super) fn time(millis: i64, place: &'static str) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(millis).map_err(|error| StoreError::corrupt(place, error))
}

/// A JSON column.
pub(super) fn to_json<T: Serialize>(value: &T, place: &'static str) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::corrupt(place, error))
}

/// What a JSON column holds. The problem is named without the column's content, which may be a customer's.
pub(super) fn from_json<T: DeserializeOwned>(json: &str, place: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|error| {
        StoreError::corrupt(place, format!("line {} column {}: {:?}", error.line(), error.column(), error.classify()))
    })
}

/// A 32-byte column that may be empty.
pub(super) fn optional_id(row: &Row<'_>, column: usize, place: &'static str) -> Result<Option<[u8; 32]>, StoreError> {
    if matches!(row.get_ref(column)?, rusqlite::types::ValueRef::Null) {
        Ok(None)
    } else {
        id(row, column, place).map(Some)
    }
}

/// A 32-byte column.
pub(super) fn id(row: &Row<'_>, column: usize, place: &'static str) -> Result<[u8; 32], StoreError> {
    let bytes: Vec<u8> = row.get(column)?;
    bytes
        .try_into()
        .map_err(|bytes: Vec<u8>| StoreError::corrupt(place, format!("{} bytes instead of 32", bytes.len())))
}
