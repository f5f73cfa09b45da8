//! What coinop understands of source code. Pure: text in, facts out.

pub mod dependencies;
pub mod diff;
pub mod digests;
pub mod languages;
pub mod symbols;
