//! Work given away: runs that ended without being charged, by their customer's doing, and work that was never paid.
//!
//! A job that fails costs nothing, and a job can be called off any time. Somebody who never means to pay could live on that:
//! each such run takes the machine's time, and some give the end of a log away. So they are counted, whatever the kind, and
//! whoever had too many in an hour is refused before there is a quote. In memory and per key: a new key costs its owner nothing,
//! but with it goes the credit and the good name in the queue; with `hold` terms it has to lock money up each time besides.
//!
//! Who pays, too, is let be: what is paid makes up for as much of what was given away, so that somebody who orders by the
//! hundred is not turned away for the few that fail.
//!
//! What counts is [`Job::was_given_away`](crate::job::Job::was_given_away), of a run whose turn had come.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lru::LruCache;

use super::lock;
use crate::job::queue::roughly;
use crate::job::{Code, CustomerId, Refusal};
use crate::money::Msat;

/// How long a run counts.
const COUNTED_FOR: SignedDuration = SignedDuration::from_hours(1);

/// Customers remembered; who was given something longest ago is forgotten first.
const CUSTOMERS: NonZeroUsize = NonZeroUsize::new(4_096).expect("not zero");

/// The runs of the last hour.
pub(super) struct GivenAway {
    per_hour: usize,
    seen: Mutex<LruCache<CustomerId, VecDeque<Run>>>,
}

/// One that was given away.
#[derive(Debug, Clone, Copy)]
struct Run {
    at: Timestamp,
    /// What it would have cost at most, less what was paid since.
    price: Msat,
}

impl GivenAway {
    /// So many an hour and no more, but at least one: with none nobody could order anything.
    pub(super) fn new(per_hour: usize) -> Self {
        Self { per_hour: per_hour.max(1), seen: Mutex::new(LruCache::new(CUSTOMERS)) }
    }

    /// Whether a customer may have another run at `now`.
    ///
    /// # Errors
    /// A refusal that says when.
    pub(super) fn check(&self, customer: CustomerId, now: Timestamp) -> Result<(), Refusal> {
        let mut seen = lock(&self.seen);
        let Some(runs) = seen.get_mut(&customer) else { return Ok(()) };
        runs.retain(|run| now.duration_since(run.at) < COUNTED_FOR);
        let count = runs.len();
        // As many as are ever kept: when the first of them no longer counts there is one fewer.
        let Some(first) = runs.front().filter(|_| count >= self.per_hour) else { return Ok(()) };
        let wait = COUNTED_FOR.saturating_sub(now.duration_since(first.at));
        let wait = roughly(Duration::try_from(wait).unwrap_or(Duration::ZERO));
        let text = format!(
            "{count} of your jobs in the last hour were called off while they ran, failed for what was asked, or were never \
             paid; they cost you nothing, and this provider its machine's time: try again in about {wait}"
        );
        Err(Refusal::new(Code::RateLimited, text))
    }

    /// A run ended uncharged that would have cost so much.
    pub(super) fn note(&self, customer: CustomerId, price: Msat, now: Timestamp) {
        let mut seen = lock(&self.seen);
        let runs = seen.get_or_insert_mut(customer, VecDeque::new);
        runs.push_back(Run { at: now, price });
        // No more than are ever asked for.
        while runs.len() > self.per_hour {
            runs.pop_front();
        }
    }

    /// A customer paid for a job, which makes up for the oldest of theirs.
    pub(super) fn paid(&self, customer: CustomerId, cost: Msat) {
        let mut seen = lock(&self.seen);
        let Some(runs) = seen.get_mut(&customer) else { return };
        let mut left = cost;
        while let Some(first) = runs.front_mut() {
            if left < first.price {
                first.price = first.price.saturating_sub(left);
                return;
            }
            left = left.saturating_sub(first.price);
            runs.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: Msat = Msat::sat(21);

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    #[test]
    fn what_was_given_away_counts_for_an_hour_each() {
        let given_away = GivenAway::new(2);
        let (ann, bob) = (CustomerId([1; 32]), CustomerId([2; 32]));
        given_away.note(ann, PRICE, at(0));
        assert!(given_away.check(ann, at(1)).is_ok());
        given_away.note(ann, PRICE, at(30));
        let refusal = given_away.check(ann, at(50)).unwrap_err();
        assert_eq!(refusal.code, Code::RateLimited);
        assert!(refusal.text.starts_with("2 of your jobs"), "{}", refusal.text);
        assert!(refusal.text.ends_with("try again in about 10 min"), "{}", refusal.text);
        assert!(given_away.check(bob, at(50)).is_ok());
        assert!(given_away.check(ann, at(60)).is_ok());
        given_away.note(ann, PRICE, at(61));
        assert!(given_away.check(ann, at(62)).is_err());
    }

    #[test]
    fn what_is_paid_makes_up_for_as_much() {
        let (given_away, ann) = (GivenAway::new(2), CustomerId([1; 32]));
        given_away.paid(ann, PRICE);
        for minute in [0, 1] {
            given_away.note(ann, PRICE, at(minute));
        }
        given_away.paid(ann, Msat::sat(20));
        assert!(given_away.check(ann, at(2)).is_err(), "1 sat of the first is left");
        given_away.paid(ann, Msat::sat(1));
        assert!(given_away.check(ann, at(2)).is_ok());
        given_away.note(ann, PRICE, at(3));
        assert!(given_away.check(ann, at(4)).is_err());
        given_away.paid(ann, Msat::sat(1_000));
        given_away.note(ann, PRICE, at(5));
        assert!(given_away.check(ann, at(6)).is_ok(), "nothing is paid beforehand, but all that was is gone");
    }

    #[test]
    fn a_limit_of_nothing_still_lets_everybody_order() {
        let (given_away, ann) = (GivenAway::new(0), CustomerId([1; 32]));
        assert!(given_away.check(ann, at(0)).is_ok());
        given_away.note(ann, PRICE, at(0));
        assert!(given_away.check(ann, at(0)).is_err());
    }

    #[test]
    fn a_clock_that_is_set_back_forgets_nothing() {
        let (given_away, ann) = (GivenAway::new(1), CustomerId([1; 32]));
        given_away.note(ann, PRICE, at(10));
        assert!(given_away.check(ann, at(0)).is_err());
    }

    #[test]
    fn a_crowd_of_keys_takes_bounded_memory() {
        let given_away = GivenAway::new(3);
        for number in 0..10_000_u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            (0..5).for_each(|_| given_away.note(CustomerId(key), PRICE, at(0)));
        }
        let seen = given_away.seen.lock().unwrap();
        assert_eq!(seen.len(), CUSTOMERS.get());
        assert!(seen.iter().all(|(_, runs)| runs.len() <= 3));
    }
}
