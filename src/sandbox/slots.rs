//! Who gets the next place on an engine. Nothing here waits for an engine.
//!
//! Places are given in the order of asking. A later one only goes first to an engine that no earlier one could use: an engine
//! whose memory does not suffice for the first that could use it is kept free for it. Among the engines that fit, the one with
//! the smallest share of its slots and memory taken is chosen.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use super::Runtime;

/// What a cell needs of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Want {
    /// What it must run under.
    pub(super) runtime: Runtime,
    /// Which of the configured images.
    pub(super) image: usize,
    /// Memory in all, in MiB.
    pub(super) memory_mib: u64,
}

/// What an engine offers now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Offer {
    /// Proven runtimes.
    pub(super) runtimes: BTreeSet<Runtime>,
    /// Which of the configured images it has.
    pub(super) images: BTreeSet<usize>,
    /// Memory for cells, in MiB.
    pub(super) memory_mib: u64,
}

/// Why there will be no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// No engine that is up has the runtime with the image.
    NoOffer,
    /// None has that much memory, however empty.
    TooBig,
}

/// The places of all engines.
#[derive(Clone)]
pub(super) struct Slots(Arc<Mutex<Table>>);

struct Table {
    hosts: Vec<Row>,
    waiting: VecDeque<Waiting>,
}

struct Row {
    slots: usize,
    used: usize,
    used_mib: u64,
    offer: Offer,
}

struct Waiting {
    want: Want,
    tell: oneshot::Sender<Result<Slot, NoPlace>>,
}

/// A place on an engine, until it is dropped.
pub(super) struct Slot {
    host: usize,
    memory_mib: u64,
    slots: Slots,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot(host {})", self.host)
    }
}

impl Slot {
    /// Which engine.
    pub(super) fn host(&self) -> usize {
        self.host
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let unwanted = {
            let mut table = self.slots.lock();
            let row = &mut table.hosts[self.host];
            row.used -= 1;
            row.used_mib -= self.memory_mib;
            table.serve(&self.slots)
        };
        // Outside the lock: each takes it again.
        drop(unwanted);
    }
}

impl Slots {
    /// Engines with so many places each, none of which offers anything yet.
    pub(super) fn new(slots: impl IntoIterator<Item = usize>) -> Self {
        let row = |slots| Row { slots, used: 0, used_mib: 0, offer: Offer::default() };
        let hosts = slots.into_iter().map(row).collect();
        Self(Arc::new(Mutex::new(Table { hosts, waiting: VecDeque::new() })))
    }

    /// A place, when it is this one's turn.
    pub(super) async fn take(&self, want: Want) -> Result<Slot, NoPlace> {
        let (tell, told) = oneshot::channel();
        let unwanted = {
            let mut table = self.lock();
            table.waiting.push_back(Waiting { want, tell });
            table.serve(self)
        };
        drop(unwanted);
        told.await.expect("whoever waits is told before being forgotten")
    }

    /// What an engine offers from now on: nothing, when it is down.
    pub(super) fn offer(&self, host: usize, offer: Offer) {
        let unwanted = {
            let mut table = self.lock();
            table.hosts[host].offer = offer;
            table.serve(self)
        };
        drop(unwanted);
    }

    /// Places with the runtime, taken or not.
    pub(super) fn offering(&self, runtime: Runtime) -> usize {
        let table = self.lock();
        table.hosts.iter().filter(|row| row.offer.runtimes.contains(&runtime)).map(|row| row.slots).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("nobody panics while holding it")
    }
}

impl Table {
    /// Gives out what is free. Returns places that nobody waits for any more, to be dropped without the lock.
    fn serve(&mut self, slots: &Slots) -> Vec<Slot> {
        let mut unwanted = Vec::new();
        let mut kept_free = BTreeSet::new();
        let waiting = std::mem::take(&mut self.waiting);
        for Waiting { want, tell } in waiting {
            if tell.is_closed() {
                continue;
            }
            let fitting: Vec<usize> =
                (0..self.hosts.len()).filter(|host| self.hosts[*host].offer.suits(&want)).collect();
            if fitting.is_empty() {
                let big = self.hosts.iter().any(|row| row.offer.has(&want));
                // Nobody there to be told: it was dropped meanwhile.
                let _ = tell.send(Err(if big { NoPlace::TooBig } else { NoPlace::NoOffer }));
                continue;
            }
            let free = fitting.iter().copied().filter(|host| !kept_free.contains(host));
            let free = free.filter(|host| self.hosts[*host].has_room(want.memory_mib));
            let Some(host) = free.min_by(|one, other| self.hosts[*one].load().total_cmp(&self.hosts[*other].load()))
            else {
                kept_free.extend(fitting);
                self.waiting.push_back(Waiting { want, tell });
                continue;
            };
            let row = &mut self.hosts[host];
            row.used += 1;
            row.used_mib += want.memory_mib;
            let slot = Slot { host, memory_mib: want.memory_mib, slots: slots.clone() };
            if let Err(Ok(slot)) = tell.send(Ok(slot)) {
                unwanted.push(slot);
            }
        }
        unwanted
    }
}

impl Offer {
    /// The right runtime and image, whatever the size.
    fn has(&self, want: &Want) -> bool {
        self.runtimes.contains(&want.runtime) && self.images.contains(&want.image)
    }

    fn suits(&self, want: &Want) -> bool {
        self.has(want) && want.memory_mib <= self.memory_mib
    }
}

impl Row {
    fn has_room(&self, memory_mib: u64) -> bool {
        self.used < self.slots && self.used_mib + memory_mib <= self.offer.memory_mib
    }

    /// The larger of the two shares that are taken.
    fn load(&self) -> f64 {
        let slots = self.used as f64 / self.slots.max(1) as f64;
        let memory = self.used_mib as f64 / self.offer.memory_mib.max(1) as f64;
        slots.max(memory)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn want(memory_mib: u64) -> Want {
        Want { runtime: Runtime::Runsc, image: 0, memory_mib }
    }

    fn offer(memory_mib: u64) -> Offer {
        Offer { runtimes: Runtime::ALL.into(), images: [0].into(), memory_mib }
    }

    fn engines(each: &[(usize, u64)]) -> Slots {
        let slots = Slots::new(each.iter().map(|(slots, _)| *slots));
        for (host, (_, memory_mib)) in each.iter().enumerate() {
            slots.offer(host, offer(*memory_mib));
        }
        slots
    }

    #[test]
    fn the_least_loaded_engine_is_chosen() {
        let slots = engines(&[(2, 1000), (4, 1000)]);
        let mut taken = Vec::new();
        for expected in [0, 1, 1, 0] {
            let slot = slots.take(want(10)).now_or_never().expect("there is room").unwrap();
            assert_eq!(slot.host(), expected);
            taken.push(slot);
        }
        // A large cell weighs more than its slot.
        drop(taken);
        let large = slots.take(want(900)).now_or_never().unwrap().unwrap();
        assert_eq!(large.host(), 0);
        let small: Vec<_> = (0..3).map(|_| slots.take(want(10)).now_or_never().unwrap().unwrap()).collect();
        assert!(small.iter().all(|slot| slot.host() == 1));
    }

    #[tokio::test]
    async fn nobody_overtakes_a_large_job_on_an_engine_it_could_use() {
        let slots = engines(&[(4, 1000)]);
        let first = slots.take(want(600)).await.unwrap();
        let mut large = Box::pin(slots.take(want(900)));
        let mut small = Box::pin(slots.take(want(100)));
        assert!((&mut large).now_or_never().is_none());
        assert!((&mut small).now_or_never().is_none(), "there is room, but it is not its turn");
        drop(first);
        let large = large.now_or_never().expect("now it is").unwrap();
        let _small = small.now_or_never().expect("what is left is enough").unwrap();
        drop(large);
    }

    #[tokio::test]
    async fn an_engine_that_an_earlier_job_cannot_use_is_not_kept_for_it() {
        let slots = engines(&[(1, 1000), (1, 100)]);
        let _first = slots.take(want(600)).await.unwrap();
        let mut large = Box::pin(slots.take(want(600)));
        assert!((&mut large).now_or_never().is_none());
        let small = slots.take(want(50)).now_or_never().expect("the small engine is free").unwrap();
        assert_eq!(small.host(), 1);
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_no_place_taken() {
        let slots = engines(&[(1, 1000)]);
        let first = slots.take(want(1)).await.unwrap();
        let mut gives_up = Box::pin(slots.take(want(1)));
        assert!((&mut gives_up).now_or_never().is_none());
        let mut waits = Box::pin(slots.take(want(1)));
        assert!((&mut waits).now_or_never().is_none());
        drop(first);
        // It was told of its place and never looked.
        drop(gives_up);
        assert!(waits.now_or_never().is_some_and(|slot| slot.is_ok()));
    }

    #[tokio::test]
    async fn nobody_waits_for_an_engine_that_is_gone() {
        let slots = engines(&[(1, 1000)]);
        assert_eq!(slots.take(want(1001)).await.unwrap_err(), NoPlace::TooBig);
        assert_eq!(slots.take(Want { image: 7, ..want(1) }).await.unwrap_err(), NoPlace::NoOffer);
        let _first = slots.take(want(1)).await.unwrap();
        let mut waits = Box::pin(slots.take(want(1)));
        assert!((&mut waits).now_or_never().is_none());
        slots.offer(0, Offer::default());
        assert_eq!(waits.now_or_never().expect("it is told").unwrap_err(), NoPlace::NoOffer);
        assert_eq!(slots.offering(Runtime::Runsc), 0);
    }
}
