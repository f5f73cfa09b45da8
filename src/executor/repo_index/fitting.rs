//! A result of a bounded size that says what it leaves out.

use std::io;

use serde::Serialize;

/// Lines of problems at most.
const MOST_PROBLEMS: usize = 100;

/// Bytes of a line about a problem.
const LONGEST_PROBLEM: usize = 300;

/// The part of a result that problems may take, and what stands around the lists: one of so many.
const PART_FOR_THE_REST: usize = 4;

/// What a result has room for, in bytes of JSON.
#[derive(Debug, Clone)]
pub(super) struct Room {
    left: usize,
    max: usize,
}

impl Room {
    /// A result of at most so many bytes.
    pub(super) fn new(max: usize) -> Self {
        Self { left: max - max / PART_FOR_THE_REST, max }
    }

    /// Whether there is room for one entry more; it is then taken. Once there was none there is none for others either, so
    /// that what is there is a beginning and not a choice.
    pub(super) fn take(&mut self, entry: &impl Serialize) -> bool {
        match bytes_of(entry) {
            Some(bytes) if bytes <= self.left => {
                self.left -= bytes;
                true
            }
            _ => {
                self.left = 0;
                false
            }
        }
    }

    /// Problems of a result of that size.
    pub(super) fn problems(&self) -> Problems {
        Problems { lines: Vec::new(), left: self.max / PART_FOR_THE_REST / 2, more: 0 }
    }
}

/// Bytes that an entry takes in a list.
fn bytes_of(entry: &impl Serialize) -> Option<usize> {
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, entry).ok()?;
    Some(counter.0 + ",".len())
}

/// Counts bytes.
struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What could not be read, or was left out.
#[derive(Debug, Clone)]
pub(super) struct Problems {
    lines: Vec<String>,
    left: usize,
    more: u64,
}

impl Problems {
    /// Adds a line.
    pub(super) fn add(&mut self, line: &str) {
        let line: String = line.chars().take(LONGEST_PROBLEM).collect();
        match bytes_of(&line) {
            Some(bytes) if bytes <= self.left && self.lines.len() < MOST_PROBLEMS => {
                self.left -= bytes;
                self.lines.push(line);
            }
            _ => self.more += 1,
        }
    }

    /// The lines, and how many there are besides.
    pub(super) fn finish(mut self) -> Vec<String> {
        if self.more > 0 {
            self.lines.push(format!("{} more problems are not listed", self.more));
        }
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_fits_and_nothing_is_taken_after_what_did_not() {
        let mut room = Room::new(400);
        let mut taken = Vec::new();
        while room.take(&"twelve bytes") {
            taken.push("twelve bytes");
        }
        assert_eq!(taken.len(), 20);
        assert!(serde_json::to_string(&taken).unwrap().len() <= 301);
        assert!(!room.take(&1));
    }

    #[test]
    fn problems_are_so_many_and_so_long() {
        let mut problems = Room::new(1024 * 1024).problems();
        (0..250).for_each(|n| problems.add(&format!("{n} {}", "é".repeat(1_000))));
        let lines = problems.finish();
        assert_eq!((lines.len(), lines[100].as_str()), (101, "150 more problems are not listed"));
        assert!(lines.iter().all(|line| line.chars().count() <= LONGEST_PROBLEM));
        let mut problems = Room::new(800).problems();
        problems.add("\u{1}\u{1}\u{1}\u{1}");
        problems.add(&"x".repeat(100));
        assert_eq!(problems.finish(), ["\u{1}\u{1}\u{1}\u{1}", "1 more problems are not listed"]);
    }
}
