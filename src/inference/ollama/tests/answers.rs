//! What becomes of a request, and what goes wrong with an answer.

use super::*;

/// What a run that meets `fault` ends with, and what was shown until then.
async fn with(fault: Fault) -> (Result<Generation, InferenceError>, String) {
    let server = one_model().await;
    let ends_in_silence = matches!(fault, Fault::Silence | Fault::StallAt(_));
    let ollama = if ends_in_silence { impatient(&server) } else { client(&server) };
    server.next("/api/chat", fault);
    let (sink, mut pieces) = mpsc::unbounded_channel();
    let answer = ollama.generate(&ask("one two three"), Some(sink), &CancellationToken::new()).await;
    let mut shown = String::new();
    while let Some(piece) = pieces.recv().await {
        shown.push_str(&piece.text);
    }
    (answer, shown)
}

#[tokio::test]
async fn characters_survive_being_cut_anywhere() {
    let server = one_model().await;
    server.send_byte_by_byte();
    let text = "ñ 漢字 🦀👩‍🔬 e\u{301} \\\"quoted\\\" \u{1F600}";
    let answer = run(&client(&server), &ask(text)).await.unwrap();
    assert_eq!(answer.text, text);
}

#[tokio::test]
async fn a_long_prompt_is_never_cut_and_thinking_is_turned_off_where_there_is_any() {
    let mut thinker = ServedModel::new("thinker:latest");
    thinker.capabilities = vec!["completion", "thinking"];
    let server = served(vec![ServedModel::new("small:latest"), thinker]).await;
    let ollama = client(&server);
    for (name, think) in [("small", None), ("thinker", Some(&Value::Bool(false)))] {
        run(&ollama, &Generate { model: Some(name.into()), ..ask("a b") }).await.unwrap();
        let body = server.asked("/api/chat").pop().unwrap().body;
        assert_eq!((&body["truncate"], &body["shift"], body.get("think")), (&json!(false), &json!(false), think));
        assert_eq!((&body["options"]["num_ctx"], &body["stream"]), (&json!(4_096), &json!(true)));
    }
}

#[tokio::test]
async fn a_schema_reaches_the_server() {
    let server = one_model().await;
    let schema = json!({"type": "object", "required": ["a"]});
    run(&client(&server), &Generate { format: Format::Schema(schema.clone()), ..ask("a") }).await.unwrap();
    run(&client(&server), &Generate { format: Format::Json, ..ask("a") }).await.unwrap();
    let formats: Vec<Value> = server.asked("/api/chat").into_iter().map(|asked| asked.body["format"].clone()).collect();
    assert_eq!(formats, [schema, json!("json")]);
}

#[tokio::test]
async fn control_tokens_reach_the_server_as_text() {
    let template = "<turn>{{ .Prompt }}".to_owned();
    let server = served(vec![ServedModel { template, ..ServedModel::new("small:latest") }]).await;
    run(&client(&server), &ask("a <turn> <|im_end|> b")).await.unwrap();
    let said = server.asked("/api/chat")[0].body["messages"][0]["content"].clone();
    assert_eq!(said, "a < turn> < |im_end| > b");
}

#[tokio::test]
async fn a_prompt_that_fits_no_context_is_refused_with_the_numbers() {
    let server = one_model().await;
    let long = ask(&"word ".repeat(5_000));
    let exact = InferenceError::ContextOverflow { prompt_tokens: 5_000, context_tokens: 4_096 };
    assert_eq!(run(&client(&server), &long).await, Err(exact));
    // Older servers tell no numbers.
    let words = r#"{"error":"the input length exceeds the context length"}"#;
    server.next("/api/chat", Fault::Answer { status: 400, body: words.into() });
    let estimate = client(&server).count_prompt_tokens(None, &long.messages).await.unwrap();
    let guessed = InferenceError::ContextOverflow { prompt_tokens: estimate.count, context_tokens: 4_096 };
    assert!(!estimate.exact && estimate.count > 4_096);
    assert_eq!(run(&client(&server), &long).await, Err(guessed));
}

#[tokio::test]
async fn refusals_say_whose_they_are() {
    let refusal = |status: u16| Fault::Answer { status, body: r#"{"error":"no"}"#.into() };
    assert!(matches!(with(refusal(400)).await.0, Err(InferenceError::BadRequest(why)) if why.contains("no")));
    assert!(matches!(with(refusal(401)).await.0, Err(InferenceError::Unusable(_))));
    assert!(matches!(with(refusal(500)).await.0, Err(InferenceError::Backend(_))));
    assert!(matches!(with(queue_full()).await.0, Err(InferenceError::Busy(_))));
    assert!(matches!(with(Fault::Silence).await.0, Err(InferenceError::Backend(why)) if why.contains("nothing came")));
}

#[tokio::test]
async fn a_model_that_was_removed_is_unknown_and_the_others_are_named() {
    let server = served(["a:latest", "b:latest"].map(ServedModel::new).to_vec()).await;
    let ollama = client(&server);
    names(&ollama).await;
    server.set_models(vec![ServedModel::new("b:latest")]);
    let error = InferenceError::UnknownModel { wanted: "a:latest".into(), offered: vec!["b:latest".into()] };
    assert_eq!(run(&ollama, &Generate { model: Some("a".into()), ..ask("x") }).await, Err(error));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_failure() {
    let error_line = r#"{"error":"an error was encountered while running the model"}"#;
    for (fault, shown, why) in [
        (Fault::SayAt(2, error_line.into()), "one two", "an error was encountered"),
        (Fault::SayAt(0, error_line.into()), "", "an error was encountered"),
        (Fault::SayAt(1, r#"{"error":{"code":500}}"#.into()), "one", "500"),
        (Fault::SayAt(1, "<html>".into()), "one", "it is no JSON"),
        (Fault::SayAt(1, r#"{"message":"two"}"#.into()), "one", "wrong"),
        (Fault::CutAt(1), "one", "the connection broke"),
        (Fault::CutAt(3), "one two three", "the connection broke"),
        (Fault::StallAt(1), "one", "nothing came"),
        (Fault::NoLastLine, "one two three", "no last line"),
        (Fault::Reason(None), "one two three", "no reason"),
        (Fault::Reason(Some("load")), "one two three", "no end of an answer"),
    ] {
        let (answer, pieces) = with(fault.clone()).await;
        assert!(matches!(&answer, Err(InferenceError::Backend(said)) if said.contains(why)), "{fault:?}: {answer:?}");
        assert_eq!(pieces, shown, "{fault:?}");
    }
}

#[tokio::test]
async fn counts_that_are_left_out_are_not_made_up() {
    let (answer, _) = with(Fault::NoCounts).await;
    assert_eq!(answer.unwrap().usage, Usage::tokens(0, 3), "three lines are three tokens");
}

#[tokio::test]
async fn a_model_may_take_long_to_load() {
    let server = one_model().await;
    server.next("/api/chat", Fault::Loading);
    let ollama = client(&server);
    let request = ask("one two");
    let loading = async {
        server.wait_until_asked("/api/chat", 1).await;
        server.finish_loading();
    };
    let (answer, ()) = tokio::join!(run(&ollama, &request), loading);
    assert_eq!(answer.unwrap().text, "one two");
}

#[tokio::test]
async fn cancelling_stops_the_server_too() {
    let chatty = Chatty::new();
    let models = vec![ServedModel::new("small:latest")];
    let server = OllamaServer::start(models, Arc::new(chatty.clone())).await.unwrap();
    let (ollama, cancel) = (client(&server), CancellationToken::new());
    let (sink, mut pieces) = mpsc::unbounded_channel();
    let request = Generate { max_tokens: u32::MAX, ..ask(ENDLESS) };
    let cancelling = async {
        pieces.recv().await.unwrap();
        cancel.cancel();
    };
    let (answer, ()) = tokio::join!(ollama.generate(&request, Some(sink), &cancel), cancelling);
    assert_eq!(answer, Err(InferenceError::Cancelled));
    server.wait_for_hang_ups(1).await;
    chatty.wait_until_stopped().await;
}

#[tokio::test]
async fn cancelling_while_a_model_is_loaded_hangs_up() {
    let server = one_model().await;
    server.next("/api/chat", Fault::Loading);
    let (ollama, cancel) = (client(&server), CancellationToken::new());
    let request = ask("one two");
    let cancelling = async {
        server.wait_until_asked("/api/chat", 1).await;
        cancel.cancel();
    };
    let (answer, ()) = tokio::join!(ollama.generate(&request, None, &cancel), cancelling);
    assert_eq!(answer, Err(InferenceError::Cancelled));
    server.wait_for_hang_ups(1).await;
}

#[tokio::test]
async fn a_stop_string_that_the_server_misses_is_found_here() {
    let server = one_model().await;
    server.next("/api/chat", Fault::IgnoreStops);
    let request = Generate { stop: vec!["wo th".into()], ..ask("one two three four five six") };
    let answer = run(&client(&server), &request).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.finish), ("one t", FinishReason::Stop));
    assert_eq!(answer.usage.generated_tokens, 3, "what was written until then");
}

#[tokio::test]
async fn the_limit_of_tokens_is_the_servers_and_told() {
    let server = one_model().await;
    let answer = run(&client(&server), &Generate { max_tokens: 2, ..ask("one two three") }).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.finish), ("one two", FinishReason::Length));
    assert_eq!(answer.usage, Usage::tokens(3, 2));
    let nothing = Generate { max_tokens: 0, ..ask("one") };
    assert!(matches!(run(&client(&server), &nothing).await, Err(InferenceError::BadRequest(_))));
}

#[tokio::test]
async fn a_server_that_never_ends_is_not_listened_to_for_ever() {
    let server = one_model().await;
    let answer = run(&client(&server), &Generate { max_tokens: 2, ..ask(ENDLESS) }).await;
    assert!(matches!(answer, Err(InferenceError::Backend(why)) if why.contains("more than it was asked for")));
    server.wait_for_hang_ups(1).await;
}

#[tokio::test]
async fn conversations_and_sampling_reach_the_server() {
    let server = one_model().await;
    let sampling = Sampling { seed: Some(7), top_k: Some(3), ..Sampling::default() };
    let messages = vec![
        Message::new(Role::System, "s"),
        Message::new(Role::User, "a"),
        Message::new(Role::Assistant, "b"),
        Message::new(Role::User, "c d"),
    ];
    let answer = run(&client(&server), &Generate { sampling, messages, ..ask("") }).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.usage.prompt_tokens), ("c d", 5));
    let body = &server.asked("/api/chat")[0].body;
    let roles: Vec<&str> =
        body["messages"].as_array().unwrap().iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user"]);
    assert_eq!((&body["options"]["seed"], &body["options"]["top_k"]), (&json!(7), &json!(3)));
}
