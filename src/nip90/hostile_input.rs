//! No byte string and no list of tags makes a reader panic, in the clear or encrypted.

use proptest::prelude::*;

use super::fuzzing::{fuzz_event, read_every_way};
use super::test_parties::{codec, customer_keys, noon, provider_hex, provider_keys, signed_words};
use super::*;
use crate::nip90::encrypted::seal;

/// Names and values that steer the readers into their corners.
const PIECES: [&str; 42] = [
    "i",
    "input",
    "param",
    "output",
    "bid",
    "relays",
    "p",
    "e",
    "encrypted",
    "expiration",
    "status",
    "amount",
    "code",
    "seq",
    "queue",
    "tokens_per_second",
    "terms",
    "tokens",
    "truncated",
    "content",
    "d",
    "k",
    "a",
    "r",
    "t",
    "text",
    "url",
    "event",
    "job",
    "prompt",
    "",
    "-1",
    "100_000",
    "18446744073709551615",
    "1700000000000",
    "[\"wss://x\"]",
    "wss://[::ffff:127.0.0.1]",
    "note1",
    "lightning:",
    "\u{0}",
    "é\u{301}𝕏",
    "[[[[",
];

const KINDS: [u16; 16] =
    [0, 1, 5, 5000, 5050, 5930, 5933, 5999, 6050, 6930, 7000, 7007, 10_002, 11_998, 31_990, 65_535];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => proptest::sample::select(&PIECES[..]).prop_map(str::to_owned),
        2 => any::<String>(),
        1 => Just(provider_hex()),
        1 => "[0-9a-f]{64}",
        1 => "[a-z]{1,4}".prop_map(|word| word.repeat(40_000)),
    ]
}

fn tags() -> impl Strategy<Value = Vec<Vec<String>>> {
    proptest::collection::vec(proptest::collection::vec(word(), 0..6), 0..10)
}

/// Both parties read it: whatever is encrypted in it is for one of them.
fn read_by_both(event: &nostr::Event) {
    read_every_way(&codec(provider_keys()), event);
    read_every_way(&codec(customer_keys()), event);
    fuzz_event(nostr::JsonUtil::as_json(event).as_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn no_byte_string_panics_the_reader(bytes in any::<Vec<u8>>(), text in any::<String>()) {
        fuzz_event(&bytes);
        fuzz_event(text.as_bytes());
    }

    #[test]
    fn no_list_of_tags_panics_the_reader(
        kind in proptest::sample::select(&KINDS[..]), tags in tags(), content in word(),
    ) {
        read_by_both(&signed_words(&customer_keys(), kind, tags, &content, noon()));
    }

    #[test]
    fn nothing_encrypted_panics_the_reader(
        kind in proptest::sample::select(&KINDS[..]),
        clear in tags(),
        private in tags(),
        garbage in proptest::option::of(any::<String>()),
        legacy in any::<bool>(),
    ) {
        let scheme = if legacy { Encryption::Nip04 } else { Encryption::Nip44 };
        let plain = garbage.unwrap_or_else(|| serde_json::to_string(&private).expect("JSON"));
        let Ok(content) = seal(&customer_keys(), &provider_keys().public_key(), &plain, scheme) else { return Ok(()) };
        let mut tags = vec![vec!["p".to_owned(), provider_hex()], vec!["encrypted".to_owned()]];
        tags.extend(clear);
        read_by_both(&signed_words(&customer_keys(), kind, tags, &content, noon()));
    }

    #[test]
    fn no_damage_to_a_valid_event_panics_the_reader(
        place in any::<proptest::sample::Index>(), byte in any::<u8>(), cut in any::<proptest::sample::Index>(),
    ) {
        let tags = vec![
            vec!["i".to_owned(), "¿Qué?".to_owned(), "text".to_owned()],
            vec!["param".to_owned(), "top-k".to_owned(), "5".to_owned()],
            vec!["bid".to_owned(), "21000".to_owned()],
        ];
        let mut json = nostr::JsonUtil::as_json(&signed_words(&customer_keys(), 5050, tags, "", noon())).into_bytes();
        let place = place.index(json.len());
        json[place] = byte;
        fuzz_event(&json);
        fuzz_event(&json[..cut.index(json.len())]);
    }
}

#[test]
fn a_time_past_the_calendar_is_refused_and_not_followed() {
    let far = nostr::Timestamp::from_secs(u64::MAX);
    for kind in KINDS {
        let event = nostr::UnsignedEvent::new(
            customer_keys().public_key(),
            far,
            nostr::Kind::from_u16(kind),
            [
                nostr::Tag::parse(["e", &"a".repeat(64)]).expect("a tag"),
                nostr::Tag::parse(["status", "error"]).expect("a tag"),
            ],
            "{}",
        );
        read_by_both(&event.sign_with_keys(&customer_keys()).expect("signed"));
    }
}
