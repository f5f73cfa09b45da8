//! What every backend that makes embeddings must do, checked the same way for each: [`check`] panics with what is wrong.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::inference::{Embeddings, Inference, InferenceError, MOST_BATCH_BYTES, MOST_TEXTS};

/// A backend that takes longer than this for a few short texts hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Numbers that differ by less are the same: engines that work on several texts together round otherwise.
const CLOSE: f32 = 0.02;

/// Runs the whole suite.
pub async fn check(backend: &dyn Inference) {
    offers_models_that_are_not_for_text(backend).await;
    gives_each_text_its_vector_in_order(backend).await;
    gives_many_texts_the_vectors_they_have_alone(backend).await;
    names_its_models_when_asked_for_another(backend).await;
    refuses_what_is_empty_or_too_much(backend).await;
    does_not_begin_what_is_cancelled(backend).await;
}

/// The vectors of these texts by the default model.
pub async fn embed(backend: &dyn Inference, texts: &[&str]) -> Result<Embeddings, InferenceError> {
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    let cancel = CancellationToken::new();
    tokio::time::timeout(PATIENCE, backend.embed(None, &texts, &cancel)).await.expect("the backend hangs")
}

async fn offers_models_that_are_not_for_text(backend: &dyn Inference) {
    let text = backend.models().await.expect("the models are listed");
    let embedding = backend.embedding_models().await.expect("the models for embeddings are listed");
    assert!(!embedding.is_empty(), "no model for embeddings");
    for model in &embedding {
        assert!(text.iter().all(|other| other.name != model.name), "{} is offered for text too", model.name);
    }
    let cancel = CancellationToken::new();
    let named = backend.embed(Some(&embedding[0].name), &["one".to_owned()], &cancel).await.expect("a vector");
    let by_default = embed(backend, &["one"]).await.expect("a vector");
    assert_eq!((&named.model, &by_default.model), (&embedding[0].name, &embedding[0].name), "the first is the default");
    assert_eq!(named.parameters, embedding[0].parameters);
    assert_eq!(named.digest, embedding[0].digest);
}

async fn gives_each_text_its_vector_in_order(backend: &dyn Inference) {
    let made = embed(backend, &["one two", "three", "one two"]).await.expect("vectors");
    assert_eq!(made.vectors.len(), 3);
    assert!(made.dimension > 1 && made.vectors.iter().all(|vector| vector.len() == made.dimension));
    assert!(made.vectors.iter().flatten().all(|number| number.is_finite()));
    assert!(same(&made.vectors[0], &made.vectors[2]), "the same text has the same vector");
    assert!(!same(&made.vectors[0], &made.vectors[1]), "other texts have others");
    assert!(made.tokens >= 3, "{} tokens", made.tokens);
}

async fn gives_many_texts_the_vectors_they_have_alone(backend: &dyn Inference) {
    let texts: Vec<String> = (0..100).map(|number| format!("text number {}", number * 7_919)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let together = embed(backend, &texts).await.expect("vectors");
    assert_eq!(together.vectors.len(), texts.len());
    for at in [0, 31, 32, 63, 99] {
        let alone = embed(backend, &[texts[at]]).await.expect("a vector");
        assert!(same(&alone.vectors[0], &together.vectors[at]), "text {at} among others");
    }
}

async fn names_its_models_when_asked_for_another(backend: &dyn Inference) {
    let offered = backend.embedding_models().await.expect("the models").into_iter().map(|model| model.name).collect();
    let error = InferenceError::UnknownModel { wanted: "no-such-model".into(), offered };
    let made = backend.embed(Some("no-such-model"), &["a".to_owned()], &CancellationToken::new()).await;
    assert_eq!(made, Err(error));
}

async fn refuses_what_is_empty_or_too_much(backend: &dyn Inference) {
    let many = vec!["a"; MOST_TEXTS + 1];
    let long = "a ".repeat(MOST_BATCH_BYTES / 2 + 1);
    for wrong in [&[][..], &["a", ""], &many, &[&long]] {
        let made = embed(backend, wrong).await;
        assert!(matches!(made, Err(InferenceError::BadRequest(_))), "{} texts gave {made:?}", wrong.len());
    }
}

async fn does_not_begin_what_is_cancelled(backend: &dyn Inference) {
    let cancel = CancellationToken::new();
    cancel.cancel();
    assert_eq!(backend.embed(None, &["a".to_owned()], &cancel).await, Err(InferenceError::Cancelled));
}

fn same(one: &[f32], other: &[f32]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| (one - other).abs() < CLOSE)
}
