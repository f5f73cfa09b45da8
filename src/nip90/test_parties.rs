//! A customer and a provider with fixed keys (the secrets are 32 times the byte 1 and the byte 2), as in the examples of
//! `nips/`.

use jiff::Timestamp;
use nostr::{Event, JsonUtil as _, Keys, Kind, SecretKey, Tag, UnsignedEvent};

use super::{Codec, ReadLimits, SignedEvent};
use crate::identity::Signer;

fn keys(byte: u8) -> Keys {
    Keys::new(SecretKey::from_slice(&[byte; 32]).expect("a valid secret key"))
}

pub(super) fn customer_keys() -> Keys {
    keys(1)
}

pub(super) fn provider_keys() -> Keys {
    keys(2)
}

pub(super) fn provider_hex() -> String {
    provider_keys().public_key().to_hex()
}

pub(super) fn codec(keys: Keys) -> Codec {
    Codec::new(Signer::new(keys), ReadLimits::default())
}

pub(super) fn customer() -> Codec {
    codec(customer_keys())
}

pub(super) fn provider() -> Codec {
    codec(provider_keys())
}

/// The time of every example.
pub(super) fn noon() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

/// An event as a stranger's client would write it.
pub(super) fn signed(keys: &Keys, kind: u16, tags: &[&[&str]], content: &str) -> Event {
    let tags = tags.iter().map(|words| words.iter().map(|word| (*word).to_owned()).collect()).collect();
    signed_words(keys, kind, tags, content, noon())
}

pub(super) fn signed_words(keys: &Keys, kind: u16, tags: Vec<Vec<String>>, content: &str, at: Timestamp) -> Event {
    let at = nostr::Timestamp::from_secs(u64::try_from(at.as_second()).expect("after 1970"));
    let tags: Vec<Tag> = tags.into_iter().filter_map(|words| Tag::parse(words).ok()).collect();
    UnsignedEvent::new(keys.public_key(), at, Kind::from_u16(kind), tags, content).sign_with_keys(keys).expect("signed")
}

/// What we wrote, as another program gets it from a relay.
pub(super) fn received(event: &SignedEvent) -> Event {
    let received = Event::from_json(&event.json).expect("an event");
    received.verify().expect("a valid id and signature");
    assert_eq!(received.id.to_bytes(), event.id.0);
    assert_eq!(received.kind.as_u16(), event.kind);
    received
}

/// An event's tags as words.
pub(super) fn tags_of(event: &Event) -> Vec<Vec<String>> {
    event.tags.iter().map(|tag| tag.as_slice().to_vec()).collect()
}
