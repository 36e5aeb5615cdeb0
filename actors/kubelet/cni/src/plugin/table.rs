//! The plugins' nftables table: host ports, and who is masqueraded.
//!
//! Rules are the same however many pods there are: pods are elements of maps, each with its attachment as a comment, so
//! that whatever belongs to one is found and removed even when nothing else is known of it. Each pod network has two
//! chains, made when the first pod needs them.

use std::net::IpAddr;

use k3sd_netlink::nft::{
    Base, Chain, ChainBase, ChainKind, Change, Contents, Data, DataKind, Element, Expression, Family, Hook, MetaKey,
    Nat, Netfilter, Register, Set, Table, TypeId, Verdict,
};
use k3sd_netlink::{Cidr, NetlinkError};

use crate::rules::{
    in_network, load_address, multicast, octets, of_family, rule, to_this_machine, translated, verdict,
};

/// The table's name.
pub(crate) const TABLE: &str = "k3sd-cni";
const FAMILY: Family = Family::Inet;

/// Looks at elements that others change at the same moment.
const ATTEMPTS_MAX: u32 = 5;

const HOST_PORTS: &str = "hostports";
const HAIRPIN: &str = "hairpin-";
const MASQUERADE: &str = "masquerade-";

/// What a pod can have in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A port of the host that leads to it.
    HostPort {
        /// The host's address; all of the family's if none is given.
        host: Option<IpAddr>,
        /// The protocol above IP.
        protocol: u8,
        /// The host's port.
        host_port: u16,
        /// The pod's address.
        pod: IpAddr,
        /// The pod's port.
        port: u16,
    },
    /// Its own network, and this machine by its loopback address, reach it by its host ports; the answers have to come
    /// back this way.
    Hairpin {
        /// The pod's address with its network.
        pod: Cidr,
    },
    /// It is masqueraded outside of its network.
    Masquerade {
        /// The pod's address with its network.
        pod: Cidr,
    },
}

fn suffix(is_ipv6: bool) -> char {
    if is_ipv6 { '6' } else { '4' }
}

fn set_name(what: &str, is_ipv6: bool) -> String {
    format!("{what}{}", suffix(is_ipv6))
}

impl Entry {
    fn is_ipv6(&self) -> bool {
        match self {
            Self::HostPort { pod, .. } => pod.is_ipv6(),
            Self::Hairpin { pod } | Self::Masquerade { pod } => pod.is_ipv6(),
        }
    }

    /// The map that it is in.
    fn set(&self) -> String {
        let what = match self {
            Self::HostPort { host: None, .. } => "ports",
            Self::HostPort { host: Some(_), .. } => "bound-ports",
            Self::Hairpin { .. } => "hairpin",
            Self::Masquerade { .. } => "masquerade",
        };
        set_name(what, self.is_ipv6())
    }

    fn chain(&self) -> Option<Chain> {
        match self {
            Self::HostPort { .. } => None,
            Self::Hairpin { pod } => Some(hairpin_chain(pod.network())),
            Self::Masquerade { pod } => Some(masquerade_chain(pod.network())),
        }
    }

    pub(crate) fn element(&self, owner: &str) -> (Vec<u8>, Element) {
        let (key, data) = match self {
            Self::HostPort { host, protocol, host_port, pod, port } => {
                let mut key = host.map(octets).unwrap_or_default();
                key.extend([*protocol, 0, 0, 0]);
                key.extend(padded(*host_port));
                let mut data = octets(*pod);
                data.extend(padded(*port));
                (key, Data::Value(data))
            }
            Self::Hairpin { pod } | Self::Masquerade { pod } => {
                let chain = self.chain().map(|chain| chain.name).unwrap_or_default();
                (octets(pod.address()), Data::Verdict(Verdict::Jump(chain)))
            }
        };
        (key, Element { data: Some(data), comment: Some(owner.to_owned()) })
    }
}

fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn hairpin_chain(network: Cidr) -> Chain {
    let own = rule(in_network(network, false), Expression::Masquerade);
    let mut rules = vec![own];
    if !network.is_ipv6() {
        let loopback = Cidr::new([127, 0, 0, 0].into(), 8).expect("8 is less than 32");
        rules.push(rule(in_network(loopback, false), Expression::Masquerade));
    }
    Chain { name: format!("{HAIRPIN}{network}"), base: None, rules }
}

fn masquerade_chain(network: Cidr) -> Chain {
    let stay = |network| rule(in_network(network, true), verdict(Verdict::Return));
    let rules = vec![stay(network), stay(multicast(network.is_ipv6())), rule([], Expression::Masquerade)];
    Chain { name: format!("{MASQUERADE}{network}"), base: None, rules }
}

/// The table, with the chains for networks that it had and those that it gets.
fn wanted(found: Option<&Table>, chains: &[Chain]) -> Table {
    let mut table = Table::new(FAMILY, TABLE);
    for is_ipv6 in [false, true] {
        let address = TypeId::address(is_ipv6);
        let bytes = if is_ipv6 { 16 } else { 4 };
        let port = TypeId::PROTOCOL.then(TypeId::PORT);
        let set = |what: &str, key_type, key_bytes, data| Set {
            name: set_name(what, is_ipv6),
            key_type,
            key_bytes,
            data: Some(data),
            from_packets: None,
            elements: None,
        };
        let target = DataKind::Value { type_id: address.then(TypeId::PORT), bytes: bytes + 4 };
        let bound = TypeId(address.0 << 12 | port.0);
        table.sets.push(set("ports", port, 8, target));
        table.sets.push(set("bound-ports", bound, bytes + 8, target));
        table.sets.push(set("hairpin", address, bytes, DataKind::Verdict));
        table.sets.push(set("masquerade", address, bytes, DataKind::Verdict));
    }
    let base = |hook, priority| Some(ChainBase { kind: ChainKind::Nat, hook, priority, drops: false });
    let dispatch = || vec![rule(to_this_machine(), verdict(Verdict::Jump(HOST_PORTS.to_owned())))];
    let mut chain = |name: &str, base, rules| table.chains.push(Chain { name: name.to_owned(), base, rules });
    chain("prerouting", base(Hook::Prerouting, -100), dispatch());
    chain("output", base(Hook::Output, -100), dispatch());
    chain("postrouting", base(Hook::Postrouting, 100), [false, true].into_iter().flat_map(postrouting).collect());
    let ports = [false, true].into_iter().flat_map(|is_ipv6| [host_ports(is_ipv6, true), host_ports(is_ipv6, false)]);
    chain(HOST_PORTS, None, ports.collect());
    table.chains.extend(chains.iter().cloned());
    let of_networks = |chain: &&Chain| chain.name.starts_with(HAIRPIN) || chain.name.starts_with(MASQUERADE);
    for chain in found.iter().flat_map(|found| &found.chains).filter(of_networks) {
        if table.chain(&chain.name).is_none() {
            table.chains.push(chain.clone());
        }
    }
    table
}

/// Looks a packet's protocol and port up, behind its destination if the host's address matters.
fn host_ports(is_ipv6: bool, is_bound: bool) -> k3sd_netlink::nft::Rule {
    let start = if is_bound { 4 } else { 0 };
    let behind = if is_bound && is_ipv6 {
        start + 4
    } else if is_bound {
        start + 1
    } else {
        start
    };
    let mut conditions = of_family(is_ipv6).to_vec();
    if is_bound {
        conditions.push(load_address(is_ipv6, true, Register(start)));
    }
    conditions.push(Expression::Meta { key: MetaKey::Protocol, to: Register(behind) });
    conditions.push(Expression::Payload { to: Register(behind + 1), base: Base::Transport, offset: 2, bytes: 2 });
    let map = set_name(if is_bound { "bound-ports" } else { "ports" }, is_ipv6);
    conditions.push(Expression::LookupValue { map, key: Register(start), to: Register(0) });
    let port = Some(Register(if is_ipv6 { 4 } else { 1 }));
    rule(conditions, Expression::Nat(Nat { is_destination: true, is_ipv6, address: Register(0), port }))
}

fn postrouting(is_ipv6: bool) -> [k3sd_netlink::nft::Rule; 2] {
    let by = |is_destination, map: &str| {
        let load = load_address(is_ipv6, is_destination, Register(0));
        (load, Expression::LookupVerdict { map: set_name(map, is_ipv6), key: Register(0) })
    };
    let (source, masquerade) = by(false, "masquerade");
    let (destination, hairpin) = by(true, "hairpin");
    [
        rule(of_family(is_ipv6).into_iter().chain([source]), masquerade),
        rule(of_family(is_ipv6).into_iter().chain(translated()).chain([destination]), hairpin),
    ]
}

/// Puts a pod's entries in, instead of what others had under the same keys: the youngest pod has the port.
///
/// # Errors
/// The kernel refused: it has no nftables, or the privilege is missing.
pub(crate) fn put(netfilter: &mut Netfilter, entries: &[Entry], owner: &str) -> Result<(), NetlinkError> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut chains: Vec<Chain> = Vec::new();
    for chain in entries.iter().filter_map(Entry::chain) {
        if !chains.contains(&chain) {
            chains.push(chain);
        }
    }
    netfilter.converge_from(FAMILY, TABLE, |found| wanted(found, &chains))?;
    let mut attempts = ATTEMPTS_MAX;
    loop {
        attempts -= 1;
        let changes = replacing(netfilter, entries, owner)?;
        match netfilter.apply(FAMILY, TABLE, &changes, None) {
            // The one who had the port gave it back just now, or another took it.
            Err(error) if attempts > 0 && (error.is_gone() || error.is_exists()) => {}
            other => return other,
        }
    }
}

fn replacing(netfilter: &mut Netfilter, entries: &[Entry], owner: &str) -> Result<Vec<Change>, NetlinkError> {
    let mut changes = Vec::new();
    for entry in entries {
        let (set, (key, element)) = (entry.set(), entry.element(owner));
        let there = netfilter.elements(FAMILY, TABLE, &set)?;
        match there.get(&key) {
            Some(same) if *same == element => continue,
            Some(other) => {
                let elements = Contents::from([(key.clone(), other.clone())]);
                changes.push(Change::DeleteElements { set: set.clone(), elements });
            }
            None => {}
        }
        changes.push(Change::AddElements { set, elements: Contents::from([(key, element)]) });
    }
    Ok(changes)
}

/// Whether all of a pod's entries are there.
///
/// # Errors
/// The kernel refused.
pub(crate) fn has(netfilter: &mut Netfilter, entries: &[Entry], owner: &str) -> Result<bool, NetlinkError> {
    for entry in entries {
        let (key, element) = entry.element(owner);
        let there = match netfilter.elements(FAMILY, TABLE, &entry.set()) {
            Err(error) if error.is_gone() => return Ok(false),
            other => other?,
        };
        if there.get(&key) != Some(&element) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What to remove: host ports only, masquerading only, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// What `portmap` made.
    HostPorts,
    /// What `bridge` made.
    Masquerade,
    /// Everything.
    All,
}

impl Part {
    fn has(self, set: &str) -> bool {
        let is_masquerade = set.starts_with("masquerade");
        match self {
            Self::HostPorts => !is_masquerade,
            Self::Masquerade => is_masquerade,
            Self::All => true,
        }
    }
}

/// Removes what belongs to the owners that are picked. Returns the removed elements, by map.
///
/// # Errors
/// The kernel refused. A table that isn't there has nothing to remove.
pub(crate) fn remove(
    netfilter: &mut Netfilter,
    part: Part,
    is_picked: impl Fn(&str) -> bool,
) -> Result<Vec<(String, Contents)>, NetlinkError> {
    let mut removed = Vec::new();
    for is_ipv6 in [false, true] {
        for what in ["ports", "bound-ports", "hairpin", "masquerade"].into_iter().filter(|what| part.has(what)) {
            let set = set_name(what, is_ipv6);
            let there = match netfilter.elements(FAMILY, TABLE, &set) {
                Err(error) if error.is_gone() => return Ok(removed),
                other => other?,
            };
            let is_picked = |element: &Element| element.comment.as_deref().is_some_and(&is_picked);
            let elements: Contents = there.into_iter().filter(|(_, element)| is_picked(element)).collect();
            if elements.is_empty() {
                continue;
            }
            let change = Change::DeleteElements { set: set.clone(), elements: elements.clone() };
            match netfilter.apply(FAMILY, TABLE, &[change], None) {
                // Somebody else, with the same task, was quicker.
                Err(error) if error.is_gone() => {}
                other => other?,
            }
            removed.push((set, elements));
        }
    }
    Ok(removed)
}

/// The owners of all elements.
///
/// # Errors
/// The kernel refused.
pub(crate) fn owners(netfilter: &mut Netfilter) -> Result<Vec<String>, NetlinkError> {
    let Some(table) = netfilter.table(FAMILY, TABLE)? else { return Ok(Vec::new()) };
    let elements = table.sets.into_iter().filter_map(|set| set.elements).flatten();
    Ok(elements.filter_map(|(_, element)| element.comment).collect())
}
