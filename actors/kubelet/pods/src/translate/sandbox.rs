//! A sandbox, as the runtime is asked for it.

use std::collections::BTreeMap;
use std::path::Path;

use k3sd_cri::v1::{DnsConfig, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol};
use k8s_openapi::api::core::v1::Pod;

use super::dns::{DnsFacts, Warning, resolver};
use super::hosts::{host_and_domain, kernel_name};
use super::labels;
use super::resources::of_sandbox as resources_of;
use super::security::{SecurityFacts, of_sandbox as security_of};
use crate::admit::sysctls::dotted;
use crate::spec::{is_host_network, main_containers, name, namespace, uid};

/// What a sandbox needs beside the pod.
#[derive(Clone, Debug)]
pub struct SandboxFacts<'a> {
    /// How many sandboxes of the pod came before.
    pub attempt: u32,
    /// Where logs of pods are.
    pub logs: &'a Path,
    /// The pod's cgroup, in the form that the runtime wants.
    pub cgroup_parent: String,
    /// Name servers.
    pub dns: &'a DnsFacts,
    /// As whom.
    pub security: SecurityFacts,
}

/// Makes the request, and says what to warn of.
///
/// # Errors
/// The pod's host name is too long for the kernel.
pub fn config(pod: &Pod, facts: &SandboxFacts<'_>) -> Result<(PodSandboxConfig, Vec<Warning>), String> {
    let (dns, warnings) = resolver(pod, facts.dns);
    let hostname = if is_host_network(pod) {
        String::new()
    } else {
        let (host, domain) = host_and_domain(pod, &facts.dns.domain);
        kernel_name(pod, &host, &domain)?
    };
    let sysctls = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()?.sysctls.clone());
    let sysctls = sysctls.into_iter().flatten().map(|one| (dotted(&one.name), one.value));
    let sysctls: BTreeMap<_, _> = sysctls.collect();
    let (resources, overhead) = resources_of(pod);
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name(pod).to_owned(),
            uid: uid(pod).to_owned(),
            namespace: namespace(pod).to_owned(),
            attempt: facts.attempt,
        }),
        hostname,
        log_directory: labels::log_directory(facts.logs, pod).to_string_lossy().into_owned(),
        dns_config: Some(DnsConfig { servers: dns.servers, searches: dns.searches, options: dns.options }),
        port_mappings: ports(pod),
        labels: labels::of_sandbox(pod).into_iter().collect(),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: facts.cgroup_parent.clone(),
            security_context: Some(security_of(pod, &facts.security)),
            sysctls: sysctls.into_iter().collect(),
            overhead: Some(overhead),
            resources: Some(resources),
        }),
        ..PodSandboxConfig::default()
    };
    Ok((config, warnings))
}

fn ports(pod: &Pod) -> Vec<PortMapping> {
    let sidecars = crate::spec::init_containers(pod).iter().filter(|one| crate::spec::is_sidecar(one));
    let all = main_containers(pod).iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let mapping = |port: &k8s_openapi::api::core::v1::ContainerPort| PortMapping {
        protocol: match port.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        } as i32,
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or_default(),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    };
    all.map(mapping).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn make(spec: &str) -> PodSandboxConfig {
        let pod =
            pod(&format!("{{metadata: {{name: p, namespace: 'n', uid: u, annotations: {{k: v}}}}, spec: {spec}}}"));
        let dns =
            DnsFacts { cluster: vec!["10.43.0.10".parse().unwrap()], domain: "c.l".into(), ..DnsFacts::default() };
        let facts = SandboxFacts {
            attempt: 1,
            logs: Path::new("/var/log/pods"),
            cgroup_parent: "/kubepods/podu".into(),
            dns: &dns,
            security: SecurityFacts::default(),
        };
        config(&pod, &facts).unwrap().0
    }

    #[test]
    fn a_pod_becomes_a_sandbox() {
        let made = make(
            "{subdomain: s, setHostnameAsFQDN: true, securityContext: {sysctls: [{name: a.b, value: '1'}]},
            containers: [{name: c, ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 53, protocol: UDP}]}]}",
        );
        assert_eq!(made.hostname, "p.s.n.svc.c.l");
        assert_eq!(made.log_directory, "/var/log/pods/n_p_u");
        assert_eq!(
            made.port_mappings.iter().map(|port| (port.container_port, port.host_port)).collect::<Vec<_>>(),
            [(80, 8080), (53, 0)]
        );
        assert_eq!(made.annotations["k"], "v");
        assert_eq!(made.metadata.unwrap().attempt, 1);
        let linux = made.linux.unwrap();
        assert_eq!((linux.cgroup_parent.as_str(), linux.sysctls["a.b"].as_str()), ("/kubepods/podu", "1"));
    }

    #[test]
    fn on_the_hosts_network_the_host_has_the_name() {
        assert_eq!(make("{hostNetwork: true, containers: []}").hostname, "");
    }
}
