//! How long a job will wait: the queue as it stands is played forward, each run taking what it is expected to take.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::{Claim, Lane, Queue, Room, Running, Ticket, seconds_between};
use crate::job::JobId;

/// Below this many seconds a wait is told in seconds, above in minutes.
const TOLD_IN_SECONDS: u64 = 120;

/// Below this many seconds a wait is told in minutes, above in hours.
const TOLD_IN_MINUTES: u64 = 2 * 60 * 60;

/// Where a job stands in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// 1 is next.
    pub position: u32,
    /// How long it will still wait, as far as anybody can say.
    pub wait: Option<Duration>,
}

impl fmt::Display for Standing {
    /// For people: `position 3 in the queue, about 40 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "position {} in the queue", self.position)?;
        match self.wait {
            Some(wait) => write!(f, ", about {}", roughly(wait)),
            None => Ok(()),
        }
    }
}

/// A time for people, rounded up.
pub fn roughly(wait: Duration) -> String {
    match wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)) {
        seconds if seconds <= TOLD_IN_SECONDS => format!("{seconds} s"),
        seconds if seconds <= TOLD_IN_MINUTES => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h", seconds.div_ceil(60 * 60)),
    }
}

impl Queue {
    /// Where a job that waits stands; `None` when it does not wait.
    pub fn standing(&self, job: JobId, room: Room<'_>, now: Timestamp) -> Option<Standing> {
        let ticket = self.waiting.get(&job)?;
        let before = self.before(ticket, room, now);
        let position = u32::try_from(before.len() + 1).unwrap_or(u32::MAX);
        Some(Standing { position, wait: self.play(&before, ticket, room, now) })
    }

    /// How long a job that would come to wait now would wait; `None` when nobody can say. Jobs that come later and go first
    /// are not foreseen.
    pub fn wait_of(&self, ticket: &Ticket, room: Room<'_>, now: Timestamp) -> Option<Duration> {
        self.play(&self.before(ticket, room, now), ticket, room, now)
    }

    /// Those that go before a job and compete with it, the next one first: all of them when the bound on all lanes together
    /// keeps jobs waiting, else those of its lane.
    fn before(&self, ticket: &Ticket, room: Room<'_>, now: Timestamp) -> Vec<&Ticket> {
        let given = self.given_in_runs(now);
        let own = self.claim(ticket, &given, now);
        let bound = self.is_bound(ticket, room);
        let competes = |other: &&Ticket| other.job != ticket.job && (bound || other.lane == ticket.lane);
        let rivals = self.waiting.values().filter(competes);
        let claims = rivals.map(|other| (self.claim(other, &given, now), other));
        let mut before: Vec<(Claim, &Ticket)> = claims.filter(|(claim, _)| claim.order(&own).is_lt()).collect();
        before.sort_unstable_by(|(one, _), (other, _)| one.order(other));
        before.into_iter().map(|(_, ticket)| ticket).collect()
    }

    /// Whether the lanes in use, the ticket's among them, have more room than there are places for all together.
    fn is_bound(&self, ticket: &Ticket, room: Room<'_>) -> bool {
        let runs = self.running.values().map(|running| &running.ticket);
        let lanes: BTreeSet<&Lane> = self.waiting.values().chain(runs).chain([ticket]).map(|one| &one.lane).collect();
        let taken = |lane: &Lane| room(lane).max(self.running_in(lane));
        lanes.into_iter().map(taken).fold(0, usize::saturating_add) > self.places
    }

    /// Plays the queue forward until it is the ticket's turn.
    fn play(&self, before: &[&Ticket], ticket: &Ticket, room: Room<'_>, now: Timestamp) -> Option<Duration> {
        /// What a lane has room for, how much of it is taken, and who waits in it with their place in the order.
        struct Seats<'a> {
            room: usize,
            taken: usize,
            waiting: VecDeque<(usize, &'a Ticket)>,
        }
        let mut lanes: BTreeMap<&Lane, Seats<'_>> = BTreeMap::new();
        let seats = |lane: &Lane| Seats { room: room(lane), taken: self.running_in(lane), waiting: VecDeque::new() };
        for (place, waiting) in before.iter().copied().chain([ticket]).enumerate() {
            let lane = lanes.entry(&waiting.lane).or_insert_with_key(|lane| seats(lane));
            lane.waiting.push_back((place, waiting));
        }
        let bound = self.is_bound(ticket, room);
        let rivals = self.running.values().filter(|running| bound || running.ticket.lane == ticket.lane);
        let mut running: BinaryHeap<Reverse<(Option<Duration>, &Lane)>> =
            rivals.map(|running| Reverse((self.rest(running, now), &running.ticket.lane))).collect();
        let mut time = Duration::ZERO;
        loop {
            let free = |seats: &&mut Seats<'_>| seats.taken < seats.room && !seats.waiting.is_empty();
            while running.len() < self.places
                && let Some(seats) = lanes.values_mut().filter(free).min_by_key(|seats| seats.waiting[0].0)
            {
                let (_, next) = seats.waiting.pop_front()?;
                if next.job == ticket.job {
                    return Some(time);
                }
                seats.taken += 1;
                let ends = self.expected(next).and_then(|expected| time.checked_add(expected));
                running.push(Reverse((ends, &next.lane)));
            }
            // Nobody can say when a run ends whose end is unknown, nor when room comes where nothing runs.
            let Reverse((ends, lane)) = running.pop()?;
            time = ends?;
            if let Some(seats) = lanes.get_mut(lane) {
                seats.taken = seats.taken.saturating_sub(1);
            }
        }
    }

    /// How long a run still takes: none when it takes longer than expected already.
    fn rest(&self, running: &Running, now: Timestamp) -> Option<Duration> {
        let taken = Duration::try_from_secs_f64(seconds_between(running.since, now)).ok()?;
        Some(self.expected(&running.ticket)?.saturating_sub(taken))
    }
}
