//! The Corefile: what a user wrote for CoreDNS, as far as it is understood here. What isn't is said, and left out; the rest
//! goes on working.

mod build;
mod hosts;
mod parse;
mod primary;
mod rewrite;
mod zonefile;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub(crate) use self::build::build;
pub(crate) use self::hosts::Hosts;
pub(crate) use self::rewrite::{Question, Rename, Rewrite, apply as apply_rewrites};
pub(crate) use self::zonefile::ZoneFile;
use crate::wire::name::{Name, below};

/// Where a pod of CoreDNS has the keys of the ConfigMap `coredns`.
const DIRECTORY: &str = "/etc/coredns/";
/// Where it has those of `coredns-custom`.
const CUSTOM_DIRECTORY: &str = "/etc/coredns/custom/";

/// What can be named in a Corefile: keys of two ConfigMaps, and nothing of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// The keys of `coredns`; none as long as there is no such ConfigMap.
    pub(crate) coredns: Option<BTreeMap<String, String>>,
    /// The keys of `coredns-custom`.
    pub(crate) custom: BTreeMap<String, String>,
}

impl Files {
    /// What a file of the pod would hold.
    fn read(&self, path: &str) -> Option<&str> {
        if let Some(key) = path.strip_prefix(CUSTOM_DIRECTORY) {
            return self.custom.get(key).map(String::as_str);
        }
        self.coredns.as_ref()?.get(path.strip_prefix(DIRECTORY)?).map(String::as_str)
    }

    /// The files that a pattern with one asterisk means, in the order of their names.
    fn matching<'a>(&'a self, pattern: &'a str) -> Vec<(&'a str, &'a str)> {
        let (map, pattern) = match pattern.strip_prefix(CUSTOM_DIRECTORY) {
            Some(pattern) => (Some(&self.custom), pattern),
            None => (self.coredns.as_ref(), pattern.strip_prefix(DIRECTORY).unwrap_or_default()),
        };
        let fits = |key: &str| match pattern.split_once('*') {
            None => key == pattern,
            Some((start, end)) => key.len() >= start.len() + end.len() && key.starts_with(start) && key.ends_with(end),
        };
        map.into_iter().flatten().filter(|(key, _)| fits(key)).map(|(key, text)| (&**key, &**text)).collect()
    }
}

/// Something that isn't as it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Complaint {
    /// The key of the ConfigMap, and the line.
    pub(crate) place: String,
    /// What is left out, and why.
    pub(crate) text: String,
    /// CoreDNS itself could do it.
    pub(crate) is_possible: bool,
}

/// Which names fall through to whatever comes next, when there is nothing of that name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fall {
    /// None.
    #[default]
    No,
    /// All.
    All,
    /// Those in these zones.
    Zones(Vec<Name>),
}

impl Fall {
    /// Whether this name does.
    pub(crate) fn lets(&self, name: &[u8]) -> bool {
        match self {
            Self::No => false,
            Self::All => true,
            Self::Zones(zones) => zone_of(zones, name).is_some(),
        }
    }
}

/// The longest of the zones that a name is in.
pub(crate) fn zone_of<'a>(zones: &'a [Name], name: &[u8]) -> Option<&'a Name> {
    zones.iter().filter(|zone| below(name, zone.wire()).is_some()).max_by_key(|zone| zone.wire().len())
}

/// How names of pods are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pods {
    /// There are none.
    #[default]
    Disabled,
    /// Any address is one.
    Insecure,
}

/// The directive `kubernetes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kubernetes {
    pub(crate) zones: Vec<Name>,
    /// The first zone that isn't a reverse one.
    pub(crate) primary: Name,
    pub(crate) pods: Pods,
    /// Seconds.
    pub(crate) ttl: u32,
    pub(crate) fall: Fall,
    /// The namespaces that are shown; all if none are named.
    pub(crate) namespaces: Vec<String>,
    pub(crate) ignores_empty: bool,
    pub(crate) without_endpoints: bool,
}

impl Kubernetes {
    /// Whether a namespace is shown.
    pub(crate) fn shows(&self, namespace: &[u8]) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|shown| shown.as_bytes() == namespace)
    }
}

/// In which order upstream servers are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Policy {
    #[default]
    Random,
    RoundRobin,
    Sequential,
}

/// The directive `forward`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Forward {
    pub(crate) from: Vec<Name>,
    pub(crate) except: Vec<Name>,
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) policy: Policy,
    pub(crate) force_tcp: bool,
    /// Failures in a row after which a server is left alone for a while; 0 for never.
    pub(crate) max_fails: u32,
}

impl Forward {
    /// Whether a name is sent on by it.
    pub(crate) fn takes(&self, name: &[u8]) -> bool {
        zone_of(&self.from, name).is_some() && zone_of(&self.except, name).is_none()
    }
}

/// The directive `cache`; all times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cache {
    pub(crate) success_ttl: u32,
    pub(crate) success_ttl_min: u32,
    pub(crate) denial_ttl: u32,
    pub(crate) denial_ttl_min: u32,
    pub(crate) failure_ttl: u32,
    /// Answers that are kept.
    pub(crate) capacity: usize,
}

/// A server block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    pub(crate) zones: Vec<Name>,
    pub(crate) logs: bool,
    pub(crate) cache: Option<(Cache, Vec<Name>)>,
    pub(crate) rewrites: Vec<Rewrite>,
    pub(crate) hosts: Vec<Hosts>,
    pub(crate) kubernetes: Option<Kubernetes>,
    pub(crate) files: Vec<ZoneFile>,
    pub(crate) forwards: Vec<Arc<Forward>>,
}

/// All server blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Servers {
    blocks: Vec<Server>,
}

impl Servers {
    /// The block that a name belongs to: the one with the longest zone.
    pub(crate) fn of(&self, name: &[u8]) -> Option<&Server> {
        let zoned = |server: &Server| zone_of(&server.zones, name).map(|zone| zone.wire().len());
        let found = self.blocks.iter().filter_map(|server| zoned(server).map(|length| (length, server)));
        // Of two with the same zone the first counts.
        found.rev().max_by_key(|(length, _)| *length).map(|(_, server)| server)
    }

    /// Whether nothing is served at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
}

/// What the machine adds to a Corefile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The domain of the cluster.
    pub(crate) domain: String,
    /// The servers of the resolv.conf that pods inherit.
    pub(crate) name_servers: Vec<IpAddr>,
    /// Where this DNS listens: nothing is sent on to there.
    pub(crate) own: Vec<SocketAddr>,
}

/// The Corefile of K3s, for as long as there is no ConfigMap.
pub(crate) fn standard(domain: &str) -> String {
    const TEXT: &str = include_str!("../../manifests/Corefile");
    TEXT.replace("%{CLUSTER_DOMAIN}%", domain)
}

/// The servers that a resolv.conf names.
pub(crate) fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        // An address of a link names the link behind a percent sign; which link a pod's server is on nobody knows.
        (words.next() == Some("nameserver")).then(|| words.next())?.and_then(|word| word.parse().ok())
    };
    resolv_conf.lines().filter_map(server).collect()
}

/// Seconds of a duration such as `5s` or `1m30s`, or of a plain number.
fn seconds(text: &str) -> Option<u32> {
    primary::seconds(text)
}
