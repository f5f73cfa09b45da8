//! The chain by itself, and raw nodes on it.

use bitcoin::Amount;
use ldk_node::Event;
use ldk_node::lightning_invoice::{Bolt11InvoiceDescription, Description};

use super::*;

/// What each node has on the chain at first: a channel and the reserve for closing it.
const PURSE: Amount = Amount::from_sat(2_000_000);

const CHANNEL: ChannelPlan = ChannelPlan { size: Amount::from_sat(1_000_000), gift: Amount::from_sat(200_000) };

const TWENTY_ONE_SATS: u64 = 21_000;

async fn event(node: &RawNode, wanted: impl Fn(&Event) -> bool) -> Event {
    let waiting = async {
        loop {
            let event = node.node().next_event_async().await;
            node.node().event_handled().unwrap();
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it should have happened by now")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_unmodified_nodes_open_a_channel_and_pay_both_ways() {
    let regtest = Regtest::start().await.unwrap();
    let (alice, bob) = (RawNode::start(&regtest.access(), |_| ()), RawNode::start(&regtest.access(), |_| ()));
    regtest.fund(&alice, PURSE).await;
    regtest.fund(&bob, PURSE).await;
    regtest.open_channel(&alice, &bob, CHANNEL).await;

    for (payer, payee) in [(&alice, &bob), (&bob, &alice)] {
        let description = Bolt11InvoiceDescription::Direct(Description::new("a job".to_owned()).unwrap());
        let invoice = payee.node().bolt11_payment().receive(TWENTY_ONE_SATS, &description, 600).unwrap();
        payer.node().bolt11_payment().send(&invoice, None).unwrap();
        let received = event(payee, |event| matches!(event, Event::PaymentReceived { .. })).await;
        assert!(matches!(received, Event::PaymentReceived { amount_msat: TWENTY_ONE_SATS, .. }));
        event(payer, |event| matches!(event, Event::PaymentSuccessful { .. })).await;
    }
}
