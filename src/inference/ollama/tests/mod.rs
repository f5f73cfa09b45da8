//! Against a server that speaks as Ollama does, and against a real one where there is one.

mod answers;
mod embeddings;
mod pulls;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::*;
use crate::inference::echo::Echo;
use crate::inference::{Format, JsonSupport, Piece, Role, Sampling};
use crate::job::outcome::{FinishReason, Usage};
use crate::testing::inference_contract::{self, Subject, ask};
use crate::testing::inference_faults::check_faults;
use crate::testing::ollama_server::{Fault, OllamaServer, ServedModel, queue_full};
use crate::testing::require;

const ENDLESS: &str = "go on for ever";

/// An echo that never comes to an end when it is asked to.
#[derive(Clone)]
struct Chatty {
    echo: Echo,
    stopped: Arc<watch::Sender<u32>>,
}

impl Chatty {
    fn new() -> Self {
        Self { echo: Echo::new(), stopped: Arc::new(watch::Sender::new(0)) }
    }

    /// Returns once an endless answer was stopped.
    async fn wait_until_stopped(&self) {
        self.stopped.subscribe().wait_for(|times| *times > 0).await.unwrap();
    }
}

#[async_trait]
impl Inference for Chatty {
    async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
        self.echo.models().await
    }

    async fn count_prompt_tokens(
        &self,
        model: Option<&str>,
        messages: &[Message],
    ) -> Result<PromptTokens, InferenceError> {
        self.echo.count_prompt_tokens(model, messages).await
    }

    async fn generate(
        &self,
        request: &Generate,
        sink: Option<TextSink>,
        cancel: &CancellationToken,
    ) -> Result<Generation, InferenceError> {
        if request.messages[0].content != ENDLESS {
            return self.echo.generate(request, sink, cancel).await;
        }
        let mut tokens = 0;
        while !cancel.is_cancelled() {
            tokens += 1;
            let _ = sink.as_ref().unwrap().send(Piece { text: "on ".into(), tokens });
            tokio::task::yield_now().await;
        }
        self.stopped.send_modify(|times| *times += 1);
        Err(InferenceError::Cancelled)
    }
}

async fn served(models: Vec<ServedModel>) -> OllamaServer {
    OllamaServer::start(models, Arc::new(Chatty::new())).await.unwrap()
}

async fn one_model() -> OllamaServer {
    served(vec![ServedModel::new("small:latest")]).await
}

fn connect(config: OllamaConfig) -> Result<Ollama, InferenceError> {
    // The program does this first thing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ollama::new(config)
}

fn config(server: &OllamaServer) -> OllamaConfig {
    OllamaConfig::at(server.url())
}

fn client(server: &OllamaServer) -> Ollama {
    connect(config(server)).unwrap()
}

/// One whose patience ends soon, but not before a busy machine has answered.
fn impatient(server: &OllamaServer) -> Ollama {
    let soon = Duration::from_secs(1);
    let options = ServerOptions { answer_timeout: soon, silence: soon, ..ServerOptions::default() };
    connect(OllamaConfig { options, ..config(server) }).unwrap()
}

async fn run(ollama: &Ollama, request: &Generate) -> Result<Generation, InferenceError> {
    ollama.generate(request, None, &CancellationToken::new()).await
}

async fn names(ollama: &Ollama) -> Vec<String> {
    ollama.models().await.unwrap().into_iter().map(|model| model.name).collect()
}

fn questions() -> Vec<String> {
    ["say three words", "one after another", "wörter 🦀 mit zeichen"].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn ollama_keeps_the_contract() {
    let server = one_model().await;
    let backend = Arc::new(client(&server));
    inference_contract::check(&Subject { backend, questions: questions(), endless: Some(ENDLESS.into()) }).await;
}

#[tokio::test]
async fn ollama_keeps_the_contract_when_every_byte_comes_alone() {
    let server = one_model().await;
    server.send_byte_by_byte();
    let backend = Arc::new(client(&server));
    inference_contract::check(&Subject { backend, questions: questions(), endless: Some(ENDLESS.into()) }).await;
}

#[tokio::test]
async fn whatever_an_ollama_does_its_backend_bears_it() {
    let good = one_model().await;
    let make = |url: Url, options: ServerOptions| -> Arc<dyn Inference> {
        Arc::new(connect(OllamaConfig { options, ..OllamaConfig::at(url) }).unwrap())
    };
    check_faults(make, &good.url()).await;
}

/// A real one, named by `COINOP_TEST_OLLAMA`. Its first model is asked: the one in memory, if there is one.
#[tokio::test]
async fn a_real_ollama_keeps_the_contract() {
    let Ok(address) = std::env::var("COINOP_TEST_OLLAMA") else {
        return require::skip("ollama", "name one that has a model: COINOP_TEST_OLLAMA=http://127.0.0.1:11434");
    };
    let config = OllamaConfig { context_tokens: Some(2_048), ..OllamaConfig::at(address.parse().unwrap()) };
    let questions = ["the days of the week", "the four seasons", "three colours"]
        .map(|what| format!("Name {what} in one line, separated by commas, and nothing else."))
        .to_vec();
    let endless = Some("Count from one to ten thousand in words, one number a line.".to_owned());
    let backend = Arc::new(connect(config).unwrap());
    inference_contract::check(&Subject { backend, questions, endless }).await;
}

#[tokio::test]
async fn models_are_told_with_all_that_is_exact() {
    let mut embedding = ServedModel::new("embed:latest");
    embedding.capabilities = vec!["embedding"];
    let mut large = ServedModel::new("large:70b");
    (large.loaded, large.context, large.parameters) = (true, Some(131_072), None);
    let server = served(vec![embedding, ServedModel::new("small:latest"), large]).await;
    let models = client(&server).models().await.unwrap();
    let digest = |name: &str| Some(format!("sha256:{}", ServedModel::new(name).digest));
    let (large, small) = (&models[0], &models[1]);
    assert_eq!(models.len(), 2, "a model that can't chat is on offer");
    assert_eq!((large.name.as_str(), large.context_tokens, large.parameters), ("large:70b", Some(8_192), None));
    assert_eq!((small.name.as_str(), small.context_tokens), ("small:latest", Some(4_096)));
    assert_eq!((small.parameters, &small.digest), (Some(885_888), &digest("small:latest")));
    assert!(models.iter().all(|model| model.json == JsonSupport::Schema));
}

#[tokio::test]
async fn what_a_model_is_gets_asked_once_as_long_as_it_stays_the_same() {
    let server = one_model().await;
    let ollama = client(&server);
    names(&ollama).await;
    names(&ollama).await;
    assert_eq!(server.asked("/api/show").len(), 1);
    let changed = ServedModel { digest: "ab".repeat(32), ..ServedModel::new("small:latest") };
    server.set_models(vec![changed]);
    assert_eq!(ollama.models().await.unwrap()[0].digest, Some(format!("sha256:{}", "ab".repeat(32))));
    assert_eq!(server.asked("/api/show").len(), 2);
}

#[tokio::test]
async fn a_model_may_be_asked_for_without_its_tag() {
    let server = one_model().await;
    let ollama = client(&server);
    for name in ["small", "small:latest"] {
        let request = Generate { model: Some(name.into()), ..ask("a b") };
        assert_eq!(run(&ollama, &request).await.unwrap().model, "small:latest");
    }
}

#[tokio::test]
async fn a_model_that_came_later_is_found() {
    let server = one_model().await;
    let ollama = client(&server);
    run(&ollama, &ask("a b")).await.unwrap();
    server.set_models(vec![ServedModel::new("small:latest"), ServedModel::new("new:latest")]);
    let request = Generate { model: Some("new".into()), ..ask("a b") };
    assert_eq!(run(&ollama, &request).await.unwrap().model, "new:latest");
}

#[tokio::test]
async fn only_models_of_the_configuration_are_offered() {
    let server = served(["a:latest", "b:latest", "c:latest"].map(ServedModel::new).to_vec()).await;
    let of = |models: &[&str]| {
        let models = models.iter().map(|name| (*name).to_owned()).collect();
        connect(OllamaConfig { models, ..config(&server) }).unwrap()
    };
    assert_eq!(names(&of(&["c", "gone", "a"])).await, ["c:latest", "a:latest"]);
    let error = of(&["gone", "lost"]).models().await.unwrap_err();
    assert!(matches!(&error, InferenceError::Unusable(why) if why.contains("gone, lost")), "{error}");
}

#[tokio::test]
async fn a_server_without_models_says_what_to_do() {
    let server = served(Vec::new()).await;
    assert_eq!(client(&server).models().await.unwrap(), []);
    assert!(
        matches!(run(&client(&server), &ask("a")).await, Err(InferenceError::Unusable(why)) if why.contains("pull"))
    );
}

#[tokio::test]
async fn a_server_that_cuts_prompts_silently_is_not_used() {
    let server = one_model().await;
    server.set_version("0.11.4");
    let ollama = client(&server);
    assert!(matches!(ollama.models().await, Err(InferenceError::Unusable(why)) if why.contains("0.12.6")));
    server.set_version("0.32.1");
    assert_eq!(names(&ollama).await, ["small:latest"], "it was updated");
}

#[tokio::test]
async fn a_server_that_comes_up_later_is_used_then() {
    let server = one_model().await;
    let ollama = impatient(&server);
    let loading = Fault::Answer { status: 503, body: "starting".into() };
    server.next("/api/version", loading);
    server.next("/api/tags", Fault::Silence);
    assert!(matches!(ollama.models().await, Err(InferenceError::Busy(_))));
    assert!(matches!(ollama.models().await, Err(InferenceError::Backend(_))));
    assert_eq!(names(&ollama).await, ["small:latest"]);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let down = connect(OllamaConfig::at(url)).unwrap();
    assert!(matches!(down.models().await, Err(InferenceError::Backend(_))));
    assert!(matches!(run(&down, &ask("a")).await, Err(InferenceError::Backend(_))));
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    let url: Url = DEFAULT_ADDRESS.parse().unwrap();
    let at = || OllamaConfig::at(url.clone());
    let wrong = [
        OllamaConfig { slots: 0, ..at() },
        OllamaConfig { bytes_per_token: 0, ..at() },
        OllamaConfig { context_tokens: Some(0), ..at() },
        OllamaConfig { url: "ftp://127.0.0.1/".parse().unwrap(), ..at() },
    ];
    for config in wrong {
        assert!(matches!(connect(config), Err(InferenceError::Unusable(_))));
    }
    assert_eq!(connect(OllamaConfig { slots: 3, ..at() }).unwrap().room(None), 3);
}

#[tokio::test]
async fn what_is_installed_is_listed_whatever_it_can_do() {
    let mut embedding = ServedModel::new("embed:latest");
    embedding.capabilities = vec!["embedding"];
    let mut large = ServedModel::new("large:70b");
    (large.loaded, large.bytes, large.digest) = (true, 40_000_000_000, "ab".repeat(32));
    let server = served(vec![embedding, large]).await;
    let installed = client(&server).installed().await.unwrap();
    assert_eq!(installed[0].name, "embed:latest");
    let digest = Some(format!("sha256:{}", "ab".repeat(32)));
    let expected = InstalledModel { name: "large:70b".into(), bytes: 40_000_000_000, digest, loaded: true };
    assert_eq!(installed[1], expected);
}

#[tokio::test]
async fn a_key_opens_everything_and_is_never_shown() {
    let server = one_model().await;
    server.set_library(vec![ServedModel::new("new")]);
    let config = OllamaConfig { key: Some("hunter2".into()), ..config(&server) };
    assert!(!format!("{config:?}").contains("hunter2"));
    let ollama = connect(config).unwrap();
    assert!(!format!("{ollama:?}").contains("hunter2"));
    run(&ollama, &ask("a")).await.unwrap();
    pulls::pulled(&ollama, "new").await.0.unwrap();
    for path in ["/api/version", "/api/tags", "/api/ps", "/api/show", "/api/chat", "/api/pull"] {
        let asked = server.asked(path);
        assert!(!asked.is_empty(), "{path} was not asked");
        assert!(asked.iter().all(|one| one.authorization.as_deref() == Some("Bearer hunter2")), "{path}");
    }
}
