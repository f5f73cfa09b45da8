//! Reading an answer's events. An answer is whole when its server said why it ended and what it counted; whatever else
//! ends a stream is a failure, because half an answer must not be sold as a whole one.

use std::fmt;
use std::ops::ControlFlow;

use serde::Deserialize;
use serde_json::Value;

use super::refusal::broken_off;
use crate::inference::http::{Events, Trouble, parse};
use crate::inference::stop::StopFilter;
use crate::inference::told::{self, MOST_EMPTY_EVENTS};
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

/// New text. What a model thinks to itself is no part of the answer, and goes by either name.
#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning_content: Option<Value>,
    reasoning: Option<Value>,
}

impl Delta {
    /// Bytes it thought to itself.
    fn thoughts(&self) -> usize {
        let bytes = |thought: &Option<Value>| thought.as_ref().and_then(Value::as_str).map_or(0, str::len);
        bytes(&self.reasoning_content).max(bytes(&self.reasoning))
    }
}

/// Some servers send it empty until the end.
#[derive(Deserialize)]
struct Counted {
    #[serde(default, deserialize_with = "told::tokens")]
    prompt_tokens: Option<u32>,
    #[serde(default, deserialize_with = "told::tokens")]
    completion_tokens: Option<u32>,
}

/// llama.cpp's count while it writes.
#[derive(Deserialize)]
struct Timings {
    #[serde(default, deserialize_with = "told::tokens")]
    predicted_n: Option<u32>,
}

/// The most that an answer can be. What a server says beyond it is its mistake or its lie.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of its text, and of what the model thinks to itself: more is a failure.
    pub bytes: usize,
    /// Tokens of its prompt: the model's context, or `u32::MAX` when nobody knows it. More count as this many.
    pub prompt_tokens: u32,
    /// Tokens of the answer that were asked for. More count as this many.
    pub generated_tokens: u32,
}

/// An answer while it is read.
pub struct Reading<'a> {
    filter: StopFilter,
    sink: Option<&'a TextSink>,
    bounds: Bounds,
    /// Bytes that came, thoughts included.
    bytes: usize,
    /// Whether any of them were text.
    wrote: bool,
    /// Events in a row that said nothing.
    empty: u32,
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
    /// An answer that ends at any of `stop`, whose pieces go to `sink`, and which is within `bounds`.
    pub fn new(stop: &[String], sink: Option<&'a TextSink>, bounds: Bounds) -> Self {
        Self {
            filter: StopFilter::new(stop),
            sink,
            bounds,
            bytes: 0,
            wrote: false,
            empty: 0,
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
        let mut says_something = event.usage.as_ref().is_some_and(|usage| usage.completion_tokens.is_some());
        let so_far = event.timings.and_then(|timings| timings.predicted_n);
        let so_far = so_far.or(event.usage.as_ref().and_then(|usage| usage.completion_tokens));
        if let Some(Counted { prompt_tokens: Some(prompt_tokens), completion_tokens: Some(generated_tokens) }) =
            event.usage
        {
            self.usage = Some(Usage::tokens(
                prompt_tokens.min(self.bounds.prompt_tokens),
                generated_tokens.min(self.bounds.generated_tokens),
            ));
        }
        for choice in event.choices.unwrap_or_default().into_iter().filter(|choice| choice.index == 0) {
            if let Some(delta) = choice.delta {
                let thoughts = delta.thoughts();
                self.came(thoughts)?;
                says_something |= thoughts > 0;
                if let Some(text) = delta.content.filter(|text| !text.is_empty()) {
                    says_something = true;
                    self.write(&text, so_far)?;
                }
            }
            if let Some(reason) = choice.finish_reason {
                self.finish = Some(finish_reason(&reason, self.wrote)?);
            }
        }
        self.empty = if says_something { 0 } else { self.empty.saturating_add(1) };
        if self.empty >= MOST_EMPTY_EVENTS {
            return Err(InferenceError::Backend("it sends events without end that say nothing".to_owned()));
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
        let usage = self.usage.filter(|usage| usage.generated_tokens > 0 || !self.wrote);
        let usage = usage.ok_or_else(|| backend("it does not count tokens, so its answers can't be billed"))?;
        let held = std::mem::replace(&mut self.filter, StopFilter::new(&[])).finish();
        self.show(held);
        // The server may have written on behind a stop string that only we look for.
        let finish = if self.stopped { FinishReason::Stop } else { finish };
        Ok(Answer { text: self.text, finish, usage, model: self.model })
    }

    fn write(&mut self, text: &str, so_far: Option<u32>) -> Result<(), InferenceError> {
        self.came(text.len())?;
        self.wrote = true;
        // An event holds a token or more.
        let tokens = so_far.map_or(self.tokens.saturating_add(1), |so_far| so_far.max(self.tokens));
        self.tokens = tokens.min(self.bounds.generated_tokens);
        let passed = self.filter.push(text);
        self.stopped = passed.stopped;
        self.show(passed.text);
        Ok(())
    }

    fn came(&mut self, bytes: usize) -> Result<(), InferenceError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.bounds.bytes {
            return Err(Trouble::TooLarge(self.bounds.bytes).into());
        }
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

/// What ended an answer, of which something was written or nothing yet.
fn finish_reason(reason: &str, wrote: bool) -> Result<FinishReason, InferenceError> {
    let other = match reason {
        "stop" => return Ok(FinishReason::Stop),
        "length" => return Ok(FinishReason::Length),
        // The conversation brought it about, and any customer can: never the server's fault. What was written is paid for.
        "content_filter" if wrote => return Ok(FinishReason::Stop),
        "content_filter" => {
            return Err(InferenceError::BadRequest("its content filter refuses the conversation".to_owned()));
        }
        "tool_calls" | "function_call" => "the model wants to call a tool instead of answering",
        _ => "it ended the answer for a reason that is not known here",
    };
    Err(InferenceError::Backend(other.to_owned()))
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
