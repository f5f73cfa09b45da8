//! Files that a server keeps and can't read: AES-256-GCM with a key of their own, which goes to whoever may have the file.
//!
//! So a file can be uploaded before it is paid, and what was asked for in confidence can be uploaded at all: without the key
//! it is noise. Every file has its own random key and nonce, and neither is used again. A file that is uploaded once more,
//! after a crash, is therefore another file to the server.

use aes_gcm::aead::{Aead as _, AeadInPlace as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce};
use bitcoin::hashes::{Hash, sha256};
use rand::RngCore as _;
use rand::rngs::OsRng;

use super::BlossomError;
use crate::nip90::Seal;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

/// Seals a content, and says what opens it.
///
/// # Errors
/// When the system has no random numbers.
pub(super) fn seal(mut content: Vec<u8>) -> Result<(Vec<u8>, Seal), BlossomError> {
    let sha256 = sha256::Hash::hash(&content).to_string();
    let (mut key, mut nonce) = ([0; KEY_BYTES], [0; NONCE_BYTES]);
    OsRng.try_fill_bytes(&mut key).map_err(|_| BlossomError::Cipher)?;
    OsRng.try_fill_bytes(&mut nonce).map_err(|_| BlossomError::Cipher)?;
    Aes256Gcm::new(&key.into())
        .encrypt_in_place(Nonce::from_slice(&nonce), &[], &mut content)
        .map_err(|_| BlossomError::Cipher)?;
    Ok((content, Seal { key: hex::encode(key), nonce: hex::encode(nonce), sha256 }))
}

/// The content of a sealed file.
///
/// # Errors
/// [`BlossomError::OtherFile`] when the seal is another file's.
pub(super) fn open(sealed: &[u8], seal: &Seal) -> Result<Vec<u8>, BlossomError> {
    let (mut key, mut nonce) = ([0; KEY_BYTES], [0; NONCE_BYTES]);
    hex::decode_to_slice(&seal.key, &mut key).map_err(|_| BlossomError::OtherFile)?;
    hex::decode_to_slice(&seal.nonce, &mut nonce).map_err(|_| BlossomError::OtherFile)?;
    let content = Aes256Gcm::new(&key.into())
        .decrypt(Nonce::from_slice(&nonce), Payload::from(sealed))
        .map_err(|_| BlossomError::OtherFile)?;
    if sha256::Hash::hash(&content).to_string() == seal.sha256 { Ok(content) } else { Err(BlossomError::OtherFile) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_by_its_seal_alone() {
        let content = b"It was a dark and stormy night.".to_vec();
        let (sealed, its) = seal(content.clone()).unwrap();
        assert_eq!(sealed.len() as u64, content.len() as u64 + crate::blossom::SEAL_BYTES);
        assert_eq!(open(&sealed, &its), Ok(content.clone()));
        let (again, other) = seal(content.clone()).unwrap();
        assert!(again != sealed && other.key != its.key && other.nonce != its.nonce);
        assert_eq!(open(&sealed, &other), Err(BlossomError::OtherFile));
        let flipped: Vec<u8> = sealed.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 3)).collect();
        assert_eq!(open(&flipped, &its), Err(BlossomError::OtherFile));
        assert_eq!(open(&[], &its), Err(BlossomError::OtherFile));
        let promised = Seal { sha256: "ab".repeat(32), ..its };
        assert_eq!(open(&sealed, &promised), Err(BlossomError::OtherFile), "another content than was promised");
    }

    #[test]
    fn a_seal_of_another_library_is_opened() {
        // Made with OpenSSL's EVP_aes_256_gcm through Python's cryptography.
        let seal = Seal {
            key: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f".into(),
            nonce: "000102030405060708090a0b".into(),
            sha256: sha256::Hash::hash(b"coinop").to_string(),
        };
        let sealed = hex::decode("246dbf75aa95ceb0d1950a1e7a931beb3d9bc784b761").unwrap();
        assert_eq!(open(&sealed, &seal), Ok(b"coinop".to_vec()));
    }
}
