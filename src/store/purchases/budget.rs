//! The budget of 24 hours. Pure: what is claimed, what is asked for, the time.

use jiff::{SignedDuration, Timestamp};

use crate::money::Msat;

/// What the budget is for: a window that moves, not a calendar day.
pub const BUDGET_WINDOW: SignedDuration = SignedDuration::from_hours(24);

/// Money of the budget that is spent, or may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// How much, fees included.
    pub(super) amount: Msat,
    /// When it no longer counts. For what is in doubt: when it can be given up at the earliest.
    pub(super) until: Timestamp,
    /// Whether it counts until the wallet has said what became of it, however late that is.
    pub(super) in_doubt: bool,
}

impl Claim {
    fn counts(&self, now: Timestamp) -> bool {
        self.in_doubt || self.until > now
    }
}

/// A payment the budget has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it may take {needed}, routing fees included; {left} is left of the {budget} for 24 hours")]
pub struct OverBudget {
    /// What the payment may take: its amount and the fee limit.
    pub needed: Msat,
    /// What is left.
    pub left: Msat,
    /// The whole budget.
    pub budget: Msat,
    /// When enough is free again, as far as is known now. `None`: it is more than the whole budget.
    pub free_at: Option<Timestamp>,
}

/// What is left of `budget`.
pub(super) fn left(claims: &[Claim], budget: Msat, now: Timestamp) -> Msat {
    budget.saturating_sub(claims.iter().filter(|claim| claim.counts(now)).map(|claim| claim.amount).sum())
}

/// Whether `needed` fits.
pub(super) fn check(mut claims: Vec<Claim>, budget: Msat, needed: Msat, now: Timestamp) -> Result<(), OverBudget> {
    let left_now = left(&claims, budget, now);
    if needed <= left_now {
        return Ok(());
    }
    claims.retain(|claim| claim.counts(now));
    claims.sort_by_key(|claim| claim.until);
    let free_at = (0..claims.len())
        .find(|given_back| {
            let rest: Msat = claims[given_back + 1..].iter().map(|claim| claim.amount).sum();
            budget.saturating_sub(rest) >= needed
        })
        .map(|last| claims[last].until.max(now));
    Err(OverBudget { needed, left: left_now, budget, free_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hour)
    }

    fn claim(sat: u32, until: i64) -> Claim {
        Claim { amount: Msat::sat(sat), until: at(until), in_doubt: false }
    }

    #[test]
    fn what_fits_is_paid_to_the_last_millisat() {
        assert_eq!(check(vec![claim(60, 5)], Msat::sat(100), Msat::sat(40), at(1)), Ok(()));
        let over = check(vec![claim(60, 5)], Msat::sat(100), Msat::msat(40_001), at(1)).unwrap_err();
        assert_eq!((over.left, over.free_at), (Msat::sat(40), Some(at(5))));
    }

    #[test]
    fn the_time_told_is_when_enough_is_free_not_when_something_is() {
        let claims = vec![claim(30, 9), claim(50, 3), claim(10, 2)];
        let over = check(claims, Msat::sat(100), Msat::sat(61), at(1)).unwrap_err();
        assert_eq!((over.left, over.free_at), (Msat::sat(10), Some(at(3))));
    }

    #[test]
    fn more_than_the_whole_budget_is_never_free() {
        let over = check(vec![], Msat::sat(100), Msat::sat(101), at(1)).unwrap_err();
        assert_eq!((over.left, over.free_at), (Msat::sat(100), None));
    }

    #[test]
    fn what_is_old_no_longer_counts_unless_it_is_in_doubt() {
        assert_eq!(left(&[claim(60, 1)], Msat::sat(100), at(1)), Msat::sat(100));
        let doubt = Claim { in_doubt: true, ..claim(60, 1) };
        assert_eq!(left(&[doubt], Msat::sat(100), at(8)), Msat::sat(40));
        assert_eq!(check(vec![doubt], Msat::sat(100), Msat::sat(90), at(8)).unwrap_err().free_at, Some(at(8)));
    }
}
