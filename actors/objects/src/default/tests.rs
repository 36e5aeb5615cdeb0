//! Every row of upstream's defaults, and what holds for all kinds.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::table::{Condition, ROWS};
use super::*;
use crate::decode::check;
use crate::schema::generate::{Dice, object};
use crate::schema::{builtin, resources, structural};

/// Applies the defaults and looks at some places.
fn check_defaults(type_name: &str, mut value: Value, expected: &[(&str, Value)]) {
    let schema = builtin().type_named(type_name).unwrap();
    apply(&mut value, schema);
    for (pointer, expected) in expected {
        let found = value.pointer(pointer).cloned().unwrap_or(json!("nothing"));
        assert_eq!(found, *expected, "{type_name} {pointer} in {value}");
    }
    let mut again = value.clone();
    apply(&mut again, schema);
    assert_eq!(again, value, "twice");
}

fn nothing() -> Value {
    json!("nothing")
}

/// A pod of one container with some fields.
fn pod(container: Value) -> Value {
    json!({ "spec": { "containers": [container] } })
}

#[test]
fn each_row_of_the_table_fits_the_schema() {
    for (type_name, rows) in ROWS.iter() {
        let schema = builtin().type_named(type_name).unwrap_or_else(|| panic!("no type {type_name}"));
        for row in rows {
            let value = json!({ row.field: row.value });
            let checked = check(value.clone(), schema).unwrap();
            assert_eq!((checked.value, checked.strict), (value, Vec::new()), "{type_name}");
            if let Condition::Given(field) | Condition::Absent(field) | Condition::OneOf(field, _) = &row.condition {
                assert!(schema.property(field).is_some(), "{type_name}: {field}");
            }
        }
    }
    let lines = include_str!("../../data/defaults.txt").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    assert_eq!(ROWS.values().map(Vec::len).sum::<usize>(), lines, "every line is read");
}

#[test]
fn containers() {
    check_defaults(
        "core.v1.Pod",
        pod(json!({
            "name": "c", "image": "nginx", "ports": [{ "containerPort": 80 }], "securityContext": {},
            "livenessProbe": { "httpGet": { "port": 1 } }, "readinessProbe": { "grpc": { "port": 1 }, "periodSeconds": 3 },
            "lifecycle": { "preStop": { "httpGet": { "port": 1, "path": "/x" } } },
            "env": [{ "name": "a", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                    { "name": "b", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } }],
            "resources": { "limits": { "cpu": "0.1m", "memory": "1Gi" }, "requests": { "memory": "1" } },
        })),
        &[
            ("/spec/containers/0/imagePullPolicy", json!("Always")),
            ("/spec/containers/0/terminationMessagePath", json!("/dev/termination-log")),
            ("/spec/containers/0/terminationMessagePolicy", json!("File")),
            ("/spec/containers/0/ports/0/protocol", json!("TCP")),
            ("/spec/containers/0/ports/0/hostPort", nothing()),
            ("/spec/containers/0/securityContext", json!({})),
            ("/spec/containers/0/livenessProbe/httpGet", json!({ "path": "/", "port": 1, "scheme": "HTTP" })),
            ("/spec/containers/0/livenessProbe/timeoutSeconds", json!(1)),
            ("/spec/containers/0/livenessProbe/periodSeconds", json!(10)),
            ("/spec/containers/0/livenessProbe/successThreshold", json!(1)),
            ("/spec/containers/0/livenessProbe/failureThreshold", json!(3)),
            ("/spec/containers/0/readinessProbe/grpc/service", json!("")),
            ("/spec/containers/0/readinessProbe/periodSeconds", json!(3)),
            ("/spec/containers/0/lifecycle/preStop/httpGet", json!({ "path": "/x", "port": 1, "scheme": "HTTP" })),
            ("/spec/containers/0/env/0/valueFrom/fieldRef/apiVersion", json!("v1")),
            ("/spec/containers/0/env/1/valueFrom/resourceFieldRef/divisor", json!("0")),
            ("/spec/containers/0/resources/limits", json!({ "cpu": "1m", "memory": "1Gi" })),
            ("/spec/containers/0/resources/requests", json!({ "cpu": "1m", "memory": "1" })),
        ],
    );
}

#[test]
fn pods_and_templates() {
    let spec = |template: bool| if template { "/spec/template/spec" } else { "/spec" };
    for (type_name, value, template) in [
        ("core.v1.Pod", pod(json!({ "name": "a" })), false),
        ("apps.v1.Deployment", json!({ "spec": { "template": pod(json!({ "name": "a" })) } }), true),
    ] {
        let at = |field: &str| format!("{}/{field}", spec(template));
        let links = if template { nothing() } else { json!(true) };
        check_defaults(
            type_name,
            value,
            &[
                (&at("dnsPolicy"), json!("ClusterFirst")),
                (&at("restartPolicy"), json!("Always")),
                (&at("securityContext"), json!({})),
                (&at("terminationGracePeriodSeconds"), json!(30)),
                (&at("schedulerName"), json!("default-scheduler")),
                (&at("enableServiceLinks"), links),
                (&at("hostNetwork"), nothing()),
            ],
        );
    }
    check_defaults(
        "core.v1.Pod",
        json!({ "spec": { "hostNetwork": true, "serviceAccount": "s", "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "a", "ports": [{ "containerPort": 80 }] }],
            "initContainers": [{ "name": "b", "ports": [{ "containerPort": 81, "hostPort": 9 }] }] },
            "status": { "podIPs": [{ "ip": "10.0.0.1" }, { "ip": "fd::1" }] } }),
        &[
            ("/spec/containers/0/ports/0/hostPort", json!(80)),
            ("/spec/initContainers/0/ports/0/hostPort", json!(9)),
            ("/spec/serviceAccountName", json!("s")),
            ("/spec/terminationGracePeriodSeconds", json!(0)),
            ("/status/podIP", json!("10.0.0.1")),
        ],
    );
}

#[test]
fn the_resources_of_a_whole_pod() {
    let container =
        |cpu: &str| json!({ "name": "c", "resources": { "requests": { "cpu": cpu, "example.org/x": "1" } } });
    let huge = json!({ "name": "h", "resources": { "limits": { "hugepages-2Mi": "4Mi" } } });
    let mut sidecar = container("200m");
    sidecar["restartPolicy"] = json!("Always");
    check_defaults(
        "core.v1.Pod",
        json!({ "spec": { "containers": [container("100m"), container("300m"), huge], "initContainers": [sidecar,
            container("1")], "resources": { "limits": { "memory": "1Gi", "cpu": "2" } } } }),
        &[
            ("/spec/resources/requests", json!({ "cpu": "1200m", "memory": "1Gi", "hugepages-2Mi": "4Mi" })),
            ("/spec/resources/limits", json!({ "cpu": "2", "memory": "1Gi", "hugepages-2Mi": "4Mi" })),
        ],
    );
    check_defaults("core.v1.Pod", pod(container("1")), &[("/spec/resources", nothing())]);
    // Without a limit of the whole, nothing is worked out for it.
    check_defaults(
        "core.v1.Pod",
        json!({ "spec": { "containers": [container("1")], "resources": { "requests": { "memory": "1Gi" } } } }),
        &[("/spec/resources/requests", json!({ "memory": "1Gi" }))],
    );
}

#[test]
fn volumes() {
    check_defaults(
        "core.v1.Pod",
        json!({ "spec": { "containers": [], "volumes": [
            { "name": "a" }, { "name": "b", "secret": {} }, { "name": "c", "configMap": {} },
            { "name": "d", "downwardAPI": {} }, { "name": "e", "projected": { "sources": [{ "serviceAccountToken": { "path": "t" } }] } },
            { "name": "f", "hostPath": { "path": "/" } }, { "name": "g", "iscsi": {} }, { "name": "h", "rbd": {} },
            { "name": "i", "azureDisk": {} }, { "name": "j", "scaleIO": {} }, { "name": "k", "image": { "reference": "x:1" } },
            { "name": "l", "secret": { "defaultMode": 0 } },
            { "name": "m", "ephemeral": { "volumeClaimTemplate": { "spec": {} } } },
        ] } }),
        &[
            ("/spec/volumes/0/emptyDir", json!({})),
            ("/spec/volumes/1/secret/defaultMode", json!(420)),
            ("/spec/volumes/1/emptyDir", nothing()),
            ("/spec/volumes/2/configMap/defaultMode", json!(420)),
            ("/spec/volumes/3/downwardAPI/defaultMode", json!(420)),
            ("/spec/volumes/4/projected/defaultMode", json!(420)),
            ("/spec/volumes/4/projected/sources/0/serviceAccountToken/expirationSeconds", json!(3600)),
            ("/spec/volumes/5/hostPath/type", json!("")),
            ("/spec/volumes/6/iscsi/iscsiInterface", json!("default")),
            ("/spec/volumes/7/rbd/pool", json!("rbd")),
            ("/spec/volumes/7/rbd/user", json!("admin")),
            ("/spec/volumes/7/rbd/keyring", json!("/etc/ceph/keyring")),
            ("/spec/volumes/8/azureDisk/cachingMode", json!("ReadWrite")),
            ("/spec/volumes/8/azureDisk/kind", json!("Shared")),
            ("/spec/volumes/8/azureDisk/fsType", json!("ext4")),
            ("/spec/volumes/8/azureDisk/readOnly", json!(false)),
            ("/spec/volumes/9/scaleIO/storageMode", json!("ThinProvisioned")),
            ("/spec/volumes/9/scaleIO/fsType", json!("xfs")),
            ("/spec/volumes/10/image/pullPolicy", json!("IfNotPresent")),
            ("/spec/volumes/11/secret/defaultMode", json!(0)),
            ("/spec/volumes/12/ephemeral/volumeClaimTemplate/spec/volumeMode", json!("Filesystem")),
        ],
    );
}

#[test]
fn services() {
    check_defaults(
        "core.v1.Service",
        json!({ "spec": { "ports": [{ "port": 80 }, { "port": 81, "targetPort": "web", "protocol": "UDP" }],
            "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 1 } } } }),
        &[
            ("/spec/type", json!("ClusterIP")),
            ("/spec/sessionAffinity", json!("None")),
            ("/spec/sessionAffinityConfig", nothing()),
            (
                "/spec/ports",
                json!([{ "port": 80, "protocol": "TCP", "targetPort": 80 },
                { "port": 81, "protocol": "UDP", "targetPort": "web" }]),
            ),
            ("/spec/internalTrafficPolicy", json!("Cluster")),
            ("/spec/externalTrafficPolicy", nothing()),
            ("/spec/allocateLoadBalancerNodePorts", nothing()),
            ("/status/loadBalancer", json!({})),
        ],
    );
    check_defaults(
        "core.v1.Service",
        json!({ "spec": { "type": "LoadBalancer", "sessionAffinity": "ClientIP" },
            "status": { "loadBalancer": { "ingress": [{ "ip": "1.2.3.4" }, { "hostname": "h" }] } } }),
        &[
            ("/spec/sessionAffinityConfig/clientIP/timeoutSeconds", json!(10800)),
            ("/spec/externalTrafficPolicy", json!("Cluster")),
            ("/spec/allocateLoadBalancerNodePorts", json!(true)),
            ("/status/loadBalancer/ingress/0/ipMode", json!("VIP")),
            ("/status/loadBalancer/ingress/1/ipMode", nothing()),
        ],
    );
    check_defaults(
        "core.v1.Service",
        json!({ "spec": { "externalIPs": ["1.2.3.4"] } }),
        &[("/spec/externalTrafficPolicy", json!("Cluster"))],
    );
    check_defaults(
        "core.v1.Service",
        json!({ "spec": { "type": "ExternalName", "externalName": "x" } }),
        &[("/spec/internalTrafficPolicy", nothing()), ("/spec/externalTrafficPolicy", nothing())],
    );
    check_defaults(
        "core.v1.Endpoints",
        json!({ "subsets": [{ "ports": [{ "port": 1 }] }] }),
        &[("/subsets/0/ports/0/protocol", json!("TCP"))],
    );
}

#[test]
fn the_rest_of_core() {
    let labels = json!({ "app": "x" });
    let template = json!({ "metadata": { "labels": labels } });
    for (type_name, value, expected) in [
        (
            "core.v1.ReplicationController",
            json!({ "spec": { "template": template } }),
            vec![
                ("/spec/selector", labels.clone()),
                ("/metadata/labels", labels.clone()),
                ("/spec/replicas", json!(1)),
            ],
        ),
        (
            "core.v1.ReplicationController",
            json!({ "spec": { "replicas": 0, "selector": { "a": "b" }, "template": template } }),
            vec![("/spec/selector", json!({ "a": "b" })), ("/spec/replicas", json!(0))],
        ),
        (
            "core.v1.Namespace",
            json!({ "metadata": { "name": "n", "labels": { "kubernetes.io/metadata.name": "wrong" } } }),
            vec![
                ("/metadata/labels", json!({ "kubernetes.io/metadata.name": "n" })),
                ("/status/phase", json!("Active")),
            ],
        ),
        ("core.v1.Namespace", json!({ "metadata": { "generateName": "n" } }), vec![("/metadata/labels", nothing())]),
        ("core.v1.Secret", json!({}), vec![("/type", json!("Opaque"))]),
        (
            "core.v1.PersistentVolume",
            json!({ "spec": { "rbd": {}, "hostPath": { "path": "/" } } }),
            vec![
                ("/spec/persistentVolumeReclaimPolicy", json!("Retain")),
                ("/spec/volumeMode", json!("Filesystem")),
                ("/status/phase", json!("Pending")),
                ("/spec/rbd/user", json!("admin")),
                ("/spec/hostPath/type", json!("")),
            ],
        ),
        (
            "core.v1.PersistentVolumeClaim",
            json!({ "spec": { "storageClassName": "" } }),
            vec![
                ("/spec/volumeMode", json!("Filesystem")),
                ("/status/phase", json!("Pending")),
                ("/spec/storageClassName", json!("")),
            ],
        ),
        (
            "core.v1.Node",
            json!({ "spec": { "podCIDR": "10.0.0.0/24" }, "status": { "capacity": { "cpu": "2" } } }),
            vec![("/status/allocatable", json!({ "cpu": "2" })), ("/spec/podCIDRs", json!(["10.0.0.0/24"]))],
        ),
        (
            "core.v1.LimitRange",
            json!({ "spec": { "limits": [{ "type": "Container", "max": { "cpu": "2", "memory": "1Gi" },
                "min": { "storage": "1" }, "default": { "cpu": "1" }, "defaultRequest": { "memory": "1Mi" } },
                { "type": "Pod", "max": { "cpu": "2" } }] } }),
            vec![
                ("/spec/limits/0/default", json!({ "cpu": "1", "memory": "1Gi" })),
                ("/spec/limits/0/defaultRequest", json!({ "cpu": "1", "memory": "1Mi", "storage": "1" })),
                ("/spec/limits/1/default", nothing()),
            ],
        ),
        ("core.v1.ConfigMap", json!({ "data": {} }), vec![("/data", nothing())]),
        ("core.v1.Event", json!({}), vec![("/reportingComponent", json!("")), ("/eventTime", Value::Null)]),
    ] {
        check_defaults(type_name, value, &expected);
    }
}

#[test]
fn workloads() {
    for (type_name, value, expected) in [
        (
            "apps.v1.Deployment",
            json!({ "spec": {} }),
            vec![
                ("/spec/replicas", json!(1)),
                ("/spec/revisionHistoryLimit", json!(10)),
                ("/spec/progressDeadlineSeconds", json!(600)),
                (
                    "/spec/strategy",
                    json!({ "type": "RollingUpdate",
                    "rollingUpdate": { "maxUnavailable": "25%", "maxSurge": "25%" } }),
                ),
            ],
        ),
        (
            "apps.v1.Deployment",
            json!({ "spec": { "replicas": 0, "strategy": { "type": "Recreate" } } }),
            vec![("/spec/replicas", json!(0)), ("/spec/strategy", json!({ "type": "Recreate" }))],
        ),
        (
            "apps.v1.DaemonSet",
            json!({ "spec": { "updateStrategy": { "rollingUpdate": { "maxSurge": 0 } } } }),
            vec![
                ("/spec/revisionHistoryLimit", json!(10)),
                (
                    "/spec/updateStrategy",
                    json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 0 } }),
                ),
            ],
        ),
        (
            "apps.v1.StatefulSet",
            json!({ "spec": { "volumeClaimTemplates": [{}] } }),
            vec![
                ("/spec/replicas", json!(1)),
                ("/spec/podManagementPolicy", json!("OrderedReady")),
                ("/spec/updateStrategy", json!({ "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } })),
                (
                    "/spec/persistentVolumeClaimRetentionPolicy",
                    json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }),
                ),
                ("/spec/revisionHistoryLimit", json!(10)),
                ("/spec/volumeClaimTemplates/0/spec/volumeMode", json!("Filesystem")),
                ("/spec/volumeClaimTemplates/0/status/phase", json!("Pending")),
            ],
        ),
        (
            "apps.v1.StatefulSet",
            json!({ "spec": { "updateStrategy": { "type": "RollingUpdate" } } }),
            vec![("/spec/updateStrategy", json!({ "type": "RollingUpdate" }))],
        ),
        ("apps.v1.ReplicaSet", json!({}), vec![("/spec/replicas", json!(1))]),
        (
            "batch.v1.Job",
            json!({ "spec": { "template": { "metadata": { "labels": { "a": "b" } } } } }),
            vec![
                ("/spec/completions", json!(1)),
                ("/spec/parallelism", json!(1)),
                ("/spec/backoffLimit", json!(6)),
                ("/spec/completionMode", json!("NonIndexed")),
                ("/spec/suspend", json!(false)),
                ("/spec/manualSelector", json!(false)),
                ("/spec/podReplacementPolicy", json!("TerminatingOrFailed")),
                ("/metadata/labels", json!({ "a": "b" })),
            ],
        ),
        (
            "batch.v1.Job",
            json!({ "metadata": { "labels": { "own": "1" } }, "spec": { "parallelism": 2, "backoffLimitPerIndex": 1,
                "podFailurePolicy": { "rules": [{ "action": "Ignore", "onPodConditions": [{ "type": "X" }] }] },
                "template": { "metadata": { "labels": { "a": "b" } } } } }),
            vec![
                ("/spec/completions", nothing()),
                ("/spec/backoffLimit", json!(2_147_483_647)),
                ("/spec/podReplacementPolicy", json!("Failed")),
                ("/spec/podFailurePolicy/rules/0/onPodConditions/0/status", json!("True")),
                ("/metadata/labels", json!({ "own": "1" })),
            ],
        ),
        ("batch.v1.Job", json!({ "spec": { "completions": 3 } }), vec![("/spec/parallelism", json!(1))]),
        (
            "batch.v1.CronJob",
            json!({ "spec": { "jobTemplate": { "spec": { "template": pod(json!({ "name": "a" })) } } } }),
            vec![
                ("/spec/concurrencyPolicy", json!("Allow")),
                ("/spec/suspend", json!(false)),
                ("/spec/successfulJobsHistoryLimit", json!(3)),
                ("/spec/failedJobsHistoryLimit", json!(1)),
                ("/spec/jobTemplate/spec/template/spec/restartPolicy", json!("Always")),
            ],
        ),
        ("autoscaling.v1.HorizontalPodAutoscaler", json!({}), vec![("/spec/minReplicas", json!(1))]),
        (
            "autoscaling.v2.HorizontalPodAutoscaler",
            json!({}),
            vec![
                ("/spec/minReplicas", json!(1)),
                (
                    "/spec/metrics",
                    json!([{ "type": "Resource", "resource": { "name": "cpu",
                    "target": { "type": "Utilization", "averageUtilization": 80 } } }]),
                ),
                ("/spec/behavior", nothing()),
            ],
        ),
        (
            "autoscaling.v2.HorizontalPodAutoscaler",
            json!({ "spec": { "behavior": { "scaleUp": { "selectPolicy": "Min" } } } }),
            vec![(
                "/spec/behavior",
                json!({
                    "scaleUp": { "stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [
                        { "type": "Pods", "value": 4, "periodSeconds": 15 }, { "type": "Percent", "value": 100, "periodSeconds": 15 }] },
                    "scaleDown": { "selectPolicy": "Max", "policies": [{ "type": "Percent", "value": 100, "periodSeconds": 15 }] },
                }),
            )],
        ),
        (
            "policy.v1.PodDisruptionBudget",
            json!({ "spec": { "minAvailable": 0 } }),
            vec![("/spec", json!({ "minAvailable": 0 }))],
        ),
    ] {
        check_defaults(type_name, value, &expected);
    }
}

#[test]
fn other_groups() {
    let webhook = json!({ "clientConfig": { "service": {} }, "rules": [{ "operations": ["*"] }] });
    let selectors = json!({ "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {} });
    for (type_name, value, expected) in [
        (
            "networking.v1.NetworkPolicy",
            json!({}),
            vec![("/spec/policyTypes", json!(["Ingress"])), ("/spec/podSelector", json!({}))],
        ),
        (
            "networking.v1.NetworkPolicy",
            json!({ "spec": { "egress": [{ "ports": [{ "port": 1 }] }] } }),
            vec![
                ("/spec/policyTypes", json!(["Ingress", "Egress"])),
                ("/spec/egress/0/ports/0/protocol", json!("TCP")),
            ],
        ),
        (
            "networking.v1.NetworkPolicy",
            json!({ "spec": { "policyTypes": ["Egress"] } }),
            vec![("/spec/policyTypes", json!(["Egress"]))],
        ),
        (
            "networking.v1.IngressClass",
            json!({ "spec": { "parameters": {} } }),
            vec![("/spec/parameters/scope", json!("Cluster"))],
        ),
        (
            "discovery.v1.EndpointSlice",
            json!({ "ports": [{}] }),
            vec![("/ports/0", json!({ "name": "", "protocol": "TCP" }))],
        ),
        (
            "rbac.v1.RoleBinding",
            json!({ "roleRef": { "kind": "Role" }, "subjects": [{ "kind": "User" }, { "kind": "Group" }, { "kind": "ServiceAccount" }] }),
            vec![
                ("/roleRef/apiGroup", json!("rbac.authorization.k8s.io")),
                ("/subjects/0/apiGroup", json!("rbac.authorization.k8s.io")),
                ("/subjects/1/apiGroup", json!("rbac.authorization.k8s.io")),
                ("/subjects/2/apiGroup", nothing()),
            ],
        ),
        ("rbac.v1.ClusterRoleBinding", json!({}), vec![("/roleRef/apiGroup", json!("rbac.authorization.k8s.io"))]),
        ("scheduling.v1.PriorityClass", json!({}), vec![("/preemptionPolicy", json!("PreemptLowerPriority"))]),
        (
            "storage.v1.StorageClass",
            json!({}),
            vec![("/reclaimPolicy", json!("Delete")), ("/volumeBindingMode", json!("Immediate"))],
        ),
        (
            "storage.v1.CSIDriver",
            json!({}),
            vec![(
                "/spec",
                json!({ "attachRequired": true, "podInfoOnMount": false, "storageCapacity": false, "requiresRepublish": false,
                    "seLinuxMount": false, "fsGroupPolicy": "ReadWriteOnceWithFSType", "volumeLifecycleModes": ["Persistent"] }),
            )],
        ),
        (
            "admissionregistration.v1.MutatingWebhookConfiguration",
            json!({ "webhooks": [webhook] }),
            vec![
                ("/webhooks/0/failurePolicy", json!("Fail")),
                ("/webhooks/0/matchPolicy", json!("Equivalent")),
                ("/webhooks/0/namespaceSelector", json!({})),
                ("/webhooks/0/objectSelector", json!({})),
                ("/webhooks/0/timeoutSeconds", json!(10)),
                ("/webhooks/0/reinvocationPolicy", json!("Never")),
                ("/webhooks/0/rules/0/scope", json!("*")),
                ("/webhooks/0/clientConfig/service/port", json!(443)),
            ],
        ),
        (
            "admissionregistration.v1.ValidatingWebhookConfiguration",
            json!({ "webhooks": [webhook] }),
            vec![("/webhooks/0/timeoutSeconds", json!(10)), ("/webhooks/0/rules/0/scope", json!("*"))],
        ),
        (
            "admissionregistration.v1.ValidatingAdmissionPolicy",
            json!({ "spec": { "matchConstraints": { "resourceRules": [{}] } } }),
            vec![
                ("/spec/failurePolicy", json!("Fail")),
                ("/spec/matchConstraints/matchPolicy", json!("Equivalent")),
                ("/spec/matchConstraints/resourceRules/0/scope", json!("*")),
            ],
        ),
        (
            "admissionregistration.v1.ValidatingAdmissionPolicyBinding",
            json!({ "spec": { "matchResources": {} } }),
            vec![("/spec/matchResources", selectors.clone())],
        ),
        (
            "admissionregistration.v1beta1.MutatingAdmissionPolicy",
            json!({}),
            vec![("/spec/failurePolicy", json!("Fail"))],
        ),
        (
            "apiextensions.v1.CustomResourceDefinition",
            json!({ "spec": { "names": { "kind": "Widget" }, "versions": [] } }),
            vec![
                ("/spec/names/singular", json!("widget")),
                ("/spec/names/listKind", json!("WidgetList")),
                ("/spec/conversion", json!({ "strategy": "None" })),
                ("/spec/preserveUnknownFields", nothing()),
            ],
        ),
        (
            "apiregistration.v1.APIService",
            json!({ "spec": { "service": {} } }),
            vec![("/spec/service/port", json!(443))],
        ),
        ("flowcontrol.v1.FlowSchema", json!({}), vec![("/spec/matchingPrecedence", json!(1000))]),
        (
            "flowcontrol.v1.PriorityLevelConfiguration",
            json!({ "spec": { "type": "Limited", "limited": { "limitResponse": { "type": "Queue", "queuing": {} } } } }),
            vec![
                ("/spec/limited/nominalConcurrencyShares", json!(30)),
                ("/spec/limited/lendablePercent", json!(0)),
                ("/spec/limited/limitResponse/queuing", json!({ "queues": 64, "handSize": 8, "queueLengthLimit": 50 })),
                ("/spec/exempt", nothing()),
            ],
        ),
        (
            "flowcontrol.v1.PriorityLevelConfiguration",
            json!({ "spec": { "type": "Exempt", "exempt": {} } }),
            vec![("/spec/exempt", json!({ "nominalConcurrencyShares": 0, "lendablePercent": 0 }))],
        ),
        (
            "resource.v1.ResourceClaim",
            json!({ "spec": { "devices": { "requests": [{ "name": "a", "exactly": { "deviceClassName": "x" } },
                { "name": "b", "exactly": { "allocationMode": "All" } }] } } }),
            vec![
                (
                    "/spec/devices/requests/0/exactly",
                    json!({ "deviceClassName": "x", "allocationMode": "ExactCount", "count": 1 }),
                ),
                ("/spec/devices/requests/1/exactly/count", nothing()),
            ],
        ),
    ] {
        check_defaults(type_name, value, &expected);
    }
}

#[test]
fn custom_resources_get_the_defaults_of_their_schema() {
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "default": {},
                "properties": {
                    "a": { "type": "string", "default": "x" },
                    "b": { "type": "object", "default": { "c": 1 }, "properties": {
                        "c": { "type": "integer" }, "d": { "type": "integer", "default": 2 } } },
                    "nullable": { "type": "string", "nullable": true, "default": "n" },
                    "gone": { "type": "string" },
                    "list": { "type": "array", "items": { "type": "object", "properties": { "e": { "type": "integer", "default": 3 } } } },
                    "map": { "type": "object", "additionalProperties": { "type": "object", "properties": { "f": { "type": "boolean", "default": false } } } },
                    "deep": { "type": "object", "properties": { "g": { "type": "integer", "default": 4 } } },
                },
            },
        },
    });
    let arena = structural(&schema).unwrap();
    for (before, after) in [
        (json!({}), json!({ "spec": { "a": "x", "b": { "c": 1, "d": 2 }, "nullable": "n" } })),
        (
            json!({ "spec": { "a": null, "b": { "c": 9 }, "nullable": null, "gone": null, "list": [{}, { "e": 7 }],
                "map": { "k": {}, "gone": null }, "deep": {} } }),
            json!({ "spec": { "a": "x", "b": { "c": 9, "d": 2 }, "nullable": null, "list": [{ "e": 3 }, { "e": 7 }],
                "map": { "k": { "f": false } }, "deep": { "g": 4 } } }),
        ),
        (json!({ "spec": "wrong" }), json!({ "spec": "wrong" })),
    ] {
        let mut value = before;
        apply(&mut value, arena.root());
        assert_eq!(value, after);
        apply(&mut value, arena.root());
        assert_eq!(value, after);
    }
}

proptest! {
    #[test]
    fn defaults_are_valid_and_twice_is_once(seed: u64) {
        let resource = &resources()[usize::try_from(seed % resources().len() as u64).unwrap()];
        let schema = builtin().type_named(resource.type_name).unwrap();
        let mut value = object(schema, &resource.api_version(), resource.kind, &mut Dice(seed));
        apply(&mut value, schema);
        let mut again = value.clone();
        apply(&mut again, schema);
        prop_assert_eq!(&again, &value);
        let mut checked = check(value.clone(), schema).unwrap();
        prop_assert_eq!(checked.strict, Vec::new());
        crate::decode::normalize(&mut checked.value, schema);
        prop_assert_eq!(checked.value, value);
    }

    #[test]
    fn no_value_breaks_it(seed: u64, text in "[{}\\[\\]:,\"a-c0-9]{0,40}") {
        if let Ok(decoded) = crate::decode::json(text.as_bytes(), None) {
            let resource = &resources()[usize::try_from(seed % resources().len() as u64).unwrap()];
            let mut value = json!({ "spec": decoded.value, "metadata": decoded.value, "status": decoded.value });
            apply(&mut value, builtin().type_named(resource.type_name).unwrap());
        }
    }
}
