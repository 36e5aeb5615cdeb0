//! Devices, claims to them, and where they are.

use super::*;

const GROUP: &str = "resource.k8s.io";

fn claim_spec() -> Value {
    json!({ "devices": {
        "requests": [
            { "name": "one", "exactly": { "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1,
                "selectors": [{ "cel": { "expression": "true" } }] } },
            { "name": "other", "firstAvailable": [
                { "name": "big", "deviceClassName": "gpu", "allocationMode": "All" } ] },
        ],
        "constraints": [{ "requests": ["one", "other/big"], "matchAttribute": "example.com/numa" }],
        "config": [{ "requests": ["one"], "opaque": { "driver": "example.com", "parameters": { "a": 1 } } }],
    } })
}

fn slice() -> Value {
    json!({ "metadata": { "name": "x" }, "spec": {
        "driver": "example.com", "nodeName": "n", "pool": { "name": "p/q", "resourceSliceCount": 1, "generation": 0 },
        "devices": [{ "name": "gpu-0", "attributes": { "model": { "string": "a" }, "example.com/version": { "version": "1.2.3" } },
            "capacity": { "memory": { "value": "1Gi" } } }],
    } })
}

pub(super) fn examples() -> Vec<((&'static str, &'static str), Value)> {
    let (inside, outside) = (json!({ "name": "x", "namespace": "ns" }), json!({ "name": "x" }));
    vec![
        (
            (GROUP, "DeviceClass"),
            json!({ "metadata": outside, "spec": {
                "selectors": [{ "cel": { "expression": "true" } }], "extendedResourceName": "example.com/gpu" } }),
        ),
        ((GROUP, "ResourceClaim"), json!({ "metadata": inside, "spec": claim_spec() })),
        ((GROUP, "ResourceClaimTemplate"), json!({ "metadata": inside, "spec": { "spec": claim_spec() } })),
        ((GROUP, "ResourceSlice"), slice()),
    ]
}

fn claim() -> Value {
    json!({ "metadata": { "name": "x", "namespace": "ns" }, "spec": claim_spec() })
}

#[test]
fn a_claim_says_what_it_wants() {
    let requests = "/spec/devices/requests";
    check_creates(
        (GROUP, "ResourceClaim"),
        &claim(),
        &[
            (
                &format!("{requests}/0"),
                json!({ "name": "one" }),
                &["spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"],
            ),
            (
                &format!("{requests}/0/exactly/count"),
                json!(0),
                &["spec.devices.requests[0].exactly.count: Invalid value: 0: must be greater than zero"],
            ),
            (
                &format!("{requests}/0/exactly/deviceClassName"),
                json!(""),
                &["spec.devices.requests[0].exactly.deviceClassName: Required value"],
            ),
            (
                &format!("{requests}/0/exactly/allocationMode"),
                json!("Some"),
                &["spec.devices.requests[0].exactly.allocationMode: Unsupported value: \"Some\": supported values: \
                   \"All\", \"ExactCount\""],
            ),
            (
                "/spec/devices/constraints/0/requests",
                json!(["none"]),
                &[
                    "spec.devices.constraints[0].requests[0]: Invalid value: \"none\": must be the name of a request in \
                   the claim or the name of a request and a subrequest separated by '/'",
                ],
            ),
            (
                "/spec/devices/constraints/0/matchAttribute",
                json!("numa"),
                &[
                    "spec.devices.constraints[0].matchAttribute: Invalid value: \"numa\": a fully qualified name must be a \
                   domain and a name separated by a slash",
                ],
            ),
            (
                "/spec/devices/config/0/opaque/parameters",
                json!([]),
                &[
                    "spec.devices.config[0].opaque.parameters: Invalid value: []: parameters must be a valid JSON object",
                ],
            ),
        ],
    );
    let many: Vec<Value> = (0..33).map(|n| json!({ "name": format!("r{n}") })).collect();
    check_creates(
        (GROUP, "ResourceClaim"),
        &json!({ "metadata": { "name": "x", "namespace": "ns" }, "spec": { "devices": {} } }),
        &[(
            "/spec/devices/requests",
            json!(many),
            &["spec.devices.requests: Too many: 33: must have at most 32 items"],
        )],
    );
}

#[test]
fn a_claim_is_given_devices_once() {
    let kind = (GROUP, "ResourceClaim");
    let allocation = json!({ "devices": { "results": [
        { "request": "one", "driver": "example.com", "pool": "p", "device": "gpu-0" } ] } });
    let user = json!({ "resource": "pods", "name": "p", "uid": "u" });
    let context = Context::default();
    let given = with(&claim(), "/status", json!({ "allocation": allocation, "reservedFor": [user] }));
    let status = |new: &Value, old: &Value| texts(&subresource(kind, Subresource::Status, new, old, &context));
    assert_eq!(status(&given, &claim()), [""; 0]);
    let moved = with(&given, "/status/allocation/devices/results/0/device", json!("gpu-1"));
    assert_eq!(status(&moved, &claim()), [""; 0]);
    assert!(status(&moved, &given)[0].ends_with("field is immutable"));
    let used = with(&claim(), "/status", json!({ "reservedFor": [user] }));
    assert_eq!(
        status(&used, &claim()),
        ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]
    );
    let wrong = with(&given, "/status/allocation/devices/results/0/request", json!("none"));
    assert_eq!(status(&wrong, &claim()).len(), 1);
    // What was asked for stays.
    let other = with(&claim(), "/spec/devices/config", json!([]));
    assert!(texts(&update(kind, &other, &claim(), &context))[0].ends_with("field is immutable"));
}

#[test]
fn a_slice_is_in_one_place() {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    check_creates(
        (GROUP, "ResourceSlice"),
        &slice(),
        &[
            ("/spec/nodeName", Value::Null, &[&format!("spec: Required value: {ONE}")]),
            (
                "/spec/allNodes",
                json!(true),
                &[&format!("spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {ONE}, but multiple fields are set")],
            ),
            (
                "/spec/driver",
                json!(""),
                &[
                    "spec.driver: Required value",
                    "spec.driver: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                ],
            ),
            (
                "/spec/pool/resourceSliceCount",
                json!(0),
                &["spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero"],
            ),
            (
                "/spec/devices/0/attributes/model",
                json!({}),
                &["spec.devices[0].attributes[model]: Invalid value: \"\": exactly one value must be specified"],
            ),
            (
                "/spec/devices/0/attributes/model",
                json!({ "version": "1" }),
                &["spec.devices[0].attributes[model].version: Invalid value: \"1\": must be a string compatible with \
                   semver.org spec 2.0.0"],
            ),
            ("/spec/devices/-", json!({ "name": "gpu-0" }), &["spec.devices[1]: Duplicate value: \"gpu-0\""]),
            (
                "/spec/devices/0/allNodes",
                json!(true),
                &[
                    "spec.devices[0]: Invalid value: \"null\": `nodeName`, `nodeSelector` and `allNodes` can only be set if \
                   `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
                ],
            ),
        ],
    );
    check_updates(
        (GROUP, "ResourceSlice"),
        &slice(),
        &[
            ("/spec/nodeName", json!("m"), &["spec.nodeName: Invalid value: \"m\": field is immutable"]),
            ("/spec/pool/name", json!("r"), &["spec.pool.name: Invalid value: \"r\": field is immutable"]),
        ],
    );
}
