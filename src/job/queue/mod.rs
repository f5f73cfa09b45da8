//! Whose turn it is. Pure: told who comes and goes and what time it is, it says who is next and how long the others wait.
//!
//! # Lanes
//!
//! A job waits in the lane of what does its work (a model). A lane has room for so many jobs at once, and all lanes together
//! may have a bound of their own, because they share a server or the operator says so. Who is next is chosen among those
//! whose lane has room, so a lane that is full, or whose servers are all down, keeps nobody in another lane waiting.
//!
//! # Order
//!
//! Paid jobs go before free ones, always. Among equals the highest *rank* goes first, in seconds:
//!
//! > time waited + 10 s for each doubling of the price above 1 sat − work given to this customer lately
//!
//! - *Time waited* brings every paid job up in the end: the price adds a bounded number of seconds, so only jobs that came
//!   within a bounded time after it can ever be ahead of it, however many others send.
//! - *Price* matters, and never more than a few minutes of waiting: twenty doublings are a million satoshis.
//! - *Work given lately* makes it fair. A customer's runs count against their waiting jobs: a finished one by the time it took,
//!   half of which is forgotten every minute, a running one by what it took so far, and at least what it is expected to
//!   take. So a customer with twenty monster jobs is far behind everybody else's first job as soon as the first monster runs,
//!   and two customers with the same jobs take turns.
//!
//! Ties go to the higher price, then to who came first, then to the smaller id: the same facts give the same order.

mod forecast;
mod pace;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;

pub use forecast::{Standing, roughly};
use pace::Pace;

use super::{CustomerId, Estimate, JobId, JobKind};
use crate::money::Msat;

/// What each doubling of the price is worth, in seconds of waiting.
const SECONDS_PER_DOUBLING: f64 = 10.0;

/// Doublings of the price that count.
const MOST_DOUBLINGS: f64 = 20.0;

/// How long it takes until half of the work a customer was given is forgotten, in seconds.
const HALF_LIFE_SECONDS: f64 = 60.0;

/// Work below this many seconds is as good as none, and no longer remembered when there are many to remember.
const FORGOTTEN_BELOW_SECONDS: f64 = 0.01;

/// Customers remembered before those whose work is forgotten are dropped.
const MANY_CUSTOMERS: usize = 4_096;

/// Where jobs wait that compete for the same room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The kind of job.
    pub kind: JobKind,
    /// What does the work, such as a model; `None` where the kind has one lane.
    pub name: Option<String>,
}

/// A job that waits for its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Which.
    pub job: JobId,
    /// Whose.
    pub customer: CustomerId,
    /// What it was quoted for.
    pub price: Msat,
    /// Whether it is paid work.
    pub paid: bool,
    /// Where it waits.
    pub lane: Lane,
    /// Its size, from which follows how long it is expected to take.
    pub estimate: Estimate,
    /// How long it may run.
    pub longest: Duration,
    /// Since when it waits.
    pub entered: Timestamp,
}

/// A job whose turn it is.
#[derive(Debug, Clone)]
struct Running {
    ticket: Ticket,
    since: Timestamp,
}

/// Seconds of work a customer was given up to a moment, half of which is forgotten every [`HALF_LIFE_SECONDS`].
#[derive(Debug, Clone, Copy)]
struct Given {
    seconds: f64,
    at: Timestamp,
}

impl Given {
    fn left(self, now: Timestamp) -> f64 {
        self.seconds * (-seconds_between(self.at, now) / HALF_LIFE_SECONDS).exp2()
    }
}

/// How many jobs of a lane may run at once, as far as is known now.
pub type Room<'a> = &'a dyn Fn(&Lane) -> usize;

/// Who waits, who runs, and who was given how much lately.
#[derive(Debug)]
pub struct Queue {
    /// Jobs running at once in all lanes together.
    places: usize,
    waiting: BTreeMap<JobId, Ticket>,
    running: BTreeMap<JobId, Running>,
    given: HashMap<CustomerId, Given>,
    paces: BTreeMap<Lane, Pace>,
}

impl Queue {
    /// A queue for so many jobs running at once in all; `None` for as many as the lanes have room for.
    pub fn new(places: Option<usize>) -> Self {
        Self {
            places: places.unwrap_or(usize::MAX),
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            given: HashMap::new(),
            paces: BTreeMap::new(),
        }
    }

    /// So many jobs may run at once in all from now on. Those that run already go on.
    pub fn bound(&mut self, places: usize) {
        self.places = places;
    }

    /// A job comes to wait.
    pub fn enter(&mut self, ticket: Ticket) {
        self.waiting.insert(ticket.job, ticket);
    }

    /// A job no longer waits.
    pub fn leave(&mut self, job: JobId) {
        self.waiting.remove(&job);
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Gives the next job its turn, if there is one that may begin.
    pub fn start(&mut self, room: Room<'_>, now: Timestamp) -> Option<JobId> {
        if self.running.len() >= self.places || self.waiting.is_empty() {
            return None;
        }
        let next = {
            let given = self.given_in_runs(now);
            let mut open: BTreeMap<&Lane, bool> = BTreeMap::new();
            let mut is_open = |lane| *open.entry(lane).or_insert_with(|| self.running_in(lane) < room(lane));
            let may_begin = self.waiting.values().filter(|ticket| is_open(&ticket.lane));
            may_begin.map(|ticket| self.claim(ticket, &given, now)).min_by(Claim::order)?.job
        };
        let ticket = self.waiting.remove(&next)?;
        self.running.insert(next, Running { ticket, since: now });
        Some(next)
    }

    /// A job's turn is over; what it took is what its customer was given.
    pub fn end(&mut self, job: JobId, now: Timestamp) {
        let Some(Running { ticket, since }) = self.running.remove(&job) else { return };
        if self.given.len() >= MANY_CUSTOMERS {
            self.given.retain(|_, given| given.left(now) >= FORGOTTEN_BELOW_SECONDS);
        }
        let before = self.given.get(&ticket.customer).map_or(0.0, |given| given.left(now));
        let seconds = before + seconds_between(since, now);
        self.given.insert(ticket.customer, Given { seconds, at: now });
    }

    /// A run of this size took so long: what later ones are expected to take follows from it.
    pub fn note_run(&mut self, lane: Lane, estimate: Estimate, took: Duration) {
        self.paces.entry(lane).or_default().note(estimate, took);
    }

    /// How long a job of this size is expected to take, at most as long as it may; unknown before the lane's first run. One
    /// small job that took long, say because its model was loaded first, makes no hours of a large one.
    fn expected(&self, ticket: &Ticket) -> Option<Duration> {
        Some(self.paces.get(&ticket.lane)?.expected(ticket.estimate)?.min(ticket.longest))
    }

    fn running_in(&self, lane: &Lane) -> usize {
        self.running.values().filter(|running| running.ticket.lane == *lane).count()
    }

    /// The seconds each customer was given in runs that go on.
    fn given_in_runs(&self, now: Timestamp) -> HashMap<CustomerId, f64> {
        let mut given = HashMap::new();
        for Running { ticket, since } in self.running.values() {
            let expected = self.expected(ticket).map_or(0.0, |expected| expected.as_secs_f64());
            *given.entry(ticket.customer).or_default() += seconds_between(*since, now).max(expected);
        }
        given
    }

    /// What decides a ticket's place; see the module's description.
    fn claim(&self, ticket: &Ticket, in_runs: &HashMap<CustomerId, f64>, now: Timestamp) -> Claim {
        let before = self.given.get(&ticket.customer).map_or(0.0, |given| given.left(now));
        let given = before + in_runs.get(&ticket.customer).copied().unwrap_or(0.0);
        let rank = seconds_between(ticket.entered, now) + SECONDS_PER_DOUBLING * doublings(ticket.price) - given;
        Claim { paid: ticket.paid, rank, price: ticket.price, entered: ticket.entered, job: ticket.job }
    }
}

/// What decides who goes first, at one moment.
#[derive(Debug, Clone, Copy)]
struct Claim {
    paid: bool,
    /// Seconds.
    rank: f64,
    price: Msat,
    entered: Timestamp,
    job: JobId,
}

impl Claim {
    /// Who goes first is less.
    fn order(&self, other: &Self) -> Ordering {
        (other.paid.cmp(&self.paid))
            .then_with(|| other.rank.total_cmp(&self.rank))
            .then_with(|| other.price.cmp(&self.price))
            .then_with(|| (self.entered, self.job).cmp(&(other.entered, other.job)))
    }
}

/// How often the price is twice a satoshi, fractions included.
fn doublings(price: Msat) -> f64 {
    // Exact far beyond the prices whose doublings still count.
    let sats = price.as_msat() as f64 / 1_000.0;
    sats.log2().clamp(0.0, MOST_DOUBLINGS)
}

/// Seconds from one moment to a later one; none when the clock was set back.
fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}
