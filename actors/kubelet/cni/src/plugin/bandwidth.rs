//! `bandwidth`: limits what a container receives and sends.
//!
//! What it receives, the host's end of its pair sends. What it sends, that end receives, which the kernel can't limit;
//! so it is led through a device made for that, and limited where that one sends it.

use std::path::Path;

use k3sd_netlink::Namespace;
use k3sd_netlink::route::{Desired, Kind, Link, LinkSpec, Route};
use k3sd_netlink::traffic::{self, Limit};
use serde::Deserialize;

use super::call::{Call, Command, Config};
use super::error::{self, CniError};
use super::hash;
use super::result::CniResult;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BandwidthConfig {
    runtime_config: RuntimeConfig,
    #[serde(flatten)]
    limits: Limits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    bandwidth: Option<Limits>,
}

/// Bits in a second, and bits at once; none of either is no limit. containerd writes the names with a capital, which
/// plugins in Go don't notice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Limits {
    #[serde(alias = "IngressRate")]
    ingress_rate: u64,
    #[serde(alias = "IngressBurst")]
    ingress_burst: u64,
    #[serde(alias = "EgressRate")]
    egress_rate: u64,
    #[serde(alias = "EgressBurst")]
    egress_burst: u64,
}

/// The name of the device through which a container's packets are led.
pub(crate) fn device(owner: &str) -> String {
    format!("bwp{:011x}", hash(owner) & 0xfff_ffff_ffff)
}

/// One direction's limit, if it has one. Pure.
fn limit(rate: u64, burst: u64, what: &str) -> Result<Option<Limit>, CniError> {
    match (rate, burst) {
        (0, 0) => Ok(None),
        (0, _) => Err(CniError::config(format!("if burst is set, rate must also be set: {what}"))),
        (_, 0) => Err(CniError::config(format!("if rate is set, burst must also be set: {what}"))),
        // Kubernetes says "no limit to the burst" by the greatest number that it can write down.
        (rate, burst) => Ok(Some(Limit {
            bytes_per_second: (rate / 8).max(1),
            burst_bytes: u32::try_from((burst / 8).max(1)).unwrap_or(u32::MAX),
        })),
    }
}

fn limits(config: &Config) -> Result<(Option<Limit>, Option<Limit>), CniError> {
    let settings: BandwidthConfig = config.read()?;
    let limits = settings.runtime_config.bandwidth.unwrap_or(settings.limits);
    let ingress = limit(limits.ingress_rate, limits.ingress_burst, "ingress")?;
    Ok((ingress, limit(limits.egress_rate, limits.egress_burst, "egress")?))
}

/// Serves a call of any command; only `ADD` has a result.
///
/// # Errors
/// As CNI has them.
pub(crate) fn handle(call: &Call, config: &Config) -> Result<Option<CniResult>, CniError> {
    match call.command {
        Command::Add => add(call, config).map(Some),
        Command::Delete => {
            Route::open()?.delete_link(&device(&call.owner()))?;
            Ok(None)
        }
        Command::Check => check(call, config).map(|()| None),
        Command::Collect => {
            let valid = config.common.valid_attachments.clone().unwrap_or_default();
            let devices = valid.iter().map(|valid| device(&format!("{}/{}", valid.container, valid.interface)));
            let devices: Vec<String> = devices.collect();
            let mut route = Route::open()?;
            let ours = |link: &Link| link.kind == "ifb" && link.name.starts_with("bwp");
            for link in route.links()?.into_iter().filter(|link| ours(link) && !devices.contains(&link.name)) {
                route.delete_link(&link.name)?;
            }
            Ok(None)
        }
        Command::Status | Command::Version => Ok(None),
    }
}

fn add(call: &Call, config: &Config) -> Result<CniResult, CniError> {
    let (ingress, egress) = limits(config)?;
    let previous = config.previous_needed()?;
    if ingress.is_none() && egress.is_none() {
        return Ok(previous);
    }
    let mut route = Route::open()?;
    let host = host_end(&mut route, call, &previous)?;
    if let Some(limit) = ingress {
        traffic::limit(&mut route, &host.name, host.index, limit)?;
    }
    if let Some(limit) = egress {
        let name = device(&call.owner());
        let spec = LinkSpec {
            name: name.clone(),
            kind: Some(Kind::Ifb),
            up: Some(true),
            mtu: Some(host.mtu),
            ..LinkSpec::default()
        };
        let led = route.converge(&Desired { links: vec![spec], ..Desired::default() });
        led.map_err(|error| CniError { msg: format!("{error} (needs the kernel's ifb)"), ..error.into() })?;
        let gone = || CniError::new(error::INTERNAL, format!("{name} is missing"));
        let index = route.link(&name)?.ok_or_else(gone)?.index;
        traffic::limit(&mut route, &name, index, limit)?;
        traffic::redirect_received(&mut route, &host.name, host.index, index)?;
    }
    Ok(previous)
}

/// The host's end of the container's pair.
fn host_end(route: &mut Route, call: &Call, previous: &CniResult) -> Result<Link, CniError> {
    let path = call.namespace.as_deref().unwrap_or(Path::new(""));
    // Whoever has no such namespace any more has no pair either.
    Namespace::open(path)?;
    for interface in previous.interfaces.iter().filter(|interface| interface.sandbox.is_empty()) {
        if let Some(link) = route.link(&interface.name)?.filter(|link| link.kind == "veth") {
            return Ok(link);
        }
    }
    Err(CniError::config(format!("no host interface of {} found in the previous result", call.container)))
}

fn check(call: &Call, config: &Config) -> Result<(), CniError> {
    let (ingress, egress) = limits(config)?;
    let previous = config.previous_needed()?;
    let mut route = Route::open()?;
    let host = host_end(&mut route, call, &previous)?;
    let device = route.link(&device(&call.owner()))?;
    for (limit, link, what) in [(ingress, Some(host), "ingress"), (egress, device, "egress")] {
        let Some(limit) = limit else { continue };
        let found = link.map(|link| traffic::limit_of(&mut route, link.index)).transpose()?.flatten();
        if found != Some(limit.bytes_per_second) {
            return Err(CniError::new(error::INTERNAL, format!("the {what} limit of {} is missing", call.container)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_write_names_in_two_ways() {
        for text in [
            r#"{"bandwidth":{"IngressRate":1,"IngressBurst":2,"EgressRate":3,"EgressBurst":4}}"#,
            r#"{"bandwidth":{"ingressRate":1,"ingressBurst":2,"egressRate":3,"egressBurst":4}}"#,
        ] {
            let read: RuntimeConfig = serde_json::from_str(text).unwrap();
            let wanted = Limits { ingress_rate: 1, ingress_burst: 2, egress_rate: 3, egress_burst: 4 };
            assert_eq!(read.bandwidth, Some(wanted), "{text}");
        }
    }

    #[test]
    fn bits_become_bytes() {
        let expected = Limit { bytes_per_second: 125_000, burst_bytes: u32::MAX };
        assert_eq!(limit(1_000_000, u64::MAX, "x").unwrap(), Some(expected));
        assert_eq!(limit(0, 0, "x").unwrap(), None);
        assert!(limit(8, 0, "x").is_err() && limit(0, 8, "x").is_err());
    }
}
