//! Reads the files of a snapshot one by one: digests, symbols, dependencies. Waits for the disk, and works for a while: for a
//! thread of its own.

use std::time::{Duration, Instant};

use super::fitting::{Problems, Room};
use crate::archive::EntryKind;
use crate::code::digests::{TreeHash, digest};
use crate::code::symbols::{MOST_SYMBOLS, SymbolReader};
use crate::code::{dependencies, languages};
use crate::job::RelativePath;
use crate::job::globs::Globs;
use crate::job::repo_index::{Dependency, FileDigest, IndexTypes, Indexes, Symbol};
use crate::repository::{RepositoryError, Snapshot, TreeEntry};

/// How long one file's symbols may take: a large one takes a tenth of that.
const FILE_TIME: Duration = Duration::from_secs(2);

/// What to read.
pub(super) struct Reading<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) globs: &'a Globs,
    pub(super) types: IndexTypes,
    pub(super) max_file_bytes: u64,
    /// Asked again and again.
    pub(super) go_on: &'a dyn Fn() -> bool,
}

/// What was read.
pub(super) struct Read {
    pub(super) tree_sha256: String,
    pub(super) indexes: Indexes,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) truncated: bool,
}

/// Entries of lists that there was no room for.
#[derive(Default)]
struct LeftOut {
    symbols: u64,
    digests: u64,
    dependencies: u64,
}

/// Why reading ended early.
pub(super) enum ReadError {
    /// Nobody wants it any more, or the time is over.
    Stopped,
    /// A file could not be read.
    Repository(RepositoryError),
}

impl From<RepositoryError> for ReadError {
    fn from(error: RepositoryError) -> Self {
        Self::Repository(error)
    }
}

/// The files that are meant, larger ones left out.
pub(super) fn files<'a>(
    snapshot: &'a Snapshot,
    globs: &'a Globs,
    max_bytes: u64,
) -> impl Iterator<Item = &'a TreeEntry> {
    meant(snapshot, globs).filter(move |entry| entry.size <= max_bytes)
}

fn meant<'a>(snapshot: &'a Snapshot, globs: &'a Globs) -> impl Iterator<Item = &'a TreeEntry> {
    let is_file = |entry: &&TreeEntry| matches!(entry.kind, EntryKind::File { .. });
    snapshot.entries().iter().filter(is_file).filter(|entry| globs.allow(&entry.path))
}

/// Reads all of it.
pub(super) fn read(reading: &Reading<'_>, room: &mut Room, problems: &mut Problems) -> Result<Read, ReadError> {
    let mut pass = Pass::new(reading, room, problems);
    for entry in meant(reading.snapshot, reading.globs) {
        if !(reading.go_on)() {
            return Err(ReadError::Stopped);
        }
        if entry.size > reading.max_file_bytes {
            pass.problems.add(&format!(
                "{}: left out, it has {} bytes and max_file_size is {}",
                entry.path, entry.size, reading.max_file_bytes
            ));
            continue;
        }
        let content = reading.snapshot.read(&entry.path)?.unwrap_or_default();
        pass.file(&entry.path, content)?;
    }
    Ok(pass.finish())
}

struct Pass<'a> {
    reading: &'a Reading<'a>,
    room: &'a mut Room,
    problems: &'a mut Problems,
    symbol_reader: SymbolReader,
    tree: TreeHash,
    symbols: Vec<Symbol>,
    digests: Vec<FileDigest>,
    dependencies: Vec<Dependency>,
    left_out: LeftOut,
    files: u64,
    bytes: u64,
}

impl<'a> Pass<'a> {
    fn new(reading: &'a Reading<'a>, room: &'a mut Room, problems: &'a mut Problems) -> Self {
        Self {
            reading,
            room,
            problems,
            symbol_reader: SymbolReader::new(),
            tree: TreeHash::default(),
            symbols: Vec::new(),
            digests: Vec::new(),
            dependencies: Vec::new(),
            left_out: LeftOut::default(),
            files: 0,
            bytes: 0,
        }
    }

    fn file(&mut self, path: &RelativePath, content: Vec<u8>) -> Result<(), ReadError> {
        let digest = digest(path, &content);
        self.tree.add(&digest);
        self.files += 1;
        self.bytes += digest.size;
        if self.reading.types.digests {
            keep(self.room, digest, &mut self.digests, &mut self.left_out.digests);
        }
        let language = languages::language(path).filter(|language| SymbolReader::knows(language));
        let language = language.filter(|_| self.reading.types.symbols);
        let is_manifest = self.reading.types.dependencies && dependencies::is_manifest(path);
        if language.is_none() && !is_manifest {
            return Ok(());
        }
        let Ok(text) = String::from_utf8(content) else {
            self.problems.add(&format!("{path}: not read, it is not UTF-8"));
            return Ok(());
        };
        if let Some(language) = language {
            self.symbols_of(path, language, &text)?;
        }
        match dependencies::read(path, &text).filter(|_| is_manifest) {
            Some(Ok(found)) => {
                for dependency in found {
                    keep(self.room, dependency, &mut self.dependencies, &mut self.left_out.dependencies);
                }
            }
            Some(Err(error)) => self.problems.add(&format!("{path}: not read, {error}")),
            None => {}
        }
        Ok(())
    }

    fn symbols_of(&mut self, path: &RelativePath, language: &str, text: &str) -> Result<(), ReadError> {
        let begun = Instant::now();
        let go_on = || begun.elapsed() < FILE_TIME && (self.reading.go_on)();
        match self.symbol_reader.read(path, language, text, &go_on) {
            Ok(found) => {
                let found = found.unwrap_or_default();
                if found.cut {
                    self.problems
                        .add(&format!("{path}: it has more than {MOST_SYMBOLS} symbols, the first are listed"));
                }
                for symbol in found.symbols {
                    keep(self.room, symbol, &mut self.symbols, &mut self.left_out.symbols);
                }
                Ok(())
            }
            Err(_) if !(self.reading.go_on)() => Err(ReadError::Stopped),
            Err(stopped) => {
                self.problems.add(&format!("{path}: left out, {stopped}"));
                Ok(())
            }
        }
    }

    fn finish(self) -> Read {
        if self.files == 0 {
            self.problems.add("no file matches include and exclude");
        }
        let LeftOut { symbols, digests, dependencies } = self.left_out;
        for (name, count) in [("symbols", symbols), ("digests", digests), ("dependencies", dependencies)] {
            if count > 0 {
                self.problems.add(&format!(
                    "{name}: {count} more are left out, the result would be too large; narrow include, or ask for fewer \
                     index types"
                ));
            }
        }
        let types = self.reading.types;
        Read {
            tree_sha256: self.tree.finish(),
            indexes: Indexes {
                symbols: types.symbols.then_some(self.symbols),
                digests: types.digests.then_some(self.digests),
                dependencies: types.dependencies.then_some(self.dependencies),
                embeddings: None,
            },
            files: self.files,
            bytes: self.bytes,
            truncated: symbols + digests + dependencies > 0,
        }
    }
}

fn keep<T: serde::Serialize>(room: &mut Room, entry: T, list: &mut Vec<T>, left_out: &mut u64) {
    if room.take(&entry) { list.push(entry) } else { *left_out += 1 }
}
