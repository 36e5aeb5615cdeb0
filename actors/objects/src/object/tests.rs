//! Headers of objects, and the number that the store adds.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::decode::to_bytes;
use crate::schema::generate::{Dice, object};
use crate::schema::{builtin, resources};

fn selectable(plural: &str) -> Selectable {
    Selectable::of(resources().iter().find(|resource| resource.plural == plural).unwrap())
}

fn read(value: &Value, plural: &str) -> Object {
    Object::parse(Bytes::from(to_bytes(value)), &selectable(plural)).unwrap()
}

#[test]
fn the_header_holds_what_every_object_is_asked_for() {
    let pod = read(
        &json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "a", "namespace": "b", "uid": "u", "resourceVersion": "12", "generation": 3,
                "deletionTimestamp": "2024-01-02T03:04:05Z", "deletionGracePeriodSeconds": 30,
                "labels": { "app": "x", "tier": "y" }, "annotations": { "name": "wrong" }, "finalizers": ["f/1", "f/2"],
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "ru",
                    "controller": true, "blockOwnerDeletion": true }, { "name": "other", "uid": "ou" }],
            },
            "spec": { "nodeName": "n1", "hostNetwork": true, "containers": [{ "name": "c", "nodeName": "no" }] },
            "status": { "phase": "Running" },
        }),
        "pods",
    );
    assert_eq!((pod.name(), pod.namespace(), pod.uid()), ("a", "b", "u"));
    assert_eq!((pod.resource_version(), pod.generation()), (12, 3));
    assert_eq!(pod.deletion_timestamp(), Some("2024-01-02T03:04:05Z"));
    assert_eq!(pod.deletion_grace_seconds(), Some(30));
    assert_eq!(pod.labels().collect::<Vec<_>>(), [("app", "x"), ("tier", "y")]);
    assert_eq!((pod.label("tier"), pod.label("none")), (Some("y"), None));
    assert_eq!(pod.finalizers().collect::<Vec<_>>(), ["f/1", "f/2"]);
    let owners: Vec<Owner<'_>> = pod.owners().collect();
    assert_eq!((owners[0].api_version, owners[0].kind, owners[0].name), ("apps/v1", "ReplicaSet", "r"));
    assert!(owners[0].controller && owners[0].block_owner_deletion && !owners[1].controller);
    let fields = selectable("pods");
    for (label, value) in [
        ("metadata.name", Some("a")),
        ("metadata.namespace", Some("b")),
        ("spec.nodeName", Some("n1")),
        ("spec.hostNetwork", Some("true")),
        ("status.phase", Some("Running")),
        ("spec.restartPolicy", Some("")),
        ("spec.nothing", None),
    ] {
        assert_eq!(pod.selected(label, &fields), value, "{label}");
    }
}

#[test]
fn an_object_without_metadata_has_an_empty_header() {
    let object = read(&json!({ "kind": "ConfigMap" }), "configmaps");
    assert_eq!((object.name(), object.uid(), object.resource_version()), ("", "", 0));
    assert_eq!((object.deletion_timestamp(), object.labels().len()), (None, 0));
}

#[test]
fn absent_values_are_compared_as_upstream_compares_them() {
    let nodes = selectable("nodes");
    let node = read(&json!({ "metadata": {}, "spec": {} }), "nodes");
    assert_eq!(node.selected("spec.unschedulable", &nodes), Some("false"));
    let events = selectable("events");
    let event = read(
        &json!({ "involvedObject": { "kind": "Pod", "name": "p" }, "source": { "component": "kubelet" } }),
        "events",
    );
    assert_eq!(event.selected("involvedObject.name", &events), Some("p"));
    assert_eq!(event.selected("source", &events), Some("kubelet"));
    let jobs = selectable("jobs");
    let job = read(&json!({ "status": { "succeeded": 4 } }), "jobs");
    assert_eq!(job.selected("status.successful", &jobs), Some("4"));
}

#[test]
fn text_with_escapes_is_unescaped() {
    let object =
        read(&json!({ "metadata": { "name": "a\"b\n\u{1}", "labels": { "k\\": "v\t" } }, "type": "x\"" }), "secrets");
    assert_eq!(object.name(), "a\"b\n\u{1}");
    assert_eq!(object.label("k\\"), Some("v\t"));
    assert_eq!(object.selected("type", &selectable("secrets")), Some("x\""));
}

#[test]
fn the_stores_number_comes_in_at_its_place() {
    for (stored, sent) in [
        (r#"{"metadata":{"name":"a","uid":"u"}}"#, r#"{"metadata":{"name":"a","resourceVersion":"7","uid":"u"}}"#),
        (r#"{"metadata":{"name":"a"},"x":1}"#, r#"{"metadata":{"name":"a","resourceVersion":"7"},"x":1}"#),
        (r#"{"metadata":{"uid":"u"}}"#, r#"{"metadata":{"resourceVersion":"7","uid":"u"}}"#),
        (r#"{"metadata":{}}"#, r#"{"metadata":{"resourceVersion":"7"}}"#),
        (r#"{"kind":"x"}"#, r#"{"metadata":{"resourceVersion":"7"},"kind":"x"}"#),
        (
            r#"{"metadata":{"a":{"resourceVersion":"1"},"resourceVersion":"3","uid":"u"}}"#,
            r#"{"metadata":{"a":{"resourceVersion":"1"},"resourceVersion":"7","uid":"u"}}"#,
        ),
        (
            r#"{"spec":{"metadata":{"name":"b"}},"metadata":{"z":[]}}"#,
            r#"{"spec":{"metadata":{"name":"b"}},"metadata":{"resourceVersion":"7","z":[]}}"#,
        ),
    ] {
        let object = Object::from_stored(stored.as_bytes(), 7, &Selectable::default()).unwrap();
        assert_eq!(std::str::from_utf8(object.bytes()).unwrap(), sent);
        assert_eq!(object.resource_version(), 7);
    }
}

#[test]
fn what_is_stored_has_no_number() {
    let value = json!({ "metadata": { "name": "a", "resourceVersion": "3" } });
    assert_eq!(stored_bytes(value), br#"{"metadata":{"name":"a"}}"#);
    assert_eq!(stored_bytes(json!({})), b"{}");
}

#[test]
fn bytes_that_are_no_object_are_refused() {
    for bytes in [
        &b""[..],
        b"null",
        b"[1]",
        b"{",
        b"{\"a\"}",
        b"{\"a\":}",
        b"{\"a\":1",
        b"{} x",
        b"{\"metadata\":{\"name\":\"\\x\"}}",
        b"{\"metadata\":{\"name\":\"\xff\"}}",
    ] {
        let parsed = Object::parse(Bytes::copy_from_slice(bytes), &Selectable::default());
        assert!(matches!(parsed, Err(ObjectError::Malformed { .. })), "{bytes:?}");
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Object::parse(Bytes::from(deep), &Selectable::default()).is_err());
}

#[test]
fn an_object_costs_little_beside_its_json() {
    let value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "web-0", "namespace": "default", "uid": "11111111-2222-3333-4444-555555555555",
            "resourceVersion": "1", "labels": { "app": "web", "pod-template-hash": "abc" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "x" }] },
        "spec": { "nodeName": "node-1" }, "status": { "phase": "Running" },
    });
    let pod = read(&value, "pods");
    let beside = pod.memory_bytes() - pod.bytes().len();
    assert!(beside <= 500, "{beside} bytes beside the JSON");
}

proptest! {
    #[test]
    fn the_header_agrees_with_the_tree(seed: u64) {
        let resource = &resources()[usize::try_from(seed % resources().len() as u64).unwrap()];
        let schema = builtin().type_named(resource.type_name).unwrap();
        let value = object(schema, &resource.api_version(), resource.kind, &mut Dice(seed));
        let fields = Selectable::of(resource);
        let read = Object::from_stored(&to_bytes(&value), 99, &fields).unwrap();
        let metadata = &value["metadata"];
        let text = |name: &str| metadata[name].as_str().unwrap_or_default();
        prop_assert_eq!((read.name(), read.namespace(), read.uid()), (text("name"), text("namespace"), text("uid")));
        prop_assert_eq!(read.resource_version(), 99);
        prop_assert_eq!(read.generation(), metadata["generation"].as_i64().unwrap_or_default());
        prop_assert_eq!(read.deletion_timestamp(), metadata["deletionTimestamp"].as_str());
        let labels: Vec<(&str, &str)> = metadata["labels"].as_object().into_iter().flatten()
            .map(|(key, value)| (key.as_str(), value.as_str().unwrap())).collect();
        prop_assert_eq!(read.labels().collect::<Vec<_>>(), labels);
        prop_assert_eq!(read.owners().len(), metadata["ownerReferences"].as_array().map_or(0, Vec::len));
        let mut sent = value.clone();
        sent["metadata"]["resourceVersion"] = json!("99");
        prop_assert_eq!(read.value(), sent);
        // Places are worked out before the number comes in, and are those of the whole.
        let again = Object::parse(read.bytes().clone(), &fields).unwrap();
        prop_assert_eq!(format!("{read:?}"), format!("{again:?}"));
        prop_assert_eq!(read.key_bytes(), (text("namespace").as_bytes(), text("name").as_bytes()));
        let mut stored = stored_bytes(value);
        prop_assert!(read.is_stored_as(&stored));
        let last = stored.len() - 2;
        stored[last] ^= 1;
        prop_assert!(!read.is_stored_as(&stored) && !read.is_stored_as(&stored[..last]) && !read.is_stored_as(b""));
    }

    #[test]
    fn no_bytes_break_it(bytes: Vec<u8>, text in "[{}\\[\\]\":,metadata0-9\\\\]{0,80}") {
        let fields = selectable("pods");
        Object::from_stored(&bytes, 1, &fields).ok();
        Object::from_stored(text.as_bytes(), 1, &fields).ok();
        Object::parse(Bytes::from(text), &fields).ok();
    }
}
