//! Which init container is next, and which sidecars have to be kept up.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Actions, KillReason, restarts_after_failure};
use crate::probes::{Outcome, Results};
use crate::resize::{self, ByContainer};
use crate::runtime::{Found, Runtime, State};
use crate::spec::{Role, init_containers, is_sidecar, main_containers};
use crate::translate::labels::hash;

/// What one init container says about those around it.
enum Said {
    /// Nothing about others.
    Wait,
    /// It has done, or has started up: the next one's turn.
    Done,
    /// The pod has failed.
    Failed,
}

/// Adds what is to be done for init containers; says whether main containers may run.
///
/// It goes from the last to the first, as those that are done may have been removed: who is furthest tells how far the
/// pod has come.
pub(super) fn plan(
    pod: &Pod,
    (runtime, results, actual): (&Runtime, &Results, &ByContainer),
    actions: &mut Actions,
) -> bool {
    let all = init_containers(pod);
    if all.is_empty() {
        return true;
    }
    let mut initialized = main_has_run(pod, runtime);
    // Whether those before the one in hand are done.
    let mut past = initialized;
    let mut starts: Vec<usize> = Vec::new();
    for (index, container) in all.iter().enumerate().rev() {
        let Some(found) = runtime.newest(&container.name) else {
            if past && is_sidecar(container) {
                starts.push(index);
            }
            continue;
        };
        if past && !is_sidecar(container) {
            continue;
        }
        let before = starts.len();
        let said = if is_sidecar(container) {
            sidecar(container, found, (results, actual), index, &mut starts, actions)
        } else {
            plain(pod, found, index, &mut starts, actions)
        };
        match said {
            Said::Failed => {
                actions.kill_pod = true;
                actions.start.retain(|(role, _)| *role != Role::Init);
                actions.resize.clear();
                return false;
            }
            Said::Done if index + 1 == all.len() => initialized = true,
            // It goes before a restart of this one, as all are turned round in the end.
            Said::Done if !past => starts.insert(before, index + 1),
            Said::Done | Said::Wait => {}
        }
        past = true;
    }
    if !past {
        starts.push(0);
    }
    let mut next: Vec<_> = starts.into_iter().rev().map(|index| (Role::Init, all[index].clone())).collect();
    actions.start.append(&mut next);
    initialized
}

/// Whether a main container has run in this sandbox: then all init containers had done, whatever is left of them.
fn main_has_run(pod: &Pod, runtime: &Runtime) -> bool {
    main_containers(pod).iter().any(|container| match runtime.newest(&container.name).map(|found| found.state) {
        Some(State::Created | State::Running) => true,
        Some(State::Exited) => runtime.active(&container.name).is_some(),
        Some(State::Unknown) | None => false,
    })
}

fn sidecar(
    container: &Container,
    found: &Found,
    (results, actual): (&Results, &ByContainer),
    index: usize,
    starts: &mut Vec<usize>,
    actions: &mut Actions,
) -> Said {
    let name = &container.name;
    match found.state {
        State::Created | State::Exited => {
            starts.push(index);
            Said::Wait
        }
        State::Unknown => {
            let message = format!("Init container is in {:?} state, try killing it before restart", "unknown");
            actions.kill(found, KillReason::Unknown, message);
            starts.push(index);
            Said::Wait
        }
        State::Running => {
            if container.startup_probe.is_some() {
                match results.startup(&found.id) {
                    Some(Outcome::Success) => {}
                    Some(Outcome::Failure) => {
                        let message = format!("Init container {name} failed startup probe");
                        actions.kill(found, KillReason::Startup, message);
                        starts.push(index);
                        return Said::Wait;
                    }
                    Some(Outcome::Unknown) | None => return Said::Wait,
                }
            }
            if found.hash != hash(container) && !found.hash.is_empty() {
                actions.kill(found, KillReason::Changed, format!("Init container {name} definition changed"));
                starts.push(index);
            } else if container.liveness_probe.is_some() && results.liveness(&found.id) == Some(Outcome::Failure) {
                let message = format!("Init container {name} failed liveness probe");
                actions.kill(found, KillReason::Liveness, message);
                starts.push(index);
            } else {
                match resize::step(container, actual) {
                    Some(resize::Step::Restart) => {
                        let message = format!("Init container {name} resize requires restart");
                        actions.kill(found, KillReason::Resize, message);
                        starts.push(index);
                    }
                    Some(resize::Step::Update) => actions.resize.push(name.clone()),
                    None => {}
                }
            }
            Said::Done
        }
    }
}

fn plain(pod: &Pod, found: &Found, index: usize, starts: &mut Vec<usize>, actions: &mut Actions) -> Said {
    match found.state {
        State::Running => Said::Wait,
        State::Created => {
            starts.push(index);
            Said::Wait
        }
        State::Exited if found.exit_code == 0 => Said::Done,
        State::Exited | State::Unknown if !restarts_after_failure(pod) => Said::Failed,
        State::Exited => {
            starts.push(index);
            Said::Wait
        }
        State::Unknown => {
            let message = format!("Init container is in {:?} state, try killing it before restart", "unknown");
            actions.kill(found, KillReason::Unknown, message);
            starts.push(index);
            Said::Wait
        }
    }
}
