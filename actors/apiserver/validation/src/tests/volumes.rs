//! PersistentVolumes and the claims to them.

use super::*;

const VOLUME: (&str, &str) = ("", "PersistentVolume");
const CLAIM: (&str, &str) = ("", "PersistentVolumeClaim");

pub(super) fn examples() -> Vec<((&'static str, &'static str), Value)> {
    vec![(VOLUME, volume()), (CLAIM, claim())]
}

fn volume() -> Value {
    json!({"metadata": {"name": "x"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Delete", "volumeMode": "Filesystem", "storageClassName": "local-path",
        "hostPath": {"path": "/data"}}})
}

fn claim() -> Value {
    json!({"metadata": {"name": "x", "namespace": "ns"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem", "storageClassName": "local-path", "resources": {"requests": {"storage": "1Gi"}}}})
}

#[test]
fn a_volume_has_a_size_modes_and_one_source() {
    let modes = "supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"";
    check_creates(
        VOLUME,
        &volume(),
        &[
            ("/spec/accessModes", json!([]), &["spec.accessModes: Required value"]),
            ("/spec/accessModes", json!(["Any"]), &[&format!("spec.accessModes: Unsupported value: \"Any\": {modes}")]),
            (
                "/spec/accessModes",
                json!(["ReadWriteOncePod", "ReadOnlyMany"]),
                &["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
            ),
            (
                "/spec/capacity/storage",
                json!("0"),
                &["spec.capacity[storage]: Invalid value: \"0\": must be greater than zero"],
            ),
            ("/spec/hostPath", Value::Null, &["spec: Required value: must specify a volume type"]),
            (
                "/spec/nfs",
                json!({"server": "s", "path": "/"}),
                &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                "/spec/hostPath/path",
                json!("/a/../b"),
                &["spec.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"],
            ),
            (
                "/spec/volumeMode",
                json!("Tape"),
                &["spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\""],
            ),
            (
                "/spec/volumeAttributesClassName",
                json!("gold"),
                &["spec.csi: Required value: has to be specified when using volumeAttributesClassName"],
            ),
        ],
    );
}

#[test]
fn a_volume_of_a_node_says_which() {
    let local = with(&with(&volume(), "/spec/hostPath", Value::Null), "/spec/local", json!({"path": "/disk"}));
    check_creates(
        VOLUME,
        &local,
        &[
            (
                "/spec/local/path",
                json!("/d"),
                &["spec.nodeAffinity: Required value: Local volume requires node affinity"],
            ),
            (
                "/spec/nodeAffinity",
                json!({}),
                &["spec.nodeAffinity.required: Required value: must specify required node constraints"],
            ),
            (
                "/spec/nodeAffinity",
                json!({"required": {"nodeSelectorTerms": [{"matchExpressions":
                    [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]}]}]}}),
                &[],
            ),
        ],
    );
}

#[test]
fn a_volume_of_a_driver_names_it() {
    let base = with(&volume(), "/spec/hostPath", Value::Null);
    let rows: Rows<'_> = &[
        ("/spec/csi", json!({"driver": "d.example.com", "volumeHandle": "1"}), &[]),
        (
            "/spec/csi",
            json!({}),
            &[
                "spec.csi.driver: Required value",
                "spec.csi.driver: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                "spec.csi.volumeHandle: Required value",
            ],
        ),
        (
            "/spec/csi",
            json!({"driver": "d", "volumeHandle": "1", "nodePublishSecretRef": {"name": "s"}}),
            &["spec.csi.nodePublishSecretRef.namespace: Required value"],
        ),
    ];
    check_creates(VOLUME, &base, rows);
}

#[test]
fn what_a_volume_is_made_of_stays() {
    let source = "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation";
    check_updates(
        VOLUME,
        &volume(),
        &[
            ("/spec/persistentVolumeReclaimPolicy", json!("Retain"), &[]),
            ("/spec/capacity/storage", json!("2Gi"), &[]),
            ("/spec/hostPath/path", json!("/other"), &[source]),
            ("/spec/volumeMode", json!("Block"), &["volumeMode: Invalid value: \"Block\": field is immutable"]),
        ],
    );
}

#[test]
fn a_claim_asks_for_something() {
    check_creates(
        CLAIM,
        &claim(),
        &[
            ("/spec/accessModes", json!([]), &["spec.accessModes: Required value: at least 1 access mode is required"]),
            ("/spec/resources", json!({}), &["spec.resources[storage]: Required value"]),
            (
                "/spec/resources/requests/storage",
                json!("-1"),
                &["spec.resources[storage]: Invalid value: \"-1\": must be greater than zero"],
            ),
            (
                "/spec/dataSource",
                json!({"kind": "Snapshot", "name": "s"}),
                &[
                    "spec.dataSource: Invalid value: \"Snapshot\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
                ],
            ),
            ("/spec/dataSourceRef", json!({"kind": "PersistentVolumeClaim", "name": "s"}), &[]),
        ],
    );
}

#[test]
fn a_claim_is_bound_once_and_may_grow_then() {
    let frozen = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    check_updates(
        CLAIM,
        &claim(),
        &[
            ("/spec/volumeName", json!("v"), &[]),
            ("/spec/resources/requests/storage", json!("2Gi"), &[frozen]),
            ("/spec/storageClassName", json!("other"), &[frozen]),
            ("/spec/accessModes/0", json!("ReadWriteMany"), &[frozen]),
            ("/metadata/labels", json!({"a": "b"}), &[]),
        ],
    );
    let unnamed = with(&claim(), "/spec/storageClassName", Value::Null);
    check_updates(CLAIM, &unnamed, &[("/spec/storageClassName", json!("now"), &[])]);
    let bound = with(&with(&claim(), "/spec/volumeName", json!("v")), "/status", json!({"phase": "Bound"}));
    let bound = with(&bound, "/status/capacity", json!({"storage": "1Gi"}));
    let less = "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity";
    check_updates(
        CLAIM,
        &bound,
        &[
            ("/spec/resources/requests/storage", json!("2Gi"), &[]),
            ("/spec/resources/requests/storage", json!("500Mi"), &[less]),
            ("/spec/volumeAttributesClassName", json!("gold"), &[]),
            ("/spec/volumeName", json!("w"), &[frozen]),
        ],
    );
    let growing = with(&bound, "/spec/resources/requests/storage", json!("3Gi"));
    check_updates(CLAIM, &growing, &[("/spec/resources/requests/storage", json!("2Gi"), &[])]);
}

#[test]
fn the_status_of_a_claim_speaks_of_storage() {
    let rows = [
        (
            json!({"capacity": {"storage": "-1"}}),
            "status.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
        ),
        (
            json!({"allocatedResources": {"cpu": "1"}}),
            "status.allocatedResources: Unsupported value: \"cpu\": supported values: \"storage\"",
        ),
        (
            json!({"allocatedResourceStatuses": {"storage": "Odd"}}),
            "status.allocatedResourceStatus: Unsupported value: \"storage\": supported values: \"ControllerResizeInProgress\", \"ControllerResizeInfeasible\", \"NodeResizeInProgress\", \"NodeResizeInfeasible\", \"NodeResizePending\"",
        ),
    ];
    for (status, expected) in rows {
        let changed = with(&claim(), "/status", status);
        let errors = subresource(CLAIM, Subresource::Status, &changed, &claim(), &Context::default());
        assert_eq!(texts(&errors), [expected]);
    }
}
