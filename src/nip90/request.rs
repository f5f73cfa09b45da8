//! Reading a job request (NIP-90, kinds 5000–5999): leniently in spelling, strictly in meaning.
//!
//! Whatever is wrong becomes a refusal that names the field and the cure. It carries where an answer goes, because a
//! customer who named us hears about it however broken the rest is.

use nostr::{Event, JsonUtil as _};

use super::encrypted::{self, looks_like_nip04};
use super::tags::{self, Addressing, TagList, quoted};
use super::{Codec, Incoming, ReadLimits, ReplyTo, Unreadable, kinds, relay_address};
use crate::job::{CustomerId, Encryption, Input, InputKind, JobId, JobKind, JobRequest, Params, Refusal};
use crate::money::Msat;

/// Bytes of a parameter's name.
const MAX_KEY_BYTES: usize = 64;

/// Bytes of an input's marker.
const MAX_MARKER_BYTES: usize = 64;

/// Bytes of the wanted output format.
const MAX_OUTPUT_BYTES: usize = 128;

impl Codec {
    /// Reads an event a stranger sent. Its id and signature have been checked by the relay intake; nothing else has.
    ///
    /// # Errors
    /// [`Unreadable`] says why it is not taken, and where an answer goes when one is due.
    pub fn read(&self, event: &Event) -> Result<Incoming, Unreadable> {
        match event.kind.as_u16() {
            kinds::DELETION => self.read_cancellation(event),
            kinds::PING => self.read_ping(event),
            kinds::ZAP_RECEIPT => self.read_zap(event),
            kind @ kinds::FIRST_REQUEST..=kinds::LAST_REQUEST => self.read_request(event, kind),
            other => Err(Unreadable::UnknownKind(other)),
        }
    }

    fn read_request(&self, event: &Event, number: u16) -> Result<Incoming, Unreadable> {
        let clear = TagList::of(event);
        let addressed = match tags::addressing(&clear, &self.signer.keys().public_key()) {
            Addressing::Others => return Err(Unreadable::NotForUs),
            Addressing::Us => true,
            Addressing::Anybody => false,
        };
        let kind = JobKind::from_request_kind(number);
        if kind.is_none() && !addressed {
            return Err(Unreadable::UnknownKind(number));
        }
        let mut to = ReplyTo {
            job: JobId(event.id.to_bytes()),
            customer: CustomerId(event.pubkey.to_bytes()),
            addressed,
            encryption: clear.has("encrypted").then(|| encrypted::scheme_of(&event.content)),
            relays: relays(&clear, &self.limits),
        };
        let refused = |to: &ReplyTo, refusal| Unreadable::Refused { to: Box::new(to.clone()), refusal };
        let Some(kind) = kind else {
            return Err(refused(
                &to,
                Refusal::unsupported(format!("kind: jobs of kind {number} are not offered here")),
            ));
        };
        let private = match to.encryption {
            None => Vec::new(),
            Some(scheme) => self.private_part(event, scheme, addressed).map_err(|refusal| refused(&to, refusal))?,
        };
        let all = clear.followed_by(&private);
        if !private.is_empty() {
            to.relays = relays(&all, &self.limits);
        }
        let request = self.request_from(event, kind, &to, &all).map_err(|refusal| refused(&to, refusal))?;
        Ok(Incoming::Request(Box::new(request)))
    }

    /// The tags in the encrypted content.
    fn private_part(&self, event: &Event, scheme: Encryption, addressed: bool) -> Result<Vec<Vec<String>>, Refusal> {
        if !addressed {
            return Err(Refusal::bad_request(
                "p: an encrypted request must name the one provider who can read it; add a `p` tag",
            ));
        }
        let name = match scheme {
            Encryption::Nip44 => "NIP-44 version 2",
            Encryption::Nip04 => "NIP-04",
        };
        let plain = encrypted::open(self.signer.keys(), &event.pubkey, &event.content).ok_or_else(|| {
            Refusal::bad_request(format!(
                "content: it could not be decrypted as {name}; encrypt it from the key that signs the request to ours"
            ))
        })?;
        encrypted::private_tags(&plain).ok_or_else(|| {
            Refusal::bad_request(
                "content: the decrypted text is no JSON array of tags; write it like [[\"i\",\"…\",\"text\"],[\"param\",\"…\",\"…\"]]",
            )
        })
    }

    fn request_from(
        &self,
        event: &Event,
        kind: JobKind,
        to: &ReplyTo,
        all: &TagList<'_>,
    ) -> Result<JobRequest, Refusal> {
        let limits = &self.limits;
        let created_at = tags::written_at(event)
            .ok_or_else(|| Refusal::bad_request("created_at: it is past the calendar; write unix seconds"))?;
        let listed = all.iter().filter(|(name, _)| matches!(*name, "i" | "input" | "param")).count();
        if listed > limits.max_tags {
            return Err(Refusal::bad_request(format!(
                "tags: {listed} `i` and `param` tags are more than the {} taken; send fewer",
                limits.max_tags
            )));
        }
        let mut inputs = inputs(all, limits)?;
        let mut params = params(all, limits)?;
        if kind == JobKind::TextGeneration && inputs.is_empty() {
            let content = if to.encryption.is_none() { event.content.trim() } else { "" };
            inputs.extend(lone_prompt(&mut params, content, limits)?);
        }
        let mut kept = Params::default();
        for (key, values) in params {
            kept.push(&key, values);
        }
        Ok(JobRequest {
            id: to.job,
            customer: to.customer,
            kind,
            created_at,
            expires_at: expiration(all)?,
            inputs,
            params: kept,
            output: output(all)?,
            bid: bid(all)?,
            addressed: to.addressed,
            relays: to.relays.clone(),
            encryption: to.encryption,
            event_json: event
                .try_as_json()
                .map_err(|_| Refusal::bad_request("event: it can't be written as JSON; send it again"))?,
        })
    }
}

/// The relays of the `relays` tags, vetted. A list as one JSON text is in the wild and understood.
pub(super) fn relays(tags: &TagList<'_>, limits: &ReadLimits) -> Vec<String> {
    let written: Vec<String> =
        tags.all("relays").flatten().take(limits.max_tags).flat_map(|word| relay_words(word)).collect();
    relay_address::vetted_list(written.iter().map(String::as_str), limits.max_relays, limits.allow_private_relays)
}

fn relay_words(word: &str) -> Vec<String> {
    if word.trim_start().starts_with('[') {
        serde_json::from_str(word).unwrap_or_default()
    } else {
        vec![word.to_owned()]
    }
}

/// A text field within the limits, by the name it is known under.
fn bounded<'a>(field: &str, value: &'a str, max_bytes: usize) -> Result<&'a str, Refusal> {
    if value.len() > max_bytes {
        let found = value.len();
        return Err(Refusal::bad_request(format!(
            "{field}: {found} bytes are more than the {max_bytes} taken; shorten it"
        )));
    }
    Ok(value)
}

fn inputs(tags: &TagList<'_>, limits: &ReadLimits) -> Result<Vec<Input>, Refusal> {
    let mut inputs = Vec::new();
    let written = tags.iter().filter(|(name, _)| matches!(*name, "i" | "input"));
    for (place, (name, values)) in written.enumerate() {
        let field = format!("input {}", place + 1);
        let input = input(&field, name, values, limits)?;
        // An empty text says nothing; clients send one beside a prompt in another place.
        if input.kind != InputKind::Text || !input.data.is_empty() {
            inputs.push(input);
        }
    }
    Ok(inputs)
}

/// `["i", data, type?, relay?, marker?]`, or as it is also seen `["input", type, data, …]`.
fn input(field: &str, name: &str, values: &[String], limits: &ReadLimits) -> Result<Input, Refusal> {
    let word = |place: usize| values.get(place).map_or("", |value| value.trim());
    let type_first = name == "input" && values.len() > 1 && kind_of(word(0)).is_some() && kind_of(word(1)).is_none();
    let (data, type_word) = match values {
        [] => {
            return Err(Refusal::bad_request(format!(
                "{field}: the `{name}` tag holds nothing; write [\"i\", data, \"text\"]"
            )));
        }
        [kind, data, ..] if type_first => (data, kind.trim()),
        [data, ..] => (data, word(1)),
    };
    let kind = if type_word.is_empty() { Some(InputKind::Text) } else { kind_of(type_word) };
    let kind = kind.ok_or_else(|| {
        Refusal::unsupported(format!("{field}: {} is no type of input; use text, url, event or job", quoted(type_word)))
    })?;
    bounded(field, data, limits.max_value_bytes)?;
    let data = match kind {
        InputKind::Text => data.clone(),
        InputKind::Url => url(field, data)?,
        InputKind::Event | InputKind::Job => event_reference(field, kind, data)?,
    };
    // A word where the relay belongs is a marker that somebody put one place too early.
    let (relay, marker) = match (word(2), word(3)) {
        (early, "") if is_marker_word(early) => ("", early),
        places => places,
    };
    bounded(&format!("{field}, marker"), marker, MAX_MARKER_BYTES)?;
    Ok(Input {
        data,
        kind,
        // Only a hint: one that can't be used is no reason to refuse, the event is then looked for elsewhere.
        relay: relay_address::vetted(relay, limits.allow_private_relays).ok(),
        marker: (!marker.is_empty()).then(|| marker.to_ascii_lowercase()),
    })
}

fn kind_of(word: &str) -> Option<InputKind> {
    match word.to_ascii_lowercase().as_str() {
        "text" | "prompt" => Some(InputKind::Text),
        "url" => Some(InputKind::Url),
        "event" => Some(InputKind::Event),
        "job" => Some(InputKind::Job),
        _ => None,
    }
}

fn is_marker_word(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= MAX_MARKER_BYTES
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// An absolute address with a host. Which schemes and hosts are fetched is for the fetcher to say.
fn url(field: &str, data: &str) -> Result<String, Refusal> {
    let data = data.trim();
    match url::Url::parse(data) {
        Ok(url) if url.has_host() => Ok(data.to_owned()),
        _ => Err(Refusal::bad_request(format!("{field}: {} is no address; write https://…", quoted(data)))),
    }
}

/// An event's id in hex; `note1…` and `nevent1…`, with or without `nostr:`, are understood.
fn event_reference(field: &str, kind: InputKind, data: &str) -> Result<String, Refusal> {
    let data = data.trim();
    let id = tags::event_id(data).or_else(|| {
        let bech32 = data.strip_prefix("nostr:").unwrap_or(data);
        let known = bech32.starts_with("note1") || bech32.starts_with("nevent1");
        known.then(|| nostr::EventId::parse(bech32).ok()).flatten().map(|id| crate::job::id::EventId(id.to_bytes()))
    });
    id.map(|id| id.to_string()).ok_or_else(|| {
        Refusal::bad_request(format!(
            "{field}: {} is no event id, which an input of type {} needs; write its 64 hexadecimal digits",
            quoted(data),
            kind.word()
        ))
    })
}

fn params(tags: &TagList<'_>, limits: &ReadLimits) -> Result<Vec<(String, Vec<String>)>, Refusal> {
    tags.all("param").map(|values| param(values, limits)).collect()
}

fn param(values: &[String], limits: &ReadLimits) -> Result<(String, Vec<String>), Refusal> {
    let (key, values) = values.split_first().map_or(("", values), |(key, values)| (key.trim(), values));
    if key.is_empty() {
        return Err(Refusal::bad_request("param: a `param` tag has no name; write [\"param\", name, value]"));
    }
    bounded("param name", key, MAX_KEY_BYTES)?;
    let field = format!("param {}", quoted(key));
    if values.is_empty() {
        return Err(Refusal::bad_request(format!("{field}: it has no value; give one or leave the tag out")));
    }
    if values.len() > limits.max_tags {
        return Err(Refusal::bad_request(format!("{field}: more than {} values; give fewer", limits.max_tags)));
    }
    for value in values {
        bounded(&field, value, limits.max_value_bytes)?;
    }
    Ok((key.to_owned(), values.to_vec()))
}

/// The prompt of a text generation request without inputs: `["param","prompt",…]`, or the content.
fn lone_prompt(
    params: &mut Vec<(String, Vec<String>)>,
    content: &str,
    limits: &ReadLimits,
) -> Result<Option<Input>, Refusal> {
    let is_prompt = |(key, _): &(String, Vec<String>)| Params::normal_key(key) == "prompt";
    let prompt = match params.iter().position(is_prompt) {
        Some(place) => params.remove(place).1.join("\n"),
        None if looks_like_nip04(content) => {
            return Err(Refusal::bad_request(
                "content: it looks encrypted, but the request has no [\"encrypted\"] tag; add it",
            ));
        }
        None => content.to_owned(),
    };
    if prompt.is_empty() {
        return Ok(None);
    }
    bounded("prompt", &prompt, limits.max_value_bytes)?;
    Ok(Some(Input { data: prompt, kind: InputKind::Text, relay: None, marker: None }))
}

fn output(tags: &TagList<'_>) -> Result<Option<String>, Refusal> {
    let Some(written) = tags.value("output").filter(|output| !output.is_empty()) else { return Ok(None) };
    bounded("output", written, MAX_OUTPUT_BYTES)?;
    if !written.contains('/') || written.chars().any(char::is_control) {
        return Err(Refusal::bad_request(format!(
            "output: {} is no media type; write one such as text/plain",
            quoted(written)
        )));
    }
    Ok(Some(written.to_ascii_lowercase()))
}

/// The most the customer pays. An old form gives two amounts, the wanted and the highest: the larger one counts.
fn bid(tags: &TagList<'_>) -> Result<Option<Msat>, Refusal> {
    let Some(values) = tags.first("bid") else { return Ok(None) };
    let amounts: Result<Vec<Msat>, Refusal> = values
        .iter()
        .take(2)
        .filter(|value| !value.trim().is_empty())
        .map(|value| {
            tags::msat(value).ok_or_else(|| {
                Refusal::bad_request(format!(
                    "bid: {} is no amount; write whole millisatoshis in digits, such as 21000",
                    quoted(value)
                ))
            })
        })
        .collect();
    match amounts?.into_iter().max() {
        Some(bid) => Ok(Some(bid)),
        None => Err(Refusal::bad_request("bid: it is empty; write whole millisatoshis or leave the tag out")),
    }
}

fn expiration(tags: &TagList<'_>) -> Result<Option<jiff::Timestamp>, Refusal> {
    let Some(written) = tags.value("expiration") else {
        return if tags.has("expiration") { Err(bad_expiration("")) } else { Ok(None) };
    };
    tags::unix_seconds(written).map(Some).ok_or_else(|| bad_expiration(written))
}

fn bad_expiration(written: &str) -> Refusal {
    Refusal::bad_request(format!(
        "expiration: {} is no time; write unix seconds in digits, such as 1800000000",
        quoted(written)
    ))
}

#[cfg(test)]
mod tests;
