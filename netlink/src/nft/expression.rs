//! What rules are made of, and how it looks on the wire.
//!
//! Each expression is written as the kernel writes it when it is asked, so that what was read compares equal to what was
//! written.

use super::codec::{put_data, put_verdict, read_data};
use super::model::{Data, Verdict};
use crate::wire::{Message, attributes, be, find, string};

/// A place for four bytes of a value; longer values use those behind it too. There are sixteen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Register(pub u8);

impl Register {
    /// The kernel has two names for every fourth, and shows the older one.
    fn number(self) -> u32 {
        let slot = u32::from(self.0);
        if slot.is_multiple_of(4) { 1 + slot / 4 } else { 8 + slot }
    }

    fn of(number: u32) -> Option<Self> {
        let slot = match number {
            1..=4 => (number - 1) * 4,
            8..=23 => number - 8,
            _ => return None,
        };
        u8::try_from(slot).ok().map(Self)
    }
}

/// The number that stands for "the verdict" where others name a register.
const VERDICT_REGISTER: u32 = 0;

/// Enumerations whose values are numbers on the wire.
macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $number:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$value_doc])* $value),+ }

        impl $name {
            fn number(self) -> u32 {
                match self { $(Self::$value => $number),+ }
            }

            fn of(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$value),)+ _ => None }
            }
        }
    };
}

numbers!(
    /// Where in a packet to count from.
    Base {
        /// The IP header.
        Network = 1,
        /// The header behind it.
        Transport = 2,
    }
);

numbers!(
    /// How to compare.
    Compare {
        /// Equal.
        Equal = 0,
        /// Not equal.
        NotEqual = 1,
        /// Less, as a number in the network's byte order.
        Less = 2,
        /// Less or equal.
        LessOrEqual = 3,
        /// Greater.
        Greater = 4,
        /// Greater or equal.
        GreaterOrEqual = 5,
    }
);

numbers!(
    /// What the kernel knows of a packet.
    MetaKey {
        /// Its mark; four bytes, the machine's order.
        Mark = 3,
        /// The number of the link that it came in by; four bytes, the machine's order.
        InputLink = 4,
        /// The number of the link that it leaves by; four bytes, the machine's order.
        OutputLink = 5,
        /// The name of the link that it came in by; sixteen bytes.
        InputName = 6,
        /// The name of the link that it leaves by; sixteen bytes.
        OutputName = 7,
        /// Its family, as one byte: 2 or 10.
        Family = 15,
        /// The protocol above IP, as one byte.
        Protocol = 16,
    }
);

numbers!(
    /// What the kernel knows of a connection.
    CtKey {
        /// Its state as bits; four bytes, the machine's order.
        State = 0,
        /// Its direction: one byte.
        Direction = 1,
        /// What happened to it, as bits; four bytes, the machine's order.
        Status = 2,
        /// Its mark; four bytes, the machine's order.
        Mark = 3,
    }
);

numbers!(
    /// What the routing tables say of an address.
    FibResult {
        /// The number of the link; four bytes, the machine's order.
        Link = 1,
        /// The kind of address; four bytes, the machine's order.
        AddressType = 3,
    }
);

/// A translation of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nat {
    /// Whether it changes the destination; the source otherwise.
    pub is_destination: bool,
    /// Whether the addresses are IPv6.
    pub is_ipv6: bool,
    /// Where the new address is.
    pub address: Register,
    /// Where the new port is.
    pub port: Option<Register>,
}

/// How a packet is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As nobody who listens would: the TCP connection is reset.
    TcpReset,
    /// An ICMP message says that nobody listens on the port.
    PortUnreachable {
        /// In the words of ICMPv6.
        is_ipv6: bool,
    },
}

impl Refusal {
    /// Type and code on the wire.
    fn numbers(self) -> (u32, u8) {
        match self {
            Self::TcpReset => (1, 0),
            Self::PortUnreachable { is_ipv6: false } => (0, 3),
            Self::PortUnreachable { is_ipv6: true } => (0, 4),
        }
    }

    fn of(kind: u32, code: u8) -> Option<Self> {
        let all = [Self::TcpReset, Self::PortUnreachable { is_ipv6: false }, Self::PortUnreachable { is_ipv6: true }];
        all.into_iter().find(|refusal| match refusal {
            Self::TcpReset => kind == 1,
            Self::PortUnreachable { .. } => refusal.numbers() == (kind, code),
        })
    }
}

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Loads bytes of the packet.
    Payload {
        /// Where to.
        to: Register,
        /// Where to count from.
        base: Base,
        /// The first byte.
        offset: u32,
        /// How many.
        bytes: u32,
    },
    /// Loads what the kernel knows of the packet.
    Meta {
        /// What.
        key: MetaKey,
        /// Where to.
        to: Register,
    },
    /// Sets what the kernel knows of the packet.
    SetMeta {
        /// What.
        key: MetaKey,
        /// Where the value is.
        from: Register,
    },
    /// Loads what the kernel knows of the connection.
    Ct {
        /// What.
        key: CtKey,
        /// Where to.
        to: Register,
    },
    /// Loads what the routing tables say of the packet's destination.
    FibDestination {
        /// What.
        result: FibResult,
        /// Where to.
        to: Register,
    },
    /// Loads what the routing tables say of the packet's source.
    FibSource {
        /// What.
        result: FibResult,
        /// Where to.
        to: Register,
    },
    /// Loads a random number, in the machine's order.
    Random {
        /// Where to.
        to: Register,
        /// How many different ones there are.
        modulus: u32,
        /// The least of them.
        offset: u32,
    },
    /// Has a map remember what a key leads to, or remember it longer; ends the rule when the map is full. What it leads
    /// to already stays as it is.
    Remember {
        /// A map whose elements come from packets.
        map: String,
        /// Where the key is.
        key: Register,
        /// Where the value is.
        value: Register,
        /// For how long, in milliseconds.
        timeout_ms: u64,
    },
    /// Has a map forget a key; ends the rule unless it is there.
    Forget {
        /// A map whose elements come from packets.
        map: String,
        /// Where the key is.
        key: Register,
        /// Where a value could be; the kernel wants one, and doesn't look at it.
        value: Register,
    },
    /// Keeps some bits: `value & mask ^ xor`.
    Bitwise {
        /// Where the value is.
        from: Register,
        /// Where to.
        to: Register,
        /// Bits to keep; as long as the value.
        mask: Vec<u8>,
        /// Bits to turn around afterwards; as long as the value.
        xor: Vec<u8>,
    },
    /// Ends the rule unless the comparison holds.
    Compare {
        /// Where the value is.
        from: Register,
        /// How.
        how: Compare,
        /// What with.
        with: Vec<u8>,
    },
    /// Ends the rule unless the key is in the set.
    Lookup {
        /// The set.
        set: String,
        /// Where the key is.
        key: Register,
        /// Ends the rule if the key *is* in the set.
        inverted: bool,
    },
    /// Ends the rule unless the key is in the map; loads what it leads to.
    LookupValue {
        /// The map.
        map: String,
        /// Where the key is.
        key: Register,
        /// Where to.
        to: Register,
    },
    /// Ends the rule unless the key is in the map; gives the verdict that it leads to.
    LookupVerdict {
        /// The map.
        map: String,
        /// Where the key is.
        key: Register,
    },
    /// Loads a constant.
    Immediate {
        /// Where to.
        to: Register,
        /// What.
        value: Vec<u8>,
    },
    /// Gives a verdict.
    Verdict(Verdict),
    /// Tells the sender that there is nobody, and drops the packet.
    Refuse(Refusal),
    /// Gives the packet's connection another address.
    Nat(Nat),
    /// Gives the packet's connection the address of the link that it leaves by, and a random port.
    Masquerade,
    /// Something that we don't write, as it was read.
    Other {
        /// Its name.
        name: String,
        /// Its attributes.
        data: Vec<u8>,
    },
}

/// Bits of a translation that the kernel sets itself.
const NAT_IMPLIED: u32 = 0b11;
/// Ports are drawn, not counted up: two connections at the same moment don't get the same one.
const RANDOM_FULLY: u32 = 1 << 4;
const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 1 << 1;
const RANDOM_NUMBER: u32 = 1;
const DYNSET_UPDATE: u32 = 1;
const DYNSET_DELETE: u32 = 2;
const LOOKUP_INVERTED: u32 = 1;

impl Expression {
    fn name(&self) -> &str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } | Self::SetMeta { .. } => "meta",
            Self::Ct { .. } => "ct",
            Self::FibDestination { .. } | Self::FibSource { .. } => "fib",
            Self::Random { .. } => "numgen",
            Self::Remember { .. } | Self::Forget { .. } => "dynset",
            Self::Refuse(_) => "reject",
            Self::Bitwise { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Lookup { .. } | Self::LookupValue { .. } | Self::LookupVerdict { .. } => "lookup",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Nat(_) => "nat",
            Self::Masquerade => "masq",
            Self::Other { name, .. } => name,
        }
    }

    pub(super) fn put(&self, message: &mut Message) {
        message.text(1, self.name());
        message.nest(2, |data| self.put_attributes(data));
    }

    fn put_attributes(&self, data: &mut Message) {
        let register = |data: &mut Message, kind, register: &Register| data.be32(kind, register.number());
        match self {
            Self::Payload { to, base, offset, bytes } => {
                register(data, 1, to);
                data.be32(2, base.number());
                data.be32(3, *offset);
                data.be32(4, *bytes);
            }
            Self::Meta { key, to } => {
                register(data, 1, to);
                data.be32(2, key.number());
            }
            Self::SetMeta { key, from } => {
                data.be32(2, key.number());
                register(data, 3, from);
            }
            Self::Ct { key, to } => {
                register(data, 1, to);
                data.be32(2, key.number());
            }
            Self::FibDestination { result, to } => {
                register(data, 1, to);
                data.be32(2, result.number());
                data.be32(3, FIB_DESTINATION);
            }
            Self::FibSource { result, to } => {
                register(data, 1, to);
                data.be32(2, result.number());
                data.be32(3, FIB_SOURCE);
            }
            Self::Random { to, modulus, offset } => {
                register(data, 1, to);
                data.be32(2, *modulus);
                data.be32(3, RANDOM_NUMBER);
                data.be32(4, *offset);
            }
            Self::Remember { map, key, value, timeout_ms } => {
                data.text(1, map);
                data.be32(3, DYNSET_UPDATE);
                register(data, 4, key);
                register(data, 5, value);
                data.attribute(6, &timeout_ms.to_be_bytes());
            }
            Self::Forget { map, key, value } => {
                data.text(1, map);
                data.be32(3, DYNSET_DELETE);
                register(data, 4, key);
                register(data, 5, value);
            }
            Self::Refuse(refusal) => {
                let (kind, code) = refusal.numbers();
                data.be32(1, kind);
                data.attribute(2, &[code]);
            }
            Self::Bitwise { from, to, mask, xor } => {
                register(data, 1, from);
                register(data, 2, to);
                data.be32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
                data.nest(4, |value| value.attribute(1, mask));
                data.nest(5, |value| value.attribute(1, xor));
            }
            Self::Compare { from, how, with } => {
                register(data, 1, from);
                data.be32(2, how.number());
                data.nest(3, |value| value.attribute(1, with));
            }
            Self::Lookup { set, key, inverted } => {
                data.text(1, set);
                register(data, 2, key);
                data.be32(5, if *inverted { LOOKUP_INVERTED } else { 0 });
            }
            Self::LookupValue { map, key, to } => {
                data.text(1, map);
                register(data, 2, key);
                register(data, 3, to);
            }
            Self::LookupVerdict { map, key } => {
                data.text(1, map);
                register(data, 2, key);
                data.be32(3, VERDICT_REGISTER);
            }
            Self::Immediate { to, value } => {
                register(data, 1, to);
                data.nest(2, |nested| put_data(nested, &Data::Value(value.clone())));
            }
            Self::Verdict(verdict) => {
                data.be32(1, VERDICT_REGISTER);
                data.nest(2, |nested| put_verdict(nested, verdict));
            }
            Self::Nat(nat) => {
                data.be32(1, u32::from(nat.is_destination));
                data.be32(2, if nat.is_ipv6 { 10 } else { 2 });
                register(data, 3, &nat.address);
                if let Some(port) = &nat.port {
                    register(data, 5, port);
                }
            }
            Self::Masquerade => data.be32(1, RANDOM_FULLY),
            Self::Other { data: bytes, .. } => data.fixed(bytes),
        }
    }

    /// The expression in an element of a rule's list.
    pub(super) fn read(element: &[u8]) -> Option<Self> {
        let name = string(find(element, 1)?);
        let data = find(element, 2).unwrap_or_default();
        let known = Self::read_known(&name, data);
        Some(known.unwrap_or_else(|| Self::Other { name, data: data.to_vec() }))
    }

    fn read_known(name: &str, data: &[u8]) -> Option<Self> {
        let number = |kind| find(data, kind).and_then(be);
        let register = |kind| number(kind).and_then(Register::of);
        let value = |kind| find(data, kind).and_then(|nested| find(nested, 1)).map(<[u8]>::to_vec);
        let has = |kind| attributes(data).any(|(found, _)| found == kind);
        Some(match name {
            "payload" => {
                Self::Payload { to: register(1)?, base: Base::of(number(2)?)?, offset: number(3)?, bytes: number(4)? }
            }
            "meta" if has(3) => Self::SetMeta { key: MetaKey::of(number(2)?)?, from: register(3)? },
            "meta" => Self::Meta { key: MetaKey::of(number(2)?)?, to: register(1)? },
            "ct" => Self::Ct { key: CtKey::of(number(2)?)?, to: register(1)? },
            "fib" if number(3)? == FIB_DESTINATION => {
                Self::FibDestination { result: FibResult::of(number(2)?)?, to: register(1)? }
            }
            "fib" if number(3)? == FIB_SOURCE => {
                Self::FibSource { result: FibResult::of(number(2)?)?, to: register(1)? }
            }
            "numgen" if number(3)? == RANDOM_NUMBER => {
                Self::Random { to: register(1)?, modulus: number(2)?, offset: number(4).unwrap_or(0) }
            }
            "dynset" => {
                let (map, key, value) = (string(find(data, 1)?), register(4)?, register(5)?);
                match number(3)? {
                    DYNSET_UPDATE => {
                        let timeout = find(data, 6)?.try_into().ok()?;
                        Self::Remember { map, key, value, timeout_ms: u64::from_be_bytes(timeout) }
                    }
                    DYNSET_DELETE => Self::Forget { map, key, value },
                    _ => return None,
                }
            }
            "reject" => {
                let code = find(data, 2).and_then(|code| code.first().copied());
                Self::Refuse(Refusal::of(number(1)?, code.unwrap_or(0))?)
            }
            "bitwise" => Self::Bitwise { from: register(1)?, to: register(2)?, mask: value(4)?, xor: value(5)? },
            "cmp" => Self::Compare { from: register(1)?, how: Compare::of(number(2)?)?, with: value(3)? },
            "lookup" => {
                let (set, key) = (string(find(data, 1)?), register(2)?);
                match number(3) {
                    None => Self::Lookup { set, key, inverted: number(5).unwrap_or(0) & LOOKUP_INVERTED != 0 },
                    Some(VERDICT_REGISTER) => Self::LookupVerdict { map: set, key },
                    Some(to) => Self::LookupValue { map: set, key, to: Register::of(to)? },
                }
            }
            "immediate" => match (read_data(find(data, 2)?)?, number(1)?) {
                (Data::Verdict(verdict), _) => Self::Verdict(verdict),
                (Data::Value(value), to) => Self::Immediate { to: Register::of(to)?, value },
            },
            "nat" if number(7).unwrap_or(0) & !NAT_IMPLIED == 0 => Self::Nat(Nat {
                is_destination: number(1)? == 1,
                is_ipv6: number(2)? == 10,
                address: register(3)?,
                port: if has(5) { Some(register(5)?) } else { None },
            }),
            "masq" if number(1).unwrap_or(0) == RANDOM_FULLY && !has(2) => Self::Masquerade,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{flags, messages};

    fn round(expression: &Expression) -> Option<Expression> {
        let mut message = Message::new(1, flags::REQUEST);
        expression.put(&mut message);
        let bytes = message.finish(1).unwrap();
        let payload = messages(&bytes).next().unwrap().payload;
        Expression::read(payload)
    }

    #[test]
    fn what_is_written_is_read() {
        let (a, b) = (Register(4), Register(9));
        let all = [
            Expression::Payload { to: a, base: Base::Network, offset: 16, bytes: 4 },
            Expression::Meta { key: MetaKey::Protocol, to: b },
            Expression::SetMeta { key: MetaKey::Mark, from: a },
            Expression::Ct { key: CtKey::Status, to: a },
            Expression::FibDestination { result: FibResult::AddressType, to: b },
            Expression::FibSource { result: FibResult::AddressType, to: b },
            Expression::Random { to: b, modulus: 3, offset: 1 << 24 },
            Expression::Remember { map: "m".to_owned(), key: a, value: b, timeout_ms: 10_800_000 },
            Expression::Forget { map: "m".to_owned(), key: a, value: b },
            Expression::Refuse(Refusal::TcpReset),
            Expression::Refuse(Refusal::PortUnreachable { is_ipv6: true }),
            Expression::Bitwise { from: a, to: b, mask: vec![255, 0, 0, 0], xor: vec![0; 4] },
            Expression::Compare { from: a, how: Compare::NotEqual, with: vec![1, 2] },
            Expression::Lookup { set: "s".to_owned(), key: a, inverted: true },
            Expression::LookupValue { map: "m".to_owned(), key: a, to: b },
            Expression::LookupVerdict { map: "v".to_owned(), key: b },
            Expression::Immediate { to: a, value: vec![1, 2, 3, 4] },
            Expression::Verdict(Verdict::Goto("c".to_owned())),
            Expression::Nat(Nat { is_destination: true, is_ipv6: true, address: a, port: Some(b) }),
            Expression::Masquerade,
        ];
        for expression in all {
            assert_eq!(round(&expression).as_ref(), Some(&expression));
        }
        for slot in 0..16 {
            assert_eq!(Register::of(Register(slot).number()), Some(Register(slot)));
        }
    }
}
