//! Paths inside a workspace or a repository: never out of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes of a path at most: what Linux takes.
pub const MAX_PATH_BYTES: usize = 4_096;

/// Bytes of one name in a path at most: what Linux takes.
pub const MAX_NAME_BYTES: usize = 255;

/// A path below some folder: names joined by `/`, none of them empty, `.` or `..`, none with a control character. So wherever
/// it is joined to, it stays inside, and it can be printed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelativePath(String);

/// Why a text is no path below a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// Nothing.
    #[error("it is empty")]
    Empty,
    /// It begins with a slash.
    #[error("it begins with '/'; write it relative to the repository")]
    Absolute,
    /// It goes up.
    #[error("it holds '..', '.' or '//', which could lead outside")]
    Climbs,
    /// It can't be printed.
    #[error("it holds control characters")]
    Control,
    /// Longer than a file system takes.
    #[error("it is longer than {MAX_PATH_BYTES} bytes, or a name in it than {MAX_NAME_BYTES}")]
    TooLong,
}

impl RelativePath {
    /// As text, with `/` between the names.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last name.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// What it is in, if not in the folder itself.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }
}

impl FromStr for RelativePath {
    type Err = BadPath;

    /// Reads `a/b`, also written `./a/b` and `a/b/`.
    fn from_str(text: &str) -> Result<Self, BadPath> {
        let trimmed = text.strip_prefix("./").unwrap_or(text);
        let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
        if trimmed.is_empty() {
            return Err(if text.starts_with('/') { BadPath::Absolute } else { BadPath::Empty });
        }
        if trimmed.starts_with('/') {
            return Err(BadPath::Absolute);
        }
        if trimmed.len() > MAX_PATH_BYTES || trimmed.split('/').any(|name| name.len() > MAX_NAME_BYTES) {
            return Err(BadPath::TooLong);
        }
        if trimmed.chars().any(char::is_control) {
            return Err(BadPath::Control);
        }
        if trimmed.split('/').any(|name| matches!(name, "" | "." | "..")) {
            return Err(BadPath::Climbs);
        }
        Ok(Self(trimmed.to_owned()))
    }
}

impl TryFrom<String> for RelativePath {
    type Error = BadPath;
    fn try_from(text: String) -> Result<Self, BadPath> {
        text.parse()
    }
}

impl From<RelativePath> for String {
    fn from(path: RelativePath) -> Self {
        path.0
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_its_folder() {
        for (text, read) in
            [("a", "a"), ("./src/lib.rs", "src/lib.rs"), ("docs/", "docs"), ("a b/ü", "a b/ü"), ("..a/b..", "..a/b..")]
        {
            assert_eq!(text.parse::<RelativePath>().unwrap().as_str(), read);
        }
        for (text, why) in [
            ("", BadPath::Empty),
            ("./", BadPath::Empty),
            ("/", BadPath::Absolute),
            ("/etc/passwd", BadPath::Absolute),
            (".//etc", BadPath::Absolute),
            ("..", BadPath::Climbs),
            ("a/../b", BadPath::Climbs),
            ("a//b", BadPath::Climbs),
            (".", BadPath::Climbs),
            ("a\nb", BadPath::Control),
            ("a\0", BadPath::Control),
        ] {
            assert_eq!(text.parse::<RelativePath>(), Err(why), "{text:?}");
        }
        assert_eq!("x".repeat(256).parse::<RelativePath>(), Err(BadPath::TooLong));
        assert_eq!("a/".repeat(2_100).parse::<RelativePath>(), Err(BadPath::TooLong));
    }
}
