//! The statuses of a pod's containers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, LinuxContainerUser, Pod, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::StatusFacts;
use crate::plan::should_start;
use crate::probes::Outcome;
use crate::runtime::{Found, State};
use crate::spec::{Role, ephemeral_containers, init_containers, is_sidecar, main_containers};

/// What is told of a container that went without a trace.
const LOST: &str = "ContainerStatusUnknown";
/// What it is said to have ended with: as if killed.
const LOST_CODE: i32 = 137;
const LOST_MESSAGE: &str = "The container could not be located when the pod was terminated";

/// Fills in the statuses of all containers.
pub(super) fn fill(pod: &Pod, old: &PodStatus, facts: &StatusFacts<'_>, made: &mut PodStatus) {
    let has_init = !init_containers(pod).is_empty();
    let list =
        |containers: &[Container], role, before: &Option<Vec<ContainerStatus>>| -> Option<Vec<ContainerStatus>> {
            let by_name: BTreeMap<_, _> = before.iter().flatten().map(|one| (one.name.as_str(), one)).collect();
            let make = |container: &Container| {
                one(pod, container, role, by_name.get(container.name.as_str()).copied(), has_init, facts)
            };
            let made: Vec<_> = containers.iter().map(make).collect();
            (!made.is_empty()).then_some(made)
        };
    made.container_statuses = list(main_containers(pod), Role::Main, &old.container_statuses);
    made.init_container_statuses = list(init_containers(pod), Role::Init, &old.init_container_statuses);
    made.ephemeral_container_statuses =
        list(&ephemeral_containers(pod), Role::Ephemeral, &old.ephemeral_container_statuses);
}

fn one(
    pod: &Pod,
    container: &Container,
    role: Role,
    old: Option<&ContainerStatus>,
    has_init: bool,
    facts: &StatusFacts<'_>,
) -> ContainerStatus {
    let mut found = facts.runtime.containers.iter().filter(|found| found.name == container.name);
    let newest = found.next();
    let mut made = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting(
            if has_init && role == Role::Main { "PodInitializing" } else { "ContainerCreating" },
            None,
        )),
        ..ContainerStatus::default()
    };
    if role == Role::Init && has_init && newest.is_none() && !is_first_init(pod, container) {
        made.state = Some(waiting("PodInitializing", None));
    }
    match newest {
        Some(newest) => {
            convert(newest, &mut made);
            made.last_state = found.next().and_then(ended).or_else(|| old.and_then(|old| kept_last(old, newest)));
        }
        None => without_trace(container, role, old, facts, &mut made),
    }
    hinder(pod, container, role, facts, &mut made);
    if facts.terminal {
        settle(role, container, facts, &mut made);
    }
    look_at_probes(container, role, newest, facts, &mut made);
    made.volume_mounts = mounts(container);
    if newest.is_some() {
        let granted = container.resources.clone().unwrap_or_default();
        made.allocated_resources = granted.requests.clone().filter(|list| !list.is_empty());
        let runs = newest.is_some_and(|found| found.state == State::Running);
        let actual = facts.resize.actual.get(&container.name).filter(|_| runs);
        made.resources = Some(actual.cloned().unwrap_or(granted));
    }
    made
}

fn is_first_init(pod: &Pod, container: &Container) -> bool {
    init_containers(pod).first().is_some_and(|first| first.name == container.name)
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message }),
        ..ContainerState::default()
    }
}

fn id(found: &Found) -> String {
    format!("containerd://{}", found.id)
}

/// The end of a container, if it has ended.
fn ended(found: &Found) -> Option<ContainerState> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    (found.state == State::Exited).then(|| ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(id(found)),
            exit_code: found.exit_code,
            finished_at: found.finished_at.map(Time),
            message: text(&found.message),
            reason: text(&found.reason),
            signal: None,
            started_at: found.started_at.map(Time),
        }),
        ..ContainerState::default()
    })
}

fn lost(container_id: Option<String>, started_at: Option<Time>) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id,
            exit_code: LOST_CODE,
            message: Some(LOST_MESSAGE.to_owned()),
            reason: Some(LOST.to_owned()),
            started_at,
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

fn convert(found: &Found, made: &mut ContainerStatus) {
    made.restart_count = i32::try_from(found.attempt).unwrap_or(i32::MAX);
    if !found.image.is_empty() {
        made.image = found.image.clone();
    }
    made.image_id = found.image_id.clone();
    made.container_id = Some(id(found));
    made.user = found.user.as_ref().map(|(uid, gid, groups)| ContainerUser {
        linux: Some(LinuxContainerUser { uid: *uid, gid: *gid, supplemental_groups: Some(groups.clone()) }),
    });
    match found.state {
        State::Running => {
            made.state = Some(ContainerState {
                running: Some(ContainerStateRunning { started_at: found.started_at.map(Time) }),
                ..ContainerState::default()
            });
        }
        State::Exited => made.state = ended(found),
        State::Unknown => made.state = Some(lost(Some(id(found)), found.started_at.map(Time))),
        // It waits to be started.
        State::Created => {}
    }
}

/// The end before the last start stays known when the runtime's trace of it has been cleaned away.
fn kept_last(old: &ContainerStatus, newest: &Found) -> Option<ContainerState> {
    let is_newest = old.container_id.as_deref() == Some(&id(newest));
    if is_newest {
        return old.last_state.clone();
    }
    let ended = old.state.as_ref().filter(|state| state.terminated.is_some()).cloned();
    ended.or_else(|| old.last_state.clone())
}

/// The runtime has nothing of it: it never started, or was cleaned away.
fn without_trace(
    container: &Container,
    role: Role,
    old: Option<&ContainerStatus>,
    facts: &StatusFacts<'_>,
    made: &mut ContainerStatus,
) {
    let Some(old) = old else { return };
    made.restart_count = old.restart_count;
    made.last_state = old.last_state.clone();
    let Some(state) = &old.state else { return };
    if let Some(running) = &state.running {
        // It ran when somebody last looked.
        made.last_state = Some(lost(old.container_id.clone(), running.started_at.clone()));
        made.restart_count += 1;
    } else if let Some(ended) = &state.terminated {
        let done = role == Role::Init && !is_sidecar(container) && ended.exit_code == 0;
        if done || facts.terminal || role == Role::Ephemeral {
            made.state = Some(state.clone());
            made.container_id = old.container_id.clone();
            made.image_id = old.image_id.clone();
            made.image = old.image.clone();
        } else {
            made.last_state = Some(state.clone());
        }
    }
}

/// A container that should be started and can't be waits, and says why.
fn hinder(pod: &Pod, container: &Container, role: Role, facts: &StatusFacts<'_>, made: &mut ContainerStatus) {
    let Some(hindrance) = facts.hindrances.get(&container.name) else { return };
    let ended = made.state.as_ref().and_then(|state| state.terminated.as_ref());
    if role == Role::Init && !is_sidecar(container) && ended.is_some_and(|ended| ended.exit_code == 0) {
        return;
    }
    if facts.terminal || !should_start(pod, container, facts.runtime) {
        return;
    }
    if ended.is_some() {
        made.last_state = made.state.take();
    }
    made.state = Some(waiting(&hindrance.reason, Some(hindrance.message.clone())));
}

/// Nothing of the pod runs any more: each container has ended, or never began.
fn settle(role: Role, container: &Container, facts: &StatusFacts<'_>, made: &mut ContainerStatus) {
    let state = made.state.clone().unwrap_or_default();
    if state.terminated.is_some() {
        return;
    }
    if let Some(last) = made.last_state.take_if(|last| last.terminated.is_some()) {
        made.state = Some(last);
        return;
    }
    let never_ran = facts.runtime.containers.is_empty() && made.container_id.is_none();
    // Of a pod that never began, its containers just wait; the phase says the rest.
    if never_ran && (role != Role::Main || facts.ending.is_some()) && !is_sidecar(container) {
        return;
    }
    if state.running.is_some() || role == Role::Main {
        let started = state.running.and_then(|running| running.started_at);
        made.state = Some(lost(made.container_id.clone(), started));
    }
}

fn look_at_probes(
    container: &Container,
    role: Role,
    newest: Option<&Found>,
    facts: &StatusFacts<'_>,
    made: &mut ContainerStatus,
) {
    let state = made.state.as_ref();
    let ended = state.and_then(|state| state.terminated.as_ref());
    let runs = state.is_some_and(|state| state.running.is_some());
    let says = |probe: bool, outcome: Option<Outcome>| !probe || outcome == Some(Outcome::Success);
    let id = newest.map(|newest| newest.id.as_str()).unwrap_or_default();
    let started = runs && says(container.startup_probe.is_some(), facts.results.startup(id));
    let ready = started && says(container.readiness_probe.is_some(), facts.results.readiness(id));
    match role {
        // Nobody waits for these.
        Role::Ephemeral => made.ready = false,
        Role::Init if !is_sidecar(container) => {
            made.ready = ended.is_some_and(|ended| ended.exit_code == 0);
            made.started = Some(started);
        }
        Role::Init | Role::Main => {
            made.ready = ready && !facts.terminal;
            made.started = Some(started);
        }
    }
}

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let all: Vec<_> = container
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| {
            let read_only = mount.read_only.unwrap_or_default();
            let recursive =
                if mount.recursive_read_only.as_deref() == Some("Enabled") { "Enabled" } else { "Disabled" };
            VolumeMountStatus {
                name: mount.name.clone(),
                mount_path: mount.mount_path.clone(),
                read_only: read_only.then_some(true),
                recursive_read_only: read_only.then(|| recursive.to_owned()),
            }
        })
        .collect();
    (!all.is_empty()).then_some(all)
}
