//! Waiting for a turn: [`crate::job::queue`] decides whose it is, and here the jobs wait and are called.
//!
//! A turn is looked for whenever a job comes, goes or ends, and besides at each tick of the housekeeping, because room may
//! come back at a server that nobody here hears of.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Clock, lock};
use crate::executor::Router;
use crate::job::queue::{Lane, Queue, Standing, Ticket};
use crate::job::{Estimate, JobId};

/// Jobs that wait for their turn, and those whose turn it is.
pub(super) struct Turns {
    clock: Clock,
    router: Router,
    /// At most so many jobs at once, whatever there is room for.
    most: usize,
    desk: Mutex<Desk>,
}

struct Desk {
    queue: Queue,
    calls: HashMap<JobId, Call>,
    closed: bool,
}

/// How a job that waits is called.
struct Call {
    turn: oneshot::Sender<Turn>,
    /// Whether its customer was told that it waits.
    told: bool,
}

/// A job's turn: over when this is dropped, and then the next job's begins.
pub(super) struct Turn {
    turns: Arc<Turns>,
    job: JobId,
    told: bool,
}

impl Turn {
    /// Whether the customer was told that the job waits.
    pub(super) fn was_waited_for(&self) -> bool {
        self.told
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let now = self.turns.clock.now();
        lock(&self.turns.desk).queue.end(self.job, now);
        self.turns.look();
    }
}

/// A job that waits: it leaves the queue when this is dropped before its turn.
struct Waiting<'a> {
    turns: &'a Turns,
    job: JobId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut desk = lock(&self.turns.desk);
        if desk.calls.remove(&self.job).is_some() {
            desk.queue.leave(self.job);
        }
    }
}

impl Turns {
    /// Turns for at most so many jobs at once, 0 for as many as the executors have room for.
    pub(super) fn new(clock: Clock, router: Router, jobs_running: usize) -> Arc<Self> {
        let most = if jobs_running == 0 { usize::MAX } else { jobs_running };
        let desk = Desk { queue: Queue::new(Some(most)), calls: HashMap::new(), closed: false };
        Arc::new(Self { clock, router, most, desk: Mutex::new(desk) })
    }

    /// Waits for a job's turn. `None` once closed. Dropping the future gives up the place in the queue.
    pub(super) async fn wait_for(self: &Arc<Self>, ticket: Ticket) -> Option<Turn> {
        let job = ticket.job;
        let (turn, called) = oneshot::channel();
        {
            let mut desk = lock(&self.desk);
            if desk.closed {
                return None;
            }
            desk.queue.enter(ticket);
            desk.calls.insert(job, Call { turn, told: false });
        }
        let _waiting = Waiting { turns: self, job };
        self.look();
        called.await.ok()
    }

    /// Calls everybody whose turn it is by now.
    pub(super) fn look(self: &Arc<Self>) {
        let mut called = Vec::new();
        {
            let mut desk = lock(&self.desk);
            let Desk { queue, calls, closed } = &mut *desk;
            let now = self.clock.now();
            queue.bound(self.places());
            while !*closed && let Some(job) = queue.start(&|lane| self.room(lane), now) {
                match calls.remove(&job) {
                    Some(Call { turn, told }) => called.push((turn, Turn { turns: Arc::clone(self), job, told })),
                    // Whoever waits has a call; a job without one has no use for its turn.
                    None => queue.end(job, now),
                }
            }
        }
        for (call, turn) in called {
            // Who gave up at this moment drops the turn, and with it the place: no longer under the lock, for that looks again.
            let _ = call.send(turn);
        }
    }

    /// Where a job stands that waits, of which its customer is going to be told.
    pub(super) fn tell(&self, job: JobId) -> Option<Standing> {
        let mut desk = lock(&self.desk);
        desk.queue.bound(self.places());
        let standing = desk.queue.standing(job, &|lane| self.room(lane), self.clock.now())?;
        desk.calls.get_mut(&job)?.told = true;
        Some(standing)
    }

    /// How long a job would wait that came now; `None` when nobody can say.
    pub(super) fn wait_of(&self, ticket: &Ticket) -> Option<Duration> {
        let mut desk = lock(&self.desk);
        desk.queue.bound(self.places());
        desk.queue.wait_of(ticket, &|lane| self.room(lane), self.clock.now())
    }

    /// A run of this size took so long.
    pub(super) fn note_run(&self, lane: Lane, estimate: Estimate, took: Duration) {
        lock(&self.desk).queue.note_run(lane, estimate, took);
    }

    /// How many jobs wait.
    pub(super) fn waiting(&self) -> usize {
        lock(&self.desk).queue.waiting()
    }

    /// Nobody's turn comes any more. Turns that have begun go on.
    pub(super) fn close(&self) {
        let mut desk = lock(&self.desk);
        desk.closed = true;
        for job in std::mem::take(&mut desk.calls).into_keys() {
            desk.queue.leave(job);
        }
    }

    /// How many jobs may run at once in all: lanes may share what does their work, and then have less room together than each
    /// says. At least one, for jobs of a kind that nobody does any more.
    fn places(&self) -> usize {
        let rooms = self.router.kinds().filter_map(|kind| Some(self.router.get(kind)?.room(None)));
        rooms.fold(0, usize::saturating_add).clamp(1, self.most)
    }

    /// What an executor has room for. Jobs of a kind that nobody does any more have their turn, to be told so.
    fn room(&self, lane: &Lane) -> usize {
        self.router.get(lane.kind).map_or(usize::MAX, |executor| executor.room(lane.name.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use jiff::Timestamp;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::executor::{Executor, Prepared};
    use crate::inference::TextSink;
    use crate::job::{CustomerId, Failure, JobKind, JobRequest, Outcome, Refusal};
    use crate::money::Msat;

    /// Has so much room, and does nothing.
    struct Idle(Arc<AtomicUsize>);

    #[async_trait]
    impl Executor for Idle {
        async fn prepare(&self, _: &JobRequest) -> Result<Prepared, Refusal> {
            Err(Refusal::unsupported("nothing"))
        }

        fn room(&self, _: Option<&str>) -> usize {
            self.0.load(Ordering::SeqCst)
        }

        async fn run(&self, _: &Prepared, _: Option<TextSink>, _: &CancellationToken) -> Result<Outcome, Failure> {
            Err(Failure::backend("nothing"))
        }
    }

    fn turns(room: &Arc<AtomicUsize>) -> Arc<Turns> {
        let router = Router::new().with(JobKind::TextGeneration, Arc::new(Idle(Arc::clone(room))));
        Turns::new(Clock::new(|| Timestamp::UNIX_EPOCH), router, 0)
    }

    fn ticket(job: u8) -> Ticket {
        Ticket {
            job: JobId([job; 32]),
            customer: CustomerId([job; 32]),
            price: Msat::ZERO,
            paid: false,
            lane: Lane { kind: JobKind::TextGeneration, name: None },
            estimate: Estimate::tokens(1, 1),
            longest: Duration::MAX,
            entered: Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn a_turn_that_ends_is_the_next_one_s_and_who_waited_knows_it() {
        let turns = turns(&Arc::new(AtomicUsize::new(1)));
        let first = turns.wait_for(ticket(1)).await.unwrap();
        assert!(!first.was_waited_for());
        let (second, ()) = tokio::join!(turns.wait_for(ticket(2)), async {
            assert_eq!(turns.tell(JobId([2; 32])), Some(Standing { position: 1, wait: None }));
            assert_eq!(turns.tell(JobId([1; 32])), None, "it runs");
            drop(first);
        });
        assert!(second.unwrap().was_waited_for());
        assert_eq!(turns.waiting(), 0);
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_queue_and_holds_no_place() {
        let turns = turns(&Arc::new(AtomicUsize::new(1)));
        let first = turns.wait_for(ticket(1)).await.unwrap();
        {
            let mut second = Box::pin(turns.wait_for(ticket(2)));
            assert!(futures::poll!(&mut second).is_pending());
            assert_eq!(turns.waiting(), 1);
        }
        assert_eq!(turns.waiting(), 0);
        {
            // Called, and gone before it heard.
            let mut third = Box::pin(turns.wait_for(ticket(3)));
            assert!(futures::poll!(&mut third).is_pending());
            drop(first);
        }
        assert!(turns.wait_for(ticket(4)).await.is_some());
    }

    #[tokio::test]
    async fn lanes_that_share_a_place_take_turns_at_it_and_paid_work_goes_first() {
        let turns = turns(&Arc::new(AtomicUsize::new(1)));
        let of = |name: &str| Lane { kind: JobKind::TextGeneration, name: Some(name.to_owned()) };
        let first = turns.wait_for(Ticket { lane: of("a"), ..ticket(1) }).await.unwrap();
        let mut free = Box::pin(turns.wait_for(Ticket { lane: of("a"), ..ticket(2) }));
        let mut paid = Box::pin(turns.wait_for(Ticket { lane: of("b"), paid: true, ..ticket(3) }));
        assert!(futures::poll!(&mut free).is_pending());
        assert!(futures::poll!(&mut paid).is_pending(), "the place is taken, whatever the other lane says");
        drop(first);
        assert!(futures::poll!(&mut free).is_pending());
        let paid = paid.await.unwrap();
        assert!(futures::poll!(&mut free).is_pending());
        drop(paid);
        assert!(free.await.is_some());
    }

    #[tokio::test]
    async fn room_that_comes_back_is_found_by_looking() {
        let room = Arc::new(AtomicUsize::new(0));
        let turns = turns(&room);
        let (turn, ()) = tokio::join!(turns.wait_for(ticket(1)), async {
            room.store(1, Ordering::SeqCst);
            turns.look();
        });
        assert!(turn.is_some());
    }

    #[tokio::test]
    async fn nobody_s_turn_comes_after_the_end() {
        let turns = turns(&Arc::new(AtomicUsize::new(1)));
        let first = turns.wait_for(ticket(1)).await.unwrap();
        let (second, ()) = tokio::join!(turns.wait_for(ticket(2)), async { turns.close() });
        assert!(second.is_none());
        drop(first);
        assert!(turns.wait_for(ticket(3)).await.is_none());
    }
}
