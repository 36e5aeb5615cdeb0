//! The labels and annotations by which the runtime's objects are recognised again, and the paths of logs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::spec::{name, namespace, uid};

/// Label: the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label: the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label: the pod's uid.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label: the container's name.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: the hash of what makes a container another one.
pub const HASH: &str = "io.kubernetes.container.hash";
/// Annotation: how many containers of this name came before.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation: where the container leaves its last words.
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: what to take if it left none.
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: the hook before the end, as JSON, for when the pod's object is gone.
pub const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
/// Annotation: the container's ports, as JSON.
pub const PORTS: &str = "io.kubernetes.container.ports";
/// Annotation: seconds that the deletion allows.
pub const DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
/// Annotation: seconds that the pod allows.
pub const TERMINATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// What a container was made from, as far as a change needs another one: its name and its image.
#[must_use]
pub fn hash(container: &Container) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    let image = container.image.as_deref().unwrap_or_default();
    for byte in container.name.bytes().chain([0]).chain(image.bytes()) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193); // FNV-1a
    }
    format!("{hash:x}")
}

/// The labels that say whose sandbox it is, with the pod's own.
#[must_use]
pub fn of_sandbox(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    labels.extend(of_pod(pod));
    labels
}

fn of_pod(pod: &Pod) -> [(String, String); 3] {
    [(POD_NAME, name(pod)), (POD_NAMESPACE, namespace(pod)), (POD_UID, uid(pod))]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
}

/// The labels of a container.
#[must_use]
pub fn of_container(pod: &Pod, container: &Container) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from(of_pod(pod));
    labels.insert(CONTAINER_NAME.to_owned(), container.name.clone());
    labels
}

/// The annotations of a container: what is needed to end it rightly when nobody remembers the pod.
#[must_use]
pub fn annotations(pod: &Pod, container: &Container, restart_count: u32) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut put = |key: &str, value: String| found.insert(key.to_owned(), value);
    put(HASH, hash(container));
    put(RESTART_COUNT, restart_count.to_string());
    put(MESSAGE_PATH, container.termination_message_path.clone().unwrap_or_default());
    put(MESSAGE_POLICY, container.termination_message_policy.clone().unwrap_or_default());
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        put(DELETION_GRACE, seconds.to_string());
    }
    if let Some(seconds) = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds) {
        put(TERMINATION_GRACE, seconds.to_string());
    }
    if let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref())
        && let Ok(text) = serde_json::to_string(hook)
    {
        put(PRE_STOP, text);
    }
    if let Some(ports) = container.ports.as_ref().filter(|ports| !ports.is_empty())
        && let Ok(text) = serde_json::to_string(ports)
    {
        put(PORTS, text);
    }
    found
}

/// The directory of a pod's logs.
#[must_use]
pub fn log_directory(logs: &Path, pod: &Pod) -> PathBuf {
    logs.join(format!("{}_{}_{}", namespace(pod), name(pod), uid(pod)))
}

/// A container's log, below that of the pod.
#[must_use]
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

/// The name of the link to a log among those of all containers.
#[must_use]
pub fn log_link(pod: &Pod, container: &str, id: &str) -> String {
    let suffix = format!("_{container}-{id}.log");
    let mut prefix = format!("{}_{}", name(pod), namespace(pod));
    // A file name has at most 255 bytes; the id must stay whole.
    prefix.truncate(prefix.floor_char_boundary(255usize.saturating_sub(suffix.len())));
    prefix + &suffix
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn objects_are_recognised() {
        let pod = pod("{metadata: {name: web, namespace: shop, uid: u1, labels: {app: w}},
            spec: {terminationGracePeriodSeconds: 7, containers: [{name: c, image: i, ports: [{containerPort: 80}],
            terminationMessagePath: /dev/termination-log, terminationMessagePolicy: File,
            lifecycle: {preStop: {sleep: {seconds: 1}}}}]}}");
        let container = &pod.spec.as_ref().unwrap().containers[0];
        assert_eq!(of_sandbox(&pod).len(), 4);
        assert_eq!(of_container(&pod, container)[CONTAINER_NAME], "c");
        let annotations = annotations(&pod, container, 3);
        assert_eq!(annotations[RESTART_COUNT], "3");
        assert_eq!(annotations[TERMINATION_GRACE], "7");
        assert_eq!(annotations[PRE_STOP], r#"{"sleep":{"seconds":1}}"#);
        assert_eq!(annotations[PORTS], r#"[{"containerPort":80}]"#);
        assert!(!annotations.contains_key(DELETION_GRACE));
        assert_eq!(log_directory(Path::new("/var/log/pods"), &pod), Path::new("/var/log/pods/shop_web_u1"));
        assert_eq!(log_path("c", 3), "c/3.log");
        assert_eq!(log_link(&pod, "c", "abc"), "web_shop_c-abc.log");
    }

    #[test]
    fn only_another_name_or_image_is_another_container() {
        let one = Container { name: "a".into(), image: Some("b".into()), ..Container::default() };
        let same = Container { tty: Some(true), ..one.clone() };
        let other = Container { image: Some("c".into()), ..one.clone() };
        let shifted = Container { name: "ab".into(), image: Some(String::new()), ..one.clone() };
        assert_eq!(hash(&one), hash(&same));
        assert_ne!(hash(&one), hash(&other));
        assert_ne!(hash(&one), hash(&shifted));
    }
}
