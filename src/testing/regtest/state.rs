//! What the simulated chain knows: blocks, the transactions waiting for one, and indexes over both.

use std::collections::{HashMap, HashSet};

use bitcoin::constants::genesis_block;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Block, BlockHash, Network, OutPoint, Script, Transaction, TxOut, Txid};

/// Blocks whose median is the time of the chain (BIP 113).
const MEDIAN_SPAN: usize = 11;

/// An output that is there to be spent.
#[derive(Debug, Clone)]
pub(super) struct Coin {
    /// Amount and script.
    pub(super) output: TxOut,
    /// The block it is in; `None` while its transaction waits for one.
    pub(super) height: Option<u32>,
    /// Whether a miner made it, so that it has to ripen.
    pub(super) coinbase: bool,
}

/// Where a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Height of its block.
    pub(super) height: u32,
    /// Its number in the block.
    pub(super) position: usize,
}

/// The chain and its mempool. The indexes say what the best chain says; the mempool is short and is searched.
#[derive(Debug)]
pub(super) struct State {
    /// The best chain, the genesis block first.
    blocks: Vec<Block>,
    /// Blocks a reorganisation left behind: still known, no longer in the chain.
    stale: HashMap<BlockHash, Block>,
    heights: HashMap<BlockHash, u32>,
    places: HashMap<Txid, Place>,
    coins: HashMap<OutPoint, Coin>,
    spends: HashMap<OutPoint, (Txid, usize)>,
    history: HashMap<sha256::Hash, Vec<Txid>>,
    /// Parents before their children.
    pub(super) mempool: Vec<Transaction>,
    /// Blocks ever made, so that no two of the same height are the same.
    pub(super) made: u64,
}

impl State {
    /// Regtest's genesis block and nothing else.
    pub(super) fn genesis() -> Self {
        let mut state = Self {
            blocks: Vec::new(),
            stale: HashMap::new(),
            heights: HashMap::new(),
            places: HashMap::new(),
            coins: HashMap::new(),
            spends: HashMap::new(),
            history: HashMap::new(),
            mempool: Vec::new(),
            made: 0,
        };
        state.connect(genesis_block(Network::Regtest));
        // Its coinbase can't be spent.
        state.coins.clear();
        state
    }

    /// Puts a block on top. It is one of our own making, so it is not checked again.
    pub(super) fn connect(&mut self, block: Block) {
        let height = u32::try_from(self.blocks.len()).expect("no such long chain is made in memory");
        for (position, tx) in block.txdata.iter().enumerate() {
            let txid = tx.compute_txid();
            self.places.insert(txid, Place { height, position });
            let mut scripts = HashSet::new();
            for (number, input) in tx.input.iter().enumerate().filter(|_| !tx.is_coinbase()) {
                if let Some(coin) = self.coins.remove(&input.previous_output) {
                    scripts.insert(script_hash(&coin.output.script_pubkey));
                }
                self.spends.insert(input.previous_output, (txid, number));
            }
            for (vout, output) in (0..).zip(&tx.output) {
                scripts.insert(script_hash(&output.script_pubkey));
                let coin = Coin { output: output.clone(), height: Some(height), coinbase: tx.is_coinbase() };
                self.coins.insert(OutPoint::new(txid, vout), coin);
            }
            for script in scripts {
                self.history.entry(script).or_default().push(txid);
            }
        }
        self.mempool.retain(|tx| self.places.get(&tx.compute_txid()).is_none_or(|place| place.height != height));
        self.heights.insert(block.block_hash(), height);
        self.blocks.push(block);
    }

    /// Takes the top blocks away, never the genesis block, and hands out what was in them, parents first, without the
    /// miners' own. The chain is a few hundred blocks, so the indexes are simply made anew.
    pub(super) fn disconnect(&mut self, depth: u32) -> Vec<Transaction> {
        let keep = self.blocks.len().saturating_sub(depth as usize).max(1);
        let removed = self.blocks.split_off(keep);
        let kept = std::mem::take(&mut self.blocks);
        let mempool = std::mem::take(&mut self.mempool);
        let made = self.made;
        let mut stale = std::mem::take(&mut self.stale);
        let returned = removed.iter().flat_map(|block| block.txdata.iter().skip(1).cloned()).collect();
        stale.extend(removed.into_iter().map(|block| (block.block_hash(), block)));
        *self = Self::genesis();
        kept.into_iter().skip(1).for_each(|block| self.connect(block));
        (self.stale, self.mempool, self.made) = (stale, mempool, made);
        returned
    }

    /// The height of the tip.
    pub(super) fn height(&self) -> u32 {
        u32::try_from(self.blocks.len() - 1).expect("no such long chain is made in memory")
    }

    /// The top block.
    pub(super) fn tip(&self) -> &Block {
        self.blocks.last().expect("the genesis block is never taken away")
    }

    /// A block of the best chain.
    pub(super) fn block_at(&self, height: u32) -> Option<&Block> {
        self.blocks.get(height as usize)
    }

    /// A block, whether or not it is still in the best chain.
    pub(super) fn block(&self, hash: &BlockHash) -> Option<&Block> {
        self.height_of(hash).and_then(|height| self.block_at(height)).or_else(|| self.stale.get(hash))
    }

    /// Where a block stands in the best chain.
    pub(super) fn height_of(&self, hash: &BlockHash) -> Option<u32> {
        self.heights.get(hash).copied()
    }

    /// The median time of the blocks up to `height` (BIP 113), in Unix seconds.
    pub(super) fn median_time(&self, height: u32) -> u32 {
        let end = height as usize + 1;
        let mut times: Vec<u32> =
            self.blocks[end.saturating_sub(MEDIAN_SPAN)..end].iter().map(|block| block.header.time).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }

    /// Where a confirmed transaction is.
    pub(super) fn place(&self, txid: &Txid) -> Option<Place> {
        self.places.get(txid).copied()
    }

    /// A transaction of the best chain or the mempool.
    pub(super) fn transaction(&self, txid: &Txid) -> Option<&Transaction> {
        match self.place(txid) {
            Some(place) => self.block_at(place.height)?.txdata.get(place.position),
            None => self.mempool.iter().find(|tx| tx.compute_txid() == *txid),
        }
    }

    /// An output, spent or not.
    pub(super) fn output(&self, outpoint: &OutPoint) -> Option<&TxOut> {
        self.transaction(&outpoint.txid)?.output.get(outpoint.vout as usize)
    }

    /// An output that neither a block nor the mempool spends, but for the transactions `replaced`.
    pub(super) fn coin(&self, outpoint: &OutPoint, replaced: &HashSet<Txid>) -> Option<Coin> {
        if self.spender_in_mempool(outpoint).is_some_and(|(spender, _)| !replaced.contains(&spender)) {
            return None;
        }
        if let Some(coin) = self.coins.get(outpoint) {
            return Some(coin.clone());
        }
        if replaced.contains(&outpoint.txid) || self.place(&outpoint.txid).is_some() {
            return None;
        }
        let output = self.output(outpoint)?.clone();
        Some(Coin { output, height: None, coinbase: false })
    }

    /// Unspent outputs of the best chain.
    pub(super) fn coins(&self) -> impl Iterator<Item = (&OutPoint, &Coin)> {
        self.coins.iter()
    }

    /// Who spends an output, and with which input.
    pub(super) fn spender(&self, outpoint: &OutPoint) -> Option<(Txid, usize)> {
        self.spends.get(outpoint).copied().or_else(|| self.spender_in_mempool(outpoint))
    }

    fn spender_in_mempool(&self, outpoint: &OutPoint) -> Option<(Txid, usize)> {
        self.mempool.iter().find_map(|tx| {
            let input = tx.input.iter().position(|input| input.previous_output == *outpoint)?;
            Some((tx.compute_txid(), input))
        })
    }

    /// Transactions of the best chain that pay to or from a script, oldest first.
    pub(super) fn confirmed_history(&self, script: &sha256::Hash) -> &[Txid] {
        self.history.get(script).map(Vec::as_slice).unwrap_or_default()
    }

    /// Transactions of the mempool that pay to or from a script, oldest first.
    pub(super) fn waiting_history(&self, script: &sha256::Hash) -> Vec<Txid> {
        let touches = |output: &TxOut| script_hash(&output.script_pubkey) == *script;
        let of_script = self.mempool.iter().filter(|tx| {
            tx.output.iter().any(touches)
                || tx.input.iter().any(|input| self.output(&input.previous_output).is_some_and(touches))
        });
        of_script.map(Transaction::compute_txid).collect()
    }
}

/// How Esplora names a script.
pub(super) fn script_hash(script: &Script) -> sha256::Hash {
    sha256::Hash::hash(script.as_bytes())
}
