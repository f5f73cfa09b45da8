//! Holds, and what may go wrong with them.

use super::super::*;
use super::world::{World, open};
use crate::testing::wallet_contract::WalletUnderTest;
use crate::wallet::hold_window::{self, SETTLE_MARGIN_BLOCKS};
use ldk_node::lightning::chain::channelmonitor::HTLC_FAIL_BACK_BUFFER;

const AMOUNT: Msat = Msat::sat(21);
const HOLD: Duration = Duration::from_secs(60 * 60);
const PREIMAGE: [u8; 32] = [42; 32];

fn request() -> InvoiceRequest {
    InvoiceRequest { amount: AMOUNT, description: "a job".into(), expiry: Duration::from_secs(600) }
}

async fn invoice(world: &World, hold_for: Duration) -> Invoice {
    let hash = bolt11::hash_of(&PREIMAGE);
    world.ours().create_hold_invoice(&request(), &hash, hold_for).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_can_be_held_for_as_many_blocks_as_were_asked_for() {
    let world = open().await;
    let longest = world.ours().longest_hold();
    for hold_for in [Duration::from_secs(1), HOLD, longest] {
        let preimage = [u8::try_from(hold_for.as_secs() % 251).unwrap(); 32];
        let hash = bolt11::hash_of(&preimage);
        let invoice = world.ours().create_hold_invoice(&request(), &hash, hold_for).await.unwrap();
        world.pay(&invoice).await;
        let window = world.entry(&hash).deadline - world.regtest.chain().height();
        let asked = hold_window::blocks(hold_for);
        // The payer adds some, at random, so that nodes on the way don't know how near the end is.
        assert!(window >= asked, "{window} blocks for {asked}");
        world.ours().cancel(&hash).await.unwrap();
    }
    let hash = bolt11::hash_of(&PREIMAGE);
    let longer = world.ours().create_hold_invoice(&request(), &hash, longest + hold_window::BLOCK).await;
    assert!(matches!(longer, Err(WalletError::Refused(_))), "{longer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn near_the_deadline_nothing_is_taken_and_the_payer_has_its_money_back() {
    let world = open().await;
    let before = world.other.balance().await.unwrap();
    let invoice = invoice(&world, HOLD).await;
    let paying = world.begin_to_pay(&invoice).await;
    let left = world.entry(&invoice.payment_hash).deadline - world.regtest.chain().height();
    world.mine(left - SETTLE_MARGIN_BLOCKS).await;
    let state = world.ours().look_up(&invoice.payment_hash).await.unwrap();
    assert_eq!(state, InvoiceState::Held { amount: AMOUNT }, "a margin is left");
    let mut news = world.ours().updates().await.unwrap();
    world.mine(1).await;
    let told = news.next().await.unwrap();
    assert_eq!((told.payment_hash, told.state), (invoice.payment_hash, InvoiceState::Cancelled));
    let settled = world.ours().settle(&PREIMAGE).await.unwrap_err();
    assert!(settled.is_definitive(), "{settled}");
    let paid = paying.await.unwrap();
    assert!(matches!(paid, Err(WalletError::PaymentFailed(_))), "{paid:?}");
    assert_eq!(world.other.balance().await.unwrap(), before);
    assert_eq!(world.regtest.chain().mempool().len(), 0, "no channel was closed for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_leads_to_nothing_is_never_taken_for_money() {
    let world = open().await;
    let invoice = invoice(&world, HOLD).await;
    let hash = invoice.payment_hash;
    let paying = world.begin_to_pay(&invoice).await;
    // As if the node had been told to claim in the very moment in which it failed the payment back.
    assert_eq!(world.ours().shared.book.claim(&hash), Ok(true));
    let deadline = world.entry(&hash).deadline;
    world.mine(deadline - world.regtest.chain().height()).await;
    assert!(matches!(paying.await.unwrap(), Err(WalletError::PaymentFailed(_))));
    assert_eq!(world.ours().look_up(&hash).await, Ok(InvoiceState::Held { amount: AMOUNT }), "nobody knows yet");
    world.mine(HTLC_FAIL_BACK_BUFFER).await;
    assert_eq!(world.ours().look_up(&hash).await, Ok(InvoiceState::Cancelled));
    assert!(world.ours().settle(&PREIMAGE).await.unwrap_err().is_definitive());
    assert_eq!(world.ours().received(Timestamp::MIN).await, Ok(vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawn_invoice_takes_no_payment() {
    let world = open().await;
    let invoice = invoice(&world, HOLD).await;
    world.ours().cancel(&invoice.payment_hash).await.unwrap();
    world.connected().await;
    let paid = world.other.pay(&invoice.bolt11, AMOUNT).await;
    assert!(matches!(paid, Err(WalletError::PaymentFailed(_))), "{paid:?}");
    assert_eq!(world.ours().look_up(&invoice.payment_hash).await, Ok(InvoiceState::Cancelled));
    let again = world.ours().create_hold_invoice(&request(), &invoice.payment_hash, HOLD).await;
    assert!(matches!(again, Err(WalletError::Refused(_))), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_payer_gets_the_proof_when_the_hold_is_settled() {
    let world = open().await;
    let before = world.ours().balance().await.unwrap().unwrap().spendable;
    let invoice = invoice(&world, HOLD).await;
    let paying = world.begin_to_pay(&invoice).await;
    assert_eq!(world.other.payment(&invoice.payment_hash).await, Ok(None), "it is under way");
    world.ours().settle(&PREIMAGE).await.unwrap();
    let payment = paying.await.unwrap().unwrap();
    assert_eq!((payment.preimage, payment.fees), (PREIMAGE, Some(Msat::ZERO)));
    assert_eq!(world.other.payment(&invoice.payment_hash).await, Ok(Some(payment)));
    let received = world.ours().received(Timestamp::MIN).await.unwrap();
    assert_eq!(
        received.iter().map(|one| (one.payment_hash, one.amount)).collect::<Vec<_>>(),
        [(invoice.payment_hash, AMOUNT)]
    );
    let gained = async || world.ours().balance().await.unwrap().unwrap().spendable.saturating_sub(before);
    // The channel's last words about it may still be on their way.
    let mut changes = world.ours().shared.changes.subscribe();
    while gained().await < AMOUNT {
        let _ = tokio::time::timeout(Duration::from_millis(50), changes.changed()).await;
    }
    assert_eq!(gained().await, AMOUNT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_was_not_acknowledged_comes_again_and_changes_nothing() {
    let world = open().await;
    let invoice = invoice(&world, HOLD).await;
    let paying = world.begin_to_pay(&invoice).await;
    let claimable = |deadline| ldk_node::Event::PaymentClaimable {
        payment_id: payment_id(&invoice.payment_hash),
        payment_hash: ldk_hash(&invoice.payment_hash),
        claimable_amount_msat: AMOUNT.as_msat(),
        claim_deadline: Some(deadline),
        custom_records: vec![],
    };
    let deadline = world.entry(&invoice.payment_hash).deadline;
    let (ours, event) = (world.ours(), claimable(deadline));
    ours.run(move |shared| shared.write_down(event)).await.unwrap();
    assert_eq!(world.ours().look_up(&invoice.payment_hash).await, Ok(InvoiceState::Held { amount: AMOUNT }));
    world.ours().settle(&PREIMAGE).await.unwrap();
    let event = claimable(deadline);
    ours.run(move |shared| shared.write_down(event)).await.unwrap();
    let state = world.ours().look_up(&invoice.payment_hash).await.unwrap();
    assert!(matches!(state, InvoiceState::Settled { amount: AMOUNT, .. }), "{state:?}");
    assert!(paying.await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_with_a_shorter_window_than_asked_for_goes_back_and_the_next_one_may_be_better() {
    let world = open().await;
    let before = world.other.balance().await.unwrap();
    let invoice = invoice(&world, HOLD).await;
    let asks = |blocks| world.ours().shared.book.open_invoice(&invoice, "a job", Some(blocks)).unwrap();
    // To LDK the invoice and what is paid are the same as when a payer makes less of what it reads.
    asks(1_000);
    world.connected().await;
    let paid = world.other.pay(&invoice.bolt11, AMOUNT).await;
    assert!(matches!(paid, Err(WalletError::PaymentFailed(_))), "{paid:?}");
    assert_eq!(world.other.balance().await.unwrap(), before);
    assert_eq!(world.ours().look_up(&invoice.payment_hash).await, Ok(InvoiceState::Open));
    asks(hold_window::blocks(HOLD));
    let paying = world.begin_to_pay(&invoice).await;
    world.ours().settle(&PREIMAGE).await.unwrap();
    assert!(paying.await.unwrap().is_ok());
}
