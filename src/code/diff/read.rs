//! Reads diffs: what `git diff`, `git format-patch` and `diff -u` write, and what web pages show with `.diff`.

use std::iter::Peekable;

use super::{Change, DiffLine, FileDiff, Hunk};
use crate::job::{BadPath, RelativePath};

/// Bounds on a diff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiffLimits {
    /// Bytes.
    pub bytes: usize,
    /// Files.
    pub files: usize,
}

/// Why a text can't be read as a diff, in words for who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiffError {
    /// There is none in it.
    #[error("it holds no diff; send what 'git diff' writes, with lines '--- a/file' and '+++ b/file'")]
    NoDiff,
    /// Too much.
    #[error("it has {bytes} bytes; at most {limit} are read")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Too many.
    #[error("it changes more than {limit} files")]
    TooManyFiles {
        /// Files allowed.
        limit: usize,
    },
    /// A line is not what has to come there.
    #[error("line {line}: {problem}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What is wrong with a line of a diff.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A hunk begins with something else than two ranges.
    #[error("a hunk begins like '@@ -1,2 +1,3 @@'")]
    HunkHeader,
    /// Fewer lines than it says.
    #[error("the hunk ends before it has as many lines as it says")]
    HunkShort,
    /// More lines than it says.
    #[error("the hunk goes on after as many lines as it says")]
    HunkLong,
    /// No file in front of it.
    #[error("a hunk without a file: lines '--- a/file' and '+++ b/file' must come before it")]
    HunkAlone,
    /// A diff of a merge against all its parents.
    #[error("a combined diff of a merge is not read; make one against one parent")]
    Combined,
    /// The file's name can't be made out.
    #[error("the name of the file can't be made out")]
    Name,
    /// The file's name is no path in a repository.
    #[error("the file's name can't be used: {0}")]
    Path(BadPath),
}

/// What stands for a file that is not there.
const NOTHING: &str = "/dev/null";

/// What git puts in front of the names before and afterwards: by default, and with `diff.mnemonicPrefix`.
const PREFIXES: [(&str, &str); 5] = [("a/", "b/"), ("i/", "w/"), ("c/", "i/"), ("c/", "w/"), ("o/", "w/")];

/// Reads a diff. Text around it, such as a commit's message, is passed over.
///
/// # Errors
/// When there is no diff in it, it is larger than `limits` say, or a line is wrong.
pub fn read(text: &str, limits: DiffLimits) -> Result<Vec<FileDiff>, DiffError> {
    if text.len() > limits.bytes {
        return Err(DiffError::TooLarge { bytes: text.len(), limit: limits.bytes });
    }
    let lines = text.split('\n').enumerate().map(|(at, line)| (at + 1, line));
    let mut reader = Reader { lines: lines.peekable(), files: Vec::new(), limit: limits.files, behind_hunk: false };
    reader.all()?;
    if reader.files.is_empty() { Err(DiffError::NoDiff) } else { Ok(reader.files) }
}

struct Reader<'a, L: Iterator<Item = (usize, &'a str)>> {
    lines: Peekable<L>,
    files: Vec<FileDiff>,
    limit: usize,
    /// The next line comes right behind a hunk.
    behind_hunk: bool,
}

/// What git says of a file before its hunks.
#[derive(Default)]
struct GitHeader<'a> {
    names: &'a str,
    from: Option<&'a str>,
    to: Option<&'a str>,
    is_new: bool,
    is_gone: bool,
    binary: bool,
}

impl<'a, L: Iterator<Item = (usize, &'a str)>> Reader<'a, L> {
    fn all(&mut self) -> Result<(), DiffError> {
        while let Some((at, raw)) = self.lines.next() {
            let line = raw.strip_suffix('\r').unwrap_or(raw);
            let behind_hunk = std::mem::take(&mut self.behind_hunk);
            if let Some(names) = line.strip_prefix("diff --git ") {
                self.git_file(at, names)?;
            } else if line.starts_with("diff --cc ") || line.starts_with("diff --combined ") {
                return Err(wrong(at, Problem::Combined));
            } else if let Some(old) = line.strip_prefix("--- ")
                && let Some(new) = self.peek().and_then(|next| next.strip_prefix("+++ "))
            {
                self.lines.next();
                let file = plain_file(old, new).map_err(|problem| wrong(at, problem))?;
                self.file_with_hunks(file)?;
            } else if behind_hunk && line.starts_with(['+', '-', ' ']) && !is_signature(line) {
                // Looks like a line of the hunk: somebody miscounted.
                return Err(wrong(at, Problem::HunkLong));
            } else if line.starts_with("@@ -") {
                return Err(wrong(at, Problem::HunkAlone));
            } else if let Some(names) = binary_names(line) {
                let (old, new) = names.split_once(" and ").ok_or_else(|| wrong(at, Problem::Name))?;
                let mut file = plain_file(old, new).map_err(|problem| wrong(at, problem))?;
                file.binary = true;
                self.push(file)?;
            }
        }
        Ok(())
    }

    /// The next line, without a carriage return at its end.
    fn peek(&mut self) -> Option<&'a str> {
        self.lines.peek().map(|(_, line)| line.strip_suffix('\r').unwrap_or(line))
    }

    fn push(&mut self, file: FileDiff) -> Result<(), DiffError> {
        if self.files.len() >= self.limit {
            return Err(DiffError::TooManyFiles { limit: self.limit });
        }
        self.files.push(file);
        Ok(())
    }

    fn git_file(&mut self, at: usize, names: &'a str) -> Result<(), DiffError> {
        let mut header = GitHeader { names, ..GitHeader::default() };
        while let Some(line) = self.peek() {
            if let Some(path) = line.strip_prefix("rename from ").or_else(|| line.strip_prefix("copy from ")) {
                header.from = Some(path);
            } else if let Some(path) = line.strip_prefix("rename to ").or_else(|| line.strip_prefix("copy to ")) {
                header.to = Some(path);
            } else if line.starts_with("new file mode ") {
                header.is_new = true;
            } else if line.starts_with("deleted file mode ") {
                header.is_gone = true;
            } else if binary_names(line).is_some() {
                header.binary = true;
            } else if line == "GIT binary patch" {
                header.binary = true;
                self.skip_binary();
                break;
            } else if !["old mode ", "new mode ", "index ", "similarity index ", "dissimilarity index "]
                .iter()
                .any(|known| line.starts_with(known))
            {
                break;
            }
            self.lines.next();
        }
        let old = self.peek().and_then(|line| line.strip_prefix("--- ")).filter(|_| !header.binary);
        let Some(old) = old else {
            let file = header.file().map_err(|problem| wrong(at, problem))?;
            return self.push(file);
        };
        self.lines.next();
        let new = self.peek().and_then(|line| line.strip_prefix("+++ ")).ok_or_else(|| wrong(at, Problem::Name))?;
        self.lines.next();
        let file = match header.renamed() {
            Some(file) => file,
            None => plain_file(old, new),
        };
        self.file_with_hunks(file.map_err(|problem| wrong(at, problem))?)
    }

    /// Passes over the bytes of a binary change: lines in letters and digits, and empty ones.
    fn skip_binary(&mut self) {
        self.lines.next();
        while self.peek().is_some_and(|line| !line.starts_with("diff ") && !line.starts_with("-- ")) {
            self.lines.next();
        }
    }

    fn file_with_hunks(&mut self, mut file: FileDiff) -> Result<(), DiffError> {
        while self.peek().is_some_and(|line| line.starts_with("@@ ")) {
            let Some((at, header)) = self.lines.next() else { break };
            let hunk = self.hunk(at, header)?;
            file.hunks.push(hunk);
        }
        self.behind_hunk = !file.hunks.is_empty();
        self.push(file)
    }

    fn hunk(&mut self, at: usize, header: &str) -> Result<Hunk, DiffError> {
        let ((old_start, mut old_left), (new_start, mut new_left)) =
            ranges(header).ok_or_else(|| wrong(at, Problem::HunkHeader))?;
        let mut lines = Vec::new();
        let mut last = at;
        while old_left > 0 || new_left > 0 {
            let Some((at, line)) = self.lines.next() else { return Err(wrong(last, Problem::HunkShort)) };
            last = at;
            let (change, text) = match line.as_bytes().first() {
                Some(b'+') => (Change::Added, &line[1..]),
                Some(b'-') => (Change::Removed, &line[1..]),
                Some(b' ') => (Change::Kept, &line[1..]),
                // A space at the end of a line gets lost on many ways. But the end of the text is no line.
                None | Some(b'\r') if line.len() <= 1 && self.lines.peek().is_some() => (Change::Kept, line),
                Some(b'\\') => continue,
                _ => return Err(wrong(at, Problem::HunkShort)),
            };
            let (in_old, in_new) = (change != Change::Added, change != Change::Removed);
            let left = |left: u32, uses: bool| left.checked_sub(u32::from(uses));
            let (Some(old), Some(new)) = (left(old_left, in_old), left(new_left, in_new)) else {
                return Err(wrong(at, Problem::HunkLong));
            };
            (old_left, new_left) = (old, new);
            lines.push(DiffLine { change, text: text.strip_suffix('\r').unwrap_or(text).to_owned() });
        }
        // "\ No newline at end of file".
        if self.peek().is_some_and(|line| line.starts_with('\\')) {
            self.lines.next();
        }
        Ok(Hunk { old_start, new_start, lines })
    }
}

impl GitHeader<'_> {
    /// A file whose names stand in its header alone: no text of it changes.
    fn file(&self) -> Result<FileDiff, Problem> {
        let file = match self.renamed() {
            Some(file) => file?,
            None => {
                let (old, new) = both_names(self.names).ok_or(Problem::Name)?;
                let (old, new) = without_prefixes(&old, &new);
                FileDiff {
                    old: (!self.is_new).then(|| path(old)).transpose()?,
                    new: (!self.is_gone).then(|| path(new)).transpose()?,
                    binary: false,
                    hunks: Vec::new(),
                }
            }
        };
        let file = FileDiff { binary: self.binary, ..file };
        if file.old.is_none() && file.new.is_none() { Err(Problem::Name) } else { Ok(file) }
    }

    /// A file that was moved or copied: its names are told without anything in front.
    fn renamed(&self) -> Option<Result<FileDiff, Problem>> {
        let (from, to) = (self.from?, self.to?);
        let named = |name: &str| path(&unquoted(name).ok_or(Problem::Name)?);
        Some(
            named(from).and_then(|from| {
                Ok(FileDiff { old: Some(from), new: Some(named(to)?), binary: false, hunks: Vec::new() })
            }),
        )
    }
}

/// A file by the names behind `---` and `+++`.
fn plain_file(old: &str, new: &str) -> Result<FileDiff, Problem> {
    let name = |text: &str| unquoted(text.split('\t').next().unwrap_or(text)).ok_or(Problem::Name);
    let (old, new) = (name(old)?, name(new)?);
    let (old_bare, new_bare) = without_prefixes(&old, &new);
    let file = |name: &str, bare: &str| (name != NOTHING).then(|| path(bare)).transpose();
    let file = FileDiff { old: file(&old, old_bare)?, new: file(&new, new_bare)?, binary: false, hunks: Vec::new() };
    if file.old.is_none() && file.new.is_none() { Err(Problem::Name) } else { Ok(file) }
}

/// The names without what git puts in front, or without the two folders that `diff -r` compared.
fn without_prefixes<'n>(old: &'n str, new: &'n str) -> (&'n str, &'n str) {
    for (before, afterwards) in PREFIXES {
        let bare = (old.strip_prefix(before), new.strip_prefix(afterwards));
        match bare {
            (Some(old), Some(new)) => return (old, new),
            (Some(old), None) if new == NOTHING => return (old, new),
            (None, Some(new)) if old == NOTHING => return (old, new),
            _ => {}
        }
    }
    match (old.split_once('/'), new.split_once('/')) {
        (Some((one, old)), Some((other, new))) if one != other && old == new && !old.is_empty() => (old, new),
        _ => (old, new),
    }
}

fn path(text: &str) -> Result<RelativePath, Problem> {
    text.parse().map_err(Problem::Path)
}

/// What stands between a diff and the signature of the mail it came in.
fn is_signature(line: &str) -> bool {
    matches!(line, "--" | "-- ")
}

/// The names of `Binary files … and … differ`.
fn binary_names(line: &str) -> Option<&str> {
    line.strip_prefix("Binary files ")?.strip_suffix(" differ")
}

/// The two names of a line `diff --git`. Without quotes nothing says where the first ends, but both are equally long: names
/// that differ stand elsewhere, too.
fn both_names(names: &str) -> Option<(String, String)> {
    if let Some(quoted) = names.strip_prefix('"') {
        let end = closing_quote(quoted)?;
        let (first, rest) = (&quoted[..end], quoted[end + 1..].strip_prefix(' ')?);
        return Some((unescaped(first)?, unquoted(rest)?));
    }
    let middle = names.len().checked_sub(1)? / 2;
    let (first, second) = (names.get(..middle)?, names.get(middle + 1..)?);
    (names.as_bytes()[middle] == b' ' && first.len() == second.len()).then(|| (first.to_owned(), second.to_owned()))
}

/// A name as git writes it: in quotes when there is something unusual in it.
fn unquoted(name: &str) -> Option<String> {
    match name.strip_prefix('"') {
        None => Some(name.to_owned()),
        Some(quoted) => {
            let end = closing_quote(quoted)?;
            (end + 1 == quoted.len()).then(|| unescaped(&quoted[..end]))?
        }
    }
}

fn closing_quote(quoted: &str) -> Option<usize> {
    let mut escaped = false;
    quoted.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// A name without the escapes of C strings, which git writes bytes outside ASCII with, too.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next()? {
            b'a' => 7,
            b'b' => 8,
            b't' => b'\t',
            b'n' => b'\n',
            b'v' => 11,
            b'f' => 12,
            b'r' => b'\r',
            plain @ (b'"' | b'\\') => plain,
            first @ b'0'..=b'3' => {
                let mut digit = || rest.next().filter(|digit| (b'0'..=b'7').contains(digit)).map(|digit| digit - b'0');
                ((first - b'0') << 6) | (digit()? << 3) | digit()?
            }
            _ => return None,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The ranges of `@@ -1,2 +1,3 @@`: first line and number of lines, before and afterwards. No range ends beyond all numbers.
fn ranges(header: &str) -> Option<((u32, u32), (u32, u32))> {
    let (old, rest) = header.strip_prefix("@@ -")?.split_once(" +")?;
    let (new, _) = rest.split_once(" @@")?;
    let range = |text: &str| {
        let (start, count) = text.split_once(',').unwrap_or((text, "1"));
        let (start, count): (u32, u32) = (number(start)?, number(count)?);
        start.checked_add(count).map(|_| (start, count))
    };
    Some((range(old)?, range(new)?))
}

fn number(digits: &str) -> Option<u32> {
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn wrong(line: usize, problem: Problem) -> DiffError {
    DiffError::Line { line, problem }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
