//! The Nostr key, and nothing else of the seed.

use std::fmt;

use nostr::Keys;

use crate::job::CustomerId;
use crate::job::id::ProviderId;

/// Signs and decrypts as one Nostr identity. Cloning shares the key; Debug never shows it.
#[derive(Clone)]
pub struct Signer {
    keys: Keys,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.keys.public_key().to_hex()).finish()
    }
}

impl Signer {
    /// A signer for these keys.
    pub fn new(keys: Keys) -> Self {
        Self { keys }
    }

    /// A signer with a fresh random key, for tests and customers without an identity.
    pub fn random() -> Self {
        Self::new(Keys::generate())
    }

    /// The keys, for the parts of coinop that speak Nostr.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Our key as a provider.
    pub fn provider_id(&self) -> ProviderId {
        ProviderId(self.keys.public_key().to_bytes())
    }

    /// Our key as a customer.
    pub fn customer_id(&self) -> CustomerId {
        CustomerId(self.keys.public_key().to_bytes())
    }

    /// Our public key as people pass it on (NIP-19).
    pub fn npub(&self) -> String {
        super::public_key::npub(&self.keys.public_key().to_bytes())
    }

    /// Our public key as 64 hexadecimal digits.
    pub fn public_hex(&self) -> String {
        self.keys.public_key().to_hex()
    }
}
