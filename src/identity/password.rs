//! The password of the keystore: where it comes from without a terminal, and whether a new one is any good.

use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;
use zxcvbn::Score;

use super::error::IdentityError;

/// The variable a password may stand in.
pub const PASSWORD_VARIABLE: &str = "COINOP_PASSWORD";
/// The systemd credential a password may stand in: `LoadCredential=coinop-password:…`.
pub const CREDENTIAL_NAME: &str = "coinop-password";
/// More than anybody types; it bounds what is read from a file.
pub const MAX_PASSWORD_BYTES: usize = 1_024;
/// zxcvbn's score a new password must reach: "safely unguessable, moderate protection from offline slow-hash attacks".
const NEEDED: Score = Score::Three;

/// A password. Never shown by Debug, wiped from memory when dropped.
#[derive(Debug, Clone)]
pub struct Password(SecretString);

impl Password {
    /// A password; one line end at its end is not part of it, so that it is the same from a file, a variable and a
    /// keyboard.
    ///
    /// # Errors
    /// Empty, or longer than [`MAX_PASSWORD_BYTES`].
    pub fn new(text: String) -> Result<Self, IdentityError> {
        let text = Zeroizing::new(text);
        let line = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        if line.is_empty() {
            return Err(IdentityError::EmptyPassword);
        }
        if line.len() > MAX_PASSWORD_BYTES {
            return Err(IdentityError::PasswordTooLong { max: MAX_PASSWORD_BYTES });
        }
        Ok(Self(SecretString::from(line)))
    }

    /// Reads the password in a file.
    ///
    /// # Errors
    /// [`IdentityError::PasswordFile`] with the reason.
    pub fn from_file(path: &Path) -> Result<Self, IdentityError> {
        let unusable = |why: String| IdentityError::PasswordFile { path: path.to_owned(), why };
        // Reserved at once, so that no copy is left behind by growing.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD_BYTES + 3));
        File::open(path)
            .and_then(|file| file.take(MAX_PASSWORD_BYTES as u64 + 3).read_to_end(&mut bytes))
            .map_err(|error| unusable(error.to_string()))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| unusable("it is not UTF-8 text".into()))?;
        Self::new(text.to_owned()).map_err(|error| unusable(error.to_string()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.expose_secret().as_bytes()
    }

    /// Whether both are the same.
    pub fn is(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }

    /// Refuses a password that would be guessed, with advice that does not repeat it.
    ///
    /// # Errors
    /// [`IdentityError::WeakPassword`].
    pub fn check_strength(&self) -> Result<(), IdentityError> {
        let estimate = zxcvbn::zxcvbn(self.0.expose_secret(), &["coinop", "nostr", "bitcoin", "lightning"]);
        if estimate.score() >= NEEDED {
            return Ok(());
        }
        let advice = estimate.feedback().map(|feedback| format!(": {feedback}")).unwrap_or_default();
        Err(IdentityError::WeakPassword {
            score: u8::from(estimate.score()),
            needed: u8::from(NEEDED),
            advice: advice.trim_end_matches([' ', ':']).to_owned(),
        })
    }
}

/// Where a password may come from without asking, the first that is there wins:
/// 1. the file named on the command line (`--password-file`),
/// 2. the variable `COINOP_PASSWORD`,
/// 3. the systemd credential `coinop-password` (a file in `$CREDENTIALS_DIRECTORY`).
#[derive(Debug, Clone, Default)]
pub struct PasswordSources {
    /// The file named on the command line.
    pub file: Option<PathBuf>,
    /// What the variable holds.
    pub variable: Option<SecretString>,
    /// systemd's folder of credentials.
    pub credentials: Option<PathBuf>,
}

impl PasswordSources {
    /// The sources of this process. An empty variable is none.
    ///
    /// # Errors
    /// [`IdentityError::PasswordVariable`] when the variable holds bytes that are no text.
    pub fn of_process(file: Option<PathBuf>) -> Result<Self, IdentityError> {
        let variable = match env::var(PASSWORD_VARIABLE) {
            Ok(text) if text.is_empty() => None,
            Ok(text) => Some(SecretString::from(text)),
            Err(env::VarError::NotPresent) => None,
            Err(env::VarError::NotUnicode(_)) => return Err(IdentityError::PasswordVariable(PASSWORD_VARIABLE)),
        };
        Ok(Self { file, variable, credentials: env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) })
    }

    /// The password of the first source there is; `None` when there is none, so that somebody can be asked.
    ///
    /// # Errors
    /// When a source is there but can't be used: a wrong path must not fall through to another password.
    pub fn read(&self) -> Result<Option<Password>, IdentityError> {
        if let Some(file) = &self.file {
            return Password::from_file(file).map(Some);
        }
        if let Some(text) = &self.variable {
            return Password::new(text.expose_secret().to_owned()).map(Some);
        }
        match self.credentials.as_ref().map(|folder| folder.join(CREDENTIAL_NAME)) {
            Some(path) if path.exists() => Password::from_file(&path).map(Some),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn password(text: &str) -> Password {
        Password::new(text.to_owned()).unwrap()
    }

    #[test]
    fn one_line_end_is_not_part_of_the_password() {
        for text in ["secret", "secret\n", "secret\r\n"] {
            assert!(password(text).is(&password("secret")), "{text:?}");
        }
        for other in ["secret\n\n", " secret", "secret "] {
            assert!(!password(other).is(&password("secret")), "{other:?}");
        }
        assert!(matches!(Password::new("\n".into()), Err(IdentityError::EmptyPassword)));
        assert!(matches!(Password::new("x".repeat(1_025)), Err(IdentityError::PasswordTooLong { .. })));
    }

    #[test]
    fn a_guessable_new_password_is_refused_and_not_repeated() {
        for weak in ["password", "123456789", "coinop", "qwertyuiop", "a"] {
            let error = password(weak).check_strength().unwrap_err();
            assert!(matches!(error, IdentityError::WeakPassword { .. }), "{weak} was taken");
        }
        let shown = password("hunter2hunter2").check_strength().err().map(|error| error.to_string());
        assert!(!shown.unwrap_or_default().contains("hunter2"));
        password("orbit velvet tundra seven").check_strength().unwrap();
    }

    #[test]
    fn the_command_lines_file_comes_before_the_variable_and_that_before_the_credential() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("file"), "from file\n").unwrap();
        fs::write(home.path().join(CREDENTIAL_NAME), "from credential\n").unwrap();
        let mut sources = PasswordSources {
            file: Some(home.path().join("file")),
            variable: Some("from variable".into()),
            credentials: Some(home.path().to_owned()),
        };
        assert!(sources.read().unwrap().unwrap().is(&password("from file")));
        sources.file = None;
        assert!(sources.read().unwrap().unwrap().is(&password("from variable")));
        sources.variable = None;
        assert!(sources.read().unwrap().unwrap().is(&password("from credential")));
        sources.credentials = Some(home.path().join("elsewhere"));
        assert!(sources.read().unwrap().is_none());
    }

    #[test]
    fn a_named_file_that_cannot_be_used_is_an_error_not_the_next_source() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("empty"), "\n").unwrap();
        fs::write(home.path().join("binary"), [0xff, 0xfe]).unwrap();
        for name in ["missing", "empty", "binary", "."] {
            let sources =
                PasswordSources { file: Some(home.path().join(name)), variable: Some("x".into()), credentials: None };
            assert!(matches!(sources.read(), Err(IdentityError::PasswordFile { .. })), "{name}");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        assert!(!format!("{:?}", password("topsecret")).contains("topsecret"));
    }
}
