//! Reads single values and collects what is wrong with them, so that one look at the configuration tells everything.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::error::Problem;
use super::secret::SecretRef;
use crate::identity::{IdentityError, public_key};
use crate::job::CustomerId;
use crate::money::Msat;

/// Values longer than this are cut in messages.
const SHOWN_CHARS: usize = 60;

/// Reads values and remembers problems. A value that can't be read is replaced by something harmless, since a
/// configuration with a problem is never used.
#[derive(Debug)]
pub(super) struct Values<'a> {
    folder: &'a Path,
    pub(super) problems: Vec<Problem>,
}

/// A value as it may be shown.
pub(super) fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(SHOWN_CHARS).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

impl<'a> Values<'a> {
    /// Relative paths start at `folder`.
    pub(super) fn new(folder: &'a Path) -> Self {
        Self { folder, problems: Vec::new() }
    }

    pub(super) fn problem(&mut self, field: &str, what: impl Into<String>, cure: impl Into<String>) {
        self.problems.push(Problem { field: field.into(), what: what.into(), cure: cure.into() });
    }

    /// Whether nothing was wrong with these fields so far.
    pub(super) fn are_fine(&self, fields: &[&str]) -> bool {
        !self.problems.iter().any(|problem| fields.contains(&problem.field.as_str()))
    }

    /// A duration within bounds.
    pub(super) fn duration(&mut self, field: &str, text: &str, least: Duration, most: Duration) -> Duration {
        let write = |duration| humantime::format_duration(duration).to_string();
        match humantime::parse_duration(text) {
            Ok(duration) if duration < least => {
                self.problem(
                    field,
                    format!("'{}' is too short", shown(text)),
                    format!("the least is {}", write(least)),
                );
            }
            Ok(duration) if duration > most => {
                self.problem(field, format!("'{}' is too long", shown(text)), format!("the most is {}", write(most)));
            }
            Ok(duration) => return duration,
            Err(_) => self.problem(
                field,
                format!("'{}' is no duration", shown(text)),
                "write a number with its unit, such as \"30s\", \"10m\", \"24h\" or \"90days\"",
            ),
        }
        least
    }

    /// An amount of money with its unit.
    pub(super) fn amount(&mut self, field: &str, text: &str) -> Msat {
        text.parse().unwrap_or_else(|_| {
            self.problem(
                field,
                format!("'{}' is no amount", shown(text)),
                "write it with its unit, such as \"2sat\" or \"500msat\"",
            );
            Msat::ZERO
        })
    }

    /// A number within bounds, made a `usize`.
    pub(super) fn count(&mut self, field: &str, number: u32, least: u32, most: u32) -> usize {
        self.number(field, number, least, most) as usize
    }

    /// A number within bounds.
    pub(super) fn number(&mut self, field: &str, number: u32, least: u32, most: u32) -> u32 {
        if number < least || number > most {
            self.problem(field, format!("{number} is out of bounds"), format!("write {least} to {most}"));
            return least;
        }
        number
    }

    /// A path, relative to the configuration's folder; empty is not set.
    pub(super) fn path(&self, text: &str) -> Option<PathBuf> {
        (!text.is_empty()).then(|| self.folder.join(text))
    }

    /// A line of text; empty is not set.
    pub(super) fn line(&mut self, field: &str, text: &str, most_chars: usize) -> Option<String> {
        let text = text.trim();
        if text.chars().count() > most_chars {
            self.problem(field, "it is too long", format!("use at most {most_chars} characters"));
        }
        if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
            self.problem(field, "it holds control characters", "use plain text");
        }
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// An address of one of these schemes.
    pub(super) fn url(&mut self, field: &str, text: &str, schemes: [&str; 2]) -> Option<Url> {
        let cure = format!("write an address such as \"{}://example.com\"", schemes[0]);
        match Url::parse(text.trim()) {
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                // Not repeated: it holds a password.
                self.problem(field, "an address with a user name or password in it", cure);
            }
            Ok(url) if !schemes.contains(&url.scheme()) => {
                let wanted = schemes.join(" nor ");
                self.problem(field, format!("'{}' is neither {wanted}", shown(text)), cure);
            }
            Ok(url) if url.host_str().is_none_or(str::is_empty) => {
                self.problem(field, format!("'{}' names no host", shown(text)), cure);
            }
            Ok(url) => return Some(url),
            Err(error) => self.problem(field, format!("'{}' is no address ({error})", shown(text)), cure),
        }
        None
    }

    /// An address that need not be set.
    pub(super) fn optional_url(&mut self, field: &str, text: &str) -> Option<Url> {
        if text.trim().is_empty() { None } else { self.url(field, text, ["https", "http"]) }
    }

    /// A socket address; empty is not set.
    pub(super) fn socket(&mut self, field: &str, text: &str) -> Option<SocketAddr> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let read = text.parse().ok();
        if read.is_none() {
            self.problem(
                field,
                format!("'{}' is no socket address", shown(text)),
                "write an address and a port, such as \"127.0.0.1:9464\"",
            );
        }
        read
    }

    /// Public keys, as npub or hexadecimal digits.
    pub(super) fn keys(&mut self, field: &str, texts: &[String]) -> BTreeSet<CustomerId> {
        let mut keys = BTreeSet::new();
        for text in texts {
            match public_key::read(text) {
                Ok(key) => {
                    keys.insert(CustomerId(key));
                }
                Err(error) => {
                    let cure = error.help().unwrap_or_default();
                    let what = match error {
                        IdentityError::SecretKeyGiven => "one of them is a secret key (nsec)".to_owned(),
                        other => other.to_string(),
                    };
                    self.problem(field, what, cure);
                }
            }
        }
        keys
    }

    /// A reference to a secret; empty is not set.
    pub(super) fn secret(&mut self, field: &str, text: &str) -> Option<SecretRef> {
        if text.is_empty() {
            return None;
        }
        match SecretRef::parse(text, self.folder) {
            Ok(reference) => Some(reference),
            Err(what) => {
                self.problem(
                    field,
                    what,
                    "keep it in a file that only you can read and write \"file:/path\", or in a variable and write \
                     \"env:NAME\"",
                );
                None
            }
        }
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&mut self, field: &str, text: &str, words: &[(&str, T)]) -> T {
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return *value;
        }
        let known: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.problem(
            field,
            format!("'{}' is none of its words", shown(text)),
            format!("write one of {}", known.join(", ")),
        );
        words.first().expect("every field has words to choose from").1
    }
}
