use proptest::prelude::*;

use super::super::{Code, CustomerId, JobKind, Params};
use super::*;

const LIMITS: TextLimits = TextLimits { max_input_bytes: 1_000, max_tokens: 500, default_max_tokens: 100 };

fn input(kind: InputKind, data: &str, marker: Option<&str>) -> Input {
    Input { data: data.to_owned(), kind, relay: None, marker: marker.map(str::to_owned) }
}

fn request(inputs: Vec<Input>, params: &[(&str, &[&str])]) -> JobRequest {
    let mut list = Params::default();
    for (key, values) in params {
        list.push(key, values.iter().map(|value| (*value).to_owned()).collect());
    }
    JobRequest {
        id: JobId([1; 32]),
        customer: CustomerId([2; 32]),
        kind: JobKind::TextGeneration,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        expires_at: None,
        inputs,
        params: list,
        output: None,
        bid: None,
        addressed: true,
        relays: Vec::new(),
        encryption: None,
        event_json: String::new(),
    }
}

fn with(params: &[(&str, &[&str])]) -> Result<TextGeneration, Refusal> {
    TextGeneration::parse(&request(vec![input(InputKind::Text, "hello", None)], params), &LIMITS)
}

fn refused(params: &[(&str, &[&str])]) -> String {
    let refusal = with(params).unwrap_err();
    assert_eq!(refusal.code, Code::BadRequest);
    refusal.text
}

/// The conversation as text, parts joined.
fn conversation(inputs: Vec<Input>, params: &[(&str, &[&str])]) -> Result<Vec<(Role, String)>, Refusal> {
    let parsed = TextGeneration::parse(&request(inputs, params), &LIMITS)?;
    let words = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Url(url) => format!("<{url}>"),
        Part::Event { .. } => "<event>".to_owned(),
        Part::Job { .. } => "<job>".to_owned(),
    };
    let join = |turn: &Turn| turn.parts.iter().map(words).collect::<Vec<_>>().join(PART_SEPARATOR);
    Ok(parsed.turns.iter().map(|turn| (turn.role, join(turn))).collect())
}

fn text(data: &str) -> Input {
    input(InputKind::Text, data, None)
}

fn marked(data: &str, marker: &str) -> Input {
    input(InputKind::Text, data, Some(marker))
}

#[test]
fn a_plain_request_leaves_everything_to_the_provider() {
    let parsed = with(&[]).unwrap();
    assert_eq!((parsed.model, parsed.max_tokens, parsed.stream), (None, None, false));
    assert_eq!(parsed.sampling, Sampling::default());
    assert_eq!(parsed.output, TextOutput::Plain);
}

#[test]
fn every_parameter_is_read_in_either_spelling() {
    let parsed = with(&[
        ("model", &["tiny"]),
        ("max-tokens", &["42"]),
        ("temperature", &["0.5"]),
        ("top-p", &["0.9"]),
        ("top_k", &[" 40 "]),
        ("frequency-penalty", &["0.5"]),
        ("presence_penalty", &["-0.5"]),
        ("seed", &["18446744073709551615"]),
        ("stop", &["END", "\n\n"]),
        ("stop", &["END", "Qed."]),
        ("stream", &["TRUE"]),
        ("colour", &["blue"]),
    ])
    .unwrap();
    assert_eq!(parsed.model.as_deref(), Some("tiny"));
    assert_eq!(parsed.max_tokens, Some(42));
    assert_eq!(
        parsed.sampling,
        Sampling {
            temperature: Some(0.5),
            top_p: Some(0.9),
            top_k: Some(40),
            frequency_penalty: Some(0.5),
            presence_penalty: Some(-0.5),
            repeat_penalty: None,
            seed: Some(u64::MAX),
        }
    );
    assert_eq!(parsed.stop, ["END", "\n\n", "Qed."]);
    assert!(parsed.stream);
}

#[test]
fn a_frequency_penalty_above_one_is_llama_cpps_repeat_penalty() {
    let penalties = |value| with(&[("frequency_penalty", &[value])]).unwrap().sampling;
    assert_eq!(penalties("1.3").repeat_penalty, Some(1.3));
    assert_eq!(penalties("1.3").frequency_penalty, None);
    assert_eq!(penalties("1").frequency_penalty, Some(1.0));
    assert_eq!(penalties("-2").frequency_penalty, Some(-2.0));
}

#[test]
fn a_bad_value_is_refused_by_name_with_its_range() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("temperature", &["-0.1", "2.1", "NaN", "inf", "-inf", "hot", "", "1e999"], "from 0 to 2"),
        ("top_p", &["0", "1.01", "NaN", "-1"], "above 0, up to 1"),
        ("top_k", &["0", "-1", "1.5", "99999999999999999999"], "from 1 to"),
        ("frequency_penalty", &["2.5", "-2.5", "NaN"], "from -2 to 2"),
        ("presence_penalty", &["3", "x"], "from -2 to 2"),
        ("seed", &["-1", "x"], "from 0 to"),
        ("max_tokens", &["0", "501", "-1", "ten", "1e3"], "from 1 to 500"),
        ("stream", &["yes please"], "true or false"),
        ("stop", &[""], "1 to 128 bytes"),
        ("model", &["", "  "], "1 to 128 bytes"),
    ];
    for (key, values, range) in cases {
        for value in *values {
            let text = refused(&[(key, &[value])]);
            assert!(text.contains(key) && text.contains(range), "{key}={value}: {text}");
        }
    }
    assert!(refused(&[("temperature", &[])]).contains("temperature has no value"));
    assert!(refused(&[("stop", &["a", "b", "c", "d", "e", "f", "g", "h", "i"])]).contains("at most 8"));
}

#[test]
fn a_huge_value_is_not_echoed_and_a_wide_character_not_cut() {
    let huge = "😀".repeat(10_000);
    let text = refused(&[("temperature", &[&huge])]);
    assert!(text.chars().count() < 150, "{} characters", text.chars().count());
    assert!(refused(&[("seed", &["a\nb\u{1b}[31m"])]).contains("a\\nb\\u{1b}[31m"));
}

#[test]
fn unmarked_inputs_are_one_message() {
    assert_eq!(conversation(vec![text("one"), text("two")], &[]).unwrap(), [(Role::User, "one\n\ntwo".into())]);
}

#[test]
fn marked_inputs_are_a_chat_with_the_system_in_front() {
    let inputs = vec![
        marked("hi", "user"),
        marked("hello", "assistant"),
        marked("be brief", "System"),
        text("and"),
        marked("bye", "user"),
    ];
    let expected = [
        (Role::System, "be kind\n\nbe brief".to_owned()),
        (Role::User, "hi".to_owned()),
        (Role::Assistant, "hello".to_owned()),
        (Role::User, "and\n\nbye".to_owned()),
    ];
    assert_eq!(conversation(inputs, &[("system", &["be kind"])]).unwrap(), expected);
}

#[test]
fn a_blank_message_does_not_break_the_alternation() {
    let inputs = vec![marked("a", "user"), marked(" ", "assistant"), marked("b", "user")];
    assert_eq!(conversation(inputs, &[]).unwrap(), [(Role::User, "a\n\nb".into())]);
}

#[test]
fn an_unknown_marker_is_the_users() {
    assert_eq!(conversation(vec![marked("x", "prompt")], &[]).unwrap(), [(Role::User, "x".into())]);
}

#[test]
fn the_prompt_parameter_stands_in_for_an_input_and_is_not_said_twice() {
    assert_eq!(conversation(vec![], &[("prompt", &["hi"])]).unwrap(), [(Role::User, "hi".into())]);
    assert_eq!(conversation(vec![text("hi")], &[("prompt", &["hi"])]).unwrap(), [(Role::User, "hi".into())]);
    let url = input(InputKind::Url, "https://example.com/a", None);
    assert_eq!(
        conversation(vec![url], &[("prompt", &["sum up:"])]).unwrap(),
        [(Role::User, "sum up:\n\n<https://example.com/a>".into())]
    );
}

#[test]
fn an_empty_prompt_is_refused() {
    for inputs in [vec![], vec![text("")], vec![text(" \n")], vec![marked("be brief", "system")]] {
        let refusal = conversation(inputs, &[("system", &["x"])]).unwrap_err();
        assert!(refusal.text.contains("no prompt"), "{}", refusal.text);
    }
}

#[test]
fn a_conversation_that_ends_with_the_assistant_is_refused() {
    let inputs = vec![marked("a", "user"), marked("b", "assistant")];
    assert!(conversation(inputs, &[]).unwrap_err().text.contains("end the conversation"));
}

#[test]
fn references_stay_in_their_place() {
    let id = "ab".repeat(32);
    let inputs =
        vec![text("before"), input(InputKind::Event, &id, None), input(InputKind::Job, &id, None), text("after")];
    assert_eq!(conversation(inputs, &[]).unwrap(), [(Role::User, "before\n\n<event>\n\n<job>\n\nafter".into())]);
}

#[test]
fn a_bad_reference_is_refused_by_its_number() {
    for (kind, data) in [
        (InputKind::Event, "abc"),
        (InputKind::Job, "zz"),
        (InputKind::Url, ""),
        (InputKind::Url, &"x".repeat(LONGEST_URL_BYTES + 1)),
    ] {
        let refusal = conversation(vec![text("a"), input(kind, data, None)], &[]).unwrap_err();
        assert!(refusal.text.contains(&format!("input 2 ({})", kind.word())), "{}", refusal.text);
    }
    let many = vec![input(InputKind::Url, "https://example.com", None); MOST_REFERENCES + 1];
    assert!(conversation(many, &[]).unwrap_err().text.contains("at most 8"));
}

#[test]
fn too_much_text_is_refused_with_both_numbers() {
    let most = "x".repeat(LIMITS.max_input_bytes);
    assert!(conversation(vec![text(&most)], &[]).is_ok());
    let refusal = conversation(vec![text(&most), text("x")], &[]).unwrap_err();
    assert!(refusal.text.contains("1001") && refusal.text.contains("1000"), "{}", refusal.text);
    assert!(conversation(vec![text(&most)], &[("system", &["x"])]).is_err());
}

#[test]
fn the_output_is_one_of_three() {
    let output = |mime: &str| {
        let mut request = request(vec![text("a")], &[]);
        request.output = Some(mime.to_owned());
        TextGeneration::parse(&request, &LIMITS).map(|parsed| parsed.output)
    };
    assert_eq!(output("text/plain"), Ok(TextOutput::Plain));
    assert_eq!(output("Text/Markdown; charset=utf-8"), Ok(TextOutput::Markdown));
    assert_eq!(output("application/json"), Ok(TextOutput::Json));
    for other in ["image/png", "", ";", "text"] {
        let refusal = output(other).unwrap_err();
        assert_eq!(refusal.code, Code::Unsupported);
        assert!(refusal.text.contains("text/plain, text/markdown, application/json"), "{}", refusal.text);
    }
}

#[test]
fn the_customers_text_is_not_in_debug_output() {
    let shown = format!("{:?}", with(&[("system", &["secret"])]).unwrap().turns);
    assert!(!shown.contains("hello") && !shown.contains("secret"), "{shown}");
}

proptest! {
    #[test]
    fn no_text_panics_the_reader(
        data in any::<String>(),
        kind in prop::sample::select(vec![InputKind::Text, InputKind::Url, InputKind::Event, InputKind::Job]),
        marker in prop::option::of("(system|user|assistant|.*)"),
        params in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "model", "max_tokens", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty",
                    "stop", "seed", "system", "stream", "prompt", "else",
                ]),
                prop::collection::vec(any::<String>(), 0..3),
            ),
            0..6,
        ),
        output in prop::option::of(any::<String>()),
    ) {
        let mut request = request(vec![input(kind, &data, marker.as_deref())], &[]);
        for (key, values) in params {
            request.params.push(key, values);
        }
        request.output = output;
        if let Err(refusal) = TextGeneration::parse(&request, &LIMITS) {
            prop_assert!(refusal.text.chars().count() < 600, "a refusal of {} bytes", refusal.text.len());
        }
    }

    #[test]
    fn every_number_read_is_in_range(text in "[-+]?[0-9]{0,4}([.][0-9]{0,4})?(e[0-9]{1,3})?|nan|inf|infinity") {
        if let Ok(parsed) = with(&[("temperature", &[&text])]) {
            let temperature = parsed.sampling.temperature.unwrap();
            prop_assert!((0.0..=2.0).contains(&temperature));
        }
    }
}

#[test]
fn a_schema_goes_with_json_only() {
    let schema = "{\"type\": \"object\"}";
    let mut asked = request(vec![text("hello")], &[("json-schema", &[schema])]);
    let refusal = TextGeneration::parse(&asked, &LIMITS).unwrap_err();
    assert_eq!(refusal.code, Code::BadRequest);
    assert!(refusal.text.contains("json_schema") && refusal.text.contains("application/json"), "{}", refusal.text);
    asked.output = Some("application/json".to_owned());
    let read = TextGeneration::parse(&asked, &LIMITS).unwrap();
    assert_eq!(read.json_schema.unwrap().into_value(), serde_json::json!({ "type": "object" }));
    let mut asked = request(vec![text("hello")], &[("json_schema", &["{"])]);
    asked.output = Some("application/json".to_owned());
    assert!(TextGeneration::parse(&asked, &LIMITS).unwrap_err().text.contains("json_schema"));
    assert!(refused(&[("json_schema", &[])]).contains("has no value"));
}
