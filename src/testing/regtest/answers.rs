//! The simulated chain in Esplora's words: <https://github.com/Blockstream/esplora/blob/master/API.md>.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::DisplayHex;
use bitcoin::{Block, MerkleBlock, OutPoint, Transaction, TxOut, Txid};
use serde_json::{Value, json};

use super::rules;
use super::state::State;

/// Confirmed transactions on a page of a script's history.
const HISTORY_PAGE: usize = 25;

/// Waiting transactions told of a script.
const MOST_WAITING: usize = 50;

/// Block summaries on a page.
const BLOCKS_PAGE: u32 = 10;

/// What is said of fees: sat per virtual byte, by blocks to wait. Flat, so that tests can compute what a closing costs.
pub(super) fn fee_estimates() -> Value {
    let targets = [1, 2, 3, 4, 6, 10, 12, 25, 144, 504, 1008];
    targets.into_iter().map(|blocks: u16| (blocks.to_string(), json!(1.0))).collect::<serde_json::Map<_, _>>().into()
}

/// Summaries of blocks, the newest first, from `height` down.
pub(super) fn blocks(state: &State, height: Option<u32>) -> Value {
    let top = height.unwrap_or(state.height()).min(state.height());
    let bottom = top.saturating_sub(BLOCKS_PAGE - 1);
    (bottom..=top).rev().filter_map(|height| Some(block(state, height, state.block_at(height)?))).collect()
}

/// One block's summary.
pub(super) fn block(state: &State, height: u32, block: &Block) -> Value {
    json!({
        "id": block.block_hash(),
        "height": height,
        "version": block.header.version,
        "timestamp": block.header.time,
        "tx_count": block.txdata.len(),
        "size": block.total_size(),
        "weight": block.weight().to_wu(),
        "merkle_root": block.header.merkle_root,
        "previousblockhash": (height > 0).then_some(block.header.prev_blockhash),
        "mediantime": state.median_time(height),
        "nonce": block.header.nonce,
        "bits": block.header.bits.to_consensus(),
        "difficulty": block.header.difficulty_float(),
    })
}

/// Whether a block is in the best chain; unknown ones are not.
pub(super) fn block_status(state: &State, height: Option<u32>) -> Value {
    let next = height.and_then(|height| state.block_at(height + 1)).map(Block::block_hash);
    json!({ "in_best_chain": height.is_some(), "height": height, "next_best": next })
}

/// A transaction with what it spends.
pub(super) fn transaction(state: &State, tx: &Transaction) -> Value {
    let txid = tx.compute_txid();
    let inputs = tx.input.iter().map(|input| {
        let spent = if tx.is_coinbase() { None } else { state.output(&input.previous_output) };
        json!({
            "txid": input.previous_output.txid,
            "vout": input.previous_output.vout,
            "prevout": spent.map(output),
            "scriptsig": input.script_sig.to_hex_string(),
            "witness": input.witness.iter().map(|item| item.to_lower_hex_string()).collect::<Vec<_>>(),
            "sequence": input.sequence.0,
            "is_coinbase": tx.is_coinbase(),
        })
    });
    json!({
        "txid": txid,
        "version": tx.version.0,
        "locktime": tx.lock_time.to_consensus_u32(),
        "vin": inputs.collect::<Vec<_>>(),
        "vout": tx.output.iter().map(output).collect::<Vec<_>>(),
        "size": tx.total_size(),
        "weight": tx.weight().to_wu(),
        "fee": rules::fee_of(state, tx).unwrap_or_default().to_sat(),
        "status": status(state, &txid),
    })
}

fn output(output: &TxOut) -> Value {
    json!({ "value": output.value.to_sat(), "scriptpubkey": output.script_pubkey.to_hex_string() })
}

/// Where a known transaction stands.
pub(super) fn status(state: &State, txid: &Txid) -> Value {
    match state.place(txid).and_then(|place| Some((place, state.block_at(place.height)?))) {
        Some((place, block)) => json!({
            "confirmed": true,
            "block_height": place.height,
            "block_hash": block.block_hash(),
            "block_time": block.header.time,
        }),
        None => json!({ "confirmed": false }),
    }
}

/// The branch of the merkle tree that leads to a transaction.
pub(super) fn merkle_proof(state: &State, txid: &Txid) -> Option<Value> {
    let place = state.place(txid)?;
    let mut level: Vec<Txid> = state.block_at(place.height)?.txdata.iter().map(Transaction::compute_txid).collect();
    let mut position = place.position;
    let mut branch = Vec::new();
    while level.len() > 1 {
        let neighbour = (position ^ 1).min(level.len() - 1);
        branch.push(level[neighbour]);
        level = level.chunks(2).map(|pair| parent(&pair[0], pair.last().expect("chunks are not empty"))).collect();
        position /= 2;
    }
    Some(json!({ "block_height": place.height, "merkle": branch, "pos": place.position }))
}

fn parent(left: &Txid, right: &Txid) -> Txid {
    let mut both = [0; 64];
    both[..32].copy_from_slice(left.as_byte_array());
    both[32..].copy_from_slice(right.as_byte_array());
    Txid::hash(&both)
}

/// The block of a transaction, cut down to what proves that it is in there.
pub(super) fn merkle_block(state: &State, txid: &Txid) -> Option<MerkleBlock> {
    let block = state.block_at(state.place(txid)?.height)?;
    Some(MerkleBlock::from_block_with_predicate(block, |other| other == txid))
}

/// Who spends an output.
pub(super) fn outspend(state: &State, outpoint: &OutPoint) -> Value {
    match state.spender(outpoint) {
        Some((txid, vin)) => json!({ "spent": true, "txid": txid, "vin": vin, "status": status(state, &txid) }),
        None => json!({ "spent": false }),
    }
}

/// What a script's history page holds, the newest first.
#[derive(Debug, Clone, Copy)]
pub(super) enum Page {
    /// What waits, then the newest confirmed ones.
    First,
    /// What waits.
    Waiting,
    /// The confirmed ones.
    Confirmed,
    /// The confirmed ones older than this.
    After(Txid),
}

/// A page of a script's history. The script is named by its hash.
pub(super) fn history(state: &State, script: &sha256::Hash, page: Page) -> Value {
    let waiting = state.waiting_history(script);
    let waiting = waiting.into_iter().rev().take(match page {
        Page::First | Page::Waiting => MOST_WAITING,
        Page::Confirmed | Page::After(_) => 0,
    });
    let confirmed = state.confirmed_history(script).iter().rev().copied();
    let confirmed: Vec<Txid> = match page {
        Page::First | Page::Confirmed => confirmed.take(HISTORY_PAGE).collect(),
        Page::Waiting => Vec::new(),
        Page::After(last) => confirmed.skip_while(|txid| *txid != last).skip(1).take(HISTORY_PAGE).collect(),
    };
    waiting.chain(confirmed).filter_map(|txid| Some(transaction(state, state.transaction(&txid)?))).collect()
}
