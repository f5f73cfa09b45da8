//! Content that only customer and provider can read: NIP-44 version 2, and NIP-04 for customers who know nothing else.
//!
//! The scheme of a request is seen from its content; every answer uses the same.

use nostr::nips::{nip04, nip44};
use nostr::{Keys, PublicKey};
use serde_json::Value;

use super::EncodeError;
use crate::job::Encryption;

/// What stands between ciphertext and nonce in NIP-04 content, and never in NIP-44's base64.
const NIP04_MARK: &str = "?iv=";

/// The most bytes NIP-44's two-byte length carries with the library's margin; NIP-04 is held to the same.
const MAX_PLAINTEXT_BYTES: usize = 65_536 - 128;

/// The scheme encrypted content is written in.
pub(super) fn scheme_of(content: &str) -> Encryption {
    if content.contains(NIP04_MARK) { Encryption::Nip04 } else { Encryption::Nip44 }
}

/// Whether content that does not say so looks encrypted in the legacy scheme.
pub(super) fn looks_like_nip04(content: &str) -> bool {
    let base64 = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
    content.trim().split_once(NIP04_MARK).is_some_and(|(text, nonce)| !text.is_empty() && base64(text) && base64(nonce))
}

/// Decrypts what `peer` wrote to us or we to them; `None` when it is not that.
pub(super) fn open(keys: &Keys, peer: &PublicKey, content: &str) -> Option<String> {
    let content = content.trim();
    match scheme_of(content) {
        Encryption::Nip44 => nip44::decrypt(keys.secret_key(), peer, content).ok(),
        Encryption::Nip04 => nip04::decrypt(keys.secret_key(), peer, content).ok(),
    }
}

/// Encrypts for `peer`. Nothing stays nothing: NIP-44 has no form for an empty text.
pub(super) fn seal(keys: &Keys, peer: &PublicKey, plain: &str, scheme: Encryption) -> Result<String, EncodeError> {
    if plain.is_empty() {
        return Ok(String::new());
    }
    match scheme {
        Encryption::Nip44 => nip44::encrypt(keys.secret_key(), peer, plain, nip44::Version::V2)
            .map_err(|error| EncodeError::Crypto(error.to_string())),
        Encryption::Nip04 => {
            nip04::encrypt(keys.secret_key(), peer, plain).map_err(|error| EncodeError::Crypto(error.to_string()))
        }
    }
}

/// The most bytes of plaintext whose ciphertext takes no more than `room` bytes of content.
pub(super) fn largest_plaintext(scheme: Encryption, room: usize) -> usize {
    // The ciphertext's length never falls as the plaintext grows, so halving finds the last that fits.
    let (mut fits, mut too_large) = (0, MAX_PLAINTEXT_BYTES + 1);
    while too_large - fits > 1 {
        let middle = fits + (too_large - fits) / 2;
        if sealed_bytes(scheme, middle) <= room { fits = middle } else { too_large = middle }
    }
    fits
}

/// Bytes of content a plaintext of `plain` bytes becomes. NIP-44 pads to an eighth of the next power of two.
fn sealed_bytes(scheme: Encryption, plain: usize) -> usize {
    let base64 = |bytes: usize| bytes.div_ceil(3) * 4;
    match scheme {
        Encryption::Nip44 => {
            let chunk = (plain.next_power_of_two() / 8).max(32);
            // Version, nonce, length, padded text, authentication code.
            base64(1 + 32 + 2 + plain.div_ceil(chunk).max(1) * chunk + 32)
        }
        Encryption::Nip04 => base64((plain / 16 + 1) * 16) + NIP04_MARK.len() + base64(16),
    }
}

/// A JSON array of tags, as encrypted content carries it. Numbers and truth values inside a tag become words, since
/// `["param","max_tokens",512]` is in the wild. `None` when it is anything else.
pub(super) fn private_tags(json: &str) -> Option<Vec<Vec<String>>> {
    let Ok(Value::Array(tags)) = serde_json::from_str::<Value>(json) else { return None };
    tags.into_iter().map(words).collect()
}

fn words(tag: Value) -> Option<Vec<String>> {
    let Value::Array(values) = tag else { return None };
    values
        .into_iter()
        .map(|value| match value {
            Value::String(word) => Some(word),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Null => Some(String::new()),
            Value::Array(_) | Value::Object(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMES: [Encryption; 2] = [Encryption::Nip44, Encryption::Nip04];

    #[test]
    fn what_is_sealed_is_opened_by_the_other_side_and_by_the_library() {
        let (alice, bob) = (Keys::generate(), Keys::generate());
        for scheme in SCHEMES {
            let sealed = seal(&alice, &bob.public_key(), "señal ⚡", scheme).expect("sealed");
            assert_eq!(scheme_of(&sealed), scheme);
            assert_eq!(open(&bob, &alice.public_key(), &sealed).as_deref(), Some("señal ⚡"));
            assert_eq!(open(&alice, &bob.public_key(), &sealed).as_deref(), Some("señal ⚡"));
            assert_eq!(open(&Keys::generate(), &alice.public_key(), &sealed), None);
        }
        let theirs = nip44::encrypt(bob.secret_key(), &alice.public_key(), "hi", nip44::Version::V2).expect("sealed");
        assert_eq!(open(&alice, &bob.public_key(), &theirs).as_deref(), Some("hi"));
        let theirs = nip04::encrypt(bob.secret_key(), &alice.public_key(), "hi").expect("sealed");
        assert_eq!(open(&alice, &bob.public_key(), &theirs).as_deref(), Some("hi"));
        assert!(looks_like_nip04(&theirs));
        assert!(!looks_like_nip04("what does ?iv=x mean"));
    }

    #[test]
    fn the_size_of_sealed_content_is_foreseen() {
        let (alice, bob) = (Keys::generate(), Keys::generate());
        for scheme in SCHEMES {
            for plain in [1, 15, 16, 31, 32, 33, 64, 65, 255, 256, 257, 320, 321, 1_024, 1_025, 40_000, 49_152, 65_408]
            {
                let sealed = seal(&alice, &bob.public_key(), &"x".repeat(plain), scheme).expect("sealed");
                assert_eq!(sealed.len(), sealed_bytes(scheme, plain), "{scheme:?} of {plain}");
            }
            for room in [0, 100, 200, 4_096, 60_000, 65_000, 1_000_000] {
                let most = largest_plaintext(scheme, room);
                assert!(most == 0 || sealed_bytes(scheme, most) <= room);
                assert!(most == MAX_PLAINTEXT_BYTES || sealed_bytes(scheme, most + 1) > room);
            }
        }
    }

    #[test]
    fn private_tags_are_lists_of_words_and_nothing_else() {
        let tags = private_tags(r#"[["param","max_tokens",512],["param","stream",true,null],[]]"#).expect("tags");
        assert_eq!(tags, [vec!["param", "max_tokens", "512"], vec!["param", "stream", "true", ""], vec![]]);
        for junk in ["", "{}", "[1]", r#"["i","x"]"#, r#"[["i",{}]]"#, "[[", r#"{"tags":[]}"#] {
            assert_eq!(private_tags(junk), None, "{junk}");
        }
        assert_eq!(private_tags(&"[".repeat(100_000)), None);
    }
}
