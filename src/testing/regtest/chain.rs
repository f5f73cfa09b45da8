//! The simulated chain as tests and the demo handle it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::{Address, Amount, BlockHash, OutPoint, Transaction, TxOut, Txid};
use jiff::Timestamp;
use tokio::sync::watch;

use super::mining::{self, faucet};
use super::rules::{self, COINBASE_MATURITY, Rejected, ScriptCheck};
use super::state::State;

/// Seconds between the blocks the chain begins with.
const FIRST_SPACING: u32 = 600;

/// A private regtest chain in this process. Clones are the same chain.
///
/// Blocks have real proofs of work, merkle roots and witness commitments; transactions have to have unspent inputs,
/// enough money, and locks that are over. Scripts are executed only when a [`ScriptCheck`] was handed over.
#[derive(Clone)]
pub struct Chain {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Counts changes, for whoever waits for one.
    changed: watch::Sender<u64>,
    scripts: Option<ScriptCheck>,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("height", &self.height()).finish_non_exhaustive()
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

impl Chain {
    /// A chain long enough that its faucet has money, whose tip was mined just now.
    pub fn new() -> Self {
        Self::build(None)
    }

    /// The same, executing scripts.
    pub fn with_script_check(scripts: ScriptCheck) -> Self {
        Self::build(Some(scripts))
    }

    fn build(scripts: Option<ScriptCheck>) -> Self {
        let mut state = State::genesis();
        let now = unix_now();
        for left in (0..=COINBASE_MATURITY).rev() {
            put_block(&mut state, now - left * FIRST_SPACING);
        }
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: watch::Sender::new(0), scripts }) }
    }

    /// The height of the tip, in blocks.
    pub fn height(&self) -> u32 {
        self.lock().height()
    }

    /// The hash of the tip.
    pub fn tip(&self) -> BlockHash {
        self.lock().tip().block_hash()
    }

    /// Mines `blocks` blocks, the first of which confirms everything that waits.
    pub fn mine(&self, blocks: u32) {
        self.change(|state| {
            for _ in 0..blocks {
                put_block(state, unix_now());
            }
        });
    }

    /// Replaces the top `depth` blocks by one more empty ones. What was in them waits again, as far as it still can be
    /// mined; [`Chain::mine`] confirms it.
    pub fn reorg(&self, depth: u32) {
        let scripts = self.shared.scripts.as_ref();
        self.change(|state| {
            let waited = std::mem::take(&mut state.mempool);
            let returned = state.disconnect(depth);
            for _ in 0..=depth {
                put_block(state, unix_now());
            }
            for tx in returned.into_iter().chain(waited) {
                if rules::check(state, &tx, scripts).is_ok_and(|verdict| verdict.replaces.is_empty()) {
                    state.mempool.push(tx);
                }
            }
        });
    }

    /// Takes a transaction for the next block. One that waits already is taken again.
    ///
    /// # Errors
    /// When it can't be in the next block.
    pub fn broadcast(&self, tx: &Transaction) -> Result<Txid, Rejected> {
        let txid = tx.compute_txid();
        let scripts = self.shared.scripts.as_ref();
        self.change(|state| {
            if state.mempool.iter().any(|waiting| waiting.compute_txid() == txid) {
                return Ok(txid);
            }
            let verdict = rules::check(state, tx, scripts)?;
            state.mempool.retain(|other| !verdict.replaces.contains(&other.compute_txid()));
            state.mempool.push(tx.clone());
            Ok(txid)
        })
    }

    /// Pays `amount` from the faucet. The next block confirms it.
    ///
    /// # Panics
    /// When the faucet is dry: it has 50 bitcoin at first, and more with every block mined.
    pub fn fund(&self, address: &Address, amount: Amount) -> Txid {
        let payment = faucet_payment(&self.lock(), TxOut { value: amount, script_pubkey: address.script_pubkey() });
        self.broadcast(&payment).expect("the faucet spends its own ripe coins")
    }

    /// What waits for a block, parents before children.
    pub fn mempool(&self) -> Vec<Transaction> {
        self.lock().mempool.clone()
    }

    /// A transaction of the chain or the mempool.
    pub fn transaction(&self, txid: &Txid) -> Option<Transaction> {
        self.lock().transaction(txid).cloned()
    }

    /// Blocks on top of a transaction, its own included. Zero while it waits, `None` when it is unknown.
    pub fn confirmations(&self, txid: &Txid) -> Option<u32> {
        let state = self.lock();
        match state.place(txid) {
            Some(place) => Some(state.height() - place.height + 1),
            None => state.transaction(txid).map(|_| 0),
        }
    }

    /// Who spends an output, in a block or waiting for one.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.lock().spender(outpoint).map(|(txid, _)| txid)
    }

    /// Waits until `look` finds what it looks for; it is asked again after every change of the chain or the mempool.
    /// Waits as long as it takes, so the caller sets the limit.
    pub async fn until<T>(&self, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if let Some(found) = look(self) {
                return found;
            }
            changed.changed().await.expect("this chain holds the sender");
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let done = act(&mut self.lock());
        self.shared.changed.send_modify(|changes| *changes += 1);
        done
    }
}

/// Mines a block at `time`, or as soon after as the rules allow (BIP 113).
fn put_block(state: &mut State, time: u32) {
    let time = time.max(state.median_time(state.height()) + 1);
    state.made += 1;
    let block = mining::block(state, time);
    state.connect(block);
}

fn faucet_payment(state: &State, payment: TxOut) -> Transaction {
    let none = HashSet::new();
    let ripe = |height: Option<u32>| height.is_some_and(|height| height + COINBASE_MATURITY <= state.height() + 1);
    let confirmed =
        state.coins().filter(|(_, coin)| !coin.coinbase || ripe(coin.height)).map(|(outpoint, _)| *outpoint);
    let waiting = state.mempool.iter().flat_map(|tx| {
        let txid = tx.compute_txid();
        (0..).zip(&tx.output).map(move |(vout, _)| OutPoint::new(txid, vout))
    });
    let coins = confirmed.chain(waiting).filter_map(|outpoint| {
        let coin = state.coin(&outpoint, &none).filter(|coin| coin.output.script_pubkey == faucet())?;
        Some((outpoint, coin.output.value))
    });
    mining::faucet_payment(coins, payment)
}

fn unix_now() -> u32 {
    u32::try_from(Timestamp::now().as_second()).expect("it is before 2106")
}
