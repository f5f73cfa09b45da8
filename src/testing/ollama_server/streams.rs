//! What the server says in lines: an answer, or how far a download is.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Fault, NOW, Shared, Waiting, error, missing};
use crate::inference::{Format, Generate, Generation, Message, Piece, Role, Sampling};
use crate::job::FinishReason;

/// Pieces of an answer that wait for the network.
const AHEAD: usize = 64;

/// What a client that reads keeps alive.
type Listener = (mpsc::Receiver<io::Result<Bytes>>, Waiting, DropGuard);

/// A body of lines, and the end of the pipe into which they are written.
fn lines(waiting: Waiting, by_bytes: bool) -> (Speaker, Response) {
    let (say, said) = mpsc::channel::<io::Result<Bytes>>(AHEAD);
    let stopped = CancellationToken::new();
    let speaker = Speaker { say, by_bytes, said: 0, stopped: stopped.clone() };
    // What is dropped together with the body when the client hangs up.
    let listener = (said, waiting, stopped.drop_guard());
    let body = stream::unfold(listener, |(mut said, mut waiting, guard): Listener| async move {
        // Lets go what was said before.
        tokio::task::yield_now().await;
        let piece = said.recv().await;
        waiting.served = !matches!(piece, Some(Ok(_)));
        piece.map(|piece| (piece, (said, waiting, guard)))
    });
    (speaker, ([("content-type", "application/x-ndjson")], Body::from_stream(body)).into_response())
}

struct Speaker {
    say: mpsc::Sender<io::Result<Bytes>>,
    by_bytes: bool,
    said: usize,
    stopped: CancellationToken,
}

/// The client is gone, or the stream was ended on command.
struct Over;

impl Speaker {
    /// Says a line, or what is to be said in its place.
    async fn line(&mut self, line: &Value, fault: Option<&Fault>) -> Result<(), Over> {
        let text = format!("{line}\n");
        let number = self.said;
        self.said += 1;
        match fault {
            Some(Fault::SayAt(at, instead)) if *at == number => {
                self.bytes(format!("{instead}\n").as_bytes()).await?;
                Err(Over)
            }
            Some(Fault::CutAt(at)) if *at == number => {
                self.bytes(&text.as_bytes()[..text.len() / 2]).await?;
                let _ = self.say.send(Err(io::Error::other("cut"))).await;
                Err(Over)
            }
            Some(Fault::StallAt(at)) if *at == number => {
                self.bytes(&text.as_bytes()[..text.len() / 2]).await?;
                self.stopped.cancelled().await;
                Err(Over)
            }
            _ => self.bytes(text.as_bytes()).await,
        }
    }

    async fn bytes(&mut self, bytes: &[u8]) -> Result<(), Over> {
        let size = if self.by_bytes { 1 } else { bytes.len().max(1) };
        for piece in bytes.chunks(size) {
            self.say.send(Ok(Bytes::copy_from_slice(piece))).await.map_err(|_| Over)?;
        }
        Ok(())
    }
}

/// Fetches a model of the library.
pub(super) fn pull(shared: &Arc<Shared>, asked: Value, fault: Option<Fault>, waiting: Waiting) -> Response {
    let by_bytes = shared.script().by_bytes;
    let (mut speaker, response) = lines(waiting, by_bytes);
    let shared = Arc::clone(shared);
    // It ends when everything is said or nobody listens.
    tokio::spawn(async move {
        let name = asked["model"].as_str().or_else(|| asked["name"].as_str()).unwrap_or_default();
        let in_library = shared.script().library.iter().find(|model| model.name == name).cloned();
        let mut told = vec![json!({"status": "pulling manifest"})];
        match &in_library {
            None => told.push(json!({"error": "pull model manifest: file does not exist"})),
            Some(model) => {
                let (digest, total) = (format!("sha256:{}", model.digest), model.bytes);
                let status = format!("pulling {}", &model.digest[..12]);
                // What is not there yet is left out.
                told.push(json!({"status": status, "digest": digest, "total": total}));
                for completed in [total / 2, total] {
                    let file = json!({"status": status, "digest": digest, "total": total, "completed": completed});
                    told.push(file);
                }
                told.extend(
                    ["verifying sha256 digest", "writing manifest", "success"].map(|said| json!({"status": said})),
                );
            }
        }
        for line in told {
            if line["status"] == "success"
                && let Some(model) = &in_library
            {
                shared.script().models.push(model.clone());
            }
            if speaker.line(&line, fault.as_ref()).await.is_err() {
                return;
            }
        }
    });
    response
}

/// Says what the model says.
pub(super) async fn chat(shared: &Arc<Shared>, asked: &Value, fault: Option<Fault>, mut waiting: Waiting) -> Response {
    let Some(model) = shared.find(asked) else {
        waiting.served = true;
        return missing(asked);
    };
    let request = match request(asked, fault.as_ref()) {
        Some(request) if !request.messages.is_empty() => request,
        _ => {
            waiting.served = true;
            return error(400, "invalid request");
        }
    };
    if let Some(refusal) = refuse_long(shared, asked, &request).await {
        waiting.served = true;
        return refusal;
    }
    let by_bytes = shared.script().by_bytes;
    let (mut speaker, response) = lines(waiting, by_bytes);
    let backend = Arc::clone(&shared.backend);
    // It ends when everything is said or nobody listens.
    tokio::spawn(async move {
        let stop = speaker.stopped.clone();
        let (sink, mut pieces) = mpsc::unbounded_channel();
        let running = async {
            let answer = backend.generate(&request, Some(sink), &stop).await;
            answer.map_err(|error| error.to_string())
        };
        let telling = async {
            while let Some(piece) = pieces.recv().await {
                if speaker.line(&of_piece(&model.name, &piece), fault.as_ref()).await.is_err() {
                    stop.cancel();
                    return Err(Over);
                }
            }
            Ok(())
        };
        let (answer, told) = tokio::join!(running, telling);
        if told.is_err() || fault == Some(Fault::NoLastLine) {
            return;
        }
        let last = match answer {
            Ok(generation) => last(&model.name, &generation, fault.as_ref()),
            Err(error) => json!({"error": error}),
        };
        // Whoever hung up doesn't hear it.
        let _ = speaker.line(&last, fault.as_ref()).await;
    });
    response
}

/// Refuses a prompt that is longer than the context; one that may be cut is not refused.
async fn refuse_long(shared: &Shared, asked: &Value, request: &Generate) -> Option<Response> {
    let context = u32::try_from(asked["options"]["num_ctx"].as_u64()?).ok()?;
    let counted = shared.backend.count_prompt_tokens(None, &request.messages).await.ok()?;
    if asked["truncate"] != false || counted.count < context {
        return None;
    }
    let inner = json!({"error": {
        "code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": counted.count, "n_ctx": context,
        "message": format!("request ({} tokens) exceeds the available context size ({context} tokens)", counted.count),
    }});
    Some(error(400, &inner.to_string()))
}

fn of_piece(model: &str, piece: &Piece) -> Value {
    let message = json!({"role": "assistant", "content": piece.text});
    json!({"model": model, "created_at": NOW, "message": message, "done": false})
}

/// The last line. Whatever is zero or unknown is left out.
fn last(model: &str, generation: &Generation, fault: Option<&Fault>) -> Value {
    let reason = match (fault, generation.finish) {
        (Some(Fault::Reason(reason)), _) => *reason,
        (_, FinishReason::Stop) => Some("stop"),
        (_, FinishReason::Length) => Some("length"),
    };
    let mut last = json!({
        "model": model, "created_at": NOW, "message": {"role": "assistant", "content": ""}, "done": true,
        "total_duration": 5_000_000, "load_duration": 1_000_000,
    });
    if let Some(reason) = reason {
        last["done_reason"] = reason.into();
    }
    let usage = generation.usage;
    if fault != Some(&Fault::NoCounts) {
        for (name, count) in [("prompt_eval_count", usage.prompt_tokens), ("eval_count", usage.generated_tokens)] {
            if count > 0 {
                last[name] = count.into();
            }
        }
    }
    last
}

fn request(asked: &Value, fault: Option<&Fault>) -> Option<Generate> {
    let options = &asked["options"];
    let messages = asked["messages"].as_array()?.iter().map(|message| {
        let role = match message["role"].as_str()? {
            "system" => Role::System,
            "assistant" => Role::Assistant,
            _ => Role::User,
        };
        Some(Message::new(role, message["content"].as_str()?))
    });
    let stop = options["stop"].as_array().into_iter().flatten().filter_map(|stop| stop.as_str().map(str::to_owned));
    let stop = if fault == Some(&Fault::IgnoreStops) { Vec::new() } else { stop.collect() };
    let limit = options["num_predict"].as_i64().unwrap_or(-1);
    Some(Generate {
        model: None,
        messages: messages.collect::<Option<Vec<_>>>()?,
        sampling: Sampling { temperature: options["temperature"].as_f64(), ..Sampling::default() },
        stop,
        max_tokens: u32::try_from(limit).unwrap_or(u32::MAX),
        format: match &asked["format"] {
            Value::Null => Format::Text,
            Value::String(_) => Format::Json,
            schema => Format::Schema(schema.clone()),
        },
    })
}
