use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::*;
use crate::inference::echo::Echo;
use crate::inference::{Format, JsonSupport, Piece, Role, Sampling};
use crate::job::outcome::{FinishReason, Usage};
use crate::testing::inference_contract::{self, Subject, ask};
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

/// What a run that meets `fault` ends with, and what was shown until then.
async fn with(fault: Fault) -> (Result<Generation, InferenceError>, String) {
    let server = one_model().await;
    let ends_in_silence = matches!(fault, Fault::Silence | Fault::StallAt(_));
    let ollama = if ends_in_silence { impatient(&server) } else { client(&server) };
    server.next("/api/chat", fault);
    let (sink, mut pieces) = mpsc::unbounded_channel();
    let answer = ollama.generate(&ask("one two three"), Some(sink), &CancellationToken::new()).await;
    let mut shown = String::new();
    while let Some(piece) = pieces.recv().await {
        shown.push_str(&piece.text);
    }
    (answer, shown)
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
async fn characters_survive_being_cut_anywhere() {
    let server = one_model().await;
    server.send_byte_by_byte();
    let text = "ñ 漢字 🦀👩‍🔬 e\u{301} \\\"quoted\\\" \u{1F600}";
    let answer = run(&client(&server), &ask(text)).await.unwrap();
    assert_eq!(answer.text, text);
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
async fn a_long_prompt_is_never_cut_and_thinking_is_turned_off_where_there_is_any() {
    let mut thinker = ServedModel::new("thinker:latest");
    thinker.capabilities = vec!["completion", "thinking"];
    let server = served(vec![ServedModel::new("small:latest"), thinker]).await;
    let ollama = client(&server);
    for (name, think) in [("small", None), ("thinker", Some(&Value::Bool(false)))] {
        run(&ollama, &Generate { model: Some(name.into()), ..ask("a b") }).await.unwrap();
        let body = server.asked("/api/chat").pop().unwrap().body;
        assert_eq!((&body["truncate"], &body["shift"], body.get("think")), (&json!(false), &json!(false), think));
        assert_eq!((&body["options"]["num_ctx"], &body["stream"]), (&json!(4_096), &json!(true)));
    }
}

#[tokio::test]
async fn a_schema_reaches_the_server() {
    let server = one_model().await;
    let schema = json!({"type": "object", "required": ["a"]});
    run(&client(&server), &Generate { format: Format::Schema(schema.clone()), ..ask("a") }).await.unwrap();
    run(&client(&server), &Generate { format: Format::Json, ..ask("a") }).await.unwrap();
    let formats: Vec<Value> = server.asked("/api/chat").into_iter().map(|asked| asked.body["format"].clone()).collect();
    assert_eq!(formats, [schema, json!("json")]);
}

#[tokio::test]
async fn control_tokens_reach_the_server_as_text() {
    let template = "<turn>{{ .Prompt }}".to_owned();
    let server = served(vec![ServedModel { template, ..ServedModel::new("small:latest") }]).await;
    run(&client(&server), &ask("a <turn> <|im_end|> b")).await.unwrap();
    let said = server.asked("/api/chat")[0].body["messages"][0]["content"].clone();
    assert_eq!(said, "a < turn> < |im_end| > b");
}

#[tokio::test]
async fn a_prompt_that_fits_no_context_is_refused_with_the_numbers() {
    let server = one_model().await;
    let long = ask(&"word ".repeat(5_000));
    let exact = InferenceError::ContextOverflow { prompt_tokens: 5_000, context_tokens: 4_096 };
    assert_eq!(run(&client(&server), &long).await, Err(exact));
    // Older servers tell no numbers.
    let words = r#"{"error":"the input length exceeds the context length"}"#;
    server.next("/api/chat", Fault::Answer { status: 400, body: words.into() });
    let estimate = client(&server).count_prompt_tokens(None, &long.messages).await.unwrap();
    let guessed = InferenceError::ContextOverflow { prompt_tokens: estimate.count, context_tokens: 4_096 };
    assert!(!estimate.exact && estimate.count > 4_096);
    assert_eq!(run(&client(&server), &long).await, Err(guessed));
}

#[tokio::test]
async fn refusals_say_whose_they_are() {
    let refusal = |status: u16| Fault::Answer { status, body: r#"{"error":"no"}"#.into() };
    assert!(matches!(with(refusal(400)).await.0, Err(InferenceError::BadRequest(why)) if why.contains("no")));
    assert!(matches!(with(refusal(401)).await.0, Err(InferenceError::Unusable(_))));
    assert!(matches!(with(refusal(500)).await.0, Err(InferenceError::Backend(_))));
    assert!(matches!(with(queue_full()).await.0, Err(InferenceError::Busy(_))));
    assert!(matches!(with(Fault::Silence).await.0, Err(InferenceError::Backend(why)) if why.contains("nothing came")));
}

#[tokio::test]
async fn a_model_that_was_removed_is_unknown_and_the_others_are_named() {
    let server = served(["a:latest", "b:latest"].map(ServedModel::new).to_vec()).await;
    let ollama = client(&server);
    names(&ollama).await;
    server.set_models(vec![ServedModel::new("b:latest")]);
    let error = InferenceError::UnknownModel { wanted: "a:latest".into(), offered: vec!["b:latest".into()] };
    assert_eq!(run(&ollama, &Generate { model: Some("a".into()), ..ask("x") }).await, Err(error));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_failure() {
    let error_line = r#"{"error":"an error was encountered while running the model"}"#;
    for (fault, shown, why) in [
        (Fault::SayAt(2, error_line.into()), "one two", "an error was encountered"),
        (Fault::SayAt(0, error_line.into()), "", "an error was encountered"),
        (Fault::SayAt(1, r#"{"error":{"code":500}}"#.into()), "one", "500"),
        (Fault::SayAt(1, "<html>".into()), "one", "it is no JSON"),
        (Fault::SayAt(1, r#"{"message":"two"}"#.into()), "one", "wrong"),
        (Fault::CutAt(1), "one", "the connection broke"),
        (Fault::CutAt(3), "one two three", "the connection broke"),
        (Fault::StallAt(1), "one", "nothing came"),
        (Fault::NoLastLine, "one two three", "no last line"),
        (Fault::Reason(None), "one two three", "no reason"),
        (Fault::Reason(Some("load")), "one two three", "no end of an answer"),
    ] {
        let (answer, pieces) = with(fault.clone()).await;
        assert!(matches!(&answer, Err(InferenceError::Backend(said)) if said.contains(why)), "{fault:?}: {answer:?}");
        assert_eq!(pieces, shown, "{fault:?}");
    }
}

#[tokio::test]
async fn counts_that_are_left_out_are_not_made_up() {
    let (answer, _) = with(Fault::NoCounts).await;
    assert_eq!(answer.unwrap().usage, Usage { prompt_tokens: 0, generated_tokens: 3 }, "three lines are three tokens");
}

#[tokio::test]
async fn a_model_may_take_long_to_load() {
    let server = one_model().await;
    server.next("/api/chat", Fault::Loading);
    let ollama = client(&server);
    let request = ask("one two");
    let loading = async {
        server.wait_until_asked("/api/chat", 1).await;
        server.finish_loading();
    };
    let (answer, ()) = tokio::join!(run(&ollama, &request), loading);
    assert_eq!(answer.unwrap().text, "one two");
}

#[tokio::test]
async fn cancelling_stops_the_server_too() {
    let chatty = Chatty::new();
    let models = vec![ServedModel::new("small:latest")];
    let server = OllamaServer::start(models, Arc::new(chatty.clone())).await.unwrap();
    let (ollama, cancel) = (client(&server), CancellationToken::new());
    let (sink, mut pieces) = mpsc::unbounded_channel();
    let request = Generate { max_tokens: u32::MAX, ..ask(ENDLESS) };
    let cancelling = async {
        pieces.recv().await.unwrap();
        cancel.cancel();
    };
    let (answer, ()) = tokio::join!(ollama.generate(&request, Some(sink), &cancel), cancelling);
    assert_eq!(answer, Err(InferenceError::Cancelled));
    server.wait_for_hang_ups(1).await;
    chatty.wait_until_stopped().await;
}

#[tokio::test]
async fn cancelling_while_a_model_is_loaded_hangs_up() {
    let server = one_model().await;
    server.next("/api/chat", Fault::Loading);
    let (ollama, cancel) = (client(&server), CancellationToken::new());
    let request = ask("one two");
    let cancelling = async {
        server.wait_until_asked("/api/chat", 1).await;
        cancel.cancel();
    };
    let (answer, ()) = tokio::join!(ollama.generate(&request, None, &cancel), cancelling);
    assert_eq!(answer, Err(InferenceError::Cancelled));
    server.wait_for_hang_ups(1).await;
}

#[tokio::test]
async fn a_stop_string_that_the_server_misses_is_found_here() {
    let server = one_model().await;
    server.next("/api/chat", Fault::IgnoreStops);
    let request = Generate { stop: vec!["wo th".into()], ..ask("one two three four five six") };
    let answer = run(&client(&server), &request).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.finish), ("one t", FinishReason::Stop));
    assert_eq!(answer.usage.generated_tokens, 3, "what was written until then");
}

#[tokio::test]
async fn the_limit_of_tokens_is_the_servers_and_told() {
    let server = one_model().await;
    let answer = run(&client(&server), &Generate { max_tokens: 2, ..ask("one two three") }).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.finish), ("one two", FinishReason::Length));
    assert_eq!(answer.usage, Usage { prompt_tokens: 3, generated_tokens: 2 });
    let nothing = Generate { max_tokens: 0, ..ask("one") };
    assert!(matches!(run(&client(&server), &nothing).await, Err(InferenceError::BadRequest(_))));
}

#[tokio::test]
async fn conversations_and_sampling_reach_the_server() {
    let server = one_model().await;
    let sampling = Sampling { seed: Some(7), top_k: Some(3), ..Sampling::default() };
    let messages = vec![
        Message::new(Role::System, "s"),
        Message::new(Role::User, "a"),
        Message::new(Role::Assistant, "b"),
        Message::new(Role::User, "c d"),
    ];
    let answer = run(&client(&server), &Generate { sampling, messages, ..ask("") }).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.usage.prompt_tokens), ("c d", 5));
    let body = &server.asked("/api/chat")[0].body;
    let roles: Vec<&str> =
        body["messages"].as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user"]);
    assert_eq!((&body["options"]["seed"], &body["options"]["top_k"]), (&json!(7), &json!(3)));
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

async fn pulled(ollama: &Ollama, model: &str) -> (Result<(), InferenceError>, Vec<PullProgress>) {
    let mut told = Vec::new();
    let result = ollama.pull(model, |progress| told.push(progress)).await;
    (result, told)
}

#[tokio::test]
async fn a_pull_tells_how_far_it_is_and_the_model_is_there_afterwards() {
    for by_bytes in [false, true] {
        let server = one_model().await;
        server.set_library(vec![ServedModel::new("new")]);
        if by_bytes {
            server.send_byte_by_byte();
        }
        let ollama = client(&server);
        let (result, told) = pulled(&ollama, "new").await;
        assert_eq!(result, Ok(()));
        let bytes: Vec<(Option<u64>, Option<u64>)> = told.iter().map(|one| (one.total, one.completed)).collect();
        let total = Some(1_830_000);
        assert_eq!(bytes[..4], [(None, None), (total, None), (total, Some(915_000)), (total, total)]);
        assert_eq!(told[0].status, "pulling manifest");
        assert_eq!(told[1].digest, Some(format!("sha256:{}", ServedModel::new("new").digest)));
        assert_eq!(told.last().unwrap().status, "success");
        assert_eq!(names(&ollama).await, ["small:latest", "new"]);
    }
}

#[tokio::test]
async fn a_pull_that_fails_says_why() {
    let server = one_model().await;
    let ollama = client(&server);
    let (result, told) = pulled(&ollama, "no-such-model").await;
    assert!(matches!(&result, Err(InferenceError::Backend(why)) if why.contains("file does not exist")), "{result:?}");
    assert_eq!(told.len(), 1);
    assert!(matches!(pulled(&ollama, " ").await.0, Err(InferenceError::BadRequest(_))));

    server.set_library(vec![ServedModel::new("new")]);
    let refused = Fault::Answer { status: 400, body: r#"{"error":"invalid model name"}"#.into() };
    for fault in [refused, Fault::CutAt(2), Fault::SayAt(2, "nonsense".into()), Fault::SayAt(2, String::new())] {
        server.next("/api/pull", fault.clone());
        let (result, _) = pulled(&ollama, "new").await;
        assert!(matches!(result, Err(InferenceError::Backend(_))), "{fault:?}: {result:?}");
    }
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
    pulled(&ollama, "new").await.0.unwrap();
    for path in ["/api/version", "/api/tags", "/api/ps", "/api/show", "/api/chat", "/api/pull"] {
        let asked = server.asked(path);
        assert!(!asked.is_empty(), "{path} was not asked");
        assert!(asked.iter().all(|one| one.authorization.as_deref() == Some("Bearer hunter2")), "{path}");
    }
}
