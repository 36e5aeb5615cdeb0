//! `host-local`: hands out the addresses of this node's ranges, and remembers in files who has which.

mod allocate;
mod ranges;
mod store;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use self::allocate::pick;
use self::ranges::{Range, RangeConfig, RangeSet};
pub(crate) use self::store::{Owner, Store};
use super::call::{Call, Command, Config, undecodable};
use super::error::{self, CniError};
use super::result::{CniResult, Dns, Ip, RouteConfig};

/// Where addresses are remembered unless the configuration says otherwise.
pub(crate) const DATA_DIR: &str = "/var/lib/cni/networks";

/// The part of the configuration that is ours.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ipam {
    #[serde(flatten)]
    single: RangeConfig,
    #[serde(default)]
    ranges: Vec<Vec<RangeConfig>>,
    #[serde(default)]
    routes: Vec<RouteConfig>,
    #[serde(default)]
    data_dir: Option<PathBuf>,
    #[serde(default)]
    resolv_conf: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wishes {
    ips: Vec<String>,
    ip_ranges: Vec<Vec<RangeConfig>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Arguments {
    cni: Wishes,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outer {
    #[serde(default)]
    runtime_config: Wishes,
    #[serde(default)]
    args: Option<Arguments>,
}

/// What a call amounts to.
struct Settings {
    ipam: Ipam,
    sets: Vec<RangeSet>,
    wishes: Vec<IpAddr>,
    dir: PathBuf,
}

/// Serves a call of any command; only `ADD` has a result.
///
/// # Errors
/// As CNI has them.
pub(crate) fn handle(call: &Call, config: &Config) -> Result<Option<CniResult>, CniError> {
    if call.command == Command::Status || call.command == Command::Version {
        return Ok(None);
    }
    if call.command == Command::Add {
        return add(call, &settings(call, config)?).map(Some);
    }
    // Cleaning up needs the directory alone: ranges that have become nonsense must not keep addresses.
    let dir = directory(&ipam(config)?, config);
    match call.command {
        Command::Delete => {
            if let Some(store) = Store::open_existing(&dir)? {
                store.release(|owner| owner.container == call.container && owner.is_interface(&call.interface))?;
            }
        }
        Command::Collect => {
            let valid = config.common.valid_attachments.clone().unwrap_or_default();
            let lives = |owner: &Owner| {
                valid.iter().any(|valid| valid.container == owner.container && owner.is_interface(&valid.interface))
            };
            if let Some(store) = Store::open_existing(&dir)? {
                store.release(|owner| !lives(owner))?;
            }
        }
        _ => {
            let store = Store::open(&dir)?;
            if store.held_by(&call.container, &call.interface)?.is_empty() {
                let text = format!("host-local: Failed to find address added by container {}", call.container);
                return Err(CniError::new(error::INTERNAL, text));
            }
        }
    }
    Ok(None)
}

fn ipam(config: &Config) -> Result<Ipam, CniError> {
    let ipam = config.json.get("ipam").ok_or_else(|| CniError::config("IPAM config missing 'ipam' key"))?;
    Ipam::deserialize(ipam).map_err(|source| undecodable(&source))
}

fn directory(ipam: &Ipam, config: &Config) -> PathBuf {
    ipam.data_dir.as_deref().unwrap_or_else(|| Path::new(DATA_DIR)).join(&config.common.name)
}

fn settings(call: &Call, config: &Config) -> Result<Settings, CniError> {
    let ipam = ipam(config)?;
    let outer: Outer = config.read()?;
    let mut sets: Vec<Vec<RangeConfig>> = Vec::new();
    if ipam.single.subnet.is_some() {
        sets.push(vec![ipam.single.clone()]);
    }
    sets.extend(ipam.ranges.iter().cloned());
    // What the runtime says goes first.
    let mut all = outer.runtime_config.ip_ranges.clone();
    all.append(&mut sets);
    if all.is_empty() {
        return Err(CniError::config("no IP ranges specified"));
    }
    let sets = all.iter().map(|set| RangeSet::new(set)).collect::<Result<Vec<_>, _>>()?;
    for (place, set) in sets.iter().enumerate() {
        if let Some(other) = sets[..place].iter().position(|other| other.overlaps(set)) {
            return Err(CniError::config(format!("range set {other} overlaps with {place}")));
        }
    }
    let given = call.arguments.get("IP").map(|ips| ips.split(',').map(str::to_owned).collect::<Vec<_>>());
    let mut texts = given.unwrap_or_default();
    texts.extend(outer.args.unwrap_or_default().cni.ips);
    texts.extend(outer.runtime_config.ips);
    let read = |text: &String| {
        let address = text.split('/').next().unwrap_or_default();
        address.parse().map_err(|_| CniError::config(format!("invalid IP address: {text}")))
    };
    let wishes = texts.iter().map(read).collect::<Result<Vec<IpAddr>, _>>()?;
    let dir = directory(&ipam, config);
    Ok(Settings { ipam, sets, wishes, dir })
}

fn add(call: &Call, settings: &Settings) -> Result<CniResult, CniError> {
    let dns = settings.ipam.resolv_conf.as_deref().map(read_resolv_conf).transpose()?;
    let store = Store::open(&settings.dir)?;
    let all = store.all()?;
    let its = |owner: &Owner| owner.container == call.container && owner.is_interface(&call.interface);
    if let Some((ip, _)) = all.iter().find(|(_, owner)| owner.as_ref().is_some_and(its)) {
        let text = format!("{ip} has been allocated to {}, duplicate allocation is not allowed", call.container);
        return Err(CniError::new(error::INTERNAL, text));
    }
    let taken = all.into_iter().filter(|(_, owner)| owner.is_some()).map(|(address, _)| address).collect();
    let ips = reserve_all(&store, call, settings, &taken).inspect_err(|_| {
        // All addresses or none; that it can't be given back is no news beside the first failure.
        store.release(|owner| owner.container == call.container && owner.is_interface(&call.interface)).ok();
    })?;
    Ok(CniResult { ips, routes: settings.ipam.routes.clone(), dns: dns.unwrap_or_default(), ..CniResult::default() })
}

fn reserve_all(store: &Store, call: &Call, settings: &Settings, taken: &BTreeSet<IpAddr>) -> Result<Vec<Ip>, CniError> {
    let owner = Owner { container: call.container.clone(), interface: call.interface.clone() };
    let mut wishes = settings.wishes.clone();
    let mut ips = Vec::new();
    for (place, set) in settings.sets.iter().enumerate() {
        let wish = wishes.iter().position(|wish| set.range_of(*wish).is_some()).map(|at| wishes.remove(at));
        let (address, range) = match wish {
            Some(address) => (address, wished(set, address, taken, place)?),
            None => {
                let last = store.last_reserved(place)?;
                pick(set, last, taken).ok_or_else(|| {
                    CniError::new(
                        error::INTERNAL,
                        format!("failed to allocate for range {place}: no IP addresses available in range set: {set}"),
                    )
                })?
            }
        };
        store.reserve(address, &owner)?;
        store.set_last_reserved(place, address)?;
        let cidr = k3sd_netlink::Cidr::new(address, range.subnet.bits()).unwrap_or(range.subnet);
        ips.push(Ip { interface: None, address: cidr.to_string(), gateway: Some(range.gateway.to_string()) });
    }
    if wishes.is_empty() {
        return Ok(ips);
    }
    let left: Vec<String> = wishes.iter().map(ToString::to_string).collect();
    Err(CniError::config(format!("failed to allocate all requested IPs: {}", left.join(","))))
}

fn wished<'a>(
    set: &'a RangeSet,
    address: IpAddr,
    taken: &BTreeSet<IpAddr>,
    place: usize,
) -> Result<&'a Range, CniError> {
    let failed = |why: String| CniError::new(error::INTERNAL, format!("failed to allocate for range {place}: {why}"));
    let range = set.range_of(address).ok_or_else(|| failed(format!("{address} is in no range")))?;
    if address == range.gateway {
        return Err(failed(format!("requested ip {address} is subnet's gateway")));
    }
    if taken.contains(&address) {
        return Err(failed(format!("requested IP address {address} is not available in range set {set}")));
    }
    Ok(range)
}

/// What a resolver's file says.
fn read_resolv_conf(path: &Path) -> Result<Dns, CniError> {
    let text = std::fs::read_to_string(path).map_err(|source| CniError::file("read", path, &source))?;
    let mut dns = Dns::default();
    for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        let keyword = words.next();
        let rest = words.map(str::to_owned);
        match keyword {
            Some("nameserver") => dns.nameservers.extend(rest.take(1)),
            Some("domain") => dns.domain = rest.take(1).collect(),
            Some("search") => dns.search.extend(rest),
            Some("options") => dns.options.extend(rest),
            _ => {}
        }
    }
    Ok(dns)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
