//! Opening, paying, what the owner does, and a liquidity provider.

use bitcoin::Amount;
use ldk_node::liquidity::LSPS2ServiceConfig;

use super::super::*;
use super::world::{PATIENCE, config, open};
use crate::testing::regtest::{ChannelPlan, EsploraFault, RawNode, Regtest, RegtestNode};
use crate::testing::wallet_contract::WalletUnderTest;

const AMOUNT: Msat = Msat::sat(21);

fn request(amount: Msat) -> InvoiceRequest {
    InvoiceRequest { amount, description: "a job".into(), expiry: Duration::from_secs(600) }
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it should have happened by now")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_opened_by_its_own_seed_and_by_one_node_at_a_time() {
    let (regtest, folder) = (Regtest::start().await.unwrap(), tempfile::tempdir().unwrap());
    let settings = config(&regtest, &folder);
    let first = LdkWallet::open(settings.clone(), &[1; 64]).await.unwrap();
    let second = LdkWallet::open(settings.clone(), &[1; 64]).await.unwrap_err();
    assert!(matches!(second, WalletError::Refused(_)), "{second:?}");
    first.shut_down().await;
    first.shut_down().await;
    assert!(matches!(first.look_up(&PaymentHash([1; 32])).await, Err(WalletError::Unreachable(_))));
    assert!(first.updates().await.is_err());
    let stranger = LdkWallet::open(settings.clone(), &[2; 64]).await.unwrap_err();
    assert!(matches!(stranger, WalletError::Refused(_)), "{stranger:?}");
    let again = LdkWallet::open(settings, &[1; 64]).await.unwrap();
    assert_eq!(again.node_id(), first.node_id());
    again.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_chain_it_does_not_start_and_says_so() {
    let (regtest, folder) = (Regtest::start().await.unwrap(), tempfile::tempdir().unwrap());
    let mut settings = config(&regtest, &folder);
    regtest.esplora().set_fault(EsploraFault::Answers(500));
    let failed = LdkWallet::open(settings.clone(), &[1; 64]).await;
    if let Err(error) = failed {
        assert!(matches!(error, WalletError::Unreachable(_)), "{error:?}");
    }
    settings.network = Network::Testnet4;
    let refused = LdkWallet::open(settings, &[1; 64]).await.unwrap_err();
    assert!(matches!(refused, WalletError::Refused(_)), "{refused:?}");
}

#[tokio::test]
async fn a_runtime_of_one_thread_is_refused() {
    let (regtest, folder) = (Regtest::start().await.unwrap(), tempfile::tempdir().unwrap());
    let refused = LdkWallet::open(config(&regtest, &folder), &[1; 64]).await.unwrap_err();
    assert!(matches!(refused, WalletError::Refused(_)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invoice_nobody_could_pay_is_not_made() {
    let (regtest, folder) = (Regtest::start().await.unwrap(), tempfile::tempdir().unwrap());
    let wallet = LdkWallet::open(config(&regtest, &folder), &[1; 64]).await.unwrap();
    let refused = wallet.create_invoice(&request(AMOUNT)).await.unwrap_err();
    assert!(refused.is_definitive(), "{refused}");
    let refused = wallet.create_hold_invoice(&request(AMOUNT), &PaymentHash([1; 32]), Duration::ZERO).await;
    assert!(refused.unwrap_err().is_definitive());
    wallet.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_not_pay_itself_nor_what_is_not_for_it() {
    let world = open().await;
    let own = world.ours().create_invoice(&request(AMOUNT)).await.unwrap();
    let refused = world.ours().pay(&own.bolt11, AMOUNT).await.unwrap_err();
    assert!(matches!(refused, WalletError::Refused(_)), "{refused:?}");
    assert_eq!(world.ours().payment(&own.payment_hash).await, Ok(None));
    for foreign in ["lnbc1", "", "lightning:nothing"] {
        assert!(matches!(world.ours().pay(foreign, AMOUNT).await, Err(WalletError::BadInvoice(_))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_begun_by_a_process_that_died_is_known_to_the_next() {
    let world = open().await;
    world.connected().await;
    let hash = bolt11::hash_of(&[9; 32]);
    let other = &world.other;
    let invoice = other.create_hold_invoice(&request(AMOUNT), &hash, Duration::from_secs(60)).await.unwrap();
    let (ours, text) = (world.ours(), invoice.bolt11.clone());
    let paying = tokio::spawn(async move { ours.pay(&text, AMOUNT).await });
    let mut news = other.updates().await.unwrap();
    while !matches!(other.look_up(&hash).await.unwrap(), InvoiceState::Held { .. }) {
        within(news.next()).await;
    }
    world.restart().await;
    let interrupted = paying.await.unwrap().unwrap_err();
    assert!(!interrupted.is_definitive(), "{interrupted}");
    assert_eq!(world.ours().payment(&hash).await, Ok(None), "it is under way");
    other.settle(&[9; 32]).await.unwrap();
    let payment = within(world.ours().pay(&invoice.bolt11, AMOUNT)).await.unwrap();
    assert_eq!(payment.preimage, [9; 32]);
    let sent = world.ours().sent(Timestamp::MIN).await.unwrap();
    assert_eq!(sent.iter().map(|one| (one.payment_hash, one.amount)).collect::<Vec<_>>(), [(hash, AMOUNT)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_sees_and_closes_a_channel() {
    let world = open().await;
    let (ours, other) = (world.ours(), world.other.node_id());
    let channels = ours.channels().await.unwrap();
    let [channel] = channels.as_slice() else { panic!("one channel, not {}", channels.len()) };
    assert_eq!((channel.peer, channel.size, channel.opened_by_us), (other, Msat::sat(1_000_000), false));
    assert!(channel.ready && channel.usable && !channel.announced && channel.funding.is_some());
    let status = Owner::status(&*ours).await.unwrap();
    assert_eq!((status.node, status.height), (ours.node_id(), world.regtest.chain().height()));
    assert_eq!(status.on_chain_total.saturating_sub(status.on_chain_spendable), ANCHOR_RESERVE);
    assert!(ours.peers().await.unwrap().iter().any(|peer| peer.node == other && peer.connected));
    assert_eq!(ours.close_channel("00", false).await, Err(WalletError::NotFound));
    ours.close_channel(&channel.id.to_uppercase(), false).await.unwrap();
    let chain = world.regtest.chain();
    within(chain.until(|chain| (!chain.mempool().is_empty()).then_some(()))).await;
    world.mine(6).await;
    assert_eq!(ours.channels().await.unwrap(), []);
    let foreign = "bc1qt8a2875pfcjztvnqzfxa27ep725u2qaxnqqpxn";
    assert!(matches!(ours.send_on_chain(foreign, Some(Msat::sat(1_000))).await, Err(WalletError::Refused(_))));
    let home = Owner::new_address(&*world.other).await.unwrap();
    assert!(matches!(ours.send_on_chain(&home, Some(Msat::msat(1_500))).await, Err(WalletError::Refused(_))));
    let sent = ours.send_on_chain(&home, None).await.unwrap();
    within(chain.until(|chain| chain.transaction(&sent))).await;
}

/// What the liquidity provider asks for: a percent, and no less than five satoshis.
fn terms() -> LSPS2ServiceConfig {
    LSPS2ServiceConfig {
        require_token: None,
        advertise_service: false,
        channel_opening_fee_ppm: 10_000,
        channel_over_provisioning_ppm: 1_000_000,
        min_channel_opening_fee_msat: 5_000,
        min_channel_lifetime: 100,
        max_client_to_self_delay: 1_024,
        min_payment_size_msat: 0,
        max_payment_size_msat: 1_000_000_000,
        client_trusts_lsp: true,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_node_is_paid_over_a_channel_that_is_opened_for_it() {
    let regtest = Regtest::start().await.unwrap();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let lsp = RawNode::start(&regtest.access(), |builder| {
        builder.set_liquidity_provider_lsps2(terms());
    });
    let payer = LdkWallet::open(config(&regtest, &folders[0]), &[2; 64]).await.unwrap();
    for node in [&lsp as &dyn RegtestNode, &payer] {
        regtest.fund(node, Amount::from_sat(3_000_000)).await;
    }
    let plan = ChannelPlan { size: Amount::from_sat(1_000_000), gift: Amount::ZERO };
    regtest.open_channel(&payer, &lsp, plan).await;
    let mut settings = config(&regtest, &folders[1]);
    settings.lsp = Some(LdkLsp { node: lsp.address(), token: None });
    let wallet = LdkWallet::open(settings, &[1; 64]).await.unwrap();
    RegtestNode::sync(&wallet).await;

    let small = wallet.create_invoice(&request(Msat::sat(15))).await.unwrap_err();
    assert!(small.is_definitive(), "five of fifteen satoshis are too much: {small}");

    // Held, over a channel that did not exist.
    let (amount, preimage) = (Msat::sat(20_000), [8; 32]);
    let hash = bolt11::hash_of(&preimage);
    let invoice = wallet.create_hold_invoice(&request(amount), &hash, Duration::from_secs(3_600)).await.unwrap();
    let mut news = wallet.updates().await.unwrap();
    let (text, payer) = (invoice.bolt11.clone(), Arc::new(payer));
    let paying = tokio::spawn({
        let payer = Arc::clone(&payer);
        async move { payer.pay(&text, Msat::sat(100)).await }
    });
    let held = within(news.next()).await.unwrap();
    assert_eq!((held.payment_hash, held.state), (hash, InvoiceState::Held { amount }));
    wallet.settle(&preimage).await.unwrap();
    let settled = wallet.look_up(&hash).await.unwrap();
    assert!(matches!(settled, InvoiceState::Settled { amount: all, .. } if all == amount), "{settled:?}");
    assert_eq!(within(paying).await.unwrap().unwrap().preimage, preimage);
    let ours = wallet.channels().await.unwrap();
    assert_eq!(ours.len(), 1);
    assert!(wallet.balance().await.unwrap().unwrap().spendable < amount, "the provider kept its fee");
    wallet.shut_down().await;
    payer.shut_down().await;
}
