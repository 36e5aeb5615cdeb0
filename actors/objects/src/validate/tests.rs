//! What upstream's validator says, and that nothing breaks ours.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema::structural;

fn messages(errors: &[Error]) -> Vec<String> {
    errors.iter().map(Error::to_string).collect()
}

/// Validates `spec` under the properties of a schema.
fn check(properties: Value, spec: Value) -> Vec<String> {
    let schema = json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": properties } } });
    let arena = structural(&schema).unwrap();
    messages(&validate(&json!({ "spec": spec }), None, arena.root()))
}

#[test]
fn one_rule_at_a_time_in_the_words_of_upstream() {
    for (schema, good, bad, message) in [
        (
            json!({ "type": "string" }),
            json!("a"),
            json!(1),
            "spec.a: Invalid value: \"integer\": spec.a in body must be of type string: \"integer\"",
        ),
        (
            json!({ "type": "integer" }),
            json!(1),
            json!("a"),
            "spec.a: Invalid value: \"string\": spec.a in body must be of type integer: \"string\"",
        ),
        (
            json!({ "type": "integer" }),
            json!(-1),
            json!(1.5),
            "spec.a: Invalid value: \"number\": spec.a in body must be of type integer: \"number\"",
        ),
        (
            json!({ "type": "number" }),
            json!(1),
            json!(true),
            "spec.a: Invalid value: \"boolean\": spec.a in body must be of type number: \"boolean\"",
        ),
        (
            json!({ "type": "boolean" }),
            json!(true),
            json!(null),
            "spec.a: Invalid value: \"null\": spec.a in body must be of type boolean: \"null\"",
        ),
        (
            json!({ "type": "object" }),
            json!({}),
            json!([]),
            "spec.a: Invalid value: \"array\": spec.a in body must be of type object: \"array\"",
        ),
        (
            json!({ "type": "array", "items": {} }),
            json!([1]),
            json!({}),
            "spec.a: Invalid value: \"object\": spec.a in body must be of type array: \"object\"",
        ),
        (
            json!({ "x-kubernetes-int-or-string": true }),
            json!("5%"),
            json!(true),
            "spec.a: Invalid value: \"boolean\": spec.a in body must be of type integer,string: \"boolean\"",
        ),
        (
            json!({ "type": "string", "nullable": true }),
            json!(null),
            json!(1),
            "spec.a: Invalid value: \"integer\": spec.a in body must be of type string: \"integer\"",
        ),
        (
            json!({ "type": "integer", "minimum": 1 }),
            json!(1),
            json!(0),
            "spec.a: Invalid value: 0: spec.a in body should be greater than or equal to 1",
        ),
        (
            json!({ "type": "integer", "minimum": 1, "exclusiveMinimum": true }),
            json!(2),
            json!(1),
            "spec.a: Invalid value: 1: spec.a in body should be greater than 1",
        ),
        (
            json!({ "type": "number", "maximum": 1.5 }),
            json!(1.5),
            json!(2),
            "spec.a: Invalid value: 2: spec.a in body should be less than or equal to 1.5",
        ),
        (
            json!({ "type": "integer", "maximum": 10, "exclusiveMaximum": true }),
            json!(9),
            json!(10),
            "spec.a: Invalid value: 10: spec.a in body should be less than 10",
        ),
        (
            json!({ "type": "integer", "multipleOf": 3 }),
            json!(9),
            json!(10),
            "spec.a: Invalid value: 10: spec.a in body should be a multiple of 3",
        ),
        (
            json!({ "type": "string", "minLength": 2 }),
            json!("\u{e4}b"),
            json!("\u{e4}"),
            "spec.a: Invalid value: \"\u{e4}\": spec.a in body should be at least 2 chars long",
        ),
        (
            json!({ "type": "string", "maxLength": 2 }),
            json!("ab"),
            json!("abc"),
            "spec.a: Too long: may not be more than 2 bytes",
        ),
        (
            json!({ "type": "string", "pattern": "^a+$" }),
            json!("aa"),
            json!("b"),
            "spec.a: Invalid value: \"b\": spec.a in body should match '^a+$'",
        ),
        (
            json!({ "type": "string", "format": "date" }),
            json!("2024-01-01"),
            json!("x"),
            "spec.a: Invalid value: \"x\": spec.a in body must be of type date: \"x\"",
        ),
        (
            json!({ "type": "string", "enum": ["A", "B"] }),
            json!("A"),
            json!("C"),
            "spec.a: Unsupported value: \"C\": supported values: \"A\", \"B\"",
        ),
        (
            json!({ "type": "array", "items": {}, "minItems": 1 }),
            json!([1]),
            json!([]),
            "spec.a: Invalid value: 0: spec.a in body should have at least 1 items",
        ),
        (
            json!({ "type": "array", "items": {}, "maxItems": 1 }),
            json!([1]),
            json!([1, 2]),
            "spec.a: Too many: 2: must have at most 1 item",
        ),
        (
            json!({ "type": "object", "additionalProperties": { "type": "string" }, "minProperties": 1 }),
            json!({ "a": "" }),
            json!({}),
            "spec.a: Invalid value: 0: spec.a in body should have at least 1 properties",
        ),
        (
            json!({ "type": "object", "additionalProperties": { "type": "string" }, "maxProperties": 0 }),
            json!({}),
            json!({ "a": "" }),
            "spec.a: Too many: 1: must have at most 0 items",
        ),
        (
            json!({ "type": "object", "additionalProperties": { "type": "string" } }),
            json!({ "k": "" }),
            json!({ "k": 1 }),
            "spec.a.k: Invalid value: \"integer\": spec.a.k in body must be of type string: \"integer\"",
        ),
        (
            json!({ "type": "object", "required": ["b"], "properties": { "b": { "type": "string" } } }),
            json!({ "b": "" }),
            json!({}),
            "spec.a.b: Required value",
        ),
        (
            json!({ "type": "array", "items": { "type": "string" } }),
            json!(["a"]),
            json!(["a", 1]),
            "spec.a[1]: Invalid value: \"integer\": spec.a[1] in body must be of type string: \"integer\"",
        ),
        (
            json!({ "type": "array", "items": { "type": "string" }, "x-kubernetes-list-type": "set" }),
            json!(["a", "b"]),
            json!(["a", "b", "a"]),
            "spec.a[2]: Duplicate value: \"a\"",
        ),
        (
            json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "items": { "type": "object", "properties": { "n": { "type": "string" }, "v": { "type": "integer" } } } }),
            json!([{ "n": "a" }, { "n": "b" }]),
            json!([{ "n": "a", "v": 1 }, { "n": "a", "v": 2 }]),
            "spec.a[1]: Duplicate value: {\"n\":\"a\"}",
        ),
        (
            json!({ "type": "integer", "not": { "enum": [1] } }),
            json!(2),
            json!(1),
            "spec.a: Invalid value: 1: spec.a in body must not validate the schema (not)",
        ),
        (
            json!({ "type": "object", "x-kubernetes-embedded-resource": true }),
            json!({ "apiVersion": "v1", "kind": "Pod", "metadata": {} }),
            json!({ "apiVersion": "v1" }),
            "spec.a.kind: Required value: must not be empty",
        ),
    ] {
        assert_eq!(check(json!({ "a": schema }), json!({ "a": good })), Vec::<String>::new(), "{schema}");
        assert_eq!(check(json!({ "a": schema }), json!({ "a": bad })), [message], "{schema}");
    }
}

#[test]
fn alternatives_are_weighed() {
    let number_or_name = json!({ "a": { "x-kubernetes-int-or-string": true,
        "anyOf": [{ "type": "integer", "maximum": 5 }, { "type": "string", "pattern": "^x" }] } });
    assert!(check(number_or_name.clone(), json!({ "a": 5 })).is_empty());
    assert!(check(number_or_name.clone(), json!({ "a": "xy" })).is_empty());
    let errors = check(number_or_name, json!({ "a": "y" }));
    assert_eq!(errors[0], "spec.a: Invalid value: \"y\": spec.a in body must validate at least one schema (anyOf)");
    assert_eq!(errors.len(), 2);
    let one = json!({ "a": { "type": "object", "properties": { "b": { "type": "string" }, "c": { "type": "string" } },
        "oneOf": [{ "required": ["b"] }, { "required": ["c"] }] } });
    assert!(check(one.clone(), json!({ "a": { "b": "" } })).is_empty());
    let errors = check(one.clone(), json!({ "a": { "b": "", "c": "" } }));
    assert_eq!(
        errors,
        [
            "spec.a: Invalid value: \"object\": spec.a in body must validate one and only one schema (oneOf). Found 2 valid alternatives"
        ]
    );
    let errors = check(one, json!({ "a": {} }));
    assert_eq!(
        errors[0],
        "spec.a: Invalid value: \"object\": spec.a in body must validate one and only one schema (oneOf). Found none valid"
    );
    let all = json!({ "a": { "type": "integer", "allOf": [{ "minimum": 1 }, { "maximum": 3 }] } });
    assert!(check(all.clone(), json!({ "a": 2 })).is_empty());
    assert_eq!(
        check(all, json!({ "a": 4 })),
        [
            "spec.a: Invalid value: 4: spec.a in body must validate all the schemas (allOf)",
            "spec.a: Invalid value: 4: spec.a in body should be less than or equal to 3",
        ]
    );
}

#[test]
fn the_metadata_of_the_whole_object_is_only_narrowed() {
    let schema = json!({ "type": "object", "required": ["spec"], "properties": {
        "metadata": { "type": "object", "properties": { "name": { "type": "string", "maxLength": 3 } } },
        "spec": { "type": "object" } } });
    let arena = structural(&schema).unwrap();
    let good =
        json!({ "apiVersion": "v1", "kind": "A", "metadata": { "name": "abc", "labels": { "a": "b" } }, "spec": {} });
    assert!(validate(&good, None, arena.root()).is_empty());
    let bad = json!({ "metadata": { "name": "abcd" } });
    assert_eq!(
        messages(&validate(&bad, None, arena.root())),
        ["spec: Required value", "metadata.name: Too long: may not be more than 3 bytes"]
    );
    let root = messages(&validate(&json!([]), None, arena.root()));
    assert_eq!(root, ["<nil>: Invalid value: \"array\":  in body must be of type object: \"array\""]);
}

#[test]
fn what_an_update_leaves_alone_may_stay_wrong() {
    let schema = json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": {
        "a": { "type": "integer", "maximum": 5 },
        "b": { "type": "string", "maxLength": 1 },
        "list": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"], "items": {
            "type": "object", "properties": { "n": { "type": "string" }, "v": { "type": "integer", "maximum": 5 } } } },
    } } } });
    let arena = structural(&schema).unwrap();
    let old = json!({ "spec": { "a": 9, "b": "x", "list": [{ "n": "one", "v": 9 }, { "n": "two", "v": 1 }] } });
    let mut new = old.clone();
    new["spec"]["b"] = json!("y");
    new["spec"]["list"] = json!([{ "n": "two", "v": 2 }, { "n": "one", "v": 9 }]);
    assert!(validate(&new, Some(&old), arena.root()).is_empty());
    new["spec"]["a"] = json!(8);
    new["spec"]["list"][1]["v"] = json!(7);
    assert_eq!(
        messages(&validate(&new, Some(&old), arena.root())),
        [
            "spec.a: Invalid value: 8: spec.a in body should be less than or equal to 5",
            "spec.list[1].v: Invalid value: 7: spec.list[1].v in body should be less than or equal to 5",
        ]
    );
}

#[test]
fn a_million_wrong_items_are_one_answer() {
    let items: Vec<Value> = (0..100_000).map(Value::from).collect();
    let errors = check(json!({ "a": { "type": "array", "items": { "type": "string" } } }), json!({ "a": items }));
    assert_eq!(errors.len(), ERRORS_MAX);
}

proptest! {
    #[test]
    fn no_schema_and_no_value_break_it(schema in "[{}\\[\\]:,\"a-c0-9]{0,60}", value in "[{}\\[\\]:,\"a-c0-9]{0,60}") {
        let read = |text: &str| crate::decode::json(text.as_bytes(), None).map_or(json!({}), |decoded| decoded.value);
        let schema = json!({ "type": "object", "properties": read(&schema), "anyOf": [read(&schema)] });
        if let Ok(arena) = structural(&schema) {
            validate(&read(&value), None, arena.root());
        }
    }
}
