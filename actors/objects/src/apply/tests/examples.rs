//! Merging, pruning and conflicts, by example, with built-in kinds where everybody knows the outcome.

use super::*;

fn containers(containers: Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": containers}}}})
}

#[test]
fn an_applied_deployment_is_owned_field_by_field() {
    let versions = built_in("apps/v1", "apps.v1.Deployment");
    let mut bench = Bench::new(&versions);
    bench.apply(
        "kubectl",
        json!({
            "metadata": {"labels": {"app": "web"}, "finalizers": ["a/b"]},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"spec": {
                    "containers": [{
                        "name": "web",
                        "image": "nginx",
                        "args": ["a", "b"],
                        "ports": [{"containerPort": 80}],
                        "resources": {},
                    }],
                    "nodeSelector": {"disk": "fast"},
                }},
            },
        }),
    );
    assert_eq!(
        bench.fields("kubectl"),
        json!({
            "f:metadata": {"f:finalizers": {"v:\"a/b\"": {}}, "f:labels": {"f:app": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:template": {"f:spec": {
                    "f:containers": {"k:{\"name\":\"web\"}": {
                        ".": {},
                        "f:args": {},
                        "f:image": {},
                        "f:name": {},
                        "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                        "f:resources": {},
                    }},
                    "f:nodeSelector": {},
                }},
            },
        })
    );
}

#[test]
fn conflicts_name_owner_version_and_field() {
    let versions = built_in("apps/v1", "apps.v1.Deployment");
    let mut bench = Bench::new(&versions);
    bench.apply("one", json!({"spec": {"replicas": 1}}));
    let error = bench.try_apply("two", json!({"spec": {"replicas": 2}}), false).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    bench.update("kubectl-scale", json!({"spec": {"replicas": 3}}));
    assert_eq!(bench.fields("one"), Value::Null, "the last field is taken, and the manager gone");
    let error = bench.try_apply("one", json!({"spec": {"replicas": 1}}), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-scale\" using apps/v1: .spec.replicas"
    );
    let status = error.status();
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        status.to_value()["details"],
        json!({"causes": [{
            "reason": "FieldManagerConflict",
            "message": "conflict with \"kubectl-scale\" using apps/v1",
            "field": ".spec.replicas",
        }]})
    );
    bench.force("one", json!({"spec": {"replicas": 1}}));
    assert_eq!(bench.live["spec"]["replicas"], 1);
    assert_eq!(bench.fields("kubectl-scale"), Value::Null);
}

#[test]
fn many_conflicts_are_grouped_by_manager() {
    let versions = built_in("apps/v1", "apps.v1.Deployment");
    let mut bench = Bench::new(&versions);
    bench.update("b", json!({"spec": {"replicas": 1, "paused": true}}));
    bench.apply("a", containers(json!([{"name": "web", "image": "1"}])));
    let mut config = containers(json!([{"name": "web", "image": "2"}]));
    config["spec"]["replicas"] = json!(2);
    config["spec"]["paused"] = json!(false);
    let error = bench.try_apply("c", config, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 3 conflicts: conflicts with \"a\":\n\
         - .spec.template.spec.containers[name=\"web\"].image\n\
         conflicts with \"b\" using apps/v1:\n- .spec.paused\n- .spec.replicas"
    );
}

#[test]
fn equal_values_are_shared_without_conflict() {
    let versions = built_in("apps/v1", "apps.v1.Deployment");
    let mut bench = Bench::new(&versions);
    bench.apply("one", json!({"spec": {"replicas": 1, "paused": true}}));
    bench.apply("two", json!({"spec": {"replicas": 1}}));
    assert_eq!(bench.fields("two"), json!({"f:spec": {"f:replicas": {}}}));
    bench.apply("one", json!({"spec": {"paused": true}}));
    assert_eq!(bench.live["spec"], json!({"paused": true, "replicas": 1}), "the other one still wants it");
    bench.apply("two", json!({"metadata": {"labels": {"a": "b"}}}));
    assert_eq!(bench.live["spec"], json!({"paused": true}), "nobody wants it any more");
}

#[test]
fn what_an_applier_no_longer_says_goes() {
    let versions = built_in("apps/v1", "apps.v1.Deployment");
    let mut bench = Bench::new(&versions);
    bench.apply("one", containers(json!([{"name": "a", "image": "1", "tty": true}, {"name": "b", "image": "1"}])));
    bench.apply("two", containers(json!([{"name": "b", "env": [{"name": "X", "value": "1"}]}])));
    bench.update("kubelet", json!({"spec": {"minReadySeconds": 5}}));
    bench.apply("one", containers(json!([{"name": "a", "image": "1"}])));
    assert_eq!(
        bench.live["spec"],
        json!({
            "minReadySeconds": 5,
            "template": {"spec": {"containers": [
                {"name": "a", "image": "1"},
                {"name": "b", "env": [{"name": "X", "value": "1"}]},
            ]}},
        })
    );
    bench.apply("one", json!({"metadata": {"labels": {"x": "y"}}}));
    bench.apply("two", json!({"metadata": {"labels": {"x": "y"}}}));
    assert_eq!(bench.live["spec"], json!({"minReadySeconds": 5}), "empty structures go with what was in them");
}

#[test]
fn an_empty_structure_that_somebody_applied_stays() {
    let versions = built_in("v1", "core.v1.Pod");
    let mut bench = Bench::new(&versions);
    bench.apply("one", json!({"spec": {"securityContext": {"runAsUser": 1}}}));
    bench.apply("one", json!({"spec": {"securityContext": {}}}));
    assert_eq!(bench.live["spec"], json!({"securityContext": {}}));
    bench.apply("two", json!({"spec": {"securityContext": {}}}));
    bench.apply("one", json!({"metadata": {"labels": {"a": "b"}}}));
    assert_eq!(bench.live["spec"], json!({"securityContext": {}}), "the other one still wants it");
}

#[test]
fn an_item_goes_with_what_updates_added_to_it() {
    let versions = built_in("apps/v1", "apps.v1.Deployment");
    let mut bench = Bench::new(&versions);
    bench.apply("one", containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}])));
    bench.update("other", containers(json!([{"name": "a", "image": "1", "tty": true}, {"name": "b", "image": "1"}])));
    bench.apply("one", containers(json!([{"name": "b", "image": "1"}])));
    assert_eq!(bench.live["spec"], containers(json!([{"name": "b", "image": "1"}]))["spec"]);
    assert_eq!(bench.fields("other"), Value::Null);
}

#[test]
fn atomic_lists_and_maps_have_one_owner() {
    let versions = built_in("v1", "core.v1.Pod");
    let mut bench = Bench::new(&versions);
    let spec = |args: Value| json!({"spec": {"containers": [{"name": "a", "args": args}], "nodeSelector": {"x": "1"}}});
    bench.apply("one", spec(json!(["a"])));
    let error = bench.try_apply("two", spec(json!(["b"])), false).unwrap_err();
    assert!(error.to_string().ends_with(".spec.containers[name=\"a\"].args"), "{error}");
    let other = json!({"spec": {"containers": [{"name": "a"}], "nodeSelector": {"y": "1"}}});
    let error = bench.try_apply("two", other, false).unwrap_err();
    assert!(error.to_string().ends_with(": .spec.nodeSelector"), "{error}");
}

#[test]
fn lists_keep_the_order_of_both_sides() {
    let versions = built_in("v1", "core.v1.Pod");
    let names = |names: &str| {
        let items: Vec<Value> = names.chars().map(|name| json!({"name": name.to_string()})).collect();
        json!({"spec": {"containers": items}})
    };
    for (live, config, merged) in [
        ("", "ab", "ab"),
        ("ab", "ab", "ab"),
        ("ab", "ba", "ba"),
        ("abc", "b", "abc"),
        ("ac", "abc", "abc"),
        ("abc", "xc", "abxc"),
        ("abcd", "dxa", "bcdxa"),
        ("ab", "xy", "abxy"),
        ("abc", "cab", "cab"),
    ] {
        let mut bench = Bench::new(&versions);
        bench.update("one", names(live));
        bench.apply("two", names(config));
        assert_eq!(bench.live["spec"], names(merged)["spec"], "{live} {config}");
    }
}

#[test]
fn keys_with_defaults_need_not_be_said() {
    let versions = built_in("v1", "core.v1.Service");
    let mut bench = Bench::new(&versions);
    bench.update(
        "one",
        json!({"spec": {"ports": [
            {"port": 53, "protocol": "TCP", "name": "tcp"},
            {"port": 53, "protocol": "UDP", "name": "udp"},
        ]}}),
    );
    bench.force("two", json!({"spec": {"ports": [{"port": 53, "name": "dns"}]}}));
    assert_eq!(
        bench.live["spec"]["ports"],
        json!([{"port": 53, "protocol": "TCP", "name": "dns"}, {"port": 53, "protocol": "UDP", "name": "udp"}])
    );
}

#[test]
fn duplicates_in_a_stored_list_are_owned_together() {
    let versions = built_in("v1", "core.v1.Pod");
    let mut bench = Bench::new(&versions);
    let env = |env: Value| json!({"spec": {"containers": [{"name": "a", "env": env}]}});
    bench.update("one", env(json!([{"name": "X", "value": "1"}, {"name": "X", "value": "2"}, {"name": "Y"}])));
    bench.apply("two", env(json!([{"name": "Y", "value": "3"}])));
    assert_eq!(
        bench.live["spec"]["containers"][0]["env"],
        json!([{"name": "X", "value": "1"}, {"name": "X", "value": "2"}, {"name": "Y", "value": "3"}])
    );
    bench.force("two", env(json!([{"name": "X", "value": "4"}, {"name": "Y", "value": "3"}])));
    assert_eq!(
        bench.live["spec"]["containers"][0]["env"],
        json!([{"name": "X", "value": "4"}, {"name": "Y", "value": "3"}])
    );
}

#[test]
fn without_a_schema_the_value_decides() {
    let arena = thing();
    let versions = OneVersion { api_version: "example.com/v1", schema: arena.root() };
    let mut bench = Bench::new(&versions);
    bench.apply("one", json!({"spec": {"free": {"map": {"a": 1}, "list": [{"x": 1}], "none": null}}}));
    assert_eq!(
        bench.fields("one"),
        json!({"f:spec": {"f:free": {"f:list": {}, "f:map": {".": {}, "f:a": {}}, "f:none": {}}}}),
        "a map is owned key by key, a list as a whole"
    );
    bench.apply("two", json!({"spec": {"free": {"map": {"b": 2}}}}));
    assert_eq!(bench.live["spec"]["free"]["map"], json!({"a": 1, "b": 2}));
    bench.update("three", json!({"spec": {"free": {"map": "text"}}}));
    assert_eq!(bench.live["spec"]["free"]["map"], "text");
    assert_eq!(bench.fields("two"), Value::Null);
    assert!(bench.try_apply("two", json!({"spec": {"free": {"list": [2]}}}), false).is_err(), "a list is one value");
}

#[test]
fn a_configuration_that_fits_no_schema_is_refused() {
    let arena = thing();
    let versions = OneVersion { api_version: "example.com/v1", schema: arena.root() };
    let mut bench = Bench::new(&versions);
    let prefix = "failed to create typed patch object (ns/x; example.com/v1, Kind=Thing): ";
    for (spec, faults) in [
        (json!({"foo": 1}), ".spec.foo: field not declared in schema"),
        (json!({"n": "x"}), ".spec.n: expected numeric (int or float), got x"),
        (json!({"a": 7}), ".spec.a: expected string, got 7"),
        (json!({"s": []}), ".spec.s: expected map, got []"),
        (json!({"atoms": {}}), ".spec.atoms: expected list, got map[]"),
        (json!({"atoms": [7]}), ".spec.atoms[0]: expected string, got 7"),
        (json!({"l": [{"k": "a", "x": 1}]}), ".spec.l[k=\"a\"].x: field not declared in schema"),
        (
            json!({"l": [{"v": "a"}]}),
            ".spec.l: element 0: associative list with keys has an element that omits key field \"k\" (and doesn't \
             have default value)",
        ),
        (json!({"l": ["a"]}), ".spec.l: element 0: associative list with keys may not have non-map elements"),
        (json!({"l": [{"k": "a"}, {"k": "a"}]}), ".spec.l: duplicate entries for key [k=\"a\"]"),
        (json!({"t": ["a", "a"]}), ".spec.t: duplicate entries for key [=\"a\"]"),
        (json!({"t": [["a"]]}), ".spec.t: element 0: not supported: associative list with lists as elements"),
        (
            json!({"foo": 1, "n": true}),
            "errors:\n  .spec.foo: field not declared in schema\n  .spec.n: expected numeric (int or float), got true",
        ),
    ] {
        let error = bench.try_apply("one", json!({"metadata": {"namespace": "ns"}, "spec": spec}), true).unwrap_err();
        assert_eq!(error.to_string(), format!("{prefix}{faults}"));
        assert_eq!(error.status().code, 500);
    }
    assert_eq!(bench.live, json!({}), "nothing was made");
}

#[test]
fn a_configuration_of_the_wrong_version_or_with_managers_is_refused() {
    let versions = built_in("v1", "core.v1.ConfigMap");
    let bench = Bench::new(&versions);
    for (config, message) in [
        (
            json!({"apiVersion": "v2", "kind": "ConfigMap"}),
            "Incorrect version specified in apply patch. Specified patch version: v2, expected: v1",
        ),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"managedFields": []}}),
            "metadata.managedFields must be nil",
        ),
    ] {
        let error = bench.tracker().apply(&bench.live, &config, "one", false, at(1)).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.status().code), (message, 400));
    }
    let broken = json!({"metadata": {"managedFields": [{"operation": "Dance"}]}});
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    let error = bench.tracker().apply(&broken, &config, "one", false, at(1)).unwrap_err();
    assert_eq!(error.to_string(), "failed to decode managed fields: operation must be `Apply` or `Update`");
}
