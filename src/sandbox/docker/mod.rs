//! Cells on a Docker engine.
//!
//! `spec` says what a cell is to the engine, `cell` is one at work (`command` runs commands in it, `files` moves files,
//! `output` keeps what they print), `removal` sees to it that none is left over, and `engine` is the connection, where every
//! question has a time limit.

mod cell;
mod command;
mod engine;
mod error;
mod files;
mod import;
mod labels;
mod news;
mod output;
mod removal;
mod spec;
mod sweep;
#[cfg(test)]
mod tests;
mod tls;

pub use engine::{Engine, EngineFacts};
pub use error::EngineError;
pub use import::Discarded;
pub use labels::JOB as JOB_LABEL;
pub use sweep::Swept;

pub(super) use cell::{DockerCell, Opening, STARTING};
pub(super) use labels::Identity;
pub(super) use removal::Removals;
pub(super) use spec::memory_mib;
pub(super) use sweep::{Scope, sweep};
