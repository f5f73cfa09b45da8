//! What a diff would do to a tree. Pure: the tree is asked, nothing is written.
//!
//! The diff is a stranger's. It may only make, change, rename and remove plain text files inside of the tree and outside of
//! `.git`, each once, and every line around a change has to be as the diff says.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use diffy::Line;
use diffy::patch_set::{FileMode, FileOperation, FilePatch, ParseOptions, PatchKind, PatchSet};

use super::PatchError;
use crate::code::diff::{self, DiffLimits};
use crate::job::RelativePath;

/// Files a patch may change: more, nobody looks at.
const MOST_FILES: usize = 2_000;

/// Bytes of a patch: more, nobody reads.
const LARGEST_DIFF: usize = 16 * 1024 * 1024;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A plain file.
    File {
        /// Its bytes.
        content: Vec<u8>,
        /// Whether it can be run.
        executable: bool,
    },
    /// A folder, a link, something else, or anything behind a link.
    Other,
}

/// Files that a patch may be held against.
pub trait Tree {
    /// What is at a path. Links are never followed.
    ///
    /// # Errors
    /// When it can't be read.
    fn find(&self, path: &RelativePath) -> io::Result<Found>;
}

/// A plain file's bytes, and whether it can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainFile {
    /// Its bytes.
    pub content: Vec<u8>,
    /// Whether it can be run.
    pub executable: bool,
}

/// What becomes of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Which.
    pub path: RelativePath,
    /// What is there now; `None` for nothing.
    pub before: Option<PlainFile>,
    /// What is to be there; `None` for nothing.
    pub after: Option<PlainFile>,
}

/// Everything a patch does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Edits {
    /// Each path once, sorted.
    pub edits: Vec<Edit>,
    /// Lines added.
    pub added: usize,
    /// Lines removed.
    pub removed: usize,
}

/// What a diff would do to a tree.
///
/// # Errors
/// When it is no diff, reaches where it must not, or does not fit.
pub fn plan(diff: &str, tree: &impl Tree) -> Result<Edits, PatchError> {
    let mut plan = Plan { tree, paths: BTreeMap::new() };
    let (mut added, mut removed) = (0, 0);
    for file in &read(diff)? {
        plan.take(file)?;
        let hunks = file.patch().as_text().map(diffy::Patch::hunks).unwrap_or_default();
        for line in hunks.iter().flat_map(diffy::Hunk::lines) {
            match line {
                Line::Insert(_) => added += 1,
                Line::Delete(_) => removed += 1,
                Line::Context(_) => {}
            }
        }
    }
    let edits: Vec<Edit> = plan.paths.into_values().filter(|edit| edit.before != edit.after).collect();
    if edits.is_empty() {
        return Err(PatchError::Empty);
    }
    Ok(Edits { edits, added, removed })
}

type Part<'a> = FilePatch<'a, [u8]>;

/// Reads the parts. The reader of `code::diff` reads to the last line or not at all; the library, which passes over what it
/// does not know, has to see the same files.
fn read(diff: &str) -> Result<Vec<Part<'_>>, PatchError> {
    let limits = DiffLimits { bytes: LARGEST_DIFF, files: MOST_FILES };
    let files = diff::read(diff, limits).map_err(PatchError::NoDiff)?;
    let is_git = diff.lines().any(|line| line.starts_with("diff --git "));
    let options = if is_git { ParseOptions::gitdiff() } else { ParseOptions::unidiff() };
    let parts: Vec<Part<'_>> = PatchSet::parse_bytes(diff.as_bytes(), options)
        .collect::<Result<_, _>>()
        .map_err(|problem| PatchError::Unreadable(problem.to_string()))?;
    if parts.len() == files.len() { Ok(parts) } else { Err(PatchError::Ambiguous) }
}

struct Plan<'a, T> {
    tree: &'a T,
    paths: BTreeMap<RelativePath, Edit>,
}

impl<T: Tree> Plan<'_, T> {
    fn take(&mut self, part: &Part<'_>) -> Result<(), PatchError> {
        let operation = part.operation();
        // Git's headers of renames and copies name files without the `a/` and `b/`.
        let prefix = usize::from(!(operation.is_rename() || operation.is_copy()));
        let name = |raw: &Cow<'_, [u8]>| named(raw, prefix);
        match operation {
            FileOperation::Create(raw) => {
                let path = name(raw)?;
                if self.file(&path)?.is_some() {
                    return Err(PatchError::Exists(path.to_string()));
                }
                let after = patched(&path, &PlainFile { content: Vec::new(), executable: false }, part)?;
                self.put(path, None, Some(after))
            }
            FileOperation::Delete(raw) => {
                let path = name(raw)?;
                let before = self.present(&path)?;
                if !patched(&path, &before, part)?.content.is_empty() {
                    let why = "it removes the file, and not all of its lines".to_owned();
                    return Err(PatchError::DoesNotFit { path: path.to_string(), why });
                }
                self.put(path, Some(before), None)
            }
            FileOperation::Modify { original, modified } => {
                let (path, also) = (name(original)?, name(modified)?);
                if path != also {
                    return Err(PatchError::TwoNames(path.to_string(), also.to_string()));
                }
                let before = self.present(&path)?;
                let after = patched(&path, &before, part)?;
                self.put(path, Some(before), Some(after))
            }
            FileOperation::Rename { from, to } => {
                let (from, to) = (name(from)?, name(to)?);
                let before = self.present(&from)?;
                self.copy(&from, &before, to, part)?;
                self.put(from, Some(before), None)
            }
            FileOperation::Copy { from, to } => {
                let (from, to) = (name(from)?, name(to)?);
                let before = self.present(&from)?;
                self.copy(&from, &before, to, part)
            }
        }
    }

    fn copy(
        &mut self,
        from: &RelativePath,
        before: &PlainFile,
        to: RelativePath,
        part: &Part<'_>,
    ) -> Result<(), PatchError> {
        if self.file(&to)?.is_some() {
            return Err(PatchError::Exists(to.to_string()));
        }
        let after = patched(from, before, part)?;
        self.put(to, None, Some(after))
    }

    fn file(&self, path: &RelativePath) -> Result<Option<PlainFile>, PatchError> {
        let found = self.tree.find(path);
        match found.map_err(|source| PatchError::Read { path: path.to_string(), source })? {
            Found::Nothing => Ok(None),
            Found::File { content, executable } => Ok(Some(PlainFile { content, executable })),
            Found::Other => Err(PatchError::NotAFile(path.to_string())),
        }
    }

    fn present(&self, path: &RelativePath) -> Result<PlainFile, PatchError> {
        self.file(path)?.ok_or_else(|| PatchError::Missing(path.to_string()))
    }

    fn put(
        &mut self,
        path: RelativePath,
        before: Option<PlainFile>,
        after: Option<PlainFile>,
    ) -> Result<(), PatchError> {
        let name = path.to_string();
        match self.paths.insert(path.clone(), Edit { path, before, after }) {
            None => Ok(()),
            Some(_) => Err(PatchError::Twice(name)),
        }
    }
}

/// The path a part names, without the first folder where there is one to be left out (`a/`, `b/`).
fn named(raw: &[u8], prefix: usize) -> Result<RelativePath, PatchError> {
    let text = std::str::from_utf8(raw).map_err(|_| PatchError::Unreadable("a file's name is no text".to_owned()))?;
    let whole: RelativePath = text.parse()?;
    let path = match whole.as_str().split_once('/') {
        Some((_, rest)) if prefix > 0 => rest.parse()?,
        _ => whole,
    };
    if path.as_str().split('/').any(is_gits_own) {
        return Err(PatchError::Git(path.to_string()));
    }
    Ok(path)
}

/// Whether some file system takes the name for `.git`: by case, by dots and spaces at its end, by its short name, or by
/// characters it leaves out.
fn is_gits_own(name: &str) -> bool {
    let seen: String = name
        .chars()
        .filter(
            |c| !matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}'),
        )
        .collect();
    let seen = seen.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']).to_ascii_lowercase();
    seen == ".git" || seen == "git~1"
}

/// A file with a part's changes made.
fn patched(path: &RelativePath, before: &PlainFile, part: &Part<'_>) -> Result<PlainFile, PatchError> {
    let name = || path.to_string();
    for mode in [part.old_mode(), part.new_mode()].into_iter().flatten() {
        if matches!(mode, FileMode::Symlink | FileMode::Gitlink) {
            return Err(PatchError::Link(name()));
        }
    }
    let PatchKind::Text(patch) = part.patch() else { return Err(PatchError::Binary(name())) };
    let content = diffy::apply_bytes(&before.content, patch)
        .map_err(|problem| PatchError::DoesNotFit { path: name(), why: problem.to_string() })?;
    let executable = match part.new_mode() {
        Some(mode) => *mode == FileMode::Executable,
        None => before.executable,
    };
    Ok(PlainFile { content, executable })
}
