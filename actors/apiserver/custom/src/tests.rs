//! Instances: pruning, defaulting, scaling, validation.

use std::sync::Arc;

use k3sd_apiserver_store::{CustomVersion, Resource, ScalePaths, Schema};
use k3sd_objects::schema::structural;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn resource(schema: &Value, custom: CustomVersion) -> Resource {
    let arena = Arc::new(structural(schema).unwrap());
    let custom = CustomVersion { rules: crate::rules::compile(&arena), ..custom };
    Resource {
        group: "example.com".into(),
        version: "v1".into(),
        api_version: "example.com/v1".into(),
        plural: "widgets".into(),
        singular: "widget".into(),
        kind: "Widget".into(),
        list_kind: "WidgetList".into(),
        namespaced: true,
        verbs: Vec::new(),
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
        schema: Schema::Custom(arena),
        generation: true,
        stored: None,
        custom: Some(Arc::new(custom)),
    }
}

fn widgets() -> Resource {
    let schema = json!({ "type": "object", "properties": {
        "spec": { "type": "object", "x-kubernetes-validations": [{ "rule": "self.size < 10" }], "required": ["size"],
            "properties": {
                "size": { "type": "integer", "default": 3, "maximum": 100 },
                "name": { "type": "string", "maxLength": 3 },
                "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": { "known": { "type": "object", "properties": { "a": { "type": "string", "default": "x" } } } } },
                "parts": { "type": "array", "items": { "type": "object", "properties": { "side": { "type": "string", "default": "left" } } } },
                "labels": { "type": "object", "additionalProperties": { "type": "object", "properties": { "v": { "type": "integer" } } } },
                "whole": { "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true },
                "gone": { "type": "string", "nullable": true },
            } },
        "status": { "type": "object", "properties": { "count": { "type": "integer" }, "selector": { "type": "string" } } },
    } });
    let scale = ScalePaths {
        spec_replicas: ".spec.size".to_owned(),
        status_replicas: ".status.count".to_owned(),
        label_selector: Some(".status.selector".to_owned()),
    };
    resource(&schema, CustomVersion { scale: Some(scale), ..CustomVersion::default() })
}

#[test]
fn fields_that_nobody_knows_are_dropped() {
    let mut value = json!({
        "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "name": "a", "odd": 1 }, "odd": 1,
        "spec": { "odd": {}, "free": { "kept": { "deep": 1 }, "known": { "a": "b", "odd": 1 } },
            "parts": [{ "side": "x", "odd": 1 }], "labels": { "k": { "v": 1, "odd": 2 } },
            "whole": { "kept": 1, "metadata": { "labels": { "a": "b" }, "odd": 1 } } },
    });
    let mut dropped = prune(&mut value, &widgets());
    dropped.sort();
    assert_eq!(
        dropped,
        [
            "metadata.odd",
            "odd",
            "spec.free.known.odd",
            "spec.labels.k.odd",
            "spec.odd",
            "spec.parts[0].odd",
            "spec.whole.metadata.odd"
        ]
    );
    assert_eq!(
        value["spec"],
        json!({ "free": { "kept": { "deep": 1 }, "known": { "a": "b" } }, "parts": [{ "side": "x" }],
            "labels": { "k": { "v": 1 } }, "whole": { "kept": 1, "metadata": { "labels": { "a": "b" } } } })
    );
}

#[test]
fn rules_are_left_out_of_objects_that_are_too_wrong() {
    let texts = |spec: Value| {
        let errors = validate(&json!({ "spec": spec }), None, &widgets());
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(texts(json!({ "size": 3 })), [""; 0]);
    assert_eq!(texts(json!({ "size": 30 })), ["spec: Invalid value: \"object\": failed rule: self.size < 10"]);
    let found = texts(json!({ "size": 30, "name": "long" }));
    assert_eq!(found[0], "spec.name: Too long: may not be more than 3 bytes");
    assert!(found[1].starts_with("<nil>: Invalid value: ") && found[1].ends_with(RULES_SKIPPED), "{found:?}");
    // A limit of numbers doesn't keep rules from being checked.
    assert_eq!(texts(json!({ "size": 300 })).len(), 2);
}

#[test]
fn replicas_are_read_and_written_where_the_definition_says() {
    let resource = widgets();
    let mut widget = json!({
        "metadata": { "name": "w", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": { "a": "b" } },
        "spec": { "size": 3 }, "status": { "count": 2, "selector": "a=b" },
    });
    let scale = scale::to_scale(&widget, &resource).unwrap();
    assert_eq!(
        scale,
        json!({ "apiVersion": "autoscaling/v1", "kind": "Scale",
            "metadata": { "name": "w", "namespace": "n", "uid": "u", "resourceVersion": "7" },
            "spec": { "replicas": 3 }, "status": { "replicas": 2, "selector": "a=b" } })
    );
    let mut wanted = scale.clone();
    wanted["spec"]["replicas"] = json!(5);
    wanted["metadata"]["resourceVersion"] = json!("6");
    scale::from_scale(&mut widget, &wanted, &resource).unwrap();
    assert_eq!((&widget["spec"]["size"], &widget["metadata"]["resourceVersion"]), (&json!(5), &json!("6")));
    wanted["spec"]["replicas"] = json!(-1);
    assert_eq!(scale::from_scale(&mut widget, &wanted, &resource).unwrap_err().http_code(), 422);
    wanted["spec"]["replicas"] = json!(1);
    wanted["metadata"]["uid"] = json!("other");
    assert_eq!(scale::from_scale(&mut widget, &wanted, &resource).unwrap_err().http_code(), 409);
    assert_eq!(widget["spec"]["size"], 5);
    let error = scale::to_scale(&json!({ "metadata": {} }), &resource).unwrap_err();
    assert_eq!(error.message, "Internal error occurred: the spec replicas field \".spec.size\" does not exist");
    let error = scale::to_scale(&json!({ "spec": { "size": "x" } }), &resource).unwrap_err();
    assert_eq!(
        error.message,
        "Internal error occurred: .spec.size accessor error: x is of the type string, expected int64"
    );
    let mut empty = json!({ "metadata": { "uid": "other" } });
    scale::from_scale(&mut empty, &wanted, &resource).unwrap();
    assert_eq!(empty["spec"], json!({ "size": 1 }));
}

/// Values made of the names that the schema knows, and others.
fn values() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "spec",
        "size",
        "name",
        "free",
        "known",
        "a",
        "parts",
        "side",
        "labels",
        "v",
        "whole",
        "gone",
        "metadata",
        "kind",
        "odd",
        "apiVersion",
        "status",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn doing_it_twice_changes_nothing(value in values()) {
        let resource = widgets();
        let mut once = json!({ "spec": value.clone(), "status": value });
        k3sd_objects::default::apply(&mut once, resource.schema.get());
        prune(&mut once, &resource);
        let mut twice = once.clone();
        k3sd_objects::default::apply(&mut twice, resource.schema.get());
        prop_assert_eq!(&once, &twice);
        prop_assert_eq!(prune(&mut twice, &resource), Vec::<String>::new());
        prop_assert_eq!(&once, &twice);
        // Nothing that a client sends breaks the checks; what did not change is no error.
        validate(&once, None, &resource);
        prop_assert_eq!(validate(&once, Some(&once), &resource), vec![]);
    }
}
