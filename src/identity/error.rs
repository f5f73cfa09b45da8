//! What can go wrong with phrases, passwords and keystores. No message ever holds a word, a password or a key.

use std::path::PathBuf;

/// A failure of this folder. [`IdentityError::help`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A phrase of a length we do not use.
    #[error("the phrase has {found} words; it must have 12 or 24")]
    WordCount {
        /// How many words there were.
        found: usize,
    },
    /// A word that is not in BIP 39's English list. The word is not shown: it may be a secret one, misspelled.
    #[error("word {position} of {total} is not in the BIP 39 English word list")]
    UnknownWord {
        /// Which word, from 1.
        position: usize,
        /// Of how many.
        total: usize,
    },
    /// Every word is known, together they are no phrase.
    #[error("all the words are known, but the phrase's checksum does not match")]
    Checksum,
    /// A BIP 39 passphrase longer than the keystore holds.
    #[error("the passphrase is longer than {max} bytes")]
    PassphraseTooLong {
        /// The most bytes.
        max: usize,
    },
    /// An account number with no hardened BIP 32 child.
    #[error("account {0} does not exist; accounts go from 0 to 2147483647")]
    Account(u32),
    /// Text that is no public key.
    #[error("'{text}' is no public key: {why}")]
    PublicKey {
        /// What was written, cut to a readable length.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A secret key where a public one belongs.
    #[error("that is a secret key (nsec), not a public one")]
    SecretKeyGiven,
    /// No password where one is needed.
    #[error("the password is empty")]
    EmptyPassword,
    /// A password longer than anything typed.
    #[error("the password is longer than {max} bytes")]
    PasswordTooLong {
        /// The most bytes.
        max: usize,
    },
    /// A password in the environment that is no text.
    #[error("the environment variable {0} is not UTF-8 text")]
    PasswordVariable(&'static str),
    /// A new password that would be guessed.
    #[error("the new password is too weak (strength {score} of 4, {needed} needed){advice}")]
    WeakPassword {
        /// zxcvbn's score, 0 to 4.
        score: u8,
        /// What is needed.
        needed: u8,
        /// zxcvbn's advice, empty or starting with a colon.
        advice: String,
    },
    /// A password file or credential that can't be used.
    #[error("the password file {} can't be used: {why}", path.display())]
    PasswordFile {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// No keystore at the configured place.
    #[error("there is no identity at {}", .0.display())]
    NoKeystore(PathBuf),
    /// A keystore where a new one was to be written.
    #[error("there is an identity at {} already; it was not touched", .0.display())]
    KeystoreExists(PathBuf),
    /// Some other file.
    #[error("{} is no coinop keystore: {why}", path.display())]
    NotAKeystore {
        /// Which file.
        path: PathBuf,
        /// What gave it away.
        why: String,
    },
    /// A keystore of a later coinop.
    #[error("{} is a keystore of version {version}; this coinop reads version {known}", path.display())]
    KeystoreVersion {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: String,
        /// Ours.
        known: u32,
    },
    /// Bytes were lost or changed: the file's own checksum does not match.
    #[error("the keystore {} is damaged: {why}", path.display())]
    Corrupted {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        why: &'static str,
    },
    /// Key-derivation parameters too weak to protect anything or too large to be meant.
    #[error("Argon2id with {memory_kib} KiB, {passes} passes and {lanes} lanes is refused: {why}")]
    KdfParams {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes over it.
        passes: u32,
        /// Lanes.
        lanes: u32,
        /// Too weak, or too large.
        why: &'static str,
    },
    /// The file is whole, the password is another.
    #[error("the password does not open the keystore {}", .0.display())]
    WrongPassword(PathBuf),
    /// A file could not be read or written.
    #[error("can't {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The system's own random numbers or memory failed us.
    #[error("the system could not provide {0}")]
    System(&'static str),
}

impl IdentityError {
    /// What to do about it, in a sentence.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::WordCount { .. } => "write all the words in one line, with a space between any two".into(),
            Self::UnknownWord { .. } => {
                "look the word up in your backup; each is an English word of 3 to 8 letters, and its first 4 letters \
                 name it"
                    .into()
            }
            Self::Checksum => {
                "two words are swapped, or one is another word of the list: compare with your backup".into()
            }
            Self::PublicKey { .. } => "give an npub1… or 64 hexadecimal digits".into(),
            Self::SecretKeyGiven => {
                "give the npub; and since the nsec was written where it does not belong, consider it known to others"
                    .into()
            }
            Self::WeakPassword { .. } => {
                "use several unrelated words, or --force-weak-password if something else protects the file".into()
            }
            Self::PasswordFile { .. } => "the file holds the password in its only line".into(),
            Self::NoKeystore(_) => {
                "make one with 'coinop init', or 'coinop identity new' or 'coinop identity import'".into()
            }
            Self::KeystoreExists(path) => format!(
                "coinop never overwrites an identity: to start another one, move {} away yourself",
                path.display()
            ),
            Self::NotAKeystore { .. } => "check identity.keystore in the configuration".into(),
            Self::KeystoreVersion { .. } => "use the coinop that wrote it, or a newer one".into(),
            Self::Corrupted { .. } => {
                "restore the file from a backup, or 'coinop identity import' your words after moving it away".into()
            }
            Self::KdfParams { .. } => "the file was not written by coinop, or was changed since".into(),
            Self::WrongPassword(_) => {
                "the file itself is whole: try again, and mind the keyboard layout and stray spaces".into()
            }
            _ => return None,
        })
    }
}
