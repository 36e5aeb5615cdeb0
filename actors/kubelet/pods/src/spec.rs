//! Short ways to what a pod's spec says, with the API's defaults where a field is left out.

use std::borrow::Cow;

use k3sd_objects::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, EphemeralContainer, Pod, PodSpec, PodStatus, Probe, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// Which of a pod's three lists a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Runs before the others, to its end or, as a sidecar, beside them.
    Init,
    /// What the pod is for.
    Main,
    /// Added to a running pod to look at it.
    Ephemeral,
}

/// The spec; an empty one if there is none, which the API doesn't allow.
#[must_use]
pub fn spec(pod: &Pod) -> Cow<'_, PodSpec> {
    pod.spec.as_ref().map_or_else(|| Cow::Owned(PodSpec::default()), Cow::Borrowed)
}

/// The status; an empty one if there is none.
#[must_use]
pub fn status(pod: &Pod) -> Cow<'_, PodStatus> {
    pod.status.as_ref().map_or_else(|| Cow::Owned(PodStatus::default()), Cow::Borrowed)
}

/// The pod's name.
#[must_use]
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The pod's namespace.
#[must_use]
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// The pod's uid.
#[must_use]
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// How messages name a pod: `name_namespace(uid)`.
#[must_use]
pub fn shown(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// An annotation's value.
#[must_use]
pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Priorities from here on are for what a node or cluster can't be without.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// Whether the pod comes from a file of this node.
#[must_use]
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, crate::source::SOURCE).is_some_and(|source| source != "api")
}

/// Whether the pod's priority is one of those that a node or cluster can't be without.
#[must_use]
pub fn has_critical_priority(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default() >= CRITICAL_PRIORITY
}

/// Whether others have to make room for the pod, if there is none.
#[must_use]
pub fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || crate::source::is_mirror(pod) || has_critical_priority(pod)
}

/// The containers that run before the main ones, sidecars included.
#[must_use]
pub fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
}

/// The main containers.
#[must_use]
pub fn main_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default()
}

/// The ephemeral containers, in the shape of the others.
#[must_use]
pub fn ephemeral_containers(pod: &Pod) -> Vec<Container> {
    let list = pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default();
    list.iter().map(as_container).collect()
}

/// Which container's processes an ephemeral one looks at.
#[must_use]
pub fn target<'a>(pod: &'a Pod, ephemeral: &str) -> Option<&'a str> {
    let list = pod.spec.as_ref()?.ephemeral_containers.as_deref()?;
    list.iter().find(|one| one.name == ephemeral)?.target_container_name.as_deref().filter(|name| !name.is_empty())
}

fn as_container(one: &EphemeralContainer) -> Container {
    let one = one.clone();
    Container {
        name: one.name,
        args: one.args,
        command: one.command,
        env: one.env,
        env_from: one.env_from,
        image: one.image,
        image_pull_policy: one.image_pull_policy,
        resources: one.resources,
        security_context: one.security_context,
        stdin: one.stdin,
        stdin_once: one.stdin_once,
        termination_message_path: one.termination_message_path,
        termination_message_policy: one.termination_message_policy,
        tty: one.tty,
        volume_devices: one.volume_devices,
        volume_mounts: one.volume_mounts,
        working_dir: one.working_dir,
        ..Container::default()
    }
}

/// A container of the pod by name, with its role.
#[must_use]
pub fn find(pod: &Pod, wanted: &str) -> Option<(Role, Container)> {
    let by_name = |list: &[Container]| list.iter().find(|one| one.name == wanted).cloned();
    by_name(main_containers(pod))
        .map(|one| (Role::Main, one))
        .or_else(|| by_name(init_containers(pod)).map(|one| (Role::Init, one)))
        .or_else(|| by_name(&ephemeral_containers(pod)).map(|one| (Role::Ephemeral, one)))
}

/// Whether an init container is one that stays: a sidecar.
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether the pod has any sidecars.
#[must_use]
pub fn has_sidecars(pod: &Pod) -> bool {
    init_containers(pod).iter().any(is_sidecar)
}

/// When the pod's containers are started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// However they ended.
    Always,
    /// When they failed.
    OnFailure,
    /// Not at all.
    Never,
}

/// The pod's restart policy; always, if it says nothing.
#[must_use]
pub fn restart_policy(pod: &Pod) -> RestartPolicy {
    match pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

/// Whether the pod uses the host's network.
#[must_use]
pub fn is_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default()
}

/// Whether the pod was asked to go.
#[must_use]
pub fn is_being_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether a phase is one that a pod stays in.
#[must_use]
pub fn is_final(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// A container's status by name, whatever its role.
#[must_use]
pub fn container_status<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses]
        .into_iter()
        .flatten()
        .flatten()
        .find(|one| one.name == name)
}

/// A quantity's number; nothing for text that is none, which the API doesn't let through.
#[must_use]
pub fn quantity(text: &Text) -> Option<Quantity> {
    text.0.parse().ok()
}

/// What a container asks for, of one resource: its request, or where it has none, its limit.
#[must_use]
pub fn requested(resources: Option<&ResourceRequirements>, resource: &str) -> Option<Quantity> {
    let resources = resources?;
    let of = |list: &Option<std::collections::BTreeMap<String, Text>>| list.as_ref()?.get(resource).and_then(quantity);
    of(&resources.requests).or_else(|| of(&resources.limits))
}

/// A container's limit of one resource.
#[must_use]
pub fn limit(resources: Option<&ResourceRequirements>, resource: &str) -> Option<Quantity> {
    resources?.limits.as_ref()?.get(resource).and_then(quantity)
}

/// The port that a probe or a hook names, looked up among the container's if it is a name.
#[must_use]
pub fn port(of: &k8s_openapi::apimachinery::pkg::util::intstr::IntOrString, container: &Container) -> Option<u16> {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    let number = match of {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let ports = container.ports.as_deref().unwrap_or_default();
            match ports.iter().find(|port| port.name.as_deref() == Some(text)) {
                Some(port) => port.container_port,
                None => text.parse().ok()?,
            }
        }
    };
    u16::try_from(number).ok().filter(|port| *port > 0)
}

/// The grace that a failed probe gives its container instead of the pod's.
#[must_use]
pub fn probe_grace(probe: Option<&Probe>) -> Option<i64> {
    probe?.termination_grace_period_seconds
}
