//! The Service `kubernetes`, its `Endpoints` and its `EndpointSlice`.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{NAME, NAMESPACE};
use crate::special::read::{items, map_mut, number};

/// What clients in the cluster see of the servers.
#[derive(Clone, Debug)]
pub(super) struct Front {
    /// Of the servers, sorted.
    pub(super) addresses: Vec<IpAddr>,
    /// The servers' port.
    pub(super) port: u16,
    pub(super) service_port: u16,
    pub(super) service_address: Option<IpAddr>,
}

impl Front {
    pub(super) fn service(&self) -> Value {
        let mut service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": NAME, "namespace": NAMESPACE,
                "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {
                "type": "ClusterIP",
                "sessionAffinity": "None",
                "ipFamilyPolicy": "SingleStack",
                "ports": [{"name": "https", "port": self.service_port, "protocol": "TCP", "targetPort": self.port}],
            },
        });
        if let Some(address) = self.service_address {
            service["spec"]["clusterIP"] = json!(address.to_string());
            service["spec"]["clusterIPs"] = json!([address.to_string()]);
        }
        service
    }

    fn ports(&self) -> Value {
        json!([{"name": "https", "port": self.port, "protocol": "TCP"}])
    }

    pub(super) fn endpoints(&self) -> Value {
        let addresses: Vec<Value> = self.addresses.iter().map(|address| json!({"ip": address.to_string()})).collect();
        let mut endpoints = json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": NAME, "namespace": NAMESPACE,
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        });
        if !addresses.is_empty() {
            endpoints["subsets"] = json!([{"addresses": addresses, "ports": self.ports()}]);
        }
        endpoints
    }

    /// A slice has addresses of one family: that of this server.
    pub(super) fn slice(&self, is_v4: bool) -> Value {
        let same = self.addresses.iter().filter(|address| address.is_ipv4() == is_v4);
        let endpoints: Vec<Value> =
            same.map(|address| json!({"addresses": [address.to_string()], "conditions": {"ready": true}})).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": NAME}},
            "addressType": if is_v4 { "IPv4" } else { "IPv6" },
            "endpoints": endpoints,
            "ports": self.ports(),
        })
    }
}

/// The stored object with our labels and these fields of ours, if that changes it.
pub(super) fn mended(expected: &Value, stored: &Value, fields: &[&str]) -> Option<Value> {
    let mut wanted = stored.clone();
    let labels = map_mut(&mut wanted["metadata"], "labels");
    for (key, value) in expected["metadata"]["labels"].as_object().into_iter().flatten() {
        labels.insert(key.clone(), value.clone());
    }
    for field in fields {
        match expected.get(*field) {
            Some(value) => wanted[*field] = value.clone(),
            None => {
                if let Some(object) = wanted.as_object_mut() {
                    object.remove(*field);
                }
            }
        }
    }
    (wanted != *stored).then_some(wanted)
}

/// The stored Service with our ports and type, if that changes it. Its address stays: it can't be changed.
pub(super) fn mended_service(expected: &Value, stored: &Value) -> Option<Value> {
    let port = |service: &Value| {
        let ports = items(service, "/spec/ports").iter();
        ports.map(|one| (one["name"].clone(), number(one, "/port"), one["targetPort"].clone())).collect::<Vec<_>>()
    };
    let right = port(expected) == port(stored) && stored["spec"]["type"] == expected["spec"]["type"];
    (!right).then(|| {
        let mut wanted = stored.clone();
        wanted["spec"]["ports"] = expected["spec"]["ports"].clone();
        wanted["spec"]["type"] = expected["spec"]["type"].clone();
        wanted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(addresses: &[&str]) -> Front {
        let addresses = addresses.iter().map(|address| address.parse().expect("address")).collect();
        Front { addresses, port: 6443, service_port: 443, service_address: "10.43.0.1".parse().ok() }
    }

    #[test]
    fn what_is_right_is_left() {
        let front = front(&["10.0.0.1", "10.0.0.2"]);
        let (service, endpoints, slice) = (front.service(), front.endpoints(), front.slice(true));
        assert_eq!(mended_service(&service, &service), None);
        assert_eq!(mended(&endpoints, &endpoints, &["subsets"]), None);
        let mut theirs = slice.clone();
        theirs["metadata"]["labels"]["mine"] = json!("1");
        assert_eq!(mended(&slice, &theirs, &["endpoints", "ports"]), None);
        theirs["endpoints"] = json!([]);
        let mended = mended(&slice, &theirs, &["endpoints", "ports"]).expect("mended");
        assert_eq!((&mended["endpoints"], &mended["metadata"]["labels"]["mine"]), (&slice["endpoints"], &json!("1")));
    }

    #[test]
    fn the_last_server_leaves_nothing_behind() {
        let (full, empty) = (front(&["10.0.0.1"]), front(&[]));
        let found = mended(&empty.endpoints(), &full.endpoints(), &["subsets"]).expect("emptied");
        assert_eq!(found.get("subsets"), None);
        assert_eq!(empty.slice(true)["endpoints"], json!([]));
        assert_eq!(front(&["10.0.0.1", "fd00::1"]).slice(false)["endpoints"][0]["addresses"], json!(["fd00::1"]));
    }

    #[test]
    fn a_port_that_was_changed_comes_back() {
        let expected = front(&[]).service();
        let mut stored = expected.clone();
        stored["spec"]["ports"][0]["nodePort"] = json!(0);
        assert_eq!(mended_service(&expected, &stored), None);
        stored["spec"]["ports"][0]["targetPort"] = json!(1);
        let mended = mended_service(&expected, &stored).expect("mended");
        assert_eq!(mended["spec"]["ports"][0]["targetPort"], json!(6443));
    }
}
