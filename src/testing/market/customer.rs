//! Somebody who buys, with a key, money, and a connection of their own.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nostr::{Event, EventBuilder, JsonUtil, Kind, Tag};

use super::within;
use crate::identity::Signer;
use crate::job::id::{EventId, PaymentHash, ProviderId};
use crate::job::{Input, InputKind, JobId, JobKind, Params, Refusal};
use crate::money::Msat;
use crate::nip90::{Answer, AnswerBody, Codec, Feedback, JobResult, Order, ReadLimits, SignedEvent, Status};
use crate::provider::Clock;
use crate::relays::{Answers, PoolConfig, Publisher, RelayPool};
use crate::requester::Buyer;
use crate::testing::relay::TestRelay;
use crate::wallet::fake::{FakeWallet, NETWORK};
use crate::wallet::{Payment, Wallet, WalletError, bolt11};

/// What a customer lets a payment's way cost, besides the amount.
const MOST_FEES: Msat = Msat::sat(100);

/// A customer.
#[allow(missing_debug_implementations)] // Holds keys.
pub struct Customer {
    /// Their key.
    pub signer: Signer,
    /// Their side of the wire.
    pub codec: Codec,
    /// Their connections.
    pub relays: Arc<RelayPool>,
    /// Their play money.
    pub wallet: FakeWallet,
    purse: Arc<dyn Wallet>,
    provider: ProviderId,
}

/// What a customer is asked to pay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoiced {
    /// How much.
    pub amount: Msat,
    /// The invoice.
    pub bolt11: String,
    /// What the payment is matched by.
    pub payment_hash: PaymentHash,
    /// The feedback that brought it.
    pub feedback: Feedback,
}

/// A request that is out, and what came back.
#[derive(Debug)]
pub struct Posted {
    /// The job.
    pub job: JobId,
    answers: Answers,
    /// Every answer read so far, in order of arrival.
    pub heard: Vec<Answer>,
}

impl Customer {
    /// Joins a market: these relays, to buy from this provider with this money.
    pub async fn join(signer: Signer, relays: &[String], provider: ProviderId, wallet: FakeWallet) -> Self {
        let config = PoolConfig {
            relays: relays.to_vec(),
            retry_interval: Duration::from_millis(50),
            allow_private: true,
            ..PoolConfig::default()
        };
        let pool = RelayPool::connect(config, &signer, None).await.expect("the relays' addresses are good");
        let limits = ReadLimits { allow_private_relays: true, ..ReadLimits::default() };
        let codec = Codec::new(signer.clone(), limits);
        let purse = Arc::new(wallet.clone());
        Self { codec, signer, relays: Arc::new(pool), wallet, purse, provider }
    }

    /// Pays with this instead of play money.
    #[must_use]
    pub fn pays_with(mut self, purse: Arc<dyn Wallet>) -> Self {
        self.purse = purse;
        self
    }

    /// A text for our provider to work on.
    pub fn order(&self, text: &str) -> Order {
        Order { providers: vec![self.provider], ..self.broadcast(text) }
    }

    /// A text for anybody to work on.
    pub fn broadcast(&self, text: &str) -> Order {
        Order {
            kind: JobKind::TextGeneration,
            inputs: vec![Input { data: text.to_owned(), kind: InputKind::Text, relay: None, marker: None }],
            params: Params::default(),
            output: None,
            bid: None,
            providers: Vec::new(),
            relays: Vec::new(),
            expires_at: None,
            encryption: None,
        }
    }

    /// Signs an order.
    pub fn sign(&self, order: &Order) -> SignedEvent {
        self.codec.request(order, Timestamp::now()).expect("the order is good")
    }

    /// Signs any event at all.
    pub fn raw<T: AsRef<str>>(&self, kind: u16, tags: &[&[T]], content: &str, at: Timestamp) -> SignedEvent {
        let tags = tags.iter().map(|words| Tag::parse(words.iter().map(AsRef::as_ref)).expect("a tag has a name"));
        let at = nostr::Timestamp::from_secs(u64::try_from(at.as_second()).expect("after 1970"));
        let event = EventBuilder::new(Kind::from_u16(kind), content)
            .tags(tags)
            .custom_created_at(at)
            .sign_with_keys(self.signer.keys())
            .expect("keys sign");
        SignedEvent { id: EventId(event.id.to_bytes()), kind, json: event.as_json() }
    }

    /// Signs and publishes an order, and listens.
    pub async fn post(&self, order: &Order) -> Posted {
        self.publish(&self.sign(order)).await
    }

    /// Listens for answers to an event, then publishes it.
    pub async fn publish(&self, event: &SignedEvent) -> Posted {
        let kind = JobKind::from_request_kind(event.kind).unwrap_or(JobKind::TextGeneration);
        let posted = self.follow_kind(JobId(event.id.0), kind);
        self.send(event).await;
        posted
    }

    /// Publishes an event without waiting for answers.
    pub async fn send(&self, event: &SignedEvent) {
        let report = within("a relay to take the event", self.relays.publish(event, &[])).await;
        assert!(report.accepted() > 0, "no relay took the event: {report:?}");
    }

    /// Listens for answers to a job of text generation.
    pub fn follow(&self, job: JobId) -> Posted {
        self.follow_kind(job, JobKind::TextGeneration)
    }

    /// Listens for answers to a job.
    pub fn follow_kind(&self, job: JobId, kind: JobKind) -> Posted {
        let from = Timestamp::UNIX_EPOCH;
        let answers = self.relays.follow(job, kind, &[self.provider], from, self.codec.clone());
        Posted { job, answers, heard: Vec::new() }
    }

    /// The wish that a job be dropped, signed.
    pub fn cancellation(&self, job: JobId) -> SignedEvent {
        self.codec.cancellation(job, JobKind::TextGeneration, Timestamp::now()).expect("keys sign")
    }

    /// Asks that a job be dropped.
    pub async fn cancel(&self, job: JobId) {
        self.send(&self.cancellation(job)).await;
    }

    /// Waits until the provider has read everything this customer sent before: its relay and its inbox keep the order, so
    /// a ping that is answered was read after it.
    pub async fn ping(&self) {
        let ping = self.codec.ping(self.provider, &[], Timestamp::now()).expect("keys sign");
        let mut posted = self.publish(&ping).await;
        posted.status(Status::Pong).await;
    }

    /// Puts an event on one relay directly, whatever the customer is connected to.
    pub async fn leave_at(&self, relay: &TestRelay, event: &SignedEvent) {
        relay.publish(Event::from_json(&event.json).expect("what was signed is an event")).await;
    }

    /// Pays.
    ///
    /// # Errors
    /// As the wallet says.
    pub async fn pay(&self, invoice: &Invoiced) -> Result<Payment, WalletError> {
        within("the payment", pay_from(&self.purse, &invoice.bolt11)).await
    }

    /// Begins to pay: with a hold invoice it takes until the work is done.
    pub fn begin_to_pay(&self, invoice: &Invoiced) -> tokio::task::JoinHandle<Result<Payment, WalletError>> {
        let (purse, bolt11) = (self.purse.clone(), invoice.bolt11.clone());
        tokio::spawn(async move { within("the payment", pay_from(&purse, &bolt11)).await })
    }

    /// Orders, pays when asked to, and returns the result.
    pub async fn buys(&self, text: &str) -> JobResult {
        let mut posted = self.post(&self.order(text)).await;
        let invoice = posted.invoice().await;
        self.pay(&invoice).await.expect("the payment goes through");
        posted.result().await
    }

    /// The buying side of coinop with this customer's key and money.
    pub fn buyer(&self) -> Buyer {
        Buyer { publisher: self.relays.clone(), wallet: Some(self.purse.clone()), book: None, clock: Clock::system() }
    }
}

async fn pay_from(purse: &Arc<dyn Wallet>, bolt11: &str) -> Result<Payment, WalletError> {
    purse.payer().expect("a customer's wallet pays").pay(bolt11, MOST_FEES).await
}

impl Posted {
    /// The next answer.
    pub async fn next(&mut self) -> Answer {
        let answer = within(&format!("an answer to {}", self.job), self.answers.next()).await;
        let answer = answer.expect("the relays are there").expect("the provider's answers can be read");
        assert_eq!(answer.job, self.job);
        self.heard.push(answer.clone());
        answer
    }

    /// Reads on until an answer is the one looked for.
    pub async fn until<T>(&mut self, pick: impl Fn(&AnswerBody) -> Option<T>) -> T {
        loop {
            let answer = self.next().await;
            if let Some(found) = pick(&answer.body) {
                return found;
            }
        }
    }

    /// Reads on until feedback of this status.
    pub async fn status(&mut self, status: Status) -> Feedback {
        self.until(|body| match body {
            AnswerBody::Feedback(feedback) if feedback.status == status => Some(feedback.clone()),
            // Whoever waits for something else is told why it does not come.
            AnswerBody::Feedback(feedback) if feedback.status == Status::Error => {
                panic!("expected {status:?}, refused: {:?}", feedback.text)
            }
            _ => None,
        })
        .await
    }

    /// Reads on until there is an invoice.
    pub async fn invoice(&mut self) -> Invoiced {
        let feedback = self.status(Status::PaymentRequired).await;
        let amount = feedback.amount.clone().expect("an amount");
        let bolt11 = amount.bolt11.expect("an invoice");
        let read = bolt11::read_for_paying(&bolt11, NETWORK, Timestamp::now()).expect("a good invoice");
        assert_eq!(read.amount, amount.amount, "the amount said is the invoice's");
        Invoiced { amount: read.amount, bolt11, payment_hash: read.payment_hash, feedback }
    }

    /// Reads on until there is an error.
    pub async fn refusal(&mut self) -> Refusal {
        self.until(|body| match body {
            AnswerBody::Feedback(feedback) if feedback.status == Status::Error => Some(Refusal {
                code: feedback.code.expect("an error has a code"),
                text: feedback.text.clone().unwrap_or_default(),
                log: feedback.content.clone(),
            }),
            AnswerBody::Feedback(_) => None,
            AnswerBody::Result(result) => panic!("expected an error, got the result {:?}", result.receipt),
        })
        .await
    }

    /// Reads on until there is the result.
    pub async fn result(&mut self) -> JobResult {
        self.until(|body| match body {
            AnswerBody::Result(result) => Some(result.clone()),
            AnswerBody::Feedback(feedback) if feedback.status == Status::Error => {
                panic!("expected a result, refused: {:?}", feedback.text)
            }
            AnswerBody::Feedback(_) => None,
        })
        .await
    }
}
