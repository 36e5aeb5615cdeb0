//! Services as the API has them, and what the kernel is to do about them.

use std::collections::BTreeMap;
use std::slice::from_ref;

use serde_json::{Value, json};

use super::*;
use crate::rules::{Masquerade, Recipe, SetId, endpoint_of, read_address, recipe_of};

pub(super) const TERMS: Terms = Terms { masquerade_all: false, local_load_balancer: true };

pub(super) fn node() -> Node {
    let node = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "z1"}}, "status": {"addresses": [
        {"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n1"},
        {"type": "InternalIP", "address": "fd02::1"}, {"type": "ExternalIP", "address": "198.51.100.1"},
    ]}});
    Node::of("n1", &serde_json::from_value(node).unwrap())
}

pub(super) fn service(name: &str, spec: &Value) -> Arc<Service> {
    let mut spec = spec.clone();
    let status =
        spec.as_object_mut().unwrap().remove("ingress").map(|ingress| json!({"loadBalancer": {"ingress": ingress}}));
    let value = json!({"metadata": {"namespace": "a", "name": name}, "spec": spec, "status": status});
    Arc::new(serde_json::from_value(value).unwrap())
}

/// Endpoints at port 8080, each as address and node.
pub(super) fn slice(name: &str, of: &str, endpoints: &[(&str, &str)]) -> Arc<EndpointSlice> {
    let endpoints: Vec<_> = endpoints.iter().map(|(at, node)| json!({"addresses": [at], "nodeName": node})).collect();
    let is_ipv6 = name.ends_with('6');
    let value = json!({"metadata": {"namespace": "a", "name": name, "labels": {"kubernetes.io/service-name": of}},
        "addressType": if is_ipv6 { "IPv6" } else { "IPv4" }, "endpoints": endpoints, "ports": [{"name": "", "port": 8080}]});
    Arc::new(serde_json::from_value(value).unwrap())
}

/// What the kernel would do: by address and port the recipe, its endpoints, and those of this node.
pub(super) fn shown(model: &Model) -> BTreeMap<String, (Recipe, Vec<String>, Vec<String>)> {
    let fronts = model.ledger.iter().filter(|(key, _)| key.set() == SetId::Services);
    let one = |(key, value): (&ElementKey, &[u8])| {
        let (_, address, port) = key.service().unwrap();
        let recipe = recipe_of(value).unwrap();
        let endpoints = |first: u32, count: u32| -> Vec<String> {
            let at = |index| {
                let value = model.ledger.get(&key.endpoint(&recipe, index)).expect("an endpoint for each index");
                let value = endpoint_of(&recipe, value).unwrap();
                let (address, port) = read_address(value, key.is_ipv6()).unwrap();
                format!("{address}:{}", u16::from_be_bytes([port[0], port[1]]))
            };
            (first..first + count).map(at).collect()
        };
        let local = endpoints(crate::rules::LOCAL_INDEX, recipe.local.unwrap_or(0));
        (format!("{address} {port}"), (recipe, endpoints(0, recipe.endpoints), local))
    };
    fronts.map(one).collect()
}

pub(super) fn model(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Model {
    let mut model = Model::new(node(), TERMS);
    services.iter().for_each(|service| model.set_service(service.clone()));
    slices.iter().for_each(|slice| model.set_slice(slice.clone()));
    model.refresh();
    model
}

pub(super) fn in_set(model: &Model, set: SetId) -> usize {
    model.ledger.iter().filter(|(key, _)| key.set() == set).count()
}

#[test]
fn a_cluster_address_and_its_endpoints() {
    let spec = json!({"clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5", "fd43::5"], "ports": [{"port": 80}]});
    let slices =
        [slice("s4", "web", &[("10.42.0.2", "n1"), ("10.42.1.2", "n2")]), slice("s6", "web", &[("fd42::2", "n1")])];
    let mut model = model(&[service("web", &spec)], &slices);
    let found = shown(&model);
    let (recipe, endpoints, _) = &found["10.43.0.5 80"];
    assert_eq!((recipe.masquerade, recipe.local, recipe.drops), (Masquerade::FromOutside, None, false));
    assert_eq!(endpoints, &["10.42.0.2:8080", "10.42.1.2:8080"]);
    assert_eq!(found["fd43::5 80"].1, ["fd42::2:8080"]);
    assert_eq!((found.len(), in_set(&model, SetId::Addresses), in_set(&model, SetId::Hairpin)), (2, 2, 2));
    assert_eq!(in_set(&model, SetId::StickyEndpoints), 0);

    // One endpoint more is its element, and the recipe of the one place.
    model.ledger.told();
    model.set_slice(slice("s6", "web", &[("fd42::2", "n1"), ("fd42::3", "n2")]));
    assert_eq!(model.refresh(), 1);
    assert_eq!(model.ledger.differences().len(), 2);
    model.ledger.told();
    model.remove_slice(&"a/s4".into());
    model.remove_slice(&"a/s6".into());
    model.refresh();
    assert!(shown(&model).values().all(|(recipe, ..)| recipe.endpoints == 0 && !recipe.drops));
    model.remove_service(&"a/web".into());
    model.refresh();
    assert_eq!((model.ledger.len(), model.services.len(), model.slices.len()), (0, 0, 0));
}

#[test]
fn nothing_comes_of_those_without_an_address() {
    for spec in [
        json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]}),
        json!({"type": "ExternalName", "externalName": "example.com"}),
        json!({"ports": [{"port": 80}]}),
    ] {
        let model = model(&[service("web", &spec)], &[slice("s4", "web", &[("10.42.0.2", "n1")])]);
        assert_eq!(model.ledger.len(), 0, "{spec}");
    }
}

#[test]
fn policies_say_who_gets_which_endpoints() {
    let spec = json!({"type": "LoadBalancer", "clusterIP": "10.43.0.5", "internalTrafficPolicy": "Local",
        "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001, "externalIPs": ["203.0.113.9"],
        "ports": [{"port": 80, "nodePort": 30080}], "ingress": [{"ip": "192.0.2.1"}, {"ip": "203.0.113.7", "ipMode": "Proxy"}]});
    let web = service("web", &spec);
    let both = slice("s4", "web", &[("10.42.0.2", "n1"), ("10.42.1.2", "n2")]);
    let found = shown(&model(from_ref(&web), from_ref(&both)));
    assert_eq!(found["10.43.0.5 80"].1, ["10.42.0.2:8080"]);
    let places = ["203.0.113.9 80", "192.0.2.1 80", "0.0.0.0 30080", "0.0.0.1 80"];
    for place in places {
        let (recipe, all, local) = &found[place];
        assert_eq!(
            (recipe.local, all.len(), local.as_slice()),
            (Some(1), 2, &["10.42.0.2:8080".to_owned()][..]),
            "{place}"
        );
    }
    assert_eq!(found.len(), 5, "an address behind a proxy is not ours: {found:?}");

    let elsewhere = slice("s4", "web", &[("10.42.1.2", "n2")]);
    let mut model = model(from_ref(&web), &[elsewhere]);
    let found = shown(&model);
    assert!(found["10.43.0.5 80"].0.drops, "there are endpoints, but not for here");
    assert!(places.iter().all(|place| found[*place].0.local == Some(0)));
    assert_eq!(model.without_local(), [[1, 1], [0, 0]]);
    let health = &model.health_ports()[&30001];
    assert_eq!((health.endpoints, health.name.as_str()), (0, "web"));
    model.set_slice(slice("s4", "web", &[]));
    model.refresh();
    let found = shown(&model);
    assert!(found.values().all(|(recipe, ..)| !recipe.drops && recipe.local.is_none() && recipe.endpoints == 0));
    assert_eq!(model.without_local(), WithoutLocal::default());
    model.set_slice(both);
    model.refresh();
    assert_eq!(model.health_ports()[&30001].endpoints, 1);
    model.remove_service(&"a/web".into());
    model.refresh();
    assert!(model.health_ports().is_empty());
}

#[test]
fn sticky_and_checked_services() {
    let spec = json!({"type": "LoadBalancer", "clusterIP": "10.43.0.5", "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90}}, "ports": [{"port": 80}],
        "loadBalancerSourceRanges": [" 198.51.100.0/24", "fd00::/8"], "ingress": [{"ip": "192.0.2.1"}]});
    let model = model(&[service("web", &spec)], &[slice("s4", "web", &[("10.42.0.2", "n1"), ("10.42.1.2", "n2")])]);
    let found = shown(&model);
    let checks = |place: &str| found[place].0.checks_source;
    assert_eq!((checks("10.43.0.5 80"), checks("192.0.2.1 80"), checks("0.0.0.1 80")), (false, true, true));
    assert!(found.values().all(|(recipe, ..)| recipe.sticky_seconds == 90));
    assert_eq!((in_set(&model, SetId::StickyEndpoints), in_set(&model, SetId::Endpoints)), (6, 0));
    // One range in two places, and the balancer's own address, as a node may come by itself.
    assert_eq!(in_set(&model, SetId::Sources), 3);
}

#[test]
fn a_balancer_of_another_class_is_not_this_node() {
    let spec = json!({"type": "LoadBalancer", "clusterIP": "10.43.0.5", "loadBalancerClass": "example.com/x",
        "ports": [{"port": 80}], "ingress": [{"ip": "192.0.2.1"}]});
    let found = shown(&model(&[service("web", &spec)], &[]));
    assert!(found.contains_key("192.0.2.1 80") && !found.contains_key("0.0.0.1 80"));
}

#[test]
fn all_there_is_replaces_what_was() {
    let spec = json!({"clusterIP": "10.43.0.5", "ports": [{"port": 80}]});
    let other = json!({"clusterIP": "10.43.0.6", "ports": [{"port": 80}]});
    let (web, api) = (service("web", &spec), service("api", &other));
    let slices = [slice("s4", "web", &[("10.42.0.2", "n1")]), slice("t4", "api", &[("10.42.0.3", "n1")])];
    let mut model = model(&[web.clone(), api.clone()], &slices);
    model.ledger.told();
    model.replace_services([web.clone(), api].into_iter());
    model.replace_slices(slices.iter().cloned());
    assert_eq!(model.refresh(), 0, "the same objects are no change");
    model.replace_services([web].into_iter());
    // The endpoints of one service become those of the other.
    model.replace_slices(
        [slice("s4", "web", &[("10.42.0.2", "n1")]), slice("t4", "web", &[("10.42.0.3", "n1")])].into_iter(),
    );
    model.refresh();
    let found = shown(&model);
    assert_eq!((found.len(), found["10.43.0.5 80"].1.len()), (1, 2));
    let mut elsewhere = node();
    elsewhere.place.zone = None;
    model.set_node(elsewhere);
    assert_eq!(model.refresh(), 1);
}
