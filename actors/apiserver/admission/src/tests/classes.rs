//! Claims, ingresses, certificates, and the plugins that are off.

use k3sd_apiserver_access::{Authorizer, User};
use serde_json::{Value, json};

use super::{World, create, update};
use crate::{AdmissionConfig, Attributes, Plugins};

const RBAC: &str = "rbac.authorization.k8s.io";

#[tokio::test(start_paused = true)]
async fn claims_and_ingresses_get_the_newest_default_class() {
    let world = World::new();
    let claims = create("", "persistentvolumeclaims");
    let claim = || json!({"metadata": {"name": "c"}, "spec": {}});
    assert!(world.admitted(&claims, claim()).await["spec"]["storageClassName"].is_null());
    let class = |name: &str, created: &str, mark: &str| json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": {mark: "true"}}});
    let storage = "storageclass.kubernetes.io/is-default-class";
    world.cluster.put("storage.k8s.io", "storageclasses", class("old", "2030-01-01T00:00:00Z", storage));
    world.cluster.put("storage.k8s.io", "storageclasses", class("c", "2030-01-02T00:00:00Z", storage));
    world.cluster.put("storage.k8s.io", "storageclasses", class("b", "2030-01-02T00:00:00Z", storage));
    world.cluster.put("storage.k8s.io", "storageclasses", class("other", "2031-01-02T00:00:00Z", "x"));
    let found = world.admitted(&claims, claim()).await;
    assert_eq!(found["spec"]["storageClassName"], "b");
    assert_eq!(found["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let mut named = claim();
    named["spec"]["storageClassName"] = "".into();
    assert_eq!(world.admitted(&claims, named).await["spec"]["storageClassName"], "");
    let mut named = claim();
    named["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"] = "".into();
    assert!(world.admitted(&claims, named).await["spec"]["storageClassName"].is_null());

    let mark = "ingressclass.kubernetes.io/is-default-class";
    world.cluster.put("networking.k8s.io", "ingressclasses", class("traefik", "2030-01-01T00:00:00Z", mark));
    let ingresses = create("networking.k8s.io", "ingresses");
    assert_eq!(world.admitted(&ingresses, claim()).await["spec"]["ingressClassName"], "traefik");
    let mut old = claim();
    old["metadata"]["annotations"]["kubernetes.io/ingress.class"] = "nginx".into();
    assert!(world.admitted(&ingresses, old).await["spec"]["ingressClassName"].is_null());

    let volume = world.admitted(&create("", "persistentvolumes"), claim()).await;
    assert_eq!(volume["metadata"]["finalizers"], json!(["kubernetes.io/pv-protection"]));
}

#[tokio::test(start_paused = true)]
async fn claims_grow_where_their_class_lets_them() {
    let world = World::new();
    for (name, grows) in [("fixed", false), ("wide", true)] {
        let class = json!({"metadata": {"name": name}, "allowVolumeExpansion": grows});
        world.cluster.put("storage.k8s.io", "storageclasses", class);
    }
    let claim = |class: &str, size: &str, phase: &str| {
        json!({"metadata": {"name": "x"}, "status": {"phase": phase},
            "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}})
    };
    let bound = Some("Only bound persistent volume claims can be expanded");
    let fixed = Some(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    );
    for (old, new, fault) in [
        (claim("wide", "1Gi", "Bound"), claim("wide", "2Gi", "Bound"), None),
        (claim("fixed", "1Gi", "Bound"), claim("fixed", "1024Mi", "Bound"), None),
        (claim("fixed", "1Gi", "Bound"), claim("fixed", "2Gi", "Bound"), fixed),
        (claim("", "1Gi", "Bound"), claim("", "2Gi", "Bound"), fixed),
        (claim("gone", "1Gi", "Bound"), claim("gone", "2Gi", "Bound"), fixed),
        (claim("wide", "1Gi", "Pending"), claim("wide", "2Gi", "Bound"), bound),
    ] {
        let why = world.refusal(&update("", "persistentvolumeclaims", &old), new).await;
        assert_eq!(why, fault.map(|fault| format!("persistentvolumeclaims \"x\" is forbidden: {fault}")));
    }
}

fn signer_of(verb: &str, name: &str) -> Authorizer {
    let mut authorizer = Authorizer::default();
    authorizer.put(
        RBAC,
        "clusterroles",
        &json!({"metadata": {"name": "r"}, "rules": [{"verbs": [verb],
        "apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": [name]}]}),
    );
    authorizer.put(
        RBAC,
        "clusterrolebindings",
        &json!({"metadata": {"name": "b"},
        "roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "User", "name": "ann"}]}),
    );
    authorizer
}

#[tokio::test(start_paused = true)]
async fn signers_are_approved_for_and_signed_for_by_those_who_may() {
    let request =
        |status: Value| json!({"metadata": {"name": "x"}, "spec": {"signerName": "d.io/s"}, "status": status});
    let old = request(Value::Null);
    let of = |subresource: &'static str| Attributes {
        subresource,
        ..update("certificates.k8s.io", "certificatesigningrequests", &old)
    };
    for (subresource, verb, status, words) in [
        ("approval", "approve", Value::Null, "user not permitted to approve requests with signerName \"d.io/s\""),
        (
            "status",
            "sign",
            json!({"certificate": "x"}),
            "user not permitted to sign requests with signerName \"d.io/s\"",
        ),
    ] {
        for (name, allowed) in [("d.io/s", true), ("d.io/*", true), ("d.io/t", false), ("e.io/*", false)] {
            let world = World::with(AdmissionConfig::default(), signer_of(verb, name));
            let why = world.refusal(&of(subresource), request(status.clone())).await;
            let words = format!("certificatesigningrequests.certificates.k8s.io \"x\" is forbidden: {words}");
            assert_eq!(why, (!allowed).then_some(words), "{verb} {name}");
        }
    }
    let unchanged = World::new().refusal(&of("status"), request(Value::Null)).await;
    assert_eq!(unchanged, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_off_can_be_switched_on() {
    let plugins =
        Plugins::resolve(["AlwaysPullImages", "DenyServiceExternalIPs", "ExtendedResourceToleration"], []).unwrap();
    let world = World::with(AdmissionConfig { plugins, ..AdmissionConfig::default() }, Authorizer::default());
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i",
        "imagePullPolicy": "Never", "resources": {"requests": {"x.io/gpu": "1", "cpu": "1"}}}]}});
    let found = world.admitted(&create("", "pods"), pod).await;
    assert_eq!(found["spec"]["containers"][0]["imagePullPolicy"], "Always");
    let gpu = json!({"key": "x.io/gpu", "operator": "Exists", "effect": "NoSchedule"});
    assert!(found["spec"]["tolerations"].as_array().unwrap().contains(&gpu));
    let service = |ips: Value| json!({"metadata": {"name": "x"}, "spec": {"externalIPs": ips}});
    let why = world.refusal(&create("", "services"), service(json!(["1.2.3.4"]))).await.unwrap();
    assert_eq!(why, "services \"x\" is forbidden: Use of external IPs is denied by admission control");
    let old = service(json!(["1.2.3.4", "1.2.3.5"]));
    assert_eq!(world.refusal(&update("", "services", &old), service(json!(["1.2.3.4"]))).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_new_node_is_tainted() {
    let user = User::new("system:node:n", &["system:nodes"]);
    let world = World::new();
    let create = Attributes { user: &user, name: "n", ..create("", "nodes") };
    let found = world.admitted(&create, json!({"metadata": {"name": "n"}})).await;
    let taint = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]);
    assert_eq!(found["spec"]["taints"], taint);
    assert_eq!(world.admitted(&create, found).await["spec"]["taints"], taint);
}
