//! The patches against the examples of their documents, upstream's liberties, and anything that a client may send.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::decode::DEPTH_MAX;
use crate::schema::{SchemaRef, builtin};

fn pod() -> SchemaRef<'static> {
    builtin().type_named("core.v1.Pod").unwrap()
}

fn check_json(object: Value, patch: Value, wanted: Value) {
    assert_eq!(apply_json_patch(object, &patch), Ok(wanted), "{patch}");
}

fn check_strategic(type_name: &str, object: Value, patch: Value, wanted: Value) {
    let schema = builtin().type_named(type_name).unwrap();
    assert_eq!(apply_strategic_patch(object, patch.clone(), schema), Ok(wanted), "{patch}");
}

#[test]
fn json_patches_do_what_the_rfc_shows() {
    for (object, operation, wanted) in [
        (json!({"a": 1}), json!({"op": "add", "path": "/b", "value": 2}), json!({"a": 1, "b": 2})),
        (json!({"a": [1, 3]}), json!({"op": "add", "path": "/a/1", "value": 2}), json!({"a": [1, 2, 3]})),
        (json!({"a": [1]}), json!({"op": "add", "path": "/a/-", "value": [2]}), json!({"a": [1, [2]]})),
        (json!({"a": 1}), json!({"op": "add", "path": "/a", "value": 2}), json!({"a": 2})),
        (json!({"a": 1, "b": 2}), json!({"op": "remove", "path": "/a"}), json!({"b": 2})),
        (json!({"a": [1, 2]}), json!({"op": "remove", "path": "/a/0"}), json!({"a": [2]})),
        (json!({"a": 1}), json!({"op": "replace", "path": "/a", "value": null}), json!({"a": null})),
        (json!({"a": 1}), json!({"op": "replace", "path": "", "value": {"b": 2}}), json!({"b": 2})),
        (
            json!({"a": {"x": 1}, "b": {}}),
            json!({"op": "move", "from": "/a/x", "path": "/b/y"}),
            json!({"a": {}, "b": {"y": 1}}),
        ),
        (json!({"a": [1, 2, 3]}), json!({"op": "move", "from": "/a/0", "path": "/a/2"}), json!({"a": [2, 3, 1]})),
        (
            json!({"a": {"x": 1}}),
            json!({"op": "copy", "from": "/a", "path": "/b"}),
            json!({"a": {"x": 1}, "b": {"x": 1}}),
        ),
        (json!({"a/b": {"m~n": 1}}), json!({"op": "remove", "path": "/a~1b/m~0n"}), json!({"a/b": {}})),
        (json!({"~1": 1, "/": 2}), json!({"op": "remove", "path": "/~01"}), json!({"/": 2})),
        (json!({"": {"": 1}}), json!({"op": "replace", "path": "//", "value": 2}), json!({"": {"": 2}})),
    ] {
        check_json(object, json!([operation]), wanted);
    }
    let object = json!({"a": [1, {"b": "x"}], "c": null});
    for (path, value) in
        [("/a/1/b", json!("x")), ("/a", json!([1, {"b": "x"}])), ("/c", json!(null)), ("", object.clone())]
    {
        check_json(object.clone(), json!([{"op": "test", "path": path, "value": value}]), object.clone());
    }
}

#[test]
fn json_patches_take_upstreams_liberties() {
    for (object, operation, wanted) in [
        (json!({"a": [1, 2]}), json!({"op": "remove", "path": "/a/-1"}), json!({"a": [1]})),
        (json!({"a": [1, 2]}), json!({"op": "add", "path": "/a/-1", "value": 3}), json!({"a": [1, 2, 3]})),
        (json!({"a": [1, 2]}), json!({"op": "replace", "path": "/a/-2", "value": 3}), json!({"a": [3, 2]})),
        (json!({}), json!({"op": "replace", "path": "/a", "value": 1}), json!({"a": 1})),
        (json!({}), json!({"op": "copy", "from": "/a", "path": "/b"}), json!({"b": null})),
        (json!({}), json!({"op": "test", "path": "/a", "value": null}), json!({})),
        (json!({"a": null}), json!({"op": "test", "path": "/a"}), json!({"a": null})),
        (json!({}), json!({"op": "add", "path": "/a"}), json!({"a": null})),
    ] {
        check_json(object, json!([operation]), wanted);
    }
}

#[test]
fn json_patches_that_do_not_fit_change_nothing() {
    for operation in [
        json!({"op": "remove", "path": "/none"}),
        json!({"op": "remove", "path": "/list/2"}),
        json!({"op": "remove", "path": "/list/-3"}),
        json!({"op": "remove", "path": "/list/x"}),
        json!({"op": "remove", "path": "/list/9223372036854775808"}),
        json!({"op": "remove", "path": ""}),
        json!({"op": "add", "path": "/list/3", "value": 1}),
        json!({"op": "add", "path": "/list/-4", "value": 1}),
        json!({"op": "add", "path": "/none/x", "value": 1}),
        json!({"op": "add", "path": "/text/x", "value": 1}),
        json!({"op": "add", "path": "", "value": {}}),
        json!({"op": "add", "path": "text", "value": 1}),
        json!({"op": "add", "value": 1}),
        json!({"op": "add", "path": 7, "value": 1}),
        json!({"op": "replace", "path": "/list/2", "value": 1}),
        json!({"op": "replace", "path": "", "value": 1}),
        json!({"op": "move", "from": "/none", "path": "/text"}),
        json!({"op": "move", "from": "/map", "path": "/map/x"}),
        json!({"op": "copy", "from": "/list/2", "path": "/text"}),
        json!({"op": "copy", "path": "/text"}),
        json!({"op": "test", "path": "/text", "value": "b"}),
        json!({"op": "test", "path": "/text"}),
        json!({"op": "test", "path": "/none", "value": 1}),
        json!({"op": "test", "path": "/list", "value": [2, 1]}),
        json!({"op": "jump", "path": "/text"}),
        json!({}),
    ] {
        let object = json!({"list": [1, 2], "text": "a", "map": {}});
        let error = apply_json_patch(object, &json!([operation])).unwrap_err();
        assert!(matches!(error, PatchError::Unfit(_)), "{operation}: {error}");
        let status = error.status();
        assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
        assert_eq!(status.message, "the server rejected our request due to an error in our request");
    }
}

#[test]
fn a_patch_of_the_wrong_form_is_refused() {
    for patch in [json!({}), json!("x"), json!(null), json!([7])] {
        let status = apply_json_patch(json!({}), &patch).unwrap_err().status();
        assert_eq!((status.code, status.reason.as_str()), (400, "BadRequest"), "{patch}");
    }
    let status = apply_json_patch(json!({}), &json!({})).unwrap_err().status();
    assert_eq!(
        status.message,
        "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
    );
    let status = apply_merge_patch(json!({}), json!([])).unwrap_err().status();
    assert_eq!(
        status.message,
        "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
    );
    assert_eq!(apply_strategic_patch(json!({}), json!([]), pod()).unwrap_err().status().code, 400);
}

#[test]
fn ten_thousand_operations_are_enough() {
    let operation = json!({"op": "add", "path": "/a", "value": 1});
    let patch = |count| Value::Array(vec![operation.clone(); count]);
    check_json(json!({}), patch(OPERATIONS_MAX), json!({"a": 1}));
    let status = apply_json_patch(json!({}), &patch(OPERATIONS_MAX + 1)).unwrap_err().status();
    assert_eq!((status.code, status.reason.as_str()), (413, "RequestEntityTooLarge"));
    assert_eq!(
        status.message,
        "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
    );
}

#[test]
fn copies_do_not_add_up_without_bound() {
    let object = json!({"a": "x".repeat(1 << 20), "list": []});
    let copy = json!({"op": "copy", "from": "/a", "path": "/list/-"});
    assert!(apply_json_patch(object.clone(), &json!([copy, copy])).is_ok());
    assert!(apply_json_patch(object, &json!([copy, copy, copy])).is_err());
    let doubling = vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 60];
    assert!(apply_json_patch(json!({"a": [1]}), &Value::Array(doubling)).is_err());
}

#[test]
fn no_patch_builds_a_tree_that_is_too_deep() {
    let mut path = String::new();
    let mut operations = Vec::new();
    for _ in 0..DEPTH_MAX {
        path.push_str("/a");
        operations.push(json!({"op": "add", "path": path, "value": {}}));
    }
    let (last, fitting) = operations.split_last().unwrap();
    let deep = apply_json_patch(json!({}), &Value::Array(fitting.to_vec())).unwrap();
    assert!(apply_json_patch(deep.clone(), &json!([last])).is_ok());
    let deeper = json!({"op": "add", "path": path, "value": {"b": 1}});
    assert!(apply_json_patch(deep, &json!([deeper])).is_err());
    // Moves that swallow what was moved before, each time under more levels.
    let mut operations = Vec::new();
    for _ in 0..1000 {
        operations.push(json!({"op": "add", "path": "/b", "value": {"c": {}}}));
        operations.push(json!({"op": "move", "from": "/a", "path": "/b/c/a"}));
        operations.push(json!({"op": "move", "from": "/b", "path": "/a"}));
    }
    assert!(apply_json_patch(json!({"a": {}}), &Value::Array(operations)).is_err());
}

#[test]
fn the_deepest_tree_that_is_read_can_be_patched() {
    let deep = || (0..DEPTH_MAX - 1).fold(json!({"x": 1}), |below, _| json!({"a": below}));
    assert_eq!(apply_merge_patch(deep(), deep()), Ok(deep()));
    assert_eq!(apply_strategic_patch(deep(), deep(), pod()), Ok(deep()));
    assert_eq!(apply_json_patch(deep(), &json!([{"op": "test", "path": "", "value": deep()}])), Ok(deep()));
}

#[test]
fn a_patch_cannot_keep_a_core_busy() {
    let object = json!({"list": vec![0; 1_000_000], "map": {}});
    let mut operations = Vec::new();
    for _ in 0..OPERATIONS_MAX / 2 {
        operations.push(json!({"op": "move", "from": "/list", "path": "/map/list"}));
        operations.push(json!({"op": "move", "from": "/map/list", "path": "/list"}));
    }
    let error = apply_json_patch(object.clone(), &Value::Array(operations)).unwrap_err();
    assert_eq!(error, PatchError::Unfit("the patch takes too many steps".to_owned()));
    let inserts = vec![json!({"op": "add", "path": "/list/0", "value": 1}); OPERATIONS_MAX];
    assert_eq!(apply_json_patch(object, &Value::Array(inserts)).unwrap_err(), error);
}

#[test]
fn merge_patches_do_what_the_rfc_shows() {
    for (object, patch, wanted) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        (json!({}), json!({"a": [1, null, {"b": null}]}), json!({"a": [1, null, {}]})),
        (json!({"a": 1}), json!({"a": {"b": {}}}), json!({"a": {"b": {}}})),
    ] {
        assert_eq!(apply_merge_patch(object, patch.clone()), Ok(wanted), "{patch}");
    }
}

#[test]
fn strategic_patches_merge_lists_by_key() {
    let containers = |containers: Value| json!({"spec": {"containers": containers}});
    for (object, patch, wanted) in [
        (
            json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]),
            json!([{"name": "b", "image": "2"}]),
            json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]),
        ),
        (
            json!([{"name": "a", "image": "1"}]),
            json!([{"name": "c", "image": "3"}]),
            json!([{"name": "c", "image": "3"}, {"name": "a", "image": "1"}]),
        ),
        (json!([{"name": "a"}, {"name": "b"}]), json!([{"name": "a", "$patch": "delete"}]), json!([{"name": "b"}])),
        (
            json!([{"name": "a"}, {"name": "b"}]),
            json!([{"$patch": "replace"}, {"name": "c", "image": "3"}]),
            json!([{"name": "c", "image": "3"}]),
        ),
        (
            json!([{"name": "a", "image": "1", "tty": true}]),
            json!([{"name": "a", "tty": null}]),
            json!([{"name": "a", "image": "1"}]),
        ),
        (
            json!([{"name": "a", "args": ["x", "y"]}]),
            json!([{"name": "a", "args": ["z"]}]),
            json!([{"name": "a", "args": ["z"]}]),
        ),
        (
            json!([{"name": "a", "ports": [{"containerPort": 80, "name": "x"}]}]),
            json!([{"name": "a", "ports": [{"containerPort": 80, "name": "y"}, {"containerPort": 81}]}]),
            json!([{"name": "a", "ports": [{"containerPort": 80, "name": "y"}, {"containerPort": 81}]}]),
        ),
        (
            json!([{"name": "a"}]),
            json!([{"name": "b", "env": [{"name": "X", "value": null}], "$retainKeys": ["name", "env"]}]),
            json!([{"name": "b", "env": [{"name": "X"}]}, {"name": "a"}]),
        ),
    ] {
        check_strategic("core.v1.Pod", containers(object), containers(patch), containers(wanted));
    }
}

#[test]
fn strategic_patches_obey_their_directives() {
    for (type_name, object, patch, wanted) in [
        (
            "core.v1.Pod",
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"$patch": "replace", "b": "2"}}}),
            json!({"metadata": {"labels": {"b": "2"}}}),
        ),
        (
            "core.v1.Pod",
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"$patch": "delete"}}}),
            json!({"metadata": {"labels": {}}}),
        ),
        (
            "core.v1.Pod",
            json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["d"]}}),
            json!({"metadata": {"finalizers": ["d", "a", "c"]}}),
        ),
        (
            "core.v1.Pod",
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"finalizers": ["c", "a"], "$setElementOrder/finalizers": ["c", "b", "a"]}}),
            json!({"metadata": {"finalizers": ["c", "b", "a"]}}),
        ),
        (
            "core.v1.Pod",
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}, "$retainKeys": ["name", "hostPath"]}]}}),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}),
        ),
        (
            "apps.v1.Deployment",
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
            json!({"spec": {"strategy": {"type": "Recreate", "$retainKeys": ["type"]}}}),
            json!({"spec": {"strategy": {"type": "Recreate"}}}),
        ),
        (
            "policy.v1.PodDisruptionBudget",
            json!({"spec": {"selector": {"matchLabels": {"a": "1"}}, "minAvailable": 1}}),
            json!({"spec": {"selector": {"matchLabels": {"b": "2"}}}}),
            json!({"spec": {"selector": {"matchLabels": {"b": "2"}}, "minAvailable": 1}}),
        ),
        (
            "core.v1.Pod",
            json!({"spec": {}}),
            json!({"spec": {
                "containers": [{"name": "a", "$patch": "delete"}, {"name": "b", "tty": null}],
                "nodeSelector": {"$patch": "replace", "x": "y", "z": null},
                "$deleteFromPrimitiveList/none": ["x"],
            }}),
            json!({"spec": {"containers": [{"name": "b"}], "nodeSelector": {"x": "y"}}}),
        ),
    ] {
        check_strategic(type_name, object, patch, wanted);
    }
}

#[test]
fn the_stated_order_comes_before_the_patchs_and_that_before_the_objects() {
    let list = |names: &str| {
        let items: Vec<Value> = names.chars().map(|name| json!({"name": name.to_string()})).collect();
        Value::Array(items)
    };
    for (object, patch, order, wanted) in [
        ("abc", "c", Some("ca"), "bca"),
        ("abc", "", Some("cba"), "cba"),
        ("abcd", "", Some("db"), "acdb"),
        ("ab", "xb", Some("xb"), "xab"),
        ("ab", "x", Some("abx"), "abx"),
        ("ab", "x", None, "xab"),
        ("abc", "cxa", None, "bcxa"),
        ("", "ba", Some("ba"), "ba"),
    ] {
        let mut spec = Map::new();
        if !patch.is_empty() {
            spec.insert("containers".to_owned(), list(patch));
        }
        if let Some(order) = order {
            spec.insert("$setElementOrder/containers".to_owned(), list(order));
        }
        let object = json!({"spec": {"containers": list(object)}});
        let wanted = json!({"spec": {"containers": list(wanted)}});
        check_strategic("core.v1.Pod", object, json!({"spec": spec}), wanted);
    }
}

#[test]
fn strategic_patches_that_make_no_sense_are_refused() {
    for (patch, message) in [
        (json!({"$patch": "merge"}), "unknown patch type: merge in map: map[$patch:merge]"),
        (json!({"spec": {"$retainKeys": "x"}}), "invalid patch format of retainKeys"),
        (json!({"spec": {"$retainKeys": ["a"], "b": 1}}), "invalid patch format of retainKeys"),
        (json!({"spec": {"$deleteFromPrimitiveList": []}}), "invalid patch format of primitive list"),
        (json!({"spec": {"$setElementOrder": []}}), "invalid patch format of setElementOrder list"),
        (json!({"spec": {"$setElementOrder/containers": 7}}), "expected a array, but received a number"),
        (
            json!({"spec": {"containers": [{"image": "x"}]}}),
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            json!({"spec": {"containers": [{"$patch": "delete"}]}}),
            "map: map[$patch:delete] does not contain declared merge key: name",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}),
            "merging lists cannot yet be specified in the patch",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "$patch": "x"}]}}),
            "unknown patch type: x in map: map[$patch:x name:a]",
        ),
        (json!({"spec": {"containers": [{"name": "a"}, "x"]}}), "list element types are not identical"),
        (
            json!({"spec": {"containers": [{"name": "b"}], "$setElementOrder/containers": [{"name": "a"}]}}),
            "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
        ),
    ] {
        let object = json!({"spec": {"containers": [{"name": "a"}]}});
        let error = apply_strategic_patch(object, patch, pod()).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.status().code), (message, 400));
    }
    let lists = json!({"metadata": {"finalizers": [["x"]]}});
    let error = apply_strategic_patch(json!({"metadata": {"finalizers": ["a"]}}), lists, pod()).unwrap_err();
    assert_eq!(error.status().code, 422);
}

/// Trees with names that mean something to patches and to a Pod.
fn any_value() -> impl Strategy<Value = Value> {
    let names = vec![
        "a",
        "name",
        "spec",
        "metadata",
        "containers",
        "ports",
        "finalizers",
        "labels",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$setElementOrder/finalizers",
        "$deleteFromPrimitiveList/finalizers",
        "op",
        "path",
        "from",
        "value",
    ];
    let words = vec!["a", "b", "delete", "replace", "merge", "add", "remove", "/a", "/a/-", "/spec/0", ""];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..3).prop_map(Value::from),
        prop::sample::select(words).prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(names.clone()), inner, 0..5).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

fn holds_directive(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| name.starts_with('$') || holds_directive(value)),
        Value::Array(items) => items.iter().any(holds_directive),
        _ => false,
    }
}

/// RFC 7386 as the RFC writes it, for patches without lists of objects.
fn merge_reference(target: &Value, patch: &Value) -> Value {
    let Some(patch) = patch.as_object() else { return patch.clone() };
    let mut merged = target.as_object().cloned().unwrap_or_default();
    for (name, change) in patch {
        if change.is_null() {
            merged.remove(name);
        } else {
            let old = merged.get(name).cloned().unwrap_or_default();
            merged.insert(name.clone(), merge_reference(&old, change));
        }
    }
    Value::Object(merged)
}

/// An object, whatever the value is.
fn as_object(value: Value) -> Value {
    if value.is_object() { value } else { json!({ "a": value }) }
}

/// The value as an object may hold it: without directives.
fn stored(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name.replace('$', ""), stored(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(stored).collect(),
        other => other,
    }
}

fn without_lists(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, without_lists(value))).collect(),
        Value::Array(items) => json!(items.len()),
        other => other,
    }
}

proptest! {
    #[test]
    fn no_patch_upsets_an_object(object in any_value(), patch in any_value(), operations in prop::collection::vec(any_value(), 0..6)) {
        let _merged = apply_merge_patch(object.clone(), patch.clone());
        let _applied = apply_json_patch(object.clone(), &Value::Array(operations));
        let _strategic = apply_strategic_patch(object, patch, pod());
    }

    #[test]
    fn a_merge_patch_is_what_the_rfc_defines(object in any_value(), patch in any_value()) {
        let (object, patch) = (without_lists(object), as_object(without_lists(patch)));
        let merged = apply_merge_patch(object.clone(), patch.clone()).unwrap();
        prop_assert_eq!(&merged, &merge_reference(&object, &patch));
        prop_assert_eq!(apply_merge_patch(merged.clone(), patch), Ok(merged), "once is as good as twice");
    }

    #[test]
    fn no_directive_reaches_an_object(object in any_value(), patch in any_value()) {
        let (object, patch) = (stored(as_object(object)), as_object(patch));
        if let Ok(merged) = apply_strategic_patch(object, patch, pod()) {
            prop_assert!(!holds_directive(&merged), "{}", merged);
        }
    }

    #[test]
    fn moving_there_and_back_changes_nothing(object in any_value()) {
        let object = json!({"x": object, "y": {}});
        let there_and_back = json!([
            {"op": "move", "from": "/x", "path": "/y/x"},
            {"op": "test", "path": "/y/x", "value": object["x"]},
            {"op": "move", "from": "/y/x", "path": "/x"},
        ]);
        prop_assert_eq!(apply_json_patch(object.clone(), &there_and_back), Ok(object));
    }
}
