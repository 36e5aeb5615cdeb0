//! Bytes that Go's structures write, and the way there and back for every kind.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::decode::{DecodeError, check};
use crate::schema::generate::{Dice, object};
use crate::schema::{builtin, kind_schema, resources};

/// A field with a length, as tests write it: number, then content.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
    assert!(content.len() < 128, "a longer field takes more bytes of length");
    out.extend_from_slice(content);
    out
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let types = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &types), field(2, raw), field(3, b""), field(4, b"")].concat()
}

/// The metadata of a new object: all fields that are no pointers are there.
fn go_metadata(name: &str) -> Vec<u8> {
    let mut out = field(1, name.as_bytes());
    for number in 2..=6 {
        out.extend(field(number, b""));
    }
    out.extend([7 << 3, 0]);
    out.extend(field(8, b""));
    out
}

#[test]
fn a_namespace_as_kubectl_creates_it_is_read() {
    let raw = [field(1, &go_metadata("demo")), field(2, b""), field(3, &field(1, b""))].concat();
    let expected =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "demo" }, "spec": {}, "status": {} });
    assert_eq!(decode(&body("v1", "Namespace", &raw)).unwrap(), expected);
}

#[test]
fn an_object_is_written_byte_for_byte_as_expected() {
    let value = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "demo", "generation": 300 },
        "spec": { "finalizers": ["a", ""] }, "status": { "phase": "Active" } });
    let expected: &[u8] = &[
        b'k', b'8', b's', 0, // magic
        0x0a, 0x0f, 0x0a, 0x02, b'v', b'1', 0x12, 0x09, b'N', b'a', b'm', b'e', b's', b'p', b'a', b'c',
        b'e', // type
        0x12, 0x1c, // raw
        0x0a, 0x09, 0x0a, 0x04, b'd', b'e', b'm', b'o', 0x38, 0xac, 0x02, // metadata
        0x12, 0x05, 0x0a, 0x01, b'a', 0x0a, 0x00, // spec
        0x1a, 0x08, 0x0a, 0x06, b'A', b'c', b't', b'i', b'v', b'e', // status
        0x1a, 0x00, 0x22, 0x00, // encoding and type of the content
    ];
    assert_eq!(encode(&value).unwrap(), expected);
}

#[test]
fn zero_counts_where_go_has_a_pointer_and_nowhere_else() {
    // replicas = 0 is a pointer, minReadySeconds = 0 and paused = false are none; the strategy is always there.
    let strategy = field(4, &field(1, b""));
    let spec = [&[1 << 3, 0][..], &strategy, &[5 << 3, 0], &[7 << 3, 0]].concat();
    let raw = [field(1, &go_metadata("d")), field(2, &spec), field(3, &[1 << 3, 0])].concat();
    let value = decode(&body("apps/v1", "Deployment", &raw)).unwrap();
    assert_eq!(value["spec"]["replicas"], 0);
    assert_eq!(value["spec"]["strategy"], json!({}));
    assert_eq!(value["spec"].get("minReadySeconds"), None);
    assert_eq!(value["spec"].get("paused"), None);
    assert_eq!(value["status"], json!({}));
}

#[test]
fn inlined_and_special_values_are_read() {
    // A volume is a name and, in a message of its own, one of many sources: here an empty directory with a limit.
    let empty_dir = [field(1, b"Memory"), field(2, &field(1, b"1024Mi"))].concat();
    let volume = [field(1, b"v"), field(2, &field(2, &empty_dir))].concat();
    // A probe holds its handler in a message of its own; the port is text.
    let port = [&[1 << 3, 1, 2 << 3, 0][..], &field(3, b"http")].concat();
    let handler = field(2, &[field(1, b"/z"), field(2, &port)].concat());
    let probe = [&field(1, &handler)[..], &[2 << 3, 0, 3 << 3, 1]].concat();
    let container = [field(1, b"c"), field(10, &probe)].concat();
    let spec = [field(1, &volume), field(2, &container)].concat();
    let raw = [field(1, &field(1, b"p")), field(2, &spec)].concat();
    let value = decode_message(&raw, kind_schema("v1", "Pod").unwrap()).unwrap();
    assert_eq!(
        value["spec"]["volumes"],
        json!([{ "name": "v", "emptyDir": { "medium": "Memory", "sizeLimit": "1Gi" } }])
    );
    let probe = json!({ "httpGet": { "path": "/z", "port": "http" }, "timeoutSeconds": 1 });
    assert_eq!(value["spec"]["containers"][0]["livenessProbe"], probe);
}

#[test]
fn times_maps_bytes_and_raw_values_are_read() {
    // 2024-01-02T03:04:05Z, with nanoseconds that JSON does not show.
    let time = [&[1 << 3, 0xa5, 0xfa, 0xcd, 0xac, 0x6, 2 << 3][..], &[5]].concat();
    let label = [field(1, b"k"), field(2, b"v")].concat();
    let metadata = [field(1, b"s"), field(8, &time), field(11, &label)].concat();
    let data = [field(1, b"key"), field(2, &[0xff, 0])].concat();
    let raw = [field(1, &metadata), field(2, &data), field(3, b"Opaque")].concat();
    let value = decode_message(&raw, kind_schema("v1", "Secret").unwrap()).unwrap();
    let expected = json!({ "metadata": { "name": "s", "creationTimestamp": "2024-01-02T03:04:05Z", "labels": { "k": "v" } },
        "data": { "key": "/wA=" }, "type": "Opaque" });
    assert_eq!(value, expected);
    let revision = [field(1, b""), field(2, &field(1, br#"{"a":null}"#)), vec![3 << 3, 2]].concat();
    let value = decode_message(&revision, kind_schema("apps/v1", "ControllerRevision").unwrap()).unwrap();
    assert_eq!(value, json!({ "metadata": {}, "data": { "a": null }, "revision": 2 }));
}

#[test]
fn lists_in_wrappers_are_read_and_written() {
    let value = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {},
        "status": { "authenticated": true, "user": { "username": "u", "extra": { "k": ["a", "b"] } } } });
    let bytes = encode(&value).unwrap();
    assert_eq!(decode(&bytes).unwrap(), value);
    // extra: { key, value: { items, items } }
    let entry = [field(1, b"k"), field(2, &[field(1, b"a"), field(1, b"b")].concat())].concat();
    let user = [field(1, b"u"), field(4, &entry)].concat();
    assert!(bytes.windows(user.len()).any(|window| window == user), "an entry lies in its field, without a wrapper");
}

#[test]
fn objects_within_objects_may_be_protobuf_too() {
    let inner = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" }, "data": { "a": "b" } });
    let raw = field(2, &field(1, &encode(&inner).unwrap()));
    let list = decode(&body("v1", "List", &raw)).unwrap();
    assert_eq!(list["items"], json!([inner]));
}

#[test]
fn events_of_a_watch_have_their_length_before_them() {
    let object = encode(&json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {} })).unwrap();
    let frame = watch_event("ADDED", &object);
    let expected = [field(1, b"ADDED"), field(2, &field(1, &object))].concat();
    assert_eq!(frame[..4], u32::try_from(expected.len()).unwrap().to_be_bytes());
    assert_eq!(frame[4..], expected);
}

#[test]
fn the_envelope_tells_what_is_in_it() {
    let bytes = body("apps/v1", "Deployment", b"raw");
    let envelope = Envelope::read(&bytes).unwrap();
    assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str()), ("apps/v1", "Deployment"));
    assert_eq!(envelope.raw, b"raw");
    let delete = body("apps/v1", "DeleteOptions", &[1 << 3, 30, 4 << 3 | 2, 6, b'O', b'r', b'p', b'h', b'a', b'n']);
    let expected = json!({ "apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 30, "propagationPolicy": "Orphan" });
    assert_eq!(decode(&delete).unwrap(), expected);
}

#[test]
fn what_is_no_message_is_refused() {
    for bytes in [
        &b""[..],
        b"{}",
        b"k8s",
        b"k8s\0\x0a",
        b"k8s\0\x0a\x05v1",
        b"k8s\0\x00\x00",
        b"k8s\0\x0b",
        b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        assert!(matches!(decode(bytes), Err(DecodeError::Protobuf(_))), "{bytes:?}");
    }
    assert!(matches!(decode(&body("v1", "Nothing", b"")), Err(DecodeError::Protobuf(_))));
    assert!(matches!(decode(&body("example.org/v1", "Pod", b"")), Err(DecodeError::Protobuf(_))));
    // A number where a message belongs.
    assert!(decode(&body("v1", "Pod", &[1 << 3, 5])).is_err());
    // A schema in a schema in a schema, far too often.
    let deep = (0..20_000).fold(Vec::new(), |inner, _| {
        let mut out = Vec::with_capacity(inner.len() + 6);
        super::wire::put_message(&mut out, 28, |out| out.extend_from_slice(&inner));
        out
    });
    let schema = builtin().type_named("apiextensions.v1.JSONSchemaProps").unwrap();
    assert_eq!(decode_message(&deep, schema), Err(DecodeError::TooDeep));
}

/// Kinds beside the resources that bodies name.
const OTHERS: &[(&str, &str)] = &[
    ("v1", "Status"),
    ("v1", "DeleteOptions"),
    ("v1", "List"),
    ("policy/v1", "Eviction"),
    ("autoscaling/v1", "Scale"),
    ("authentication.k8s.io/v1", "TokenRequest"),
    ("meta.k8s.io/v1", "PartialObjectMetadata"),
    ("meta.k8s.io/v1", "PartialObjectMetadataList"),
];

fn kinds() -> Vec<(String, String)> {
    let own = resources().iter().flat_map(|resource| {
        let list = resource.verbs.contains(&"list").then(|| format!("{}List", resource.kind));
        [Some(resource.kind.to_owned()), list].into_iter().flatten().map(|kind| (resource.api_version(), kind))
    });
    own.chain(OTHERS.iter().map(|(version, kind)| ((*version).to_owned(), (*kind).to_owned()))).collect()
}

#[test]
fn every_kind_and_its_list_survive_the_way_there_and_back() {
    for (number, (api_version, kind)) in kinds().into_iter().enumerate() {
        let schema = kind_schema(&api_version, &kind).unwrap();
        for round in 0..8 {
            let value = object(schema, &api_version, &kind, &mut Dice(number as u64 * 8 + round));
            let bytes = encode(&value).unwrap_or_else(|| panic!("{api_version} {kind} has no message"));
            let decoded = decode(&bytes).unwrap();
            assert_eq!(decoded, value, "{api_version} {kind} {round}");
            let checked = check(value.clone(), schema).unwrap();
            assert_eq!(checked.strict, [], "{api_version} {kind}");
        }
    }
}

#[test]
fn every_field_of_a_kind_is_on_the_wire() {
    fn visit(schema: crate::schema::SchemaRef<'static>, seen: &mut std::collections::BTreeSet<String>) {
        let Some(name) = schema.type_name().filter(|name| seen.insert((*name).to_owned())) else {
            schema.item().or_else(|| schema.values()).into_iter().for_each(|inner| visit(inner, seen));
            return;
        };
        let mut probe = serde_json::Map::new();
        for property in schema.properties().filter(|property| !matches!(property.name, "apiVersion" | "kind")) {
            probe.insert(property.name.to_owned(), crate::schema::generate::value(property.schema, &mut Dice(1), 9));
            visit(property.schema, seen);
        }
        let bytes = encode_message(&Value::Object(probe.clone()), schema).unwrap();
        let decoded = super::decode::decode_message(&bytes, schema).unwrap();
        for property in schema.properties().filter(|property| probe.contains_key(property.name)) {
            let zero = matches!(&probe[property.name], Value::Null | Value::Bool(false))
                || matches!(&probe[property.name], Value::String(text) if text.is_empty())
                || matches!(&probe[property.name], Value::Object(map) if map.is_empty())
                || probe[property.name] == json!(0);
            assert!(zero || decoded.get(property.name).is_some(), "{name}.{}", property.name);
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    for resource in resources() {
        visit(builtin().type_named(resource.type_name).unwrap(), &mut seen);
    }
    assert!(seen.len() > 500, "{}", seen.len());
}

proptest! {
    #[test]
    fn any_object_survives_the_way_there_and_back(seed: u64) {
        let kinds = kinds();
        let (api_version, kind) = &kinds[usize::try_from(seed % kinds.len() as u64).unwrap()];
        let schema = kind_schema(api_version, kind).unwrap();
        let value = object(schema, api_version, kind, &mut Dice(seed));
        prop_assert_eq!(decode(&encode(&value).unwrap()).unwrap(), value);
    }

    #[test]
    fn no_bytes_break_it(raw: Vec<u8>, cut: usize, seed: u64) {
        decode(&raw).ok();
        decode(&body("v1", "Pod", &raw[..raw.len().min(100)])).ok();
        // Real messages with an error in them get further.
        let schema = kind_schema("v1", "Pod").unwrap();
        let mut bytes = encode_message(&object(schema, "v1", "Pod", &mut Dice(seed)), schema).unwrap();
        if !bytes.is_empty() {
            let at = cut % bytes.len();
            bytes[at] ^= 1 << (seed % 8);
            decode_message(&bytes, schema).ok();
            decode_message(&bytes[..at], schema).ok();
        }
    }
}
