//! `--kube-proxy-arg`: kube-proxy's flags, and what becomes of each.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use k3sd_client::arguments::Rule::{self, Lists, Only, Refused, Sets};
use k3sd_client::arguments::{ArgumentError, apply_all, boolean, duration, text};
use k3sd_netlink::Cidr;

const ELSEWHERE: &str = "the node knows it already, from its own flags";
const LOGGING: &str = "the daemon has one log, set up by its own flags";
const TUNING: &str = "there is nothing here that it could tune";
const RULES: &str = "there is one way in which rules are written here";

/// What the kernel should know of connections; what is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Conntrack {
    /// Connections for each processor.
    pub(crate) max_per_core: Option<u64>,
    /// Connections at least, however few processors there are.
    pub(crate) min: Option<u64>,
    /// Seconds for which an idle connection is known.
    pub(crate) tcp_established: Option<Duration>,
    /// The same of one whose other end has closed.
    pub(crate) tcp_close_wait: Option<Duration>,
    /// Whether packets that don't belong into a TCP window pass.
    pub(crate) tcp_be_liberal: bool,
    /// Seconds for which a UDP exchange is known that has seen no answer.
    pub(crate) udp: Option<Duration>,
    /// The same of one that goes back and forth.
    pub(crate) udp_stream: Option<Duration>,
}

/// At which of the node's addresses node ports are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodePortAddresses {
    /// At each.
    All,
    /// At the node's own address, as its Node says it.
    Primary,
    /// At those in these networks.
    In(Vec<Cidr>),
}

/// What the flags say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) healthz: Option<SocketAddr>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) hostname_override: Option<String>,
    pub(crate) cluster_cidrs: Option<Vec<Cidr>>,
    pub(crate) masquerade_all: bool,
    pub(crate) masquerade_bit: u8,
    pub(crate) localhost_nodeports: bool,
    pub(crate) min_sync_period: Duration,
    pub(crate) sync_period: Duration,
    pub(crate) conntrack: Conntrack,
    nodeport_addresses: Vec<String>,
    healthz_port: Option<u16>,
    metrics_port: Option<u16>,
}

impl Default for Settings {
    fn default() -> Self {
        let loopback = |port| Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        Self {
            healthz: loopback(10256),
            metrics: loopback(10249),
            hostname_override: None,
            cluster_cidrs: None,
            masquerade_all: false,
            masquerade_bit: 14,
            localhost_nodeports: true,
            min_sync_period: Duration::ZERO,
            sync_period: Duration::from_secs(30),
            conntrack: Conntrack {
                max_per_core: Some(32 * 1024),
                min: Some(128 * 1024),
                tcp_established: Some(Duration::from_secs(24 * 3600)),
                tcp_close_wait: Some(Duration::from_secs(3600)),
                ..Conntrack::default()
            },
            nodeport_addresses: Vec::new(),
            healthz_port: None,
            metrics_port: None,
        }
    }
}

fn set<T>(place: &mut T, value: Result<T, &'static str>) -> Result<(), &'static str> {
    *place = value?;
    Ok(())
}

/// An address with a port; the port that is there stays when none is named. Empty means nowhere.
fn endpoint(value: &str, port: u16) -> Result<Option<SocketAddr>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    let whole = value.parse::<SocketAddr>().ok();
    let alone = || value.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port));
    let any = || value.strip_prefix(':')?.parse().ok().map(|port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port));
    whole.or_else(alone).or_else(any).map(Some).ok_or("an IP address with a port, or without")
}

fn port(value: &str) -> Result<Option<u16>, &'static str> {
    value.parse().map(Some).map_err(|_| "a port, or zero")
}

fn cidrs(value: &str) -> Result<Option<Vec<Cidr>>, &'static str> {
    let all: Result<_, _> = value.split(',').filter(|part| !part.is_empty()).map(str::parse).collect();
    all.map(Some).map_err(|_| "one network for each IP family, such as 10.42.0.0/16")
}

fn bit(value: &str) -> Result<u8, &'static str> {
    value.parse().ok().filter(|bit| *bit < 32).ok_or("a number from 0 to 31")
}

/// A count, of which zero leaves things as they are.
fn unless_zero(value: &str) -> Result<Option<u64>, &'static str> {
    let count: u64 = value.parse().map_err(|_| "a number, zero or more")?;
    Ok((count > 0).then_some(count))
}

/// A time, of which zero leaves things as they are.
fn unless_none(value: &str) -> Result<Option<Duration>, &'static str> {
    Ok(Some(duration(value)?).filter(|time| !time.is_zero()))
}

fn gates(value: &str) -> Result<(), &'static str> {
    let mut all: BTreeMap<&str, bool> = BTreeMap::new();
    for gate in value.split(',').filter(|gate| !gate.is_empty()) {
        let (name, on) = gate.split_once('=').ok_or("pairs such as Name=true")?;
        all.insert(name, boolean(on)?);
    }
    let is_as_ever = all.iter().all(|(name, on)| match *name {
        "AllAlpha" => !on,
        "AllBeta"
        | "NFTablesProxyMode"
        | "PreferSameTrafficDistribution"
        | "ServiceTrafficDistribution"
        | "TopologyAwareHints" => *on,
        _ => true,
    });
    if is_as_ever { Ok(()) } else { Err("a gate whose value can be another here") }
}

const FLAGS: &[(&str, Rule<Settings>)] = &[
    ("bind-address", Refused(ELSEWHERE)),
    ("bind-address-hard-fail", Refused(TUNING)),
    ("cleanup", Refused("the rules are one table, gone with `nft delete table ip k3sd-proxy`")),
    ("cluster-cidr", Sets(|all, value| set(&mut all.cluster_cidrs, cidrs(value)))),
    ("config", Refused("settings come as flags")),
    ("config-sync-period", Refused(TUNING)),
    ("conntrack-max-per-core", Sets(|all, value| set(&mut all.conntrack.max_per_core, unless_zero(value)))),
    ("conntrack-min", Sets(|all, value| set(&mut all.conntrack.min, unless_zero(value)))),
    ("conntrack-tcp-be-liberal", Sets(|all, value| set(&mut all.conntrack.tcp_be_liberal, boolean(value)))),
    ("conntrack-tcp-timeout-close-wait", Sets(|all, value| set(&mut all.conntrack.tcp_close_wait, unless_none(value)))),
    (
        "conntrack-tcp-timeout-established",
        Sets(|all, value| set(&mut all.conntrack.tcp_established, unless_none(value))),
    ),
    ("conntrack-udp-timeout", Sets(|all, value| set(&mut all.conntrack.udp, unless_none(value)))),
    ("conntrack-udp-timeout-stream", Sets(|all, value| set(&mut all.conntrack.udp_stream, unless_none(value)))),
    ("detect-local-mode", Only(&["", "ClusterCIDR"])),
    ("feature-gates", Sets(|_, value| gates(value))),
    ("healthz-bind-address", Sets(|all, value| set(&mut all.healthz, endpoint(value, 10256)))),
    ("healthz-port", Sets(|all, value| set(&mut all.healthz_port, port(value)))),
    ("hostname-override", Sets(|all, value| set(&mut all.hostname_override, text(value).map(Some)))),
    ("init-only", Refused("the proxy is a part of the daemon, and stays")),
    ("iptables-localhost-nodeports", Sets(|all, value| set(&mut all.localhost_nodeports, boolean(value)))),
    ("iptables-masquerade-bit", Sets(|all, value| set(&mut all.masquerade_bit, bit(value)))),
    ("iptables-min-sync-period", Sets(|all, value| set(&mut all.min_sync_period, duration(value)))),
    ("iptables-sync-period", Sets(|all, value| set(&mut all.sync_period, duration(value)))),
    ("ipvs-exclude-cidrs", Refused(RULES)),
    ("ipvs-min-sync-period", Refused(RULES)),
    ("ipvs-scheduler", Refused(RULES)),
    ("ipvs-strict-arp", Refused(RULES)),
    ("ipvs-sync-period", Refused(RULES)),
    ("ipvs-tcp-timeout", Refused(RULES)),
    ("ipvs-tcpfin-timeout", Refused(RULES)),
    ("ipvs-udp-timeout", Refused(RULES)),
    ("kube-api-burst", Refused(TUNING)),
    ("kube-api-content-type", Refused(TUNING)),
    ("kube-api-qps", Refused(TUNING)),
    ("kubeconfig", Refused(ELSEWHERE)),
    ("log-flush-frequency", Refused(LOGGING)),
    ("logging-format", Refused(LOGGING)),
    ("masquerade-all", Sets(|all, value| set(&mut all.masquerade_all, boolean(value)))),
    ("master", Refused(ELSEWHERE)),
    ("metrics-bind-address", Sets(|all, value| set(&mut all.metrics, endpoint(value, 10249)))),
    ("metrics-port", Sets(|all, value| set(&mut all.metrics_port, port(value)))),
    ("nftables-masquerade-bit", Sets(|all, value| set(&mut all.masquerade_bit, bit(value)))),
    ("nftables-min-sync-period", Sets(|all, value| set(&mut all.min_sync_period, duration(value)))),
    ("nftables-sync-period", Sets(|all, value| set(&mut all.sync_period, duration(value)))),
    ("nodeport-addresses", Lists(|all| &mut all.nodeport_addresses)),
    ("oom-score-adj", Refused("the proxy is a part of the daemon")),
    ("pod-bridge-interface", Refused(RULES)),
    ("pod-interface-name-prefix", Refused(RULES)),
    ("profiling", Only(&["false"])),
    ("proxy-mode", Only(&["", "iptables", "nftables"])),
    ("proxy-port-range", Refused(TUNING)),
    ("show-hidden-metrics-for-version", Refused(TUNING)),
    ("udp-timeout", Refused(TUNING)),
    ("v", Refused(LOGGING)),
    ("vmodule", Refused(LOGGING)),
    ("write-config-to", Refused("settings come as flags")),
];

impl Settings {
    /// Reads the flags.
    ///
    /// # Errors
    /// One of them means nothing.
    pub(crate) fn read(arguments: &[String]) -> Result<Self, ArgumentError> {
        let mut settings = Self::default();
        apply_all("kube-proxy", FLAGS, &[], &mut settings, arguments.iter().map(String::as_str))?;
        let at = |address: Option<SocketAddr>, port: Option<u16>| match port {
            Some(0) => None,
            Some(port) => address.map(|address| SocketAddr::new(address.ip(), port)),
            None => address.filter(|address| address.port() != 0),
        };
        settings.healthz = at(settings.healthz, settings.healthz_port);
        settings.metrics = at(settings.metrics, settings.metrics_port);
        settings.node_port_addresses()?;
        Ok(settings)
    }

    /// At which addresses node ports are.
    ///
    /// # Errors
    /// One of them is no network; checked when the flags are read.
    pub(crate) fn node_port_addresses(&self) -> Result<NodePortAddresses, ArgumentError> {
        let all = &self.nodeport_addresses;
        let wrong = |value: &str| ArgumentError::Value {
            name: "nodeport-addresses".to_owned(),
            value: value.to_owned(),
            wanted: "networks such as 192.168.0.0/24, or primary alone",
        };
        match all.as_slice() {
            [] => Ok(NodePortAddresses::All),
            [primary] if primary == "primary" => Ok(NodePortAddresses::Primary),
            all => {
                let cidrs = all.iter().map(|text| text.parse().map_err(|_| wrong(text)));
                Ok(NodePortAddresses::In(cidrs.collect::<Result<_, _>>()?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Settings, String> {
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        Settings::read(&arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_settings() {
        let settings = read(&[
            "--healthz-bind-address=0.0.0.0",
            "metrics-bind-address=127.0.0.1:9",
            "nodeport-addresses=10.0.0.0/8,fd00::/8",
            "cluster-cidr=10.42.0.0/16",
            "masquerade-all",
            "iptables-masquerade-bit=15",
            "conntrack-min=0",
            "conntrack-udp-timeout=10s",
            "proxy-mode=iptables",
        ])
        .unwrap();
        assert_eq!(settings.healthz, Some("0.0.0.0:10256".parse().unwrap()));
        assert_eq!(settings.metrics, Some("127.0.0.1:9".parse().unwrap()));
        assert_eq!((settings.masquerade_all, settings.masquerade_bit), (true, 15));
        assert_eq!((settings.conntrack.min, settings.conntrack.udp), (None, Some(Duration::from_secs(10))));
        assert_eq!(settings.cluster_cidrs, Some(vec!["10.42.0.0/16".parse().unwrap()]));
        let addresses = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        assert_eq!(settings.node_port_addresses().unwrap(), NodePortAddresses::In(addresses));
        assert_eq!(
            read(&["nodeport-addresses=primary"]).unwrap().node_port_addresses(),
            Ok(NodePortAddresses::Primary)
        );
        assert_eq!(read(&["healthz-port=0"]).unwrap().healthz, None);
    }

    #[test]
    fn what_means_nothing_is_refused_by_name() {
        for (argument, said) in [
            ("ipvs-scheduler=rr", "--ipvs-scheduler has no effect here"),
            ("proxy-mode=ipvs", "--proxy-mode: \"ipvs\" is not"),
            ("nodeport-addresses=here", "--nodeport-addresses: \"here\" is not networks"),
            ("nodeport-addresses=primary,10.0.0.0/8", "--nodeport-addresses: \"primary\" is not networks"),
            ("iptables-masquerade-bit=32", "--iptables-masquerade-bit: \"32\" is not a number from 0 to 31"),
            ("feature-gates=TopologyAwareHints=false", "--feature-gates"),
            ("cluster-cidr=x", "--cluster-cidr"),
            ("bogus", "kube-proxy has no flag --bogus"),
        ] {
            let error = read(&[argument]).unwrap_err();
            assert!(error.starts_with(said), "{argument}: {error}");
        }
    }
}
