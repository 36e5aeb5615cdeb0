//! Addresses and networks as objects of the API write them.
//!
//! Old objects may have numbers with zeros in front, which the API still lets through and reads as decimal. A network that
//! is not understood would leave a port open that should be closed, so these are understood here as well.

use std::net::{IpAddr, Ipv4Addr};

use k3sd_netlink::Cidr;

use crate::rules::Place;

/// The same without zeros in front of decimal numbers.
fn without_zeros(text: &str) -> String {
    let strip = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let plain = if address.contains(':') {
        address.to_owned()
    } else {
        address.split('.').map(strip).collect::<Vec<_>>().join(".")
    };
    match bits {
        Some(bits) => format!("{plain}/{}", strip(bits)),
        None => plain,
    }
}

/// Reads an address.
fn read(text: &str) -> Option<IpAddr> {
    // Almost always there is nothing to strip, and there may be many.
    text.parse().ok().or_else(|| without_zeros(text).parse().ok())
}

/// Reads a network of clients; `None` for what is none.
pub(super) fn network(text: &str) -> Option<Cidr> {
    without_zeros(text.trim()).parse().ok()
}

/// Whether packets to it go to one other machine. Nothing else can be a service or an endpoint: what is sent to the
/// loopback stays on the node, where only the node itself may come.
fn is_one_machine(address: IpAddr) -> bool {
    let is_broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    !(address.to_canonical().is_loopback() || address.is_unspecified() || address.is_multicast() || is_broadcast)
}

/// Reads the address of an endpoint; `None` for what can be none.
pub(super) fn endpoint(text: &str) -> Option<IpAddr> {
    read(text).filter(|address| is_one_machine(*address))
}

/// Reads an address of a service; `None` for what can be none. The addresses under which ports stand in the maps that are
/// at many aren't anybody's to ask for.
pub(super) fn service(text: &str) -> Option<IpAddr> {
    let stands_for_many =
        |address: IpAddr| Place::ALL.iter().any(|place| place.stand_in(address.is_ipv6()) == Some(address));
    read(text).filter(|address| is_one_machine(*address) && !stands_for_many(*address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_api_writes_them() {
        for (text, read_as) in [
            ("10.43.0.5", Some("10.43.0.5")),
            ("010.043.000.005", Some("10.43.0.5")),
            ("fd43::05", Some("fd43::5")),
            ("10.43.0.x", None),
            ("10.43.0.", None),
            ("10.43.0", None),
            ("None", None),
            ("", None),
        ] {
            assert_eq!(service(text), read_as.map(|text| text.parse().unwrap()), "{text}");
            assert_eq!(endpoint(text), service(text), "{text}");
        }
        for (text, read_as) in [
            (" 10.0.0.0/8 ", Some("10.0.0.0/8")),
            ("010.0.0.0/08", Some("10.0.0.0/8")),
            ("fd00::/08", Some("fd00::/8")),
            ("fd00::/8", Some("fd00::/8")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("10.0.0.0/33", None),
            ("10.0.0.0", None),
            ("/8", None),
        ] {
            assert_eq!(network(text), read_as.map(|text| text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn some_addresses_are_nobodys() {
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "127.9.9.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
            "::ffff:127.0.0.1",
        ] {
            assert_eq!((service(text), endpoint(text)), (None, None), "{text}");
        }
        for text in ["0.0.0.1", "100::1"] {
            assert_eq!(service(text), None, "{text} stands for many");
        }
    }
}
