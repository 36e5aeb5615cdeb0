//! A pod's host name and its /etc/hosts.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{HostAlias, Pod};

use crate::spec::{name, namespace};

/// The kernel's limit of a host name.
const KERNEL_BYTES_MAX: usize = 64;
/// The longest label of a name.
const LABEL_BYTES_MAX: usize = 63;

/// The pod's host name, and the domain below which others find it; empty for none.
#[must_use]
pub fn host_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pod.spec.as_ref();
    let text = |of: Option<&String>| of.filter(|text| !text.is_empty()).cloned();
    let host = text(spec.and_then(|spec| spec.hostname.as_ref())).unwrap_or_else(|| {
        let pod = name(pod);
        let cut = &pod[..pod.floor_char_boundary(LABEL_BYTES_MAX)];
        if cut.len() < pod.len() { cut.trim_end_matches(['-', '.']).to_owned() } else { cut.to_owned() }
    });
    let domain = text(spec.and_then(|spec| spec.subdomain.as_ref()))
        .map(|sub| format!("{sub}.{}.svc.{cluster_domain}", namespace(pod)))
        .unwrap_or_default();
    (host, domain)
}

/// What the kernel is told: the host name, or the whole one if the pod wants that.
///
/// # Errors
/// The whole name is longer than the kernel takes.
pub fn kernel_name(pod: &Pod, host: &str, domain: &str) -> Result<String, String> {
    let whole = pod.spec.as_ref().and_then(|spec| spec.set_hostname_as_fqdn).unwrap_or_default();
    if !whole || domain.is_empty() {
        return Ok(host.to_owned());
    }
    let fqdn = format!("{host}.{domain}");
    if fqdn.len() > KERNEL_BYTES_MAX {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long ({KERNEL_BYTES_MAX} characters is the max, {} characters requested)",
            fqdn.len()
        ));
    }
    Ok(fqdn)
}

/// The /etc/hosts of a pod with addresses of its own.
#[must_use]
pub fn file(addresses: &[String], host: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut text = "# Kubernetes-managed hosts file.\n".to_owned();
    for (address, names) in [
        ("127.0.0.1", "localhost"),
        ("::1", "localhost ip6-localhost ip6-loopback"),
        ("fe00::0", "ip6-localnet"),
        ("fe00::0", "ip6-mcastprefix"),
        ("fe00::1", "ip6-allnodes"),
        ("fe00::2", "ip6-allrouters"),
    ] {
        writeln!(text, "{address}\t{names}").expect("writing to a text doesn't fail");
    }
    for address in addresses {
        let line = if domain.is_empty() {
            format!("{address}\t{host}\n")
        } else {
            format!("{address}\t{host}.{domain}\t{host}\n")
        };
        text.push_str(&line);
    }
    text + &alias_lines(aliases)
}

/// The /etc/hosts of a pod on the host's network, from the host's own.
#[must_use]
pub fn file_of_host(hosts: &str, aliases: &[HostAlias]) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{hosts}{}", alias_lines(aliases))
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let lines = aliases
        .iter()
        .map(|alias| format!("{}\t{}\n", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t")));
    format!("\n# Entries added by HostAliases.\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn names_are_made_as_upstream_does() {
        let long = "x".repeat(62);
        for (yaml, host, domain) in [
            ("{metadata: {name: web, namespace: 'n'}, spec: {}}".to_owned(), "web".to_owned(), ""),
            ("{metadata: {name: web, namespace: 'n'}, spec: {hostname: h}}".to_owned(), "h".to_owned(), ""),
            (
                "{metadata: {name: web, namespace: 'n'}, spec: {subdomain: s}}".to_owned(),
                "web".to_owned(),
                "s.n.svc.c.l",
            ),
            (format!("{{metadata: {{name: {long}-y}}, spec: {{}}}}"), long.clone(), ""),
            (format!("{{metadata: {{name: {long}.yz}}, spec: {{}}}}"), long, ""),
        ] {
            assert_eq!(host_and_domain(&pod(&yaml), "c.l"), (host, domain.to_owned()), "{yaml}");
        }
    }

    #[test]
    fn the_kernel_gets_the_whole_name_if_it_fits() {
        let pod = pod("{spec: {setHostnameAsFQDN: true}}");
        assert_eq!(kernel_name(&pod, "h", ""), Ok("h".into()));
        assert_eq!(kernel_name(&pod, "h", "d"), Ok("h.d".into()));
        assert!(kernel_name(&pod, "h", &"d".repeat(62)).is_ok());
        assert!(kernel_name(&pod, "h", &"d".repeat(63)).unwrap_err().contains("65 characters requested"));
    }

    #[test]
    fn files_are_written_as_upstream_does() {
        let alias = HostAlias { ip: "1.2.3.4".into(), hostnames: Some(vec!["a".into(), "b".into()]) };
        let text = file(&["10.0.0.1".into(), "fd00::1".into()], "h", "d", std::slice::from_ref(&alias));
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with(
            "ip6-allrouters\n10.0.0.1\th.d\th\nfd00::1\th.d\th\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
        ));
        assert!(file(&["10.0.0.1".into()], "h", "", &[]).ends_with("\n10.0.0.1\th\n"));
        assert_eq!(
            file_of_host("1.1.1.1 x\n", &[alias]),
            "# Kubernetes-managed hosts file (host network).\n1.1.1.1 x\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
        );
    }
}
