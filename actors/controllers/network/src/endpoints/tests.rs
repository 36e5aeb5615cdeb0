use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use serde_json::{Value, json};

use super::core::{ADDRESSES_MAX, Write, is_ours, plan};

fn service(spec: Value) -> Service {
    let mut service = json!({"metadata": {"name": "web", "namespace": "a", "labels": {"team": "x"},
        "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"clusterIP": "10.43.0.9", "ipFamilies": ["IPv4"],
        "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "web"},
            {"name": "metrics", "port": 90, "targetPort": 9000}]}});
    for (name, value) in spec.as_object().expect("fields of a spec") {
        service["spec"][name] = value.clone();
    }
    serde_json::from_value(service).expect("a Service")
}

fn pod(number: usize, port: u16, is_ready: bool) -> Pod {
    let ip = format!("10.42.{}.{}", number / 250, number % 250);
    let status = if is_ready { "True" } else { "False" };
    serde_json::from_value(json!({"metadata": {"name": format!("p{number}"), "namespace": "a", "uid": format!("u{number}"),
        "labels": {"app": "web"}}, "spec": {"nodeName": "n1", "containers": [{"name": "c",
            "ports": [{"name": "web", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}, {"ip": "fd00::1"}], "conditions": [
            {"type": "Ready", "status": status, "lastTransitionTime": format!("2026-01-01T00:{:02}:00Z", number % 60)}]}}))
    .expect("a pod")
}

/// What is written, after checking that it isn't written twice.
fn settle(service: &Service, pods: &[Pod], known: Option<&Endpoints>) -> Option<Endpoints> {
    let written = match plan(service, pods.iter(), known)? {
        Write::Create(written) => {
            assert!(known.is_none());
            written
        }
        Write::Update(written) => written,
    };
    assert_eq!(plan(service, pods.iter(), Some(&written)), None, "there is nothing left to write");
    Some(written)
}

/// The subsets in short: addresses, those that aren't ready, ports.
fn short(endpoints: &Endpoints) -> Vec<(Vec<&str>, Vec<&str>, Vec<i32>)> {
    let subsets = endpoints.subsets.iter().flatten();
    subsets
        .map(|subset| {
            let addresses = subset.addresses.iter().flatten().map(|address| &*address.ip).collect();
            let others = subset.not_ready_addresses.iter().flatten().map(|address| &*address.ip).collect();
            (addresses, others, subset.ports.iter().flatten().map(|port| port.port).collect())
        })
        .collect()
}

#[test]
fn addresses_with_the_same_ports_stand_together() {
    let pods = [pod(1, 80, true), pod(2, 80, false), pod(3, 81, true)];
    let written = settle(&service(json!({})), &pods, None).expect("a write");
    assert!(is_ours(&written));
    assert_eq!(
        short(&written),
        [
            (vec!["10.42.0.1"], vec!["10.42.0.2"], vec![80]),
            (vec!["10.42.0.3"], vec![], vec![81]),
            (vec!["10.42.0.1", "10.42.0.3"], vec!["10.42.0.2"], vec![9000]),
        ]
    );
    let pods = [pod(1, 80, true), pod(2, 80, true)];
    let written = settle(&service(json!({})), &pods, Some(&written)).expect("a write");
    assert_eq!(short(&written), [(vec!["10.42.0.1", "10.42.0.2"], vec![], vec![80, 9000])]);
    let annotations = written.metadata.annotations.expect("some");
    assert_eq!(annotations["endpoints.kubernetes.io/last-change-trigger-time"], "2026-01-01T00:02:00Z");
    assert_eq!(
        short(&settle(&service(json!({"ipFamilies": ["IPv6"]})), &pods[..1], None).expect("a write"))[0].0,
        ["fd00::1"]
    );
}

#[test]
fn a_headless_service_needs_no_ports() {
    let service = service(json!({"clusterIP": "None", "ports": []}));
    let written = settle(&service, &[pod(1, 80, true)], None).expect("a write");
    assert_eq!(short(&written), [(vec!["10.42.0.1"], vec![], vec![])]);
    assert_eq!(written.metadata.labels.expect("labels")["service.kubernetes.io/headless"], "");
}

#[test]
fn terminating_pods_stay_only_where_readiness_does_not_matter() {
    let mut going = pod(1, 80, true);
    going.metadata.deletion_timestamp = service(json!({})).metadata.creation_timestamp;
    let of = |always: bool| settle(&service(json!({"publishNotReadyAddresses": always})), &[going.clone()], None);
    assert!(short(&of(false).expect("a write")).is_empty());
    assert_eq!(short(&of(true).expect("a write")).len(), 1);
}

#[test]
fn what_is_too_much_is_cut_and_said_to_be() {
    let service = service(json!({"ports": [{"port": 80, "targetPort": "web"}]}));
    let count = |endpoints: &Endpoints| {
        let short = short(endpoints);
        (
            short.iter().map(|subset| subset.0.len()).sum::<usize>(),
            short.iter().map(|subset| subset.1.len()).sum::<usize>(),
        )
    };
    for (ready, others, expected) in
        [(900, 100, (900, 100)), (900, 300, (900, 100)), (1500, 300, (ADDRESSES_MAX, 0)), (1000, 1, (1000, 0))]
    {
        let pods: Vec<_> =
            (0..ready + others).map(|at| pod(at, if at % 3 == 0 { 80 } else { 81 }, at < ready)).collect();
        let written = settle(&service, &pods, None).expect("a write");
        assert_eq!(count(&written), expected);
        let is_said = written.metadata.annotations.expect("some").contains_key("endpoints.kubernetes.io/over-capacity");
        assert_eq!(is_said, ready + others > ADDRESSES_MAX);
    }
}
