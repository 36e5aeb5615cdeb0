//! What comes out of bodies, good and bad.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::{SchemaRef, builtin, structural};

fn kind(name: &str) -> SchemaRef<'static> {
    builtin().type_named(name).unwrap()
}

fn text(errors: &[StrictError]) -> Vec<String> {
    errors.iter().map(StrictError::to_string).collect()
}

#[test]
fn json_is_written_as_everybody_writes_it() {
    for value in [
        json!(null),
        json!([[], {}, [{}], [null, true, false]]),
        json!({ "": "", "a\"b": "c\\d\n", "\u{1}": "ä€\u{10ffff}\u{7f}" }),
        json!([0, -1, 10, 99, 100, u64::MAX, i64::MIN, 0.5, 1e300, -0.0]),
        json!({ "x".repeat(300): "y".repeat(300) + "\t" }),
    ] {
        assert_eq!(to_bytes(&value), serde_json::to_vec(&value).unwrap());
    }
    let exact = to_bytes(&json!({ "a": [1, -20, true, null, "text"], "b": {}, "c": [], "d": [false] }));
    assert_eq!(exact.capacity(), exact.len(), "nothing is left over");
}

#[test]
fn unknown_and_repeated_fields_are_named_in_the_order_of_the_document() {
    let body = br#"{"kind":"Deployment","spec":{"replicas":1,"foo":1,"replicas":2,"template":{"spec":{"containers":[
        {"name":"a"},{"name":"b","image":"x","imag":1,"image":"y"}]}}},"metadata":{"labels":{"a":"1","a":"2"},"nam":""}}"#;
    let decoded = json(body, Some(kind("apps.v1.Deployment"))).unwrap();
    assert_eq!(
        text(&decoded.strict),
        [
            "unknown field \"spec.foo\"",
            "duplicate field \"spec.replicas\"",
            "unknown field \"spec.template.spec.containers[1].imag\"",
            "duplicate field \"spec.template.spec.containers[1].image\"",
            "duplicate field \"metadata.labels.a\"",
            "unknown field \"metadata.nam\"",
        ]
    );
    assert_eq!(decoded.value["spec"]["replicas"], 2);
    assert_eq!(decoded.value["metadata"], json!({ "labels": { "a": "2" } }));
    assert_eq!(
        strict_message(&decoded.strict[..2]).unwrap(),
        "strict decoding error: unknown field \"spec.foo\", duplicate field \"spec.replicas\""
    );
    assert_eq!(strict_message(&[]), None);
}

#[test]
fn names_of_fields_are_case_sensitive() {
    let decoded = json(br#"{"Spec":{},"spec":{"NodeName":"a"}}"#, Some(kind("core.v1.Pod"))).unwrap();
    assert_eq!(text(&decoded.strict), ["unknown field \"Spec\"", "unknown field \"spec.NodeName\""]);
    assert_eq!(decoded.value, json!({ "spec": {} }));
}

#[test]
fn a_wrong_kind_is_an_error_in_the_words_of_go() {
    for (of, body, message) in [
        (
            "apps.v1.Deployment",
            json!({ "spec": { "replicas": "3" } }),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "apps.v1.Deployment",
            json!({ "spec": { "replicas": 1.5 } }),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "apps.v1.Deployment",
            json!({ "spec": { "replicas": 3_000_000_000_i64 } }),
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "core.v1.Pod",
            json!({ "spec": { "containers": [{ "env": [{ "name": "a", "value": 1 }] }] } }),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        (
            "core.v1.Pod",
            json!({ "metadata": { "labels": { "a": true } } }),
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            "core.v1.Pod",
            json!({ "spec": { "containers": {} } }),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "core.v1.Pod",
            json!({ "spec": [] }),
            "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec",
        ),
        ("core.v1.Pod", json!([1]), "json: cannot unmarshal array into Go value of type v1.Pod"),
        ("core.v1.Secret", json!({ "data": { "a": "***" } }), "illegal base64 data at input byte 0"),
        (
            "core.v1.Service",
            json!({ "spec": { "ports": [{ "targetPort": 1.5 }] } }),
            "json: cannot unmarshal number 1.5 into Go value of type int32",
        ),
        (
            "core.v1.Pod",
            json!({ "metadata": { "creationTimestamp": "yesterday" } }),
            "parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\"",
        ),
        (
            "core.v1.Pod",
            json!({ "spec": { "containers": [{ "resources": { "limits": { "cpu": "much" } } }] } }),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ] {
        assert_eq!(json(&to_bytes(&body), Some(kind(of))), Err(DecodeError::Type(message.to_owned())));
        assert_eq!(check(body, kind(of)), Err(DecodeError::Type(message.to_owned())));
    }
}

#[test]
fn values_come_out_in_canonical_form() {
    for (of, body, expected) in [
        (
            "core.v1.Pod",
            json!({ "spec": { "containers": [{ "resources": { "limits": { "cpu": "1000m", "memory": 1024 } } }] } }),
            json!({ "spec": { "containers": [{ "resources": { "limits": { "cpu": "1", "memory": "1024" } } }] } }),
        ),
        (
            "core.v1.Pod",
            json!({ "metadata": { "creationTimestamp": "2024-01-02T03:04:05.9+01:00", "generation": 7 } }),
            json!({ "metadata": { "creationTimestamp": "2024-01-02T02:04:05Z", "generation": 7 } }),
        ),
        (
            "coordination.v1.Lease",
            json!({ "spec": { "renewTime": "2024-01-02T03:04:05Z" } }),
            json!({ "spec": { "renewTime": "2024-01-02T03:04:05.000000Z" } }),
        ),
        ("core.v1.Secret", json!({ "data": { "a": "Zm9v\nYmFy" } }), json!({ "data": { "a": "Zm9vYmFy" } })),
    ] {
        assert_eq!(json(&to_bytes(&body), Some(kind(of))).unwrap().value, expected);
    }
}

#[test]
fn null_is_absence_in_built_in_kinds_and_zero_within_lists() {
    let body = json!({
        "metadata": { "creationTimestamp": null, "labels": { "a": null }, "finalizers": [null] },
        "spec": { "containers": [{ "args": null, "name": null }, null], "nodeSelector": null },
    });
    let expected = json!({
        "metadata": { "labels": { "a": "" }, "finalizers": [""] },
        "spec": { "containers": [{}, {}] },
    });
    assert_eq!(json(&to_bytes(&body), Some(kind("core.v1.Pod"))).unwrap().value, expected);
    let never = json!({ "metadata": { "creationTimestamp": "0001-01-01T00:00:00Z" } });
    assert_eq!(check(never, kind("core.v1.Pod")).unwrap().value, json!({ "metadata": {} }));
    let raw = json!({ "data": { "kept": null, "list": [null] } });
    assert_eq!(json(&to_bytes(&raw), Some(kind("apps.v1.ControllerRevision"))).unwrap().value, raw);
}

#[test]
fn a_field_that_comes_twice_is_noticed_even_as_null() {
    let decoded = json(br#"{"spec":{"nodeName":null,"nodeName":"a"}}"#, Some(kind("core.v1.Pod"))).unwrap();
    assert_eq!(text(&decoded.strict), ["duplicate field \"spec.nodeName\""]);
}

#[test]
fn numbers_keep_what_they_are() {
    let body = br#"{"data":{"a":1,"b":-1,"c":9223372036854775807,"d":1.5,"e":1.0,"f":1e3,"g":18446744073709551616}}"#;
    let value = json(body, Some(kind("apps.v1.ControllerRevision"))).unwrap().value;
    let expected =
        r#"{"data":{"a":1,"b":-1,"c":9223372036854775807,"d":1.5,"e":1,"f":1000,"g":1.8446744073709552e+19}}"#;
    assert_eq!(String::from_utf8(to_bytes(&value)).unwrap(), expected);
}

#[test]
fn schemas_of_definitions_take_their_odd_forms() {
    let schema = json!({
        "type": "object",
        "additionalProperties": true,
        "items": [{ "type": "string" }],
        "dependencies": { "a": ["b"], "c": { "type": "string" } },
        "default": { "x": null },
        "not": { "properties": { "a": { "additionalProperties": { "maximum": 1.5 } } } },
    });
    let body = json!({ "openAPIV3Schema": schema });
    let decoded = json(&to_bytes(&body), Some(kind("apiextensions.v1.CustomResourceValidation"))).unwrap();
    assert_eq!((decoded.value, decoded.strict), (body, Vec::new()));
    let unknown = json!({ "openAPIV3Schema": { "additionalProperties": { "tpye": "string" } } });
    let decoded = json(&to_bytes(&unknown), Some(kind("apiextensions.v1.CustomResourceValidation"))).unwrap();
    assert_eq!(text(&decoded.strict), ["unknown field \"openAPIV3Schema.additionalProperties.tpye\""]);
}

#[test]
fn custom_resources_are_pruned_and_keep_wrong_kinds_for_validation() {
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "size": { "type": "integer" },
                    "list": { "type": "array", "items": { "type": "object", "properties": { "a": { "type": "string" } } } },
                    "map": { "type": "object", "additionalProperties": { "type": "object", "properties": {} } },
                    "free": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": true,
                        "properties": { "known": { "type": "object", "properties": { "a": { "type": "string" } } } },
                    },
                    "whole": { "type": "object", "x-kubernetes-embedded-resource": true },
                },
            },
        },
    });
    let arena = structural(&schema).unwrap();
    let body = json!({
        "apiVersion": "v1",
        "kind": "Widget",
        "metadata": { "name": "a", "foo": 1, "creationTimestamp": null },
        "spec": {
            "size": "big",
            "gone": null,
            "list": [{ "a": "x", "b": 1 }, 5],
            "map": { "k": { "x": 1 } },
            "free": { "any": { "thing": null }, "known": { "a": "x", "b": 1 } },
            "whole": { "apiVersion": "v1", "kind": "Pod", "metadata": { "foo": 1 }, "spec": {} },
        },
        "other": {},
    });
    let decoded = json(&to_bytes(&body), Some(arena.root())).unwrap();
    let mut errors = text(&decoded.strict);
    errors.sort();
    assert_eq!(
        errors,
        [
            "unknown field \"metadata.foo\"",
            "unknown field \"other\"",
            "unknown field \"spec.free.known.b\"",
            "unknown field \"spec.gone\"",
            "unknown field \"spec.list[0].b\"",
            "unknown field \"spec.map.k.x\"",
            "unknown field \"spec.whole.metadata.foo\"",
            "unknown field \"spec.whole.spec\"",
        ]
    );
    let expected = json!({
        "apiVersion": "v1",
        "kind": "Widget",
        "metadata": { "name": "a" },
        "spec": {
            "size": "big",
            "list": [{ "a": "x" }, 5],
            "map": { "k": {} },
            "free": { "any": { "thing": null }, "known": { "a": "x" } },
            "whole": { "apiVersion": "v1", "kind": "Pod", "metadata": {} },
        },
    });
    assert_eq!(decoded.value, expected);
    let twice = check(decoded.value, arena.root()).unwrap();
    assert_eq!((twice.value, twice.strict), (expected, Vec::new()));
}

#[test]
fn what_is_not_json_is_refused() {
    for (body, message) in [(&b"{"[..], "unexpected end of JSON input"), (b"", "unexpected end of JSON input")] {
        assert_eq!(json(body, None), Err(DecodeError::Json(message.to_owned())));
    }
    for body in [&b"{} {}"[..], b"{a:1}", b"nope", b"{\"a\":01}", b"[1,]"] {
        assert!(matches!(json(body, None), Err(DecodeError::Json(_))), "{body:?}");
    }
}

#[test]
fn nesting_has_an_end() {
    let deep = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
    assert!(json(&deep(DEPTH_MAX), None).is_ok());
    assert_eq!(json(&deep(DEPTH_MAX + 1), None), Err(DecodeError::TooDeep));
    assert_eq!(json(&deep(100_000), None), Err(DecodeError::TooDeep));
    let value = (0..DEPTH_MAX + 10).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(check(json!({ "data": value }), kind("apps.v1.ControllerRevision")), Err(DecodeError::TooDeep));
    let nested = "[".repeat(5000);
    assert!(yaml(nested.as_bytes(), None).is_err());
}

#[test]
fn many_unknown_fields_are_not_all_remembered() {
    let fields: Vec<String> = (0..10_000).map(|number| format!("\"f{number}\":1")).collect();
    let decoded = json(format!("{{{}}}", fields.join(",")).as_bytes(), Some(kind("core.v1.Pod"))).unwrap();
    assert_eq!(decoded.strict.len(), 100);
}

#[test]
fn invalid_utf_8_becomes_the_replacement_character() {
    let value = json(b"{\"data\":{\"a\":\"x\xffy\"}}", Some(kind("core.v1.ConfigMap"))).unwrap().value;
    assert_eq!(value["data"]["a"], "x\u{fffd}y");
}

#[test]
fn yaml_is_read_by_the_rules_of_gos_library() {
    let body = "apiVersion: v1\nkind: Pod\nspec:\n  hostNetwork: yes\n  volumes:\n  - name: a\n    secret:\n      \
                defaultMode: 0644\n  nodeSelector: {on: 'off', 1: \"2\"}\n  foo: 1\n";
    let decoded = yaml(body.as_bytes(), Some(kind("core.v1.Pod"))).unwrap();
    assert_eq!(text(&decoded.strict), ["unknown field \"spec.foo\""]);
    assert_eq!(decoded.value["spec"]["hostNetwork"], true);
    assert_eq!(decoded.value["spec"]["volumes"][0]["secret"]["defaultMode"], 420);
    assert_eq!(decoded.value["spec"]["nodeSelector"]["1"], "2");
    let twice = yaml(b"spec:\n  nodeName: a\n  nodeName: b\n", Some(kind("core.v1.Pod"))).unwrap();
    assert_eq!(text(&twice.strict), ["duplicate field \"spec.nodeName\""]);
    assert_eq!(twice.value["spec"]["nodeName"], "b");
    let wrong = yaml(b"spec: {replicas: abc}", Some(kind("apps.v1.Deployment")));
    assert!(matches!(wrong, Err(DecodeError::Type(_))), "{wrong:?}");
    assert!(matches!(yaml(b"a: [", None), Err(DecodeError::Yaml(_))));
    assert!(yaml(b"a: &a [x,x]\nb: &b [*a,*a]\n", None).is_ok());
}

#[test]
fn aliases_of_aliases_do_not_fill_the_memory() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let item = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", [item.as_str(); 10].join(", ")));
    }
    assert!(matches!(yaml(text.as_bytes(), None), Err(DecodeError::Yaml(_))));
}

#[test]
fn yaml_comes_out_so_that_it_reads_the_same() {
    let value =
        json!({ "a": "yes", "b": "0644", "c": "1.0", "d": [null, true, -5], "e": { "f": "x\ny\n" }, "g": "on" });
    let text = to_yaml(&value);
    assert_eq!(yaml(text.as_bytes(), None).unwrap().value, value, "{text}");
}

#[test]
fn zero_values_go_and_empty_parts_come_as_upstream_has_it() {
    for (of, before, after) in [
        (
            "core.v1.Pod",
            json!({ "metadata": { "labels": {} }, "spec": { "hostNetwork": false, "priority": 0, "containers": [
                { "name": "a", "image": "", "tty": false, "args": [], "livenessProbe": { "initialDelaySeconds": 0 } }] } }),
            json!({ "metadata": {}, "spec": { "priority": 0, "containers": [
                { "name": "a", "resources": {}, "livenessProbe": {} }] }, "status": {} }),
        ),
        (
            "apps.v1.Deployment",
            json!({ "spec": { "replicas": 0, "paused": false, "selector": {} } }),
            json!({ "metadata": {}, "spec": { "replicas": 0, "selector": {}, "strategy": {}, "template": { "metadata": {},
                "spec": { "containers": null } } }, "status": {} }),
        ),
        (
            "core.v1.Service",
            json!({ "spec": { "ports": [{ "port": 80, "protocol": "" }] } }),
            json!({ "metadata": {}, "spec": { "ports": [{ "port": 80, "targetPort": 0 }] },
                "status": { "loadBalancer": {} } }),
        ),
        ("rbac.v1.Role", json!({}), json!({ "metadata": {}, "rules": null })),
        (
            "core.v1.Event",
            json!({ "involvedObject": { "kind": "Pod" } }),
            json!({ "metadata": {}, "involvedObject": { "kind": "Pod" }, "eventTime": null, "firstTimestamp": null,
                "lastTimestamp": null, "source": {}, "reportingComponent": "", "reportingInstance": "" }),
        ),
    ] {
        let mut value = before;
        normalize(&mut value, kind(of));
        assert_eq!(value, after, "{of}");
        normalize(&mut value, kind(of));
        assert_eq!(value, after, "{of} again");
    }
}

proptest! {
    #[test]
    fn no_bytes_break_it(bytes: Vec<u8>) {
        json(&bytes, Some(kind("core.v1.Pod"))).ok();
        yaml(&bytes, Some(kind("core.v1.Pod"))).ok();
    }

    #[test]
    fn any_text_is_written_as_everybody_writes_it(text: String) {
        let value = json!({ &text: [&text] });
        prop_assert_eq!(to_bytes(&value), serde_json::to_vec(&value).unwrap());
    }

    #[test]
    fn no_json_breaks_it(text in "[\\[\\]{}:,\"a-c0-9. ]{0,60}") {
        if let Ok(decoded) = json(text.as_bytes(), Some(kind("core.v1.Pod"))) {
            let again = check(decoded.value.clone(), kind("core.v1.Pod")).unwrap();
            prop_assert_eq!(again, Decoded { value: decoded.value, strict: Vec::new() });
        }
    }
}
