//! Packs that are made to hurt.
