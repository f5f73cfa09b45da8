//! Embeddings, wherever they are made.

use super::*;
use crate::inference::Embeddings;
use crate::inference::echo::EMBEDDING_MODEL_NAME;
use crate::testing::embedding_contract;

fn echoes(endpoints: &[(&str, &Echo)]) -> Pool {
    let endpoint =
        |(name, echo): &(&str, &Echo)| PoolEndpoint { name: (*name).into(), backend: Arc::new((*echo).clone()) };
    Pool::new(endpoints.iter().map(endpoint).collect(), Vec::new(), PoolOptions::default()).unwrap()
}

async fn embed(pool: &Pool) -> Result<Embeddings, InferenceError> {
    pool.embed(None, &["a b".into()], &CancellationToken::new()).await
}

#[tokio::test]
async fn a_pool_keeps_the_contract_of_embeddings() {
    let (text, embedding) = (Echo::new(), Echo::new().with_embeddings());
    embedding_contract::check(&echoes(&[("text", &text), ("both", &embedding)])).await;
    assert_eq!(text.runs(), 0, "it makes none");
}

#[tokio::test]
async fn embeddings_that_fail_are_made_elsewhere() {
    let (one, two) = (Echo::new().with_embeddings(), Echo::new().with_embeddings());
    let pool = echoes(&[("one", &one), ("two", &two)]);
    one.fail(1);
    assert_eq!(embed(&pool).await.unwrap().model, EMBEDDING_MODEL_NAME);
    assert_eq!((one.runs(), two.runs()), (1, 1));
    let (down, well) = (Echo::new().with_embeddings(), Echo::new());
    down.fail(u32::MAX);
    let pool = echoes(&[("down", &down), ("well", &well)]);
    assert!(matches!(embed(&pool).await, Err(InferenceError::Backend(_))));
    assert_eq!(well.runs(), 0);
    assert!(pool.status().iter().all(|endpoint| endpoint.standing == "up"), "its texts may be well");
}

#[tokio::test]
async fn a_pool_that_makes_none_says_so() {
    let echo = Echo::new();
    let pool = echoes(&[("one", &echo)]);
    assert_eq!(pool.embedding_models().await, Ok(Vec::new()));
    assert_eq!(embed(&pool).await, Err(InferenceError::NoEmbeddings));
    let named = pool.embed(Some("x"), &["a".into()], &CancellationToken::new()).await;
    assert_eq!(named, Err(InferenceError::NoEmbeddings));
}
