//! What `kubectl get` shows.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema::generate::{Dice, object};
use crate::schema::{builtin, resources};

/// 2024-01-02T03:04:05Z and half an hour.
const NOW: i64 = 1_704_164_645 + 1800;
const THEN: &str = "2024-01-02T03:04:05Z";

/// The cells of an object without those of `Name` and `Age`.
fn shown(type_name: &str, mut value: Value) -> Vec<Value> {
    let schema = builtin().type_named(type_name);
    value["metadata"]["name"] = json!("it");
    value["metadata"]["creationTimestamp"] = json!(THEN);
    let cells = cells(&value, schema, NOW);
    let columns = columns(schema);
    assert_eq!(cells.len(), columns.len());
    let mut shown = Vec::new();
    for (column, cell) in columns.iter().zip(cells) {
        match column.name {
            "Name" => assert_eq!(cell, "it"),
            "Age" => assert_eq!(cell, "30m"),
            _ => shown.push(cell),
        }
    }
    shown
}

fn pod(spec: Value, status: Value) -> Vec<Value> {
    shown("core.v1.Pod", json!({ "spec": spec, "status": status }))[..3].to_vec()
}

#[test]
fn each_type_of_the_table_exists_and_every_row_was_read() {
    let mut rows = 0;
    for name in definitions::types() {
        let schema = builtin().type_named(name).unwrap_or_else(|| panic!("no type {name}"));
        rows += columns(Some(schema)).iter().filter(|column| column.name != "Name").count();
    }
    let mut listed = 0;
    let mut types = 0;
    for line in include_str!("../../data/columns.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if line.starts_with(' ') {
            listed += if line.trim_start().starts_with("Name |") { 0 } else { types };
        } else {
            types = line.split(' ').filter(|word| *word != "unnamed").count();
        }
    }
    assert_eq!(rows, listed);
}

#[test]
fn columns_say_what_they_are() {
    let pod = columns(builtin().type_named("core.v1.Pod"));
    let names: Vec<&str> = pod.iter().map(|column| column.name).collect();
    assert_eq!(
        names,
        ["Name", "Ready", "Status", "Restarts", "Age", "IP", "Node", "Nominated Node", "Readiness Gates"]
    );
    assert_eq!((pod[0].kind, pod[0].format, pod[0].priority), ("string", "name", 0));
    assert_eq!((pod[5].format, pod[5].priority), ("", 1));
    let event = columns(builtin().type_named("core.v1.Event"));
    assert_eq!((event[9].name, event[9].format, event[9].priority), ("Name", "name", 1));
    let other: Vec<&str> = columns(None).iter().map(|column| column.name).collect();
    assert_eq!(other, ["Name", "Created At"]);
    assert_eq!(columns(None)[1].kind, "date");
}

#[test]
fn the_status_of_a_pod_is_what_its_containers_tell() {
    let one = json!({ "containers": [{ "name": "a" }] });
    let two = json!({ "containers": [{ "name": "a" }, { "name": "b" }] });
    let init = json!({ "containers": [{ "name": "a" }], "initContainers": [{ "name": "i" }, { "name": "j" }] });
    let side =
        json!({ "containers": [{ "name": "a" }], "initContainers": [{ "name": "i", "restartPolicy": "Always" }] });
    let running = json!({ "name": "a", "ready": true, "state": { "running": {} } });
    let done = json!({ "name": "b", "state": { "terminated": { "reason": "Completed", "exitCode": 0 } } });
    for (spec, status, expected) in [
        (&one, json!({ "phase": "Pending" }), ["0/1", "Pending", "0"]),
        (&one, json!({ "phase": "Running", "containerStatuses": [running] }), ["1/1", "Running", "0"]),
        (&one, json!({ "phase": "Failed", "reason": "Evicted" }), ["0/1", "Evicted", "0"]),
        (
            &one,
            json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "SchedulingGated" }] }),
            ["0/1", "SchedulingGated", "0"],
        ),
        (
            &one,
            json!({ "phase": "Running", "containerStatuses": [{ "restartCount": 3, "state": { "waiting": { "reason": "CrashLoopBackOff" } },
                "lastState": { "terminated": { "finishedAt": "2024-01-02T03:29:05Z" } } }] }),
            ["0/1", "CrashLoopBackOff", "3 (5m ago)"],
        ),
        (
            &two,
            json!({ "phase": "Running", "containerStatuses": [done, running], "conditions": [{ "type": "Ready", "status": "True" }] }),
            ["1/2", "Running", "0"],
        ),
        (&two, json!({ "phase": "Running", "containerStatuses": [done, running] }), ["1/2", "NotReady", "0"]),
        (&one, json!({ "phase": "Succeeded", "containerStatuses": [done] }), ["0/1", "Completed", "0"]),
        (
            &two,
            json!({ "phase": "Failed", "containerStatuses": [done, { "state": { "terminated": { "exitCode": 2 } } }] }),
            ["0/2", "ExitCode:2", "0"],
        ),
        (
            &one,
            json!({ "phase": "Failed", "containerStatuses": [{ "state": { "terminated": { "exitCode": 137, "signal": 9 } } }] }),
            ["0/1", "Signal:9", "0"],
        ),
        (
            &init,
            json!({ "phase": "Pending", "initContainerStatuses": [{ "name": "i", "restartCount": 1, "state": { "terminated": { "exitCode": 0 } } },
                { "name": "j", "state": { "running": {} } }] }),
            ["0/1", "Init:1/2", "1"],
        ),
        (
            &init,
            json!({ "phase": "Pending", "initContainerStatuses": [{ "name": "i", "state": { "terminated": { "exitCode": 1, "reason": "Error" } } }] }),
            ["0/1", "Init:Error", "0"],
        ),
        (
            &init,
            json!({ "phase": "Pending", "initContainerStatuses": [{ "name": "i", "state": { "waiting": { "reason": "ImagePullBackOff" } } }] }),
            ["0/1", "Init:ImagePullBackOff", "0"],
        ),
        (
            &side,
            json!({ "phase": "Running", "initContainerStatuses": [{ "name": "i", "started": true, "ready": true, "restartCount": 2,
                "state": { "running": {} } }], "containerStatuses": [running] }),
            ["2/2", "Running", "2"],
        ),
    ] {
        assert_eq!(pod(spec.clone(), status.clone()), expected, "{status}");
    }
    let gone = json!({ "metadata": { "deletionTimestamp": THEN }, "spec": one, "status": { "phase": "Running" } });
    assert_eq!(shown("core.v1.Pod", gone)[1], "Terminating");
}

#[test]
fn the_wide_columns_of_a_pod() {
    let value = json!({ "spec": { "nodeName": "n", "readinessGates": [{ "conditionType": "a" }, { "conditionType": "b" }] },
        "status": { "podIPs": [{ "ip": "10.0.0.1" }], "conditions": [{ "type": "a", "status": "True" }] } });
    assert_eq!(shown("core.v1.Pod", value)[3..], ["10.0.0.1", "n", "<none>", "1/2"]);
    assert_eq!(shown("core.v1.Pod", json!({}))[3..], ["<none>", "<none>", "<none>", "<none>"]);
}

#[test]
fn pods_that_ended_are_told_apart() {
    let schema = builtin().type_named("core.v1.Pod");
    assert_eq!(conditions(&json!({ "status": { "phase": "Failed" } }), schema).unwrap()[0]["reason"], "Failed");
    assert_eq!(conditions(&json!({ "status": { "phase": "Running" } }), schema), None);
    assert_eq!(conditions(&json!({ "status": { "phase": "Failed" } }), builtin().type_named("core.v1.Node")), None);
}

#[test]
fn cells_of_many_kinds() {
    let template = json!({ "spec": { "containers": [{ "name": "a", "image": "x" }, { "name": "b", "image": "y" }] } });
    for (type_name, value, expected) in [
        ("core.v1.ConfigMap", json!({ "data": { "a": "" }, "binaryData": { "b": "" } }), json!([2])),
        ("core.v1.ServiceAccount", json!({ "secrets": [{}] }), json!([1])),
        ("core.v1.LimitRange", json!({}), json!([THEN])),
        ("core.v1.Secret", json!({ "type": "Opaque" }), json!(["Opaque", 0])),
        (
            "apps.v1.Deployment",
            json!({ "spec": { "replicas": 3, "template": template, "selector": { "matchLabels": { "b": "2", "a": "1" } } },
                "status": { "readyReplicas": 2, "updatedReplicas": 1 } }),
            json!(["2/3", 1, 0, "a,b", "x,y", "a=1,b=2"]),
        ),
        (
            "apps.v1.ReplicaSet",
            json!({ "spec": { "replicas": 3, "selector": { "matchExpressions": [{ "key": "a", "operator": "Exists" }] } } }),
            json!([3, 0, 0, "", "", "a"]),
        ),
        (
            "core.v1.ReplicationController",
            json!({ "spec": { "selector": { "a": "b" } } }),
            json!([0, 0, 0, "", "", "a=b"]),
        ),
        (
            "core.v1.Service",
            json!({ "spec": { "type": "NodePort", "clusterIPs": ["10.0.0.1"], "ports": [{ "port": 80, "protocol": "TCP", "nodePort": 30080 },
                { "port": 53, "protocol": "UDP" }], "selector": { "a": "b" } } }),
            json!(["NodePort", "10.0.0.1", "<none>", "80:30080/TCP,53/UDP", "a=b"]),
        ),
        (
            "core.v1.Service",
            json!({ "spec": { "type": "LoadBalancer" } }),
            json!(["LoadBalancer", "<none>", "<pending>", "<none>", "<none>"]),
        ),
        (
            "core.v1.Service",
            json!({ "spec": { "type": "LoadBalancer", "externalIPs": ["9.9.9.9"] }, "status": { "loadBalancer": { "ingress": [{ "ip": "2.2.2.2" }, { "hostname": "1.h" }] } } }),
            json!(["LoadBalancer", "<none>", "1.h,2.2.2.2,9.9.9.9", "<none>", "<none>"]),
        ),
        (
            "core.v1.Service",
            json!({ "spec": { "type": "ExternalName", "externalName": "x.y" } }),
            json!(["ExternalName", "<none>", "x.y", "<none>", "<none>"]),
        ),
        (
            "networking.v1.Ingress",
            json!({ "spec": { "ingressClassName": "c", "tls": [{}], "rules": [{ "host": "a" }, { "host": "b" }, {}, { "host": "c" }, { "host": "d" }] } }),
            json!(["c", "a,b,c + 1 more...", "", "80, 443"]),
        ),
        (
            "networking.v1.Ingress",
            json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "1.2.3.4" }] } } }),
            json!(["<none>", "*", "1.2.3.4", "80"]),
        ),
        (
            "core.v1.Endpoints",
            json!({ "subsets": [{ "addresses": [{ "ip": "1.1.1.1" }, { "ip": "fd::1" }], "ports": [{ "port": 1 }, { "port": 2 }] }] }),
            json!(["1.1.1.1:1,[fd::1]:1,1.1.1.1:2 + 1 more..."]),
        ),
        ("core.v1.Endpoints", json!({}), json!(["<none>"])),
        (
            "discovery.v1.EndpointSlice",
            json!({ "addressType": "IPv4", "ports": [{ "port": 1 }, { "name": "x" }, {}], "endpoints": [{ "addresses": ["1.1.1.1"] }] }),
            json!(["IPv4", "1,x,*", "1.1.1.1"]),
        ),
        (
            "core.v1.Node",
            json!({ "metadata": { "labels": { "node-role.kubernetes.io/master": "true", "node-role.kubernetes.io/control-plane": "" } },
                "spec": { "unschedulable": true }, "status": { "conditions": [{ "type": "Ready", "status": "True" }],
                "addresses": [{ "type": "InternalIP", "address": "1.1.1.1" }], "nodeInfo": { "kubeletVersion": "v1.34.1" } } }),
            json!([
                "Ready,SchedulingDisabled",
                "control-plane,master",
                "v1.34.1",
                "1.1.1.1",
                "<none>",
                "<unknown>",
                "<unknown>",
                "<unknown>"
            ]),
        ),
        (
            "core.v1.Node",
            json!({}),
            json!(["Unknown", "<none>", "", "<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"]),
        ),
        (
            "core.v1.Event",
            json!({ "involvedObject": { "kind": "Pod", "name": "p", "fieldPath": "spec" }, "type": "Normal", "reason": "R", "message": " m\n",
                "lastTimestamp": THEN, "firstTimestamp": THEN, "count": 4, "source": { "component": "kubelet", "host": "n" } }),
            json!(["30m", "Normal", "R", "pod/p", "spec", "kubelet, n", "m", "30m", 4]),
        ),
        (
            "events.v1.Event",
            json!({ "regarding": { "kind": "Pod", "name": "p" }, "note": "m", "eventTime": THEN, "reportingController": "c", "reportingInstance": "i" }),
            json!(["30m", "", "", "pod/p", "", "c, i", "m", "30m", 1]),
        ),
        (
            "core.v1.PersistentVolume",
            json!({ "spec": { "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": { "namespace": "d", "name": "c" }, "volumeMode": "Filesystem" }, "status": { "phase": "Bound" } }),
            json!(["1Gi", "RWO,RWX", "Retain", "Bound", "d/c", "", "<unset>", "", "Filesystem"]),
        ),
        (
            "core.v1.PersistentVolumeClaim",
            json!({ "spec": { "accessModes": ["ReadWriteOnce"] }, "status": { "phase": "Pending", "capacity": { "storage": "1Gi" } } }),
            json!(["Pending", "", "", "", "", "<unset>", "<unset>"]),
        ),
        (
            "core.v1.PersistentVolumeClaim",
            json!({ "metadata": { "deletionTimestamp": THEN }, "spec": { "volumeName": "v" }, "status": { "accessModes": ["ReadWriteOncePod"], "capacity": { "storage": "1Gi" } } }),
            json!(["Terminating", "v", "1Gi", "RWOP", "", "<unset>", "<unset>"]),
        ),
        (
            "batch.v1.Job",
            json!({ "spec": { "completions": 2 }, "status": { "succeeded": 1, "startTime": THEN } }),
            json!(["Running", "1/2", "30m", "", "", "<none>"]),
        ),
        (
            "batch.v1.Job",
            json!({ "spec": { "parallelism": 3 }, "status": { "startTime": THEN, "completionTime": "2024-01-02T03:05:05Z", "conditions": [{ "type": "Complete", "status": "True" }] } }),
            json!(["Complete", "0/1 of 3", "60s", "", "", "<none>"]),
        ),
        (
            "batch.v1.CronJob",
            json!({ "spec": { "schedule": "* * * * *", "suspend": false }, "status": { "active": [{}, {}] } }),
            json!(["* * * * *", "<none>", "False", 2, "<none>", "", "", "<none>"]),
        ),
        (
            "autoscaling.v2.HorizontalPodAutoscaler",
            json!({ "spec": { "scaleTargetRef": { "kind": "Deployment", "name": "d" }, "minReplicas": 1, "maxReplicas": 3, "metrics": [
                { "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 80 } } },
                { "type": "External", "external": { "target": { "averageValue": "5" } } }, { "type": "Pods" }] },
                "status": { "currentMetrics": [{ "type": "Resource", "resource": { "name": "cpu", "current": { "averageUtilization": 10 } } }] } }),
            json!(["Deployment/d", "cpu: 10%/80%, <unknown>/5 (avg) + 1 more...", "1", 3, 0]),
        ),
        (
            "rbac.v1.RoleBinding",
            json!({ "roleRef": { "kind": "Role", "name": "r" }, "subjects": [{ "kind": "User", "name": "u" }, { "kind": "User", "name": "v" },
                { "kind": "ServiceAccount", "namespace": "n", "name": "s" }] }),
            json!(["Role/r", "u, v", "", "n/s"]),
        ),
        ("rbac.v1.Role", json!({}), json!([THEN])),
        (
            "certificates.v1.CertificateSigningRequest",
            json!({ "spec": { "signerName": "s", "username": "u", "expirationSeconds": 3600 }, "status": { "certificate": "eA==", "conditions": [{ "type": "Approved" }] } }),
            json!(["s", "u", "60m", "Approved,Issued"]),
        ),
        ("storage.v1.StorageClass", json!({ "provisioner": "p" }), json!(["p", "Delete", "Immediate", false])),
        (
            "core.v1.ResourceQuota",
            json!({ "status": { "hard": { "cpu": "2", "limits.cpu": "4", "pods": "10" }, "used": { "cpu": "500m", "pods": "0" } } }),
            json!(["cpu: 500m/2, pods: 0/10", "limits.cpu: 0/4"]),
        ),
        (
            "apps.v1.ControllerRevision",
            json!({ "revision": 3, "metadata": { "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "controller": true }] } }),
            json!(["daemonset.apps/d", 3]),
        ),
        (
            "apiregistration.v1.APIService",
            json!({ "status": { "conditions": [{ "type": "Available", "status": "True", "reason": "Local" }] } }),
            json!(["Local", "True"]),
        ),
        (
            "apiregistration.v1.APIService",
            json!({ "spec": { "service": { "namespace": "n", "name": "s" } }, "status": { "conditions": [{ "type": "Available", "status": "False", "reason": "MissingEndpoints" }] } }),
            json!(["n/s", "False (MissingEndpoints)"]),
        ),
        (
            "networking.v1.IPAddress",
            json!({ "spec": { "parentRef": { "resource": "services", "namespace": "n", "name": "s" } } }),
            json!(["services/n/s"]),
        ),
        (
            "resource.v1.ResourceClaim",
            json!({ "status": { "allocation": {}, "reservedFor": [{}] } }),
            json!(["allocated,reserved"]),
        ),
        (
            "admissionregistration.v1.ValidatingAdmissionPolicyBinding",
            json!({ "spec": { "policyName": "p", "paramRef": { "name": "x" } } }),
            json!(["p", "*/x"]),
        ),
        (
            "storage.v1.CSIDriver",
            json!({ "spec": { "attachRequired": true, "tokenRequests": [{ "audience": "a" }, { "audience": "b" }] } }),
            json!([true, false, false, "a,b", false, "<none>"]),
        ),
    ] {
        assert_eq!(Value::from(shown(type_name, value)), expected, "{type_name}");
    }
}

#[test]
fn the_name_of_a_default_storage_class_says_so() {
    let mut class = json!({ "metadata": { "name": "local-path", "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } } });
    let schema = builtin().type_named("storage.v1.StorageClass");
    assert_eq!(cells(&class, schema, NOW)[0], "local-path (default)");
    class["metadata"]["annotations"] = json!({});
    assert_eq!(cells(&class, schema, NOW)[0], "local-path");
}

#[test]
fn an_autoscaler_of_the_older_version_shows_the_same() {
    let value = json!({ "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "spec": { "scaleTargetRef": { "kind": "D", "name": "d" }, "maxReplicas": 2, "targetCPUUtilizationPercentage": 50 } });
    assert_eq!(
        shown("autoscaling.v1.HorizontalPodAutoscaler", value),
        [json!("D/d"), json!("cpu: <unknown>/50%"), json!("<unset>"), json!(2), json!(0)]
    );
}

proptest! {
    #[test]
    fn every_object_has_a_cell_per_column(seed: u64, now: i64) {
        let resource = &resources()[usize::try_from(seed % resources().len() as u64).unwrap()];
        let schema = builtin().type_named(resource.type_name);
        let value = object(schema.unwrap(), &resource.api_version(), resource.kind, &mut Dice(seed));
        prop_assert_eq!(cells(&value, schema, now).len(), columns(schema).len());
    }

    #[test]
    fn no_value_breaks_it(seed: u64, text in "[{}\\[\\]:,\"a-c0-9]{0,40}") {
        let value = crate::decode::json(text.as_bytes(), None).map_or(Value::Null, |decoded| decoded.value);
        let resource = &resources()[usize::try_from(seed % resources().len() as u64).unwrap()];
        let object = json!({ "spec": value, "status": value, "metadata": value, "subsets": value, "series": value });
        cells(&object, builtin().type_named(resource.type_name), 0);
        conditions(&value, builtin().type_named("core.v1.Pod"));
    }
}
