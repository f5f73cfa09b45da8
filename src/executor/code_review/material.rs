//! What a review reads: files with numbered lines, cut into parts that a model has room for.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::code::diff::{Change, FileDiff};
use crate::job::RelativePath;

/// Bytes of a line that are shown: longer ones are made by machines.
const SHOWN_OF_A_LINE: usize = 1_000;

/// Bytes of the smallest part: below that, every hunk would stand alone.
pub(super) const LEAST_PART_BYTES: usize = 600;

/// A file that is reviewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileText {
    path: RelativePath,
    /// What is said of it in front of its lines.
    head: String,
    /// Lines that belong together: of a diff a hunk.
    blocks: Vec<Vec<Line>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    /// Its number in the new file, when it is there.
    number: Option<u32>,
    /// As it is shown.
    shown: String,
}

/// All that is reviewed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Material {
    files: Vec<FileText>,
}

/// What is shown at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The files in it.
    pub(super) paths: Vec<RelativePath>,
    /// Their text.
    pub(super) text: String,
}

impl Material {
    /// What a diff shows.
    pub(super) fn of_diff(files: &[FileDiff]) -> Self {
        Self { files: files.iter().map(changed_file).collect() }
    }

    /// Whole files.
    pub(super) fn of_files(files: Vec<(RelativePath, String)>) -> Self {
        Self { files: files.into_iter().map(|(path, text)| whole_file(path, &text)).collect() }
    }

    /// Files in it.
    pub(super) fn files(&self) -> u64 {
        self.files.len() as u64
    }

    /// Lines in it, those that are gone included.
    pub(super) fn lines(&self) -> u64 {
        self.blocks().map(|block| block.len() as u64).sum()
    }

    /// Bytes of it, as it is shown.
    pub(super) fn bytes(&self) -> usize {
        self.files.iter().map(|file| file.head.len() + 1).sum::<usize>()
            + self.blocks().map(|block| bytes_of(block)).sum::<usize>()
    }

    /// The lines of each file that are shown and there.
    pub(super) fn shown(&self) -> HashMap<&RelativePath, Vec<u32>> {
        let mut shown: HashMap<&RelativePath, Vec<u32>> = HashMap::new();
        for file in &self.files {
            let numbers = shown.entry(&file.path).or_default();
            numbers.extend(file.blocks.iter().flatten().filter_map(|line| line.number));
            numbers.sort_unstable();
        }
        shown
    }

    /// Cut into parts of at most so many bytes, each as full as it gets in order. A file stays whole when it fits into a part,
    /// a hunk when the file does not, and lines always.
    pub(super) fn parts(&self, most_bytes: usize) -> Vec<Part> {
        let most = most_bytes.max(LEAST_PART_BYTES);
        let mut parts = Parts { most, done: Vec::new() };
        for file in &self.files {
            let whole: usize = file.blocks.iter().map(|block| bytes_of(block)).sum();
            if !parts.has_room(file.head.len() + 1 + whole) {
                parts.begin();
            }
            parts.name(file);
            for block in &file.blocks {
                if !parts.has_room(bytes_of(block)) && file.head.len() + 1 + bytes_of(block) <= most {
                    parts.begin();
                    parts.name(file);
                }
                for line in block {
                    if !parts.has_room(line.shown.len() + 1) {
                        parts.begin();
                        parts.name(file);
                    }
                    parts.add(&line.shown);
                }
            }
        }
        parts.done.retain(|part| !part.text.is_empty());
        parts.done
    }

    fn blocks(&self) -> impl Iterator<Item = &Vec<Line>> {
        self.files.iter().flat_map(|file| &file.blocks)
    }
}

/// Parts that are being filled.
struct Parts {
    most: usize,
    done: Vec<Part>,
}

impl Parts {
    fn has_room(&self, bytes: usize) -> bool {
        self.done.last().is_some_and(|part| part.text.len() + bytes <= self.most)
    }

    fn begin(&mut self) {
        if self.done.last().is_none_or(|part| !part.text.is_empty()) {
            self.done.push(Part { paths: Vec::new(), text: String::new() });
        }
    }

    /// Says which file the lines to come are of.
    fn name(&mut self, file: &FileText) {
        if let Some(part) = self.done.last_mut() {
            part.paths.push(file.path.clone());
        }
        self.add(&file.head);
    }

    fn add(&mut self, line: &str) {
        if let Some(part) = self.done.last_mut() {
            part.text.push_str(line);
            part.text.push('\n');
        }
    }
}

fn changed_file(file: &FileDiff) -> FileText {
    let path = file.path().clone();
    let what = match (&file.old, &file.new) {
        _ if file.binary => "binary, not shown".to_owned(),
        (None, _) => "new".to_owned(),
        (_, None) => "gone".to_owned(),
        (Some(old), Some(new)) if old != new => format!("was {old}"),
        (Some(_), Some(_)) if file.hunks.is_empty() => "its text does not change".to_owned(),
        (Some(_), Some(_)) => "changed".to_owned(),
    };
    let mut numbered = file.numbered();
    let block = |hunk: &crate::code::diff::Hunk| {
        let lines = numbered.by_ref().take(hunk.lines.len());
        lines.map(|(number, line)| shown(number, sign(line.change), &line.text)).collect()
    };
    let blocks = file.hunks.iter().map(block).collect();
    FileText { head: format!("=== {path} ({what})"), path, blocks }
}

fn whole_file(path: RelativePath, text: &str) -> FileText {
    let lines = text.lines().zip(1..).map(|(line, number)| shown(Some(number), ' ', line)).collect();
    FileText { head: format!("=== {path}"), path, blocks: vec![lines] }
}

const fn sign(change: Change) -> char {
    match change {
        Change::Kept => ' ',
        Change::Added => '+',
        Change::Removed => '-',
    }
}

fn shown(number: Option<u32>, sign: char, text: &str) -> Line {
    let mut line = String::new();
    // Writing to a String never fails.
    let _ = match number {
        Some(number) => write!(line, "{number:>5} {sign}"),
        None => write!(line, "      {sign}"),
    };
    let end = text.floor_char_boundary(SHOWN_OF_A_LINE);
    line.extend(text[..end].chars().filter(|c| !c.is_control() || *c == '\t'));
    if end < text.len() {
        line.push('…');
    }
    Line { number, shown: line }
}

fn bytes_of(lines: &[Line]) -> usize {
    lines.iter().map(|line| line.shown.len() + 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::diff::{DiffLimits, read};

    fn material(diff: &str) -> Material {
        Material::of_diff(&read(diff, DiffLimits { bytes: 1_000_000, files: 100 }).unwrap())
    }

    const DIFF: &str =
        "--- a/a.rs\n+++ b/a.rs\n@@ -1,2 +1,3 @@\n one\n-two\n+2\n+\tthree\x1b[0m\n@@ -40 +41 @@\n-x\n+y\n";

    #[test]
    fn lines_are_shown_with_their_numbers_in_the_new_file() {
        let material = material(DIFF);
        let [part] = &material.parts(10_000)[..] else { panic!("one part") };
        let expected = "=== a.rs (changed)\n    1  one\n      -two\n    2 +2\n    3 +\tthree[0m\n      -x\n   41 +y\n";
        assert_eq!(part.text, expected);
        assert_eq!((material.files(), material.lines(), material.bytes()), (1, 6, expected.len()));
        assert_eq!(material.shown()[&material.files[0].path], [1, 2, 3, 41]);
    }

    #[test]
    fn what_happens_to_a_file_is_said() {
        let diff = "diff --git a/x b/x\ndeleted file mode 100644\ndiff --git a/y b/z\nrename from y\nrename to z\n\
                    diff --git a/i b/i\nBinary files a/i and b/i differ\ndiff --git a/m b/m\nold mode 100644\nnew mode 100755\n\
                    \n--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+1\n";
        let text = material(diff).parts(10_000).remove(0).text;
        let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("===")).collect();
        let expected = [
            "=== x (gone)",
            "=== z (was y)",
            "=== i (binary, not shown)",
            "=== m (its text does not change)",
            "=== n (new)",
        ];
        assert_eq!(heads, expected);
    }

    #[test]
    fn parts_keep_files_whole_then_hunks_then_lines() {
        let hunk = |at: usize, lines: usize| {
            format!("@@ -{at},{lines} +{at},{lines} @@\n{}", " some words of a line\n".repeat(lines))
        };
        let file = |name: &str, hunks: &[String]| format!("--- a/{name}\n+++ b/{name}\n{}", hunks.concat());
        let diff = file("a", &[hunk(1, 10)])
            + &file("b", &[hunk(1, 15)])
            + &file("c", &[hunk(1, 15), hunk(50, 15), hunk(90, 60)]);
        let material = material(&diff);
        let parts = material.parts(700);
        let names = |part: &Part| part.paths.iter().map(|path| path.as_str().to_owned()).collect::<Vec<_>>().join(" ");
        assert!(parts.iter().all(|part| part.text.len() <= 700));
        assert_eq!(parts.iter().map(names).collect::<Vec<_>>(), ["a", "b", "c", "c", "c", "c", "c"]);
        // Nothing is lost, and nothing is shown twice.
        let lines = parts.iter().flat_map(|part| part.text.lines()).filter(|line| !line.starts_with("===")).count();
        assert_eq!(lines as u64, material.lines());
        assert_eq!(material.parts(100_000).len(), 1);
    }

    #[test]
    fn endless_lines_are_cut() {
        let material = Material::of_files(vec![("min.js".parse().unwrap(), "é".repeat(100_000))]);
        assert!(material.bytes() < 2 * SHOWN_OF_A_LINE);
        assert!(!material.parts(1).is_empty());
    }
}
