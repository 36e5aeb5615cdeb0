//! What the kernel does with packets for Services, read back from its tables.
//!
//! The proxy's maps are read as bytes: a service is a protocol, an address and a port, and leads to how many endpoints
//! it has; each endpoint is the same with an index, and leads to an address and a port. Parts are padded to four bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k3sd_netlink::NetlinkError;
use k3sd_netlink::nft::{Data, Family, Netfilter};
use serde_json::Value;

use super::settled::{number, text};

/// The proxy's table, and its maps.
pub const TABLE: &str = "k3sd-proxy";
const SERVICES: &str = "services";
const ENDPOINTS: &str = "endpoints";
/// Where the indexes of endpoints begin for those who are shown only these of the node.
const LOCAL_INDEX: u32 = 1 << 24;
/// What stands for all addresses of the node: with a port for each service, and with those of load balancers.
const NODE_PORTS: Ipv4Addr = Ipv4Addr::new(0, 0, 0, 0);
const BALANCER: Ipv4Addr = Ipv4Addr::new(0, 0, 0, 1);
/// The number of the one protocol that there is here.
const TCP: u8 = 6;

/// Where a service is reached: a protocol, an address and a port.
pub type Front = (u8, Ipv4Addr, u16);
/// Where packets are sent.
pub type Endpoint = (Ipv4Addr, u16);

/// What the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// How many endpoints there are to be: for everybody, and for those who are shown only these of the node.
    pub services: BTreeMap<Front, [u32; 2]>,
    /// By service and index.
    pub endpoints: BTreeMap<(Front, u32), Endpoint>,
}

fn word(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(4 * at..4 * at + 4)?.try_into().ok()
}

fn port(word: [u8; 4]) -> u16 {
    u16::from_be_bytes([word[0], word[1]])
}

fn front(key: &[u8]) -> Option<Front> {
    Some((word(key, 0)?[0], word(key, 1)?.into(), port(word(key, 2)?)))
}

impl Rules {
    /// Reads them; nothing as long as the proxy has not made its table.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    ///
    /// # Panics
    /// When an element has another form than said above.
    pub fn read(netfilter: &mut Netfilter) -> Result<Self, NetlinkError> {
        let mut read = |set| match netfilter.elements(Family::Ip, TABLE, set) {
            Err(error) if error.is_gone() => Ok(BTreeMap::new()),
            read => read,
        };
        let mut rules = Self::default();
        for (key, element) in read(SERVICES)? {
            let Some(Data::Value(value)) = element.data else { continue };
            let count = |at| word(&value, at).map(u32::from_ne_bytes);
            let counts = count(2).zip(count(3)).map(|(all, local)| [all, local]);
            let service = front(&key).zip(counts).expect("it is a service");
            rules.services.extend([service]);
        }
        for (key, element) in read(ENDPOINTS)? {
            let Some(Data::Value(value)) = element.data else { continue };
            let index = word(&key, 3).map(u32::from_ne_bytes);
            let place = word(&value, 0).zip(word(&value, 1)).map(|(address, at)| (address.into(), port(at)));
            let (key, place) = front(&key).zip(index).zip(place).expect("it is an endpoint");
            rules.endpoints.insert(key, place);
        }
        Ok(rules)
    }
}

/// What is wrong at any moment: a service has exactly the endpoints that it counts, since it changes together with
/// them.
#[must_use]
pub fn check_whole(rules: &Rules) -> Vec<String> {
    let counted = rules.services.iter().flat_map(|(front, [all, local])| {
        let indexes = (0..*all).chain(LOCAL_INDEX..LOCAL_INDEX + local);
        indexes.map(|index| (*front, index))
    });
    let counted: BTreeSet<(Front, u32)> = counted.collect();
    let found: BTreeSet<(Front, u32)> = rules.endpoints.keys().copied().collect();
    let missing = counted.difference(&found).map(|(front, index)| format!("endpoint {index} of {front:?} is missing"));
    let left = found.difference(&counted).map(|(front, index)| format!("endpoint {index} of {front:?} is left over"));
    missing.chain(left).collect()
}

fn as_port(number: i64) -> u16 {
    u16::try_from(number).unwrap_or_default()
}

/// The fronts of a port of a service.
fn fronts(service: &Value, of: &Value) -> Vec<Front> {
    let at = |text: &str| text.parse::<Ipv4Addr>().ok();
    let mut found: Vec<Ipv4Addr> = at(text(service, "/spec/clusterIP")).into_iter().collect();
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
    let ingress: Vec<Ipv4Addr> = ingress.filter_map(|one| at(text(one, "/ip"))).collect();
    if !ingress.is_empty() {
        found.push(BALANCER);
        found.extend(ingress);
    }
    let mut fronts: Vec<Front> =
        found.into_iter().map(|address| (TCP, address, as_port(number(of, "/port")))).collect();
    let node_port = as_port(number(of, "/nodePort"));
    fronts.extend((node_port > 0).then_some((TCP, NODE_PORTS, node_port)));
    fronts
}

/// The ready endpoints of a port of a service.
fn ready(service: &Value, of: &Value, slices: &[Value]) -> BTreeSet<Endpoint> {
    let name = text(service, "/metadata/name");
    let own = slices.iter().filter(|one| one["metadata"]["labels"]["kubernetes.io/service-name"] == name);
    let mut found = BTreeSet::new();
    for slice in own {
        let ports = slice["ports"].as_array().into_iter().flatten();
        for port in ports.filter(|port| text(port, "/name") == text(of, "/name")) {
            let endpoints = slice["endpoints"].as_array().into_iter().flatten();
            let ready = endpoints.filter(|one| one["conditions"]["ready"] != false);
            let addresses = ready.filter_map(|one| text(one, "/addresses/0").parse::<Ipv4Addr>().ok());
            found.extend(addresses.map(|address| (address, as_port(number(port, "/port")))));
        }
    }
    found
}

/// What is not at rest yet, or not as it should be: each of these services leads to its ready endpoints, wherever it is
/// reached, and the kernel knows of no others.
#[must_use]
pub fn check(services: &[Value], slices: &[Value], rules: &Rules) -> Vec<String> {
    let mut findings = check_whole(rules);
    let mut wanted: BTreeMap<Front, BTreeSet<Endpoint>> = BTreeMap::new();
    for service in services {
        for port in service["spec"]["ports"].as_array().into_iter().flatten() {
            wanted.extend(fronts(service, port).into_iter().map(|front| (front, ready(service, port, slices))));
        }
    }
    let mut found: BTreeMap<Front, BTreeSet<Endpoint>> =
        rules.services.keys().map(|front| (*front, BTreeSet::new())).collect();
    for ((front, _), endpoint) in &rules.endpoints {
        found.entry(*front).or_default().insert(*endpoint);
    }
    for (front, endpoints) in &wanted {
        match found.get(front) {
            Some(found) if found == endpoints => {}
            Some(found) => findings.push(format!("{front:?} leads to {found:?} instead of {endpoints:?}")),
            None => findings.push(format!("the kernel doesn't know {front:?}")),
        }
    }
    let left = found.iter().filter(|(front, _)| !wanted.contains_key(front));
    findings.extend(left.map(|(front, to)| format!("{front:?} leads to {to:?}, and is no service's")));
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CLUSTER: Front = (TCP, Ipv4Addr::new(10, 43, 0, 9), 80);
    const BALANCED: [Front; 4] =
        [CLUSTER, (TCP, BALANCER, 80), (TCP, NODE_PORTS, 30080), (TCP, Ipv4Addr::new(192, 0, 2, 1), 80)];
    const POD: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 2);

    fn rules() -> Rules {
        Rules {
            services: BALANCED.map(|front| (front, [1, 0])).into(),
            endpoints: BALANCED.map(|front| ((front, 0), (POD, 8080))).into(),
        }
    }

    type Spoil = fn(&mut Rules);

    #[test]
    fn what_leads_elsewhere_is_found() {
        let service = json!({"metadata": {"name": "web"},
            "spec": {"clusterIP": "10.43.0.9", "ports": [{"port": 80, "nodePort": 30080}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
        let slice = json!({"metadata": {"labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "", "port": 8080}, {"name": "other", "port": 9}],
            "endpoints": [{"addresses": ["10.42.0.2"], "conditions": {"ready": true}},
                {"addresses": ["10.42.0.3"], "conditions": {"ready": false}}]});
        let found = |rules: &Rules| check(std::slice::from_ref(&service), std::slice::from_ref(&slice), rules);
        assert_eq!(found(&rules()), Vec::<String>::new());
        let spoilt: [(&str, Spoil); 5] = [
            ("the kernel doesn't know (6, 10.43.0.9, 80)", |rules| {
                rules.services.remove(&CLUSTER);
                rules.endpoints.remove(&(CLUSTER, 0));
            }),
            ("leads to {(10.42.0.3, 8080)} instead of {(10.42.0.2, 8080)}", |rules| {
                rules.endpoints.insert((CLUSTER, 0), (Ipv4Addr::new(10, 42, 0, 3), 8080));
            }),
            ("(6, 10.43.0.8, 80) leads to {}, and is no service's", |rules| {
                rules.services.insert((TCP, Ipv4Addr::new(10, 43, 0, 8), 80), [0, 0]);
            }),
            ("endpoint 1 of (6, 10.43.0.9, 80) is left over", |rules| {
                rules.endpoints.insert((CLUSTER, 1), (POD, 8080));
            }),
            ("endpoint 16777216 of (6, 10.43.0.9, 80) is missing", |rules| {
                rules.services.insert(CLUSTER, [1, 1]);
            }),
        ];
        for (what, spoil) in spoilt {
            let mut rules = rules();
            spoil(&mut rules);
            let findings = found(&rules);
            assert!(findings.iter().any(|finding| finding.contains(what)), "{what}: {findings:?}");
        }
    }
}
