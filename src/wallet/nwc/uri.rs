//! The connection string a wallet hands out (NIP-47, "Nostr Wallet Connect URI").

use std::fmt;
use std::str::FromStr;

use nostr::{Keys, PublicKey, RelayUrl, SecretKey};
use url::Url;

use crate::wallet::error::NwcUriError;

/// The scheme of the NIP, and one that was common before it.
const SCHEMES: [&str; 2] = ["nostr+walletconnect", "nostrwalletconnect"];

/// Whom to speak to, where, and with which key. Whoever has it can use the wallet, so Debug shows no secret and there
/// is no Display.
#[derive(Clone, PartialEq, Eq)]
pub struct NwcUri {
    wallet: PublicKey,
    relays: Vec<RelayUrl>,
    keys: Keys,
}

impl NwcUri {
    /// The wallet service's key.
    pub(crate) fn wallet(&self) -> &PublicKey {
        &self.wallet
    }

    /// The relays both sides meet on. Never empty.
    pub(crate) fn relays(&self) -> &[RelayUrl] {
        &self.relays
    }

    /// Our key for this connection.
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }
}

impl fmt::Debug for NwcUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relays: Vec<_> = self.relays.iter().map(RelayUrl::as_str).collect();
        f.debug_struct("NwcUri").field("wallet", &self.wallet.to_hex()).field("relays", &relays).finish_non_exhaustive()
    }
}

impl FromStr for NwcUri {
    type Err = NwcUriError;

    fn from_str(text: &str) -> Result<Self, NwcUriError> {
        let url = Url::parse(text.trim()).map_err(|_| NwcUriError::OtherScheme)?;
        if !SCHEMES.contains(&url.scheme()) {
            return Err(NwcUriError::OtherScheme);
        }
        // Some wallets leave the slashes out, and the key is then the path.
        let wallet = url.host_str().unwrap_or_else(|| url.path());
        let wallet = PublicKey::from_hex(wallet).map_err(|_| NwcUriError::NoWallet)?;
        let mut relays = Vec::new();
        let mut secret = None;
        for (key, value) in url.query_pairs() {
            match key.as_ref() {
                "relay" => {
                    let relay = RelayUrl::parse(&value).map_err(|_| NwcUriError::BadRelay)?;
                    if !relays.contains(&relay) {
                        relays.push(relay);
                    }
                }
                "secret" => secret = SecretKey::from_hex(&value).ok(),
                _ => {}
            }
        }
        if relays.is_empty() {
            return Err(NwcUriError::NoRelay);
        }
        let keys = Keys::new(secret.ok_or(NwcUriError::NoSecret)?);
        Ok(Self { wallet, relays, keys })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALLET: &str = "b889ff5b1513b641e2a139f661a661364979c5beee91842f8f0ef42ab558e9d4";
    const SECRET: &str = "71a8c14c1407c113601079c4302dab36460f0ccd0ad506f1f2dc73b5100e4f3c";

    fn uri(text: &str) -> Result<NwcUri, NwcUriError> {
        text.parse()
    }

    #[test]
    fn the_example_of_the_nip_is_read() {
        let read = uri(&format!("nostr+walletconnect://{WALLET}?relay=wss%3A%2F%2Frelay.damus.io&secret={SECRET}"));
        let read = read.expect("valid");
        assert_eq!(read.wallet().to_hex(), WALLET);
        assert_eq!(read.relays().len(), 1);
        assert_eq!(read.keys().secret_key().to_secret_hex(), SECRET);
    }

    #[test]
    fn several_relays_and_unknown_parameters_are_fine() {
        let text = format!(
            "nostr+walletconnect://{WALLET}?relay=wss://a.example&relay=wss://b.example&relay=wss://a.example\
             &secret={SECRET}&lud16=me@example.com"
        );
        assert_eq!(uri(&text).expect("valid").relays().len(), 2);
        assert!(uri(&format!("nostr+walletconnect:{WALLET}?relay=wss://a.example&secret={SECRET}")).is_ok());
    }

    #[test]
    fn each_missing_part_has_its_own_words() {
        let relay = "relay=wss://a.example";
        assert_eq!(uri("https://example.com"), Err(NwcUriError::OtherScheme));
        assert_eq!(uri(""), Err(NwcUriError::OtherScheme));
        assert_eq!(uri(&format!("nostr+walletconnect://ab?{relay}&secret={SECRET}")), Err(NwcUriError::NoWallet));
        assert_eq!(uri(&format!("nostr+walletconnect://{WALLET}?secret={SECRET}")), Err(NwcUriError::NoRelay));
        assert_eq!(
            uri(&format!("nostr+walletconnect://{WALLET}?relay=http://a.example&secret={SECRET}")),
            Err(NwcUriError::BadRelay)
        );
        assert_eq!(uri(&format!("nostr+walletconnect://{WALLET}?{relay}")), Err(NwcUriError::NoSecret));
        assert_eq!(uri(&format!("nostr+walletconnect://{WALLET}?{relay}&secret=00")), Err(NwcUriError::NoSecret));
    }

    #[test]
    fn debug_hides_the_secret() {
        let read = uri(&format!("nostr+walletconnect://{WALLET}?relay=wss://a.example&secret={SECRET}"));
        let shown = format!("{read:?}");
        assert!(shown.contains("a.example"));
        assert!(!shown.contains(SECRET));
    }
}
