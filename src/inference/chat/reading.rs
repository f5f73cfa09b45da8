//! Reading an answer's events. An answer is whole when its server said why it ended and what it counted; whatever else
//! ends a stream is a failure, because half an answer must not be sold as a whole one.

use std::fmt;
use std::ops::ControlFlow;

use serde::Deserialize;
use serde_json::Value;

use super::refusal::broken_off;
use crate::inference::http::{Events, Trouble, parse};
use crate::inference::stop::StopFilter;
use crate::inference::{InferenceError, Piece, TextSink};
use crate::job::outcome::{FinishReason, Usage};

/// The data of the event after which nothing comes.
const DONE: &str = "[DONE]";

/// A whole answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its text, without the stop string.
    pub text: String,
    /// Why it ended.
    pub finish: FinishReason,
    /// Tokens, as the server counted them.
    pub usage: Usage,
    /// What the server calls the model, where it says so.
    pub model: Option<String>,
}

impl fmt::Debug for Answer {
    /// Results stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("text", &format_args!("{} bytes", self.text.len()))
            .field("finish", &self.finish)
            .field("usage", &self.usage)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Event {
    choices: Option<Vec<Choice>>,
    usage: Option<Counted>,
    error: Option<Value>,
    timings: Option<Timings>,
    model: Option<String>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

/// New text. What a model thinks to itself comes as `reasoning_content` or `reasoning` and is no part of the answer.
#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

/// Some servers send it empty until the end.
#[derive(Deserialize)]
struct Counted {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
}

/// llama.cpp's count while it writes.
#[derive(Deserialize)]
struct Timings {
    predicted_n: Option<u32>,
}

/// An answer while it is read.
pub struct Reading<'a> {
    filter: StopFilter,
    sink: Option<&'a TextSink>,
    most_bytes: usize,
    bytes: usize,
    text: String,
    tokens: u32,
    stopped: bool,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
    model: Option<String>,
}

impl fmt::Debug for Reading<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("bytes", &self.bytes).field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

/// Reads an answer to its end.
///
/// # Errors
/// [`InferenceError`] when it does not come whole.
pub async fn read(mut events: Events, mut reading: Reading<'_>) -> Result<Answer, InferenceError> {
    while let Some(data) = events.next().await? {
        if reading.take(&data)?.is_break() {
            break;
        }
    }
    reading.finish()
}

impl<'a> Reading<'a> {
    /// An answer that ends at any of `stop`, whose pieces go to `sink`, and which has at most `most_bytes`.
    pub fn new(stop: &[String], sink: Option<&'a TextSink>, most_bytes: usize) -> Self {
        Self {
            filter: StopFilter::new(stop),
            sink,
            most_bytes,
            bytes: 0,
            text: String::new(),
            tokens: 0,
            stopped: false,
            finish: None,
            usage: None,
            model: None,
        }
    }

    /// Takes the data of one event; breaks after the last.
    ///
    /// # Errors
    /// [`InferenceError`] when it is no event of an answer, tells of an error, or is too much.
    pub fn take(&mut self, data: &str) -> Result<ControlFlow<()>, InferenceError> {
        if data.trim() == DONE {
            return Ok(ControlFlow::Break(()));
        }
        let event: Event = parse(data.as_bytes())?;
        if let Some(error) = &event.error {
            return Err(broken_off(error));
        }
        if event.choices.is_none() && event.usage.is_none() {
            return Err(Trouble::Garbage("an event holds no part of an answer").into());
        }
        if let Some(model) = event.model.filter(|_| self.model.is_none()) {
            self.model = Some(model);
        }
        let so_far = event.timings.and_then(|timings| timings.predicted_n);
        let so_far = so_far.or(event.usage.as_ref().and_then(|usage| usage.completion_tokens));
        if let Some(Counted { prompt_tokens: Some(prompt_tokens), completion_tokens: Some(generated_tokens) }) =
            event.usage
        {
            self.usage = Some(Usage { prompt_tokens, generated_tokens });
        }
        for choice in event.choices.unwrap_or_default().into_iter().filter(|choice| choice.index == 0) {
            if let Some(text) = choice.delta.and_then(|delta| delta.content).filter(|text| !text.is_empty()) {
                self.write(&text, so_far)?;
            }
            if let Some(reason) = choice.finish_reason {
                self.finish = Some(finish_reason(&reason)?);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The whole answer.
    ///
    /// # Errors
    /// [`InferenceError::Backend`] when it is not whole, or was not counted.
    pub fn finish(mut self) -> Result<Answer, InferenceError> {
        let backend = |what: &str| InferenceError::Backend(what.to_owned());
        let finish = self.finish.ok_or_else(|| backend("it broke off before the answer was whole"))?;
        let usage = self.usage.filter(|usage| usage.generated_tokens > 0 || self.bytes == 0);
        let usage = usage.ok_or_else(|| backend("it does not count tokens, so its answers can't be billed"))?;
        let held = std::mem::replace(&mut self.filter, StopFilter::new(&[])).finish();
        self.show(held);
        // The server may have written on behind a stop string that only we look for.
        let finish = if self.stopped { FinishReason::Stop } else { finish };
        Ok(Answer { text: self.text, finish, usage, model: self.model })
    }

    fn write(&mut self, text: &str, so_far: Option<u32>) -> Result<(), InferenceError> {
        self.bytes = self.bytes.saturating_add(text.len());
        if self.bytes > self.most_bytes {
            return Err(Trouble::TooLarge(self.most_bytes).into());
        }
        // An event holds a token or more.
        self.tokens = so_far.map_or(self.tokens.saturating_add(1), |so_far| so_far.max(self.tokens));
        let passed = self.filter.push(text);
        self.stopped = passed.stopped;
        self.show(passed.text);
        Ok(())
    }

    fn show(&mut self, text: String) {
        if text.is_empty() {
            return;
        }
        self.text.push_str(&text);
        if let Some(sink) = self.sink {
            // Nobody has to read.
            let _ = sink.send(Piece { text, tokens: self.tokens });
        }
    }
}

fn finish_reason(reason: &str) -> Result<FinishReason, InferenceError> {
    let other = match reason {
        "stop" => return Ok(FinishReason::Stop),
        "length" => return Ok(FinishReason::Length),
        "content_filter" => "its content filter ended the answer",
        "tool_calls" | "function_call" => "the model wants to call a tool instead of answering",
        _ => "it ended the answer for a reason that is not known here",
    };
    Err(InferenceError::Backend(other.to_owned()))
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
