//! Tables of rules: a valid object, one change, and the exact errors.

mod autoscaling;
mod certificates;
mod cluster;
mod data;
mod devices;
mod discovery;
mod drivers;
mod flow;
mod hooks;
mod job_status;
mod jobs;
mod limits;
mod metadata;
mod networking;
mod nodes;
mod permissions;
mod pods;
mod robust;
mod services;
mod statuses;
mod storage;
mod volumes;
mod workloads;

use k3sd_objects::status::field::Error;
use serde_json::{Value, json};

use super::{Context, Subresource, create, subresource, update};

/// A minimal valid object of each kind that has rules.
fn examples() -> Vec<((&'static str, &'static str), Value)> {
    let metadata = json!({"name": "x", "namespace": "ns"});
    let mut examples = vec![
        (("", "Pod"), pods::pod()),
        (("", "PodTemplate"), json!({"metadata": metadata, "template": pods::pod()})),
        (("", "Binding"), json!({"metadata": metadata, "target": {"kind": "Node", "name": "n"}})),
        (("", "ConfigMap"), json!({"metadata": metadata, "data": {"k": "v"}})),
        (("", "Secret"), json!({"metadata": metadata, "type": "Opaque", "data": {"k": "dg=="}})),
    ];
    examples.extend(workloads::examples());
    examples.extend(jobs::examples());
    examples.extend(autoscaling::examples());
    examples.extend(certificates::examples());
    examples.extend(networking::examples());
    examples.push((("discovery.k8s.io", "EndpointSlice"), discovery::slice()));
    examples.push((("storage.k8s.io", "StorageClass"), storage::class()));
    examples.push((("", "Service"), services::service()));
    examples.extend(permissions::examples());
    examples.extend(cluster::examples());
    examples.extend(drivers::examples());
    examples.extend(nodes::examples());
    examples.extend(volumes::examples());
    examples.extend(limits::examples());
    examples.extend(hooks::examples());
    examples.extend(flow::examples());
    examples.extend(devices::examples());
    examples
}

/// The object with a value put at a JSON pointer; null takes away. A missing last step is made.
fn with(object: &Value, pointer: &str, value: Value) -> Value {
    let mut object = object.clone();
    let (parent, last) = pointer.rsplit_once('/').expect("a pointer has a slash");
    let last = last.replace("~1", "/").replace("~0", "~");
    match object.pointer_mut(parent).unwrap_or_else(|| panic!("{parent} is there")) {
        Value::Object(fields) if value.is_null() => {
            fields.remove(&last);
        }
        Value::Object(fields) => {
            fields.insert(last, value);
        }
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => items[last.parse::<usize>().expect("an index")] = value,
        other => panic!("nothing can be put into {other}"),
    }
    object
}

fn texts(errors: &[Error]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Each row: where, what to put there, what is then wrong.
type Rows<'a> = &'a [(&'a str, Value, &'a [&'a str])];

fn check_creates(kind: (&str, &str), object: &Value, rows: Rows<'_>) {
    for (pointer, value, expected) in rows {
        let changed = with(object, pointer, value.clone());
        let errors = create(kind, &changed, &Context::default());
        assert_eq!(texts(&errors), *expected, "{kind:?} with {pointer} = {value}");
    }
}

fn check_updates(kind: (&str, &str), old: &Value, rows: Rows<'_>) {
    for (pointer, value, expected) in rows {
        let changed = with(old, pointer, value.clone());
        let errors = update(kind, &changed, old, &Context::default());
        assert_eq!(texts(&errors), *expected, "{kind:?} with {pointer} = {value}");
    }
}

#[test]
fn every_minimal_object_is_valid_and_may_stay_as_it_is() {
    for (kind, object) in examples() {
        assert_eq!(texts(&create(kind, &object, &Context::default())), [""; 0], "{kind:?}");
        assert_eq!(texts(&update(kind, &object, &object, &Context::default())), [""; 0], "{kind:?}");
    }
}

#[test]
fn every_kind_with_rules_has_an_example() {
    let mut known: Vec<_> = super::kinds::KINDS.iter().map(|rules| (rules.group, rules.kind)).collect();
    let mut shown: Vec<_> = examples().into_iter().map(|(kind, _)| kind).collect();
    known.sort_unstable();
    shown.sort_unstable();
    assert_eq!(known, shown);
}
