use std::sync::Arc;
use std::time::Duration;

use k3sd_kubelet_base::PodView;
use k3sd_runtime::Moment;
use serde_json::{Value, json};

use super::*;
use crate::config::{KubeletConfiguration, texts};

const GIB: u64 = 1 << 30;

fn config(hard: &[(&str, &str)], soft: &[(&str, &str)], grace: &[(&str, &str)]) -> KubeletConfiguration {
    KubeletConfiguration {
        eviction_hard: texts(hard),
        eviction_soft: texts(soft),
        eviction_soft_grace_period: texts(grace),
        eviction_minimum_reclaim: texts(&[("nodefs.available", "10%")]),
        ..KubeletConfiguration::default()
    }
}

fn manager(config: &KubeletConfiguration) -> Manager {
    let thresholds = parse(config).unwrap();
    Manager::new(Settings { thresholds, transition: Duration::from_secs(300), soft_grace_seconds_max: 30 })
}

fn seen(rows: &[(Signal, u64)]) -> Observations {
    rows.iter()
        .map(|(signal, available)| (*signal, Observation { available: *available, capacity: 100 * GIB }))
        .collect()
}

fn at(seconds: u64) -> Moment {
    Moment::START + Duration::from_secs(seconds)
}

#[test]
fn thresholds_are_read() {
    let found = parse(&KubeletConfiguration::default()).unwrap();
    // Those of the node, and memory of pods.
    assert_eq!(found.len(), 6);
    assert!(
        found
            .iter()
            .any(|one| one.signal == Signal::AllocatableMemoryAvailable && one.value == Amount::Bytes(100 << 20))
    );
    let k3s = parse(&config(&[("nodefs.available", "5%"), ("imagefs.available", "5%")], &[], &[])).unwrap();
    assert_eq!(k3s.len(), 2);
    assert_eq!(k3s[0].min_reclaim, Some(Amount::Percent(10.0)));
    let off = parse(&config(&[("memory.available", "0%"), ("pid.available", "100%")], &[], &[])).unwrap();
    assert!(off.is_empty());
}

#[test]
fn thresholds_that_mean_nothing_are_refused() {
    let rows = [
        (config(&[("cpu.available", "1")], &[], &[]), "unsupported eviction signal cpu.available"),
        (
            config(&[("memory.available", "-1Gi")], &[], &[]),
            "eviction threshold memory.available: \"-1Gi\" is neither an amount nor a percentage from 0% to 100%",
        ),
        (
            config(&[("memory.available", "110%")], &[], &[]),
            "eviction threshold memory.available: \"110%\" is neither an amount nor a percentage from 0% to 100%",
        ),
        (
            config(&[], &[("memory.available", "1Gi")], &[]),
            "grace period must be specified for the soft eviction threshold memory.available",
        ),
        (
            config(&[], &[("memory.available", "1Gi")], &[("memory.available", "soon")]),
            "invalid eviction grace period \"soon\" for memory.available: must be a positive duration",
        ),
    ];
    for (config, expected) in rows {
        assert_eq!(parse(&config).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_pressure_is_told_of_for_a_while_after_it_is_over() {
    let mut manager = manager(&config(&[("memory.available", "1Gi")], &[], &[]));
    let fine = seen(&[(Signal::MemoryAvailable, GIB)]);
    let short = seen(&[(Signal::MemoryAvailable, GIB - 1)]);
    assert_eq!(manager.look(&fine, at(0)), Decision::default());
    let decision = manager.look(&short, at(10));
    assert!(decision.pressures.memory && decision.reclaim.is_some());
    let decision = manager.look(&fine, at(20));
    assert!(decision.pressures.memory && decision.reclaim.is_none());
    assert!(manager.look(&fine, at(309)).pressures.memory);
    assert_eq!(manager.look(&fine, at(310)).pressures, Pressures::default());
}

#[test]
fn one_that_was_met_is_over_when_the_reclaim_is_there() {
    let mut manager = manager(&config(&[("nodefs.available", "5%")], &[], &[]));
    let with = |gib: u64| seen(&[(Signal::NodefsAvailable, gib * GIB)]);
    assert!(manager.look(&with(6), at(0)).reclaim.is_none());
    assert!(manager.look(&with(4), at(10)).reclaim.is_some());
    assert!(manager.look(&with(14), at(20)).reclaim.is_some());
    assert!(!manager.is_resolved(&with(14)) && manager.is_resolved(&with(15)));
    assert!(manager.look(&with(15), at(30)).reclaim.is_none());
    assert!(manager.look(&with(14), at(40)).reclaim.is_none());
}

#[test]
fn a_soft_threshold_waits_but_is_told_of() {
    let mut manager = manager(&config(&[], &[("memory.available", "1Gi")], &[("memory.available", "1m")]));
    let short = seen(&[(Signal::MemoryAvailable, 1)]);
    let first = manager.look(&short, at(0));
    assert!(first.pressures.memory && first.reclaim.is_none());
    assert!(manager.look(&short, at(59)).reclaim.is_none());
    let due = manager.look(&short, at(60)).reclaim.unwrap();
    assert_eq!(manager.grace_seconds(&due, Some(10)), 10);
    assert_eq!(manager.grace_seconds(&due, Some(90)), 30);
    assert_eq!(manager.grace_seconds(&due, None), 30);
    // A moment without it, and the time begins again.
    manager.look(&seen(&[(Signal::MemoryAvailable, GIB)]), at(70));
    assert!(manager.look(&short, at(80)).reclaim.is_none());
}

#[test]
fn memory_comes_first_and_what_is_not_measured_is_never_met() {
    let all = [("memory.available", "1Gi"), ("nodefs.available", "5%"), ("pid.available", "10%")];
    let mut manager = manager(&config(&all, &[], &[]));
    assert_eq!(manager.look(&Observations::new(), at(0)), Decision::default());
    let seen = seen(&[(Signal::MemoryAvailable, 1), (Signal::NodefsAvailable, 1), (Signal::PidAvailable, 1)]);
    let decision = manager.look(&seen, at(10));
    assert_eq!(decision.pressures, Pressures { memory: true, disk: true, pids: true });
    let first = decision.reclaim.unwrap();
    assert_eq!((first.signal, manager.grace_seconds(&first, Some(90))), (Signal::MemoryAvailable, 1));
}

fn pod(name: &str, spec: Value) -> Arc<PodView> {
    let pod = json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec});
    Arc::new(PodView {
        pod: Arc::new(serde_json::from_value(pod).unwrap()),
        uid: name.to_owned(),
        sandbox: None,
        addresses: Vec::new(),
        cgroup: None,
        containers: Vec::new(),
    })
}

fn container(name: &str, requests: Value, limits: Value) -> Value {
    json!({"name": name, "image": "i", "resources": {"requests": requests, "limits": limits}})
}

fn memory_pod(name: &str, request: &str, priority: i32, used: Option<u64>) -> PodUse {
    let spec = json!({"priority": priority, "containers": [container("c", json!({"memory": request}), json!({}))]});
    let usage = used.map(|memory| Usage { memory, ..Usage::default() });
    let containers = usage.iter().map(|usage| ("c".to_owned(), *usage)).collect();
    PodUse { view: pod(name, spec), usage, containers }
}

fn order(pods: &[PodUse], signal: Signal) -> Vec<String> {
    rank(pods, signal).into_iter().map(|pod| pod.view.uid.clone()).collect()
}

#[test]
fn pods_go_by_excess_then_priority_then_amount() {
    let mib = |mib: u64| Some(mib << 20);
    let pods = [
        memory_pod("within-low", "1Gi", 0, mib(900)),
        memory_pod("over-high", "1Mi", 100, mib(500)),
        memory_pod("over-low-little", "100Mi", 0, mib(110)),
        memory_pod("over-low-much", "100Mi", 0, mib(300)),
        memory_pod("unknown", "1Gi", 100, None),
        memory_pod("within-high", "1Gi", 100, mib(1)),
    ];
    let expected = ["unknown", "over-low-much", "over-low-little", "over-high", "within-low", "within-high"];
    assert_eq!(order(&pods, Signal::MemoryAvailable), expected);
}

#[test]
fn process_ids_go_by_priority_then_amount() {
    let with = |name: &str, priority: i32, pids: u64| PodUse {
        usage: Some(Usage { pids, ..Usage::default() }),
        ..memory_pod(name, "1Gi", priority, None)
    };
    let pods = [with("high-many", 10, 900), with("low-few", 0, 1), with("low-many", 0, 5)];
    assert_eq!(order(&pods, Signal::PidAvailable), ["low-many", "low-few", "high-many"]);
}

#[test]
fn requests_are_those_of_the_pod_as_a_whole() {
    let request = |text: &str| json!({"memory": text});
    let mut sidecar = container("s", request("3Mi"), json!({}));
    sidecar["restartPolicy"] = json!("Always");
    let spec = json!({
        "overhead": {"memory": "1Mi"},
        "initContainers": [sidecar, container("i", request("20Mi"), json!({}))],
        "containers": [container("a", request("5Mi"), json!({})), container("b", request("6Mi"), json!({}))],
    });
    assert_eq!(super::rank::pod_request(&pod("p", spec.clone()).pod, "memory"), 24 << 20);
    let mut whole = spec;
    whole["resources"] = json!({"requests": {"memory": "50Mi"}});
    assert_eq!(super::rank::pod_request(&pod("p", whole).pod, "memory"), 51 << 20);
}

#[test]
fn the_cluster_keeps_what_it_needs() {
    let critical = pod("a", json!({"priority": 2_000_000_000, "containers": []}));
    assert!(super::rank::is_critical(&critical.pod));
    let mut of_file = (*pod("b", json!({"containers": []})).pod).clone();
    assert!(!super::rank::is_critical(&of_file));
    of_file.metadata.annotations = Some([("kubernetes.io/config.source".to_owned(), "file".to_owned())].into());
    assert!(super::rank::is_critical(&of_file));
}

#[test]
fn pods_that_have_ended_use_nothing() {
    let ended = json!({"metadata": {"name": "a"}, "spec": {"containers": []}, "status": {"phase": "Failed"}});
    let view = PodView {
        pod: Arc::new(serde_json::from_value(ended).unwrap()),
        ..(*pod("a", json!({"containers": []}))).clone()
    };
    let pods = [PodUse { view: Arc::new(view), usage: None, containers: Vec::new() }];
    assert!(rank(&pods, Signal::MemoryAvailable).is_empty());
}

#[test]
fn the_message_is_upstreams() {
    let pod = memory_pod("a", "20Mi", 0, Some(45 << 20));
    let threshold =
        Threshold { signal: Signal::MemoryAvailable, value: Amount::Bytes(100 << 20), grace: None, min_reclaim: None };
    let seen = Observation { available: 97 << 20, capacity: GIB };
    let expected = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 97Mi. \
                    Container c was using 45Mi, request is 20Mi, has larger consumption of memory. ";
    assert_eq!(message(&pod, &threshold, Some(seen)), expected);
    let pids = Threshold { signal: Signal::PidAvailable, value: Amount::Percent(10.0), ..threshold };
    let seen = Observation { available: 50, capacity: 1000 };
    let expected = "The node was low on resource: pids. Threshold quantity: 100, available: 50. ";
    assert_eq!(message(&pod, &pids, Some(seen)), expected);
    assert_eq!(message(&pod, &pids, None), "The node was low on resource: pids. ");
}

#[test]
fn pods_keep_to_their_own_limits() {
    let limit = |text: &str| json!({"ephemeral-storage": text});
    let spec = json!({
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "10Mi"}}, {"name": "free", "emptyDir": {}}],
        "containers": [container("a", json!({}), limit("20Mi")), container("b", json!({}), limit("30Mi"))],
    });
    let pod = self::pod("p", spec).pod.clone();
    assert!(super::local::has_limit(&pod));
    let without =
        json!({"volumes": [{"name": "free", "emptyDir": {}}], "containers": [container("a", json!({}), json!({}))]});
    assert!(!super::local::has_limit(&self::pod("q", without).pod));
    let used = |volumes: &[(&str, u64)], containers: &[(&str, u64)]| {
        let own = |rows: &[(&str, u64)]| rows.iter().map(|(name, mib)| ((*name).to_owned(), mib << 20)).collect();
        over_limit(&pod, &LocalUse { volumes: own(volumes), containers: own(containers) })
    };
    assert_eq!(used(&[("scratch", 10), ("free", 20)], &[("a", 10), ("b", 10)]), None);
    let volume = "Usage of EmptyDir volume \"scratch\" exceeds the limit \"10Mi\". ";
    let is = |found: Option<(&'static str, String)>, signal: &str, text: &str| {
        assert_eq!(found.as_ref().map(|(signal, text)| (*signal, text.as_str())), Some((signal, text)));
    };
    is(used(&[("scratch", 11)], &[]), "emptydirfs.limit", volume);
    let whole = "Pod ephemeral local storage usage exceeds the total limit of containers 50Mi. ";
    is(used(&[("free", 45)], &[("b", 6)]), "ephemeralpodfs.limit", whole);
    let one = "Container a exceeded its local ephemeral storage limit \"20Mi\". ";
    is(used(&[], &[("a", 21), ("b", 1)]), "ephemeralcontainerfs.limit", one);
}

#[test]
fn evictions_are_counted_by_what_was_met() {
    let mut text = String::new();
    write_metrics(&EvictionCounts::new(), &mut text);
    assert_eq!(text, "", "upstream says nothing before the first");
    write_metrics(&[("memory.available", 2), ("emptydirfs.limit", 1)].into(), &mut text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let expected = ["{eviction_signal=\"emptydirfs.limit\"} 1", "{eviction_signal=\"memory.available\"} 2"];
    assert_eq!(lines, expected.map(|rest| format!("kubelet_evictions{rest}")));
}
