//! One answer, from the lines that Ollama sends.

use super::super::http::{Lines, Trouble, parse, words};
use super::super::stop::StopFilter;
use super::super::told::MOST_EMPTY_EVENTS;
use super::super::{Generate, InferenceError, Piece, TextSink};
use super::wire::Line;
use crate::job::outcome::{FinishReason, Usage};

/// Lines with text that a server may send beyond one a token asked for, before it is one that never ends: those in which
/// it lets go what it had held back.
const SPARE_LINES: u32 = 64;

/// An answer that is being written. It has no `Debug`, which would show it.
pub(super) struct Answer {
    text: String,
    filter: StopFilter,
    sink: Option<TextSink>,
    /// Lines that had text. A line is a token, or several of which only the last made a whole character.
    lines: u32,
    /// Lines in a row that had none.
    empty: u32,
    /// Bytes of text and thoughts so far.
    bytes: usize,
    most_bytes: usize,
    max_tokens: u32,
    context_tokens: u32,
}

/// A finished answer.
pub(super) type Finished = (String, FinishReason, Usage);

impl Answer {
    /// The answer to `request`, of at most `most_bytes`, by a model that is run with `context_tokens`.
    pub(super) fn new(request: &Generate, sink: Option<TextSink>, most_bytes: usize, context_tokens: u32) -> Self {
        Self {
            text: String::new(),
            filter: StopFilter::new(&request.stop),
            sink,
            lines: 0,
            empty: 0,
            bytes: 0,
            most_bytes,
            max_tokens: request.max_tokens,
            context_tokens,
        }
    }

    /// Reads it to its end. Dropping the future closes the connection, at which the server stops.
    ///
    /// # Errors
    /// [`InferenceError::Backend`] when it breaks off: a connection that ends without a last line, or a line that says so.
    pub(super) async fn read(mut self, mut lines: Lines) -> Result<Finished, InferenceError> {
        while let Some(line) = lines.next().await? {
            let line = understand(&line)?;
            self.check(&line)?;
            if self.add(&line) {
                // The server finds the stop string too, so that its next line is the last, which has the counts. From one
                // that writes on, no more is taken.
                let last = if line.done { Some(line) } else { next_of(&mut lines).await.filter(|line| line.done) };
                let usage = self.usage(last.as_ref());
                return Ok((self.text, FinishReason::Stop, usage));
            }
            if self.lines > self.max_tokens.saturating_add(SPARE_LINES) {
                return Err(InferenceError::Backend("it writes more than it was asked for".to_owned()));
            }
            if line.done {
                let finish = finish(&line)?;
                let usage = self.usage(Some(&line));
                return Ok((self.into_text(), finish, usage));
            }
        }
        Err(InferenceError::Backend("the answer broke off: it has no last line".to_owned()))
    }

    /// Counts a line, and refuses one that is too much: more bytes than anybody reads, or yet another one that says nothing.
    fn check(&mut self, line: &Line) -> Result<(), InferenceError> {
        let bytes = line.message.content.len().saturating_add(line.message.thinking.len());
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.most_bytes {
            return Err(Trouble::TooLarge(self.most_bytes).into());
        }
        if bytes > 0 {
            self.lines = self.lines.saturating_add(1);
            self.empty = 0;
        } else {
            self.empty = self.empty.saturating_add(1);
        }
        if self.empty >= MOST_EMPTY_EVENTS {
            return Err(InferenceError::Backend("it sends lines without end that say nothing".to_owned()));
        }
        Ok(())
    }

    /// Adds what a line says, and tells whether a stop string ended it.
    fn add(&mut self, line: &Line) -> bool {
        let passed = self.filter.push(&line.message.content);
        self.show(&passed.text);
        passed.stopped
    }

    fn show(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(text);
        if let Some(sink) = &self.sink {
            // Nobody has to read.
            let _ = sink.send(Piece { text: text.to_owned(), tokens: self.lines.min(self.max_tokens) });
        }
    }

    fn into_text(mut self) -> String {
        let held = std::mem::replace(&mut self.filter, StopFilter::new(&[])).finish();
        self.show(&held);
        self.text
    }

    /// What is billed. A count that is left out is zero; but text was not written with no tokens, and a line is at least
    /// one. Never more than was asked for, or than a prompt can have.
    fn usage(&self, last: Option<&Line>) -> Usage {
        let prompt_tokens = last.and_then(|line| line.prompt_eval_count).unwrap_or(0);
        let generated_tokens = last.and_then(|line| line.eval_count).unwrap_or(self.lines);
        Usage::tokens(prompt_tokens.min(self.context_tokens), generated_tokens.min(self.max_tokens))
    }
}

fn finish(last: &Line) -> Result<FinishReason, InferenceError> {
    match last.done_reason.as_deref() {
        Some("stop") => Ok(FinishReason::Stop),
        Some("length") => Ok(FinishReason::Length),
        // The engine behind the server hung up on it.
        None => Err(InferenceError::Backend("the answer broke off: its last line has no reason".to_owned())),
        Some(_) => Err(InferenceError::Backend("the answer ended for a reason that is no end of an answer".to_owned())),
    }
}

fn understand(line: &str) -> Result<Line, InferenceError> {
    let line: Line = parse(line.as_bytes())?;
    match &line.error {
        None => Ok(line),
        Some(error) => {
            let said = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
            Err(InferenceError::Backend(format!("the answer broke off: {}", words(said.as_bytes()))))
        }
    }
}

async fn next_of(lines: &mut Lines) -> Option<Line> {
    let line: Result<Option<String>, Trouble> = lines.next().await;
    understand(&line.ok()??).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::inference_contract::ask;

    fn line(value: serde_json::Value) -> Line {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_a_server_sends_and_counts_has_bounds() {
        let mut answer = Answer::new(&Generate { max_tokens: 5, ..ask("a") }, None, 100, 50);
        let last = line(json!({"done": true, "prompt_eval_count": 1e30, "eval_count": 4_294_967_296_u64}));
        assert_eq!(answer.usage(Some(&last)), Usage::tokens(50, 5));
        let half = line(json!({"message": {"content": "x".repeat(25), "thinking": "y".repeat(25)}}));
        assert_eq!([answer.check(&half), answer.check(&half)], [Ok(()), Ok(())]);
        assert!(matches!(answer.check(&half), Err(InferenceError::Backend(_))));
    }

    #[test]
    fn lines_that_say_nothing_are_no_sign_of_life() {
        let mut answer = Answer::new(&ask("a"), None, 100, 50);
        let (nothing, thought) = (line(json!({})), line(json!({"message": {"thinking": "y"}})));
        for _ in 1..MOST_EMPTY_EVENTS {
            answer.check(&nothing).unwrap();
        }
        answer.check(&thought).unwrap();
        for _ in 1..MOST_EMPTY_EVENTS {
            answer.check(&nothing).unwrap();
        }
        assert!(matches!(answer.check(&nothing), Err(InferenceError::Backend(_))));
    }
}
