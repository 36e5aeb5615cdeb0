//! `metadata` of any kind.

use super::*;

const KIND: (&str, &str) = ("", "ConfigMap");

fn object() -> Value {
    json!({"metadata": {"name": "x", "namespace": "ns", "labels": {}, "uid": "1", "generation": 2}})
}

#[test]
fn names_are_required_and_checked() {
    let subdomain = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                     and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
                     validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    check_creates(
        KIND,
        &object(),
        &[
            ("/metadata/name", json!(""), &["metadata.name: Required value: name or generateName is required"]),
            ("/metadata/name", json!("X"), &[&format!("metadata.name: Invalid value: \"X\": {subdomain}")]),
            ("/metadata/generateName", json!("x-"), &[]),
            (
                "/metadata/generateName",
                json!("_"),
                &[&format!("metadata.generateName: Invalid value: \"_\": {subdomain}")],
            ),
            ("/metadata/namespace", json!(""), &["metadata.namespace: Required value"]),
            (
                "/metadata/generation",
                json!(-1),
                &["metadata.generation: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ],
    );
}

#[test]
fn owners_are_named_in_full_and_one_at_most_controls() {
    let owner = |name: &str, controller: bool| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": controller});
    let errors = create(
        KIND,
        &with(&object(), "/metadata/ownerReferences", json!([owner("a", true), owner("b", true)])),
        &Context::default(),
    );
    assert_eq!(errors.len(), 1);
    assert_eq!(
        errors[0].detail,
        "Only one reference can have Controller set to true. Found \"true\" in references for a and b"
    );
    check_creates(
        KIND,
        &object(),
        &[
            ("/metadata/ownerReferences", json!([owner("a", true), owner("b", false)]), &[]),
            (
                "/metadata/ownerReferences",
                json!([{}]),
                &[
                    "metadata.ownerReferences.apiVersion: Invalid value: \"\": version must not be empty",
                    "metadata.ownerReferences.kind: Invalid value: \"\": must not be empty",
                    "metadata.ownerReferences.name: Invalid value: \"\": must not be empty",
                    "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
                ],
            ),
        ],
    );
}

#[test]
fn finalizers_and_managers_are_checked() {
    check_creates(
        KIND,
        &object(),
        &[
            ("/metadata/finalizers", json!(["example.com/x", "kubernetes"]), &[]),
            (
                "/metadata/finalizers",
                json!(["mine"]),
                &["metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is \
                   it fully qualified"],
            ),
            (
                "/metadata/managedFields",
                json!([{"operation": "Take", "fieldsType": "V2"}]),
                &[
                    "metadata.managedFields[0].operation: Invalid value: \"Take\": must be `Apply` or `Update`",
                    "metadata.managedFields[0].fieldsType: Invalid value: \"V2\": must be `FieldsV1`",
                ],
            ),
        ],
    );
}

#[test]
fn who_an_object_is_never_changes() {
    check_updates(
        KIND,
        &object(),
        &[
            ("/metadata/name", json!("y"), &["metadata.name: Invalid value: \"y\": field is immutable"]),
            ("/metadata/namespace", json!("y"), &["metadata.namespace: Invalid value: \"y\": field is immutable"]),
            ("/metadata/uid", json!("2"), &["metadata.uid: Invalid value: \"2\": field is immutable"]),
            ("/metadata/uid", json!(null), &[]),
            ("/metadata/generation", json!(1), &["metadata.generation: Invalid value: 1: must not be decremented"]),
            (
                "/metadata/deletionTimestamp",
                json!("2026-01-01T00:00:00Z"),
                &["metadata.deletionTimestamp: Invalid value: \"2026-01-01T00:00:00Z\": field is immutable; may only \
                   be changed via deletion"],
            ),
        ],
    );
}

#[test]
fn what_is_being_deleted_gets_no_further_finalizers() {
    let old = with(&object(), "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"));
    check_updates(
        KIND,
        &old,
        &[(
            "/metadata/finalizers",
            json!(["a/b"]),
            &["metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found \
               new finalizers []string{\"a/b\"}"],
        )],
    );
}

#[test]
fn a_kind_without_rules_is_asked_for_its_metadata() {
    let kind = ("example.com", "Thing");
    assert_eq!(texts(&create(kind, &json!({"metadata": {"name": "any.thing"}}), &Context::default())), [""; 0]);
    assert!(super::super::is_known(KIND) && !super::super::is_known(kind));
}

#[test]
fn names_of_custom_resources_are_subdomains() {
    let named = |name: &str| json!({"metadata": {"name": name, "namespace": "ns"}});
    let kind = ("example.com", "Widget");
    assert_eq!(texts(&create(kind, &named("fine.name-1"), &Context::default())), Vec::<String>::new());
    for name in ["Bad_Name", "a/b", "-a", "a..b"] {
        let found = texts(&create(kind, &named(name), &Context::default()));
        assert!(found.len() == 1 && found[0].starts_with("metadata.name: Invalid value: "), "{name}: {found:?}");
    }
}
