use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use serde_json::json;

use super::*;
use crate::testing::wallet_contract::WalletUnderTest;
use crate::testing::wallet_servers::{Fault, phoenixd};
use crate::wallet::fake::NETWORK;
use crate::wallet::http::tests::{Habits, HttpWorld, OPTIONS, PRICE, request, secret, wallets};

const HABITS: Habits = Habits { tls: false, tells_what_arrived: true, repeats_news: true };

async fn world() -> HttpWorld {
    let (backing, other) = wallets();
    let server = phoenixd::start(backing).await.unwrap();
    let connect = |endpoint, options| {
        async move {
            let wallet = PhoenixdWallet::connect(endpoint, &secret(phoenixd::PASSWORD), NETWORK, options).await?;
            Ok(Arc::new(wallet) as Arc<dyn Wallet>)
        }
        .boxed()
    };
    HttpWorld::open(server, other, HABITS, Box::new(connect)).await
}

crate::wallet_contract!(world);

#[tokio::test]
async fn it_is_what_it_can_do() {
    let world = world().await;
    let wallet = world.wallet();
    assert_eq!(wallet.capabilities(), Capabilities { hold_invoices: false, pay: true, whole_sats: true });
    let balance = Balance { spendable: Msat::sat(1_000), receivable: None, on_chain: None };
    assert_eq!(wallet.balance().await, Ok(Some(balance)));
    let refused = wallet.create_invoice(&request(Msat::msat(21_001))).await;
    assert!(matches!(refused, Err(WalletError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn another_network_or_password_is_refused() {
    let world = world().await;
    let connect = async |password: &str, network| {
        PhoenixdWallet::connect(world.endpoint.clone(), &secret(password), network, OPTIONS).await.unwrap_err()
    };
    assert!(matches!(connect(phoenixd::PASSWORD, Network::Bitcoin).await, WalletError::Refused(_)));
    assert!(matches!(connect("wrong", NETWORK).await, WalletError::Unauthorized(_)));
}

#[tokio::test]
async fn an_answer_about_another_invoice_is_none() {
    let world = world().await;
    let wallet = world.wallet();
    let invoice = wallet.create_invoice(&request(PRICE)).await.unwrap();
    world.server.faults().tell_of_another(true);
    let error = wallet.look_up(&invoice.payment_hash).await.unwrap_err();
    assert!(matches!(error, WalletError::BadAnswer(_)), "{error}");
}

#[tokio::test]
async fn a_fee_above_the_limit_is_not_paid() {
    let world = world().await;
    let wallet = world.wallet();
    let payer = wallet.payer().unwrap();
    let bill = world.foreign_invoice(PRICE).await;
    assert_eq!(fee(PRICE), Msat::msat(4_084));
    let refused = payer.pay(&bill.bolt11, Msat::msat(4_083)).await;
    assert!(matches!(refused, Err(WalletError::Refused(_))), "{refused:?}");
    assert_eq!(payer.payment(&bill.payment_hash).await, Ok(None));
    assert!(payer.pay(&bill.bolt11, Msat::msat(4_084)).await.is_ok());
}

#[tokio::test]
async fn a_payment_whose_answer_was_lost_is_in_doubt_and_found() {
    let world = world().await;
    let wallet = world.wallet();
    let payer = wallet.payer().unwrap();
    let bill = world.foreign_invoice(PRICE).await;
    world.server.faults().next(Fault::Garble("{".into()));
    let error = payer.pay(&bill.bolt11, PRICE).await.unwrap_err();
    assert!(!error.is_definitive(), "{error}");
    let made = payer.payment(&bill.payment_hash).await.unwrap().unwrap();
    // "This invoice has already been paid" is a failure that is none.
    assert_eq!(payer.pay(&bill.bolt11, PRICE).await.unwrap().preimage, made.preimage);
}

#[test]
fn documented_bodies_are_read() {
    let now = Timestamp::from_millisecond(1_750_941_600_000).unwrap();
    let list: Vec<wire::Incoming> = serde_json::from_str(include_str!("documented/incoming.json")).unwrap();
    let states: Vec<_> = list.iter().map(|one| one.standing(now).unwrap()).collect();
    let at = Timestamp::from_millisecond(1_750_942_477_605).ok();
    assert_eq!(states[0], InvoiceState::Expired);
    assert_eq!(states[1], InvoiceState::Settled { amount: Msat::sat(1_050), at });
    assert!(matches!(states[2], InvoiceState::Settled { amount, .. } if amount == Msat::sat(1_500)));
    let out: Vec<wire::Sent> = serde_json::from_str(include_str!("documented/outgoing.json")).unwrap();
    assert_eq!(out[0].payment_hash, None);
    assert_eq!((out[1].amount(), out[1].fees()), (Ok(Msat::sat(1)), Some(Msat::msat(4_004))));
    assert_eq!(out[2].amount(), Ok(Msat::sat(4)));
    let paid: wire::Paid = serde_json::from_str(include_str!("documented/paid.json")).unwrap();
    assert!(matches!(paid, wire::Paid::Sent { routing_fee_sat: 4, .. }));
    let failed: wire::Paid = serde_json::from_value(
        json!({"type": "payment_failed", "paymentHash": "00".repeat(32), "reason": "insufficient balance"}),
    )
    .unwrap();
    assert!(matches!(failed, wire::Paid::Failed { .. }));
    let event = r#"{"type":"payment_received","timestamp":1712785550079,"amountSat":8,"paymentHash":"72cd6e8422c407fb6d098690f1130b7ded7ec2f7f5e1d30bd9d521f015363793","externalId":"foobar"}"#;
    assert!(wire::hint(event).is_some());
    assert_eq!(wire::hint("hello"), None);
}

#[test]
fn what_is_kept_for_a_channel_was_paid_all_the_same() {
    let told =
        json!({"paymentHash": "00".repeat(32), "isPaid": true, "receivedSat": 15, "fees": 5_400, "completedAt": 1});
    let read: wire::Incoming = serde_json::from_value(told).unwrap();
    assert!(
        matches!(read.standing(Timestamp::UNIX_EPOCH), Ok(InvoiceState::Settled { amount, .. }) if amount == PRICE)
    );
    let nothing = json!({"paymentHash": "00".repeat(32), "isPaid": true});
    let read: wire::Incoming = serde_json::from_value(nothing).unwrap();
    assert!(matches!(read.standing(Timestamp::UNIX_EPOCH), Err(WalletError::BadAnswer(_))));
}

#[tokio::test]
async fn a_long_description_is_given_as_its_hash() {
    let world = world().await;
    let wallet = world.wallet();
    let long = InvoiceRequest { description: "x".repeat(129), ..request(PRICE) };
    // The stub, as an old phoenixd, wants one in clear: what matters is that it was not cut.
    let refused = wallet.create_invoice(&long).await;
    assert!(matches!(refused, Err(WalletError::Refused(_))), "{refused:?}");
    let fits = InvoiceRequest { description: "é".repeat(128), expiry: Duration::from_secs(60), amount: PRICE };
    assert!(wallet.create_invoice(&fits).await.is_ok());
}
