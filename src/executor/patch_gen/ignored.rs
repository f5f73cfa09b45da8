//! Which new files of a workspace are no part of a change: what the repository's own `.gitignore` files name, and what tools
//! leave behind.
//!
//! Only files that the commit does not have can be ignored, as with git. The `.gitignore` files are the commit's: what is done
//! in the cell decides nothing. They are a stranger's, too, so only so much of them is read.

use std::collections::HashSet;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::archive::EntryKind;
use crate::job::RelativePath;
use crate::repository::{RepositoryError, Snapshot};

/// Files of patterns that are read at most.
const MOST_FILES: usize = 64;
/// Patterns that are read at most, of all files together.
const MOST_PATTERNS: usize = 4_000;
/// Bytes of a pattern at most.
const LONGEST_PATTERN_BYTES: usize = 512;
/// Bytes of one of the files at most.
const MOST_BYTES: u64 = 64 * 1024;

/// What the files are called.
const NAME: &str = ".gitignore";

/// Folders that tools make, where the commit has none of that name.
const LEFT_BEHIND: [&str; 11] = [
    "target",
    "node_modules",
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".tox",
    ".venv",
    ".gradle",
    ".cache",
    ".git",
];

/// The patterns of a commit.
#[derive(Debug)]
pub(super) struct Ignored {
    /// Each with its folder, the deepest first; the commit's own folder is the empty path.
    patterns: Vec<(String, Gitignore)>,
    /// The folders of the commit.
    folders: HashSet<String>,
}

impl Ignored {
    /// Reads a commit's patterns. Waits for the disk.
    pub(super) fn of(snapshot: &Snapshot) -> Result<Self, RepositoryError> {
        let mut folders = HashSet::new();
        let (mut files, mut left) = (Vec::new(), MOST_PATTERNS);
        for entry in snapshot.entries() {
            let mut folder = entry.path.parent();
            while let Some(path) = folder.take_if(|path| folders.insert(path.as_str().to_owned())) {
                folder = path.parent();
            }
            let is_file = matches!(entry.kind, EntryKind::File { .. });
            if is_file && entry.path.name() == NAME && entry.size <= MOST_BYTES && files.len() < MOST_FILES {
                files.push(&entry.path);
            }
        }
        let mut patterns = Vec::new();
        for path in files {
            let content = snapshot.read(path)?.unwrap_or_default();
            let mut builder = GitignoreBuilder::new("");
            for line in String::from_utf8_lossy(&content).lines().filter(|line| line.len() <= LONGEST_PATTERN_BYTES) {
                if left == 0 {
                    break;
                }
                // A pattern that is none names nothing.
                if builder.add_line(None, line).is_ok() {
                    left -= 1;
                }
            }
            if let Ok(built) = builder.build() {
                patterns.push((path.parent().map_or_else(String::new, String::from), built));
            }
        }
        patterns.sort_by_key(|(folder, _)| {
            std::cmp::Reverse(if folder.is_empty() { 0 } else { 1 + folder.matches('/').count() })
        });
        Ok(Self { patterns, folders })
    }

    /// Whether a file that the commit does not have is no part of the change. What lies in an ignored folder is ignored,
    /// whatever other patterns say of it.
    pub(super) fn has(&self, path: &RelativePath) -> bool {
        let text = path.as_str();
        let ends = text.match_indices('/').map(|(at, _)| (&text[..at], true)).chain([(text, false)]);
        ends.into_iter().any(|(part, is_folder)| {
            let name = part.rsplit('/').next().unwrap_or(part);
            let left_behind = is_folder && LEFT_BEHIND.contains(&name) && !self.folders.contains(part);
            left_behind || name == ".git" || self.is_named(part, is_folder)
        })
    }

    /// Whether the nearest pattern that has a word on it says so.
    fn is_named(&self, part: &str, is_folder: bool) -> bool {
        for (folder, patterns) in &self.patterns {
            let below = if folder.is_empty() {
                Some(part)
            } else {
                part.strip_prefix(folder.as_str()).and_then(|rest| rest.strip_prefix('/'))
            };
            let Some(below) = below else { continue };
            match patterns.matched(below, is_folder) {
                Match::None => {}
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(files: &[(&str, &str)]) -> Ignored {
        let files = files.iter().map(|(path, content)| (path.parse().unwrap(), content.as_bytes().to_vec()));
        let commit = "0123456789012345678901234567890123456789".parse().unwrap();
        Ignored::of(&Snapshot::of_files(commit, files.collect())).unwrap()
    }

    #[test]
    fn what_the_repository_ignores_is_ignored_as_git_does() {
        let ignored = ignored(&[
            (".gitignore", "*.o\n/build/\n!keep.o\n# comment\nlogs/\n[bad\n"),
            ("sub/.gitignore", "!*.o\nlocal\n"),
            ("sub/a.c", ""),
        ]);
        for (path, is_ignored) in [
            ("a.o", true),
            ("deep/er/a.o", true),
            ("keep.o", false),
            ("build/x", true),
            ("deep/build/x", false),
            ("sub/a.o", false),
            ("sub/local", true),
            ("local", false),
            ("sub/logs/keep.o", true),
            ("a.c", false),
        ] {
            assert_eq!(ignored.has(&path.parse().unwrap()), is_ignored, "{path}");
        }
    }

    #[test]
    fn what_tools_leave_behind_is_ignored_unless_the_repository_has_it() {
        let ignored = ignored(&[("vendor/node_modules/x.js", ""), ("target", "a file")]);
        for (path, is_ignored) in [
            ("target/debug/x", true),
            ("sub/node_modules/y.js", true),
            ("vendor/node_modules/y.js", false),
            ("__pycache__/a.pyc", true),
            (".git/config", true),
            ("sub/.git", true),
            ("src/target", false),
            (".github/x", false),
        ] {
            assert_eq!(ignored.has(&path.parse().unwrap()), is_ignored, "{path}");
        }
    }

    #[test]
    fn patterns_of_strangers_are_bounded() {
        let many: String = (0..20_000).map(|number| format!("file{number}\n")).collect();
        let long = format!("{}\nshort\n", "x".repeat(10_000));
        let ignored = ignored(&[("a/.gitignore", &many), ("b/.gitignore", &long), ("c/.gitignore", "short\n")]);
        assert!(ignored.has(&"b/short".parse().unwrap()));
        assert!(ignored.patterns.iter().map(|(_, patterns)| patterns.len()).sum::<usize>() <= MOST_PATTERNS);
    }
}
