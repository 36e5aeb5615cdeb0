//! Roles and their bindings.

use super::*;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn examples() -> Vec<((&'static str, &'static str), Value)> {
    let rule = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
    let named = |namespace: Option<&str>| json!({"name": "system:x", "namespace": namespace});
    let binding = |namespace, kind| {
        json!({"metadata": named(namespace), "roleRef": {"apiGroup": GROUP, "kind": kind, "name": "system:x"},
            "subjects": [{"kind": "User", "apiGroup": GROUP, "name": "u"}]})
    };
    vec![
        ((GROUP, "Role"), json!({"metadata": named(Some("ns")), "rules": [rule]})),
        ((GROUP, "ClusterRole"), json!({"metadata": named(None), "rules": [rule]})),
        ((GROUP, "RoleBinding"), binding(Some("ns"), "Role")),
        ((GROUP, "ClusterRoleBinding"), binding(None, "ClusterRole")),
    ]
}

fn example(kind: &str) -> Value {
    examples().into_iter().find(|((_, name), _)| *name == kind).expect("an example").1
}

#[test]
fn rules_are_about_resources_or_paths() {
    let paths = json!({"verbs": ["get"], "nonResourceURLs": ["/x"]});
    check_creates(
        (GROUP, "ClusterRole"),
        &example("ClusterRole"),
        &[
            ("/rules/0", paths.clone(), &[]),
            (
                "/rules/0",
                json!({}),
                &[
                    "rules[0].verbs: Required value: verbs must contain at least one value",
                    "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                    "rules[0].resources: Required value: resource rules must supply at least one resource",
                ],
            ),
            (
                "/rules/0/nonResourceURLs",
                json!(["/x"]),
                &[
                    "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources and \
             non-resource URLs",
                ],
            ),
            (
                "/aggregationRule",
                json!({}),
                &[
                    "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if \
             aggregationRule is non-nil",
                ],
            ),
        ],
    );
    check_creates(
        (GROUP, "Role"),
        &example("Role"),
        &[(
            "/rules/0",
            paths,
            &["rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs"],
        )],
    );
}

#[test]
fn a_binding_names_a_role_and_subjects_and_keeps_its_role() {
    let kind = (GROUP, "ClusterRoleBinding");
    check_creates(
        kind,
        &example("ClusterRoleBinding"),
        &[
            (
                "/roleRef/kind",
                json!("Role"),
                &["roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\""],
            ),
            ("/roleRef/name", json!(""), &["roleRef.name: Required value"]),
            ("/subjects/0", json!({"kind": "ServiceAccount", "name": "a"}), &["subjects[0].namespace: Required value"]),
            (
                "/subjects/0",
                json!({"kind": "Robot", "name": "a"}),
                &[
                    "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
                ],
            ),
        ],
    );
    check_updates(
        kind,
        &example("ClusterRoleBinding"),
        &[(
            "/roleRef/name",
            json!("y"),
            &[
                "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"y\"}: \
         cannot change roleRef",
            ],
        )],
    );
}
