//! Which endpoint a job goes to. Pure.

use std::cmp::Ordering;
use std::time::Instant;

use super::breaker::Standing;

/// An endpoint as a job sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// What may be sent there.
    pub standing: Standing,
    /// Jobs under way there.
    pub in_use: usize,
    /// How many can be.
    pub room: usize,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Go to the candidate at this place of the list.
    Take(usize),
    /// Wait for a slot.
    Wait,
    /// Nothing is up; from that moment on, if there is one, an endpoint may be tried.
    Down {
        /// When the first pause ends.
        until: Option<Instant>,
    },
}

/// Chooses among candidates in the configured order: of the trusted ones with a free slot the least loaded; with the same
/// load the one with the fewest jobs, then the first. When none of those is free, one that may be tried.
pub fn choose(candidates: &[Candidate]) -> Choice {
    let free = |candidate: &Candidate| candidate.in_use < candidate.room;
    let with =
        |standing: Standing| candidates.iter().enumerate().filter(move |(_, candidate)| candidate.standing == standing);
    let least = with(Standing::Closed).filter(|(_, candidate)| free(candidate)).min_by(|(_, a), (_, b)| less(a, b));
    if let Some((place, _)) = least.or_else(|| with(Standing::HalfOpen).find(|(_, candidate)| free(candidate))) {
        return Choice::Take(place);
    }
    if with(Standing::Closed).next().is_some() {
        return Choice::Wait;
    }
    let pauses = candidates.iter().filter_map(|candidate| match candidate.standing {
        Standing::Open { until } => until,
        Standing::Closed | Standing::HalfOpen => None,
    });
    Choice::Down { until: pauses.min() }
}

/// Compares loads without dividing: 1 of 2 is as much as 2 of 4.
fn less(a: &Candidate, b: &Candidate) -> Ordering {
    let across = |used: usize, room: usize| used as u128 * room as u128;
    across(a.in_use, b.room).cmp(&across(b.in_use, a.room)).then(a.in_use.cmp(&b.in_use))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn up(in_use: usize, room: usize) -> Candidate {
        Candidate { standing: Standing::Closed, in_use, room }
    }

    #[test]
    fn the_least_loaded_is_taken_and_the_first_of_equals() {
        assert_eq!(choose(&[up(1, 2), up(1, 4), up(3, 4)]), Choice::Take(1));
        assert_eq!(choose(&[up(2, 4), up(1, 2)]), Choice::Take(1), "the same load, fewer jobs");
        assert_eq!(choose(&[up(0, 1), up(0, 100)]), Choice::Take(0));
        assert_eq!(choose(&[up(0, usize::MAX), up(1, usize::MAX)]), Choice::Take(0));
    }

    #[test]
    fn full_ones_are_waited_for_and_open_ones_until_they_may_be_tried() {
        let (soon, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let open = |until| Candidate { standing: Standing::Open { until }, in_use: 0, room: 1 };
        assert_eq!(choose(&[up(1, 1), open(Some(soon))]), Choice::Wait);
        assert_eq!(choose(&[open(Some(later)), open(Some(soon)), open(None)]), Choice::Down { until: Some(soon) });
        assert_eq!(choose(&[open(None)]), Choice::Down { until: None });
        assert_eq!(choose(&[]), Choice::Down { until: None });
    }

    #[test]
    fn one_that_may_be_tried_is_tried_when_no_trusted_one_is_free() {
        let trial = Candidate { standing: Standing::HalfOpen, in_use: 0, room: 4 };
        assert_eq!(choose(&[trial, up(3, 4)]), Choice::Take(1));
        assert_eq!(choose(&[trial, up(4, 4)]), Choice::Take(0));
    }

    fn any_candidate() -> impl Strategy<Value = Candidate> {
        let now = Instant::now();
        let standing = prop_oneof![
            Just(Standing::Closed),
            Just(Standing::HalfOpen),
            Just(Standing::Open { until: None }),
            Just(Standing::Open { until: Some(now) }),
        ];
        (standing, 0..5_usize, 1..5_usize).prop_map(|(standing, in_use, room)| Candidate { standing, in_use, room })
    }

    proptest! {
        #[test]
        fn no_open_or_full_endpoint_is_ever_chosen_and_no_free_one_left_out(
            candidates in proptest::collection::vec(any_candidate(), 0..6)
        ) {
            let may = |candidate: &Candidate| {
                matches!(candidate.standing, Standing::Closed | Standing::HalfOpen) && candidate.in_use < candidate.room
            };
            match choose(&candidates) {
                Choice::Take(place) => {
                    let taken = &candidates[place];
                    prop_assert!(may(taken));
                    let trusted = candidates.iter().filter(|other| other.standing == Standing::Closed && may(other));
                    for other in trusted {
                        prop_assert_eq!(taken.standing, Standing::Closed);
                        prop_assert!(taken.in_use * other.room <= other.in_use * taken.room);
                    }
                }
                Choice::Wait => prop_assert!(!candidates.iter().any(may)),
                Choice::Down { .. } => {
                    prop_assert!(!candidates.iter().any(may));
                    prop_assert!(candidates.iter().all(|candidate| candidate.standing != Standing::Closed));
                }
            }
        }
    }
}
