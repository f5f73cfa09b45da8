//! What can be wrong with a configuration. Every message names the field and the cure, and none repeats a secret.

use std::fmt;
use std::path::PathBuf;

/// Something wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, as `section.key`.
    pub field: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub cure: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.what, self.cure)
    }
}

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No file.
    #[error("there is no configuration at {}", .0.display())]
    NotFound(PathBuf),
    /// A file that can't be read.
    #[error("can't read the configuration {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Text that is no TOML, an unknown key, or a value of the wrong type.
    #[error("{}: line {line}, column {column}: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What the reader says, without the line itself: it may hold a secret.
        message: String,
    },
    /// Values that do not work, all of them.
    #[error("{} has {} to correct:{}", path.display(), plural(problems.len()), listed(problems))]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problems: Vec<Problem>,
    },
    /// A secret that is not where its reference says.
    #[error("{field}: {why}")]
    Secret {
        /// The field with the reference.
        field: String,
        /// What is missing.
        why: String,
    },
    /// No home folder to find the configuration in.
    #[error("this user has no home folder")]
    NoHome,
}

impl ConfigError {
    /// What to do about it, in a sentence.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::NotFound(_) => "write one with 'coinop init', or name it with --config or --home".into(),
            Self::Syntax { .. } => "docs/configuration.md lists every key with an example".into(),
            Self::NoHome => "say where to keep things: --home or COINOP_HOME".into(),
            _ => return None,
        })
    }
}

fn plural(count: usize) -> String {
    if count == 1 { "1 value".into() } else { format!("{count} values") }
}

/// One problem a line.
pub fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}
