//! Endpoints that go and come back.

use super::*;

/// Jobs wait for an endpoint to come back longer than any test takes.
fn patient() -> PoolOptions {
    PoolOptions { patience: LONG, ..impatient() }
}

#[tokio::test]
async fn failures_in_a_row_open_an_endpoint_and_a_check_closes_it_again() {
    let (one, two) = (Fake::new("gpu1"), Fake::new("gpu2"));
    let pool = pool_of(&[one.clone(), two.clone()], impatient());
    pool.refresh().await;
    for _ in 0..2 {
        one.next(Next::Fail(InferenceError::Backend("out of memory".into())));
        run(&pool, "hello").await.unwrap();
    }
    assert_eq!(standings(&pool), ["open", "up"]);
    run(&pool, "hello").await.unwrap();
    assert_eq!((one.begun(), two.begun()), (2, 3), "nothing is sent to an open one");
    assert_eq!(pool.room(None), 1);
    pool.refresh().await;
    assert_eq!((standings(&pool), pool.room(None)), (vec!["up", "up"], 2));
    assert_eq!(pool.status()[0].failures, 2);
}

#[tokio::test]
async fn after_the_pause_one_job_tries_an_open_endpoint_and_its_success_closes_it() {
    let fake = Fake::new("gpu1");
    let mut options = impatient();
    options.breaker.pause = Duration::ZERO;
    let pool = pool_of(std::slice::from_ref(&fake), options);
    pool.refresh().await;
    fake.next(Next::Fail(InferenceError::Unusable("no key".into())));
    assert!(run(&pool, "hello").await.is_err());
    assert_eq!(standings(&pool), ["half-open"]);
    fake.next(Next::Hold);
    let trial = start(&pool, "trial", &CancellationToken::new());
    fake.has_begun(2).await;
    // Only one may try; the others find nothing up.
    assert!(matches!(run(&pool, "too early").await, Err(InferenceError::Backend(_))));
    fake.release();
    trial.await.unwrap().unwrap();
    assert_eq!((standings(&pool), fake.begun()), (vec!["up"], 2));
}

#[tokio::test]
async fn with_everything_down_a_job_waits_for_the_first_to_come_back() {
    let (one, two) = (Fake::new("gpu1"), Fake::new("gpu2"));
    let pool = pool_of(&[one.clone(), two.clone()], patient());
    pool.refresh().await;
    one.dies();
    two.dies();
    pool.refresh().await;
    let mut waits = Box::pin(run(&pool, "hello"));
    assert!(futures::poll!(waits.as_mut()).is_pending());
    // Whoever only asks has paid nothing yet, and holds up everybody else who asks.
    let counted = pool.count_prompt_tokens(None, &ask("hello").messages).await;
    assert!(matches!(counted, Err(InferenceError::Backend(_))));
    two.comes_back();
    pool.refresh().await;
    assert_eq!(waits.await.unwrap().digest.as_deref(), Some("gpu2"));
    assert!(pool.count_prompt_tokens(None, &ask("hello").messages).await.is_ok());
}

#[tokio::test]
async fn a_job_that_waits_for_an_endpoint_to_come_back_can_be_cancelled() {
    let fake = Fake::new("gpu1");
    let pool = pool_of(std::slice::from_ref(&fake), patient());
    pool.refresh().await;
    fake.dies();
    pool.refresh().await;
    let cancel = CancellationToken::new();
    let request = ask("hello");
    let mut waits = Box::pin(pool.generate(&request, None, &cancel));
    assert!(futures::poll!(waits.as_mut()).is_pending());
    cancel.cancel();
    assert_eq!(waits.await, Err(InferenceError::Cancelled));
}

#[tokio::test]
async fn a_job_in_the_line_of_an_endpoint_that_dies_fails_when_patience_ends() {
    let fake = Fake::new("gpu1");
    let pool = pool_of(std::slice::from_ref(&fake), impatient());
    pool.refresh().await;
    fake.next(Next::Hold);
    let holder = start(&pool, "holder", &CancellationToken::new());
    fake.has_begun(1).await;
    let mut waits = Box::pin(run(&pool, "waits"));
    assert!(futures::poll!(waits.as_mut()).is_pending());
    fake.dies();
    pool.refresh().await;
    assert!(matches!(waits.await, Err(InferenceError::Backend(_))));
    fake.release();
    holder.await.unwrap().unwrap();
    assert_eq!(standings(&pool), ["up"], "it did the job after all");
}

#[tokio::test]
async fn an_endpoint_that_hangs_is_not_waited_for_when_it_is_asked() {
    struct Hangs;
    #[async_trait]
    impl Inference for Hangs {
        async fn models(&self) -> Result<Vec<ModelInfo>, InferenceError> {
            std::future::pending().await
        }
        async fn count_prompt_tokens(&self, _: Option<&str>, _: &[Message]) -> Result<PromptTokens, InferenceError> {
            std::future::pending().await
        }
        async fn generate(
            &self,
            _: &Generate,
            _: Option<TextSink>,
            _: &CancellationToken,
        ) -> Result<Generation, InferenceError> {
            std::future::pending().await
        }
    }
    let endpoints = vec![endpoint("hangs", Hangs), endpoint("gpu1", Fake::new("gpu1"))];
    let options = PoolOptions { check_timeout: Duration::from_millis(1), ..impatient() };
    let pool = Pool::new(endpoints, Vec::new(), options).unwrap();
    pool.refresh().await;
    assert_eq!(standings(&pool), ["open", "up"]);
    assert_eq!(run(&pool, "hello").await.unwrap().digest.as_deref(), Some("gpu1"));
}

#[tokio::test]
async fn what_is_broken_is_asked_again_until_it_is_well() {
    let fake = Fake::new("gpu1");
    fake.dies();
    let quickly = Duration::from_millis(1);
    let pool = pool_of(
        std::slice::from_ref(&fake),
        PoolOptions { recheck_first: quickly, recheck_longest: quickly, ..patient() },
    );
    let shutdown = CancellationToken::new();
    let checking = tokio::spawn(Arc::clone(&pool).keep_checking(shutdown.clone()));
    fake.was_checked(3).await;
    fake.comes_back();
    // Waits for it.
    assert_eq!(run_when_known(&pool).await.text, "hello");
    assert_eq!(standings(&pool), ["up"]);
    shutdown.cancel();
    checking.await.unwrap();
}

#[tokio::test]
async fn a_conversation_that_can_t_be_counted_puts_nothing_out_of_order() {
    let fake = Fake::new("gpu1");
    let pool = pool_of(std::slice::from_ref(&fake), impatient());
    pool.refresh().await;
    fake.dies();
    for _ in 0..5 {
        assert!(pool.count_prompt_tokens(None, &ask("strange").messages).await.is_err());
    }
    assert_eq!((fake.counts(), standings(&pool), pool.status()[0].failures), (5, vec!["up"], 0));
    // It is asked how it is, before its time: twice at the start, for what failed before counts too, and once now.
    fake.comes_back();
    let shutdown = CancellationToken::new();
    let checking = tokio::spawn(Arc::clone(&pool).keep_checking(shutdown.clone()));
    fake.was_checked(3).await;
    fake.dies();
    assert!(pool.count_prompt_tokens(None, &ask("strange").messages).await.is_err());
    fake.was_checked(4).await;
    shutdown.cancel();
    checking.await.unwrap();
}

/// A job, as soon as the pool knows a model.
async fn run_when_known(pool: &Pool) -> Generation {
    while pool.models().await.is_err() {}
    run(pool, "hello").await.unwrap()
}

#[tokio::test]
async fn an_endpoint_that_fails_at_a_job_is_asked_before_its_time() {
    let (one, two) = (Fake::new("gpu1"), Fake::new("gpu2"));
    let pool = pool_of(&[one.clone(), two], patient());
    let shutdown = CancellationToken::new();
    let checking = tokio::spawn(Arc::clone(&pool).keep_checking(shutdown.clone()));
    one.was_checked(1).await;
    pool.refresh().await;
    one.next(Next::Fail(InferenceError::Unusable("no key".into())));
    run(&pool, "hello").await.unwrap();
    one.was_checked(3).await;
    shutdown.cancel();
    checking.await.unwrap();
}
