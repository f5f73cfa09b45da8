//! A server with OpenAI's interface in front of any backend, in the form that vLLM gives it, so that the client is tested over
//! real HTTP.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::inference::{Format, Generate, Generation, Inference, InferenceError, Message, ModelInfo, Piece, Sampling};
use crate::job::FinishReason;

/// What kind of server it is.
#[derive(Debug, Clone, Default)]
pub struct Manners {
    /// The key it wants.
    pub key: Option<String>,
    /// It tells the context of its models and counts prompts (`/tokenize`), as vLLM does.
    pub vllm: bool,
    /// It never tells how many tokens it used.
    pub silent_about_usage: bool,
    /// Every byte of a stream comes alone.
    pub bytewise: bool,
    /// It has no list of models.
    pub no_list: bool,
    /// It knows `max_completion_tokens` only, as OpenAI's newer models do.
    pub limit_renamed: bool,
}

/// A running server.
#[derive(Debug)]
pub struct OpenAiServer {
    address: SocketAddr,
    desk: Arc<Desk>,
    _task: AbortOnDropHandle<()>,
}

struct Desk {
    backend: Arc<dyn Inference>,
    manners: Manners,
    /// Runs that ended because the client went away.
    abandoned: watch::Sender<u32>,
    /// The bodies of the requests for an answer, in the order they came.
    asked: watch::Sender<Vec<Value>>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("manners", &self.manners).finish_non_exhaustive()
    }
}

/// The body of a request, as far as the backends here can do what it asks.
#[derive(Deserialize)]
struct Asked {
    model: String,
    messages: Vec<Message>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f64>,
    seed: Option<u64>,
    #[serde(default)]
    stop: Vec<String>,
}

#[derive(Deserialize)]
struct ToEmbed {
    model: String,
    input: Vec<String>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

impl OpenAiServer {
    /// Serves `backend`.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub async fn start(backend: Arc<dyn Inference>, manners: Manners) -> io::Result<Self> {
        super::faulty_server::crypto();
        let desk = Arc::new(Desk {
            backend,
            manners,
            abandoned: watch::Sender::new(0),
            asked: watch::Sender::new(Vec::new()),
        });
        let routes = Router::new().route("/v1/chat/completions", post(chat));
        let mut routes = routes.route("/v1/embeddings", post(embeddings));
        if !desk.manners.no_list {
            routes = routes.route("/v1/models", get(models));
        }
        if desk.manners.vllm {
            routes = routes.route("/tokenize", post(tokenize));
        }
        let guarded = middleware::from_fn_with_state(Arc::clone(&desk), authorize);
        let routes = routes.layer(guarded).with_state(Arc::clone(&desk));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        // Small answers must not wait for each other.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let task = tokio::spawn(async move {
            // It ends with the process or when it is aborted.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { address, desk, _task: AbortOnDropHandle::new(task) })
    }

    /// The base of its interface.
    ///
    /// # Panics
    /// Never: a socket address makes a URL.
    pub fn url(&self) -> Url {
        format!("http://{}/v1", self.address).parse().expect("a socket address makes a URL")
    }

    /// Where it listens.
    ///
    /// # Panics
    /// Never: a socket address makes a URL.
    pub fn root(&self) -> Url {
        format!("http://{}/", self.address).parse().expect("a socket address makes a URL")
    }

    /// The bodies of the requests for an answer so far.
    pub fn asked(&self) -> Vec<Value> {
        self.desk.asked.borrow().clone()
    }

    /// Waits until `runs` runs have ended because their client went away.
    pub async fn wait_for_abandoned(&self, runs: u32) {
        // The sender lives as long as the server.
        let _ = self.desk.abandoned.subscribe().wait_for(|count| *count >= runs).await;
    }
}

async fn authorize(State(desk): State<Arc<Desk>>, headers: HeaderMap, request: Request, next: Next) -> Response {
    let sent = headers.get("authorization").and_then(|value| value.to_str().ok());
    match &desk.manners.key {
        Some(key) if sent != Some(&format!("Bearer {key}")) => {
            refusal(401, "Unauthorized", "invalid_request_error", Value::from("invalid_api_key"))
        }
        _ => next.run(request).await,
    }
}

async fn models(State(desk): State<Arc<Desk>>) -> Response {
    let Ok(models) = desk.backend.models().await else {
        return refusal(500, "no models", "server_error", Value::Null);
    };
    let card = |model: &ModelInfo| {
        let mut card = json!({"id": model.name, "object": "model", "created": 1_700_000_000, "owned_by": "coinop"});
        if desk.manners.vllm {
            card["max_model_len"] = json!(model.context_tokens);
        }
        card
    };
    // Real ones list them all together and don't say which is which.
    let embedding = desk.backend.embedding_models().await.unwrap_or_default();
    let cards: Vec<Value> = models.iter().chain(&embedding).map(card).collect();
    axum::Json(json!({"object": "list", "data": cards})).into_response()
}

async fn tokenize(State(desk): State<Arc<Desk>>, axum::Json(body): axum::Json<Value>) -> Response {
    let Ok(asked) = Asked::deserialize(&body) else {
        return refusal(400, "unreadable", "BadRequestError", Value::from(400));
    };
    match desk.backend.count_prompt_tokens(Some(&asked.model), &asked.messages).await {
        Ok(tokens) => axum::Json(json!({"count": tokens.count, "max_model_len": 4_096, "tokens": []})).into_response(),
        Err(error) => refused(&error),
    }
}

async fn embeddings(State(desk): State<Arc<Desk>>, axum::Json(body): axum::Json<Value>) -> Response {
    let Ok(asked) = ToEmbed::deserialize(&body) else {
        return refusal(400, "unreadable", "BadRequestError", Value::from(400));
    };
    desk.asked.send_modify(|bodies| bodies.push(body));
    match desk.backend.embed(Some(&asked.model), &asked.input, &CancellationToken::new()).await {
        Ok(made) => {
            // In whatever order.
            let items = made.vectors.iter().enumerate().rev();
            let item =
                |(at, vector): (usize, &Vec<f32>)| json!({"object": "embedding", "index": at, "embedding": vector});
            let usage = json!({"prompt_tokens": made.tokens, "total_tokens": made.tokens});
            let data: Vec<Value> = items.map(item).collect();
            axum::Json(json!({"object": "list", "model": asked.model, "data": data, "usage": usage})).into_response()
        }
        Err(error) => refused(&error),
    }
}

async fn chat(State(desk): State<Arc<Desk>>, axum::Json(body): axum::Json<Value>) -> Response {
    let Ok(asked) = Asked::deserialize(&body) else {
        return refusal(400, "unreadable", "invalid_request_error", Value::Null);
    };
    desk.asked.send_modify(|bodies| bodies.push(body));
    if desk.manners.limit_renamed && asked.max_tokens.is_some() {
        let error = json!({"message": "use the other name", "type": "invalid_request_error", "param": "max_tokens",
            "code": "unsupported_parameter"});
        return (StatusCode::BAD_REQUEST, axum::Json(json!({"error": error}))).into_response();
    }
    let wants_usage = asked.stream_options.is_some_and(|options| options.include_usage);
    let model = asked.model.clone();
    let request = Generate {
        model: Some(asked.model),
        messages: asked.messages,
        sampling: Sampling { temperature: asked.temperature, seed: asked.seed, ..Sampling::default() },
        stop: asked.stop,
        max_tokens: asked.max_tokens.or(asked.max_completion_tokens).unwrap_or(u32::MAX),
        format: Format::Text,
    };
    let mut run = Run::start(Arc::clone(&desk), request);
    if !asked.stream {
        return match run.outcome().await {
            Some(Ok(generation)) => axum::Json(completion(&model, generation)).into_response(),
            Some(Err(error)) => refused(error),
            None => refusal(500, "it panicked", "InternalServerError", Value::Null),
        };
    }
    // What is wrong before the first piece has a status of its own.
    let first = run.pieces.recv().await;
    if first.is_none()
        && let Some(Err(error)) = run.outcome().await
    {
        return refused(error);
    }
    let usage = wants_usage && !desk.manners.silent_about_usage;
    let events = stream::iter([role(&model)])
        .chain(stream::iter(first.map(|piece| delta(&model, &piece))))
        .chain(rest(run, model, usage))
        .map(|event| Bytes::from(format!("data: {event}\n\n")));
    let body = if desk.manners.bytewise {
        let bytes = events.flat_map(|event| stream::iter((0..event.len()).map(move |at| event.slice(at..=at))));
        Body::from_stream(bytes.map(Ok::<_, Infallible>))
    } else {
        Body::from_stream(events.map(Ok::<_, Infallible>))
    };
    ([("content-type", "text/event-stream")], body).into_response()
}

/// A run of the backend. Dropped, which happens when the client closes the connection, it is cancelled.
struct Run {
    pieces: mpsc::UnboundedReceiver<Piece>,
    outcome: Option<oneshot::Receiver<Result<Generation, InferenceError>>>,
    ended: Option<Result<Generation, InferenceError>>,
    _cancelled_when_dropped: DropGuard,
}

impl Run {
    fn start(desk: Arc<Desk>, request: Generate) -> Self {
        let (sink, pieces) = mpsc::unbounded_channel();
        let (tell, outcome) = oneshot::channel();
        let cancel = CancellationToken::new();
        let guard = cancel.clone().drop_guard();
        tokio::spawn(async move {
            let outcome = desk.backend.generate(&request, Some(sink), &cancel).await;
            if outcome == Err(InferenceError::Cancelled) {
                desk.abandoned.send_modify(|count| *count += 1);
            }
            // Nobody may be there to hear it.
            let _ = tell.send(outcome);
        });
        Self { pieces, outcome: Some(outcome), ended: None, _cancelled_when_dropped: guard }
    }

    /// What came of it; `None` when the backend panicked.
    async fn outcome(&mut self) -> Option<&Result<Generation, InferenceError>> {
        if let Some(outcome) = self.outcome.take() {
            self.ended = outcome.await.ok();
        }
        self.ended.as_ref()
    }
}

/// The events after the first piece.
fn rest(run: Run, model: String, usage: bool) -> impl Stream<Item = String> {
    stream::unfold(Some((run, model, usage)), |state| async {
        let (mut run, model, usage) = state?;
        if let Some(piece) = run.pieces.recv().await {
            let event = delta(&model, &piece);
            return Some((stream::iter(vec![event]), Some((run, model, usage))));
        }
        let events = match run.outcome().await {
            Some(Ok(generation)) => last(&model, generation, usage),
            Some(Err(error)) => vec![json!({"error": {"message": error.to_string(), "code": 500}}).to_string()],
            None => Vec::new(),
        };
        Some((stream::iter(events), None))
    })
    .flatten()
}

/// A whole answer at once.
fn completion(model: &str, generation: &Generation) -> Value {
    let message = json!({"role": "assistant", "content": generation.text});
    json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": counted(generation)})
}

fn counted(generation: &Generation) -> Value {
    let used = generation.usage;
    json!({"prompt_tokens": used.prompt_tokens, "completion_tokens": used.generated_tokens, "total_tokens": used.total()})
}

fn last(model: &str, generation: &Generation, usage: bool) -> Vec<String> {
    let reason = match generation.finish {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    };
    let mut events = vec![chunk(model, &json!([{"index": 0, "delta": {}, "finish_reason": reason}]), Value::Null)];
    if usage {
        events.push(chunk(model, &json!([]), counted(generation)));
    }
    events.push("[DONE]".to_owned());
    events
}

fn role(model: &str) -> String {
    let delta = json!({"role": "assistant", "content": ""});
    chunk(model, &json!([{"index": 0, "delta": delta, "finish_reason": null}]), Value::Null)
}

fn delta(model: &str, piece: &Piece) -> String {
    let delta = json!({"content": piece.text});
    chunk(model, &json!([{"index": 0, "delta": delta, "finish_reason": null}]), Value::Null)
}

fn chunk(model: &str, choices: &Value, usage: Value) -> String {
    json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": model,
        "choices": choices, "usage": usage})
    .to_string()
}

fn refused(error: &InferenceError) -> Response {
    let words = error.to_string();
    match error {
        InferenceError::UnknownModel { .. } => refusal(404, &words, "NotFoundError", Value::from("model_not_found")),
        InferenceError::ContextOverflow { .. } => {
            refusal(400, &words, "invalid_request_error", Value::from("context_length_exceeded"))
        }
        InferenceError::BadRequest(_) => refusal(400, &words, "BadRequestError", Value::from(400)),
        InferenceError::Busy(_) => refusal(503, &words, "ServiceUnavailableError", Value::from(503)),
        _ => refusal(500, &words, "InternalServerError", Value::from(500)),
    }
}

fn refusal(status: u16, message: &str, kind: &str, code: Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(json!({"error": {"message": message, "type": kind, "param": null, "code": code}})))
        .into_response()
}
