//! Receipts as they come, and as somebody would forge them.

use nostr::{Event, JsonUtil as _, Keys};

use super::test_parties::{customer_keys, provider, provider_hex, signed, signed_words};
use super::{Incoming, Unreadable, ZapReceipt};
use crate::job::id::{EventId, NostrKey};
use crate::money::Msat;

const ZAPPED: &str = "69f3dfe03cc14436c6198f985feb5fbe69327d70559ec4bbabffc488fbdadf9a";

fn request(tags: &[&[&str]]) -> String {
    signed(&customer_keys(), 9734, tags, "thanks").as_json()
}

fn good_request() -> String {
    let us = provider_hex();
    request(&[&["relays", "wss://relay.example.com"], &["amount", "21000"], &["p", &us], &["e", ZAPPED]])
}

fn receipt(signer: &Keys, request: &str, more: &[&[&str]]) -> Event {
    let us = provider_hex();
    let mut tags: Vec<&[&str]> = vec![];
    let p = ["p", us.as_str()];
    let bolt11 = ["bolt11", "lnbcrt210n1example"];
    let description = ["description", request];
    tags.extend([&p[..], &bolt11[..], &description[..]]);
    tags.extend(more);
    signed(signer, 9735, &tags, "")
}

fn read(event: &Event) -> Result<Box<ZapReceipt>, Unreadable> {
    match provider().read(event)? {
        Incoming::Zap(zap) => Ok(zap),
        other => panic!("no zap: {other:?}"),
    }
}

#[test]
fn a_receipt_says_who_vouches_for_what() {
    let signer = Keys::generate();
    let request = good_request();
    let zap = read(&receipt(&signer, &request, &[&["e", ZAPPED], &["preimage", "00"]])).unwrap();
    assert_eq!(zap.signer, NostrKey(signer.public_key().to_bytes()));
    assert_eq!(zap.zapped.to_string(), ZAPPED);
    assert_eq!((zap.amount, &zap.request), (Some(Msat::sat(21)), &request));
    assert!(!format!("{zap:?}").contains("thanks") && !format!("{zap:?}").contains("lnbc"));
}

#[test]
fn a_zap_request_that_is_none_or_for_somebody_else_is_not_read() {
    let (us, them) = (provider_hex(), customer_keys().public_key().to_hex());
    let tampered = good_request().replace("thanks", "thanks!");
    let other_kind = signed(&customer_keys(), 1, &[&["p", &us], &["e", ZAPPED]], "").as_json();
    for bad in [
        "",
        "not json",
        "{}",
        &tampered,
        &other_kind,
        &request(&[&["p", &them], &["e", ZAPPED]]),
        &request(&[&["e", ZAPPED]]),
        &request(&[&["p", &us]]),
        &request(&[&["p", &us], &["p", &them], &["e", ZAPPED]]),
        &request(&[&["p", &us], &["e", ZAPPED], &["e", ZAPPED]]),
        &request(&[&["p", &us], &["e", "junk"]]),
        &request(&[&["p", &us], &["e", ZAPPED], &["amount", "-1"]]),
        &request(&[&["p", &us], &["e", ZAPPED], &["amount", "99999999999999999999"]]),
    ] {
        let read = read(&receipt(&Keys::generate(), bad, &[]));
        assert!(matches!(read, Err(Unreadable::Broken(_))), "{bad}");
    }
}

#[test]
fn a_receipt_that_contradicts_its_request_is_not_read() {
    let other = EventId([7; 32]).to_string();
    let contradicting = receipt(&Keys::generate(), &good_request(), &[&["e", &other]]);
    assert!(matches!(read(&contradicting), Err(Unreadable::Broken(_))));
    let twice = receipt(&Keys::generate(), &good_request(), &[&["bolt11", "lnbcrt1"]]);
    assert!(matches!(read(&twice), Err(Unreadable::Broken(_))));
    let for_them = signed(&Keys::generate(), 9735, &[&["p", &other], &["bolt11", "lnbc1"]], "");
    assert_eq!(read(&for_them), Err(Unreadable::NotForUs));
}

#[test]
fn the_examples_of_the_page_are_read() {
    let page = include_str!("../../nips/57.md");
    let blocks: Vec<serde_json::Value> = page
        .split("```json\n")
        .skip(1)
        .map(|block| serde_json::from_str(block.split("```").next().unwrap()).unwrap())
        .collect();
    let [request, example] = blocks.as_slice() else { panic!("two examples") };
    let tags =
        |event: &serde_json::Value| -> Vec<Vec<String>> { serde_json::from_value(event["tags"].clone()).unwrap() };
    let at = |event: &serde_json::Value| jiff::Timestamp::from_second(event["created_at"].as_i64().unwrap()).unwrap();
    let kind = |event: &serde_json::Value| u16::try_from(event["kind"].as_u64().unwrap()).unwrap();
    assert_eq!(request["pubkey"], customer_keys().public_key().to_hex());
    let request = signed_words(&customer_keys(), kind(request), tags(request), "", at(request)).as_json();
    let service = Keys::generate();
    let mut said = tags(example);
    said.iter_mut().filter(|tag| tag[0] == "description").for_each(|tag| tag[1].clone_from(&request));
    let zap = read(&signed_words(&service, kind(example), said, "", at(example))).unwrap();
    assert_eq!((zap.zapped.to_string().as_str(), zap.amount), (ZAPPED, Some(Msat::sat(21))));
    assert_eq!(zap.bolt11, "lnbcrt210n1p5example");
}
