//! Money. One unit inside: the millisatoshi.
//!
//! Why a type: the field's programs mix sats and msats and lose a factor of a thousand. Nothing in coinop holds an
//! amount as a bare integer; the unit is in the name of every way in and out.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Millisatoshis in one satoshi.
const MSAT_PER_SAT: u64 = 1_000;

/// All bitcoin that will ever exist, in millisatoshis: no amount may exceed it, so sums of amounts cannot overflow
/// unnoticed.
const SUPPLY_MSAT: u64 = 21_000_000 * 100_000_000 * MSAT_PER_SAT;

/// An amount of money in millisatoshis (msat, BOLT 11's smallest step), never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Msat(u64);

/// Why an amount could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// More than all bitcoin.
    #[error("the amount is more than all bitcoin (21,000,000 BTC)")]
    AboveSupply,
    /// A subtraction below zero.
    #[error("the amount would fall below zero")]
    BelowZero,
    /// Text that is no amount.
    #[error("'{text}' is no amount: write it with its unit, such as 21sat or 21000msat")]
    Unreadable {
        /// What was written, cut to a readable length.
        text: String,
    },
}

impl Msat {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// All bitcoin: the largest amount there is.
    pub const MAX: Self = Self(SUPPLY_MSAT);

    /// `msat` millisatoshis.
    ///
    /// # Errors
    /// [`MoneyError::AboveSupply`] past [`Msat::MAX`].
    pub const fn from_msat(msat: u64) -> Result<Self, MoneyError> {
        if msat > SUPPLY_MSAT { Err(MoneyError::AboveSupply) } else { Ok(Self(msat)) }
    }

    /// `sat` whole satoshis.
    ///
    /// # Errors
    /// [`MoneyError::AboveSupply`] past [`Msat::MAX`].
    pub const fn from_sat(sat: u64) -> Result<Self, MoneyError> {
        match sat.checked_mul(MSAT_PER_SAT) {
            Some(msat) => Self::from_msat(msat),
            None => Err(MoneyError::AboveSupply),
        }
    }

    /// `sat` whole satoshis, for amounts known to be small (constants, tests): the type of the argument keeps it below
    /// the supply.
    pub const fn sat(sat: u32) -> Self {
        Self(sat as u64 * MSAT_PER_SAT)
    }

    /// `msat` millisatoshis, for amounts known to be small: the type of the argument keeps it below the supply.
    #[allow(clippy::self_named_constructors)] // Beside `sat`: `Msat::sat(2)`, `Msat::msat(500)`.
    pub const fn msat(msat: u32) -> Self {
        Self(msat as u64)
    }

    /// The amount as a number of millisatoshis, for a wire or a column that says msat.
    pub const fn as_msat(self) -> u64 {
        self.0
    }

    /// Whether this is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum.
    ///
    /// # Errors
    /// [`MoneyError::AboveSupply`] past [`Msat::MAX`].
    pub const fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        match self.0.checked_add(other.0) {
            Some(sum) => Self::from_msat(sum),
            None => Err(MoneyError::AboveSupply),
        }
    }

    /// The difference.
    ///
    /// # Errors
    /// [`MoneyError::BelowZero`] when `other` is larger.
    pub const fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        match self.0.checked_sub(other.0) {
            Some(rest) => Ok(Self(rest)),
            None => Err(MoneyError::BelowZero),
        }
    }

    /// The sum, held at [`Msat::MAX`]: for prices, which are compared with a limit afterwards.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0).min(SUPPLY_MSAT))
    }

    /// The difference, held at zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self × count / per`, rounded UP to the next millisatoshi and held at [`Msat::MAX`]: "so much per 1,000 tokens".
    #[must_use]
    pub fn per(self, count: u64, per: u64) -> Self {
        let exact = u128::from(self.0) * u128::from(count);
        let up = exact.div_ceil(u128::from(per.max(1)));
        Self(u64::try_from(up).unwrap_or(u64::MAX).min(SUPPLY_MSAT))
    }

    /// The amount rounded UP to whole satoshis, for wallets that know no smaller step.
    #[must_use]
    pub fn round_up_to_sat(self) -> Self {
        // The supply is a whole number of satoshis, so rounding never passes it.
        Self(self.0.div_ceil(MSAT_PER_SAT) * MSAT_PER_SAT)
    }
}

impl TryFrom<u64> for Msat {
    type Error = MoneyError;
    fn try_from(msat: u64) -> Result<Self, MoneyError> {
        Self::from_msat(msat)
    }
}

impl From<Msat> for u64 {
    fn from(amount: Msat) -> Self {
        amount.0
    }
}

impl std::iter::Sum for Msat {
    /// Held at [`Msat::MAX`].
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Self::saturating_add)
    }
}

impl fmt::Display for Msat {
    /// `21 sat` when whole, `21500 msat` otherwise.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(MSAT_PER_SAT) {
            f.pad(&format!("{} sat", self.0 / MSAT_PER_SAT))
        } else {
            f.pad(&format!("{} msat", self.0))
        }
    }
}

impl FromStr for Msat {
    type Err = MoneyError;

    /// Reads `21sat`, `21 sats`, `21000msat`, `21_000 msat`; `0` alone needs no unit.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let unreadable = || MoneyError::Unreadable { text: text.chars().take(40).collect() };
        let plain: String = text.trim().chars().filter(|c| *c != '_' && *c != ',').collect();
        let split = plain.find(|c: char| !c.is_ascii_digit()).unwrap_or(plain.len());
        let (digits, unit) = plain.split_at(split);
        let number: u64 = digits.parse().map_err(|_| unreadable())?;
        match unit.trim().to_ascii_lowercase().as_str() {
            "msat" | "msats" => Self::from_msat(number),
            "sat" | "sats" => Self::from_sat(number),
            "" if number == 0 => Ok(Self::ZERO),
            _ => Err(unreadable()),
        }
    }
}

/// A signed change of an account in millisatoshis: a posting's amount, an account's balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MsatDelta(i64);

impl MsatDelta {
    /// No change.
    pub const ZERO: Self = Self(0);

    /// An increase. The supply fits an `i64` four times over.
    pub const fn plus(amount: Msat) -> Self {
        Self(amount.0 as i64)
    }

    /// A decrease.
    pub const fn minus(amount: Msat) -> Self {
        Self(-(amount.0 as i64))
    }

    /// As a signed number of millisatoshis, for a column that says msat.
    pub const fn as_msat(self) -> i64 {
        self.0
    }

    /// From a column that says msat.
    pub const fn from_msat(msat: i64) -> Self {
        Self(msat)
    }

    /// The sum, or `None` on overflow.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The change the other way round.
    #[must_use]
    pub const fn negated(self) -> Self {
        Self(self.0.saturating_neg())
    }

    /// The amount when it is not negative.
    pub fn to_msat(self) -> Option<Msat> {
        u64::try_from(self.0).ok().and_then(|msat| Msat::from_msat(msat).ok())
    }
}

impl fmt::Display for MsatDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        if size.is_multiple_of(MSAT_PER_SAT) {
            f.pad(&format!("{sign}{} sat", size / MSAT_PER_SAT))
        } else {
            f.pad(&format!("{sign}{size} msat"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_reads_with_its_unit_and_not_without() {
        assert_eq!("21sat".parse(), Ok(Msat::sat(21)));
        assert_eq!("21_000 msats".parse(), Ok(Msat::sat(21)));
        assert_eq!("0".parse(), Ok(Msat::ZERO));
        for bad in ["21", "", "sat", "-1sat", "1.5sat", "99999999999999999999sat", "21btc"] {
            assert!(bad.parse::<Msat>().is_err(), "{bad} was read");
        }
    }

    #[test]
    fn nothing_exceeds_all_bitcoin() {
        assert_eq!(Msat::from_msat(SUPPLY_MSAT + 1), Err(MoneyError::AboveSupply));
        assert_eq!(Msat::MAX.checked_add(Msat::msat(1)), Err(MoneyError::AboveSupply));
        assert_eq!(Msat::MAX.per(u64::MAX, 1), Msat::MAX);
        assert_eq!(Msat::MAX.round_up_to_sat(), Msat::MAX);
    }

    #[test]
    fn a_share_is_rounded_up() {
        assert_eq!(Msat::msat(1).per(1, 1_000), Msat::msat(1));
        assert_eq!(Msat::msat(500).per(1_001, 1_000), Msat::msat(501));
        assert_eq!(Msat::msat(500).per(0, 1_000), Msat::ZERO);
    }

    #[test]
    fn whole_sats_show_as_sats() {
        assert_eq!(Msat::sat(21).to_string(), "21 sat");
        assert_eq!(Msat::msat(21_500).to_string(), "21500 msat");
        assert_eq!(MsatDelta::minus(Msat::sat(2)).to_string(), "-2 sat");
    }
}
