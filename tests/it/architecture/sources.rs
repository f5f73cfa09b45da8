//! The files that the rules are about: sources, pages, and which of them are tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::code::{line_of, names, without_comments_and_literals, without_tests};

/// A source file as users get it.
pub struct Source {
    /// From `src/`, with forward slashes.
    pub path: String,
    /// Without comments, literals and tests; line breaks are kept.
    pub code: String,
    /// As written.
    pub text: String,
}

impl Source {
    pub fn module(&self) -> &str {
        self.path.split(['/', '.']).next().expect("split yields something")
    }

    pub fn lies_in(&self, place: &str) -> bool {
        self.path == place || self.path.starts_with(place)
    }

    /// The lines that name `word`, as whole words.
    pub fn naming(&self, word: &str) -> impl Iterator<Item = usize> {
        names(&self.code, word).map(|at| line_of(&self.code, at)).collect::<Vec<_>>().into_iter()
    }

    pub fn complain(&self, wrong: &mut Vec<String>, line: usize, what: &str) {
        wrong.push(format!("src/{}:{line}: {what}", self.path));
    }
}

/// README and the pages below `docs/` and `nips/`.
pub fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".into(), "SECURITY.md".into(), "CHANGELOG.md".into()];
    for folder in ["docs", "nips"] {
        for entry in fs::read_dir(root().join(folder)).expect("a folder of pages") {
            let name = entry.expect("readable").file_name().to_string_lossy().into_owned();
            if name.ends_with(".md") {
                pages.push(format!("{folder}/{name}"));
            }
        }
    }
    pages
}

/// Every line of Rust, tests too.
pub fn all_rust() -> String {
    let mut files = Vec::new();
    collect(&root().join("src"), &mut files);
    collect(&root().join("tests"), &mut files);
    files.iter().map(|file| fs::read_to_string(file).expect("a source file is text") + "\n").collect()
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    files.sort();
    let mut sources = Vec::new();
    let mut tests = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file is text");
        let bare = without_comments_and_literals(&text);
        tests.extend(test_modules(&file, &text, &bare));
        let path = file.strip_prefix(&src).expect("found below it").to_string_lossy().replace('\\', "/");
        sources.push(Source { path, code: without_tests(&bare), text });
    }
    let is_test = |source: &Source| {
        let stem = src.join(&source.path).with_extension("");
        tests.iter().any(|test: &PathBuf| stem.starts_with(test))
    };
    sources.retain(|source| !is_test(source));
    assert!(sources.len() > 20, "the sources were not found");
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Modules that `#[cfg(test)] mod name;` in `file` brings in: the file, without its ending, and the folder of that name.
fn test_modules(file: &Path, text: &str, bare: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (at, _) in bare.match_indices("#[cfg(test)]") {
        let rest = &bare[at..];
        let Some(end) = rest.find([';', '{']) else { continue };
        if rest.as_bytes()[end] != b';' {
            continue;
        }
        // The path of a `#[path = "…"]` is a literal: it stands at the same place in the text.
        let named = text[at..at + end].split_once("path = \"").and_then(|(_, rest)| rest.split_once('"'));
        let folder = file.parent().expect("a file is in a folder");
        if let Some((path, _)) = named {
            found.push(folder.join(path).with_extension(""));
            continue;
        }
        let Some((_, name)) = rest[..end].rsplit_once("mod ") else { continue };
        let stem = file.file_stem().expect("a file has a name");
        let own = if stem == "mod" || stem == "lib" { folder.to_owned() } else { folder.join(stem) };
        found.push(own.join(name.trim()));
    }
    found
}
