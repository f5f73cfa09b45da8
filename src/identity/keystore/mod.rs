//! The encrypted file that holds the phrase.

use std::path::{Path, PathBuf};

use tracing::warn;

use super::error::IdentityError;
use super::mnemonic::Phrase;
use super::password::Password;

mod file;
mod format;
mod kdf;

pub use kdf::KdfParams;

/// The keystore at a path, there or not yet. Holds no secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keystore {
    path: PathBuf,
}

impl Keystore {
    /// The keystore at this path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether anything is there, readable or not: then [`Keystore::create`] refuses.
    pub fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// Writes a new keystore. Never overwrites one.
    ///
    /// # Errors
    /// [`IdentityError::KeystoreExists`] when something is there; what the system says otherwise.
    pub fn create(&self, phrase: &Phrase, password: &Password) -> Result<(), IdentityError> {
        self.create_with(phrase, password, KdfParams::STANDARD)
    }

    /// [`Keystore::create`] with other parameters, which can't be weaker than OWASP's minimum.
    ///
    /// # Errors
    /// As [`Keystore::create`].
    pub fn create_with(&self, phrase: &Phrase, password: &Password, params: KdfParams) -> Result<(), IdentityError> {
        // Before the work, so that the refusal is prompt; the write below is what guarantees it.
        if self.exists() {
            return Err(IdentityError::KeystoreExists(self.path.clone()));
        }
        file::write(&self.path, &format::seal(phrase, password, params)?, file::Existing::Keep)
    }

    /// Opens it. Takes Argon2id's time and memory.
    ///
    /// # Errors
    /// [`IdentityError::WrongPassword`] when the file is whole and the password is another;
    /// [`IdentityError::Corrupted`] when the file is not.
    pub fn open(&self, password: &Password) -> Result<Phrase, IdentityError> {
        self.unseal(password).map(|(phrase, _)| phrase)
    }

    /// Encrypts it anew for another password, with at least today's parameters.
    ///
    /// # Errors
    /// As [`Keystore::open`]; the old file stays unless the new one is safely there.
    pub fn change_password(&self, old: &Password, new: &Password) -> Result<(), IdentityError> {
        let (phrase, params) = self.unseal(old)?;
        let params = KdfParams::STANDARD.strengthened(params);
        file::write(&self.path, &format::seal(&phrase, new, params)?, file::Existing::Replace)
    }

    fn unseal(&self, password: &Password) -> Result<(Phrase, KdfParams), IdentityError> {
        let bytes = file::read(&self.path, format::MAX_FILE_BYTES)?;
        if file::is_open_to_others(&self.path) {
            warn!(path = %self.path.display(), "Other users of this machine can read the keystore; chmod 600 it");
        }
        format::unseal(&bytes, password, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::mnemonic::WordCount;

    fn password(text: &str) -> Password {
        Password::new(text.to_owned()).unwrap()
    }

    #[test]
    fn a_keystore_is_never_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let keystore = Keystore::at(home.path().join("id"));
        let (first, second) =
            (Phrase::generate(WordCount::Twelve).unwrap(), Phrase::generate(WordCount::Twelve).unwrap());
        keystore.create_with(&first, &password("a"), KdfParams::MINIMUM).unwrap();
        let refused = keystore.create_with(&second, &password("a"), KdfParams::MINIMUM);
        assert!(matches!(refused, Err(IdentityError::KeystoreExists(_))));
        assert_eq!(*keystore.open(&password("a")).unwrap().seed(), *first.seed());
    }

    #[test]
    fn changing_the_password_upgrades_the_parameters_and_shuts_the_old_one_out() {
        let home = tempfile::tempdir().unwrap();
        let keystore = Keystore::at(home.path().join("id"));
        let phrase = Phrase::generate(WordCount::Twelve).unwrap();
        keystore.create_with(&phrase, &password("old"), KdfParams::MINIMUM).unwrap();

        let wrong = keystore.change_password(&password("other"), &password("new"));
        assert!(matches!(wrong, Err(IdentityError::WrongPassword(_))));

        keystore.change_password(&password("old"), &password("new")).unwrap();
        assert!(matches!(keystore.open(&password("old")), Err(IdentityError::WrongPassword(_))));
        let (opened, params) = keystore.unseal(&password("new")).unwrap();
        assert_eq!(*opened.seed(), *phrase.seed());
        assert_eq!(params, KdfParams::STANDARD);
    }

    #[test]
    fn a_missing_keystore_says_how_to_make_one() {
        let home = tempfile::tempdir().unwrap();
        let error = Keystore::at(home.path().join("id")).open(&password("a")).unwrap_err();
        assert!(matches!(error, IdentityError::NoKeystore(_)));
        assert!(error.help().unwrap().contains("coinop init"));
    }
}
