//! The one function the fuzz target and the property tests drive: bytes from a stranger through every reader.

use nostr::{Event, JsonUtil as _, Keys, SecretKey};

use super::{Codec, ReadLimits, encrypted, read_announcement};
use crate::identity::Signer;

/// The key whose holder reads: fixed, so that a found input stays a finding. Nobody's.
const FUZZED_KEY: [u8; 32] = [7; 32];

/// Reads bytes as an event in every way we read events. The rule that must hold: it returns.
pub fn fuzz_event(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        // What a customer encrypts is chosen as freely as what they sign.
        let _ = encrypted::private_tags(text);
    }
    if let Ok(event) = Event::from_json(bytes) {
        read_every_way(&codec(), &event);
    }
}

/// Reads an event as a provider, as a customer and as somebody who looks for providers.
pub(super) fn read_every_way(codec: &Codec, event: &Event) {
    let _ = codec.read(event);
    let _ = codec.read_answer(event);
    let _ = read_announcement(event);
}

/// The codec that reads.
pub(super) fn codec() -> Codec {
    let key = SecretKey::from_slice(&FUZZED_KEY).expect("thirty-two sevens are a valid secret key");
    Codec::new(Signer::new(Keys::new(key)), ReadLimits::default())
}
