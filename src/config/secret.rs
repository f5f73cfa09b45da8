//! Secrets by reference: the configuration says where one stands, never what it is.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::error::ConfigError;

/// More than any connection string or token has; it bounds what is read.
const MAX_SECRET_BYTES: u64 = 8 * 1_024;

/// Where a secret stands. Harmless to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In an environment variable: `env:NAME`.
    Env(String),
    /// In a file: `file:/path`.
    File(PathBuf),
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl SecretRef {
    /// Reads a reference; a relative path starts at `folder`. The error never repeats the text, which may be the secret
    /// itself, written where only a reference belongs.
    ///
    /// # Errors
    /// What is wrong, for the operator.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, &'static str> {
        if let Some(name) = text.strip_prefix("env:") {
            let fits = !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            return if fits { Ok(Self::Env(name.to_owned())) } else { Err("what follows env: is no variable's name") };
        }
        match text.strip_prefix("file:") {
            Some("") => Err("nothing follows file:"),
            Some(path) => Ok(Self::File(folder.join(path))),
            None => Err("it is a secret, and secrets do not belong into the configuration"),
        }
    }

    /// Fetches the secret, without white space around it. `field` is for the error.
    ///
    /// # Errors
    /// [`ConfigError::Secret`] when nothing is there.
    pub fn reveal(&self, field: &str) -> Result<SecretString, ConfigError> {
        let missing = |why: String| ConfigError::Secret { field: field.to_owned(), why };
        let text = match self {
            Self::Env(name) => Zeroizing::new(
                std::env::var(name)
                    .map_err(|_| missing(format!("the environment variable {name} is not set, or is no text")))?,
            ),
            Self::File(path) => {
                let unreadable = |why: String| missing(format!("can't read {}: {why}", path.display()));
                let mut text = Zeroizing::new(String::new());
                let read = File::open(path).and_then(|file| file.take(MAX_SECRET_BYTES + 1).read_to_string(&mut text));
                read.map_err(|error| unreadable(error.to_string()))?;
                if text.len() as u64 > MAX_SECRET_BYTES {
                    return Err(unreadable("it is far too large".into()));
                }
                text
            }
        };
        match text.trim() {
            "" => Err(missing(format!("{self} is empty"))),
            secret => Ok(SecretString::from(secret)),
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_reference_reads_as_it_is_written_and_a_plain_secret_is_refused_unseen() {
        let folder = Path::new("/etc/coinop");
        assert_eq!(SecretRef::parse("env:NAME_1", folder), Ok(SecretRef::Env("NAME_1".into())));
        assert_eq!(SecretRef::parse("file:/x", folder), Ok(SecretRef::File("/x".into())));
        assert_eq!(SecretRef::parse("file:nwc", folder), Ok(SecretRef::File("/etc/coinop/nwc".into())));
        for bad in ["env:", "env:1X", "env:A B", "file:", "nostr+walletconnect://abc?secret=def"] {
            let error = SecretRef::parse(bad, folder).unwrap_err();
            assert!(!error.contains("abc"), "{error}");
        }
    }

    #[test]
    fn a_secret_in_a_file_is_read_without_its_line_end() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("nwc"), "topsecret\n").unwrap();
        let secret = SecretRef::parse("file:nwc", home.path()).unwrap().reveal("wallet.nwc.connection").unwrap();
        assert_eq!(secret.expose_secret(), "topsecret");
        assert!(!format!("{secret:?}").contains("topsecret"));
    }

    #[test]
    fn a_missing_secret_names_the_field_and_the_place() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("empty"), " \n").unwrap();
        std::fs::write(home.path().join("huge"), "x".repeat(9_000)).unwrap();
        for text in ["env:COINOP_NO_SUCH_VARIABLE", "file:missing", "file:empty", "file:huge"] {
            let error = SecretRef::parse(text, home.path()).unwrap().reveal("requester.wallet").unwrap_err();
            assert!(error.to_string().starts_with("requester.wallet: "), "{error}");
        }
    }
}
