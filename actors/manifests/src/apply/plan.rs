//! What there is to do for the objects of one kind: pure.

use std::collections::BTreeMap;

use k3sd_objects::decode;
use k3sd_objects::default;
use k3sd_objects::patch::{apply_merge_patch, apply_strategic_patch};
use k3sd_objects::read::{field, text};
use k3sd_objects::schema::{SchemaRef, kind_schema};
use serde_json::{Map, Value};

use super::applied::{ANNOTATION, pack, remembered, unpack};
use super::diff;
use super::owner::{PRUNE, part};
use crate::api::{Gvk, Key, PatchType};

/// Groups whose kinds get merge patches although they are built in: client-go's table, which decides it, hasn't got them.
const MERGED_GROUPS: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];

/// What to do with one object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Create(Value),
    Patch(PatchType, Value),
    Delete,
}

/// What to do with each object, in the order in which it is to be done: create, change, delete; each in the order of
/// keys. `wanted` is marked already. Nothing is deleted unless `prunes` says that it may.
pub(super) fn actions(
    gvk: &Gvk,
    wanted: &BTreeMap<Key, Value>,
    existing: &BTreeMap<Key, Value>,
    prunes: impl Fn(&Key) -> bool,
) -> Vec<(Key, Action)> {
    let new = wanted.iter().filter(|(key, _)| !existing.contains_key(key));
    let created = new.map(|(key, object)| (key.clone(), Action::Create(annotated(object, None))));
    let both = wanted.iter().filter_map(|(key, object)| Some((key, object, existing.get(key)?)));
    let changed = both.filter_map(|(key, object, is)| Some((key.clone(), change(gvk, object, is)?)));
    let gone = existing.iter().filter(|(key, object)| !wanted.contains_key(key) && is_pruned(object) && prunes(key));
    let deleted = gone.map(|(key, _)| (key.clone(), Action::Delete));
    created.chain(changed).chain(deleted).collect()
}

fn is_pruned(object: &Value) -> bool {
    text(field(field(object, "metadata"), "labels"), PRUNE) != "false"
}

/// An object with the annotation that remembers it; if `known` remembers the same, that one.
fn annotated(object: &Value, known: Option<&str>) -> Value {
    let remembered = remembered(object);
    let same = known.filter(|known| unpack(known).as_ref() == Some(&remembered));
    let annotation = same.map_or_else(|| pack(&remembered), str::to_owned);
    let mut object = object.clone();
    if let Some(annotations) = part(&mut object, "annotations") {
        annotations.insert(ANNOTATION.to_owned(), annotation.into());
    }
    object
}

/// What has to change in an object that is there; nothing if a request wouldn't change anything.
pub(super) fn change(gvk: &Gvk, wanted: &Value, is: &Value) -> Option<Action> {
    let known = field(field(is, "metadata"), "annotations").get(ANNOTATION).and_then(Value::as_str);
    let original = known.and_then(unpack).unwrap_or_default();
    let (form, patch) = compare(gvk, &original, &annotated(wanted, known), is)?;
    Some(Action::Patch(form, patch))
}

/// What has to change in an object that nobody's annotation remembers; what others wrote stays.
pub(crate) fn difference(gvk: &Gvk, wanted: &Value, is: &Value) -> Option<(PatchType, Value)> {
    compare(gvk, &Value::Null, wanted, is)
}

fn compare(gvk: &Gvk, original: &Value, wanted: &Value, is: &Value) -> Option<(PatchType, Value)> {
    let builtin = kind_schema(&gvk.api_version(), &gvk.kind);
    let strategic = builtin.filter(|_| !MERGED_GROUPS.contains(&gvk.group.as_str()));
    let patch = sanitized(diff::patch(original, wanted, is, strategic))?;
    let form = if strategic.is_some() { PatchType::Strategic } else { PatchType::Merge };
    if outcome(is, &patch, strategic, builtin).as_ref() == Some(is) {
        return None;
    }
    Some((form, patch))
}

/// A patch without what isn't to be changed by it; nothing if nothing is left.
fn sanitized(mut patch: Map<String, Value>) -> Option<Value> {
    for name in ["kind", "apiVersion", "status"] {
        patch.remove(name);
    }
    if let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
        if metadata.get("annotations").and_then(Value::as_object).is_some_and(Map::is_empty) {
            metadata.remove("annotations");
        }
        if metadata.is_empty() {
            patch.remove("metadata");
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// What the API would make of a patch, as far as it can be told here; `None` if it would refuse it.
fn outcome(
    is: &Value,
    patch: &Value,
    strategic: Option<SchemaRef<'_>>,
    builtin: Option<SchemaRef<'_>>,
) -> Option<Value> {
    let patched = match strategic {
        Some(schema) => apply_strategic_patch(is.clone(), patch.clone(), schema),
        None => apply_merge_patch(is.clone(), patch.clone()),
    };
    let mut patched = patched.ok()?;
    let Some(schema) = builtin else { return Some(patched) };
    if text(&patched, "kind") == "Secret" {
        encode_texts(&mut patched);
    }
    let mut patched = decode::check(patched, schema).ok()?.value;
    default::apply(&mut patched, schema);
    Some(patched)
}

/// A Secret's `stringData` becomes `data`, as the API does it.
fn encode_texts(secret: &mut Value) {
    use base64::Engine as _;

    let Some(secret) = secret.as_object_mut() else { return };
    let Some(Value::Object(texts)) = secret.remove("stringData") else { return };
    let data = secret.entry("data").or_insert_with(|| Value::Object(Map::new()));
    let Some(data) = data.as_object_mut() else { return };
    for (name, value) in texts {
        let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
        data.insert(name, encoded.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(name: &str) -> Key {
        Key::new("default", name)
    }

    fn map(name: &str, data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data})
    }

    fn gvk() -> Gvk {
        Gvk::new("v1", "ConfigMap")
    }

    /// The object as the API has it after it was made.
    fn made(object: &Value) -> Value {
        let mut object = annotated(object, None);
        object["metadata"]["uid"] = "u".into();
        object
    }

    #[test]
    fn objects_are_created_changed_and_deleted_in_order() {
        let wanted = BTreeMap::from([
            (key("new"), map("new", json!({"a": "1"}))),
            (key("same"), map("same", json!({"a": "1"}))),
            (key("other"), map("other", json!({"a": "2"}))),
        ]);
        let mut kept = made(&map("kept", json!({})));
        kept["metadata"]["labels"] = json!({ (PRUNE): "false" });
        let existing = BTreeMap::from([
            (key("same"), made(&map("same", json!({"a": "1"})))),
            (key("other"), made(&map("other", json!({"a": "1", "b": "2"})))),
            (key("gone"), made(&map("gone", json!({})))),
            (key("kept"), kept),
        ]);
        let done = actions(&gvk(), &wanted, &existing, |_| true);
        let names: Vec<&str> = done.iter().map(|(key, _)| key.name.as_str()).collect();
        assert_eq!(names, ["new", "other", "gone"]);
        let Action::Patch(PatchType::Strategic, patch) = &done[1].1 else { panic!("{:?}", done[1]) };
        assert_eq!(patch["data"], json!({"a": "2", "b": null}));
        assert!(patch["metadata"]["annotations"][ANNOTATION].is_string());
        assert_eq!(done[2].1, Action::Delete);
        assert_eq!(actions(&gvk(), &wanted, &existing, |_| false).len(), 2);
    }

    #[test]
    fn an_annotation_that_somebody_else_packed_is_no_change() {
        let object = map("a", json!({"a": "1"}));
        let mut is = made(&object);
        is["metadata"]["annotations"][ANNOTATION] = remembered(&object).to_string().into();
        assert_eq!(change(&gvk(), &object, &is), None);
        is["metadata"]["annotations"][ANNOTATION] = "broken".into();
        assert!(change(&gvk(), &object, &is).is_some());
    }

    #[test]
    fn what_the_api_writes_in_another_way_is_no_change() {
        let pod = |cpu: Value, more: Value| {
            let mut container = json!({"name": "c", "image": "i:1", "resources": {"requests": {"cpu": cpu}}});
            container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
                "spec": {"containers": [container]}})
        };
        let gvk = Gvk::new("v1", "Pod");
        let wanted = pod(json!(0.5), json!({"stdin": false, "args": null}));
        let mut is = made(&wanted);
        is["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "500m".into();
        let schema = kind_schema("v1", "Pod").unwrap();
        default::apply(&mut is, schema);
        assert_eq!(change(&gvk, &wanted, &is), None);
        assert!(change(&gvk, &pod(json!("1"), json!({})), &is).is_some());

        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}});
        let mut is = made(&secret);
        is.as_object_mut().unwrap().remove("stringData");
        is["data"] = json!({"a": "Yg=="});
        is["type"] = "Opaque".into();
        assert_eq!(change(&Gvk::new("v1", "Secret"), &secret, &is), None);
    }

    #[test]
    fn kinds_that_client_go_does_not_know_get_merge_patches() {
        for (api_version, kind, form) in [
            ("example.org/v1", "Thing", PatchType::Merge),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition", PatchType::Merge),
            ("apps/v1", "Deployment", PatchType::Strategic),
        ] {
            let object = |value: &str| json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a", "labels": {"a": value}}});
            let gvk = Gvk::new(api_version, kind);
            match change(&gvk, &object("2"), &made(&object("1"))) {
                Some(Action::Patch(found, _)) => assert_eq!(found, form, "{kind}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn status_and_the_like_are_not_changed() {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "creationTimestamp": null},
            "status": {"phase": "Running"}});
        let mut is = made(&object);
        is["metadata"]["creationTimestamp"] = "2030-01-01T00:00:00Z".into();
        is["status"] = json!({"phase": "Pending"});
        assert_eq!(change(&Gvk::new("v1", "Pod"), &object, &is), None);
    }
}
