//! What is kept of a worker's conversation: a line of JSON for everything that was said and run.

use std::time::Duration;

use serde::Serialize;

use super::{Stopped, WorkLimits};
use crate::sandbox::{Ended, Output, Ran};

/// Bytes of a transcript at most. What comes behind is left out, and a line says so.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// An event of a transcript.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Entry<'a> {
    /// The work begins.
    Began { version: u32, model: &'a str, limits: &'a WorkLimits },
    /// What the model is told at first.
    Told { role: &'a str, text: &'a str },
    /// An answer.
    Answered { text: &'a str, prompt_tokens: u32, generated_tokens: u32 },
    /// The answer could not be read.
    Corrected { text: &'a str },
    /// A command was run.
    Ran {
        step: u32,
        command: &'a str,
        exit_code: i64,
        ended: Ended,
        duration_ms: u128,
        stdout: Printed<'a>,
        stderr: Printed<'a>,
    },
    /// The conversation was made shorter.
    Condensed { outputs: usize, steps: usize },
    /// No more is kept.
    Cut,
    /// The work ended.
    Stopped { stopped: Stopped, steps: u32, prompt_tokens: u32, generated_tokens: u32 },
}

/// An output, as far as it was kept, and the hash of all of it.
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

impl<'a> Entry<'a> {
    pub(super) fn ran(step: u32, command: &'a str, ran: &'a Ran) -> Self {
        let Ran { exit_code, ended, stdout, stderr, duration } = ran;
        Self::Ran {
            step,
            command,
            exit_code: *exit_code,
            ended: *ended,
            duration_ms: Duration::as_millis(duration),
            stdout: stdout.into(),
            stderr: stderr.into(),
        }
    }
}

/// A transcript that is being written.
#[derive(Debug)]
pub(super) struct Transcript {
    lines: String,
    most_bytes: usize,
    cut: bool,
}

impl Transcript {
    pub(super) fn new() -> Self {
        Self { lines: String::new(), most_bytes: MOST_BYTES, cut: false }
    }

    /// Adds what happened.
    pub(super) fn add(&mut self, entry: &Entry<'_>) {
        let line = serde_json::to_string(entry).expect("plain data is always JSON");
        let is_end = matches!(entry, Entry::Stopped { .. });
        if !is_end && (self.cut || self.lines.len() + line.len() > self.most_bytes) {
            if !std::mem::replace(&mut self.cut, true) {
                self.add_line(&serde_json::to_string(&Entry::Cut).expect("plain data is always JSON"));
            }
            return;
        }
        self.add_line(&line);
    }

    /// All of it.
    pub(super) fn finish(self) -> String {
        self.lines
    }

    fn add_line(&mut self, line: &str) {
        self.lines.push_str(line);
        self.lines.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_is_bounded_and_tells_its_end_all_the_same() {
        let mut transcript = Transcript { most_bytes: 200, ..Transcript::new() };
        let told = |text| Entry::Told { role: "user", text };
        let long = "x".repeat(200);
        transcript.add(&told("one"));
        transcript.add(&told(&long));
        transcript.add(&told("two"));
        transcript.add(&Entry::Stopped {
            stopped: Stopped::OutOfSteps,
            steps: 3,
            prompt_tokens: 2,
            generated_tokens: 1,
        });
        let expected = "{\"event\":\"told\",\"role\":\"user\",\"text\":\"one\"}\n{\"event\":\"cut\"}\n\
                        {\"event\":\"stopped\",\"stopped\":\"out_of_steps\",\"steps\":3,\"prompt_tokens\":2,\
                        \"generated_tokens\":1}\n";
        assert_eq!(transcript.finish(), expected);
    }
}
