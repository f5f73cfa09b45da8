//! Makes the diff between two trees as git would, so that `git apply` takes it.
//!
//! The lines that differ are found by the algorithm of the gix crates, which has git's bounds against files made to take
//! for ever. Renames are written as one file gone and one new.

use std::fmt::Write as _;
use std::ops::Range;

use gix::diff::blob::{Algorithm, InternedInput, diff_with_slider_heuristics};

use crate::job::RelativePath;

/// Lines around a change.
const CONTEXT: u32 = 3;

/// What git calls no object at all.
const NO_OBJECT: &str = "0000000000000000000000000000000000000000";

/// What a file is to git.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A file.
    File,
    /// A file that can be run.
    Executable,
    /// A symbolic link; its content is where it leads.
    Link,
}

impl Mode {
    /// The digits git writes.
    pub const fn digits(self) -> &'static str {
        match self {
            Self::File => "100644",
            Self::Executable => "100755",
            Self::Link => "120000",
        }
    }
}

/// A file at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version<'a> {
    /// What it is.
    pub mode: Mode,
    /// Its bytes.
    pub content: &'a [u8],
}

/// Bounds on a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchLimits {
    /// Bytes of its text.
    pub bytes: usize,
    /// Files it changes.
    pub files: usize,
}

/// Why there is no patch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// A file that is no text in UTF-8, before or afterwards.
    #[error("it changes the binary file {0}")]
    Binary(RelativePath),
    /// Too much.
    #[error("it has more than {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// Too many.
    #[error("it changes more than {limit} files")]
    TooManyFiles {
        /// Files allowed.
        limit: usize,
    },
}

/// A diff of text files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patch {
    /// As git writes it.
    pub text: String,
    /// The files it changes, in order.
    pub files: Vec<RelativePath>,
    /// Lines that are new.
    pub added: u64,
    /// Lines that are gone.
    pub removed: u64,
}

/// Makes a patch file by file. The caller sees to the order, and that no file is too large to be read.
#[derive(Debug)]
pub struct PatchBuilder {
    patch: Patch,
    limits: PatchLimits,
}

impl PatchBuilder {
    /// An empty patch.
    pub fn new(limits: PatchLimits) -> Self {
        Self { patch: Patch::default(), limits }
    }

    /// Adds what becomes of a file; nothing when nothing does. A file that becomes a link, or the other way round, is written as
    /// git does: gone, and new.
    ///
    /// # Errors
    /// When it can't be written as text, or a limit is reached.
    pub fn change(
        &mut self,
        path: &RelativePath,
        old: Option<Version<'_>>,
        new: Option<Version<'_>>,
    ) -> Result<(), PatchError> {
        if old == new {
            return Ok(());
        }
        if self.patch.files.len() >= self.limits.files {
            return Err(PatchError::TooManyFiles { limit: self.limits.files });
        }
        let is_link = |version: &Version<'_>| version.mode == Mode::Link;
        let before = self.patch.text.len();
        match (&old, &new) {
            (Some(was), Some(is)) if is_link(was) != is_link(is) => {
                self.file(path, old, None)?;
                self.file(path, None, new)?;
            }
            _ => self.file(path, old, new)?,
        }
        if self.patch.text.len() > self.limits.bytes {
            self.patch.text.truncate(before);
            return Err(PatchError::TooLarge { limit: self.limits.bytes });
        }
        self.patch.files.push(path.clone());
        Ok(())
    }

    /// The whole.
    pub fn finish(self) -> Patch {
        self.patch
    }

    fn file(
        &mut self,
        path: &RelativePath,
        old: Option<Version<'_>>,
        new: Option<Version<'_>>,
    ) -> Result<(), PatchError> {
        let binary = || PatchError::Binary(path.clone());
        let before = text_of(old).ok_or_else(binary)?;
        let afterwards = text_of(new).ok_or_else(binary)?;
        let (a, b) = (quoted("a/", path), quoted("b/", path));
        let out = &mut self.patch.text;
        line(out, format_args!("diff --git {a} {b}"));
        match (old, new) {
            (None, Some(new)) => line(out, format_args!("new file mode {}", new.mode.digits())),
            (Some(old), None) => line(out, format_args!("deleted file mode {}", old.mode.digits())),
            (Some(old), Some(new)) if old.mode != new.mode => {
                line(out, format_args!("old mode {}", old.mode.digits()));
                line(out, format_args!("new mode {}", new.mode.digits()));
            }
            _ => {}
        }
        if before == afterwards && old.is_some() && new.is_some() {
            return Ok(());
        }
        let unchanged_mode = old.zip(new).filter(|(old, new)| old.mode == new.mode).map(|(old, _)| old.mode.digits());
        let (space, mode) = unchanged_mode.map_or(("", ""), |mode| (" ", mode));
        line(out, format_args!("index {}..{}{space}{mode}", object(old), object(new)));
        if before == afterwards {
            return Ok(());
        }
        // A name with a space ends with a tab, so that nobody takes what follows for a time.
        let tab = if path.as_str().contains(' ') && !a.starts_with('"') { "\t" } else { "" };
        let name = |version: Option<Version<'_>>, name: &str| match version {
            Some(_) => format!("{name}{tab}"),
            None => "/dev/null".to_owned(),
        };
        line(out, format_args!("--- {}", name(old, &a)));
        line(out, format_args!("+++ {}", name(new, &b)));
        let (added, removed) = hunks(out, before, afterwards);
        self.patch.added += added;
        self.patch.removed += removed;
        Ok(())
    }
}

/// What a file holds, when it is text: UTF-8, and without zeros, which git takes for a sign of something else.
fn text_of(version: Option<Version<'_>>) -> Option<&str> {
    let content = version.map_or(&b""[..], |version| version.content);
    if content.contains(&0) { None } else { std::str::from_utf8(content).ok() }
}

/// What git calls a file's content.
fn object(version: Option<Version<'_>>) -> String {
    let Some(version) = version else { return NO_OBJECT.to_owned() };
    match gix::objs::compute_hash(gix::hash::Kind::Sha1, gix::objs::Kind::Blob, version.content) {
        Ok(id) => id.to_string(),
        // Content made to break SHA-1. The line only helps where a patch does not fit at once.
        Err(_) => NO_OBJECT.to_owned(),
    }
}

/// A name as git writes it: in quotes when it holds a quote or backslash. Control characters no path has.
fn quoted(prefix: &str, path: &RelativePath) -> String {
    if path.as_str().contains(['"', '\\']) {
        format!("\"{prefix}{}\"", path.as_str().replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        format!("{prefix}{path}")
    }
}

/// Writes what differs, with lines around it. Returns how many lines are new, and gone.
fn hunks(out: &mut String, old: &str, new: &str) -> (u64, u64) {
    let input = InternedInput::new(old, new);
    let diff = diff_with_slider_heuristics(Algorithm::Histogram, &input);
    let (old_lines, new_lines) = (count(&input.before), count(&input.after));
    let changes: Vec<(Range<u32>, Range<u32>)> = diff.hunks().map(|hunk| (hunk.before, hunk.after)).collect();
    for group in changes.chunk_by(|(one, _), (next, _)| next.start - one.end <= 2 * CONTEXT) {
        let ([(first_old, first_new), ..], [.., (last_old, last_new)]) = (group, group) else { continue };
        // As many lines in front of the first change as there are, but not more; and as many behind the last.
        let before = CONTEXT.min(first_old.start);
        let old_range = first_old.start - before..(last_old.end + CONTEXT).min(old_lines);
        let new_range = first_new.start - before..(last_new.end + CONTEXT).min(new_lines);
        line(out, format_args!("@@ -{} +{} @@", range(&old_range), range(&new_range)));
        let mut at = old_range.start;
        for (removed, added) in group {
            write_lines(out, ' ', &input, &input.before, at..removed.start);
            write_lines(out, '-', &input, &input.before, removed.clone());
            write_lines(out, '+', &input, &input.after, added.clone());
            at = removed.end;
        }
        write_lines(out, ' ', &input, &input.before, at..old_range.end);
    }
    (u64::from(diff.count_additions()), u64::from(diff.count_removals()))
}

fn write_lines(
    out: &mut String,
    sign: char,
    input: &InternedInput<&str>,
    tokens: &[gix::diff::blob::Token],
    lines: Range<u32>,
) {
    for token in tokens.get(lines.start as usize..lines.end as usize).unwrap_or_default() {
        let text = input.interner[*token];
        out.push(sign);
        out.push_str(text);
        if !text.ends_with('\n') {
            out.push_str("\n\\ No newline at end of file\n");
        }
    }
}

/// A range as it stands in `@@`: an empty one is told by the line before it.
fn range(lines: &Range<u32>) -> String {
    match lines.end - lines.start {
        0 => format!("{},0", lines.start),
        1 => format!("{}", lines.start + 1),
        count => format!("{},{count}", lines.start + 1),
    }
}

fn count<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String never fails.
    let _ = writeln!(out, "{text}");
}

#[cfg(test)]
#[path = "make_tests.rs"]
mod tests;
