//! Remembers every step a provider took, so that tests wait for steps and not for time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::within;
use crate::job::JobId;
use crate::provider::{Moment, Witness};

/// The steps taken, in order. Passes them on to another witness, if there is one.
#[allow(missing_debug_implementations)] // Holds a trait.
pub struct Moments {
    seen: Mutex<Vec<(JobId, Moment)>>,
    /// How many jobs were told each fact, those told twice twice.
    told: watch::Sender<HashMap<&'static str, usize>>,
    count: watch::Sender<usize>,
    next: Option<Arc<dyn Witness>>,
}

impl Moments {
    pub(super) fn new(next: Option<Arc<dyn Witness>>) -> Self {
        Self { seen: Mutex::default(), told: watch::Sender::default(), count: watch::Sender::new(0), next }
    }

    /// The steps of a job so far.
    pub fn of(&self, job: JobId) -> Vec<Moment> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|(whose, _)| *whose == job).map(|(_, moment)| *moment).collect()
    }

    /// How often this step of a job was taken.
    pub fn times(&self, job: JobId, moment: Moment) -> usize {
        self.of(job).into_iter().filter(|seen| *seen == moment).count()
    }

    /// Waits until a job has taken this step.
    pub async fn reached(&self, job: JobId, moment: Moment) {
        self.reached_times(job, moment, 1).await;
    }

    /// Waits until a job has taken this step so many times.
    pub async fn reached_times(&self, job: JobId, moment: Moment, times: usize) {
        let mut count = self.count.subscribe();
        let reached = count.wait_for(|_| self.times(job, moment) >= times);
        within(&format!("{times} times '{moment}' of job {job}"), reached).await.expect("the sender is kept here");
    }

    /// Waits until a job was told this fact (its [`crate::job::JobEvent::name`]).
    pub async fn told(&self, job: JobId, fact: &'static str) {
        self.reached(job, Moment::Told(fact)).await;
    }

    /// Waits until this fact was told so many times in all.
    pub async fn told_in_all(&self, fact: &'static str, times: usize) {
        let mut told = self.told.subscribe();
        let enough = told.wait_for(|told| told.get(fact).is_some_and(|count| *count >= times));
        within(&format!("{times} times '{fact}'"), enough).await.expect("the sender is kept here");
    }
}

#[async_trait]
impl Witness for Moments {
    async fn at(&self, moment: Moment, job: JobId) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push((job, moment));
        self.count.send_modify(|count| *count += 1);
        if let Moment::Told(fact) = moment {
            self.told.send_modify(|told| *told.entry(fact).or_default() += 1);
        }
        if let Some(next) = &self.next {
            next.at(moment, job).await;
        }
    }
}
