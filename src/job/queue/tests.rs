//! The queue is played with: jobs come, run for their time, and go.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp::UNIX_EPOCH;

fn at(seconds: u32) -> Timestamp {
    START + SignedDuration::from_secs(i64::from(seconds))
}

fn lane(name: &str) -> Lane {
    Lane { kind: JobKind::TextGeneration, name: Some(name.to_owned()) }
}

fn id(number: u16) -> JobId {
    let mut id = [0; 32];
    id[..2].copy_from_slice(&number.to_be_bytes());
    JobId(id)
}

fn size(tokens: u32) -> Estimate {
    Estimate::tokens(0, tokens)
}

fn ticket(job: u16, customer: u8) -> Ticket {
    Ticket {
        job: id(job),
        customer: CustomerId([customer; 32]),
        price: Msat::sat(1),
        paid: true,
        lane: lane("a"),
        estimate: size(10),
        longest: Duration::MAX,
        entered: START,
    }
}

/// Lanes called `a`, `b`, … and how many jobs each has room for.
fn rooms(rooms: &[usize]) -> impl Fn(&Lane) -> usize + '_ {
    |lane| rooms[usize::from(lane.name.as_ref().unwrap().as_bytes()[0] - b'a')]
}

/// Plays the queue with one place in lane `a` until nobody waits, each job taking so long. Returns the order of turns.
fn turns(queue: &mut Queue, seconds: impl Fn(JobId) -> u32) -> Vec<JobId> {
    let (mut now, mut order) = (0, Vec::new());
    while let Some(job) = queue.start(&rooms(&[1]), at(now)) {
        now += seconds(job);
        queue.end(job, at(now));
        order.push(job);
    }
    order
}

#[test]
fn of_two_equal_customers_turns_alternate() {
    let mut queue = Queue::new(None);
    // All of one customer's jobs come first.
    (0..6).for_each(|job| queue.enter(ticket(job, 1)));
    (6..12).for_each(|job| queue.enter(ticket(job, 2)));
    let order = turns(&mut queue, |_| 10);
    for pair in order.chunks(2) {
        let of_first = pair.iter().filter(|job| **job < id(6)).count();
        assert_eq!(of_first, 1, "{order:?}");
    }
}

#[test]
fn monsters_of_one_customer_keep_nobodys_first_job_waiting_behind_them_all() {
    let mut queue = Queue::new(None);
    (0..20).for_each(|job| queue.enter(ticket(job, 1)));
    let first = queue.start(&rooms(&[1]), at(0)).unwrap();
    queue.enter(Ticket { entered: at(30), ..ticket(20, 2) });
    queue.end(first, at(600));
    assert_eq!(queue.start(&rooms(&[1]), at(600)), Some(id(20)));
}

#[test]
fn a_run_counts_for_what_it_is_expected_to_take_from_its_first_moment() {
    let mut queue = Queue::new(None);
    queue.note_run(lane("a"), size(10), Duration::from_secs(600));
    (0..3).for_each(|job| queue.enter(ticket(job, 1)));
    assert_eq!(queue.start(&rooms(&[2]), at(300)), Some(id(0)));
    queue.enter(Ticket { entered: at(300), ..ticket(3, 2) });
    assert_eq!(queue.start(&rooms(&[2]), at(300)), Some(id(3)));
}

#[test]
fn a_higher_price_is_worth_some_waiting_and_not_any() {
    let dear = |entered| Ticket { price: Msat::sat(8), entered, ..ticket(1, 2) };
    let first = |dear: Ticket| {
        let mut queue = Queue::new(None);
        queue.enter(ticket(0, 1));
        queue.enter(dear);
        queue.start(&rooms(&[1]), at(60)).unwrap()
    };
    assert_eq!(first(dear(at(29))), id(1), "three doublings are worth thirty seconds");
    assert_eq!(first(dear(at(31))), id(0));
}

#[test]
fn a_full_lane_keeps_nobody_in_another_waiting() {
    let mut queue = Queue::new(Some(3));
    (0..3).for_each(|job| queue.enter(ticket(job, 1)));
    queue.enter(Ticket { lane: lane("b"), paid: false, entered: at(9), ..ticket(3, 2) });
    let room = rooms(&[1, 1]);
    assert_eq!(queue.start(&room, at(9)), Some(id(0)));
    assert_eq!(queue.start(&room, at(9)), Some(id(3)));
    assert_eq!(queue.start(&room, at(9)), None);
    // Room that comes back is found at the next look.
    assert_eq!(queue.start(&rooms(&[2, 1]), at(9)), Some(id(1)));
    assert_eq!(queue.start(&rooms(&[9, 9]), at(9)), None, "the bound on all lanes together holds");
}

#[test]
fn a_job_that_leaves_is_never_called() {
    let mut queue = Queue::new(None);
    queue.enter(ticket(0, 1));
    queue.leave(id(0));
    assert_eq!((queue.start(&rooms(&[1]), at(0)), queue.waiting()), (None, 0));
}

#[test]
fn the_wait_is_what_the_runs_before_it_are_expected_to_take() {
    let mut queue = Queue::new(None);
    let room = rooms(&[1, 1]);
    assert_eq!(queue.wait_of(&ticket(9, 9), &room, at(0)), Some(Duration::ZERO), "nothing is in its way");
    queue.enter(ticket(0, 1));
    queue.start(&room, at(0)).unwrap();
    assert_eq!(queue.wait_of(&ticket(9, 9), &room, at(0)), None, "nobody knows how fast this lane is");
    queue.note_run(lane("a"), size(10), Duration::from_secs(100));
    queue.enter(Ticket { customer: CustomerId([2; 32]), estimate: size(3), ..ticket(1, 2) });
    // 60 s are left of the first, and the second takes 30 s.
    let late = Ticket { entered: at(40), ..ticket(9, 9) };
    assert_eq!(queue.wait_of(&late, &room, at(40)), Some(Duration::from_secs(90)));
    assert_eq!(queue.wait_of(&late, &rooms(&[2, 1]), at(40)), Some(Duration::from_secs(30)), "two places");
    assert_eq!(queue.wait_of(&Ticket { lane: lane("b"), ..late.clone() }, &room, at(40)), Some(Duration::ZERO));
    queue.enter(late);
    let standing = queue.standing(id(9), &room, at(40)).unwrap();
    assert_eq!(standing.to_string(), "position 2 in the queue, about 90 s");
    assert_eq!(queue.standing(id(0), &room, at(40)), None, "it runs");
}

#[test]
fn no_run_is_expected_to_take_longer_than_it_may() {
    let mut queue = Queue::new(None);
    queue.note_run(lane("a"), size(1), Duration::from_secs(60));
    let limit = Duration::from_secs(300);
    queue.enter(Ticket { estimate: size(4_096), longest: limit, ..ticket(0, 1) });
    queue.start(&rooms(&[1]), at(0)).unwrap();
    assert_eq!(queue.wait_of(&ticket(9, 9), &rooms(&[1]), at(0)), Some(limit));
}

#[test]
fn a_bound_that_keeps_nobody_waiting_leaves_each_lane_to_itself() {
    let mut queue = Queue::new(Some(2));
    queue.note_run(lane("a"), size(10), Duration::from_secs(100));
    for job in 0..2 {
        queue.enter(ticket(job, 1));
        queue.enter(Ticket { lane: lane("b"), ..ticket(10 + job, 1) });
    }
    let room = rooms(&[1, 1]);
    while queue.start(&room, at(0)).is_some() {}
    let standing = queue.standing(id(1), &room, at(0)).unwrap();
    assert_eq!(standing, Standing { position: 1, wait: Some(Duration::from_secs(100)) }, "nobody knows the other lane");
    queue.bound(1);
    assert_eq!(queue.standing(id(1), &room, at(0)).unwrap().wait, None);
}

#[test]
fn with_a_bound_on_all_lanes_together_they_wait_for_each_other() {
    let mut queue = Queue::new(Some(1));
    let room = rooms(&[9, 9]);
    for name in ["a", "b"] {
        queue.note_run(lane(name), size(10), Duration::from_secs(100));
    }
    queue.enter(ticket(0, 1));
    queue.start(&room, at(0)).unwrap();
    queue.enter(Ticket { lane: lane("b"), ..ticket(1, 2) });
    queue.enter(ticket(2, 3));
    let standing = queue.standing(id(2), &room, at(50)).unwrap();
    assert_eq!(standing, Standing { position: 2, wait: Some(Duration::from_secs(150)) });
}

#[test]
fn a_lane_without_any_room_waits_nobody_knows_how_long() {
    let mut queue = Queue::new(None);
    queue.note_run(lane("a"), size(10), Duration::from_secs(100));
    queue.enter(ticket(0, 1));
    let standing = queue.standing(id(0), &rooms(&[0]), at(0)).unwrap();
    assert_eq!(standing.to_string(), "position 1 in the queue");
}

#[test]
fn a_wait_is_told_in_the_unit_people_think_in() {
    let told = |seconds| forecast::roughly(Duration::from_secs(seconds));
    assert_eq!([told(1), told(120), told(121), told(7_200), told(7_201)], ["1 s", "120 s", "3 min", "120 min", "3 h"]);
    assert_eq!(forecast::roughly(Duration::from_millis(1)), "1 s");
}

/// Jobs of a few customers in two lanes.
fn tickets() -> impl Strategy<Value = Vec<Ticket>> {
    let one = (0u8..4, 0u32..1_000_000, any::<bool>(), any::<bool>(), 0u32..100, 1u32..100);
    prop::collection::vec(one, 1..40).prop_map(|all| {
        let ticket =
            |(job, (customer, msat, paid, b, entered, tokens)): (u16, (u8, u32, bool, bool, u32, u32))| Ticket {
                price: if paid { Msat::msat(msat) } else { Msat::ZERO },
                paid,
                lane: lane(if b { "b" } else { "a" }),
                estimate: size(tokens),
                entered: at(entered),
                ..self::ticket(job, customer)
            };
        (0u16..).zip(all).map(ticket).collect()
    })
}

proptest! {
    #[test]
    fn a_free_job_never_goes_before_a_waiting_paid_one_of_its_lane(
        tickets in tickets(), places in 1usize..5, room in 1usize..4, took in prop::collection::vec(0u32..50, 40)
    ) {
        let mut queue = Queue::new(Some(places));
        let mut waiting: Vec<Ticket> = tickets.clone();
        tickets.into_iter().for_each(|ticket| queue.enter(ticket));
        let (mut now, mut took) = (100, took.into_iter().cycle());
        let mut running: Vec<Ticket> = Vec::new();
        while !waiting.is_empty() {
            while let Some(job) = queue.start(&|_| room, at(now)) {
                let next = waiting.remove(waiting.iter().position(|ticket| ticket.job == job).unwrap());
                let passed_over = |other: &Ticket| other.paid && other.lane == next.lane;
                prop_assert!(next.paid || !waiting.iter().any(passed_over), "a free job went first");
                running.push(next);
                prop_assert!(running.len() <= places);
                for name in ["a", "b"] {
                    prop_assert!(running.iter().filter(|one| one.lane == lane(name)).count() <= room);
                }
            }
            prop_assert!(!running.is_empty(), "there is room and nobody was called");
            now += took.next().unwrap();
            let done = running.remove(0);
            queue.note_run(done.lane, done.estimate, Duration::from_secs(1));
            queue.end(done.job, at(now));
        }
    }

    #[test]
    fn every_paid_job_comes_up_under_a_flood_of_others(
        price in 0u32..1_000, flood_price in 0u32..u32::MAX, each_takes in 1u32..60, keys in 1u8..50
    ) {
        let mut queue = Queue::new(None);
        queue.enter(Ticket { price: Msat::msat(price), ..ticket(0, 0) });
        let (mut now, mut number) = (0, 0);
        // Somebody always has five jobs more in the queue, of however many keys.
        loop {
            while queue.waiting() < 6 {
                number += 1;
                let customer = 1 + u8::try_from(number % u16::from(keys)).unwrap();
                queue.enter(Ticket { price: Msat::msat(flood_price), entered: at(now), ..ticket(number, customer) });
            }
            let next = queue.start(&rooms(&[1]), at(now)).unwrap();
            if next == id(0) {
                break;
            }
            now += each_takes;
            queue.end(next, at(now));
            prop_assert!(now < 900, "still waiting after {now} s");
        }
    }

    #[test]
    fn all_else_being_equal_the_higher_price_goes_first(low in 0u32..2_000_000_000, more in 1u32..2_000_000_000) {
        let mut queue = Queue::new(None);
        queue.enter(Ticket { price: Msat::msat(low), ..ticket(0, 1) });
        queue.enter(Ticket { price: Msat::msat(low + more), ..ticket(1, 2) });
        prop_assert_eq!(queue.start(&rooms(&[1]), at(5)), Some(id(1)));
    }

    #[test]
    fn the_forecast_is_what_happens_when_everything_takes_as_long_as_expected(
        tickets in tickets(), places in 1usize..4, room in 1usize..3
    ) {
        // One job a customer, so that nobody's earlier runs change the order.
        let mut queue = Queue::new(Some(places));
        for name in ["a", "b"] {
            queue.note_run(lane(name), size(1), Duration::from_secs(1));
        }
        for (customer, ticket) in (0u8..).zip(&tickets) {
            queue.enter(Ticket { customer: CustomerId([customer; 32]), ..ticket.clone() });
        }
        let forecast: BTreeMap<JobId, Option<Duration>> =
            tickets.iter().map(|t| (t.job, queue.standing(t.job, &|_| room, at(100)).unwrap().wait)).collect();
        let mut now = 100;
        let mut running: Vec<(u32, JobId)> = Vec::new();
        let mut started = 0;
        while started < tickets.len() {
            while let Some(job) = queue.start(&|_| room, at(now)) {
                let wait = Duration::from_secs(u64::from(now - 100));
                prop_assert_eq!(forecast[&job], Some(wait));
                started += 1;
                let tokens = tickets.iter().find(|ticket| ticket.job == job).unwrap().estimate.max_generated_tokens;
                running.push((now + tokens, job));
            }
            running.sort();
            if started < tickets.len() {
                now = running[0].0;
                while running.first().is_some_and(|(ends, _)| *ends == now) {
                    let (_, job) = running.remove(0);
                    queue.end(job, at(now));
                }
            }
        }
    }
}
