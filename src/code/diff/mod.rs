//! Unified diffs: read from strangers, and made of two trees.
//!
//! A diff that is read is read to the end or not at all: what can't be read is an error with the number of its line. A reader
//! that passed over it would let a change go by that nobody has looked at.

mod make;
mod names;
mod read;

pub use self::make::{Mode, Patch, PatchBuilder, PatchError, PatchLimits, Version};
pub use self::names::is_git_s_own;
pub use self::read::{DiffError, DiffLimits, Problem, read};

use crate::job::RelativePath;

/// What a diff says of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDiff {
    /// The file before, unless it is new.
    pub old: Option<RelativePath>,
    /// The file afterwards, unless it is gone.
    pub new: Option<RelativePath>,
    /// Whether it is a change of bytes that are no text: then nothing of it is shown.
    pub binary: bool,
    /// The changes, from the top of the file downwards.
    pub hunks: Vec<Hunk>,
}

/// A change with the lines around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hunk {
    /// The number of its first line in the file before, from 1.
    pub old_start: u32,
    /// The number of its first line in the file afterwards, from 1.
    pub new_start: u32,
    /// Its lines.
    pub lines: Vec<DiffLine>,
}

/// A line of a hunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffLine {
    /// What happens to it.
    pub change: Change,
    /// The line without its end.
    pub text: String,
}

/// What a diff says of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is there before and afterwards.
    Kept,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
}

impl FileDiff {
    /// What the file is called now, or was called when it is gone.
    ///
    /// # Panics
    /// Never: a diff names its file.
    pub fn path(&self) -> &RelativePath {
        self.new.as_ref().or(self.old.as_ref()).expect("the reader takes no file without a name")
    }

    /// Lines that are new.
    pub fn added(&self) -> u64 {
        self.count(Change::Added)
    }

    /// Lines that are gone.
    pub fn removed(&self) -> u64 {
        self.count(Change::Removed)
    }

    /// The lines, each with its number in the new file, which one that is gone has not.
    pub fn numbered(&self) -> impl Iterator<Item = (Option<u32>, &DiffLine)> {
        self.hunks.iter().flat_map(|hunk| {
            let mut next = hunk.new_start;
            hunk.lines.iter().map(move |line| match line.change {
                Change::Removed => (None, line),
                Change::Kept | Change::Added => {
                    let number = next;
                    next = next.saturating_add(1);
                    (Some(number), line)
                }
            })
        })
    }

    fn count(&self, change: Change) -> u64 {
        self.hunks.iter().flat_map(|hunk| &hunk.lines).filter(|line| line.change == change).count() as u64
    }
}
