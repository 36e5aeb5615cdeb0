//! Ingresses, network policies and the addresses of services.

use super::*;

const INGRESS: (&str, &str) = ("networking.k8s.io", "Ingress");
const CLASS: (&str, &str) = ("networking.k8s.io", "IngressClass");
const POLICY: (&str, &str) = ("networking.k8s.io", "NetworkPolicy");
const RANGE: (&str, &str) = ("networking.k8s.io", "ServiceCIDR");
const ADDRESS: (&str, &str) = ("networking.k8s.io", "IPAddress");

pub(super) fn examples() -> Vec<((&'static str, &'static str), Value)> {
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let ingress = json!({"metadata": {"name": "x", "namespace": "ns", "annotations": {}},
        "spec": {"rules": [{"host": "a.b", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": backend}]}}]}});
    let class = json!({"metadata": {"name": "x"}, "spec": {"controller": "a.b/c"}});
    let policy = json!({"metadata": {"name": "x", "namespace": "ns"}, "spec": {"podSelector": {},
        "ingress": [{"ports": [{"protocol": "TCP", "port": 80}],
            "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}],
        "policyTypes": ["Ingress"]}});
    let range = json!({"metadata": {"name": "x"}, "spec": {"cidrs": ["10.43.0.0/16"]}});
    let address = json!({"metadata": {"name": "10.43.0.1"},
        "spec": {"parentRef": {"resource": "services", "namespace": "ns", "name": "s"}}});
    vec![(INGRESS, ingress), (CLASS, class), (POLICY, policy), (RANGE, range), (ADDRESS, address)]
}

fn example(kind: (&str, &str)) -> Value {
    examples().into_iter().find(|(name, _)| *name == kind).expect("an example").1
}

#[test]
fn an_ingress_leads_somewhere() {
    let path = "spec.rules[0].http.paths[0]";
    check_creates(
        INGRESS,
        &example(INGRESS),
        &[
            (
                "/spec/rules",
                json!([]),
                &["spec: Invalid value: \"null\": either `defaultBackend` or `rules` must be specified"],
            ),
            (
                "/spec/rules/0/host",
                json!("10.0.0.1"),
                &["spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address"],
            ),
            ("/spec/rules/0/host", json!("*.a.b"), &[]),
            (
                "/spec/rules/0/http/paths/0/pathType",
                json!(null),
                &[&format!("{path}.pathType: Required value: pathType must be specified")],
            ),
            (
                "/spec/rules/0/http/paths/0/path",
                json!("a"),
                &[&format!("{path}.path: Invalid value: \"a\": must be an absolute path")],
            ),
            (
                "/spec/rules/0/http/paths/0/path",
                json!("/a//b"),
                &[&format!("{path}.path: Invalid value: \"/a//b\": must not contain '//'")],
            ),
            (
                "/spec/rules/0/http/paths/0/backend/service/port",
                json!({}),
                &[&format!("{path}.backend: Required value: port name or number is required")],
            ),
            (
                "/spec/rules/0/http/paths/0/backend/service/port/name",
                json!("http"),
                &[&format!("{path}.backend: Invalid value: \"\": cannot set both port name & port number")],
            ),
        ],
    );
}

#[test]
fn an_ingress_has_one_class() {
    let annotated = with(&example(INGRESS), "/metadata/annotations", json!({"kubernetes.io/ingress.class": "a"}));
    let expected = "annotations.kubernetes.io/ingress.class: Invalid value: \"a\": must match `ingressClassName` when \
                    both are specified";
    check_creates(
        INGRESS,
        &annotated,
        &[("/spec/ingressClassName", json!("a"), &[]), ("/spec/ingressClassName", json!("b"), &[expected])],
    );
    check_updates(INGRESS, &annotated, &[("/spec/ingressClassName", json!("b"), &[])]);
}

#[test]
fn a_class_keeps_its_controller() {
    check_creates(
        CLASS,
        &example(CLASS),
        &[
            ("/spec/controller", json!(""), &["spec.controller: Required value"]),
            (
                "/spec/parameters",
                json!({"kind": "k", "name": "n", "scope": "Namespace"}),
                &["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
            ),
        ],
    );
    check_updates(
        CLASS,
        &example(CLASS),
        &[("/spec/controller", json!("a.b/d"), &["spec.controller: Invalid value: \"a.b/d\": field is immutable"])],
    );
}

#[test]
fn a_network_policy_names_ports_and_peers() {
    let rule = "spec.ingress[0]";
    check_creates(
        POLICY,
        &example(POLICY),
        &[
            (
                "/spec/ingress/0/ports/0/endPort",
                json!(79),
                &[&format!("{rule}.ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`")],
            ),
            (
                "/spec/ingress/0/from/0/podSelector",
                json!({}),
                &[&format!("{rule}.from[0]: Forbidden: may not specify both ipBlock and another peer")],
            ),
            ("/spec/ingress/0/from/0", json!({}), &[&format!("{rule}.from[0]: Required value: must specify a peer")]),
            (
                "/spec/ingress/0/from/0/ipBlock/except/0",
                json!("11.0.0.0/16"),
                &[&format!(
                    "{rule}.from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`"
                )],
            ),
            (
                "/spec/policyTypes/0",
                json!("Both"),
                &["spec.policyTypes[0]: Unsupported value: \"Both\": supported values: \"Egress\", \"Ingress\""],
            ),
        ],
    );
}

#[test]
fn a_range_of_services_gets_a_second_family_only() {
    check_creates(
        RANGE,
        &example(RANGE),
        &[("/spec/cidrs", json!([]), &["spec.cidrs: Required value: at least one CIDR required"])],
    );
    check_updates(
        RANGE,
        &example(RANGE),
        &[
            ("/spec/cidrs", json!(["10.43.0.0/16", "fd00::/108"]), &[]),
            (
                "/spec/cidrs",
                json!(["10.44.0.0/16"]),
                &["spec.cidrs: Invalid value: [\"10.44.0.0/16\"]: field is immutable"],
            ),
        ],
    );
}

#[test]
fn an_address_belongs_to_one_object() {
    check_creates(
        ADDRESS,
        &example(ADDRESS),
        &[
            ("/spec/parentRef", json!(null), &["spec.parentRef: Required value"]),
            (
                "/metadata/name",
                json!("fd00:0::1"),
                &["metadata.name: Invalid value: \"fd00:0::1\": must be in canonical form (\"fd00::1\")"],
            ),
        ],
    );
    check_updates(
        ADDRESS,
        &example(ADDRESS),
        &[(
            "/spec/parentRef",
            json!({"resource": "services", "name": "t"}),
            &["spec.parentRef: Invalid value: {\"name\":\"t\",\"resource\":\"services\"}: field is immutable"],
        )],
    );
}
