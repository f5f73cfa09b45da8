//! What a job's failure at an endpoint means.

use super::*;

fn broken() -> InferenceError {
    InferenceError::Backend("out of memory".into())
}

#[tokio::test]
async fn a_job_whose_endpoint_fails_before_its_first_piece_is_done_elsewhere() {
    let failures = [
        broken(),
        InferenceError::Busy("the queue is full".into()),
        InferenceError::Unusable("no key".into()),
        InferenceError::UnknownModel { wanted: "echo".into(), offered: vec![] },
    ];
    for (failure, standing) in failures.into_iter().zip(["up", "up", "open", "up"]) {
        let (one, two) = (Fake::new("gpu1"), Fake::new("gpu2"));
        let pool = pool_of(&[one.clone(), two.clone()], impatient());
        pool.refresh().await;
        one.next(Next::Fail(failure.clone()));
        let (sink, mut pieces) = mpsc::unbounded_channel();
        let answer = pool.generate(&ask("hello there"), Some(sink), &CancellationToken::new()).await.unwrap();
        assert_eq!((answer.text.as_str(), answer.digest.as_deref()), ("hello there", Some("gpu2")));
        let mut streamed = String::new();
        while let Some(piece) = pieces.recv().await {
            streamed.push_str(&piece.text);
        }
        assert_eq!(streamed, "hello there");
        assert_eq!((one.begun(), two.begun()), (1, 1));
        assert_eq!(standings(&pool), [standing, "up"], "after {failure}");
        assert!(pool.status()[0].last_error.is_some());
    }
}

#[tokio::test]
async fn a_job_whose_endpoint_dies_after_its_first_piece_fails_and_is_not_begun_again() {
    for streams in [true, false] {
        let (one, two) = (Fake::new("gpu1"), Fake::new("gpu2"));
        let pool = pool_of(&[one.clone(), two.clone()], impatient());
        pool.refresh().await;
        one.next(Next::WriteAndFail(broken()));
        let (sink, mut pieces) = mpsc::unbounded_channel();
        let answer = pool.generate(&ask("hello"), streams.then_some(sink), &CancellationToken::new()).await;
        assert_eq!(answer, Err(broken()));
        assert_eq!(pieces.recv().await.map(|piece| piece.text), streams.then(|| "once ".to_owned()));
        assert_eq!(pieces.recv().await, None);
        assert_eq!((one.begun(), two.begun()), (1, 0));
        assert_eq!(pool.status()[0].failures, 1);
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_job_itself_is_not_tried_elsewhere() {
    let wrong = [
        InferenceError::BadRequest("no".into()),
        InferenceError::ContextOverflow { prompt_tokens: 9, context_tokens: 8 },
        InferenceError::Cancelled,
    ];
    for error in wrong {
        let (one, two) = (Fake::new("gpu1"), Fake::new("gpu2"));
        let pool = pool_of(&[one.clone(), two.clone()], impatient());
        pool.refresh().await;
        one.next(Next::Fail(error.clone()));
        assert_eq!(run(&pool, "hello").await, Err(error));
        assert_eq!((one.begun(), two.begun(), pool.status()[0].failures), (1, 0, 0));
    }
}

#[tokio::test]
async fn each_endpoint_is_tried_once_and_the_last_failure_is_told() {
    let (one, two) = (Fake::new("gpu1"), Fake::new("gpu2"));
    let pool = pool_of(&[one.clone(), two.clone()], impatient());
    pool.refresh().await;
    one.next(Next::Fail(broken()));
    two.next(Next::Fail(InferenceError::Busy("full".into())));
    assert_eq!(run(&pool, "hello").await, Err(InferenceError::Busy("full".into())));
    assert_eq!((one.begun(), two.begun()), (1, 1));
}

#[tokio::test]
async fn a_lone_endpoint_that_still_answers_gets_a_second_try() {
    let fake = Fake::new("gpu1");
    let pool = pool_of(std::slice::from_ref(&fake), PoolOptions { breaker: BreakerOptions::default(), ..impatient() });
    pool.refresh().await;
    fake.next(Next::Fail(broken()));
    assert_eq!(run(&pool, "hello").await.unwrap().text, "hello");
    assert_eq!(fake.begun(), 2);
    for _ in 0..2 {
        fake.next(Next::Fail(broken()));
    }
    assert_eq!(run(&pool, "hello").await, Err(broken()), "not a third");
    assert_eq!(fake.begun(), 4);
}

#[tokio::test]
async fn a_lone_endpoint_that_answers_no_more_gets_none() {
    let fake = Fake::new("gpu1");
    let pool = pool_of(std::slice::from_ref(&fake), impatient());
    pool.refresh().await;
    fake.dies();
    assert!(matches!(run(&pool, "hello").await, Err(InferenceError::Backend(_))));
    assert_eq!((fake.begun(), standings(&pool)), (1, vec!["open"]));
}

#[tokio::test]
async fn a_panic_inside_an_endpoint_is_one_failure_of_one_job() {
    let (one, two) = (Fake::new("gpu1"), Fake::new("gpu2"));
    let pool = pool_of(&[one.clone(), two.clone()], impatient());
    pool.refresh().await;
    one.next(Next::Panic);
    assert_eq!(run(&pool, "hello").await.unwrap().digest.as_deref(), Some("gpu2"));
    assert_eq!((pool.status()[0].failures, in_use(&pool)), (1, vec![0, 0]));
    assert_eq!(run(&pool, "again").await.unwrap().digest.as_deref(), Some("gpu1"), "it is still trusted");
}
