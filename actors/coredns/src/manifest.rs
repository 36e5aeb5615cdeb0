//! The manifest `coredns.yaml`, as K3s packages it, for CoreDNS in pods or for the DNS in this process. Pure.

use std::net::IpAddr;

/// What both ways have in common.
const COMMON: &str = include_str!("../manifests/common.yaml");
/// The DNS in this process: it has a Service that no proxy touches, and no pods.
const EMBEDDED: &str = include_str!("../manifests/embedded.yaml");
/// CoreDNS in pods.
const COREDNS: &str = include_str!("../manifests/coredns.yaml");

/// Who answers names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Provider {
    /// This process, on every node.
    #[default]
    Embedded,
    /// CoreDNS in pods, from its image.
    Coredns,
}

/// What the manifest depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestArgs {
    /// Who answers names.
    pub provider: Provider,
    /// Addresses of the Service `kube-dns`, the first one first; at least one, at most one of each family.
    pub cluster_dns: Vec<IpAddr>,
    /// The domain of the cluster, such as `cluster.local`.
    pub cluster_domain: String,
    /// A registry that images come from in place of their own; empty for none.
    pub system_default_registry: String,
}

/// The text of the manifest. Its addresses and names come from flags that were checked before; they are quoted all the
/// same.
#[must_use]
pub fn manifest(args: &ManifestArgs) -> String {
    let rest = match args.provider {
        Provider::Embedded => EMBEDDED,
        Provider::Coredns => COREDNS,
    };
    let corefile = crate::corefile::standard(&args.cluster_domain);
    let indented: Vec<String> = corefile.lines().map(|line| format!("    {line}")).collect();
    let addresses: Vec<String> = args.cluster_dns.iter().map(|address| format!("\"{address}\"")).collect();
    let policy = if addresses.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    let registry = match args.system_default_registry.trim_end_matches('/') {
        "" => String::new(),
        registry => format!("{registry}/"),
    };
    format!("{COMMON}{rest}")
        .replace("%{COREFILE}%\n", &(indented.join("\n") + "\n"))
        .replace("%{CLUSTER_DNS}%", addresses.first().map_or("\"\"", String::as_str))
        .replace("%{CLUSTER_DNS_LIST}%", &format!("[{}]", addresses.join(", ")))
        .replace("%{CLUSTER_DNS_IPFAMILYPOLICY}%", policy)
        .replace("%{SYSTEM_DEFAULT_REGISTRY}%", &registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(provider: Provider) -> ManifestArgs {
        ManifestArgs {
            provider,
            cluster_dns: vec![IpAddr::from([10, 43, 0, 10])],
            cluster_domain: "k3s.example".to_owned(),
            system_default_registry: "registry.example".to_owned(),
        }
    }

    #[test]
    fn no_variable_is_left_and_each_part_is_there() {
        for (provider, kinds) in [
            (Provider::Embedded, "ServiceAccount ClusterRole ClusterRoleBinding ConfigMap Role RoleBinding Service"),
            (Provider::Coredns, "ServiceAccount ClusterRole ClusterRoleBinding ConfigMap Deployment Service"),
        ] {
            let text = manifest(&args(provider));
            assert!(!text.contains("%{"), "{text}");
            let found: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
            assert_eq!(found.join(" "), kinds);
            assert!(
                text.contains("      kubernetes k3s.example in-addr.arpa ip6.arpa {")
                    || text.contains("kubernetes k3s.example in-addr.arpa")
            );
            assert!(
                text.contains(
                    "clusterIP: \"10.43.0.10\"\n  clusterIPs: [\"10.43.0.10\"]\n  ipFamilyPolicy: SingleStack"
                )
            );
        }
        let embedded = manifest(&args(Provider::Embedded));
        assert!(embedded.contains("service.kubernetes.io/service-proxy-name: k3sd-dns"));
        assert!(!embedded.contains("image:"));
        let coredns = manifest(&args(Provider::Coredns));
        assert!(coredns.contains("image: \"registry.example/rancher/mirrored-coredns-coredns:1.14.6\""));
        assert!(!coredns.contains("service-proxy-name"));
    }

    #[test]
    fn two_families_are_required_when_there_are_two_addresses() {
        let mut both = args(Provider::Embedded);
        both.cluster_dns.push("fd00:43::a".parse().expect("an address"));
        both.system_default_registry.clear();
        let text = manifest(&both);
        assert!(text.contains("clusterIPs: [\"10.43.0.10\", \"fd00:43::a\"]\n  ipFamilyPolicy: RequireDualStack"));
        assert!(manifest(&ManifestArgs { provider: Provider::Coredns, ..both }).contains("image: \"rancher/"));
    }
}
