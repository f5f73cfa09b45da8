//! Events on their way to one relay: sent, and waiting for its `OK` (NIP-01, NIP-20).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use nostr::message::MachineReadablePrefix;
use nostr::{Event, EventId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::RelayVerdict;

/// Characters kept of a relay's words.
const MAX_WORDS: usize = 200;

/// Events one relay owes an answer for. Each leaves by an answer or by its deadline, whether anybody still waits or not:
/// whoever published may have been content with other relays' answers, but this relay is to get the event all the same.
#[derive(Debug)]
pub(super) struct Outgoing {
    patience: Duration,
    /// When somebody last gave us an event.
    pub(super) last_used: Instant,
    pending: HashMap<EventId, Pending>,
    unsent: VecDeque<EventId>,
    /// In order, because every event is given the same time.
    deadlines: VecDeque<(Instant, EventId)>,
    closed: bool,
}

#[derive(Debug)]
struct Pending {
    event: Arc<Event>,
    deadline: Instant,
    waiting: Vec<oneshot::Sender<RelayVerdict>>,
    /// Whether the relay wants to know first who we are (NIP-42).
    wants_login: bool,
}

impl Outgoing {
    /// Nothing on its way yet; each event will be given `patience`.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            last_used: Instant::now(),
            pending: HashMap::new(),
            unsent: VecDeque::new(),
            deadlines: VecDeque::new(),
            closed: false,
        }
    }

    /// Takes an event, unless closed. The receiver hears the verdict; that it is dropped without one means silence.
    pub(super) fn submit(&mut self, event: &Arc<Event>) -> Option<oneshot::Receiver<RelayVerdict>> {
        if self.closed {
            return None;
        }
        let (waiting, verdict) = oneshot::channel();
        self.last_used = Instant::now();
        if let Some(pending) = self.pending.get_mut(&event.id) {
            pending.waiting.push(waiting);
            return Some(verdict);
        }
        let deadline = self.last_used + self.patience;
        let pending = Pending { event: event.clone(), deadline, waiting: vec![waiting], wants_login: false };
        self.pending.insert(event.id, pending);
        self.unsent.push_back(event.id);
        self.deadlines.push_back((deadline, event.id));
        Some(verdict)
    }

    /// The next events to send, at most `count`.
    pub(super) fn next_batch(&mut self, count: usize) -> Vec<Arc<Event>> {
        let mut batch = Vec::new();
        while batch.len() < count
            && let Some(id) = self.unsent.pop_front()
        {
            // It may have run out of time before its turn.
            batch.extend(self.pending.get(&id).map(|pending| pending.event.clone()));
        }
        batch
    }

    /// Whether there is something to send.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends everything unanswered again: the connection is a new one, or answers may have been missed. Sending twice is
    /// harmless, the relay knows the event by its id.
    pub(super) fn send_all_again(&mut self) {
        self.unsent = self.pending.keys().copied().collect();
    }

    /// Reads an `OK` message.
    pub(super) fn settle(&mut self, id: &EventId, taken: bool, words: &str) {
        let verdict = match MachineReadablePrefix::parse(words) {
            _ if taken => RelayVerdict::Accepted,
            Some(MachineReadablePrefix::Duplicate) => RelayVerdict::Accepted,
            Some(MachineReadablePrefix::AuthRequired) => {
                if let Some(pending) = self.pending.get_mut(id) {
                    pending.wants_login = true;
                }
                return;
            }
            _ => RelayVerdict::Refused(plain(words)),
        };
        if let Some(pending) = self.pending.remove(id) {
            tell(pending, &verdict);
        }
    }

    /// The relay knows us now: what waited for that is sent again.
    pub(super) fn logged_in(&mut self) {
        for (id, pending) in &mut self.pending {
            if std::mem::take(&mut pending.wants_login) {
                self.unsent.push_back(*id);
            }
        }
    }

    /// The relay will not know us.
    pub(super) fn login_failed(&mut self) {
        let verdict = RelayVerdict::Refused("auth-required: our login was not accepted".to_owned());
        for (_, pending) in self.pending.extract_if(|_, pending| pending.wants_login) {
            tell(pending, &verdict);
        }
    }

    /// Gives up on events whose time is over at `now`.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((deadline, id)) = self.deadlines.front().copied()
            && deadline <= now
        {
            self.deadlines.pop_front();
            // The same event may have been answered and submitted anew since.
            if self.pending.get(&id).is_some_and(|pending| pending.deadline <= now) {
                self.pending.remove(&id);
            }
        }
    }

    /// When there will be something to give up on.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// Whether the relay owes no answer.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes nothing any more; what is on its way counts as unanswered.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.pending.clear();
        self.unsent.clear();
        self.deadlines.clear();
    }

    /// Whether it takes nothing any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

fn tell(pending: Pending, verdict: &RelayVerdict) {
    for waiting in pending.waiting {
        // Whoever asked may be content already.
        let _ = waiting.send(verdict.clone());
    }
}

/// A relay's words, fit for a log line.
fn plain(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use nostr::{EventBuilder, Keys};

    use super::*;

    fn event(text: &str) -> Arc<Event> {
        Arc::new(EventBuilder::text_note(text).sign_with_keys(&Keys::generate()).unwrap())
    }

    #[test]
    fn a_duplicate_counts_as_accepted() {
        let mut outgoing = Outgoing::new(Duration::from_secs(1));
        let event = event("a");
        let mut verdict = outgoing.submit(&event).unwrap();
        outgoing.settle(&event.id, false, "duplicate: already have this event");
        assert_eq!(verdict.try_recv(), Ok(RelayVerdict::Accepted));
        assert!(outgoing.is_settled());
    }

    #[test]
    fn a_refusal_carries_the_relays_words_without_control_characters() {
        let mut outgoing = Outgoing::new(Duration::from_secs(1));
        let event = event("a");
        let mut verdict = outgoing.submit(&event).unwrap();
        outgoing.settle(&event.id, false, "blocked: no\u{1b}[31m\nthanks");
        assert_eq!(verdict.try_recv(), Ok(RelayVerdict::Refused("blocked: no[31mthanks".to_owned())));
    }

    #[test]
    fn an_event_that_needs_a_login_is_sent_again_after_it() {
        let mut outgoing = Outgoing::new(Duration::from_secs(1));
        let event = event("a");
        let mut verdict = outgoing.submit(&event).unwrap();
        assert_eq!(outgoing.next_batch(8).len(), 1);
        outgoing.settle(&event.id, false, "auth-required: who are you");
        assert!(verdict.try_recv().is_err());
        assert!(!outgoing.has_unsent());
        outgoing.logged_in();
        assert_eq!(outgoing.next_batch(8), vec![event.clone()]);
        outgoing.settle(&event.id, true, "");
        assert_eq!(verdict.try_recv(), Ok(RelayVerdict::Accepted));
    }

    #[test]
    fn a_failed_login_refuses_what_waited_for_it() {
        let mut outgoing = Outgoing::new(Duration::from_secs(1));
        let (locked, open) = (event("a"), event("b"));
        let (mut refused, mut waiting) = (outgoing.submit(&locked).unwrap(), outgoing.submit(&open).unwrap());
        outgoing.settle(&locked.id, false, "auth-required: who are you");
        outgoing.login_failed();
        assert!(matches!(refused.try_recv(), Ok(RelayVerdict::Refused(_))));
        assert_eq!(waiting.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    }

    #[test]
    fn an_event_published_twice_at_once_is_sent_once_and_answers_both() {
        let mut outgoing = Outgoing::new(Duration::from_secs(1));
        let event = event("a");
        let (mut first, mut second) = (outgoing.submit(&event).unwrap(), outgoing.submit(&event).unwrap());
        assert_eq!(outgoing.next_batch(8).len(), 1);
        outgoing.settle(&event.id, true, "");
        assert_eq!(first.try_recv(), Ok(RelayVerdict::Accepted));
        assert_eq!(second.try_recv(), Ok(RelayVerdict::Accepted));
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let mut outgoing = Outgoing::new(Duration::from_secs(1));
        let mut verdict = outgoing.submit(&event("a")).unwrap();
        let deadline = outgoing.next_deadline().unwrap();
        outgoing.expire(deadline - Duration::from_millis(1));
        assert_eq!(verdict.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        outgoing.expire(deadline);
        assert_eq!(verdict.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(outgoing.is_settled());
        assert!(outgoing.next_batch(8).is_empty());
    }

    #[test]
    fn a_new_connection_gets_everything_unanswered_again() {
        let mut outgoing = Outgoing::new(Duration::from_secs(1));
        let (answered, lost) = (event("a"), event("b"));
        let _verdicts = (outgoing.submit(&answered).unwrap(), outgoing.submit(&lost).unwrap());
        outgoing.next_batch(8);
        outgoing.settle(&answered.id, true, "");
        outgoing.send_all_again();
        assert_eq!(outgoing.next_batch(8), vec![lost]);
    }
}
