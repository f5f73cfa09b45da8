//! Reading what JSON of several dialects has in common.

use std::fmt::Display;
use std::str::FromStr;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, Error};

use crate::money::Msat;
use crate::wallet::{PaymentHash, WalletError};

/// A number, or a text that is one (as protobuf's JSON writes 64-bit numbers).
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Loose {
    Unsigned(u64),
    Signed(i64),
    Text(String),
}

impl Loose {
    fn read<T: FromStr<Err: Display>, E: Error>(self) -> Result<T, E> {
        let text = match self {
            Self::Unsigned(number) => number.to_string(),
            Self::Signed(number) => number.to_string(),
            Self::Text(text) => text,
        };
        text.parse().map_err(|error: T::Err| E::custom(error))
    }
}

/// A number written either way.
pub(crate) fn number<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<T, D::Error> {
    Loose::deserialize(deserializer)?.read()
}

/// A number written either way, or `null`.
pub(crate) fn optional_number<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Option::<Loose>::deserialize(deserializer)?.map(Loose::read).transpose()
}

/// A time in seconds since 1970, where zero or less means none.
pub(crate) fn seconds(second: i64) -> Option<Timestamp> {
    if second > 0 { Timestamp::from_second(second).ok() } else { None }
}

/// So many satoshis.
pub(crate) fn amount_of_sat(sat: u64) -> Result<Msat, WalletError> {
    Msat::from_sat(sat).map_err(|_| WalletError::BadAnswer("it names more money than there is".into()))
}

/// Whether an answer tells of the hash that was asked for.
pub(crate) fn hash_or_other(said: &PaymentHash, asked: &PaymentHash) -> Result<(), WalletError> {
    if said == asked { Ok(()) } else { Err(WalletError::BadAnswer("it tells of another payment hash".into())) }
}
