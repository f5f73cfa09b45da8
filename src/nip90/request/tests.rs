//! Requests as strangers write them.

use nostr::ToBech32 as _;

use super::*;
use crate::job::Code;
use crate::nip90::test_parties::{customer_keys, provider, provider_hex, signed};

fn read(tags: &[&[&str]], content: &str) -> Result<Incoming, Unreadable> {
    provider().read(&signed(&customer_keys(), 5050, tags, content))
}

fn request(tags: &[&[&str]], content: &str) -> JobRequest {
    match read(tags, content) {
        Ok(Incoming::Request(request)) => *request,
        other => panic!("no request: {other:?}"),
    }
}

fn refusal(tags: &[&[&str]], content: &str) -> Refusal {
    match read(tags, content) {
        Err(Unreadable::Refused { refusal, .. }) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn texts(request: &JobRequest) -> Vec<(&str, Option<&str>)> {
    request.inputs.iter().map(|input| (input.data.as_str(), input.marker.as_deref())).collect()
}

#[test]
fn every_spelling_of_an_input_seen_in_the_wild_is_read() {
    let request = request(
        &[
            &["i", "plain"],
            &["i", "typed", "TEXT"],
            &["i", "published example", "prompt"],
            &["input", "text", "type first"],
            &["input", "bare"],
            &["input", "data first", "text"],
            &["i", "chat", "text", "", "System"],
            &["i", "early marker", "text", "user"],
            &["i", "empty type", ""],
            &["i", ""],
        ],
        "Describe what you want",
    );
    assert_eq!(
        texts(&request),
        [
            ("plain", None),
            ("typed", None),
            ("published example", None),
            ("type first", None),
            ("bare", None),
            ("data first", None),
            ("chat", Some("system")),
            ("early marker", Some("user")),
            ("empty type", None),
        ]
    );
}

#[test]
fn a_prompt_without_an_input_is_found_in_param_or_content() {
    let by_param = request(&[&["param", "Prompt", "do it"], &["param", "top-k", "5"]], "ignored");
    assert_eq!(texts(&by_param), [("do it", None)]);
    assert_eq!(by_param.params.get("prompt"), None);
    assert_eq!(by_param.params.get("top_k"), Some("5"));
    assert_eq!(texts(&request(&[], " say hello ")), [("say hello", None)]);
    assert!(request(&[], "  ").inputs.is_empty());
    let with_input = request(&[&["i", "input"], &["param", "prompt", "p"]], "content");
    assert_eq!(texts(&with_input), [("input", None)]);
    assert_eq!(with_input.params.get("prompt"), Some("p"));
}

#[test]
fn events_are_named_by_hex_or_bech32_and_come_out_as_hex() {
    let hex = "46d731680add2990efe1cc619dc9b8014feeb23261ab9dee50e9d11814de5a2b";
    let note = nostr::EventId::from_hex(hex).expect("an id").to_bech32().expect("bech32");
    let request = request(
        &[
            &["i", &hex.to_ascii_uppercase(), "event", "wss://relay.example.com/"],
            &["i", &format!("nostr:{note}"), "job", "ws://127.0.0.1"],
        ],
        "",
    );
    assert_eq!(request.inputs[0].data, hex);
    assert_eq!(request.inputs[0].relay.as_deref(), Some("wss://relay.example.com"));
    assert_eq!(request.inputs[1].data, hex);
    assert_eq!(request.inputs[1].relay, None, "a private hint was kept");
}

#[test]
fn a_bad_value_is_refused_by_its_field_and_never_defaulted() {
    let long = "x".repeat(200_000);
    let long = long.as_str();
    let many = vec![vec!["param", "stop", "a"]; 300];
    let cases: Vec<(Vec<Vec<&str>>, Code, &str)> = vec![
        (vec![vec!["i", "x", "sound"]], Code::Unsupported, "input 1: 'sound'"),
        (vec![vec!["i", "a"], vec!["i"]], Code::BadRequest, "input 2:"),
        (vec![vec!["i", "zz", "event"]], Code::BadRequest, "input 1: 'zz' is no event id"),
        (vec![vec!["i", "", "job"]], Code::BadRequest, "input 1: ''"),
        (vec![vec!["i", "note1junk", "event"]], Code::BadRequest, "input 1:"),
        (vec![vec!["i", "not a url", "url"]], Code::BadRequest, "input 1:"),
        (vec![vec!["i", long]], Code::BadRequest, "input 1: 200000 bytes"),
        (vec![vec!["i", "x", "text", "", long]], Code::BadRequest, "input 1, marker:"),
        (vec![vec!["param"]], Code::BadRequest, "param:"),
        (vec![vec!["param", " "]], Code::BadRequest, "param:"),
        (vec![vec!["param", "model"]], Code::BadRequest, "param 'model':"),
        (vec![vec!["param", "system", long]], Code::BadRequest, "param 'system': 200000 bytes"),
        (vec![vec!["param", long, "x"]], Code::BadRequest, "param name:"),
        (many, Code::BadRequest, "tags: 300"),
        (vec![vec!["bid", "lots"]], Code::BadRequest, "bid: 'lots'"),
        (vec![vec!["bid", "-5"]], Code::BadRequest, "bid: '-5'"),
        (vec![vec!["bid", "1000", "x"]], Code::BadRequest, "bid: 'x'"),
        (vec![vec!["bid", "99999999999999999999"]], Code::BadRequest, "bid:"),
        (vec![vec!["bid"]], Code::BadRequest, "bid:"),
        (vec![vec!["expiration", "soon"]], Code::BadRequest, "expiration: 'soon'"),
        (vec![vec!["expiration", "1700000000000"]], Code::BadRequest, "expiration:"),
        (vec![vec!["expiration"]], Code::BadRequest, "expiration:"),
        (vec![vec!["output", "markdown"]], Code::BadRequest, "output: 'markdown'"),
        (vec![vec!["output", long]], Code::BadRequest, "output:"),
    ];
    for (tags, code, start) in cases {
        let tags: Vec<&[&str]> = tags.iter().map(Vec::as_slice).collect();
        let refusal = refusal(&tags, "prompt");
        assert_eq!(refusal.code, code, "{}", refusal.text);
        assert!(refusal.text.starts_with(start), "{} does not start with {start}", refusal.text);
        assert!(refusal.text.len() < 300, "{} bytes of refusal", refusal.text.len());
    }
    let unmarked = "RUFtcGxl?iv=AAAAAAAAAAAAAAAAAAAAAA==";
    assert!(refusal(&[], unmarked).text.starts_with("content:"));
}

#[test]
fn a_refused_request_still_says_where_the_answer_goes() {
    let us = provider_hex();
    let event = signed(
        &customer_keys(),
        5050,
        &[&["p", &us], &["relays", "wss://a.example.com", "ws://10.0.0.1"], &["i", "x", "sound"]],
        "",
    );
    let Err(Unreadable::Refused { to, .. }) = provider().read(&event) else { panic!("not refused") };
    assert!(to.addressed);
    assert_eq!(to.job.0, event.id.to_bytes());
    assert_eq!(to.customer.0, event.pubkey.to_bytes());
    assert_eq!(to.relays, ["wss://a.example.com"]);
}

#[test]
fn only_what_names_us_or_nobody_is_ours() {
    let us = provider_hex();
    let other = "11".repeat(32);
    assert_eq!(read(&[&["p", &other], &["i", "x"]], ""), Err(Unreadable::NotForUs));
    assert_eq!(read(&[&["p", "junk"], &["i", "x"]], ""), Err(Unreadable::NotForUs));
    assert!(request(&[&["p", &other], &["p", &us.to_uppercase()], &["i", "x"]], "").addressed);
    assert!(!request(&[&["p", ""], &["p"], &["i", "x"]], "").addressed);
}

#[test]
fn a_kind_we_do_not_offer_is_answered_only_when_it_names_us() {
    let us = provider_hex();
    let stranger = signed(&customer_keys(), 5100, &[&["i", "x"]], "");
    assert_eq!(provider().read(&stranger), Err(Unreadable::UnknownKind(5100)));
    let addressed = signed(&customer_keys(), 5100, &[&["i", "x"], &["p", &us]], "");
    let Err(Unreadable::Refused { refusal, .. }) = provider().read(&addressed) else { panic!("not refused") };
    assert_eq!(refusal.code, Code::Unsupported);
    assert_eq!(provider().read(&signed(&customer_keys(), 1, &[], "")), Err(Unreadable::UnknownKind(1)));
}

#[test]
fn the_other_fields_are_read() {
    let request = request(
        &[
            &["i", "x"],
            &["output", " Text/Plain "],
            &["bid", "21_000", "42000"],
            &["expiration", "1800000000"],
            &["relays", "wss://a.example.com/", "wss://A.example.com", "[\"wss://b.example.com\"]", "junk"],
        ],
        "",
    );
    assert_eq!(request.output.as_deref(), Some("text/plain"));
    assert_eq!(request.bid, Some(Msat::sat(42)));
    assert_eq!(request.expires_at.map(|at| at.as_second()), Some(1_800_000_000));
    assert_eq!(request.relays, ["wss://a.example.com", "wss://b.example.com"]);
    assert!(request.event_json.contains(&request.id.to_string()));
}

#[test]
fn encrypted_requests_must_name_us_and_hold_tags() {
    let us = provider_hex();
    let sealed = |plain: &str| {
        let keys = customer_keys();
        encrypted::seal(&keys, &provider().signer.keys().public_key(), plain, Encryption::Nip44).expect("sealed")
    };
    let tags = sealed(
        r#"[["i","secret","text"],["param","max_tokens",7],["relays","wss://in.example.com"],["p","x"],["odd"]]"#,
    );
    let named: &[&[&str]] = &[&["p", &us], &["encrypted"], &["param", "top_k", "1"]];
    let request = request(named, &tags);
    assert_eq!(texts(&request), [("secret", None)]);
    assert_eq!((request.params.get("top_k"), request.params.get("max_tokens")), (Some("1"), Some("7")));
    assert_eq!(request.encryption, Some(Encryption::Nip44));
    assert_eq!(request.relays, ["wss://in.example.com"]);
    assert!(refusal(&[&["encrypted"]], &tags).text.starts_with("p:"));
    assert!(refusal(named, "junk").text.starts_with("content: it could not be decrypted as NIP-44"));
    assert!(refusal(named, "junk?iv=junk").text.starts_with("content: it could not be decrypted as NIP-04"));
    assert!(refusal(named, "").text.starts_with("content: it could not be decrypted"));
    for plain in ["just words", "{}", "[[1,[2]]]"] {
        assert!(refusal(named, &sealed(plain)).text.contains("no JSON array of tags"));
    }
    assert!(request_without_input(named, &sealed("[]")).is_empty());
}

/// The content of an encrypted request is never taken for a prompt.
fn request_without_input(tags: &[&[&str]], content: &str) -> Vec<Input> {
    request(tags, content).inputs
}

#[test]
fn a_deletion_cancels_the_events_it_names() {
    let (one, two) = ("aa".repeat(32), "bb".repeat(32));
    let keys = customer_keys();
    let event = signed(&keys, 5, &[&["e", &one], &["e", "junk"], &["e", &one], &["e", &two], &["k", "5050"]], "");
    let jobs = vec![JobId([0xaa; 32]), JobId([0xbb; 32])];
    assert_eq!(
        provider().read(&event),
        Ok(Incoming::Cancel { customer: CustomerId(keys.public_key().to_bytes()), jobs })
    );
    let empty = provider().read(&signed(&keys, 5, &[&["a", "31990:x:y"]], ""));
    assert!(matches!(empty, Err(Unreadable::Broken(_))));
}

#[test]
fn a_ping_is_answered_only_when_it_names_us() {
    let us = provider_hex();
    let keys = customer_keys();
    let ping = provider().read(&signed(&keys, 7007, &[&["p", &us]], ""));
    let Ok(Incoming::Ping { to }) = ping else { panic!("no ping: {ping:?}") };
    assert_eq!(to.customer.0, keys.public_key().to_bytes());
    assert_eq!(provider().read(&signed(&keys, 7007, &[], "")), Err(Unreadable::NotForUs));
}
