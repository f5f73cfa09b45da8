//! Who we are: one BIP39 phrase, the Nostr key on one branch of it and the wallet on another.

pub mod signer;

pub use signer::Signer;
