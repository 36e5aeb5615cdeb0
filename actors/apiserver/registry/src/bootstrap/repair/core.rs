//! What is wrong with the addresses and ports of Services, and what to do about it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use crate::special::read::text;
use crate::special::services::families::cluster_ips;
use crate::special::services::ports::{PortRange, Ports, health_check_port, node_ports};
use crate::special::services::{Family, LABEL_FAMILY, LABEL_MANAGED_BY, MANAGED_BY, Range, held_addresses};

/// How long an address may belong to a Service that isn't there yet, in seconds: a request takes no longer.
pub(super) const GRACE_SECONDS: i64 = 60;

/// How often a port is seen without an owner before it is freed; upstream's.
const LEAK_LOOKS: u32 = 3;

/// Something to tell people, as an event about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) reason: &'static str,
    pub(super) action: &'static str,
    pub(super) note: String,
}

/// What to do about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing; only tell.
    Tell,
    /// Make the `IPAddress`.
    Create(IpAddr),
    /// Delete the `IPAddress` and make it anew.
    Recreate(IpAddr),
}

/// What is known of other objects.
pub(super) trait Lookup {
    /// An `IPAddress` by its name.
    fn address(&self, name: &str) -> Option<Value>;
    /// A Service.
    fn service(&self, namespace: &str, name: &str) -> Option<Value>;
    /// All ranges.
    fn ranges(&self) -> &[Range];
}

fn complaint(reason: &'static str, note: String) -> Option<Complaint> {
    Some(Complaint { reason, action: "ClusterIPAllocation", note })
}

/// Looks at the addresses of a Service.
pub(super) fn check_service(service: &Value, known: &impl Lookup) -> Vec<(Step, Option<Complaint>)> {
    held_addresses(service).iter().filter_map(|held| check_address(service, held, known)).collect()
}

fn check_address(service: &Value, held: &str, known: &impl Lookup) -> Option<(Step, Option<Complaint>)> {
    let (namespace, name) = (text(service, "/metadata/namespace"), text(service, "/metadata/name"));
    let Ok(address) = held.parse::<IpAddr>() else {
        let note = format!("Cluster IP {held} is not a valid IP; please recreate Service");
        let action = "ClusterIPValidation";
        return Some((Step::Tell, Some(Complaint { reason: "ClusterIPNotValid", action, note })));
    };
    let family = Family::of(address);
    if !known.ranges().iter().any(|range| range.contains(address)) {
        let note = format!(
            "Cluster IP [{family}]: {address} is not within any configured Service CIDR; please recreate service"
        );
        return Some((Step::Tell, complaint("ClusterIPOutOfRange", note)));
    }
    let Some(found) = known.address(&address.to_string()) else {
        let note = format!("Cluster IP [{family}]: {address} is not allocated; repairing");
        return Some((Step::Create(address), complaint("ClusterIPNotAllocated", note)));
    };
    let wrong = || {
        let note = format!(
            "the ClusterIP [{family}]: {address} for Service {namespace}/{name} has a wrong reference; repairing"
        );
        Some((Step::Recreate(address), complaint("ClusterIPNotAllocated", note)))
    };
    let Some((owner_namespace, owner)) = owner(&found) else { return wrong() };
    if (owner_namespace, owner) != (namespace, name) {
        let Some(other) = known.service(owner_namespace, owner) else { return wrong() };
        if !cluster_ips(&other).contains(&held) {
            return wrong();
        }
        let note =
            format!("Cluster IP [{family}]:{address} was assigned to multiple services; please recreate service");
        return Some((Step::Tell, complaint("ClusterIPAlreadyAllocated", note)));
    }
    let labels = &found["metadata"]["labels"];
    let labelled = labels[LABEL_FAMILY] == family.word() && labels[LABEL_MANAGED_BY] == MANAGED_BY;
    (!labelled).then_some((Step::Recreate(address), None))
}

/// The Service that an `IPAddress` refers to.
pub(super) fn owner(address: &Value) -> Option<(&str, &str)> {
    let parent = &address["spec"]["parentRef"];
    let service = text(parent, "/group").is_empty() && text(parent, "/resource") == "services";
    service.then(|| (text(parent, "/namespace"), text(parent, "/name")))
}

/// What to do about an `IPAddress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is right, or not ours.
    Stay,
    /// Its Service isn't there; look again after so many seconds.
    Wait(i64),
    /// It is deleted.
    Free(Complaint),
}

/// Looks at an `IPAddress`. `now` is seconds since 1970.
pub(super) fn check_owner(address: &Value, known: &impl Lookup, now: i64) -> Fate {
    if address["metadata"]["labels"][LABEL_MANAGED_BY] != MANAGED_BY {
        return Fate::Stay;
    }
    let name = text(address, "/metadata/name");
    let free = |reason, note| Fate::Free(Complaint { reason, action: "IPAddressAllocation", note });
    let Some((namespace, service)) = owner(address) else {
        let parent = &address["spec"]["parentRef"];
        let shown = format!("{}/{}", text(parent, "/resource"), text(parent, "/name"));
        let note =
            format!("IPAddress {name} appears to have been modified, not referencing a Service {shown}: cleaning up");
        return free("IPAddressNotAllocated", note);
    };
    let found = known.service(namespace, service);
    if found.as_ref().is_some_and(|found| cluster_ips(found).contains(&name)) {
        return Fate::Stay;
    }
    // A request takes an address before it writes the Service.
    let made = text(address, "/metadata/creationTimestamp").parse::<jiff::Timestamp>();
    let left = made.map_or(-1, |made| made.as_second() + GRACE_SECONDS - now);
    if left >= 0 {
        return Fate::Wait(left + 1);
    }
    if found.is_none() {
        let note = format!("IPAddress: {name} for Service {namespace}/{service} appears to have leaked: cleaning up");
        return free("IPAddressNotAllocated", note);
    }
    let note = format!("IPAddress: {name} for Service {namespace}/{service} has a wrong reference; cleaning up");
    free("IPAddressWrongReference", note)
}

/// Compares the ports that are taken with those that Services have. Answers what should be taken, and what to tell about
/// which Service (by its index). `leaks` counts how often each port was seen without an owner.
pub(super) fn check_ports(
    services: &[Value],
    stored: Option<&Ports>,
    range: PortRange,
    leaks: &mut BTreeMap<u16, u32>,
) -> (Ports, Vec<(usize, Complaint)>) {
    let (mut rebuilt, mut complaints) = (Ports::new(range), Vec::new());
    for (index, service) in services.iter().enumerate() {
        let mut own = BTreeSet::new();
        for port in node_ports(service).into_iter().chain(health_check_port(service)) {
            if !own.insert(port) {
                continue; // TCP and UDP share it.
            }
            let known = stored.is_none_or(|stored| stored.has(port));
            if let Some((reason, note)) = take(&mut rebuilt, port, known, range) {
                complaints.push((index, Complaint { reason, action: "PortAllocation", note }));
            }
        }
    }
    let leaked: BTreeSet<u16> =
        stored.map(|stored| stored.taken().difference(rebuilt.taken()).copied().collect()).unwrap_or_default();
    leaks.retain(|port, _| leaked.contains(port));
    for port in leaked {
        let looks = leaks.entry(port).or_default();
        *looks += 1;
        if *looks <= LEAK_LOOKS {
            // Its Service may be on its way.
            rebuilt.take(i64::from(port)).ok();
        } else {
            leaks.remove(&port);
        }
    }
    (rebuilt, complaints)
}

fn take(rebuilt: &mut Ports, port: u16, known: bool, range: PortRange) -> Option<(&'static str, String)> {
    use crate::special::services::ports::PortError;

    match rebuilt.take(i64::from(port)) {
        Ok(_) if known => None,
        Ok(_) => Some(("PortNotAllocated", format!("Port {port} is not allocated; repairing"))),
        Err(PortError::Allocated) => {
            let note = format!("Port {port} was assigned to multiple services; please recreate service");
            Some(("PortAlreadyAllocated", note))
        }
        Err(_) => {
            let note = format!("Port {port} is not within the port range {range}; please recreate service");
            Some(("PortOutOfRange", note))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;
    use crate::special::services::ip_address;

    #[derive(Default)]
    struct Known {
        addresses: HashMap<String, Value>,
        services: HashMap<String, Value>,
        ranges: Vec<Range>,
    }

    impl Lookup for Known {
        fn address(&self, name: &str) -> Option<Value> {
            self.addresses.get(name).cloned()
        }

        fn service(&self, namespace: &str, name: &str) -> Option<Value> {
            self.services.get(&format!("{namespace}/{name}")).cloned()
        }

        fn ranges(&self) -> &[Range] {
            &self.ranges
        }
    }

    fn service(name: &str, address: &str) -> Value {
        json!({"metadata": {"namespace": "ns", "name": name}, "spec": {"type": "ClusterIP", "clusterIP": address,
            "clusterIPs": [address]}})
    }

    fn known(addresses: &[&Value], services: &[&Value]) -> Known {
        let name = |object: &Value| text(object, "/metadata/name").to_owned();
        Known {
            addresses: addresses.iter().map(|one| (name(one), (*one).clone())).collect(),
            services: services.iter().map(|one| (format!("ns/{}", name(one)), (*one).clone())).collect(),
            ranges: vec!["10.0.0.0/24".parse().expect("range")],
        }
    }

    #[test]
    fn the_addresses_of_services() {
        let (a, b) = (service("a", "10.0.0.5"), service("b", "10.0.0.5"));
        let address: IpAddr = "10.0.0.5".parse().expect("address");
        let of_a = ip_address(address, &a);
        let moved = service("a", "10.0.0.6");
        let mut unlabelled = of_a.clone();
        unlabelled["metadata"]["labels"] = json!({});
        let mut foreign = of_a.clone();
        foreign["spec"]["parentRef"] = json!({"group": "gateway", "resource": "gateways", "name": "g"});
        for (subject, known, expected) in [
            (&a, known(&[&of_a], &[&a]), vec![]),
            (&a, known(&[], &[&a]), vec![(Step::Create(address), "ClusterIPNotAllocated")]),
            (&b, known(&[&of_a], &[&a]), vec![(Step::Tell, "ClusterIPAlreadyAllocated")]),
            (&b, known(&[&of_a], &[&b]), vec![(Step::Recreate(address), "ClusterIPNotAllocated")]),
            (&b, known(&[&of_a], &[&moved]), vec![(Step::Recreate(address), "ClusterIPNotAllocated")]),
            (&a, known(&[&foreign], &[&a]), vec![(Step::Recreate(address), "ClusterIPNotAllocated")]),
            (&a, known(&[&unlabelled], &[&a]), vec![(Step::Recreate(address), "")]),
            (&service("a", "10.1.0.5"), known(&[], &[]), vec![(Step::Tell, "ClusterIPOutOfRange")]),
            (&service("a", "rubbish"), known(&[], &[]), vec![(Step::Tell, "ClusterIPNotValid")]),
            (&service("a", "None"), known(&[], &[]), vec![]),
        ] {
            let found = check_service(subject, &known);
            let found: Vec<_> =
                found.iter().map(|(step, told)| (*step, told.as_ref().map_or("", |told| told.reason))).collect();
            assert_eq!(found, expected, "{subject}");
        }
    }

    #[test]
    fn addresses_without_an_owner() {
        let a = service("a", "10.0.0.5");
        let mut address = ip_address("10.0.0.5".parse().expect("address"), &a);
        address["metadata"]["creationTimestamp"] = json!("1970-01-01T00:01:40Z");
        let reason = |fate: Fate| match fate {
            Fate::Free(complaint) => complaint.reason.to_owned(),
            other => format!("{other:?}"),
        };
        let mut other = address.clone();
        other["metadata"]["labels"][LABEL_MANAGED_BY] = json!("somebody");
        let mut foreign = address.clone();
        foreign["spec"]["parentRef"]["resource"] = json!("gateways");
        let moved = service("a", "10.0.0.6");
        for (address, services, now, expected) in [
            (&address, vec![&a], 100, "Stay"),
            (&address, vec![], 130, "Wait(31)"),
            (&address, vec![], 160, "Wait(1)"),
            (&address, vec![], 161, "IPAddressNotAllocated"),
            (&address, vec![&moved], 130, "Wait(31)"),
            (&address, vec![&moved], 200, "IPAddressWrongReference"),
            (&foreign, vec![&a], 100, "IPAddressNotAllocated"),
            (&other, vec![], 1000, "Stay"),
        ] {
            assert_eq!(reason(check_owner(address, &known(&[], &services), now)), expected);
        }
    }

    #[test]
    fn ports_are_counted_again() {
        let with = |name: &str, ports: &[i64]| {
            let ports: Vec<Value> = ports.iter().map(|port| json!({"nodePort": port})).collect();
            json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": ports}})
        };
        let services = [with("a", &[30_001, 30_001]), with("b", &[30_001, 30_002]), with("c", &[80])];
        let mut stored = Ports::new(PortRange::DEFAULT);
        for port in [30_001, 30_777] {
            stored.take(port).expect("free");
        }
        let mut leaks = BTreeMap::new();
        for look in 1..=4 {
            let (rebuilt, told) = check_ports(&services, Some(&stored), PortRange::DEFAULT, &mut leaks);
            let told: Vec<_> = told.iter().map(|(index, told)| (*index, told.reason)).collect();
            let mut expected = vec![(1, "PortAlreadyAllocated"), (2, "PortOutOfRange")];
            if look == 1 {
                expected.insert(1, (1, "PortNotAllocated"));
            }
            assert_eq!(told, expected);
            assert_eq!(rebuilt.has(30_777), look < 4, "look {look}");
            assert!(rebuilt.has(30_001) && rebuilt.has(30_002));
            stored = rebuilt;
        }
        let (rebuilt, told) = check_ports(&services[..1], None, PortRange::DEFAULT, &mut leaks);
        assert_eq!((rebuilt.taken().len(), told.len()), (1, 0), "there was nothing to compare with");
    }
}
