//! A server that speaks as Ollama does, so that the backend is tested over real HTTP: what a model says comes from any
//! [`Inference`], and everything that goes wrong with a server goes wrong on command.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::inference::{Format, Generate, Generation, Inference, Message, Piece, Role, Sampling};
use crate::job::FinishReason;

/// Bytes of the largest request it reads.
const LARGEST_REQUEST: usize = 64 * 1024 * 1024;

/// Pieces of an answer that wait for the network.
const AHEAD: usize = 64;

/// When everything happens.
const NOW: &str = "2026-08-04T12:00:00.000000Z";

/// A model that the server has.
#[derive(Debug, Clone)]
pub struct ServedModel {
    /// As it is listed.
    pub name: String,
    /// 64 hexadecimal digits.
    pub digest: String,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Its parameters.
    pub parameters: Option<u64>,
    /// The context it was made for.
    pub context: Option<u32>,
    /// What it can do.
    pub capabilities: Vec<&'static str>,
    /// Its template.
    pub template: String,
    /// Instructions that are built into it.
    pub system: String,
    /// Whether it is in memory.
    pub loaded: bool,
    /// Where it really runs, when that is not here.
    pub remote_host: Option<String>,
}

impl ServedModel {
    /// A small model that chats, with a context of 4,096 tokens.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            digest: format!(
                "{:064x}",
                name.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
            ),
            bytes: 1_830_000,
            parameters: Some(885_888),
            context: Some(4_096),
            capabilities: vec!["completion"],
            template: "{{ .System }}{{ .Prompt }}".to_owned(),
            system: String::new(),
            loaded: false,
            remote_host: None,
        }
    }

    fn listed(&self) -> Value {
        let mut listed = json!({
            "name": self.name, "model": self.name, "modified_at": NOW, "size": self.bytes, "digest": self.digest,
            "details": {"parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
                "parameter_size": "885.89K", "quantization_level": "F16"},
        });
        if let Some(host) = &self.remote_host {
            listed["remote_host"] = host.as_str().into();
            listed["remote_model"] = self.name.as_str().into();
        }
        listed
    }

    fn shown(&self) -> Value {
        let mut info = json!({"general.architecture": "llama", "general.file_type": 1, "tokenizer.ggml.tokens": null});
        if let Some(parameters) = self.parameters {
            info["general.parameter_count"] = parameters.into();
        }
        if let Some(context) = self.context {
            info["llama.context_length"] = context.into();
        }
        let mut shown = json!({
            "license": "MIT", "modelfile": "FROM x", "parameters": "stop \"<|im_end|>\"", "template": self.template,
            "details": self.listed()["details"], "model_info": info, "modified_at": NOW,
        });
        if !self.capabilities.is_empty() {
            shown["capabilities"] = json!(self.capabilities);
        }
        if !self.system.is_empty() {
            shown["system"] = self.system.as_str().into();
        }
        shown
    }
}

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
        ("POST", "/api/show") => shared.find(&body).map_or_else(|| missing(&body), |model| json_of(&model.shown())),
        _ => answer_of(404, "404 page not found".to_owned()),
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

fn pull(shared: &Arc<Shared>, asked: Value, fault: Option<Fault>, waiting: Waiting) -> Response {
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

async fn chat(shared: &Arc<Shared>, asked: &Value, fault: Option<Fault>, mut waiting: Waiting) -> Response {
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
