//! What kubelets may write.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k3sd_apiserver_access::User;
use serde_json::{Value, json};

use super::{World, create, update};
use crate::{Attributes, Operation};

static KUBELET: LazyLock<User> = LazyLock::new(|| User::new("system:node:n", &["system:nodes"]));

/// A request with the common name `system:node:node-a` and the organization `system:masters`, made by openssl.
const REQUEST: &str = "\
    MIHyMIGYAgEAMDYxFzAVBgNVBAoMDnN5c3RlbTptYXN0ZXJzMRswGQYDVQQDDBJzeXN0ZW06bm9kZTpub2RlLWEwWTATBgcqhkjO\
    PQIBBggqhkjOPQMBBwNCAASYGrDhNVxBtMRptdKsCegPIcN2SN2TRCU3bqhwlv0MNHf5HlzBvENT76ptm6s1DhV5g+Xa6IVFTBGU\
    A3fV6IpaoAAwCgYIKoZIzj0EAwIDSQAwRgIhAL16aEIfc9LlsxMy6IS2NMlKFRAafYv8bw5trB7ezdPeAiEAxUTb2rRqhTDTeXhV\
    ucf3o/LCxdILOC9pT9ysBTRFxRM=";

fn kubelet(a: Attributes<'_>) -> Attributes<'_> {
    Attributes { user: &KUBELET, ..a }
}

fn world() -> World {
    let world = World::new();
    world.cluster.put("", "nodes", json!({"metadata": {"name": "n", "uid": "node-uid"}}));
    for (name, node) in [("mine", "n"), ("other", "m")] {
        let pod = json!({"metadata": {"namespace": "a", "name": name, "uid": "pod-uid"}, "spec": {"nodeName": node,
        "volumes": [
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"audience": "vault"}}]}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "data"}},
        ]}});
        world.cluster.put("", "pods", pod);
    }
    let claim = json!({"metadata": {"namespace": "a", "name": "data"}, "spec": {"volumeName": "pv"}});
    world.cluster.put("", "persistentvolumeclaims", claim);
    let volume = json!({"metadata": {"name": "pv"}, "spec": {"csi": {"driver": "d.io"}}});
    world.cluster.put("", "persistentvolumes", volume);
    let driver = json!({"metadata": {"name": "d.io"}, "spec": {"tokenRequests": [{"audience": "driver"}]}});
    world.cluster.put("storage.k8s.io", "csidrivers", driver);
    world
}

fn mirror(with: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "metadata": {"name": "p", "annotations": {"kubernetes.io/config.mirror": "h"}, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "node-uid", "controller": true}]},
        "spec": {"nodeName": "n", "containers": [{"name": "c"}]},
    });
    with(&mut pod);
    pod
}

#[tokio::test(start_paused = true)]
async fn only_images_of_files_are_created_as_pods() {
    let world = world();
    let create = kubelet(create("", "pods"));
    assert_eq!(world.refusal(&create, mirror(|_| {})).await, None);
    let first = |pod: &mut Value, name: &str, value: Value| pod["metadata"]["ownerReferences"][0][name] = value;
    for (pod, fault) in [
        (
            mirror(|pod| pod["metadata"]["annotations"] = json!({})),
            r#"pod does not have "kubernetes.io/config.mirror" annotation, node "n" can only create mirror pods"#,
        ),
        (
            mirror(|pod| pod["spec"]["nodeName"] = "m".into()),
            r#"node "n" can only create pods with spec.nodeName set to itself"#,
        ),
        (
            mirror(|pod| pod["metadata"]["ownerReferences"] = json!([])),
            r#"node "n" can only create pods with an owner reference set to itself"#,
        ),
        (
            mirror(|pod| pod["metadata"]["ownerReferences"] = json!([{}, {}])),
            r#"node "n" can only create pods with a single owner reference set to itself"#,
        ),
        (
            mirror(|pod| first(pod, "name", "m".into())),
            r#"node "n" can only create pods with an owner reference set to itself"#,
        ),
        (
            mirror(|pod| first(pod, "controller", false.into())),
            r#"node "n" can only create pods with a controller owner reference set to itself"#,
        ),
        (
            mirror(|pod| first(pod, "blockOwnerDeletion", true.into())),
            r#"node "n" must not set blockOwnerDeletion on an owner reference"#,
        ),
        (mirror(|pod| first(pod, "uid", "x".into())), "node n UID mismatch: expected x got node-uid"),
        (
            mirror(|pod| pod["spec"]["volumes"] = json!([{"configMap": {"name": "m"}}])),
            r#"node "n" can not create pods that reference configmaps"#,
        ),
        (
            mirror(|pod| pod["spec"]["volumes"] = json!([{"persistentVolumeClaim": {"claimName": "m"}}])),
            r#"node "n" can not create pods that reference persistentvolumeclaims"#,
        ),
        (
            mirror(|pod| pod["spec"]["resourceClaims"] = json!([{}])),
            r#"node "n" can not create pods that reference resourceclaims"#,
        ),
    ] {
        // An ordinary pod gets its account first, and so may be refused for that before.
        let why = world.admission.mutate(&create, &mut pod.clone()).await.unwrap_err().message;
        assert_eq!(why, format!("pods \"p\" is forbidden: {fault}"));
    }
}

#[tokio::test(start_paused = true)]
async fn pods_of_other_nodes_are_left_alone() {
    let world = world();
    let old = |node: &str| json!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": node}});
    let (mine, other) = (old("n"), old("m"));
    let delete = |name| Attributes { operation: Operation::Delete, name, ..kubelet(create("", "pods")) };
    let evict = |name| Attributes { subresource: "eviction", name, ..kubelet(create("", "pods")) };
    let status = |old| Attributes { subresource: "status", ..kubelet(update("", "pods", old)) };
    let mut labelled = mine.clone();
    labelled["metadata"]["labels"] = json!({});
    for (attributes, object, fault) in [
        (delete("mine"), Value::Null, None),
        (delete("other"), Value::Null, Some(r#"node "n" can only delete pods with spec.nodeName set to itself"#)),
        (evict("mine"), json!({}), None),
        (evict("other"), json!({}), Some("node n can only evict pods with spec.nodeName set to itself")),
        (evict(""), json!({}), Some("could not determine pod from request data")),
        (status(&mine), mine.clone(), None),
        (
            status(&other),
            other.clone(),
            Some(r#"node "n" can only update pod status for pods with spec.nodeName set to itself"#),
        ),
        (status(&mine), labelled, Some(r#"node "n" cannot update labels through pod status"#)),
        (
            status(&mine),
            json!({"metadata": {"labels": {"a": "b"}}, "status": {"resourceClaimStatuses": [{}]}}),
            Some(r#"node "n" cannot update resource claim statues"#),
        ),
        (
            kubelet(update("", "pods", &mine)),
            mine.clone(),
            Some(r#"unexpected operation "UPDATE", node "n" can only create and delete mirror pods"#),
        ),
        (
            Attributes { subresource: "binding", ..kubelet(create("", "pods")) },
            json!({}),
            Some(r#"unexpected pod subresource "binding", only 'status' and 'eviction' are allowed"#),
        ),
    ] {
        let why = world.refusal(&attributes, object).await;
        assert_eq!(why.is_none(), fault.is_none(), "{fault:?} {why:?}");
        assert!(fault.is_none_or(|fault| why.as_ref().is_some_and(|why| why.ends_with(fault))), "{fault:?} {why:?}");
    }
    assert_eq!(world.refusal(&delete("gone"), Value::Null).await.as_deref(), Some(r#"pods "gone" not found"#));
}

#[tokio::test(start_paused = true)]
async fn a_node_steers_no_work_to_itself() {
    let world = world();
    let node =
        |labels: Value, taints: Value| json!({"metadata": {"name": "n", "labels": labels}, "spec": {"taints": taints}});
    let old = node(json!({"a": "b", "x.k8s.io/y": "z"}), json!([{"key": "k"}]));
    let made = |name| Attributes { name, ..kubelet(create("", "nodes")) };
    let changed = |name| Attributes { name, ..kubelet(update("", "nodes", &old)) };
    let fine =
        json!({"a": "b", "kubernetes.io/hostname": "n", "foo.node.kubernetes.io/x": "y", "node.kubernetes.io/z": "1"});
    let mut owned = old.clone();
    owned["metadata"]["ownerReferences"] = json!([{"name": "x"}]);
    for (attributes, object, fault) in [
        (made("n"), node(fine, Value::Null), None),
        (made("m"), node(json!({}), Value::Null), Some(r#"node "n" is not allowed to modify node "m""#)),
        (
            made("n"),
            node(
                json!({"node-restriction.kubernetes.io/a": "", "b.k8s.io/x": "", "node-role.kubernetes.io/x": ""}),
                Value::Null,
            ),
            Some(
                "node \"n\" is not allowed to set the following labels: b.k8s.io/x, node-restriction.kubernetes.io/a, \
                 node-role.kubernetes.io/x",
            ),
        ),
        (changed("n"), old.clone(), None),
        (changed("m"), old.clone(), Some(r#"node "n" is not allowed to modify node "m""#)),
        (
            changed("n"),
            node(json!({"a": "b", "x.k8s.io/y": "z"}), json!([])),
            Some(r#"node "n" is not allowed to modify taints"#),
        ),
        (
            changed("n"),
            node(json!({"a": "c"}), json!([{"key": "k"}])),
            Some("is not allowed to modify labels: x.k8s.io/y"),
        ),
        (changed("n"), owned, Some(r#"node "n" is not allowed to modify ownerReferences"#)),
    ] {
        let why = world.refusal(&attributes, object).await;
        let expected = fault.map(|fault| format!("nodes {:?} is forbidden: {fault}", attributes.name));
        assert_eq!(why, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_are_for_pods_of_the_node_and_for_whom_they_talk_to() {
    let world = world();
    let token = |name: &str, uid: &str, audiences: Value| {
        json!({"spec": {"audiences": audiences,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}}})
    };
    let ask = Attributes { subresource: "token", name: "default", ..kubelet(create("", "serviceaccounts")) };
    for (request, fault) in [
        (token("mine", "pod-uid", json!(["vault"])), None),
        (token("mine", "pod-uid", json!(["driver"])), None),
        (json!({}), Some("node requested token not bound to a pod")),
        (token("mine", "", json!([])), Some("node requested token with a pod binding without a uid")),
        (
            token("mine", "x", json!([])),
            Some(
                "the UID in the bound object reference (x) does not match the UID in record. The object might have been \
                 deleted and then recreated",
            ),
        ),
        (
            token("other", "pod-uid", json!(["vault"])),
            Some("node requested token bound to a pod scheduled on a different node"),
        ),
        (token("mine", "pod-uid", json!(["a", "b"])), Some("node may only request 0 or 1 audiences")),
        (
            token("mine", "pod-uid", json!(["x"])),
            Some(
                r#"audience "x" not found in pod spec volume, system:node:n is not authorized to request tokens for this audience"#,
            ),
        ),
    ] {
        let why = world.refusal(&ask, request).await;
        assert_eq!(why, fault.map(|fault| format!("serviceaccounts \"default\" is forbidden: {fault}")));
    }
    let gone = world.refusal(&ask, token("gone", "u", json!([]))).await;
    assert_eq!(gone.as_deref(), Some(r#"pods "gone" not found"#));
}

#[tokio::test(start_paused = true)]
async fn leases_slices_claims_and_certificates_are_the_nodes_own() {
    let world = world();
    let old = json!({"metadata": {"name": "c", "resourceVersion": "1"}, "status": {"phase": "Bound"}});
    let named = |name: &str| json!({"metadata": {"name": name}, "spec": {"nodeName": name}});
    let lease = |namespace| Attributes { namespace, ..kubelet(create("coordination.k8s.io", "leases")) };
    let slice = kubelet(create("resource.k8s.io", "resourceslices"));
    let claim = Attributes { subresource: "status", ..kubelet(update("", "persistentvolumeclaims", &old)) };
    let csr = kubelet(create("certificates.k8s.io", "certificatesigningrequests"));
    let request = |text: &str| json!({"spec": {"signerName": "kubernetes.io/kubelet-serving", "request": text}});
    for (attributes, object, fault) in [
        (lease("kube-node-lease"), named("n"), None),
        (
            lease("kube-node-lease"),
            named("m"),
            Some("can only access node lease with the same name as the requesting node"),
        ),
        (lease("a"), named("n"), Some("can only access leases in the \"kube-node-lease\" system namespace")),
        (slice, named("n"), None),
        (slice, named("m"), Some("can only create ResourceSlice with the same NodeName as the requesting node")),
        (claim, json!({"metadata": {"name": "c"}, "status": {"phase": "Bound", "capacity": {"storage": "1"}}}), None),
        (
            claim,
            json!({"metadata": {"name": "c"}, "status": {"phase": "Lost"}}),
            Some(r#"node "n" is not allowed to update fields other than status.quantity and status.conditions"#),
        ),
        (csr, request("x"), Some("unable to parse csr: PEM block type must be CERTIFICATE REQUEST")),
        (kubelet(update("", "persistentvolumeclaims", &old)), json!({}), Some("may only update PVC status")),
    ] {
        let why = world.refusal(&attributes, object).await;
        assert_eq!(why.is_none(), fault.is_none(), "{fault:?} {why:?}");
        assert!(fault.is_none_or(|fault| why.as_ref().is_some_and(|why| why.ends_with(fault))), "{fault:?} {why:?}");
    }
    let nameless = User::new("system:node:", &["system:nodes"]);
    let why = world.refusal(&Attributes { user: &nameless, ..slice }, named("n")).await.unwrap();
    assert!(why.ends_with(r#"could not determine node from user "system:node:""#));
}

/// PEM in base64, as a client sends it.
fn encoded() -> String {
    STANDARD.encode(format!("-----BEGIN CERTIFICATE REQUEST-----\n{REQUEST}\n-----END CERTIFICATE REQUEST-----\n"))
}

#[tokio::test(start_paused = true)]
async fn certificates_name_their_own_node_and_no_masters() {
    let world = world();
    let create = create("certificates.k8s.io", "certificatesigningrequests");
    let request =
        |signer: &str| json!({"metadata": {"name": "r"}, "spec": {"signerName": signer, "request": encoded()}});
    let client = "kubernetes.io/kube-apiserver-client";
    let why = world.refusal(&create, request(client)).await;
    let words = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    assert_eq!(why, Some(format!("certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: {words}")));
    assert_eq!(world.refusal(&create, request("kubernetes.io/kubelet-serving")).await, None);
    let why = world.refusal(&kubelet(create), request("kubernetes.io/kubelet-serving")).await.unwrap();
    assert!(why.ends_with("can only create a node CSR with CN=system:node:n"), "{why}");
    let broken = json!({"metadata": {"name": "r"}, "spec": {"signerName": client, "request": "!"}});
    let why = world.refusal(&create, broken).await.unwrap();
    assert!(why.ends_with("failed to parse CSR: PEM block type must be CERTIFICATE REQUEST"));
}
