//! Which events from relays are taken in. The checks, in order, cheapest first, and who makes them:
//!
//! 1. **size** of the websocket message: our transport closes the connection over a huge one, the library drops a large one;
//! 2. **kind**, and everything else the subscription's filters say: the library (`verify_subscriptions`);
//! 3. **id** and 4. **signature**: the library, once an event however many relays deliver it (a bounded cache);
//! 5. **seen** before, 6. **age**, 7. **rate**: [`Admission`], called from the relay's own receive loop.
//!
//! The order is load-bearing: a forged copy of an event must not mark it as seen, a duplicate must not use up its author's
//! rate, and what was refused for its rate must stay unseen, so that it can come again.
//!
//! What was seen is forgotten at a restart, and the relays tell the last minutes again. So what was written before we began
//! is charged to an allowance of its own, large enough for all that its author may have sent in the time from which events are
//! still taken: it uses up nothing of what is there for new ones. Once that time has passed, nothing so old is taken any more.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use jiff::Timestamp;
use lru::LruCache;

use super::Rate;

/// Events admitted between two sweeps that forget authors who have been quiet, so that keys made up by an attacker don't
/// pile up.
const SWEEP_EVERY: u64 = 4096;

/// Bounds on what relays may bring us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntakeLimits {
    /// Bytes of one websocket message; a longer one is dropped unread.
    pub max_message_bytes: usize,
    /// Tags of one event.
    pub max_tags: u16,
    /// Age beyond which an event is no longer worth answering.
    pub max_request_age: Duration,
    /// How far an author's clock may be ahead of ours.
    pub max_clock_skew: Duration,
    /// What one author may send.
    pub per_author: Rate,
    /// What everybody together may send.
    pub overall: Rate,
    /// How many event ids are remembered to recognise duplicates.
    pub remembered: NonZeroUsize,
}

impl Default for IntakeLimits {
    fn default() -> Self {
        Self {
            // Relays commonly take 64 to 128 KiB an event; prompts of 128 KiB with their JSON escapes fit.
            max_message_bytes: 512 * 1024,
            max_tags: 2000,
            max_request_age: Duration::from_secs(60 * 60),
            max_clock_skew: Duration::from_secs(5 * 60),
            per_author: Rate::per_minute(60, 60),
            overall: Rate::per_minute(60_000, 5_000),
            // About 6 MB when full: some hours of a busy market.
            remembered: NonZeroUsize::new(65_536).expect("is not zero"),
        }
    }
}

/// Which bounds hold for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bounds {
    /// Anybody may have sent it: seen, age, rate.
    Strangers,
    /// A zap receipt by the one key the operator's lightning address announces, as the subscription asks: seen, and not from
    /// the future. Each stands for a payment, so an old one still counts and none is too many; the subscription's `since`
    /// bounds how far back they go.
    Receipts,
}

/// What the checks look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The event's id, verified.
    pub id: [u8; 32],
    /// Who signed it, verified.
    pub author: [u8; 32],
    /// When, by the author's clock, in seconds since 1970.
    pub created_at: u64,
    /// What holds for it.
    pub bounds: Bounds,
}

impl From<&nostr::Event> for Arrival {
    fn from(event: &nostr::Event) -> Self {
        Self {
            id: event.id.to_bytes(),
            author: event.pubkey.to_bytes(),
            created_at: event.created_at.as_secs(),
            bounds: Bounds::Strangers,
        }
    }
}

/// Why an event is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rejection {
    /// It was taken before, from this relay or another.
    #[error("seen before")]
    Seen,
    /// Older than [`IntakeLimits::max_request_age`].
    #[error("too old")]
    TooOld,
    /// Further ahead than [`IntakeLimits::max_clock_skew`].
    #[error("from the future")]
    FromTheFuture,
    /// Its author sends too much.
    #[error("author sends too much")]
    AuthorRate,
    /// Everybody together sends too much.
    #[error("too much arrives")]
    OverallRate,
}

/// How many events came to which end since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AdmissionCounts {
    /// Taken.
    pub admitted: u64,
    /// [`Rejection::Seen`].
    pub seen: u64,
    /// [`Rejection::TooOld`].
    pub too_old: u64,
    /// [`Rejection::FromTheFuture`].
    pub from_the_future: u64,
    /// [`Rejection::AuthorRate`].
    pub author_rate: u64,
    /// [`Rejection::OverallRate`].
    pub overall_rate: u64,
}

/// A clock that stands where the caller puts it: the limiters' time is the time the caller passes in.
#[derive(Debug, Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Clock for Hand {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.load(Ordering::Relaxed))
    }
}

type Author = [u8; 32];
type PerAuthor = RateLimiter<Author, DashMapStateStore<Author>, Hand, NoOpMiddleware<Nanos>>;
type Overall = RateLimiter<NotKeyed, InMemoryState, Hand, NoOpMiddleware<Nanos>>;

/// Decides seen, age and rate. Knows no clock: time is a parameter. Shared by all relays, so that an event they all deliver
/// is taken once.
#[derive(Debug)]
pub struct Admission {
    max_age: u64,
    max_skew: u64,
    seen: Mutex<LruCache<[u8; 32], ()>>,
    hand: Hand,
    /// When we began, by our clock, in seconds since 1970.
    began: u64,
    per_author: PerAuthor,
    /// For what was written before we began.
    of_before: PerAuthor,
    overall: Overall,
    counts: Mutex<AdmissionCounts>,
}

impl Admission {
    /// An admission that has seen nothing yet, and begins now.
    pub fn new(limits: &IntakeLimits, now: Timestamp) -> Self {
        let hand = Hand::default();
        let of_before = quota(of_before(limits));
        Self {
            max_age: limits.max_request_age.as_secs(),
            max_skew: limits.max_clock_skew.as_secs(),
            seen: Mutex::new(LruCache::new(limits.remembered)),
            began: u64::try_from(now.as_second()).unwrap_or(0),
            per_author: RateLimiter::new(quota(limits.per_author), DashMapStateStore::default(), hand.clone()),
            of_before: RateLimiter::new(of_before, DashMapStateStore::default(), hand.clone()),
            overall: RateLimiter::direct_with_clock(quota(limits.overall), hand.clone()),
            hand,
            counts: Mutex::default(),
        }
    }

    /// Checks seen and age, changing nothing: made before waiting for room, so that duplicates never wait.
    pub fn glance(&self, arrival: &Arrival, now: Timestamp) -> Result<(), Rejection> {
        let verdict = self.check_seen_and_age(&self.seen(), arrival, now);
        if verdict.is_err() {
            self.count(verdict);
        }
        verdict
    }

    /// Checks everything and, if it passes, remembers the event: the caller must take it. Made when there is room for it.
    pub fn admit(&self, arrival: &Arrival, now: Timestamp) -> Result<(), Rejection> {
        // One lock around all of it: of two relays delivering the same event at once, one is told `Seen`.
        let mut seen = self.seen();
        let verdict = self.check_seen_and_age(&seen, arrival, now).and_then(|()| self.check_rate(arrival, now));
        if verdict.is_ok() {
            seen.put(arrival.id, ());
        }
        drop(seen);
        let admitted = self.count(verdict);
        if verdict.is_ok() && admitted.is_multiple_of(SWEEP_EVERY) {
            for authors in [&self.per_author, &self.of_before] {
                authors.retain_recent();
                authors.shrink_to_fit();
            }
        }
        verdict
    }

    /// What has come of the events so far.
    pub fn counts(&self) -> AdmissionCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_seen_and_age(
        &self,
        seen: &LruCache<[u8; 32], ()>,
        arrival: &Arrival,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        if seen.contains(&arrival.id) {
            return Err(Rejection::Seen);
        }
        let now = u64::try_from(now.as_second()).unwrap_or(0);
        if arrival.bounds == Bounds::Strangers && arrival.created_at < now.saturating_sub(self.max_age) {
            return Err(Rejection::TooOld);
        }
        if arrival.created_at > now.saturating_add(self.max_skew) {
            return Err(Rejection::FromTheFuture);
        }
        Ok(())
    }

    fn check_rate(&self, arrival: &Arrival, now: Timestamp) -> Result<(), Rejection> {
        if arrival.bounds == Bounds::Receipts {
            return Ok(());
        }
        // Never backwards: a corrected clock must not give anybody a second helping.
        self.hand.0.fetch_max(u64::try_from(now.as_nanosecond()).unwrap_or(0), Ordering::Relaxed);
        // The author first: one who sends too much must not use up what is there for all.
        let allowance = if arrival.created_at < self.began { &self.of_before } else { &self.per_author };
        allowance.check_key(&arrival.author).map_err(|_| Rejection::AuthorRate)?;
        self.overall.check().map_err(|_| Rejection::OverallRate)
    }

    fn seen(&self) -> MutexGuard<'_, LruCache<[u8; 32], ()>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a verdict; returns how many were admitted so far.
    fn count(&self, verdict: Result<(), Rejection>) -> u64 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = match verdict {
            Ok(()) => &mut counts.admitted,
            Err(Rejection::Seen) => &mut counts.seen,
            Err(Rejection::TooOld) => &mut counts.too_old,
            Err(Rejection::FromTheFuture) => &mut counts.from_the_future,
            Err(Rejection::AuthorRate) => &mut counts.author_rate,
            Err(Rejection::OverallRate) => &mut counts.overall_rate,
        };
        *counter += 1;
        counts.admitted
    }
}

fn quota(rate: Rate) -> Quota {
    Quota::per_minute(rate.per_minute).allow_burst(rate.burst)
}

/// What one author may have sent in all the time from which events are still taken.
fn of_before(limits: &IntakeLimits) -> Rate {
    let Rate { per_minute, burst } = limits.per_author;
    let minutes = u32::try_from(limits.max_request_age.as_secs().div_ceil(60)).unwrap_or(u32::MAX);
    Rate::per_minute(per_minute.get(), per_minute.get().saturating_mul(minutes).saturating_add(burst.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_second(second.cast_signed()).unwrap()
    }

    fn limits() -> IntakeLimits {
        IntakeLimits {
            max_request_age: Duration::from_secs(600),
            max_clock_skew: Duration::from_secs(60),
            per_author: Rate::per_minute(60, 2),
            overall: Rate::per_minute(60, 3),
            ..IntakeLimits::default()
        }
    }

    fn arrival(id: u8, author: u8, created_at: u64) -> Arrival {
        Arrival { id: [id; 32], author: [author; 32], created_at, bounds: Bounds::Strangers }
    }

    #[test]
    fn a_receipt_counts_however_old_and_however_many_but_once() {
        let admission = Admission::new(&limits(), at(NOW - 1_000_000));
        let receipt = |id| Arrival { bounds: Bounds::Receipts, ..arrival(id, 1, NOW - 100_000) };
        for id in 0..100 {
            assert_eq!(admission.admit(&receipt(id), at(NOW)), Ok(()));
        }
        assert_eq!(admission.admit(&receipt(7), at(NOW)), Err(Rejection::Seen));
        let future = Arrival { bounds: Bounds::Receipts, ..arrival(200, 1, NOW + 3_600) };
        assert_eq!(admission.admit(&future, at(NOW)), Err(Rejection::FromTheFuture));
    }

    #[test]
    fn an_event_is_taken_once() {
        let admission = Admission::new(&limits(), at(NOW - 1_000_000));
        assert_eq!(admission.admit(&arrival(1, 1, NOW), at(NOW)), Ok(()));
        assert_eq!(admission.glance(&arrival(1, 1, NOW), at(NOW)), Err(Rejection::Seen));
        assert_eq!(admission.admit(&arrival(1, 1, NOW), at(NOW)), Err(Rejection::Seen));
        assert_eq!(admission.counts(), AdmissionCounts { admitted: 1, seen: 2, ..AdmissionCounts::default() });
    }

    #[test]
    fn duplicates_use_up_nobodys_rate() {
        let admission = Admission::new(&limits(), at(NOW - 1_000_000));
        assert_eq!(admission.admit(&arrival(1, 1, NOW), at(NOW)), Ok(()));
        for _ in 0..100 {
            assert_eq!(admission.admit(&arrival(1, 1, NOW), at(NOW)), Err(Rejection::Seen));
        }
        assert_eq!(admission.admit(&arrival(2, 1, NOW), at(NOW)), Ok(()));
    }

    #[test]
    fn old_and_future_events_are_refused_at_the_bounds() {
        let admission = Admission::new(&limits(), at(NOW - 1_000_000));
        assert_eq!(admission.glance(&arrival(1, 1, NOW - 600), at(NOW)), Ok(()));
        assert_eq!(admission.glance(&arrival(1, 1, NOW - 601), at(NOW)), Err(Rejection::TooOld));
        assert_eq!(admission.glance(&arrival(1, 1, NOW + 60), at(NOW)), Ok(()));
        assert_eq!(admission.admit(&arrival(1, 1, NOW + 61), at(NOW)), Err(Rejection::FromTheFuture));
        assert_eq!(admission.admit(&arrival(1, 1, 0), at(NOW)), Err(Rejection::TooOld));
        assert_eq!(admission.admit(&arrival(1, 1, u64::MAX), at(NOW)), Err(Rejection::FromTheFuture));
    }

    #[test]
    fn an_author_over_the_rate_may_come_again_with_the_same_event() {
        let admission = Admission::new(&limits(), at(NOW - 1_000_000));
        assert_eq!(admission.admit(&arrival(1, 1, NOW), at(NOW)), Ok(()));
        assert_eq!(admission.admit(&arrival(2, 1, NOW), at(NOW)), Ok(()));
        assert_eq!(admission.admit(&arrival(3, 1, NOW), at(NOW)), Err(Rejection::AuthorRate));
        // One a second comes back.
        assert_eq!(admission.admit(&arrival(3, 1, NOW), at(NOW + 1)), Ok(()));
        assert_eq!(admission.counts().author_rate, 1);
    }

    #[test]
    fn what_was_written_before_we_began_uses_up_nothing_of_what_is_there_for_new_events() {
        let plenty = Rate::per_minute(6_000, 2_000);
        let admission = Admission::new(&IntakeLimits { overall: plenty, ..limits() }, at(NOW));
        let told_again = |number: u32| {
            let mut id = [9; 32];
            id[..4].copy_from_slice(&number.to_be_bytes());
            Arrival { id, ..arrival(0, 1, NOW - 1) }
        };
        // All that ten minutes at one a second can hold, and two at once.
        for number in 0..602 {
            assert_eq!(admission.admit(&told_again(number), at(NOW)), Ok(()), "{number}");
        }
        assert_eq!(admission.admit(&told_again(602), at(NOW)), Err(Rejection::AuthorRate), "not without end");
        assert_eq!(admission.admit(&arrival(1, 1, NOW), at(NOW)), Ok(()));
        assert_eq!(admission.admit(&arrival(2, 1, NOW), at(NOW)), Ok(()));
        assert_eq!(admission.admit(&arrival(3, 1, NOW), at(NOW)), Err(Rejection::AuthorRate), "new ones as ever");
    }

    #[test]
    fn everybody_together_is_bounded_too() {
        let admission = Admission::new(&limits(), at(NOW - 1_000_000));
        for author in 1..=3 {
            assert_eq!(admission.admit(&arrival(author, author, NOW), at(NOW)), Ok(()));
        }
        assert_eq!(admission.admit(&arrival(4, 4, NOW), at(NOW)), Err(Rejection::OverallRate));
        assert_eq!(admission.admit(&arrival(4, 4, NOW), at(NOW + 1)), Ok(()));
    }

    #[test]
    fn a_clock_set_back_gives_no_second_helping() {
        let admission = Admission::new(&limits(), at(NOW - 1_000_000));
        assert_eq!(admission.admit(&arrival(1, 1, NOW), at(NOW)), Ok(()));
        assert_eq!(admission.admit(&arrival(2, 1, NOW), at(NOW)), Ok(()));
        assert_eq!(admission.admit(&arrival(3, 1, NOW), at(NOW - 30)), Err(Rejection::AuthorRate));
    }

    #[test]
    fn only_so_many_ids_are_remembered() {
        let limits = IntakeLimits {
            remembered: NonZeroUsize::new(2).unwrap(),
            per_author: Rate::per_minute(6000, 100),
            overall: Rate::per_minute(6000, 100),
            ..limits()
        };
        let admission = Admission::new(&limits, at(NOW - 1_000_000));
        for id in 1..=3 {
            assert_eq!(admission.admit(&arrival(id, 1, NOW), at(NOW)), Ok(()));
        }
        assert_eq!(admission.glance(&arrival(1, 1, NOW), at(NOW)), Ok(()));
        assert_eq!(admission.glance(&arrival(3, 1, NOW), at(NOW)), Err(Rejection::Seen));
    }
}
