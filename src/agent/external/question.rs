//! What an agent asks, made into what the endpoint is asked: the promised model, no more tokens than are left, and nothing that would
//! make the endpoint turn to anybody else.
//!
//! Endpoints offer to run tools of their own (search the web, call a server by its address, run code), to fetch what an address
//! names, and to go on from what somebody asked before. A cell must reach nobody but the model: so tools are let through that the
//! agent runs itself, content that is there, and whole conversations.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::door::Door;

/// The longest name of a model, in bytes.
const LONGEST_MODEL: usize = 200;

/// Bytes of a request that a token has at least, roughly: it only says when a budget can't be enough.
const BYTES_A_TOKEN: usize = 4;

/// What is taken out without a word: servers the endpoint would call, and what costs more than the model itself.
const TAKEN_OUT: [&str; 5] = ["mcp_servers", "container", "web_search_options", "service_tier", "background"];

/// What names things of the operator's account that somebody else may have left there.
const OF_THE_ACCOUNT: [&str; 3] = ["previous_response_id", "conversation", "prompt"];

/// Tools that an agent runs itself, by their type; one without a type is one of its own.
const OWN_TOOLS: [&str; 4] = ["function", "custom", "local_shell", "apply_patch"];
/// The same of Anthropic's form, where a date follows.
const OWN_TOOLS_DATED: [&str; 3] = ["bash_", "text_editor_", "memory_"];

/// Where conversations stand.
const CONVERSATIONS: [&str; 3] = ["messages", "input", "system"];

/// What a question may say besides, by its form: what shapes the answer of this one model. Whatever else endpoints know (other
/// models to fall back on, plugins, searches, several answers at once) is taken out.
const CHAT: [&str; 18] = [
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "stop",
    "stream",
    "stream_options",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "reasoning_effort",
    "verbosity",
];
const RESPONSES: [&str; 15] = [
    "model",
    "input",
    "instructions",
    "max_output_tokens",
    "temperature",
    "top_p",
    "stream",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning",
    "text",
    "include",
    "store",
    "truncation",
];
const MESSAGES: [&str; 13] = [
    "model",
    "messages",
    "system",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "stream",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
];

/// Names of what names something elsewhere, in a part of a conversation.
const ADDRESSES: [&str; 8] =
    ["url", "image_url", "video_url", "audio_url", "file_url", "input_audio_url", "uri", "server_url"];

/// How deep contents may be put into contents.
const DEEPEST: usize = 8;

/// A question for the endpoint.
#[derive(Debug)]
pub(super) struct Question {
    /// The body.
    pub(super) body: Bytes,
    /// The model that is asked.
    pub(super) model: String,
}

/// About how many tokens a body of that size has, rather too few.
pub(super) fn estimate(bytes: usize) -> u32 {
    u32::try_from(bytes / BYTES_A_TOKEN).unwrap_or(u32::MAX)
}

impl Question {
    /// The question in `body`, asked of `model` (when it is fixed) and answered with at most `most` tokens.
    ///
    /// # Errors
    /// What is wrong, for the agent.
    pub(super) fn read(door: Door, body: &[u8], model: Option<&str>, most: u32) -> Result<Self, String> {
        let asked: Value = serde_json::from_slice(body).map_err(|_| "the body is no JSON".to_owned())?;
        let Value::Object(mut asked) = asked else { return Err("the body is no JSON object".to_owned()) };
        if let Some(model) = model {
            asked.insert("model".to_owned(), model.into());
        }
        let model = asked.get("model").and_then(Value::as_str).filter(|model| model.len() <= LONGEST_MODEL);
        let model = model.ok_or("model is missing, or too long")?.to_owned();
        for key in OF_THE_ACCOUNT {
            if asked.get(key).is_some_and(|value| !value.is_null()) {
                return Err(format!("{key} is not passed on from here: send the whole conversation"));
            }
        }
        for key in TAKEN_OUT.into_iter().chain(OF_THE_ACCOUNT) {
            asked.remove(key);
        }
        let allowed: &[&str] = match door {
            Door::ChatCompletions => &CHAT,
            Door::Responses => &RESPONSES,
            Door::Messages => &MESSAGES,
            Door::Models => &[],
        };
        asked.retain(|key, _| allowed.contains(&key.as_str()));
        only_own_tools(&mut asked);
        for key in CONVERSATIONS {
            check_content(asked.get(key).unwrap_or(&Value::Null), DEEPEST)?;
        }
        limit(door, &mut asked, most);
        if asked.get("stream") == Some(&Value::Bool(true)) && door == Door::ChatCompletions {
            // Otherwise nobody says what it took.
            asked.insert("stream_options".to_owned(), serde_json::json!({"include_usage": true}));
        }
        let body = serde_json::to_vec(&asked).expect("what was JSON is JSON");
        Ok(Self { body: body.into(), model })
    }
}

/// Takes out the tools that the endpoint would run, and the wish for one of them.
fn only_own_tools(asked: &mut Map<String, Value>) {
    let Some(Value::Array(tools)) = asked.get_mut("tools") else {
        asked.remove("tools");
        return;
    };
    let before = tools.len();
    tools.retain(|tool| match tool.get("type") {
        None | Some(Value::Null) => tool.is_object(),
        Some(Value::String(kind)) => {
            OWN_TOOLS.contains(&kind.as_str()) || OWN_TOOLS_DATED.iter().any(|own| kind.starts_with(own))
        }
        Some(_) => false,
    });
    let (left_out, none_left) = (tools.len() < before, tools.is_empty());
    if none_left {
        asked.remove("tools");
    }
    if none_left || (left_out && asked.get("tool_choice").is_some_and(Value::is_object)) {
        asked.remove("tool_choice");
    }
}

/// Lets no more be written than is left. Where the form has one name for that limit it is set in any case.
fn limit(door: Door, asked: &mut Map<String, Value>, most: u32) {
    let fields = door.limit_fields();
    for field in fields {
        if let Some(wanted) = asked.get_mut(*field).filter(|wanted| !wanted.is_null()) {
            let wanted_number = wanted.as_u64().unwrap_or(u64::MAX);
            *wanted = wanted_number.min(u64::from(most)).into();
        }
    }
    if let [only] = fields
        && asked.get(*only).is_none_or(Value::is_null)
    {
        asked.insert((*only).to_owned(), most.into());
    }
}

/// Whether all that a conversation shows the model is in it. Calls of tools and what they answered are texts and data; only parts
/// with a type may name something elsewhere.
fn check_content(value: &Value, deeper: usize) -> Result<(), String> {
    match value {
        Value::Array(parts) => parts.iter().try_for_each(|part| check_content(part, deeper)),
        Value::Object(part) => {
            let Some(deeper) = deeper.checked_sub(1) else { return Err("contents are nested too deep".to_owned()) };
            check_part(part)?;
            ["content", "output"].iter().filter_map(|key| part.get(*key)).try_for_each(|inner| match inner {
                Value::Array(_) => check_content(inner, deeper),
                _ => Ok(()),
            })
        }
        _ => Ok(()),
    }
}

fn check_part(part: &Map<String, Value>) -> Result<(), String> {
    let elsewhere =
        |what: &str| Err(format!("{what} names something elsewhere, which is not fetched: put it into the request"));
    let embedded = |value: &Value| value.as_str().is_none_or(|text| text.starts_with("data:"));
    let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
    for key in ADDRESSES {
        let named = part.get(key).unwrap_or(&Value::Null);
        if !embedded(named) || ADDRESSES.iter().any(|inner| !embedded(named.get(*inner).unwrap_or(&Value::Null))) {
            return elsewhere(key);
        }
    }
    match kind {
        "image_url" | "input_image" => {
            let image = part.get("image_url").unwrap_or(&Value::Null);
            if !embedded(image) || !embedded(image.get("url").unwrap_or(&Value::Null)) || has(part, "file_id") {
                return elsewhere(kind);
            }
        }
        "input_file" | "file" => {
            let file = part.get("file").and_then(Value::as_object).unwrap_or(part);
            if has(part, "file_url") || has(part, "file_id") || has(file, "file_url") || has(file, "file_id") {
                return elsewhere(kind);
            }
        }
        "image" | "document" => {
            let source = part.get("source").and_then(|source| source.get("type")).and_then(Value::as_str);
            if !matches!(source, Some("base64" | "text" | "content")) {
                return elsewhere(kind);
            }
            if let Some(inner) = part.get("source").and_then(|source| source.get("content")) {
                check_content(inner, 1)?;
            }
        }
        "container_upload" | "item_reference" | "mcp_call" | "mcp_list_tools" | "mcp_approval_response" => {
            return elsewhere(kind);
        }
        _ => {}
    }
    Ok(())
}

fn has(part: &Map<String, Value>, key: &str) -> bool {
    part.get(key).is_some_and(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(door: Door, body: Value) -> Result<Value, String> {
        let question = Question::read(door, body.to_string().as_bytes(), Some("fixed"), 100)?;
        Ok(serde_json::from_slice(&question.body).unwrap())
    }

    #[test]
    fn the_model_is_the_one_that_was_promised() {
        let asked = read(Door::ChatCompletions, json!({"model": "expensive", "messages": []})).unwrap();
        assert_eq!(asked["model"], "fixed");
        let open = |body: Value| Question::read(Door::Messages, body.to_string().as_bytes(), None, 1);
        assert_eq!(open(json!({"model": "own"})).unwrap().model, "own");
        for wrong in [json!({}), json!({"model": 7}), json!({"model": "x".repeat(300)}), json!([]), json!("model")] {
            assert!(open(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(Question::read(Door::Messages, b"\xff{", None, 1).is_err());
        let deep = "[".repeat(100_000);
        assert!(Question::read(Door::Messages, deep.as_bytes(), None, 1).is_err());
    }

    #[test]
    fn no_more_is_written_than_is_left() {
        let limit = |door, field: &str, wanted: Value| {
            read(door, json!({"model": "m", field: wanted})).unwrap().get(field).cloned()
        };
        for (door, field) in [
            (Door::ChatCompletions, "max_tokens"),
            (Door::ChatCompletions, "max_completion_tokens"),
            (Door::Responses, "max_output_tokens"),
            (Door::Messages, "max_tokens"),
        ] {
            assert_eq!(limit(door, field, json!(32_000)), Some(json!(100)));
            assert_eq!(limit(door, field, json!(7)), Some(json!(7)));
            assert_eq!(limit(door, field, json!("many")), Some(json!(100)));
            assert_eq!(limit(door, field, json!(-1)), Some(json!(100)));
        }
        assert_eq!(read(Door::Responses, json!({"model": "m"})).unwrap()["max_output_tokens"], 100);
        assert_eq!(read(Door::Messages, json!({"model": "m"})).unwrap()["max_tokens"], 100);
        // Two names: nobody knows which one the endpoint takes.
        assert_eq!(read(Door::ChatCompletions, json!({"model": "m"})).unwrap(), json!({"model": "fixed"}));
    }

    #[test]
    fn a_stream_of_a_chat_always_tells_what_it_took() {
        let asked = json!({"model": "m", "stream": true, "stream_options": {"include_usage": false}});
        let asked = read(Door::ChatCompletions, asked).unwrap();
        assert_eq!(asked["stream_options"], json!({"include_usage": true}));
        assert_eq!(read(Door::Messages, json!({"stream": true})).unwrap().get("stream_options"), None);
    }

    #[test]
    fn only_tools_that_the_agent_runs_itself_are_let_through() {
        let own = json!([
            {"type": "function", "function": {"name": "run", "parameters": {"properties": {"image_url": {"type": "string"}}}}},
            {"name": "edit", "input_schema": {}}, {"type": "custom", "name": "x"}, {"type": "bash_20250124", "name": "bash"},
        ]);
        let mut all = own.as_array().unwrap().clone();
        all.extend([
            json!({"type": "web_search"}),
            json!({"type": "web_search_20250305", "name": "web_search"}),
            json!({"type": "mcp", "server_url": "https://evil.example"}),
            json!({"type": "code_interpreter", "container": {"type": "auto"}}),
            json!({"type": "shell", "environment": {"type": "container_auto"}}),
            json!({"type": 7}),
            json!("web_search"),
        ]);
        let asked = json!({"tools": all, "tool_choice": {"type": "web_search"}, "mcp_servers": [{"url": "https://evil.example"}],
            "web_search_options": {}, "service_tier": "priority"});
        assert_eq!(
            read(Door::Responses, asked).unwrap(),
            json!({"model": "fixed", "tools": own, "max_output_tokens": 100})
        );
        let kept = json!({"tools": own, "tool_choice": {"type": "function", "name": "run"}});
        assert_eq!(read(Door::Messages, kept.clone()).unwrap()["tool_choice"], kept["tool_choice"]);
        let none = json!({"tools": [{"type": "web_search"}], "tool_choice": "required"});
        assert_eq!(read(Door::ChatCompletions, none).unwrap(), json!({"model": "fixed"}));
        assert_eq!(read(Door::ChatCompletions, json!({"tools": {"type": "mcp"}})).unwrap(), json!({"model": "fixed"}));
    }

    #[test]
    fn what_names_something_elsewhere_is_refused() {
        let said =
            |part: Value| json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, part]}]});
        for part in [
            json!({"type": "image_url", "image_url": {"url": "https://evil.example/?secret"}}),
            json!({"type": "image_url", "image_url": "http://10.0.0.1/"}),
            json!({"type": "input_image", "file_id": "file-1"}),
            json!({"type": "input_file", "file_url": "https://evil.example"}),
            json!({"type": "file", "file": {"file_id": "file-1"}}),
            json!({"type": "image", "source": {"type": "url", "url": "https://evil.example"}}),
            json!({"type": "document", "source": {"type": "file", "file_id": "x"}}),
            json!({"type": "document", "source": {"type": "content", "content": [
                {"type": "image", "source": {"type": "url", "url": "https://evil.example"}}]}}),
            json!({"type": "tool_result", "content": [{"type": "image", "source": {"type": "url"}}]}),
            json!({"type": "item_reference", "id": "rs_1"}),
        ] {
            assert!(read(Door::Messages, said(part.clone())).is_err(), "{part}");
            assert!(read(Door::Responses, json!({"input": [part.clone()]})).is_err(), "{part}");
        }
        let output =
            json!({"type": "function_call_output", "output": [{"type": "input_image", "image_url": "https://x"}]});
        assert!(read(Door::Responses, json!({"input": [output]})).is_err());
        for key in ["previous_response_id", "conversation", "prompt"] {
            assert!(read(Door::Responses, json!({key: "x"})).unwrap_err().contains(key));
            assert_eq!(read(Door::Messages, json!({key: null})).unwrap().get(key), None);
        }
    }

    #[test]
    fn what_is_in_the_request_is_let_through_as_it_is() {
        for part in [
            json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}),
            json!({"type": "input_image", "image_url": "data:image/png;base64,AAAA"}),
            json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}),
            json!({"type": "tool_use", "name": "fetch", "input": {"type": "image_url", "image_url": "https://example.com"}}),
            json!({"type": "function_call", "arguments": "{\"file_url\":\"https://example.com\"}"}),
            json!({"type": "function_call_output", "output": "see https://example.com"}),
            json!({"role": "user", "content": "https://example.com"}),
        ] {
            let asked = json!({"messages": [{"role": "user", "content": [part]}]});
            assert_eq!(read(Door::Messages, asked.clone()).unwrap()["messages"], asked["messages"]);
        }
    }
}
