//! A private bitcoin network in this process, for real Lightning payments without a server.
//!
//! [`Chain`] is the chain and the faucet, [`EsploraServer`] shows it to unmodified nodes over HTTP on loopback, and
//! [`Regtest`] is both together with what it takes to get two nodes a channel. The tests use it, and `coinop demo`.

mod answers;
mod bitcoind;
mod chain;
mod channels;
mod esplora;
mod mining;
mod network;
mod own_node;
mod raw_node;
mod rules;
mod state;
#[cfg(test)]
mod tests;

pub use bitcoind::Bitcoind;
pub use chain::Chain;
pub use channels::{ChannelPlan, PATIENCE, RegtestNode, free_address};
pub use esplora::{EsploraFault, EsploraServer};
pub use network::{Backend, ChainAccess, Regtest};
pub use raw_node::RawNode;
pub use rules::{COINBASE_MATURITY, Rejected, ScriptCheck};
