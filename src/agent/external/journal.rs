//! What is kept of an agent's work: a line of JSON for everything it asked the model, and for its end.
//!
//! Bodies are hashed, and kept only where they are small: an agent sends its whole conversation each time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bitcoin::hashes::{Hash, HashEngine, sha256};
use serde::Serialize;

use super::door::Door;
use crate::agent::Stopped;
use crate::sandbox::{Ended, Output};

/// Bytes of a transcript at most; what comes behind is only counted.
const MOST_BYTES: usize = 1024 * 1024;
/// Bodies up to this are kept as they are, when they are text.
pub(super) const SMALL: usize = 2 * 1024;

/// A body that passed: how much, what it was, and the whole when that is small.
#[derive(Default)]
pub(super) struct Passed {
    bytes: u64,
    engine: sha256::HashEngine,
    small: Vec<u8>,
}

/// The same, to be written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Body {
    bytes: u64,
    sha256: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl Passed {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.engine.input(bytes);
        let room = (SMALL + 1).saturating_sub(self.small.len());
        self.small.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    pub(super) fn body(&self) -> Body {
        let text = (self.small.len() <= SMALL).then(|| String::from_utf8(self.small.clone()).ok()).flatten();
        Body { bytes: self.bytes, sha256: sha256::Hash::from_engine(self.engine.clone()).to_string(), text }
    }
}

/// A line of a transcript.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Line<'a> {
    /// The agent begins.
    Began { version: u32, agent: &'static str, model: Option<&'a str>, instructions: &'a Body },
    /// It asked for something that is not let through, or too much.
    Refused { at_ms: u64, status: u16, why: &'a str },
    /// It asked the model.
    Asked {
        at_ms: u64,
        ms: u64,
        method: &'static str,
        path: &'static str,
        status: u16,
        request: &'a Body,
        answer: &'a Body,
        #[serde(skip_serializing_if = "Option::is_none")]
        prompt_tokens: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        generated_tokens: Option<u32>,
        /// Whether the answer came to its end.
        whole: bool,
    },
    /// The link to the cell ended before the agent did.
    Link { why: &'a str },
    /// The agent's command ended.
    Ran { exit_code: i64, ended: Ended, duration_ms: u64, stdout: Printed<'a>, stderr: Printed<'a> },
    /// Lines that were left out.
    LeftOut { lines: u64 },
    /// The work ended.
    Stopped { stopped: Stopped, steps: u32, prompt_tokens: u32, generated_tokens: u32 },
}

/// What the agent printed, as far as it was kept, and the hash of all of it.
#[derive(Debug, Serialize)]
pub(super) struct Printed<'a> {
    bytes: u64,
    sha256: &'a str,
    text: &'a str,
}

impl<'a> From<&'a Output> for Printed<'a> {
    fn from(output: &'a Output) -> Self {
        Self { bytes: output.bytes, sha256: &output.sha256, text: &output.text }
    }
}

/// A transcript that is being written.
#[derive(Debug, Default)]
pub(super) struct Journal(Mutex<Written>);

#[derive(Debug, Default)]
struct Written {
    lines: String,
    left_out: u64,
}

impl Journal {
    fn written(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what happened, when there is room for it.
    pub(super) fn add(&self, line: &Line<'_>) {
        let line = json(line);
        let mut written = self.written();
        if written.lines.len() + line.len() > MOST_BYTES {
            written.left_out += 1;
        } else {
            written.lines.push_str(&line);
        }
    }

    /// All of it, with these last lines, for which there is always room.
    pub(super) fn finish(&self, last: &[Line<'_>]) -> String {
        let mut written = self.written();
        let mut all = std::mem::take(&mut written.lines);
        if written.left_out > 0 {
            all.push_str(&json(&Line::LeftOut { lines: written.left_out }));
        }
        all.extend(last.iter().map(json));
        all
    }
}

fn json(line: &Line<'_>) -> String {
    serde_json::to_string(line).expect("plain data is always JSON") + "\n"
}

/// The words of a method, for the transcript.
pub(super) fn method(door: Door) -> &'static str {
    if door == Door::Models { "GET" } else { "POST" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_body_is_kept_and_a_large_one_hashed() {
        let mut passed = Passed::default();
        passed.add(b"ab");
        passed.add(b"c");
        let body = passed.body();
        assert_eq!((body.bytes, body.text.as_deref()), (3, Some("abc")));
        assert_eq!(body.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        passed.add(&[b'x'; SMALL]);
        assert_eq!((passed.body().bytes, passed.body().text), (SMALL as u64 + 3, None));
        let mut bytes = Passed::default();
        bytes.add(b"\xff\xfe");
        assert_eq!(bytes.body().text, None);
    }

    #[test]
    fn a_transcript_is_bounded_and_tells_its_end_all_the_same() {
        let journal = Journal::default();
        let why = "x".repeat(1_000);
        for at_ms in 0..2_000 {
            journal.add(&Line::Refused { at_ms, status: 404, why: &why });
        }
        let stopped = Stopped::OutOfSteps;
        let last = Line::Stopped { stopped, steps: 1, prompt_tokens: 2, generated_tokens: 3 };
        let all = journal.finish(&[last]);
        assert!(all.len() < MOST_BYTES + 1_000);
        let lines: Vec<&str> = all.lines().rev().take(2).collect();
        assert_eq!(
            lines[0],
            r#"{"event":"stopped","stopped":"out_of_steps","steps":1,"prompt_tokens":2,"generated_tokens":3}"#
        );
        assert!(lines[1].starts_with(r#"{"event":"left_out","lines":"#));
    }
}
