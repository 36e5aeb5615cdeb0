//! Nodes, and where the pods of a Service are.

use super::*;

pub(super) fn examples() -> Vec<((&'static str, &'static str), Value)> {
    let node = json!({"metadata": {"name": "x"},
        "spec": {"podCIDRs": ["10.42.0.0/24"], "providerID": "k3s://x",
            "taints": [{"key": "a", "effect": "NoSchedule"}]},
        "status": {"capacity": {"cpu": "2"}, "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}});
    let endpoints = json!({"metadata": {"name": "x", "namespace": "ns"},
        "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80, "protocol": "TCP"}]}]});
    vec![(("", "Node"), node), (("", "Endpoints"), endpoints)]
}

fn node() -> Value {
    examples().swap_remove(0).1
}

#[test]
fn taints_and_amounts_of_a_node_are_well_formed() {
    check_creates(
        ("", "Node"),
        &node(),
        &[
            (
                "/spec/taints/0/effect",
                json!("Never"),
                &[
                    "metadata.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                ],
            ),
            ("/spec/taints/0/effect", json!(""), &["metadata.taints[0].effect: Required value"]),
            (
                "/status/capacity/cpu",
                json!("-1"),
                &["status.capacity.cpu: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
            (
                "/status/capacity/pods",
                json!("500m"),
                &["status.capacity.pods: Invalid value: \"500m\": must be an integer"],
            ),
        ],
    );
    let twice = with(&node(), "/spec/taints/-", json!({"key": "a", "effect": "NoSchedule"}));
    let errors = texts(&create(("", "Node"), &twice, &Context::default()));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("metadata.taints[1]: Duplicate value: "), "{}", errors[0]);
    assert!(errors[0].ends_with(": taints must be unique by key and effect pair"), "{}", errors[0]);
}

#[test]
fn a_node_has_one_range_of_each_family() {
    let families = "may specify no more than one CIDR for each IP family";
    let same_family = format!("spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: {families}");
    check_creates(
        ("", "Node"),
        &node(),
        &[
            ("/spec/podCIDRs", json!(["10.0.0.0/24", "fd00::/64"]), &[]),
            ("/spec/podCIDRs", json!(["10.0.0.0/24", "10.0.1.0/24"]), &[&same_family]),
            (
                "/spec/podCIDRs",
                json!(["10.0.0.0/33"]),
                &[
                    "spec.podCIDRs[0]: Invalid value: \"10.0.0.0/33\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                ],
            ),
        ],
    );
}

#[test]
fn what_a_node_was_assigned_stays() {
    let ranges = "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid";
    let provider = "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid";
    check_updates(
        ("", "Node"),
        &node(),
        &[
            ("/spec/unschedulable", json!(true), &[]),
            ("/spec/taints", json!([]), &[]),
            ("/spec/podCIDRs", json!(["10.42.1.0/24"]), &[ranges]),
            ("/spec/podCIDRs", json!([]), &[ranges]),
            ("/spec/providerID", json!("k3s://y"), &[provider]),
            ("/spec/externalID", json!("y"), &["spec.externalID: Forbidden: may not be updated"]),
        ],
    );
    let before = with(&with(&node(), "/spec/podCIDRs", Value::Null), "/spec/providerID", Value::Null);
    assert_eq!(texts(&update(("", "Node"), &node(), &before, &Context::default())), [""; 0], "the first time is free");
}

#[test]
fn addresses_of_a_node_are_told_once() {
    let address = json!({"type": "InternalIP", "address": "10.0.0.1"});
    let twice = with(&node(), "/status/addresses/-", address);
    let errors = texts(&subresource(("", "Node"), Subresource::Status, &twice, &node(), &Context::default()));
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("status.addresses[1]: Duplicate value: "), "{}", errors[0]);
}

#[test]
fn endpoints_are_addresses_that_mean_the_same_everywhere() {
    let path = "subsets[0].addresses[0].ip: Invalid value:";
    let not = format!("{path} \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    check_creates(
        ("", "Endpoints"),
        &examples().swap_remove(1).1,
        &[
            (
                "/subsets/0/addresses",
                json!([]),
                &["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
            ),
            ("/subsets/0/addresses/0/ip", json!("x"), &[&not, &format!("{path} \"x\": must be a valid IP address")]),
            (
                "/subsets/0/addresses/0/ip",
                json!("127.0.0.1"),
                &[&format!("{path} \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)")],
            ),
            (
                "/subsets/0/addresses/0/ip",
                json!("fe80::1"),
                &[&format!("{path} \"fe80::1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)")],
            ),
            ("/subsets/0/addresses/0/ip", json!("::"), &[&format!("{path} \"::\": may not be unspecified (::)")]),
            (
                "/subsets/0/ports/-",
                json!({"name": "b", "port": 0, "protocol": "TCP"}),
                &[
                    "subsets[0].ports[0].name: Required value",
                    "subsets[0].ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                ],
            ),
        ],
    );
}
