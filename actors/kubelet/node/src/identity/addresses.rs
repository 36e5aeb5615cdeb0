//! The node's addresses: those it was given, or the one by which it reaches others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use k8s_openapi::api::core::v1::NodeAddress;
use thiserror::Error;

/// Why an address can't be the node's. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Not an address at all.
    #[error("nodeIP must be a valid IP address: {0:?}")]
    Invalid(String),
    /// 127.0.0.1 and its like.
    #[error("nodeIP can't be loopback address")]
    Loopback,
    /// An address of a group.
    #[error("nodeIP can't be a multicast address")]
    Multicast,
    /// An address that is good on one link only.
    #[error("nodeIP can't be a link-local unicast address")]
    LinkLocal,
    /// 0.0.0.0 or ::.
    #[error("nodeIP can't be an all zeros address")]
    Unspecified,
    /// No interface has it.
    #[error("node IP: {0:?} not found in the host's network interfaces")]
    NotHere(String),
    /// More than one of a family.
    #[error("must contain either a single IP or a dual-stack pair of IPs")]
    TooMany,
    /// Nothing was given, and nothing was found.
    #[error("no address of this host reaches others")]
    None,
}

/// What `--node-ip` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeIps {
    /// None: find one. At most one of each family, the first one first.
    pub given: Vec<IpAddr>,
}

impl NodeIps {
    /// Reads the values of `--node-ip`.
    ///
    /// # Errors
    /// One of them is no address, or there are too many.
    pub fn parse(texts: &[String]) -> Result<Self, AddressError> {
        let texts = texts.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty());
        let given = texts
            .map(|text| text.parse().map_err(|_| AddressError::Invalid(text.to_owned())))
            .collect::<Result<Vec<IpAddr>, _>>()?;
        let is_pair = given.len() == 2 && given[0].is_ipv4() != given[1].is_ipv4();
        if given.len() > 1 && !is_pair {
            return Err(AddressError::TooMany);
        }
        Ok(Self { given })
    }

    /// Those that aren't `0.0.0.0` or `::`, which only name a family.
    pub fn specified(&self) -> impl Iterator<Item = IpAddr> {
        self.given.iter().copied().filter(|address| !address.is_unspecified())
    }

    /// Whether the address that is looked for is of IPv6.
    #[must_use]
    pub fn wants_ipv6(&self) -> bool {
        self.given.first() == Some(&IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }

    /// The value of the annotation that a cloud reads, if an address was given.
    #[must_use]
    pub fn annotation(&self) -> Option<String> {
        let all: Vec<String> = self.given.iter().map(ToString::to_string).collect();
        (self.specified().next().is_some()).then(|| all.join(","))
    }
}

/// Addresses of this host, as it has them now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    /// All, of any kind.
    pub all: Vec<IpAddr>,
    /// By which it reaches others, of IPv4 and of IPv6.
    pub outgoing: Vec<IpAddr>,
}

impl HostAddresses {
    /// Looks at the kernel's tables below `proc`, and asks it which addresses it would send from.
    #[must_use]
    pub fn read(proc: &Path) -> Self {
        let read = |name: &str| std::fs::read_to_string(proc.join(name)).unwrap_or_default();
        let mut all = parse_fib_trie(&read("net/fib_trie"));
        all.extend(parse_if_inet6(&read("net/if_inet6")));
        let outgoing = [false, true].into_iter().filter_map(outgoing_address).collect();
        Self { all, outgoing }
    }

    /// The node's own addresses, the first one first.
    ///
    /// # Errors
    /// One that was given can't be used, or there is none.
    pub fn choose(&self, ips: &NodeIps) -> Result<Vec<IpAddr>, AddressError> {
        let given: Vec<IpAddr> = ips.specified().collect();
        if !given.is_empty() {
            given.iter().try_for_each(|address| self.check(*address))?;
            return Ok(given);
        }
        let wants_ipv6 = ips.wants_ipv6();
        let found = self.outgoing.iter().chain(self.all.iter().filter(|address| is_global(**address)));
        let best = found.clone().find(|address| address.is_ipv6() == wants_ipv6).or_else(|| found.clone().next());
        best.map(|address| vec![*address]).ok_or(AddressError::None)
    }

    fn check(&self, address: IpAddr) -> Result<(), AddressError> {
        if address.is_loopback() {
            return Err(AddressError::Loopback);
        }
        if address.is_multicast() {
            return Err(AddressError::Multicast);
        }
        if is_link_local(address) {
            return Err(AddressError::LinkLocal);
        }
        if address.is_unspecified() {
            return Err(AddressError::Unspecified);
        }
        if !self.all.contains(&address) {
            return Err(AddressError::NotHere(address.to_string()));
        }
        Ok(())
    }
}

/// The list of `status.addresses`: what is reached inside, and the name.
#[must_use]
pub(crate) fn address_list(addresses: &[IpAddr], hostname: &str) -> Vec<NodeAddress> {
    let one = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    let inside = addresses.iter().map(|address| one("InternalIP", address.to_string()));
    inside.chain([one("Hostname", hostname.to_owned())]).collect()
}

/// The address from which the kernel would send to somebody outside; nothing is sent. `None` without a route.
#[must_use]
pub fn outgoing_address(is_ipv6: bool) -> Option<IpAddr> {
    // Addresses for documentation: only the route to them counts.
    let (local, remote): (SocketAddr, SocketAddr) = if is_ipv6 {
        ((Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into())
    } else {
        ((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into())
    };
    let socket = UdpSocket::bind(local).ok()?;
    socket.connect(remote).ok()?;
    socket.local_addr().ok().map(|found| found.ip()).filter(|address| is_global(*address))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn is_global(address: IpAddr) -> bool {
    !(address.is_loopback() || address.is_multicast() || address.is_unspecified() || is_link_local(address))
}

/// Addresses that the kernel takes as its own: each stands in the line before one that says `host LOCAL`.
fn parse_fib_trie(text: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<IpAddr>().ok();
        } else if line.contains("host LOCAL")
            && let Some(address) = last
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// One address in each line, as 32 digits.
fn parse_if_inet6(text: &str) -> Vec<IpAddr> {
    let one = |line: &str| {
        let digits = line.split_ascii_whitespace().next().filter(|digits| digits.len() == 32)?;
        u128::from_str_radix(digits, 16).ok().map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
    };
    text.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ips(texts: &[&str]) -> Result<NodeIps, AddressError> {
        NodeIps::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn one_address_of_each_family_at_most() {
        assert_eq!(ips(&["10.0.0.1,fd00::1"]).unwrap().given, [ip("10.0.0.1"), ip("fd00::1")]);
        assert_eq!(ips(&["fd00::1", "10.0.0.1"]).unwrap().annotation().unwrap(), "fd00::1,10.0.0.1");
        assert_eq!(ips(&["10.0.0.1", "10.0.0.2"]), Err(AddressError::TooMany));
        assert_eq!(ips(&["eth0"]), Err(AddressError::Invalid("eth0".to_owned())));
        assert_eq!(ips(&["0.0.0.0"]).unwrap().annotation(), None);
    }

    #[test]
    fn addresses_that_are_given_have_to_be_here() {
        let host = HostAddresses { all: vec![ip("10.0.0.1"), ip("fd00::1")], outgoing: vec![ip("10.0.0.1")] };
        let rows = [
            ("127.0.0.1", AddressError::Loopback),
            ("224.0.0.1", AddressError::Multicast),
            ("169.254.1.1", AddressError::LinkLocal),
            ("fe80::1", AddressError::LinkLocal),
            ("10.0.0.2", AddressError::NotHere("10.0.0.2".to_owned())),
        ];
        for (given, expected) in rows {
            assert_eq!(host.choose(&ips(&[given]).unwrap()), Err(expected), "{given}");
        }
        let chosen = |given: &[&str]| host.choose(&ips(given).unwrap()).unwrap();
        assert_eq!(chosen(&["10.0.0.1", "fd00::1"]), [ip("10.0.0.1"), ip("fd00::1")]);
        assert_eq!(chosen(&[]), [ip("10.0.0.1")]);
        assert_eq!(chosen(&["::"]), [ip("fd00::1")]);
        assert_eq!(HostAddresses::default().choose(&NodeIps::default()), Err(AddressError::None));
    }

    #[test]
    fn the_kernels_tables_are_read() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.7\n        /32 host LOCAL\n     |-- 10.0.0.7\n        /32 host LOCAL\n";
        assert_eq!(parse_fib_trie(trie), [ip("10.0.0.7")]);
        let inet6 = "fd000000000000000000000000000001 02 40 00 80     eth0\nshort 01\n";
        assert_eq!(parse_if_inet6(inet6), [ip("fd00::1")]);
        let found = HostAddresses::read(Path::new("/proc"));
        assert!(found.all.contains(&ip("127.0.0.1")), "{found:?}");
    }
}
