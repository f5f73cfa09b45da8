use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::job::Code;

fn refused(schema: &Value) -> String {
    let refusal = read(&schema.to_string()).unwrap_err();
    assert_eq!(refusal.code, Code::BadRequest);
    refusal.text
}

fn person() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A person",
        "type": "object",
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 80, "description": "as in the passport" },
            "born": { "type": "string", "format": "date" },
            "sex": { "enum": ["f", "m", null] },
            "children": { "type": "array", "items": { "$ref": "#/$defs/name" }, "maxItems": 20 },
            "height": { "type": "number", "exclusiveMinimum": 0, "maximum": 3 },
            "pair": { "prefixItems": [{ "const": 1 }, { "anyOf": [{ "type": "null" }, { "type": "integer" }] }] }
        },
        "required": ["name"],
        "additionalProperties": false,
        "$defs": { "name": { "type": "string", "examples": ["Ada"] } }
    })
}

#[test]
fn an_ordinary_schema_is_taken_and_loses_its_version() {
    let read = read(&person().to_string()).unwrap();
    assert_eq!(format!("{read:?}"), "Schema(…)");
    let value = read.into_value();
    assert!(value.get("$schema").is_none());
    assert_eq!(value["properties"], person()["properties"]);
    for version in ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2019-09/schema"] {
        assert!(super::read(&json!({ "$schema": version }).to_string()).is_ok(), "{version}");
    }
}

#[test]
fn an_answer_is_held_against_the_schema() {
    let schema = read(&person().to_string()).unwrap().into_value();
    let departs = |answer: Value| matches(&schema, &answer).map_err(|mismatch| mismatch.to_string());
    assert_eq!(departs(json!({ "name": "Ada", "sex": null, "children": ["Bo"], "pair": [1, 2] })), Ok(()));
    assert_eq!(departs(json!({ "sex": "f" })), Err("at the top: 'required' is not kept".to_owned()));
    assert_eq!(departs(json!({ "name": "" })), Err("at /name: 'minLength' is not kept".to_owned()));
    assert_eq!(
        departs(json!({ "name": "Ada", "children": [1] })),
        Err("at /children/0: 'type' is not kept".to_owned())
    );
    assert!(departs(json!({ "name": "Ada", "more": 1 })).unwrap_err().contains("additionalProperties"));
    assert!(departs(json!([])).is_err());
}

#[test]
fn what_a_backend_could_choke_on_is_refused_with_its_place() {
    let cases = [
        (json!({ "properties": { "a/b": { "pattern": "(a*)*b" } } }), "at /properties/a~1b/pattern: regular"),
        (json!({ "patternProperties": { "^a": {} } }), "regular expressions"),
        (json!({ "not": {} }), "keyword 'not'"),
        (json!({ "if": {}, "then": {} }), "not taken"),
        (json!({ "$dynamicRef": "#a" }), "keyword '$dynamicRef'"),
        (json!({ "$id": "https://example.com/a" }), "keyword '$id'"),
        (json!({ "x-guidance": { "lenient": true } }), "keyword 'x-guidance'"),
        (json!({ "properties": { "a": { "$schema": "x" } } }), "keyword '$schema'"),
        (json!({ "items": { "maxItems": 1_001 } }), "at /items/maxItems: it must be a whole number up to 1000"),
        (json!({ "maxLength": 2_000_000_000 }), "/maxLength"),
        (json!({ "format": "regex" }), "at /format: the formats taken are date-time"),
        (json!({ "$ref": "https://example.com/schema.json" }), "at /$ref: only references within"),
        (json!({ "$ref": "#a" }), "only references within"),
        (json!({ "$ref": "#/$defs/none" }), "nothing at the place"),
        (json!({ "$schema": "https://example.com/own" }), "at /$schema: leave it out"),
        (json!({ "type": "strin" }), "at /type: this is no JSON Schema"),
        (json!({ "minLength": -1 }), "at /minLength: this is no JSON Schema"),
        (json!({ "properties": [] }), "at /properties"),
        (json!({ "required": "a" }), "at /required"),
        (json!({ "items": [{}] }), "at /items"),
        (json!({ "$ref": "#/enum/0", "enum": ["a"] }), "here must be a schema"),
        (json!(true), "at the top"),
        (json!("object"), "at the top"),
    ];
    for (schema, says) in cases {
        let text = refused(&schema);
        assert!(text.starts_with("param json_schema") && text.contains(says), "{schema}: {text}");
    }
    assert!(read("{\"type\":").unwrap_err().text.contains("is no JSON"));
    let long = format!("{{\"title\": \"{}\"}}", "x".repeat(LONGEST_SCHEMA_BYTES));
    assert!(read(&long).unwrap_err().text.contains("at most 16384"));
}

#[test]
fn nesting_has_an_end() {
    let nested = |levels: usize| (1..levels).fold(json!({}), |schema, _| json!({ "items": schema }));
    assert!(read(&nested(DEEPEST_NESTING).to_string()).is_ok());
    assert!(refused(&nested(DEEPEST_NESTING + 1)).contains("deeper than 16"));
    // Deeper than the reader of JSON goes.
    assert!(read(&("{\"items\":".repeat(500) + &"}".repeat(500))).is_err());
}

#[test]
fn a_reference_that_leads_to_itself_is_refused() {
    let list = json!({ "$ref": "#/$defs/list", "$defs": { "list": {
        "properties": { "next": { "anyOf": [{ "type": "null" }, { "$ref": "#/$defs/list" }] } } } } });
    assert!(refused(&list).contains("leads back to itself"));
    let pair = json!({ "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } } });
    assert!(refused(&pair).contains("leads back to itself"));
    assert!(refused(&json!({ "properties": { "a": { "$ref": "#/properties/a" } } })).contains("leads back"));
}

#[test]
fn references_to_references_count_each_time() {
    // Five levels of four are a thousand schemas in the end.
    let mut defs = serde_json::Map::new();
    defs.insert("n0".to_owned(), json!({ "type": "null" }));
    for level in 1..=5 {
        let below = json!({ "$ref": format!("#/$defs/n{}", level - 1) });
        defs.insert(format!("n{level}"), json!({ "anyOf": [below, below, below, below] }));
    }
    let text = refused(&json!({ "$ref": "#/$defs/n5", "$defs": defs }));
    assert!(text.contains("more than 500"), "{text}");
    let values: Vec<usize> = (0..MOST_NODES).collect();
    assert!(refused(&json!({ "enum": values })).contains("more than 500"));
}

#[test]
fn a_place_in_an_error_is_cut_and_holds_no_control_characters() {
    let name = format!("a\n{}", "y".repeat(5_000));
    let text = refused(&json!({ "properties": { name: { "pattern": "x" } } }));
    assert!(text.len() < 500 && !text.contains('\n'), "{text}");
}

proptest! {
    #[test]
    fn no_text_at_all_makes_it_panic(text in "[\\[\\]{}\":,a-z$#/0-9 ]{0,200}") {
        let _ = read(&text);
    }
}
