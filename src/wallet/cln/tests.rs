use std::sync::Arc;

use futures::FutureExt;
use serde_json::json;

use super::*;
use crate::testing::wallet_contract::WalletUnderTest;
use crate::testing::wallet_servers::{Fault, cln};
use crate::wallet::fake::NETWORK;
use crate::wallet::hold_window;
use crate::wallet::http::tests::{Habits, HttpWorld, OPTIONS, PRICE, request, secret, wallets};

const HABITS: Habits = Habits { tls: true, tells_what_arrived: true, repeats_news: false };

async fn with(plugin: bool) -> HttpWorld {
    let (backing, other) = wallets();
    let server = cln::start(backing, plugin).await.unwrap();
    let connect = |endpoint, options| {
        async move {
            let wallet = ClnWallet::connect(endpoint, &secret(cln::RUNE), NETWORK, options).await?;
            Ok(Arc::new(wallet) as Arc<dyn Wallet>)
        }
        .boxed()
    };
    HttpWorld::open(server, other, HABITS, Box::new(connect)).await
}

async fn world() -> HttpWorld {
    with(true).await
}

crate::wallet_contract!(world);

mod without_the_plugin {
    use super::*;

    async fn open() -> HttpWorld {
        let world = with(false).await;
        let can = world.wallet().capabilities();
        assert_eq!(can, Capabilities { hold_invoices: false, pay: true, whole_sats: false });
        world
    }

    crate::wallet_contract! { open =>
        a_paid_invoice_is_settled_and_told
        an_unknown_hash_is_not_found
        a_held_payment_is_settled_by_its_preimage
        paying_gives_the_proof
    }
}

fn failed(status: u16, code: i64, message: &str) -> Fault {
    Fault::Answer { status, body: json!({"code": code, "message": message, "data": null}).to_string() }
}

#[tokio::test]
async fn it_is_what_it_can_do() {
    let world = world().await;
    let wallet = world.wallet();
    assert_eq!(wallet.capabilities(), Capabilities { hold_invoices: true, pay: true, whole_sats: false });
    let balance =
        Balance { spendable: Msat::sat(1_000), receivable: Some(Msat::sat(5_000)), on_chain: Some(Msat::sat(25_000)) };
    assert_eq!(wallet.balance().await, Ok(Some(balance)));
}

#[tokio::test]
async fn another_network_or_rune_is_refused() {
    let world = world().await;
    let connect = async |rune: &str, network| {
        ClnWallet::connect(world.endpoint.clone(), &secret(rune), network, OPTIONS).await.unwrap_err()
    };
    assert!(matches!(connect(cln::RUNE, Network::Bitcoin).await, WalletError::Refused(_)));
    assert!(matches!(connect("wrong", NETWORK).await, WalletError::Unauthorized(_)));
}

#[tokio::test]
async fn every_code_has_its_meaning() {
    let world = world().await;
    let wallet = world.wallet();
    for (status, code, definitive) in [
        (404, -32_601, true),
        (500, -32_602, true),
        (500, -1, false),
        (500, -3, false),
        (500, 200, false),
        (500, 205, true),
        (500, 210, true),
        (500, 900, true),
        (403, 1_501, true),
        (401, 1_502, true),
        (401, 1_503, true),
        (500, 4_242, false),
    ] {
        world.server.faults().next(failed(status, code, "so it is"));
        let error = wallet.create_invoice(&request(PRICE)).await.unwrap_err();
        assert_eq!(error.is_definitive(), definitive, "{code}: {error}");
    }
    world.server.faults().next(Fault::Answer { status: 500, body: "<html>".into() });
    assert!(!wallet.create_invoice(&request(PRICE)).await.unwrap_err().is_definitive());
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
async fn news_goes_on_after_the_last_payment_however_many_there_were() {
    let world = world().await;
    let wallet = world.wallet();
    for _ in 0..11 {
        let invoice = wallet.create_invoice(&request(PRICE)).await.unwrap();
        world.pay(&invoice).await;
    }
    let again = world.client(OPTIONS).await.unwrap();
    let mut news = futures::StreamExt::boxed(again.updates().await.unwrap());
    let invoice = wallet.create_invoice(&request(PRICE)).await.unwrap();
    world.pay(&invoice).await;
    let first = futures::StreamExt::next(&mut news).await.unwrap();
    assert_eq!(first.payment_hash, invoice.payment_hash, "it begins after what was there");
}

#[tokio::test]
async fn the_hold_invoice_asks_for_the_blocks_it_needs() {
    let world = world().await;
    let wallet = world.wallet();
    let holds = wallet.hold_invoices().unwrap();
    let hash = bolt11::hash_of(&[9; 32]);
    let hour = Duration::from_secs(3_600);
    let made = holds.create_hold_invoice(&request(PRICE), &hash, hour).await.unwrap();
    let read: lightning_invoice::Bolt11Invoice = made.bolt11.parse().unwrap();
    assert_eq!(read.min_final_cltv_expiry_delta(), u64::from(hold_window::blocks(hour)));
    let too_long = holds.longest_hold() + hold_window::BLOCK;
    assert!(holds.create_hold_invoice(&request(PRICE), &hash, too_long).await.is_err());
    let other = holds.create_hold_invoice(&request(Msat::sat(1)), &hash, hour).await;
    assert!(matches!(other, Err(WalletError::InvoiceAmountMismatch { .. })), "{other:?}");
}

#[tokio::test]
async fn a_settled_hold_is_in_the_history_too() {
    let world = world().await;
    let wallet = world.wallet();
    let holds = wallet.hold_invoices().unwrap();
    let preimage = [11; 32];
    let hash = bolt11::hash_of(&preimage);
    let made = holds.create_hold_invoice(&request(PRICE), &hash, Duration::from_secs(60)).await.unwrap();
    world.pay(&made).await;
    holds.settle(&preimage).await.unwrap();
    let since = Timestamp::now() - jiff::SignedDuration::from_secs(60);
    let received = wallet.history().unwrap().received(since).await.unwrap();
    assert_eq!(received.len(), 1);
    assert_eq!((received[0].payment_hash, received[0].amount), (hash, PRICE));
    assert_eq!(received[0].description.as_deref(), Some("a job"));
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
    assert!(payer.payment(&bill.payment_hash).await.unwrap().is_some());
    // A certain refusal is not believed when the payment is there.
    world.server.faults().next(failed(500, 210, "Ran out of routes"));
    assert!(payer.pay(&bill.bolt11, PRICE).await.is_ok());
}

#[test]
fn documented_bodies_are_read() {
    let now = Timestamp::from_second(1_700_000_100).unwrap();
    let list: wire::Invoices = serde_json::from_str(include_str!("documented/listinvoices.json")).unwrap();
    let states: Vec<_> = list.invoices.iter().map(|invoice| invoice.standing(now)).collect();
    let at = Timestamp::from_second(1_700_000_050).ok();
    let paid = InvoiceState::Settled { amount: PRICE, at };
    assert_eq!(states, [Ok(paid), Ok(InvoiceState::Expired), Ok(InvoiceState::Open)]);
    let held: wire::HoldInvoices = serde_json::from_str(include_str!("documented/listholdinvoices.json")).unwrap();
    let at = Timestamp::from_microsecond(1_700_000_050_250_000).ok();
    assert_eq!(held.holdinvoices[0].standing(now), Ok(InvoiceState::Held { amount: PRICE }));
    assert_eq!(held.holdinvoices[1].standing(now), Ok(InvoiceState::Settled { amount: PRICE, at }));
    assert_eq!(held.holdinvoices[2].standing(now), Ok(InvoiceState::Cancelled));
    let pays: wire::Pays = serde_json::from_str(include_str!("documented/listpays.json")).unwrap();
    assert!(matches!(pays.pays[0].outgoing(), Ok(Outgoing::Failed(_))));
    assert!(matches!(pays.pays[1].outgoing(), Ok(Outgoing::Made(paid)) if paid.fees == Some(Msat::msat(12))));
    // Nodes before 23.08 write the unit behind it.
    let old = json!({"payment_hash": "00".repeat(32), "status": "paid", "amount_received_msat": "21000msat"});
    let old: wire::Invoice = serde_json::from_value(old).unwrap();
    assert_eq!(old.standing(now), Ok(InvoiceState::Settled { amount: PRICE, at: None }));
}
