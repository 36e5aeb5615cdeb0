//! Against the documents that upstream publishes of itself.

use k3sd_apiserver_store::Catalog;
use serde_json::{Value, json};

use super::*;
use crate::negotiate::Wish;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn catalog() -> Catalog {
    Catalog::builtin(|resource| resource.served)
}

fn get(path: &str, accept: &str) -> Reply {
    let ask = Ask { path, wish: Wish { accept, ..Wish::default() }, ..Ask::default() };
    answer(&catalog(), &[], &ask, "10.0.0.1:6443").expect(path).expect("accepted")
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&get(path, "").body).unwrap()
}

fn row(list: &Value, name: &str) -> Value {
    let rows = list["resources"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}")).clone()
}

#[test]
fn core_is_told_as_it_always_was() {
    assert_eq!(
        json("/api"),
        json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": "10.0.0.1:6443" }],
        })
    );
    let list = json("/api/v1");
    assert_eq!(
        (&list["kind"], &list["groupVersion"], list.get("apiVersion")),
        (&json!("APIResourceList"), &json!("v1"), None)
    );
    assert_eq!(
        row(&list, "pods"),
        json!({
            "name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod",
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            "shortNames": ["po"], "categories": ["all"], "storageVersionHash": "xPOwRZ+Yhw8=",
        })
    );
    assert_eq!(
        row(&list, "pods/eviction"),
        json!({
            "name": "pods/eviction", "singularName": "", "namespaced": true, "group": "policy", "version": "v1",
            "kind": "Eviction", "verbs": ["create"],
        })
    );
    assert_eq!(row(&list, "bindings").get("storageVersionHash"), None);
}

#[test]
fn groups_are_told_with_their_preferred_version() {
    let groups = json("/apis");
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
    assert_eq!(
        names[..5],
        ["apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io"]
    );
    assert!(!names.contains(&""));
    assert_eq!(
        json("/apis/autoscaling"),
        json!({
            "kind": "APIGroup", "apiVersion": "v1", "name": "autoscaling",
            "versions": [
                { "groupVersion": "autoscaling/v2", "version": "v2" },
                { "groupVersion": "autoscaling/v1", "version": "v1" },
            ],
            "preferredVersion": { "groupVersion": "autoscaling/v2", "version": "v2" },
        })
    );
}

#[test]
fn hashes_of_stored_versions_are_upstreams() {
    let apps = json("/apis/apps/v1");
    assert_eq!((&apps["apiVersion"], &apps["groupVersion"]), (&json!("v1"), &json!("apps/v1")));
    for (name, hash) in [
        ("controllerrevisions", "85nkx63pcBU="),
        ("daemonsets", "dd7pWHUlMKQ="),
        ("deployments", "8aSe+NMegvE="),
        ("replicasets", "P1RzHs8/mWQ="),
        ("statefulsets", "H+vl74LkKdo="),
    ] {
        assert_eq!(row(&apps, name)["storageVersionHash"], hash, "{name}");
    }
    assert_eq!(
        row(&apps, "deployments/scale"),
        json!({
            "name": "deployments/scale", "singularName": "", "namespaced": true, "group": "autoscaling", "version": "v1",
            "kind": "Scale", "verbs": ["get", "patch", "update"],
        })
    );
    // Events of both groups are stored as those of core.
    let events = row(&json("/apis/events.k8s.io/v1"), "events");
    assert_eq!(events["storageVersionHash"], row(&json("/api/v1"), "events")["storageVersionHash"]);
}

#[test]
fn one_document_tells_all() {
    let reply = get("/apis", AGGREGATED);
    assert_eq!(reply.header("content-type"), Some(AGGREGATED));
    let tag = reply.header("etag").unwrap();
    assert_eq!((tag.len(), reply.header("vary")), (130, Some("Accept")));
    let value: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(
        (&value["kind"], &value["apiVersion"]),
        (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2"))
    );
    assert_eq!(
        value["items"][0],
        json!({
            "metadata": { "name": "apiregistration.k8s.io", "creationTimestamp": null },
            "versions": [{
                "version": "v1", "freshness": "Current",
                "resources": [{
                    "resource": "apiservices", "responseKind": { "group": "", "version": "", "kind": "APIService" },
                    "scope": "Cluster", "singularResource": "apiservice", "categories": ["api-extensions"],
                    "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                    "subresources": [{
                        "subresource": "status", "responseKind": { "group": "", "version": "", "kind": "APIService" },
                        "verbs": ["get", "patch", "update"],
                    }],
                }],
            }],
        })
    );
    let wish = Wish { accept: AGGREGATED, ..Wish::default() };
    let again = Ask { path: "/apis", wish, if_none_match: tag, ..Ask::default() };
    let again = answer(&catalog(), &[], &again, "").unwrap().unwrap();
    assert_eq!((again.code, again.body.len(), again.header("etag")), (304, 0, Some(tag)));
    let core: Value = serde_json::from_slice(&get("/api", AGGREGATED).body).unwrap();
    assert_eq!((core["items"].as_array().unwrap().len(), core["items"][0]["metadata"].get("name")), (1, None));
}

#[test]
fn both_forms_name_resources_alike_in_all_groups() {
    let value: Value = serde_json::from_slice(&get("/apis", AGGREGATED).body).unwrap();
    let mut short = 0;
    for group in value["items"].as_array().unwrap() {
        let name = group["metadata"]["name"].as_str().unwrap();
        for version in group["versions"].as_array().unwrap() {
            let plain = json(&format!("/apis/{name}/{}", version["version"].as_str().unwrap()));
            for resource in version["resources"].as_array().unwrap() {
                let row = row(&plain, resource["resource"].as_str().unwrap());
                for field in ["shortNames", "categories", "verbs"] {
                    assert_eq!(row[field], resource[field], "{field} of {row}");
                }
                assert_eq!(row["singularName"], resource["singularResource"]);
                short += usize::from(resource["shortNames"].is_array());
            }
        }
    }
    let deployments = row(&json("/apis/apps/v1"), "deployments");
    assert_eq!((&deployments["shortNames"], &deployments["categories"]), (&json!(["deploy"]), &json!(["all"])));
    assert!(short >= 10, "{short}");
}

#[test]
fn clients_that_speak_protobuf_are_understood() {
    let protobuf = "application/vnd.kubernetes.protobuf";
    for path in ["/api", "/apis", "/apis/apps", "/apis/apps/v1"] {
        let reply = get(path, protobuf);
        assert_eq!(reply.header("content-type"), Some(protobuf));
        assert!(reply.body.starts_with(b"k8s\0") && reply.body.len() > 20, "{path}");
    }
}

#[test]
fn other_paths_are_nobodys() {
    for path in
        ["/apis/none", "/apis/apps/v9", "/api/v2", "/apis/apps/v1/deployments", "/version", "/", "//", "/apis//v1"]
    {
        let ask = Ask { path, ..Ask::default() };
        assert_eq!(answer(&catalog(), &[], &ask, ""), None, "{path}");
    }
}

fn foreign(group: &str, version: &str, priorities: (i64, i64), is_stale: bool) -> Foreign {
    let resources = [
        json!({ "name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": ["get", "list"] }),
        json!({ "name": "pods/status", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": ["get"] }),
        json!({ "name": "nodes", "singularName": "node", "namespaced": false, "kind": "NodeMetrics", "verbs": ["list"],
            "shortNames": ["nm"] }),
    ];
    let (group_priority, version_priority) = priorities;
    let (group, version) = (group.into(), version.into());
    Foreign { group, version, group_priority, version_priority, resources: resources.into(), openapi: None, is_stale }
}

#[test]
fn what_others_answer_for_stands_where_its_priority_says() {
    let others = [
        foreign("metrics.k8s.io", "v1beta1", (100, 100), false),
        foreign("first.example.com", "v1", (20_000, 15), false),
        foreign("batch2.example.com", "v1", (17_400, 15), true),
        foreign("autoscaling", "v3alpha1", (17_500, 20), false),
        foreign("apps", "v1", (17_800, 15), false),
    ];
    let ask = |path, accept| Ask { path, wish: Wish { accept, ..Wish::default() }, ..Ask::default() };
    let read = |path, accept| -> Value {
        let reply = answer(&catalog(), &others, &ask(path, accept), "").expect(path).expect("accepted");
        serde_json::from_slice(&reply.body).unwrap()
    };
    let groups = read("/apis", "");
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
    let at = |name: &str| names.iter().position(|found| *found == name).expect(name);
    assert_eq!((at("apiregistration.k8s.io"), at("first.example.com"), at("apps")), (0, 1, 2));
    assert_eq!((at("batch2.example.com"), at("metrics.k8s.io")), (at("batch") + 1, names.len() - 1));
    let versions = read("/apis/autoscaling", "");
    let versions: Vec<&Value> = versions["versions"].as_array().unwrap().iter().map(|v| &v["version"]).collect();
    assert_eq!(versions, ["v2", "v3alpha1", "v1"]);

    let all = read("/apis", AGGREGATED);
    let group = |name: &str| {
        let items = all["items"].as_array().unwrap();
        items.iter().find(|item| item["metadata"]["name"] == name).expect("listed").clone()
    };
    assert_eq!(
        group("metrics.k8s.io")["versions"],
        json!([{
            "version": "v1beta1", "freshness": "Current",
            "resources": [
                {
                    "resource": "pods", "responseKind": { "group": "", "version": "", "kind": "PodMetrics" },
                    "scope": "Namespaced", "singularResource": "", "verbs": ["get", "list"],
                    "subresources": [{
                        "subresource": "status", "verbs": ["get"],
                        "responseKind": { "group": "", "version": "", "kind": "PodMetrics" },
                    }],
                },
                {
                    "resource": "nodes", "responseKind": { "group": "", "version": "", "kind": "NodeMetrics" },
                    "scope": "Cluster", "singularResource": "node", "verbs": ["list"], "shortNames": ["nm"],
                },
            ],
        }])
    );
    assert_eq!(group("batch2.example.com")["versions"][0]["freshness"], "Stale");
    let apps = group("apps");
    assert_eq!(
        (apps["versions"].as_array().unwrap().len(), &apps["versions"][0]["resources"][0]["resource"]),
        (1, &json!("pods"))
    );
    assert_eq!(
        answer(&catalog(), &others, &ask("/apis/metrics.k8s.io", ""), "").map(|found| found.is_ok()),
        Some(true)
    );
}

#[test]
fn each_version_that_is_compiled_in_has_a_place() {
    for group in catalog().groups() {
        for version in &group.versions {
            let found = priorities::builtin(&group.name, &version.name);
            assert_eq!(found.is_none(), &*group.name == priorities::OWN_GROUP, "{} {}", group.name, version.name);
        }
    }
    assert_eq!(priorities::builtin("autoscaling", "v2"), Some((17_500, 30)));
    assert_eq!(priorities::builtin("batch", "v1"), Some((17_400, 15)));
    assert_eq!(priorities::builtin("", "v1"), Some((18_000, 1)));
}
