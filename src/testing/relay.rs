//! A real Nostr relay in this process: websockets on loopback, for tests, the demo and benchmarks.
//!
//! Events are kept by nostr-sdk's memory database. The sessions are ours, because the library's embedded relay drops events
//! for a session that is more than 1,024 behind, limits a session to 60 events a minute, and leaves Nagle's algorithm on
//! (44 ms a publish). This one loses nothing, answers at once, and can be told to misbehave ([`RelayRules`]).

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{SinkExt, StreamExt};
use nostr::filter::MatchEventOptions;
use nostr::{ClientMessage, Event, Filter, JsonUtil, Kind, RelayMessage, SubscriptionId};
use nostr_sdk::prelude::{DatabaseEventStatus, MemoryDatabase, MemoryDatabaseOptions, NostrDatabase};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Messages put into one write at most.
const WRITE_BATCH: usize = 256;

/// How the relay treats its clients. The default is an honest, open relay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RelayRules {
    /// Ask for NIP-42 authentication, and neither take nor give events without it.
    pub auth: bool,
    /// Refuse every event with these words (`OK false`), prefix included.
    pub refuse: Option<String>,
    /// Take events but never answer `OK`.
    pub mute: bool,
}

/// A relay listening on a loopback port of its own. Dropping it closes everything.
#[derive(Debug)]
pub struct TestRelay {
    address: SocketAddr,
    hub: Arc<Hub>,
    serving: Mutex<Option<Serving>>,
}

#[derive(Debug)]
struct Serving {
    cancel: CancellationToken,
    tasks: TaskTracker,
}

/// What the sessions share.
#[derive(Debug)]
struct Hub {
    rules: Mutex<RelayRules>,
    database: MemoryDatabase,
    /// Taken for storing with passing on, and for querying with subscribing: so that a subscriber gets each event exactly once.
    order: tokio::sync::Mutex<()>,
    sessions: Mutex<HashMap<u64, Session>>,
    next_session: AtomicU64,
    /// Events taken so far, ephemeral ones included.
    taken: watch::Sender<usize>,
    /// Subscriptions open now.
    open: watch::Sender<usize>,
    /// Connections now.
    connections: watch::Sender<usize>,
}

#[derive(Debug)]
struct Session {
    outgoing: mpsc::UnboundedSender<String>,
    subscriptions: HashMap<SubscriptionId, Vec<Filter>>,
}

impl TestRelay {
    /// Starts an honest relay.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(RelayRules::default()).await
    }

    /// Starts a relay with rules.
    pub async fn start_with(rules: RelayRules) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let hub = Hub {
            rules: Mutex::new(rules),
            database: MemoryDatabase::with_opts(MemoryDatabaseOptions { events: true, max_events: None }),
            order: tokio::sync::Mutex::new(()),
            sessions: Mutex::default(),
            next_session: AtomicU64::new(0),
            taken: watch::Sender::new(0),
            open: watch::Sender::new(0),
            connections: watch::Sender::new(0),
        };
        let relay = Self { address: listener.local_addr()?, hub: Arc::new(hub), serving: Mutex::new(None) };
        relay.serve(listener);
        Ok(relay)
    }

    /// Its address, `ws://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Changes its rules, for open sessions too.
    pub fn set_rules(&self, rules: RelayRules) {
        *self.hub.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// Closes the port and every connection; what is stored stays. Returns when all is closed.
    pub async fn stop(&self) {
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Serving { cancel, tasks }) = serving {
            cancel.cancel();
            tasks.close();
            tasks.wait().await;
        }
    }

    /// Opens the same port again after [`TestRelay::stop`].
    pub async fn restart(&self) -> io::Result<()> {
        self.stop().await;
        self.serve(TcpListener::bind(self.address).await?);
        Ok(())
    }

    /// Takes an event as if a client had sent it, and passes it on.
    pub async fn publish(&self, event: Event) {
        self.hub.take(event).await;
    }

    /// The stored events that match, newest first.
    pub async fn events(&self, filter: Filter) -> Vec<Event> {
        self.hub.database.query(filter).await.map(|events| events.into_iter().collect()).unwrap_or_default()
    }

    /// How many events it has taken, ephemeral ones included and duplicates not.
    pub fn taken(&self) -> usize {
        *self.hub.taken.borrow()
    }

    /// Waits until it has taken `count` events.
    pub async fn wait_taken(&self, count: usize) {
        let mut taken = self.hub.taken.subscribe();
        // The sender lives as long as the hub, so waiting can't fail.
        let _ = taken.wait_for(|now| *now >= count).await;
    }

    /// Waits until exactly `count` subscriptions are open.
    pub async fn wait_subscriptions(&self, count: usize) {
        let mut open = self.hub.open.subscribe();
        let _ = open.wait_for(|now| *now == count).await;
    }

    /// Waits until there are exactly `count` connections.
    pub async fn wait_connections(&self, count: usize) {
        let mut connections = self.hub.connections.subscribe();
        let _ = connections.wait_for(|now| *now == count).await;
    }

    /// Ends every subscription with `CLOSED` and these words.
    pub fn close_subscriptions(&self, words: &str) {
        let mut sessions = self.hub.sessions();
        for session in sessions.values_mut() {
            for (id, _) in session.subscriptions.drain() {
                let _ = session.outgoing.send(RelayMessage::closed(id, words).as_json());
            }
        }
        self.hub.count(&sessions);
    }

    fn serve(&self, listener: TcpListener) {
        let serving = Serving { cancel: CancellationToken::new(), tasks: TaskTracker::new() };
        let (hub, cancel, tasks) = (self.hub.clone(), serving.cancel.clone(), serving.tasks.clone());
        serving.tasks.spawn(async move {
            while let Some(Ok((stream, _))) = cancel.run_until_cancelled(listener.accept()).await {
                let (hub, cancel) = (hub.clone(), cancel.clone());
                tasks.spawn(async move { cancel.run_until_cancelled(hub.session(stream)).await });
            }
        });
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = Some(serving);
    }
}

impl Drop for TestRelay {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.lock().unwrap_or_else(PoisonError::into_inner).take() {
            serving.cancel.cancel();
        }
    }
}

impl Hub {
    fn rules(&self) -> RelayRules {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, sessions: &HashMap<u64, Session>) {
        self.connections.send_replace(sessions.len());
        self.open.send_replace(sessions.values().map(|session| session.subscriptions.len()).sum());
    }

    /// Serves one connection until it ends.
    async fn session(self: Arc<Self>, stream: TcpStream) {
        // Small messages must not wait for each other.
        let _ = stream.set_nodelay(true);
        let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
        let (outgoing, queue) = mpsc::unbounded_channel();
        let number = self.next_session.fetch_add(1, Ordering::Relaxed);
        {
            let mut sessions = self.sessions();
            sessions.insert(number, Session { outgoing, subscriptions: HashMap::new() });
            self.count(&sessions);
        }
        // Taken out again when this future is dropped, too.
        let _membership = Membership { hub: &self, number };
        let (sink, source) = socket.split();
        tokio::select! {
            () = self.read(number, source) => {}
            () = write(sink, queue) => {}
        }
    }

    async fn read(&self, number: u64, mut source: futures::stream::SplitStream<WebSocketStream<TcpStream>>) {
        let challenge = format!("challenge-{number}");
        let mut authenticated = false;
        if self.rules().auth {
            self.send(number, RelayMessage::auth(challenge.as_str()));
        }
        while let Some(Ok(message)) = source.next().await {
            let Message::Text(text) = message else { continue };
            let Ok(message) = ClientMessage::from_json(text.as_bytes()) else {
                self.send(number, RelayMessage::notice("could not read that"));
                continue;
            };
            let locked = self.rules().auth && !authenticated;
            match message {
                ClientMessage::Event(event) if locked => {
                    self.send(number, RelayMessage::ok(event.id, false, "auth-required: log in first"));
                }
                ClientMessage::Event(event) => self.receive(number, event.into_owned()).await,
                ClientMessage::Req { subscription_id, .. } if locked => {
                    self.send(
                        number,
                        RelayMessage::closed(subscription_id.into_owned(), "auth-required: log in first"),
                    );
                }
                ClientMessage::Req { subscription_id, filters } => {
                    let filters = filters.into_iter().map(|filter| filter.into_owned()).collect();
                    self.subscribe(number, subscription_id.into_owned(), filters).await;
                }
                ClientMessage::Close(id) => {
                    let mut sessions = self.sessions();
                    if let Some(session) = sessions.get_mut(&number) {
                        session.subscriptions.remove(id.as_ref());
                    }
                    self.count(&sessions);
                }
                ClientMessage::Auth(event) => {
                    let right = event.kind == Kind::Authentication
                        && event.tags.challenge() == Some(challenge.as_str())
                        && event.verify().is_ok();
                    authenticated |= right;
                    self.send(
                        number,
                        RelayMessage::ok(event.id, right, if right { "" } else { "invalid: wrong login" }),
                    );
                }
                _ => self.send(number, RelayMessage::notice("not spoken here")),
            }
        }
    }

    async fn receive(&self, number: u64, event: Event) {
        let rules = self.rules();
        let id = event.id;
        let (taken, words) = match (rules.refuse, event.verify()) {
            (Some(words), _) => (false, words),
            (None, Err(_)) => (false, "invalid: id or signature".to_owned()),
            (None, Ok(())) if self.take(event).await => (true, String::new()),
            (None, Ok(())) => (true, "duplicate: have it".to_owned()),
        };
        if !rules.mute {
            self.send(number, RelayMessage::ok(id, taken, words));
        }
    }

    /// Stores an event (unless ephemeral) and passes it on. False if it was there already, or is deleted or outdated.
    async fn take(&self, event: Event) -> bool {
        let _order = self.order.lock().await;
        if !event.kind.is_ephemeral() {
            let fresh = matches!(self.database.check_id(&event.id).await, Ok(DatabaseEventStatus::NotExistent));
            if !fresh || !self.database.save_event(&event).await.is_ok_and(|status| status.is_success()) {
                return false;
            }
        }
        let json = event.as_json();
        for session in self.sessions().values() {
            for (id, filters) in &session.subscriptions {
                if filters.iter().any(|filter| filter.match_event(&event, MatchEventOptions::new())) {
                    let _ = session.outgoing.send(event_message(id, &json));
                }
            }
        }
        self.taken.send_modify(|taken| *taken += 1);
        true
    }

    async fn subscribe(&self, number: u64, id: SubscriptionId, filters: Vec<Filter>) {
        let _order = self.order.lock().await;
        let mut stored = Vec::new();
        for filter in &filters {
            if let Ok(events) = self.database.query(filter.clone()).await {
                stored.extend(events.into_iter().map(|event| (event.id, event.as_json())));
            }
        }
        let mut sessions = self.sessions();
        if let Some(session) = sessions.get_mut(&number) {
            let mut sent = std::collections::HashSet::new();
            for (event, json) in stored {
                if sent.insert(event) {
                    let _ = session.outgoing.send(event_message(&id, &json));
                }
            }
            let _ = session.outgoing.send(RelayMessage::eose(id.clone()).as_json());
            session.subscriptions.insert(id, filters);
        }
        self.count(&sessions);
    }

    fn send(&self, number: u64, message: RelayMessage<'_>) {
        if let Some(session) = self.sessions().get(&number) {
            let _ = session.outgoing.send(message.as_json());
        }
    }
}

struct Membership<'a> {
    hub: &'a Hub,
    number: u64,
}

impl Drop for Membership<'_> {
    fn drop(&mut self) {
        let mut sessions = self.hub.sessions();
        sessions.remove(&self.number);
        self.hub.count(&sessions);
    }
}

/// `["EVENT", id, event]` without serialising the event once more for each subscriber.
fn event_message(id: &SubscriptionId, json: &str) -> String {
    format!(r#"["EVENT",{},{json}]"#, serde_json::Value::from(id.as_str()))
}

async fn write(
    mut sink: futures::stream::SplitSink<WebSocketStream<TcpStream>, Message>,
    mut queue: mpsc::UnboundedReceiver<String>,
) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, WRITE_BATCH).await > 0 {
        for text in batch.drain(..) {
            if sink.feed(Message::text(text)).await.is_err() {
                return;
            }
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
}
