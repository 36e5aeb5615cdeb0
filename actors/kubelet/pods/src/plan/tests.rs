use std::collections::BTreeMap;

use super::*;
use crate::probes::{Kind, Results};
use crate::testing::{pod, runtime};

fn shown(actions: &Actions) -> String {
    let mut words = Vec::new();
    if actions.kill_pod {
        words.push("kill-pod".to_owned());
    }
    words.extend(actions.sandbox.map(|attempt| format!("sandbox{attempt}")));
    words.extend(actions.resize.iter().map(|name| format!("resize:{name}")));
    words.extend(actions.kill.iter().map(|kill| format!("kill:{}", kill.name)));
    words.extend(actions.start.iter().map(|(_, container)| format!("start:{}", container.name)));
    words.join(" ")
}

/// Containers are written as `name` and a state: `r`unning, `c`reated, `u`nknown, or the code they ended with.
#[track_caller]
fn check(spec: &str, containers: &str, expected: &str) {
    check_with(spec, containers, &[], expected);
}

#[track_caller]
fn check_with(spec: &str, containers: &str, probes: &[(&str, Kind, Outcome)], expected: &str) {
    let pod = pod(&format!("{{metadata: {{name: p, namespace: 'n', uid: u}}, spec: {spec}}}"));
    let runtime = runtime(&pod, containers);
    let mut results = Results::default();
    for (name, kind, outcome) in probes {
        results.set(&runtime.newest(name).unwrap().id, *kind, *outcome);
    }
    assert_eq!(shown(&plan(&pod, &runtime, &results, &BTreeMap::new())), expected, "{spec} with {containers}");
}

const ONE: &str = "{containers: [{name: a}]}";
const TWO: &str = "{containers: [{name: a}, {name: b}]}";
const NEVER: &str = "{restartPolicy: Never, containers: [{name: a}, {name: b}]}";
const ON_FAILURE: &str = "{restartPolicy: OnFailure, containers: [{name: a}, {name: b}]}";

#[test]
fn a_pod_starts() {
    check(ONE, "", "kill-pod sandbox0 start:a");
    check(ONE, "s", "start:a");
    check(TWO, "s a=r", "start:b");
    check(TWO, "s a=r b=r", "");
    check(ONE, "s a=c", "start:a");
    check(ONE, "s a=u", "kill:a start:a");
}

#[test]
fn restart_policies_hold() {
    check(TWO, "s a=0 b=r", "start:a");
    check(TWO, "s a=1 b=r", "start:a");
    check(NEVER, "s a=1 b=r", "");
    check(NEVER, "s a=0 b=1", "kill-pod");
    check(ON_FAILURE, "s a=0 b=1", "start:b");
    check(ON_FAILURE, "s a=0 b=0", "kill-pod");
}

#[test]
fn a_lost_sandbox_is_made_again() {
    check(TWO, "x a=137 b=137", "kill-pod sandbox1 start:a start:b");
    check(ON_FAILURE, "x a=0 b=137", "kill-pod sandbox1 start:b");
    check(ON_FAILURE, "x a=0 b=0", "kill-pod");
    check(NEVER, "x a=137 b=137", "kill-pod");
    check(NEVER, "x", "kill-pod sandbox1 start:a start:b");
    check("{hostNetwork: true, containers: [{name: a}]}", "s a=r", "kill-pod sandbox1 start:a");
}

const INIT: &str = "{initContainers: [{name: i}, {name: j}], containers: [{name: a}]}";
const INIT_NEVER: &str = "{restartPolicy: Never, initContainers: [{name: i}, {name: j}], containers: [{name: a}]}";

#[test]
fn init_containers_run_one_after_another() {
    check(INIT, "", "kill-pod sandbox0 start:i");
    check(INIT, "s", "start:i");
    check(INIT, "s i=r", "");
    check(INIT, "s i=0", "start:j");
    check(INIT, "s i=1", "start:i");
    check(INIT, "s i=0 j=r", "");
    check(INIT, "s i=0 j=1", "start:j");
    check(INIT, "s i=0 j=0", "start:a");
    check(INIT, "s j=0", "start:a");
    check(INIT, "s i=0 j=0 a=r", "");
    check(INIT, "s a=r", "");
    check(INIT, "s a=1", "start:a");
    check(INIT, "s i=c", "start:i");
    check(INIT_NEVER, "s i=1", "kill-pod");
    check(INIT_NEVER, "s i=u", "kill-pod");
    check(INIT, "s i=u", "kill:i start:i");
}

const SIDE: &str = "{initContainers: [{name: i}, {name: s, restartPolicy: Always, startupProbe: {}, livenessProbe: {}}, {name: t, restartPolicy: Always}], containers: [{name: a}]}";

#[test]
fn sidecars_start_in_order_and_are_kept() {
    let ok = ("s", Kind::Startup, Outcome::Success);
    check(SIDE, "s i=0", "start:s");
    check(SIDE, "s i=0 s=r", "");
    check_with(SIDE, "s i=0 s=r", &[ok], "start:t");
    check_with(SIDE, "s i=0 s=r t=r", &[ok], "start:a");
    check_with(SIDE, "s i=0 s=r t=r a=r", &[ok], "");
    check_with(SIDE, "s i=0 s=1 t=r a=r", &[], "start:s");
    check_with(SIDE, "s i=0 s=r t=1 a=r", &[ok], "start:t");
    check_with(SIDE, "s i=0 t=r a=r", &[], "start:s");
    check_with(SIDE, "s i=0 s=r t=r a=r", &[ok, ("s", Kind::Liveness, Outcome::Failure)], "kill:s start:s");
    check_with(SIDE, "s i=0 s=r", &[("s", Kind::Startup, Outcome::Failure)], "kill:s start:s");
    check_with(SIDE, "s i=0 s=r", &[ok, ("s", Kind::Liveness, Outcome::Failure)], "kill:s start:s start:t");
}

#[test]
fn sidecars_end_with_the_pod() {
    let job = "{restartPolicy: Never, initContainers: [{name: s, restartPolicy: Always}], containers: [{name: a}]}";
    check(job, "s s=r a=0", "kill-pod");
    check(job, "s s=1 a=0", "kill-pod");
    check(job, "s s=1 a=r", "start:s");
}

#[test]
fn failed_probes_restart() {
    let live = [("a", Kind::Liveness, Outcome::Failure)];
    let start = [("a", Kind::Startup, Outcome::Failure)];
    check_with(TWO, "s a=r b=r", &live, "kill:a start:a");
    check_with(TWO, "s a=r b=r", &start, "kill:a start:a");
    check_with(TWO, "s a=r b=r", &[("a", Kind::Readiness, Outcome::Failure)], "");
    check_with(NEVER, "s a=r b=r", &live, "kill:a");
}

#[test]
fn messages_are_upstreams() {
    let pod = pod("{metadata: {uid: u}, spec: {containers: [{name: a, image: new}]}}");
    let mut runtime = runtime(&pod, "s a=r");
    runtime.containers[0].hash = "0".into();
    let actions = plan(&pod, &runtime, &Results::default(), &BTreeMap::new());
    assert_eq!(actions.kill[0].message, "Container a definition changed, will be restarted");
}

#[test]
fn other_resources_are_given_to_what_runs() {
    let policy = "resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]";
    let with = |of_side: &str, of_main: &str| {
        let resources = |cpu_and_memory: &str| format!("resources: {{limits: {{{cpu_and_memory}}}}}");
        pod(&format!(
            "{{metadata: {{uid: u}}, spec: {{initContainers: [{{name: s, restartPolicy: Always, {policy}, {}}}], containers: [{{name: a, {policy}, {}}}]}}}}",
            resources(of_side),
            resources(of_main)
        ))
    };
    let same = "cpu: '1', memory: 1Gi";
    let actual = crate::resize::asked(&with(same, same));
    for (side, main, containers, expected) in [
        (same, same, "s s=r a=r", ""),
        (same, "cpu: '2', memory: 1Gi", "s s=r a=r", "resize:a"),
        (same, "cpu: '2', memory: 2Gi", "s s=r a=r", "kill:a start:a"),
        (same, "cpu: '2', memory: 2Gi", "s s=r a=1", "start:a"),
        ("cpu: '2', memory: 1Gi", same, "s s=r a=r", "resize:s"),
        ("memory: 2Gi, cpu: '1'", same, "s s=r a=r", "kill:s start:s"),
    ] {
        let pod = with(side, main);
        let found = plan(&pod, &runtime(&pod, containers), &Results::default(), &actual);
        assert_eq!(shown(&found), expected, "{side} {main} {containers}");
    }
}

#[test]
fn ephemeral_containers_start_once() {
    let spec = "{containers: [{name: a}], ephemeralContainers: [{name: e}]}";
    check(spec, "s a=r", "start:e");
    check(spec, "s a=r e=r", "");
    check(spec, "s a=r e=1", "");
}

#[test]
fn a_pod_that_goes_starts_nothing() {
    let mut pod = pod("{metadata: {uid: u}, spec: {containers: [{name: a}]}}");
    pod.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
    assert!(!should_start(&pod, &main_containers(&pod)[0], &Runtime::default()));
}
