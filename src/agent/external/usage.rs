//! What an answer tells of the tokens it took, in each of the three forms, whole or in events.

use serde_json::Value;

use super::door::Door;

/// Bytes of an event's line that are looked at. Longer ones are passed on and not understood.
const MOST_LINE_BYTES: usize = 4 * 1024 * 1024;

/// Reads along while an answer passes.
#[derive(Debug)]
pub(super) struct Reader {
    door: Door,
    /// The line that has begun.
    line: Vec<u8>,
    /// It is too long to be kept.
    skipping: bool,
    prompt: Option<u32>,
    generated: Option<u32>,
    done: bool,
}

impl Reader {
    pub(super) fn new(door: Door) -> Self {
        Self { door, line: Vec::new(), skipping: false, prompt: None, generated: None, done: false }
    }

    /// Reads a piece of a stream of events; says how many events of it carried text.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> u32 {
        let mut pieces = 0_u32;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > MOST_LINE_BYTES {
                self.line.clear();
                self.skipping = true;
            }
            if !self.skipping {
                self.line.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                if !std::mem::take(&mut self.skipping) {
                    let line = std::mem::take(&mut self.line);
                    pieces = pieces.saturating_add(u32::from(self.line(&line)));
                }
                self.line.clear();
            }
        }
        pieces
    }

    /// Reads a whole answer.
    pub(super) fn whole(&mut self, body: &[u8]) {
        if let Ok(answer) = serde_json::from_slice::<Value>(body) {
            self.learn(answer.get("usage"));
            self.done = true;
        }
    }

    /// Tokens read and written, when the answer told both.
    pub(super) fn told(&self) -> Option<(u32, u32)> {
        // Anthropic's form tells at the beginning what was read, and what was written so far.
        self.prompt.zip(self.generated).filter(|_| self.done)
    }

    /// Whether the line is an event that carries text.
    fn line(&mut self, line: &[u8]) -> bool {
        let Some(data) = line.strip_prefix(b"data:") else { return false };
        let Ok(event) = serde_json::from_slice::<Value>(data) else { return false };
        match self.door {
            Door::ChatCompletions => {
                self.done |= event.get("usage").is_some_and(Value::is_object);
                self.learn(event.get("usage"));
                event["choices"]
                    .as_array()
                    .is_some_and(|choices| choices.iter().any(|choice| has_text(&choice["delta"])))
            }
            Door::Messages => {
                self.done |= event["type"] == "message_delta";
                self.learn(event.get("usage").or_else(|| event["message"].get("usage")));
                event["type"] == "content_block_delta"
            }
            Door::Responses | Door::Models => {
                self.done |= event["response"].get("usage").is_some_and(Value::is_object);
                self.learn(event["response"].get("usage"));
                event["type"].as_str().is_some_and(|kind| kind.ends_with(".delta"))
            }
        }
    }

    /// Counts in a `usage`; a later one is truer than an earlier one.
    fn learn(&mut self, usage: Option<&Value>) {
        let Some(usage) = usage.filter(|usage| usage.is_object()) else { return };
        let count = |key: &str| usage[key].as_u64().map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        let prompt = count("prompt_tokens").or_else(|| count("input_tokens"));
        // Anthropic's counts of what was cached come besides; OpenAI's are part of the whole.
        let cached = ["cache_creation_input_tokens", "cache_read_input_tokens"].map(|key| count(key).unwrap_or(0));
        let prompt = prompt.map(|prompt| cached.into_iter().fold(prompt, u32::saturating_add));
        self.prompt = prompt.or(self.prompt);
        self.generated = count("completion_tokens").or_else(|| count("output_tokens")).or(self.generated);
    }
}

/// Whether a piece of a chat says anything: text, thoughts, or the call of a tool.
fn has_text(delta: &Value) -> bool {
    let says = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    ["content", "reasoning_content", "reasoning", "refusal"].iter().any(|key| says(&delta[*key]))
        || delta["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"Hé\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"tool_calls\":[{}]}}]}\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\ndata: [DONE]\n\n";
    const MESSAGES: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5,\
        \"cache_read_input_tokens\":4,\"cache_creation_input_tokens\":2,\"output_tokens\":1}}}\n\n\
        data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"a\"}}\n\n\
        data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":9}}\n\ndata: {\"type\":\"message_stop\"}\n\n";
    const RESPONSES: &str = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n\
        data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":6,\"output_tokens\":2}}}\r\n\r\n";

    fn read(door: Door, stream: &str, size: usize) -> (Option<(u32, u32)>, u32) {
        let mut reader = Reader::new(door);
        let pieces = stream.as_bytes().chunks(size).map(|chunk| reader.pass(chunk)).sum();
        (reader.told(), pieces)
    }

    #[test]
    fn each_form_tells_its_tokens_however_it_is_cut() {
        for size in [1, 2, 7, 10_000] {
            assert_eq!(read(Door::ChatCompletions, CHAT, size), (Some((7, 3)), 2));
            assert_eq!(read(Door::Messages, MESSAGES, size), (Some((11, 9)), 1));
            assert_eq!(read(Door::Responses, RESPONSES, size), (Some((6, 2)), 1));
        }
    }

    #[test]
    fn an_answer_that_broke_off_tells_nothing() {
        for (door, stream) in [(Door::ChatCompletions, CHAT), (Door::Messages, MESSAGES), (Door::Responses, RESPONSES)]
        {
            let half = &stream[..stream.len() / 2];
            assert_eq!(read(door, half, 5).0, None, "{door}");
        }
    }

    #[test]
    fn a_whole_answer_tells_them_in_every_form() {
        for (body, told) in [
            (r#"{"usage":{"prompt_tokens":7,"completion_tokens":3}}"#, Some((7, 3))),
            (r#"{"usage":{"input_tokens":7,"output_tokens":3,"cache_read_input_tokens":1}}"#, Some((8, 3))),
            (
                r#"{"usage":{"input_tokens":7,"output_tokens":3,"input_tokens_details":{"cached_tokens":2}}}"#,
                Some((7, 3)),
            ),
            (r#"{"usage":{"prompt_tokens":99999999999,"completion_tokens":3}}"#, Some((u32::MAX, 3))),
            (r#"{"usage":{"prompt_tokens":-1,"completion_tokens":3}}"#, None),
            (r#"{"usage":7}"#, None),
            ("nonsense", None),
        ] {
            let mut reader = Reader::new(Door::ChatCompletions);
            reader.whole(body.as_bytes());
            assert_eq!(reader.told(), told, "{body}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_kept() {
        let mut reader = Reader::new(Door::ChatCompletions);
        for _ in 0..20 {
            reader.pass(&[b'x'; 1024 * 1024]);
            assert!(reader.line.len() <= MOST_LINE_BYTES);
        }
        reader.pass(b"\n");
        assert_eq!(reader.pass(CHAT.as_bytes()), 2);
        assert_eq!(reader.told(), Some((7, 3)));
    }
}
