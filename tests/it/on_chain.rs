//! What happens to channels on the chain, between unmodified nodes: every script is executed by bitcoin's own code
//! (libbitcoinconsensus), or the chain is kept by a bitcoind of one's own; see [`network`].

use std::path::PathBuf;
use std::sync::Arc;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Amount, Transaction, TxOut, consensus};
use bitcoinconsensus::Utxo;
use coinop::testing::market::within;
use coinop::testing::regtest::{ChannelPlan, RawNode, Regtest, RegtestNode, ScriptCheck};
use coinop::testing::require;
use ldk_node::lightning_types::payment::{PaymentHash, PaymentPreimage};
use ldk_node::liquidity::LSPS2ServiceConfig;
use ldk_node::payment::{PaymentKind, PaymentStatus};
use ldk_node::{Event, PendingSweepBalance, UserChannelId};
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description};

/// The bitcoind to test against, when it is not the first on the path.
const BITCOIND: &str = "COINOP_TEST_BITCOIND";

const PURSE: Amount = Amount::from_sat(2_000_000);

const CHANNEL: ChannelPlan = ChannelPlan { size: Amount::from_sat(1_000_000), gift: Amount::from_sat(300_000) };

/// Far above what an output must be worth to be claimed on the chain.
const HELD: Amount = Amount::from_sat(100_000);

/// More than all the transactions of a closing cost at the fees of these chains.
const CLOSING_COSTS: Amount = Amount::from_sat(20_000);

/// Blocks after which a claim is old enough to be believed.
pub const BURIED: u32 = 6;

/// Blocks to wait for money that went home by force (BOLT 2 `to_self_delay`, as these nodes agree on it).
pub const SELF_DELAY: u32 = 144;

/// Blocks a payment may be under way at most: what its receiver asks for, and what payers add to hide where it goes.
pub const LONGEST_HOLD: u32 = 600;

/// Executes the scripts of every input, as a bitcoin node does.
pub fn executed() -> ScriptCheck {
    Arc::new(|tx: &Transaction, spent: &[TxOut]| {
        let raw = consensus::serialize(tx);
        let utxos: Vec<Utxo> = spent
            .iter()
            .map(|output| Utxo {
                script_pubkey: output.script_pubkey.as_bytes().as_ptr(),
                script_pubkey_len: u32::try_from(output.script_pubkey.len()).unwrap(),
                value: output.value.to_sat().try_into().unwrap(),
            })
            .collect();
        for (number, output) in spent.iter().enumerate() {
            let (script, value) = (output.script_pubkey.as_bytes(), output.value.to_sat());
            bitcoinconsensus::verify(script, value, &raw, Some(&utxos), number)
                .map_err(|error| format!("input {number}: {error}"))?;
        }
        Ok(())
    })
}

/// Which chain a story is told on.
#[derive(Clone, Copy)]
pub enum Kept {
    /// In this process.
    Here,
    /// By a bitcoind.
    ByBitcoind,
}

/// The chain of a story; `None` when there is no bitcoind, which is said, and a failure when one is required.
pub async fn network(kept: Kept) -> Option<Regtest> {
    match kept {
        Kept::Here => Some(Regtest::start_with(executed()).await.unwrap()),
        Kept::ByBitcoind => match bitcoind() {
            Some(program) => Some(Regtest::start_bitcoind(&program).await.unwrap()),
            None => {
                require::skip("bitcoind", &format!("put it on the PATH, or name it in {BITCOIND}"));
                None
            }
        },
    }
}

fn bitcoind() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(BITCOIND) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("bitcoind")).find(|program| program.is_file())
}

/// Tells stories on both chains.
macro_rules! on_every_chain {
    ($($story:ident)+) => {
        mod simulated {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $story() {
                    super::$story($crate::on_chain::network($crate::on_chain::Kept::Here).await.unwrap()).await;
                }
            )+
        }
        mod bitcoind {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $story() {
                    if let Some(network) = $crate::on_chain::network($crate::on_chain::Kept::ByBitcoind).await {
                        super::$story(network).await;
                    }
                }
            )+
        }
    };
}

pub(crate) use on_every_chain;

on_every_chain! {
    a_channel_closed_in_agreement_pays_both_at_once
    a_held_payment_is_claimed_on_the_chain_after_a_forced_closing
    a_held_payment_nobody_claims_comes_home_from_the_chain
    three_blocks_that_go_away_take_no_channel_with_them
    an_empty_node_is_paid_over_a_channel_made_for_it
}

/// Two nodes with a channel; the first opened it.
async fn pair(network: &Regtest) -> (RawNode, RawNode) {
    let (alice, bob) = (RawNode::start(&network.access(), |_| ()), RawNode::start(&network.access(), |_| ()));
    network.fund(&alice, PURSE).await;
    network.fund(&bob, PURSE).await;
    network.open_channel(&alice, &bob, CHANNEL).await;
    (alice, bob)
}

async fn event<T>(what: &str, node: &RawNode, pick: impl Fn(Event) -> Option<T>) -> T {
    let waiting = async {
        loop {
            let event = node.node().next_event_async().await;
            node.node().event_handled().unwrap();
            if let Some(found) = pick(event) {
                return found;
            }
        }
    };
    within(what, waiting).await
}

fn description() -> Bolt11InvoiceDescription {
    Bolt11InvoiceDescription::Direct(Description::new("a job".to_owned()).unwrap())
}

fn msat(amount: Amount) -> u64 {
    amount.to_sat() * 1_000
}

fn total(node: &RawNode) -> Amount {
    let balances = node.node().list_balances();
    Amount::from_sat(balances.total_onchain_balance_sats)
}

/// The channel by its name at `node`.
fn channel(node: &RawNode) -> UserChannelId {
    node.node().list_channels()[0].user_channel_id
}

/// Mines a block at a time, both reading it, until nothing of their channel is left to wait for.
async fn mine_until_over(network: &Regtest, nodes: [&RawNode; 2], most: u32) {
    for _ in 0..most {
        if nodes.iter().all(|node| is_over(node)) {
            return;
        }
        network.mine(1, &nodes.map(|node| node as &dyn RegtestNode)).await;
    }
    let left = nodes.map(|node| node.node().list_balances());
    assert!(nodes.iter().all(|node| is_over(node)), "after {most} blocks there is still {left:?}");
}

/// Nothing of the channel is left to wait for.
fn is_over(node: &RawNode) -> bool {
    let balances = node.node().list_balances();
    // What was swept is remembered for weeks.
    let swept =
        |output: &PendingSweepBalance| matches!(output, PendingSweepBalance::AwaitingThresholdConfirmations { .. });
    balances.lightning_balances.is_empty()
        && balances.pending_balances_from_channel_closures.iter().all(swept)
        && balances.spendable_onchain_balance_sats == balances.total_onchain_balance_sats
}

fn assert_about(found: Amount, expected: Amount) {
    assert!(found <= expected && found + CLOSING_COSTS >= expected, "{found} is not about {expected}");
}

/// A payment `alice` made, which `bob` holds.
async fn held(alice: &RawNode, bob: &RawNode) -> (PaymentPreimage, PaymentHash) {
    let preimage = PaymentPreimage([21; 32]);
    let hash = PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array());
    let invoice = bob.node().bolt11_payment().receive_for_hash(msat(HELD), &description(), 600, hash).unwrap();
    alice.node().bolt11_payment().send(&invoice, None).unwrap();
    event("a held payment", bob, |event| matches!(event, Event::PaymentClaimable { .. }).then_some(())).await;
    (preimage, hash)
}

async fn a_channel_closed_in_agreement_pays_both_at_once(network: Regtest) {
    let (alice, bob) = pair(&network).await;
    alice.node().close_channel(&channel(&alice), bob.node().node_id()).unwrap();
    event("the closing", &bob, |event| matches!(event, Event::ChannelClosed { .. }).then_some(())).await;
    network.until_waiting(|waiting| (!waiting.is_empty()).then_some(())).await;
    mine_until_over(&network, [&alice, &bob], 2 * BURIED).await;
    assert_about(total(&alice), PURSE - CHANNEL.gift);
    assert_about(total(&bob), PURSE + CHANNEL.gift);
}

async fn a_held_payment_is_claimed_on_the_chain_after_a_forced_closing(network: Regtest) {
    let (alice, bob) = pair(&network).await;
    let (preimage, hash) = held(&alice, &bob).await;

    // The payer breaks the channel while its payment is held; the payee takes it all the same, on the chain.
    alice.node().force_close_channel(&channel(&alice), bob.node().node_id(), None).unwrap();
    network.until_waiting(|waiting| (!waiting.is_empty()).then_some(())).await;
    network.mine(1, &[&alice, &bob]).await;
    bob.node().bolt11_payment().claim_for_hash(hash, msat(HELD), preimage).unwrap();
    mine_until_over(&network, [&alice, &bob], SELF_DELAY + 4 * BURIED).await;

    assert_about(total(&bob), PURSE + CHANNEL.gift + HELD);
    assert_about(total(&alice), PURSE - CHANNEL.gift - HELD);
    // The payer learns the proof from the chain.
    let proof = event("the payer's proof", &alice, |event| match event {
        Event::PaymentSuccessful { payment_preimage, .. } => payment_preimage,
        _ => None,
    });
    assert_eq!(proof.await, preimage);
}

async fn a_held_payment_nobody_claims_comes_home_from_the_chain(network: Regtest) {
    let (alice, bob) = pair(&network).await;
    let (_, hash) = held(&alice, &bob).await;
    bob.node().force_close_channel(&channel(&bob), alice.node().node_id(), None).unwrap();
    network.until_waiting(|waiting| (!waiting.is_empty()).then_some(())).await;
    mine_until_over(&network, [&alice, &bob], LONGEST_HOLD + 4 * BURIED).await;

    assert_about(total(&alice), PURSE - CHANNEL.gift);
    assert_about(total(&bob), PURSE + CHANNEL.gift);
    // The node takes in what the chain says after the money is there.
    let failed = |event| matches!(event, Event::PaymentFailed { .. }).then_some(());
    event("the payer's word that it failed", &alice, failed).await;
    let paid = alice.node().list_payments_with_filter(
        |payment| matches!(payment.kind, PaymentKind::Bolt11 { hash: of, .. } if of == hash),
    );
    assert_eq!(paid[0].status, PaymentStatus::Failed);
}

async fn three_blocks_that_go_away_take_no_channel_with_them(network: Regtest) {
    let (alice, bob) = pair(&network).await;
    let nodes: [&dyn RegtestNode; 2] = [&alice, &bob];
    // The blocks hold money for a node: it is gone, and comes back.
    network.fund(&bob, PURSE).await;
    network.mine(2, &nodes).await;
    let before = bob.on_chain().await;
    network.reorg(3).await;
    for node in nodes {
        node.sync().await;
    }
    assert_eq!(bob.on_chain().await, before - PURSE, "what is in no block can't be spent");
    network.mine(1, &nodes).await;
    assert_eq!(bob.on_chain().await, before);

    // The channel lives, and pays.
    assert_eq!((alice.node().list_channels().len(), bob.node().list_channels().len()), (1, 1));
    let (preimage, hash) = held(&alice, &bob).await;
    bob.node().bolt11_payment().claim_for_hash(hash, msat(HELD), preimage).unwrap();
    event("the payment", &bob, |event| matches!(event, Event::PaymentReceived { .. }).then_some(())).await;
    event("its proof", &alice, |event| matches!(event, Event::PaymentSuccessful { .. }).then_some(())).await;
}

/// What our provider of channels asks for one.
pub const CHANNEL_FEE_PPM: u32 = 10_000;

/// A node that opens channels to those who have none, when somebody pays them (LSPS2).
pub fn liquidity_provider(network: &Regtest) -> RawNode {
    RawNode::start(&network.access(), |builder| {
        builder.set_node_alias("channels for all".to_owned()).unwrap();
        builder.set_liquidity_provider_lsps2(LSPS2ServiceConfig {
            require_token: None,
            advertise_service: false,
            channel_opening_fee_ppm: CHANNEL_FEE_PPM,
            channel_over_provisioning_ppm: 1_000_000,
            min_channel_opening_fee_msat: 0,
            min_channel_lifetime: 100,
            max_client_to_self_delay: 1024,
            min_payment_size_msat: 0,
            max_payment_size_msat: msat(PURSE),
            client_trusts_lsp: true,
        });
    })
}

async fn an_empty_node_is_paid_over_a_channel_made_for_it(network: Regtest) {
    let (lsp, payer) = (liquidity_provider(&network), RawNode::start(&network.access(), |_| ()));
    let provider = lsp.address();
    let client = RawNode::start(&network.access(), |builder| {
        builder.set_liquidity_source_lsps2(provider.node, provider.address.parse().unwrap(), None);
    });
    network.fund(&lsp, PURSE).await;
    network.fund(&payer, PURSE).await;
    network.open_channel(&payer, &lsp, CHANNEL).await;
    client.sync().await;

    let invoice: Bolt11Invoice =
        client.node().bolt11_payment().receive_via_jit_channel(msat(HELD), &description(), 600, None).unwrap();
    payer.node().bolt11_payment().send(&invoice, None).unwrap();
    let received = event("the payment", &client, |event| match event {
        Event::PaymentReceived { amount_msat, .. } => Some(amount_msat),
        _ => None,
    })
    .await;
    assert_eq!(received, msat(HELD) - msat(HELD) * u64::from(CHANNEL_FEE_PPM) / 1_000_000);
    event("its proof", &payer, |event| matches!(event, Event::PaymentSuccessful { .. }).then_some(())).await;

    // The channel stays, and can be paid through.
    let invoice = client.node().bolt11_payment().receive(msat(HELD) / 10, &description(), 600).unwrap();
    payer.node().bolt11_payment().send(&invoice, None).unwrap();
    event("another payment", &client, |event| matches!(event, Event::PaymentReceived { .. }).then_some(())).await;
}
