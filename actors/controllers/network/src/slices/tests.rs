//! Plans, each carried out on a made-up API and then made again: the second one has to be empty.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use serde_json::{Value, json};

use super::hints::{is_auto, shares};
use super::pack::ENDPOINTS_MAX;
use super::plan::{Observed, Plan};
use crate::members::LAST_CHANGE;

/// A Service, its pods, the nodes, and the slices that plans led to.
struct Bed {
    service: Service,
    pods: Vec<Pod>,
    nodes: BTreeMap<String, Node>,
    slices: Vec<Arc<EndpointSlice>>,
    named: usize,
}

impl Bed {
    fn new(spec: Value) -> Self {
        let mut service = json!({"metadata": {"name": "web", "namespace": "a", "uid": "s1",
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"team": "x"}},
            "spec": {"clusterIP": "10.43.0.9", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
        for (name, value) in spec.as_object().expect("fields of a spec") {
            service["spec"][name] = value.clone();
        }
        let service = serde_json::from_value(service).expect("a Service");
        let mut bed = Self { service, pods: Vec::new(), nodes: BTreeMap::new(), slices: Vec::new(), named: 0 };
        bed.node("n1", "z1", 4);
        bed
    }

    fn node(&mut self, name: &str, zone: &str, cpus: u32) {
        let node = json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
            "status": {"allocatable": {"cpu": cpus.to_string()}, "conditions": [{"type": "Ready", "status": "True"}]}});
        self.nodes.insert(name.to_owned(), serde_json::from_value(node).expect("a node"));
    }

    fn pod(&mut self, name: &str, node: &str, change: impl FnOnce(&mut Value)) {
        let number = self.pods.len();
        let ip = format!("10.42.{}.{}", number / 200, number % 200 + 1);
        let mut pod = json!({"metadata": {"name": name, "namespace": "a", "uid": format!("u-{name}"),
            "labels": {"app": "web"}}, "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"}]}});
        change(&mut pod);
        self.pods.push(serde_json::from_value(pod).expect("a pod"));
    }

    fn pods(&mut self, count: usize) {
        for number in 0..count {
            self.pod(&format!("p{number:04}"), "n1", |_| {});
        }
    }

    fn plan(&self) -> Plan {
        Observed {
            service: &self.service,
            pods: self.pods.iter().collect(),
            node: |name: &str| self.nodes.get(name),
            shares: if is_auto(&self.service) { shares(self.nodes.values()) } else { None },
            slices: self.slices.clone(),
        }
        .plan()
    }

    /// Carries a plan out, and checks that then there is nothing left to write. Says how many were created, updated and
    /// deleted, and the plan's Events.
    fn settle(&mut self) -> ([usize; 3], Vec<String>) {
        let plan = self.plan();
        let counts = [plan.create.len(), plan.update.len(), plan.delete.len()];
        for slice in plan.delete {
            self.slices.retain(|known| known.metadata.name != slice.metadata.name);
        }
        for slice in plan.update {
            let name = slice.metadata.name.clone();
            let known = self.slices.iter_mut().find(|known| known.metadata.name == name);
            *known.expect("what is updated is there") = Arc::new(slice);
        }
        for mut slice in plan.create {
            assert!(slice.metadata.name.is_none() && slice.metadata.generate_name.as_deref() == Some("web-"));
            self.named += 1;
            slice.metadata.name = Some(format!("web-{:03}", self.named));
            self.slices.push(Arc::new(slice));
        }
        let again = self.plan();
        assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty(), "{again:?}");
        (counts, plan.events.into_iter().map(|said| format!("{}: {}", said.reason, said.message)).collect())
    }

    fn counts(&mut self) -> [usize; 3] {
        self.settle().0
    }

    fn sizes(&self) -> Vec<usize> {
        self.slices.iter().map(|slice| slice.endpoints.len()).collect()
    }

    fn endpoint(&self, pod: &str) -> &Endpoint {
        let mut all = self.slices.iter().flat_map(|slice| &slice.endpoints);
        all.find(|endpoint| endpoint.target_ref.as_ref().and_then(|target| target.name.as_deref()) == Some(pod))
            .expect("an endpoint")
    }

    fn hints(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for hints in
            self.slices.iter().flat_map(|slice| &slice.endpoints).filter_map(|endpoint| endpoint.hints.as_ref())
        {
            for zone in hints.for_zones.iter().flatten() {
                *counts.entry(zone.name.clone()).or_default() += 1;
            }
        }
        counts
    }
}

#[test]
fn slices_are_full_before_there_is_another() {
    let mut bed = Bed::new(json!({}));
    bed.pods(250);
    assert_eq!(bed.counts(), [3, 0, 0]);
    assert_eq!(bed.sizes(), [100, 100, 50]);
    let slice = &bed.slices[0];
    assert_eq!(
        serde_json::to_value(&slice.metadata.labels).expect("labels"),
        json!({"team": "x",
        "kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})
    );
    let annotations = slice.metadata.annotations.as_ref().expect("some");
    assert_eq!(annotations[LAST_CHANGE], "2026-01-01T00:00:00Z", "what is new began with the Service");
    assert_eq!(slice.metadata.owner_references.as_ref().expect("one").len(), 1);

    let (full, other) = (bed.slices[1].clone(), bed.slices[2].clone());
    bed.pod("q", "n1", |pod| pod["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T00:05:00Z".into());
    assert_eq!(bed.counts(), [0, 1, 0], "one more goes where it fits best");
    assert_eq!(bed.sizes(), [100, 100, 51]);
    assert!(Arc::ptr_eq(&full, &bed.slices[1]) && !Arc::ptr_eq(&other, &bed.slices[2]));
    assert_eq!(bed.slices[2].metadata.annotations.as_ref().expect("some")[LAST_CHANGE], "2026-01-01T00:05:00Z");

    bed.pods.retain(|pod| pod.metadata.name.as_deref() != Some("p0150"));
    assert_eq!(bed.counts(), [0, 1, 0]);
    assert_eq!(bed.sizes(), [100, 99, 51]);
    assert!(!bed.slices[1].metadata.annotations.as_ref().expect("some").contains_key(LAST_CHANGE));
}

#[test]
fn a_slice_that_changes_anyway_takes_what_is_new() {
    let mut bed = Bed::new(json!({}));
    bed.pods(150);
    bed.settle();
    bed.pods.remove(3);
    bed.pod("new", "n1", |_| {});
    assert_eq!(bed.counts(), [0, 1, 0], "one write replaces one pod by another");
    assert_eq!(bed.sizes(), [100, 50]);
    for number in 0..120 {
        bed.pod(&format!("more{number}"), "n1", |_| {});
    }
    assert_eq!(bed.counts(), [1, 1, 0], "100 fill a new slice, and the others fit into what is there");
    assert_eq!(bed.sizes(), [100, 70, 100]);
    assert!(bed.sizes().iter().all(|size| *size <= ENDPOINTS_MAX));
}

#[test]
fn conditions_tell_readiness_and_end() {
    for (always, is_ready, is_going, expected) in [
        (false, true, false, [true, true, false]),
        (false, false, false, [false, false, false]),
        (false, true, true, [false, true, true]),
        (true, true, true, [true, true, true]),
        (true, false, false, [true, false, false]),
    ] {
        let mut bed = Bed::new(json!({"publishNotReadyAddresses": always}));
        bed.pod("p", "n1", |pod| {
            pod["status"]["conditions"][0]["status"] = if is_ready { "True" } else { "False" }.into();
            if is_going {
                pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:02:00Z".into();
            }
        });
        bed.settle();
        let endpoint = bed.endpoint("p");
        let conditions = endpoint.conditions.as_ref().expect("some");
        assert_eq!([conditions.ready, conditions.serving, conditions.terminating], expected.map(Some));
        assert_eq!((endpoint.zone.as_deref(), endpoint.node_name.as_deref()), (Some("z1"), Some("n1")));
    }
}

#[test]
fn who_has_finished_or_stands_on_no_node_is_left_out() {
    let mut bed = Bed::new(json!({}));
    bed.pod("done", "n1", |pod| pod["status"]["phase"] = "Succeeded".into());
    bed.pod("lost", "n9", |_| {});
    bed.pod("young", "n1", |pod| pod["status"] = json!({"phase": "Pending"}));
    assert_eq!(bed.counts(), [1, 0, 0]);
    assert_eq!(bed.sizes(), [0]);
    bed.node("n9", "z2", 1);
    assert_eq!(bed.counts(), [0, 1, 0]);
    assert_eq!(bed.endpoint("lost").zone.as_deref(), Some("z2"));
}

#[test]
fn named_ports_may_differ_between_pods() {
    let mut bed = Bed::new(json!({"ports": [{"name": "http", "port": 80, "targetPort": "web"}]}));
    for (name, port) in [("old1", 8080), ("old2", 8080), ("new1", 9090), ("none", 0)] {
        bed.pod(name, "n1", |pod| {
            if port > 0 {
                pod["spec"]["containers"] =
                    json!([{"name": "c", "ports": [{"name": "web", "containerPort": port, "protocol": "TCP"}]}]);
            }
        });
    }
    assert_eq!(bed.counts(), [3, 0, 0], "a pod without the port stands in a slice without ports");
    let mut found: Vec<_> = bed
        .slices
        .iter()
        .map(|slice| {
            let ports: Vec<_> = slice.ports.iter().flatten().filter_map(|port| port.port).collect();
            (ports, slice.endpoints.len())
        })
        .collect();
    found.sort();
    assert_eq!(found, [(vec![], 1), (vec![8080], 2), (vec![9090], 1)]);
    bed.pods.retain(|pod| !pod.metadata.name.as_deref().expect("a name").starts_with("new"));
    assert_eq!(bed.counts(), [0, 0, 1]);
}

#[test]
fn each_family_has_slices_of_its_own() {
    let mut bed = Bed::new(json!({"ipFamilies": ["IPv6", "IPv4"]}));
    bed.pod("both", "n1", |pod| pod["status"]["podIPs"] = json!([{"ip": "10.42.0.1"}, {"ip": "fd42::0:1"}]));
    bed.pod("four", "n1", |_| {});
    assert_eq!(bed.counts(), [2, 0, 0]);
    let of = |family: &str| {
        let slice = bed.slices.iter().find(|slice| slice.address_type == family).expect("a slice");
        slice.endpoints.iter().flat_map(|endpoint| endpoint.addresses.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("IPv4"), ["10.42.0.1", "10.42.0.2"]);
    assert_eq!(of("IPv6"), ["fd42::1"]);
    bed.service.spec.as_mut().expect("a spec").ip_families = Some(vec!["IPv4".to_owned()]);
    assert_eq!(bed.counts(), [0, 0, 1]);
}

#[test]
fn a_service_without_endpoints_has_one_empty_slice() {
    let mut bed = Bed::new(json!({}));
    assert_eq!(bed.counts(), [1, 0, 0]);
    assert_eq!(bed.slices[0].ports.as_deref(), Some(&[][..]));
    bed.pods(1);
    assert_eq!(bed.counts(), [0, 1, 0], "the empty slice becomes the first one");
    bed.pods.clear();
    assert_eq!(bed.counts(), [0, 1, 0], "and the last one becomes the empty slice");
    assert_eq!(bed.sizes(), [0]);
}

#[test]
fn labels_follow_the_service_and_old_namesakes_slices_go() {
    let mut bed = Bed::new(json!({"clusterIP": "None"}));
    bed.pods(2);
    bed.settle();
    let labels = |bed: &Bed| bed.slices[0].metadata.labels.clone().expect("labels");
    assert_eq!(labels(&bed)["service.kubernetes.io/headless"], "");
    bed.service.metadata.labels = Some(BTreeMap::from([("team".to_owned(), "y".to_owned())]));
    assert_eq!(bed.counts(), [0, 1, 0]);
    assert_eq!(labels(&bed)["team"], "y");
    bed.service.metadata.uid = Some("s2".to_owned());
    assert_eq!(bed.counts(), [1, 0, 1], "a slice of another Service isn't made use of: it may be going");
    bed.pods.clear();
    bed.service.metadata.deletion_timestamp = bed.service.metadata.creation_timestamp.clone();
    bed.slices.clear();
    assert_eq!(bed.counts(), [0, 0, 0], "a Service that goes gets no new slices");
}

#[test]
fn traffic_stays_near() {
    for (asked, zones, nodes) in [
        ("PreferClose", Some("z1"), None),
        ("PreferSameZone", Some("z1"), None),
        ("PreferSameNode", Some("z1"), Some("n1")),
        ("Whatever", None, None),
    ] {
        let mut bed = Bed::new(json!({}));
        bed.pods(2);
        bed.settle();
        bed.service.spec.as_mut().expect("a spec").traffic_distribution = Some(asked.to_owned());
        bed.settle();
        let hints = bed.endpoint("p0000").hints.clone().unwrap_or_default();
        assert_eq!(hints.for_zones.iter().flatten().map(|zone| &*zone.name).next(), zones, "{asked}");
        assert_eq!(hints.for_nodes.iter().flatten().map(|node| &*node.name).next(), nodes, "{asked}");
        bed.service.spec.as_mut().expect("a spec").traffic_distribution = None;
        bed.settle();
        assert!(bed.endpoint("p0000").hints.is_none());
    }
}

fn auto(bed: &mut Bed) {
    let mode = ("service.kubernetes.io/topology-mode".to_owned(), "Auto".to_owned());
    bed.service.metadata.annotations = Some(BTreeMap::from([mode]));
}

#[test]
fn zones_get_endpoints_by_their_share_of_processors() {
    let mut bed = Bed::new(json!({}));
    auto(&mut bed);
    bed.node("n2", "z2", 4);
    for number in 0..8 {
        bed.pod(&format!("p{number}"), if number < 6 { "n1" } else { "n2" }, |_| {});
    }
    let (_, events) = bed.settle();
    assert_eq!(events, ["TopologyAwareHintsEnabled: Topology Aware Hints has been enabled, addressType: IPv4"]);
    assert_eq!(bed.hints(), BTreeMap::from([("z1".to_owned(), 4), ("z2".to_owned(), 4)]));
    bed.pod("more", "n2", |_| {});
    let (_, events) = bed.settle();
    assert_eq!(events, Vec::<String>::new(), "it is enabled already");

    bed.service.metadata.annotations = None;
    let (_, events) = bed.settle();
    assert_eq!(events, ["TopologyAwareHintsDisabled: Topology Aware Hints has been disabled, addressType: IPv4"]);
    assert!(bed.hints().is_empty());
}

#[test]
fn there_are_no_hints_when_too_little_is_known_or_shares_cannot_be_met() {
    let disabled = |text: &str| vec![format!("TopologyAwareHintsDisabled: {text}, addressType: IPv4")];
    let unknown = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
    let mut bed = Bed::new(json!({}));
    auto(&mut bed);
    bed.pods(4);
    assert_eq!(bed.settle().1, disabled(unknown), "one zone is no zone");
    bed.node("n2", "z2", 4);
    bed.settle();
    assert!(!bed.hints().is_empty());
    bed.node("n3", "", 4);
    assert_eq!(bed.settle().1, disabled(unknown));
    assert!(bed.hints().is_empty());
    bed.nodes.remove("n3");
    bed.pods.truncate(1);
    assert_eq!(bed.settle().1, disabled("Insufficient number of endpoints (1 endpoints, 2 zones)"));
    bed.node("n3", "z3", 4);
    bed.pods(3);
    let over = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";
    assert_eq!(bed.settle().1, disabled(&format!("{over} (4 endpoints, 3 zones)")));
}
