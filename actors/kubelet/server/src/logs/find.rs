//! Whose log is wanted: pure.

use k3sd_kubelet_base::{ContainerView, PodView};
use k3sd_objects::status::go::quote;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// Why there is no log: the code of the answer, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) u16, pub(crate) String);

/// Whether the pod has a container of this name, of whatever kind.
fn has_container(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let usual = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    usual.map(|container| &container.name).chain(ephemeral.map(|container| &container.name)).any(|found| found == name)
}

fn status_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    all.into_iter().flatten().flatten().find(|status| status.name == name)
}

/// The id of the container whose log is wanted, with its scheme, by what the pod's status says.
fn id_of<'a>(status: &'a ContainerStatus, pod: &str, previous: bool) -> Result<&'a str, String> {
    let (name, pod) = (quote(&status.name), quote(pod));
    let ended = |state: &'a Option<k8s_openapi::api::core::v1::ContainerState>| {
        let terminated = state.as_ref()?.terminated.as_ref()?;
        Some(terminated.container_id.as_deref().unwrap_or_default())
    };
    let last = ended(&status.last_state);
    let state = status.state.as_ref();
    let is_terminated = || format!("container {name} in pod {pod} is terminated");
    let known = |id: Option<&'a str>| id.filter(|id| !id.is_empty());
    if previous {
        let gone = || format!("previous terminated container {name} in pod {pod} not found");
        return known(last).ok_or_else(gone);
    }
    if state.is_some_and(|state| state.running.is_some()) {
        return Ok(status.container_id.as_deref().unwrap_or_default());
    }
    if let Some(own) = ended(&status.state) {
        // One that never started has no id; then it is the one before.
        return known(Some(own)).or(known(last)).ok_or_else(is_terminated);
    }
    if last.is_some() {
        return known(last).ok_or_else(is_terminated);
    }
    let reason = state.and_then(|state| state.waiting.as_ref()).map(|waiting| waiting.reason.as_deref());
    Err(match reason.map(Option::unwrap_or_default) {
        Some("ErrImagePull") => format!("container {name} in pod {pod} is waiting to start: image can't be pulled"),
        Some("ImagePullBackOff") => {
            format!("container {name} in pod {pod} is waiting to start: trying and failing to pull image")
        }
        Some(reason) => format!("container {name} in pod {pod} is waiting to start: {reason}"),
        None => format!("container {name} in pod {pod} is waiting to start - no logs yet"),
    })
}

/// The container whose log is wanted.
///
/// # Errors
/// The pod has no such container, or that has written none yet, or it is gone.
pub(crate) fn find<'a>(view: &'a PodView, container: &str, previous: bool) -> Result<&'a ContainerView, Refused> {
    let pod = view.pod.metadata.name.as_deref().unwrap_or_default();
    if !has_container(&view.pod, container) {
        return Err(Refused(404, format!("container {} not found in pod {}", quote(container), quote(pod))));
    }
    let unavailable = || Refused(400, format!("container {} in pod {} is not available", quote(container), quote(pod)));
    let status = status_of(&view.pod, container).ok_or_else(unavailable)?;
    let id = id_of(status, pod, previous).map_err(|text| Refused(400, text))?;
    let bare = id.split_once("://").map_or(id, |(_, bare)| bare);
    let found = view.containers.iter().find(|container| container.id == bare);
    found.ok_or_else(|| Refused(400, format!("unable to retrieve container logs for {id}")))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use k3sd_kubelet_base::ContainerState;
    use serde_json::{Value, json};

    use super::*;

    fn view(statuses: &Value) -> PodView {
        let pod = json!({
            "metadata": { "name": "p" },
            "spec": { "containers": [{ "name": "c" }], "initContainers": [{ "name": "i" }] },
            "status": { "containerStatuses": statuses },
        });
        let container = |id: &str, state| ContainerView {
            name: "c".to_owned(),
            id: id.to_owned(),
            attempt: 0,
            state,
            log: PathBuf::from(format!("/{id}.log")),
            image: String::new(),
        };
        PodView {
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            uid: "u".to_owned(),
            sandbox: None,
            addresses: Vec::new(),
            cgroup: None,
            containers: vec![container("new", ContainerState::Running), container("old", ContainerState::Exited)],
        }
    }

    fn status(state: Value, last: Value) -> Value {
        let fixed = json!({ "name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0 });
        let mut status = fixed;
        status["state"] = state;
        status["lastState"] = last;
        status["containerID"] = json!("containerd://new");
        json!([status])
    }

    fn found(statuses: &Value, container: &str, previous: bool) -> Result<String, Refused> {
        find(&view(statuses), container, previous).map(|container| container.id.clone())
    }

    #[test]
    fn the_log_is_that_of_the_container_that_runs_or_ran_last() {
        let running = json!({ "running": { "startedAt": "2030-01-01T00:00:00Z" } });
        let ended = |id: &str| json!({ "terminated": { "containerID": id, "exitCode": 0 } });
        let waiting = |reason: &str| json!({ "waiting": { "reason": reason } });
        let refused = |text: &str| Err(Refused(400, text.to_owned()));
        let old = ended("containerd://old");
        assert_eq!(found(&status(running.clone(), old.clone()), "c", false).as_deref(), Ok("new"));
        assert_eq!(found(&status(running.clone(), old.clone()), "c", true).as_deref(), Ok("old"));
        assert_eq!(found(&status(old.clone(), Value::Null), "c", false).as_deref(), Ok("old"));
        assert_eq!(found(&status(ended(""), old.clone()), "c", false).as_deref(), Ok("old"));
        assert_eq!(found(&status(waiting("CrashLoopBackOff"), old), "c", false).as_deref(), Ok("old"));
        assert_eq!(
            found(&status(running, json!({})), "c", true),
            refused("previous terminated container \"c\" in pod \"p\" not found")
        );
        assert_eq!(
            found(&status(ended(""), Value::Null), "c", false),
            refused("container \"c\" in pod \"p\" is terminated")
        );
        assert_eq!(
            found(&status(waiting("ContainerCreating"), Value::Null), "c", false),
            refused("container \"c\" in pod \"p\" is waiting to start: ContainerCreating")
        );
        assert_eq!(
            found(&status(waiting("ErrImagePull"), Value::Null), "c", false),
            refused("container \"c\" in pod \"p\" is waiting to start: image can't be pulled")
        );
        assert_eq!(
            found(&status(ended("containerd://gone"), Value::Null), "c", false),
            refused("unable to retrieve container logs for containerd://gone")
        );
    }

    #[test]
    fn other_containers_have_none() {
        let none = json!([]);
        assert_eq!(found(&none, "i", false), Err(Refused(400, "container \"i\" in pod \"p\" is not available".into())));
        assert_eq!(found(&none, "x", false), Err(Refused(404, "container \"x\" not found in pod \"p\"".into())));
    }
}
