//! Definitions that are stored and that are refused, with the words that clients read.

use serde_json::{Value, json};

use super::*;

fn crontab() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "crontabs.stable.example.com" },
        "spec": {
            "group": "stable.example.com",
            "scope": "Namespaced",
            "names": { "plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"] },
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": { "type": "object", "properties": {
                            "a": { "type": "string" },
                            "replicas": { "type": "integer", "default": 1 },
                        } },
                        "status": { "type": "object", "properties": { "replicas": { "type": "integer" } } },
                    },
                } },
            }],
        },
    })
}

fn created(mut definition: Value) -> Vec<String> {
    prepare_create(&mut definition);
    validate_create(&definition).iter().map(ToString::to_string).collect()
}

/// The definition with another value at a place. An index at the end of a list adds to it.
fn with(pointer: &str, value: Value) -> Value {
    let mut definition = crontab();
    put(&mut definition, pointer, value);
    definition
}

fn put(definition: &mut Value, pointer: &str, value: Value) {
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    match definition.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}")) {
        Value::Object(map) => drop(map.insert(last.to_owned(), value)),
        Value::Array(items) => match items.get_mut(last.parse::<usize>().unwrap()) {
            Some(item) => *item = value,
            None => items.push(value),
        },
        other => panic!("{pointer}: {other}"),
    }
}

const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

#[test]
fn a_good_definition_gets_its_names_and_versions() {
    let mut definition = crontab();
    prepare_create(&mut definition);
    assert_eq!(validate_create(&definition), []);
    let names = &definition["spec"]["names"];
    assert_eq!((&names["singular"], &names["listKind"]), (&json!("crontab"), &json!("CronTabList")));
    assert_eq!(definition["spec"]["conversion"], json!({ "strategy": "None" }));
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(validate_update(&definition, &definition), []);
}

#[test]
fn wrong_definitions_are_refused_in_upstreams_words() {
    let second = json!({ "name": "v1", "served": true, "storage": false,
        "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } });
    for (pointer, value, error) in [
        (
            "/metadata/name",
            json!("x"),
            r#"metadata.name: Invalid value: "x": must be spec.names.plural+"."+spec.group"#,
        ),
        ("/spec/group", json!(""), "spec.group: Required value"),
        (
            "/spec/group",
            json!("stable"),
            r#"spec.group: Invalid value: "stable": should be a domain with at least one dot"#,
        ),
        (
            "/spec/scope",
            json!("Global"),
            r#"spec.scope: Unsupported value: "Global": supported values: "Cluster", "Namespaced""#,
        ),
        ("/spec/names/plural", json!(""), "spec.names.plural: Required value"),
        (
            "/spec/names/listKind",
            json!("CronTab"),
            r#"spec.names.listKind: Invalid value: "CronTab": kind and listKind may not be the same"#,
        ),
        ("/spec/versions/0/storage", json!(false), "must have exactly one version marked as storage version"),
        ("/spec/versions/1", second, "must contain unique version names"),
        (
            "/spec/versions/0/schema",
            json!({}),
            "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
        ),
        (
            "/spec/versions/0/deprecationWarning",
            json!("x"),
            r#"spec.versions[0].deprecationWarning: Invalid value: "x": can only be set for deprecated versions"#,
        ),
        (
            "/spec/preserveUnknownFields",
            json!(true),
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ),
        (
            "/spec/versions/0/additionalPrinterColumns",
            json!([{ "name": "A", "type": "text", "jsonPath": ".spec.a" }]),
            r#"spec.additionalPrinterColumns[0].type: Invalid value: "text": must be one of boolean,date,integer,number,string"#,
        ),
        (
            "/spec/versions/0/additionalPrinterColumns",
            json!([{ "name": "A", "type": "string", "jsonPath": "spec.a" }]),
            r#"spec.additionalPrinterColumns[0].JSONPath: Invalid value: "spec.a": must be a simple json path starting with ."#,
        ),
        (
            "/spec/versions/0/subresources",
            json!({ "scale": { "specReplicasPath": ".replicas", "statusReplicasPath": ".status.replicas" } }),
            r#"spec.subresources.scale.specReplicasPath: Invalid value: ".replicas": should be a json path under .spec"#,
        ),
        (
            "/spec/versions/0/selectableFields",
            json!([{ "jsonPath": ".spec.b" }]),
            r#"spec.selectableFields[0].jsonPath: Invalid value: ".spec.b": is an invalid path: does not refer to a valid field"#,
        ),
        (
            "/spec/versions/0/selectableFields",
            json!([{ "jsonPath": ".spec" }]),
            "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
        ),
        (
            "/spec/versions/0/selectableFields",
            json!([{ "jsonPath": ".spec.a" }, { "jsonPath": ".spec.a" }]),
            r#"spec.selectableFields[1].jsonPath: Duplicate value: ".spec.a""#,
        ),
        (
            "/spec/conversion",
            json!({ "strategy": "Webhook" }),
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
        ),
        (
            "/spec/conversion",
            json!({ "strategy": "None", "webhook": { "conversionReviewVersions": ["v1"] } }),
            "spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook",
        ),
        (
            "/spec/conversion",
            json!({ "strategy": "Webhook", "webhook": { "conversionReviewVersions": ["v7"], "clientConfig": { "url": "https://a/b" } } }),
            "must include at least one of v1, v1beta1",
        ),
        (
            "/spec/conversion",
            json!({ "strategy": "Webhook", "webhook": { "conversionReviewVersions": ["v1"], "clientConfig": { "url": "http://a/b" } } }),
            r#"spec.conversion.webhookClientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]"#,
        ),
    ] {
        let found = created(with(pointer, value.clone()));
        assert!(found.iter().any(|found| found.contains(error)), "{pointer} {value}\n{found:#?}");
    }
}

#[test]
fn schemas_that_are_not_structural_are_refused() {
    for (inner, error) in [
        (
            json!({}),
            "spec.validation.openAPIV3Schema.properties[a].type: Required value: must not be empty for specified object fields",
        ),
        (
            json!({ "type": "text" }),
            r#"spec.validation.openAPIV3Schema.properties[a].type: Unsupported value: "text": supported values: "array", "boolean", "integer", "number", "object", "string""#,
        ),
        (
            json!({ "type": "array" }),
            "spec.validation.openAPIV3Schema.properties[a].items: Required value: must be specified",
        ),
        (
            json!({ "type": "array", "items": {} }),
            "properties[a].items.type: Required value: must not be empty for specified array items",
        ),
        (
            json!({ "type": "string", "anyOf": [{ "type": "string" }] }),
            "properties[a].anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({ "type": "object", "properties": { "b": { "type": "string" } }, "additionalProperties": { "type": "string" } }),
            "properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            json!({ "type": "array", "items": { "type": "string" }, "uniqueItems": true }),
            "properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        (
            json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": false }),
            "x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
        ),
        (
            json!({ "$ref": "#/definitions/x", "type": "object" }),
            "properties[a].$ref: Forbidden: $ref is not supported",
        ),
        (
            json!({ "type": "string", "pattern": "(" }),
            r#"properties[a].pattern: Invalid value: "(": must be a valid regular expression, but isn't: "#,
        ),
        (
            json!({ "type": "string", "default": 1 }),
            r#"properties[a].default: Invalid value: "integer": spec.validation.openAPIV3Schema.properties[a].default in body must be of type string: "integer""#,
        ),
        (
            json!({ "type": "object", "default": { "b": 1 } }),
            "properties[a].default: Invalid value: {\"b\":1}: must not have unknown fields",
        ),
        (
            json!({ "type": "object", "x-kubernetes-embedded-resource": true }),
            "properties[a].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ),
        (
            json!({ "x-kubernetes-int-or-string": true, "x-kubernetes-preserve-unknown-fields": true }),
            "x-kubernetes-preserve-unknown-fields: Invalid value: true: must be false if x-kubernetes-int-or-string is true",
        ),
        (
            json!({ "type": "array", "x-kubernetes-list-type": "bag", "items": { "type": "string" } }),
            r#"x-kubernetes-list-type: Unsupported value: "bag": supported values: "atomic", "set", "map""#,
        ),
        (
            json!({ "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "object" } }),
            "items.x-kubernetes-map-type: Invalid value: \"null\": must be atomic as item of a list with x-kubernetes-list-type=set",
        ),
        (
            json!({ "type": "array", "x-kubernetes-list-type": "map", "items": { "type": "object", "properties": { "b": { "type": "string" } } } }),
            "x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        (
            json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["b"], "items": { "type": "object", "properties": { "b": { "type": "string" } } } }),
            "items.properties[b].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ),
        (
            json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["c"], "items": { "type": "object", "properties": {} } }),
            "entries must all be names of item properties",
        ),
        (
            json!({ "type": "object", "x-kubernetes-validations": [{ "rule": " " }] }),
            "x-kubernetes-validations[0].rule: Required value: rule is not specified",
        ),
        (
            json!({ "type": "object", "x-kubernetes-validations": [{ "rule": "true", "reason": "Odd" }] }),
            r#"x-kubernetes-validations[0].reason: Unsupported value: "Odd": supported values: "FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired""#,
        ),
        (
            json!({ "type": "object", "x-kubernetes-validations": [{ "rule": "true", "fieldPath": ".b" }] }),
            r#"x-kubernetes-validations[0].fieldPath: Invalid value: ".b": fieldPath must be a valid path"#,
        ),
    ] {
        let found = created(with(&format!("{SCHEMA}/properties/a"), inner.clone()));
        assert!(found.iter().any(|found| found.contains(error)), "{inner}\n{found:#?}");
    }
    for (pointer, value, error) in [
        ("type", json!(""), "spec.validation.openAPIV3Schema.type: Required value: must not be empty at the root"),
        (
            "type",
            json!("array"),
            "spec.validation.openAPIV3Schema.type: Invalid value: \"array\": must be object at the root",
        ),
        (
            "additionalProperties",
            json!({ "type": "string" }),
            "spec.validation.openAPIV3Schema.additionalProperties: Forbidden: must not be used at the root",
        ),
        (
            "anyOf",
            json!([{ "properties": { "b": { "minimum": 1 } } }]),
            "spec.validation.openAPIV3Schema.properties[b]: Required value: because it is defined in spec.validation.openAPIV3Schema.anyOf[0].properties[b]",
        ),
        (
            "nullable",
            json!(true),
            "spec.validation.openAPIV3Schema.nullable: Forbidden: nullable cannot be true at the root",
        ),
        (
            "properties/metadata",
            json!({ "type": "object", "properties": { "labels": { "type": "object" } } }),
            "spec.validation.openAPIV3Schema.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ),
        (
            "properties/metadata",
            json!({ "type": "object", "properties": { "name": { "type": "string", "default": "x" } } }),
            "properties[metadata].properties[name].default: Forbidden: must not be set in top-level metadata",
        ),
    ] {
        let found = created(with(&format!("{SCHEMA}/{pointer}"), value.clone()));
        assert!(found.iter().any(|found| found.contains(error)), "{pointer} {value}\n{found:#?}");
    }
}

#[test]
fn what_upstream_takes_is_taken() {
    for inner in [
        json!({ "x-kubernetes-int-or-string": true, "anyOf": [{ "type": "integer" }, { "type": "string" }] }),
        json!({ "x-kubernetes-int-or-string": true,
            "allOf": [{ "anyOf": [{ "type": "integer" }, { "type": "string" }] }, { "pattern": "^a" }] }),
        json!({ "x-kubernetes-preserve-unknown-fields": true }),
        json!({ "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true }),
        json!({ "type": "object", "additionalProperties": { "type": "array", "items": { "type": "string" } } }),
        json!({ "type": "object", "properties": { "b": { "type": "string" } }, "oneOf": [{ "required": ["b"] }] }),
        json!({ "type": "string", "nullable": true, "default": "x", "enum": ["x", "y"], "format": "anything" }),
        json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["b"],
            "items": { "type": "object", "required": ["b"], "properties": { "b": { "type": "string" } } } }),
    ] {
        assert_eq!(created(with(&format!("{SCHEMA}/properties/a"), inner.clone())), [""; 0], "{inner}");
    }
}

#[test]
fn a_status_subresource_narrows_the_root() {
    let mut definition = with("/spec/versions/0/subresources", json!({ "status": {} }));
    assert_eq!(created(definition.clone()), [""; 0]);
    put(&mut definition, &format!("{SCHEMA}/minProperties"), json!(1));
    let found = created(definition);
    let error = "spec.validation.openAPIV3Schema: Invalid value: ";
    assert!(found[0].starts_with(error) && found[0].contains("only [Description Type Format Title "), "{found:?}");
}

#[test]
fn what_instances_rely_on_does_not_change() {
    let mut old = crontab();
    prepare_create(&mut old);
    let changed = |old: &Value, pointer: &str, value: Value| {
        let mut new = old.clone();
        put(&mut new, pointer, value);
        prepare_update(&mut new, old);
        validate_update(&new, old).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let immutable = "spec.scope: Invalid value: \"Cluster\": field is immutable";
    assert_eq!(changed(&old, "/spec/scope", json!("Cluster")), [""; 0], "not established yet");
    set_condition(&mut old, "Established", "True", "", "", "2024-01-01T00:00:00Z");
    assert_eq!(changed(&old, "/spec/scope", json!("Cluster")), [immutable]);
    assert_eq!(
        changed(&old, "/spec/group", json!("other.example.com")),
        ["spec.group: Invalid value: \"other.example.com\": field is immutable"]
    );
    assert_eq!(changed(&old, "/spec/names/shortNames", json!(["other"])), [""; 0]);
}

#[test]
fn versions_that_were_stored_stay_listed() {
    let mut old = crontab();
    prepare_create(&mut old);
    let mut new = old.clone();
    let mut second = new["spec"]["versions"][0].clone();
    second["name"] = json!("v2");
    new["spec"]["versions"][0]["storage"] = json!(false);
    put(&mut new, "/spec/versions/1", second);
    prepare_update(&mut new, &old);
    assert_eq!(new["status"]["storedVersions"], json!(["v1", "v2"]));
    assert_eq!(validate_update(&new, &old), []);
    let mut gone = new.clone();
    gone["spec"]["versions"].as_array_mut().unwrap().remove(0);
    let errors: Vec<String> = validate_update(&gone, &new).iter().map(ToString::to_string).collect();
    assert_eq!(errors, ["status.storedVersions[0]: Invalid value: \"v1\": must appear in spec.versions"]);
    gone["status"]["storedVersions"] = json!(["v2"]);
    assert_eq!(validate_update(&gone, &new), []);
}

#[test]
fn groups_of_kubernetes_need_approval() {
    let mut definition = crontab();
    definition["metadata"]["name"] = json!("crontabs.stable.k8s.io");
    definition["spec"]["group"] = json!("stable.k8s.io");
    let at = "metadata.annotations[api-approved.kubernetes.io]: ";
    assert!(created(definition.clone())[0].starts_with(&format!("{at}Required value: protected groups must have")));
    for (annotation, good) in
        [("https://github.com/kubernetes/kubernetes/pull/1", true), ("unapproved, a test", true), ("maybe", false)]
    {
        definition["metadata"]["annotations"] = json!({ approval::ANNOTATION: annotation });
        assert_eq!(created(definition.clone()).is_empty(), good, "{annotation}");
    }
}

#[test]
fn a_definition_that_goes_is_held_and_says_so() {
    let mut definition = crontab();
    prepare_create(&mut definition);
    prepare_delete(&mut definition, "2024-01-01T00:00:00Z");
    let before = definition.clone();
    prepare_delete(&mut definition, "2025-01-01T00:00:00Z");
    assert_eq!(definition, before);
    assert_eq!(definition["metadata"]["finalizers"], json!([CLEANUP_FINALIZER]));
    assert_eq!(definition["status"]["conditions"][0]["reason"], "InstanceDeletionPending");
}

#[test]
fn hostile_schemas_are_refused_and_hurt_nobody() {
    for step in ["items", "not", "additionalProperties"] {
        let deep = (0..400).fold(json!({ "type": "string" }), |inner, _| json!({ "type": "array", step: inner }));
        let found = created(with(&format!("{SCHEMA}/properties/a"), deep));
        assert_eq!(
            found,
            ["spec.validation.openAPIV3Schema: Invalid value: the schema is nested deeper than 90 levels"]
        );
    }
    let wide: Value = (0..20_000).map(|index| (format!("f{index}"), json!({}))).collect();
    assert_eq!(created(with(&format!("{SCHEMA}/properties"), wide)).len(), ERRORS_MAX);
    let bomb = json!({ "type": "string", "pattern": "((a{1000}){1000}){1000}" });
    assert_eq!(created(with(&format!("{SCHEMA}/properties/a"), bomb)).len(), 1);
    // Each is fine, and some work; many of them are too much.
    let great = |index: u32| json!({ "type": "string", "pattern": format!("^\\PN{{1,{}}}$", 20 + index / 4) });
    let many: Value = (0..100).map(|index| (format!("f{index:03}"), great(index))).collect();
    let found = created(with(&format!("{SCHEMA}/properties"), many));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with(".pattern: Forbidden: the patterns of a schema are too large together"), "{found:?}");
}
