//! The chain by itself, and unmodified nodes on it. Forced closings, reorganisations under channels and the like, with scripts
//! executed, are in `tests/it/on_chain.rs`.

use bitcoin::absolute::LockTime;
use bitcoin::opcodes::all::OP_PUSHNUM_2;
use bitcoin::script::Builder;
use bitcoin::{Address, Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use ldk_node::Event;
use ldk_node::lightning_invoice::{Bolt11InvoiceDescription, Description};

use super::*;

/// What each node has on the chain at first: a channel and the reserve for closing it.
const PURSE: Amount = Amount::from_sat(2_000_000);

const CHANNEL: ChannelPlan = ChannelPlan { size: Amount::from_sat(1_000_000), gift: Amount::from_sat(200_000) };

const TWENTY_ONE_SATS: u64 = 21_000;

const SAT: Amount = Amount::from_sat(1);

/// A purse anybody can open, but not the faucet's.
fn purse() -> ScriptBuf {
    Builder::new().push_opcode(OP_PUSHNUM_2).into_script()
}

fn purse_address() -> Address {
    Address::p2wsh(&purse(), Network::Regtest)
}

/// A coin of this value in the purse, not confirmed.
fn coin(chain: &Chain, value: Amount) -> OutPoint {
    let txid = chain.fund(&purse_address(), value);
    let tx = chain.transaction(&txid).unwrap();
    let vout = tx.output.iter().position(|output| output.script_pubkey == purse_address().script_pubkey()).unwrap();
    OutPoint::new(txid, u32::try_from(vout).unwrap())
}

/// From the purse into the purse.
fn spend(previous_output: OutPoint, value: Amount) -> Transaction {
    let witness = Witness::from_slice(&[purse().as_bytes()]);
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output, sequence: Sequence::MAX, witness, ..TxIn::default() }],
        output: vec![TxOut { value, script_pubkey: purse_address().script_pubkey() }],
    }
}

fn waiting(chain: &Chain) -> Vec<Txid> {
    chain.mempool().iter().map(Transaction::compute_txid).collect()
}

#[test]
fn blocks_are_real_blocks() {
    let chain = Chain::new();
    coin(&chain, PURSE);
    chain.mine(2);
    let state = chain.lock();
    for height in 0..=state.height() {
        let block = state.block_at(height).unwrap();
        block.header.validate_pow(block.header.target()).unwrap();
        assert!(block.check_merkle_root() && block.check_witness_commitment(), "{height}");
        if height > 16 {
            // The reader knows no smaller numbers, which are opcodes of their own.
            assert_eq!(block.bip34_block_height(), Ok(u64::from(height)));
        }
        if height > 0 {
            assert_eq!(block.header.prev_blockhash, state.block_at(height - 1).unwrap().block_hash());
            assert!(block.header.time > state.median_time(height - 1));
        }
    }
}

#[test]
fn the_faucet_pays_and_a_block_confirms() {
    let chain = Chain::new();
    let coin = coin(&chain, PURSE);
    assert_eq!(chain.confirmations(&coin.txid), Some(0));
    chain.mine(3);
    assert_eq!((chain.confirmations(&coin.txid), chain.mempool().len()), (Some(3), 0));
    assert_eq!(chain.confirmations(&Txid::from_raw_hash(bitcoin::hashes::Hash::all_zeros())), None);
}

#[test]
fn money_is_spent_once_and_none_is_made() {
    let chain = Chain::new();
    let coin = coin(&chain, PURSE);
    let first = spend(coin, PURSE - SAT);
    chain.broadcast(&first).unwrap();
    assert_eq!(chain.broadcast(&first), Ok(first.compute_txid()), "it waits already");
    chain.mine(1);
    assert_eq!(chain.broadcast(&first), Err(Rejected::Confirmed));
    assert_eq!(chain.broadcast(&spend(coin, PURSE - SAT - SAT)), Err(Rejected::MissingInput(coin)));
    assert_eq!(chain.spender(&coin), Some(first.compute_txid()));

    let change = OutPoint::new(first.compute_txid(), 0);
    let too_much = chain.broadcast(&spend(change, PURSE));
    assert_eq!(too_much, Err(Rejected::CreatesMoney { spends: PURSE, has: PURSE - SAT }));
    let mut twice = spend(change, PURSE - SAT);
    twice.input.push(twice.input[0].clone());
    assert_eq!(chain.broadcast(&twice), Err(Rejected::Malformed("an input twice")));
}

#[test]
fn a_miner_s_money_ripens() {
    let chain = Chain::new();
    let young = chain.lock().tip().txdata[0].compute_txid();
    let young = OutPoint::new(young, 0);
    assert_eq!(chain.broadcast(&spend(young, SAT)), Err(Rejected::Immature(young)));
    chain.mine(COINBASE_MATURITY - 2);
    assert_eq!(chain.broadcast(&spend(young, SAT)), Err(Rejected::Immature(young)));
    chain.mine(1);
    chain.broadcast(&spend(young, SAT)).unwrap();
}

#[test]
fn who_pays_more_replaces_what_waits_and_what_hangs_on_it() {
    let chain = Chain::new();
    let coin = coin(&chain, PURSE);
    let parent = spend(coin, PURSE - SAT * 10);
    let child = spend(OutPoint::new(chain.broadcast(&parent).unwrap(), 0), PURSE - SAT * 30);
    chain.broadcast(&child).unwrap();
    let cheap = chain.broadcast(&spend(coin, PURSE - SAT * 30));
    assert_eq!(cheap, Err(Rejected::ReplacementTooCheap { fee: SAT * 30, replaced: SAT * 30 }));
    let dear = spend(coin, PURSE - SAT * 31);
    chain.broadcast(&dear).unwrap();
    assert_eq!(waiting(&chain), [coin.txid, dear.compute_txid()]);
}

#[test]
fn a_lock_holds_until_its_block() {
    let chain = Chain::new();
    let coin = coin(&chain, PURSE);
    chain.mine(1);
    let mut locked = spend(coin, PURSE - SAT);
    locked.lock_time = LockTime::from_height(chain.height() + 1).unwrap();
    locked.input[0].sequence = Sequence::ENABLE_LOCKTIME_NO_RBF;
    assert_eq!(chain.broadcast(&locked), Err(Rejected::NotFinal));
    chain.mine(1);
    chain.broadcast(&locked).unwrap();
}

#[test]
fn a_coin_that_has_to_rest_rests() {
    let chain = Chain::new();
    let coin = coin(&chain, PURSE);
    let mut after_three = spend(coin, PURSE - SAT);
    after_three.input[0].sequence = Sequence::from_height(3);
    for confirmations in 0..=2 {
        assert_eq!(chain.confirmations(&coin.txid), Some(confirmations));
        if confirmations < 2 {
            assert_eq!(chain.broadcast(&after_three), Err(Rejected::Locked(coin)));
        }
        chain.mine(1);
    }
    chain.broadcast(&after_three).unwrap();

    let mut tomorrow = spend(OutPoint::new(after_three.compute_txid(), 0), SAT);
    tomorrow.input[0].sequence = Sequence::from_512_second_intervals(200);
    chain.mine(1);
    assert_eq!(chain.broadcast(&tomorrow), Err(Rejected::Locked(tomorrow.input[0].previous_output)));
}

#[test]
fn a_reorganisation_lets_transactions_wait_again() {
    let chain = Chain::new();
    let before = chain.height();
    let coin = coin(&chain, PURSE);
    chain.mine(1);
    let second = spend(coin, PURSE - SAT);
    chain.broadcast(&second).unwrap();
    chain.mine(2);
    let old_tip = chain.tip();
    chain.reorg(3);
    assert_eq!(chain.height(), before + 4);
    assert_eq!(waiting(&chain), [coin.txid, second.compute_txid()]);
    assert!(chain.lock().height_of(&old_tip).is_none() && chain.lock().block(&old_tip).is_some());
    chain.mine(1);
    assert_eq!((chain.confirmations(&coin.txid), chain.mempool().len()), (Some(1), 0));
}

#[test]
fn a_script_that_refuses_keeps_a_transaction_out() {
    let scripts: ScriptCheck = std::sync::Arc::new(|tx, spent| {
        assert_eq!(tx.input.len(), spent.len());
        if spent.iter().any(|output| output.script_pubkey == purse_address().script_pubkey()) {
            return Err("input 0: no".to_owned());
        }
        Ok(())
    });
    let chain = Chain::with_script_check(scripts);
    let coin = coin(&chain, PURSE);
    assert_eq!(chain.broadcast(&spend(coin, SAT)), Err(Rejected::Script("input 0: no".to_owned())));
}

/// What an Esplora client gets.
async fn ask(url: &str) -> (u16, serde_json::Value) {
    let reply = reqwest::Client::new().get(url).send().await.unwrap();
    let status = reply.status().as_u16();
    let text = reply.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)))
}

#[tokio::test]
async fn a_script_s_history_comes_in_pages_the_newest_first() {
    let regtest = Regtest::start().await.unwrap();
    let mut coin = coin(regtest.chain(), PURSE);
    let mut made = vec![coin.txid];
    for step in 1..30 {
        regtest.chain().mine(1);
        coin = OutPoint::new(regtest.chain().broadcast(&spend(coin, PURSE - SAT * step)).unwrap(), 0);
        made.push(coin.txid);
    }
    made.reverse();
    let hash = state::script_hash(&purse_address().script_pubkey());
    let page = |path: String| async move {
        let (status, page) = ask(&path).await;
        assert_eq!(status, 200);
        let txids = page.as_array().unwrap().iter().map(|tx| tx["txid"].as_str().unwrap().parse().unwrap());
        txids.collect::<Vec<Txid>>()
    };
    let base = format!("{}/scripthash/{hash}/txs", regtest.url());
    let first = page(base.clone()).await;
    assert_eq!(first, made[..26], "one that waits, and 25 that are confirmed");
    assert_eq!(page(format!("{base}/chain/{}", first[25])).await, made[26..]);
    assert_eq!(page(format!("{base}/mempool")).await, made[..1]);
    assert_eq!(page(format!("{}/address/{}/txs", regtest.url(), purse_address())).await, first);
}

#[tokio::test]
async fn an_explorer_says_what_is_so_and_nothing_else() {
    let regtest = Regtest::start().await.unwrap();
    let chain = regtest.chain();
    let coin = coin(chain, PURSE);
    let url = regtest.url();
    assert_eq!(ask(&format!("{url}/tx/{}/status", coin.txid)).await.1["confirmed"], false);
    assert_eq!(ask(&format!("{url}/tx/{}/merkle-proof", coin.txid)).await.0, 404);
    chain.mine(1);
    let (_, proof) = ask(&format!("{url}/tx/{}/merkle-proof", coin.txid)).await;
    assert_eq!((proof["pos"].as_u64(), proof["block_height"].as_u64()), (Some(1), Some(u64::from(chain.height()))));
    let (_, status) = ask(&format!("{url}/block/{}/status", chain.tip())).await;
    assert_eq!(status["in_best_chain"], true);
    let stale = chain.tip();
    chain.reorg(1);
    let (_, status) = ask(&format!("{url}/block/{stale}/status")).await;
    assert_eq!(status["in_best_chain"], false);
    for nothing in ["tx/00", "block/zz/status", "block-height/100000", "nowhere", "scripthash/12/txs"] {
        let (status, _) = ask(&format!("{url}/{nothing}")).await;
        assert!(status == 400 || status == 404, "{nothing}: {status}");
    }
    let post = |body: String| async {
        reqwest::Client::new().post(format!("{}/tx", regtest.url())).body(body).send().await.unwrap().status().as_u16()
    };
    assert_eq!(post("not a transaction".into()).await, 400);
    assert_eq!(post("00".repeat(600_000)).await, 413);
    regtest.esplora().set_fault(EsploraFault::Answers(502));
    assert_eq!(ask(&format!("{url}/blocks/tip/height")).await.0, 502);
    regtest.esplora().set_fault(EsploraFault::None);
    assert_eq!(ask(&format!("{url}/blocks/tip/height")).await.1, chain.height());
}

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
