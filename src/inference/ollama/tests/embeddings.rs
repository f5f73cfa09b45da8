//! Models that make embeddings: which they are, and what is made of their answers.

use super::*;
use crate::testing::embedding_contract;

fn embedder(name: &str) -> ServedModel {
    ServedModel { capabilities: vec!["embedding"], ..ServedModel::new(name) }
}

/// A server with a model of each kind.
async fn both() -> OllamaServer {
    let models = vec![ServedModel::new("small:latest"), embedder("nomic:latest"), embedder("minilm:l6")];
    OllamaServer::start(models, Arc::new(Echo::new().with_context(500).with_embeddings())).await.unwrap()
}

async fn embedding_names(ollama: &Ollama) -> Vec<String> {
    ollama.embedding_models().await.unwrap().into_iter().map(|model| model.name).collect()
}

async fn embed(ollama: &Ollama, texts: &[String]) -> Result<Embeddings, InferenceError> {
    ollama.embed(None, texts, &CancellationToken::new()).await
}

#[tokio::test]
async fn models_made_for_embeddings_are_found_and_keep_their_contract() {
    let server = both().await;
    let ollama = client(&server);
    embedding_contract::check(&ollama).await;
    assert_eq!((names(&ollama).await, embedding_names(&ollama).await.len()), (vec!["small:latest".to_owned()], 2));
}

#[tokio::test]
async fn the_operators_word_says_which_model_is_for_what() {
    let server = both().await;
    let with = |models: &[&str], embeddings: &[&str]| {
        let [models, embeddings] = [models, embeddings].map(|all| all.iter().map(|name| (*name).to_owned()).collect());
        connect(OllamaConfig { models, embeddings, ..config(&server) }).unwrap()
    };
    let both = with(&["small"], &["minilm:l6", "gone", "nomic"]);
    assert_eq!(names(&both).await, ["small:latest"]);
    assert_eq!(embedding_names(&both).await, ["minilm:l6", "nomic:latest"]);
    // Whoever lists what is sold sells nothing else.
    assert_eq!(embedding_names(&with(&["small"], &[])).await, [""; 0]);
    // One that could chat is taken at the operator's word, and no longer offered for it.
    let other = with(&[], &["small"]);
    assert_eq!(names(&other).await, [""; 0]);
    assert_eq!(embedding_names(&other).await, ["small:latest"]);
}

#[tokio::test]
async fn a_server_without_such_a_model_makes_no_embeddings() {
    let server = one_model().await;
    let none = embed(&client(&server), &["a".into()]).await;
    assert_eq!(none, Err(InferenceError::NoEmbeddings));
}

#[tokio::test]
async fn a_text_that_is_too_long_is_never_cut() {
    let server = both().await;
    let ollama = client(&server);
    embed(&ollama, &["a b".into()]).await.unwrap();
    let asked = server.asked("/api/embed").pop().unwrap().body;
    assert_eq!((&asked["truncate"], &asked["options"]["num_ctx"]), (&json!(false), &json!(4_096)));
    match embed(&ollama, &["a".into(), "word ".repeat(2_000)]).await {
        Err(InferenceError::ContextOverflow { context_tokens: 4_096, .. }) => {}
        other => panic!("a text that is too long gave {other:?}"),
    }
}

#[tokio::test]
async fn vectors_that_cannot_be_are_a_failed_job() {
    let server = both().await;
    let ollama = client(&server);
    for body in ["{}", r#"{"embeddings": []}"#, r#"{"embeddings": [[]]}"#, r#"{"embeddings": [[1e99]]}"#] {
        server.next("/api/embed", Fault::Answer { status: 200, body: body.into() });
        assert!(matches!(embed(&ollama, &["a".into()]).await, Err(InferenceError::Backend(_))), "{body}");
    }
    // What it leaves out is zero.
    server.next("/api/embed", Fault::Answer { status: 200, body: r#"{"embeddings": [[1.0]]}"#.into() });
    assert_eq!(embed(&ollama, &["a".into()]).await.unwrap().tokens, 0);
    server.next("/api/embed", queue_full());
    assert!(matches!(embed(&ollama, &["a".into()]).await, Err(InferenceError::Busy(_))));
}

#[tokio::test]
async fn cancelling_ends_it_at_the_server_too() {
    let server = both().await;
    let ollama = client(&server);
    server.next("/api/embed", Fault::Silence);
    let cancel = CancellationToken::new();
    let texts = ["a".to_owned()];
    let (made, ()) = tokio::join!(ollama.embed(None, &texts, &cancel), async {
        server.wait_until_asked("/api/embed", 1).await;
        cancel.cancel();
    });
    assert_eq!(made, Err(InferenceError::Cancelled));
    server.wait_for_hang_ups(1).await;
}
