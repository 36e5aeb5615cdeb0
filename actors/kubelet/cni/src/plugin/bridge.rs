//! `bridge`: a pair of links, one end in the container and the other a port of a bridge on the host.
//!
//! The pair is born with both ends in place, so there is never one that nobody can find; the host's end is named after
//! the attachment, so it can be removed when nothing but that is known. The container's hardware address is made from
//! its IP address: whoever remembers the pod that had the address before, remembers what is still true.

use std::net::IpAddr;
use std::path::Path;

use k3sd_netlink::nft::Netfilter;
use k3sd_netlink::route::{Desired, Kind, LinkSpec, Mac, Peer, Route, RouteSpec, TABLE_MAIN};
use k3sd_netlink::{Cidr, Namespace, NetlinkError, read_sysctl, write_sysctl};
use serde::Deserialize;

use super::call::{Call, Command, Config};
use super::error::{self, CniError};
use super::result::{CniResult, Interface, RouteConfig};
use super::table::{self, Entry, Part};
use super::{hash, host_local};

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BridgeConfig {
    bridge: String,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    ip_masq: bool,
    mtu: u32,
    hairpin_mode: bool,
    promisc_mode: bool,
    vlan: u32,
    vlan_trunk: serde_json::Value,
    macspoofchk: bool,
    mac: Option<String>,
    runtime_config: RuntimeConfig,
    ipam: IpamKind,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    mac: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct IpamKind {
    #[serde(rename = "type")]
    kind: String,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            bridge: "cni0".to_owned(),
            is_gateway: false,
            is_default_gateway: false,
            force_address: false,
            ip_masq: false,
            mtu: 0,
            hairpin_mode: false,
            promisc_mode: false,
            vlan: 0,
            vlan_trunk: serde_json::Value::Null,
            macspoofchk: false,
            mac: None,
            runtime_config: RuntimeConfig::default(),
            ipam: IpamKind::default(),
        }
    }
}

/// One address of the container, read.
struct Place {
    cidr: Cidr,
    gateway: Option<IpAddr>,
}

/// Serves a call of any command; only `ADD` has a result.
///
/// # Errors
/// As CNI has them.
pub(crate) fn handle(call: &Call, config: &Config) -> Result<Option<CniResult>, CniError> {
    match call.command {
        Command::Add => add(call, config).map(Some),
        Command::Delete => delete(call, config).map(|()| None),
        Command::Check => check(call, config).map(|()| None),
        Command::Collect => {
            let settings: BridgeConfig = config.read()?;
            let valid = config.common.valid_attachments.clone().unwrap_or_default();
            let lives = |owner: &str| {
                valid.iter().any(|valid| owner.split_once('/') == Some((&valid.container, &valid.interface)))
            };
            if settings.ip_masq {
                table::remove(&mut Netfilter::open()?, Part::Masquerade, |owner| !lives(owner))?;
            }
            ipam(call, config, &settings)
        }
        Command::Status | Command::Version => Ok(None),
    }
}

fn settings(config: &Config) -> Result<BridgeConfig, CniError> {
    let mut settings: BridgeConfig = config.read()?;
    let refused = |what: &str| CniError::new(error::UNSUPPORTED_FIELD, format!("{what} is not supported"));
    if settings.vlan != 0 || !settings.vlan_trunk.is_null() {
        return Err(refused("bridge: vlan"));
    }
    if settings.macspoofchk {
        return Err(refused("bridge: macspoofchk"));
    }
    if settings.hairpin_mode && settings.promisc_mode {
        return Err(CniError::config("cannot set hairpin mode and promiscuous mode at the same time"));
    }
    settings.is_gateway |= settings.is_default_gateway;
    Ok(settings)
}

/// The addresses' plugin, which is one of ours.
fn ipam(call: &Call, config: &Config, settings: &BridgeConfig) -> Result<Option<CniResult>, CniError> {
    match settings.ipam.kind.as_str() {
        "" => Ok(None),
        "host-local" => host_local::handle(call, config),
        other => Err(CniError::new(
            error::UNSUPPORTED_FIELD,
            format!("bridge: IPAM plugin {other:?} is not supported, use host-local"),
        )),
    }
}

/// The name of the host's end.
pub(crate) fn host_end(owner: &str) -> String {
    format!("veth{:011x}", hash(owner) & 0xfff_ffff_ffff)
}

fn add(call: &Call, config: &Config) -> Result<CniResult, CniError> {
    let settings = settings(config)?;
    let path = call.namespace.as_deref().unwrap_or(Path::new(""));
    let namespace = Namespace::open(path)?;
    let has_ipam = !settings.ipam.kind.is_empty();
    let mut result = ipam(call, config, &settings)?.unwrap_or_default();
    if has_ipam && result.ips.is_empty() {
        return Err(CniError::config("IPAM plugin returned missing IP config"));
    }
    connect(call, &settings, &namespace, &mut result).inspect_err(|_| {
        // The first failure is what is told; what can't be undone now is undone by DEL.
        Route::open().and_then(|mut route| route.delete_link(&host_end(&call.owner()))).ok();
        let undo = Call { command: Command::Delete, ..call.clone() };
        ipam(&undo, config, &settings).ok();
    })?;
    Ok(result)
}

fn connect(
    call: &Call,
    settings: &BridgeConfig,
    namespace: &Namespace,
    result: &mut CniResult,
) -> Result<(), CniError> {
    let places = places(settings, result)?;
    add_default_routes(settings, &places, result)?;
    let mac = container_mac(call, settings, &places)?;
    let mut route = Route::open()?;
    let host = host_end(&call.owner());
    // An attempt that died may have left one; it is not this one's, whose namespace may be another.
    route.delete_link(&host)?;
    set_up_host(&mut route, call, settings, namespace, &places, mac)?;
    set_up_container(call, namespace, &places, result)?;
    if settings.ip_masq {
        let entries: Vec<Entry> = places.iter().map(|place| Entry::Masquerade { pod: place.cidr }).collect();
        table::put(&mut Netfilter::open()?, &entries, &call.owner())?;
    }
    describe(&mut route, call, settings, namespace, result)
}

/// The container's addresses, each with the gateway that it has or that the bridge becomes.
fn places(settings: &BridgeConfig, result: &mut CniResult) -> Result<Vec<Place>, CniError> {
    let mut places = Vec::new();
    for ip in &mut result.ips {
        let cidr = ip.cidr()?;
        let given = ip.gateway.as_deref().map(str::parse);
        let mut gateway = given.transpose().map_err(|_| CniError::config(format!("invalid gateway of {cidr}")))?;
        if gateway.is_none() && settings.is_gateway {
            gateway = Some(first_host(cidr));
            ip.gateway = gateway.map(|gateway| gateway.to_string());
        }
        ip.interface = Some(2);
        places.push(Place { cidr, gateway });
    }
    Ok(places)
}

fn first_host(network: Cidr) -> IpAddr {
    match network.first() {
        IpAddr::V4(v4) => std::net::Ipv4Addr::from_bits(v4.to_bits() | 1).into(),
        IpAddr::V6(v6) => std::net::Ipv6Addr::from_bits(v6.to_bits() | 1).into(),
    }
}

fn add_default_routes(settings: &BridgeConfig, places: &[Place], result: &mut CniResult) -> Result<(), CniError> {
    if !settings.is_default_gateway {
        return Ok(());
    }
    for place in places {
        let everything = Cidr::everything(place.cidr.is_ipv6()).to_string();
        let gateway = place.gateway.map(|gateway| gateway.to_string());
        let same = result.routes.iter().find(|route| route.dst == everything);
        if let Some(other) = same.and_then(|route| route.gw.clone()) {
            if Some(&other) != gateway.as_ref() {
                let text = format!("isDefaultGateway ineffective because IPAM sets default route via {other:?}");
                return Err(CniError::config(text));
            }
        } else if same.is_none() {
            result.routes.push(RouteConfig { dst: everything, gw: gateway, ..RouteConfig::default() });
        }
    }
    Ok(())
}

/// The address that was asked for, or one made from the first IP address.
fn container_mac(call: &Call, settings: &BridgeConfig, places: &[Place]) -> Result<Option<Mac>, CniError> {
    let asked = settings.runtime_config.mac.as_ref().or(call.arguments.get("MAC")).or(settings.mac.as_ref());
    if let Some(text) = asked {
        let mac = text.parse().map_err(|error: k3sd_netlink::route::MacError| CniError::config(error.to_string()))?;
        return Ok(Some(mac));
    }
    Ok(places.first().map(|place| mac_of(place.cidr.address())))
}

/// A locally administered address, the same for the same IP address.
fn mac_of(address: IpAddr) -> Mac {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            Mac([0x0a, 0x58, a, b, c, d])
        }
        IpAddr::V6(v6) => {
            let [_, _, _, a, b, c, d, e] = hash(&v6.to_string()).to_be_bytes();
            Mac([0x0a, a, b, c, d, e])
        }
    }
}

fn set_up_host(
    route: &mut Route,
    call: &Call,
    settings: &BridgeConfig,
    namespace: &Namespace,
    places: &[Place],
    mac: Option<Mac>,
) -> Result<(), CniError> {
    let gateways = places.iter().filter_map(|place| Cidr::new(place.gateway?, place.cidr.bits()));
    let addresses: Vec<Cidr> = if settings.is_gateway { gateways.collect() } else { Vec::new() };
    let mtu = (settings.mtu != 0).then_some(settings.mtu);
    let existing = route.link(&settings.bridge)?;
    if let Some(link) = existing.as_ref().filter(|link| link.kind != "bridge") {
        let text = format!("{:?} already exists but is not a bridge", link.name);
        return Err(CniError::new(error::INTERNAL, text));
    }
    if let Some(link) = existing.as_ref().filter(|_| !settings.force_address) {
        check_addresses(route, link.index, &settings.bridge, &addresses)?;
    }
    let bridge = LinkSpec {
        name: settings.bridge.clone(),
        kind: Some(Kind::Bridge),
        up: Some(true),
        promiscuous: settings.promisc_mode.then_some(true),
        mtu,
        // Given one, it keeps it; otherwise it would take its lowest port's, and another whenever pods come and go.
        mac: addresses.first().map(|first| mac_of(first.address())).filter(|_| existing.is_none()),
        no_other_addresses: settings.force_address,
        addresses,
        ..LinkSpec::default()
    };
    let peer = Peer { name: call.interface.clone(), namespace: Some(namespace.clone()), mac };
    let port = LinkSpec {
        name: host_end(&call.owner()),
        kind: Some(Kind::Veth(peer)),
        up: Some(true),
        mtu,
        master: Some(settings.bridge.clone()),
        hairpin: Some(settings.hairpin_mode),
        alias: Some(call.owner()),
        ..LinkSpec::default()
    };
    route.converge(&Desired { links: vec![bridge], ..Desired::default() })?;
    // Before the first pod is connected: a pod that plays the router would otherwise become the host's.
    disable(&format!("net/ipv6/conf/{}/accept_ra", settings.bridge))?;
    route.converge(&Desired { links: vec![port], ..Desired::default() })?;
    if settings.is_gateway {
        forward(places)?;
    }
    Ok(())
}

/// Sets a switch to 0, where the kernel has it.
fn disable(key: &str) -> Result<(), NetlinkError> {
    if read_sysctl(key)?.is_some() {
        write_sysctl(key, "0")?;
    }
    Ok(())
}

/// Whether the bridge has an address that the configuration doesn't know.
fn check_addresses(route: &mut Route, index: u32, bridge: &str, wanted: &[Cidr]) -> Result<(), CniError> {
    let there: Vec<Cidr> =
        route.addresses()?.into_iter().filter(|found| found.index == index).map(|found| found.cidr).collect();
    for cidr in wanted {
        let other = |found: &&Cidr| found.is_ipv6() == cidr.is_ipv6() && *found != cidr;
        // In IPv6 many live side by side, as long as their networks are different.
        let clashes = |found: &&Cidr| other(found) && (!cidr.is_ipv6() || found.contains(cidr.address()));
        if !there.contains(cidr) && there.iter().any(|found| clashes(&found)) {
            let text = format!("{bridge:?} already has an IP address different from {cidr}");
            return Err(CniError::new(error::INTERNAL, text));
        }
    }
    Ok(())
}

/// The bridge is a gateway, so the host forwards.
fn forward(places: &[Place]) -> Result<(), CniError> {
    for is_ipv6 in [false, true] {
        if places.iter().any(|place| place.cidr.is_ipv6() == is_ipv6) {
            write_sysctl(if is_ipv6 { "net/ipv6/conf/all/forwarding" } else { "net/ipv4/ip_forward" }, "1")?;
        }
    }
    Ok(())
}

fn set_up_container(call: &Call, namespace: &Namespace, places: &[Place], result: &CniResult) -> Result<(), CniError> {
    let has_ipv6 = places.iter().any(|place| place.cidr.is_ipv6());
    // Namespaces may be born with IPv6 switched off. And nobody is asked whether an address is taken: the bridge sends
    // the question back to who asks.
    let keys = ["disable_ipv6", "accept_dad"].map(|name| format!("net/ipv6/conf/{}/{name}", call.interface));
    let mut inside = namespace.enter(|| {
        if has_ipv6 {
            keys.iter().try_for_each(|key| disable(key))?;
        }
        Route::open()
    })?;
    let spec = LinkSpec {
        name: call.interface.clone(),
        up: Some(true),
        addresses: places.iter().map(|place| place.cidr).collect(),
        ..LinkSpec::default()
    };
    let mut desired = Desired { links: vec![spec], ..Desired::default() };
    for config in &result.routes {
        let bad = |what: &str| CniError::config(format!("invalid route: {what} {:?}", config.dst));
        let destination: Cidr = config.dst.parse().map_err(|_| bad("destination"))?;
        let given = config.gw.as_deref().map(str::parse::<IpAddr>).transpose().map_err(|_| bad("gateway of"))?;
        let of_family = places.iter().find(|place| place.cidr.is_ipv6() == destination.is_ipv6());
        // As the addresses' plugin has it: a route without gateway goes by that of the address.
        let gateway = given.or_else(|| of_family.and_then(|place| place.gateway));
        desired.routes.push(RouteSpec {
            destination,
            gateway,
            link: call.interface.clone(),
            metric: config.priority,
            table: config.table.unwrap_or(TABLE_MAIN),
            mtu: config.mtu,
        });
    }
    inside.converge(&desired)?;
    Ok(())
}

/// Completes the result with the three links.
fn describe(
    route: &mut Route,
    call: &Call,
    settings: &BridgeConfig,
    namespace: &Namespace,
    result: &mut CniResult,
) -> Result<(), CniError> {
    let mut inside = Route::open_in(namespace)?;
    let sandbox = namespace.path().to_string_lossy().into_owned();
    let names =
        [(settings.bridge.clone(), ""), (host_end(&call.owner()), ""), (call.interface.clone(), sandbox.as_str())];
    result.interfaces.clear();
    for (name, sandbox) in names {
        let socket = if sandbox.is_empty() { &mut *route } else { &mut inside };
        let link = socket.link(&name)?;
        let mac = link.as_ref().and_then(|link| link.mac).map(|mac| mac.to_string()).unwrap_or_default();
        let mtu = link.map(|link| link.mtu);
        result.interfaces.push(Interface { name, mac, mtu, sandbox: sandbox.to_owned() });
    }
    Ok(())
}

fn delete(call: &Call, config: &Config) -> Result<(), CniError> {
    let settings: BridgeConfig = config.read()?;
    ipam(call, config, &settings)?;
    if settings.ip_masq {
        table::remove(&mut Netfilter::open()?, Part::Masquerade, |owner| owner == call.owner())?;
    }
    if Route::open()?.delete_link(&host_end(&call.owner()))? {
        return Ok(());
    }
    // Made by another program, under another name; or gone with its namespace.
    let Some(path) = call.namespace.as_deref().filter(|path| path.exists()) else { return Ok(()) };
    // A file that is left of a namespace is none any more.
    let Ok(mut inside) = Namespace::open(path).and_then(|namespace| Route::open_in(&namespace)) else { return Ok(()) };
    if inside.link(&call.interface)?.is_some_and(|link| link.kind == "veth") {
        inside.delete_link(&call.interface)?;
    }
    Ok(())
}

fn check(call: &Call, config: &Config) -> Result<(), CniError> {
    let settings = settings(config)?;
    ipam(call, config, &settings)?;
    let previous = config.previous_needed()?;
    let wrong = |text: String| CniError::new(error::INTERNAL, text);
    let mut route = Route::open()?;
    let bridge = route.link(&settings.bridge)?.ok_or_else(|| wrong(format!("{} is missing", settings.bridge)))?;
    let ours =
        previous.interfaces.iter().find(|interface| interface.sandbox.is_empty() && interface.name.starts_with("veth"));
    let name = ours.map_or_else(|| host_end(&call.owner()), |interface| interface.name.clone());
    let port = route.link(&name)?.ok_or_else(|| wrong(format!("{name} is missing")))?;
    if port.master != Some(bridge.index) || !port.up {
        return Err(wrong(format!("{name} is not a port of {} that is up", settings.bridge)));
    }
    let path = call.namespace.as_deref().unwrap_or(Path::new(""));
    let mut inside = Route::open_in(&Namespace::open(path)?)?;
    let link = inside.link(&call.interface)?;
    let link = link.ok_or_else(|| wrong(format!("{} is missing in the container", call.interface)))?;
    let addresses = inside.addresses()?;
    for ip in &previous.ips {
        let cidr = ip.cidr()?;
        if !addresses.iter().any(|found| found.index == link.index && found.cidr == cidr) {
            return Err(wrong(format!("{cidr} is not an address of {}", call.interface)));
        }
    }
    let routes = inside.routes()?;
    for config in &previous.routes {
        let destination: Option<Cidr> = config.dst.parse().ok();
        if !routes.iter().any(|route| Some(route.destination) == destination.map(|wanted| wanted.network())) {
            return Err(wrong(format!("the route to {} is missing", config.dst)));
        }
    }
    Ok(())
}
