//! The controllers that clear away and count, over the API server: nothing that should stay goes, and the other way
//! round, whatever dies.

use std::time::Duration;

use chaos_tests::cluster::{Cluster, Plane};
use k3sd_client::controller::setup::ControllerConfig;
use k3sd_runtime::Clock;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod, ResourceQuota, ServiceAccount};
use kube::ResourceExt as _;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);

async fn start(seed: u64) -> Cluster {
    start_at(Clock::simulated(seed)).await
}

async fn start_at(clock: Clock) -> Cluster {
    start_with(clock, ControllerConfig::default()).await
}

async fn start_with(clock: Clock, config: ControllerConfig) -> Cluster {
    let plane = Plane::new(clock);
    plane.start_controllers(config, Vec::new(), k3sd_controllers_collection::loops).await
}

fn maps(cluster: &Cluster, namespace: &str) -> Api<ConfigMap> {
    Api::namespaced(cluster.admin(), namespace)
}

async fn names(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let found = maps(cluster, namespace).list_metadata(&ListParams::default()).await;
    found.map(|found| found.items.iter().map(|object| object.name_any()).collect()).unwrap_or_default()
}

fn reference(owner: &ConfigMap, blocks: bool) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner.name_any(), "uid": owner.metadata.uid,
        "blockOwnerDeletion": blocks})
}

async fn make(cluster: &Cluster, name: &str, owners: &[Value]) -> ConfigMap {
    make_in(cluster, "default", name, owners).await
}

async fn make_in(cluster: &Cluster, namespace: &str, name: &str, owners: &[Value]) -> ConfigMap {
    let map = json!({"metadata": {"name": name, "ownerReferences": owners}});
    let map = serde_json::from_value(map).expect("a ConfigMap");
    maps(cluster, namespace).create(&PostParams::default(), &map).await.expect("it may be made")
}

async fn make_namespace(cluster: &Cluster, name: &str) {
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
    let all: Api<Namespace> = Api::all(cluster.admin());
    all.create(&PostParams::default(), &namespace).await.expect("it may be made");
}

async fn make_account(cluster: &Cluster, namespace: &str) {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.admin(), namespace);
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).expect("an account");
    accounts.create(&PostParams::default(), &account).await.expect("it may");
}

async fn apply(api: &Api<DynamicObject>, object: Value) {
    let object = serde_json::from_value(object).expect("an object");
    api.create(&PostParams::default(), &object).await.expect("it may be made");
}

#[tokio::test(start_paused = true)]
async fn dependents_go_with_their_owner_and_those_with_another_one_stay() {
    let cluster = start(1).await;
    let (one, two) = (make(&cluster, "one", &[]).await, make(&cluster, "two", &[]).await);
    let child = make(&cluster, "child", &[reference(&one, false)]).await;
    make(&cluster, "grandchild", &[reference(&child, false)]).await;
    make(&cluster, "shared", &[reference(&one, false), reference(&two, false)]).await;
    cluster.pass(SECOND).await;
    maps(&cluster, "default").delete("one", &DeleteParams::background()).await.expect("it is there");
    cluster
        .wait_until("what only it owned is gone", async || {
            names(&cluster, "default").await == ["kube-root-ca.crt", "shared", "two"]
                || names(&cluster, "default").await == ["shared", "two"]
        })
        .await;
    let owners = async || maps(&cluster, "default").get("shared").await.expect("it stays").owner_references().len();
    cluster.wait_until("it has one owner left", async || owners().await == 1).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_foreground_deletion_ends_after_what_blocks_it() {
    let cluster = start(2).await;
    let owner = make(&cluster, "owner", &[]).await;
    let child = make(&cluster, "child", &[reference(&owner, true)]).await;
    let mut held = make(&cluster, "grandchild", &[reference(&child, true)]).await;
    held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    let api = maps(&cluster, "default");
    api.replace("grandchild", &PostParams::default(), &held).await.expect("it is there");
    cluster.pass(SECOND).await;
    api.delete("owner", &DeleteParams::foreground()).await.expect("it is there");
    cluster
        .wait_until("all of them go", async || {
            let found = api.list(&ListParams::default()).await.expect("a list");
            let ours = found.iter().filter(|map| map.name_any() != "kube-root-ca.crt");
            ours.filter(|map| map.metadata.deletion_timestamp.is_some()).count() == 3
        })
        .await;
    cluster.kill("loops/garbage-collector/collector");
    cluster.pass(60 * SECOND).await;
    assert!(names(&cluster, "default").await.contains(&"owner".to_owned()), "it waits for its dependents");
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("grandchild", &PatchParams::default(), &free).await.expect("it is there");
    cluster
        .wait_until("they are gone", async || {
            names(&cluster, "default").await.iter().all(|name| name == "kube-root-ca.crt")
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn orphans_stay() {
    let cluster = start(3).await;
    let owner = make(&cluster, "owner", &[]).await;
    make(&cluster, "child", &[reference(&owner, true)]).await;
    cluster.pass(SECOND).await;
    maps(&cluster, "default").delete("owner", &DeleteParams::orphan()).await.expect("it is there");
    cluster
        .wait_until("only the owner is gone", async || !names(&cluster, "default").await.contains(&"owner".to_owned()))
        .await;
    cluster.pass(60 * SECOND).await;
    let child = maps(&cluster, "default").get("child").await.expect("it stays");
    assert_eq!(child.owner_references(), []);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_never_was_or_is_elsewhere_is_no_owner() {
    let cluster = start(4).await;
    make_namespace(&cluster, "other").await;
    let elsewhere = make_in(&cluster, "other", "owner", &[]).await;
    make(&cluster, "stray", &[reference(&elsewhere, false)]).await;
    let nobody = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "nobody", "uid": "no-uid"});
    make(&cluster, "lost", std::slice::from_ref(&nobody)).await;
    // An object of the cluster can't have an owner in a namespace; it is left alone.
    let all: Api<Namespace> = Api::all(cluster.admin());
    let namespace = json!({"metadata": {"name": "third", "ownerReferences": [nobody]}});
    all.create(&PostParams::default(), &serde_json::from_value(namespace).expect("it is one")).await.expect("it may");
    cluster
        .wait_until("both are gone", async || {
            let names = names(&cluster, "default").await;
            !names.contains(&"stray".to_owned()) && !names.contains(&"lost".to_owned())
        })
        .await;
    let events: Api<Event> = Api::namespaced(cluster.admin(), "default");
    cluster
        .wait_until("an event says why", async || {
            let found = events.list(&ListParams::default()).await.expect("a list");
            let expected = format!(
                "ownerRef [v1/ConfigMap, namespace: default, name: owner, uid: {}] does not exist in namespace \"default\"",
                elsewhere.metadata.uid.as_deref().expect("it has one")
            );
            found.iter().any(|event| {
                event.reason.as_deref() == Some("OwnerRefInvalidNamespace")
                    && event.message.as_deref() == Some(&expected)
                    && event.involved_object.name.as_deref() == Some("stray")
            })
        })
        .await;
    cluster.pass(60 * SECOND).await;
    assert!(all.get("third").await.is_ok() && maps(&cluster, "other").get("owner").await.is_ok());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn custom_resources_own_and_are_owned() {
    let cluster = start(5).await;
    let admin = cluster.admin();
    let definitions: Api<DynamicObject> = Api::all_with(
        admin.clone(),
        &ApiResource {
            group: "apiextensions.k8s.io".to_owned(),
            version: "v1".to_owned(),
            api_version: "apiextensions.k8s.io/v1".to_owned(),
            kind: "CustomResourceDefinition".to_owned(),
            plural: "customresourcedefinitions".to_owned(),
        },
    );
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]},
    });
    apply(&definitions, definition).await;
    let resource = ApiResource {
        group: "example.com".to_owned(),
        version: "v1".to_owned(),
        api_version: "example.com/v1".to_owned(),
        kind: "Thing".to_owned(),
        plural: "things".to_owned(),
    };
    let things: Api<DynamicObject> = Api::namespaced_with(admin, "default", &resource);
    cluster.wait_until("things are served", async || things.list(&ListParams::default()).await.is_ok()).await;
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "owner"}});
    apply(&things, thing).await;
    let owner = things.get("owner").await.expect("it is there");
    let to_thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "name": "owner", "uid": owner.metadata.uid});
    let map = make(&cluster, "child", &[to_thing]).await;
    let owned = json!({"apiVersion": "example.com/v1", "kind": "Thing",
        "metadata": {"name": "grandchild", "ownerReferences": [reference(&map, false)]}});
    apply(&things, owned).await;
    cluster.pass(10 * SECOND).await;
    assert!(things.get("grandchild").await.is_ok() && maps(&cluster, "default").get("child").await.is_ok());
    things.delete("owner", &DeleteParams::background()).await.expect("it is there");
    cluster
        .wait_until("all are gone", async || {
            things.list(&ListParams::default()).await.is_ok_and(|left| left.items.is_empty())
                && !names(&cluster, "default").await.contains(&"child".to_owned())
        })
        .await;
    let monitors = cluster.system().supervisor("loops/garbage-collector/monitors").expect("a supervisor");
    let is_watched = async || {
        let all = monitors.list(10 * SECOND).await.expect("it answers");
        all.iter().any(|monitor| monitor.name == "of-things.example.com.v1")
    };
    assert!(is_watched().await);
    definitions.delete("things.example.com", &DeleteParams::default()).await.expect("it is there");
    cluster.wait_until("nobody watches things any more", async || !is_watched().await).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn where_others_write_too_a_namespace_is_emptied_when_they_know() {
    let config = ControllerConfig { has_other_servers: true, ..ControllerConfig::default() };
    let cluster = start_with(Clock::simulated(12), config).await;
    make_namespace(&cluster, "going").await;
    make_in(&cluster, "going", "early", &[]).await;
    let all: Api<Namespace> = Api::all(cluster.admin());
    all.delete("going", &DeleteParams::default()).await.expect("it is there");
    cluster.pass(3 * SECOND).await;
    cluster.kill("loops/namespace");
    cluster.pass(SECOND / 2).await;
    assert!(names(&cluster, "going").await.contains(&"early".to_owned()));
    let gone = async || all.get_opt("going").await.is_ok_and(|found| found.is_none());
    cluster.wait_within(5 * SECOND, "it is gone", gone).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_goes_when_its_content_is_gone_and_says_what_is_left() {
    let cluster = start(6).await;
    make_namespace(&cluster, "going").await;
    let mut held = make_in(&cluster, "going", "held", &[]).await;
    held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    maps(&cluster, "going").replace("held", &PostParams::default(), &held).await.expect("it is there");
    make_in(&cluster, "going", "free", &[]).await;
    let pods: Api<Pod> = Api::namespaced(cluster.admin(), "going");
    let pod = json!({"metadata": {"name": "pod", "finalizers": ["example.com/hold"]},
        "spec": {"containers": [{"name": "c", "image": "i"}], "automountServiceAccountToken": false}});
    make_account(&cluster, "going").await;
    pods.create(&PostParams::default(), &serde_json::from_value(pod).expect("a pod")).await.expect("it may");

    let all: Api<Namespace> = Api::all(cluster.admin());
    all.delete("going", &DeleteParams::default()).await.expect("it is there");
    let message = async |type_: &str| -> String {
        let conditions =
            all.get("going").await.ok().and_then(|found| found.status).and_then(|status| status.conditions);
        let found =
            conditions.unwrap_or_default().into_iter().find(|found| found.type_ == type_ && found.status == "True");
        found.and_then(|found| found.message).unwrap_or_default()
    };
    cluster
        .wait_until("the pod is in the way", async || {
            message("NamespaceContentRemaining").await == "Some resources are remaining: pods. has 1 resource instances"
        })
        .await;
    assert!(names(&cluster, "going").await.contains(&"free".to_owned()), "pods go first");
    cluster.kill("loops/namespace");
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pods.patch("pod", &PatchParams::default(), &free).await.expect("it is there");
    let words = "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances";
    cluster
        .wait_until("a finalizer is in the way", async || {
            message("NamespaceFinalizersRemaining").await == words
                && message("NamespaceContentRemaining").await
                    == "Some resources are remaining: configmaps. has 1 resource instances"
        })
        .await;
    assert_eq!(names(&cluster, "going").await, ["held"]);
    maps(&cluster, "going").patch("held", &PatchParams::default(), &free).await.expect("it is there");
    cluster.wait_until("it is gone", async || all.get_opt("going").await.is_ok_and(|found| found.is_none())).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_nodes_that_are_gone_go_after_a_while() {
    let cluster = start(8).await;
    let pods: Api<Pod> = Api::namespaced(cluster.admin(), "default");
    make_account(&cluster, "default").await;
    let pod = json!({"metadata": {"name": "orphan", "finalizers": ["example.com/hold"]},
        "spec": {"nodeName": "gone", "containers": [{"name": "c", "image": "i"}], "automountServiceAccountToken": false}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).expect("a pod")).await.expect("it may");
    cluster.pass(35 * SECOND).await;
    let found = pods.get("orphan").await.expect("it is there");
    assert!(found.metadata.deletion_timestamp.is_none(), "the node may come");
    cluster
        .wait_until("it is to go", async || {
            pods.get("orphan").await.is_ok_and(|pod| pod.metadata.deletion_timestamp.is_some())
        })
        .await;
    let status = pods.get("orphan").await.expect("its finalizer keeps it").status.expect("set");
    let condition = status.conditions.unwrap_or_default().into_iter().find(|found| found.type_ == "DisruptionTarget");
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    let condition = condition.expect("it says why");
    assert_eq!(condition.reason.as_deref(), Some("DeletionByPodGC"));
    assert_eq!(condition.message.as_deref(), Some("PodGC: node no longer exists"));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_nobody_will_report_gone_are_taken_away() {
    let config = ControllerConfig { terminated_pods_max: Some(2), ..ControllerConfig::default() };
    let cluster = start_with(Clock::simulated(10), config).await;
    make_account(&cluster, "default").await;
    let pods: Api<Pod> = Api::namespaced(cluster.admin(), "default");
    let nodes: Api<Node> = Api::all(cluster.admin());
    let node = serde_json::from_value(json!({"metadata": {"name": "down"}})).expect("a node");
    nodes.create(&PostParams::default(), &node).await.expect("it may");
    let make = async |name: &str, node: &str| {
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}],
            "automountServiceAccountToken": false}});
        pods.create(&PostParams::default(), &serde_json::from_value(pod).expect("a pod")).await.expect("it may");
    };
    let there = async || -> Vec<String> {
        let found = pods.list(&ListParams::default()).await.map(|found| found.items).unwrap_or_default();
        found.iter().map(|pod| pod.name_any()).collect()
    };
    make("stuck", "down").await;
    make("stays", "down").await;
    pods.delete("stuck", &DeleteParams::default()).await.expect("it is there");
    cluster.pass(120 * SECOND).await;
    assert_eq!(there().await, ["stays", "stuck"], "maybe the node comes back");
    let taint = json!({"spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}});
    nodes.patch("down", &PatchParams::default(), &Patch::Merge(taint)).await.expect("it is there");
    cluster.wait_until("the stuck one is gone", async || there().await == ["stays"]).await;

    for number in 0..5 {
        make(&format!("ended-{number}"), "down").await;
        let status = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
        let name = format!("ended-{number}");
        pods.patch_status(&name, &PatchParams::default(), &status).await.expect("it is there");
        cluster.pass(2 * SECOND).await;
    }
    cluster.wait_until("two of them are kept", async || there().await == ["ended-3", "ended-4", "stays"]).await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn quotas_say_what_is_used_as_soon_as_something_is_gone() {
    let cluster = start(9).await;
    make_namespace(&cluster, "small").await;
    let quotas: Api<ResourceQuota> = Api::namespaced(cluster.admin(), "small");
    let quota =
        json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "3", "count/secrets": "5", "pods": "2"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).expect("a quota")).await.expect("it may");
    let used = async |resource: &str| -> String {
        let status = quotas.get("q").await.ok().and_then(|quota| quota.status).and_then(|status| status.used);
        status.and_then(|used| used.get(resource).map(|amount| amount.0.clone())).unwrap_or_default()
    };
    cluster.wait_until("it is counted", async || used("configmaps").await == "0" && used("pods").await == "0").await;
    for number in 0..3 {
        make_in(&cluster, "small", &format!("map-{number}"), &[]).await;
    }
    let one_more = serde_json::from_value(json!({"metadata": {"name": "map-3"}})).expect("a ConfigMap");
    let refused = maps(&cluster, "small").create(&PostParams::default(), &one_more).await.expect_err("no room");
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 403));
    assert_eq!((used("configmaps").await.as_str(), used("count/secrets").await.as_str()), ("3", "0"));
    cluster.kill("loops/resourcequota");
    maps(&cluster, "small").delete("map-1", &DeleteParams::default()).await.expect("it is there");
    let begun = cluster.clock().now();
    cluster.wait_until("there is room again", async || used("configmaps").await == "2").await;
    assert!(cluster.clock().now().since(begun) < 10 * SECOND, "at once, not at the next round");
    maps(&cluster, "small").create(&PostParams::default(), &one_more).await.expect("there is room");
    cluster.stop().await;
}

/// Whatever dies meanwhile, in the end exactly those objects are there that have an owner.
#[tokio::test(start_paused = true)]
async fn kills_change_nothing_in_the_end() {
    let cluster = start(7).await;
    let mut kept = vec!["kept".to_owned()];
    let stays = make(&cluster, "kept", &[]).await;
    for number in 0..10 {
        let owner = make(&cluster, &format!("owner-{number}"), &[]).await;
        for child in 0..5 {
            let name = format!("child-{number}-{child}");
            let mut owners = vec![reference(&owner, child % 2 == 0)];
            if child == 4 {
                owners.push(reference(&stays, false));
                kept.push(name.clone());
            }
            let made = make(&cluster, &name, &owners).await;
            make(&cluster, &format!("leaf-{number}-{child}"), &[reference(&made, true)]).await;
            if child == 4 {
                kept.push(format!("leaf-{number}-{child}"));
            }
        }
    }
    let mut rng = Clock::simulated(7).rng("kills");
    let places = ["collector", "monitors", "census", "resources", "monitors/of-configmaps.v1"];
    for number in 0..10 {
        let policy = if number % 2 == 0 { DeleteParams::background() } else { DeleteParams::foreground() };
        maps(&cluster, "default").delete(&format!("owner-{number}"), &policy).await.expect("it is there");
        let place = places[rng.below(5) as usize];
        cluster.system().signal(&format!("loops/garbage-collector/{place}"), k3sd_runtime::Signal::Kill);
        cluster.pass(Duration::from_millis(rng.below(300))).await;
    }
    kept.sort();
    cluster
        .wait_within(300 * SECOND, "only what is owned is left", async || {
            let mut found = names(&cluster, "default").await;
            found.retain(|name| name != "kube-root-ca.crt");
            found.sort();
            found == kept
        })
        .await;
    cluster.pass(60 * SECOND).await;
    assert_eq!(names(&cluster, "default").await.iter().filter(|name| *name != "kube-root-ca.crt").count(), kept.len());
    cluster.stop().await;
}

async fn make_many(cluster: &Cluster, namespace: &str, owners: &[Value], count: usize) {
    use futures_util::StreamExt as _;
    let names = (0..count).map(|number| format!("map-{number:05}"));
    let made = names.map(|name| async move { drop(make_in(cluster, namespace, &name, owners).await) });
    futures_util::stream::iter(made).buffer_unordered(50).collect::<Vec<()>>().await;
}

/// Ten thousand dependents of one owner, and a namespace of ten thousand objects: ten seconds each. Unoptimised, and
/// beside other tests, it may take longer, but nothing may be quadratic.
#[tokio::test]
async fn ten_thousand_objects_are_gone_in_seconds() {
    let cluster = start_at(Clock::system()).await;
    for namespace in ["many", "full"] {
        make_namespace(&cluster, namespace).await;
    }
    let owner = make_in(&cluster, "many", "owner", &[]).await;
    make_many(&cluster, "many", &[reference(&owner, false)], COUNT).await;
    make_many(&cluster, "full", &[], COUNT).await;
    let begun = cluster.clock().now();
    maps(&cluster, "many").delete("owner", &DeleteParams::background()).await.expect("it is there");
    cluster
        .wait_until("the dependents are gone", async || {
            !names(&cluster, "many").await.iter().any(|name| name.starts_with("map-"))
        })
        .await;
    let collected = cluster.clock().now().since(begun);
    let begun = cluster.clock().now();
    let all: Api<Namespace> = Api::all(cluster.admin());
    all.delete("full", &DeleteParams::default()).await.expect("it is there");
    cluster.wait_until("it is gone", async || all.get_opt("full").await.is_ok_and(|found| found.is_none())).await;
    let deleted = cluster.clock().now().since(begun);
    println!("{COUNT} dependents in {collected:?}, a namespace of {COUNT} objects in {deleted:?}");
    assert!(collected < SECONDS_MAX && deleted < SECONDS_MAX, "{collected:?}, {deleted:?}");
    cluster.stop().await;
}

const COUNT: usize = 10_000;
const SECONDS_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 40 } else { 10 });
