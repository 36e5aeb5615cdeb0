//! Which settings of the kernel a pod may change: those that it has for itself and that harm nobody, and those that the
//! node's configuration allows.

use k8s_openapi::api::core::v1::Pod;

use super::{Refusal, refusal};
use crate::spec;

/// Those that every pod may set.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
/// Beginnings of those that belong to the IPC namespace; `kernel.sem` is one as a whole.
const OF_IPC: [&str; 3] = ["kernel.shm", "kernel.msg", "fs.mqueue."];

/// A setting's name with dots between its parts, which may be written with slashes: then dots belong to the parts.
#[must_use]
pub fn dotted(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name
            .chars()
            .map(|letter| match letter {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// The namespace that a setting belongs to, as messages name it.
fn namespace(name: &str) -> Option<&'static str> {
    if name.starts_with("net.") {
        return Some("Net");
    }
    (name == "kernel.sem" || OF_IPC.iter().any(|start| name.starts_with(start))).then_some("IPC")
}

fn is_listed(name: &str, listed: &str) -> bool {
    let listed = dotted(listed);
    listed.strip_suffix('*').map_or(listed == name, |start| name.starts_with(start))
}

/// Refuses a pod that sets what it may not, or what it shares with the host.
///
/// # Errors
/// The refusal.
pub fn check(pod: &Pod, allowed: &[String]) -> Result<(), Refusal> {
    let spec = spec::spec(pod);
    let sysctls = spec.security_context.as_ref().and_then(|context| context.sysctls.as_deref()).unwrap_or_default();
    for one in sysctls {
        let name = dotted(&one.name);
        let said = |text: String| Err(refusal("SysctlForbidden", format!("forbidden sysctl: {text}")));
        let of = namespace(&name);
        let is_allowed = SAFE.contains(&name.as_str()) || allowed.iter().any(|listed| is_listed(&name, listed));
        if of.is_none() || !is_allowed {
            return said(format!("{name:?} not allowlisted"));
        }
        let shared = [("Net", spec.host_network), ("IPC", spec.host_ipc)];
        if let Some((kind, _)) = shared.iter().find(|(kind, on)| of == Some(*kind) && on.unwrap_or_default()) {
            return said(format!("{name:?} not allowed with host {kind} enabled"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn names_have_two_forms() {
        for (name, expected) in [
            ("net.ipv4.tcp_rmem", "net.ipv4.tcp_rmem"),
            ("net/ipv4/conf/eth0.1/rp_filter", "net.ipv4.conf.eth0/1.rp_filter"),
            ("net.ipv4.conf.eth0/1.rp_filter", "net.ipv4.conf.eth0/1.rp_filter"),
            ("plain", "plain"),
        ] {
            assert_eq!(dotted(name), expected, "{name}");
        }
    }

    #[test]
    fn only_what_is_the_pods_own_and_allowed_may_be_set() {
        let allowed = ["kernel.msg*".to_owned(), "net.core.somaxconn".to_owned(), "vm.swappiness".to_owned()];
        for (host, name, expected) in [
            ("", "net.ipv4.tcp_syncookies", ""),
            ("", "net/ipv4/tcp_syncookies", ""),
            ("", "kernel.msgmax", ""),
            ("", "net.core.somaxconn", ""),
            ("", "net.core.rmem_max", "\"net.core.rmem_max\" not allowlisted"),
            ("", "vm.swappiness", "\"vm.swappiness\" not allowlisted"),
            ("", "kernel.sem", "\"kernel.sem\" not allowlisted"),
            ("hostNetwork: true, ", "net.ipv4.tcp_rmem", "\"net.ipv4.tcp_rmem\" not allowed with host Net enabled"),
            ("hostNetwork: true, ", "kernel.msgmax", ""),
            (
                "hostIPC: true, ",
                "kernel.shm_rmid_forced",
                "\"kernel.shm_rmid_forced\" not allowed with host IPC enabled",
            ),
        ] {
            let pod = pod(&format!(
                "{{spec: {{{host}containers: [], securityContext: {{sysctls: [{{name: {name}, value: '1'}}]}}}}}}"
            ));
            let found = check(&pod, &allowed).err().map(|(_, text)| text).unwrap_or_default();
            let expected = if expected.is_empty() { String::new() } else { format!("forbidden sysctl: {expected}") };
            assert_eq!(found, expected, "{host}{name}");
        }
    }
}
