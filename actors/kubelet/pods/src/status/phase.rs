//! A pod's phase.

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::spec::{RestartPolicy, container_status, init_containers, is_sidecar, main_containers, restart_policy};

/// How far init containers are.
#[derive(Default)]
struct Init {
    pending: u32,
    pending_sidecars: u32,
    failed: u32,
}

fn init(pod: &Pod, status: &PodStatus) -> Init {
    let mut count = Init::default();
    for container in init_containers(pod) {
        let found = container_status(status, &container.name);
        let state = found.and_then(|found| found.state.as_ref());
        let last = found.and_then(|found| found.last_state.as_ref()?.terminated.as_ref());
        if is_sidecar(container) {
            let pending = match state {
                None => true,
                Some(state) if state.running.is_some() => found.and_then(|found| found.started) != Some(true),
                Some(state) if state.terminated.is_some() => false,
                Some(_) => last.is_none(),
            };
            count.pending_sidecars += u32::from(pending);
            continue;
        }
        let ended = state.and_then(|state| state.terminated.as_ref()).or_else(|| {
            let waits = state.is_some_and(|state| state.running.is_none());
            last.filter(|_| waits)
        });
        match ended {
            Some(ended) if ended.exit_code != 0 => count.failed += 1,
            Some(_) => {}
            None => count.pending += 1,
        }
    }
    count
}

/// The phase that the containers' states make.
#[must_use]
pub fn phase(pod: &Pod, status: &PodStatus, terminal: bool) -> &'static str {
    let init = init(pod, status);
    let (mut unknown, mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0, 0);
    for container in main_containers(pod) {
        let found = container_status(status, &container.name);
        let Some(state) = found.and_then(|found| found.state.as_ref()) else {
            unknown += 1;
            continue;
        };
        if state.running.is_some() {
            running += 1;
        } else if let Some(ended) = &state.terminated {
            stopped += 1;
            succeeded += u32::from(ended.exit_code == 0);
        } else if state.waiting.is_some() {
            match found.and_then(|found| found.last_state.as_ref()?.terminated.as_ref()) {
                Some(_) => stopped += 1,
                None => waiting += 1,
            }
        } else {
            unknown += 1;
        }
    }
    let policy = restart_policy(pod);
    if init.failed > 0 && policy == RestartPolicy::Never {
        return "Failed";
    }
    let begun = running + stopped > 0;
    if init.pending > 0 || (init.pending_sidecars > 0 && !begun) || waiting > 0 {
        return "Pending";
    }
    if running > 0 && unknown == 0 {
        return "Running";
    }
    if running == 0 && stopped > 0 && unknown == 0 {
        return match policy {
            _ if terminal => {
                if stopped == succeeded {
                    "Succeeded"
                } else {
                    "Failed"
                }
            }
            RestartPolicy::Always => "Running",
            _ if stopped == succeeded => "Succeeded",
            RestartPolicy::Never => "Failed",
            RestartPolicy::OnFailure => "Running",
        };
    }
    "Pending"
}
