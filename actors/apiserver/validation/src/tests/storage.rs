//! Classes of storage.

use super::*;

const KIND: (&str, &str) = ("storage.k8s.io", "StorageClass");

pub(super) fn class() -> Value {
    json!({"metadata": {"name": "x"}, "provisioner": "example.com/disk", "parameters": {"a": "b"},
        "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"})
}

#[test]
fn a_class_keeps_the_terms_that_volumes_were_made_by() {
    check_updates(
        KIND,
        &class(),
        &[
            ("/allowVolumeExpansion", json!(true), &[]),
            ("/parameters/a", json!("c"), &["parameters: Forbidden: updates to parameters are forbidden."]),
            ("/provisioner", json!("other"), &["provisioner: Forbidden: updates to provisioner are forbidden."]),
            ("/reclaimPolicy", json!("Retain"), &["reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden."]),
            (
                "/volumeBindingMode",
                json!("WaitForFirstConsumer"),
                &["volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable"],
            ),
        ],
    );
}

#[test]
fn a_class_names_its_provisioner_and_modes() {
    check_creates(
        KIND,
        &class(),
        &[
            ("/provisioner", json!(""), &["provisioner: Required value"]),
            (
                "/reclaimPolicy",
                json!("Recycle"),
                &["reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\""],
            ),
            (
                "/volumeBindingMode",
                json!("Later"),
                &[
                    "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
                ],
            ),
        ],
    );
}
