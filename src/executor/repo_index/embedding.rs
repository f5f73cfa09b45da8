//! Texts cut into pieces for a model that makes vectors of them.

use tokio_util::sync::CancellationToken;

use super::fitting::{Problems, Room};
use super::{Stop, reading};
use crate::code::languages;
use crate::inference::{Embeddings, Inference, InferenceError};
use crate::job::RelativePath;
use crate::job::globs::Globs;
use crate::job::repo_index::{Embedding, EmbeddingIndex};
use crate::job::text::BYTES_PER_TOKEN;
use crate::repository::Snapshot;

/// Bytes of a piece: about a screen of code, and what small models read at once.
const PIECE_BYTES: usize = 1_600;

/// Bytes of a piece for each token of a model's context: code has more than two a token.
const BYTES_PER_CONTEXT_TOKEN: u32 = 2;

/// The smallest pieces that mean anything.
const LEAST_PIECE_BYTES: usize = 128;

/// Pieces that are asked for at once.
const PIECES_AT_ONCE: usize = 32;

/// Characters of a piece that are shown.
const PREVIEW_CHARS: usize = 120;

/// Long lists that only programs read.
const LOCK_FILES: [&str; 9] = [
    "Cargo.lock",
    "Gemfile.lock",
    "go.sum",
    "npm-shrinkwrap.json",
    "package-lock.json",
    "pnpm-lock.yaml",
    "poetry.lock",
    "uv.lock",
    "yarn.lock",
];

/// Which model makes vectors, of which files, and of how many tokens at most.
pub(super) struct Task<'a> {
    pub(super) backend: &'a dyn Inference,
    pub(super) model: &'a str,
    pub(super) context_tokens: Option<u32>,
    pub(super) snapshot: &'a Snapshot,
    pub(super) globs: &'a Globs,
    pub(super) max_file_bytes: u64,
    pub(super) max_tokens: u32,
    pub(super) cancel: &'a CancellationToken,
}

/// What came of it.
pub(super) struct Embedded {
    pub(super) index: EmbeddingIndex,
    pub(super) tokens: u32,
    pub(super) parameters: Option<u64>,
    pub(super) digest: Option<String>,
    pub(super) truncated: bool,
}

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    path: RelativePath,
    /// The first and the last line.
    lines: [u32; 2],
    text: String,
}

/// Makes vectors of the files, in their order, until there are no more tokens or there is no more room.
pub(super) async fn embed(task: &Task<'_>, room: &mut Room, problems: &mut Problems) -> Result<Embedded, Stop> {
    let mut gathering = Gathering {
        task,
        room,
        problems,
        done: Embedded {
            index: EmbeddingIndex { model: task.model.to_owned(), dimension: 0, entries: Vec::new() },
            tokens: 0,
            parameters: None,
            digest: None,
            truncated: false,
        },
        waiting: Vec::new(),
    };
    let piece_bytes = piece_bytes(task.context_tokens);
    for entry in reading::files(task.snapshot, task.globs, task.max_file_bytes) {
        if task.cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        let is_text = languages::language(&entry.path).is_some() && !LOCK_FILES.contains(&entry.path.name());
        if !is_text || entry.size == 0 {
            continue;
        }
        for piece in pieces_of(task.snapshot.clone(), entry.path.clone(), piece_bytes).await? {
            if !gathering.add(piece).await? {
                return Ok(gathering.done);
            }
        }
    }
    gathering.ask().await?;
    Ok(gathering.done)
}

fn piece_bytes(context_tokens: Option<u32>) -> usize {
    let fits = context_tokens.map_or(PIECE_BYTES, |tokens| tokens.saturating_mul(BYTES_PER_CONTEXT_TOKEN) as usize);
    fits.clamp(LEAST_PIECE_BYTES, PIECE_BYTES)
}

async fn pieces_of(snapshot: Snapshot, path: RelativePath, most_bytes: usize) -> Result<Vec<Piece>, Stop> {
    let read = tokio::task::spawn_blocking(move || {
        let content = snapshot.read(&path)?.unwrap_or_default();
        Ok(String::from_utf8(content).map(|text| pieces(&path, &text, most_bytes)).unwrap_or_default())
    });
    match read.await {
        Ok(pieces) => pieces.map_err(Stop::Repository),
        Err(_) => Err(Stop::Broken),
    }
}

/// Cuts a text between lines, and lines that are too long between characters. What is blank is left out.
fn pieces(path: &RelativePath, text: &str, most_bytes: usize) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut piece = String::new();
    let (mut first, mut number) = (1, 0_u32);
    let mut end = |piece: &mut String, lines: [u32; 2]| {
        let text = std::mem::take(piece);
        if !text.trim().is_empty() {
            pieces.push(Piece { path: path.clone(), lines, text });
        }
    };
    for line in text.split_inclusive('\n') {
        number = number.saturating_add(1);
        if !piece.is_empty() && piece.len() + line.len() > most_bytes {
            end(&mut piece, [first, number - 1]);
        }
        if piece.is_empty() {
            first = number;
        }
        let mut rest = line;
        while rest.len() > most_bytes {
            let at = (1..=most_bytes).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
            let (head, tail) = rest.split_at(at);
            piece.push_str(head);
            end(&mut piece, [number, number]);
            first = number;
            rest = tail;
        }
        piece.push_str(rest);
    }
    end(&mut piece, [first, number.max(first)]);
    pieces
}

struct Gathering<'a, 'r> {
    task: &'a Task<'a>,
    room: &'r mut Room,
    problems: &'r mut Problems,
    done: Embedded,
    waiting: Vec<Piece>,
}

impl Gathering<'_, '_> {
    /// Adds a piece; whether more are wanted.
    async fn add(&mut self, piece: Piece) -> Result<bool, Stop> {
        let tokens = |piece: &Piece| u32::try_from(piece.text.len()).unwrap_or(u32::MAX).div_ceil(BYTES_PER_TOKEN);
        let expected = self.waiting.iter().chain([&piece]).map(tokens).fold(self.done.tokens, u32::saturating_add);
        if expected > self.task.max_tokens {
            let path = piece.path;
            self.ask().await?;
            self.end(&format!(
                "embeddings: {path} and what follows is left out, the tokens that were quoted for are used"
            ));
            return Ok(false);
        }
        self.waiting.push(piece);
        if self.waiting.len() < PIECES_AT_ONCE { Ok(true) } else { self.ask().await }
    }

    fn end(&mut self, problem: &str) {
        self.problems.add(problem);
        self.done.truncated = true;
    }

    /// Asks for the vectors of what is waiting; whether there is room for more.
    async fn ask(&mut self) -> Result<bool, Stop> {
        let pieces = std::mem::take(&mut self.waiting);
        if pieces.is_empty() || self.done.truncated {
            return Ok(!self.done.truncated);
        }
        match self.vectors(&pieces).await {
            Ok(made) => Ok(self.take(pieces, made)),
            // One of them is too long: which one is found by asking for each.
            Err(InferenceError::ContextOverflow { .. } | InferenceError::BadRequest(_)) => {
                for piece in pieces {
                    let one = [piece];
                    match self.vectors(&one).await {
                        Ok(made) => {
                            if !self.take(one.into(), made) {
                                return Ok(false);
                            }
                        }
                        Err(InferenceError::ContextOverflow { .. } | InferenceError::BadRequest(_)) => {
                            let [Piece { path, lines, .. }] = one;
                            let place = format!("{path}, lines {} to {}", lines[0], lines[1]);
                            self.problems
                                .add(&format!("{place}: not embedded, the model can't read that much at once"));
                        }
                        Err(error) => return Err(Stop::Inference(error)),
                    }
                }
                Ok(true)
            }
            Err(error) => Err(Stop::Inference(error)),
        }
    }

    async fn vectors(&self, pieces: &[Piece]) -> Result<Embeddings, InferenceError> {
        let texts: Vec<String> = pieces.iter().map(|piece| piece.text.clone()).collect();
        self.task.backend.embed(Some(self.task.model), &texts, self.task.cancel).await
    }

    /// Takes vectors in; whether there is room for more.
    fn take(&mut self, pieces: Vec<Piece>, made: Embeddings) -> bool {
        self.done.tokens = self.done.tokens.saturating_add(made.tokens);
        self.done.index.dimension = made.dimension;
        (self.done.parameters, self.done.digest) = (made.parameters, made.digest);
        for (piece, vector) in pieces.into_iter().zip(made.vectors) {
            let preview =
                piece.text.trim().chars().filter(|c| !c.is_control() || *c == '\n').take(PREVIEW_CHARS).collect();
            let entry = Embedding { path: piece.path.into(), lines: piece.lines, preview, vector };
            if !self.room.take(&entry) {
                self.end(&format!(
                    "embeddings: {} and what follows is left out, the result would be too large; narrow include",
                    entry.path
                ));
                return false;
            }
            self.done.index.entries.push(entry);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, most: usize) -> Vec<(String, [u32; 2])> {
        pieces(&"a".parse().unwrap(), text, most).into_iter().map(|piece| (piece.text, piece.lines)).collect()
    }

    #[test]
    fn texts_are_cut_between_lines() {
        assert_eq!(cut("one\ntwo\nthree\n", 8), [("one\ntwo\n".into(), [1, 2]), ("three\n".into(), [3, 3])]);
        assert_eq!(cut("one", 8), [("one".into(), [1, 1])]);
        assert_eq!(cut("", 8), []);
        assert_eq!(cut("\n \n\n", 8), []);
        assert_eq!(cut("a\n\n\n\n\n\n\n\n\nb\n", 4), [("a\n\n\n".into(), [1, 3]), ("\n\nb\n".into(), [8, 10])]);
    }

    #[test]
    fn long_lines_are_cut_between_characters_and_nothing_is_lost() {
        let text = "äöü€".repeat(50);
        for most in 4..40 {
            let pieces = cut(&format!("x\n{text}\ny\n"), most);
            assert!(pieces.iter().all(|(piece, _)| piece.len() <= most), "{most}");
            let whole: String = pieces.iter().map(|(piece, _)| piece.as_str()).collect();
            assert_eq!(whole, format!("x\n{text}\ny\n"));
            assert!(pieces.windows(2).all(|pair| pair[0].1[1] <= pair[1].1[0]));
        }
    }

    #[test]
    fn pieces_fit_into_the_context_of_the_model() {
        for (context, bytes) in [(None, 1_600), (Some(8_192), 1_600), (Some(512), 1_024), (Some(1), 128)] {
            assert_eq!(piece_bytes(context), bytes);
        }
    }
}
