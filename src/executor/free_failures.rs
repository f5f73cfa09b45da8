//! How often a customer may have work for nothing because it did not end as asked: a run with another exit code than
//! `expect_exit`, a patch whose test fails.
//!
//! Each takes a sandbox's time and gives the end of its log away, which is what somebody who never means to pay
//! would live on. Counted in memory and per key: a new key costs its owner nothing, but with it goes the credit and the good
//! name in the queue; with `hold` terms it has to lock money up each time besides.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::job::{Code, CustomerId, Refusal};

/// How long a failure counts.
const COUNTED_FOR: Duration = Duration::from_secs(60 * 60);

/// Customers remembered; who failed longest ago is forgotten first.
const CUSTOMERS: NonZeroUsize = NonZeroUsize::new(4_096).expect("not zero");

/// The failures of the last hour.
pub(super) struct FreeFailures {
    per_hour: usize,
    /// What a customer is told who had too many, behind their number.
    words: &'static str,
    seen: Mutex<LruCache<CustomerId, VecDeque<Instant>>>,
}

impl FreeFailures {
    pub(super) fn new(per_hour: u32, words: &'static str) -> Self {
        let per_hour = usize::try_from(per_hour).unwrap_or(usize::MAX);
        Self { per_hour, words, seen: Mutex::new(LruCache::new(CUSTOMERS)) }
    }

    /// Whether one more may be had at `now`.
    ///
    /// # Errors
    /// A refusal that says when.
    pub(super) fn check(&self, customer: CustomerId, now: Instant) -> Result<(), Refusal> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = seen.get_mut(&customer);
        let count = failures.map_or(0, |failures| {
            failures.retain(|at| now.saturating_duration_since(*at) < COUNTED_FOR);
            failures.len()
        });
        if count < self.per_hour {
            return Ok(());
        }
        Err(Refusal::new(Code::RateLimited, format!("{count} {}", self.words)))
    }

    /// Work failed for nothing.
    pub(super) fn note(&self, customer: CustomerId, now: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = seen.get_or_insert_mut(customer, VecDeque::new);
        failures.push_back(now);
        // No more than are ever asked for.
        while failures.len() > self.per_hour {
            failures.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_failures_come_back_after_an_hour_each() {
        let (free, now) = (FreeFailures::new(2, "runs cost you nothing"), Instant::now());
        let (ann, bob) = (CustomerId([1; 32]), CustomerId([2; 32]));
        let later = |minutes: u64| now + Duration::from_secs(minutes * 60);
        free.note(ann, now);
        assert!(free.check(ann, later(1)).is_ok());
        free.note(ann, later(30));
        let refusal = free.check(ann, later(59)).unwrap_err();
        assert_eq!(refusal.code, Code::RateLimited);
        assert_eq!(refusal.text, "2 runs cost you nothing");
        assert!(free.check(bob, later(59)).is_ok());
        assert!(free.check(ann, later(60)).is_ok());
    }

    #[test]
    fn none_for_nothing_means_none() {
        let free = FreeFailures::new(0, "");
        assert!(free.check(CustomerId([1; 32]), Instant::now()).is_err());
        free.note(CustomerId([1; 32]), Instant::now());
    }

    #[test]
    fn a_crowd_of_keys_takes_bounded_memory() {
        let (free, now) = (FreeFailures::new(3, ""), Instant::now());
        for number in 0..10_000_u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            (0..5).for_each(|_| free.note(CustomerId(key), now));
        }
        let seen = free.seen.lock().unwrap();
        assert_eq!(seen.len(), CUSTOMERS.get());
        assert!(seen.iter().all(|(_, failures)| failures.len() <= 3));
    }
}
