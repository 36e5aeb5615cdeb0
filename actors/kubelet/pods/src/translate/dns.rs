//! The resolv.conf of a pod.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use crate::spec::{is_host_network, namespace};

/// Name servers that resolvers ask; those beyond are left out.
const SERVERS_MAX: usize = 3;
/// Search domains that the API allows.
const SEARCHES_MAX: usize = 32;
/// Bytes of all search domains.
const SEARCH_BYTES_MAX: usize = 2048;
/// What names inside a cluster need.
const CLUSTER_OPTIONS: [&str; 1] = ["ndots:5"];

/// What a resolv.conf says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options, as `ndots:5`.
    pub options: Vec<String>,
}

/// What the node says about name servers.
#[derive(Clone, Debug, Default)]
pub struct DnsFacts {
    /// The cluster's name servers.
    pub cluster: Vec<IpAddr>,
    /// The cluster's domain, as `cluster.local`; empty for none.
    pub domain: String,
    /// The host's resolv.conf, as read.
    pub host: Resolver,
}

/// Reads a resolv.conf; lines that say nothing to us are skipped.
#[must_use]
pub fn parse(text: &str) -> Resolver {
    let mut found = Resolver::default();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with(['#', ';']) {
            continue;
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => found.servers.extend(words.next()),
            // The last one counts.
            Some("search") => {
                found.searches =
                    words.map(|one| if one == "." { one } else { one.trim_end_matches('.').to_owned() }).collect();
            }
            Some("options") => found.options = words.collect(),
            _ => {}
        }
    }
    found
}

/// The pod's resolver, and what to warn of.
#[must_use]
pub fn resolver(pod: &Pod, facts: &DnsFacts) -> (Resolver, Vec<Warning>) {
    let mut warnings = Vec::new();
    let policy = pod.spec.as_ref().and_then(|spec| spec.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let config = pod.spec.as_ref().and_then(|spec| spec.dns_config.as_ref());
    let in_cluster = match policy {
        "None" => return (limit(merge(Resolver::default(), config), &mut warnings), warnings),
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !is_host_network(pod),
        _ => false,
    };
    let base = if in_cluster && !facts.cluster.is_empty() {
        cluster(namespace(pod), facts)
    } else {
        if in_cluster {
            warnings.push(Warning::NoClusterDns(policy.to_owned()));
        }
        let mut host = facts.host.clone();
        if host.servers.is_empty() && host.searches.is_empty() && host.options.is_empty() {
            // An empty file means "whatever the runtime thinks"; say what resolvers do then.
            host.servers.push("127.0.0.1".to_owned());
            host.searches.push(".".to_owned());
        }
        host
    };
    (limit(merge(base, config), &mut warnings), warnings)
}

fn cluster(namespace: &str, facts: &DnsFacts) -> Resolver {
    let domain = &facts.domain;
    let mut searches = Vec::new();
    if !domain.is_empty() {
        searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    }
    add(&mut searches, &facts.host.searches);
    Resolver {
        servers: facts.cluster.iter().map(ToString::to_string).collect(),
        searches,
        options: CLUSTER_OPTIONS.map(str::to_owned).to_vec(),
    }
}

/// Adds what isn't there yet.
fn add(to: &mut Vec<String>, more: &[String]) {
    for one in more {
        if !to.contains(one) {
            to.push(one.clone());
        }
    }
}

/// What the pod says itself, on top of what its policy gives: its options win over those of the same name.
fn merge(mut base: Resolver, config: Option<&PodDNSConfig>) -> Resolver {
    let Some(config) = config else { return base };
    add(&mut base.servers, config.nameservers.as_deref().unwrap_or_default());
    add(&mut base.searches, config.searches.as_deref().unwrap_or_default());
    for option in config.options.as_deref().unwrap_or_default() {
        let Some(name) = &option.name else { continue };
        let text = match option.value.as_deref().filter(|value| !value.is_empty()) {
            Some(value) => format!("{name}:{value}"),
            None => name.clone(),
        };
        match base.options.iter_mut().find(|one| one.split(':').next() == Some(name)) {
            Some(one) => *one = text,
            None => base.options.push(text),
        }
    }
    base
}

/// What a pod's owner should know about its resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// There are no name servers of the cluster; the host's are used. Carries the policy.
    NoClusterDns(String),
    /// Too many name servers; carries those that are used.
    Servers(String),
    /// Too many search domains; carries those that are used.
    Searches(String),
}

impl Warning {
    /// The event's reason and message, about this pod.
    #[must_use]
    pub fn event(&self, shown: &str) -> (&'static str, String) {
        match self {
            Self::NoClusterDns(policy) => (
                "MissingClusterDNS",
                format!(
                    "pod: {shown:?}. kubelet does not have ClusterDNS IP configured and cannot create Pod using {policy:?} policy. Falling back to \"Default\" policy."
                ),
            ),
            Self::Servers(used) => (
                "DNSConfigForming",
                format!(
                    "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {used}"
                ),
            ),
            Self::Searches(used) => (
                "DNSConfigForming",
                format!(
                    "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {used}"
                ),
            ),
        }
    }
}

fn limit(mut found: Resolver, warnings: &mut Vec<Warning>) -> Resolver {
    if found.servers.len() > SERVERS_MAX {
        found.servers.truncate(SERVERS_MAX);
        warnings.push(Warning::Servers(found.servers.join(" ")));
    }
    let mut kept = found.searches.len().min(SEARCHES_MAX);
    let bytes = |count: usize| found.searches[..count].iter().map(|one| one.len() + 1).sum::<usize>().saturating_sub(1);
    while bytes(kept) > SEARCH_BYTES_MAX {
        kept -= 1;
    }
    if kept < found.searches.len() {
        found.searches.truncate(kept);
        warnings.push(Warning::Searches(found.searches.join(" ")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn facts() -> DnsFacts {
        DnsFacts {
            cluster: vec!["10.43.0.10".parse().unwrap()],
            domain: "cluster.local".into(),
            host: parse("# c\nnameserver 9.9.9.9\nsearch a.example. b.example\noptions ndots:2 edns0\n"),
        }
    }

    fn text(of: &Resolver) -> String {
        format!("{}|{}|{}", of.servers.join(" "), of.searches.join(" "), of.options.join(" "))
    }

    #[test]
    fn policies_give_what_they_say() {
        let cluster = "10.43.0.10|ns.svc.cluster.local svc.cluster.local cluster.local a.example b.example|ndots:5";
        let host = "9.9.9.9|a.example b.example|ndots:2 edns0";
        for (spec, expected) in [
            ("{}", cluster),
            ("{dnsPolicy: ClusterFirst}", cluster),
            ("{dnsPolicy: ClusterFirst, hostNetwork: true}", host),
            ("{dnsPolicy: ClusterFirstWithHostNet, hostNetwork: true}", cluster),
            ("{dnsPolicy: Default}", host),
            ("{dnsPolicy: None, dnsConfig: {nameservers: [1.1.1.1]}}", "1.1.1.1||"),
            (
                "{dnsPolicy: Default, dnsConfig: {nameservers: [9.9.9.9, 1.1.1.1], searches: [c], options: [{name: ndots, value: '7'}, {name: rotate}]}}",
                "9.9.9.9 1.1.1.1|a.example b.example c|ndots:7 edns0 rotate",
            ),
        ] {
            let pod = pod(&format!("{{metadata: {{namespace: ns}}, spec: {spec}}}"));
            let (found, warnings) = resolver(&pod, &facts());
            assert_eq!((text(&found), warnings), (expected.to_owned(), vec![]), "{spec}");
        }
    }

    #[test]
    fn limits_are_kept_and_told() {
        let pod = pod(
            "{metadata: {namespace: ns}, spec: {dnsPolicy: None, dnsConfig: {nameservers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4]}}}",
        );
        let (found, warnings) = resolver(&pod, &facts());
        assert_eq!(found.servers.len(), 3);
        assert_eq!(warnings, [Warning::Servers("1.1.1.1 1.1.1.2 1.1.1.3".into())]);
        let long = Resolver { searches: (0..40).map(|i| format!("{i:099}")).collect(), ..Resolver::default() };
        let mut warnings = vec![];
        assert_eq!(limit(long, &mut warnings).searches.len(), 20);
        assert!(matches!(&warnings[..], [Warning::Searches(_)]));
    }

    #[test]
    fn without_name_servers_of_the_cluster_the_hosts_are_used() {
        let (found, warnings) = resolver(&pod("{spec: {}}"), &DnsFacts { cluster: vec![], ..facts() });
        assert_eq!(found.servers, ["9.9.9.9"]);
        assert_eq!(warnings, [Warning::NoClusterDns("ClusterFirst".into())]);
    }
}
