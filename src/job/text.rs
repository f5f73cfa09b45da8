//! Kind 5050: what a text-generation request asks for.
//!
//! # How NIP-90 parameters map
//!
//! Keys are read in either spelling (`top-k`, `top_k`). A bad value is refused with its name and range, never replaced
//! by a default; unknown parameters are ignored; of a repeated one the first counts (`stop` excepted).
//!
//! | `param` | values | meaning |
//! |---|---|---|
//! | `model` | a name on offer | which model; left out: the provider's default |
//! | `max_tokens` | 1 to the provider's limit | most tokens to write, the end-of-sequence token included |
//! | `temperature` | 0 to 2 | 0 is greedy |
//! | `top_p` | above 0 to 1 | nucleus sampling |
//! | `top_k` | 1 to [`MOST_TOP_K`] | only the most likely so many |
//! | `frequency_penalty` | −2 to 1 | OpenAI's frequency penalty |
//! | `frequency_penalty` | above 1 to 2 | llama.cpp's *repeat penalty*: the published kind page's example (`1.3`) means that |
//! | `presence_penalty` | −2 to 2 | OpenAI's presence penalty |
//! | `stop` | texts, several values and repeats add up | ends the answer; not part of it |
//! | `seed` | 0 to 2⁶⁴−1 | the same request gives the same answer on the same backend and model |
//! | `json_schema` | a JSON Schema, as one JSON text | what the answer must match; needs output `application/json`, see [`schema`] |
//! | `system` | text | instructions, before those of `i` inputs marked `system` |
//! | `stream` | `true`, `1`, `false`, `0` | `partial` feedback while writing |
//! | `prompt` | text | the user's message when there is no `i` tag, else put in front of the user's first |
//!
//! `i` inputs marked `system`, `user` or `assistant` make a chat, in order; unmarked ones among them are the user's.
//! Without any such marker all inputs together are one user message, joined by a blank line. System texts move to the
//! front and neighbours of one role are joined, because most chat templates insist on one system message and on turns
//! that alternate. The last message must be the user's.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::EventId;
use super::schema::{self, Schema};
use super::{Input, InputKind, JobId, JobRequest, Refusal};

/// Most stop strings of a request: twice what OpenAI's interface allows.
pub const MOST_STOPS: usize = 8;
/// Longest stop string, in bytes: longer ones hold text back from the stream for nothing.
pub const LONGEST_STOP_BYTES: usize = 128;
/// Longest model name, in bytes.
pub const LONGEST_MODEL_BYTES: usize = 128;
/// Bytes of text a token is taken to have where a prompt's tokens can't be counted before it is read. English prose has more
/// than four, programs and other languages three.
pub const BYTES_PER_TOKEN: u32 = 3;
/// Largest `top_k`: about the largest vocabulary there is.
pub const MOST_TOP_K: u32 = 300_000;
/// Most `url`, `event` and `job` inputs of a request: each costs a fetch before anything is paid.
pub const MOST_REFERENCES: usize = 8;
/// Longest address of a `url` input, in bytes: what browsers take.
pub const LONGEST_URL_BYTES: usize = 2_048;
/// What parts of one message are joined with.
pub const PART_SEPARATOR: &str = "\n\n";
/// How much of a bad value an error repeats, in characters.
const ECHOED_CHARS: usize = 40;

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The instructions.
    System,
    /// The customer.
    User,
    /// The model.
    Assistant,
}

impl Role {
    fn from_marker(marker: &str) -> Option<Self> {
        match marker.trim().to_ascii_lowercase().as_str() {
            "system" => Some(Self::System),
            "user" => Some(Self::User),
            "assistant" => Some(Self::Assistant),
            _ => None,
        }
    }
}

/// How the next token is chosen. `None` leaves it to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Sampling {
    /// Zero is greedy; 0 to 2.
    pub temperature: Option<f64>,
    /// Nucleus, above 0 to 1.
    pub top_p: Option<f64>,
    /// The most likely so many; at least 1.
    pub top_k: Option<u32>,
    /// OpenAI's frequency penalty, −2 to 2.
    pub frequency_penalty: Option<f64>,
    /// OpenAI's presence penalty, −2 to 2.
    pub presence_penalty: Option<f64>,
    /// llama.cpp's repeat penalty, above 1 (a `frequency_penalty` above 1 in NIP-90 requests means this).
    pub repeat_penalty: Option<f64>,
    /// For repeatable sampling.
    pub seed: Option<u64>,
}

/// What an operator allows of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextLimits {
    /// Most bytes of all texts together, fetched ones included.
    pub max_input_bytes: usize,
    /// Most tokens an answer may be asked to have.
    pub max_tokens: u32,
    /// Tokens of an answer when the customer names no number.
    pub default_max_tokens: u32,
}

impl Default for TextLimits {
    /// Bounds that fit small models: 32 KiB of prompt, 4,096 tokens of answer, 512 when not asked.
    fn default() -> Self {
        Self { max_input_bytes: 32 * 1024, max_tokens: 4_096, default_max_tokens: 512 }
    }
}

impl TextLimits {
    /// Refuses `bytes` of text above the limit.
    ///
    /// # Errors
    /// A refusal that states both numbers.
    pub fn check_input_bytes(&self, bytes: usize) -> Result<(), Refusal> {
        if bytes <= self.max_input_bytes {
            return Ok(());
        }
        Err(Refusal::bad_request(format!(
            "the inputs hold {bytes} bytes together; this provider reads at most {}: shorten them",
            self.max_input_bytes
        )))
    }
}

/// The wanted format of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TextOutput {
    /// `text/plain`.
    #[default]
    #[serde(rename = "text/plain")]
    Plain,
    /// `text/markdown`.
    #[serde(rename = "text/markdown")]
    Markdown,
    /// `application/json`: an answer that is no JSON is a failed job.
    #[serde(rename = "application/json")]
    Json,
}

impl TextOutput {
    /// Every format, the default first.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Markdown, Self::Json];

    /// The media type.
    pub const fn mime(self) -> &'static str {
        match self {
            Self::Plain => "text/plain",
            Self::Markdown => "text/markdown",
            Self::Json => "application/json",
        }
    }

    /// Reads a media type; its parameters (`; charset=…`) don't matter, we write UTF-8.
    fn parse(wanted: &str) -> Result<Self, Refusal> {
        let bare = wanted.split(';').next().unwrap_or_default().trim();
        Self::ALL.into_iter().find(|output| bare.eq_ignore_ascii_case(output.mime())).ok_or_else(|| {
            let offered = Self::ALL.map(Self::mime).join(", ");
            Refusal::unsupported(format!("output '{}' is not offered; choose one of {offered}", excerpt(wanted)))
        })
    }
}

/// Where a part of a message comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Part {
    /// The request itself.
    Text(String),
    /// An address.
    Url(String),
    /// A Nostr event's content.
    Event {
        /// Which event.
        id: EventId,
        /// Where it may be found.
        relay: Option<String>,
    },
    /// Another job's result.
    Job {
        /// Which job.
        id: JobId,
        /// Where its result may be found.
        relay: Option<String>,
    },
}

impl fmt::Debug for Part {
    /// The customer's text stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Url(url) => write!(f, "Url({} bytes)", url.len()),
            Self::Event { id, .. } => write!(f, "Event({id:?})"),
            Self::Job { id, .. } => write!(f, "Job({id:?})"),
        }
    }
}

/// A message whose parts may still have to be fetched. Parts are joined with [`PART_SEPARATOR`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who says it.
    pub role: Role,
    /// What, in order.
    pub parts: Vec<Part>,
}

/// A kind 5050 request, read and checked as far as that goes without fetching anything.
#[derive(Debug, Clone, PartialEq)]
pub struct TextGeneration {
    /// The wanted model; `None` is the provider's default.
    pub model: Option<String>,
    /// The conversation: at most one system turn, in front; the user's turn last.
    pub turns: Vec<Turn>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Most tokens to write, when the customer says so.
    pub max_tokens: Option<u32>,
    /// The wanted format.
    pub output: TextOutput,
    /// What the JSON of the answer must match.
    pub json_schema: Option<Schema>,
    /// Whether `partial` feedback is wanted.
    pub stream: bool,
}

impl TextGeneration {
    /// Reads a request. Pure: the same request and limits, the same answer.
    ///
    /// # Errors
    /// The first thing that is wrong, by name, with the cure.
    pub fn parse(request: &JobRequest, limits: &TextLimits) -> Result<Self, Refusal> {
        let output = request.output.as_deref().map_or(Ok(TextOutput::default()), TextOutput::parse)?;
        let read = Reader(request);
        let (frequency_penalty, repeat_penalty) =
            split_frequency_penalty(read.number("frequency_penalty", &Range::Closed(-2.0, 2.0))?);
        Ok(Self {
            model: read.model()?,
            turns: read.turns(limits)?,
            sampling: Sampling {
                temperature: read.number("temperature", &Range::Closed(0.0, 2.0))?,
                top_p: read.number("top_p", &Range::AboveTo(0.0, 1.0))?,
                top_k: read.integer("top_k", 1, u64::from(MOST_TOP_K))?.map(saturate),
                frequency_penalty,
                presence_penalty: read.number("presence_penalty", &Range::Closed(-2.0, 2.0))?,
                repeat_penalty,
                seed: read.integer("seed", 0, u64::MAX)?,
            },
            stop: read.stops()?,
            max_tokens: read.integer("max_tokens", 1, u64::from(limits.max_tokens))?.map(saturate),
            output,
            json_schema: read.json_schema(output)?,
            stream: read.stream()?,
        })
    }
}

/// NIP-90's published example uses llama.cpp's repeat penalty under this name; OpenAI's values above 1 are hardly used.
fn split_frequency_penalty(value: Option<f64>) -> (Option<f64>, Option<f64>) {
    match value {
        Some(value) if value > 1.0 => (None, Some(value)),
        other => (other, None),
    }
}

/// The range of a number that is not whole.
enum Range {
    Closed(f64, f64),
    AboveTo(f64, f64),
}

impl Range {
    fn holds(&self, value: f64) -> bool {
        // NaN is in no range: every comparison with it is false.
        match *self {
            Self::Closed(low, high) => value >= low && value <= high,
            Self::AboveTo(low, high) => value > low && value <= high,
        }
    }

    fn words(&self) -> String {
        match *self {
            Self::Closed(low, high) => format!("a number from {low} to {high}"),
            Self::AboveTo(low, high) => format!("a number above {low}, up to {high}"),
        }
    }
}

struct Reader<'a>(&'a JobRequest);

impl<'a> Reader<'a> {
    /// The first value of a parameter. A parameter without a value is refused: a silent default would surprise.
    fn value(&self, key: &'static str) -> Result<Option<&'a str>, Refusal> {
        // `all` ties the key to the parameters' lifetime, which a constant outlives.
        match self.0.params.all(key).next() {
            None => Ok(None),
            Some([]) => Err(Refusal::bad_request(format!("param {key} has no value; give it one or leave it out"))),
            Some([first, ..]) => Ok(Some(first)),
        }
    }

    fn number(&self, key: &'static str, range: &Range) -> Result<Option<f64>, Refusal> {
        let Some(text) = self.value(key)? else { return Ok(None) };
        match text.trim().parse::<f64>() {
            Ok(value) if range.holds(value) => Ok(Some(value)),
            _ => Err(bad_value(key, text, &range.words())),
        }
    }

    fn integer(&self, key: &'static str, low: u64, high: u64) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.value(key)? else { return Ok(None) };
        match text.trim().parse::<u64>() {
            Ok(value) if (low..=high).contains(&value) => Ok(Some(value)),
            _ => Err(bad_value(key, text, &format!("a whole number from {low} to {high}"))),
        }
    }

    fn stream(&self) -> Result<bool, Refusal> {
        let Some(text) = self.value("stream")? else { return Ok(false) };
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(bad_value("stream", text, "true or false")),
        }
    }

    fn json_schema(&self, output: TextOutput) -> Result<Option<Schema>, Refusal> {
        let Some(text) = self.value("json_schema")? else { return Ok(None) };
        if output != TextOutput::Json {
            return Err(Refusal::bad_request(
                "param json_schema needs output application/json; add [\"output\", \"application/json\"] or leave it out",
            ));
        }
        schema::read(text).map(Some)
    }

    fn model(&self) -> Result<Option<String>, Refusal> {
        let Some(text) = self.value("model")? else { return Ok(None) };
        let name = text.trim();
        if name.is_empty() || name.len() > LONGEST_MODEL_BYTES {
            return Err(bad_value("model", text, &format!("a name of 1 to {LONGEST_MODEL_BYTES} bytes")));
        }
        Ok(Some(name.to_owned()))
    }

    fn stops(&self) -> Result<Vec<String>, Refusal> {
        let mut stops: Vec<String> = Vec::new();
        for stop in self.0.params.all("stop").flatten() {
            if stop.is_empty() || stop.len() > LONGEST_STOP_BYTES {
                return Err(bad_value("stop", stop, &format!("a text of 1 to {LONGEST_STOP_BYTES} bytes")));
            }
            if !stops.contains(stop) {
                stops.push(stop.clone());
            }
            if stops.len() > MOST_STOPS {
                return Err(Refusal::bad_request(format!("param stop: at most {MOST_STOPS} texts; name fewer")));
            }
        }
        Ok(stops)
    }

    fn turns(&self, limits: &TextLimits) -> Result<Vec<Turn>, Refusal> {
        let inputs = &self.0.inputs;
        let (system, prompt) = (self.value("system")?, self.value("prompt")?);
        let texts = inputs.iter().filter(|input| input.kind == InputKind::Text).map(|input| input.data.len());
        let params = system.map_or(0, str::len).saturating_add(prompt.map_or(0, str::len));
        limits.check_input_bytes(texts.fold(params, usize::saturating_add))?;
        let references = inputs.iter().filter(|input| input.kind != InputKind::Text).count();
        if references > MOST_REFERENCES {
            return Err(Refusal::bad_request(format!(
                "{references} inputs of type url, event or job; at most {MOST_REFERENCES} are fetched: name fewer"
            )));
        }

        let mut turns: Vec<Turn> = Vec::new();
        let mut instructions: Vec<Part> = system.map(|text| Part::Text(text.to_owned())).into_iter().collect();
        // Some clients send the prompt both ways; it is meant once.
        let repeated = |prompt: &&str| inputs.iter().any(|input| input.data.trim() == prompt.trim());
        if let Some(prompt) = prompt.filter(|prompt| !repeated(prompt)) {
            say(&mut turns, Role::User, Part::Text(prompt.to_owned()));
        }
        for (index, input) in inputs.iter().enumerate() {
            let part = part(index, input)?;
            match input.marker.as_deref().and_then(Role::from_marker).unwrap_or(Role::User) {
                Role::System => instructions.push(part),
                role => say(&mut turns, role, part),
            }
        }
        instructions.retain(|part| !is_blank(part));
        match turns.last() {
            None => Err(Refusal::bad_request(
                "the request has no prompt: put the text in an i tag, such as [\"i\", \"your prompt\", \"text\"]",
            )),
            Some(turn) if turn.role != Role::User => Err(Refusal::bad_request(
                "the last input is marked assistant; end the conversation with an i tag marked user",
            )),
            Some(_) => {
                if !instructions.is_empty() {
                    turns.insert(0, Turn { role: Role::System, parts: instructions });
                }
                Ok(turns)
            }
        }
    }
}

/// Adds a part to the conversation: to the last turn when the same role goes on, as a new turn otherwise. Blank text is
/// left out, so that it can't stand between two turns of one role.
fn say(turns: &mut Vec<Turn>, role: Role, part: Part) {
    match turns.last_mut() {
        _ if is_blank(&part) => {}
        Some(last) if last.role == role => last.parts.push(part),
        _ => turns.push(Turn { role, parts: vec![part] }),
    }
}

fn part(index: usize, input: &Input) -> Result<Part, Refusal> {
    let wrong = |what: &str| {
        let kind = input.kind.word();
        Err(Refusal::bad_request(format!("input {} ({kind}) '{}': {what}", index + 1, excerpt(&input.data))))
    };
    let relay = || input.relay.clone();
    let data = input.data.trim();
    match input.kind {
        InputKind::Text => Ok(Part::Text(input.data.clone())),
        InputKind::Url if data.is_empty() || data.len() > LONGEST_URL_BYTES => {
            wrong(&format!("must be an address of 1 to {LONGEST_URL_BYTES} bytes"))
        }
        InputKind::Url => Ok(Part::Url(data.to_owned())),
        InputKind::Event => match data.parse() {
            Ok(id) => Ok(Part::Event { id, relay: relay() }),
            Err(_) => wrong("must be an event id of 64 hexadecimal digits"),
        },
        InputKind::Job => match data.parse() {
            Ok(id) => Ok(Part::Job { id, relay: relay() }),
            Err(_) => wrong("must be a job request's event id of 64 hexadecimal digits"),
        },
    }
}

fn is_blank(part: &Part) -> bool {
    matches!(part, Part::Text(text) if text.trim().is_empty())
}

fn bad_value(key: &str, value: &str, range: &str) -> Refusal {
    Refusal::bad_request(format!("param {key}: '{}' is not {range}; change it or leave it out", excerpt(value)))
}

/// The beginning of a customer's text, for an error: cut between characters, control characters made visible.
pub fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(ECHOED_CHARS).flat_map(visible).collect();
    if text.chars().nth(ECHOED_CHARS).is_some() {
        short.push('…');
    }
    short
}

fn visible(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = (!c.is_control()).then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

/// For numbers whose range was checked to fit.
fn saturate(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
