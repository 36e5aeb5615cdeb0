//! Environment variables that tell of Services, as Docker's links once did.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// The Service of the API itself, which every pod is told of.
const API: (&str, &str) = ("default", "kubernetes");

/// The variables for a pod in this namespace. Without links only the API's Service is told.
#[must_use]
pub fn variables<'a>(
    namespace: &str,
    links: bool,
    services: impl Iterator<Item = &'a Service>,
) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let meta = &service.metadata;
        let (Some(place), Some(name)) = (meta.namespace.as_deref(), meta.name.as_deref()) else { continue };
        let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
        if address.is_empty() || address == "None" {
            continue;
        }
        if place == namespace && links {
            chosen.insert(name, service);
        } else if (place, name) == API {
            // One of that name in the pod's own namespace goes first.
            chosen.entry(name).or_insert(service);
        }
    }
    let mut found = BTreeMap::new();
    for (name, service) in chosen {
        add(&mut found, name, service);
    }
    found
}

fn add(found: &mut BTreeMap<String, String>, name: &str, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let (Some(address), Some(first)) = (spec.cluster_ip.as_deref(), ports.first()) else { return };
    let name = variable(name);
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    found.insert(format!("{name}_SERVICE_HOST"), address.to_owned());
    found.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(label) = port.name.as_deref().filter(|label| !label.is_empty()) {
            found.insert(format!("{name}_SERVICE_PORT_{}", variable(label)), port.port.to_string());
        }
    }
    found.insert(format!("{name}_PORT"), url(&host, first));
    for port in ports {
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol(port).to_uppercase());
        found.insert(format!("{prefix}_PROTO"), protocol(port));
        found.insert(format!("{prefix}_PORT"), port.port.to_string());
        found.insert(format!("{prefix}_ADDR"), address.to_owned());
        found.insert(prefix, url(&host, port));
    }
}

fn protocol(port: &ServicePort) -> String {
    port.protocol.as_deref().unwrap_or("TCP").to_lowercase()
}

fn url(host: &str, port: &ServicePort) -> String {
    format!("{}://{host}:{}", protocol(port), port.port)
}

fn variable(text: &str) -> String {
    text.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(namespace: &str, name: &str, spec: serde_json::Value) -> Service {
        serde_json::from_value(serde_json::json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn services_become_variables() {
        let ports = serde_json::json!([{"name": "web-ui", "port": 80}, {"port": 53, "protocol": "UDP"}]);
        let all = [
            service("n", "my-svc", serde_json::json!({"clusterIP": "10.0.0.1", "ports": ports})),
            service("n", "headless", serde_json::json!({"clusterIP": "None", "ports": [{"port": 1}]})),
            service("other", "far", serde_json::json!({"clusterIP": "10.0.0.2", "ports": [{"port": 1}]})),
            service("default", "kubernetes", serde_json::json!({"clusterIP": "10.0.0.3", "ports": [{"port": 443}]})),
        ];
        let found = variables("n", true, all.iter());
        for (name, value) in [
            ("MY_SVC_SERVICE_HOST", "10.0.0.1"),
            ("MY_SVC_SERVICE_PORT", "80"),
            ("MY_SVC_SERVICE_PORT_WEB_UI", "80"),
            ("MY_SVC_PORT", "tcp://10.0.0.1:80"),
            ("MY_SVC_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("MY_SVC_PORT_53_UDP_PROTO", "udp"),
            ("MY_SVC_PORT_53_UDP_PORT", "53"),
            ("MY_SVC_PORT_53_UDP_ADDR", "10.0.0.1"),
            ("KUBERNETES_SERVICE_HOST", "10.0.0.3"),
        ] {
            assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!found.keys().any(|name| name.starts_with("HEADLESS") || name.starts_with("FAR")));
        assert!(variables("n", false, all.iter()).keys().all(|name| name.starts_with("KUBERNETES_")));
    }
}
