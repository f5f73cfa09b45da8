//! The examples in `nips/` are read and written again: what comes out is what stands there.
//!
//! Examples have no signature: they are signed here by the key they name. JSON that the wire carries as a string (an ad's
//! content, the `request` tag) stands there as JSON and is compared as such.

use std::collections::BTreeMap;

use nostr::{Event, Keys};
use serde_json::Value;

use super::test_parties::{customer, customer_keys, provider, provider_keys, received, signed_words, tags_of};
use super::*;
use crate::job::JobRequest;

const PAGES: [(&str, &str); 10] = [
    ("5050.md", include_str!("../../nips/5050.md")),
    ("5931.md", include_str!("../../nips/5931.md")),
    ("5932.md", include_str!("../../nips/5932.md")),
    ("5933.md", include_str!("../../nips/5933.md")),
    ("7000.md", include_str!("../../nips/7000.md")),
    ("encryption.md", include_str!("../../nips/encryption.md")),
    ("nip89.md", include_str!("../../nips/nip89.md")),
    ("README.md", include_str!("../../nips/README.md")),
    ("5930.md", include_str!("../../nips/5930.md")),
    ("files.md", include_str!("../../nips/files.md")),
];

/// A fenced block: what stands behind the fence, and the JSON.
struct Block {
    info: String,
    json: Value,
}

fn blocks(name: &str, page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(info) = line.strip_prefix("```json") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let json = serde_json::from_str(&text.join("\n")).unwrap_or_else(|error| panic!("{name}: {error}"));
            blocks.push(Block { info: info.trim().to_owned(), json });
        }
    }
    blocks
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn keys_of(example: &Value) -> Keys {
    let author = text_of(&example["pubkey"]);
    [customer_keys(), provider_keys()]
        .into_iter()
        .find(|keys| keys.public_key().to_hex() == author)
        .unwrap_or_else(|| panic!("{author} is neither the customer nor the provider of the examples"))
}

/// The event an example shows, signed by the key it names.
fn event_of(example: &Value) -> Event {
    let words = |tag: &Value| tag.as_array().expect("a tag is a list").iter().map(text_of).collect();
    let tags = example["tags"].as_array().expect("tags are a list").iter().map(words).collect();
    let kind = u16::try_from(example["kind"].as_u64().expect("a kind")).expect("a kind");
    let at = example["created_at"].as_i64().and_then(|at| Timestamp::from_second(at).ok()).expect("a time");
    signed_words(&keys_of(example), kind, tags, &text_of(&example["content"]), at)
}

fn request_of(event: &Event) -> JobRequest {
    match provider().read(event) {
        Ok(Incoming::Request(request)) => *request,
        other => panic!("no request: {other:?}"),
    }
}

fn order_of(request: &JobRequest) -> Order {
    Order {
        kind: request.kind,
        inputs: request.inputs.clone(),
        params: request.params.clone(),
        output: request.output.clone(),
        bid: request.bid,
        providers: if request.addressed { vec![provider().signer.provider_id()] } else { Vec::new() },
        relays: request.relays.clone(),
        expires_at: request.expires_at,
        encryption: request.encryption,
    }
}

/// Reads an example and writes what was read.
fn rewritten(event: &Event, requests: &BTreeMap<JobId, JobRequest>) -> SignedEvent {
    let at = Timestamp::from_second(i64::try_from(event.created_at.as_secs()).expect("a time")).expect("a time");
    let written = match event.kind.as_u16() {
        kinds::DELETION if tags_of(event).iter().any(|tag| tag[0] == "a") => rewritten_announcement(event, at),
        kinds::DELETION => {
            let Ok(Incoming::Cancel { jobs, .. }) = provider().read(event) else { panic!("no cancellation") };
            let request = &requests[&jobs[0]];
            assert_eq!(request.customer.0, event.pubkey.to_bytes());
            customer().cancellation(request.id, request.kind, at)
        }
        kinds::PING => {
            let Ok(Incoming::Ping { to }) = provider().read(event) else { panic!("no ping") };
            customer().ping(provider().signer.provider_id(), &to.relays, at)
        }
        kinds::FIRST_REQUEST..=kinds::LAST_REQUEST => customer().request(&order_of(&request_of(event)), at),
        6_000..=kinds::FEEDBACK => rewritten_answer(event, requests, at),
        kinds::FILE_PERMIT => {
            let tag = |name: &str| tags_of(event).into_iter().find(|tag| tag[0] == name).expect("a tag")[1].clone();
            let until = tag("expiration").parse().ok().and_then(|at| Timestamp::from_second(at).ok());
            provider().upload_permit(&tag("x"), at, until.expect("a time"))
        }
        _ => rewritten_announcement(event, at),
    };
    written.expect("written")
}

fn rewritten_answer(
    event: &Event,
    requests: &BTreeMap<JobId, JobRequest>,
    at: Timestamp,
) -> Result<SignedEvent, EncodeError> {
    let answer = customer().read_answer(event).expect("an answer");
    match answer.body {
        AnswerBody::Result(result) => provider().result(&requests[&answer.job], &result, at),
        AnswerBody::Feedback(feedback) => {
            let tags = tags_of(event);
            let hint = tags.iter().find(|tag| tag[0] == "e").and_then(|tag| tag.get(2)).cloned();
            let to = ReplyTo {
                job: answer.job,
                customer: customer().signer.customer_id(),
                addressed: true,
                encryption: tags.iter().any(|tag| tag[0] == "encrypted").then(|| encrypted::scheme_of(&event.content)),
                relays: hint.into_iter().collect(),
            };
            provider().feedback(&to, &feedback, at)
        }
    }
}

fn rewritten_announcement(event: &Event, at: Timestamp) -> Result<SignedEvent, EncodeError> {
    let announced = read_announcement(event).expect("an announcement");
    assert_eq!(announced.provider, provider().signer.provider_id());
    let kinds_of = |ads: &[String]| -> Vec<JobKind> {
        ads.iter()
            .map(|ad| JobKind::ALL.into_iter().find(|kind| Ad::identifier(*kind) == *ad).expect("an ad of ours"))
            .collect()
    };
    match announced.what {
        Announcement::Ad { identifier, ad } => {
            assert_eq!(identifier, Ad::identifier(ad.kind));
            provider().ad(&ad, at)
        }
        Announcement::Profile(profile) => provider().profile(&profile, at),
        Announcement::RelayList(relays) => provider().relay_list(&relays, at),
        Announcement::Heartbeat(beat) => {
            assert_eq!(beat.expires_at, at.checked_add(handler_info::HEARTBEAT_LIFE).ok());
            provider().heartbeat(&kinds_of(&beat.ads), at)
        }
        Announcement::Withdrawal(ads) => provider().withdrawal(&kinds_of(&ads), at),
    }
}

/// What an encrypted event hides, as JSON when it is JSON.
fn hidden(event: &Event) -> Option<Value> {
    let encrypted = tags_of(event).iter().any(|tag| tag[0] == "encrypted");
    encrypted.then(|| {
        let (ours, theirs) = if event.pubkey == customer_keys().public_key() {
            (provider_keys(), customer_keys())
        } else {
            (customer_keys(), provider_keys())
        };
        let plain = encrypted::open(&ours, &theirs.public_key(), &event.content).unwrap_or_default();
        serde_json::from_str(&plain).unwrap_or(Value::String(plain))
    })
}

/// Tags as they are shown: JSON inside is JSON, without the signature that differs each time.
fn shown(tags: Vec<Vec<String>>) -> Vec<Value> {
    let word = |(place, word): (usize, String), name: &str| match (name, place) {
        ("request", 1) => {
            let mut event: Value = serde_json::from_str(&word).expect("an event");
            event.as_object_mut().expect("an object").remove("sig");
            event
        }
        _ => Value::String(word),
    };
    tags.into_iter()
        .map(|tag| {
            let name = tag[0].clone();
            tag.into_iter().enumerate().map(|at| word(at, &name)).collect()
        })
        .collect()
}

#[test]
fn every_example_is_read_and_written_as_it_stands() {
    let mut requests = BTreeMap::new();
    for (name, page) in PAGES {
        let blocks = blocks(name, page);
        let arrays: Vec<&Value> = blocks.iter().map(|block| &block.json).filter(|json| json.is_array()).collect();
        let mut revealed = Vec::new();
        for Block { info, json: example } in blocks.iter().filter(|block| block.json.is_object()) {
            let event = event_of(example);
            if (kinds::FIRST_REQUEST..=kinds::LAST_REQUEST).contains(&event.kind.as_u16()) && info.is_empty() {
                let request = request_of(&event);
                requests.insert(request.id, request);
            }
            let written = received(&rewritten(&event, &requests));
            if info == "lenient" {
                continue;
            }
            assert_eq!(info, "", "{name}");
            let context = format!("{name}: of {example:#} came {}", nostr::JsonUtil::as_json(&written));
            assert_eq!(written.kind, event.kind, "{context}");
            assert_eq!(shown(tags_of(&written)), shown(tags_of(&event)), "{context}");
            match hidden(&event) {
                Some(secret) => {
                    assert_eq!(hidden(&written), Some(secret.clone()), "{context}");
                    revealed.push(secret);
                }
                None if example["content"].is_object() => {
                    let content: Value = serde_json::from_str(&written.content).expect("JSON");
                    assert_eq!(content, example["content"], "{context}");
                }
                None => assert_eq!(written.content, event.content, "{context}"),
            }
        }
        for array in arrays {
            assert!(revealed.contains(array), "{name}: no example hides {array}");
        }
    }
}

#[test]
fn a_lenient_example_is_read_as_the_one_before_it() {
    let mut found = 0;
    for (name, page) in PAGES {
        let blocks = blocks(name, page);
        for pair in blocks.windows(2).filter(|pair| pair[1].info == "lenient") {
            let (strict, lenient) = (request_of(&event_of(&pair[0].json)), request_of(&event_of(&pair[1].json)));
            assert_eq!(order_of(&lenient), order_of(&strict));
            found += 1;
        }
    }
    assert_eq!(found, 1);
}

#[test]
fn results_in_the_pages_are_of_the_form_that_is_published() {
    let published = [(6_930, include_str!("../../nips/5930.schema.json"))];
    let examples = || PAGES.into_iter().flat_map(|(name, page)| blocks(name, page)).map(|block| block.json);
    for (kind, schema) in published {
        let schema = serde_json::from_str(schema).expect("a schema is JSON");
        let mut found = 0;
        for content in examples().filter(|example| example["kind"] == kind).map(|example| example["content"].clone()) {
            if let Err(mismatch) = jsonschema::validate(&schema, &content) {
                panic!("kind {kind}: {mismatch} in {content:#}");
            }
            found += 1;
        }
        assert!(found > 0, "there is no example of kind {kind}");
    }
}

#[test]
fn every_code_status_and_term_stands_in_the_pages() {
    let feedback = include_str!("../../nips/7000.md");
    for word in Code::ALL.map(Code::word).into_iter().chain(["payment-required", "processing", "partial", "error"]) {
        assert!(feedback.contains(&format!("`{word}`")), "{word}");
    }
    for word in [Terms::Hold, Terms::Prepay, Terms::Postpay, Terms::Free].map(Terms::word) {
        assert!(feedback.contains(&format!("`{word}`")), "{word}");
    }
}
