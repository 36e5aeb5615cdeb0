//! Ports of nodes: which are taken, how that is stored, and which a Service gets.
//!
//! What is taken lies in one `RangeAllocation`, so that two servers can't give out the same port: a bit for each port of
//! the range. What a request does to it is decided here on a copy, and written whole or not at all.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k3sd_objects::status::field::{Error as FieldError, Path};
use k3sd_objects::status::{Qualified, Status};
use k3sd_runtime::Rng;
use serde_json::{Value, json};
use thiserror::Error;

use crate::special::read::{items, number, text};

/// Where the allocation is stored.
pub(crate) const KEY: &str = "/registry/ranges/servicenodeports";

/// Bounds of the part that is left to chosen ports.
const STATIC_LEAST: u16 = 16;
const STATIC_MOST: u16 = 128;
/// Which part of the range that is, within the bounds.
const STATIC_PART: u16 = 32;

/// Why a text is no range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a first and a last port with a hyphen between them")]
pub struct PortRangeError;

/// The ports that Services may open on nodes: first and last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The range of clusters that don't say: 30000 to 32767.
    pub const DEFAULT: Self = Self { first: 30_000, last: 32_767 };

    fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// How many ports are left to those who choose.
    fn chosen(self) -> u16 {
        let size = (self.last - self.first).saturating_add(1);
        if size <= STATIC_LEAST { 0 } else { (size / STATIC_PART).clamp(STATIC_LEAST, STATIC_MOST) }
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, PortRangeError> {
        let (first, last) = text.split_once('-').ok_or(PortRangeError)?;
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| PortRangeError);
        let (first, last) = (port(first)?, port(last)?);
        if first == 0 || last < first { Err(PortRangeError) } else { Ok(Self { first, last }) }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.first, self.last)
    }
}

/// Why a port isn't given out. The texts are shown to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PortError {
    /// Every port has an owner.
    #[error("range is full")]
    Full,
    /// This one has.
    #[error("provided port is already allocated")]
    Allocated,
    /// It is none of them.
    #[error("provided port is not in the valid range. The range of valid ports is {0}")]
    NotInRange(PortRange),
}

/// Which ports are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    range: PortRange,
    taken: BTreeSet<u16>,
}

impl Ports {
    /// None is.
    pub(crate) fn new(range: PortRange) -> Self {
        Self { range, taken: BTreeSet::new() }
    }

    /// Takes this port.
    pub(crate) fn take(&mut self, port: i64) -> Result<u16, PortError> {
        let found = u16::try_from(port).ok().filter(|port| self.range.contains(*port));
        let port = found.ok_or(PortError::NotInRange(self.range))?;
        if self.taken.insert(port) { Ok(port) } else { Err(PortError::Allocated) }
    }

    /// Takes any port, rather one that nobody would choose.
    fn take_any(&mut self, rng: &mut Rng) -> Result<u16, PortError> {
        let border = self.range.first + self.range.chosen();
        for (from, to) in [(border, self.range.last), (self.range.first, border.saturating_sub(1))] {
            if to < from {
                continue;
            }
            let length = u32::from(to - from) + 1;
            let start = u32::try_from(rng.below(u64::from(length))).unwrap_or_default();
            let ports = (0..length).map(|step| from + u16::try_from((start + step) % length).unwrap_or_default());
            if let Some(free) = ports.into_iter().find(|port| !self.taken.contains(port)) {
                self.taken.insert(free);
                return Ok(free);
            }
        }
        Err(PortError::Full)
    }

    /// Gives ports back; one that wasn't taken is no matter.
    pub(crate) fn release(&mut self, ports: &[u16]) {
        for port in ports {
            self.taken.remove(port);
        }
    }

    /// Whether the port is taken.
    pub(crate) fn has(&self, port: u16) -> bool {
        self.taken.contains(&port)
    }

    /// The taken ones.
    pub(crate) fn taken(&self) -> &BTreeSet<u16> {
        &self.taken
    }

    /// What is stored: the bits as one number, its highest byte first.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let highest = self.taken.last().map_or(0, |port| usize::from(port - self.range.first) / 8 + 1);
        let mut bits = vec![0_u8; highest];
        for port in &self.taken {
            let offset = usize::from(port - self.range.first);
            bits[highest - 1 - offset / 8] |= 1 << (offset % 8);
        }
        let stored = json!({
            "apiVersion": "v1",
            "data": STANDARD.encode(bits),
            "kind": "RangeAllocation",
            "metadata": {"creationTimestamp": null},
            "range": self.range.to_string(),
        });
        k3sd_objects::decode::to_bytes(&stored)
    }

    /// Reads what is stored. `None` if it is about another range or isn't ours: then the Services say what is taken.
    pub(crate) fn from_bytes(stored: &[u8], range: PortRange) -> Option<Self> {
        let stored: Value = serde_json::from_slice(stored).ok()?;
        if text(&stored, "/range").parse() != Ok(range) {
            return None;
        }
        let bits = STANDARD.decode(text(&stored, "/data")).ok()?;
        let mut ports = Self::new(range);
        for (index, byte) in bits.iter().rev().enumerate() {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                let port = i64::try_from(index * 8 + bit).ok()? + i64::from(range.first);
                ports.take(port).ok()?;
            }
        }
        Some(ports)
    }
}

/// What a request did to the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortChange {
    /// Taken now; to be given back if the Service isn't written.
    pub(crate) taken: Vec<u16>,
    /// To be given back once the Service is written.
    pub(crate) released: Vec<u16>,
}

/// The ports of nodes that a Service has.
pub(crate) fn node_ports(service: &Value) -> Vec<u16> {
    let ports = items(service, "/spec/ports").iter().map(|port| number(port, "/nodePort"));
    ports.filter(|port| *port != 0).filter_map(|port| u16::try_from(port).ok()).collect()
}

/// The port at which load balancers ask nodes about a Service.
pub(crate) fn health_check_port(service: &Value) -> Option<u16> {
    let port = number(service, "/spec/healthCheckNodePort");
    u16::try_from(port).ok().filter(|port| *port != 0 && needs_health_check(service))
}

/// Whether load balancers have to learn which nodes have pods of the Service.
pub(crate) fn needs_health_check(service: &Value) -> bool {
    text(service, "/spec/type") == "LoadBalancer" && text(service, "/spec/externalTrafficPolicy") == "Local"
}

/// Whether the Service is reached through ports of nodes.
pub(crate) fn has_node_ports(service: &Value) -> bool {
    matches!(text(service, "/spec/type"), "NodePort" | "LoadBalancer")
}

/// Whether the Service wants ports of nodes that nobody chose.
pub(crate) fn wants_node_ports(service: &Value) -> bool {
    let declined = service["spec"]["allocateLoadBalancerNodePorts"] == false;
    match text(service, "/spec/type") {
        "NodePort" => true,
        "LoadBalancer" => !declined,
        _ => false,
    }
}

fn refuse(service: &Value, index: usize, port: i64, error: PortError) -> Status {
    let path = Path::new("spec").child("ports").index(index).child("nodePort");
    let name = text(service, "/metadata/name");
    Status::invalid(Qualified::new("", "Service"), name, &[FieldError::invalid(&path, port, error.to_string())])
}

fn set_node_port(service: &mut Value, index: usize, port: u16) {
    service["spec"]["ports"][index]["nodePort"] = port.into();
}

/// Gives a new Service its ports. Two ports of the same number and other protocols share one.
pub(crate) fn on_create(service: &mut Value, ports: &mut Ports, rng: &mut Rng) -> Result<PortChange, Status> {
    let mut change = PortChange::default();
    let count = if has_node_ports(service) { items(service, "/spec/ports").len() } else { 0 };
    let mut shared: Vec<(i64, u16)> = Vec::new();
    for index in 0..count {
        let wish = |port: &Value| (number(port, "/port"), number(port, "/nodePort"));
        let (port, wanted) = wish(&service["spec"]["ports"][index]);
        if wanted == 0 && !wants_node_ports(service) {
            continue;
        }
        let found = shared.iter().find(|(of, _)| *of == port).map(|(_, taken)| *taken);
        if let Some(taken) = found.filter(|taken| [0, i64::from(*taken)].contains(&wanted)) {
            set_node_port(service, index, taken);
            continue;
        }
        let named = |other: &Value| Some(wish(other)).filter(|(of, chosen)| *of == port && *chosen != 0);
        let asked = match found {
            // A second choice for the same port.
            Some(_) => Some(wanted),
            None => items(service, "/spec/ports").iter().find_map(named).map(|(_, chosen)| chosen),
        };
        let taken = match asked {
            Some(asked) => ports.take(asked).map_err(|error| refuse(service, index, asked, error))?,
            None => ports
                .take_any(rng)
                .map_err(|error| Status::internal_error(format!("failed to allocate a nodePort: {error}")))?,
        };
        change.taken.push(taken);
        if found.is_none() {
            shared.push((port, taken));
            set_node_port(service, index, taken);
        }
    }
    if needs_health_check(service) {
        change.taken.push(take_health_check(service, ports, rng)?);
    }
    Ok(change)
}

fn take_health_check(service: &mut Value, ports: &mut Ports, rng: &mut Rng) -> Result<u16, Status> {
    let wanted = number(service, "/spec/healthCheckNodePort");
    let taken = if wanted == 0 {
        ports.take_any(rng).map_err(|error| format!("failed to allocate a HealthCheck NodePort 0: {error}"))
    } else {
        let what = "failed to allocate requested HealthCheck NodePort";
        ports.take(wanted).map_err(|error| format!("{what} {wanted}: {error}"))
    };
    let taken = taken.map_err(Status::internal_error)?;
    service["spec"]["healthCheckNodePort"] = taken.into();
    Ok(taken)
}

/// Gives a changed Service the ports that it lacks, and says which it doesn't need any more.
pub(crate) fn on_update(new: &mut Value, old: &Value, ports: &mut Ports, rng: &mut Rng) -> Result<PortChange, Status> {
    let mut change = PortChange::default();
    let before = node_ports(old);
    if has_node_ports(new) {
        take_lacking(new, &before, ports, rng, &mut change.taken)?;
        let after = node_ports(new);
        change.released = before.into_iter().filter(|port| !after.contains(port)).collect();
    } else if has_node_ports(old) {
        change.released = before;
    }
    match (health_check_port(old), needs_health_check(new)) {
        (None, true) if !needs_health_check(old) => change.taken.push(take_health_check(new, ports, rng)?),
        (Some(port), false) => change.released.push(port),
        _ => {}
    }
    Ok(change)
}

fn take_lacking(
    new: &mut Value,
    before: &[u16],
    ports: &mut Ports,
    rng: &mut Rng,
    taken: &mut Vec<u16>,
) -> Result<(), Status> {
    let mut seen = BTreeSet::new();
    for index in 0..items(new, "/spec/ports").len() {
        let port = &new["spec"]["ports"][index];
        let (wanted, protocol) = (number(port, "/nodePort"), text(port, "/protocol").to_owned());
        if wanted == 0 && !wants_node_ports(new) {
            continue;
        }
        let had = |list: &[u16]| list.iter().any(|port| i64::from(*port) == wanted);
        let got = if wanted == 0 {
            let any = ports
                .take_any(rng)
                .map_err(|error| Status::internal_error(format!("failed to allocate a nodePort: {error}")))?;
            taken.push(any);
            set_node_port(new, index, any);
            i64::from(any)
        } else {
            if !had(before) && !had(taken) {
                taken.push(ports.take(wanted).map_err(|error| refuse(new, index, wanted, error))?);
            }
            wanted
        };
        if !seen.insert((protocol.clone(), got)) {
            return Err(Status::internal_error(format!("duplicate nodePort: {{{protocol} {got}}}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng() -> Rng {
        Rng::seeded(5)
    }

    fn service(spec: Value) -> Value {
        json!({"metadata": {"name": "a"}, "spec": spec})
    }

    #[test]
    fn the_stored_form_is_a_number_in_bytes() {
        let mut ports = Ports::new(PortRange::DEFAULT);
        for port in [30_000, 30_009, 32_767] {
            ports.take(port).expect("free");
        }
        let bytes = ports.to_bytes();
        let stored: Value = serde_json::from_slice(&bytes).expect("JSON");
        let bits = STANDARD.decode(text(&stored, "/data")).expect("base64");
        assert_eq!((bits.len(), bits[0], bits[344], bits[345]), (346, 0x80, 0x02, 0x01));
        assert_eq!(Ports::from_bytes(&bytes, PortRange::DEFAULT), Some(ports));
        let other: PortRange = "20000-20100".parse().expect("range");
        assert_eq!(Ports::from_bytes(&bytes, other), None);
        for wrong in [&b""[..], b"k8s\0abc", b"{}", br#"{"range":"30000-32767","data":"!"}"#] {
            assert_eq!(Ports::from_bytes(wrong, PortRange::DEFAULT), None);
        }
        let empty = Ports::new(PortRange::DEFAULT);
        assert_eq!(Ports::from_bytes(&empty.to_bytes(), PortRange::DEFAULT), Some(empty));
    }

    #[test]
    fn any_port_is_one_of_the_upper_part_while_there_are_some() {
        let mut ports = Ports::new(PortRange::DEFAULT);
        for _ in 0..2768 - 86 {
            assert!(ports.take_any(&mut rng()).expect("free") >= 30_086);
        }
        for _ in 0..86 {
            assert!(ports.take_any(&mut rng()).expect("free") < 30_086);
        }
        assert_eq!(ports.take_any(&mut rng()), Err(PortError::Full));
        let mut tiny = Ports::new("7-8".parse().expect("range"));
        assert_eq!([tiny.take_any(&mut rng()).is_ok(), tiny.take_any(&mut rng()).is_ok()], [true, true]);
        assert_eq!(tiny.take_any(&mut rng()), Err(PortError::Full));
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!("30000-32767".parse(), Ok(PortRange::DEFAULT));
        for wrong in ["", "30000", "5-4", "0-5", "1-70000", "a-b"] {
            assert_eq!(wrong.parse::<PortRange>(), Err(PortRangeError), "{wrong}");
        }
    }

    #[test]
    fn a_new_service_shares_ports_between_protocols() {
        let mut ports = Ports::new(PortRange::DEFAULT);
        let mut dns = service(json!({"type": "NodePort", "ports": [
            {"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}, {"port": 80, "protocol": "TCP"}]}));
        let change = on_create(&mut dns, &mut ports, &mut rng()).expect("given");
        let got = node_ports(&dns);
        assert_eq!((got[0] == got[1], got[0] == got[2], change.taken.len()), (true, false, 2));
        assert!(change.taken.iter().all(|port| ports.has(*port)));

        let mut named = service(json!({"type": "NodePort", "ports": [
            {"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP", "nodePort": 30053}]}));
        let change = on_create(&mut named, &mut ports, &mut rng()).expect("given");
        assert_eq!((node_ports(&named), change.taken), (vec![30_053, 30_053], vec![30_053]));
    }

    #[test]
    fn refusals_say_where_and_why() {
        for (node_port, why) in [
            (30_080, "provided port is already allocated"),
            (80, "provided port is not in the valid range. The range of valid ports is 30000-32767"),
            (-5, "provided port is not in the valid range. The range of valid ports is 30000-32767"),
        ] {
            let mut ports = Ports::new(PortRange::DEFAULT);
            ports.take(30_080).expect("free");
            let spec = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": node_port}]});
            let expected =
                format!("Service \"a\" is invalid: spec.ports[0].nodePort: Invalid value: {node_port}: {why}");
            let status = on_create(&mut service(spec.clone()), &mut ports, &mut rng()).expect_err("refused");
            assert_eq!((status.http_code(), status.message), (422, expected.clone()));
            let old = service(json!({"type": "ClusterIP", "ports": [{"port": 1}]}));
            let status = on_update(&mut service(spec), &old, &mut ports, &mut rng()).expect_err("refused");
            assert_eq!((status.http_code(), status.message), (422, expected));
        }
    }

    #[test]
    fn no_ports_for_those_who_decline_and_health_checks_for_local_traffic() {
        let mut ports = Ports::new(PortRange::DEFAULT);
        let mut declined = service(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
            "ports": [{"port": 1}, {"port": 2, "nodePort": 30_002}]}));
        let change = on_create(&mut declined, &mut ports, &mut rng()).expect("given");
        assert_eq!((node_ports(&declined), change.taken), (vec![30_002], vec![30_002]));

        let mut local = service(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 30_100, "ports": [{"port": 1}]}));
        let change = on_create(&mut local, &mut ports, &mut rng()).expect("given");
        assert_eq!((change.taken.len(), health_check_port(&local)), (2, Some(30_100)));
        let again = on_create(&mut local.clone(), &mut ports, &mut rng()).expect_err("taken");
        assert_eq!(again.http_code(), 422, "its node port is taken first");

        let mut cluster = local.clone();
        cluster["spec"]["externalTrafficPolicy"] = json!("Cluster");
        let change = on_update(&mut cluster, &local, &mut ports, &mut rng()).expect("changed");
        assert_eq!(change, PortChange { taken: vec![], released: vec![30_100] });
    }

    #[test]
    fn changes_of_type_take_and_release() {
        let mut ports = Ports::new(PortRange::DEFAULT);
        let old = service(json!({"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP"}]}));
        let mut new = service(json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]}));
        let change = on_update(&mut new, &old, &mut ports, &mut rng()).expect("changed");
        assert_eq!((change.taken.clone(), change.released), (node_ports(&new), vec![]));
        let back = on_update(&mut old.clone(), &new, &mut ports, &mut rng()).expect("changed");
        assert_eq!((back.taken, back.released), (vec![], change.taken.clone()));

        let mut moved =
            service(json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30_001}]}));
        let moving = on_update(&mut moved, &new, &mut ports, &mut rng()).expect("changed");
        assert_eq!((moving.taken, moving.released), (vec![30_001], change.taken));

        let mut twice = service(json!({"type": "NodePort", "ports": [
            {"port": 80, "protocol": "TCP", "nodePort": 30_001}, {"port": 81, "protocol": "TCP", "nodePort": 30_001}]}));
        let status = on_update(&mut twice, &moved, &mut ports, &mut rng()).expect_err("twice");
        assert_eq!(status.message, "Internal error occurred: duplicate nodePort: {TCP 30001}");
    }
}
