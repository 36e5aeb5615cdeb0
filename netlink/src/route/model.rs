//! What there is, what is wanted, and what can be done, as data.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

use crate::cidr::Cidr;
use crate::namespace::Namespace;

/// The table that routes are in unless they say otherwise.
pub const TABLE_MAIN: u32 = 254;

/// The metric that the kernel gives to an IPv6 route without one.
const METRIC_DEFAULT_V6: u32 = 1024;

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// The text is not a hardware address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid MAC address: {0}")]
pub struct MacError(pub String);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let wrong = || MacError(text.to_owned());
        let part = |part: &str| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten();
        let bytes: Option<Vec<u8>> = text.split(':').map(part).collect();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(wrong)
    }
}

/// A link, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is, as `bridge` or `veth`; empty for a physical one.
    pub kind: String,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether somebody asked it for everybody's packets.
    pub promiscuous: bool,
    /// Bytes of the longest packet.
    pub mtu: u32,
    /// Its hardware address, if it has one of six bytes.
    pub mac: Option<Mac>,
    /// The number of the link that it is a port of.
    pub master: Option<u32>,
    /// Whether packets go back out through the bridge port that they came in by; only ports have this.
    pub hairpin: Option<bool>,
    /// Free text.
    pub alias: Option<String>,
}

/// An address of a link, as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The number of the link.
    pub index: u32,
    /// The address with its network.
    pub cidr: Cidr,
}

/// A unicast route, as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEntry {
    /// Where to.
    pub destination: Cidr,
    /// Through whom.
    pub gateway: Option<IpAddr>,
    /// The number of the link that it leaves by; none for routes with several.
    pub index: Option<u32>,
    /// The lowest wins.
    pub metric: u32,
    /// The table that it is in.
    pub table: u32,
    /// Bytes of the longest packet, if the route has a limit of its own.
    pub mtu: Option<u32>,
}

/// What was read of the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Links, in no order.
    pub links: Vec<Link>,
    /// Addresses of those links, and maybe of others.
    pub addresses: Vec<Address>,
    /// Routes of all tables.
    pub routes: Vec<RouteEntry>,
}

impl State {
    /// The link of this name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }
}

/// The other end of a veth pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// The namespace that it is born in; this one if none is given.
    pub namespace: Option<Namespace>,
    /// Its hardware address; random if none is given.
    pub mac: Option<Mac>,
}

/// What a link is made as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A switch.
    Bridge,
    /// A device whose incoming packets are those that were redirected to it.
    Ifb,
    /// One end of a pair.
    Veth(Peer),
}

impl Kind {
    /// The kernel's word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Ifb => "ifb",
            Self::Veth(_) => "veth",
        }
    }
}

/// A link that has to be there. What is `None` is as it happens to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkSpec {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// What to make when there is none of this name.
    pub kind: Option<Kind>,
    /// Whether it is switched on.
    pub up: Option<bool>,
    /// Whether it asks for everybody's packets.
    pub promiscuous: Option<bool>,
    /// Bytes of the longest packet.
    pub mtu: Option<u32>,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// The name of the link that it is a port of.
    pub master: Option<String>,
    /// Whether packets go back out by the bridge port that they came in by.
    pub hairpin: Option<bool>,
    /// Free text, at most 255 bytes.
    pub alias: Option<String>,
    /// Addresses that it has, beside others. IPv6 ones are not probed for duplicates, so they work at once.
    pub addresses: Vec<Cidr>,
    /// Whether other addresses of the families in `addresses` are taken away; link-local ones stay.
    pub no_other_addresses: bool,
}

/// A unicast route that has to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSpec {
    /// Where to.
    pub destination: Cidr,
    /// Through whom; on the link itself if none is given.
    pub gateway: Option<IpAddr>,
    /// The name of the link that it leaves by.
    pub link: String,
    /// The lowest wins; the kernel's default if none is given.
    pub metric: Option<u32>,
    /// The table, [`TABLE_MAIN`] for most.
    pub table: u32,
    /// Bytes of the longest packet.
    pub mtu: Option<u32>,
}

impl RouteSpec {
    /// The metric that the kernel will show.
    #[must_use]
    pub fn metric_shown(&self) -> u32 {
        match self.metric {
            None | Some(0) if self.destination.is_ipv6() => METRIC_DEFAULT_V6,
            metric => metric.unwrap_or_default(),
        }
    }
}

/// What has to be there, and what must not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Links, masters before their ports.
    pub links: Vec<LinkSpec>,
    /// Names of links that must not be there.
    pub absent: Vec<String>,
    /// Routes, those to gateways before those through them.
    pub routes: Vec<RouteSpec>,
}

/// What to change of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Switch it on or off.
    pub up: Option<bool>,
    /// Ask for everybody's packets, or no longer.
    pub promiscuous: Option<bool>,
    /// Bytes of the longest packet.
    pub mtu: Option<u32>,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// The name of its new master.
    pub master: Option<String>,
    /// Free text.
    pub alias: Option<String>,
}

/// One step towards what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Takes a link away.
    DeleteLink {
        /// Its name.
        name: String,
    },
    /// Makes a link, with all that can be said at birth.
    AddLink {
        /// Its name.
        name: String,
        /// What it is.
        kind: Kind,
        /// What it is born with.
        change: LinkChange,
    },
    /// Changes a link.
    ChangeLink {
        /// Its name.
        name: String,
        /// What changes.
        change: LinkChange,
    },
    /// Sets the hairpin mode of a bridge port.
    SetHairpin {
        /// Its name.
        name: String,
        /// On or off.
        hairpin: bool,
    },
    /// Gives a link an address.
    AddAddress {
        /// The link's name.
        link: String,
        /// The address with its network.
        cidr: Cidr,
    },
    /// Takes an address from a link.
    DeleteAddress {
        /// The link's name.
        link: String,
        /// The address with its network.
        cidr: Cidr,
    },
    /// Adds a route, or changes the one to the same place with the same metric.
    PutRoute(RouteSpec),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeleteLink { name } => write!(f, "delete link {name}"),
            Self::AddLink { name, kind, .. } => write!(f, "add {} {name}", kind.word()),
            Self::ChangeLink { name, .. } => write!(f, "change link {name}"),
            Self::SetHairpin { name, hairpin } => write!(f, "set hairpin mode of {name} to {hairpin}"),
            Self::AddAddress { link, cidr } => write!(f, "add address {cidr} to {link}"),
            Self::DeleteAddress { link, cidr } => write!(f, "delete address {cidr} of {link}"),
            Self::PutRoute(route) => write!(f, "set the route to {} by {}", route.destination, route.link),
        }
    }
}
