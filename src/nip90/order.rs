//! Writing a job request: one spelling, and nothing that would come back as a refusal.

use jiff::Timestamp;
use nostr::PublicKey;

use super::draft::{Draft, Words, words};
use super::{Codec, EncodeError, Order, SignedEvent, encrypted, relay_address, tags};
use crate::job::{Encryption, Input, InputKind};

impl Codec {
    /// Writes an order. Inputs and parameters go into the encrypted content when it is to be read by its provider alone;
    /// everything a relay or another provider needs to pass it on stays in the clear.
    ///
    /// # Errors
    /// [`EncodeError::BadOrder`] names what contradicts itself; [`EncodeError::Crypto`] when signing or encrypting fails.
    pub fn request(&self, order: &Order, at: Timestamp) -> Result<SignedEvent, EncodeError> {
        let mut private = Vec::new();
        for (place, input) in order.inputs.iter().enumerate() {
            private.push(input_words(input).map_err(|why| bad(format!("input {}: {why}", place + 1)))?);
        }
        for (key, values) in order.params.iter() {
            if key.is_empty() || values.is_empty() {
                return Err(bad("param: a parameter needs a name and a value"));
            }
            private.push(["param", key].into_iter().map(str::to_owned).chain(values.iter().cloned()).collect());
        }
        let (mut tags, content) = match order.encryption {
            None => (private, String::new()),
            Some(scheme) => (Vec::new(), self.sealed(order, &private, scheme)?),
        };
        tags.extend(open_words(order)?);
        self.sign(Draft { kind: order.kind.request_kind(), tags, content }, at)
    }

    fn sealed(&self, order: &Order, private: &[Words], scheme: Encryption) -> Result<String, EncodeError> {
        let [provider] = order.providers.as_slice() else {
            return Err(bad("an encrypted order goes to exactly one provider; name one"));
        };
        let plain = serde_json::to_string(private).map_err(|error| EncodeError::Crypto(error.to_string()))?;
        let most = encrypted::largest_plaintext(scheme, usize::MAX);
        if plain.len() > most {
            return Err(bad(format!(
                "the inputs are {} bytes; at most {most} can be encrypted: shorten them or send a url",
                plain.len()
            )));
        }
        encrypted::seal(self.signer.keys(), &PublicKey::from_byte_array(provider.0), &plain, scheme)
    }
}

/// The tags that are never encrypted.
fn open_words(order: &Order) -> Result<Vec<Words>, EncodeError> {
    let mut tags = Vec::new();
    if let Some(output) = &order.output {
        tags.push(words!["output", output]);
    }
    if let Some(bid) = order.bid {
        tags.push(words!["bid", bid.as_msat()]);
    }
    if !order.relays.is_empty() {
        let mut relays = words!["relays"];
        for relay in &order.relays {
            // Our own relays may well be on our own network.
            relays.push(relay_address::vetted(relay, true).map_err(|why| bad(format!("relay {relay}: {why}")))?);
        }
        tags.push(relays);
    }
    tags.extend(order.providers.iter().map(|provider| words!["p", provider]));
    if let Some(at) = order.expires_at {
        tags.push(words!["expiration", at.as_second()]);
    }
    if order.encryption.is_some() {
        tags.push(words!["encrypted"]);
    }
    Ok(tags)
}

/// `["i", data, type, relay?, marker?]`; an absent relay before a marker is empty.
pub(super) fn input_words(input: &Input) -> Result<Words, String> {
    let mut tag = words!["i", input.data, input.kind.word()];
    match input.kind {
        InputKind::Text if input.data.is_empty() => return Err("it is empty".to_owned()),
        InputKind::Url if url::Url::parse(&input.data).is_err() => {
            return Err("it is no address; write https://…".to_owned());
        }
        InputKind::Event | InputKind::Job if tags::event_id(&input.data).is_none() => {
            return Err("it is no event id; write its 64 hexadecimal digits".to_owned());
        }
        _ => {}
    }
    if input.relay.is_some() || input.marker.is_some() {
        tag.push(input.relay.clone().unwrap_or_default());
    }
    tag.extend(input.marker.clone());
    Ok(tag)
}

fn bad(text: impl Into<String>) -> EncodeError {
    EncodeError::BadOrder(text.into())
}
