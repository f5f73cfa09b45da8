//! One answer, from the lines that Ollama sends.

use super::super::http::{Lines, Trouble, parse, words};
use super::super::stop::StopFilter;
use super::super::{Generate, InferenceError, Piece, TextSink};
use super::wire::Line;
use crate::job::outcome::{FinishReason, Usage};

/// An answer that is being written.
#[derive(Debug)]
pub(super) struct Answer {
    text: String,
    filter: StopFilter,
    sink: Option<TextSink>,
    /// Lines that had text. A line is a token, or several of which only the last made a whole character.
    lines: u32,
    max_tokens: u32,
}

/// A finished answer.
pub(super) type Finished = (String, FinishReason, Usage);

impl Answer {
    /// The answer to `request`.
    pub(super) fn new(request: &Generate, sink: Option<TextSink>) -> Self {
        let filter = StopFilter::new(&request.stop);
        Self { text: String::new(), filter, sink, lines: 0, max_tokens: request.max_tokens }
    }

    /// Reads it to its end. Dropping the future closes the connection, at which the server stops.
    ///
    /// # Errors
    /// [`InferenceError::Backend`] when it breaks off: a connection that ends without a last line, or a line that says so.
    pub(super) async fn read(mut self, mut lines: Lines) -> Result<Finished, InferenceError> {
        while let Some(line) = lines.next().await? {
            let line = understand(&line)?;
            if self.add(&line) {
                // The server finds the stop string too, so that its next line is the last, which has the counts. From one
                // that writes on, no more is taken.
                let last = if line.done { Some(line) } else { next_of(&mut lines).await.filter(|line| line.done) };
                let usage = self.usage(last.as_ref());
                return Ok((self.text, FinishReason::Stop, usage));
            }
            if line.done {
                let finish = finish(&line)?;
                let usage = self.usage(Some(&line));
                return Ok((self.into_text(), finish, usage));
            }
        }
        Err(InferenceError::Backend("the answer broke off: it has no last line".to_owned()))
    }

    /// Adds what a line says, and tells whether a stop string ended it.
    fn add(&mut self, line: &Line) -> bool {
        if !line.message.content.is_empty() || !line.message.thinking.is_empty() {
            self.lines = self.lines.saturating_add(1);
        }
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
    /// one. Never more than was asked for.
    fn usage(&self, last: Option<&Line>) -> Usage {
        let prompt_tokens = last.and_then(|line| line.prompt_eval_count).unwrap_or(0);
        let generated_tokens = last.and_then(|line| line.eval_count).unwrap_or(self.lines);
        Usage { prompt_tokens, generated_tokens: generated_tokens.min(self.max_tokens) }
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
