//! What a server's refusal means. Read are its status and the codes it gives, never its prose.

use serde::Deserialize;
use serde_json::Value;

use crate::inference::InferenceError;
use crate::inference::http::{Trouble, words};

/// llama.cpp's type of a prompt that does not fit; it names the numbers.
const TOO_LONG_AT_LLAMA_CPP: &str = "exceed_context_size_error";
/// OpenAI's code for the same, without numbers.
const TOO_LONG_AT_OPEN_AI: &str = "context_length_exceeded";
/// OpenAI's code, below a 429, for an account that is used up: waiting does not help.
const NO_CREDIT: &str = "insufficient_quota";
/// OpenAI's code for a field that a model does not take, named in `param`.
const NOT_TAKEN: &str = "unsupported_parameter";

/// What we know of a request that was refused, for servers that give no numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// Tokens of its prompt, counted or estimated.
    pub prompt_tokens: Option<u32>,
    /// The model's context.
    pub context_tokens: Option<u32>,
}

/// What servers put into an error, where they do; the spellings differ.
#[derive(Debug, Default, Deserialize)]
struct Details {
    #[serde(default, rename = "type")]
    kind: Value,
    #[serde(default)]
    code: Value,
    #[serde(default)]
    param: Value,
    #[serde(default)]
    n_prompt_tokens: Option<u32>,
    #[serde(default)]
    n_ctx: Option<u32>,
}

impl Details {
    /// From `{"error": {…}}`, or the same without the envelope. Anything else has no details.
    fn of(body: &Value) -> Self {
        Self::deserialize(body.get("error").unwrap_or(body)).unwrap_or_default()
    }

    fn overflow(&self, known: Known) -> Option<InferenceError> {
        let (prompt_tokens, context_tokens) = if self.kind == TOO_LONG_AT_LLAMA_CPP {
            (self.n_prompt_tokens.or(known.prompt_tokens), self.n_ctx.or(known.context_tokens))
        } else if self.code == TOO_LONG_AT_OPEN_AI {
            (known.prompt_tokens, known.context_tokens)
        } else {
            return None;
        };
        Some(match (prompt_tokens, context_tokens) {
            (Some(prompt_tokens), Some(context_tokens)) => {
                InferenceError::ContextOverflow { prompt_tokens, context_tokens }
            }
            _ => InferenceError::BadRequest("the prompt is longer than the model's context".to_owned()),
        })
    }
}

/// Whether the model wants the limit by its other name: [`super::ChatRequest::with_limit_renamed`].
pub fn wants_limit_renamed(trouble: &Trouble) -> bool {
    let Trouble::Status { status, body } = trouble else { return false };
    let details = serde_json::from_slice::<Value>(body).map(|body| Details::of(&body)).unwrap_or_default();
    status.as_u16() == 400 && details.code == NOT_TAKEN && details.param == "max_tokens"
}

/// What it means that a server did not answer.
pub fn refused(trouble: Trouble, known: Known) -> InferenceError {
    let Trouble::Status { status, body } = &trouble else { return trouble.into() };
    let details = serde_json::from_slice::<Value>(body).map(|body| Details::of(&body)).unwrap_or_default();
    match status.as_u16() {
        // The customer's request is at fault, as far as the server can tell.
        400 | 413 | 422 => details.overflow(known).unwrap_or_else(|| InferenceError::BadRequest(trouble.to_string())),
        402 => InferenceError::Unusable(format!("{trouble}; is its account used up?")),
        429 if details.code == NO_CREDIT => InferenceError::Unusable(format!("{trouble}; its account is used up")),
        _ => trouble.into(),
    }
}

/// What an error in the middle of an answer means.
pub(super) fn broken_off(error: &Value) -> InferenceError {
    let words = match error.get("message").unwrap_or(error) {
        Value::String(message) => words(message.as_bytes()),
        other => words(other.to_string().as_bytes()),
    };
    let overflow = Details::of(error).overflow(Known::default());
    overflow.unwrap_or_else(|| InferenceError::Backend(format!("it broke off: {words}")))
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use serde_json::json;

    use super::*;

    const KNOWN: Known = Known { prompt_tokens: Some(5_000), context_tokens: Some(4_096) };

    fn of(status: u16, body: &Value, known: Known) -> InferenceError {
        let status = StatusCode::from_u16(status).unwrap();
        refused(Trouble::Status { status, body: body.to_string().into() }, known)
    }

    #[test]
    fn a_prompt_too_long_is_told_with_the_numbers() {
        let body = json!({"error": {"code": 400, "message": "request (1501 tokens) exceeds …",
            "type": "exceed_context_size_error", "n_prompt_tokens": 1_501, "n_ctx": 1_024}});
        let overflow = InferenceError::ContextOverflow { prompt_tokens: 1_501, context_tokens: 1_024 };
        assert_eq!(of(400, &body, KNOWN), overflow);
        assert_eq!(broken_off(&body["error"]), overflow);

        let body = json!({"error": {"message": "…", "type": "invalid_request_error", "param": "messages",
            "code": "context_length_exceeded"}});
        let overflow = InferenceError::ContextOverflow { prompt_tokens: 5_000, context_tokens: 4_096 };
        assert_eq!(of(400, &body, KNOWN), overflow);
        assert!(matches!(of(400, &body, Known::default()), InferenceError::BadRequest(_)));
    }

    #[test]
    fn the_status_says_who_is_at_fault_whatever_the_body_looks_like() {
        let bodies = [
            json!({"error": {"message": "no", "type": "x", "code": 400}}),
            json!({"object": "error", "message": "no", "code": 400}),
            json!({"error": "no"}),
            json!({"detail": [{"loc": ["body"]}]}),
            json!([1]),
        ];
        for body in &bodies {
            assert!(matches!(of(400, body, KNOWN), InferenceError::BadRequest(_)), "{body}");
            assert!(matches!(of(401, body, KNOWN), InferenceError::Unusable(_)), "{body}");
            assert!(matches!(of(402, body, KNOWN), InferenceError::Unusable(_)), "{body}");
            assert!(matches!(of(404, body, KNOWN), InferenceError::Backend(_)), "{body}");
            assert!(matches!(of(429, body, KNOWN), InferenceError::Busy(_)), "{body}");
            assert!(matches!(of(500, body, KNOWN), InferenceError::Backend(_)), "{body}");
            assert!(matches!(of(503, body, KNOWN), InferenceError::Busy(_)), "{body}");
        }
        let used_up = json!({"error": {"message": "…", "type": "insufficient_quota", "code": "insufficient_quota"}});
        assert!(matches!(of(429, &used_up, KNOWN), InferenceError::Unusable(_)));
    }

    #[test]
    fn an_error_in_the_middle_says_what_the_server_said() {
        for error in [json!({"message": "out of memory", "code": 500}), json!("out of memory")] {
            let InferenceError::Backend(text) = broken_off(&error) else { panic!("{error}") };
            assert!(text.contains("out of memory"), "{text}");
        }
    }
}
