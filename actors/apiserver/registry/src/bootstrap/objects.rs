//! The other objects that every cluster starts with.

use serde_json::{Value, json};

/// The namespaces that the server itself needs, in the order in which they are made.
pub(crate) const NAMESPACES: &[&str] = &["kube-system", "kube-public", "kube-node-lease", "default"];

/// The name of the `ServiceCIDR` that comes from the configuration.
pub(crate) const DEFAULT_SERVICE_CIDR: &str = "kubernetes";

/// A namespace.
pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// The two classes of pods that the system can't do without.
pub(crate) fn priority_classes() -> Vec<Value> {
    let class = |name: &str, value: i64, description: &str| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "preemptionPolicy": "PreemptLowerPriority", "description": description})
    };
    let node = "Used for system critical pods that must not be moved from their current node.";
    let cluster =
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.";
    vec![class("system-node-critical", 2_000_001_000, node), class("system-cluster-critical", 2_000_000_000, cluster)]
}

/// Where others learn whom the server believes. Certificates are PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// The authorities of clients' certificates; empty if there are none.
    pub client_ca: String,
    /// The authorities of front proxies; empty if there are none, and then the rest doesn't count.
    pub front_proxy_ca: String,
    /// Names that a front proxy may have; empty for any.
    pub front_proxy_names: Vec<String>,
    /// Headers in which a front proxy names the user.
    pub username_headers: Vec<String>,
    /// The same for groups.
    pub group_headers: Vec<String>,
    /// The same for the uid.
    pub uid_headers: Vec<String>,
    /// What headers with anything else begin with.
    pub extra_header_prefixes: Vec<String>,
}

/// The `data` of the `ConfigMap` `extension-apiserver-authentication` in `kube-system`.
pub(crate) fn authentication_data(of: &RequestAuthentication) -> Value {
    let mut data = json!({});
    if !of.client_ca.is_empty() {
        data["client-ca-file"] = json!(of.client_ca);
    }
    if !of.front_proxy_ca.is_empty() {
        data["requestheader-client-ca-file"] = json!(of.front_proxy_ca);
        for (key, list) in [
            ("requestheader-allowed-names", &of.front_proxy_names),
            ("requestheader-username-headers", &of.username_headers),
            ("requestheader-group-headers", &of.group_headers),
            ("requestheader-uid-headers", &of.uid_headers),
            ("requestheader-extra-headers-prefix", &of.extra_header_prefixes),
        ] {
            data[key] = json!(json!(list).to_string());
        }
    }
    data
}

/// The `ConfigMap` with it.
pub(crate) fn authentication(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"}, "data": data})
}

/// The `ServiceCIDR` of the configured ranges.
pub(crate) fn service_cidr(ranges: &[String]) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": DEFAULT_SERVICE_CIDR}, "spec": {"cidrs": ranges}})
}

/// What the default `ServiceCIDR` should become if the configured ranges grew by a second family. Otherwise what is stored
/// stays: addresses are in use.
pub(crate) fn grown_service_cidr(stored: &Value, ranges: &[String]) -> Option<Value> {
    let before = stored["spec"]["cidrs"].as_array()?;
    let grows = before.len() == 1 && ranges.len() == 2 && before[0] == ranges[0].as_str();
    grows.then(|| {
        let mut grown = stored.clone();
        grown["spec"]["cidrs"] = json!(ranges);
        grown
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_json_in_text() {
        let of = RequestAuthentication {
            front_proxy_ca: "pem".to_owned(),
            front_proxy_names: vec!["system:auth-proxy".to_owned()],
            ..RequestAuthentication::default()
        };
        let data = authentication_data(&of);
        assert_eq!(data["requestheader-allowed-names"], "[\"system:auth-proxy\"]");
        assert_eq!(data["requestheader-group-headers"], "[]");
        assert_eq!(data.get("client-ca-file"), None);
    }

    #[test]
    fn the_range_grows_by_a_family_and_otherwise_stays() {
        let list = |ranges: &[&str]| ranges.iter().map(|range| (*range).to_owned()).collect::<Vec<_>>();
        let stored = service_cidr(&list(&["10.43.0.0/16"]));
        for (ranges, grows) in [
            (list(&["10.43.0.0/16"]), false),
            (list(&["10.44.0.0/16"]), false),
            (list(&["10.43.0.0/16", "fd00::/112"]), true),
            (list(&["fd00::/112", "10.43.0.0/16"]), false),
        ] {
            assert_eq!(grown_service_cidr(&stored, &ranges).is_some(), grows, "{ranges:?}");
        }
    }
}
