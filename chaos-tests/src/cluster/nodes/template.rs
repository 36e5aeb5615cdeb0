//! What the kubelet of a fake node says of its node: pure.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use super::{LABEL, NodesArgs};

/// The taint that a node has from its creation until it is ready.
pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// How long a lease lasts; the kubelet's.
const LEASE_SECONDS: i32 = 40;
const VERSION: &str = "v1.34.1+k3sd1";

/// The node as it registers itself.
pub(super) fn node(args: &NodesArgs, index: usize, wall: Timestamp) -> Node {
    let name = args.name(index);
    let mut labels = json!({
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "amd64",
        "node.kubernetes.io/instance-type": "k3s", LABEL: "true",
    });
    if args.zones > 0 {
        labels["topology.kubernetes.io/region"] = "region-0".into();
        labels["topology.kubernetes.io/zone"] = format!("zone-{}", index % args.zones).into();
    }
    for (key, value) in &args.labels {
        labels[key] = value.as_str().into();
    }
    let node = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": args.taints},
        "status": status(args, index, wall),
    });
    serde_json::from_value(node).expect("a node")
}

/// What it reports.
pub(super) fn status(args: &NodesArgs, index: usize, wall: Timestamp) -> Value {
    let address = address(index);
    json!({
        "capacity": args.capacity,
        "allocatable": args.capacity,
        "addresses": [
            {"type": "InternalIP", "address": address},
            {"type": "Hostname", "address": args.name(index)},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "conditions": conditions(wall),
        "nodeInfo": {
            "architecture": "amd64", "operatingSystem": "linux", "osImage": "none", "kernelVersion": "none",
            "containerRuntimeVersion": "fake://1.0", "kubeletVersion": VERSION, "kubeProxyVersion": "",
            "machineID": address, "systemUUID": address, "bootID": address,
        },
    })
}

/// It has all that it needs, and is ready.
fn conditions(wall: Timestamp) -> Value {
    let now = wall.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |kind: &str, is_true: bool, reason: &str, message: &str| {
        let status = if is_true { "True" } else { "False" };
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    json!([
        condition("MemoryPressure", false, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        condition("Ready", true, "KubeletReady", "kubelet is posting ready status"),
    ])
}

/// The address of a node: each has its own, up to sixty thousand.
fn address(index: usize) -> String {
    format!("172.20.{}.{}", index / 250, index % 250 + 1)
}

/// Its lease, held from now on.
pub(super) fn lease(node: &Node, wall: Timestamp) -> Lease {
    let name = node.metadata.name.clone().unwrap_or_default();
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.clone(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    Lease {
        metadata: ObjectMeta { name: Some(name.clone()), owner_references: Some(vec![owner]), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(name),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(wall)),
            ..LeaseSpec::default()
        }),
    }
}

/// Whether the API shows the node as ready.
pub(super) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True")
}
