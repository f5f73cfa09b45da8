//! Who we are: one BIP39 phrase, the Nostr key on one branch of it and the wallet on another.
//!
//! [`mnemonic`] reads and makes the phrase, [`derivation`] takes the branches, [`keystore`] keeps the phrase encrypted
//! under a [`password`]. Nothing here waits, and nothing secret is shown by Debug or an error.

use crate::job::id::ProviderId;
use nostr::Keys;

pub mod derivation;
pub mod error;
pub mod keystore;
pub mod mnemonic;
pub mod password;
pub mod public_key;
pub mod signer;

pub use derivation::{Account, WalletFingerprint, WalletSecret};
pub use error::IdentityError;
pub use keystore::Keystore;
pub use mnemonic::{Phrase, WordCount};
pub use password::{Password, PasswordSources};
pub use signer::Signer;

/// One account of a phrase: the Nostr key that signs and the wallet that is paid. The phrase itself is not kept.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Which account.
    pub account: Account,
    /// The Nostr key.
    pub signer: Signer,
    /// The wallet's secret, from which the Nostr key can't be found, nor the other way round.
    pub wallet: WalletSecret,
}

impl Identity {
    /// Derives an account.
    pub fn from_phrase(phrase: &Phrase, account: Account) -> Self {
        let seed = phrase.seed();
        let key = nostr::SecretKey::from(derivation::nostr_key(&seed, account));
        Self { account, signer: Signer::new(Keys::new(key)), wallet: derivation::wallet_secret(&seed, account) }
    }

    /// Opens a keystore and derives an account. Takes Argon2id's time and memory.
    ///
    /// # Errors
    /// As [`Keystore::open`].
    pub fn open(keystore: &Keystore, password: &Password, account: Account) -> Result<Self, IdentityError> {
        Ok(Self::from_phrase(&keystore.open(password)?, account))
    }

    /// Our public key as people pass it on (NIP-19).
    pub fn npub(&self) -> String {
        self.signer.npub()
    }

    /// The wallet's public name.
    pub fn wallet_fingerprint(&self) -> WalletFingerprint {
        self.wallet.fingerprint()
    }
}

/// Reads a provider's key as people write it: npub (NIP-19), `nostr:npub…` (NIP-21) or 64 hexadecimal digits.
///
/// # Errors
/// As [`public_key::read`].
pub fn provider_from_npub(text: &str) -> Result<ProviderId, IdentityError> {
    public_key::read(text).map(ProviderId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_its_keystore_and_shows_nothing_secret() {
        let home = tempfile::tempdir().unwrap();
        let phrase =
            Phrase::parse("leader monkey parrot ring guide accident before fence cannon height naive bean").unwrap();
        let password = Password::new("orbit velvet tundra seven".into()).unwrap();
        let keystore = Keystore::at(home.path().join("id"));
        keystore.create_with(&phrase, &password, keystore::KdfParams::MINIMUM).unwrap();

        let identity = Identity::open(&keystore, &password, Account::default()).unwrap();
        assert_eq!(identity.npub(), "npub1zutzeysacnf9rru6zqwmxd54mud0k44tst6l70ja5mhv8jjumytsd2x7nu");
        let shown = format!("{identity:?}");
        assert!(!shown.contains("7f7ff03d"), "the Nostr secret is shown");
        assert!(!shown.contains(&hex::encode(identity.wallet.entropy())[..8]), "the wallet's secret is shown");
    }
}
