//! Who has how many jobs open right now: what admission's limits are measured against.
//!
//! A place is taken before a request is made ready and given back with the job's end, so that a burst of requests cannot
//! slip past a limit while the first of them is still being looked at.

use std::collections::HashMap;
use std::sync::Mutex;

use jiff::Timestamp;

use crate::job::admission::{Load, Rules, Turned, screen};
use crate::job::{CustomerId, Job, JobId, JobRequest, PaymentState, WorkState};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Being made ready.
    Preparing,
    /// Quoted, unpaid.
    Quoted,
    /// Waiting for its turn, or running.
    Queued,
}

#[derive(Debug, Default)]
struct Count {
    places: HashMap<JobId, (CustomerId, Place)>,
    of_customer: HashMap<CustomerId, usize>,
    queued: usize,
    quoted: usize,
}

/// Counts open jobs.
#[derive(Debug, Default)]
pub(super) struct Census(Mutex<Count>);

impl Census {
    /// Takes a place for a request, if the rules leave one. `None`: this very request holds one already.
    pub(super) fn admit(&self, request: &JobRequest, rules: &Rules, now: Timestamp) -> Option<Result<(), Turned>> {
        let mut count = self.count();
        if count.places.contains_key(&request.id) {
            return None;
        }
        let load = Load {
            queued: count.queued,
            open_quotes: count.quoted,
            of_customer: count.of_customer.get(&request.customer).copied().unwrap_or(0),
        };
        let verdict = screen(request, rules, load, now);
        if verdict.is_ok() {
            count.put(request.id, request.customer, Place::Preparing);
        }
        Some(verdict)
    }

    /// Gives a place back.
    pub(super) fn leave(&self, job: JobId) {
        self.count().remove(job);
    }

    /// Gives a job of an earlier process its place.
    pub(super) fn seat(&self, job: &Job) {
        if let Some(place) = place_of(job) {
            self.count().put(job.id, job.customer, place);
        }
    }

    /// Moves a job to the place its state gives it. Only ever moves: facts may be noted out of order, and one that comes
    /// after the job's end must not give it a place again.
    pub(super) fn note(&self, job: &Job) {
        let mut count = self.count();
        match place_of(job) {
            None => count.remove(job.id),
            Some(place) if count.places.contains_key(&job.id) => count.put(job.id, job.customer, place),
            Some(_) => {}
        }
    }

    /// Jobs running or waiting their turn, and quotes waiting for payment.
    pub(super) fn totals(&self) -> (usize, usize) {
        let count = self.count();
        (count.queued, count.quoted)
    }

    fn count(&self) -> std::sync::MutexGuard<'_, Count> {
        // Nothing in here panics between two changes that belong together.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The place of a job in this state; work that is done and not yet paid is still open.
fn place_of(job: &Job) -> Option<Place> {
    match (job.work, job.payment) {
        (WorkState::Waiting, _) => Some(Place::Quoted),
        (WorkState::Running, _) => Some(Place::Queued),
        (WorkState::Finished, PaymentState::Invoicing | PaymentState::Awaiting) => Some(Place::Quoted),
        _ => None,
    }
}

impl Count {
    fn put(&mut self, job: JobId, customer: CustomerId, place: Place) {
        self.remove(job);
        self.places.insert(job, (customer, place));
        *self.of_customer.entry(customer).or_default() += 1;
        match place {
            // A request being made ready will be one or the other: counted with the stricter.
            Place::Preparing | Place::Quoted => self.quoted += 1,
            Place::Queued => self.queued += 1,
        }
    }

    fn remove(&mut self, job: JobId) {
        let Some((customer, place)) = self.places.remove(&job) else { return };
        match place {
            Place::Preparing | Place::Quoted => self.quoted = self.quoted.saturating_sub(1),
            Place::Queued => self.queued = self.queued.saturating_sub(1),
        }
        if let Some(open) = self.of_customer.get_mut(&customer) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                self.of_customer.remove(&customer);
            }
        }
    }
}
