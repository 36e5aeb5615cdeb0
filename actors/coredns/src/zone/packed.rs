//! A Service with its endpoints in one piece of memory, since there may be tens of thousands: what would be a dozen small
//! allocations is one of some hundred bytes. It is written by the one who edits, and read where it stands.
//!
//! ```text
//! entry     length u8, key | length u32, service | for each slice: length u32, slice
//! service   place u8, of it: addresses, or length u8 and a name | ports
//! slice     length u8, name | ports | addresses with host names, to the end
//! address   4 or 16 u8, its bytes                                    host name   length u8, text
//! ports     count u16, for each: protocol u8, number u16, length u8, name
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use super::records::{Endpoint, Place, Port, Protocol, Service, Slice};
use crate::wire::name::LABEL_BYTES_MAX;

/// The kinds of places.
const ADDRESSES: u8 = 0;
const HEADLESS: u8 = 1;
const EXTERNAL: u8 = 2;
const NOWHERE: u8 = 3;

/// A Service with its endpoints. There may be endpoints without one. Copies share it.
#[derive(Clone, Debug)]
pub(super) struct Entry(Arc<[u8]>);

/// A port, where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct PortView<'a> {
    /// In small letters; may be empty.
    pub(super) name: &'a [u8],
    pub(super) protocol: Protocol,
    pub(super) number: u16,
}

/// An endpoint, where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndpointView<'a> {
    pub(super) address: IpAddr,
    /// In small letters; empty if it has none.
    pub(super) hostname: &'a [u8],
}

/// Where a Service is.
#[derive(Clone, Copy, Debug)]
pub(super) enum PlaceView<'a> {
    Addresses(Addresses<'a>),
    Headless,
    /// The name that it stands for.
    External(&'a [u8]),
    Nowhere,
}

/// A Service, where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServiceView<'a> {
    pub(super) place: PlaceView<'a>,
    pub(super) ports: Ports<'a>,
}

/// A slice, where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct SliceView<'a> {
    pub(super) name: &'a [u8],
    pub(super) ports: Ports<'a>,
    pub(super) endpoints: Endpoints<'a>,
}

/// Reads on from where it is. What isn't there is nothing: whoever wrote it was this module.
#[derive(Clone, Copy, Debug)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(length).unwrap_or((self.0, &[]));
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    fn word(&mut self) -> u16 {
        self.take(2).try_into().map(u16::from_be_bytes).unwrap_or_default()
    }

    /// Bytes with their length before them.
    fn short(&mut self) -> &'a [u8] {
        let length = self.byte();
        self.take(length.into())
    }

    /// The same, of more bytes.
    fn long(&mut self) -> &'a [u8] {
        let length = self.take(4).try_into().map(u32::from_be_bytes).unwrap_or_default();
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn address(&mut self) -> Option<IpAddr> {
        let bytes = self.short();
        let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
    }

    fn ports(&mut self) -> Ports<'a> {
        let ports = Ports { left: self.word(), rest: *self };
        // Behind the last of them.
        for _ in 0..ports.left {
            self.take(3);
            self.short();
        }
        ports
    }
}

/// Addresses, one by one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses<'a> {
    left: u8,
    rest: Reader<'a>,
}

impl Iterator for Addresses<'_> {
    type Item = IpAddr;

    fn next(&mut self) -> Option<IpAddr> {
        self.left = self.left.checked_sub(1)?;
        self.rest.address()
    }
}

/// Ports, one by one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports<'a> {
    left: u16,
    rest: Reader<'a>,
}

impl Ports<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl<'a> Iterator for Ports<'a> {
    type Item = PortView<'a>;

    fn next(&mut self) -> Option<PortView<'a>> {
        self.left = self.left.checked_sub(1)?;
        let protocol = Protocol::ALL.get(usize::from(self.rest.byte())).copied().unwrap_or_default();
        Some(PortView { protocol, number: self.rest.word(), name: self.rest.short() })
    }
}

/// Endpoints, one by one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoints<'a>(Reader<'a>);

impl<'a> Iterator for Endpoints<'a> {
    type Item = EndpointView<'a>;

    fn next(&mut self) -> Option<EndpointView<'a>> {
        Some(EndpointView { address: self.0.address()?, hostname: self.0.short() })
    }
}

impl Entry {
    /// Joins what was packed before.
    pub(super) fn new(key: &[u8], service: &[u8], slices: &[&[u8]]) -> Self {
        let length = slices.iter().map(|slice| slice.len() + 4).sum::<usize>() + key.len() + service.len() + 5;
        let mut bytes = Vec::with_capacity(length);
        put_short(key, &mut bytes);
        [service].iter().chain(slices).for_each(|part| put_long(part, &mut bytes));
        Self(bytes.into())
    }

    /// Name and namespace as labels.
    pub(super) fn key(&self) -> &[u8] {
        Reader(&self.0).short()
    }

    /// The packed Service; empty if there is none.
    pub(super) fn service_bytes(&self) -> &[u8] {
        let mut reader = Reader(&self.0);
        reader.short();
        reader.long()
    }

    pub(super) fn service(&self) -> Option<ServiceView<'_>> {
        let bytes = self.service_bytes();
        let mut reader = Reader(bytes);
        let place = match reader.byte() {
            _ if bytes.is_empty() => return None,
            ADDRESSES => {
                let addresses = Addresses { left: reader.byte(), rest: reader };
                for _ in 0..addresses.left {
                    reader.short();
                }
                PlaceView::Addresses(addresses)
            }
            HEADLESS => PlaceView::Headless,
            EXTERNAL => PlaceView::External(reader.short()),
            _ => PlaceView::Nowhere,
        };
        Some(ServiceView { place, ports: reader.ports() })
    }

    /// The packed slices.
    pub(super) fn slice_bytes(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let mut reader = Reader(&self.0);
        reader.short();
        reader.long();
        std::iter::successors(Some(reader), |reader| {
            let mut next = *reader;
            next.long();
            Some(next)
        })
        .take_while(|reader| !reader.0.is_empty())
        .map(|mut reader| reader.long())
    }

    pub(super) fn slices(&self) -> impl Iterator<Item = SliceView<'_>> + Clone {
        self.slice_bytes().map(slice_view)
    }

    /// The addresses of the Service itself.
    pub(super) fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let place = self.service().map(|service| service.place);
        let addresses = if let Some(PlaceView::Addresses(all)) = place { Some(all) } else { None };
        addresses.into_iter().flatten()
    }

    /// The addresses of the Service and of its endpoints; some more than once.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let endpoints = self.slices().flat_map(|slice| slice.endpoints);
        self.own_addresses().chain(endpoints.map(|endpoint| endpoint.address))
    }
}

/// A packed slice, where it stands.
pub(super) fn slice_view(bytes: &[u8]) -> SliceView<'_> {
    let mut reader = Reader(bytes);
    SliceView { name: reader.short(), ports: reader.ports(), endpoints: Endpoints(reader) }
}

/// What is longer than a length can say is cut: no name of the DNS is.
fn put_short(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    out.push(length);
    out.extend_from_slice(bytes.get(..usize::from(length)).unwrap_or_default());
}

fn put_long(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

fn put_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => put_short(&address.octets(), out),
        IpAddr::V6(address) => put_short(&address.octets(), out),
    }
}

fn put_ports(ports: &[Port], out: &mut Vec<u8>) {
    let count = u16::try_from(ports.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_be_bytes());
    for port in ports.iter().take(count.into()) {
        out.push(port.protocol as u8);
        out.extend_from_slice(&port.number.to_be_bytes());
        // Nobody can ask for what is no label.
        let name = Some(port.name.as_bytes()).filter(|name| name.len() <= LABEL_BYTES_MAX);
        put_short(name.unwrap_or_default(), out);
    }
}

/// Packs a Service.
pub(super) fn pack_service(service: &Service) -> Vec<u8> {
    let mut bytes = Vec::new();
    match &service.place {
        Place::Addresses(all) => {
            let count = u8::try_from(all.len()).unwrap_or(u8::MAX);
            bytes.extend_from_slice(&[ADDRESSES, count]);
            all.iter().take(count.into()).for_each(|address| put_address(*address, &mut bytes));
        }
        Place::Headless => bytes.push(HEADLESS),
        Place::External(name) => {
            bytes.push(EXTERNAL);
            put_short(name.wire(), &mut bytes);
        }
        Place::Nowhere => bytes.push(NOWHERE),
    }
    put_ports(&service.ports, &mut bytes);
    bytes
}

/// Packs a slice.
pub(super) fn pack_slice(slice: &Slice) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_short(slice.name.as_bytes(), &mut bytes);
    put_ports(&slice.ports, &mut bytes);
    for Endpoint { address, hostname } in &slice.endpoints {
        put_address(*address, &mut bytes);
        put_short(hostname.as_deref().unwrap_or_default().as_bytes(), &mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::name::Name;

    fn port(name: &str, protocol: Protocol, number: u16) -> Port {
        Port { name: name.into(), protocol, number }
    }

    #[test]
    fn what_is_packed_is_read_again() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let own = [address("10.43.0.1"), address("fd00::1")];
        let long = "x".repeat(64);
        let ports = [port("http", Protocol::Tcp, 80), port("", Protocol::Sctp, 65_535), port(&long, Protocol::Udp, 7)];
        let service = Service { place: Place::Addresses(own.into()), ports: ports.clone().into() };
        let endpoint = |text: &str, hostname: Option<&str>| Endpoint {
            address: address(text),
            hostname: hostname.map(Into::into),
        };
        let endpoints = [endpoint("10.42.0.5", Some("db-0")), endpoint("fd00::5", None), endpoint("10.42.0.6", None)];
        let slice = |name: &str, endpoints: &[Endpoint]| Slice {
            name: name.into(),
            endpoints: endpoints.into(),
            ports: ports[..1].into(),
        };
        let slices = [pack_slice(&slice("db-1", &endpoints)), pack_slice(&slice("db-2", &[]))];
        let parts: Vec<&[u8]> = slices.iter().map(Vec::as_slice).collect();
        let entry = Entry::new(b"\x02db\x04shop", &pack_service(&service), &parts);
        assert_eq!((entry.key(), entry.slice_bytes().collect::<Vec<_>>()), (&b"\x02db\x04shop"[..], parts));
        let read = entry.service().expect("it is there");
        assert!(matches!(read.place, PlaceView::Addresses(all) if all.eq(own)));
        let shown: Vec<_> = read.ports.map(|port| (port.name, port.protocol, port.number)).collect();
        let expected: [(&[u8], _, _); 3] =
            [(b"http", Protocol::Tcp, 80), (b"", Protocol::Sctp, 65_535), (b"", Protocol::Udp, 7)];
        assert_eq!(shown, expected);
        let shown: Vec<_> =
            entry.slices().map(|slice| (slice.name, slice.ports.count(), slice.endpoints.count())).collect();
        let expected: [(&[u8], _, _); 2] = [(b"db-1", 1, 3), (b"db-2", 1, 0)];
        assert_eq!(shown, expected);
        let hostnames: Vec<_> = entry.slices().flat_map(|slice| slice.endpoints).map(|one| one.hostname).collect();
        let expected: [&[u8]; 3] = [b"db-0", b"", b""];
        assert_eq!(hostnames, expected);
        assert_eq!(entry.addresses().count(), 5);
        assert!(size_of_val(&*entry.0) <= 150, "{}", size_of_val(&*entry.0));
        for (place, is_there) in
            [(Place::Headless, false), (Place::Nowhere, false), (Place::External(Name::root()), true)]
        {
            let entry = Entry::new(b"\x01a\x01b", &pack_service(&Service { place, ports: Box::default() }), &[]);
            let read = entry.service().expect("it is there");
            assert_eq!(matches!(read.place, PlaceView::External(name) if name == [0]), is_there);
            assert!(read.ports.is_empty() && entry.slices().next().is_none());
        }
        assert!(Entry::new(b"\x01a\x01b", &[], &[]).service().is_none());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let service = Service { place: Place::Headless, ports: [port("http", Protocol::Tcp, 80)].into() };
        let whole = Entry::new(b"\x01a\x01b", &pack_service(&service), &[b"\x01a\x00\x00\x04\x0a\x00\x00\x01\x00"]);
        for length in 0..whole.0.len() {
            for byte in [0, 1, 4, 16, 255] {
                let mut bytes = whole.0[..length].to_vec();
                bytes.push(byte);
                let entry = Entry(bytes.into());
                assert!(entry.addresses().count() < 300 && entry.slices().count() < length + 2);
            }
        }
    }
}
