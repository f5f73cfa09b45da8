use serde_json::json;
use tokio::sync::mpsc;

use super::*;

/// As a real llama.cpp server sent it, with its HTTP head.
const RECORDED: &str = include_str!("../../../tests/data/llama-server/chat_stream.txt");

const MOST_BYTES: usize = 1_000;
const BOUNDS: Bounds = Bounds { bytes: MOST_BYTES, prompt_tokens: 500, generated_tokens: 100 };

fn recorded() -> Vec<String> {
    RECORDED.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
}

fn text(content: &str) -> String {
    json!({"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": null}], "usage": null}).to_string()
}

fn end(reason: &str) -> String {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}).to_string()
}

fn usage(prompt_tokens: u32, completion_tokens: u32) -> String {
    let usage = json!({"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": 0});
    json!({"choices": [], "usage": usage}).to_string()
}

fn run(stop: &[&str], events: &[String]) -> (Result<Answer, InferenceError>, Vec<Piece>) {
    let stop: Vec<String> = stop.iter().map(|stop| (*stop).to_owned()).collect();
    let (sink, mut pieces) = mpsc::unbounded_channel();
    let mut reading = Reading::new(&stop, Some(&sink), BOUNDS);
    let mut taken = Ok(());
    for event in events {
        match reading.take(event) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            Err(error) => {
                taken = Err(error);
                break;
            }
        }
    }
    let answer = taken.and_then(|()| reading.finish());
    let shown = std::iter::from_fn(|| pieces.try_recv().ok()).collect();
    (answer, shown)
}

fn answer(events: &[String]) -> Result<Answer, InferenceError> {
    run(&[], events).0
}

fn assert_failed(events: &[String]) {
    assert!(matches!(answer(events), Err(InferenceError::Backend(_))), "{:?} of {events:?}", answer(events));
}

#[test]
fn a_recorded_answer_is_read() {
    let (answer, pieces) = run(&[], &recorded());
    let expected = Answer {
        text: "simp".into(),
        finish: FinishReason::Stop,
        usage: Usage::tokens(24, 2),
        model: Some("tiny-lean.gguf".into()),
    };
    assert_eq!(answer, Ok(expected));
    assert_eq!(pieces, [Piece { text: "simp".into(), tokens: 1 }]);
}

#[test]
fn an_answer_that_stops_anywhere_before_its_count_is_none() {
    let events = recorded();
    assert_eq!(events.len(), 5, "role, text, end, count, done");
    for whole in 0..4 {
        assert_failed(&events[..whole]);
    }
    // Some servers just close.
    assert!(answer(&events[..4]).is_ok());
}

#[test]
fn a_server_that_does_not_count_is_not_believed() {
    assert_failed(&[text("a"), end("stop")]);
    assert_failed(&[text("a"), end("stop"), r#"{"choices": [], "usage": {}}"#.to_owned(), DONE.to_owned()]);
    assert_failed(&[text("a"), end("stop"), usage(5, 0)]);
    assert!(answer(&[end("stop"), usage(5, 0)]).is_ok(), "nothing written, nothing counted");
}

#[test]
fn only_the_usual_reasons_end_an_answer() {
    let finish = |reason| answer(&[text("a"), end(reason), usage(1, 1)]).map(|answer| answer.finish);
    assert_eq!(finish("stop"), Ok(FinishReason::Stop));
    assert_eq!(finish("length"), Ok(FinishReason::Length));
    for reason in ["tool_calls", "function_call", "abort", ""] {
        assert!(matches!(finish(reason), Err(InferenceError::Backend(_))), "{reason}");
    }
}

#[test]
fn a_content_filter_is_nothing_that_the_server_did_wrong() {
    let answered = answer(&[text("a"), end("content_filter"), usage(1, 1)]).unwrap();
    assert_eq!((answered.text.as_str(), answered.finish), ("a", FinishReason::Stop));
    let refused = answer(&[end("content_filter"), usage(1, 0)]);
    assert!(matches!(refused, Err(InferenceError::BadRequest(_))), "{refused:?}");
}

#[test]
fn counts_beyond_what_was_asked_for_are_not_billed() {
    for count in ["101", "4294967296", "1e30"] {
        let counted =
            format!(r#"{{"choices": [], "usage": {{"prompt_tokens": {count}000, "completion_tokens": {count}}}}}"#);
        let counted = counted.replace("1e30000", "1e30");
        let so_far =
            format!(r#"{{"choices": [{{"delta": {{"content": "b"}}}}], "timings": {{"predicted_n": {count}}}}}"#);
        let (answer, pieces) = run(&[], &[text("a"), so_far, end("stop"), counted]);
        assert_eq!(answer.unwrap().usage, Usage::tokens(500, 100), "{count}");
        assert_eq!(pieces.last().unwrap().tokens, 100);
    }
}

#[test]
fn events_that_say_nothing_are_no_sign_of_life() {
    let most = MOST_EMPTY_EVENTS as usize;
    let thought = json!({"choices": [{"index": 0, "delta": {"reasoning_content": "h"}}]}).to_string();
    let mut events = vec![text(""); most - 1];
    events.push(thought.clone());
    events.extend(vec![text(""); most - 1]);
    events.extend([text("a"), end("stop"), usage(1, 1)]);
    assert!(answer(&events).is_ok());
    assert_failed(&[vec![text(""); most], vec![text("a"), end("stop"), usage(1, 1)]].concat());
    assert_failed(&[vec![thought; MOST_BYTES + 1], vec![text("a"), end("stop"), usage(1, 1)]].concat());
}

#[test]
fn an_error_in_the_stream_ends_the_answer() {
    let error = json!({"error": {"message": "out of memory", "type": "server_error", "code": 500}}).to_string();
    assert_failed(&[text("a"), error.clone(), end("stop"), usage(1, 1)]);
    assert_failed(&[error]);
}

#[test]
fn what_is_no_event_of_an_answer_is_an_error() {
    for garbage in
        ["", "x", "{", "[]", "{}", "null", r#"{"choices": 1}"#, r#"{"choices": [{"delta": {"content": 1}}]}"#]
    {
        assert_failed(&[text("a"), garbage.to_owned(), end("stop"), usage(1, 1)]);
    }
}

#[test]
fn thoughts_and_other_choices_are_no_part_of_the_answer() {
    let thought =
        json!({"choices": [{"index": 0, "delta": {"content": null, "reasoning_content": "hm", "reasoning": "hm"}}]});
    let other = json!({"choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": "abort"}]});
    let (answer, pieces) =
        run(&[], &[thought.to_string(), other.to_string(), text("a"), text(""), text("b"), end("stop"), usage(3, 40)]);
    let answer = answer.unwrap();
    assert_eq!((answer.text.as_str(), answer.usage.generated_tokens), ("ab", 40));
    assert_eq!(pieces, [("a", 1), ("b", 2)].map(|(text, tokens)| Piece { text: text.into(), tokens }));
}

#[test]
fn the_servers_count_in_an_event_is_taken_over_ours() {
    let counted = |content: &str, field: &str, tokens: u32| {
        let count = match field {
            "timings" => json!({"predicted_n": tokens}),
            _ => json!({"prompt_tokens": 9, "completion_tokens": tokens}),
        };
        json!({"choices": [{"index": 0, "delta": {"content": content}}], field: count}).to_string()
    };
    let (answer, pieces) =
        run(&[], &[counted("a", "timings", 3), counted("b", "usage", 5), text("c"), end("length"), usage(9, 7)]);
    assert_eq!(pieces.iter().map(|piece| piece.tokens).collect::<Vec<_>>(), [3, 5, 6]);
    assert_eq!(answer.unwrap().usage, Usage::tokens(9, 7));
}

#[test]
fn a_stop_string_is_never_shown_even_when_the_server_writes_on() {
    let (answer, pieces) = run(&["END"], &[text("a E"), text("ND b"), text(" c"), end("length"), usage(1, 9)]);
    let answer = answer.unwrap();
    assert_eq!((answer.text.as_str(), answer.finish), ("a ", FinishReason::Stop));
    assert_eq!(pieces.len(), 1);
    // What looked like one and was none.
    let (answer, _) = run(&["END"], &[text("a EN"), end("stop"), usage(1, 2)]);
    assert_eq!(answer.unwrap().text, "a EN");
}

#[test]
fn an_answer_without_an_end_is_cut_off() {
    let piece = text(&"x".repeat(MOST_BYTES / 4));
    assert!(answer(&[piece.clone(), piece.clone(), end("stop"), usage(1, 2)]).is_ok());
    assert_failed(&vec![piece; 5]);
}
