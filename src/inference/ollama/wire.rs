//! Ollama's wire form: what is asked, and what is read out of its answers.
//!
//! Whatever Ollama has nothing to say about it leaves out: a metric that is zero, an empty list. The models' details are
//! the library's type; the rest is here, because the library drops the digest of a listed model, the prompt that is built
//! into one, and the last line of an answer.

use ollama_rs::models::ModelInfo as Details;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{Format, Generate, Message, Role, told};

/// The first version that can be told not to cut a prompt that is too long (`truncate`), which it does silently otherwise.
pub(super) const OLDEST_VERSION: (u32, u32, u32) = (0, 12, 6);

/// The answer of `/api/version`.
#[derive(Debug, Deserialize)]
pub(super) struct Version {
    pub(super) version: String,
}

impl Version {
    /// Whether it is older than [`OLDEST_VERSION`]. What can't be read, or calls itself 0.0.0 as builds from source do, is
    /// taken to be new.
    pub(super) fn is_too_old(&self) -> bool {
        let mut numbers = self.version.split(['.', '-', '+']).map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) = (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        let version = (major, minor, patch);
        version != (0, 0, 0) && version < OLDEST_VERSION
    }
}

/// The answer of `/api/tags` and of `/api/ps`.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    pub(super) models: Vec<Tag>,
}

/// A model in a list.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Tag {
    pub(super) name: String,
    #[serde(default)]
    pub(super) digest: String,
    #[serde(default)]
    pub(super) size: u64,
    /// Where it really runs, when that is not here.
    #[serde(default)]
    pub(super) remote_host: String,
}

impl Tag {
    /// Its digest as the receipts write it; `None` when it is none.
    pub(super) fn digest(&self) -> Option<String> {
        let digits = self.digest.strip_prefix("sha256:").unwrap_or(&self.digest);
        let is_digest = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then(|| format!("sha256:{}", digits.to_ascii_lowercase()))
    }
}

/// The name with its tag written out: `llama3` is `llama3:latest`.
pub(super) fn full_name(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

/// What `/api/show` is asked.
#[derive(Debug, Serialize)]
pub(super) struct Show<'a> {
    pub(super) model: &'a str,
}

/// The answer of `/api/show`.
#[derive(Debug, Deserialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    pub(super) details: Details,
    /// Instructions that are put in front of a conversation without any.
    #[serde(default)]
    pub(super) system: String,
    /// A conversation that is put in front of every other.
    #[serde(default)]
    pub(super) messages: Vec<Said>,
}

impl Shown {
    /// Whether it continues conversations; others make embeddings or pictures.
    pub(super) fn can_chat(&self) -> bool {
        self.can("completion")
    }

    /// Whether it was made for embeddings.
    pub(super) fn can_embed(&self) -> bool {
        self.can("embedding")
    }

    /// Whether it thinks aloud first when it is not told otherwise.
    pub(super) fn thinks(&self) -> bool {
        self.can("thinking")
    }

    fn can(&self, what: &str) -> bool {
        self.details.capabilities.iter().any(|capability| capability == what)
    }

    /// Its parameters, exactly. (`details.parameter_size` is rounded.)
    pub(super) fn parameters(&self) -> Option<u64> {
        told::parameters(self.details.model_info.get("general.parameter_count")?.as_u64()?)
    }

    /// The context it was made for.
    pub(super) fn context_tokens(&self) -> Option<u32> {
        let info = &self.details.model_info;
        let architecture = info.get("general.architecture")?.as_str()?;
        let context = info.get(&format!("{architecture}.context_length"))?.as_u64()?;
        u32::try_from(context).ok().filter(|context| *context > 0)
    }

    /// What looks like a control token in its template: `<end_of_turn>`, `[INST]`.
    pub(super) fn control_tokens(&self) -> Vec<String> {
        tokens_between(&self.details.template, '<', '>', |c| !c.is_whitespace() && c != '<')
            .chain(tokens_between(&self.details.template, '[', ']', |c| c.is_ascii_uppercase() || "_/".contains(c)))
            .collect()
    }
}

/// Longest control token that is looked for in a template, in bytes.
const LONGEST_TOKEN_BYTES: usize = 40;

fn tokens_between(template: &str, open: char, close: char, inner: fn(char) -> bool) -> impl Iterator<Item = String> {
    template.match_indices(open).filter_map(move |(at, _)| {
        let rest = &template[at + open.len_utf8()..];
        let size = rest.find(|c: char| !inner(c) || c == close)?;
        let ends = rest[size..].starts_with(close) && (2..=LONGEST_TOKEN_BYTES).contains(&size);
        ends.then(|| format!("{open}{}{close}", &rest[..size]))
    })
}

/// A message as Ollama writes it.
#[derive(Default, Deserialize)]
pub(super) struct Said {
    #[serde(default)]
    pub(super) content: String,
    #[serde(default)]
    pub(super) thinking: String,
}

impl std::fmt::Debug for Said {
    /// The answer stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Said({} bytes)", self.content.len())
    }
}

/// What `/api/chat` is asked.
#[derive(Serialize)]
pub(super) struct Chat<'a> {
    model: &'a str,
    messages: Vec<Turn>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    think: Option<bool>,
    truncate: bool,
    shift: bool,
    options: Options<'a>,
}

#[derive(Serialize)]
struct Turn {
    role: Role,
    content: String,
}

#[derive(Serialize)]
struct Options<'a> {
    num_ctx: u32,
    num_predict: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repeat_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop: &'a [String],
}

impl<'a> Chat<'a> {
    /// Asks `model` what `request` asks, with `messages` in place of its own. A prompt that is too long is refused instead
    /// of cut (`truncate`), an answer that fills the context ends instead of pushing its beginning out (`shift`).
    pub(super) fn new(
        model: &'a str,
        request: &'a Generate,
        messages: Vec<Message>,
        context_tokens: u32,
        thinks: bool,
    ) -> Self {
        let sampling = &request.sampling;
        Self {
            model,
            messages: messages.into_iter().map(|Message { role, content }| Turn { role, content }).collect(),
            stream: true,
            format: match &request.format {
                Format::Text => None,
                Format::Json => Some("json".into()),
                Format::Schema(schema) => Some(schema.clone()),
            },
            think: thinks.then_some(false),
            truncate: false,
            shift: false,
            options: Options {
                num_ctx: context_tokens,
                num_predict: request.max_tokens.min(context_tokens),
                temperature: sampling.temperature,
                top_p: sampling.top_p,
                top_k: sampling.top_k,
                seed: sampling.seed.map(seed),
                repeat_penalty: sampling.repeat_penalty,
                frequency_penalty: sampling.frequency_penalty,
                presence_penalty: sampling.presence_penalty,
                stop: &request.stop,
            },
        }
    }
}

/// What `/api/embed` is asked.
#[derive(Serialize)]
pub(super) struct Embed<'a> {
    model: &'a str,
    input: &'a [String],
    truncate: bool,
    options: EmbedOptions,
}

#[derive(Serialize)]
struct EmbedOptions {
    num_ctx: u32,
}

impl<'a> Embed<'a> {
    /// Asks for the vectors of these texts. One that is too long is refused instead of cut.
    pub(super) fn new(model: &'a str, texts: &'a [String], context_tokens: u32) -> Self {
        Self { model, input: texts, truncate: false, options: EmbedOptions { num_ctx: context_tokens } }
    }
}

/// The answer of `/api/embed`.
#[derive(Deserialize)]
pub(super) struct Embedded {
    pub(super) embeddings: Vec<Vec<f32>>,
    #[serde(default, deserialize_with = "told::tokens")]
    pub(super) prompt_eval_count: Option<u32>,
}

/// A seed that Ollama takes: it reads numbers as floats, keeps 32 bits, and −1 is "any". Small ones stay as they are.
fn seed(wanted: u64) -> u32 {
    let folded = (wanted >> 31) ^ (wanted >> 62) ^ wanted;
    u32::try_from(folded & 0x7fff_ffff).expect("31 bits fit")
}

/// A line of an answer.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    /// What went wrong, in place of everything else.
    #[serde(default)]
    pub(super) error: Option<Value>,
    #[serde(default)]
    pub(super) message: Said,
    /// Whether it is the last one, which has what follows.
    #[serde(default)]
    pub(super) done: bool,
    #[serde(default)]
    pub(super) done_reason: Option<String>,
    #[serde(default, deserialize_with = "told::tokens")]
    pub(super) prompt_eval_count: Option<u32>,
    #[serde(default, deserialize_with = "told::tokens")]
    pub(super) eval_count: Option<u32>,
}

/// Tokens of a prompt and of the context it does not fit, when a refusal tells them: recent versions pass the words of
/// the llama.cpp server below them on as a text.
pub(super) fn overflow(body: &[u8]) -> Option<(u32, u32)> {
    #[derive(Deserialize)]
    struct Outer {
        error: String,
    }
    #[derive(Deserialize)]
    struct Inner {
        error: Numbers,
    }
    #[derive(Deserialize)]
    struct Numbers {
        n_prompt_tokens: u32,
        n_ctx: u32,
    }
    let outer: Outer = serde_json::from_slice(body).ok()?;
    let Inner { error } = serde_json::from_str(&outer.error).ok()?;
    Some((error.n_prompt_tokens, error.n_ctx))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::text::Sampling;

    fn shown(value: Value) -> Shown {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn versions_that_cut_prompts_silently_are_too_old() {
        let too_old = |version: &str| Version { version: version.to_owned() }.is_too_old();
        assert!(["0.5.7", "0.12.5", "0.12.5-rc1"].into_iter().all(too_old));
        assert!(!["0.12.6", "0.12.6-rc0", "0.32.1", "1.0.0", "0.0.0", "", "main", "v0.1.1"].into_iter().any(too_old));
    }

    #[test]
    fn a_name_without_a_tag_is_the_latest() {
        assert_eq!(full_name("llama3"), "llama3:latest");
        assert_eq!(full_name("llama3:8b"), "llama3:8b");
        assert_eq!(full_name("host:80/me/llama3"), "host:80/me/llama3:latest");
    }

    #[test]
    fn a_digest_is_written_as_receipts_write_it() {
        let digest = |digest: &str| {
            Tag { name: "a".into(), digest: digest.into(), size: 1, remote_host: String::new() }.digest()
        };
        assert_eq!(digest(&"0A".repeat(32)), Some(format!("sha256:{}", "0a".repeat(32))));
        assert_eq!(digest(&format!("sha256:{}", "0a".repeat(32))), Some(format!("sha256:{}", "0a".repeat(32))));
        assert_eq!((digest(""), digest("xyz")), (None, None));
    }

    #[test]
    fn the_parameter_count_is_the_exact_one() {
        let model = shown(json!({
            "license": "…", "details": {"parameter_size": "8.0B"}, "capabilities": ["completion", "tools", "thinking"],
            "model_info": {"general.architecture": "llama", "general.parameter_count": 8_030_261_248_u64,
                "llama.context_length": 131_072, "llama.vocab_size": 128_256, "tokenizer.ggml.tokens": null},
            "system": "Be brief.", "messages": [{"role": "user", "content": "Hello"}], "modified_at": "2026-08-04T12:00:00Z",
        }));
        assert_eq!((model.parameters(), model.context_tokens()), (Some(8_030_261_248), Some(131_072)));
        assert_eq!((model.can_chat(), model.thinks(), model.messages.len()), (true, true, 1));
        let beyond = shown(json!({"model_info": {"general.parameter_count": u64::MAX}}));
        assert_eq!(beyond.parameters(), None);
        let bare = shown(json!({"model_info": {"general.parameter_count": 0}}));
        assert_eq!((bare.parameters(), bare.context_tokens(), bare.can_chat()), (None, None, false));
    }

    #[test]
    fn control_tokens_are_found_in_the_template() {
        let template =
            "{{ if .System }}<start_of_turn>system\n{{ .System }}<eot>\n{{ end }}[INST] a < b > c [x] [I] <>";
        let model = shown(json!({"template": template}));
        assert_eq!(model.control_tokens(), ["<start_of_turn>", "<eot>", "[INST]"]);
    }

    #[test]
    fn a_request_says_everything_that_matters() {
        let sampling = Sampling {
            temperature: Some(0.5),
            top_p: Some(0.25),
            top_k: Some(7),
            frequency_penalty: Some(-1.0),
            presence_penalty: Some(1.0),
            repeat_penalty: Some(1.5),
            seed: Some(42),
        };
        let schema = json!({"type": "object"});
        let mut request = Generate {
            model: None,
            messages: Vec::new(),
            sampling,
            stop: vec!["END".into()],
            max_tokens: 9_000,
            format: Format::Schema(schema.clone()),
        };
        let body = |request: &Generate, thinks: bool| {
            let messages = vec![Message::new(Role::System, "a"), Message::new(Role::User, "b")];
            serde_json::to_value(Chat::new("m", request, messages, 4_096, thinks)).unwrap()
        };
        assert_eq!(
            body(&request, true),
            json!({
                "model": "m", "stream": true, "format": schema, "think": false, "truncate": false, "shift": false,
                "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}],
                "options": {"num_ctx": 4_096, "num_predict": 4_096, "temperature": 0.5, "top_p": 0.25, "top_k": 7,
                    "seed": 42, "repeat_penalty": 1.5, "frequency_penalty": -1.0, "presence_penalty": 1.0, "stop": ["END"]},
            })
        );
        request.sampling = Sampling::default();
        (request.stop, request.max_tokens, request.format) = (Vec::new(), 5, Format::Json);
        let plain = body(&request, false);
        assert_eq!(plain["format"], "json");
        assert_eq!(plain["options"], json!({"num_ctx": 4_096, "num_predict": 5}));
        assert_eq!(plain.get("think"), None, "a model that can't think refuses to be told not to");
        request.format = Format::Text;
        assert_eq!(body(&request, false).get("format"), None);
    }

    #[test]
    fn seeds_fit_and_the_same_stays_the_same() {
        assert_eq!([0, 1, 42, 0x7fff_ffff].map(seed), [0, 1, 42, 0x7fff_ffff]);
        let large = [u64::MAX, u64::MAX - 1, 1 << 31, 1 << 40, (1 << 40) + 1];
        assert!(large.iter().all(|wanted| seed(*wanted) <= 0x7fff_ffff));
        assert_ne!(seed(1 << 40), seed((1 << 40) + 1));
    }

    #[test]
    fn what_a_line_leaves_out_is_not_made_up() {
        let line: Line = serde_json::from_str(r#"{"model":"m","done":true}"#).unwrap();
        assert!(line.done && line.message.content.is_empty() && line.done_reason.is_none());
        assert_eq!((line.prompt_eval_count, line.eval_count), (None, None));
        assert!(serde_json::from_str::<Line>(r#"{"done":true,"eval_count":-1}"#).is_err());
    }

    #[test]
    fn a_refusal_that_has_the_numbers_is_read() {
        let inner = json!({"error": {"code": 400, "message": "request (351 tokens) exceeds the available context size",
            "type": "exceed_context_size_error", "n_prompt_tokens": 351, "n_ctx": 256}});
        let body = json!({"error": inner.to_string()}).to_string();
        assert_eq!(overflow(body.as_bytes()), Some((351, 256)));
        assert_eq!(overflow(br#"{"error":"the input length exceeds the context length"}"#), None);
        assert_eq!(overflow(b"nonsense"), None);
    }
}
