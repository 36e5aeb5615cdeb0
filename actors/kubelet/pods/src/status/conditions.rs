//! A pod's conditions.

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::StatusFacts;
use crate::resize::{IN_PROGRESS, PENDING, Progress};
use crate::spec::{container_status, init_containers, is_sidecar, main_containers};

/// The kinds that the node writes; others are kept as they are.
const OWN: [&str; 7] =
    [PENDING, IN_PROGRESS, "PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// Whether a condition is one that others write.
#[must_use]
pub fn is_foreign(kind: &str) -> bool {
    !OWN.contains(&kind) && kind != "DisruptionTarget"
}

/// What a condition says.
struct Said {
    kind: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Said {
    fn yes(kind: &'static str) -> Self {
        Self { kind, holds: true, reason: None, message: None }
    }

    fn no(kind: &'static str, reason: &'static str, message: Option<String>) -> Self {
        Self { kind, holds: false, reason: Some(reason), message }
    }
}

/// Makes the conditions. A time of change stays as long as what it is the time of.
pub(super) fn conditions(pod: &Pod, old: &PodStatus, facts: &StatusFacts<'_>, made: &PodStatus) -> Vec<PodCondition> {
    let containers_ready = containers_ready(pod, made);
    let ready = ready(pod, old, made, &containers_ready);
    let network =
        facts.runtime.ready_sandbox().is_some_and(|sandbox| sandbox.host_network || !sandbox.addresses.is_empty());
    let mut said = vec![
        Said { holds: network, ..Said::yes("PodReadyToStartContainers") },
        initialized(pod, made),
        ready,
        containers_ready,
        Said::yes("PodScheduled"),
    ];
    if let Some(ending) = facts.ending.filter(|ending| ending.disruption) {
        said.insert(
            0,
            Said {
                kind: "DisruptionTarget",
                holds: true,
                reason: Some("TerminationByKubelet"),
                message: Some(ending.message.clone()),
            },
        );
    }
    if !facts.terminal {
        said.splice(0..0, resize(facts.resize));
    }
    let mut list: Vec<PodCondition> = said.iter().map(|said| condition(pod, old, facts, said)).collect();
    for kept in old.conditions.iter().flatten() {
        if !OWN.contains(&kept.type_.as_str()) && !list.iter().any(|one| one.type_ == kept.type_) {
            list.push(kept.clone());
        }
    }
    list
}

/// What is said of a resize that waits or is under way.
fn resize(progress: &Progress) -> Vec<Said> {
    let pending = progress.pending.as_ref().map(|pending| Said {
        reason: Some(pending.reason),
        message: Some(pending.message.clone()),
        ..Said::yes(PENDING)
    });
    let underway = progress.is_underway.then(|| Said {
        reason: progress.error.as_ref().map(|_| "Error"),
        message: progress.error.clone(),
        ..Said::yes(IN_PROGRESS)
    });
    pending.into_iter().chain(underway).collect()
}

fn condition(pod: &Pod, old: &PodStatus, facts: &StatusFacts<'_>, said: &Said) -> PodCondition {
    let status = if said.holds { "True" } else { "False" };
    let before = old.conditions.iter().flatten().find(|one| one.type_ == said.kind && one.status == status);
    PodCondition {
        type_: said.kind.to_owned(),
        status: status.to_owned(),
        reason: said.reason.map(str::to_owned),
        message: said.message.clone(),
        last_transition_time: before.and_then(|one| one.last_transition_time.clone()).or(Some(Time(facts.now))),
        last_probe_time: None,
        observed_generation: pod.metadata.generation,
    }
}

fn names(containers: &[&str]) -> String {
    format!("[{}]", containers.join(" "))
}

fn message(unknown: &[&str], others: &[&str], words: &str) -> Option<String> {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: {}", names(unknown)));
    }
    if !others.is_empty() {
        parts.push(format!("containers with {words} status: {}", names(others)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn containers_ready(pod: &Pod, made: &PodStatus) -> Said {
    const KIND: &str = "ContainersReady";
    let sidecars = init_containers(pod).iter().filter(|one| is_sidecar(one));
    let all: Vec<&Container> = sidecars.chain(main_containers(pod)).collect();
    let status = |container: &&Container| container_status(made, &container.name);
    let of = |keep: &dyn Fn(&&Container) -> bool| -> Vec<&str> {
        all.iter().copied().filter(|one| keep(one)).map(|one| one.name.as_str()).collect()
    };
    let unknown = of(&|one| status(one).is_none());
    let unready = of(&|one| status(one).is_some_and(|status| !status.ready));
    match made.phase.as_deref() {
        Some("Succeeded") if unknown.is_empty() => Said::no(KIND, "PodCompleted", None),
        Some("Failed") => Said::no(KIND, "PodFailed", None),
        _ => match message(&unknown, &unready, "unready") {
            None => Said::yes(KIND),
            message => Said::no(KIND, "ContainersNotReady", message),
        },
    }
}

fn ready(pod: &Pod, old: &PodStatus, made: &PodStatus, containers: &Said) -> Said {
    const KIND: &str = "Ready";
    if !containers.holds {
        return Said { kind: KIND, holds: false, reason: containers.reason, message: containers.message.clone() };
    }
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let mut missing = Vec::new();
    for gate in gates {
        let kind = &gate.condition_type;
        let all = old.conditions.iter().flatten().chain(made.conditions.iter().flatten());
        match all.into_iter().find(|one| one.type_ == *kind).map(|one| one.status.as_str()) {
            None => missing.push(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
            Some("True") => {}
            Some(_) => {
                missing.push(format!("the status of pod readiness gate {kind:?} is not \"True\", but False"));
            }
        }
    }
    match missing.is_empty() {
        true => Said::yes(KIND),
        false => Said::no(KIND, "ReadinessGatesNotReady", Some(missing.join(", "))),
    }
}

fn initialized(pod: &Pod, made: &PodStatus) -> Said {
    const KIND: &str = "Initialized";
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in init_containers(pod) {
        let name = container.name.as_str();
        match container_status(made, name) {
            None => unknown.push(name),
            Some(status) if is_sidecar(container) => {
                if status.started != Some(true) {
                    incomplete.push(name);
                }
            }
            Some(status) if !status.ready => incomplete.push(name),
            Some(_) => {}
        }
    }
    if made.phase.as_deref() == Some("Succeeded") && unknown.is_empty() {
        return Said { reason: Some("PodCompleted"), ..Said::yes(KIND) };
    }
    // Once a main container has run, all before it had done, whatever their state now.
    let begun = made.container_statuses.iter().flatten().any(|status| {
        let state = status.state.as_ref();
        status.last_state.as_ref().is_some_and(|last| last.terminated.is_some())
            || state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    });
    match message(&unknown, &incomplete, "incomplete") {
        Some(message) if !begun => Said::no(KIND, "ContainersNotInitialized", Some(message)),
        _ => Said::yes(KIND),
    }
}
