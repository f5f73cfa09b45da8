//! Who may fetch when. A stranger's server decides how long a fetch takes, so nobody's fetches take all the places.
//!
//! A fetch waits for a share of its customer's first, and only then for a place: so who has too many under way waits for their
//! own, and what they wait for keeps nobody else out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::job::CustomerId;

/// Repositories that are fetched at once: each takes memory while it is unpacked.
const IN_ALL: usize = 4;

/// Of those, for one customer.
const OF_ONE: usize = 2;

/// The places.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    /// Of those who have a share or wait for one.
    shares: Mutex<HashMap<CustomerId, Weak<Semaphore>>>,
}

/// One of the fetches that a customer may have under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    _permit: OwnedSemaphorePermit,
    /// Forgotten with the last who holds it.
    _of: Arc<Semaphore>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

impl Default for Places {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(IN_ALL)), shares: Mutex::default() }
    }
}

impl Places {
    /// A share of this customer's, when there is one.
    pub(super) async fn share_of(&self, customer: CustomerId) -> Share {
        let of = self.shares_of(customer);
        let permit = Arc::clone(&of).acquire_owned().await.expect("it is never closed");
        Share { _permit: permit, _of: of }
    }

    /// A place, when it is this one's turn.
    pub(super) async fn place(&self, share: Share) -> Place {
        let permit = Arc::clone(&self.all).acquire_owned().await.expect("it is never closed");
        Place { _permit: permit, _share: share }
    }

    fn shares_of(&self, customer: CustomerId) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|_, of| of.strong_count() > 0);
        if let Some(of) = shares.get(&customer).and_then(Weak::upgrade) {
            return of;
        }
        let of = Arc::new(Semaphore::new(OF_ONE));
        shares.insert(customer, Arc::downgrade(&of));
        of
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn customer(number: u8) -> CustomerId {
        CustomerId([number; 32])
    }

    /// A place that is free now.
    fn taken(places: &Places, number: u8) -> Option<Place> {
        let share = places.share_of(customer(number)).now_or_never()?;
        places.place(share).now_or_never()
    }

    #[tokio::test]
    async fn who_has_slow_servers_waits_for_them_and_others_do_not() {
        let places = Places::default();
        let first = taken(&places, 1).unwrap();
        let _second = taken(&places, 1).unwrap();
        let mut third = Box::pin(places.share_of(customer(1)));
        assert!((&mut third).now_or_never().is_none());
        let _others = [taken(&places, 2).expect("half is left"), taken(&places, 3).unwrap()];
        assert!(taken(&places, 4).is_none(), "all are taken");
        drop(first);
        let share = third.now_or_never().expect("a share has come back");
        let _third = places.place(share).now_or_never().expect("and its place");
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_nothing_taken() {
        let places = Places::default();
        let held: Vec<_> = [1, 1, 2, 2].map(|number| taken(&places, number).unwrap()).into();
        let mut for_a_share = Box::pin(places.share_of(customer(1)));
        assert!((&mut for_a_share).now_or_never().is_none());
        let mut for_a_place = Box::pin(places.place(places.share_of(customer(3)).await));
        assert!((&mut for_a_place).now_or_never().is_none());
        drop((for_a_share, for_a_place, held));
        assert!([1, 1, 3, 3].map(|number| taken(&places, number)).iter().all(Option::is_some));
    }

    #[test]
    fn customers_who_fetch_nothing_are_forgotten() {
        let places = Places::default();
        for number in 0..100 {
            drop(taken(&places, number).unwrap());
        }
        assert!(places.shares.lock().unwrap().len() <= 1);
    }
}
