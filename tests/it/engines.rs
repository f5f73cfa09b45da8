//! The same model in this process and behind a llama.cpp server: the same greedy answers, the same tokens.

use std::sync::Arc;

use coinop::inference::http::ServerOptions;
use coinop::inference::llama_cpp::{LlamaCpp, LlamaCppConfig};
use coinop::inference::mistral_rs::{MistralRs, MistralRsConfig};
use coinop::inference::{Generate, Generation, Inference, Message, Role, tiny};
use coinop::testing::inference_contract::ask;
use coinop::testing::llama_server::LlamaServer;
use tokio_util::sync::CancellationToken;

/// What the tiny model is sure of.
const QUESTIONS: [&str; 9] = [
    "Theorem t : forall n : nat, n + 0 = n.",
    "Theorem t : forall n m : nat, n * m = m * n.",
    "Theorem t : forall n m : nat, n + m = m + n.",
    "Theorem t : forall P Q : Prop, P -> Q -> P /\\ Q.",
    "Theorem t : forall P Q : Prop, P /\\ Q -> Q /\\ P.",
    "theorem t (p q : Prop) (hp : p) (hq : q) : p ∧ q := by",
    "theorem t (a b : Nat) : a * b = b * a := by",
    "theorem t (n : Nat) : n + 0 = n := by",
    "Repeat: omega",
];

/// What it is not: where two words are about as likely, the last bit of a sum decides, and that differs between engines.
const ODD: [&str; 4] =
    ["word", " spaces  around ", "ÄÖÜ ⟨日本語⟩ 🦀", "fn f<T>(a: &[T]) -> bool { a.len() < 3 || x > y }"];

fn one(question: &str) -> Vec<Message> {
    vec![Message::new(Role::User, question)]
}

/// A proof that was wrong, with what the checker said.
fn repair() -> Vec<Message> {
    vec![
        Message::new(Role::System, "Prove."),
        Message::new(Role::User, QUESTIONS[1]),
        Message::new(Role::Assistant, "intros; reflexivity."),
        Message::new(Role::User, "Error: ⟨unable⟩ to unify"),
    ]
}

async fn answer(engine: &dyn Inference, request: &Generate) -> Generation {
    engine.generate(request, None, &CancellationToken::new()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_engines_write_and_count_the_same() {
    let Some(server) = LlamaServer::start().await else { return };
    let home = tempfile::tempdir().unwrap();
    let model_path = tiny::write_to(home.path()).unwrap();
    let config = MistralRsConfig { model_path, ..MistralRsConfig::default() };
    let inside: Arc<dyn Inference> = Arc::new(MistralRs::load(config, |_| ()).await.unwrap());
    let options = ServerOptions::default();
    let config = LlamaCppConfig { url: server.url(), key: None, model_name: None, slots: None, options };
    let outside: Arc<dyn Inference> = Arc::new(LlamaCpp::new(config).unwrap());

    let (a, b) = (inside.models().await.unwrap(), outside.models().await.unwrap());
    assert_eq!(a[0].name, b[0].name);
    assert_eq!(a[0].parameters, b[0].parameters);
    assert_eq!(a[0].context_tokens, b[0].context_tokens);
    for messages in QUESTIONS.into_iter().chain(ODD).map(one).chain([repair()]) {
        let [a, b] = [&inside, &outside].map(|engine| engine.count_prompt_tokens(None, &messages));
        assert_eq!(a.await.unwrap(), b.await.unwrap(), "tokens of {:?}", messages.last().unwrap().content);
    }
    for question in QUESTIONS {
        let (a, b) = (answer(&*inside, &ask(question)).await, answer(&*outside, &ask(question)).await);
        assert_eq!((&a.text, a.finish, a.usage), (&b.text, b.finish, b.usage), "the answer to {question:?}");
    }
}
