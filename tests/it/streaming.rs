//! Output as it is written.

use std::time::Duration;

use coinop::job::Terms;
use coinop::nip90::{AnswerBody, Status};
use coinop::testing::market::TestMarket;

use crate::backends::Dictated;

fn piece(body: &AnswerBody) -> Option<(Option<u32>, String)> {
    match body {
        AnswerBody::Feedback(feedback) if feedback.status == Status::Partial => {
            Some((feedback.seq, feedback.content.clone()))
        }
        AnswerBody::Feedback(_) => None,
        AnswerBody::Result(result) => panic!("the result came before its pieces: {}", result.content),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_come_numbered_in_order_each_with_new_text_only() {
    let (dictate, backend) = Dictated::new();
    let market = TestMarket::new().terms(Terms::Free).backend(backend).start().await;
    let customer = market.customer().await;
    let mut order = customer.order("tell me");
    order.params.push("stream", vec!["true".into()]);
    let mut posted = customer.post(&order).await;
    for (seq, text) in ["once ", "upon ", "a time"].into_iter().enumerate() {
        dictate.send(text.into()).await.unwrap();
        let heard = posted.until(piece).await;
        assert_eq!(heard, (u32::try_from(seq).ok(), text.to_owned()));
    }
    drop(dictate);
    assert_eq!(posted.result().await.content, "once upon a time");
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_no_second_relay_takes_does_not_keep_the_result_waiting() {
    let (dictate, backend) = Dictated::new();
    let market = TestMarket::new()
        .relays(2)
        .terms(Terms::Free)
        .backend(backend)
        .pool(|pool| {
            pool.quorum = 2;
            pool.publish_timeout = Duration::from_secs(3_600);
        })
        .start()
        .await;
    let customer = market.customer_at(&[market.relay(0).url()]).await;
    customer.ping().await;
    market.relay(1).stop().await;
    let mut order = customer.order("tell me");
    order.params.push("stream", vec!["true".into()]);
    let mut posted = customer.post(&order).await;
    dictate.send("once".into()).await.unwrap();
    assert_eq!(posted.until(piece).await.1, "once");
    drop(dictate);
    assert_eq!(posted.result().await.content, "once");
    market.relay(1).restart().await.unwrap();
    market.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_piece_is_shown_to_who_has_not_paid_or_not_asked() {
    let market = TestMarket::new().terms(Terms::Postpay).start().await;
    let customer = market.customer().await;
    let mut order = customer.order("several words to stream");
    order.params.push("stream", vec!["true".into()]);
    let mut posted = customer.post(&order).await;
    let invoice = posted.invoice().await;
    customer.pay(&invoice).await.unwrap();
    posted.result().await;
    let partials = posted
        .heard
        .iter()
        .filter(|answer| matches!(&answer.body, AnswerBody::Feedback(feedback) if feedback.status == Status::Partial));
    assert_eq!(partials.count(), 0);
    market.finish().await;
}
