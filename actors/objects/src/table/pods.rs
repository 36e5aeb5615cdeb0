//! Pods: what their containers tell together.

use serde_json::Value;

use crate::decode::time::Moment;
use crate::table::cells::{NONE, condition, count, items, str};
use crate::table::human_duration;

fn is_true(value: &Value) -> bool {
    value.as_bool().unwrap_or_default()
}

/// Whether an init container goes on running beside the others.
fn is_sidecar(pod: &Value, name: &Value) -> bool {
    let found = items(&pod["spec"]["initContainers"]).find(|container| container["name"] == *name);
    found.is_some_and(|container| container["restartPolicy"] == "Always")
}

fn is_condition_true(pod: &Value, of: &str) -> bool {
    condition(pod, of).is_some_and(|condition| condition["status"] == "True")
}

/// What was seen of a pod's containers.
#[derive(Debug, Default)]
struct Summary {
    status: String,
    ready: usize,
    restarts: i64,
    /// Seconds since 1970 of the last end of a container.
    last_restart: Option<i64>,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let status = &pod["status"];
        let mut summary = Self { status: str(&status["phase"]).to_owned(), ..Self::default() };
        if !str(&status["reason"]).is_empty() {
            str(&status["reason"]).clone_into(&mut summary.status);
        }
        if condition(pod, "PodScheduled").is_some_and(|condition| condition["reason"] == "SchedulingGated") {
            "SchedulingGated".clone_into(&mut summary.status);
        }
        let mut sidecars = Self::default();
        let initializing = summary.see_init_containers(pod, &mut sidecars);
        if !initializing || is_condition_true(pod, "Initialized") {
            summary.see_containers(pod, sidecars);
        }
        summary.see_deletion(pod);
        summary
    }

    /// Goes through the containers that run first, and tells whether they are still at it.
    fn see_init_containers(&mut self, pod: &Value, sidecars: &mut Self) -> bool {
        let total = count(&pod["spec"]["initContainers"]);
        for (index, status) in items(&pod["status"]["initContainerStatuses"]).enumerate() {
            let sidecar = is_sidecar(pod, &status["name"]);
            self.see_restarts(status);
            if sidecar {
                sidecars.see_restarts(status);
            }
            let terminated = &status["state"]["terminated"];
            if terminated["exitCode"] == 0 {
                continue;
            }
            if sidecar && is_true(&status["started"]) {
                if is_true(&status["ready"]) {
                    self.ready += 1;
                    sidecars.ready += 1;
                }
                continue;
            }
            let waiting = str(&status["state"]["waiting"]["reason"]);
            self.status = if terminated.is_object() {
                format!("Init:{}", end_of(terminated))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{total}")
            };
            return true;
        }
        false
    }

    /// Goes through the others, from last to first. Of those before, only the ones that still run count.
    fn see_containers(&mut self, pod: &Value, sidecars: Self) {
        (self.restarts, self.last_restart) = (sidecars.restarts, sidecars.last_restart);
        let mut running = false;
        let mut failed = None;
        for status in items(&pod["status"]["containerStatuses"]).rev() {
            self.see_restarts(status);
            let state = &status["state"];
            let waiting = str(&state["waiting"]["reason"]);
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.status);
            } else if state["terminated"].is_object() {
                self.status = end_of(&state["terminated"]);
                if state["terminated"]["exitCode"] != 0 {
                    failed = Some(self.status.clone());
                }
            } else if is_true(&status["ready"]) && state["running"].is_object() {
                running = true;
                self.ready += 1;
            }
        }
        // One container is done and another is not: the pod is not.
        if self.status == "Completed" {
            if running {
                let ready = is_condition_true(pod, "Ready");
                (if ready { "Running" } else { "NotReady" }).clone_into(&mut self.status);
            } else if let Some(failed) = failed {
                self.status = failed;
            }
        }
    }

    fn see_restarts(&mut self, status: &Value) {
        self.restarts += status["restartCount"].as_i64().unwrap_or_default();
        let ended = status["lastState"]["terminated"]["finishedAt"].as_str().and_then(Moment::parse);
        self.last_restart = self.last_restart.max(ended.map(|moment| moment.seconds));
    }

    fn see_deletion(&mut self, pod: &Value) {
        if pod["metadata"]["deletionTimestamp"].is_null() {
            return;
        }
        if pod["status"]["reason"] == "NodeLost" {
            "Unknown".clone_into(&mut self.status);
        } else if !matches!(str(&pod["status"]["phase"]), "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut self.status);
        }
    }
}

/// How a container ended, in a word.
fn end_of(terminated: &Value) -> String {
    let (reason, signal) = (str(&terminated["reason"]), terminated["signal"].as_i64().unwrap_or_default());
    if !reason.is_empty() {
        reason.to_owned()
    } else if signal != 0 {
        format!("Signal:{signal}")
    } else {
        format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or_default())
    }
}

pub(super) fn ready(pod: &Value, _now: i64) -> Value {
    let sidecars = items(&pod["spec"]["initContainers"]).filter(|container| container["restartPolicy"] == "Always");
    let total = count(&pod["spec"]["containers"]) + sidecars.count();
    Value::from(format!("{}/{total}", Summary::of(pod).ready))
}

pub(super) fn status(pod: &Value, _now: i64) -> Value {
    Value::from(Summary::of(pod).status)
}

pub(super) fn restarts(pod: &Value, now: i64) -> Value {
    let Summary { restarts, last_restart, .. } = Summary::of(pod);
    Value::from(match last_restart.filter(|_| restarts > 0) {
        Some(last) => format!("{restarts} ({} ago)", human_duration(now.saturating_sub(last))),
        None => restarts.to_string(),
    })
}

pub(super) fn address(pod: &Value, _now: i64) -> Value {
    let address = str(&pod["status"]["podIPs"][0]["ip"]);
    Value::from(if address.is_empty() { NONE } else { address })
}

pub(super) fn gates(pod: &Value, _now: i64) -> Value {
    let gates = items(&pod["spec"]["readinessGates"]);
    let total = gates.len();
    let open = gates.filter(|gate| is_condition_true(pod, str(&gate["conditionType"]))).count();
    Value::from(if total == 0 { NONE.to_owned() } else { format!("{open}/{total}") })
}
