//! Servers as they answer, on a port of their own each.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;

async fn serve(app: Router) -> Url {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

fn says(answer: serde_json::Value) -> axum::routing::MethodRouter {
    get(move || async move { axum::Json(answer) })
}

fn refuses(status: StatusCode, answer: serde_json::Value) -> axum::routing::MethodRouter {
    get(move || async move { (status, axum::Json(answer)) })
}

fn listed(id: &str, owner: &str) -> serde_json::Value {
    json!({"object": "list", "data": [{"id": id, "object": "model", "owned_by": owner}]})
}

fn names(server: &FoundServer) -> Vec<&str> {
    server.models.iter().map(|model| model.name.as_str()).collect()
}

fn ollama() -> Router {
    let tags = json!({"models": [
        {"name": "llama3.2:1b", "size": 1_321_098_329_u64, "details": {"family": "llama"}},
        {"name": "nomic-embed-text", "size": 274_302_450, "details": {"family": "nomic-bert"}},
        {"name": "bad\u{1b}[31m", "size": 1},
    ]});
    Router::new()
        .route("/api/version", says(json!({"version": "0.32.1"})))
        .route("/api/tags", says(tags))
        .route("/v1/models", says(listed("llama3.2:1b", "library")))
}

#[tokio::test]
async fn each_program_is_told_by_what_it_answers() {
    let props = json!({"total_slots": 4, "default_generation_settings": {"n_ctx": 4096}});
    let mut llama = listed("tiny.gguf", "llamacpp");
    llama["data"][0]["meta"] = json!({"size": 1_771_776, "n_params": 885_888});
    let llama_cpp = || Router::new().route("/v1/models", says(llama.clone()));
    let openai = |owner: &str| Router::new().route("/v1/models", says(listed("m", owner)));
    let urls = [
        serve(ollama()).await,
        serve(llama_cpp().route("/props", says(props))).await,
        serve(openai("vllm").route("/version", says(json!({"version": "0.11.0"})))).await,
        serve(openai("organization_owner")).await,
        serve(openai("sglang")).await,
        serve(openai("somebody")).await,
        serve(Router::new().route("/v1/models", says(listed("/home/me/m", "vllm")))).await,
    ];
    let found = look(&urls).await;
    let software: Vec<Software> = found.iter().map(|server| server.software).collect();
    use Software::{LlamaCpp, LmStudio, Ollama, OpenAi, Sglang, Vllm};
    assert_eq!(software, [Ollama, LlamaCpp, Vllm, LmStudio, Sglang, OpenAi, Vllm]);
    assert!(found.iter().all(FoundServer::is_usable));
    assert_eq!((names(&found[0]), found[0].models[0].bytes), (vec!["llama3.2:1b"], Some(1_321_098_329)));
    assert_eq!((names(&found[1]), found[1].models[0].bytes), (vec!["tiny.gguf"], Some(1_771_776)));
    assert_eq!(names(&found[6]), ["m"], "a path is nobody's business");
    assert_eq!((&found[0].url, &found[1].url), (&urls[0], &urls[1]));
    assert_eq!(found[2].url.path(), "/v1", "as an endpoint is configured");
    assert_eq!((found[0].version.as_deref(), found[2].version.as_deref()), (Some("0.32.1"), Some("0.11.0")));
    assert!(found[0].title().starts_with("Ollama 0.32.1 at http://127.0.0.1:"), "{}", found[0].title());
    let again = look_at(&found[2].url, None).await.unwrap();
    assert_eq!(again, found[2], "an endpoint's own address finds the same server");
}

#[tokio::test]
async fn a_server_that_loads_or_wants_a_key_is_found_and_said_to() {
    let loading = json!({"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}});
    let busy = || refuses(StatusCode::SERVICE_UNAVAILABLE, loading.clone());
    let loading = serve(Router::new().route("/props", busy()).route("/v1/models", busy())).await;
    let no_key = json!({"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}});
    let locked = || refuses(StatusCode::UNAUTHORIZED, no_key.clone());
    let llama = Router::new().route("/props", locked()).route("/v1/models", says(listed("m", "llamacpp")));
    let openai = Router::new().route("/v1/models", locked());
    let found = look(&[loading, serve(llama).await, serve(openai).await]).await;
    let told: Vec<_> = found.iter().map(|server| (server.software, server.trouble.unwrap())).collect();
    assert_eq!(told[0], (Software::LlamaCpp, "it is still loading its model"));
    assert_eq!(told[1], (Software::LlamaCpp, "it wants a key"));
    assert_eq!(told[2], (Software::OpenAi, "it wants a key"));
    assert!(!found.iter().any(FoundServer::is_usable));
}

#[tokio::test]
async fn other_programs_and_free_ports_are_no_model_servers() {
    let page = serve(Router::new().fallback(get(async || "<html>hello</html>"))).await;
    let locked = serve(Router::new().fallback(get(async || (StatusCode::UNAUTHORIZED, "no")))).await;
    let json = serve(Router::new().fallback(says(json!({"version": "1", "total_slots": null})))).await;
    let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let free = Url::parse(&format!("http://{free}")).unwrap();
    assert_eq!(look(&[page, locked, json, free]).await, []);
}

#[tokio::test]
async fn a_server_that_says_nothing_holds_nobody_up() {
    // Accepts and is silent: the connections wait in the listener.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    // Without a bound of its own this would never end.
    let looked = timeout(Duration::from_secs(60), look(&[url.clone(), url])).await;
    assert_eq!(looked, Ok(Vec::new()));
}

#[test]
fn ollamas_own_variable_is_read_as_ollama_reads_it() {
    let read = |text: &str| ollama_host(text).map(|url| url.as_str().trim_end_matches('/').to_owned());
    for (text, url) in [
        ("127.0.0.1:11435", "http://127.0.0.1:11435"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("[::]:8080", "http://127.0.0.1:8080"),
        ("::1", "http://[::1]:11434"),
        (":9000", "http://127.0.0.1:9000"),
        ("gpu.lan", "http://gpu.lan:11434"),
        ("http://gpu.lan", "http://gpu.lan"),
        ("https://ollama.example", "https://ollama.example"),
        (" \"gpu:1\" ", "http://gpu:1"),
    ] {
        assert_eq!(read(text).as_deref(), Some(url), "{text}");
    }
    for text in ["", "  ", "unix:///run/x", "http://"] {
        assert_eq!(read(text), None, "{text}");
    }
}
