//! Jobs only customer and provider can read.

use coinop::job::{Code, Encryption};
use coinop::testing::market::TestMarket;

const SECRET: &str = "nobody else may read this";

async fn stays_private(scheme: Encryption) {
    let market = TestMarket::new().start().await;
    let customer = market.customer().await;
    let mut order = customer.order(SECRET);
    order.encryption = Some(scheme);
    let mut posted = customer.post(&order).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    assert_eq!(posted.result().await.content, SECRET);

    let answers = market.answers(posted.job).await;
    assert!(answers.len() >= 2);
    for event in answers {
        assert!(event.tags.iter().any(|tag| tag.as_slice() == ["encrypted"]), "{event:?}");
        assert!(event.tags.iter().all(|tag| !matches!(tag.as_slice()[0].as_str(), "i" | "request" | "param")));
        assert!(!serde_json::to_string(&event).unwrap().contains(SECRET));
        // The answer is in the scheme of the request: a legacy customer can read nothing else.
        assert_eq!(event.content.contains("?iv="), scheme == Encryption::Nip04);
    }
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nip44_request_is_answered_in_nip44() {
    stays_private(Encryption::Nip44).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nip04_request_is_answered_in_nip04() {
    stays_private(Encryption::Nip04).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_inside_an_encrypted_request_is_said_encrypted() {
    let market = TestMarket::new().start().await;
    let customer = market.customer().await;
    let mut order = customer.order(SECRET);
    order.encryption = Some(Encryption::Nip44);
    order.params.push("temperature", vec!["scorching".into()]);
    let mut posted = customer.post(&order).await;
    let refusal = posted.refusal().await;
    assert_eq!(refusal.code, Code::BadRequest);
    assert!(refusal.text.contains("temperature"), "{}", refusal.text);
    for event in market.answers(posted.job).await {
        assert!(!serde_json::to_string(&event).unwrap().contains("scorching"), "the words are out in the clear");
    }
    market.finish().await;
}
