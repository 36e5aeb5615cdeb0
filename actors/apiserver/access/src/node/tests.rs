use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn pod(name: &str, node: &str, spec: &Value) -> Value {
    let mut pod = json!({"metadata": {"namespace": "a", "name": name}, "spec": spec});
    pod["spec"]["nodeName"] = node.into();
    pod
}

fn full_spec() -> Value {
    json!({
        "serviceAccountName": "robot",
        "imagePullSecrets": [{"name": "pull"}],
        "initContainers": [{"envFrom": [{"secretRef": {"name": "from"}}, {"configMapRef": {"name": "cfrom"}}]}],
        "containers": [{"env": [
            {"valueFrom": {"secretKeyRef": {"name": "env"}}},
            {"valueFrom": {"configMapKeyRef": {"name": "cenv"}}},
        ]}],
        "volumes": [
            {"persistentVolumeClaim": {"claimName": "data"}},
            {"name": "scratch", "ephemeral": {}},
            {"secret": {"secretName": "vol"}},
            {"configMap": {"name": "cvol"}},
            {"csi": {"nodePublishSecretRef": {"name": "csi"}}},
            {"rbd": {"secretRef": {"name": "rbd"}}},
            {"projected": {"sources": [{"secret": {"name": "proj"}}, {"configMap": {"name": "cproj"}}]}},
        ],
        "resourceClaims": [{"name": "x", "resourceClaimName": "gpu"}],
    })
}

fn volume() -> Value {
    json!({"metadata": {"name": "pv"}, "spec": {
        "claimRef": {"namespace": "a", "name": "data"},
        "csi": {
            "nodeStageSecretRef": {"namespace": "b", "name": "stage"},
            "controllerExpandSecretRef": {"namespace": "b", "name": "expand"},
        },
        "azureFile": {"secretName": "azure"},
    }})
}

fn filled() -> NodeAuthorizer {
    let mut authorizer = NodeAuthorizer::default();
    authorizer.graph.put(Kind::Pod, &pod("p", "n", &full_spec()));
    authorizer.graph.put(Kind::Volume, &volume());
    let on_node = |name: &str| json!({"metadata": {"name": name}, "spec": {"nodeName": "n"}});
    authorizer.graph.put(Kind::VolumeAttachment, &on_node("va"));
    authorizer.graph.put(Kind::ResourceSlice, &on_node("rs"));
    authorizer
}

/// `None` for a yes.
fn ask(authorizer: &NodeAuthorizer, node: &str, line: &str) -> Option<String> {
    let (method, target) = line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = RequestInfo::parse(method, path, query).unwrap();
    let user = User::new(&format!("system:node:{node}"), &["system:nodes"]);
    match authorizer.authorize(&Attributes { user: &user, request: &request }) {
        Decision::Allow { .. } => None,
        Decision::NoOpinion { reason } | Decision::Deny { reason } => Some(reason),
    }
}

#[test]
fn a_node_reads_what_its_pods_need_and_no_other_does() {
    let authorizer = filled();
    for path in [
        "/api/v1/namespaces/a/secrets/pull",
        "/api/v1/namespaces/a/secrets/from",
        "/api/v1/namespaces/a/secrets/env",
        "/api/v1/namespaces/a/secrets/vol",
        "/api/v1/namespaces/a/secrets/csi",
        "/api/v1/namespaces/a/secrets/rbd",
        "/api/v1/namespaces/a/secrets/proj",
        "/api/v1/namespaces/a/secrets/azure",
        "/api/v1/namespaces/b/secrets/stage",
        "/api/v1/namespaces/a/secrets?watch=1&fieldSelector=metadata.name%3Dvol",
        "/api/v1/namespaces/a/configmaps/cfrom",
        "/api/v1/namespaces/a/configmaps/cenv",
        "/api/v1/namespaces/a/configmaps/cvol",
        "/api/v1/namespaces/a/configmaps/cproj",
        "/api/v1/namespaces/a/persistentvolumeclaims/data",
        "/api/v1/namespaces/a/persistentvolumeclaims/p-scratch",
        "/api/v1/persistentvolumes/pv",
        "/api/v1/namespaces/a/serviceaccounts/robot",
        "/api/v1/namespaces/a/pods/p",
        "/apis/resource.k8s.io/v1/namespaces/a/resourceclaims/gpu",
        "/apis/resource.k8s.io/v1/resourceslices/rs",
        "/apis/storage.k8s.io/v1/volumeattachments/va",
    ] {
        let line = format!("GET {path}");
        assert_eq!(ask(&authorizer, "n", &line), None, "{path}");
        let refusal = "no relationship found between node 'm' and this object";
        assert_eq!(ask(&authorizer, "m", &line).as_deref(), Some(refusal), "{path}");
    }
}

#[test]
fn a_node_does_what_its_role_and_its_name_allow() {
    let authorizer = filled();
    for (line, expected) in [
        ("POST /api/v1/namespaces/a/serviceaccounts/robot/token", None),
        ("PATCH /api/v1/namespaces/a/persistentvolumeclaims/data/status", None),
        ("GET /api/v1/namespaces/a/persistentvolumeclaims/data/status", Some("can only get/update/patch this type")),
        ("GET /api/v1/namespaces/b/secrets/expand", Some("no relationship")),
        ("GET /api/v1/namespaces/a/secrets", Some("No Object name found")),
        ("GET /api/v1/secrets", Some("can only read namespaced")),
        ("DELETE /api/v1/namespaces/a/secrets/vol", Some("can only read resources")),
        ("GET /api/v1/persistentvolumes?fieldSelector=metadata.name%3Dpv", Some("can only get individual")),
        ("GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n", None),
        ("POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", None),
        ("GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/m", Some("can only access node lease")),
        ("GET /apis/coordination.k8s.io/v1/namespaces/a/leases/n", Some("leases in the \"kube-node-lease\" system")),
        ("GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", Some("can only get, create")),
        ("PATCH /apis/storage.k8s.io/v1/csinodes/n", None),
        ("PATCH /apis/storage.k8s.io/v1/csinodes/m", Some("can only access CSINode")),
        ("GET /api/v1/nodes/n", None),
        ("GET /api/v1/nodes?watch=1&fieldSelector=metadata.name%3Dn", None),
        ("GET /api/v1/nodes/m", Some("node 'n' cannot read 'm', only its own Node object")),
        ("GET /api/v1/nodes", Some("cannot read all nodes, only")),
        ("PATCH /api/v1/nodes/n/status", None),
        ("DELETE /api/v1/nodes/n", Some("")),
        ("GET /api/v1/nodes/n/proxy", Some("")),
        ("GET /api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn", None),
        ("GET /api/v1/pods?fieldSelector=spec.nodeName%3Dm", Some("can only list/watch pods")),
        ("GET /api/v1/pods?fieldSelector=spec.nodeName!%3Dn", Some("can only list/watch pods")),
        ("GET /api/v1/pods", Some("can only list/watch pods")),
        ("PATCH /api/v1/namespaces/a/pods/p/status", None),
        ("POST /api/v1/namespaces/a/pods/p/eviction", None),
        ("GET /api/v1/namespaces/a/pods/p/log", Some("")),
        ("DELETE /apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.nodeName%3Dn", None),
        ("GET /apis/resource.k8s.io/v1/resourceslices", Some("with nodeName field selector")),
        ("GET /api/v1/services", None),
        ("GET /apis/apps/v1/deployments", Some("")),
        ("GET /metrics", Some("")),
    ] {
        let found = ask(&authorizer, "n", line);
        match (expected, found) {
            (None, found) => assert_eq!(found, None, "{line}"),
            (Some(""), found) => assert_eq!(found.as_deref(), Some(""), "{line}"),
            (Some(part), found) => assert!(found.as_ref().is_some_and(|why| why.contains(part)), "{line}: {found:?}"),
        }
    }
    assert_eq!(ask(&authorizer, "", "GET /api/v1/services").unwrap(), r#"unknown node for user "system:node:""#);
    assert_eq!(node_of(&User::new("system:node:n", &[])), None);
    assert_eq!(node_of(&User::new("ann", &["system:nodes"])), None);
}

#[test]
fn rights_end_with_the_last_pod_that_needs_them() {
    let mut graph = NodeGraph::default();
    let spec = json!({"volumes": [{"secret": {"secretName": "s"}}]});
    graph.put(Kind::Pod, &pod("p", "n", &spec));
    graph.put(Kind::Pod, &pod("q", "n", &spec));
    graph.put(Kind::Pod, &pod("q", "n", &spec));
    graph.remove(Kind::Pod, "a", "p");
    assert!(graph.needs("n", Kind::Secret, "a", "s"));
    graph.put(Kind::Pod, &pod("q", "m", &spec));
    assert!(graph.needs("m", Kind::Secret, "a", "s") && !graph.needs("n", Kind::Secret, "a", "s"));
    graph.put(Kind::Pod, &pod("q", "", &spec));
    assert!(graph.is_empty());
    let mut mirror = pod("w", "n", &spec);
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "x".into();
    graph.put(Kind::Pod, &mirror);
    assert!(graph.needs("n", Kind::Pod, "a", "w") && !graph.needs("n", Kind::Secret, "a", "s"));

    let mut authorizer = filled();
    authorizer.graph.remove(Kind::Volume, "", "pv");
    assert!(!authorizer.graph.needs("n", Kind::Secret, "b", "stage"));
    authorizer.graph.remove(Kind::Pod, "a", "p");
    authorizer.graph.remove(Kind::VolumeAttachment, "", "va");
    authorizer.graph.remove(Kind::ResourceSlice, "", "rs");
    assert!(authorizer.graph.is_empty());
}

proptest! {
    /// Whatever came before, the graph is the one that the objects there are would make.
    #[test]
    fn history_leaves_no_trace(steps in prop::collection::vec((0..3_usize, 0..3_usize, 0..3_usize), 0..40)) {
        let mut graph = NodeGraph::default();
        let mut pods: [Option<(usize, usize)>; 3] = [None; 3];
        for (which, node, secret) in steps {
            let name = format!("p{which}");
            if node == 0 {
                graph.remove(Kind::Pod, "a", &name);
                pods[which] = None;
            } else {
                let spec = json!({"volumes": [{"secret": {"secretName": format!("s{secret}")}}]});
                graph.put(Kind::Pod, &pod(&name, &format!("n{node}"), &spec));
                pods[which] = Some((node, secret));
            }
            for (node, secret) in (1..3).flat_map(|node| (0..3).map(move |secret| (node, secret))) {
                let found = graph.needs(&format!("n{node}"), Kind::Secret, "a", &format!("s{secret}"));
                prop_assert_eq!(found, pods.contains(&Some((node, secret))));
            }
            prop_assert_eq!(graph.is_empty(), pods.iter().all(Option::is_none));
        }
    }
}
