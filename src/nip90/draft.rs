//! Writing events: words become tags, a draft becomes a signed event, and what is written fits where relays will take it.

use jiff::Timestamp;
use nostr::hashes::{Hash as _, sha256};
use nostr::{JsonUtil as _, Kind, Tag, UnsignedEvent};

use super::tags::cut;
use super::{Codec, EncodeError, SignedEvent, encrypted};
use crate::job::Encryption;
use crate::job::id::EventId;

/// Bytes an answer may take beside its output: tags, invoice, the echo of the request. With the default limit on the
/// output it makes 64 KiB, what relays commonly take.
const ROOM_BESIDE_OUTPUT_BYTES: usize = 16 * 1024;

/// Bytes of an event's JSON that are the same in every event: keys, id, key, signature, time, kind.
const FRAME_BYTES: usize = 400;

/// One tag to be written.
pub(super) type Words = Vec<String>;

/// A tag from its words.
macro_rules! words {
    ($($word:expr),+ $(,)?) => { vec![$(::std::string::ToString::to_string(&$word)),+] };
}
pub(super) use words;

/// An event before it is signed. No Debug: it may hold prompts and results.
pub(super) struct Draft {
    pub(super) kind: u16,
    pub(super) tags: Vec<Words>,
    pub(super) content: String,
}

impl Codec {
    /// Signs a draft. The id follows from key, time, kind, tags and content alone, so the same draft at the same time is
    /// the same event.
    pub(super) fn sign(&self, draft: Draft, at: Timestamp) -> Result<SignedEvent, EncodeError> {
        let keys = self.signer.keys();
        let at = u64::try_from(at.as_second())
            .map_err(|_| EncodeError::BadOrder("an event can't be written before 1970".to_owned()))?;
        let tags: Vec<Tag> = draft.tags.into_iter().filter_map(|words| Tag::parse(words).ok()).collect();
        let unsigned = UnsignedEvent::new(
            keys.public_key(),
            nostr::Timestamp::from_secs(at),
            Kind::from_u16(draft.kind),
            tags,
            draft.content,
        );
        let event = unsigned.sign_with_keys(keys).map_err(|error| EncodeError::Crypto(error.to_string()))?;
        let json = event.try_as_json().map_err(|error| EncodeError::Crypto(error.to_string()))?;
        Ok(SignedEvent { id: EventId(event.id.to_bytes()), kind: draft.kind, json })
    }

    /// The part of an output that fits into one event beside these tags, sealed or not. What is cut is said in another tag.
    pub(super) fn payload<'a>(&self, whole: &'a str, scheme: Option<Encryption>, tags: &mut Vec<Words>) -> &'a str {
        let fit = |tags: &[Words]| {
            let room = self.room_beside(tags);
            match scheme {
                None => fitting(whole, self.max_result_bytes, room),
                Some(scheme) => cut(whole, encrypted::largest_plaintext(scheme, room).min(self.max_result_bytes)),
            }
        };
        if fit(tags).len() < whole.len() {
            tags.push(truncated(whole));
        }
        fit(tags)
    }

    /// Bytes an answer's JSON may still take when it holds these tags.
    pub(super) fn room_beside(&self, tags: &[Words]) -> usize {
        let most = self.max_result_bytes.saturating_add(ROOM_BESIDE_OUTPUT_BYTES);
        most.saturating_sub(FRAME_BYTES).saturating_sub(tags.iter().map(tag_bytes).sum())
    }
}

/// Bytes of a tag in an event's JSON.
pub(super) fn tag_bytes(words: &Words) -> usize {
    // Brackets and a comma, and two quotes and a comma for each word.
    3 + words.iter().map(|word| escaped_bytes(word) + 3).sum::<usize>()
}

/// Bytes of a text inside a JSON string.
pub(super) fn escaped_bytes(text: &str) -> usize {
    text.chars().map(escaped_char_bytes).sum()
}

fn escaped_char_bytes(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    }
}

/// The start of a text that takes at most `max_bytes` as it is and `max_escaped` inside a JSON string, in whole
/// characters.
pub(super) fn fitting(text: &str, max_bytes: usize, max_escaped: usize) -> &str {
    let text = cut(text, max_bytes);
    let mut escaped = 0;
    for (start, c) in text.char_indices() {
        escaped += escaped_char_bytes(c);
        if escaped > max_escaped {
            return &text[..start];
        }
    }
    text
}

/// `["truncated", full size, SHA-256]` for a text of which only a part is sent: the whole can be asked for and checked.
pub(super) fn truncated(whole: &str) -> Words {
    words!["truncated", whole.len(), sha256::Hash::hash(whole.as_bytes())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_json_is_foreseen_to_the_byte() {
        let odd = "a\"\\\n\r\t\u{8}\u{c}\u{1}\u{7f}é⚡𝕏\u{2028}";
        let json = serde_json::to_string(odd).expect("a string is JSON");
        assert_eq!(escaped_bytes(odd), json.len() - 2);
        assert_eq!(fitting("ab\ncd", 10, 4), "ab\n");
        assert_eq!(fitting("ab\ncd", 10, 3), "ab");
        assert_eq!(fitting("aé", 2, 10), "a");
    }
}
