//! The wire: Nostr events to and from what the rest of coinop means by them. Sync and ours, because the libraries drop
//! their NIP-90 types. `nips/` describes each form with examples that the tests here read.
//!
//! Read leniently, write strictly: [`Codec::read`] takes every spelling seen in the wild, the encoders write one.
//!
//! `request` reads what customers ask and `order` writes it; `answer` reads what providers say, which `feedback` and
//! `result` write; `encrypted` seals both ways; `file` says where an output is that no event has room for; [`handler_info`] is how a provider is found; [`relay_address`] says which
//! relays a stranger may send us to; `zap` reads receipts of zaps. `tags` and `draft` are the two ends of every event.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::identity::Signer;
use crate::job::id::EventId;
use crate::job::id::ProviderId;
use crate::job::queue::Standing;
use crate::job::{
    Code, CustomerId, Encryption, Input, JobId, JobKind, JobRequest, Params, Refusal, Terms, TokenRate, Usage,
};
use crate::money::Msat;

mod answer;
mod cancellation;
mod draft;
mod encrypted;
mod feedback;
mod file;
pub mod fuzzing;
pub mod handler_info;
mod order;
mod ping;
pub mod relay_address;
mod request;
mod result;
mod tags;
mod zap;

#[cfg(test)]
mod hostile_input;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod round_trips;
#[cfg(test)]
mod test_parties;
#[cfg(test)]
mod zap_tests;

pub use file::{Blob, SEALED_WITH, Seal};
pub use fuzzing::fuzz_event;
pub use handler_info::{
    Ad, AdParam, AdPrice, Announced, Announcement, Heartbeat, Profile, read_announcement, read_payment_address,
};
pub use zap::ZapReceipt;

/// The event kinds that are not a job's own.
pub mod kinds {
    /// Profile (NIP-01).
    pub const PROFILE: u16 = 0;
    /// Deletion request (NIP-09): cancels a job, withdraws an ad.
    pub const DELETION: u16 = 5;
    /// The first job request kind (NIP-90).
    pub const FIRST_REQUEST: u16 = 5_000;
    /// The last job request kind (NIP-90).
    pub const LAST_REQUEST: u16 = 5_999;
    /// Feedback (NIP-90).
    pub const FEEDBACK: u16 = 7_000;
    /// Zap request (NIP-57): never on a relay, only inside a receipt.
    pub const ZAP_REQUEST: u16 = 9_734;
    /// Zap receipt (NIP-57).
    pub const ZAP_RECEIPT: u16 = 9_735;
    /// A provider's ping, drafted upstream; answered by feedback with the status `pong`.
    pub const PING: u16 = 7_007;
    /// Relay list (NIP-65).
    pub const RELAY_LIST: u16 = 10_002;
    /// A provider's heartbeat, drafted upstream.
    pub const HEARTBEAT: u16 = 11_998;
    /// The permit to put a file on a Blossom server (BUD-01).
    pub const FILE_PERMIT: u16 = 24_242;
    /// Handler information: the ad (NIP-89).
    pub const AD: u16 = 31_990;
}

/// A finished event: what is stored in the outbox and sent, byte for byte the same each time.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedEvent {
    /// Its id.
    pub id: EventId,
    /// Its kind's number.
    pub kind: u16,
    /// The event as JSON (NIP-01), signature included.
    pub json: String,
}

impl fmt::Debug for SignedEvent {
    /// Without the content, which may be a result.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedEvent").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Bounds on what is read from a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// Bytes of one input or parameter value.
    pub max_value_bytes: usize,
    /// `i` and `param` tags together.
    pub max_tags: usize,
    /// Relays named by the request that are used; further ones are ignored.
    pub max_relays: usize,
    /// Whether loopback and private relay addresses are used (tests, own networks).
    pub allow_private_relays: bool,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { max_value_bytes: 128 * 1024, max_tags: 256, max_relays: 5, allow_private_relays: false }
    }
}

/// Something a stranger sent us that we understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A job request for us or for anybody.
    Request(Box<JobRequest>),
    /// The author no longer wants these jobs (kind 5).
    Cancel {
        /// Who signed the deletion.
        customer: CustomerId,
        /// The request events it names.
        jobs: Vec<JobId>,
    },
    /// Somebody's wallet says that we were zapped (NIP-57).
    Zap(Box<ZapReceipt>),
    /// A ping (kind 7007) that names us.
    Ping {
        /// Where the pong goes.
        to: ReplyTo,
    },
}

/// Something a stranger sent us that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Names other providers.
    #[error("names other providers")]
    NotForUs,
    /// No kind of ours.
    #[error("kind {0} is not one of ours")]
    UnknownKind(u16),
    /// A broken or hostile event that gets no answer.
    #[error("not a usable event: {0}")]
    Broken(String),
    /// A request with something wrong in it. The answer goes out only when the request named us.
    #[error("{refusal}")]
    Refused {
        /// Where an answer goes.
        to: Box<ReplyTo>,
        /// What was wrong.
        refusal: Refusal,
    },
}

/// Where and how answers to a request go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyTo {
    /// The request event.
    pub job: JobId,
    /// Who asked.
    pub customer: CustomerId,
    /// Whether the request named us.
    pub addressed: bool,
    /// The scheme of the request.
    pub encryption: Option<Encryption>,
    /// Relays the customer reads, vetted.
    pub relays: Vec<String>,
}

impl From<&JobRequest> for ReplyTo {
    fn from(request: &JobRequest) -> Self {
        Self {
            job: request.id,
            customer: request.customer,
            addressed: request.addressed,
            encryption: request.encryption,
            relays: request.relays.clone(),
        }
    }
}

/// The `status` of feedback (kind 7000).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// An invoice comes with it.
    PaymentRequired,
    /// The work begins, or waits its turn.
    Processing,
    /// A piece of the output.
    Partial,
    /// It will not be done; a code comes with it.
    Error,
    /// Done. (Read from others; our results speak for themselves.)
    Success,
    /// The answer to a ping.
    Pong,
}

/// An amount tag: what is to be paid, and the invoice that asks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// How much, in msat on the wire.
    pub amount: Msat,
    /// The BOLT 11 invoice. Without one an amount is only a claim.
    pub bolt11: Option<String>,
}

/// Feedback about a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// What about.
    pub status: Status,
    /// A line for people, in the status tag.
    pub text: Option<String>,
    /// What kind of error.
    pub code: Option<Code>,
    /// What is to be paid.
    pub amount: Option<Amount>,
    /// The terms of payment.
    pub terms: Option<Terms>,
    /// The number of a partial piece, from 0.
    pub seq: Option<u32>,
    /// Where the job waits for its turn.
    pub queue: Option<Standing>,
    /// The piece of output of a partial; of an error the end of what the customer's commands wrote; else empty.
    pub content: String,
}

impl Feedback {
    /// Feedback with nothing but a status.
    pub fn of(status: Status) -> Self {
        Self {
            status,
            text: None,
            code: None,
            amount: None,
            terms: None,
            seq: None,
            queue: None,
            content: String::new(),
        }
    }

    /// `error` feedback.
    pub fn error(refusal: &Refusal) -> Self {
        Self {
            text: Some(refusal.text.clone()),
            code: Some(refusal.code),
            content: refusal.log.clone(),
            ..Self::of(Status::Error)
        }
    }
}

/// A result's receipt: what was used and paid, in tags of the result event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Receipt {
    /// The model.
    pub model: Option<String>,
    /// Tokens.
    pub usage: Option<Usage>,
    /// Parameters of the model; unknown is left out.
    pub parameters: Option<u64>,
    /// `2 × parameters × tokens / 1e6`; unknown is left out.
    pub mflops: Option<u64>,
    /// The model's digest: `sha256:` and hexadecimal digits; unknown is left out.
    pub digest: Option<String>,
    /// What else a result of an agent job says of itself, key and value each (`["result", key, value]`).
    #[serde(default)]
    pub facts: Vec<(String, String)>,
    /// Time worked.
    pub duration: Option<Duration>,
    /// Tokens written a second, which follows from the two before.
    #[serde(default)]
    pub tokens_per_second: Option<TokenRate>,
    /// What the job cost, as charged.
    pub paid: Option<Msat>,
    /// The customer's credit after it.
    pub credit: Option<Msat>,
    /// The terms of payment.
    pub terms: Option<Terms>,
}

/// A job's result.
#[derive(Clone, PartialEq, Eq)]
pub struct JobResult {
    /// The output. The encoder cuts what is larger than an event may be and says so (`truncated`).
    pub content: String,
    /// What was charged, with the invoice when there was one.
    pub amount: Option<Amount>,
    /// The receipt.
    pub receipt: Receipt,
    /// Where the whole output is, when it was put on a server of files.
    pub file: Option<Blob>,
    /// When reading: the full size in bytes and SHA-256 (hex) of an output that was cut.
    pub truncated: Option<(u64, String)>,
}

impl fmt::Debug for JobResult {
    /// How long the output is, not what it says.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobResult")
            .field("bytes", &self.content.len())
            .field("receipt", &self.receipt)
            .field("file", &self.file)
            .field("truncated", &self.truncated)
            .finish_non_exhaustive()
    }
}

/// A request to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What kind.
    pub kind: JobKind,
    /// The inputs in order.
    pub inputs: Vec<Input>,
    /// The parameters in order.
    pub params: Params,
    /// The wanted format.
    pub output: Option<String>,
    /// The most to be paid.
    pub bid: Option<Msat>,
    /// The wanted providers; none means anybody.
    pub providers: Vec<ProviderId>,
    /// Where answers should go.
    pub relays: Vec<String>,
    /// When to stop caring.
    pub expires_at: Option<Timestamp>,
    /// The scheme, when the input is to be read by the (then only) provider alone.
    pub encryption: Option<Encryption>,
}

/// A provider's answer, read by a customer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The answer's own event id.
    pub id: EventId,
    /// Who answers: the key that signed.
    pub provider: ProviderId,
    /// Which request.
    pub job: JobId,
    /// When, by the provider's clock.
    pub at: Timestamp,
    /// What.
    pub body: AnswerBody,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // One at a time, read and dropped.
pub enum AnswerBody {
    /// Feedback (7000).
    Feedback(Feedback),
    /// The result (6xxx).
    Result(JobResult),
}

/// An event that can't be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Signing or encrypting failed.
    #[error("the event could not be signed or encrypted: {0}")]
    Crypto(String),
    /// An order that contradicts itself.
    #[error("{0}")]
    BadOrder(String),
}

/// Reads and writes events with our key.
#[derive(Debug, Clone)]
pub struct Codec {
    signer: Signer,
    limits: ReadLimits,
    max_result_bytes: usize,
}

/// Bytes of output one result event carries unless configured otherwise; relays commonly refuse events over 64 KiB.
pub const DEFAULT_MAX_RESULT_BYTES: usize = 48 * 1024;

impl Codec {
    /// A codec for our key.
    pub fn new(signer: Signer, limits: ReadLimits) -> Self {
        Self { signer, limits, max_result_bytes: DEFAULT_MAX_RESULT_BYTES }
    }

    /// With another limit on the bytes of output in one event.
    #[must_use]
    pub fn with_max_result_bytes(mut self, bytes: usize) -> Self {
        self.max_result_bytes = bytes;
        self
    }
}
