//! How fast a lane works, learned from its runs.

use std::time::Duration;

use crate::job::Estimate;

/// How much the newest run counts: about the last ten matter.
const NEWEST: f64 = 0.2;

/// Seconds of a run for each token it was budgeted, an exponentially weighted average. Answers are mostly shorter than their
/// budget; how much shorter is in the average too.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Pace(Option<f64>);

impl Pace {
    /// A run of this size took so long.
    pub(super) fn note(&mut self, estimate: Estimate, took: Duration) {
        let one = took.as_secs_f64() / budget(estimate);
        self.0 = Some(self.0.map_or(one, |average| average + NEWEST * (one - average)));
    }

    /// How long a run of this size is expected to take; unknown before the first run.
    pub(super) fn expected(self, estimate: Estimate) -> Option<Duration> {
        // Out of all bounds is unknown, too.
        Duration::try_from_secs_f64(self.0? * budget(estimate)).ok()
    }
}

/// Tokens read and written at most, and seconds in a sandbox; a job without any counts as one. A lane's jobs are of one kind,
/// so that its own sum is compared with its own sum.
fn budget(estimate: Estimate) -> f64 {
    estimate.most().total().max(1) as f64 + estimate.compute.wall.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(tokens: u32) -> Estimate {
        Estimate::tokens(tokens / 2, tokens - tokens / 2)
    }

    #[test]
    fn nothing_is_expected_before_the_first_run_and_its_pace_after_it() {
        let mut pace = Pace::default();
        assert_eq!(pace.expected(size(100)), None);
        pace.note(size(100), Duration::from_secs(10));
        assert_eq!(pace.expected(size(100)), Some(Duration::from_secs(10)));
        assert_eq!(pace.expected(size(300)), Some(Duration::from_secs(30)));
    }

    #[test]
    fn one_slow_run_does_not_make_a_slow_lane_and_many_do() {
        let mut pace = Pace::default();
        pace.note(size(100), Duration::from_secs(10));
        pace.note(size(100), Duration::from_secs(60));
        assert_eq!(pace.expected(size(100)), Some(Duration::from_secs(20)));
        (0..40).for_each(|_| pace.note(size(100), Duration::from_secs(60)));
        assert!(pace.expected(size(100)) > Some(Duration::from_secs(59)));
    }
}
