//! What nobody should say, but somebody does: services that want the same place, addresses that are nobody's, types that
//! come and go, and very many endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::slice::from_ref;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{TERMS, in_set, model, node, service, shown, slice};
use super::*;

/// All that the kernel is to have.
fn wanted(model: &Model) -> BTreeMap<ElementKey, Vec<u8>> {
    model.ledger.iter().map(|(key, value)| (key.clone(), value.to_vec())).collect()
}

/// Who may come to places: address and port, and the network.
fn sources(model: &Model) -> BTreeSet<(String, Vec<u8>)> {
    let of = model.ledger.iter().filter(|(key, _)| key.set() == SetId::Sources);
    of.map(|(key, _)| {
        let (_, address, port) = key.service().unwrap();
        (format!("{address} {port}"), key.bytes()[12..].to_vec())
    })
    .collect()
}

#[test]
fn addresses_that_are_nobodys_lead_nowhere() {
    let strange =
        ["0.0.0.0", "0.0.0.1", "127.0.0.1", "224.0.0.1", "255.255.255.255", "x", "::", "100::1", "::1", "ff02::1"];
    let ingress: Vec<_> =
        strange.iter().map(|ip| json!({"ip": ip})).chain([json!({"hostname": "example.com"})]).collect();
    let spec = json!({"type": "LoadBalancer", "clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5", "127.0.0.1", "100::1"],
        "externalIPs": strange, "ports": [{"port": 80}], "ingress": ingress});
    let slices = [slice("s4", "web", &[("127.0.0.1", "n1"), ("10.42.0.2", "n1")])];
    let model = model(&[service("web", &spec)], &slices);
    let found = shown(&model);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["10.43.0.5 80"]);
    assert_eq!(found["10.43.0.5 80"].1, ["10.42.0.2:8080"], "what is on the loopback isn't for everybody");
    assert_eq!((in_set(&model, SetId::Addresses), in_set(&model, SetId::Hairpin)), (1, 1));
}

#[test]
fn services_without_sense_are_left_out() {
    for spec in [
        json!({}),
        json!({"clusterIP": "10.43.0.5"}),
        json!({"clusterIP": "10.43.0.5", "ports": []}),
        json!({"clusterIP": "10.43.0.5", "ports": [{"port": 0}]}),
        json!({"clusterIP": "10.43.0.5", "ports": [{"port": 65_536, "nodePort": 30000}]}),
        json!({"clusterIP": "10.43.0.5", "ports": [{"port": -1}]}),
        json!({"clusterIP": "10.43.0.5", "ports": [{"port": 80, "protocol": "QUIC"}]}),
    ] {
        let model = model(&[service("web", &spec)], &[slice("s4", "web", &[("10.42.0.2", "n1")])]);
        assert!(shown(&model).is_empty(), "{spec}");
    }
    let spec = json!({"clusterIP": "10.43.0.5", "clusterIPs": [], "ports": [{"port": 80, "nodePort": 0}, {"port": 81, "nodePort": 70_000}]});
    let found = shown(&model(&[service("web", &spec)], &[]));
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        ["10.43.0.5 80", "10.43.0.5 81"],
        "a node port that is none does no harm"
    );
}

#[test]
fn ranges_that_are_not_understood_let_nobody_in() {
    for (ranges, is_checked, networks) in [
        (json!([]), false, 0),
        (json!(["198.18.0.0/24"]), true, 1),
        (json!(["198.018.000.000/24"]), true, 1),
        (json!(["198.18.0.7/24", "198.18.0.0/24"]), true, 1),
        (json!(["nonsense"]), true, 0),
        (json!(["nonsense", "198.18.0.0/24"]), true, 1),
        (json!(["nonsense", "fd00::/8"]), true, 0),
        // Upstream does the same, and people have come to rely on it.
        (json!(["fd00::/8"]), false, 0),
    ] {
        let spec = json!({"type": "LoadBalancer", "clusterIP": "10.43.0.5", "ports": [{"port": 80}],
            "loadBalancerSourceRanges": ranges, "ingress": [{"ip": "203.0.113.7"}]});
        let model = model(&[service("web", &spec)], &[slice("s4", "web", &[("10.42.0.2", "n1")])]);
        let checks = shown(&model)["203.0.113.7 80"].0.checks_source;
        assert_eq!((checks, in_set(&model, SetId::Sources)), (is_checked, networks), "{ranges}");
    }
}

#[test]
fn of_two_services_at_one_place_the_first_by_name_has_it() {
    let spec = |ports: Value| json!({"type": "NodePort", "clusterIP": "10.43.0.5", "ports": ports});
    let ports = json!([{"port": 80, "nodePort": 30080}]);
    let (a, b) = (service("a", &spec(ports.clone())), service("b", &spec(ports)));
    let slices =
        [slice("a4", "a", &[("10.42.0.2", "n1")]), slice("b4", "b", &[("10.42.0.3", "n1"), ("10.42.0.4", "n1")])];
    for order in [[&a, &b], [&b, &a]] {
        let mut model = model(&order.map(Arc::clone), &slices);
        for place in ["10.43.0.5 80", "0.0.0.0 30080"] {
            assert_eq!(shown(&model)[place].1, ["10.42.0.2:8080"], "{place}");
        }
        model.remove_service(&"a/a".into());
        model.refresh();
        for place in ["10.43.0.5 80", "0.0.0.0 30080"] {
            assert_eq!(shown(&model)[place].1, ["10.42.0.3:8080", "10.42.0.4:8080"], "{place}");
        }
        model.remove_service(&"a/b".into());
        model.refresh();
        assert_eq!(model.ledger.len(), 0);
    }
}

#[test]
fn nobody_opens_the_place_of_another() {
    let spec = |ranges: Value| {
        json!({"type": "LoadBalancer", "clusterIP": null, "clusterIPs": [], "ports": [{"port": 80}],
            "loadBalancerSourceRanges": ranges, "ingress": [{"ip": "203.0.113.7"}]})
    };
    let with_address = |name: &str, address: &str, ranges: Value| {
        let mut spec = spec(ranges);
        spec["clusterIP"] = address.into();
        service(name, &spec)
    };
    let first = with_address("a", "10.43.0.5", json!(["198.18.0.0/24"]));
    let second = with_address("b", "10.43.0.6", json!(["198.18.0.0/15"]));
    let network = |bits: u32, address: [u8; 4]| {
        let mut bytes = bits.to_ne_bytes().to_vec();
        bytes.extend(address);
        BTreeSet::from([("203.0.113.7 80".to_owned(), bytes)])
    };
    for order in [[&first, &second], [&second, &first]] {
        let mut model = model(&order.map(Arc::clone), &[]);
        assert_eq!(sources(&model), network(24, [198, 18, 0, 0]));
        // The first goes and comes again, while nothing is said of the second.
        model.remove_service(&"a/a".into());
        model.refresh();
        assert_eq!(sources(&model), network(15, [198, 18, 0, 0]));
        model.set_service(first.clone());
        model.refresh();
        assert_eq!(sources(&model), network(24, [198, 18, 0, 0]));
    }
}

#[test]
fn types_come_and_go() {
    let ports = json!([{"port": 80, "nodePort": 30080}]);
    let cluster = json!({"type": "ClusterIP", "clusterIP": "10.43.0.5", "ports": [{"port": 80}]});
    let name = json!({"type": "ExternalName", "externalName": "example.com", "ports": [{"port": 80}]});
    // Some clients leave the address behind.
    let name_with_address = json!({"type": "ExternalName", "clusterIP": "10.43.0.5", "ports": ports.clone()});
    let node_port = json!({"type": "NodePort", "clusterIP": "10.43.0.9", "ports": ports.clone()});
    let headless = json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]});
    let slices = [slice("s4", "web", &[("10.42.0.2", "n1")])];
    let all = [cluster, name, node_port, headless, name_with_address];
    let mut flapping = model(&[], &slices);
    for round in 0..3 {
        for at in 0..all.len() {
            let spec = &all[(at * (round + 1)) % all.len()];
            let web = service("web", spec);
            flapping.set_service(web.clone());
            flapping.refresh();
            assert_eq!(wanted(&flapping), wanted(&model(from_ref(&web), &slices)), "{spec}");
        }
    }
    flapping.set_service(service("web", &all[1]));
    flapping.refresh();
    assert_eq!(flapping.ledger.len(), 0);
}

#[test]
fn ten_thousand_endpoints_of_one_service() {
    let many = |slice_number: u32| {
        let endpoints: Vec<_> = (0..100)
            .map(|at| {
                let [_, _, c, d] = (slice_number * 100 + at).to_be_bytes();
                json!({"addresses": [format!("10.42.{c}.{d}")], "nodeName": if at == 0 { "n1" } else { "n2" }})
            })
            .collect();
        let value = json!({"metadata": {"namespace": "a", "name": format!("web-{slice_number}"),
            "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "", "port": 8080}]});
        Arc::new(serde_json::from_value::<EndpointSlice>(value).unwrap())
    };
    let spec = json!({"type": "NodePort", "clusterIP": "10.43.0.5", "externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
        "ports": [{"port": 80, "nodePort": 30080}]});
    let slices: Vec<_> = (0..100).map(many).collect();
    let mut model = model(&[service("web", &spec)], &slices);
    let found = shown(&model);
    assert_eq!((found["10.43.0.5 80"].1.len(), found["0.0.0.0 30080"].2.len()), (10_000, 100));
    assert_eq!(in_set(&model, SetId::Hairpin), 100);
    let whole = wanted(&model);
    model.remove_slice(&"a/web-7".into());
    model.refresh();
    assert_eq!(shown(&model)["10.43.0.5 80"].1.len(), 9900);
    model.set_slice(slices[7].clone());
    model.refresh();
    assert_eq!(wanted(&model), whole);
}

#[test]
fn slices_are_what_they_lead_to() {
    let spec = json!({"clusterIP": "10.43.0.5", "ports": [{"port": 80}]});
    let at = |time: &str, endpoint: &str| {
        let mut slice = (*slice("s4", "web", &[(endpoint, "n1")])).clone();
        slice.metadata.annotations = Some([(LAST_CHANGE.to_owned(), time.to_owned())].into());
        Arc::new(slice)
    };
    let mut model = model(&[service("web", &spec)], &[at("2026-01-01T00:00:00.5Z", "10.42.0.2")]);
    let first = Duration::new(1_767_225_600, 500_000_000);
    assert_eq!(model.take_triggers(), [vec![first], vec![]]);
    // The same told anew, as after every list.
    model.set_slice(at("2026-01-01T00:00:00.5Z", "10.42.0.2"));
    model.set_slice(at("2026-01-01T00:00:09Z", "10.42.0.2"));
    assert_eq!((model.refresh(), model.take_triggers()), (0, [vec![], vec![]]));
    model.set_slice(at("2026-01-01T00:00:01.5Z", "10.42.0.3"));
    model.set_slice(at("yesterday", "10.42.0.4"));
    model.set_slice(at("1026-01-01T00:00:00Z", "10.42.0.5"));
    assert_eq!((model.refresh(), model.take_triggers()), (1, [vec![first + Duration::from_secs(1)], vec![]]));
    model.remove_slice(&"a/s4".into());
    assert_eq!(
        (model.refresh(), model.take_triggers()),
        (1, [vec![], vec![]]),
        "what is gone says nothing of when it went"
    );
    // One that becomes another service's.
    model.set_slice(at("2026-01-01T00:00:00.5Z", "10.42.0.2"));
    let mut of_another = (*at("2026-01-01T00:00:00.5Z", "10.42.0.2")).clone();
    of_another.metadata.labels = Some([(SERVICE_NAME.to_owned(), "api".to_owned())].into());
    model.set_slice(Arc::new(of_another));
    assert_eq!(model.refresh(), 2);
    assert!(shown(&model)["10.43.0.5 80"].1.is_empty());
}

/// Services and slices that get in each other's way.
fn spec(kind: u8) -> Value {
    let ranges = |range: &str| {
        json!({"type": "LoadBalancer", "clusterIP": "10.43.0.6", "ports": [{"port": 80, "nodePort": 30080}],
            "loadBalancerSourceRanges": [range], "ingress": [{"ip": "203.0.113.7"}]})
    };
    match kind {
        0 => json!({"clusterIP": "10.43.0.5", "ports": [{"port": 80}]}),
        1 => json!({"type": "NodePort", "clusterIP": "10.43.0.5", "ports": [{"port": 80, "nodePort": 30080}]}),
        2 => ranges("198.18.0.0/24"),
        3 => ranges("0.0.0.0/0"),
        4 => {
            json!({"clusterIP": "10.43.0.5", "sessionAffinity": "ClientIP", "externalIPs": ["203.0.113.7"], "ports": [{"port": 80}]})
        }
        _ => json!({"type": "ExternalName", "externalName": "example.com"}),
    }
}

proptest! {
    /// It doesn't matter how things came to be as they are.
    #[test]
    fn what_is_wanted_follows_from_what_there_is(
        steps in proptest::collection::vec((0..3_usize, any::<bool>(), proptest::option::of(0..6_u8), any::<bool>()), 0..40),
    ) {
        let names = ["a", "b", "c"];
        let mut lived = Model::new(node(), TERMS);
        let mut services: BTreeMap<usize, Arc<Service>> = BTreeMap::new();
        let mut slices: BTreeMap<usize, Arc<EndpointSlice>> = BTreeMap::new();
        for (at, is_service, kind, tells) in steps {
            let name = names[at];
            match (is_service, kind) {
                (true, Some(kind)) => {
                    let new = service(name, &spec(kind));
                    lived.set_service(new.clone());
                    services.insert(at, new);
                }
                (true, None) => {
                    lived.remove_service(&format!("a/{name}").into());
                    services.remove(&at);
                }
                (false, Some(kind)) => {
                    let endpoints = [("10.42.0.2", "n1"), ("10.42.0.3", "n2"), ("10.42.0.4", "n1")];
                    let new = slice(&format!("s{name}"), names[usize::from(kind) % 3], &endpoints[..usize::from(kind) / 2]);
                    lived.set_slice(new.clone());
                    slices.insert(at, new);
                }
                (false, None) => {
                    lived.remove_slice(&format!("a/s{name}").into());
                    slices.remove(&at);
                }
            }
            if tells {
                lived.refresh();
                let services: Vec<_> = services.values().cloned().collect();
                let slices: Vec<_> = slices.values().cloned().collect();
                prop_assert_eq!(wanted(&lived), wanted(&model(&services, &slices)));
            }
        }
    }
}
