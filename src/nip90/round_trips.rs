//! What one side writes the other side reads as it was meant, in the clear and in both schemes.

use std::time::Duration;

use jiff::Timestamp;
use nostr::hashes::{Hash as _, sha256};
use nostr::{Event, JsonUtil as _};
use proptest::prelude::*;

use super::test_parties::{customer, customer_keys, noon, provider, provider_keys, received, signed, tags_of};
use super::*;
use crate::job::{InputKind, JobRequest};

/// What relays commonly take of one event.
const RELAY_LIMIT_BYTES: usize = 64 * 1024;

fn order() -> Order {
    let mut params = Params::default();
    params.push("top-k", vec!["40".to_owned()]);
    params.push("stop", vec!["\n\n".to_owned()]);
    Order {
        kind: JobKind::TextGeneration,
        inputs: vec![
            Input { data: "Be brief.".into(), kind: InputKind::Text, relay: None, marker: Some("system".into()) },
            Input { data: "¿Qué es ⚡?".into(), kind: InputKind::Text, relay: None, marker: None },
            Input {
                data: "ab".repeat(32),
                kind: InputKind::Job,
                relay: Some("wss://jobs.example.com".into()),
                marker: None,
            },
        ],
        params,
        output: Some("text/plain".into()),
        bid: Some(Msat::sat(21)),
        providers: vec![provider().signer.provider_id()],
        relays: vec!["wss://relay.example.com".into()],
        expires_at: Some(Timestamp::from_second(1_800_000_600).expect("a time")),
        encryption: None,
    }
}

fn read_request(event: &SignedEvent) -> JobRequest {
    match provider().read(&received(event)) {
        Ok(Incoming::Request(request)) => *request,
        other => panic!("no request: {other:?}"),
    }
}

fn request_in(encryption: Option<Encryption>) -> JobRequest {
    read_request(&customer().request(&Order { encryption, ..order() }, noon()).expect("written"))
}

fn receipt() -> Receipt {
    Receipt {
        model: Some("tiny-prover".into()),
        usage: Some(Usage::tokens(10, 5)),
        parameters: Some(885_888),
        mflops: Some(26),
        digest: Some("sha256:ab".into()),
        facts: Vec::new(),
        duration: Some(Duration::from_millis(1_234)),
        tokens_per_second: TokenRate::of(5, Duration::from_millis(1_234)),
        paid: Some(Msat::sat(21)),
        credit: Some(Msat::ZERO),
        terms: Some(Terms::Prepay),
    }
}

fn result(content: &str) -> JobResult {
    JobResult {
        content: content.into(),
        amount: Some(Amount { amount: Msat::sat(21), bolt11: Some("lnbcrt210n1example".into()) }),
        receipt: receipt(),
        file: None,
        truncated: None,
    }
}

fn answer(event: &SignedEvent) -> Answer {
    customer().read_answer(&received(event)).expect("an answer")
}

fn read_result(event: &SignedEvent) -> JobResult {
    match answer(event).body {
        AnswerBody::Result(result) => result,
        other => panic!("no result: {other:?}"),
    }
}

fn read_feedback(event: &SignedEvent) -> Feedback {
    match answer(event).body {
        AnswerBody::Feedback(feedback) => feedback,
        other => panic!("no feedback: {other:?}"),
    }
}

const SCHEMES: [Option<Encryption>; 3] = [None, Some(Encryption::Nip44), Some(Encryption::Nip04)];

#[test]
fn an_order_is_read_by_the_provider_as_it_was_meant() {
    for encryption in SCHEMES {
        let order = Order { encryption, ..order() };
        let written = customer().request(&order, noon()).expect("written");
        let request = read_request(&written);
        assert_eq!(request.kind, order.kind);
        assert_eq!(request.inputs, order.inputs);
        assert_eq!(request.params, order.params);
        assert_eq!(request.output, order.output);
        assert_eq!(request.bid, order.bid);
        assert_eq!(request.relays, order.relays);
        assert_eq!(request.expires_at, order.expires_at);
        assert_eq!(request.encryption, encryption);
        assert_eq!(request.created_at, noon());
        assert!(request.addressed);
        assert_eq!(written.json.contains("Be brief."), encryption.is_none(), "a secret input is in the clear");
    }
}

#[test]
fn an_order_that_contradicts_itself_is_not_written() {
    let text = |data: &str| Input { data: data.into(), kind: InputKind::Text, relay: None, marker: None };
    let secret = Some(Encryption::Nip44);
    let bad = [
        Order { encryption: secret, providers: vec![], ..order() },
        Order { encryption: secret, providers: vec![ProviderId([1; 32]), ProviderId([2; 32])], ..order() },
        Order { encryption: secret, inputs: vec![text(&"x".repeat(70_000))], ..order() },
        Order { inputs: vec![text("")], ..order() },
        Order { inputs: vec![Input { kind: InputKind::Event, ..text("x") }], ..order() },
        Order { inputs: vec![Input { kind: InputKind::Url, ..text("x") }], ..order() },
        Order { relays: vec!["http://relay.example.com".into()], ..order() },
    ];
    for order in bad {
        let written = customer().request(&order, noon());
        assert!(matches!(written, Err(EncodeError::BadOrder(_))), "{order:?} was written");
    }
    assert!(customer().request(&order(), Timestamp::from_second(-1).expect("a time")).is_err());
}

#[test]
fn feedback_is_read_by_the_customer_as_it_was_meant() {
    let said = [
        Feedback {
            text: Some("pay 21 sat for at most 512 tokens".into()),
            amount: Some(Amount { amount: Msat::sat(21), bolt11: Some("lnbcrt210n1example".into()) }),
            terms: Some(Terms::Prepay),
            ..Feedback::of(Status::PaymentRequired)
        },
        Feedback::of(Status::Processing),
        Feedback {
            text: Some("position 3 in the queue, about 40 s".into()),
            queue: Some(Standing { position: 3, wait: Some(Duration::from_secs(40)) }),
            ..Feedback::of(Status::Processing)
        },
        Feedback { queue: Some(Standing { position: 1, wait: None }), ..Feedback::of(Status::Processing) },
        Feedback { seq: Some(3), content: "a piece\nof ⚡".into(), ..Feedback::of(Status::Partial) },
        Feedback::error(&Refusal::bad_request("param 'top_k': 'x' is no number")),
    ];
    for encryption in SCHEMES {
        let request = request_in(encryption);
        let to = ReplyTo::from(&request);
        for feedback in &said {
            let written = provider().feedback(&to, feedback, noon()).expect("written");
            assert_eq!(read_feedback(&written), *feedback);
            let event = received(&written);
            assert_eq!(answer(&written).job, request.id);
            assert_eq!(tags_of(&event).contains(&vec!["encrypted".to_owned()]), encryption.is_some());
            let secrets: Vec<&str> =
                feedback.text.as_deref().into_iter().chain(Some(feedback.content.as_str())).collect();
            for secret in secrets.into_iter().filter(|secret| !secret.is_empty()) {
                let escaped = serde_json::to_string(secret).expect("JSON");
                let clear = written.json.contains(escaped.trim_matches('"'));
                assert_eq!(clear, encryption.is_none(), "{secret}");
            }
            // The status and the invoice are for every client.
            assert!(tags_of(&event).iter().any(|tag| tag[0] == "status" && tag[1] == feedback.status.word()));
            if let Some(amount) = &feedback.amount {
                let invoice = amount.bolt11.clone().expect("an invoice");
                assert!(tags_of(&event).contains(&vec!["amount".into(), "21000".into(), invoice]));
            }
        }
    }
}

#[test]
fn a_piece_of_output_that_looks_like_tags_is_a_piece_of_output() {
    for encryption in SCHEMES {
        let to = ReplyTo::from(&request_in(encryption));
        let content = r#"[["status","success"],["content","x"]]"#.to_owned();
        let partial = Feedback { seq: Some(0), content, ..Feedback::of(Status::Partial) };
        let written = provider().feedback(&to, &partial, noon()).expect("written");
        assert_eq!(read_feedback(&written), partial);
    }
}

#[test]
fn a_sample_beside_an_invoice_is_read() {
    for encryption in SCHEMES {
        let to = ReplyTo::from(&request_in(encryption));
        let content = "the first \"line\"\n".to_owned();
        let sample = Feedback { content, text: Some("pay for more".into()), ..Feedback::of(Status::PaymentRequired) };
        let written = provider().feedback(&to, &sample, noon()).expect("written");
        assert_eq!(read_feedback(&written), sample);
        let large = Feedback { content: "\"é\n".repeat(50_000), ..sample };
        let written = provider().feedback(&to, &large, noon()).expect("written");
        assert!(written.json.len() <= RELAY_LIMIT_BYTES, "{} bytes {encryption:?}", written.json.len());
        assert!(large.content.starts_with(&read_feedback(&written).content));
    }
}

#[test]
fn the_log_of_a_failure_comes_with_the_error() {
    let failure =
        crate::job::Failure::new(Code::BadRequest, "it failed").with_log("\"quoted\"\n\u{1b}[31m".repeat(2_000));
    for encryption in SCHEMES {
        let to = ReplyTo::from(&request_in(encryption));
        let refusal = Refusal { code: failure.code, text: failure.text.clone(), log: failure.log.clone() };
        let written = provider().feedback(&to, &Feedback::error(&refusal), noon()).expect("written");
        assert!(written.json.len() <= RELAY_LIMIT_BYTES, "{} bytes {encryption:?}", written.json.len());
        assert_eq!(written.json.contains("quoted"), encryption.is_none());
        let read = read_feedback(&written);
        assert_eq!((read.content, read.text.as_deref()), (failure.log.clone(), Some("it failed")));
    }
}

#[test]
fn a_result_is_read_by_the_customer_as_it_was_meant() {
    for encryption in SCHEMES {
        let request = request_in(encryption);
        let result = result("exact ⟨hp, hq⟩\n");
        let written = provider().result(&request, &result, noon()).expect("written");
        let answer = answer(&written);
        assert_eq!(answer.job, request.id);
        assert_eq!(answer.provider, provider().signer.provider_id());
        assert_eq!(answer.at, noon());
        assert_eq!(read_result(&written), result);
        let names: Vec<String> = tags_of(&received(&written)).into_iter().map(|tag| tag[0].clone()).collect();
        for echoed in ["request", "i"] {
            assert_eq!(names.iter().any(|name| name == echoed), encryption.is_none(), "{echoed}");
        }
        assert_eq!(names.iter().any(|name| name == "encrypted"), encryption.is_some());
        // Nobody else can read it.
        let stranger = Codec::new(Signer::random(), ReadLimits::default());
        assert_eq!(stranger.read_answer(&received(&written)), Err(Unreadable::NotForUs));
    }
}

#[test]
fn an_empty_output_is_a_result_too() {
    for encryption in SCHEMES {
        let written = provider().result(&request_in(encryption), &result(""), noon()).expect("written");
        assert_eq!(read_result(&written).content, "");
    }
}

#[test]
fn the_same_result_is_the_same_event() {
    let request = request_in(None);
    let written = || provider().result(&request, &result("same"), noon()).expect("written").id;
    assert_eq!(written(), written());
}

#[test]
fn the_request_in_a_result_is_the_event_the_customer_signed() {
    let request = request_in(None);
    let written = provider().result(&request, &result("x"), noon()).expect("written");
    let tags = tags_of(&received(&written));
    let echo = tags.iter().find(|tag| tag[0] == "request").expect("a request tag");
    let event = Event::from_json(&echo[1]).expect("an event");
    event.verify().expect("still signed");
    assert_eq!(event.id.to_bytes(), request.id.0);
    assert_eq!(tags[0][0], "request");
    assert!(tags.contains(&vec!["e".into(), request.id.to_string(), "wss://relay.example.com".into()]));
    assert!(tags.contains(&vec!["p".into(), request.customer.to_string()]));
}

#[test]
fn an_output_larger_than_an_event_is_cut_in_whole_characters_and_says_so() {
    for encryption in SCHEMES {
        let request = request_in(encryption);
        for unit in ["x", "é", "𝕏", "\n", "\u{1}", "\""] {
            let whole = unit.repeat(200_000 / unit.len());
            let written = provider().result(&request, &result(&whole), noon()).expect("written");
            assert!(written.json.len() <= RELAY_LIMIT_BYTES, "{} bytes of {unit:?} {encryption:?}", written.json.len());
            let read = read_result(&written);
            assert!(whole.starts_with(&read.content));
            assert!(read.content.len() <= DEFAULT_MAX_RESULT_BYTES);
            assert!(read.content.len() > 8_000, "only {} bytes of {unit:?} {encryption:?}", read.content.len());
            let hash = sha256::Hash::hash(whole.as_bytes()).to_string();
            assert_eq!(read.truncated, Some((whole.len() as u64, hash)));
        }
        let written = provider().with_max_result_bytes(10).result(&request, &result("123456789é"), noon());
        let read = read_result(&written.expect("written"));
        assert_eq!(read.content, "123456789");
        assert!(read.truncated.is_some());
        let written = provider().with_max_result_bytes(11).result(&request, &result("123456789é"), noon());
        assert_eq!(read_result(&written.expect("written")).truncated, None);
    }
    let plain = provider().result(&request_in(None), &result(&"x".repeat(60_000)), noon()).expect("written");
    assert_eq!(read_result(&plain).content.len(), DEFAULT_MAX_RESULT_BYTES);
}

#[test]
fn a_piece_of_output_larger_than_an_event_is_cut_too() {
    for encryption in SCHEMES {
        let to = ReplyTo::from(&request_in(encryption));
        let partial = Feedback { content: "\"é\n".repeat(50_000), ..Feedback::of(Status::Partial) };
        let written = provider().feedback(&to, &partial, noon()).expect("written");
        assert!(written.json.len() <= RELAY_LIMIT_BYTES, "{} bytes {encryption:?}", written.json.len());
        let read = read_feedback(&written);
        assert!(partial.content.starts_with(&read.content) && read.content.len() > 8_000);
    }
}

#[test]
fn a_large_request_is_not_echoed_into_an_event_no_relay_takes() {
    let mut large = request_in(None);
    large.inputs[0].data = "x".repeat(100_000);
    large.event_json = "y".repeat(100_000);
    let written = provider().result(&large, &result("short"), noon()).expect("written");
    assert!(written.json.len() <= RELAY_LIMIT_BYTES);
    assert_eq!(read_result(&written).content, "short");
}

#[test]
fn a_cancellation_names_the_request() {
    let request = request_in(None);
    let written = customer().cancellation(request.id, request.kind, noon()).expect("written");
    let cancelled = provider().read(&received(&written));
    assert_eq!(cancelled, Ok(Incoming::Cancel { customer: request.customer, jobs: vec![request.id] }));
}

#[test]
fn a_ping_is_answered_with_a_pong() {
    let relays = ["wss://relay.example.com".to_owned()];
    let ping = customer().ping(provider().signer.provider_id(), &relays, noon()).expect("written");
    let Ok(Incoming::Ping { to }) = provider().read(&received(&ping)) else { panic!("no ping") };
    assert_eq!(to.relays, relays);
    let pong = provider().pong(&to, noon()).expect("written");
    assert_eq!(answer(&pong).job.0, ping.id.0);
    assert_eq!(read_feedback(&pong).status, Status::Pong);
}

/// An answer of another provider's making.
fn others(kind: u16, tags: &[&[&str]], content: &str) -> Result<Answer, Unreadable> {
    customer().read_answer(&signed(&provider_keys(), kind, tags, content))
}

#[test]
fn other_providers_answers_are_read_with_their_junk_left_out() {
    let job = "cc".repeat(32);
    let us = customer_keys().public_key().to_hex();
    let read = others(
        6050,
        &[&["e", &job], &["p", &us], &["amount", "100_000", "x@host"], &["tokens", "1"], &["truncated", "9", "zz"]],
        "out",
    );
    let AnswerBody::Result(result) = read.expect("an answer").body else { panic!("no result") };
    assert_eq!(result.amount, Some(Amount { amount: Msat::sat(100), bolt11: None }));
    assert_eq!((result.receipt.usage, result.truncated), (None, None));

    let read =
        others(7000, &[&["status", "error"], &["e", "junk"], &["e", &job], &["amount", "free"]], "no\u{1b}[2J GPU");
    let AnswerBody::Feedback(feedback) = read.expect("an answer").body else { panic!("no feedback") };
    assert_eq!(feedback.text.as_deref(), Some("no [2J GPU"));
    assert_eq!(feedback.amount, None);

    let tags: &[&[&str]] = &[&["status", "Payment_Required"], &["e", &job], &["amount", "5", "lightning:LNBC1X"]];
    let AnswerBody::Feedback(feedback) = others(7000, tags, "").expect("an answer").body else { panic!("no feedback") };
    assert_eq!(feedback.status, Status::PaymentRequired);
    assert_eq!(feedback.amount, Some(Amount { amount: Msat::msat(5), bolt11: Some("lnbc1x".into()) }));
}

#[test]
fn an_answer_to_nothing_or_to_somebody_else_is_no_answer() {
    let (job, other) = ("cc".repeat(32), "dd".repeat(32));
    assert!(matches!(others(6050, &[], "out"), Err(Unreadable::Broken(_))));
    assert!(matches!(others(7000, &[&["e", &job]], ""), Err(Unreadable::Broken(_))));
    assert!(matches!(others(7000, &[&["e", &job], &["status", "dancing"]], ""), Err(Unreadable::Broken(_))));
    assert_eq!(others(6050, &[&["e", &job], &["p", &other]], "x"), Err(Unreadable::NotForUs));
    assert_eq!(others(6999, &[&["e", &job]], "x"), Err(Unreadable::UnknownKind(6999)));
    assert_eq!(others(1, &[&["e", &job]], "x"), Err(Unreadable::UnknownKind(1)));
}

#[test]
fn feedback_whose_every_tag_is_encrypted_is_read() {
    let job = "cc".repeat(32);
    let us = customer_keys().public_key();
    let plain = format!(
        r#"[["e","{job}"],["alt","x"],["status","payment-required"],["amount","21000","lnbc1x"],["content","pay me"]]"#
    );
    for scheme in [Encryption::Nip04, Encryption::Nip44] {
        let content = encrypted::seal(&provider_keys(), &us, &plain, scheme).expect("sealed");
        let read = others(7000, &[&["encrypted"], &["p", &us.to_hex()]], &content).expect("an answer");
        assert_eq!(read.job.to_string(), job);
        let AnswerBody::Feedback(feedback) = read.body else { panic!("no feedback") };
        assert_eq!(feedback.status, Status::PaymentRequired);
        assert_eq!(feedback.amount.and_then(|amount| amount.bolt11).as_deref(), Some("lnbc1x"));
        assert_eq!(feedback.content, "pay me");
    }
}

#[test]
fn undecryptable_feedback_keeps_what_its_clear_tags_say_and_a_result_does_not() {
    let job = "cc".repeat(32);
    let tags: &[&[&str]] = &[&["encrypted"], &["e", &job], &["status", "error"], &["code", "timeout"]];
    let AnswerBody::Feedback(feedback) = others(7000, tags, "junk").expect("an answer").body else {
        panic!("no feedback")
    };
    assert_eq!((feedback.code, feedback.content.as_str()), (Some(Code::Timeout), ""));
    assert!(matches!(others(6050, tags, "junk"), Err(Unreadable::Broken(_))));
}

fn input() -> impl Strategy<Value = Input> {
    let marker = proptest::option::of("[a-z][a-z_]{0,10}");
    prop_oneof![
        ("\\PC{1,60}", marker.clone()).prop_map(|(data, marker)| (data, InputKind::Text, marker)),
        (any::<[u8; 32]>(), marker.clone()).prop_map(|(id, marker)| (
            EventId(id).to_string(),
            InputKind::Event,
            marker
        )),
        ("https://[a-z]{1,8}\\.example\\.com/[a-z]{0,5}", marker).prop_map(|(url, m)| (url, InputKind::Url, m)),
    ]
    .prop_map(|(data, kind, marker)| Input { data, kind, relay: None, marker })
}

fn scheme() -> impl Strategy<Value = Option<Encryption>> {
    proptest::sample::select(&SCHEMES[..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_order_comes_back_from_the_wire(
        inputs in proptest::collection::vec(input(), 1..6),
        params in proptest::collection::vec(("[a-z][a-z_]{0,12}", proptest::collection::vec(any::<String>(), 1..3)), 0..6),
        bid in proptest::option::of(0..=Msat::MAX.as_msat()),
        encryption in scheme(),
    ) {
        let mut wanted = Params::default();
        for (key, values) in params {
            wanted.push(&key, values);
        }
        let bid = bid.map(|msat| Msat::from_msat(msat).expect("below the supply"));
        let order = Order { inputs, params: wanted, bid, encryption, ..order() };
        let request = read_request(&customer().request(&order, noon()).expect("written"));
        prop_assert_eq!(request.inputs, order.inputs);
        prop_assert_eq!(request.params, order.params);
        prop_assert_eq!(request.bid, order.bid);
    }

    #[test]
    fn any_answer_comes_back_from_the_wire(content in any::<String>(), seq in any::<u32>(), encryption in scheme()) {
        let request = request_in(encryption);
        let written = provider().result(&request, &result(&content), noon()).expect("written");
        prop_assert_eq!(read_result(&written), result(&content));
        let partial = Feedback { seq: Some(seq), content, ..Feedback::of(Status::Partial) };
        let written = provider().feedback(&ReplyTo::from(&request), &partial, noon()).expect("written");
        prop_assert_eq!(read_feedback(&written), partial);
    }
}
