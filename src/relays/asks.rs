//! What one relay is asked for (`REQ`), and how far it has got: so that a subscription that was refused, forgotten or lost on
//! the way is asked for again.

use std::collections::HashMap;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use nostr::{Filter, SubscriptionId, Timestamp};
use tokio::time::Instant;

/// How long a relay may take to send what it has stored (`EOSE`) before it is asked again.
const STORED_PATIENCE: Duration = Duration::from_secs(30);

/// The longest pause before a subscription that the relay closed is asked for again.
const MAX_PAUSE: Duration = Duration::from_secs(5 * 60);

/// How often a rolling subscription is asked for anew, with a later `since`. Bounds what a relay sends again after a
/// reconnect, and heals a subscription that a relay silently forgot.
const REFRESH: Duration = Duration::from_secs(10 * 60);

/// A subscription every relay of ours is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Want {
    /// What is wanted: any of these.
    pub(super) filters: Vec<Filter>,
    /// For subscriptions without end, whose `since` moves on: how much of the past is asked for again, to cover events that
    /// were under way.
    pub(super) overlap: Option<Duration>,
}

/// All of them.
pub(super) type Wants = HashMap<SubscriptionId, Want>;

/// One subscription at one relay.
#[derive(Debug)]
pub(super) struct Ask {
    want: Want,
    /// When it was last asked for, in the whole seconds the library compares.
    asked_at: Timestamp,
    /// Whether the library knows of it, and so asks for it when it connects.
    known: bool,
    state: State,
    pauses: Option<ExponentialBackoff>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Asked; stored events come until then.
    Waiting(Instant),
    /// All stored events have come, new ones come as they happen. Refreshed then, if rolling.
    Live(Instant),
    /// To be asked for at that time.
    Pausing(Instant),
}

impl Ask {
    /// A subscription to be asked for now.
    pub(super) fn new(want: Want) -> Self {
        Self { want, asked_at: Timestamp::zero(), known: false, state: State::Pausing(Instant::now()), pauses: None }
    }

    /// A subscription the library asks for by itself when it connects.
    pub(super) fn registered(want: Want) -> Self {
        let state = State::Waiting(Instant::now() + STORED_PATIENCE);
        Self { want, asked_at: Timestamp::zero(), known: true, state, pauses: None }
    }

    /// The connection is a new one. The library asks again by itself, except for what was asked in the second in which it
    /// connected, which it takes for asked already, and of what was wanted while there was no connection to ask over.
    pub(super) fn connected(&mut self, connected_at: Timestamp) {
        let now = Instant::now();
        let asked = self.known && self.asked_at < connected_at;
        self.state = if asked { State::Waiting(now + STORED_PATIENCE) } else { State::Pausing(now) };
    }

    /// The relay has sent what it has stored. Means nothing once the relay has closed the subscription: it may have been on
    /// the way for an earlier asking, and the library has forgotten the subscription.
    pub(super) fn stored_events_came(&mut self) {
        if matches!(self.state, State::Pausing(_)) {
            return;
        }
        self.state = State::Live(Instant::now() + REFRESH);
        self.pauses = None;
    }

    /// The relay closed it. Returns the pause before the next try.
    pub(super) fn closed(&mut self, base: Duration) -> Duration {
        let pauses = self.pauses.get_or_insert_with(|| {
            let builder = ExponentialBuilder::new().with_min_delay(base).with_max_delay(MAX_PAUSE);
            builder.with_jitter().without_max_times().build()
        });
        let pause = pauses.next().unwrap_or(MAX_PAUSE);
        self.state = State::Pausing(Instant::now() + pause);
        pause
    }

    /// When there is something to do for it.
    pub(super) fn due_at(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) | State::Pausing(at) => Some(at),
            State::Live(at) => self.want.overlap.map(|_| at),
        }
    }

    /// The filters to ask for now, if it is time. The `since` of a rolling subscription moves on only from the live state:
    /// then everything stored has come, and what is still under way is younger than the overlap.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Vec<Filter>> {
        if self.due_at().is_none_or(|at| at > now) {
            return None;
        }
        let wall = Timestamp::now();
        if let (State::Live(_), Some(overlap)) = (self.state, self.want.overlap) {
            let since = Timestamp::from_secs(wall.as_secs().saturating_sub(overlap.as_secs()));
            for filter in &mut self.want.filters {
                filter.since = filter.since.max(Some(since));
            }
        }
        self.asked_at = wall;
        self.known = true;
        self.state = State::Waiting(now + STORED_PATIENCE);
        Some(self.want.filters.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rolling(since: u64) -> Ask {
        let filters = vec![Filter::new().since(Timestamp::from_secs(since))];
        Ask::new(Want { filters, overlap: Some(Duration::from_secs(600)) })
    }

    #[test]
    fn a_new_subscription_is_asked_for_once() {
        let mut ask = rolling(5);
        let now = Instant::now();
        assert_eq!(ask.take_due(now).unwrap()[0].since, Some(Timestamp::from_secs(5)));
        assert_eq!(ask.take_due(now), None);
    }

    #[test]
    fn the_cursor_moves_only_after_all_stored_events_came() {
        let mut ask = rolling(5);
        let now = Instant::now();
        ask.take_due(now);
        // The relay stays silent: asked again from the same time.
        assert_eq!(ask.take_due(now + STORED_PATIENCE).unwrap()[0].since, Some(Timestamp::from_secs(5)));
        ask.stored_events_came();
        let since = ask.take_due(Instant::now() + REFRESH).unwrap()[0].since.unwrap();
        assert!(since > Timestamp::from_secs(5));
        assert!(since.as_secs() + 600 <= Timestamp::now().as_secs());
    }

    #[test]
    fn a_subscription_that_ends_with_its_job_is_not_refreshed() {
        let mut ask = Ask::new(Want { filters: vec![Filter::new()], overlap: None });
        ask.take_due(Instant::now());
        ask.stored_events_came();
        assert_eq!(ask.due_at(), None);
    }

    #[test]
    fn pauses_grow_while_the_relay_keeps_closing() {
        let base = Duration::from_secs(1);
        let mut ask = rolling(5);
        let pauses: Vec<Duration> = (0..12).map(|_| ask.closed(base)).collect();
        assert!(pauses[0] >= base && pauses[0] <= base * 2, "{pauses:?}");
        assert!(pauses[11] >= MAX_PAUSE, "{pauses:?}");
        ask.take_due(Instant::now() + MAX_PAUSE * 2);
        ask.stored_events_came();
        assert!(ask.closed(base) <= base * 2);
    }

    #[test]
    fn a_late_end_of_stored_events_does_not_revive_a_closed_subscription() {
        let mut ask = rolling(5);
        ask.take_due(Instant::now());
        let pause = ask.closed(Duration::from_secs(1));
        ask.stored_events_came();
        assert!(ask.take_due(Instant::now() + pause).is_some());
    }

    #[test]
    fn what_was_wanted_before_there_was_a_connection_is_asked_for_as_soon_as_there_is_one() {
        let mut ask = rolling(5);
        ask.connected(Timestamp::now());
        assert!(ask.take_due(Instant::now()).is_some());
    }

    #[test]
    fn what_was_asked_in_the_second_of_the_reconnect_is_asked_again() {
        let mut ask = rolling(5);
        ask.take_due(Instant::now());
        let second = ask.asked_at;
        ask.connected(second + Duration::from_secs(1));
        assert_eq!(ask.take_due(Instant::now()), None);
        ask.connected(second);
        assert!(ask.take_due(Instant::now()).is_some());
    }
}
