//! The list of managers: who is on it, since when, and for how long.

use proptest::prelude::*;

use super::*;
use crate::patch::apply_merge_patch;

#[test]
fn every_write_is_tracked_from_creation() {
    let versions = built_in("v1", "core.v1.ConfigMap");
    let mut bench = Bench::new(&versions);
    bench.update("curl", json!({"metadata": {"labels": {"a": "1"}}, "data": {"x": "1", "y": "2"}}));
    assert_eq!(
        bench.live["metadata"]["managedFields"],
        json!([{
            "manager": "curl",
            "operation": "Update",
            "apiVersion": "v1",
            "time": "1970-01-01T00:00:01Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:data": {".": {}, "f:x": {}, "f:y": {}},
                "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            },
        }])
    );
    bench.update("kubectl-edit", json!({"data": {"x": "9", "y": null}}));
    assert_eq!(bench.fields("kubectl-edit"), json!({"f:data": {"f:x": {}}}));
    assert_eq!(bench.fields("curl"), json!({"f:data": {}, "f:metadata": {"f:labels": {".": {}, "f:a": {}}}}));
}

#[test]
fn a_created_deployment_is_owned_as_upstream_owns_it() {
    let versions = built_in("apps/v1", "apps.v1.Deployment");
    let mut bench = Bench::new(&versions);
    bench.ignored = Set::of([vec![PathElement::field("status")]]);
    let labels = json!({"labels": {"app": "web"}});
    let container = json!({"name": "web", "image": "nginx", "imagePullPolicy": "Always", "resources": {}});
    bench.update(
        "kubectl-create",
        json!({
            "metadata": labels,
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "template": {
                    "metadata": labels,
                    "spec": {"containers": [container], "dnsPolicy": "ClusterFirst", "securityContext": {}},
                },
            },
            "status": {},
        }),
    );
    let labels = json!({"f:labels": {".": {}, "f:app": {}}});
    assert_eq!(
        bench.fields("kubectl-create"),
        json!({
            "f:metadata": labels,
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
                "f:template": {
                    "f:metadata": labels,
                    "f:spec": {
                        "f:containers": {"k:{\"name\":\"web\"}": {
                            ".": {},
                            "f:image": {},
                            "f:imagePullPolicy": {},
                            "f:name": {},
                            "f:resources": {},
                        }},
                        "f:dnsPolicy": {},
                        "f:securityContext": {},
                    },
                },
            },
        })
    );
}

#[test]
fn a_time_changes_with_its_fields_only() {
    let versions = built_in("v1", "core.v1.ConfigMap");
    let mut bench = Bench::new(&versions);
    bench.apply("one", json!({"data": {"x": "1"}}));
    bench.update("two", json!({"data": {"y": "1"}}));
    let times = |bench: &Bench<'_>| {
        let time = |manager: &str| bench.entry(manager)["time"].as_str().unwrap()[17..19].to_owned();
        (time("one"), time("two"))
    };
    assert_eq!(times(&bench), ("01".to_owned(), "02".to_owned()));
    bench.apply("one", json!({"data": {"x": "1"}}));
    bench.update("two", json!({"data": {"y": "1"}}));
    assert_eq!(times(&bench), ("01".to_owned(), "02".to_owned()));
    bench.apply("one", json!({"data": {"x": "2"}}));
    bench.update("two", json!({"data": {"y": "2"}}));
    assert_eq!(times(&bench), ("05".to_owned(), "06".to_owned()));
}

#[test]
fn what_changed_nothing_but_a_time_changed_nothing() {
    let versions = built_in("v1", "core.v1.ConfigMap");
    let mut bench = Bench::new(&versions);
    bench.apply("one", json!({"data": {"x": "1"}}));
    let live = bench.live.clone();
    // As if the server had brought `1000m` and `1` into one form after the apply.
    let mut new = live.clone();
    new["metadata"]["managedFields"][0]["time"] = json!("2030-01-01T00:00:00Z");
    assert_eq!(keep_times(&live, new.clone()), live);
    new["data"]["x"] = json!("2");
    assert_eq!(keep_times(&live, new.clone()), new);
    new["data"]["x"] = json!("1");
    new["metadata"]["managedFields"][0]["manager"] = json!("two");
    assert_eq!(keep_times(&live, new.clone()), new);
    new["metadata"]["managedFields"] = json!([7]);
    assert_eq!(keep_times(&live, new.clone()), new);
}

#[test]
fn managers_of_a_deep_object_are_no_deeper_than_the_decoder_reads() {
    let arena = thing();
    let versions = OneVersion { api_version: "example.com/v1", schema: arena.root() };
    let mut bench = Bench::new(&versions);
    let deep = (0..crate::decode::DEPTH_MAX - 3).fold(json!({}), |below, _| json!({"a": below}));
    bench.update("one", json!({"spec": {"free": deep}}));
    let bytes = bench.live.to_string().into_bytes();
    let read = crate::decode::json(&bytes, Some(arena.root()));
    assert!(read.is_ok(), "{:?}", read.err());
    assert!(!bench.managers().is_empty());
}

#[test]
fn names_and_what_the_server_sets_have_no_owner() {
    let versions = built_in("v1", "core.v1.ConfigMap");
    let mut bench = Bench::new(&versions);
    let metadata = json!({"name": "x", "namespace": "ns", "uid": "u", "generation": 1, "creationTimestamp": null,
        "resourceVersion": "7", "selfLink": "/"});
    bench.update("one", json!({"metadata": metadata}));
    assert_eq!(bench.live["metadata"].get("managedFields"), None);
}

#[test]
fn the_first_apply_gives_what_was_there_to_before_first_apply() {
    let versions = built_in("v1", "core.v1.ConfigMap");
    let mut bench = Bench::new(&versions);
    bench.live =
        json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x", "uid": "u"}, "data": {"x": "1"}});
    bench.update("somebody", json!({"data": {"y": "1"}}));
    assert_eq!(bench.live["metadata"].get("managedFields"), None, "an untracked object stays untracked");
    let error = bench.try_apply("one", json!({"data": {"x": "2"}}), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.x"
    );
    bench.apply("one", json!({"data": {"z": "1"}}));
    assert_eq!(bench.fields("before-first-apply"), json!({"f:data": {".": {}, "f:x": {}, "f:y": {}}}));
    assert_eq!(bench.fields("one"), json!({"f:data": {"f:z": {}}}));
}

#[test]
fn an_empty_list_makes_an_object_forget() {
    let versions = built_in("v1", "core.v1.ConfigMap");
    for reset in [json!([]), json!([{}])] {
        let mut bench = Bench::new(&versions);
        bench.apply("one", json!({"data": {"x": "1"}}));
        bench.update("two", json!({"metadata": {"managedFields": reset}}));
        assert_eq!(bench.live["metadata"].get("managedFields"), None);
        bench.update("two", json!({"data": {"x": "2"}}));
        assert_eq!(bench.live["metadata"].get("managedFields"), None);
    }
}

#[test]
fn a_writer_may_send_managers_and_may_not_lose_them_by_accident() {
    let versions = built_in("v1", "core.v1.ConfigMap");
    let mut bench = Bench::new(&versions);
    bench.apply("one", json!({"data": {"x": "1"}}));
    let list = bench.live["metadata"]["managedFields"].clone();
    for broken in [json!(null), json!([{"operation": "Dance"}]), json!("x"), json!([7])] {
        let new = apply_merge_patch(bench.live.clone(), json!({"metadata": {"managedFields": broken}})).unwrap();
        bench.put("two", new);
        assert_eq!(bench.live["metadata"]["managedFields"], list);
    }
    let mut renamed = bench.live.clone();
    renamed["metadata"]["managedFields"][0]["manager"] = json!("other");
    bench.put("two", renamed.clone());
    assert_eq!(bench.fields("other"), json!({"f:data": {"f:x": {}}}));
    assert_eq!(bench.fields("one"), Value::Null);
}

#[test]
fn a_wrong_list_of_managers_names_each_field() {
    let list = json!([
        {"manager": "one", "operation": "Apply", "fieldsType": "FieldsV1"},
        {"manager": "one\n", "operation": "Dance", "fieldsType": "FieldsV2"},
        {"manager": "m".repeat(129), "operation": "Update", "subresource": "s".repeat(257)},
    ]);
    let errors = check_managed_fields(&list, &crate::status::field::Path::new("metadata").child("managedFields"));
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "metadata.managedFields[1].operation: Invalid value: \"Dance\": must be `Apply` or `Update`",
            "metadata.managedFields[1].fieldsType: Invalid value: \"FieldsV2\": must be `FieldsV1`",
            "metadata.managedFields[1].manager: Invalid value: \"one\\n\": invalid character U+000A (at position 3)",
            "metadata.managedFields[2].manager: Too long: may not be more than 128 bytes",
            "metadata.managedFields[2].subresource: Too long: may not be more than 256 bytes",
        ]
    );
}

#[test]
fn a_subresource_has_managers_of_its_own_and_sends_none() {
    let versions = built_in("apps/v1", "apps.v1.Deployment");
    let mut bench = Bench::new(&versions);
    bench.ignored = Set::of([vec![PathElement::field("status")]]);
    bench.update("kubectl", json!({"spec": {"replicas": 1}, "status": {"replicas": 5}}));
    assert_eq!(bench.fields("kubectl"), json!({"f:spec": {"f:replicas": {}}}), "status is not written here");

    let ignored = Set::of([vec![PathElement::field("spec")]]);
    let status = Tracker { versions: &versions, api_version: "apps/v1", subresource: "status", ignored: &ignored };
    let mut new = bench.live.clone();
    new["status"] = json!({"replicas": 1, "readyReplicas": 1});
    new["spec"]["replicas"] = json!(2);
    new["metadata"]["managedFields"] = json!([]);
    let new = status.update(&bench.live, new, "controller", at(9));
    let managers = Managers::decode(new["metadata"].get("managedFields")).unwrap();
    let subresources: Vec<(&str, &str)> =
        managers.iter().map(|(manager, _)| (manager.name.as_str(), manager.subresource.as_str())).collect();
    assert_eq!(subresources, [("controller", "status"), ("kubectl", "")]);
    let (_, entry) = managers.iter().next().unwrap();
    assert_eq!(entry.set.to_fields(), json!({"f:status": {"f:readyReplicas": {}, "f:replicas": {}}}));

    let config =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "status": {"replicas": 3}});
    let error = status.apply(&new, &config, "one", false, at(10)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"controller\" with subresource \"status\" using apps/v1: \
         .status.replicas"
    );
}

#[test]
fn old_updates_are_put_together_when_there_are_many() {
    let versions = built_in("v1", "core.v1.ConfigMap");
    let mut bench = Bench::new(&versions);
    for index in 0..UPDATE_ENTRIES_MAX {
        bench.update(&format!("manager-{index}"), json!({"data": {format!("k{index}"): "1"}}));
    }
    assert_eq!(bench.managers().iter().count(), UPDATE_ENTRIES_MAX);
    assert_eq!(bench.fields("ancient-changes"), Value::Null);
    bench.update("one-more", json!({"data": {"k": "1"}}));
    assert_eq!(bench.managers().iter().count(), UPDATE_ENTRIES_MAX);
    assert_eq!(bench.fields("ancient-changes"), json!({"f:data": {".": {}, "f:k0": {}, "f:k1": {}}}));
    assert_eq!(bench.entry("ancient-changes")["time"], "1970-01-01T00:00:02Z");
    bench.update("yet-another", json!({"data": {"l": "1"}}));
    assert_eq!(bench.fields("ancient-changes"), json!({"f:data": {".": {}, "f:k0": {}, "f:k1": {}, "f:k2": {}}}));
    for index in 0..30 {
        bench.apply(&format!("applier-{index}"), json!({"data": {format!("a{index}"): "1"}}));
    }
    assert_eq!(bench.managers().iter().count(), UPDATE_ENTRIES_MAX + 30, "appliers are not put together");
}

#[test]
fn kubectl_does_not_conflict_with_its_own_past() {
    let versions = built_in("v1", "core.v1.ConfigMap");
    let mut bench = Bench::new(&versions);
    let past = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"x": "1"}});
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    bench.update(
        "kubectl-client-side-apply",
        json!({"metadata": {"annotations": {annotation: format!("{past}\n")}}, "data": {"x": "1", "y": "1"}}),
    );
    assert!(bench.try_apply("other", json!({"data": {"x": "2"}}), false).is_err());
    bench.apply("kubectl", json!({"data": {"x": "2"}}));
    assert_eq!(bench.live["data"], json!({"x": "2", "y": "1"}));
    let kept = bench.live["metadata"]["annotations"][annotation].as_str().unwrap().to_owned();
    assert!(kept.ends_with("\"name\":\"x\"}}\n") && kept.contains(r#""data":{"x":"2"}"#), "{kept}");
    let error = bench.try_apply("kubectl", json!({"data": {"x": "2", "y": "2"}}), false).unwrap_err();
    assert!(error.to_string().ends_with(": .data.y"), "{error}");
}

#[test]
fn what_has_become_atomic_is_owned_as_a_whole() {
    let versions = built_in("v1", "core.v1.Service");
    let mut bench = Bench::new(&versions);
    bench.apply("one", json!({"spec": {"selector": {"app": "web"}}}));
    // As an older schema would have written it.
    let older = json!({"f:spec": {"f:selector": {"f:app": {}}}});
    bench.live["metadata"]["managedFields"][0]["fieldsV1"] = older;
    let error = bench.try_apply("two", json!({"spec": {"selector": {"app": "api"}}}), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.selector");
    bench.apply("one", json!({"spec": {"selector": {"tier": "x"}}}));
    assert_eq!(bench.live["spec"]["selector"], json!({"tier": "x"}));
    assert_eq!(bench.fields("one"), json!({"f:spec": {"f:selector": {}}}));
}

/// A kind of which `v2` calls `spec.old` `spec.new`, and `v0` is gone.
struct Renaming {
    v1: Arena,
    v2: Arena,
}

impl Renaming {
    fn new() -> Self {
        let version = |name: &str| {
            let properties = json!({name: {"type": "string"}, "size": {"type": "integer"}});
            let spec = json!({"type": "object", "properties": properties});
            structural(&json!({"type": "object", "properties": {"spec": spec}})).unwrap()
        };
        Self { v1: version("old"), v2: version("new") }
    }
}

impl Versions for Renaming {
    fn schema(&self, api_version: &str) -> Option<SchemaRef<'_>> {
        match api_version {
            "e.com/v1" => Some(self.v1.root()),
            "e.com/v2" => Some(self.v2.root()),
            _ => None,
        }
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Result<Value, String> {
        let names = match (from, to) {
            ("e.com/v1", "e.com/v2") => ("old", "new"),
            ("e.com/v2", "e.com/v1") => ("new", "old"),
            _ => return Err(format!("no way from {from} to {to}")),
        };
        let mut object = object.clone();
        object["apiVersion"] = json!(to);
        if let Some(value) = object.get_mut("spec").and_then(Value::as_object_mut).and_then(|spec| spec.remove(names.0))
        {
            object["spec"][names.1] = value;
        }
        Ok(object)
    }
}

#[test]
fn managers_of_other_versions_own_the_same_fields_by_other_names() {
    let versions = Renaming::new();
    let none = Set::default();
    let v1 = Tracker { versions: &versions, api_version: "e.com/v1", subresource: "", ignored: &none };
    let v2 = Tracker { versions: &versions, api_version: "e.com/v2", subresource: "", ignored: &none };
    let config = |version: &str, spec: Value| json!({"apiVersion": version, "kind": "Thing", "metadata": {"name": "x"}, "spec": spec});
    let mut live =
        v1.apply(&json!({}), &config("e.com/v1", json!({"old": "a", "size": 1})), "one", false, at(1)).unwrap();
    live["metadata"]["uid"] = json!("u");
    let mut live = versions.convert(&live, "e.com/v1", "e.com/v2").unwrap();
    let error = v2.apply(&live, &config("e.com/v2", json!({"new": "b"})), "two", false, at(2)).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.old");

    // The same manager goes on in the other version: what it no longer says goes under either name.
    live = v2.apply(&live, &config("e.com/v2", json!({"size": 2})), "one", false, at(3)).unwrap();
    assert_eq!(live["spec"], json!({"size": 2}));
    assert_eq!(live["metadata"]["managedFields"].as_array().unwrap().len(), 1, "an applier is one over all versions");
    assert_eq!(live["metadata"]["managedFields"][0]["apiVersion"], "e.com/v2");

    // A manager of a version that is gone is forgotten.
    live["metadata"]["managedFields"][0]["apiVersion"] = json!("e.com/v0");
    let live = v2.apply(&live, &config("e.com/v2", json!({"size": 3})), "two", false, at(4)).unwrap();
    let managers = Managers::decode(live["metadata"].get("managedFields")).unwrap();
    assert_eq!(managers.iter().map(|(manager, _)| manager.name.as_str()).collect::<Vec<_>>(), ["two"]);
}

#[test]
fn a_write_never_fails_over_bookkeeping() {
    let versions = Renaming::new();
    let none = Set::default();
    let tracker = Tracker { versions: &versions, api_version: "e.com/v2", subresource: "", ignored: &none };
    for new in [json!(7), json!({}), json!({"metadata": 7}), json!({"metadata": {"managedFields": 7}})] {
        let kept = tracker.update(&json!({}), new.clone(), "one", at(1));
        assert_eq!(kept.get("spec"), None, "{new}");
    }
}

/// Trees with names that mean something to apply.
fn any_value() -> impl Strategy<Value = Value> {
    let names = vec![
        "metadata",
        "spec",
        "status",
        "managedFields",
        "annotations",
        "labels",
        "uid",
        "apiVersion",
        "operation",
        "fieldsType",
        "fieldsV1",
        "manager",
        "time",
        "f:spec",
        "f:l",
        "k:{\"k\":\"i\"}",
        "v:\"p\"",
        ".",
        "a",
        "s",
        "m",
        "l",
        "t",
        "k",
        "free",
        "whole",
        "atoms",
    ];
    let words = vec!["Apply", "Update", "FieldsV1", "example.com/v1", "i", "p", "u", "2024-01-01T00:00:00Z", ""];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..3).prop_map(Value::from),
        prop::sample::select(words).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        let named = prop::collection::btree_map(prop::sample::select(names.clone()), inner.clone(), 0..7);
        prop_oneof![
            1 => prop::collection::vec(inner, 0..4).prop_map(Value::from),
            3 => named.prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn no_object_upsets_the_tracker(live in any_value(), new in any_value(), config in any_value(), managed in any_value()) {
        let arena = thing();
        let versions = OneVersion { api_version: "example.com/v1", schema: arena.root() };
        let bench = Bench::new(&versions);
        let tracker = bench.tracker();
        let _updated = tracker.update(&live, new.clone(), "one", at(1));
        let _kept = keep_times(&live, new.clone());
        for mut live in [live, new] {
            if let Some(metadata) = live.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.insert("managedFields".to_owned(), json!([managed]));
            }
            let mut config = config.clone();
            if let Some(config) = config.as_object_mut() {
                config.insert("apiVersion".to_owned(), json!("example.com/v1"));
            }
            let _applied = tracker.apply(&live, &config, "kubectl", true, at(2));
            let config = bench.object(&json!({"spec": {"l": [{"k": "i"}], "s": {"b": "1"}, "free": managed.clone()}}));
            if let Ok(applied) = tracker.apply(&live, &config, "kubectl", true, at(2)) {
                prop_assert_eq!(tracker.apply(&applied, &config, "kubectl", false, at(3)), Ok(applied));
            }
        }
    }
}
