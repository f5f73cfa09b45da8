//! The two encryptions of NIP-47: NIP-44 v2, and NIP-04 for wallets that know nothing else.

use nostr::nips::{nip04, nip44};
use nostr::{Keys, Kind, PublicKey};

use crate::wallet::WalletError;

/// Kind of a notification encrypted with NIP-44. The older [`Kind::WalletConnectNotification`] (23196) is for NIP-04.
pub(crate) const NIP44_NOTIFICATION: Kind = Kind::Custom(23_197);

/// How a message is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cipher {
    /// NIP-44 v2.
    Nip44,
    /// NIP-04: no authentication, so used only with wallets that offer nothing better.
    Nip04,
}

impl Cipher {
    /// The word in `encryption` tags.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Nip44 => "nip44_v2",
            Self::Nip04 => "nip04",
        }
    }

    /// The better one of those offered in an `encryption` tag; no tag means NIP-04. `None` when none is known to us.
    pub(crate) fn choose(offered: Option<&str>) -> Option<Self> {
        let Some(offered) = offered else { return Some(Self::Nip04) };
        [Self::Nip44, Self::Nip04]
            .into_iter()
            .find(|cipher| offered.split([' ', ',']).any(|word| word == cipher.word()))
    }

    /// The encryption a ciphertext is in. Only NIP-04 has its initialisation vector behind the text.
    pub(crate) fn of(content: &str) -> Self {
        if content.contains("?iv=") { Self::Nip04 } else { Self::Nip44 }
    }

    /// The kind its notifications have.
    pub(crate) const fn notification_kind(self) -> Kind {
        match self {
            Self::Nip44 => NIP44_NOTIFICATION,
            Self::Nip04 => Kind::WalletConnectNotification,
        }
    }

    pub(crate) fn encrypt(self, keys: &Keys, peer: &PublicKey, text: &str) -> Result<String, WalletError> {
        match self {
            Self::Nip44 => nip44::encrypt(keys.secret_key(), peer, text, nip44::Version::V2)
                .map_err(|_| WalletError::Refused("the request can't be encrypted with NIP-44".into())),
            Self::Nip04 => nip04::encrypt(keys.secret_key(), peer, text)
                .map_err(|_| WalletError::Refused("the request can't be encrypted with NIP-04".into())),
        }
    }

    pub(crate) fn decrypt(self, keys: &Keys, peer: &PublicKey, content: &str) -> Result<String, WalletError> {
        match self {
            Self::Nip44 => nip44::decrypt(keys.secret_key(), peer, content)
                .map_err(|_| WalletError::BadAnswer("it can't be decrypted with NIP-44".into())),
            Self::Nip04 => nip04::decrypt(keys.secret_key(), peer, content)
                .map_err(|_| WalletError::BadAnswer("it can't be decrypted with NIP-04".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_encryption_offered_is_chosen() {
        assert_eq!(Cipher::choose(None), Some(Cipher::Nip04));
        assert_eq!(Cipher::choose(Some("nip04")), Some(Cipher::Nip04));
        assert_eq!(Cipher::choose(Some("nip04 nip44_v2")), Some(Cipher::Nip44));
        assert_eq!(Cipher::choose(Some("nip44_v2,nip04")), Some(Cipher::Nip44));
        assert_eq!(Cipher::choose(Some("nip99")), None);
    }

    #[test]
    fn each_encryption_is_recognised_and_read_back() {
        let (alice, bob) = (Keys::generate(), Keys::generate());
        for cipher in [Cipher::Nip44, Cipher::Nip04] {
            let content = cipher.encrypt(&alice, &bob.public_key(), "hello").expect("encrypts");
            assert_eq!(Cipher::of(&content), cipher);
            assert_eq!(cipher.decrypt(&bob, &alice.public_key(), &content).expect("decrypts"), "hello");
            assert!(cipher.decrypt(&Keys::generate(), &alice.public_key(), &content).is_err());
        }
    }
}
