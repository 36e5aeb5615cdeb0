//! What to do next for a pod that should run: a pure function of the object, the runtime's state and probes' results.
//!
//! It is asked again after every change, so it says only what can be done now: the next init container, not all of them.

pub mod backoff;
mod init;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::probes::{Outcome, Results};
use crate::resize::{self, ByContainer};
use crate::runtime::{Found, Runtime, State};
use crate::spec::{
    RestartPolicy, Role, ephemeral_containers, init_containers, is_being_deleted, is_host_network, main_containers,
    restart_policy,
};
use crate::translate::labels::hash;

/// Why a container is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// Its liveness probe failed.
    Liveness,
    /// Its startup probe failed.
    Startup,
    /// It is another one now.
    Changed,
    /// It gets other resources, and wants to be started anew for them.
    Resize,
    /// The runtime doesn't know what it does.
    Unknown,
}

/// A container to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The runtime's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: KillReason,
    /// Why, for the event.
    pub message: String,
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Actions {
    /// End everything first: what runs is of no use.
    pub kill_pod: bool,
    /// Make a sandbox, with this attempt.
    pub sandbox: Option<u32>,
    /// End these containers first.
    pub kill: Vec<Kill>,
    /// Give these running containers, by name, the resources that they were granted.
    pub resize: Vec<String>,
    /// Start these, in this order, as far as they may be; one that fails holds back those of a later role.
    pub start: Vec<(Role, Container)>,
}

impl Actions {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn kill(&mut self, found: &Found, reason: KillReason, message: String) {
        self.kill.push(Kill { id: found.id.clone(), name: found.name.clone(), reason, message });
    }
}

/// Whether a container that failed is started again.
fn restarts_after_failure(pod: &Pod) -> bool {
    restart_policy(pod) != RestartPolicy::Never
}

/// Whether a container has to be started, as far as its own fate goes.
#[must_use]
pub fn should_start(pod: &Pod, container: &Container, runtime: &Runtime) -> bool {
    if is_being_deleted(pod) {
        return false;
    }
    let Some(found) = runtime.newest(&container.name) else { return true };
    match found.state {
        State::Running => false,
        State::Unknown | State::Created => true,
        State::Exited => match restart_policy(pod) {
            _ if crate::spec::is_sidecar(container) => true,
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => found.exit_code != 0,
            RestartPolicy::Never => false,
        },
    }
}

/// Whether a sandbox has to be made, and the attempt of the one that there is or will be.
fn sandbox(pod: &Pod, runtime: &Runtime) -> (bool, u32) {
    let Some(newest) = runtime.sandboxes.first() else { return (true, 0) };
    let ready = runtime.sandboxes.iter().filter(|one| one.ready).count();
    let wrong = ready > 1
        || !newest.ready
        || newest.host_network != is_host_network(pod)
        || (!newest.host_network && newest.addresses.is_empty());
    (wrong, newest.attempt + u32::from(wrong))
}

/// Decides. `actual` says which resources containers have.
#[must_use]
pub fn plan(pod: &Pod, runtime: &Runtime, results: &Results, actual: &ByContainer) -> Actions {
    let mut actions = Actions::default();
    let (wrong, attempt) = sandbox(pod, runtime);
    if wrong {
        return fresh(pod, runtime, attempt);
    }
    let ephemeral = ephemeral_containers(pod).into_iter().filter(|one| runtime.newest(&one.name).is_none());
    actions.start.extend(ephemeral.map(|one| (Role::Ephemeral, one)));
    let initialized = init::plan(pod, (runtime, results, actual), &mut actions);
    if actions.kill_pod || !initialized {
        return actions;
    }
    let mut kept = 0;
    let mut starts = Vec::new();
    for container in main_containers(pod) {
        let found = runtime.newest(&container.name);
        let Some(running) = found.filter(|found| found.state == State::Running) else {
            if should_start(pod, container, runtime) {
                if let Some(lost) = found.filter(|found| found.state == State::Unknown) {
                    let message = format!("Container is in {:?} state, try killing it before restart", "unknown");
                    actions.kill(lost, KillReason::Unknown, message);
                }
                starts.push((Role::Main, container.clone()));
            }
            continue;
        };
        let name = &container.name;
        let (reason, mut message, restart) = if running.hash != hash(container) && !running.hash.is_empty() {
            (KillReason::Changed, format!("Container {name} definition changed"), true)
        } else if results.liveness(&running.id) == Some(Outcome::Failure) {
            (KillReason::Liveness, format!("Container {name} failed liveness probe"), restarts_after_failure(pod))
        } else if results.startup(&running.id) == Some(Outcome::Failure) {
            (KillReason::Startup, format!("Container {name} failed startup probe"), restarts_after_failure(pod))
        } else if resize::step(container, actual) == Some(resize::Step::Restart) {
            (KillReason::Resize, format!("Container {name} resize requires restart"), true)
        } else {
            if resize::step(container, actual).is_some() {
                actions.resize.push(name.clone());
            }
            kept += 1;
            continue;
        };
        if restart {
            if reason != KillReason::Resize {
                message.push_str(", will be restarted");
            }
            starts.push((Role::Main, container.clone()));
        }
        actions.kill(running, reason, message);
    }
    if kept == 0 && starts.is_empty() {
        // Nothing of the pod's own is left to run: sidecars end, too.
        actions.kill_pod = true;
        actions.start.clear();
        actions.resize.clear();
    }
    actions.start.append(&mut starts);
    actions
}

/// The sandbox is missing or of no use.
fn fresh(pod: &Pod, runtime: &Runtime, attempt: u32) -> Actions {
    let mut actions = Actions { kill_pod: true, sandbox: Some(attempt), ..Actions::default() };
    if !restarts_after_failure(pod) && attempt != 0 && !runtime.containers.is_empty() {
        actions.sandbox = None;
        return actions;
    }
    let succeeded = |container: &Container| {
        runtime.newest(&container.name).is_some_and(|found| found.state == State::Exited && found.exit_code == 0)
    };
    let wanted = |container: &&Container| restart_policy(pod) != RestartPolicy::OnFailure || !succeeded(container);
    let mains: Vec<_> = main_containers(pod).iter().filter(wanted).cloned().collect();
    if mains.is_empty() {
        actions.sandbox = None;
        return actions;
    }
    match init_containers(pod).first() {
        Some(first) => actions.start.push((Role::Init, first.clone())),
        None => actions.start.extend(mains.into_iter().map(|one| (Role::Main, one))),
    }
    actions
}

#[cfg(test)]
mod tests;
