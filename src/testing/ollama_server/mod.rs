//! A server that speaks as Ollama does, so that the backend is tested over real HTTP: what a model says comes from any
//! [`Inference`], and everything that goes wrong with a server goes wrong on command.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

pub use self::served::ServedModel;
use self::streams::{chat, pull};
use crate::inference::{Inference, InferenceError};

mod served;
mod streams;

/// Bytes of the largest request it reads.
const LARGEST_REQUEST: usize = 64 * 1024 * 1024;

/// When everything happens.
const NOW: &str = "2026-08-04T12:00:00.000000Z";

/// What the server does instead of what it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Answers this, and does nothing.
    Answer {
        /// With this status.
        status: u16,
        /// And this body.
        body: String,
    },
    /// Never answers.
    Silence,
    /// Answers once [`OllamaServer::finish_loading`] is called, as when a model has to be loaded first.
    Loading,
    /// Says this line in place of the one with this number (0 is the first), and ends the stream as if all were well.
    SayAt(usize, String),
    /// Cuts the connection in the middle of the line with this number.
    CutAt(usize),
    /// Stops in the middle of the line with this number, without hanging up.
    StallAt(usize),
    /// Ends the stream without a last line.
    NoLastLine,
    /// Ends with this reason, or none.
    Reason(Option<&'static str>),
    /// Leaves the counts out of the last line.
    NoCounts,
    /// Doesn't look for stop strings.
    IgnoreStops,
}

/// The queue's answer when it is full.
pub fn queue_full() -> Fault {
    let body = json!({"error": "server busy, please try again.  maximum pending requests exceeded"});
    Fault::Answer { status: 503, body: body.to_string() }
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The path.
    pub path: String,
    /// The body, null when there was none.
    pub body: Value,
    /// The `Authorization` header.
    pub authorization: Option<String>,
}

/// A running server.
#[derive(Debug)]
pub struct OllamaServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    backend: Arc<dyn Inference>,
    state: Mutex<Script>,
    /// How many requests came.
    asked: watch::Sender<usize>,
    /// How many hung up before they had their answer.
    hung_up: watch::Sender<usize>,
    loaded: watch::Sender<bool>,
}

struct Script {
    version: String,
    models: Vec<ServedModel>,
    library: Vec<ServedModel>,
    faults: VecDeque<(String, Fault)>,
    by_bytes: bool,
    asked: Vec<Asked>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, asked: &Value) -> Option<ServedModel> {
        let name = asked["model"].as_str().or_else(|| asked["name"].as_str())?;
        let is_it = |model: &&ServedModel| model.name == name || model.name == format!("{name}:latest");
        self.script().models.iter().find(is_it).cloned()
    }
}

impl OllamaServer {
    /// Starts one with these models, all of which speak as `backend` does.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub async fn start(models: Vec<ServedModel>, backend: Arc<dyn Inference>) -> io::Result<Self> {
        let state = Mutex::new(Script {
            version: "0.32.1".to_owned(),
            models,
            library: Vec::new(),
            faults: VecDeque::new(),
            by_bytes: false,
            asked: Vec::new(),
        });
        let shared = Arc::new(Shared {
            backend,
            state,
            asked: watch::Sender::new(0),
            hung_up: watch::Sender::new(0),
            loaded: watch::Sender::new(false),
        });
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        // Small pieces must not wait for each other.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let task = tokio::spawn(async move {
            // It ends with the process or when it is aborted.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { address, shared, _task: AbortOnDropHandle::new(task) })
    }

    /// Its address.
    ///
    /// # Panics
    /// Never: a socket address makes a URL.
    pub fn url(&self) -> Url {
        format!("http://{}/", self.address).parse().expect("a socket address makes a URL")
    }

    /// It calls itself this version.
    pub fn set_version(&self, version: &str) {
        version.clone_into(&mut self.shared.script().version);
    }

    /// Has these models from now on.
    pub fn set_models(&self, models: Vec<ServedModel>) {
        self.shared.script().models = models;
    }

    /// What can be pulled.
    pub fn set_library(&self, library: Vec<ServedModel>) {
        self.shared.script().library = library;
    }

    /// Sends every byte of an answer on its own.
    pub fn send_byte_by_byte(&self) {
        self.shared.script().by_bytes = true;
    }

    /// The next request for `path` meets this. Further ones queue up.
    pub fn next(&self, path: &str, fault: Fault) {
        self.shared.script().faults.push_back((path.to_owned(), fault));
    }

    /// Lets those go that wait for a model to be loaded.
    pub fn finish_loading(&self) {
        self.shared.loaded.send_replace(true);
    }

    /// What was asked of `path`, in order.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        self.shared.script().asked.iter().filter(|asked| asked.path == path).cloned().collect()
    }

    /// Returns once `path` was asked `times` times.
    pub async fn wait_until_asked(&self, path: &str, times: usize) {
        let mut asked = self.shared.asked.subscribe();
        // The sender lives as long as the server.
        let _ = asked.wait_for(|_| self.asked(path).len() >= times).await;
    }

    /// Returns once `times` clients hung up before they had their answer: by then nothing is written for them any more.
    pub async fn wait_for_hang_ups(&self, times: usize) {
        let mut hung_up = self.shared.hung_up.subscribe();
        let _ = hung_up.wait_for(|count| *count >= times).await;
    }
}

/// Somebody who waits for an answer; dropped before the end, he hung up.
struct Waiting {
    shared: Arc<Shared>,
    served: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.served {
            self.shared.hung_up.send_modify(|count| *count += 1);
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let header = request.headers().get("authorization");
    let authorization = header.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let Ok(body) = to_bytes(request.into_body(), LARGEST_REQUEST).await else {
        return error(413, "request too large");
    };
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let fault = {
        let mut script = shared.script();
        script.asked.push(Asked { path: path.clone(), body: body.clone(), authorization });
        let at = script.faults.iter().position(|(of, _)| *of == path);
        at.and_then(|at| script.faults.remove(at)).map(|(_, fault)| fault)
    };
    shared.asked.send_modify(|count| *count += 1);

    let mut waiting = Waiting { shared: Arc::clone(&shared), served: false };
    match &fault {
        Some(Fault::Answer { status, body }) => {
            waiting.served = true;
            return answer_of(*status, body.clone());
        }
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Loading) => {
            let _ = shared.loaded.subscribe().wait_for(|loaded| *loaded).await;
        }
        _ => {}
    }
    match (method.as_str(), path.as_str()) {
        ("POST", "/api/pull") => return pull(&shared, body, fault, waiting),
        ("POST", "/api/chat") => return chat(&shared, &body, fault, waiting).await,
        _ => {}
    }
    waiting.served = true;
    match (method.as_str(), path.as_str()) {
        ("GET", "/api/version") => json_of(&json!({"version": shared.script().version})),
        ("GET", "/api/tags") => {
            let models: Vec<Value> = shared.script().models.iter().map(ServedModel::listed).collect();
            json_of(&json!({"models": models}))
        }
        ("GET", "/api/ps") => json_of(&in_memory(&shared)),
        ("POST", "/api/embed") => embed(&shared, &body).await,
        ("POST", "/api/show") => shared.find(&body).map_or_else(|| missing(&body), |model| json_of(&model.shown())),
        _ => answer_of(404, "404 page not found".to_owned()),
    }
}

async fn embed(shared: &Shared, body: &Value) -> Response {
    let Some(model) = shared.find(body) else { return missing(body) };
    let texts: Option<Vec<String>> = serde_json::from_value(body["input"].clone()).ok();
    let Some(texts) = texts.filter(|_| model.capabilities.contains(&"embedding")) else {
        return error(400, "this model does not support embeddings");
    };
    match shared.backend.embed(None, &texts, &CancellationToken::new()).await {
        Ok(made) => json_of(&json!({"model": model.name, "embeddings": made.vectors, "total_duration": 1_000_000,
            "load_duration": 1_000, "prompt_eval_count": made.tokens})),
        Err(InferenceError::ContextOverflow { .. }) => error(400, "the input length exceeds the context length"),
        Err(other) => error(500, &other.to_string()),
    }
}

fn in_memory(shared: &Shared) -> Value {
    let script = shared.script();
    let loaded = script.models.iter().filter(|model| model.loaded).map(|model| {
        let mut listed = model.listed();
        listed["expires_at"] = NOW.into();
        listed["size_vram"] = 0.into();
        listed["context_length"] = 4_096.into();
        listed
    });
    json!({"models": loaded.collect::<Vec<_>>()})
}

fn answer_of(status: u16, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [("content-type", "application/json; charset=utf-8")], body).into_response()
}

fn json_of(body: &Value) -> Response {
    answer_of(200, body.to_string())
}

fn error(status: u16, words: &str) -> Response {
    answer_of(status, json!({"error": words}).to_string())
}

fn missing(asked: &Value) -> Response {
    error(404, &format!("model '{}' not found", asked["model"].as_str().unwrap_or_default()))
}
