//! What a pool offers, and under which names.

use super::*;

#[tokio::test]
async fn a_pool_of_two_keeps_the_contract() {
    let questions = ["say three words", "one after another", "and yet a third one"].map(str::to_owned).to_vec();
    let endpoints = vec![endpoint("one", Echo::new()), endpoint("two", Echo::new())];
    let pool = Pool::new(endpoints, Vec::new(), PoolOptions::default()).unwrap();
    inference_contract::check(&Subject { backend: Arc::new(pool), questions, endless: None }).await;
}

#[tokio::test]
async fn a_pool_of_one_with_a_name_of_its_own_keeps_the_contract() {
    let questions = ["say three words", "one after another", "and yet a third one"].map(str::to_owned).to_vec();
    let model = PoolModel { upstream: "echo".into(), at_once: Some(3), ..PoolModel::named("parrot") };
    let pool = Pool::new(vec![endpoint("one", Echo::new())], vec![model], PoolOptions::default()).unwrap();
    inference_contract::check(&Subject { backend: Arc::new(pool), questions, endless: None }).await;
}

#[tokio::test]
async fn an_alias_is_understood_and_answered_with_the_name() {
    let fake = Fake::new("gpu1");
    fake.lists(&["org/parrot-70b"]);
    let model = PoolModel {
        upstream: "org/parrot-70b".into(),
        aliases: vec!["large".into()],
        parameters: Some(70),
        ..PoolModel::named("parrot")
    };
    let pool = Pool::new(vec![endpoint("gpu1", fake)], vec![model], impatient()).unwrap();
    for name in ["parrot", "large"] {
        let request = Generate { model: Some(name.into()), ..ask("hello") };
        let answer = pool.generate(&request, None, &CancellationToken::new()).await.unwrap();
        assert_eq!((answer.model.as_str(), answer.parameters), ("parrot", Some(70)));
        assert!(pool.count_prompt_tokens(Some(name), &request.messages).await.is_ok());
    }
    let upstream = Generate { model: Some("org/parrot-70b".into()), ..ask("hello") };
    let error = pool.generate(&upstream, None, &CancellationToken::new()).await.unwrap_err();
    let offered = vec!["parrot".to_owned()];
    assert_eq!(error, InferenceError::UnknownModel { wanted: "org/parrot-70b".into(), offered });
}

#[tokio::test]
async fn a_model_whose_endpoints_are_down_is_out_of_order_and_not_unknown() {
    let (one, two) = (Fake::new("gpu1"), Fake::new("gpu2"));
    two.lists(&["other"]);
    let pool = pool_of(&[one.clone(), two], impatient());
    pool.refresh().await;
    one.dies();
    pool.refresh().await;
    assert_eq!(standings(&pool), ["open", "up"]);
    let names: Vec<String> = pool.models().await.unwrap().into_iter().map(|model| model.name).collect();
    assert_eq!(names, ["echo", "other"]);
    assert!(matches!(run(&pool, "hello").await, Err(InferenceError::Backend(_))));
    assert!(matches!(pool.count_prompt_tokens(None, &ask("hello").messages).await, Err(InferenceError::Backend(_))));
    assert_eq!(one.begun(), 0);
    assert_eq!(pool.room(None), 1, "a job runs, and fails honestly");
}

#[tokio::test]
async fn a_model_nobody_has_ever_listed_is_asked_for_again() {
    let fake = Fake::new("gpu1");
    fake.dies();
    let pool = pool_of(std::slice::from_ref(&fake), impatient());
    assert!(pool.models().await.is_err());
    fake.comes_back();
    assert_eq!(pool.models().await.unwrap().len(), 1);
    assert_eq!(run(&pool, "hello").await.unwrap().text, "hello");
}

#[tokio::test]
async fn a_model_that_its_endpoints_lack_is_not_on_offer_until_one_has_it() {
    let fake = Fake::new("gpu1");
    let model = PoolModel { upstream: "typo".into(), ..PoolModel::named("public") };
    let pool_with = |models| Pool::new(vec![endpoint("gpu1", fake.clone())], models, impatient()).unwrap();
    let alone = pool_with(vec![model.clone()]);
    let why = alone.models().await.unwrap_err().to_string();
    assert!(why.contains("'public'") && why.contains("'typo'") && why.contains("gpu1"), "{why}");
    let pool = pool_with(vec![model, PoolModel::named("echo")]);
    let names = async || -> Vec<_> { pool.models().await.unwrap().into_iter().map(|model| model.name).collect() };
    assert_eq!(names().await, ["echo"]);
    let asked = Generate { model: Some("public".into()), ..ask("hello") };
    let error = pool.generate(&asked, None, &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, InferenceError::UnknownModel { .. }));
    fake.lists(&["typo", "echo"]);
    pool.refresh().await;
    assert_eq!(names().await, ["public", "echo"]);
    assert_eq!(alone.models().await.unwrap().len(), 1);
}

#[test]
fn names_that_come_twice_or_nowhere_are_refused() {
    let make = |endpoints: &[&str], models: Vec<PoolModel>| {
        let endpoints = endpoints.iter().map(|name| endpoint(name, Echo::new())).collect();
        match Pool::new(endpoints, models, PoolOptions::default()) {
            Ok(_) => "made".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    assert!(make(&[], Vec::new()).contains("no endpoint"));
    assert!(make(&["a", "a"], Vec::new()).contains("two endpoints are called 'a'"));
    let alias = PoolModel { aliases: vec!["n".into()], ..PoolModel::named("m") };
    assert!(make(&["a"], vec![PoolModel::named("n"), alias]).contains("'n' is the name or alias of two"));
    let lost = PoolModel { endpoints: vec!["b".into()], ..PoolModel::named("m") };
    assert!(make(&["a"], vec![lost]).contains("names the endpoint 'b'; there are a"));
}
