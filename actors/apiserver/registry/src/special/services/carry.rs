//! What a Service takes over from what it was: allocated values that the client left out, and their end when the new type
//! has no use for them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::families::{cluster_ips, families, is_external_name, set_list};
use super::ports::{needs_health_check, node_ports, wants_node_ports};
use crate::special::read::{items, number, text};

fn owned(list: Vec<&str>) -> Vec<String> {
    list.into_iter().map(str::to_owned).collect()
}

/// Lets `clusterIP` and `clusterIPs` say the same, for clients that know only the one.
pub(crate) fn agree_on_addresses(new: &mut Value, old: Option<&Value>) {
    let single = text(new, "/spec/clusterIP").to_owned();
    let Some(old) = old else {
        if !single.is_empty() && cluster_ips(new).is_empty() {
            set_list(new, "clusterIPs", &[single]);
        }
        return;
    };
    if single == text(old, "/spec/clusterIP") {
        if !single.is_empty() && cluster_ips(new).is_empty() {
            let kept = owned(cluster_ips(old));
            set_list(new, "clusterIPs", &kept);
        }
        return;
    }
    // The one was changed and the other wasn't.
    if cluster_ips(new) == cluster_ips(old) || cluster_ips(new).is_empty() {
        let list = if single.is_empty() { Vec::new() } else { vec![single] };
        set_list(new, "clusterIPs", &list);
    }
}

/// Fills in addresses and ports that were given out before and that the client didn't repeat.
pub(crate) fn keep_allocated(new: &mut Value, old: &Value) {
    if !is_external_name(new) && !is_external_name(old) {
        if text(new, "/spec/clusterIP").is_empty() && !text(old, "/spec/clusterIP").is_empty() {
            new["spec"]["clusterIP"] = old["spec"]["clusterIP"].clone();
        }
        if cluster_ips(new).is_empty() && text(new, "/spec/clusterIP") == text(old, "/spec/clusterIP") {
            let kept = owned(cluster_ips(old));
            set_list(new, "clusterIPs", &kept);
        }
    }
    if wants_node_ports(new) && wants_node_ports(old) {
        let now = node_ports(new);
        let by_name: BTreeMap<&str, i64> =
            items(old, "/spec/ports").iter().map(|port| (text(port, "/name"), number(port, "/nodePort"))).collect();
        for port in new.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
            let before = by_name.get(text(port, "/name")).copied().unwrap_or_default();
            let used = now.iter().any(|taken| i64::from(*taken) == before);
            if number(port, "/nodePort") == 0 && before != 0 && !used {
                port["nodePort"] = before.into();
            }
        }
    }
    if needs_health_check(new) && needs_health_check(old) && number(new, "/spec/healthCheckNodePort") == 0 {
        let before = number(old, "/spec/healthCheckNodePort");
        if before != 0 {
            new["spec"]["healthCheckNodePort"] = before.into();
        }
    }
}

/// Whether clients from outside reach it, so that it matters which node takes them.
fn needs_external_policy(service: &Value) -> bool {
    match text(service, "/spec/type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !items(service, "/spec/externalIPs").is_empty(),
        _ => false,
    }
}

fn is_balanced(service: &Value) -> bool {
    text(service, "/spec/type") == "LoadBalancer"
}

/// Drops what the new type has no use for, where the client left it as it was. What the client changed stays, to be
/// refused.
pub(crate) fn drop_useless(new: &mut Value, old: &Value) {
    if !is_external_name(old) && is_external_name(new) {
        if cluster_ips(new) == cluster_ips(old) {
            drop_field(new, "clusterIP");
            drop_field(new, "clusterIPs");
        }
        if families(new) == families(old) {
            drop_field(new, "ipFamilies");
        }
        drop_unchanged(new, old, "ipFamilyPolicy");
    }
    if wants_node_ports(old) && !wants_node_ports(new) && ports_as_before(new, old) {
        for port in new.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(port) = port.as_object_mut() {
                port.remove("nodePort");
            }
        }
    }
    drop_unneeded(new, old, needs_health_check, &["healthCheckNodePort"]);
    drop_unneeded(new, old, is_balanced, &["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    drop_unneeded(new, old, needs_external_policy, &["externalTrafficPolicy"]);
}

/// Drops fields that only Services of some sort need, if it isn't one any more.
fn drop_unneeded(new: &mut Value, old: &Value, needed: impl Fn(&Value) -> bool, fields: &[&str]) {
    if needed(old) && !needed(new) {
        for field in fields {
            drop_unchanged(new, old, field);
        }
    }
}

fn drop_field(service: &mut Value, field: &str) {
    if let Some(spec) = service["spec"].as_object_mut() {
        spec.remove(field);
    }
}

fn drop_unchanged(new: &mut Value, old: &Value, field: &str) {
    if new["spec"][field] == old["spec"][field] {
        drop_field(new, field);
    }
}

/// Whether no port of a node was chosen that wasn't there before.
fn ports_as_before(new: &Value, old: &Value) -> bool {
    let before = node_ports(old);
    node_ports(new).iter().all(|port| before.contains(port))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(spec: Value) -> Value {
        json!({"spec": spec})
    }

    #[test]
    fn the_two_fields_for_addresses_agree() {
        let old = || json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"]});
        for (old, new, expected) in [
            (None, json!({"clusterIP": "10.0.0.1"}), json!(["10.0.0.1"])),
            (None, json!({"clusterIP": "None"}), json!(["None"])),
            (None, json!({}), Value::Null),
            (None, json!({"clusterIPs": ["10.0.0.1"]}), json!(["10.0.0.1"])),
            (Some(old()), json!({"clusterIP": "10.0.0.1"}), json!(["10.0.0.1", "fd00::1"])),
            (Some(old()), json!({"clusterIP": "", "clusterIPs": ["10.0.0.1", "fd00::1"]}), Value::Null),
            (Some(old()), json!({"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.1", "fd00::1"]}), json!(["10.0.0.2"])),
            (Some(old()), json!({"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"]}), json!(["10.0.0.2"])),
        ] {
            let mut found = service(new.clone());
            agree_on_addresses(&mut found, old.map(service).as_ref());
            assert_eq!(found["spec"]["clusterIPs"], expected, "{new}");
        }
    }

    #[test]
    fn a_put_without_allocated_values_keeps_them() {
        let old = service(json!({"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"name": "a", "port": 1, "nodePort": 30001}, {"name": "b", "port": 2, "nodePort": 30002}]}));
        let mut new = service(json!({"type": "NodePort",
            "ports": [{"name": "b", "port": 2}, {"name": "a", "port": 1, "nodePort": 30002}, {"name": "c", "port": 3}]}));
        keep_allocated(&mut new, &old);
        let spec = &new["spec"];
        assert_eq!((&spec["clusterIP"], &spec["clusterIPs"]), (&json!("10.0.0.1"), &json!(["10.0.0.1"])));
        assert_eq!(node_ports(&new), [30_002], "a port that another one took isn't given back");
    }

    #[test]
    fn what_a_type_does_not_need_goes_if_it_was_left_alone() {
        let old = service(json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 30100, "allocateLoadBalancerNodePorts": true, "loadBalancerClass": "a/b",
            "ports": [{"port": 1, "nodePort": 30001}]}));
        let mut plain = old.clone();
        plain["spec"]["type"] = json!("ClusterIP");
        drop_useless(&mut plain, &old);
        assert_eq!(
            plain["spec"],
            json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "ports": [{"port": 1}]})
        );

        let mut name = plain.clone();
        name["spec"]["type"] = json!("ExternalName");
        drop_useless(&mut name, &plain);
        assert_eq!(name["spec"], json!({"type": "ExternalName", "ports": [{"port": 1}]}));

        let mut changed = old.clone();
        changed["spec"]["type"] = json!("ClusterIP");
        changed["spec"]["ports"][0]["nodePort"] = json!(30_777);
        drop_useless(&mut changed, &old);
        assert_eq!(node_ports(&changed), [30_777], "to be refused");
    }
}
