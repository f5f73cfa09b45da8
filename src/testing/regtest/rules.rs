//! Which transactions the simulated chain takes: those a bitcoin node would, as far as money, locks and replacement go.
//!
//! Left out is what protects a public network (sizes, standard scripts, the least feerate), and the scripts themselves:
//! whoever wants them executed hands over a [`ScriptCheck`].

use std::collections::HashSet;
use std::sync::Arc;

use bitcoin::absolute::{Height, Time};
use bitcoin::relative;
use bitcoin::{Amount, OutPoint, Transaction, TxOut, Txid};

use super::state::{Coin, State};

/// Executes the scripts of a transaction that spends these outputs, in the order of its inputs. The error says which input
/// fails and why.
pub type ScriptCheck = Arc<dyn Fn(&Transaction, &[TxOut]) -> Result<(), String> + Send + Sync>;

/// Blocks before a miner's money can be spent.
pub const COINBASE_MATURITY: u32 = 100;

/// Why a transaction is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// It is in a block.
    #[error("it is in a block already")]
    Confirmed,
    /// No inputs, no outputs, the same input twice, or a miner's own.
    #[error("it is malformed: {0}")]
    Malformed(&'static str),
    /// An input nobody has made, or which a block spends.
    #[error("its input {0} is missing or spent")]
    MissingInput(OutPoint),
    /// A miner's money, too early.
    #[error("its input {0} is not ripe")]
    Immature(OutPoint),
    /// More goes out than comes in.
    #[error("it spends {spends} but has {has}")]
    CreatesMoney {
        /// The sum of its outputs.
        spends: Amount,
        /// The sum of its inputs.
        has: Amount,
    },
    /// Its lock time is not reached (BIP 113).
    #[error("it is not final")]
    NotFinal,
    /// One of its inputs has to rest longer (BIP 68).
    #[error("its input {0} is still locked")]
    Locked(OutPoint),
    /// Another transaction in the mempool spends the same and pays at least as much for it (BIP 125).
    #[error("it pays {fee}, and what it would replace pays {replaced}")]
    ReplacementTooCheap {
        /// Its own fee.
        fee: Amount,
        /// The fees of what would go.
        replaced: Amount,
    },
    /// A script refuses.
    #[error("a script refuses: {0}")]
    Script(String),
}

/// What taking a transaction means.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Transactions of the mempool that have to go for it.
    pub(super) replaces: HashSet<Txid>,
}

/// Whether `tx` can be in the next block.
pub(super) fn check(state: &State, tx: &Transaction, scripts: Option<&ScriptCheck>) -> Result<Verdict, Rejected> {
    if state.place(&tx.compute_txid()).is_some() {
        return Err(Rejected::Confirmed);
    }
    well_formed(tx)?;
    let replaces = with_descendants(state, conflicts(state, tx));
    let coins = tx
        .input
        .iter()
        .map(|input| {
            let outpoint = input.previous_output;
            state.coin(&outpoint, &replaces).ok_or(Rejected::MissingInput(outpoint))
        })
        .collect::<Result<Vec<_>, _>>()?;
    ripe(state, tx, &coins)?;
    unlocked(state, tx, &coins)?;
    let fee = fee(tx, &coins)?;
    let replaced = replaces.iter().filter_map(|txid| fee_in_mempool(state, txid)).sum();
    if !replaces.is_empty() && fee <= replaced {
        return Err(Rejected::ReplacementTooCheap { fee, replaced });
    }
    if let Some(scripts) = scripts {
        let spent: Vec<TxOut> = coins.into_iter().map(|coin| coin.output).collect();
        scripts(tx, &spent).map_err(Rejected::Script)?;
    }
    Ok(Verdict { replaces })
}

fn well_formed(tx: &Transaction) -> Result<(), Rejected> {
    if tx.input.is_empty() || tx.output.is_empty() {
        return Err(Rejected::Malformed("no inputs or no outputs"));
    }
    if tx.is_coinbase() {
        return Err(Rejected::Malformed("a coinbase"));
    }
    let different: HashSet<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
    if different.len() != tx.input.len() {
        return Err(Rejected::Malformed("an input twice"));
    }
    Ok(())
}

fn conflicts(state: &State, tx: &Transaction) -> HashSet<Txid> {
    let spent: HashSet<OutPoint> = tx.input.iter().map(|input| input.previous_output).collect();
    let conflicting =
        state.mempool.iter().filter(|other| other.input.iter().any(|i| spent.contains(&i.previous_output)));
    conflicting.map(Transaction::compute_txid).collect()
}

/// The mempool holds parents before children, so one walk finds them all.
fn with_descendants(state: &State, mut found: HashSet<Txid>) -> HashSet<Txid> {
    for tx in &state.mempool {
        if tx.input.iter().any(|input| found.contains(&input.previous_output.txid)) {
            found.insert(tx.compute_txid());
        }
    }
    found
}

fn ripe(state: &State, tx: &Transaction, coins: &[Coin]) -> Result<(), Rejected> {
    let next = state.height() + 1;
    for (input, coin) in tx.input.iter().zip(coins) {
        if coin.coinbase && coin.height.is_some_and(|height| next < height + COINBASE_MATURITY) {
            return Err(Rejected::Immature(input.previous_output));
        }
    }
    Ok(())
}

fn unlocked(state: &State, tx: &Transaction, coins: &[Coin]) -> Result<(), Rejected> {
    let (tip, now) = (state.height(), state.median_time(state.height()));
    // The lock must lie before the next block's height and the median time, so it may be at most one less.
    let height = Height::from_consensus(tip).expect("the chain is short");
    let time = Time::from_consensus(now - 1).expect("blocks are younger than the format");
    if !tx.is_absolute_timelock_satisfied(height, time) {
        return Err(Rejected::NotFinal);
    }
    if tx.version.0 < 2 {
        return Ok(());
    }
    for (input, coin) in tx.input.iter().zip(coins) {
        let made_at = coin.height.unwrap_or(tip + 1);
        let waited = match input.sequence.to_relative_lock_time() {
            None => true,
            Some(relative::LockTime::Blocks(blocks)) => made_at + u32::from(blocks.value()) <= tip + 1,
            Some(relative::LockTime::Time(intervals)) => {
                let since = state.median_time(made_at.saturating_sub(1).min(tip));
                since + 512 * u32::from(intervals.value()) <= now
            }
        };
        if !waited {
            return Err(Rejected::Locked(input.previous_output));
        }
    }
    Ok(())
}

fn fee(tx: &Transaction, coins: &[Coin]) -> Result<Amount, Rejected> {
    let has = coins.iter().map(|coin| coin.output.value).sum::<Amount>();
    let spends = tx.output.iter().map(|output| output.value).sum::<Amount>();
    has.checked_sub(spends).ok_or(Rejected::CreatesMoney { spends, has })
}

/// What a transaction pays for being mined. `None` for a miner's own, and for strangers.
pub(super) fn fee_of(state: &State, tx: &Transaction) -> Option<Amount> {
    let has = tx.input.iter().map(|input| state.output(&input.previous_output).map(|output| output.value));
    let has: Amount = has.collect::<Option<Vec<_>>>()?.into_iter().sum();
    has.checked_sub(tx.output.iter().map(|output| output.value).sum())
}

fn fee_in_mempool(state: &State, txid: &Txid) -> Option<Amount> {
    fee_of(state, state.transaction(txid)?)
}
