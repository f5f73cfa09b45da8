//! What coinop understands of source code. Pure: text in, facts out.

pub mod diff;
