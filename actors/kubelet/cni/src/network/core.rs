//! What the node's network has to be. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use k3sd_netlink::Cidr;
use k3sd_netlink::nft::{Chain, ChainBase, ChainKind, Expression, Family, Hook, Rule, Table, Verdict};
use k3sd_netlink::route::{State, TABLE_MAIN};
use k3sd_runtime::Moment;
use serde_json::{Value, json};

use crate::config::NetworkConfig;
use crate::plugin::{DATA_DIR, STATE_DIR, SUBNET_FILE};
use crate::rules::{in_network, multicast, rule, verdict};

/// The table's name.
pub(super) const TABLE: &str = "k3sd-pods";
/// The table's family.
pub(super) const FAMILY: Family = Family::Inet;
/// The network's name, under which plugins remember addresses.
pub(super) const NETWORK: &str = "cbr0";
/// The name of the configuration file. The runtime takes the first of all files.
pub(super) const CONF_FILE: &str = "10-flannel.conflist";
/// Ethernet's longest packet, for hosts that have no way out.
const MTU_DEFAULT: u32 = 1500;

/// The longest packet that gets out: that of the link of the best default route, IPv4's before IPv6's.
pub(super) fn mtu(state: &State) -> u32 {
    let outward = |is_ipv6: bool| {
        let everywhere = Cidr::everything(is_ipv6);
        let routes = state
            .routes
            .iter()
            .filter(move |route| route.destination == everywhere && route.table == TABLE_MAIN && route.index.is_some());
        let best = routes.min_by_key(|route| route.metric)?;
        state.links.iter().find(|link| Some(link.index) == best.index).map(|link| link.mtu)
    };
    outward(false).or_else(|| outward(true)).filter(|mtu| *mtu > 0).unwrap_or(MTU_DEFAULT)
}

/// What the flannel plugin reads.
pub(super) fn subnet_env(config: &NetworkConfig, pod_cidrs: &[Cidr], mtu: u32) -> String {
    let mut text = String::new();
    for (is_ipv6, prefix) in [(false, "FLANNEL"), (true, "FLANNEL_IPV6")] {
        let Some(pods) = pod_cidrs.iter().find(|cidr| cidr.is_ipv6() == is_ipv6) else { continue };
        let of_family = || config.cluster_cidrs.iter().filter(|cidr| cidr.is_ipv6() == is_ipv6);
        let around = of_family().find(|cluster| cluster.contains(pods.first())).or_else(|| of_family().next());
        let cluster = around.unwrap_or(pods).network();
        let first = gateway(*pods);
        // Writing into a string cannot fail.
        writeln!(text, "{prefix}_NETWORK={cluster}\n{prefix}_SUBNET={first}").ok();
    }
    writeln!(text, "FLANNEL_MTU={mtu}\nFLANNEL_IPMASQ=true").ok();
    text
}

/// The first address behind the network's own, which the bridge gets.
fn gateway(pods: Cidr) -> Cidr {
    let address = match pods.first() {
        std::net::IpAddr::V4(v4) => std::net::Ipv4Addr::from_bits(v4.to_bits() | 1).into(),
        std::net::IpAddr::V6(v6) => std::net::Ipv6Addr::from_bits(v6.to_bits() | 1).into(),
    };
    Cidr::new(address, pods.bits()).unwrap_or(pods)
}

/// What the container runtime reads. Places that every plugin knows are not said.
pub(super) fn conflist(config: &NetworkConfig) -> String {
    let mut flannel = json!({
        "type": "flannel",
        "delegate": {"hairpinMode": true, "forceAddress": true, "isDefaultGateway": true},
    });
    if config.bridge != "cni0" {
        flannel["delegate"]["bridge"] = config.bridge.clone().into();
    }
    let place = |path: &std::path::Path, default: &str| (path.as_os_str() != default).then(|| json!(path));
    if let Some(path) = place(&config.subnet_env, SUBNET_FILE) {
        flannel["subnetFile"] = path;
    }
    if let Some(path) = place(&config.flannel_dir, STATE_DIR) {
        flannel["dataDir"] = path;
    }
    if let Some(path) = place(&config.networks_dir, DATA_DIR) {
        flannel["ipam"] = json!({"dataDir": path});
    }
    let list = json!({
        "name": NETWORK,
        "cniVersion": "1.0.0",
        "plugins": [
            flannel,
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "bandwidth", "capabilities": {"bandwidth": true}},
        ],
    });
    format!("{list:#}\n")
}

/// The name of the network in a configuration, under which plugins remember its addresses.
pub(super) fn network_name(conflist: &str) -> Option<String> {
    let json: Value = serde_json::from_str(conflist).ok()?;
    let name = json.get("name")?.as_str()?;
    let harmless = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
    harmless.then(|| name.to_owned())
}

/// What leaves the cluster gets the node's address; what comes from pods or goes to them is let through.
pub(super) fn table(config: &NetworkConfig, pod_cidrs: &[Cidr]) -> Table {
    let mut table = Table::new(FAMILY, TABLE);
    let (mut leaving, mut passing) = (Vec::new(), Vec::new());
    for pods in pod_cidrs {
        for is_destination in [false, true] {
            passing.push(rule(in_network(pods.network(), is_destination), verdict(Verdict::Accept)));
        }
        let masquerades = if pods.is_ipv6() { config.masquerade_ipv6 } else { config.masquerade_ipv4 };
        if !masquerades {
            continue;
        }
        let name = if pods.is_ipv6() { "masquerade6" } else { "masquerade4" };
        leaving.push(rule(in_network(pods.network(), false), verdict(Verdict::Jump(name.to_owned()))));
        if table.chain(name).is_none() {
            table.chains.push(Chain { name: name.to_owned(), base: None, rules: masquerade(config, pods.is_ipv6()) });
        }
    }
    let base = |kind, hook, priority| Some(ChainBase { kind, hook, priority, drops: false });
    let postrouting = base(ChainKind::Nat, Hook::Postrouting, 100);
    table.chains.push(Chain { name: "postrouting".to_owned(), base: postrouting, rules: leaving });
    let forward = base(ChainKind::Filter, Hook::Forward, 0);
    table.chains.push(Chain { name: "forward".to_owned(), base: forward, rules: passing });
    table
}

/// Stays within the cluster, or is for many: as it is. Anything else is masqueraded.
fn masquerade(config: &NetworkConfig, is_ipv6: bool) -> Vec<Rule> {
    let clusters = config.cluster_cidrs.iter().filter(|cidr| cidr.is_ipv6() == is_ipv6).map(Cidr::network);
    let stay = clusters.chain([multicast(is_ipv6)]);
    let mut rules: Vec<Rule> = stay.map(|to| rule(in_network(to, true), verdict(Verdict::Return))).collect();
    rules.push(rule([], Expression::Masquerade));
    rules
}

/// Switches of the kernel that have to be 1.
pub(super) fn sysctls(pod_cidrs: &[Cidr]) -> Vec<&'static str> {
    let mut keys =
        vec!["net/ipv4/conf/all/forwarding", "net/ipv4/conf/default/forwarding", "net/bridge/bridge-nf-call-iptables"];
    if pod_cidrs.iter().any(Cidr::is_ipv6) {
        keys.extend([
            "net/ipv6/conf/all/forwarding",
            "net/ipv6/conf/default/forwarding",
            "net/bridge/bridge-nf-call-ip6tables",
            "net/core/devconf_inherit_init_net",
        ]);
    }
    keys
}

/// Containers that hold something and that the runtime doesn't know. It learns of a sandbox only when that is complete, so
/// a young one is missing for a while; only who is missing for long is gone.
#[derive(Debug, Default)]
pub(super) struct Suspects(BTreeMap<String, Moment>);

impl Suspects {
    /// Longer than a sandbox takes to be made; containerd gives up after less.
    pub(super) const GRACE: Duration = Duration::from_secs(180);

    /// Looks at who holds something and who lives. Returns those that are gone; others are suspects from now on.
    pub(super) fn look(
        &mut self,
        holders: &BTreeSet<String>,
        live: &BTreeSet<String>,
        now: Moment,
    ) -> BTreeSet<String> {
        let missing: BTreeSet<&String> = holders.difference(live).collect();
        self.0.retain(|suspect, _| missing.contains(suspect));
        for suspect in missing {
            self.0.entry(suspect.clone()).or_insert(now);
        }
        let gone = |(suspect, since): (&String, &Moment)| (now.since(*since) >= Self::GRACE).then(|| suspect.clone());
        self.0.iter().filter_map(gone).collect()
    }

    /// When the first of them will have been missing for long enough.
    pub(super) fn next(&self) -> Option<Moment> {
        self.0.values().min().map(|since| *since + Self::GRACE)
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
