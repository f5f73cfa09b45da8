use std::sync::Arc;

use futures::FutureExt;
use serde_json::json;

use super::*;
use crate::testing::wallet_contract::WalletUnderTest;
use crate::testing::wallet_servers::{Fault, lnd};
use crate::wallet::fake::NETWORK;
use crate::wallet::http::tests::{Habits, HttpWorld, OPTIONS, PRICE, request, secret, wallets};

const HABITS: Habits = Habits { tls: true, tells_what_arrived: true, repeats_news: true };

async fn world() -> HttpWorld {
    let (backing, other) = wallets();
    let server = lnd::start(backing).await.unwrap();
    let connect = |endpoint, options| {
        async move {
            let wallet = LndWallet::connect(endpoint, &secret(lnd::MACAROON), NETWORK, options).await?;
            Ok(Arc::new(wallet) as Arc<dyn Wallet>)
        }
        .boxed()
    };
    HttpWorld::open(server, other, HABITS, Box::new(connect)).await
}

crate::wallet_contract!(world);

fn failed(status: u16, code: i64, message: &str) -> Fault {
    Fault::Answer { status, body: json!({"code": code, "message": message, "details": []}).to_string() }
}

#[tokio::test]
async fn it_is_what_it_can_do() {
    let world = world().await;
    let wallet = world.wallet();
    assert_eq!(wallet.capabilities(), Capabilities { hold_invoices: true, pay: true, whole_sats: false });
    let balance =
        Balance { spendable: Msat::sat(1_000), receivable: Some(Msat::sat(5_000)), on_chain: Some(Msat::sat(25_000)) };
    assert_eq!(wallet.balance().await, Ok(Some(balance)));
    // Half a satoshi is fine.
    assert!(wallet.create_invoice(&request(Msat::msat(500))).await.is_ok());
}

#[tokio::test]
async fn another_network_or_macaroon_is_refused() {
    let world = world().await;
    let connect = async |macaroon: &str, network| {
        LndWallet::connect(world.endpoint.clone(), &secret(macaroon), network, OPTIONS).await.unwrap_err()
    };
    assert!(matches!(connect(lnd::MACAROON, Network::Bitcoin).await, WalletError::Refused(_)));
    let wrong = connect("00ff", NETWORK).await;
    assert!(matches!(&wrong, WalletError::Internal(words) if words.contains("verification failed")), "{wrong}");
    let binary = connect("not hexadecimal", NETWORK).await;
    assert!(matches!(binary, WalletError::Unauthorized(_)), "{binary}");
}

#[tokio::test]
async fn every_code_has_its_meaning() {
    let world = world().await;
    let wallet = world.wallet();
    for (status, code, definitive) in [
        (499, 1, false),
        (500, 2, false),
        (400, 3, true),
        (504, 4, false),
        (404, 5, true),
        (409, 6, true),
        (403, 7, true),
        (429, 8, true),
        (400, 9, true),
        (409, 10, false),
        (400, 11, true),
        (501, 12, true),
        (500, 13, false),
        (503, 14, false),
        (500, 15, false),
        (401, 16, true),
        (500, 99, false),
    ] {
        world.server.faults().next(failed(status, code, "so it is"));
        let error = wallet.create_invoice(&request(PRICE)).await.unwrap_err();
        assert_eq!(error.is_definitive(), definitive, "{code}: {error}");
    }
    // A page that is not there is not an invoice that is not there.
    world.server.faults().next(Fault::Answer { status: 404, body: "<html>not found</html>".into() });
    let error = wallet.look_up(&PaymentHash([1; 32])).await.unwrap_err();
    assert!(matches!(error, WalletError::Refused(_)), "{error}");
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
async fn settling_what_is_settled_is_done_whatever_it_says() {
    let world = world().await;
    let wallet = world.wallet();
    let holds = wallet.hold_invoices().unwrap();
    let preimage = [8; 32];
    let hash = bolt11::hash_of(&preimage);
    let invoice = holds.create_hold_invoice(&request(PRICE), &hash, Duration::from_secs(60)).await.unwrap();
    world.pay(&invoice).await;
    world.server.faults().next(failed(500, 2, "no"));
    assert!(holds.settle(&preimage).await.is_err(), "it is only held");
    holds.settle(&preimage).await.unwrap();
    world.server.faults().next(failed(500, 2, "no"));
    holds.settle(&preimage).await.unwrap();
}

#[tokio::test]
async fn a_hold_invoice_whose_answer_was_lost_is_found_again() {
    let world = world().await;
    let wallet = world.wallet();
    let holds = wallet.hold_invoices().unwrap();
    let hash = bolt11::hash_of(&[9; 32]);
    world.server.faults().next(Fault::Garble("{".into()));
    let lost = holds.create_hold_invoice(&request(PRICE), &hash, Duration::from_secs(60)).await;
    let found = holds.create_hold_invoice(&request(PRICE), &hash, Duration::from_secs(60)).await.unwrap();
    // The first call may have found it already.
    assert!(lost.is_err() || lost == Ok(found.clone()));
    let other = holds.create_hold_invoice(&request(Msat::sat(1)), &hash, Duration::from_secs(60)).await;
    assert!(matches!(other, Err(WalletError::InvoiceAmountMismatch { .. })), "{other:?}");
}

#[tokio::test]
async fn a_hold_that_fits_no_window_is_refused() {
    let world = world().await;
    let wallet = world.wallet();
    let holds = wallet.hold_invoices().unwrap();
    let long = holds.longest_hold();
    assert!(long > Duration::from_secs(12 * 60 * 60));
    let hash = bolt11::hash_of(&[10; 32]);
    assert!(holds.create_hold_invoice(&request(PRICE), &hash, long + hold_window::BLOCK).await.is_err());
    assert!(holds.create_hold_invoice(&request(PRICE), &hash, long).await.is_ok());
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
    // Paying again is finding it.
    assert_eq!(payer.pay(&bill.bolt11, PRICE).await.unwrap().preimage, made.preimage);
}

#[tokio::test]
async fn a_refusal_to_pay_is_certain_only_from_the_node_itself() {
    let world = world().await;
    let wallet = world.wallet();
    let payer = wallet.payer().unwrap();
    let bill = world.foreign_invoice(PRICE).await;
    world.server.faults().next(failed(500, 2, "self-payments not allowed"));
    assert!(matches!(payer.pay(&bill.bolt11, PRICE).await, Err(WalletError::Refused(_))));
    world.server.faults().next(Fault::Answer { status: 502, body: "bad gateway".into() });
    assert!(!payer.pay(&bill.bolt11, PRICE).await.unwrap_err().is_definitive());
}

#[test]
fn documented_bodies_are_read() {
    let now = Timestamp::from_second(1_700_000_100).unwrap();
    let read = |body: &str| serde_json::from_str::<wire::Invoice>(body).unwrap();
    let settled = read(include_str!("documented/invoice_settled.json"));
    assert_eq!(settled.payment_hash().unwrap().to_string().len(), 64);
    let at = Timestamp::from_second(1_700_000_050).ok();
    assert_eq!(settled.standing(now), Ok(InvoiceState::Settled { amount: PRICE, at }));
    assert!(!settled.may_be_held());
    let held = read(include_str!("documented/invoice_accepted.json"));
    assert_eq!(held.standing(now), Ok(InvoiceState::Held { amount: PRICE }));
    assert!(held.may_be_held());
    let line = include_str!("documented/payment_failed.json");
    let wire::Streamed::Result(payment) = serde_json::from_str::<wire::Streamed<wire::Payment>>(line).unwrap() else {
        panic!("it is a result");
    };
    assert!(matches!(payment.outgoing(), Ok(Outgoing::Failed(_))));
    assert!(payment.lacked_money());
}

#[test]
fn every_state_is_understood_and_no_other() {
    let now = Timestamp::from_second(1_000).unwrap();
    let standing = |state: &str, expiry: &str, paid: &str, htlcs: serde_json::Value| {
        let body = json!({
            "r_hash": wire::base64(&[3; 32]), "state": state, "creation_date": "900", "expiry": expiry,
            "amt_paid_msat": paid, "htlcs": htlcs,
        });
        serde_json::from_value::<wire::Invoice>(body).unwrap().standing(now)
    };
    let parts = json!([{"amt_msat": "20000", "state": "ACCEPTED"}, {"amt_msat": "1000", "state": "ACCEPTED"},
        {"amt_msat": "7", "state": "CANCELED"}]);
    assert_eq!(standing("OPEN", "600", "0", json!([])), Ok(InvoiceState::Open));
    assert_eq!(standing("OPEN", "60", "0", json!([])), Ok(InvoiceState::Expired));
    assert_eq!(standing("ACCEPTED", "60", "0", parts.clone()), Ok(InvoiceState::Held { amount: PRICE }));
    assert_eq!(standing("SETTLED", "60", "21000", json!([])), Ok(InvoiceState::Settled { amount: PRICE, at: None }));
    assert_eq!(standing("CANCELED", "60", "0", json!([])), Ok(InvoiceState::Expired));
    assert_eq!(standing("CANCELED", "600", "0", json!([])), Ok(InvoiceState::Cancelled));
    assert_eq!(standing("CANCELED", "60", "0", parts), Ok(InvoiceState::Cancelled));
    assert!(matches!(standing("SETTLED", "60", "0", json!([])), Err(WalletError::BadAnswer(_))));
    assert!(matches!(standing("ODD", "60", "0", json!([])), Err(WalletError::BadAnswer(_))));
}
