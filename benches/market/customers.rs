//! The customers: cheap ones, so that the processor is left to the provider and the relay. Requests are signed before the
//! clock starts, answers are checked after it stops.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use coinop::money::Msat;
use coinop::wallet::fake::FakeWallet;
use coinop::wallet::{InvoiceState, Payer, bolt11, fake};
use futures::stream::{SelectAll, SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use nostr::{ClientMessage, Event, EventBuilder, Filter, JsonUtil, Keys, Kind, SubscriptionId, Tag, Timestamp};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

pub(crate) const REQUEST_KIND: u16 = 5050;
pub(crate) const RESULT_KIND: u16 = 6050;
const FEEDBACK_KIND: u16 = 7000;

/// Customers, each with a key and a connection of its own.
const CUSTOMERS: usize = 10;

/// How long nothing may come before what is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<TcpStream>;

/// Opens a websocket that sends small messages at once.
pub(crate) async fn connect(relay: &str) -> Result<Socket> {
    let address = relay.strip_prefix("ws://").context("the bench's relay is on loopback")?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(tokio_tungstenite::client_async(relay, stream).await?.0)
}

/// A request, signed and ready to be sent.
pub(crate) struct Order {
    id: String,
    customer: usize,
    prompt: String,
    message: Utf8Bytes,
}

/// What became of a request.
struct Job {
    prompt: String,
    sent: Instant,
    /// The result's event id, once it was seen.
    result: Option<String>,
    /// The provider said that it works on it.
    processing: bool,
    invoice: Option<String>,
}

/// What was wrong with answers. All of it is zero, or the bench fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Faults {
    /// Jobs without a result.
    pub(crate) lost: usize,
    /// Further results of a job that had one.
    pub(crate) doubled: usize,
    /// Jobs for which two different invoices were sent.
    pub(crate) invoiced_twice: usize,
    /// Jobs refused with an error.
    pub(crate) refused: usize,
    /// Results with another content than asked for, or a wrong signature.
    pub(crate) wrong: usize,
}

/// What a customer heard.
enum Heard {
    /// The first result of a job, so long after it was asked for.
    Result(Duration),
    /// The provider took note of a job.
    Processing,
    Refused,
    Other,
}

pub(crate) struct Customers {
    keys: Vec<Keys>,
    sinks: Vec<SplitSink<Socket, Message>>,
    sources: SelectAll<SplitStream<Socket>>,
    wallet: Option<FakeWallet>,
    jobs: HashMap<String, Job>,
    /// Results that are still to be checked.
    unchecked: Vec<Utf8Bytes>,
    signed: usize,
    pub(crate) faults: Faults,
}

/// The message of a relay that brings an event.
#[derive(Deserialize)]
struct EventMessage(#[allow(dead_code)] String, #[allow(dead_code)] String, Reply);

/// What the customers read of an answer.
#[derive(Deserialize)]
struct Reply {
    id: String,
    kind: u16,
    tags: Vec<Vec<String>>,
}

impl Reply {
    fn tag(&self, name: &str) -> Option<&[String]> {
        self.tags.iter().find(|tag| tag.first().is_some_and(|first| first == name)).map(|tag| &tag[1..])
    }
}

impl Customers {
    /// Connects them all. With a wallet they pay every invoice they are sent, once a job.
    pub(crate) async fn connect(relay: &str, wallet: Option<FakeWallet>) -> Result<Self> {
        let mut customers = Self {
            keys: Vec::new(),
            sinks: Vec::new(),
            sources: SelectAll::new(),
            wallet,
            jobs: HashMap::new(),
            unchecked: Vec::new(),
            signed: 0,
            faults: Faults::default(),
        };
        for _ in 0..CUSTOMERS {
            let keys = Keys::generate();
            let (mut sink, mut source) = connect(relay).await?.split();
            let kinds = [RESULT_KIND, FEEDBACK_KIND].map(Kind::from_u16);
            let wanted = Filter::new().kinds(kinds).pubkey(keys.public_key());
            sink.send(Message::text(ClientMessage::req(SubscriptionId::new("mine"), vec![wanted]).as_json())).await?;
            // The subscription stands once the relay says that there is nothing older.
            source.next().await.context("the relay hung up")??;
            customers.keys.push(keys);
            customers.sinks.push(sink);
            customers.sources.push(source);
        }
        Ok(customers)
    }

    /// Signs so many requests, in turn by each customer.
    pub(crate) fn sign(&mut self, count: usize) -> Result<Vec<Order>> {
        let now = Timestamp::now();
        (0..count)
            .map(|_| {
                self.signed += 1;
                let number = self.signed;
                let customer = number % self.keys.len();
                let prompt = format!(
                    "Job {number}: repeat after me, word for word, that a provider which answers a thousand customers a \
                     second and forgets none of them when the lights go out is worth a millisatoshi or two of theirs."
                );
                let event = EventBuilder::new(Kind::from_u16(REQUEST_KIND), "")
                    .tag(Tag::parse(["i", &prompt, "text"])?)
                    .custom_created_at(now)
                    .sign_with_keys(&self.keys[customer])?;
                let id = event.id.to_hex();
                Ok(Order { id, customer, prompt, message: ClientMessage::event(event).as_json().into() })
            })
            .collect()
    }

    async fn publish(&mut self, order: Order) -> Result<()> {
        let Order { id, customer, prompt, message } = order;
        let job = Job { prompt, sent: Instant::now(), result: None, processing: false, invoice: None };
        self.jobs.insert(id, job);
        Ok(self.sinks[customer].send(Message::Text(message)).await?)
    }

    /// Has the orders done, so many at a time: each result makes room for the next request. Returns how long it took and
    /// each job's time from published to result seen, sorted.
    pub(crate) async fn order(&mut self, orders: Vec<Order>, in_flight: usize) -> Result<(Duration, Vec<Duration>)> {
        let count = orders.len();
        let mut orders = orders.into_iter();
        let mut latencies = Vec::with_capacity(count);
        let begun = Instant::now();
        for order in orders.by_ref().take(in_flight) {
            self.publish(order).await?;
        }
        let (mut ended, mut over) = (begun, 0);
        while over < count {
            let Some(heard) = self.hear(PATIENCE).await? else { break };
            match heard {
                Heard::Result(latency) => {
                    ended = Instant::now();
                    latencies.push(latency);
                }
                Heard::Refused => {}
                Heard::Processing | Heard::Other => continue,
            }
            over += 1;
            if let Some(order) = orders.next() {
                self.publish(order).await?;
            }
        }
        self.faults.lost += count - over;
        latencies.sort_unstable();
        Ok((ended - begun, latencies))
    }

    /// Publishes without waiting for results.
    pub(crate) async fn publish_all(&mut self, orders: Vec<Order>) -> Result<()> {
        for order in orders {
            self.publish(order).await?;
        }
        Ok(())
    }

    /// Waits until the provider has said of every job that it works on it, or has done it; or stays silent.
    pub(crate) async fn all_taken(&mut self) -> Result<()> {
        while !self.jobs.values().all(|job| job.processing || job.result.is_some()) {
            if self.hear(PATIENCE).await?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Waits until so many jobs have results, or nothing comes any more.
    pub(crate) async fn results(&mut self, count: usize) -> Result<usize> {
        while self.done() < count {
            if self.hear(PATIENCE).await?.is_none() {
                break;
            }
        }
        Ok(self.done())
    }

    /// Jobs that have a result.
    pub(crate) fn done(&self) -> usize {
        self.jobs.values().filter(|job| job.result.is_some()).count()
    }

    /// Listens until nothing has come for `quiet`: what comes now would be doubled.
    pub(crate) async fn linger(&mut self, quiet: Duration) -> Result<()> {
        while self.hear(quiet).await?.is_some() {}
        Ok(())
    }

    /// Checks signature and content of the results that came since the last check.
    pub(crate) fn check(&mut self) -> Result<()> {
        for text in std::mem::take(&mut self.unchecked) {
            let (_, _, event): (String, String, Event) = serde_json::from_str(&text)?;
            let asked = event.tags.event_ids().next().and_then(|id| self.jobs.get(&id.to_hex()));
            let right = asked.is_some_and(|job| job.prompt == event.content) && event.verify().is_ok();
            self.faults.wrong += usize::from(!right);
        }
        Ok(())
    }

    /// What the next message says. `None` when none comes for `patience`.
    async fn hear(&mut self, patience: Duration) -> Result<Option<Heard>> {
        let Ok(message) = tokio::time::timeout(patience, self.sources.next()).await else { return Ok(None) };
        let Message::Text(text) = message.context("the relay hung up")?? else { return Ok(Some(Heard::Other)) };
        if text.starts_with(r#"["OK""#) {
            let (_, _, taken, words): (String, String, bool, String) = serde_json::from_str(&text)?;
            if !taken {
                bail!("the relay refused a request: {words}");
            }
            return Ok(Some(Heard::Other));
        }
        if !text.starts_with(r#"["EVENT""#) {
            return Ok(Some(Heard::Other));
        }
        let EventMessage(_, _, reply) = serde_json::from_str(&text)?;
        let job = reply.tag("e").and_then(|values| self.jobs.get_mut(values.first()?));
        let Some(job) = job else { return Ok(Some(Heard::Other)) };
        if reply.kind == RESULT_KIND {
            self.unchecked.push(text);
            if job.result.is_some() {
                self.faults.doubled += 1;
                return Ok(Some(Heard::Other));
            }
            job.result = Some(reply.id);
            return Ok(Some(Heard::Result(job.sent.elapsed())));
        }
        let status = reply.tag("status").and_then(|values| values.first());
        Ok(Some(match status.map(String::as_str) {
            Some("processing") => {
                job.processing = true;
                Heard::Processing
            }
            Some("error") => {
                self.faults.refused += 1;
                Heard::Refused
            }
            Some("payment-required") => {
                let invoice = reply.tag("amount").and_then(|values| values.get(1)).context("no invoice to pay")?;
                if job.invoice.as_ref().is_some_and(|known| known != invoice) {
                    self.faults.invoiced_twice += 1;
                } else if job.invoice.is_none() {
                    job.invoice = Some(invoice.clone());
                    let wallet = self.wallet.as_ref().context("an invoice for a free job")?;
                    wallet.pay(invoice, Msat::ZERO).await.context("the payment failed")?;
                }
                Heard::Other
            }
            _ => Heard::Other,
        }))
    }

    /// What the customers have paid for their jobs together, as their invoices say.
    pub(crate) fn paid(&self, seller: &FakeWallet) -> Result<Msat> {
        let mut paid = Msat::ZERO;
        for invoice in self.jobs.values().filter_map(|job| job.invoice.as_ref()) {
            let read = bolt11::read_for_paying(invoice, fake::NETWORK, jiff::Timestamp::now())?;
            let state = futures::executor::block_on(coinop::wallet::Wallet::look_up(seller, &read.payment_hash))?;
            if let InvoiceState::Settled { amount, .. } = state {
                paid = paid.saturating_add(amount);
            }
        }
        Ok(paid)
    }
}
