//! Preimages of hold invoices.

use std::fmt;

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use zeroize::Zeroizing;

use crate::job::JobId;
use crate::job::id::PaymentHash;

/// The secret from which each job's preimage follows, so that a restarted process can settle what it held. Part of the
/// wallet's branch of the seed.
#[derive(Clone)]
pub struct HoldKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for HoldKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HoldKey")
    }
}

impl HoldKey {
    /// A key from 32 secret bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(Zeroizing::new(secret))
    }

    /// A job's preimage: HMAC-SHA256 of its id.
    pub fn preimage(&self, job: JobId) -> Zeroizing<[u8; 32]> {
        let mut engine = HmacEngine::<sha256::Hash>::new(self.0.as_slice());
        engine.input(b"coinop hold preimage v1");
        engine.input(&job.0);
        Zeroizing::new(Hmac::from_engine(engine).to_byte_array())
    }

    /// The payment hash that goes with it.
    pub fn payment_hash(&self, job: JobId) -> PaymentHash {
        PaymentHash(sha256::Hash::hash(self.preimage(job).as_slice()).to_byte_array())
    }
}
