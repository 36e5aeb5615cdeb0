//! Answers about the cluster's own names, by the Kubernetes DNS specification 1.1 and CoreDNS' reading of it. Pure; it
//! allocates nothing on the way to an answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k3sd_runtime::Rng;

use super::Zone;
use super::packed::{Addresses, EndpointView, Entry, PlaceView, PortView, Ports, ServiceView};
use crate::corefile::{Kubernetes, Pods};
use crate::wire::kind;
use crate::wire::name::{NAME_BYTES_MAX, Name, labels};
use crate::wire::writer::{Section, Writer};

/// The version of the specification, as it is asked for by name.
const SCHEMA_VERSION: &[u8] = b"\x051.1.0";
const SCHEMA_TTL: u32 = 28_800;
const SVC: &[u8] = b"\x03svc";
/// Times of a zone that nobody transfers: refresh, retry, expire, in seconds.
const SOA_TIMES: [u32; 3] = [7200, 1800, 86_400];
const NAME_SERVER: &[u8] = b"\x02ns\x03dns";
const HOSTMASTER: &[u8] = b"\x0ahostmaster";
/// Labels of the longest name: port, protocol, service, namespace, `svc`.
const LABELS_MAX: usize = 5;

/// What is asked of the cluster's zone.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// The whole name, in small letters.
    pub(crate) name: &'a [u8],
    /// What stands before the zone in it.
    pub(crate) front: &'a [u8],
    /// The zone that it is in.
    pub(crate) zone: &'a [u8],
    pub(crate) kind: u16,
    /// Whom the records are about; `None` for the name of the question.
    pub(crate) owner: Option<&'a [u8]>,
    /// Where this DNS itself is reached.
    pub(crate) servers: &'a [IpAddr],
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Records were written.
    Answered,
    /// There is such a name, but nothing of that type.
    NoData,
    /// There is no such name.
    NoName,
    /// The name stands for another.
    Alias(Name),
}

/// Answers, or says why not.
pub(crate) fn answer(
    zone: &Zone,
    config: &Kubernetes,
    asked: &Asked<'_>,
    writer: &mut Writer<'_>,
    rng: &mut Rng,
) -> Verdict {
    if let Some(address) = reverse_address(asked.name) {
        return if asked.kind == kind::PTR { reverse(zone, config, address, asked, writer) } else { Verdict::NoName };
    }
    let mut parts = [&[][..]; LABELS_MAX];
    let mut count = 0;
    for label in labels(asked.front) {
        let Some(part) = parts.get_mut(count) else { return Verdict::NoName };
        (*part, count) = (label, count + 1);
    }
    let answers = Answers { zone, config, asked };
    match parts.get(..count).unwrap_or_default() {
        [] => apex(config, asked, writer),
        [b"svc" | b"pod"] => Verdict::NoData,
        [b"dns-version"] if asked.kind == kind::TXT => {
            writer.record(Section::Answer, asked.owner, (kind::TXT, SCHEMA_TTL), &[SCHEMA_VERSION]);
            Verdict::Answered
        }
        [b"dns-version"] => Verdict::NoData,
        [b"ns", b"dns"] => servers(config, asked, writer),
        [namespace, b"svc" | b"pod"] => {
            if answers.shows(namespace) {
                Verdict::NoData
            } else {
                Verdict::NoName
            }
        }
        [pod, namespace, b"pod"] => answers.pod(pod, namespace, writer),
        [_, namespace, b"svc"] => answers.service(namespace, (None, None), writer, rng),
        [endpoint, _, namespace, b"svc"] => answers.endpoint(endpoint, namespace, writer),
        [port, protocol, _, namespace, b"svc"] => {
            answers.service(namespace, (Some(bare(port)), Some(bare(protocol))), writer, rng)
        }
        _ => Verdict::NoName,
    }
}

/// A port or protocol without the underscore that marks it.
fn bare(label: &[u8]) -> &[u8] {
    label.strip_prefix(b"_").unwrap_or(label)
}

fn matches(port: &PortView<'_>, (name, protocol): (Option<&[u8]>, Option<&[u8]>)) -> bool {
    name.is_none_or(|name| port.name == name) && protocol.is_none_or(|protocol| port.protocol.name() == protocol)
}

/// Labels one behind the other, as a name on the stack.
struct Joined {
    bytes: [u8; NAME_BYTES_MAX],
    length: usize,
}

impl Joined {
    /// `None` if it would be too long for a name.
    fn new(parts: &[&[u8]]) -> Option<Self> {
        let mut joined = Self { bytes: [0; NAME_BYTES_MAX], length: 0 };
        for part in parts {
            let place = joined.bytes.get_mut(joined.length..joined.length + part.len())?;
            place.copy_from_slice(part);
            joined.length += part.len();
        }
        Some(joined)
    }

    fn wire(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// The label of an endpoint: its host name, or its address with dashes. With its length before it.
struct EndpointLabel {
    bytes: [u8; 64],
    length: usize,
}

impl EndpointLabel {
    fn of(endpoint: &EndpointView<'_>) -> Self {
        use std::io::Write as _;
        let mut label = Self { bytes: [0; 64], length: 0 };
        let (head, mut rest) = label.bytes.split_at_mut(1);
        let room = rest.len();
        let has_name = !endpoint.hostname.is_empty();
        let written = if has_name { rest.write_all(endpoint.hostname) } else { write!(rest, "{}", endpoint.address) };
        let length = if written.is_ok() { room - rest.len() } else { 0 };
        head.fill(u8::try_from(length).unwrap_or_default());
        label.length = 1 + length;
        if !has_name {
            for byte in label.bytes.iter_mut().skip(1).filter(|byte| matches!(**byte, b'.' | b':')) {
                *byte = b'-';
            }
        }
        label
    }

    fn wire(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

struct Answers<'a> {
    zone: &'a Zone,
    config: &'a Kubernetes,
    asked: &'a Asked<'a>,
}

impl Answers<'_> {
    /// Whether there is such a namespace, and it is shown.
    fn shows(&self, namespace: &[u8]) -> bool {
        let label = LabelBuf::new(namespace);
        self.config.shows(namespace) && self.zone.has_namespace(label.wire())
    }

    /// The Service whose name and namespace begin `skipped` labels into the question.
    fn entry(&self, skipped: usize) -> Option<&Entry> {
        let name = crate::wire::name::without_labels(self.asked.front, skipped);
        let key = name.len().checked_sub(SVC.len()).and_then(|length| name.get(..length))?;
        self.zone.entry(key)
    }

    fn pod(&self, pod: &[u8], namespace: &[u8], writer: &mut Writer<'_>) -> Verdict {
        if self.config.pods == Pods::Disabled || !self.shows(namespace) {
            return Verdict::NoName;
        }
        let Some(address) = dashed_address(pod) else { return Verdict::NoName };
        if !is_of(self.asked.kind, address) {
            return Verdict::NoData;
        }
        writer.address(Section::Answer, self.asked.owner, self.config.ttl, address);
        Verdict::Answered
    }

    fn service(
        &self,
        namespace: &[u8],
        port: (Option<&[u8]>, Option<&[u8]>),
        writer: &mut Writer<'_>,
        rng: &mut Rng,
    ) -> Verdict {
        if !self.config.shows(namespace) {
            return Verdict::NoName;
        }
        let skipped = if port.0.is_some() { 2 } else { 0 };
        let Some(entry) = self.entry(skipped) else { return Verdict::NoName };
        let Some(service) = entry.service() else { return Verdict::NoName };
        match service.place {
            PlaceView::Nowhere => Verdict::NoName,
            PlaceView::External(_) if self.asked.kind == kind::SRV => Verdict::NoData,
            PlaceView::External(target) => Verdict::Alias(Name::from_wire(target)),
            PlaceView::Headless if self.config.without_endpoints => Verdict::NoName,
            PlaceView::Headless => self.headless(entry, port, writer, rng),
            PlaceView::Addresses(addresses) => {
                let has_endpoints = || entry.slices().any(|mut slice| slice.endpoints.next().is_some());
                if self.config.ignores_empty && !has_endpoints() {
                    return Verdict::NoName;
                }
                let count = service.ports.filter(|found| matches(found, port)).count();
                if count == 0 && (port.0.is_some() || !service.ports.is_empty()) {
                    return Verdict::NoName;
                }
                self.addresses(entry, (service, addresses), port, writer)
            }
        }
    }

    /// A Service with addresses of its own.
    fn addresses(
        &self,
        entry: &Entry,
        (service, addresses): (ServiceView<'_>, Addresses<'_>),
        port: (Option<&[u8]>, Option<&[u8]>),
        writer: &mut Writer<'_>,
    ) -> Verdict {
        let (asked, ttl) = (self.asked, self.config.ttl);
        if asked.kind != kind::SRV {
            let mut verdict = Verdict::NoData;
            for address in addresses.filter(|address| is_of(asked.kind, *address)) {
                writer.address(Section::Answer, asked.owner, ttl, address);
                verdict = Verdict::Answered;
            }
            return verdict;
        }
        let Some(target) = Joined::new(&[entry.key(), SVC, asked.zone]) else { return Verdict::NoData };
        let count = service.ports.filter(|found| matches(found, port)).count() * addresses.count();
        if count == 0 {
            return Verdict::NoData;
        }
        let weight = weight(count);
        for found in service.ports.filter(|found| matches(found, port)) {
            srv(asked.owner, ttl, weight, found.number, target.wire(), writer);
        }
        for address in addresses {
            writer.address(Section::Additional, Some(target.wire()), ttl, address);
        }
        Verdict::Answered
    }

    /// A Service that is where its endpoints are. They come in an order that begins somewhere else each time.
    fn headless(
        &self,
        entry: &Entry,
        port: (Option<&[u8]>, Option<&[u8]>),
        writer: &mut Writer<'_>,
        rng: &mut Rng,
    ) -> Verdict {
        let (asked, ttl) = (self.asked, self.config.ttl);
        let fits = |(_, ports): &(EndpointView<'_>, Ports<'_>)| {
            let mut named = *ports;
            named.any(|found| matches(&found, port)) || (ports.is_empty() && port.0.is_none())
        };
        let count = endpoints(entry).filter(fits).count();
        if count == 0 {
            return Verdict::NoName;
        }
        if asked.kind == kind::SRV {
            return self.headless_ports(entry, port, writer);
        }
        let wanted = |(endpoint, _): &(EndpointView<'_>, Ports<'_>)| is_of(asked.kind, endpoint.address);
        let count = endpoints(entry).filter(fits).filter(wanted).count();
        let first = usize::try_from(rng.below(count as u64)).unwrap_or_default();
        let turned = endpoints(entry).filter(fits).filter(wanted).cycle().skip(first).take(count);
        for (endpoint, _) in turned {
            writer.address(Section::Answer, asked.owner, ttl, endpoint.address);
            if writer.is_full() {
                break;
            }
        }
        if count == 0 { Verdict::NoData } else { Verdict::Answered }
    }

    fn headless_ports(&self, entry: &Entry, port: (Option<&[u8]>, Option<&[u8]>), writer: &mut Writer<'_>) -> Verdict {
        let (asked, ttl) = (self.asked, self.config.ttl);
        let ports_of = |ports: Ports<'_>| ports.filter(|found| matches(found, port)).count();
        let count: usize = endpoints(entry).map(|(_, ports)| ports_of(ports)).sum();
        if count == 0 {
            return Verdict::NoData;
        }
        let name_of = |endpoint: &EndpointView<'_>| {
            Joined::new(&[EndpointLabel::of(endpoint).wire(), entry.key(), SVC, asked.zone])
        };
        for (at, (endpoint, ports)) in endpoints(entry).enumerate() {
            // A pod with two addresses is two endpoints with one name.
            let has_name = |(other, _): (EndpointView<'_>, Ports<'_>)| other.hostname == endpoint.hostname;
            if !endpoint.hostname.is_empty() && endpoints(entry).take(at).any(has_name) {
                continue;
            }
            let Some(target) = name_of(&endpoint) else { continue };
            for found in ports.filter(|found| matches(found, port)) {
                srv(asked.owner, ttl, weight(count), found.number, target.wire(), writer);
            }
        }
        for (endpoint, ports) in endpoints(entry) {
            let Some(target) = name_of(&endpoint).filter(|_| ports_of(ports) > 0) else { continue };
            writer.address(Section::Additional, Some(target.wire()), ttl, endpoint.address);
            if writer.is_full() {
                break;
            }
        }
        Verdict::Answered
    }

    /// One endpoint, by its name.
    fn endpoint(&self, label: &[u8], namespace: &[u8], writer: &mut Writer<'_>) -> Verdict {
        if self.config.without_endpoints || !self.config.shows(namespace) {
            return Verdict::NoName;
        }
        let Some(entry) = self.entry(1) else { return Verdict::NoName };
        let Some(service) = entry.service() else { return Verdict::NoName };
        if matches!(service.place, PlaceView::External(_) | PlaceView::Nowhere) {
            return Verdict::NoName;
        }
        let (asked, ttl) = (self.asked, self.config.ttl);
        let mut verdict = Verdict::NoName;
        for (endpoint, ports) in endpoints(entry) {
            let found = EndpointLabel::of(&endpoint);
            if found.wire().get(1..) != Some(label) {
                continue;
            }
            if verdict == Verdict::NoName {
                verdict = Verdict::NoData;
            }
            if asked.kind == kind::SRV {
                for port in ports {
                    srv(asked.owner, ttl, weight(ports.count()), port.number, asked.name, writer);
                    verdict = Verdict::Answered;
                }
                writer.address(Section::Additional, asked.owner, ttl, endpoint.address);
            } else if is_of(asked.kind, endpoint.address) {
                writer.address(Section::Answer, asked.owner, ttl, endpoint.address);
                verdict = Verdict::Answered;
            }
        }
        verdict
    }
}

/// The endpoints of a Service with the ports of their slices, each address once.
fn endpoints(entry: &Entry) -> impl Iterator<Item = (EndpointView<'_>, Ports<'_>)> + Clone {
    let slices = entry.slices().enumerate();
    slices.flat_map(move |(at, slice)| {
        let is_new = move |endpoint: &EndpointView<'_>| {
            let mut earlier = entry.slices().take(at).flat_map(|slice| slice.endpoints);
            !earlier.any(|other| other.address == endpoint.address)
        };
        slice.endpoints.filter(is_new).map(move |endpoint| (endpoint, slice.ports))
    })
}

fn srv(owner: Option<&[u8]>, ttl: u32, weight: u16, port: u16, target: &[u8], writer: &mut Writer<'_>) {
    let data = [&[0, 0][..], &weight.to_be_bytes(), &port.to_be_bytes(), target];
    writer.record(Section::Answer, owner, (kind::SRV, ttl), &data);
}

/// All of them have the same weight, and a hundred together.
fn weight(count: usize) -> u16 {
    u16::try_from(100 / count.max(1)).unwrap_or(100).max(1)
}

fn is_of(kind: u16, address: IpAddr) -> bool {
    matches!((kind, address), (kind::A, IpAddr::V4(_)) | (kind::AAAA, IpAddr::V6(_)))
}

/// The name itself of the zone.
fn apex(config: &Kubernetes, asked: &Asked<'_>, writer: &mut Writer<'_>) -> Verdict {
    match asked.kind {
        kind::NS => name_servers(config, asked, writer),
        _ => Verdict::NoData,
    }
}

/// Who serves the zone.
fn name_servers(config: &Kubernetes, asked: &Asked<'_>, writer: &mut Writer<'_>) -> Verdict {
    writer.record(Section::Answer, asked.owner, (kind::NS, config.ttl), &[NAME_SERVER, asked.zone]);
    if let Some(name) = Joined::new(&[NAME_SERVER, asked.zone]) {
        for address in asked.servers {
            writer.address(Section::Additional, Some(name.wire()), config.ttl, *address);
        }
    }
    Verdict::Answered
}

fn servers(config: &Kubernetes, asked: &Asked<'_>, writer: &mut Writer<'_>) -> Verdict {
    let mut verdict = Verdict::NoData;
    for address in asked.servers.iter().filter(|address| is_of(asked.kind, **address)) {
        writer.address(Section::Answer, asked.owner, config.ttl, *address);
        verdict = Verdict::Answered;
    }
    verdict
}

/// Says who is responsible for a zone, and for how long it may be remembered that something isn't there.
pub(crate) fn soa(writer: &mut Writer<'_>, section: Section, zone: &[u8], ttl: u32, serial: u32) {
    let mut numbers = [0; 20];
    let values = [serial, SOA_TIMES[0], SOA_TIMES[1], SOA_TIMES[2], ttl];
    for (place, value) in numbers.chunks_exact_mut(4).zip(values) {
        place.copy_from_slice(&value.to_be_bytes());
    }
    writer.record(section, Some(zone), (kind::SOA, ttl), &[NAME_SERVER, zone, HOSTMASTER, zone, &numbers]);
}

/// What an address is called.
fn reverse(zone: &Zone, config: &Kubernetes, address: IpAddr, asked: &Asked<'_>, writer: &mut Writer<'_>) -> Verdict {
    let shown = |key: &[u8]| labels(key).nth(1).is_some_and(|namespace| config.shows(namespace));
    let (ttl, primary) = (config.ttl, config.primary.wire());
    let mut verdict = Verdict::NoName;
    let entries = || zone.with_address(address).filter(|entry| shown(entry.key()));
    if let Some(entry) = entries().find(|entry| entry.own_addresses().any(|own| own == address)) {
        writer.record(Section::Answer, asked.owner, (kind::PTR, ttl), &[entry.key(), SVC, primary]);
        return Verdict::Answered;
    }
    for entry in entries() {
        for (endpoint, _) in endpoints(entry).filter(|(endpoint, _)| endpoint.address == address) {
            let label = EndpointLabel::of(&endpoint);
            writer.record(Section::Answer, asked.owner, (kind::PTR, ttl), &[label.wire(), entry.key(), SVC, primary]);
            verdict = Verdict::Answered;
        }
    }
    verdict
}

/// The address that a name in `in-addr.arpa` or `ip6.arpa` stands for.
pub(crate) fn reverse_address(name: &[u8]) -> Option<IpAddr> {
    use crate::wire::name::below;
    if let Some(front) = below(name, b"\x07in-addr\x04arpa\x00") {
        let mut octets = [0; 4];
        let mut count = 0;
        for label in labels(front) {
            let text = std::str::from_utf8(label).ok().filter(|text| text.len() == 1 || !text.starts_with('0'))?;
            *octets.get_mut(count)? = text.parse().ok()?;
            count += 1;
        }
        octets.reverse();
        return (count == 4).then(|| Ipv4Addr::from(octets).into());
    }
    let front = below(name, b"\x03ip6\x04arpa\x00")?;
    let (mut number, mut count) = (0_u128, 0);
    for label in labels(front) {
        let [digit] = label else { return None };
        number |= u128::from(char::from(*digit).to_digit(16)?).checked_shl(4 * count).unwrap_or_default();
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(number).into())
}

/// The address that a label stands for, such as `10-42-0-7` or `fd00--7`.
fn dashed_address(label: &[u8]) -> Option<IpAddr> {
    let dashes = label.iter().filter(|byte| **byte == b'-').count();
    let is_v4 = dashes == 3 && !label.windows(2).any(|pair| pair == b"--");
    let mut bytes = [0; 63];
    let text = bytes.get_mut(..label.len())?;
    text.copy_from_slice(label);
    text.iter_mut().filter(|byte| **byte == b'-').for_each(|byte| *byte = if is_v4 { b'.' } else { b':' });
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A label with its length before it.
struct LabelBuf {
    bytes: [u8; 64],
    length: usize,
}

impl LabelBuf {
    fn new(label: &[u8]) -> Self {
        let mut buffer = Self { bytes: [0; 64], length: label.len() + 1 };
        if let Some((head, rest)) = buffer.bytes.split_first_mut()
            && let Some(place) = rest.get_mut(..label.len())
        {
            *head = u8::try_from(label.len()).unwrap_or_default();
            place.copy_from_slice(label);
        }
        buffer
    }

    fn wire(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}
