//! What a customer asked for, free of the wire's spellings.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CustomerId, JobId, JobKind};
use crate::money::Msat;

/// A job request (NIP-90 kinds 5000–5999) as far as every kind has it in common. Debug shows none of what it asks.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRequest {
    /// The request event's id.
    pub id: JobId,
    /// The key that signed it.
    pub customer: CustomerId,
    /// What is asked.
    pub kind: JobKind,
    /// When the customer says it was written. Theirs, not to be trusted for order.
    pub created_at: Timestamp,
    /// When the customer stops caring (NIP-40). Not started afterwards.
    pub expires_at: Option<Timestamp>,
    /// The `i` tags in order.
    pub inputs: Vec<Input>,
    /// The `param` tags in order.
    pub params: Params,
    /// The wanted format, a media type (`output` tag).
    pub output: Option<String>,
    /// The most the customer pays.
    pub bid: Option<Msat>,
    /// Whether the request names us (`p` tag): then it gets an answer in any case.
    pub addressed: bool,
    /// Relays where the customer wants the answers, vetted and bounded.
    pub relays: Vec<String>,
    /// The scheme of an encrypted request; answers use the same.
    pub encryption: Option<Encryption>,
    /// The request event's JSON, for the result's `request` tag.
    pub event_json: String,
}

impl fmt::Debug for JobRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobRequest")
            .field("id", &self.id)
            .field("customer", &self.customer)
            .field("kind", &self.kind)
            .field("expires_at", &self.expires_at)
            .field("inputs", &self.inputs)
            .field("bid", &self.bid)
            .field("addressed", &self.addressed)
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
    }
}

impl JobRequest {
    /// The parameter that names where the customer wants credit paid back: a lightning address or an LNURL. Of every kind.
    pub const REFUND_PARAM: &'static str = "refund";

    /// Whether the customer has stopped caring at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// An encryption scheme of requests and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// NIP-44 version 2.
    Nip44,
    /// The legacy scheme, answered in kind because the customer can read nothing else.
    Nip04,
}

/// An input: an `i` tag. Debug shows how long the data is, not what it says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The text, the address, or the event id, as the type says.
    pub data: String,
    /// What `data` is.
    pub kind: InputKind,
    /// Where an event or job may be found.
    pub relay: Option<String>,
    /// What the input is for (`system`, `user`, `assistant`, `repo`, `diff`, …).
    pub marker: Option<String>,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("kind", &self.kind)
            .field("bytes", &self.data.len())
            .field("marker", &self.marker)
            .finish_non_exhaustive()
    }
}

/// What an input's data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputKind {
    /// The data itself (also written `prompt`).
    Text,
    /// An address to fetch.
    Url,
    /// A Nostr event's id; its content is the input.
    Event,
    /// Another job's request id; its result is the input.
    Job,
}

impl InputKind {
    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Url => "url",
            Self::Event => "event",
            Self::Job => "job",
        }
    }
}

/// The `param` tags: order kept, hyphen and underscore the same key, a repeated key kept each time.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Params(Vec<(String, Vec<String>)>);

impl fmt::Debug for Params {
    /// The keys alone: a value may be the prompt.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(key, _)| key)).finish()
    }
}

impl Params {
    /// The spelling every key is kept under: lower case, underscores.
    pub fn normal_key(key: &str) -> String {
        key.trim().to_ascii_lowercase().replace('-', "_")
    }

    /// Adds a parameter behind the others.
    pub fn push(&mut self, key: &str, values: Vec<String>) {
        self.0.push((Self::normal_key(key), values));
    }

    /// The first value of the first parameter of that (normal) key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).and_then(|(_, values)| values.first()).map(String::as_str)
    }

    /// The values of every parameter of that (normal) key, in order.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a [String]> + 'a {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, values)| values.as_slice())
    }

    /// Every parameter in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(key, values)| (key.as_str(), values.as_slice()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
