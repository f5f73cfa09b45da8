//! Public keys as people write them: npub (NIP-19) or hexadecimal.

use nostr::{PublicKey, ToBech32};

use super::error::IdentityError;

/// Reads an npub, a `nostr:npub…` (NIP-21) or 64 hexadecimal digits into the 32 bytes of an x-only public key.
///
/// # Errors
/// [`IdentityError::SecretKeyGiven`] for an nsec, whose text is not repeated; [`IdentityError::PublicKey`] for anything
/// else that is no key.
pub fn read(text: &str) -> Result<[u8; 32], IdentityError> {
    let text = text.trim();
    let bare = text.strip_prefix("nostr:").unwrap_or(text);
    if bare.to_ascii_lowercase().starts_with("nsec1") || bare.to_ascii_lowercase().starts_with("ncryptsec1") {
        return Err(IdentityError::SecretKeyGiven);
    }
    let why = match PublicKey::parse(bare) {
        Ok(key) => match key.xonly() {
            Ok(_) => return Ok(key.to_bytes()),
            Err(_) => "it is not a point on the curve".to_owned(),
        },
        Err(_) if bare.starts_with("npub1") => "its checksum does not match".to_owned(),
        Err(_) => format!("it has {} characters", bare.chars().count()),
    };
    Err(IdentityError::PublicKey { text: bare.chars().take(80).collect(), why })
}

/// The npub (NIP-19) of a public key.
pub fn npub(key: &[u8; 32]) -> String {
    match PublicKey::from_byte_array(*key).to_bech32() {
        Ok(npub) => npub,
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "17162c921dc4d2518f9a101db33695df1afb56ab82f5ff3e5da6eec3ca5cd917";
    const NPUB: &str = "npub1zutzeysacnf9rru6zqwmxd54mud0k44tst6l70ja5mhv8jjumytsd2x7nu";

    #[test]
    fn a_key_reads_as_npub_as_uri_and_as_hex() {
        let key = read(HEX).unwrap();
        assert_eq!(hex::encode(key), HEX);
        for text in [NPUB, &format!("nostr:{NPUB}"), &format!(" {NPUB}\n"), &HEX.to_uppercase()] {
            assert_eq!(read(text).unwrap(), key);
        }
        assert_eq!(npub(&key), NPUB);
    }

    #[test]
    fn a_secret_key_is_refused_and_not_repeated() {
        let error = read("nsec10allq0gjx7fddtzef0ax00mdps9t2kmtrldkyjfs8l5xruwvh2dq0lhhkp").unwrap_err();
        assert!(matches!(error, IdentityError::SecretKeyGiven));
        assert!(!error.to_string().contains("10allq"));
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for text in ["", "npub1zutzeysacnf9rru6zqwmxd54mud0k44tst6l70ja5mhv8jjumytsd2x7nx", "abc", &"f".repeat(64), "é"]
        {
            assert!(matches!(read(text), Err(IdentityError::PublicKey { .. })), "{text} was read");
        }
    }
}
