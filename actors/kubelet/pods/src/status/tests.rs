use super::*;
use crate::probes::{Kind, Outcome};
use crate::resize::{Pending, Progress};
use crate::testing::{pod, runtime};

struct Case {
    spec: &'static str,
    containers: &'static str,
    hindrances: &'static [(&'static str, &'static str)],
    probes: &'static [(&'static str, Kind, Outcome)],
    terminal: bool,
    ending: Option<Ending>,
    old: PodStatus,
    resize: Progress,
}

const BASE: Case = Case {
    spec: "{containers: [{name: a}]}",
    containers: "",
    hindrances: &[],
    probes: &[],
    terminal: false,
    ending: None,
    old: EMPTY,
    resize: Progress { pending: None, is_underway: false, error: None, actual: BTreeMap::new() },
};

const EMPTY: PodStatus = PodStatus {
    conditions: None,
    container_statuses: None,
    ephemeral_container_statuses: None,
    extended_resource_claim_status: None,
    host_ip: None,
    host_ips: None,
    init_container_statuses: None,
    message: None,
    nominated_node_name: None,
    observed_generation: None,
    phase: None,
    pod_ip: None,
    pod_ips: None,
    qos_class: None,
    reason: None,
    resize: None,
    resource_claim_statuses: None,
    start_time: None,
};

fn make(case: &Case) -> PodStatus {
    let pod = pod(&format!("{{metadata: {{name: p, namespace: 'n', uid: u, generation: 4}}, spec: {}}}", case.spec));
    let runtime = runtime(&pod, case.containers);
    let mut results = Results::default();
    for (name, kind, outcome) in case.probes {
        results.set(&runtime.newest(name).unwrap().id, *kind, *outcome);
    }
    let hindrances = case
        .hindrances
        .iter()
        .map(|(name, reason)| ((*name).to_owned(), Hindrance { reason: (*reason).to_owned(), message: "m".into() }));
    let facts = StatusFacts {
        runtime: &runtime,
        results: &results,
        hindrances: &hindrances.collect(),
        ending: case.ending.as_ref(),
        resize: &case.resize,
        terminal: case.terminal,
        host_addresses: &["192.0.2.1".to_owned()],
        now: Timestamp::from_second(2_000_000).unwrap(),
    };
    status(&pod, &case.old, &facts)
}

/// Phase, states of containers with `*` for ready, and conditions that don't hold.
fn shown(made: &PodStatus) -> String {
    let mut words = vec![made.phase.clone().unwrap()];
    let all = made.init_container_statuses.iter().chain(&made.container_statuses).flatten();
    words.extend(all.map(|one| {
        let state = one.state.clone().unwrap();
        let state = state
            .waiting
            .map(|waiting| waiting.reason.unwrap())
            .or(state.running.map(|_| "running".into()))
            .or(state.terminated.map(|ended| format!("{}{}", ended.reason.unwrap(), ended.exit_code)))
            .unwrap();
        let last = one.last_state.as_ref().and_then(|last| last.terminated.as_ref()).map_or("", |_| "<");
        format!("{}={state}{last}{}", one.name, if one.ready { "*" } else { "" })
    }));
    words.extend(made.conditions.iter().flatten().filter(|one| one.status != "True").map(|one| {
        format!("!{}{}", one.type_, one.reason.as_ref().map(|reason| format!(":{reason}")).unwrap_or_default())
    }));
    words.join(" ")
}

const NOT_READY: &str = "!Ready:ContainersNotReady !ContainersReady:ContainersNotReady";
const DONE: &str = "!Ready:PodCompleted !ContainersReady:PodCompleted";
const FAILED: &str = "!Ready:PodFailed !ContainersReady:PodFailed";

#[test]
fn a_pod_comes_up() {
    for (containers, expected) in [
        ("", format!("Pending a=ContainerCreating !PodReadyToStartContainers {NOT_READY}")),
        ("s", format!("Pending a=ContainerCreating {NOT_READY}")),
        ("s a=c", format!("Pending a=ContainerCreating {NOT_READY}")),
        ("s a=r", "Running a=running*".to_owned()),
        ("s a=1 a=r", "Running a=running<*".to_owned()),
        ("s a=1", format!("Running a=Error1 {NOT_READY}")),
    ] {
        assert_eq!(shown(&make(&Case { containers, ..BASE })), expected, "{containers}");
    }
}

#[test]
fn what_is_in_the_way_is_said() {
    let hindrances: &[(&str, &str)] = &[("a", "CrashLoopBackOff")];
    for (containers, expected) in [
        ("s", format!("Pending a=CrashLoopBackOff {NOT_READY}")),
        ("s a=1", format!("Running a=CrashLoopBackOff< {NOT_READY}")),
        ("s a=r", "Running a=running*".to_owned()),
    ] {
        assert_eq!(shown(&make(&Case { containers, hindrances, ..BASE })), expected, "{containers}");
    }
}

#[test]
fn init_containers_come_first() {
    let spec = "{initContainers: [{name: i}, {name: j}], containers: [{name: a}]}";
    let wait = "!Initialized:ContainersNotInitialized";
    for (containers, expected) in [
        ("s", format!("Pending i=ContainerCreating j=PodInitializing a=PodInitializing {wait} {NOT_READY}")),
        ("s i=r", format!("Pending i=running j=PodInitializing a=PodInitializing {wait} {NOT_READY}")),
        ("s i=0 j=r", format!("Pending i=Completed0* j=running a=PodInitializing {wait} {NOT_READY}")),
        ("s i=0 j=0 a=r", "Running i=Completed0* j=Completed0* a=running*".to_owned()),
    ] {
        assert_eq!(shown(&make(&Case { spec, containers, ..BASE })), expected, "{containers}");
    }
    let never = "{restartPolicy: Never, initContainers: [{name: i}], containers: [{name: a}]}";
    let made = make(&Case { spec: never, containers: "s i=2", ..BASE });
    assert_eq!(shown(&made), format!("Failed i=Error2 a=PodInitializing {wait} {FAILED}"));
}

#[test]
fn jobs_end() {
    let spec = "{restartPolicy: Never, containers: [{name: a}, {name: b}]}";
    for (containers, terminal, expected) in [
        ("s a=0 b=r", false, format!("Running a=Completed0 b=running* {NOT_READY}")),
        ("s a=0 b=0", false, format!("Succeeded a=Completed0 b=Completed0 {DONE}")),
        ("s a=0 b=3", false, format!("Failed a=Completed0 b=Error3 {FAILED}")),
        ("x a=0 b=0", true, format!("Succeeded a=Completed0 b=Completed0 !PodReadyToStartContainers {DONE}")),
    ] {
        assert_eq!(shown(&make(&Case { spec, containers, terminal, ..BASE })), expected, "{containers}");
    }
    let always = make(&Case { containers: "x a=143", terminal: true, ..BASE });
    assert_eq!(shown(&always), format!("Failed a=Error143 !PodReadyToStartContainers {FAILED}"));
}

#[test]
fn probes_make_ready() {
    let spec = "{containers: [{name: a, readinessProbe: {}, startupProbe: {}}]}";
    let ok = |kind| ("a", kind, Outcome::Success);
    let started: &[_] = &[ok(Kind::Startup)];
    let both: &[_] = &[ok(Kind::Startup), ok(Kind::Readiness)];
    let only_ready: &[_] = &[ok(Kind::Readiness)];
    for (probes, ready, is_started) in
        [(&[][..], false, false), (started, false, true), (both, true, true), (only_ready, false, false)]
    {
        let probes: &'static [_] = Vec::leak(probes.to_vec());
        let made = make(&Case { spec, containers: "s a=r", probes, ..BASE });
        let one = &made.container_statuses.as_ref().unwrap()[0];
        assert_eq!((one.ready, one.started), (ready, Some(is_started)));
    }
}

#[test]
fn a_final_phase_is_stayed_in() {
    let old = PodStatus { phase: Some("Failed".into()), reason: Some("Evicted".into()), ..EMPTY };
    let made = make(&Case { containers: "s a=r", old, ..BASE });
    assert_eq!((made.phase.as_deref(), made.reason.as_deref()), (Some("Failed"), Some("Evicted")));
}

#[test]
fn an_eviction_says_why() {
    let ending = Ending { reason: "Evicted".into(), message: "low".into(), disruption: true };
    let made = make(&Case { containers: "s a=r", ending: Some(ending), ..BASE });
    assert_eq!((made.phase.as_deref(), made.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    assert_eq!(made.conditions.unwrap()[0].type_, "DisruptionTarget");
}

#[test]
fn readiness_gates_are_asked() {
    let spec = "{readinessGates: [{conditionType: example.com/ok}], containers: [{name: a}]}";
    let made = make(&Case { spec, containers: "s a=r", ..BASE });
    assert_eq!(shown(&made), "Running a=running* !Ready:ReadinessGatesNotReady");
    let condition = serde_json::from_value(serde_json::json!({"type": "example.com/ok", "status": "True"})).unwrap();
    let old = PodStatus { conditions: Some(vec![condition]), ..EMPTY };
    let made = make(&Case { spec, containers: "s a=r", old, ..BASE });
    assert_eq!(shown(&made), "Running a=running*");
    assert_eq!(made.conditions.unwrap().len(), 6);
}

#[test]
fn resizes_are_told() {
    let spec = "{containers: [{name: a, resources: {requests: {cpu: 100m}}}]}";
    let pending = Pending { reason: "Deferred", message: "full".into() };
    let actual = crate::resize::asked(&pod("{spec: {containers: [{name: a, resources: {requests: {cpu: 50m}}}]}}"));
    let resize = Progress { pending: Some(pending), is_underway: true, error: Some("busy".into()), actual };
    let made = make(&Case { spec, containers: "s a=r", resize, ..BASE });
    let shown: Vec<_> = made
        .conditions
        .iter()
        .flatten()
        .take(2)
        .map(|one| {
            (
                one.type_.as_str(),
                one.status.as_str(),
                one.reason.as_deref(),
                one.message.as_deref(),
                one.observed_generation,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("PodResizePending", "True", Some("Deferred"), Some("full"), Some(4)),
            ("PodResizeInProgress", "True", Some("Error"), Some("busy"), Some(4)),
        ]
    );
    let cpu = |list: &Option<BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>| {
        list.as_ref().unwrap()["cpu"].0.clone()
    };
    let one = &made.container_statuses.as_ref().unwrap()[0];
    assert_eq!(cpu(&one.resources.as_ref().unwrap().requests), "50m", "what it has");
    assert_eq!(cpu(&one.allocated_resources), "100m", "what it was granted");
    let done = make(&Case { spec, containers: "s a=r", old: made, ..BASE });
    assert!(done.conditions.unwrap().iter().all(|one| !one.type_.starts_with("PodResize")), "it is over");
}

#[test]
fn addresses_generation_and_times_are_there_and_stay() {
    let first = make(&Case { containers: "s a=r", ..BASE });
    assert_eq!((first.host_ip.as_deref(), first.pod_ip.as_deref()), (Some("192.0.2.1"), Some("10.42.0.2")));
    assert_eq!(first.observed_generation, Some(4));
    let again = make(&Case { containers: "s a=r", old: first.clone(), ..BASE });
    assert!(same(&first, &again));
    let gone = make(&Case { containers: "a=0", terminal: true, old: first, ..BASE });
    assert_eq!(gone.pod_ip.as_deref(), Some("10.42.0.2"));
}

#[test]
fn a_container_that_went_without_a_trace_is_told() {
    let old = make(&Case { containers: "s a=r", ..BASE });
    let made = make(&Case { containers: "s", old, ..BASE });
    let one = &made.container_statuses.as_ref().unwrap()[0];
    let last = one.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.reason.as_deref(), last.exit_code, one.restart_count), (Some(LOST_REASON), 137, 1));
}

const LOST_REASON: &str = "ContainerStatusUnknown";
