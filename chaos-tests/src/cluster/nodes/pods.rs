//! What the kubelet does about a pod, from what the API shows of it: pure.

use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use serde_json::{Value, json};

/// What containers end with that were told to stop: those that end by themselves would be done, others just stop.
const TERMINATED: i64 = 143;
/// A container that is started again runs at least so long, or the API would hear of nothing else.
const RUN_MIN: Duration = Duration::from_secs(1);

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plan {
    /// Nothing, before it changes.
    Nothing,
    /// Look again after so long.
    After(Duration),
    /// Write this into its status.
    Status(Value),
    /// It has stopped: take it out of the API.
    Remove,
}

/// A pod and what is known around it.
pub(super) struct Place {
    /// The address of its node.
    pub(super) host: String,
    /// Its own.
    pub(super) own: Ipv4Addr,
    /// Since when its kubelet knows of it.
    pub(super) age: Duration,
    /// Now.
    pub(super) wall: Timestamp,
}

/// What to do about a pod.
pub(super) fn plan(pod: &Pod, place: &Place) -> Plan {
    let wish = Wish::of(pod);
    if let Some(deletion) = &pod.metadata.deletion_timestamp {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0).max(0);
        if grace == 0 {
            return Plan::Nothing; // Stopped; finalizers keep it.
        }
        let asked = deletion.0 - SignedDuration::from_secs(grace);
        let takes = wish.stop_after.min(Duration::from_secs(grace.unsigned_abs()));
        return match left(asked, takes, place.wall) {
            Some(left) => Plan::After(left),
            None if phase(pod) == "Running" => {
                let is_service = restart_policy(pod) == "Always";
                Plan::Status(ended(pod, place, if is_service { 0 } else { TERMINATED }))
            }
            None => Plan::Remove,
        };
    }
    match phase(pod) {
        "Succeeded" | "Failed" => Plan::Nothing,
        "Running" => running(pod, place, &wish),
        _ if place.age < wish.start_after => Plan::After(wish.start_after - place.age),
        _ => Plan::Status(started(pod, place, wish.ready_after.is_zero(), &restarts(pod))),
    }
}

/// It runs: is it ready, is it done?
fn running(pod: &Pod, place: &Place, wish: &Wish) -> Plan {
    let Some(began) = began(pod) else {
        return Plan::Status(started(pod, place, false, &restarts(pod)));
    };
    let restarted = restarts(pod).iter().any(|count| *count > 0);
    if let Some(code) = wish.exit_code {
        let takes = if restarted { wish.run_for.max(RUN_MIN) } else { wish.run_for };
        if left(began, takes, place.wall).is_none() {
            let again = match restart_policy(pod) {
                "Always" => true,
                "OnFailure" => code != 0,
                _ => false,
            };
            if !again {
                return Plan::Status(ended(pod, place, code));
            }
            let counts: Vec<i32> = restarts(pod).iter().map(|count| count + 1).collect();
            return Plan::Status(started(pod, place, wish.ready_after.is_zero(), &counts));
        }
    }
    let is_ready = wish.is_ever_ready && left(began, wish.ready_after, place.wall).is_none();
    let shown = |kind: &str| condition(pod, kind).is_some_and(|status| status == "True");
    if shown("ContainersReady") != is_ready || shown("Ready") != (is_ready && gates_open(pod)) {
        return Plan::Status(started(pod, place, is_ready, &restarts(pod)));
    }
    let ready = wish.is_ever_ready.then(|| left(began, wish.ready_after, place.wall)).flatten();
    let done = wish.exit_code.and_then(|_| left(began, wish.run_for.max(RUN_MIN), place.wall));
    ready.into_iter().chain(done).min().map_or(Plan::Nothing, Plan::After)
}

/// What the pod's annotations ask for.
struct Wish {
    start_after: Duration,
    ready_after: Duration,
    is_ever_ready: bool,
    exit_code: Option<i64>,
    run_for: Duration,
    stop_after: Duration,
}

impl Wish {
    fn of(pod: &Pod) -> Self {
        let text = |name: &str| {
            let annotations = pod.metadata.annotations.as_ref()?;
            annotations.get(&format!("fake.k3sd.io/{name}")).map(String::as_str)
        };
        let span = |name| text(name).and_then(parse_span).unwrap_or_default();
        Self {
            start_after: span("start-after"),
            ready_after: span("ready-after"),
            is_ever_ready: text("ready") != Some("false"),
            exit_code: text("exit-code").and_then(|code| code.parse().ok()),
            run_for: span("run-for"),
            stop_after: span("stop-after"),
        }
    }
}

/// `300ms`, `2s`, `5m`.
fn parse_span(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u32 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(number.into())),
        "s" => Some(Duration::from_secs(number.into())),
        "m" => Some(Duration::from_secs(60) * number),
        _ => None,
    }
}

/// What is left of a span that began then; `None` when it is over.
fn left(began: Timestamp, span: Duration, wall: Timestamp) -> Option<Duration> {
    let gone = Duration::try_from(wall.duration_since(began)).unwrap_or_default();
    span.checked_sub(gone).filter(|left| !left.is_zero())
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn restart_policy(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten())
}

/// When its containers began to run this time.
fn began(pod: &Pod) -> Option<Timestamp> {
    statuses(pod).find_map(|status| Some(status.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0))
}

/// How often each container was started again.
fn restarts(pod: &Pod) -> Vec<i32> {
    let of = |container: &Container| statuses(pod).find(|s| s.name == container.name).map_or(0, |s| s.restart_count);
    pod.spec.iter().flat_map(|spec| &spec.containers).map(of).collect()
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a str> {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.find(|condition| condition.type_ == kind).map(|condition| condition.status.as_str())
}

/// Whether all that has to be true beside its containers is.
fn gates_open(pod: &Pod) -> bool {
    let mut gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    gates.all(|gate| condition(pod, &gate.condition_type) == Some("True"))
}

fn time(wall: Timestamp) -> String {
    wall.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A status that merges with what is there: conditions of others stay.
fn patch(pod: &Pod, status: Value) -> Value {
    json!({"metadata": {"uid": pod.metadata.uid}, "status": status})
}

/// One condition; its time of transition is only written when it is one.
fn told(pod: &Pod, kind: &str, is_true: bool, why: (&str, String), wall: Timestamp) -> Value {
    let status = if is_true { "True" } else { "False" };
    let mut told = json!({"type": kind, "status": status, "observedGeneration": pod.metadata.generation});
    let (reason, message) = why;
    for (name, text) in [("reason", reason), ("message", message.as_str())] {
        told[name] = if text.is_empty() { Value::Null } else { text.into() };
    }
    if condition(pod, kind) != Some(status) {
        told["lastTransitionTime"] = time(wall).into();
    }
    told
}

fn conditions(pod: &Pod, is_ready: bool, is_over: Option<&str>, wall: Timestamp) -> Value {
    let names: Vec<&str> = pod.spec.iter().flat_map(|spec| &spec.containers).map(|c| c.name.as_str()).collect();
    let unready = || match is_over {
        Some(reason) => (reason, String::new()),
        None => ("ContainersNotReady", format!("containers with unready status: [{}]", names.join(" "))),
    };
    let why = |holds: bool| if holds { ("", String::new()) } else { unready() };
    let gates = gates_open(pod);
    let why_ready = match (is_ready, gates) {
        (true, false) => ("ReadinessGatesNotReady", "the status of pod readiness gate is not \"True\"".to_owned()),
        _ => why(is_ready),
    };
    let set_up = is_over.is_none();
    let initialized = if is_over == Some("PodCompleted") { ("PodCompleted", String::new()) } else { why(true) };
    json!([
        told(pod, "PodReadyToStartContainers", set_up, why(true), wall),
        told(pod, "Initialized", true, initialized, wall),
        told(pod, "Ready", is_ready && gates, why_ready, wall),
        told(pod, "ContainersReady", is_ready, why(is_ready), wall),
    ])
}

/// Its containers run.
fn started(pod: &Pod, place: &Place, is_ready: bool, restarts: &[i32]) -> Value {
    let wish = Wish::of(pod);
    let is_ready = is_ready && wish.is_ever_ready;
    let again = began(pod).is_some() && restarts != self::restarts(pod).as_slice();
    let since = began(pod).filter(|_| !again).map_or_else(|| time(place.wall), time);
    let spec = pod.spec.as_ref();
    let container = |container: &Container, restarts: i32, ready: bool| {
        let last = if again {
            let code = wish.exit_code.unwrap_or(0);
            json!({"terminated": terminated(code, began(pod), place.wall)})
        } else {
            json!({})
        };
        let state = json!({"running": {"startedAt": since}});
        told_container(pod, container, (ready, true), restarts, state, last)
    };
    let containers = spec.iter().flat_map(|spec| &spec.containers).zip(restarts);
    let containers: Vec<_> = containers.map(|(found, restarts)| container(found, *restarts, is_ready)).collect();
    let mut status = json!({
        "phase": "Running",
        "observedGeneration": pod.metadata.generation,
        "conditions": conditions(pod, is_ready, None, place.wall),
        "containerStatuses": containers,
    });
    let inits = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let inits: Vec<_> = inits.map(|init| init_container(pod, init, &since, place.wall)).collect();
    if !inits.is_empty() {
        status["initContainerStatuses"] = inits.into();
    }
    if pod.status.as_ref().is_none_or(|status| status.start_time.is_none()) {
        status["startTime"] = time(place.wall).into();
    }
    let is_host = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    let own = if is_host { place.host.clone() } else { place.own.to_string() };
    (status["hostIP"], status["hostIPs"]) = (place.host.clone().into(), json!([{"ip": place.host}]));
    (status["podIP"], status["podIPs"]) = (own.clone().into(), json!([{"ip": own}]));
    patch(pod, status)
}

/// Those that never end run beside the others; the rest was over before these began.
fn init_container(pod: &Pod, init: &Container, since: &str, wall: Timestamp) -> Value {
    if init.restart_policy.as_deref() == Some("Always") {
        return told_container(pod, init, (true, true), 0, json!({"running": {"startedAt": since}}), json!({}));
    }
    let state = json!({"terminated": terminated(0, None, wall)});
    told_container(pod, init, (true, false), 0, state, json!({}))
}

/// All its containers have ended.
fn ended(pod: &Pod, place: &Place, code: i64) -> Value {
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let reason = if code == 0 { "PodCompleted" } else { "PodFailed" };
    let over = json!({"terminated": terminated(code, began(pod), place.wall)});
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers).zip(restarts(pod));
    let told = |(container, restarts): (&Container, i32)| {
        told_container(pod, container, (false, false), restarts, over.clone(), json!({}))
    };
    let containers: Vec<_> = containers.map(told).collect();
    let mut status = json!({
        "phase": phase,
        "observedGeneration": pod.metadata.generation,
        "conditions": conditions(pod, false, Some(reason), place.wall),
        "containerStatuses": containers,
    });
    let inits = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let over = |init: &Container| {
        let state = json!({"terminated": terminated(0, None, place.wall)});
        told_container(pod, init, (init.restart_policy.is_none(), false), 0, state, json!({}))
    };
    let inits: Vec<_> = inits.map(over).collect();
    if !inits.is_empty() {
        status["initContainerStatuses"] = inits.into();
    }
    patch(pod, status)
}

fn terminated(code: i64, began: Option<Timestamp>, wall: Timestamp) -> Value {
    let reason = if code == 0 { "Completed" } else { "Error" };
    let began = began.unwrap_or(wall);
    json!({"exitCode": code, "reason": reason, "startedAt": time(began), "finishedAt": time(wall)})
}

fn told_container(
    pod: &Pod,
    container: &Container,
    (ready, started): (bool, bool),
    restarts: i32,
    state: Value,
    last: Value,
) -> Value {
    let image = container.image.as_deref().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    json!({
        "name": container.name, "image": image, "imageID": image,
        "containerID": format!("fake://{uid}/{}/{restarts}", container.name),
        "ready": ready, "started": started, "restartCount": restarts, "state": state, "lastState": last,
    })
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
