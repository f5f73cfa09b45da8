//! Whether an endpoint is trusted with jobs. Pure: the time is a parameter.
//!
//! ```text
//!            several failures in a row, or one that says it is broken
//!   Closed ───────────────────────────────────────────────▶ Open
//!     ▲                                                      │ after a pause
//!     │ a job done there, or a health check answered         ▼
//!     └─────────────────────────────────────────────────── half-open: one job may try
//!                                                            │ it fails
//!                                                            └──▶ Open, for another pause
//! ```

use std::time::{Duration, Instant};

/// When an endpoint is given up, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerOptions {
    /// Failures in a row that open it. At least 1.
    pub failures: u32,
    /// How long no job is sent there.
    pub pause: Duration,
}

impl Default for BreakerOptions {
    /// Three failures; five seconds.
    fn default() -> Self {
        Self { failures: 3, pause: Duration::from_secs(5) }
    }
}

/// What may be sent to an endpoint now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Jobs.
    Closed,
    /// One job, to see.
    HalfOpen,
    /// Nothing, before that moment.
    Open {
        /// The end of the pause; `None` while the one job that tries is under way.
        until: Option<Instant>,
    },
}

impl Standing {
    /// The word in reports.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Closed => "up",
            Self::HalfOpen | Self::Open { until: None } => "half-open",
            Self::Open { until: Some(_) } => "open",
        }
    }
}

/// What a job or a question taught about an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// Nothing: it was cancelled, or the endpoint had its hands full.
    #[default]
    None,
    /// It did a job.
    Worked,
    /// It answers; whether it can do a job is not known.
    Answered,
    /// It failed at a job.
    Failed,
    /// It does not answer, or says that it can't be used.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Trying { since: Instant },
}

/// The breaker of one endpoint.
#[derive(Debug, Clone)]
pub struct Breaker {
    options: BreakerOptions,
    state: State,
}

impl Breaker {
    /// A closed one: nothing bad is known.
    pub fn new(options: BreakerOptions) -> Self {
        Self { options, state: State::Closed { failures: 0 } }
    }

    /// What may be sent there now.
    pub fn standing(&self, now: Instant) -> Standing {
        match self.state {
            State::Closed { .. } => Standing::Closed,
            State::Open { until } if now >= until => Standing::HalfOpen,
            State::Open { until } => Standing::Open { until: Some(until) },
            State::Trying { .. } => Standing::Open { until: None },
        }
    }

    /// A job is sent there. Of a half-open one this is the one job that tries.
    pub fn begin(&mut self, now: Instant) {
        if self.standing(now) == Standing::HalfOpen {
            self.state = State::Trying { since: now };
        }
    }

    /// Something was learnt. A job that was sent there before may teach it late; that does not make a pause longer.
    pub fn learn(&mut self, verdict: Verdict, now: Instant) {
        let open = State::Open { until: now + self.options.pause };
        self.state = match (verdict, self.state) {
            (Verdict::Worked, _) => State::Closed { failures: 0 },
            // It answers and yet failed: the next failure opens it again at once.
            (Verdict::Answered, State::Open { .. } | State::Trying { .. }) => {
                State::Closed { failures: self.options.failures.saturating_sub(1) }
            }
            (Verdict::Failed, State::Closed { failures }) if failures + 1 < self.options.failures => {
                State::Closed { failures: failures + 1 }
            }
            (Verdict::Failed, State::Closed { .. } | State::Trying { .. }) => open,
            (Verdict::Broken, _) => open,
            // The next job may try.
            (Verdict::None, State::Trying { since }) => State::Open { until: since },
            (Verdict::None | Verdict::Answered | Verdict::Failed, state) => state,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    fn breaker() -> (Breaker, Instant) {
        (Breaker::new(BreakerOptions { failures: 3, pause: PAUSE }), Instant::now())
    }

    fn opened() -> (Breaker, Instant) {
        let (mut breaker, now) = breaker();
        breaker.learn(Verdict::Broken, now);
        (breaker, now)
    }

    #[test]
    fn several_failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let (mut breaker, now) = breaker();
        for verdict in [Verdict::Failed, Verdict::Failed, Verdict::Worked, Verdict::Failed, Verdict::Failed] {
            breaker.learn(verdict, now);
            assert_eq!(breaker.standing(now), Standing::Closed);
        }
        breaker.learn(Verdict::Failed, now);
        assert_eq!(breaker.standing(now), Standing::Open { until: Some(now + PAUSE) });
    }

    #[test]
    fn one_that_says_it_is_broken_is_believed_at_once() {
        let (breaker, now) = opened();
        assert_eq!(breaker.standing(now), Standing::Open { until: Some(now + PAUSE) });
        assert_eq!(breaker.standing(now + PAUSE), Standing::HalfOpen);
    }

    #[test]
    fn after_the_pause_one_job_tries_and_its_success_closes_it() {
        let (mut breaker, now) = opened();
        let later = now + PAUSE;
        breaker.begin(later);
        assert_eq!(breaker.standing(later + PAUSE), Standing::Open { until: None }, "one job at a time");
        breaker.learn(Verdict::Worked, later);
        assert_eq!(breaker.standing(later), Standing::Closed);
    }

    #[test]
    fn a_try_that_fails_opens_it_for_another_pause() {
        let (mut breaker, now) = opened();
        let later = now + PAUSE;
        breaker.begin(later);
        breaker.learn(Verdict::Failed, later);
        assert_eq!(breaker.standing(later), Standing::Open { until: Some(later + PAUSE) });
    }

    #[test]
    fn a_try_that_was_cancelled_leaves_the_next_job_to_try() {
        let (mut breaker, now) = opened();
        breaker.begin(now + PAUSE);
        breaker.learn(Verdict::None, now + PAUSE);
        assert_eq!(breaker.standing(now + PAUSE), Standing::HalfOpen);
    }

    #[test]
    fn an_answered_check_closes_it_but_the_next_failure_opens_it_again() {
        let (mut breaker, now) = opened();
        breaker.learn(Verdict::Answered, now);
        assert_eq!(breaker.standing(now), Standing::Closed);
        breaker.learn(Verdict::Failed, now);
        assert!(matches!(breaker.standing(now), Standing::Open { .. }));
        breaker.learn(Verdict::Worked, now);
        breaker.learn(Verdict::Answered, now);
        breaker.learn(Verdict::Failed, now);
        assert_eq!(breaker.standing(now), Standing::Closed, "an answered check of a closed one changes nothing");
    }

    #[test]
    fn a_late_failure_makes_no_pause_longer() {
        let (mut breaker, now) = opened();
        breaker.learn(Verdict::Failed, now + PAUSE / 2);
        assert_eq!(breaker.standing(now + PAUSE), Standing::HalfOpen);
    }

    #[test]
    fn a_job_sent_to_a_closed_one_is_no_try() {
        let (mut breaker, now) = breaker();
        breaker.begin(now);
        breaker.learn(Verdict::None, now);
        assert_eq!(breaker.standing(now), Standing::Closed);
    }
}
