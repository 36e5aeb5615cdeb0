//! EndpointSlices.

use super::*;

const KIND: (&str, &str) = ("discovery.k8s.io", "EndpointSlice");

pub(super) fn slice() -> Value {
    json!({"metadata": {"name": "x", "namespace": "ns"}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"name": "", "protocol": "TCP", "port": 80}]})
}

#[test]
fn endpoints_have_addresses_of_the_slices_type() {
    check_creates(
        KIND,
        &slice(),
        &[
            ("/addressType", json!(""), &["addressType: Required value"]),
            (
                "/endpoints/0/addresses",
                json!([]),
                &["endpoints[0].addresses: Required value: must contain at least 1 address"],
            ),
            (
                "/endpoints/0/addresses/0",
                json!("::1"),
                &["endpoints[0].addresses[0]: Invalid value: \"::1\": must be an IPv4 address"],
            ),
            (
                "/endpoints",
                json!(vec![json!({"addresses": ["10.0.0.1"]}); 1001]),
                &["endpoints: Too many: 1001: must have at most 1000 items"],
            ),
            ("/ports/-", json!({"name": "", "protocol": "UDP"}), &["ports[1].name: Duplicate value: \"\""]),
        ],
    );
}

#[test]
fn the_type_of_a_slice_never_changes() {
    let old = with(&slice(), "/endpoints", json!([]));
    check_updates(
        KIND,
        &old,
        &[("/addressType", json!("IPv6"), &["addressType: Invalid value: \"IPv6\": field is immutable"])],
    );
}
