//! Which pods stand behind which Services.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k3sd_client::controller::Failure;
use k3sd_client::controller::pods::{condition, is_finished, is_ready, is_terminating, node};
use k3sd_client::informer::{Informer, Kind, ObjectKey, Snapshot};
use k8s_openapi::api::core::v1::{Container, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Says when what led to a change happened.
pub(crate) const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// On whatever leads to a Service that has no address of its own.
pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
/// What `clusterIP` says of a headless Service.
pub(crate) const NO_ADDRESS: &str = "None";
/// Endpoints that are a lock of an election, which leads nowhere.
pub(crate) const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Whether the Service selects pods with such labels. One without a selector, or that is only a name, selects none.
pub(crate) fn selects(service: &Service, labels: Option<&BTreeMap<String, String>>) -> bool {
    let Some(selector) = selector(service) else { return false };
    selector.iter().all(|(name, value)| labels.and_then(|labels| labels.get(name)) == Some(value))
}

/// What it selects pods by, if it does.
pub(crate) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// The pods of its namespace that it selects, in the order of their names.
pub(crate) fn selected<'a>(pods: &'a Snapshot<Pod>, service: &'a Service) -> impl Iterator<Item = &'a Pod> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let found = pods.of_namespace(namespace).map(|pod| &**pod);
    found.filter(|pod| selects(service, pod.metadata.labels.as_ref()))
}

/// Adds the Services that the change of a pod concerns.
pub(crate) fn memberships(
    services: &Informer<Service>,
    old: Option<&Pod>,
    new: Option<&Pod>,
    keys: &mut Vec<ObjectKey>,
) {
    let Some(services) = services.snapshot() else { return };
    if let (Some(old), Some(new)) = (old, new)
        && !has_changed(old, new)
    {
        return;
    }
    let Some(pod) = new.or(old) else { return };
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let concerned = services
        .of_namespace(namespace)
        .filter(|service| [old, new].into_iter().flatten().any(|pod| selects(service, pod.metadata.labels.as_ref())));
    keys.extend(concerned.map(|service| ObjectKey::of(&**service)));
}

/// Whether anything is another that says where a pod belongs, and how it may be reached.
fn has_changed(old: &Pod, new: &Pod) -> bool {
    let names = |pod: &Pod| pod.spec.as_ref().map(|spec| (spec.hostname.clone(), spec.subdomain.clone()));
    old.metadata.uid != new.metadata.uid
        || old.metadata.labels != new.metadata.labels
        || is_terminating(old) != is_terminating(new)
        || is_finished(old) != is_finished(new)
        || is_ready(old) != is_ready(new)
        || node(old) != node(new)
        || names(old) != names(new)
        || addresses(old).ne(addresses(new))
}

/// The addresses that its status names, as they are written there.
pub(crate) fn addresses(pod: &Pod) -> impl Iterator<Item = &str> {
    let status = pod.status.iter();
    status.flat_map(|status| status.pod_ips.iter().flatten().map(|address| &*address.ip))
}

/// An address as it is usually written, and whether it is of IPv6. Leading zeros, which older clients write, are let pass.
pub(crate) fn parse(address: &str) -> Option<IpAddr> {
    if let Ok(address) = address.parse() {
        return Some(address);
    }
    let plain = |part: &str| part.trim_start_matches('0').to_owned();
    let parts = address.split('.').map(plain).map(|part| if part.is_empty() { "0".to_owned() } else { part });
    let is_v4 = address.chars().all(|char| char.is_ascii_digit() || char == '.');
    is_v4.then(|| parts.collect::<Vec<_>>().join(".").parse().ok()).flatten()
}

/// Whether it may stand behind a Service at all: it has an address, and will not have finished.
pub(crate) fn belongs(pod: &Pod, includes_terminating: bool) -> bool {
    let Some(status) = &pod.status else { return false };
    let has_address = status.pod_ip.as_ref().is_some_and(|ip| !ip.is_empty())
        || status.pod_ips.as_ref().is_some_and(|ips| !ips.is_empty());
    has_address && !is_finished(pod) && (includes_terminating || !is_terminating(pod))
}

/// The name it is found by below the Service's, if it has one there.
pub(crate) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_ref().filter(|name| !name.is_empty())?;
    (spec.subdomain.is_some() && spec.subdomain == service.metadata.name).then(|| hostname.clone())
}

/// The number of the pod's port that a port of a Service leads to. `None` when no container has a port of that name.
pub(crate) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let of = |container: &Container| {
        let mut ports = container.ports.iter().flatten();
        let found =
            ports.find(|it| it.name.as_ref() == Some(name) && protocol(&it.protocol) == protocol(&port.protocol))?;
        Some(found.container_port)
    };
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    spec.containers.iter().find_map(of).or_else(|| sidecars.into_iter().find_map(of))
}

/// A protocol, with the default.
pub(crate) fn protocol(protocol: &Option<String>) -> &str {
    protocol.as_deref().unwrap_or("TCP")
}

/// Whether it has no address of its own.
pub(crate) fn is_headless(service: &Service) -> bool {
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    address.is_empty() || address == NO_ADDRESS
}

/// When it became ready, or ceased to be.
pub(crate) fn ready_changed(pod: &Pod) -> Option<Timestamp> {
    Some(condition(pod, "Ready")?.last_transition_time.as_ref()?.0)
}

/// The earliest moment of what led to a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trigger(Option<Timestamp>);

impl Trigger {
    /// The moment at which the Service was made.
    pub(crate) fn created<K: Kind>(object: &K) -> Self {
        Self(object.meta().creation_timestamp.as_ref().map(|created| created.0))
    }

    /// Takes another moment in.
    pub(crate) fn add(&mut self, moment: Option<Timestamp>) {
        self.0 = [self.0, moment].into_iter().flatten().min();
    }

    /// Takes the moment of another change in.
    pub(crate) fn merge(&mut self, other: Self) {
        self.add(other.0);
    }

    /// Notes it in the annotations, or takes out what an earlier change noted.
    pub(crate) fn note(self, annotations: &mut Option<BTreeMap<String, String>>) {
        match self.0 {
            Some(moment) => {
                _ = annotations.get_or_insert_default().insert(LAST_CHANGE.to_owned(), moment.to_string());
            }
            None => {
                if let Some(annotations) = annotations {
                    annotations.remove(LAST_CHANGE);
                }
            }
        }
    }
}

/// Whether the API refused because the namespace is going: whatever is in it goes as well.
pub(crate) fn is_going(failure: &Failure) -> bool {
    let Failure::Api(kube::Error::Api(status)) = failure else { return false };
    let mut causes = status.details.iter().flat_map(|details| details.causes.iter());
    causes.any(|cause| cause.reason == "NamespaceTerminating")
}

/// The keys of objects that are the same as their Services' keys.
pub(crate) fn same_name<K: Kind>(old: Option<&K>, new: Option<&K>, keys: &mut Vec<ObjectKey>) {
    keys.extend(new.or(old).map(ObjectKey::of));
}

/// A shared object, borrowed.
pub(crate) fn get<'a, K: Kind>(snapshot: &'a Option<Arc<Snapshot<K>>>, key: &ObjectKey) -> Option<&'a Arc<K>> {
    snapshot.as_ref()?.get(&key.namespace, &key.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_leniently_as_upstream_does() {
        assert_eq!(parse("010.000.1.02").map(|ip| ip.to_string()), Some("10.0.1.2".to_owned()));
        assert_eq!(parse("FD00:0::1").map(|ip| ip.to_string()), Some("fd00::1".to_owned()));
        assert_eq!(parse("10.1.2"), None);
        assert_eq!(parse("a.b.c.d"), None);
    }

    #[test]
    fn a_named_port_is_found_in_containers_and_sidecars() {
        let pod: Pod = serde_json::from_value(serde_json::json!({"spec": {
            "containers": [{"name": "a", "ports": [{"name": "web", "containerPort": 80, "protocol": "UDP"},
                {"name": "web", "containerPort": 8080}]}],
            "initContainers": [
                {"name": "once", "ports": [{"name": "side", "containerPort": 1}]},
                {"name": "side", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 2}]}]}}))
        .expect("a pod");
        for (target, protocol, expected) in [
            (serde_json::json!("web"), "TCP", Some(8080)),
            (serde_json::json!("web"), "UDP", Some(80)),
            (serde_json::json!("side"), "TCP", Some(2)),
            (serde_json::json!("none"), "TCP", None),
            (serde_json::json!(9), "TCP", Some(9)),
            (serde_json::json!(null), "TCP", Some(7)),
        ] {
            let port = serde_json::json!({"port": 7, "targetPort": target, "protocol": protocol});
            let port = serde_json::from_value(port).expect("a port");
            assert_eq!(target_port(&pod, &port), expected, "{target}");
        }
    }
}
