//! Making blocks: a coinbase with its height (BIP 34) and its witness commitment (BIP 141), real merkle roots, and the
//! little proof of work that regtest asks for.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::opcodes::OP_TRUE;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::{Builder, PushBytesBuf, ScriptBuf};
use bitcoin::{
    Amount, Block, CompactTarget, OutPoint, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Witness, transaction,
};

use super::rules;
use super::state::State;

/// Regtest's target: every second hash meets it.
const REGTEST_BITS: u32 = 0x207f_ffff;

/// Blocks between two halvings of the subsidy on regtest.
const HALVING: u32 = 150;

/// What a block makes before the first halving: 50 bitcoin.
const FIRST_SUBSIDY: Amount = Amount::from_sat(5_000_000_000);

/// What stands before a witness commitment (BIP 141).
const COMMITMENT_HEADER: [u8; 4] = [0xaa, 0x21, 0xa9, 0xed];

/// The witness of every coinbase's input.
const RESERVED: [u8; 32] = [0; 32];

/// What the faucet pays for a transaction of its own: enough for ten inputs and more at the least feerate.
const FAUCET_FEE: Amount = Amount::from_sat(10_000);

/// Anybody can spend it: the faucet needs no key.
fn anyone() -> ScriptBuf {
    Builder::new().push_opcode(OP_TRUE).into_script()
}

/// Where mined money goes: a P2WSH output around [`anyone`].
pub(super) fn faucet() -> ScriptBuf {
    anyone().to_p2wsh()
}

/// Pays from as many of the faucet's coins as it takes, the rest back to the faucet.
///
/// # Panics
/// When the faucet is dry.
pub(super) fn faucet_payment(coins: impl IntoIterator<Item = (OutPoint, Amount)>, payment: TxOut) -> Transaction {
    let wanted = payment.value + FAUCET_FEE;
    let mut has = Amount::ZERO;
    let mut input = Vec::new();
    for (previous_output, value) in coins {
        if has >= wanted {
            break;
        }
        has += value;
        let witness = Witness::from_slice(&[anyone().as_bytes()]);
        input.push(TxIn { previous_output, sequence: Sequence::MAX, witness, ..TxIn::default() });
    }
    let change = has.checked_sub(wanted).expect("the faucet is dry: mine more blocks");
    let output = vec![payment, TxOut { value: change, script_pubkey: faucet() }];
    Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input, output }
}

/// A block with all of the mempool, to be put on top of `state`, made at `time` (Unix seconds).
pub(super) fn block(state: &State, time: u32) -> Block {
    let tip = state.tip();
    let height = state.height() + 1;
    let fees = state.mempool.iter().filter_map(|tx| rules::fee_of(state, tx)).sum::<Amount>();
    let mut coinbase = Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: Builder::new().push_int(i64::from(height)).push_slice(state.made.to_le_bytes()).into_script(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[RESERVED]),
        }],
        output: vec![TxOut { value: subsidy(height) + fees, script_pubkey: faucet() }],
    };
    let header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: tip.block_hash(),
        merkle_root: TxMerkleNode::all_zeros(),
        time,
        bits: CompactTarget::from_consensus(REGTEST_BITS),
        nonce: 0,
    };
    let txdata = std::iter::once(coinbase.clone()).chain(state.mempool.iter().cloned()).collect();
    let mut block = Block { header, txdata };
    let root = block.witness_root().expect("there is a coinbase");
    coinbase.output.push(TxOut { value: Amount::ZERO, script_pubkey: commitment(&root) });
    block.txdata[0] = coinbase;
    block.header.merkle_root = block.compute_merkle_root().expect("there is a coinbase");
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
    block
}

fn commitment(root: &bitcoin::WitnessMerkleNode) -> ScriptBuf {
    let mut data = PushBytesBuf::from(COMMITMENT_HEADER);
    data.extend_from_slice(Block::compute_witness_commitment(root, &RESERVED).as_byte_array())
        .expect("36 bytes can be pushed");
    Builder::new().push_opcode(OP_RETURN).push_slice(data).into_script()
}

fn subsidy(height: u32) -> Amount {
    Amount::from_sat(FIRST_SUBSIDY.to_sat().checked_shr(height / HALVING).unwrap_or(0))
}
