//! `portmap`: ports of the host that lead to the container.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k3sd_netlink::nft::{Contents, Netfilter};
use k3sd_netlink::route::Route;
use k3sd_netlink::{Cidr, conntrack, write_sysctl};
use serde::Deserialize;

use super::call::{Call, Command, Config};
use super::error::{self, CniError};
use super::result::CniResult;
use super::table::{self, Entry, Part};

const UDP: u8 = 17;

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct PortmapConfig {
    /// Whether answers are made to come back this way where they otherwise would not.
    snat: bool,
    #[serde(rename = "runtimeConfig")]
    runtime_config: RuntimeConfig,
}

impl Default for PortmapConfig {
    fn default() -> Self {
        Self { snat: true, runtime_config: RuntimeConfig::default() }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuntimeConfig {
    port_mappings: Option<Vec<PortMapping>>,
}

/// One port, as the runtime says it. containerd writes the names with a capital, which plugins in Go don't notice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct PortMapping {
    #[serde(rename = "hostPort", alias = "HostPort")]
    host_port: i64,
    #[serde(rename = "containerPort", alias = "ContainerPort")]
    container_port: i64,
    #[serde(alias = "Protocol")]
    protocol: String,
    #[serde(rename = "hostIP", alias = "HostIP")]
    host_ip: String,
}

/// Serves a call of any command; only `ADD` has a result.
///
/// # Errors
/// As CNI has them.
pub(crate) fn handle(call: &Call, config: &Config) -> Result<Option<CniResult>, CniError> {
    match call.command {
        Command::Add => add(call, config).map(Some),
        Command::Delete => {
            let removed = table::remove(&mut Netfilter::open()?, Part::HostPorts, |owner| owner == call.owner())?;
            forget_datagrams(&datagram_ports(&removed))?;
            Ok(None)
        }
        Command::Check => {
            let (_, entries) = entries(config)?;
            if table::has(&mut Netfilter::open()?, &entries, &call.owner())? {
                return Ok(None);
            }
            Err(CniError::new(error::INTERNAL, format!("host ports of {} are missing", call.container)))
        }
        Command::Collect => {
            let valid = config.common.valid_attachments.clone().unwrap_or_default();
            let lives = |owner: &str| {
                valid.iter().any(|valid| owner.split_once('/') == Some((&valid.container, &valid.interface)))
            };
            table::remove(&mut Netfilter::open()?, Part::HostPorts, |owner| !lives(owner))?;
            Ok(None)
        }
        Command::Status | Command::Version => Ok(None),
    }
}

fn add(call: &Call, config: &Config) -> Result<CniResult, CniError> {
    let (previous, entries) = entries(config)?;
    if entries.is_empty() {
        return Ok(previous);
    }
    if entries.iter().any(|entry| matches!(entry, Entry::Hairpin { pod } if !pod.is_ipv6())) {
        answer_loopback(&previous)?;
    }
    table::put(&mut Netfilter::open()?, &entries, &call.owner())?;
    let ports = entries.iter().filter_map(|entry| match entry {
        Entry::HostPort { protocol: UDP, host_port, .. } => Some(*host_port),
        _ => None,
    });
    // Who was sent elsewhere until now, and goes on sending, is not looked up again.
    forget_datagrams(&ports.collect())?;
    Ok(previous)
}

fn entries(config: &Config) -> Result<(CniResult, Vec<Entry>), CniError> {
    let settings: PortmapConfig = config.read()?;
    let previous = config.previous_needed()?;
    let mappings = settings.runtime_config.port_mappings.unwrap_or_default();
    let pods = pods(&previous)?;
    let mut entries = Vec::new();
    for mapping in &mappings {
        entries.extend(translate(mapping, &pods)?);
    }
    if settings.snat && !entries.is_empty() {
        entries.extend(pods.iter().map(|pod| Entry::Hairpin { pod: *pod }));
    }
    Ok((previous, entries))
}

/// The container's first address of each family.
fn pods(previous: &CniResult) -> Result<Vec<Cidr>, CniError> {
    let mut pods: Vec<Cidr> = Vec::new();
    for ip in &previous.ips {
        let interface = ip.interface.and_then(|place| previous.interfaces.get(place));
        if interface.is_some_and(|interface| interface.sandbox.is_empty()) {
            continue;
        }
        let cidr = ip.cidr()?;
        if !pods.iter().any(|pod| pod.is_ipv6() == cidr.is_ipv6()) {
            pods.push(cidr);
        }
    }
    Ok(pods)
}

/// The entries of one mapping: one for each family that it is about. Pure.
fn translate(mapping: &PortMapping, pods: &[Cidr]) -> Result<Vec<Entry>, CniError> {
    let port = |number: i64, what: &str| {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        port.ok_or_else(|| CniError::config(format!("invalid {what} number: {number}")))
    };
    let protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => 6,
        "udp" => UDP,
        "sctp" => 132,
        _ => return Err(CniError::config(format!("unknown protocol {:?}", mapping.protocol))),
    };
    let host: Option<IpAddr> = match mapping.host_ip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| CniError::config(format!("invalid hostIP {text:?}")))?),
    };
    // Kubernetes' pods without a host port are listed too.
    if mapping.host_port == 0 {
        return Ok(Vec::new());
    }
    let (host_port, container_port) =
        (port(mapping.host_port, "host port")?, port(mapping.container_port, "container port")?);
    let of_family = |pod: &&Cidr| host.is_none_or(|host| host.is_ipv6() == pod.is_ipv6());
    let entry = |pod: &Cidr| Entry::HostPort {
        host: host.filter(|host| !host.is_unspecified()),
        protocol,
        host_port,
        pod: pod.address(),
        port: container_port,
    };
    Ok(pods.iter().filter(of_family).map(entry).collect())
}

/// Packets from 127.0.0.1 may leave by the bridge, where they are translated.
fn answer_loopback(previous: &CniResult) -> Result<(), CniError> {
    let hosts = previous.interfaces.iter().filter(|interface| interface.sandbox.is_empty());
    let mut route = Route::open()?;
    for interface in hosts {
        if route.link(&interface.name)?.is_some_and(|link| link.kind == "bridge" || link.master.is_none()) {
            write_sysctl(&format!("net/ipv4/conf/{}/route_localnet", interface.name), "1")?;
        }
    }
    Ok(())
}

/// The host ports for UDP among removed elements.
fn datagram_ports(removed: &[(String, Contents)]) -> BTreeSet<u16> {
    let ports = removed.iter().filter(|(set, _)| set.contains("ports"));
    let keys = ports.flat_map(|(_, elements)| elements.keys());
    let port = |key: &Vec<u8>| match key[..] {
        [.., UDP, 0, 0, 0, high, low, 0, 0] => Some(u16::from_be_bytes([high, low])),
        _ => None,
    };
    keys.filter_map(port).collect()
}

fn forget_datagrams(ports: &BTreeSet<u16>) -> Result<(), CniError> {
    if !ports.is_empty() {
        conntrack::forget(|flow| flow.protocol == UDP && ports.contains(&flow.destination_port))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host_port: i64, container_port: i64, protocol: &str, host_ip: &str) -> PortMapping {
        PortMapping { host_port, container_port, protocol: protocol.to_owned(), host_ip: host_ip.to_owned() }
    }

    #[test]
    fn runtimes_write_names_in_two_ways() {
        for text in [
            r#"{"portMappings":[{"HostPort":8082,"ContainerPort":80,"Protocol":"tcp","HostIP":"1.2.3.4"}]}"#,
            r#"{"portMappings":[{"hostPort":8082,"containerPort":80,"protocol":"tcp","hostIP":"1.2.3.4"}]}"#,
        ] {
            let read: RuntimeConfig = serde_json::from_str(text).unwrap();
            assert_eq!(read.port_mappings, Some(vec![mapping(8082, 80, "tcp", "1.2.3.4")]), "{text}");
        }
    }

    #[test]
    fn mappings_and_families() {
        let pods = ["10.42.0.2/24".parse().unwrap(), "fd42::2/64".parse().unwrap()];
        let hosts = |mapping: &PortMapping| {
            let entries = translate(mapping, &pods).map_err(|error| error.msg)?;
            let host = |entry: &Entry| match entry {
                Entry::HostPort { host, pod, .. } => (host.map(|host| host.to_string()), pod.to_string()),
                _ => unreachable!(),
            };
            Ok::<_, String>(entries.iter().map(host).collect::<Vec<_>>())
        };
        let (v4, v6) = ("10.42.0.2".to_owned(), "fd42::2".to_owned());
        assert_eq!(hosts(&mapping(80, 8080, "TCP", "")), Ok(vec![(None, v4.clone()), (None, v6.clone())]));
        assert_eq!(hosts(&mapping(80, 8080, "tcp", "0.0.0.0")), Ok(vec![(None, v4.clone())]));
        assert_eq!(hosts(&mapping(80, 8080, "udp", "::")), Ok(vec![(None, v6)]));
        assert_eq!(hosts(&mapping(80, 8080, "sctp", "1.2.3.4")), Ok(vec![(Some("1.2.3.4".to_owned()), v4)]));
        assert_eq!(hosts(&mapping(0, 8080, "tcp", "")), Ok(vec![]));
        assert!(hosts(&mapping(80, 0, "tcp", "")).is_err());
        assert!(hosts(&mapping(70_000, 80, "tcp", "")).is_err());
        assert!(hosts(&mapping(80, 80, "icmp", "")).is_err());
        assert!(hosts(&mapping(80, 80, "tcp", "localhost")).is_err());
    }

    #[test]
    fn ports_of_removed_elements() {
        let pod = "10.42.0.2".parse().unwrap();
        let entry = |host: Option<&str>, protocol, host_port| {
            let host = host.map(|host| host.parse().unwrap());
            Entry::HostPort { host, protocol, host_port, pod, port: 1 }.element("c/eth0")
        };
        let contents = |entries: Vec<_>| entries.into_iter().collect::<Contents>();
        let removed = [
            ("ports4".to_owned(), contents(vec![entry(None, UDP, 53), entry(None, 6, 80)])),
            ("bound-ports4".to_owned(), contents(vec![entry(Some("1.2.3.4"), UDP, 1053)])),
        ];
        assert_eq!(datagram_ports(&removed), BTreeSet::from([53, 1053]));
    }
}
