//! What a server is asked for. Everything beyond OpenAI's own fields is sent only when the customer asked for it, because
//! strict servers refuse fields they don't know.

use serde::Serialize;
use serde_json::{Value, json};

use crate::inference::{Format, Generate, InferenceError, JsonSupport, Message};

/// The name a schema goes by: OpenAI's interface wants one.
const SCHEMA_NAME: &str = "answer";

/// Where servers differ in what they call things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's own fields, and the extensions that vLLM, SGLang and LM Studio share.
    OpenAi,
    /// llama.cpp's: another name for the repeat penalty, seeds of 32 bits, a count of tokens in every event.
    LlamaCpp,
}

/// The body of a request, always for a stream that ends with the tokens used.
#[derive(Debug, Serialize)]
pub struct ChatRequest<'a> {
    model: &'a str,
    messages: &'a [Message],
    stream: bool,
    stream_options: StreamOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repetition_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repeat_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings_per_token: Option<bool>,
}

#[derive(Debug, Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl<'a> ChatRequest<'a> {
    /// Asks `model`, as the server calls it, to continue `messages` by at most `max_tokens`, the rest as `request` says.
    ///
    /// # Errors
    /// [`InferenceError::BadRequest`] when no token is asked for, or a format that the server has no means for.
    pub fn new(
        dialect: Dialect,
        model: &'a str,
        messages: &'a [Message],
        request: &'a Generate,
        max_tokens: u32,
        json: JsonSupport,
    ) -> Result<Self, InferenceError> {
        if max_tokens == 0 {
            return Err(InferenceError::BadRequest("max_tokens is 0".to_owned()));
        }
        let sampling = request.sampling;
        let llama_cpp = dialect == Dialect::LlamaCpp;
        Ok(Self {
            model,
            messages,
            stream: true,
            stream_options: StreamOptions { include_usage: true },
            max_tokens: Some(max_tokens),
            max_completion_tokens: None,
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            frequency_penalty: sampling.frequency_penalty,
            presence_penalty: sampling.presence_penalty,
            repetition_penalty: sampling.repeat_penalty.filter(|_| !llama_cpp),
            repeat_penalty: sampling.repeat_penalty.filter(|_| llama_cpp),
            seed: sampling.seed.map(|seed| narrowed(seed, dialect)),
            stop: &request.stop,
            response_format: response_format(&request.format, json)?,
            timings_per_token: llama_cpp.then_some(true),
        })
    }

    /// Calls the limit `max_completion_tokens`, as OpenAI's newer models insist on and most others don't know.
    #[must_use]
    pub fn with_limit_renamed(mut self) -> Self {
        self.max_completion_tokens = self.max_tokens.take();
        self
    }
}

/// The seed in the bits a server has for it: 63 where it is a signed number, 31 where it has 32 bits of which the highest
/// value means "random". The same seed stays the same.
fn narrowed(seed: u64, dialect: Dialect) -> u64 {
    match dialect {
        Dialect::OpenAi => seed & (u64::MAX >> 1),
        Dialect::LlamaCpp => (seed ^ (seed >> 32)) & u64::from(u32::MAX >> 1),
    }
}

fn response_format(format: &Format, json: JsonSupport) -> Result<Option<Value>, InferenceError> {
    match format {
        Format::Text => Ok(None),
        Format::Json if json >= JsonSupport::Any => Ok(Some(json!({"type": "json_object"}))),
        Format::Schema(schema) if json >= JsonSupport::Schema => Ok(Some(json!({
            "type": "json_schema",
            "json_schema": {"name": SCHEMA_NAME, "strict": true, "schema": schema},
        }))),
        Format::Json | Format::Schema(_) => {
            Err(InferenceError::BadRequest("the server has no means to hold a model to that format".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inference::Sampling;
    use crate::testing::inference_contract::ask;

    fn body(dialect: Dialect, request: &Generate) -> Value {
        let messages = &request.messages;
        let chat = ChatRequest::new(dialect, "m", messages, request, request.max_tokens, JsonSupport::Schema).unwrap();
        serde_json::to_value(chat).unwrap()
    }

    #[test]
    fn only_what_was_asked_for_is_sent() {
        let plain = Generate { sampling: Sampling::default(), ..ask("hello") };
        let expected = json!({
            "model": "m",
            "messages": [{"role": "user", "content": "hello"}],
            "stream": true,
            "stream_options": {"include_usage": true},
            "max_tokens": 60,
        });
        assert_eq!(body(Dialect::OpenAi, &plain), expected);
        let fields = body(Dialect::LlamaCpp, &plain).as_object().unwrap().len();
        assert_eq!(
            fields,
            expected.as_object().unwrap().len() + 1,
            "besides, llama.cpp is asked to count in every event"
        );
    }

    #[test]
    fn the_limit_goes_by_one_name_at_a_time() {
        let request = ask("hello");
        let chat = ChatRequest::new(Dialect::OpenAi, "m", &request.messages, &request, 9, JsonSupport::None).unwrap();
        let body = serde_json::to_value(chat.with_limit_renamed()).unwrap();
        assert_eq!((&body["max_completion_tokens"], body.get("max_tokens")), (&json!(9), None));
    }

    #[test]
    fn servers_are_asked_in_their_own_words() {
        let sampling = Sampling {
            temperature: Some(0.5),
            top_p: Some(0.9),
            top_k: Some(3),
            frequency_penalty: Some(-1.0),
            presence_penalty: Some(1.5),
            repeat_penalty: Some(1.3),
            seed: Some(7),
        };
        let request = Generate { sampling, stop: vec!["END".into()], ..ask("hello") };
        let (open_ai, llama_cpp) = (body(Dialect::OpenAi, &request), body(Dialect::LlamaCpp, &request));
        for body in [&open_ai, &llama_cpp] {
            let common = ["temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed", "stop"];
            let values = [json!(0.5), json!(0.9), json!(3), json!(-1.0), json!(1.5), json!(7), json!(["END"])];
            for (field, value) in common.iter().zip(values) {
                assert_eq!(body[field], value, "{field}");
            }
        }
        assert_eq!((&open_ai["repetition_penalty"], &open_ai["repeat_penalty"]), (&json!(1.3), &Value::Null));
        assert_eq!((&llama_cpp["repetition_penalty"], &llama_cpp["repeat_penalty"]), (&Value::Null, &json!(1.3)));
    }

    #[test]
    fn a_large_seed_fits_what_the_server_has_for_it() {
        for seed in [0, 1, u64::from(u32::MAX), u64::MAX, u64::MAX - 1, 1 << 40] {
            assert!(i64::try_from(narrowed(seed, Dialect::OpenAi)).is_ok());
            assert!(i32::try_from(narrowed(seed, Dialect::LlamaCpp)).is_ok());
        }
        assert_ne!(narrowed(1 << 40, Dialect::LlamaCpp), narrowed(0, Dialect::LlamaCpp));
    }

    #[test]
    fn a_format_is_asked_for_only_where_the_server_can_see_to_it() {
        let schema = json!({"type": "object"});
        let cases = [
            (Format::Text, JsonSupport::None, Some(None)),
            (Format::Json, JsonSupport::None, None),
            (Format::Json, JsonSupport::Any, Some(Some("json_object"))),
            (Format::Schema(schema.clone()), JsonSupport::Any, None),
            (Format::Schema(schema.clone()), JsonSupport::Schema, Some(Some("json_schema"))),
        ];
        for (format, json, expected) in cases {
            let found = response_format(&format, json);
            match expected {
                None => assert!(matches!(found, Err(InferenceError::BadRequest(_))), "{format:?} of {json:?}"),
                Some(kind) => assert_eq!(found.unwrap().map(|found| found["type"].clone()), kind.map(Value::from)),
            }
        }
        let asked = response_format(&Format::Schema(schema.clone()), JsonSupport::Schema).unwrap().unwrap();
        assert_eq!(asked["json_schema"]["schema"], schema);
    }

    #[test]
    fn an_answer_of_no_tokens_is_not_asked_for() {
        let request = ask("hello");
        let chat = ChatRequest::new(Dialect::OpenAi, "m", &request.messages, &request, 0, JsonSupport::None);
        assert!(matches!(chat, Err(InferenceError::BadRequest(_))));
    }
}
