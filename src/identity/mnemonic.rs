//! The phrase: BIP 39 words, and the optional passphrase that makes another seed of the same words.

use std::fmt;

use bip39::{Language, Mnemonic};
use zeroize::Zeroizing;

use super::error::IdentityError;

/// The most bytes of a BIP 39 passphrase we keep: far more than anybody types, and it bounds the keystore.
pub const MAX_PASSPHRASE_BYTES: usize = 1_024;

/// How long a phrase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WordCount {
    /// 12 words: 128 bits, what most wallets write down.
    #[default]
    Twelve,
    /// 24 words: 256 bits.
    TwentyFour,
}

impl WordCount {
    /// The number of words.
    pub const fn words(self) -> usize {
        match self {
            Self::Twelve => 12,
            Self::TwentyFour => 24,
        }
    }

    const fn entropy_bytes(self) -> usize {
        match self {
            Self::Twelve => 16,
            Self::TwentyFour => 32,
        }
    }
}

/// The 64 bytes everything is derived from. Wiped from memory when dropped.
pub type Seed = Zeroizing<[u8; 64]>;

/// A BIP 39 phrase (English, 12 or 24 words) with its passphrase, which is mostly empty. Both are wiped from memory when
/// dropped and never shown by Debug.
#[derive(Clone)]
pub struct Phrase {
    words: Mnemonic,
    passphrase: Zeroizing<String>,
}

impl fmt::Debug for Phrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Phrase({} words, secret)", self.words.word_count())
    }
}

impl Phrase {
    /// A new phrase from the system's random numbers.
    ///
    /// # Errors
    /// [`IdentityError::System`] when there are none.
    pub fn generate(count: WordCount) -> Result<Self, IdentityError> {
        let mut entropy = Zeroizing::new([0u8; 32]);
        let entropy = &mut entropy[..count.entropy_bytes()];
        rand::RngCore::try_fill_bytes(&mut rand::rngs::OsRng, entropy)
            .map_err(|_| IdentityError::System("random numbers"))?;
        Self::from_entropy(entropy)
    }

    /// The phrase that stands for these 16 or 32 bytes (BIP 39).
    pub(super) fn from_entropy(entropy: &[u8]) -> Result<Self, IdentityError> {
        let words = Mnemonic::from_entropy_in(Language::English, entropy)
            .map_err(|_| IdentityError::WordCount { found: entropy.len() * 3 / 4 })?;
        if entropy.len() != 16 && entropy.len() != 32 {
            return Err(IdentityError::WordCount { found: words.word_count() });
        }
        Ok(Self { words, passphrase: Zeroizing::default() })
    }

    /// Reads a phrase: any white space between the words, any case.
    ///
    /// # Errors
    /// What is wrong and where: the number of words, the position of an unknown word, or the checksum.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let count = text.split_whitespace().count();
        if count != WordCount::Twelve.words() && count != WordCount::TwentyFour.words() {
            return Err(IdentityError::WordCount { found: count });
        }
        // As long as the input from the start, so that no half-copied secret is left behind by a growing string.
        let mut plain = Zeroizing::new(String::with_capacity(text.len() + 1));
        for word in text.split_whitespace() {
            if !plain.is_empty() {
                plain.push(' ');
            }
            plain.extend(word.chars().map(|c| c.to_ascii_lowercase()));
        }
        let words = Mnemonic::parse_in_normalized(Language::English, &plain).map_err(|error| match error {
            bip39::Error::UnknownWord(index) => IdentityError::UnknownWord { position: index + 1, total: count },
            bip39::Error::InvalidChecksum => IdentityError::Checksum,
            bip39::Error::BadWordCount(found) => IdentityError::WordCount { found },
            bip39::Error::BadEntropyBitCount(_) | bip39::Error::AmbiguousLanguages(_) => {
                IdentityError::WordCount { found: count }
            }
        })?;
        Ok(Self { words, passphrase: Zeroizing::default() })
    }

    /// The same words with a BIP 39 passphrase: another seed altogether, without which the words are worth nothing.
    ///
    /// # Errors
    /// [`IdentityError::PassphraseTooLong`].
    pub fn with_passphrase(mut self, passphrase: Zeroizing<String>) -> Result<Self, IdentityError> {
        if passphrase.len() > MAX_PASSPHRASE_BYTES {
            return Err(IdentityError::PassphraseTooLong { max: MAX_PASSPHRASE_BYTES });
        }
        self.passphrase = passphrase;
        Ok(self)
    }

    /// Whether a passphrase belongs to the words.
    pub fn has_passphrase(&self) -> bool {
        !self.passphrase.is_empty()
    }

    /// The passphrase, empty when there is none. Secret.
    pub fn passphrase(&self) -> &str {
        &self.passphrase
    }

    /// The words in order. Secret.
    pub fn words(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.words.words()
    }

    /// What the words stand for: 16 or 32 bytes. Secret.
    pub(super) fn entropy(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.words.to_entropy())
    }

    /// The seed (BIP 39): 2,048 rounds of PBKDF2 over words and passphrase.
    pub fn seed(&self) -> Seed {
        Zeroizing::new(self.words.to_seed(self.passphrase.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// English 12- and 24-word vectors of BIP 39's reference implementation; the passphrase is always `TREZOR`.
    const VECTORS: &str = include_str!("../../tests/data/bip39-vectors.json");

    #[derive(serde::Deserialize)]
    struct Vectors {
        english: Vec<(String, String, String)>,
    }

    #[test]
    fn the_reference_vectors_of_bip39_pass() {
        let vectors: Vectors = serde_json::from_str(VECTORS).unwrap();
        assert_eq!(vectors.english.len(), 16);
        for (entropy, words, seed) in vectors.english {
            let phrase = Phrase::parse(&words).unwrap();
            assert_eq!(hex::encode(&*phrase.entropy()), entropy);
            let made = Phrase::from_entropy(&hex::decode(&entropy).unwrap()).unwrap();
            assert_eq!(made.words().collect::<Vec<_>>().join(" "), words);
            let phrase = phrase.with_passphrase(Zeroizing::new("TREZOR".into())).unwrap();
            assert_eq!(hex::encode(*phrase.seed()), seed);
        }
    }

    #[test]
    fn a_new_phrase_has_the_wanted_length_and_reads_back() {
        for count in [WordCount::Twelve, WordCount::TwentyFour] {
            let phrase = Phrase::generate(count).unwrap();
            let words = phrase.words().collect::<Vec<_>>();
            assert_eq!(words.len(), count.words());
            let again = Phrase::parse(&words.join("\n  ").to_uppercase()).unwrap();
            assert_eq!(*again.seed(), *phrase.seed());
        }
        let one = Phrase::generate(WordCount::Twelve).unwrap();
        assert_ne!(*one.seed(), *Phrase::generate(WordCount::Twelve).unwrap().seed());
    }

    #[test]
    fn a_wrong_phrase_says_what_is_wrong_and_where_without_repeating_it() {
        let abandon = "abandon ".repeat(11);
        assert!(matches!(Phrase::parse("abandon abandon"), Err(IdentityError::WordCount { found: 2 })));
        assert!(matches!(Phrase::parse(""), Err(IdentityError::WordCount { found: 0 })));
        // 15 words are a BIP 39 phrase, though not one of ours.
        assert!(matches!(Phrase::parse(&"abandon ".repeat(15)), Err(IdentityError::WordCount { found: 15 })));
        assert!(matches!(Phrase::parse(&format!("{abandon}abandon")), Err(IdentityError::Checksum)));
        let error = Phrase::parse(&abandon.replacen("abandon", "abandn", 3).replacen("abandn", "abandon", 2))
            .err()
            .map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("the phrase has 11 words; it must have 12 or 24"));
        let error = Phrase::parse(&format!("abandon abandon abandn {}", "abandon ".repeat(9))).unwrap_err();
        assert!(matches!(error, IdentityError::UnknownWord { position: 3, total: 12 }));
        assert!(!error.to_string().contains("abandn"));
    }

    #[test]
    fn a_passphrase_makes_another_seed_and_is_normalised() {
        let words = format!("{}about", "abandon ".repeat(11));
        let with = |passphrase: &str| {
            *Phrase::parse(&words).unwrap().with_passphrase(Zeroizing::new(passphrase.into())).unwrap().seed()
        };
        assert_ne!(with(""), with("x"));
        // BIP 39 asks for NFKD: a composed and a decomposed é are the same passphrase.
        assert_eq!(with("caf\u{e9}"), with("cafe\u{301}"));
    }

    #[test]
    fn debug_shows_no_word() {
        let phrase = Phrase::parse(&format!("{}about", "abandon ".repeat(11))).unwrap();
        assert_eq!(format!("{phrase:?}"), "Phrase(12 words, secret)");
    }
}
