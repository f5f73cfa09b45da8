//! One answer, from the engine's stream.

use std::sync::Arc;

use mistralrs::{NormalRequest, Request, RequestLike, Response, TextMessages};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::super::stop::StopFilter;
use super::super::{Generate, InferenceError, Piece, TextSink};
use super::sampling::Drawn;
use super::supervisor::Supervisor;
use super::{grammar, sampling};
use crate::job::outcome::{FinishReason, Usage};

/// Responses the engine may be ahead of the draining task, which never waits.
const ENGINE_AHEAD: usize = 64;

/// What is to be answered.
pub(super) struct Run<'a> {
    pub(super) request: &'a Generate,
    pub(super) chat: TextMessages,
    pub(super) prompt_tokens: u32,
    pub(super) max_tokens: u32,
    pub(super) end_tokens: &'a [u32],
    pub(super) sink: Option<TextSink>,
}

impl Run<'_> {
    /// Answers. Dropping the future stops the engine at its next token; `turn` is held until then.
    pub(super) async fn on(
        mut self,
        engine: &Arc<Supervisor>,
        turn: OwnedSemaphorePermit,
    ) -> Result<(String, FinishReason, Usage), InferenceError> {
        let drawn = Arc::new(Drawn::default());
        let mut responses = self.begin(engine, turn, Arc::clone(&drawn)).await?;
        let mut answer = Answer::new(&self.request.stop, self.sink.take());
        while let Some(response) = responses.recv().await {
            let chunk = match response {
                Response::Chunk(chunk) => chunk,
                Response::ModelError(error, _) => return Err(InferenceError::Backend(error)),
                Response::InternalError(error) | Response::ValidationError(error) => {
                    return Err(InferenceError::Backend(error.to_string()));
                }
                _ => return Err(InferenceError::Backend("an answer of an unexpected kind".to_owned())),
            };
            answer.chunks = answer.chunks.saturating_add(1);
            for choice in chunk.choices {
                if answer.add(choice.delta.content.as_deref().unwrap_or_default()) {
                    // The engine's count runs ahead of what was read; one chunk is one token, or one character of several.
                    let usage = self.usage(answer.chunks);
                    return Ok((answer.text, FinishReason::Stop, usage));
                }
                let finish = match choice.finish_reason.as_deref() {
                    None => continue,
                    Some("stop") => FinishReason::Stop,
                    Some("length") => FinishReason::Length,
                    Some(other) => return Err(InferenceError::Backend(format!("the answer ended with '{other}'"))),
                };
                let usage = match &chunk.usage {
                    Some(counted) => self.billed(counted),
                    None => self.usage(drawn.count()),
                };
                return Ok((answer.into_text(), finish, usage));
            }
        }
        // An answer cut inside a character of several tokens ends without its last chunk, by the limit or by the model.
        let generated_tokens = drawn.count();
        if generated_tokens >= self.max_tokens {
            return Ok((answer.into_text(), FinishReason::Length, self.usage(generated_tokens)));
        }
        if drawn.ended_by(self.end_tokens) {
            return Ok((answer.into_text(), FinishReason::Stop, self.usage(generated_tokens)));
        }
        Err(InferenceError::Backend("the answer broke off".to_owned()))
    }

    /// The engine's own count.
    fn billed(&self, counted: &mistralrs::Usage) -> Usage {
        let generated_tokens = u32::try_from(counted.completion_tokens).unwrap_or(u32::MAX);
        let prompt_tokens = u32::try_from(counted.prompt_tokens).unwrap_or(u32::MAX);
        Usage { prompt_tokens, ..self.usage(generated_tokens) }
    }

    /// Never more than was asked for: the engine writes a token too many when the only one is half a character.
    fn usage(&self, generated_tokens: u32) -> Usage {
        Usage::tokens(self.prompt_tokens, generated_tokens.min(self.max_tokens))
    }

    async fn begin(
        &mut self,
        engine: &Arc<Supervisor>,
        turn: OwnedSemaphorePermit,
        drawn: Arc<Drawn>,
    ) -> Result<mpsc::UnboundedReceiver<Response>, InferenceError> {
        let (to_task, from_engine) = mpsc::channel(ENGINE_AHEAD);
        let params = sampling::engine_params(&self.request.sampling, self.max_tokens);
        let mut request = NormalRequest::new_simple(self.chat.take_messages(), params, to_task, 0, None, None);
        request.is_streaming = true;
        request.constraint = grammar::constraint(&self.request.format, self.end_tokens);
        request.logits_processors = Some(vec![Arc::new(sampling::Draw::new(&self.request.sampling, drawn))]);
        let thread = engine.send(Request::Normal(Box::new(request))).await?;
        let (to_reader, responses) = mpsc::unbounded_channel();
        tokio::spawn(drain(from_engine, to_reader, thread, Arc::clone(engine), turn));
        Ok(responses)
    }
}

/// Passes the engine's responses on, faster than it makes them. When nobody reads any more, the engine's next token tells
/// it so; but not before its first one, because until then it takes a missing listener for a reason to die. Ends with the
/// engine's thread, even when that leaves the answer's channel open.
async fn drain(
    mut from_engine: mpsc::Receiver<Response>,
    to_reader: mpsc::UnboundedSender<Response>,
    thread: mpsc::Sender<Request>,
    engine: Arc<Supervisor>,
    _turn: OwnedSemaphorePermit,
) {
    let mut begun = false;
    loop {
        tokio::select! {
            biased;
            () = to_reader.closed(), if begun => return,
            response = from_engine.recv() => match response {
                None => break,
                Some(response) => {
                    begun = true;
                    let _ = to_reader.send(response);
                }
            },
            () = thread.closed() => {
                while let Ok(response) = from_engine.try_recv() {
                    let _ = to_reader.send(response);
                }
                break;
            }
        }
    }
    engine.notice_death(&thread);
}

/// The text so far, shown as it comes.
struct Answer {
    filter: StopFilter,
    sink: Option<TextSink>,
    text: String,
    chunks: u32,
}

impl Answer {
    fn new(stops: &[String], sink: Option<TextSink>) -> Self {
        Self { filter: StopFilter::new(stops), sink, text: String::new(), chunks: 0 }
    }

    /// Adds a piece; true when a stop string ended the answer.
    fn add(&mut self, piece: &str) -> bool {
        let passed = self.filter.push(piece);
        show(&self.sink, &mut self.text, &passed.text, self.chunks);
        passed.stopped
    }

    /// The whole text, with what was held back.
    fn into_text(mut self) -> String {
        show(&self.sink, &mut self.text, &self.filter.finish(), self.chunks);
        self.text
    }
}

fn show(sink: &Option<TextSink>, text: &mut String, piece: &str, tokens: u32) {
    if piece.is_empty() {
        return;
    }
    text.push_str(piece);
    if let Some(sink) = sink {
        // Nobody has to read.
        let _ = sink.send(Piece { text: piece.to_owned(), tokens });
    }
}
