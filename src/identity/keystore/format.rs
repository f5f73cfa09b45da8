//! The keystore's bytes. Four lines of ASCII, so that a damaged file can be looked at:
//!
//! ```text
//! coinop-keystore 1
//! {"kdf":"argon2id","memory_kib":65536,"passes":3,"lanes":1,"salt":"…","check":"…","cipher":"aes-256-gcm","nonce":"…"}
//! <ciphertext and tag, hexadecimal>
//! sha256 <of all the above, hexadecimal>
//! ```
//!
//! The first two lines, byte for byte, are the cipher's associated data: nobody changes a parameter without the key.
//! What failed tells what happened, in this order: the last line (bytes lost or changed by accident), the parameters'
//! bounds, `check` (another password), the cipher (changed on purpose).

use std::path::Path;

use aes_gcm::aead::AeadInPlace;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::kdf::{DerivedKeys, KdfParams, SALT_BYTES};
use crate::identity::error::IdentityError;
use crate::identity::mnemonic::Phrase;
use crate::identity::password::Password;

const MAGIC: &str = "coinop-keystore";
/// The version this file describes.
pub const VERSION: u32 = 1;
/// More than a keystore can have: the longest passphrase as hexadecimal digits, and room.
pub const MAX_FILE_BYTES: u64 = 16 * 1_024;
const NONCE_BYTES: usize = 12;
/// What the password check signs: a name for this one use of the key.
const CHECK_LABEL: &[u8] = b"coinop keystore password check v1";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    kdf: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    check: String,
    cipher: String,
    nonce: String,
}

/// The bytes of a keystore that holds `phrase`.
pub(super) fn seal(phrase: &Phrase, password: &Password, params: KdfParams) -> Result<Vec<u8>, IdentityError> {
    let salt: [u8; SALT_BYTES] = random()?;
    let nonce: [u8; NONCE_BYTES] = random()?;
    let keys = params.derive(password, &salt)?;
    let header = Header {
        kdf: "argon2id".into(),
        memory_kib: params.memory_kib(),
        passes: params.passes(),
        lanes: params.lanes(),
        salt: hex::encode(salt),
        check: hex::encode(check_tag(&keys)),
        cipher: "aes-256-gcm".into(),
        nonce: hex::encode(nonce),
    };
    let header = serde_json::to_string(&header).map_err(|_| IdentityError::System("a keystore header"))?;
    let mut file = format!("{MAGIC} {VERSION}\n{header}\n");
    let mut secret = encode(phrase);
    cipher(&keys)?
        .encrypt_in_place(Nonce::from_slice(&nonce), file.as_bytes(), &mut *secret)
        .map_err(|_| IdentityError::System("a cipher"))?;
    file.push_str(&hex::encode(&*secret));
    file.push('\n');
    let checksum = sha256::Hash::hash(file.as_bytes());
    file.push_str(&format!("sha256 {checksum}\n"));
    Ok(file.into_bytes())
}

/// The phrase in a keystore's bytes, and the parameters it was protected with. `path` is for the errors alone.
pub(super) fn unseal(bytes: &[u8], password: &Password, path: &Path) -> Result<(Phrase, KdfParams), IdentityError> {
    let corrupted = |why| IdentityError::Corrupted { path: path.to_owned(), why };
    let foreign = |why: &str| IdentityError::NotAKeystore { path: path.to_owned(), why: why.into() };

    if !bytes.starts_with(MAGIC.as_bytes()) {
        return Err(foreign("its first line does not say so"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| corrupted("it holds bytes that are no text"))?;
    let first = text.lines().next().unwrap_or_default();
    let version = first.strip_prefix(MAGIC).unwrap_or_default().trim();
    if version != VERSION.to_string() {
        return Err(IdentityError::KeystoreVersion {
            path: path.to_owned(),
            version: version.chars().take(20).collect(),
            known: VERSION,
        });
    }

    let lines: Vec<&str> = text.split('\n').collect();
    let [_, header_line, ciphertext, checksum, ""] = lines[..] else {
        return Err(corrupted("it is cut short, or has more in it than it should"));
    };
    let summed = text.len() - checksum.len() - 1;
    let right = format!("sha256 {}", sha256::Hash::hash(&bytes[..summed]));
    if checksum != right {
        return Err(corrupted("its checksum does not match"));
    }

    let header: Header = serde_json::from_str(header_line).map_err(|_| corrupted("its header can't be read"))?;
    if header.kdf != "argon2id" || header.cipher != "aes-256-gcm" {
        return Err(foreign("it uses other algorithms"));
    }
    let params = KdfParams::new(header.memory_kib, header.passes, header.lanes)?;
    let salt = hex::decode(&header.salt).map_err(|_| corrupted("its salt can't be read"))?;
    if salt.len() != SALT_BYTES {
        return Err(corrupted("its salt has the wrong length"));
    }
    let mut nonce = [0; NONCE_BYTES];
    hex::decode_to_slice(&header.nonce, &mut nonce).map_err(|_| corrupted("its nonce can't be read"))?;
    let mut secret =
        Zeroizing::new(hex::decode(ciphertext).map_err(|_| corrupted("its encrypted part can't be read"))?);

    let keys = params.derive(password, &salt)?;
    // Nobody measures the time this takes from outside, and Argon2id's run hides it.
    if header.check != hex::encode(check_tag(&keys)) {
        return Err(IdentityError::WrongPassword(path.to_owned()));
    }
    let bound = first.len() + 1 + header_line.len() + 1;
    cipher(&keys)?
        .decrypt_in_place(Nonce::from_slice(&nonce), &bytes[..bound], &mut *secret)
        .map_err(|_| corrupted("the password is right, but the contents were changed"))?;
    let phrase = decode(&secret).ok_or_else(|| corrupted("its contents are no phrase"))?;
    Ok((phrase, params))
}

fn random<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    rand::RngCore::try_fill_bytes(&mut rand::rngs::OsRng, &mut bytes)
        .map_err(|_| IdentityError::System("random numbers"))?;
    Ok(bytes)
}

fn cipher(keys: &DerivedKeys) -> Result<Aes256Gcm, IdentityError> {
    Aes256Gcm::new_from_slice(keys.cipher()).map_err(|_| IdentityError::System("a cipher"))
}

/// Tells a wrong password from a changed file. Under a key of its own, so it says nothing about the cipher's; guessing
/// passwords with it costs a full run of Argon2id each, as the cipher's own tag does.
fn check_tag(keys: &DerivedKeys) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(keys.check());
    engine.input(CHECK_LABEL);
    Hmac::from_engine(engine).to_byte_array()
}

/// The secret part: a byte with the entropy's length, the entropy, the passphrase.
fn encode(phrase: &Phrase) -> Zeroizing<Vec<u8>> {
    let entropy = phrase.entropy();
    // Room for the cipher's tag from the start: a growing vector would leave a copy behind.
    let mut secret = Zeroizing::new(Vec::with_capacity(1 + entropy.len() + phrase.passphrase().len() + 16));
    secret.push(u8::try_from(entropy.len()).unwrap_or_default());
    secret.extend_from_slice(&entropy);
    secret.extend_from_slice(phrase.passphrase().as_bytes());
    secret
}

fn decode(secret: &[u8]) -> Option<Phrase> {
    let (length, rest) = secret.split_first()?;
    let (entropy, passphrase) = rest.split_at_checked(usize::from(*length))?;
    let passphrase = Zeroizing::new(std::str::from_utf8(passphrase).ok()?.to_owned());
    Phrase::from_entropy(entropy).ok()?.with_passphrase(passphrase).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::mnemonic::WordCount;

    fn password(text: &str) -> Password {
        Password::new(text.to_owned()).unwrap()
    }

    fn sealed(phrase: &Phrase) -> Vec<u8> {
        seal(phrase, &password("right"), KdfParams::MINIMUM).unwrap()
    }

    fn open(bytes: &[u8]) -> Result<Phrase, IdentityError> {
        unseal(bytes, &password("right"), Path::new("id")).map(|(phrase, _)| phrase)
    }

    /// Writes the last line anew, as somebody who changes the file on purpose would.
    fn with_checksum(text: &str) -> Vec<u8> {
        let kept = &text[..text.rfind("sha256 ").unwrap()];
        format!("{kept}sha256 {}\n", sha256::Hash::hash(kept.as_bytes())).into_bytes()
    }

    #[test]
    fn what_was_sealed_opens_with_the_password_and_no_other() {
        for count in [WordCount::Twelve, WordCount::TwentyFour] {
            let phrase = Phrase::generate(count).unwrap().with_passphrase(Zeroizing::new("pässphrase".into())).unwrap();
            let bytes = sealed(&phrase);
            assert_eq!(*open(&bytes).unwrap().seed(), *phrase.seed());
            assert!(bytes.len() as u64 <= MAX_FILE_BYTES);
        }
        let bytes = sealed(&Phrase::generate(WordCount::Twelve).unwrap());
        let wrong = unseal(&bytes, &password("wrong"), Path::new("id"));
        assert!(matches!(wrong, Err(IdentityError::WrongPassword(_))));
    }

    #[test]
    fn the_same_phrase_never_makes_the_same_bytes() {
        let phrase = Phrase::generate(WordCount::Twelve).unwrap();
        assert_ne!(sealed(&phrase), sealed(&phrase));
    }

    #[test]
    fn every_damaged_byte_and_every_cut_is_told_apart_from_a_wrong_password() {
        let bytes = sealed(&Phrase::generate(WordCount::Twelve).unwrap());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(
                matches!(
                    open(&damaged),
                    Err(IdentityError::Corrupted { .. }
                        | IdentityError::NotAKeystore { .. }
                        | IdentityError::KeystoreVersion { .. })
                ),
                "a changed byte {at} went unnoticed"
            );
            assert!(
                matches!(
                    open(&bytes[..at]),
                    Err(IdentityError::Corrupted { .. }
                        | IdentityError::NotAKeystore { .. }
                        | IdentityError::KeystoreVersion { .. })
                ),
                "a cut at {at} went unnoticed"
            );
        }
    }

    #[test]
    fn a_header_changed_on_purpose_does_not_open() {
        let bytes = sealed(&Phrase::generate(WordCount::Twelve).unwrap());
        let text = String::from_utf8(bytes).unwrap();
        // The same numbers written otherwise: the password check still passes, the associated data does not.
        let respelled = with_checksum(&text.replace("\"lanes\":1", "\"lanes\": 1"));
        assert!(matches!(open(&respelled), Err(IdentityError::Corrupted { .. })));
        // Another nonce.
        let at = text.find("\"nonce\":\"").unwrap() + 9;
        let mut renonced = text.clone();
        renonced.replace_range(at..at + 24, &"0".repeat(24));
        assert!(matches!(open(&with_checksum(&renonced)), Err(IdentityError::Corrupted { .. })));
    }

    #[test]
    fn parameters_that_are_weak_or_absurd_are_refused_before_any_work() {
        let text = String::from_utf8(sealed(&Phrase::generate(WordCount::Twelve).unwrap())).unwrap();
        for (from, to) in [
            ("\"memory_kib\":19456", "\"memory_kib\":4294967295"),
            ("\"memory_kib\":19456", "\"memory_kib\":8"),
            ("\"passes\":2", "\"passes\":4294967295"),
            ("\"passes\":2", "\"passes\":1"),
            ("\"lanes\":1", "\"lanes\":100000"),
        ] {
            let changed = with_checksum(&text.replace(from, to));
            assert!(matches!(open(&changed), Err(IdentityError::KdfParams { .. })), "{to} was taken");
        }
        let unknown = with_checksum(&text.replace("\"lanes\":1", "\"lanes\":1,\"x\":1"));
        assert!(matches!(open(&unknown), Err(IdentityError::Corrupted { .. })));
    }

    #[test]
    fn a_later_version_says_so_and_another_file_too() {
        let text = String::from_utf8(sealed(&Phrase::generate(WordCount::Twelve).unwrap())).unwrap();
        let later = text.replacen("coinop-keystore 1", "coinop-keystore 2", 1);
        assert!(matches!(
            open(later.as_bytes()),
            Err(IdentityError::KeystoreVersion { version, known: 1, .. }) if version == "2"
        ));
        assert!(matches!(open(b"{}"), Err(IdentityError::NotAKeystore { .. })));
        assert!(matches!(open(b""), Err(IdentityError::NotAKeystore { .. })));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = open(&bytes);
            let _ = open(&[b"coinop-keystore 1\n", bytes.as_slice()].concat());
        }
    }
}
