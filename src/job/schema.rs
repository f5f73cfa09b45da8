//! JSON Schemas of strangers (`param json_schema`): checked before any backend sees one, and held against the answer.
//!
//! A backend makes a grammar of a schema, and grammars can be made to grow without bound: by repetitions, by references
//! to references, by regular expressions. So only keywords that are known to be harmless are taken, everything is counted
//! with references put in their place, and references never lead back to themselves. Schemas are read as JSON Schema
//! 2020-12; nothing is ever fetched.

use std::fmt;

use jsonschema::{Draft, Validator};
use serde_json::{Map, Value};

use super::Refusal;
use super::text::excerpt;

/// Longest schema, in bytes of JSON.
pub const LONGEST_SCHEMA_BYTES: usize = 16 * 1024;
/// Most schemas within a schema, those of `$defs`, values of `enum` and `const` and whatever a `$ref` stands for included.
pub const MOST_NODES: usize = 500;
/// Deepest nesting of schemas, with references followed.
pub const DEEPEST_NESTING: usize = 16;
/// Most repetitions a keyword may ask for: grammars write them out.
pub const MOST_REPETITIONS: u64 = 1_000;
/// The formats that all backends which know formats know.
pub const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"];

/// Keywords that say nothing about the answer, or nothing that needs a closer look.
const PLAIN: [&str; 11] = [
    "type",
    "required",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "title",
    "description",
    "default",
    "examples",
    "$comment",
];
/// What `$schema` may say: the versions in which the keywords taken here mean the same.
const VERSIONS: [&str; 3] =
    ["json-schema.org/draft/2020-12/schema", "json-schema.org/draft/2019-09/schema", "json-schema.org/draft-07/schema"];
/// How much of a place in a customer's JSON an error repeats, in characters.
const PLACE_CHARS: usize = 120;

/// A schema that passed [`read`].
#[derive(Clone, PartialEq, Eq)]
pub struct Schema(Value);

impl Schema {
    /// The schema, without `$schema`.
    pub fn into_value(self) -> Value {
        self.0
    }
}

impl fmt::Debug for Schema {
    /// The customer's text stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema(…)")
    }
}

/// Reads the value of `param json_schema`.
///
/// # Errors
/// What is wrong with it, where (as a JSON pointer), and the cure.
pub fn read(text: &str) -> Result<Schema, Refusal> {
    if text.len() > LONGEST_SCHEMA_BYTES {
        return Err(Refusal::bad_request(format!(
            "param json_schema: it has {} bytes; at most {LONGEST_SCHEMA_BYTES} are taken: shorten it",
            text.len()
        )));
    }
    let mut schema: Value = serde_json::from_str(text).map_err(|error| {
        Refusal::bad_request(format!("param json_schema is no JSON ({error}); give it a JSON Schema as one JSON text"))
    })?;
    if !schema.is_object() {
        return Err(wrong("", "a schema is a JSON object such as {\"type\": \"object\"}"));
    }
    take_version(&mut schema)?;
    if let Err(error) = jsonschema::draft202012::meta::validate(&schema) {
        let what = format!("this is no JSON Schema: {}", cut(&error.masked().to_string()));
        return Err(wrong(error.instance_path().as_str(), &what));
    }
    Walk { root: &schema, nodes: 0, following: Vec::new() }.schema(&schema, "", 1)?;
    if let Err(error) = validator(&schema) {
        return Err(wrong(error.instance_path().as_str(), &cut(&error.masked().to_string())));
    }
    Ok(Schema(schema))
}

/// Where an answer departs from its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The place in the answer, as a JSON pointer; empty is the whole of it.
    pub at: String,
    /// The keyword that is not kept.
    pub keyword: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: '{}' is not kept", place(&self.at), self.keyword)
    }
}

/// Whether an answer is what a schema describes. `format` is a hint to the backend and not checked.
///
/// # Errors
/// The first place where it is not.
pub fn matches(schema: &Value, answer: &Value) -> Result<(), Mismatch> {
    let unusable = || Mismatch { at: String::new(), keyword: "$schema".to_owned() };
    let validator = validator(schema).map_err(|_| unusable())?;
    validator.validate(answer).map_err(|error| Mismatch {
        at: error.instance_path().as_str().to_owned(),
        keyword: error.kind().keyword().to_owned(),
    })
}

/// Without a retriever: a reference that leads outside is an error, not a request.
fn validator(schema: &Value) -> Result<Validator, jsonschema::ValidationError<'static>> {
    jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(false).offline().build(schema)
}

/// Takes `$schema` out: backends differ in the versions they know, and the keywords mean the same in all of these.
fn take_version(schema: &mut Value) -> Result<(), Refusal> {
    let Some(version) = schema.as_object_mut().and_then(|schema| schema.remove("$schema")) else { return Ok(()) };
    let bare = version.as_str().unwrap_or_default().trim_end_matches('#');
    let bare = bare.strip_prefix("https://").or_else(|| bare.strip_prefix("http://")).unwrap_or(bare);
    if VERSIONS.contains(&bare) {
        return Ok(());
    }
    Err(wrong("/$schema", &format!("leave it out, or name https://{}", VERSIONS[0])))
}

/// Goes through a schema with references put in their place.
struct Walk<'a> {
    root: &'a Value,
    nodes: usize,
    /// The references being followed, outermost first.
    following: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    fn schema(&mut self, schema: &'a Value, at: &str, depth: usize) -> Result<(), Refusal> {
        self.count(at)?;
        if depth > DEEPEST_NESTING {
            return Err(wrong(at, &format!("it nests deeper than {DEEPEST_NESTING} schemas; make it flatter")));
        }
        let keywords = match schema {
            Value::Bool(_) => return Ok(()),
            Value::Object(keywords) => keywords,
            _ => return Err(wrong(at, "here must be a schema: an object, true or false")),
        };
        for (keyword, value) in keywords {
            self.keyword(keyword, value, &format!("{at}/{}", escaped(keyword)), depth)?;
        }
        Ok(())
    }

    fn keyword(&mut self, keyword: &str, value: &'a Value, at: &str, depth: usize) -> Result<(), Refusal> {
        match (keyword, value) {
            ("properties" | "$defs" | "definitions", Value::Object(named)) => self.named(named, at, depth),
            ("prefixItems" | "anyOf" | "oneOf" | "allOf", Value::Array(list)) => {
                let mut each = list.iter().enumerate();
                each.try_for_each(|(index, schema)| self.schema(schema, &format!("{at}/{index}"), depth + 1))
            }
            ("items" | "additionalProperties", schema) => self.schema(schema, at, depth + 1),
            ("enum" | "const", value) => self.values(value, at),
            ("minItems" | "maxItems" | "minLength" | "maxLength", number) => match number.as_u64() {
                Some(0..=MOST_REPETITIONS) => Ok(()),
                _ => Err(wrong(at, &format!("it must be a whole number up to {MOST_REPETITIONS}"))),
            },
            ("format", Value::String(format)) if FORMATS.contains(&format.as_str()) => Ok(()),
            ("format", _) => Err(wrong(at, &format!("the formats taken are {}", FORMATS.join(", ")))),
            ("$ref", Value::String(target)) => self.reference(target, at, depth),
            ("pattern" | "patternProperties", _) => {
                Err(wrong(at, "regular expressions are not taken; use enum, format, minLength or maxLength"))
            }
            (plain, _) if PLAIN.contains(&plain) => Ok(()),
            (other, _) => Err(wrong(at, &format!("the keyword '{}' is not taken; leave it out", excerpt(other)))),
        }
    }

    fn named(&mut self, named: &'a Map<String, Value>, at: &str, depth: usize) -> Result<(), Refusal> {
        let mut each = named.iter();
        each.try_for_each(|(name, schema)| self.schema(schema, &format!("{at}/{}", escaped(name)), depth + 1))
    }

    /// Follows a reference as if its target stood here.
    fn reference(&mut self, target: &'a str, at: &str, depth: usize) -> Result<(), Refusal> {
        let local = target.strip_prefix('#').filter(|pointer| pointer.starts_with('/') && !pointer.contains('%'));
        let Some(pointer) = local else {
            return Err(wrong(at, "only references within the schema are followed, such as #/$defs/name"));
        };
        let Some(found) = self.root.pointer(pointer) else {
            return Err(wrong(at, "there is nothing at the place it names"));
        };
        if self.following.contains(&target) {
            return Err(wrong(at, "it leads back to itself; write out as many levels as are needed"));
        }
        self.following.push(target);
        self.schema(found, at, depth + 1)?;
        self.following.pop();
        Ok(())
    }

    /// Counts every value within a value.
    fn values(&mut self, value: &Value, at: &str) -> Result<(), Refusal> {
        self.count(at)?;
        match value {
            Value::Array(list) => list.iter().try_for_each(|value| self.values(value, at)),
            Value::Object(named) => named.values().try_for_each(|value| self.values(value, at)),
            _ => Ok(()),
        }
    }

    fn count(&mut self, at: &str) -> Result<(), Refusal> {
        self.nodes += 1;
        if self.nodes <= MOST_NODES {
            return Ok(());
        }
        let what = format!("up to here it has more than {MOST_NODES} schemas and values, references counted each time");
        Err(wrong(at, &format!("{what}; make it smaller")))
    }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn wrong(at: &str, what: &str) -> Refusal {
    Refusal::bad_request(format!("param json_schema, {}: {what}", place(at)))
}

fn place(at: &str) -> String {
    if at.is_empty() { "at the top".to_owned() } else { format!("at {}", cut(at)) }
}

/// A customer's own words, for an error to them.
fn cut(text: &str) -> String {
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(PLACE_CHARS).collect();
    if text.chars().nth(PLACE_CHARS).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
