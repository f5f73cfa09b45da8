//! Asking relays for what is stored, and following a job: the customer's side, and inputs that name events.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, FuturesUnordered, Stream, StreamExt};
use jiff::Timestamp;
use nostr::{Alphabet, Event, Filter, Kind, PublicKey, RelayUrl, SingleLetterTag, SubscriptionId};
use nostr_sdk::{SubscribeAutoCloseOptions, SubscribeOptions};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::debug;

use super::asks::{Want, Wants};
use super::link::Link;
use super::pool::{RelayPool, unwant};
use super::router::{Found, Router};
use crate::job::id::{EventId, ProviderId};
use crate::job::{JobId, JobKind};
use crate::nip90::{Answer, Codec, Unreadable};

/// Feedback (NIP-90).
const FEEDBACK_KIND: u16 = 7000;

/// Events of one relay a lookup has room for.
const LOOKUP_ROOM: usize = 1024;

/// Answers that wait for the customer to read them; beyond it the relays wait.
const ANSWER_ROOM: usize = 256;

/// What to look for among stored events. Empty lists don't restrict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// These events.
    pub ids: Vec<EventId>,
    /// Of these kinds.
    pub kinds: Vec<u16>,
    /// By these keys.
    pub authors: Vec<ProviderId>,
    /// With a tag of that letter and one of these values (`('k', ["5050"])`).
    pub tags: Vec<(char, Vec<String>)>,
    /// Not older.
    pub since: Option<Timestamp>,
    /// At most so many a relay.
    pub limit: Option<usize>,
}

impl Query {
    /// The handler ads (NIP-89, kind 31990) for a kind of job, of everybody or of these providers.
    pub fn ads(kind: JobKind, providers: &[ProviderId]) -> Self {
        Self {
            kinds: vec![31990],
            authors: providers.to_vec(),
            tags: vec![('k', vec![kind.request_kind().to_string()])],
            limit: Some(500),
            ..Self::default()
        }
    }

    /// The results of a job.
    pub fn results(job: JobId) -> Self {
        let kinds = JobKind::ALL.map(JobKind::result_kind).to_vec();
        Self { kinds, tags: vec![('e', vec![job.to_string()])], limit: Some(20), ..Self::default() }
    }

    fn filter(&self) -> Filter {
        let mut filter = Filter::new();
        if !self.ids.is_empty() {
            filter = filter.ids(self.ids.iter().map(|id| nostr::EventId::from_byte_array(id.0)));
        }
        if !self.kinds.is_empty() {
            filter = filter.kinds(self.kinds.iter().copied().map(Kind::from_u16));
        }
        if !self.authors.is_empty() {
            filter = filter.authors(self.authors.iter().map(|author| PublicKey::from_byte_array(author.0)));
        }
        for (letter, values) in &self.tags {
            if let Ok(letter) = SingleLetterTag::from_char(*letter) {
                filter = filter.custom_tags(letter, values.iter().cloned());
            }
        }
        filter.since = self.since.map(wire_time);
        filter.limit = self.limit;
        filter
    }
}

/// The answers to a job as they come. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Answers {
    id: SubscriptionId,
    pub(super) events: mpsc::Receiver<Event>,
    codec: Codec,
    wants: watch::Sender<Arc<Wants>>,
    router: Arc<Router>,
}

impl Answers {
    /// The next answer, each once. None when the pool has ended. Whose answers to believe is for the reader to decide:
    /// anybody can sign an event that names the job.
    pub async fn next(&mut self) -> Option<Result<Answer, Unreadable>> {
        let event = self.events.recv().await?;
        Some(self.codec.read_answer(&event))
    }

    /// The next answer to somebody else's request, each once, if it was written for anybody to read.
    pub(super) async fn next_public(&mut self) -> Option<Result<Answer, Unreadable>> {
        let event = self.events.recv().await?;
        Some(self.codec.read_public_answer(&event))
    }

    /// The answers that can be read, as a stream.
    pub fn readable(self) -> impl Stream<Item = Answer> + Send {
        stream::unfold(self, |mut answers| async {
            loop {
                match answers.next().await? {
                    Ok(answer) => return Some((answer, answers)),
                    // Anybody can send us rubbish.
                    Err(problem) => debug!(%problem, "Left an answer alone"),
                }
            }
        })
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        unwant(&self.wants, &self.id);
        self.router.forget(&self.id);
    }
}

impl RelayPool {
    /// Follows a job from `since` on: feedback and results on our relays, of these providers or (none given) of anybody. To be
    /// called before or after the request is published; relays keep the answers.
    pub fn follow(&self, job: JobId, kind: JobKind, from: &[ProviderId], since: Timestamp, codec: Codec) -> Answers {
        let mut filter = Filter::new()
            .kinds([FEEDBACK_KIND, kind.result_kind()].map(Kind::from_u16))
            .custom_tag(SingleLetterTag::lowercase(Alphabet::E), job.to_string())
            .since(wire_time(since));
        if !from.is_empty() {
            filter = filter.authors(from.iter().map(|provider| PublicKey::from_byte_array(provider.0)));
        }
        let id = SubscriptionId::generate();
        let (to, events) = mpsc::channel(ANSWER_ROOM);
        self.router.follow(id.clone(), to);
        self.want(id.clone(), Want { filters: vec![filter], overlap: None });
        Answers { id, events, codec, wants: self.wants(), router: self.router.clone() }
    }

    /// The stored events that match, of all our relays, each once and newest first. Of replaceable events (NIP-01) only the
    /// newest. Returns when every relay has sent all it has, at the latest after `patience`.
    pub async fn fetch(&self, query: &Query, patience: Duration) -> Vec<Event> {
        let deadline = Instant::now() + patience;
        let filter = query.filter();
        let mut lookups: FuturesUnordered<_> =
            self.links.iter().map(|link| self.look_up(link, filter.clone(), usize::MAX, deadline)).collect();
        let mut found = Vec::new();
        while let Some(events) = lookups.next().await {
            found.extend(events);
        }
        newest_of_each(found)
    }

    /// The event with this id, from the hinted relay or ours, whichever has it first; waits at most `patience`.
    pub async fn fetch_event(&self, id: EventId, hint: Option<&str>, patience: Duration) -> Option<Event> {
        let deadline = Instant::now() + patience;
        let filter = Query { ids: vec![id], limit: Some(1), ..Query::default() }.filter();
        let mut links = self.links.clone();
        let hint = hint.and_then(|url| RelayUrl::parse(url).ok());
        if let Some(url) = hint.filter(|url| links.iter().all(|link| link.relay().url() != url)) {
            links.extend(self.guests.link(&url).await);
        }
        let mut lookups: FuturesUnordered<_> =
            links.iter().map(|link| self.look_up(link, filter.clone(), 1, deadline)).collect();
        while let Some(events) = lookups.next().await {
            if let Some(event) = events.into_iter().find(|event| event.id.to_bytes() == id.0) {
                return Some(event);
            }
        }
        None
    }

    /// Asks one relay, which may have to be connected first, until it has sent all or `enough` events or the deadline passed.
    async fn look_up(&self, link: &Link, filter: Filter, enough: usize, deadline: Instant) -> Vec<Event> {
        let mut found = Vec::new();
        let mut connected = link.connected();
        let lookup = async {
            // Fails when the link ends; then there is nothing to find.
            if connected.wait_for(|connected| *connected).await.is_err() {
                return;
            }
            let id = SubscriptionId::generate();
            let (to, mut events) = mpsc::channel(LOOKUP_ROOM);
            self.router.look_up(id.clone(), to);
            let _end = Forget { router: &self.router, id: &id };
            let left = deadline.saturating_duration_since(Instant::now());
            // Closed by the library at the end of stored events, or after that time.
            let close = SubscribeAutoCloseOptions::default().timeout(Some(left));
            let options = SubscribeOptions::default().close_on(Some(close));
            if link.relay().subscribe_with_id(id.clone(), filter, options).await.is_err() {
                return;
            }
            while found.len() < enough
                && let Some(Found::Event(event)) = events.recv().await
            {
                found.push(*event);
            }
        };
        let _ = tokio::time::timeout_at(deadline, lookup).await;
        found
    }
}

struct Forget<'a> {
    router: &'a Router,
    id: &'a SubscriptionId,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.router.forget(self.id);
    }
}

fn wire_time(at: Timestamp) -> nostr::Timestamp {
    nostr::Timestamp::from_secs(u64::try_from(at.as_second()).unwrap_or(0))
}

/// Newest first, each id once, of replaceable and addressable events (NIP-01) only the newest.
fn newest_of_each(mut events: Vec<Event>) -> Vec<Event> {
    events.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
    let mut ids = HashSet::new();
    let mut addresses: HashMap<(PublicKey, Kind), HashSet<String>> = HashMap::new();
    events.retain(|event| {
        let address = match event.kind {
            kind if kind.is_addressable() => event.tags.identifier().unwrap_or_default(),
            kind if kind.is_replaceable() => "",
            _ => return ids.insert(event.id),
        };
        addresses.entry((event.pubkey, event.kind)).or_default().insert(address.to_owned())
    });
    events
}

#[cfg(test)]
mod tests {
    use nostr::{EventBuilder, Keys, Tag};

    use super::*;

    #[test]
    fn of_an_ad_published_again_only_the_newest_is_found() {
        let keys = Keys::generate();
        let ad = |d: &str, at: u64| {
            let builder = EventBuilder::new(Kind::from_u16(31990), at.to_string()).tag(Tag::identifier(d));
            builder.custom_created_at(nostr::Timestamp::from_secs(at)).sign_with_keys(&keys).unwrap()
        };
        let (old, new, other) = (ad("coinop-5050", 1), ad("coinop-5050", 3), ad("coinop-5932", 2));
        assert_eq!(newest_of_each(vec![old, other.clone(), new.clone(), new.clone()]), vec![new, other]);
    }
}
