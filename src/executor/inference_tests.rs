use tokio::sync::mpsc;

use super::*;
use crate::executor::sources::TextOnly;
use crate::inference::JsonSupport;
use crate::inference::echo::Echo;
use crate::job::Code;
use crate::job::id::EventId;
use crate::job::{CustomerId, FinishReason, Input, InputKind, JobId, JobKind, Params, Usage};
use crate::testing::input_sources::FixedInputs;

const LIMITS: TextLimits = TextLimits { max_input_bytes: 1_000, max_tokens: 500, default_max_tokens: 100 };
const HOUR: Duration = Duration::from_secs(3_600);

fn executor(echo: &Echo) -> TextExecutor {
    TextExecutor::new(Arc::new(echo.clone()), Arc::new(TextOnly), LIMITS, HOUR)
}

fn request(inputs: &[(InputKind, &str)], params: &[(&str, &str)]) -> JobRequest {
    let mut list = Params::default();
    params.iter().for_each(|(key, value)| list.push(key, vec![(*value).to_owned()]));
    let input =
        |(kind, data): &(InputKind, &str)| Input { data: (*data).to_owned(), kind: *kind, relay: None, marker: None };
    JobRequest {
        id: JobId([1; 32]),
        customer: CustomerId([2; 32]),
        kind: JobKind::TextGeneration,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        expires_at: None,
        inputs: inputs.iter().map(input).collect(),
        params: list,
        output: None,
        bid: None,
        addressed: true,
        relays: Vec::new(),
        encryption: None,
        event_json: String::new(),
    }
}

fn say(text: &str, params: &[(&str, &str)]) -> JobRequest {
    request(&[(InputKind::Text, text)], params)
}

async fn run(executor: &TextExecutor, request: &JobRequest) -> Result<Outcome, Failure> {
    let prepared = executor.prepare(request).await?;
    executor.run(&prepared, None, &CancellationToken::new()).await
}

#[tokio::test]
async fn what_was_quoted_is_what_runs_after_a_restart() {
    let executor = executor(&Echo::new());
    let prepared = executor.prepare(&say("one two three", &[("max_tokens", "2"), ("stream", "1")])).await.unwrap();
    assert_eq!(prepared.estimate, Estimate::tokens(3, 2));
    assert!(prepared.stream);

    let stored = serde_json::to_string(&prepared).unwrap();
    let prepared: Prepared = serde_json::from_str(&stored).unwrap();
    let (sink, mut pieces) = mpsc::unbounded_channel();
    let outcome = executor.run(&prepared, Some(sink), &CancellationToken::new()).await.unwrap();
    assert_eq!(outcome.content, "one two");
    assert_eq!(outcome.usage, Usage::tokens(3, 2));
    assert_eq!(outcome.finish, FinishReason::Length);
    assert_eq!(outcome.model.as_deref(), Some("echo"));
    assert_eq!(outcome.parameters, None);
    assert_eq!(pieces.recv().await.unwrap().text, "one");
}

#[tokio::test]
async fn an_answer_is_sized_to_what_fits() {
    let executor = executor(&Echo::new().with_context(20));
    let estimate = async |words: usize, params: &[(&str, &str)]| {
        executor.prepare(&say(&"w ".repeat(words), params)).await.map(|prepared| prepared.estimate.max_generated_tokens)
    };
    assert_eq!(estimate(5, &[]).await, Ok(14), "the default shrinks to what is left");
    assert_eq!(estimate(5, &[("max_tokens", "14")]).await, Ok(14));
    let refusal = estimate(5, &[("max_tokens", "15")]).await.unwrap_err();
    assert_eq!(refusal.code, Code::BadRequest);
    assert!(refusal.text.contains("at most 14"), "{}", refusal.text);
    let refusal = estimate(19, &[]).await.unwrap_err();
    assert!(refusal.text.contains("19 tokens") && refusal.text.contains("20 together"), "{}", refusal.text);
}

#[tokio::test]
async fn without_a_number_the_default_counts() {
    let prepared = executor(&Echo::new()).prepare(&say("hello", &[])).await.unwrap();
    assert_eq!(prepared.estimate.max_generated_tokens, LIMITS.default_max_tokens);
}

#[tokio::test]
async fn a_model_has_its_own_price_limit_and_other_names() {
    let rates = Rates { base: crate::money::Msat::sat(9), ..Rates::default() };
    let terms = ModelTerms { rates: Some(rates), max_tokens: Some(900), aliases: vec!["parrot".into()] };
    let executor = executor(&Echo::new()).with_models(BTreeMap::from([("echo".to_owned(), terms.clone())]));
    let prepared = executor.prepare(&say("hi", &[("model", "parrot"), ("max_tokens", "900")])).await.unwrap();
    assert_eq!((prepared.rates, prepared.lane.as_deref()), (Some(rates), Some("echo")));
    assert_eq!(prepared.estimate.max_generated_tokens, 900, "above the limit of the others");

    // Another model may be asked for more than this one.
    let low = ModelTerms { max_tokens: Some(50), ..terms.clone() };
    let models = BTreeMap::from([("echo".to_owned(), low), ("other".to_owned(), terms)]);
    let executor = super::tests::executor(&Echo::new()).with_models(models);
    let refusal = executor.prepare(&say("hi", &[("max_tokens", "51")])).await.unwrap_err();
    assert!(refusal.text.contains("at most 50"), "{}", refusal.text);
    let prepared = executor.prepare(&say("hi", &[])).await.unwrap();
    assert_eq!(prepared.estimate.max_generated_tokens, 50, "the default shrinks to what is allowed");
}

#[tokio::test]
async fn an_unknown_model_is_refused_with_those_on_offer() {
    let refusal = executor(&Echo::new()).prepare(&say("hello", &[("model", "gpt-9")])).await.unwrap_err();
    assert_eq!(refusal.code, Code::Unsupported);
    assert!(refusal.text.contains("gpt-9") && refusal.text.contains("on offer: echo"), "{}", refusal.text);
}

#[tokio::test]
async fn references_are_fetched_in_place() {
    let (event, job) = (EventId([7; 32]), JobId([8; 32]));
    let sources = FixedInputs::default().url("https://example.com/a", "A").event(event, "B").job(job, "C");
    let executor = TextExecutor::new(Arc::new(Echo::new()), Arc::new(sources), LIMITS, HOUR);
    let inputs = [
        (InputKind::Text, "begin"),
        (InputKind::Url, "https://example.com/a"),
        (InputKind::Event, &event.to_string()),
        (InputKind::Job, &job.to_string()),
        (InputKind::Text, "end"),
    ];
    assert_eq!(run(&executor, &request(&inputs, &[])).await.unwrap().content, "begin\n\nA\n\nB\n\nC\n\nend");
    let missing = [(InputKind::Url, "https://example.com/b")];
    assert!(executor.prepare(&request(&missing, &[])).await.unwrap_err().text.contains("not found"));
}

#[tokio::test]
async fn what_is_fetched_counts_and_may_not_be_empty() {
    let long = "x".repeat(LIMITS.max_input_bytes);
    let sources = FixedInputs::default().url("https://a", &long).url("https://b", " \n");
    let executor = TextExecutor::new(Arc::new(Echo::new()), Arc::new(sources), LIMITS, HOUR);
    let refused = async |inputs: &[(InputKind, &str)]| executor.prepare(&request(inputs, &[])).await.unwrap_err().text;
    assert!(refused(&[(InputKind::Text, "y"), (InputKind::Url, "https://a")]).await.contains("1001 bytes"));
    assert!(refused(&[(InputKind::Url, "https://b")]).await.contains("hold no text"));
}

#[tokio::test]
async fn a_provider_of_text_only_refuses_references() {
    let executor = executor(&Echo::new());
    let id = "ab".repeat(32);
    for (kind, data) in [(InputKind::Url, "https://a"), (InputKind::Event, &id), (InputKind::Job, &id)] {
        let refusal = executor.prepare(&request(&[(kind, data)], &[])).await.unwrap_err();
        assert_eq!(refusal.code, Code::Unsupported);
        assert!(refusal.text.contains(kind.word()), "{}", refusal.text);
    }
}

#[tokio::test]
async fn json_is_json_or_the_job_fails() {
    let executor = executor(&Echo::new());
    let answer = async |text: &str| {
        let mut request = say(text, &[]);
        request.output = Some("application/json".to_owned());
        run(&executor, &request).await.map(|outcome| outcome.content)
    };
    assert_eq!(answer(" {\"a\": [1, 2]} ").await.unwrap(), "{\"a\": [1, 2]}");
    assert_eq!(answer("```json\n{\"a\": 1}\n```").await.unwrap(), "{\"a\": 1}");
    for text in ["{\"a\": ", "here it is: {}", "```json\nno\n```"] {
        let failure = answer(text).await.unwrap_err();
        assert_eq!(failure.code, Code::Backend);
        assert!(failure.text.contains("application/json"), "{}", failure.text);
    }
}

#[tokio::test]
async fn an_empty_answer_is_a_failure() {
    let failure = run(&executor(&Echo::new()), &say("hello", &[("stop", "hel")])).await.unwrap_err();
    assert!(failure.text.contains("wrote nothing"), "{}", failure.text);
}

#[tokio::test]
async fn a_backends_words_do_not_reach_the_customer() {
    let echo = Echo::new();
    echo.fail(1);
    let failure = run(&executor(&echo), &say("hello", &[])).await.unwrap_err();
    assert_eq!(failure.code, Code::Backend);
    assert_eq!(failure.text, "the model failed; please try again");
    assert!(run(&executor(&echo), &say("hello", &[])).await.is_ok());
}

#[tokio::test]
async fn a_run_past_its_time_is_a_timeout() {
    let echo = Echo::new().gated();
    let limit = Duration::from_millis(20);
    let executor = TextExecutor::new(Arc::new(echo.clone()), Arc::new(TextOnly), LIMITS, limit);
    assert_eq!(run(&executor, &say("hello", &[])).await.unwrap_err(), Failure::timeout(limit));
    assert_eq!(echo.runs(), 1);
}

#[tokio::test]
async fn a_cancelled_run_ends_as_cancelled() {
    let echo = Echo::new().gated();
    let executor = executor(&echo);
    let prepared = executor.prepare(&say("hello", &[])).await.unwrap();
    let cancel = CancellationToken::new();
    let (outcome, ()) = tokio::join!(executor.run(&prepared, None, &cancel), async {
        echo.wait_for_runs(1).await;
        cancel.cancel();
    });
    assert_eq!(outcome.unwrap_err().code, Code::Cancelled);
}

#[tokio::test]
async fn work_of_another_version_fails_instead_of_guessing() {
    let executor = executor(&Echo::new());
    let estimate = Estimate::tokens(1, 1);
    let prepared = Prepared {
        estimate,
        prompt_is_exact: true,
        stream: false,
        rates: None,
        lane: None,
        work: serde_json::json!({ "old": true }),
    };
    let failure = executor.run(&prepared, None, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(failure.code, Code::Backend);
}

/// A request for JSON whose prompt, and so the echo's answer, is `text`.
fn say_json(text: &str, params: &[(&str, &str)]) -> JobRequest {
    JobRequest { output: Some("application/json".to_owned()), ..say(text, params) }
}

const OK_SCHEMA: &str = r#"{"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}"#;

#[tokio::test]
async fn a_backend_is_made_to_write_what_it_can_be_made_to() {
    let format = async |json, request: &JobRequest| {
        let prepared = executor(&Echo::new().with_json(json)).prepare(request).await.unwrap();
        TextWork::deserialize(&prepared.work).unwrap().generate.format
    };
    let plain = say_json("{}", &[]);
    assert_eq!(format(JsonSupport::None, &plain).await, Format::Text);
    assert_eq!(format(JsonSupport::Any, &plain).await, Format::Json);
    assert_eq!(format(JsonSupport::Schema, &plain).await, Format::Json);
    assert_eq!(format(JsonSupport::Schema, &say("{}", &[])).await, Format::Text);
    let schema = format(JsonSupport::Schema, &say_json("{}", &[("json_schema", OK_SCHEMA)])).await;
    assert_eq!(schema, Format::Schema(serde_json::from_str(OK_SCHEMA).unwrap()));
}

#[tokio::test]
async fn a_schema_is_refused_where_it_cannot_be_kept() {
    for json in [JsonSupport::None, JsonSupport::Any] {
        let request = say_json("{}", &[("json_schema", OK_SCHEMA)]);
        let refusal = executor(&Echo::new().with_json(json)).prepare(&request).await.unwrap_err();
        assert_eq!(refusal.code, Code::Unsupported);
        assert!(refusal.text.contains("json_schema") && refusal.text.contains("'echo'"), "{}", refusal.text);
    }
    let refusal = no_schemas("small", ["large".to_owned()].into_iter());
    assert!(refusal.text.contains("choose one of large"), "{}", refusal.text);
}

#[tokio::test]
async fn an_answer_that_departs_from_its_schema_is_a_failure() {
    let executor = executor(&Echo::new().with_json(JsonSupport::Schema));
    let answer = async |text: &str| run(&executor, &say_json(text, &[("json_schema", OK_SCHEMA)])).await;
    assert_eq!(answer("{\"ok\": true}").await.unwrap().content, "{\"ok\": true}");
    for (text, at) in [("{\"ok\": 1}", "at /ok"), ("{}", "at the top"), ("[1]", "at the top")] {
        let failure = answer(text).await.unwrap_err();
        assert_eq!(failure.code, Code::Backend);
        assert!(failure.text.contains("json_schema") && failure.text.contains(at), "{}", failure.text);
    }
}

#[tokio::test]
async fn json_cut_at_max_tokens_says_so() {
    let executor = executor(&Echo::new());
    let cut = run(&executor, &say_json("{\"a\": 1}", &[("max_tokens", "1")])).await.unwrap_err();
    assert!(cut.text.contains("raise max_tokens"), "{}", cut.text);
    let whole = run(&executor, &say_json("{\"a\":1} more", &[("max_tokens", "1")])).await.unwrap();
    assert_eq!((whole.content.as_str(), whole.finish), ("{\"a\":1}", FinishReason::Length));
}
