//! Whole stories: relays, a provider, wallets and customers over real websockets, and the program itself over its edge.
//!
//! One binary, because linking it takes longer than running it. Each story says what is special about its market; what
//! must hold in every one is checked by `TestMarket::finish`. Nothing sleeps: silence is proven by closing the market and
//! looking at what its relays have.

#![allow(clippy::unwrap_used)]

mod architecture;
mod audit;
mod backends;
mod buying;
mod cancelling;
mod crash;
#[cfg(feature = "ldk")]
mod crash_lightning;
mod doctor_cli;
mod encrypted;
#[cfg(feature = "mistralrs")]
mod engines;
mod files;
mod fixtures;
mod given_away;
mod identity_cli;
mod indexing;
mod inputs;
#[cfg(feature = "ldk")]
mod lightning;
mod metrics;
mod models_cli;
#[cfg(feature = "ldk")]
mod node_cli;
#[cfg(feature = "ldk")]
mod on_chain;
mod ordering;
mod patching;
mod paying;
mod queueing;
mod refunds;
mod refusing;
mod relays;
mod reviewing;
mod sandbox_cli;
mod sandbox_runs;
mod scripted;
mod stopping;
mod streaming;
mod walk;
mod wallet_trouble;
mod withheld;
mod zaps;
