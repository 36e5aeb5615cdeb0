//! As whom a container runs, and what it may do.

use k3sd_cri::v1::{
    Capability, IdMapping, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy, UserNamespace, security_profile,
};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
};

use crate::spec::{annotation, is_host_network, shown};

/// Paths that a container doesn't see into, as all runtimes have it.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// What of virtual machines' facts is hidden as well.
const MASKED_POWER: &str = "/sys/devices/virtual/powercap";
/// Paths that a container can't write below.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// The old annotation of AppArmor's profiles, before the container's name.
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// A range of ids in a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id on the host.
    pub host: u32,
    /// How many, counted from 0 inside.
    pub length: u32,
}

/// What security contexts need beside the pod.
#[derive(Clone, Debug, Default)]
pub struct SecurityFacts {
    /// Where profiles of seccomp are looked up.
    pub seccomp_root: String,
    /// Whether pods that name no profile get the runtime's.
    pub seccomp_default: bool,
    /// The pod's user namespace, if it has one of its own.
    pub users: Option<IdRange>,
    /// Groups that volumes need, in addition to those the pod names.
    pub volume_groups: Vec<i64>,
}

fn pod_context(pod: &Pod) -> PodSecurityContext {
    pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default()
}

/// The container's context, with what it leaves out taken from the pod's.
#[must_use]
pub fn effective(pod: &Pod, container: &Container) -> SecurityContext {
    let of_pod = pod_context(pod);
    let own = container.security_context.clone().unwrap_or_default();
    SecurityContext {
        run_as_user: own.run_as_user.or(of_pod.run_as_user),
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        run_as_non_root: own.run_as_non_root.or(of_pod.run_as_non_root),
        se_linux_options: own.se_linux_options.or(of_pod.se_linux_options),
        seccomp_profile: own.seccomp_profile.or(of_pod.seccomp_profile),
        app_armor_profile: own.app_armor_profile.or(of_pod.app_armor_profile),
        ..own
    }
}

/// Refuses a container that must not run as root and would, or might. The image's user is a number or a name.
///
/// # Errors
/// The text that the container's waiting state shows.
pub fn check_user(pod: &Pod, container: &Container, uid: Option<i64>, user: &str) -> Result<(), String> {
    let context = effective(pod, container);
    if !context.run_as_non_root.unwrap_or_default() {
        return Ok(());
    }
    let who = format!("(pod: {:?}, container: {})", shown(pod), container.name);
    match (context.run_as_user, uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {who}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!("container has runAsNonRoot and image will run as root {who}")),
        (None, None) if !user.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root {who}"
        )),
        _ => Ok(()),
    }
}

/// Which namespaces are shared with whom. `target` is the id of the container whose processes an ephemeral one sees.
#[must_use]
pub fn namespaces(pod: &Pod, users: Option<IdRange>, target: Option<&str>) -> NamespaceOption {
    let spec = crate::spec::spec(pod);
    let network = if is_host_network(pod) { NamespaceMode::Node } else { NamespaceMode::Pod };
    let ipc = if spec.host_ipc.unwrap_or_default() { NamespaceMode::Node } else { NamespaceMode::Pod };
    let pid = match target {
        Some(_) => NamespaceMode::Target,
        None if spec.host_pid.unwrap_or_default() => NamespaceMode::Node,
        None if spec.share_process_namespace.unwrap_or_default() => NamespaceMode::Pod,
        None => NamespaceMode::Container,
    };
    NamespaceOption {
        network: network as i32,
        ipc: ipc as i32,
        pid: pid as i32,
        target_id: target.unwrap_or_default().to_owned(),
        userns_options: users.map(|range| UserNamespace {
            mode: NamespaceMode::Pod as i32,
            uids: vec![mapping(range)],
            gids: vec![mapping(range)],
        }),
    }
}

/// The mapping of ids from 0 to a range of the host's.
#[must_use]
pub fn mapping(range: IdRange) -> IdMapping {
    IdMapping { host_id: range.host, container_id: 0, length: range.length }
}

fn id(of: Option<i64>) -> Option<Int64Value> {
    of.map(|value| Int64Value { value })
}

fn selinux(of: Option<&SELinuxOptions>) -> Option<SeLinuxOption> {
    let text = |of: &Option<String>| of.clone().unwrap_or_default();
    of.map(|one| SeLinuxOption {
        user: text(&one.user),
        role: text(&one.role),
        r#type: text(&one.type_),
        level: text(&one.level),
    })
}

fn profile(kind: security_profile::ProfileType, localhost_ref: String) -> SecurityProfile {
    SecurityProfile { profile_type: kind as i32, localhost_ref }
}

fn seccomp(of: Option<&SeccompProfile>, privileged: bool, facts: &SecurityFacts) -> SecurityProfile {
    use security_profile::ProfileType::{Localhost, RuntimeDefault, Unconfined};
    match of.map(|one| one.type_.as_str()) {
        Some("RuntimeDefault") => profile(RuntimeDefault, String::new()),
        Some("Localhost") => {
            let file = of.and_then(|one| one.localhost_profile.as_deref()).unwrap_or_default();
            profile(Localhost, format!("{}/{file}", facts.seccomp_root))
        }
        None if facts.seccomp_default && !privileged => profile(RuntimeDefault, String::new()),
        _ => profile(Unconfined, String::new()),
    }
}

fn apparmor(pod: &Pod, of: Option<&AppArmorProfile>, container: &str) -> Option<SecurityProfile> {
    use security_profile::ProfileType::{Localhost, RuntimeDefault, Unconfined};
    let by_name = |text: &str| match text {
        "runtime/default" => Some(profile(RuntimeDefault, String::new())),
        "unconfined" => Some(profile(Unconfined, String::new())),
        other => Some(profile(Localhost, other.strip_prefix("localhost/")?.to_owned())),
    };
    match of {
        Some(one) => match one.type_.as_str() {
            "RuntimeDefault" => Some(profile(RuntimeDefault, String::new())),
            "Localhost" => Some(profile(Localhost, one.localhost_profile.clone().unwrap_or_default())),
            _ => Some(profile(Unconfined, String::new())),
        },
        None => annotation(pod, &format!("{APPARMOR_ANNOTATION}{container}")).and_then(by_name),
    }
}

/// The profile of AppArmor that a container asks for, itself or by its pod; nothing if it leaves that to the runtime.
#[must_use]
pub fn apparmor_of(pod: &Pod, container: &Container) -> Option<SecurityProfile> {
    apparmor(pod, effective(pod, container).app_armor_profile.as_ref(), &container.name)
}

fn groups(pod: &PodSecurityContext, facts: &SecurityFacts) -> Vec<i64> {
    let named = pod.supplemental_groups.iter().flatten().copied();
    let mut all: Vec<i64> = named.chain(pod.fs_group).chain(facts.volume_groups.iter().copied()).collect();
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|group| seen.insert(*group));
    all
}

fn groups_policy(pod: &PodSecurityContext) -> i32 {
    match pod.supplemental_groups_policy.as_deref() {
        Some("Strict") => SupplementalGroupsPolicy::Strict as i32,
        _ => SupplementalGroupsPolicy::Merge as i32,
    }
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|context| context.privileged).unwrap_or_default()
}

/// The sandbox's context. It is privileged if any container is.
#[must_use]
pub fn of_sandbox(pod: &Pod, facts: &SecurityFacts) -> LinuxSandboxSecurityContext {
    let context = pod_context(pod);
    let mut containers = crate::spec::main_containers(pod).iter().chain(crate::spec::init_containers(pod));
    let privileged = containers.any(is_privileged);
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod, facts.users, None)),
        selinux_options: selinux(context.se_linux_options.as_ref()),
        run_as_user: id(context.run_as_user),
        run_as_group: id(context.run_as_group),
        supplemental_groups: groups(&context, facts),
        supplemental_groups_policy: groups_policy(&context),
        privileged,
        // The sandbox's own process always runs under the runtime's profile: it needs nothing else.
        seccomp: Some(profile(security_profile::ProfileType::RuntimeDefault, String::new())),
        ..LinuxSandboxSecurityContext::default()
    }
}

/// The container's context. The image's user, a number or a name, counts where neither pod nor container names one.
#[must_use]
pub fn of_container(
    pod: &Pod,
    container: &Container,
    (uid, user): (Option<i64>, &str),
    target: Option<&str>,
    facts: &SecurityFacts,
) -> LinuxContainerSecurityContext {
    let context = effective(pod, container);
    let of_pod = pod_context(pod);
    let privileged = context.privileged.unwrap_or_default();
    let unmasked = context.proc_mount.as_deref() == Some("Unmasked");
    let run_as_user = context.run_as_user.or(uid);
    let paths = |list: &[&str]| if unmasked { vec![] } else { list.iter().map(|&path| path.to_owned()).collect() };
    let mut masked_paths: Vec<String> = paths(&MASKED);
    masked_paths.extend(paths(&[MASKED_POWER]));
    let capabilities = context.capabilities.as_ref().map(|set| Capability {
        add_capabilities: set.add.clone().unwrap_or_default(),
        drop_capabilities: set.drop.clone().unwrap_or_default(),
        ..Capability::default()
    });
    LinuxContainerSecurityContext {
        capabilities,
        privileged,
        namespace_options: Some(namespaces(pod, facts.users, target)),
        selinux_options: selinux(context.se_linux_options.as_ref()),
        run_as_user: id(run_as_user),
        run_as_group: id(context.run_as_group),
        run_as_username: if run_as_user.is_none() { user.to_owned() } else { String::new() },
        readonly_rootfs: context.read_only_root_filesystem.unwrap_or_default(),
        supplemental_groups: groups(&of_pod, facts),
        supplemental_groups_policy: groups_policy(&of_pod),
        no_new_privs: context.allow_privilege_escalation == Some(false),
        masked_paths,
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp(context.seccomp_profile.as_ref(), privileged, facts)),
        apparmor: apparmor(pod, context.app_armor_profile.as_ref(), &container.name),
        ..LinuxContainerSecurityContext::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::main_containers;
    use crate::testing::pod;

    fn of(pod_context: &str, context: &str) -> Pod {
        pod(&format!(
            "{{metadata: {{name: p, namespace: 'n', uid: u}}, spec: {{securityContext: {pod_context}, containers: [{{name: c, securityContext: {context}}}]}}}}"
        ))
    }

    #[test]
    fn users_are_checked() {
        let root = "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)";
        let name = "container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root (pod: \"p_n(u)\", container: c)";
        let breaks = "container's runAsUser breaks non-root policy (pod: \"p_n(u)\", container: c)";
        for (of_pod, own, uid, user, expected) in [
            ("{}", "{}", Some(0), "", Ok(())),
            ("{runAsNonRoot: true}", "{}", Some(0), "", Err(root)),
            ("{runAsNonRoot: true}", "{}", Some(7), "", Ok(())),
            ("{runAsNonRoot: true}", "{}", None, "www", Err(name)),
            ("{runAsNonRoot: true, runAsUser: 5}", "{}", None, "www", Ok(())),
            ("{runAsNonRoot: true}", "{runAsUser: 0}", Some(7), "", Err(breaks)),
            ("{runAsNonRoot: true}", "{runAsNonRoot: false}", Some(0), "", Ok(())),
        ] {
            let pod = of(of_pod, own);
            let found = check_user(&pod, &main_containers(&pod)[0], uid, user);
            assert_eq!(found, expected.map_err(str::to_owned), "{of_pod} {own}");
        }
    }

    #[test]
    fn contexts_are_merged() {
        let pod = of(
            "{runAsUser: 1, runAsGroup: 2, fsGroup: 3, supplementalGroups: [4, 3], supplementalGroupsPolicy: Strict, seccompProfile: {type: RuntimeDefault}}",
            "{runAsUser: 9, privileged: false, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {add: [NET_ADMIN], drop: [ALL]}}",
        );
        let facts = SecurityFacts { volume_groups: vec![8], ..SecurityFacts::default() };
        let made = of_container(&pod, &main_containers(&pod)[0], (Some(0), ""), None, &facts);
        assert_eq!(made.run_as_user, id(Some(9)));
        assert_eq!(made.run_as_group, id(Some(2)));
        assert_eq!(made.supplemental_groups, [4, 3, 8]);
        assert_eq!(made.supplemental_groups_policy, SupplementalGroupsPolicy::Strict as i32);
        assert!(made.no_new_privs && made.readonly_rootfs && !made.privileged);
        assert_eq!(made.masked_paths.len(), 12);
        let capabilities = made.capabilities.unwrap();
        assert_eq!(
            (capabilities.add_capabilities, capabilities.drop_capabilities),
            (vec!["NET_ADMIN".to_owned()], vec!["ALL".to_owned()])
        );
        assert_eq!(made.seccomp.unwrap().profile_type, security_profile::ProfileType::RuntimeDefault as i32);
    }

    #[test]
    fn the_images_user_counts_last() {
        let pod = of("{}", "{procMount: Unmasked}");
        let container = &main_containers(&pod)[0];
        let numbered = of_container(&pod, container, (Some(5), ""), None, &SecurityFacts::default());
        assert_eq!((numbered.run_as_user, numbered.run_as_username.as_str()), (id(Some(5)), ""));
        assert!(numbered.masked_paths.is_empty() && numbered.readonly_paths.is_empty());
        let named = of_container(&pod, container, (None, "www"), None, &SecurityFacts::default());
        assert_eq!((named.run_as_user, named.run_as_username.as_str()), (None, "www"));
    }

    #[test]
    fn profiles_are_named() {
        use security_profile::ProfileType::{Localhost, RuntimeDefault, Unconfined};
        let facts = SecurityFacts { seccomp_root: "/s".into(), ..SecurityFacts::default() };
        for (context, default, kind, file) in [
            ("{}", false, Unconfined, ""),
            ("{}", true, RuntimeDefault, ""),
            ("{privileged: true}", true, Unconfined, ""),
            ("{seccompProfile: {type: Unconfined}}", true, Unconfined, ""),
            ("{seccompProfile: {type: Localhost, localhostProfile: a.json}}", false, Localhost, "/s/a.json"),
        ] {
            let pod = of("{}", context);
            let facts = SecurityFacts { seccomp_default: default, ..facts.clone() };
            let made = of_container(&pod, &main_containers(&pod)[0], (None, ""), None, &facts);
            assert_eq!(made.seccomp, Some(profile(kind, file.to_owned())), "{context}");
        }
        let old = pod(
            "{metadata: {annotations: {container.apparmor.security.beta.kubernetes.io/c: localhost/x}}, spec: {containers: [{name: c}]}}",
        );
        assert_eq!(apparmor(&old, None, "c"), Some(profile(Localhost, "x".into())));
        assert_eq!(apparmor(&old, None, "d"), None);
    }

    #[test]
    fn namespaces_are_shared_as_asked() {
        use NamespaceMode::{Container as Own, Node, Pod as Shared, Target};
        for (spec, target, network, pid, ipc) in [
            ("{}", None, Shared, Own, Shared),
            ("{hostNetwork: true, hostPID: true, hostIPC: true}", None, Node, Node, Node),
            ("{shareProcessNamespace: true}", None, Shared, Shared, Shared),
            ("{}", Some("id"), Shared, Target, Shared),
        ] {
            let made = namespaces(&pod(&format!("{{spec: {spec}}}")), None, target);
            assert_eq!((made.network, made.pid, made.ipc), (network as i32, pid as i32, ipc as i32), "{spec}");
        }
        let made = namespaces(&pod("{}"), Some(IdRange { host: 65536, length: 65536 }), None);
        assert_eq!(made.userns_options.unwrap().uids[0].host_id, 65536);
    }
}
