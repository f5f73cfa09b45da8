//! Which files of a repository somebody means: lists of patterns for and against.

use std::fmt;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::text::excerpt;
use super::{Refusal, RelativePath};

/// Patterns of a list at most.
pub const MOST_GLOBS: usize = 64;
/// Bytes of a pattern at most.
pub const LONGEST_GLOB_BYTES: usize = 256;

/// What makes a pattern more than a name.
const SPECIAL: [char; 4] = ['*', '?', '[', '{'];

/// Files by patterns as in `.gitignore` and shells: `*` stays within a folder, `**` does not, `{a,b}` is either. A pattern
/// without such characters is a file, or a folder with all that is in it.
#[derive(Clone)]
pub struct Globs {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl fmt::Debug for Globs {
    /// The customer's names stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let include = self.include.as_ref().map_or(0, GlobSet::len);
        f.debug_struct("Globs").field("include", &include).field("exclude", &self.exclude.len()).finish()
    }
}

impl Globs {
    /// Files that a pattern of `include` names (all, when there are none) and none of `exclude`.
    ///
    /// # Errors
    /// A pattern that is none, with the parameter's name.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, Refusal> {
        let included = set("include", include)?;
        Ok(Self { include: (!include.is_empty()).then_some(included), exclude: set("exclude", exclude)? })
    }

    /// Whether the file is meant.
    pub fn allow(&self, path: &RelativePath) -> bool {
        let included = self.include.as_ref().is_none_or(|set| set.is_match(path.as_str()));
        included && !self.exclude.is_match(path.as_str())
    }
}

fn set(param: &str, patterns: &[String]) -> Result<GlobSet, Refusal> {
    let wrong = |pattern: &str| {
        Refusal::bad_request(format!(
            "param {param}: '{}' is no pattern of paths in the repository, such as src/**/*.rs; change it",
            excerpt(pattern)
        ))
    };
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        let bare = pattern.strip_prefix("./").or_else(|| pattern.strip_prefix('/')).unwrap_or(pattern);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        if bare.is_empty() || bare.split('/').any(|name| name == "..") {
            return Err(wrong(pattern));
        }
        let mut add = |text: &str| {
            let glob = GlobBuilder::new(text).literal_separator(true).build().map_err(|_| wrong(pattern))?;
            builder.add(glob);
            Ok::<_, Refusal>(())
        };
        add(bare)?;
        if !bare.contains(SPECIAL) || pattern.ends_with('/') {
            add(&format!("{bare}/**"))?;
        }
    }
    builder.build().map_err(|_| Refusal::bad_request(format!("param {param}: these patterns are too much; name fewer")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(include: &[&str], exclude: &[&str]) -> Result<Globs, Refusal> {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Globs::new(&owned(include), &owned(exclude))
    }

    #[test]
    fn a_file_is_meant_when_it_is_named_and_not_taken_out() {
        let globs = globs(&["src/**/*.rs", "docs/", "./README.md", "/a b"], &["**/gen*.rs", "docs/old"]).unwrap();
        for (path, meant) in [
            ("src/lib.rs", true),
            ("src/a/b/c.rs", true),
            ("src/a/generated.rs", false),
            ("src/lib.c", false),
            ("docs/a/b.md", true),
            ("docs/old", false),
            ("docs/old/b.md", false),
            ("docs", true),
            ("README.md", true),
            ("sub/README.md", false),
            ("a b/c", true),
        ] {
            assert_eq!(globs.allow(&path.parse().unwrap()), meant, "{path}");
        }
    }

    #[test]
    fn without_patterns_everything_is_meant() {
        assert!(globs(&[], &[]).unwrap().allow(&"any/thing".parse().unwrap()));
        assert!(!globs(&[], &["any"]).unwrap().allow(&"any/thing".parse().unwrap()));
    }

    #[test]
    fn what_is_no_pattern_is_refused_by_name() {
        for bad in ["", "/", "../x", "a/../b", "[a", "{a", "a{b,{c}"] {
            let refusal = globs(&[], &[bad]).unwrap_err();
            assert!(refusal.text.contains("param exclude"), "{}", refusal.text);
        }
    }
}
