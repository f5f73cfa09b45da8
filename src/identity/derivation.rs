//! From the seed to its branches. `docs/identity.md` describes them for people who recover by other means.
//!
//! | branch | path | what for |
//! |---|---|---|
//! | Nostr | `m/44'/1237'/<account>'/0/0` (NIP-06) | signing and reading events |
//! | wallet | `m/83696968'/128169'/64'/<account>'` (BIP 85, hex, 64 bytes) | all a Lightning wallet needs |
//!
//! The wallet's branch is hardened at every step and shares no parent with Nostr's but the master key, and BIP 85 puts
//! a one-way function at its end: neither secret can be derived from the other. Lightning nodes that take these 64
//! bytes as a seed start a key tree of their own, so they cannot meet either branch.

use std::fmt;

use bitcoin::NetworkKind;
use bitcoin::bip32::{ChildNumber, Xpriv};
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256, sha512};
use bitcoin::secp256k1::{All, Secp256k1, SecretKey};
use zeroize::Zeroizing;

use super::error::IdentityError;
use super::mnemonic::Seed;

/// SLIP-44's number for Nostr, as NIP-06 wants it.
const NOSTR_COIN: u32 = 1237;
/// BIP 85's own purpose.
const BIP85_PURPOSE: u32 = 83_696_968;
/// BIP 85's application "hex": plain bytes.
const BIP85_HEX: u32 = 128_169;
/// How many of them: the size of a BIP 39 seed, which is what Lightning nodes take.
const WALLET_ENTROPY_BYTES: u32 = 64;
/// BIP 85's key for the function at the branch's end.
const BIP85_KEY: &[u8] = b"bip-entropy-from-k";
/// What the secret of hold invoices is named in its derivation.
const HOLD_SECRET_NAME: &[u8] = b"coinop hold invoices v1";
/// The branch below the wallet's own master key where the play-money wallet's node key lives ("fake" in ASCII), so that
/// it is never the node key of a real wallet from the same entropy.
const PLAY_MONEY_NODE: u32 = 0x6661_6b65;

/// Which of the seed's many identities. Every account has its own Nostr key and its own wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Account(u32);

impl Account {
    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Account {
    type Error = IdentityError;
    /// # Errors
    /// [`IdentityError::Account`] when BIP 32 has no such hardened child.
    fn try_from(number: u32) -> Result<Self, IdentityError> {
        ChildNumber::from_hardened_idx(number).map(|_| Self(number)).map_err(|_| IdentityError::Account(number))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An extended key that is erased when dropped.
struct Erased(Xpriv);

impl Drop for Erased {
    fn drop(&mut self) {
        self.0.private_key.non_secure_erase();
    }
}

fn master(seed: &[u8]) -> Erased {
    // The network only changes how an extended key is written, and we write none.
    Erased(Xpriv::new_master(NetworkKind::Main, seed).expect("a seed without a master key is one in 2^127"))
}

fn derive(secp: &Secp256k1<All>, parent: &Erased, path: &[ChildNumber]) -> Erased {
    Erased(parent.0.derive_priv(secp, &path).expect("a path without a key is one in 2^127"))
}

fn hardened(index: u32) -> ChildNumber {
    ChildNumber::from_hardened_idx(index).expect("constants and accounts are below 2^31")
}

fn normal(index: u32) -> ChildNumber {
    ChildNumber::from_normal_idx(index).expect("constants are below 2^31")
}

/// The Nostr secret key of an account (NIP-06).
pub fn nostr_key(seed: &Seed, account: Account) -> SecretKey {
    let path = [hardened(44), hardened(NOSTR_COIN), hardened(account.0), normal(0), normal(0)];
    derive(&Secp256k1::new(), &master(seed.as_slice()), &path).0.private_key
}

/// The wallet's secret of an account.
pub fn wallet_secret(seed: &Seed, account: Account) -> WalletSecret {
    WalletSecret { entropy: bip85_hex64(&master(seed.as_slice()), account.0) }
}

/// 64 bytes of BIP 85's "hex" application.
fn bip85_hex64(root: &Erased, index: u32) -> Zeroizing<[u8; 64]> {
    let path = [hardened(BIP85_PURPOSE), hardened(BIP85_HEX), hardened(WALLET_ENTROPY_BYTES), hardened(index)];
    let child = derive(&Secp256k1::new(), root, &path);
    let mut engine = HmacEngine::<sha512::Hash>::new(BIP85_KEY);
    engine.input(&Zeroizing::new(child.0.private_key.secret_bytes())[..]);
    Zeroizing::new(Hmac::from_engine(engine).to_byte_array())
}

/// All a wallet needs of the seed, and no way back to it. Wiped from memory when dropped, never shown by Debug.
#[derive(Clone)]
pub struct WalletSecret {
    entropy: Zeroizing<[u8; 64]>,
}

impl fmt::Debug for WalletSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WalletSecret").field(&self.fingerprint()).finish()
    }
}

impl WalletSecret {
    /// A wallet's secret from its 64 bytes, for tests and wallets without an identity.
    pub fn from_entropy(entropy: [u8; 64]) -> Self {
        Self { entropy: Zeroizing::new(entropy) }
    }

    /// The 64 bytes a Lightning node takes as its seed. Secret.
    pub fn entropy(&self) -> &[u8; 64] {
        &self.entropy
    }

    /// The node key that signs the play-money wallet's invoices; no real wallet's key.
    pub fn play_money_node_key(&self) -> SecretKey {
        derive(&Secp256k1::new(), &master(self.entropy.as_slice()), &[hardened(PLAY_MONEY_NODE)]).0.private_key
    }

    /// The secret that preimages of hold invoices follow from: HMAC-SHA256 of a fixed text under the 64 bytes. Secret.
    pub fn hold_secret(&self) -> Zeroizing<[u8; 32]> {
        let mut engine = HmacEngine::<sha256::Hash>::new(self.entropy.as_slice());
        engine.input(HOLD_SECRET_NAME);
        Zeroizing::new(Hmac::from_engine(engine).to_byte_array())
    }

    /// A short public name of the wallet.
    pub fn fingerprint(&self) -> WalletFingerprint {
        let secp = Secp256k1::new();
        WalletFingerprint(master(self.entropy.as_slice()).0.fingerprint(&secp).to_bytes())
    }
}

/// A wallet's public name: BIP 32's fingerprint of its master key, four bytes as hexadecimal digits. The same as other
/// software shows for these 64 bytes, enough to tell one's wallets apart, and it reveals no address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WalletFingerprint([u8; 4]);

impl fmt::Display for WalletFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for WalletFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The x-only public key of a secret key, as BIP 340 and Nostr use it.
#[cfg(test)]
fn x_only(key: &SecretKey) -> bitcoin::secp256k1::XOnlyPublicKey {
    key.x_only_public_key(&Secp256k1::new()).0
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;
    use crate::identity::mnemonic::Phrase;

    /// The test vectors of NIP-06.
    const NIP06: &str = include_str!("../../tests/data/nip06-vectors.json");

    #[derive(serde::Deserialize)]
    struct Vector {
        mnemonic: String,
        private_key: String,
        public_key: String,
        npub: String,
    }

    fn account(number: u32) -> Account {
        Account::try_from(number).unwrap()
    }

    fn seed() -> Seed {
        Phrase::parse("leader monkey parrot ring guide accident before fence cannon height naive bean").unwrap().seed()
    }

    #[test]
    fn the_official_vectors_of_nip06_pass() {
        let vectors: Vec<Vector> = serde_json::from_str(NIP06).unwrap();
        assert_eq!(vectors.len(), 2);
        for vector in vectors {
            let key = nostr_key(&Phrase::parse(&vector.mnemonic).unwrap().seed(), Account::default());
            assert_eq!(hex::encode(key.secret_bytes()), vector.private_key);
            assert_eq!(x_only(&key).to_string(), vector.public_key);
            assert_eq!(crate::identity::public_key::npub(&x_only(&key).serialize()), vector.npub);
        }
    }

    /// "HEX" in BIP 85's test vectors.
    #[test]
    fn the_official_vector_of_bip85_passes() {
        let root = Xpriv::from_str(
            "xprv9s21ZrQH143K2LBWUUQRFXhucrQqBpKdRRxNVq2zBqsx8HVqFk2uYo8kmbaLLHRdqtQpUm98uKfu3vca1LqdGhUtyoFnCNkfmXRyPXLjbKb",
        )
        .unwrap();
        assert_eq!(
            hex::encode(*bip85_hex64(&Erased(root), 0)),
            "492db4698cf3b73a5a24998aa3e9d7fa96275d85724a91e71aa2d645442f8785\
             55d078fd1f1f67e368976f04137b1f7a0d19232136ca50c44614af72b5582a5c"
        );
    }

    #[test]
    fn accounts_have_keys_and_wallets_of_their_own() {
        let seed = seed();
        assert_ne!(nostr_key(&seed, account(0)), nostr_key(&seed, account(1)));
        assert_ne!(wallet_secret(&seed, account(0)).fingerprint(), wallet_secret(&seed, account(1)).fingerprint());
        assert!(Account::try_from(u32::MAX >> 1).is_ok());
        assert!(matches!(Account::try_from(1 << 31), Err(IdentityError::Account(2_147_483_648))));
    }

    #[test]
    fn the_wallets_branch_never_changes() {
        // Computed by an independent program from the documented path: a change here would lose somebody's money.
        let secret = wallet_secret(&seed(), account(0));
        assert_eq!(secret.fingerprint().to_string(), "37a28157");
        assert_eq!(hex::encode(&secret.entropy()[..8]), "f2c7d8ac09babd65");
    }

    #[test]
    fn the_play_money_node_key_is_no_key_of_the_wallet_or_of_nostr() {
        let secret = wallet_secret(&seed(), account(0));
        let node = secret.play_money_node_key();
        assert_ne!(node, master(secret.entropy()).0.private_key);
        assert_ne!(node, nostr_key(&seed(), account(0)));
        assert_eq!(node, wallet_secret(&seed(), account(0)).play_money_node_key());
    }

    #[test]
    fn debug_shows_the_fingerprint_and_no_secret() {
        let secret = WalletSecret::from_entropy([7; 64]);
        let shown = format!("{secret:?}");
        assert_eq!(shown, format!("WalletSecret({})", secret.fingerprint()));
        assert!(!shown.contains("0707"));
    }
}
