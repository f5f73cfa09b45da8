//! What is defined where in a source file, found by tree-sitter's grammars.
//!
//! Listed is what other files could mean: what stands in functions is theirs alone and is not looked at. Grammars are C code
//! that reads strangers' text; so files are bounded by whoever calls, the time is asked for while a file is parsed, the walk
//! over what was parsed goes only so deep, and only so many symbols of a file are listed.

mod comments;
mod grammars;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use tree_sitter::{Node, ParseOptions, Parser};

use self::comments::Comments;
use self::grammars::{Declared, Grammar, Step};
use crate::job::RelativePath;
use crate::job::repo_index::{Symbol, SymbolKind};

/// Symbols of a file at most.
pub const MOST_SYMBOLS: usize = 5_000;

/// Definitions within definitions at most: a real file has a handful.
const DEEPEST: usize = 64;

/// Bytes of a signature and of a name.
const LONGEST_SIGNATURE: usize = 200;

/// Where something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// In a file or module.
    Module,
    /// In a class, trait or the like.
    Type,
}

/// Symbols of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Symbols {
    /// In the order of the file.
    pub symbols: Vec<Symbol>,
    /// Whether there are more than are listed.
    pub cut: bool,
}

/// The file was not read to its end: the time was over, or nobody wants it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("reading its symbols took too long")]
pub struct Stopped;

/// Finds symbols.
#[derive(Default)]
pub struct SymbolReader {
    parser: Parser,
}

impl std::fmt::Debug for SymbolReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SymbolReader").finish_non_exhaustive()
    }
}

impl SymbolReader {
    /// A reader.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether files in a language can be read.
    pub fn knows(language: &str) -> bool {
        Grammar::of(language).is_some()
    }

    /// The symbols of a file in a language; `None` when the language is not known. `go_on` is asked again and again.
    ///
    /// # Errors
    /// When `go_on` says no.
    pub fn read(
        &mut self,
        path: &RelativePath,
        language: &str,
        text: &str,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Symbols>, Stopped> {
        let Some(grammar) = Grammar::of(language) else { return Ok(None) };
        self.parser.reset();
        self.parser.set_language(&grammar.language()).expect("the grammars are of this version of tree-sitter");
        let mut progress = |_: &_| if go_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        let options = ParseOptions::new().progress_callback(&mut progress);
        let bytes = text.as_bytes();
        let tree = self
            .parser
            .parse_with_options(&mut |at, _| bytes.get(at..).unwrap_or_default(), None, Some(options))
            .ok_or(Stopped)?;
        let mut walk = Walk { grammar, path, text, go_on, place: Place::default(), found: Symbols::default() };
        walk.children(tree.root_node(), Inside::Module, Comments::default(), 0)?;
        Ok(Some(walk.found))
    }
}

/// The last place whose character was counted, so that a file of one long line is counted once.
#[derive(Default)]
struct Place {
    line_start: usize,
    byte: usize,
    characters: usize,
}

struct Walk<'a> {
    grammar: Grammar,
    path: &'a RelativePath,
    text: &'a str,
    go_on: &'a dyn Fn() -> bool,
    place: Place,
    found: Symbols,
}

impl Walk<'_> {
    /// Goes through what a node holds. `comments` is what stands in front of the node, for the first in it.
    fn children(
        &mut self,
        parent: Node<'_>,
        inside: Inside,
        mut comments: Comments,
        depth: usize,
    ) -> Result<(), Stopped> {
        if depth > DEEPEST {
            return Ok(());
        }
        let mut cursor = parent.walk();
        let mut more = cursor.goto_first_child();
        while more {
            if self.found.cut || !(self.go_on)() {
                return if self.found.cut { Ok(()) } else { Err(Stopped) };
            }
            let node = cursor.node();
            if !node.is_named() {
                // Punctuation and keywords.
            } else if self.grammar.is_comment(node) {
                comments.add(node);
            } else if self.grammar.is_attribute(node) {
                comments.pass(node);
            } else {
                self.node(node, inside, comments.before(node), depth)?;
                comments = Comments::default();
            }
            more = cursor.goto_next_sibling();
        }
        Ok(())
    }

    fn node(&mut self, node: Node<'_>, inside: Inside, comments: Comments, depth: usize) -> Result<(), Stopped> {
        match self.grammar.step(node, inside, self.text) {
            Step::Over => Ok(()),
            Step::Through => self.children(node, inside, comments, depth + 1),
            Step::Declares { declared, body } => {
                for declared in declared {
                    self.add(&declared, node, &comments);
                }
                match body {
                    Some((body, inside)) => self.children(body, inside, Comments::default(), depth + 1),
                    None => Ok(()),
                }
            }
        }
    }

    fn add(&mut self, declared: &Declared<'_>, node: Node<'_>, comments: &Comments) {
        let Some(name) = self.text.get(declared.name.byte_range()).map(str::trim).filter(|name| !name.is_empty())
        else {
            return;
        };
        // What the grammar makes of garbage may be anything.
        if name.len() > LONGEST_SIGNATURE || name.contains('\n') {
            return;
        }
        if self.found.symbols.len() >= MOST_SYMBOLS {
            self.found.cut = true;
            return;
        }
        let kind = declared.kind;
        let documentation = comments
            .text(self.grammar, self.text)
            .or_else(|| self.grammar.inner_documentation(node).and_then(|doc| comments::clean(self.text, doc)));
        let symbol = Symbol {
            name: name.to_owned(),
            kind,
            path: self.path.as_str().to_owned(),
            line: number(declared.name.start_position().row),
            column: number(self.column(declared.name)),
            signature: signature(self.text, declared.name),
            documentation,
        };
        self.found.symbols.push(symbol);
    }

    /// Characters before the node in its line.
    fn column(&mut self, node: Node<'_>) -> usize {
        let at = node.start_byte();
        let line_start = at.saturating_sub(node.start_position().column);
        let place = &mut self.place;
        if place.line_start != line_start || at < place.byte {
            *place = Place { line_start, byte: line_start, characters: 0 };
        }
        let between = self.text.get(place.byte..at).unwrap_or_default();
        place.characters += between.chars().count();
        place.byte = at;
        place.characters
    }
}

/// Counted from 1.
fn number(from_zero: usize) -> u32 {
    u32::try_from(from_zero).unwrap_or(u32::MAX).saturating_add(1)
}

/// The line in which a name stands, without the brace that opens a body.
fn signature(text: &str, name: Node<'_>) -> Option<String> {
    let (start, end) = (name.start_byte(), name.end_byte());
    // A file may be one line.
    let from = floor(text, start.saturating_sub(LONGEST_SIGNATURE));
    let to = floor(text, end.saturating_add(LONGEST_SIGNATURE).min(text.len()));
    let before = text.get(from..start)?.rsplit('\n').next()?;
    let after = text.get(end..to)?.split('\n').next()?;
    let line = format!("{before}{}{after}", text.get(start..end)?);
    let line = line.trim().trim_end_matches('{').trim_end();
    let line = &line[..floor(line, LONGEST_SIGNATURE.min(line.len()))];
    (!line.is_empty()).then(|| line.to_owned())
}

/// The end of the last whole character before a place.
fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Whether something that is a function where it stands alone is a method.
fn function(inside: Inside) -> SymbolKind {
    match inside {
        Inside::Module => SymbolKind::Function,
        Inside::Type => SymbolKind::Method,
    }
}
