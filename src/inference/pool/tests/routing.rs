//! Where jobs go, and how they wait.

use super::*;

#[tokio::test]
async fn jobs_go_where_the_least_of_the_room_is_used() {
    let (small, large) = (Fake::with("small", 1, true), Fake::with("large", 4, true));
    let pool = pool_of(&[small.clone(), large.clone()], impatient());
    pool.refresh().await;
    assert_eq!(pool.room(None), 5);
    let cancel = CancellationToken::new();
    let mut jobs = Vec::new();
    for (place, expected) in [(&small, [1, 0]), (&large, [1, 1]), (&large, [1, 2])] {
        place.next(Next::Hold);
        jobs.push(start(&pool, "hello", &cancel));
        let so_far = expected[if place.name() == "small" { 0 } else { 1 }];
        place.has_begun(so_far).await;
        assert_eq!(in_use(&pool), expected);
    }
    for fake in [&small, &large, &large] {
        fake.release();
    }
    for job in jobs {
        assert_eq!(job.await.unwrap().unwrap().text, "hello");
    }
    assert_eq!(in_use(&pool), [0, 0]);
}

#[tokio::test]
async fn whoever_waits_first_is_served_first() {
    let fake = Fake::new("gpu1");
    let pool = pool_of(std::slice::from_ref(&fake), impatient());
    pool.refresh().await;
    fake.next(Next::Hold);
    let holder = start(&pool, "holder", &CancellationToken::new());
    fake.has_begun(1).await;
    let (mut first, mut second) = (Box::pin(run(&pool, "first")), Box::pin(run(&pool, "second")));
    // Both are in the line, in this order.
    assert!(futures::poll!(first.as_mut()).is_pending());
    assert!(futures::poll!(second.as_mut()).is_pending());
    fake.next(Next::Hold);
    fake.release();
    holder.await.unwrap().unwrap();
    assert!(futures::poll!(second.as_mut()).is_pending());
    assert!(futures::poll!(first.as_mut()).is_pending(), "it is held");
    assert_eq!(fake.begun(), 2);
    fake.release();
    assert_eq!(first.await.unwrap().text, "first");
    assert_eq!(second.await.unwrap().text, "second");
}

#[tokio::test]
async fn a_job_cancelled_while_it_waits_or_works_frees_its_place() {
    let fake = Fake::new("gpu1");
    let pool = pool_of(std::slice::from_ref(&fake), impatient());
    pool.refresh().await;
    let (working, waiting) = (CancellationToken::new(), CancellationToken::new());
    fake.next(Next::Hold);
    let worker = start(&pool, "worker", &working);
    fake.has_begun(1).await;
    let waiter = start(&pool, "waiter", &waiting);
    let mut third = Box::pin(run(&pool, "third"));
    assert!(futures::poll!(third.as_mut()).is_pending());
    waiting.cancel();
    assert_eq!(waiter.await.unwrap(), Err(InferenceError::Cancelled));
    working.cancel();
    assert_eq!(worker.await.unwrap(), Err(InferenceError::Cancelled));
    assert_eq!(third.await.unwrap().text, "third");
    assert_eq!((in_use(&pool), standings(&pool), fake.begun()), (vec![0], vec!["up"], 2));
}

#[tokio::test]
async fn a_job_that_is_dropped_frees_its_place() {
    let fake = Fake::new("gpu1");
    let pool = pool_of(std::slice::from_ref(&fake), impatient());
    pool.refresh().await;
    fake.next(Next::Hold);
    {
        let mut dropped = Box::pin(run(&pool, "dropped"));
        assert!(futures::poll!(dropped.as_mut()).is_pending());
        assert_eq!(in_use(&pool), [1]);
    }
    assert_eq!(run(&pool, "next").await.unwrap().text, "next");
}

#[tokio::test]
async fn a_place_given_to_a_job_that_is_gone_goes_to_the_next() {
    let fake = Fake::new("gpu1");
    let pool = pool_of(std::slice::from_ref(&fake), impatient());
    pool.refresh().await;
    fake.next(Next::Hold);
    let holder = start(&pool, "holder", &CancellationToken::new());
    fake.has_begun(1).await;
    let (mut first, mut second) = (Box::pin(run(&pool, "first")), Box::pin(run(&pool, "second")));
    assert!(futures::poll!(first.as_mut()).is_pending());
    assert!(futures::poll!(second.as_mut()).is_pending());
    fake.release();
    holder.await.unwrap().unwrap();
    // The place is on its way to the first, which never takes it.
    drop(first);
    assert_eq!(second.await.unwrap().text, "second");
}

#[tokio::test]
async fn a_models_own_limit_holds_over_all_endpoints() {
    let (one, two) = (Fake::with("gpu1", 4, true), Fake::with("gpu2", 4, true));
    let endpoints = vec![endpoint("gpu1", one.clone()), endpoint("gpu2", two.clone())];
    let model = PoolModel { at_once: Some(2), ..PoolModel::named("echo") };
    let pool = Arc::new(Pool::new(endpoints, vec![model], impatient()).unwrap());
    pool.refresh().await;
    assert_eq!(pool.room(Some("echo")), 2);
    one.next(Next::Hold);
    two.next(Next::Hold);
    let cancel = CancellationToken::new();
    let held = [start(&pool, "a", &cancel), start(&pool, "b", &cancel)];
    one.has_begun(1).await;
    two.has_begun(1).await;
    let mut third = Box::pin(run(&pool, "third"));
    assert!(futures::poll!(third.as_mut()).is_pending());
    one.release();
    assert_eq!(third.await.unwrap().text, "third");
    two.release();
    for job in held {
        job.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn one_whose_endpoints_are_full_keeps_nobody_from_another_models_slot() {
    let (one, two) = (Fake::new("gpu1"), Fake::new("gpu2"));
    two.lists(&["other"]);
    let pool = pool_of(&[one.clone(), two], impatient());
    pool.refresh().await;
    one.next(Next::Hold);
    let holder = start(&pool, "holder", &CancellationToken::new());
    one.has_begun(1).await;
    let mut waits = Box::pin(run(&pool, "waits"));
    assert!(futures::poll!(waits.as_mut()).is_pending());
    let other = Generate { model: Some("other".into()), ..ask("passes") };
    assert_eq!(pool.generate(&other, None, &CancellationToken::new()).await.unwrap().text, "passes");
    one.release();
    holder.await.unwrap().unwrap();
    waits.await.unwrap();
}

#[tokio::test]
async fn models_of_one_endpoint_have_its_room_together_and_who_waits_for_another_takes_none_of_it() {
    let (one, two) = (Fake::with("gpu1", 2, true), Fake::new("gpu2"));
    one.lists(&["echo", "other"]);
    two.lists(&["third"]);
    let pool = pool_of(&[one, two.clone()], PoolOptions { patience: LONG, ..impatient() });
    pool.refresh().await;
    assert_eq!(["echo", "other", "third"].map(|model| pool.room(Some(model))), [2, 2, 1]);
    assert_eq!(pool.room(None), 3);
    two.dies();
    pool.refresh().await;
    assert_eq!((pool.room(Some("third")), pool.room(None)), (1, 2));
    let third = Generate { model: Some("third".into()), ..ask("hello") };
    let cancel = CancellationToken::new();
    let mut waits = pool.generate(&third, None, &cancel);
    assert!(futures::poll!(waits.as_mut()).is_pending());
    assert_eq!(pool.room(None), 3);
    drop(waits);
    assert_eq!(pool.room(None), 2);
}

#[tokio::test]
async fn counting_prefers_an_endpoint_that_counts_exactly() {
    let (guesses, counts) = (Fake::with("guesses", 1, false), Fake::with("counts", 1, true));
    let pool = pool_of(&[guesses.clone(), counts.clone()], impatient());
    let messages = ask("three little words").messages;
    assert_eq!(pool.count_prompt_tokens(None, &messages).await, Ok(PromptTokens::estimate(3)));
    for _ in 0..2 {
        assert_eq!(pool.count_prompt_tokens(None, &messages).await, Ok(PromptTokens::exact(3)));
    }
    assert_eq!((guesses.counts(), counts.counts()), (1, 2));
    counts.dies();
    assert_eq!(pool.count_prompt_tokens(None, &messages).await, Ok(PromptTokens::estimate(3)), "better than nothing");
}
