//! coinop: a coin-operated machine for compute.
//!
//! A job's way through the modules:
//!
//! ```text
//! relay event ─▶ relays::admission ─▶ nip90 ─▶ job::admission ─▶ job::quote ─▶ wallet (invoice)
//!    ─▶ 7000 payment-required ─▶ settled or held ─▶ executor (inference | agent) ─▶ result signed and stored
//!    ─▶ hold settled ─▶ outbox ─▶ 6xxx on relays ─▶ ledger
//! ```
//!
//! [`job`], [`ledger`] and [`money`] are pure. [`nip90`] and [`identity`] speak Nostr without waiting. [`relays`],
//! [`wallet`], [`lnurl`], [`inference`], [`hardware`], [`executor`] and [`store`] touch the world. [`provider`] sells, [`requester`] buys.
//! [`metrics`] counts what they do and [`web`] shows it. [`daemon`] wires them, [`cli`] is what people type.

pub mod agent;
pub mod archive;
pub mod blossom;
pub mod cli;
pub mod code;
pub mod config;
pub mod daemon;
pub mod executor;
pub mod fetch;
pub mod hardware;
pub mod identity;
pub mod inference;
pub mod job;
pub mod ledger;
pub mod lnurl;
pub mod metrics;
pub mod money;
pub mod nip90;
pub mod provider;
pub mod relays;
pub mod repository;
pub mod requester;
pub mod sandbox;
pub mod store;
pub mod testing;
pub mod wallet;
pub mod web;
