//! The engine's thread dies, by a panic of its own; the process, the other jobs and the next ones go on.

use std::time::Duration;

use futures::future::join_all;
use mistralrs::{NormalRequest, RequestLike, SamplingParams};

use super::*;

/// Longer than anything here takes, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it hangs")
}

/// Panics inside the engine as soon as it looks at its requests: it insists that somebody listens for the count.
async fn kill(engine: &MistralRs) {
    let (response, nobody) = mpsc::channel(1);
    drop(nobody);
    let messages: Vec<_> = engine.to_engine(&ask(EASY).messages).unwrap().into();
    let request = TokenizationRequest {
        text: MessageContent::Left(String::new()).map_left(|_| messages).map_right(|_| String::new()),
        tools: None,
        add_generation_prompt: true,
        add_special_tokens: true,
        enable_thinking: None,
        reasoning_effort: None,
        response,
    };
    let thread = engine.engine.send(Request::Tokenize(request)).await.unwrap();
    in_time(thread.closed()).await;
}

#[tokio::test]
async fn a_job_under_way_fails_honestly_and_the_one_that_waits_is_answered() {
    // Its own engine: the others must not see it die.
    let engine = load_tiny().await;
    let expected = answer(&engine, &ask(EASY)).await.text;
    let mut restarts = engine.watch_restarts();
    let (sink, mut pieces) = mpsc::unbounded_channel();
    let cancel = CancellationToken::new();
    let endless = Generate { max_tokens: u32::MAX, ..ask("Repeat: omega") };
    let under_way = engine.generate(&endless, Some(sink), &cancel);
    let easy = ask(EASY);
    let waiting_and_killing = async {
        pieces.recv().await.expect("it writes");
        tokio::join!(engine.generate(&easy, None, &cancel), kill(&engine)).0
    };
    let (failed, waited) = in_time(async { tokio::join!(under_way, waiting_and_killing) }).await;
    assert!(matches!(failed, Err(InferenceError::Backend(_))), "{failed:?}");
    assert_eq!(waited.unwrap().text, expected);
    assert_eq!(engine.restarts(), 1);
    assert_eq!(*in_time(restarts.wait_for(|count| *count > 0)).await.unwrap(), 1);

    assert_eq!(in_time(answer(&engine, &ask(EASY))).await.text, expected);
    assert_eq!(engine.restarts(), 1, "an engine that lives is left alone");
}

#[tokio::test]
async fn whenever_it_dies_nobody_waits_for_ever() {
    let engine = load_tiny().await;
    let expected = answer(&engine, &ask(EASY)).await.text;
    for round in 0..6 {
        let cancel = CancellationToken::new();
        let easy = ask(EASY);
        let jobs = (0..4).map(|_| engine.generate(&easy, None, &cancel));
        let killing = async {
            // At another moment each time.
            for _ in 0..round * 3 {
                tokio::task::yield_now().await;
            }
            kill(&engine).await;
        };
        let (answers, ()) = in_time(async { tokio::join!(join_all(jobs), killing) }).await;
        for answer in answers {
            match answer {
                Ok(done) => assert_eq!(done.text, expected),
                Err(InferenceError::Backend(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(in_time(answer(&engine, &ask(EASY))).await.text, expected, "after death {round}");
        assert_eq!(engine.restarts(), round + 1);
    }
}

#[tokio::test]
async fn a_listener_that_leaves_before_a_whole_answer_kills_the_engine_and_costs_one_job_at_most() {
    let engine = load_tiny().await;
    let expected = answer(&engine, &ask(EASY)).await.text;
    let (response, nobody) = mpsc::channel(1);
    let messages = engine.to_engine(&ask(EASY).messages).unwrap().take_messages();
    let params = SamplingParams { max_len: Some(5), ..SamplingParams::deterministic() };
    let poison = NormalRequest::new_simple(messages, params, response, 0, None, None);
    drop(nobody);
    engine.engine.send(Request::Normal(Box::new(poison))).await.unwrap();

    let mut failed = 0;
    for _ in 0..5 {
        match in_time(engine.generate(&ask(EASY), None, &CancellationToken::new())).await {
            Ok(done) => assert_eq!(done.text, expected),
            Err(InferenceError::Backend(_)) => failed += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(failed <= 1, "{failed} jobs failed");
    assert_eq!(engine.restarts(), 1);
}
