//! Which nodes a Service has. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k3sd_client::controller::pods;
use k8s_openapi::api::core::v1::{Node, Pod, Service};

use crate::status::present;
use crate::tolerations::{are_enough, wanted};

/// If any node has this label, only nodes where it is `true` are used.
const ENABLED: &str = "svccontroller.k3s.cattle.io/enablelb";
/// Then a Service with this label is on nodes with the same.
const POOL: &str = "svccontroller.k3s.cattle.io/lbpool";
/// Pods of K3s that forward for a Service say for which.
const SERVICE_NAME: &str = "svccontroller.k3s.cattle.io/svcname";

/// A port of a node: protocol and number.
type Port = (String, i32);

/// Whether a Service wants a load balancer, and from here.
pub(crate) fn wants(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        spec.type_.as_deref() == Some("LoadBalancer")
            && spec.load_balancer_class.as_deref().unwrap_or_default().is_empty()
    })
}

/// Whether it is going.
pub(crate) fn is_going(service: &Service) -> bool {
    service.metadata.deletion_timestamp.is_some()
}

/// Whether only nodes with a ready endpoint take its traffic.
pub(crate) fn is_local(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.external_traffic_policy.as_deref()) == Some("Local")
}

fn label<'a>(labels: Option<&'a BTreeMap<String, String>>, name: &str) -> Option<&'a str> {
    labels?.get(name).map(String::as_str)
}

fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True")
}

/// The ports of nodes that pods have.
pub(crate) fn host_ports(pod: &Pod) -> impl Iterator<Item = Port> {
    let is_forwarding = label(pod.metadata.labels.as_ref(), SERVICE_NAME).is_some();
    let spec = pod.spec.as_ref().filter(|_| !is_forwarding && !pods::is_finished(pod));
    let containers = spec.into_iter().flat_map(|spec| {
        let sidecars = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always")))
    });
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        Some((port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), number))
    })
}

fn ports(service: &Service) -> impl Iterator<Item = Port> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.map(|port| (port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), port.port))
}

/// All that it is decided by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World<'a> {
    /// All Services.
    pub(crate) services: &'a [&'a Service],
    pub(crate) nodes: &'a [&'a Node],
    pub(crate) pods: &'a [&'a Pod],
}

/// The nodes that one Service has, before it is asked where its endpoints are.
///
/// Services have ports of nodes in the order of their age, whether they have endpoints there or not: so a Service doesn't
/// lose its addresses to a younger one while its pods are exchanged.
pub(crate) fn nodes_of<'a>(service: &Service, world: &World<'a>) -> Vec<&'a Node> {
    let mut taken: BTreeSet<(&str, Port)> = BTreeSet::new();
    for pod in world.pods {
        taken.extend(host_ports(pod).map(|port| (pods::node(pod), port)));
    }
    let is_before = |other: &&Service| wants(other) && !is_going(other) && age(other) < age(service);
    let mut before: Vec<&Service> = world.services.iter().copied().filter(is_before).collect();
    before.sort_by_key(|other| age(other));
    for older in before {
        let nodes = free(older, world.nodes, &taken);
        taken.extend(nodes.iter().flat_map(|node| ports(older).map(|port| (name(node), port))));
    }
    free(service, world.nodes, &taken)
}

/// The nodes that a Service may have, and on which none of its ports is taken.
fn free<'a>(service: &Service, nodes: &[&'a Node], taken: &BTreeSet<(&str, Port)>) -> Vec<&'a Node> {
    let wanted: Vec<Port> = ports(service).collect();
    let mut found = eligible(service, nodes);
    found.retain(|node| wanted.iter().all(|port| !taken.contains(&(name(node), port.clone()))));
    found
}

/// The order in which Services have ports. Ages are whole seconds: of two that are as old the one counts that has
/// addresses already, and then the name.
fn age(service: &Service) -> (Option<jiff::Timestamp>, bool, Option<&str>, Option<&str>) {
    let meta = &service.metadata;
    let made = meta.creation_timestamp.as_ref().map(|time| time.0);
    (made, present(service).is_empty(), meta.namespace.as_deref(), meta.name.as_deref())
}

/// The nodes that a Service may have, whoever has their ports.
fn eligible<'a>(service: &Service, nodes: &[&'a Node]) -> Vec<&'a Node> {
    let is_chosen = nodes.iter().any(|node| label(node.metadata.labels.as_ref(), ENABLED).is_some());
    let pool = label(service.metadata.labels.as_ref(), POOL).filter(|pool| !pool.is_empty());
    // One that makes no sense is told of elsewhere, and tolerates nothing.
    let tolerations = wanted(service).unwrap_or_default();
    let fits = |node: &&Node| {
        let labels = node.metadata.labels.as_ref();
        let is_chosen = !is_chosen
            || label(labels, ENABLED) == Some("true") && pool.is_none_or(|pool| label(labels, POOL) == Some(pool));
        is_chosen && is_ready(node) && are_enough(node, &tolerations)
    };
    nodes.iter().copied().filter(fits).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, labels: Value) -> Node {
        let node = json!({
            "metadata": { "name": name, "labels": labels },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        serde_json::from_value(node).expect("a node")
    }

    fn service(name: &str, second: u8, ports: &[(&str, i32)], labels: Value) -> Service {
        let ports: Vec<_> =
            ports.iter().map(|(protocol, port)| json!({ "protocol": protocol, "port": port })).collect();
        let service = json!({
            "metadata": {
                "name": name, "namespace": "n", "labels": labels,
                "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            },
            "spec": { "type": "LoadBalancer", "ports": ports },
        });
        serde_json::from_value(service).expect("a service")
    }

    fn pod(node: &str, port: Value) -> Pod {
        let pod = json!({
            "metadata": { "name": "p" },
            "spec": { "nodeName": node, "containers": [{ "name": "c", "ports": [port] }] },
        });
        serde_json::from_value(pod).expect("a pod")
    }

    fn names(service: &Service, services: &[&Service], nodes: &[&Node], pods: &[&Pod]) -> Vec<String> {
        nodes_of(service, &World { services, nodes, pods }).into_iter().map(|node| name(node).to_owned()).collect()
    }

    #[test]
    fn labels_choose_nodes() {
        let http = |labels: Value| service("s", 1, &[("TCP", 80)], labels);
        let plain = [node("a", json!({})), node("b", json!({ POOL: "x" }))];
        let plain: Vec<&Node> = plain.iter().collect();
        assert_eq!(names(&http(json!({})), &[], &plain, &[]), ["a", "b"]);
        assert_eq!(names(&http(json!({ POOL: "x" })), &[], &plain, &[]), ["a", "b"], "pools are for chosen nodes");
        let chosen = [
            node("a", json!({ ENABLED: "true", POOL: "x" })),
            node("b", json!({ ENABLED: "true" })),
            node("c", json!({ ENABLED: "false", POOL: "x" })),
            node("d", json!({ POOL: "x" })),
        ];
        let chosen: Vec<&Node> = chosen.iter().collect();
        assert_eq!(names(&http(json!({})), &[], &chosen, &[]), ["a", "b"]);
        assert_eq!(names(&http(json!({ POOL: "x" })), &[], &chosen, &[]), ["a"]);
        let mut away = node("e", json!({}));
        away.status = None;
        assert_eq!(names(&http(json!({})), &[], &[&away], &[]), [""; 0]);
    }

    #[test]
    fn a_port_of_a_node_is_had_once() {
        let (a, b) = (node("a", json!({})), node("b", json!({})));
        let nodes = [&a, &b];
        let first = service("first", 1, &[("TCP", 80), ("TCP", 443)], json!({}));
        let second = service("second", 2, &[("TCP", 443)], json!({}));
        let other = service("other", 3, &[("UDP", 443), ("TCP", 81)], json!({}));
        let all = [&second, &other, &first];
        assert_eq!(names(&first, &all, &nodes, &[]), ["a", "b"]);
        assert_eq!(names(&second, &all, &nodes, &[]), [""; 0]);
        assert_eq!(names(&other, &all, &nodes, &[]), ["a", "b"]);
        // A pod has a node's port before any Service, and so the second has the node that the first lost.
        let held = pod("a", json!({ "containerPort": 8080, "hostPort": 80, "protocol": "TCP" }));
        assert_eq!(names(&first, &all, &nodes, &[&held]), ["b"]);
        assert_eq!(names(&second, &all, &nodes, &[&held]), ["a"]);
        let mut forwarding = held.clone();
        forwarding.metadata.labels = Some(BTreeMap::from([(SERVICE_NAME.to_owned(), "first".to_owned())]));
        let mut finished = held.clone();
        finished.status = serde_json::from_value(json!({ "phase": "Succeeded" })).expect("a status");
        let inside = pod("a", json!({ "containerPort": 80 }));
        let udp = pod("a", json!({ "containerPort": 80, "hostPort": 80, "protocol": "UDP" }));
        for pod in [forwarding, finished, inside, udp] {
            assert_eq!(names(&first, &all, &nodes, &[&pod]), ["a", "b"]);
        }
        let mut going = first.clone();
        going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
        assert_eq!(names(&second, &[&second, &going], &nodes, &[]), ["a", "b"]);
    }

    #[test]
    fn of_two_as_old_the_one_with_addresses_keeps_them() {
        let (a, web) = (node("a", json!({})), service("web", 1, &[("TCP", 80)], json!({})));
        let mut late = service("late", 1, &[("TCP", 80)], json!({}));
        assert_eq!(
            (names(&web, &[&web, &late], &[&a], &[]), names(&late, &[&web, &late], &[&a], &[])),
            (vec![], vec!["a".to_owned()])
        );
        let mut web = web;
        web.status =
            serde_json::from_value(json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.1" }] } })).expect("one");
        assert_eq!(
            (names(&web, &[&web, &late], &[&a], &[]), names(&late, &[&web, &late], &[&a], &[])),
            (vec!["a".to_owned()], vec![])
        );
        late.metadata.creation_timestamp = None;
        assert_eq!(names(&web, &[&web, &late], &[&a], &[]), [""; 0], "the older one");
    }

    #[test]
    fn somebody_elses_services_are_left_alone() {
        let mut one = service("s", 1, &[("TCP", 80)], json!({}));
        assert!(wants(&one) && !is_local(&one));
        let spec = one.spec.as_mut().expect("set");
        spec.load_balancer_class = Some("example.com/lb".to_owned());
        assert!(!wants(&one));
        let second = service("t", 2, &[("TCP", 80)], json!({}));
        let a = node("a", json!({}));
        assert_eq!(names(&second, &[&one, &second], &[&a], &[]), ["a"]);
    }
}
