//! What a review says, and the rules that make it consistent.

use std::fmt;

use bitcoin::hashes::{Hash, sha256};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::RelativePath;

/// Words of a small set, as the wire has them.
pub trait WordsOf: Copy + 'static {
    /// Every value and its word.
    const WORDS: &'static [(Self, &'static str)];
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $word)] $variant),+ }

        impl WordsOf for $name {
            const WORDS: &'static [(Self, &'static str)] = &[$((Self::$variant, $word)),+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $word),+ })
            }
        }
    };
}

words! {
    /// What comes of a review, the mildest first.
    Verdict {
        /// It is fine as it is.
        Approve = "approve",
        /// There is something to say, but nothing that must change.
        Comment = "comment",
        /// Something must change.
        RequestChanges = "request_changes",
    }
}

words! {
    /// How bad something is, the worst first.
    Severity {
        /// It does harm.
        Critical = "critical",
        /// It is wrong.
        Major = "major",
        /// It could be better.
        Minor = "minor",
        /// A trifle.
        Nit = "nit",
    }
}

words! {
    /// What something is about.
    Category {
        /// Somebody could misuse it.
        Security = "security",
        /// It does not do what it should.
        Bug = "bug",
        /// It is slow.
        Performance = "performance",
        /// How it is written.
        Style = "style",
        /// What is said about it.
        Documentation = "documentation",
        /// How it is tested.
        Testing = "testing",
        /// Where it stands.
        Architecture = "architecture",
        /// How hard it is to change.
        Maintainability = "maintainability",
        /// Something else.
        Other = "other",
    }
}

/// Something that a review found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    /// In which file.
    pub path: RelativePath,
    /// In which line of the new file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Up to which line, when it is more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_line: Option<u32>,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub category: Category,
    /// It in a few words.
    pub title: String,
    /// What is wrong, and why.
    pub description: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// Numbers of a review, counted from its issues and what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Files read.
    pub files_reviewed: u64,
    /// Lines read: of a diff all its lines, of a file those of the file.
    pub lines_reviewed: u64,
    /// Issues.
    pub issues: u64,
    /// Of which critical.
    pub critical: u64,
    /// Of which major.
    pub major: u64,
    /// Of which minor.
    pub minor: u64,
    /// Of which nits.
    pub nits: u64,
}

/// Tokens of a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TokenCounts {
    /// Read.
    pub prompt: u32,
    /// Written.
    pub generated: u32,
}

/// The result of kind 6933.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// What comes of it.
    pub status: Verdict,
    /// It in a few sentences.
    pub summary: String,
    /// What was found, by file and line.
    pub issues: Vec<Issue>,
    /// Numbers.
    pub stats: Stats,
    /// Hash of the rest, see [`Review::hash`].
    pub review_sha256: String,
    /// The model that read.
    pub model: String,
    /// Its tokens.
    pub tokens: TokenCounts,
}

impl Verdict {
    /// What comes of a review whose reader said `said` and found these issues, of which `dropped` were about nothing that was
    /// read: with something critical or major it is `request_changes`, whatever was said. What was said stands otherwise,
    /// except that `request_changes` for nothing but issues that are dropped is a `comment`.
    pub fn of(said: Self, issues: &[Issue], dropped: usize) -> Self {
        let is_grave = |issue: &Issue| issue.severity <= Severity::Major;
        match said {
            _ if issues.iter().any(is_grave) => Self::RequestChanges,
            Self::RequestChanges if issues.is_empty() && dropped > 0 => Self::Comment,
            said => said,
        }
    }
}

impl Stats {
    /// Counts.
    pub fn of(files_reviewed: u64, lines_reviewed: u64, issues: &[Issue]) -> Self {
        let count = |severity| issues.iter().filter(|issue| issue.severity == severity).count() as u64;
        Self {
            files_reviewed,
            lines_reviewed,
            issues: issues.len() as u64,
            critical: count(Severity::Critical),
            major: count(Severity::Major),
            minor: count(Severity::Minor),
            nits: count(Severity::Nit),
        }
    }
}

impl Review {
    /// SHA-256 of everything but `review_sha256`, as JSON without spaces and with keys in the order of the alphabet (RFC
    /// 8785). `jq -jcS 'del(.review_sha256)' | sha256sum` finds the same, since no text here has control characters but line
    /// breaks and tabs.
    ///
    /// # Panics
    /// Never: a review is JSON.
    pub fn hash(&self) -> String {
        let mut value = serde_json::to_value(self).expect("a review is JSON");
        if let Some(fields) = value.as_object_mut() {
            fields.remove("review_sha256");
        }
        let mut text = String::new();
        canonical(&value, &mut text);
        sha256::Hash::hash(text.as_bytes()).to_string()
    }

    /// With its hash.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.review_sha256 = self.hash();
        self
    }

    /// Whether the hash is the review's.
    pub fn is_sealed(&self) -> bool {
        self.review_sha256 == self.hash()
    }
}

fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            list(out, ['{', '}'], sorted, |(key, value), out| {
                canonical(&Value::String(key.clone()), out);
                out.push(':');
                canonical(value, out);
            });
        }
        Value::Array(values) => list(out, ['[', ']'], values, canonical),
        plain => out.push_str(&plain.to_string()),
    }
}

fn list<T>(
    out: &mut String,
    [open, close]: [char; 2],
    entries: impl IntoIterator<Item = T>,
    write: impl Fn(T, &mut String),
) {
    out.push(open);
    for (at, entry) in entries.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        write(entry, out);
    }
    out.push(close);
}
