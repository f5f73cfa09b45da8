//! Fetching models.

use super::*;

/// How fetching `model` ends, and what was told until then.
pub(super) async fn pulled(ollama: &Ollama, model: &str) -> (Result<(), InferenceError>, Vec<PullProgress>) {
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
