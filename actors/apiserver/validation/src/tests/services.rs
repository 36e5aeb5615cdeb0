//! Services.

use super::*;

const KIND: (&str, &str) = ("", "Service");

pub(super) fn service() -> Value {
    json!({
        "metadata": {"name": "x", "namespace": "ns"},
        "spec": {
            "type": "ClusterIP",
            "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster",
            "clusterIP": "10.43.0.9",
            "clusterIPs": ["10.43.0.9"],
            "ipFamilies": ["IPv4"],
            "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}],
        },
    })
}

#[test]
fn ports_of_a_service_are_there_named_and_in_range() {
    let port = |name: &str, number: i64| json!({"name": name, "port": number, "targetPort": 1, "protocol": "TCP"});
    check_creates(
        KIND,
        &service(),
        &[
            ("/spec/ports", json!([]), &["spec.ports: Required value"]),
            (
                "/spec/ports/0/port",
                json!(-1),
                &["spec.ports[0].port: Invalid value: -1: must be between 1 and 65535, inclusive"],
            ),
            (
                "/spec/ports/0/nodePort",
                json!(30_000),
                &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            ("/spec/ports", json!([port("a", 1), port("a", 2)]), &["spec.ports[1].name: Duplicate value: \"a\""]),
            ("/spec/ports", json!([port("a", 1), port("", 2)]), &["spec.ports[1].name: Required value"]),
        ],
    );
}

#[test]
fn the_fields_of_one_type_are_not_for_others() {
    check_creates(
        KIND,
        &service(),
        &[
            (
                "/spec/type",
                json!("Other"),
                &["spec.type: Unsupported value: \"Other\": supported values: \"ClusterIP\", \"ExternalName\", \
             \"LoadBalancer\", \"NodePort\""],
            ),
            (
                "/spec/loadBalancerSourceRanges",
                json!(["10.0.0.0/33"]),
                &[
                    "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
                    "spec.loadBalancerSourceRanges[0]: Invalid value: \"10.0.0.0/33\": must be a valid CIDR value, (e.g. \
             10.9.8.0/24 or 2001:db8::/64)",
                ],
            ),
            (
                "/spec/externalTrafficPolicy",
                json!("Local"),
                &[
                    "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
                ],
            ),
            (
                "/spec/sessionAffinity",
                json!("ClientIP"),
                &["spec.sessionAffinityConfig.clientIP.timeoutSeconds: Required value"],
            ),
        ],
    );
}

#[test]
fn the_address_of_a_service_stays() {
    let changed = with(&service(), "/spec/clusterIPs/0", json!("10.43.0.8"));
    let changed = with(&changed, "/spec/clusterIP", json!("10.43.0.8"));
    assert_eq!(
        texts(&update(KIND, &changed, &service(), &Context::default())),
        ["spec.clusterIPs[0]: Invalid value: [\"10.43.0.8\"]: may not change once set"]
    );
}
