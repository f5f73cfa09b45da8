//! Comments that stand in front of what they document.

use std::ops::Range;

use tree_sitter::Node;

use super::floor;
use super::grammars::Grammar;

/// Bytes of a documentation.
const LONGEST: usize = 1_000;

/// Bytes of comments that are looked at for it.
const MOST_READ: usize = 4 * LONGEST;

/// Comments one below the other, without an empty line between them or after them.
#[derive(Debug, Clone, Default)]
pub(super) struct Comments {
    /// Where they stand in the text.
    bytes: Option<Range<usize>>,
    /// The last line they take.
    last_line: usize,
}

/// The last line of a node: some grammars count the line break at its end.
fn last_line(node: Node<'_>) -> usize {
    let (start, end) = (node.start_position(), node.end_position());
    if end.column == 0 && end.row > start.row { end.row - 1 } else { end.row }
}

impl Comments {
    /// Adds a comment. One that does not follow the others begins anew.
    pub(super) fn add(&mut self, comment: Node<'_>) {
        let follows = self.bytes.is_some() && self.last_line + 1 >= comment.start_position().row;
        let start = self.bytes.take().filter(|_| follows).map_or(comment.start_byte(), |bytes| bytes.start);
        self.bytes = Some(start..comment.end_byte());
        self.last_line = last_line(comment);
    }

    /// Something stands between them and what they document that belongs to it.
    pub(super) fn pass(&mut self, between: Node<'_>) {
        if self.bytes.is_some() && self.last_line + 1 >= between.start_position().row {
            self.last_line = last_line(between);
        } else {
            self.bytes = None;
        }
    }

    /// These comments, if they stand right in front of a node.
    pub(super) fn before(&self, node: Node<'_>) -> Self {
        let line = node.start_position().row;
        let adjacent = self.bytes.is_some() && self.last_line + 1 >= line && self.last_line <= line;
        // What the node holds first is in the same line.
        if adjacent { Self { bytes: self.bytes.clone(), last_line: line } } else { Self::default() }
    }

    /// What they say.
    pub(super) fn text(&self, grammar: Grammar, text: &str) -> Option<String> {
        let bytes = self.bytes.clone()?;
        let end = floor(text, bytes.end.min(bytes.start + MOST_READ));
        let raw = text.get(bytes.start..end)?;
        if !grammar.documents(raw) {
            return None;
        }
        said(raw)
    }
}

/// What a string that documents says, without its quotes.
pub(super) fn clean(text: &str, node: Node<'_>) -> Option<String> {
    let end = floor(text, node.end_byte().min(node.start_byte() + MOST_READ));
    let raw = text.get(node.start_byte()..end)?;
    let raw = raw.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    said(raw.trim_matches(|c| c == '"' || c == '\''))
}

/// The words of comments without what makes them comments.
fn said(raw: &str) -> Option<String> {
    let lines = raw.lines().map(|line| {
        let line = line.trim();
        let line = line.strip_suffix("*/").unwrap_or(line);
        let line = line
            .strip_prefix("/**")
            .or_else(|| line.strip_prefix("/*!"))
            .or_else(|| line.strip_prefix("/*"))
            .or_else(|| line.strip_prefix("///"))
            .or_else(|| line.strip_prefix("//!"))
            .or_else(|| line.strip_prefix("//"))
            .or_else(|| line.strip_prefix("* "))
            .or_else(|| line.strip_prefix('#'))
            .unwrap_or(if line == "*" { "" } else { line });
        line.trim()
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    let text: String = text.trim().chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    if text.is_empty() {
        return None;
    }
    if text.len() <= LONGEST {
        return Some(text);
    }
    Some(format!("{}…", text[..floor(&text, LONGEST)].trim_end()))
}
