//! What the engine may write when JSON is asked for.
//!
//! The engine's own JSON constraint lets an answer end only with the token that its tokenizer is known to end *texts* with
//! (`<|endoftext|>`, `</s>`). Chat models end a *turn* with another one (`<|im_end|>`, `<|eot_id|>`), and only that one
//! ends the engine's work: a finished answer would go on, one invisible token after the other, to `max_tokens`. So the
//! grammar here is JSON and then the token that really ends an answer.

use mistralrs::Constraint;
use mistralrs::llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar, ValidationResult};
use serde_json::{Value, json};

use crate::inference::{Format, InferenceError};

/// White space between the parts of JSON: a space, or a new line and its indentation. Without an end to it a model that is
/// held to JSON against its will writes nothing else.
const WHITE_SPACE: &str = r"\x20|\x0A[\x20\x09]{0,32}";

/// The engine's constraint for a format. `end_tokens` are those that end an answer, at least one.
pub(super) fn constraint(format: &Format, end_tokens: &[u32]) -> Constraint {
    grammar(format, end_tokens).map_or(Constraint::None, Constraint::Llguidance)
}

/// Finds a schema that can't be made a grammar of, without the engine. Bounded work, but it computes.
pub(super) fn check(format: &Format, end_tokens: &[u32]) -> Result<(), InferenceError> {
    let Some(grammar) = grammar(format, end_tokens) else { return Ok(()) };
    match GrammarInit::Serialized(grammar).validate(None, ParserLimits::default()) {
        ValidationResult::Error(reason) => {
            Err(InferenceError::BadRequest(format!("no grammar for this schema: {reason}")))
        }
        _ => Ok(()),
    }
}

fn grammar(format: &Format, end_tokens: &[u32]) -> Option<TopLevelGrammar> {
    let mut schema = match format {
        Format::Text => return None,
        Format::Json => json!({}),
        Format::Schema(schema) => schema.clone(),
    };
    if let Value::Object(schema) = &mut schema {
        // Alternatives that may overlap: the grammar takes `oneOf` for `anyOf`, and the answer is checked afterwards.
        let options = json!({ "coerce_one_of": true, "whitespace_pattern": WHITE_SPACE });
        schema.insert("x-guidance".to_owned(), options);
    }
    let ends: Vec<String> = end_tokens.iter().map(u32::to_string).collect();
    Some(TopLevelGrammar::from_lark(format!("start: %json {schema} <[{}]>", ends.join(","))))
}

/// Tokens that end a turn in the usual chat templates. The engine takes those of them for an end that the template writes.
const TURN_ENDS: [&str; 8] = [
    "<|im_end|>",
    "<end_of_turn>",
    "<|end_of_text|>",
    "<|end|>",
    "<|eot_id|>",
    "<|message|>",
    "<|start|>",
    "<|channel|>",
];

/// The tokens at which the engine takes an answer for finished: the model's own, and those of [`TURN_ENDS`].
pub(super) fn end_tokens(own: impl IntoIterator<Item = u32>, special: &[(u32, String)], template: &str) -> Vec<u32> {
    let turn_ends = special.iter().filter(|(_, text)| TURN_ENDS.contains(&text.as_str()) && template.contains(text));
    let mut ends: Vec<u32> = own.into_iter().chain(turn_ends.map(|(id, _)| *id)).collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mistralrs::llguidance::toktrie::{ApproximateTokEnv, TokRxInfo, TokTrie};
    use mistralrs::llguidance::{Matcher, ParserFactory};

    use super::*;

    /// One token a byte, and two more: `<|endoftext|>` (256), which the tokenizer is known to end texts with, and
    /// `<|im_end|>` (257).
    fn factory() -> ParserFactory {
        let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        for special in ["<|endoftext|>", "<|im_end|>"] {
            tokens.push([&[TokTrie::SPECIAL_TOKEN_MARKER], special.as_bytes()].concat());
        }
        let trie = TokTrie::from(&TokRxInfo::new(258, 256), &tokens);
        let environment: mistralrs::llguidance::toktrie::TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        ParserFactory::new_simple(&environment).unwrap()
    }

    fn matcher(format: &Format, end_tokens: &[u32]) -> Matcher {
        let Constraint::Llguidance(grammar) = constraint(format, end_tokens) else { panic!("no grammar") };
        Matcher::new(factory().create_parser(grammar))
    }

    fn write(matcher: &mut Matcher, text: &str) {
        for byte in text.bytes() {
            assert_eq!(matcher.validate_tokens(&[u32::from(byte)]).unwrap(), 1, "{text}: {:?}", byte as char);
            matcher.consume_token(u32::from(byte)).unwrap();
        }
    }

    #[test]
    fn an_answer_ends_with_the_models_own_end_and_no_other() {
        let format = Format::Schema(json!({ "type": "object", "properties": { "ok": { "type": "boolean" } },
            "required": ["ok"], "additionalProperties": false }));
        // Whether or not the tokenizer is known to end texts with that token.
        for (own, other) in [(257, 256), (256, 257)] {
            let mut matcher = matcher(&format, &[own]);
            write(&mut matcher, "{\n    \"ok\": true\n}");
            let mask = matcher.compute_mask_or_eos().unwrap();
            assert!(mask.is_allowed(own) && !mask.is_allowed(u32::from(b'x')), "{own}");
            assert!(own == 256 || !mask.is_allowed(other), "{own}");
            matcher.consume_token(own).unwrap();
        }
    }

    #[test]
    fn a_number_can_end_or_go_on() {
        let mut matcher = matcher(&Format::Json, &[257]);
        write(&mut matcher, "12");
        let mask = matcher.compute_mask_or_eos().unwrap();
        assert!(mask.is_allowed(257) && mask.is_allowed(u32::from(b'3')) && !mask.is_allowed(256));
        matcher.consume_token(257).unwrap();
        assert!(matcher.is_stopped());
    }

    #[test]
    fn what_is_no_json_is_not_allowed() {
        let mut matcher = matcher(&Format::Json, &[257]);
        for byte in [b'x', b'}', b'I', b' '] {
            assert_eq!(matcher.validate_tokens(&[u32::from(byte)]).unwrap(), 0);
        }
        assert!(!matcher.compute_mask_or_eos().unwrap().is_allowed(257), "an empty answer");
        assert!(matches!(constraint(&Format::Text, &[257]), Constraint::None));
        write(&mut matcher, "[\n  ");
        write(&mut matcher, &" ".repeat(30));
        assert_eq!(matcher.validate_tokens(&[u32::from(b' ')]).unwrap(), 0, "white space without end");
    }

    #[test]
    fn schemas_that_are_taken_make_grammars() {
        let schemas = [
            json!({}),
            json!({ "oneOf": [{ "type": "integer", "minimum": 3 }, { "type": "integer", "maximum": 9 }] }),
            json!({ "properties": { "a": { "$ref": "#/$defs/a" } }, "$defs": { "a": { "enum": ["x", 1, null] } } }),
            json!({ "type": "array", "prefixItems": [{ "const": "a" }], "items": { "format": "date" }, "maxItems": 9 }),
            json!({ "allOf": [{ "properties": { "a": { "type": "string" } } }, { "required": ["a"] }] }),
            json!({ "definitions": { "s": { "type": "string", "maxLength": 1000 } }, "$ref": "#/definitions/s" }),
        ];
        for schema in schemas.map(|schema| crate::job::schema::read(&schema.to_string()).unwrap().into_value()) {
            check(&Format::Schema(schema.clone()), &[2]).unwrap_or_else(|error| panic!("{schema}: {error}"));
        }
        for format in crate::job::schema::FORMATS {
            check(&Format::Schema(json!({ "type": "string", "format": format })), &[2]).unwrap();
        }
        let nothing = Format::Schema(json!({ "type": "string", "minLength": 5, "maxLength": 1 }));
        assert!(matches!(check(&nothing, &[2]), Err(InferenceError::BadRequest(_))));
    }

    #[test]
    fn a_schema_made_to_explode_is_refused_soon() {
        let option = |n: usize| json!({ "properties": { format!("p{n}"): { "type": "string" } } });
        let choice = |from: usize| json!({ "anyOf": (from..from + 8).map(option).collect::<Vec<_>>() });
        let bomb = json!({ "allOf": (0..12).map(|n| choice(n * 8)).collect::<Vec<_>>() });
        let taken = crate::job::schema::read(&bomb.to_string()).unwrap().into_value();
        assert!(check(&Format::Schema(taken), &[2]).is_err());
    }

    #[test]
    fn ends_are_the_models_own_and_those_its_template_writes() {
        let special = [(0, "<|endoftext|>"), (1, "<|im_start|>"), (2, "<|im_end|>"), (3, "<|eot_id|>")];
        let special = special.map(|(id, text)| (id, text.to_owned()));
        assert_eq!(end_tokens([0], &special, "{{ '<|im_start|>' }}{{ '<|im_end|>' }}"), [0, 2]);
        assert_eq!(end_tokens([2], &special, "<|im_end|>"), [2]);
    }
}
