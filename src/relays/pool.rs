//! The operator's relays together: requests in, answers out.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use nostr::{Alphabet, Event, Filter, JsonUtil, Kind, RelayUrl, SingleLetterTag, SubscriptionId, Url};
use nostr_sdk::pool::RelayLimits;
use nostr_sdk::pool::relay::limits::{RelayEventLimits, RelayMessageLimits};
use nostr_sdk::prelude::{MemoryDatabase, MemoryDatabaseOptions};
use nostr_sdk::{Client, ClientOptions, RelayOptions, RelayPoolOptions};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::admission::{Admission, AdmissionCounts, IntakeLimits};
use super::asks::{Want, Wants};
use super::guests::{GuestRules, Guests};
use super::inbox::InboxSender;
use super::link::Link;
use super::router::{Gate, Router, brings_zaps, intake_id};
use super::transport::{Meeting, Transport};
use super::{PublishReport, Publisher, RelayError, RelayVerdict};
use crate::identity::Signer;
use crate::job::JobKind;
use crate::nip90::SignedEvent;

/// Pings between providers and clients (draft), answered when addressed to us.
const PING_KIND: u16 = 7007;

/// Below this pause between attempts to reconnect (tests) the library's growth and jitter of seconds would be out of place.
const SHORTEST_JITTERED_PAUSE: Duration = Duration::from_secs(1);

/// Messages of a relay (not events) kept until its loop hears them. What is missed in a storm is only sent again.
const MESSAGES_KEPT: usize = 1024;

/// Slots of the library's own channel for all messages, which nobody listens to.
const UNHEARD_MESSAGES_KEPT: usize = 1;

/// Relays one answer goes to besides ours.
const MAX_ALSO: usize = 8;

/// What the pool is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// The operator's relays (`wss://…`, or `ws://` anywhere the operator likes). Requests come from these.
    pub relays: Vec<String>,
    /// How many of them must accept an event for it to count as published. At most as many as there are.
    pub quorum: usize,
    /// How long a relay may take to answer a published event.
    pub publish_timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// The first pause before reconnecting; grows with failures up to a minute, give or take three seconds.
    pub retry_interval: Duration,
    /// How far back requests are asked for again after a reconnect, beyond what is known to have come. Must cover the clock
    /// differences of authors and what was under way.
    pub overlap: Duration,
    /// Time to deliver an event to a customer's relay, connecting included.
    pub customer_relay_timeout: Duration,
    /// Customers' relays connected at once.
    pub max_customer_relays: NonZeroUsize,
    /// How long a customer's relay stays connected after its last use.
    pub customer_relay_idle: Duration,
    /// Whether customers' relays may be on loopback or private addresses (tests, own networks).
    pub allow_private: bool,
    /// Bounds on what comes in.
    pub limits: IntakeLimits,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            relays: Vec::new(),
            quorum: 1,
            publish_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            retry_interval: Duration::from_secs(3),
            overlap: Duration::from_secs(10 * 60),
            customer_relay_timeout: Duration::from_secs(5),
            max_customer_relays: NonZeroUsize::new(32).expect("is not zero"),
            customer_relay_idle: Duration::from_secs(60),
            allow_private: false,
            limits: IntakeLimits::default(),
        }
    }
}

/// What a provider takes in.
#[derive(Debug)]
pub struct Intake {
    /// The kinds of job requests; cancellations and pings to us come with them.
    pub kinds: Vec<JobKind>,
    /// From when on (`created_at`): the cursor kept over restarts, less an overlap.
    pub since: Timestamp,
    /// Where it goes. While it is full the relays wait.
    pub inbox: InboxSender,
}

/// One of our relays, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayHealth {
    /// Its address.
    pub url: String,
    /// Whether there is a connection.
    pub connected: bool,
    /// Why there was none at the last attempt.
    pub problem: Option<String>,
}

/// A long-lived pool of websockets to the operator's relays, and for a while to customers'. Owns its tasks: call
/// [`RelayPool::shutdown`] to end them in order; dropping the pool ends them at once.
#[derive(Debug)]
pub struct RelayPool {
    pub(super) links: Vec<Arc<Link>>,
    pub(super) guests: Arc<Guests>,
    pub(super) router: Arc<Router>,
    pub(super) transport: Arc<Transport>,
    wants: watch::Sender<Arc<Wants>>,
    client: Client,
    quorum: usize,
    publish_timeout: Duration,
    tasks: TaskTracker,
    cancel: CancellationToken,
    _end: DropGuard,
}

impl RelayPool {
    /// Starts connecting to the relays as `signer` (NIP-42), and asking for requests if there is an `intake`. Does not wait for
    /// connections: see [`RelayPool::connected`].
    pub async fn connect(config: PoolConfig, signer: &Signer, intake: Option<Intake>) -> Result<Self, RelayError> {
        let urls = parse_relays(&config.relays)?;
        if config.quorum > urls.len() {
            return Err(RelayError::Quorum { quorum: config.quorum, relays: urls.len() });
        }
        let limits = library_limits(&config.limits);
        let inbox = intake.as_ref().map(|intake| intake.inbox.sender());
        let router = Arc::new(Router::new(Admission::new(&config.limits, Timestamp::now()), inbox));
        let transport = Arc::new(Transport::new(
            urls.iter().map(|url| <&Url>::from(url).to_string()),
            config.allow_private,
            config.connect_timeout,
        ));
        // Nothing gets as far as the library's database.
        let database = MemoryDatabase::with_opts(MemoryDatabaseOptions { events: false, max_events: Some(1) });
        let quiet =
            RelayPoolOptions::new().automatic_authentication(true).notification_channel_size(UNHEARD_MESSAGES_KEPT);
        let client = Client::builder()
            .signer(signer.keys().clone())
            .database(database)
            .websocket_transport(transport.clone())
            .admit_policy(Gate(router.clone()))
            .opts(ClientOptions::new().pool(quiet))
            .build();

        let mut wanted = Wants::new();
        if let Some(intake) = &intake {
            let want = Want { filters: intake_filters(signer, intake), overlap: Some(config.overlap) };
            // Known to the library before it connects, so that no event falls between asking and being known.
            client.pool().save_subscription(intake_id(), want.filters.clone()).await;
            wanted.insert(intake_id(), want);
        }
        let wants = watch::Sender::new(Arc::new(wanted));

        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let options = RelayOptions::new()
            .verify_subscriptions(true)
            .notification_channel_size(MESSAGES_KEPT)
            .limits(limits.clone())
            .retry_interval(config.retry_interval)
            .adjust_retry_interval(config.retry_interval >= SHORTEST_JITTERED_PAUSE);
        let mut links = Vec::new();
        for url in urls {
            client.pool().add_relay(&url, options.clone()).await?;
            let relay = client.pool().relay(&url).await?;
            let (patience, retry) = (config.publish_timeout, config.retry_interval);
            let link = Arc::new(Link::new(relay, router.clone(), wants.subscribe(), patience, retry, None));
            let (task, cancel) = (link.clone(), cancel.clone());
            tasks.spawn(async move { task.run(cancel).await });
            links.push(link);
        }
        let rules = GuestRules {
            patience: config.customer_relay_timeout,
            at_once: config.max_customer_relays,
            idle: config.customer_relay_idle,
            allow_private: config.allow_private,
            limits,
        };
        let guests = Guests::new(client.clone(), router.clone(), rules, tasks.clone(), cancel.clone());
        Ok(Self {
            links,
            guests,
            router,
            transport,
            wants,
            client,
            quorum: config.quorum,
            publish_timeout: config.publish_timeout,
            tasks,
            _end: cancel.clone().drop_guard(),
            cancel,
        })
    }

    /// Waits until `count` of our relays are connected, at most for `patience`. Returns how many are.
    pub async fn connected(&self, count: usize, patience: Duration) -> usize {
        let mut connecting: FuturesUnordered<_> = self
            .links
            .iter()
            .map(|link| async { link.connected().wait_for(|connected| *connected).await.is_ok() })
            .collect();
        let enough = async {
            let mut reached = 0;
            while reached < count.min(self.links.len()) {
                reached += usize::from(connecting.next().await.unwrap_or(false));
            }
        };
        let _ = tokio::time::timeout(patience, enough).await;
        self.health().iter().filter(|relay| relay.connected).count()
    }

    /// Each of our relays, as it stands.
    pub fn health(&self) -> Vec<RelayHealth> {
        let of = |link: &Arc<Link>| {
            let connected = *link.connected().borrow();
            let problem = self.meeting(link).problem.filter(|_| !connected);
            RelayHealth { url: link.url().to_owned(), connected, problem }
        };
        self.links.iter().map(of).collect()
    }

    /// What has come of the events that arrived so far.
    pub fn admission_counts(&self) -> AdmissionCounts {
        self.router.admission().counts()
    }

    /// Takes no more requests (shutdown begins): the inbox ends when it has been read empty. Publishing goes on.
    pub fn stop_intake(&self) {
        self.router.close_inbox();
        self.unwant(&intake_id());
        let zaps: Vec<SubscriptionId> = self.wants.borrow().keys().filter(|id| brings_zaps(id)).cloned().collect();
        zaps.iter().for_each(|id| self.unwant(id));
    }

    /// Ends in order: no more intake, waits (at most the publish timeout) for the relays' answers to what was sent, then closes
    /// the sockets and all tasks.
    pub async fn shutdown(&self) {
        self.stop_intake();
        let ours = futures::future::join_all(self.links.iter().map(|link| link.settled()));
        let answered = futures::future::join(ours, self.guests.settled());
        let _ = tokio::time::timeout(self.publish_timeout, answered).await;
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.client.shutdown().await;
    }

    pub(super) fn meeting(&self, link: &Link) -> Meeting {
        self.transport.meeting(<&Url>::from(link.relay().url()).as_str())
    }

    pub(super) fn want(&self, id: SubscriptionId, want: Want) {
        self.wants.send_modify(|wants| {
            let mut changed = Wants::clone(wants);
            changed.insert(id, want);
            *wants = Arc::new(changed);
        });
    }

    /// Wants this, and none of those any more.
    pub(super) fn want_instead(&self, of: impl Fn(&SubscriptionId) -> bool, id: SubscriptionId, want: Want) {
        self.wants.send_modify(|wants| {
            let mut changed = Wants::clone(wants);
            changed.retain(|known, _| !of(known));
            changed.insert(id, want);
            *wants = Arc::new(changed);
        });
    }

    pub(super) fn unwant(&self, id: &SubscriptionId) {
        unwant(&self.wants, id);
    }

    pub(super) fn wants(&self) -> watch::Sender<Arc<Wants>> {
        self.wants.clone()
    }
}

pub(super) fn unwant(wants: &watch::Sender<Arc<Wants>>, id: &SubscriptionId) {
    wants.send_if_modified(|wants| {
        let known = wants.contains_key(id);
        if known {
            *wants = Arc::new(
                wants.iter().filter(|(other, _)| *other != id).map(|(id, want)| (id.clone(), want.clone())).collect(),
            );
        }
        known
    });
}

#[async_trait]
impl Publisher for RelayPool {
    /// Returns as soon as the quorum is reached, or every relay has answered or had its time. Relays that have not answered
    /// by then are reported as [`RelayVerdict::Silent`]; they still get the event if they can be reached in time. The
    /// customer's relays are not reported.
    async fn publish(&self, event: &SignedEvent, also: &[String]) -> PublishReport {
        let Ok(event) = Event::from_json(&event.json) else {
            let refused = || RelayVerdict::Refused("invalid: not an event".to_owned());
            let verdicts = self.links.iter().map(|link| (link.url().to_owned(), refused())).collect();
            return PublishReport { verdicts, quorum: self.quorum == 0 };
        };
        let event = Arc::new(event);
        let mut verdicts: HashMap<&str, RelayVerdict> =
            self.links.iter().map(|link| (link.url(), RelayVerdict::Silent)).collect();
        let mut answers: FuturesUnordered<_> = self
            .links
            .iter()
            .map(|link| {
                let verdict = link.submit(&event);
                async {
                    let Some(verdict) = verdict else { return (link.url(), RelayVerdict::Silent) };
                    (link.url(), verdict.await.unwrap_or(RelayVerdict::Silent))
                }
            })
            .collect();
        self.deliver_to_guests(&event, also);
        let mut accepted = 0;
        while accepted < self.quorum
            && let Some((url, verdict)) = answers.next().await
        {
            accepted += usize::from(verdict == RelayVerdict::Accepted);
            verdicts.insert(url, verdict);
        }
        // Those that answered at the same time.
        while let Some(Some((url, verdict))) = futures::FutureExt::now_or_never(answers.next()) {
            verdicts.insert(url, verdict);
        }
        let verdicts = self.links.iter().map(|link| (link.url().to_owned(), verdicts[link.url()].clone())).collect();
        PublishReport { verdicts, quorum: accepted >= self.quorum }
    }
}

impl RelayPool {
    fn deliver_to_guests(&self, event: &Arc<Event>, also: &[String]) {
        let ours: HashSet<&RelayUrl> = self.links.iter().map(|link| link.relay().url()).collect();
        let theirs: HashSet<RelayUrl> =
            also.iter().take(MAX_ALSO).filter_map(|url| RelayUrl::parse(url).ok()).collect();
        for url in theirs.into_iter().filter(|url| !ours.contains(url)) {
            let (guests, event) = (self.guests.clone(), event.clone());
            // Ends soon: it only hands the event over.
            self.tasks.spawn(async move { guests.deliver(&url, &event).await });
        }
    }
}

fn parse_relays(relays: &[String]) -> Result<Vec<RelayUrl>, RelayError> {
    let mut urls = Vec::new();
    for relay in relays {
        let url = RelayUrl::parse(relay).map_err(|_| RelayError::BadUrl(relay.clone()))?;
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    if urls.is_empty() { Err(RelayError::NoRelays) } else { Ok(urls) }
}

fn library_limits(limits: &IntakeLimits) -> RelayLimits {
    let bytes = u32::try_from(limits.max_message_bytes).unwrap_or(u32::MAX);
    RelayLimits {
        messages: RelayMessageLimits { max_size: Some(bytes) },
        // The message's bound is the event's; measuring the event by itself would serialise each one again.
        events: RelayEventLimits { max_num_tags: Some(limits.max_tags), ..RelayEventLimits::disable() },
    }
}

/// Requests of our kinds, deletions (NIP-09) of requests, pings to us.
fn intake_filters(signer: &Signer, intake: &Intake) -> Vec<Filter> {
    let since = nostr::Timestamp::from_secs(u64::try_from(intake.since.as_second()).unwrap_or(0));
    let requests = intake.kinds.iter().map(|kind| Kind::from_u16(kind.request_kind()));
    vec![
        Filter::new().kinds(requests).since(since),
        Filter::new().kind(Kind::EventDeletion).since(since),
        Filter::new()
            .kind(Kind::from_u16(PING_KIND))
            .custom_tag(SingleLetterTag::lowercase(Alphabet::P), signer.keys().public_key().to_hex())
            .since(since),
    ]
}
