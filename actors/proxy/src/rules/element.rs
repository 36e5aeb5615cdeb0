//! Elements of the kernel's sets and maps, as bytes.
//!
//! Some values begin with four bytes that say nothing. What comes out of one map can't be the key of another in any rule
//! that nft can write down, and where it finds one it aborts, with all that it was to list. So it is shown a register that
//! it believes to know: the one behind the first of the value, into which a constant was written before. The kernel finds
//! what the map put there.

use std::net::IpAddr;
use std::sync::Arc;

use k3sd_netlink::Cidr;
use k3sd_netlink::nft::{Data, DataKind, Set, TypeId};

use super::recipe::{Place, Recipe};

/// Clients that are remembered of all sticky services of one family. Beyond them clients are served, but not remembered.
const STICKY_CLIENTS_MAX: u32 = 1 << 18;

/// Bytes at the front of a value that say nothing; see the module's page.
const PAD_BYTES: usize = 4;

/// A set or a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SetId {
    /// A protocol, address and port: what happens there.
    Services,
    /// The same with an index: where an endpoint is.
    Endpoints,
    /// The same of sticky services.
    StickyEndpoints,
    /// The same with a network: who may come.
    Sources,
    /// Addresses of services that nobody else has.
    Addresses,
    /// Pairs of addresses between which packets need a new source.
    Hairpin,
    /// A recipe: its chain.
    Recipes,
    /// A client, and where it was sent to: its endpoint. Packets fill it.
    Sticky,
}

impl SetId {
    pub(crate) const ALL: [Self; 8] = [
        Self::Services,
        Self::Endpoints,
        Self::StickyEndpoints,
        Self::Sources,
        Self::Addresses,
        Self::Hairpin,
        Self::Recipes,
        Self::Sticky,
    ];

    /// Those whose elements follow from Services and their endpoints alone.
    const FILLED: usize = 6;

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Endpoints => "endpoints",
            Self::StickyEndpoints => "sticky-endpoints",
            Self::Sources => "sources",
            Self::Addresses => "addresses",
            Self::Hairpin => "hairpin",
            Self::Recipes => "recipes",
            Self::Sticky => "sticky",
        }
    }

    /// What it is, without elements.
    pub(crate) fn set(self, is_ipv6: bool) -> Set {
        let address = (TypeId::address(is_ipv6), if is_ipv6 { 16 } else { 4 });
        let (protocol, port, number) = ((TypeId::PROTOCOL, 4), (TypeId::PORT, 4), (TypeId::NUMBER, 4));
        let (numbers, place) = ([number; 4], [address, port]);
        let row = |parts: &[(TypeId, u32)]| {
            let joined = parts.iter().map(|(id, _)| *id).reduce(TypeId::then).unwrap_or(TypeId(0));
            (joined, parts.iter().map(|(_, bytes)| bytes).sum::<u32>())
        };
        let value = |parts: &[(TypeId, u32)]| {
            let (type_id, bytes) = row(parts);
            Some(DataKind::Value { type_id, bytes })
        };
        let ((key_type, key_bytes), data) = match self {
            Self::Services => (row(&[protocol, address, port]), value(&[number; 5])),
            Self::Endpoints => (row(&[protocol, address, port, number]), value(&place)),
            Self::StickyEndpoints => (row(&[protocol, address, port, number]), value(&[number, address, port])),
            Self::Sources => (row(&[protocol, address, port, number, address]), None),
            Self::Addresses => (row(&[address]), None),
            Self::Hairpin => (row(&[address, address]), None),
            Self::Recipes => (row(&numbers), Some(DataKind::Verdict)),
            Self::Sticky => (row(&[address, protocol, address, port]), value(&place)),
        };
        let from_packets = (self == Self::Sticky).then_some(STICKY_CLIENTS_MAX);
        Set { name: self.name().to_owned(), key_type, key_bytes, data, from_packets, elements: None }
    }
}

/// Which element: two bytes for family and set, then its key as the kernel has it. Shared by all who keep it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ElementKey(Arc<[u8]>);

impl ElementKey {
    /// The key of a service, from its form in the kernel.
    pub(crate) fn new_service(is_ipv6: bool, bytes: &[u8]) -> Self {
        let mut key = vec![u8::from(is_ipv6), SetId::Services as u8];
        key.extend(bytes);
        Self(key.into())
    }

    pub(crate) fn is_ipv6(&self) -> bool {
        self.0[0] == 1
    }

    pub(crate) fn set(&self) -> SetId {
        SetId::ALL[usize::from(self.0[1])]
    }

    /// Its key as the kernel has it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0[2..]
    }

    /// The key of the endpoint with this index, where this is the key of a service with this recipe.
    pub(crate) fn endpoint(&self, recipe: &Recipe, index: u32) -> Self {
        let mut key = self.0.to_vec();
        key[1] = endpoints(recipe) as u8;
        key.extend(index.to_ne_bytes());
        Self(key.into())
    }

    /// The key of the service, where this is one that begins with it.
    pub(crate) fn of_service(&self) -> Self {
        let bytes = 2 + if self.is_ipv6() { 24 } else { 12 };
        let mut key = self.0.get(..bytes).unwrap_or_default().to_vec();
        if let Some(set) = key.get_mut(1) {
            *set = SetId::Services as u8;
        }
        Self(key.into())
    }

    /// Protocol, address and port, of keys that begin with them.
    pub(crate) fn service(&self) -> Option<(u8, IpAddr, u16)> {
        let bytes = self.bytes();
        let (protocol, rest) = (*bytes.first()?, bytes.get(4..)?);
        let (address, rest) = read_address(rest, self.is_ipv6())?;
        Some((protocol, address, u16::from_be_bytes(rest.get(..2)?.try_into().ok()?)))
    }
}

/// The address at the front, and what is behind it.
pub(crate) fn read_address(bytes: &[u8], is_ipv6: bool) -> Option<(IpAddr, &[u8])> {
    if is_ipv6 {
        let (address, rest) = bytes.split_first_chunk::<16>()?;
        Some((IpAddr::from(*address), rest))
    } else {
        let (address, rest) = bytes.split_first_chunk::<4>()?;
        Some((IpAddr::from(*address), rest))
    }
}

/// The recipe in the value of a service.
pub(crate) fn recipe_of(value: &[u8]) -> Option<Recipe> {
    Recipe::decode(value.get(PAD_BYTES..)?)
}

/// Address and port of an endpoint, as the kernel translates to it, in the value of one of a service with this recipe.
pub(crate) fn endpoint_of<'a>(recipe: &Recipe, value: &'a [u8]) -> Option<&'a [u8]> {
    if endpoints(recipe) == SetId::StickyEndpoints { value.get(PAD_BYTES..) } else { Some(value) }
}

/// Where the endpoints of a service are.
fn endpoints(recipe: &Recipe) -> SetId {
    if recipe.sticky_seconds > 0 { SetId::StickyEndpoints } else { SetId::Endpoints }
}

/// An element of a set or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) key: ElementKey,
    /// What it leads to; empty in sets.
    pub(crate) value: Box<[u8]>,
}

impl Element {
    /// The value as the kernel is told.
    pub(crate) fn data(value: &[u8]) -> Option<Data> {
        (!value.is_empty()).then(|| Data::Value(value.to_vec()))
    }
}

/// Writes the keys and values of one family.
#[derive(Debug, Clone)]
pub(crate) struct Fields(Vec<u8>);

impl Fields {
    /// Nothing yet.
    fn new(is_ipv6: bool, set: SetId) -> Self {
        let mut bytes = Vec::with_capacity(48);
        bytes.extend([u8::from(is_ipv6), set as u8]);
        Self(bytes)
    }

    fn address(mut self, address: IpAddr) -> Self {
        put_address(&mut self.0, address);
        self
    }

    fn port(mut self, port: u16) -> Self {
        put_port(&mut self.0, port);
        self
    }

    fn number(mut self, number: u32) -> Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn front(set: SetId, at: &Front) -> Self {
        let mut fields = Self::new(at.address.is_ipv6(), set);
        fields.0.extend([at.protocol, 0, 0, 0]);
        fields.address(at.address).port(at.port)
    }

    fn element(self, value: &[u8]) -> Element {
        Element { key: ElementKey(self.0.into()), value: value.into() }
    }
}

fn put_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => bytes.extend(v4.octets()),
        IpAddr::V6(v6) => bytes.extend(v6.octets()),
    }
}

fn put_port(bytes: &mut Vec<u8>, port: u16) {
    bytes.extend(port.to_be_bytes());
    bytes.extend([0; 2]);
}

/// Where a service is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Front {
    /// The protocol above IP.
    pub(crate) protocol: u8,
    /// The address, or the one that stands for many.
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

impl Front {
    /// At an address of its own, or at many.
    pub(crate) fn new(protocol: u8, place: Place, address: IpAddr, port: u16) -> Self {
        Self { protocol, address: place.stand_in(address.is_ipv6()).unwrap_or(address), port }
    }

    pub(crate) fn service(&self, recipe: &Recipe) -> Element {
        let mut value = vec![0; PAD_BYTES];
        value.extend(recipe.encode());
        Fields::front(SetId::Services, self).element(&value)
    }

    pub(crate) fn endpoint(&self, recipe: &Recipe, index: u32, address: IpAddr, port: u16) -> Element {
        let set = endpoints(recipe);
        let mut value = Vec::with_capacity(24);
        value.resize(if set == SetId::StickyEndpoints { PAD_BYTES } else { 0 }, 0);
        put_address(&mut value, address);
        put_port(&mut value, port);
        Fields::front(set, self).number(index).element(&value)
    }

    pub(crate) fn source(&self, from: &Cidr) -> Element {
        let fields = Fields::front(SetId::Sources, self).number(u32::from(from.bits()));
        fields.address(from.first()).element(&[])
    }
}

/// The bits of the network in the key of a [`SetId::Sources`].
pub(crate) fn source_bits(key: &ElementKey) -> Option<u8> {
    let at = if key.is_ipv6() { 24 } else { 12 };
    let bits: [u8; 4] = key.bytes().get(at..at + 4)?.try_into().ok()?;
    u8::try_from(u32::from_ne_bytes(bits)).ok()
}

/// An address that only services have.
pub(crate) fn service_address(address: IpAddr) -> Element {
    Fields::new(address.is_ipv6(), SetId::Addresses).address(address).element(&[])
}

/// An address whose packets to itself need another source.
pub(crate) fn hairpin(address: IpAddr) -> Element {
    Fields::new(address.is_ipv6(), SetId::Hairpin).address(address).address(address).element(&[])
}

/// The sets whose elements follow from Services and their endpoints.
pub(crate) fn filled() -> &'static [SetId] {
    &SetId::ALL[..SetId::FILLED]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_long_as_their_sets_say() {
        for (address, network) in [("10.43.0.1", "10.1.0.0/16"), ("fd43::1", "fd00::/8")] {
            let address: IpAddr = address.parse().unwrap();
            let front = Front::new(17, Place::Address, address, 53);
            let recipe = super::super::recipe::tests::all()[0];
            let sticky = Recipe { sticky_seconds: 60, ..recipe };
            let cidr: Cidr = network.parse().unwrap();
            let all = [
                front.service(&recipe),
                front.endpoint(&recipe, 7, address, 80),
                front.endpoint(&sticky, 7, address, 80),
                front.source(&cidr),
                service_address(address),
                hairpin(address),
            ];
            for (element, set) in all.iter().zip(filled()) {
                let shape = set.set(address.is_ipv6());
                assert_eq!((element.key.set(), element.key.is_ipv6()), (*set, address.is_ipv6()));
                assert_eq!(element.key.bytes().len(), shape.key_bytes as usize, "{set:?}");
                let bytes = match shape.data {
                    Some(DataKind::Value { bytes, .. }) => bytes as usize,
                    _ => 0,
                };
                assert_eq!(element.value.len(), bytes, "{set:?}");
            }
            assert_eq!(all[0].key.endpoint(&recipe, 7), all[1].key);
            assert_eq!(all[0].key.endpoint(&sticky, 7), all[2].key);
            assert_eq!(endpoint_of(&recipe, &all[1].value), endpoint_of(&sticky, &all[2].value));
            assert_eq!(recipe_of(&all[0].value), Some(recipe));
            assert_eq!(all[1].key.service(), Some((17, address, 53)));
            assert_eq!(source_bits(&all[3].key), Some(cidr.bits()));
        }
    }
}
