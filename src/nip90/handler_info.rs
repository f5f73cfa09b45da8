//! How a provider is found: the ad (NIP-89, kind 31990), the profile (kind 0), the relay list (NIP-65, kind 10002), the
//! heartbeat (kind 11998) and the withdrawal of an ad (NIP-09, kind 5).
//!
//! One ad a served kind, under an identifier that never changes, so that a new one replaces the old one on every relay.

use std::time::Duration;

use jiff::Timestamp;
use nostr::Event;
use serde_json::{Map, Value, json};

use super::draft::{Draft, Words, words};
use super::tags::{self, TagList, cut, plain_line};
use super::{Codec, EncodeError, SignedEvent, Unreadable, kinds, relay_address};
use crate::job::id::ProviderId;
use crate::job::{JobKind, Terms};
use crate::money::Msat;

/// How long a heartbeat stands. The largest client hides providers whose last beat is three times as old.
pub const HEARTBEAT_LIFE: Duration = Duration::from_secs(300);

/// Bytes of a line in somebody's ad (name, model, topic, address).
const MAX_LINE_BYTES: usize = 300;

/// Bytes of the description in somebody's ad.
const MAX_ABOUT_BYTES: usize = 4_000;

/// Bytes of a lightning address or LNURL in somebody's profile.
const MAX_PAYMENT_ADDRESS_BYTES: usize = 2_048;

/// Entries of a list in somebody's ad that are read.
const MAX_ENTRIES: usize = 64;

/// What jobs of one kind are offered, for whom to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ad {
    /// What kind of job.
    pub kind: JobKind,
    /// The provider's name.
    pub name: String,
    /// A few sentences for people.
    pub about: String,
    /// A picture's address.
    pub picture: Option<String>,
    /// A website's address.
    pub website: Option<String>,
    /// A lightning address.
    pub lud16: Option<String>,
    /// What it costs. Unstated in many ads.
    pub price: Option<AdPrice>,
    /// The parameters that are understood (`nip90Params`).
    pub params: Vec<AdParam>,
    /// The models on offer.
    pub models: Vec<String>,
    /// The terms of payment on offer.
    pub terms: Vec<Terms>,
    /// Topics to be found by (`t` tags).
    pub topics: Vec<String>,
    /// Whether encrypted requests are taken. Ours always are.
    pub encryption: bool,
}

/// A price in an ad. A quote decides; this is to choose by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdPrice {
    /// Nothing to pay.
    Free,
    /// From this much, in msat on the wire.
    From(Msat),
}

/// A parameter in an ad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdParam {
    /// Its name.
    pub name: String,
    /// Whether a request must give it.
    pub required: bool,
    /// The values to choose from; none means any.
    pub values: Vec<String>,
}

/// Who the provider is, for people (kind 0). Says that it is a program (`bot`, NIP-24).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// The name.
    pub name: String,
    /// A few sentences.
    pub about: String,
    /// A picture's address.
    pub picture: Option<String>,
    /// A website's address.
    pub website: Option<String>,
    /// A lightning address.
    pub lud16: Option<String>,
    /// A name at a domain (NIP-05).
    pub nip05: Option<String>,
}

/// "Still here": the ads that stand, and until when (kind 11998).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The identifiers (`d`) of the ads.
    pub ads: Vec<String>,
    /// When it stops counting.
    pub expires_at: Option<Timestamp>,
}

/// Something a provider says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Who: the key that signed.
    pub provider: ProviderId,
    /// When, by the provider's clock. Of two of a sort the later one counts.
    pub at: Timestamp,
    /// What.
    pub what: Announcement,
}

/// What a provider says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    /// An ad, under its identifier (`d`).
    Ad {
        /// The identifier.
        identifier: String,
        /// The ad.
        ad: Box<Ad>,
    },
    /// Its profile.
    Profile(Profile),
    /// The relays it reads and writes.
    RelayList(Vec<String>),
    /// A sign of life.
    Heartbeat(Heartbeat),
    /// Ads withdrawn, by identifier. Only the provider's own.
    Withdrawal(Vec<String>),
}

impl Ad {
    /// The identifier of our ad for a kind. Never changes: relays replace by it.
    pub fn identifier(kind: JobKind) -> String {
        format!("coinop-{}", kind.request_kind())
    }

    fn content(&self) -> Value {
        let mut content = people_part(&self.name, &self.about, &self.picture, &self.website, &self.lud16);
        match self.price {
            Some(AdPrice::Free) => drop(content.insert("amount".to_owned(), json!("free"))),
            Some(AdPrice::From(price)) => drop(content.insert("amount".to_owned(), json!(price.as_msat()))),
            None => {}
        }
        // Both spellings are in use.
        content.insert("encryptionSupported".to_owned(), json!(self.encryption));
        content.insert("supportsEncryption".to_owned(), json!(self.encryption));
        let params: Map<String, Value> = self
            .params
            .iter()
            .map(|param| (param.name.clone(), json!({ "required": param.required, "values": param.values })))
            .collect();
        content.insert("nip90Params".to_owned(), Value::Object(params));
        content.insert("models".to_owned(), json!(self.models));
        content.insert("terms".to_owned(), json!(self.terms));
        Value::Object(content)
    }
}

impl Codec {
    /// Writes an ad.
    ///
    /// # Errors
    /// [`EncodeError::Crypto`] when signing fails, here as below.
    pub fn ad(&self, ad: &Ad, at: Timestamp) -> Result<SignedEvent, EncodeError> {
        let mut tags = vec![words!["d", Ad::identifier(ad.kind)], words!["k", ad.kind.request_kind()]];
        tags.extend(ad.topics.iter().map(|topic| words!["t", topic]));
        self.sign(Draft { kind: kinds::AD, tags, content: ad.content().to_string() }, at)
    }

    /// Writes the profile.
    pub fn profile(&self, profile: &Profile, at: Timestamp) -> Result<SignedEvent, EncodeError> {
        let mut content =
            people_part(&profile.name, &profile.about, &profile.picture, &profile.website, &profile.lud16);
        if let Some(nip05) = &profile.nip05 {
            content.insert("nip05".to_owned(), json!(nip05));
        }
        content.insert("bot".to_owned(), json!(true));
        self.sign(Draft { kind: kinds::PROFILE, tags: Vec::new(), content: Value::Object(content).to_string() }, at)
    }

    /// Writes the relay list: each is read and written.
    pub fn relay_list(&self, relays: &[String], at: Timestamp) -> Result<SignedEvent, EncodeError> {
        let tags = relays.iter().map(|relay| words!["r", relay]).collect();
        self.sign(Draft { kind: kinds::RELAY_LIST, tags, content: String::new() }, at)
    }

    /// Writes a sign of life for the ads of these kinds. One event for all of them: relays keep only a key's latest.
    pub fn heartbeat(&self, served: &[JobKind], at: Timestamp) -> Result<SignedEvent, EncodeError> {
        let mut tags: Vec<Words> = served.iter().map(|kind| words!["d", Ad::identifier(*kind)]).collect();
        let expires = at
            .checked_add(HEARTBEAT_LIFE)
            .map_err(|_| EncodeError::BadOrder("a heartbeat can't end past the calendar".to_owned()))?;
        tags.push(words!["expiration", expires.as_second()]);
        self.sign(Draft { kind: kinds::HEARTBEAT, tags, content: String::new() }, at)
    }

    /// Withdraws the ads of these kinds.
    pub fn withdrawal(&self, served: &[JobKind], at: Timestamp) -> Result<SignedEvent, EncodeError> {
        let us = self.signer.provider_id();
        let mut tags: Vec<Words> =
            served.iter().map(|kind| words!["a", format!("{}:{us}:{}", kinds::AD, Ad::identifier(*kind))]).collect();
        tags.push(words!["k", kinds::AD]);
        self.sign(Draft { kind: kinds::DELETION, tags, content: String::new() }, at)
    }
}

/// The part of ad and profile that people read.
fn people_part(
    name: &str,
    about: &str,
    picture: &Option<String>,
    website: &Option<String>,
    lud16: &Option<String>,
) -> Map<String, Value> {
    let mut content = Map::new();
    content.insert("name".to_owned(), json!(name));
    content.insert("about".to_owned(), json!(about));
    for (key, value) in [("picture", picture), ("website", website), ("lud16", lud16)] {
        if let Some(value) = value {
            content.insert(key.to_owned(), json!(value));
        }
    }
    content
}

/// Reads what somebody says about themselves as a provider. Texts come out bounded and safe to print; what can't be read
/// is left out.
///
/// # Errors
/// [`Unreadable::UnknownKind`] for another kind of event, or an ad for kinds of job we don't know; [`Unreadable::Broken`]
/// for content that is no JSON object.
pub fn read_announcement(event: &Event) -> Result<Announced, Unreadable> {
    let tags = TagList::of(event);
    let what = match event.kind.as_u16() {
        kinds::AD => ad(event, &tags)?,
        kinds::PROFILE => Announcement::Profile(profile(&object(&event.content)?)),
        kinds::RELAY_LIST => {
            let written = tags.all("r").filter_map(|values| values.first()).map(String::as_str);
            Announcement::RelayList(relay_address::vetted_list(written, MAX_ENTRIES, true))
        }
        kinds::HEARTBEAT => Announcement::Heartbeat(Heartbeat {
            ads: identifiers(tags.all("d").filter_map(|values| values.first()).map(String::as_str)),
            expires_at: tags.value("expiration").and_then(tags::unix_seconds),
        }),
        kinds::DELETION => Announcement::Withdrawal(withdrawn(event, &tags)),
        other => return Err(Unreadable::UnknownKind(other)),
    };
    Ok(Announced {
        provider: ProviderId(event.pubkey.to_bytes()),
        at: tags::written_at(event).ok_or_else(|| Unreadable::Broken("its time is past the calendar".to_owned()))?,
        what,
    })
}

/// Where the author of a profile (kind 0) wants to be paid: the lightning address (`lud16`), else the LNURL (`lud06`).
/// Whether it is one is for the reader to find out.
pub fn read_payment_address(profile: &Event) -> Option<String> {
    let content = object(&profile.content).ok()?;
    let long = |key: &str| {
        let text = content.get(key)?.as_str()?.trim();
        (!text.is_empty() && text.len() <= MAX_PAYMENT_ADDRESS_BYTES).then(|| text.to_owned())
    };
    (profile.kind.as_u16() == kinds::PROFILE).then(|| long("lud16").or_else(|| long("lud06"))).flatten()
}

fn ad(event: &Event, tags: &TagList<'_>) -> Result<Announcement, Unreadable> {
    let kind = tags
        .all("k")
        .filter_map(|values| values.first())
        .find_map(|kind| JobKind::from_request_kind(tags::whole_number(kind)?))
        .ok_or(Unreadable::UnknownKind(kinds::AD))?;
    // An ad may leave its words to the profile.
    let content = if event.content.trim().is_empty() { Map::new() } else { object(&event.content)? };
    let people = profile(&content);
    let truth = |key: &str| content.get(key).is_some_and(|value| value == true || value == "true");
    let ad = Ad {
        kind,
        name: people.name,
        about: people.about,
        picture: people.picture,
        website: people.website,
        lud16: people.lud16,
        price: price(content.get("amount")),
        params: params(content.get("nip90Params")),
        models: lines(content.get("models")),
        terms: lines(content.get("terms")).iter().filter_map(|word| word.parse().ok()).collect(),
        topics: identifiers(tags.all("t").filter_map(|values| values.first()).map(String::as_str)),
        encryption: truth("encryptionSupported") || truth("supportsEncryption"),
    };
    let identifier = plain_line(tags.value("d").unwrap_or_default(), MAX_LINE_BYTES);
    Ok(Announcement::Ad { identifier, ad: Box::new(ad) })
}

fn profile(content: &Map<String, Value>) -> Profile {
    let line = |key: &str| line(content.get(key)?);
    Profile {
        name: line("name").or_else(|| line("display_name")).unwrap_or_default(),
        about: content.get("about").and_then(Value::as_str).map(paragraph).unwrap_or_default(),
        picture: line("picture").or_else(|| line("image")),
        website: line("website"),
        lud16: line("lud16"),
        nip05: line("nip05"),
    }
}

fn object(content: &str) -> Result<Map<String, Value>, Unreadable> {
    match serde_json::from_str(content) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(Unreadable::Broken("the content is no JSON object".to_owned())),
    }
}

fn line(value: &Value) -> Option<String> {
    value.as_str().map(|text| plain_line(text, MAX_LINE_BYTES)).filter(|text| !text.is_empty())
}

/// Text of several lines without anything that steers a terminal.
fn paragraph(text: &str) -> String {
    cut(text, MAX_ABOUT_BYTES).chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}

fn lines(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().take(MAX_ENTRIES).filter_map(line).collect()
}

fn identifiers<'a>(words: impl Iterator<Item = &'a str>) -> Vec<String> {
    words.take(MAX_ENTRIES).map(|word| plain_line(word, MAX_LINE_BYTES)).filter(|word| !word.is_empty()).collect()
}

fn price(amount: Option<&Value>) -> Option<AdPrice> {
    match amount? {
        Value::String(word) if word.trim().eq_ignore_ascii_case("free") => Some(AdPrice::Free),
        Value::String(digits) => tags::msat(digits).map(AdPrice::From),
        Value::Number(number) => number.as_u64().and_then(|msat| Msat::from_msat(msat).ok()).map(AdPrice::From),
        _ => None,
    }
}

fn params(value: Option<&Value>) -> Vec<AdParam> {
    let Some(Value::Object(params)) = value else { return Vec::new() };
    params
        .iter()
        .take(MAX_ENTRIES)
        .map(|(name, param)| AdParam {
            name: plain_line(name, MAX_LINE_BYTES),
            required: param.get("required").is_some_and(|value| value == true),
            values: lines(param.get("values")),
        })
        .collect()
}

/// The identifiers of the author's own ads among the `a` tags of a deletion; others' can't be withdrawn.
fn withdrawn(event: &Event, tags: &TagList<'_>) -> Vec<String> {
    let own = format!("{}:{}:", kinds::AD, event.pubkey.to_hex());
    let addresses = tags.all("a").filter_map(|values| values.first());
    identifiers(addresses.filter_map(|address| address.trim().strip_prefix(own.as_str())))
}
