//! Drivers of volumes.

use super::*;

const GROUP: &str = "storage.k8s.io";

pub(super) fn examples() -> Vec<((&'static str, &'static str), Value)> {
    let driver = json!({"metadata": {"name": "d.example.com"}, "spec": {"attachRequired": true,
        "podInfoOnMount": false, "storageCapacity": false, "fsGroupPolicy": "File", "seLinuxMount": false,
        "volumeLifecycleModes": ["Persistent"], "tokenRequests": [{"audience": "a", "expirationSeconds": 600}]}});
    let node = json!({"metadata": {"name": "x"}, "spec": {"drivers":
        [{"name": "d", "nodeID": "n", "topologyKeys": ["example.com/zone"], "allocatable": {"count": 1}}]}});
    let capacity = json!({"metadata": {"name": "x", "namespace": "ns"}, "storageClassName": "gold",
        "nodeTopology": {"matchLabels": {"a": "b"}}, "capacity": "1Gi"});
    let attachment = json!({"metadata": {"name": "x"},
        "spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "v"}}});
    let class = json!({"metadata": {"name": "x"}, "driverName": "d", "parameters": {"a": "b"}});
    vec![
        ((GROUP, "CSIDriver"), driver),
        ((GROUP, "CSINode"), node),
        ((GROUP, "CSIStorageCapacity"), capacity),
        ((GROUP, "VolumeAttachment"), attachment),
        ((GROUP, "VolumeAttributesClass"), class),
    ]
}

fn example(kind: &str) -> Value {
    examples().into_iter().find(|((_, known), _)| *known == kind).expect("an example").1
}

#[test]
fn a_driver_says_how_its_volumes_live() {
    let kind = (GROUP, "CSIDriver");
    check_creates(
        kind,
        &example(kind.1),
        &[
            ("/spec/attachRequired", Value::Null, &["spec.attachedRequired: Required value"]),
            ("/spec/seLinuxMount", Value::Null, &["spec.seLinuxMount: Required value"]),
            (
                "/spec/fsGroupPolicy",
                json!("Odd"),
                &[
                    "spec.fsGroupPolicy: Unsupported value: \"Odd\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
                ],
            ),
            (
                "/spec/tokenRequests/-",
                json!({"audience": "a"}),
                &["spec.tokenRequests[1].audience: Duplicate value: \"a\""],
            ),
            (
                "/spec/tokenRequests/0/expirationSeconds",
                json!(599),
                &[
                    "spec.tokenRequests[0].expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
                ],
            ),
            (
                "/spec/nodeAllocatableUpdatePeriodSeconds",
                json!(9),
                &[
                    "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
                ],
            ),
        ],
    );
    check_updates(
        kind,
        &example(kind.1),
        &[
            ("/spec/podInfoOnMount", json!(true), &[]),
            (
                "/spec/attachRequired",
                json!(false),
                &["spec.attachedRequired: Invalid value: false: field is immutable"],
            ),
            (
                "/spec/volumeLifecycleModes",
                json!(["Ephemeral"]),
                &["spec.volumeLifecycleModes: Invalid value: [\"Ephemeral\"]: field is immutable"],
            ),
        ],
    );
}

#[test]
fn drivers_of_a_node_are_named_once() {
    let kind = (GROUP, "CSINode");
    check_creates(
        kind,
        &example(kind.1),
        &[
            ("/spec/drivers/-", json!({"name": "d", "nodeID": "n"}), &["spec.drivers[1].name: Duplicate value: \"d\""]),
            ("/spec/drivers/0/nodeID", json!(""), &["spec.drivers[0].nodeID: Required value"]),
            (
                "/spec/drivers/0/allocatable/count",
                json!(-1),
                &["spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "/spec/drivers/0/topologyKeys/-",
                json!("example.com/zone"),
                &["spec.drivers[0]: Duplicate value: \"example.com/zone\""],
            ),
        ],
    );
    let changed = with(&example(kind.1), "/spec/drivers/0/nodeID", json!("m"));
    let errors = texts(&update(kind, &changed, &example(kind.1), &Context::default()));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("spec.drivers: Invalid value: "), "{}", errors[0]);
    check_updates(kind, &example(kind.1), &[("/spec/drivers", json!([]), &[])]);
}

#[test]
fn room_is_told_for_a_class_and_a_place_that_stay() {
    let kind = (GROUP, "CSIStorageCapacity");
    check_creates(
        kind,
        &example(kind.1),
        &[("/capacity", json!("-1"), &["capacity: Invalid value: \"-1\": must be greater than or equal to 0"])],
    );
    check_updates(
        kind,
        &example(kind.1),
        &[
            ("/capacity", json!("2Gi"), &[]),
            ("/storageClassName", json!("tin"), &["storageClassName: Invalid value: \"tin\": field is immutable"]),
            ("/nodeTopology", Value::Null, &["nodeTopology: Invalid value: \"null\": field is immutable"]),
        ],
    );
}

#[test]
fn an_attachment_is_of_one_volume() {
    let kind = (GROUP, "VolumeAttachment");
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let inline = json!({"accessModes": ["ReadWriteOnce"], "csi": {"driver": "d", "volumeHandle": "1"}});
    let taken = with(&inline, "/storageClassName", json!("gold"));
    check_creates(
        kind,
        &example(kind.1),
        &[
            ("/spec/source", json!({}), &[&format!("spec.source: Required value: {one}")]),
            ("/spec/source/inlineVolumeSpec", inline.clone(), &[&format!("spec.source: Forbidden: {one}")]),
            ("/spec/source", json!({"inlineVolumeSpec": inline}), &[]),
            (
                "/spec/source",
                json!({"inlineVolumeSpec": taken}),
                &[
                    "spec.source.inlineVolumeSpec.storageClassName: Forbidden: may not be specified in the context of inline volumes",
                ],
            ),
            (
                "/status",
                json!({"attachError": {"errorCode": -1}}),
                &["status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive"],
            ),
        ],
    );
    let moved = with(&example(kind.1), "/spec/nodeName", json!("m"));
    for through in [None, Some(Subresource::Status)] {
        let context = Context::default();
        let errors = match through {
            None => update(kind, &moved, &example(kind.1), &context),
            Some(through) => subresource(kind, through, &moved, &example(kind.1), &context),
        };
        assert_eq!(errors.len(), 1);
        assert_eq!((errors[0].field.as_str(), errors[0].detail.as_str()), ("spec", "field is immutable"));
    }
}

#[test]
fn a_class_of_attributes_keeps_its_terms() {
    let kind = (GROUP, "VolumeAttributesClass");
    check_creates(
        kind,
        &example(kind.1),
        &[
            ("/driverName", json!(""), &["driverName: Required value"]),
            ("/parameters", json!({}), &["parameters: Required value: must contain at least one key/value pair"]),
        ],
    );
    check_updates(
        kind,
        &example(kind.1),
        &[
            ("/driverName", json!("e"), &["driverName: Forbidden: updates to driverName are forbidden."]),
            ("/parameters/a", json!("c"), &["parameters: Forbidden: updates to parameters are forbidden."]),
        ],
    );
}
