//! The directive `hosts`: names and addresses from a file such as `/etc/hosts`, and from lines.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Fall;
use crate::wire::kind;
use crate::wire::name::Name;
use crate::wire::writer::{Section, Writer};

/// Names and addresses, both ways.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    /// The zones that it speaks for.
    pub(crate) zones: Vec<Name>,
    pub(crate) fall: Fall,
    /// Seconds.
    pub(crate) ttl: u32,
    /// Addresses are looked up as well.
    pub(crate) has_reverse: bool,
    by_name: HashMap<Box<[u8]>, Vec<IpAddr>>,
    by_address: HashMap<IpAddr, Vec<Name>>,
}

impl Hosts {
    /// Nothing yet, for these zones; `ttl` in seconds.
    pub(crate) fn new(zones: Vec<Name>, ttl: u32) -> Self {
        Self { zones, ttl, has_reverse: true, ..Self::default() }
    }

    /// Takes the lines of a file in; what makes no sense in it is left out, as everybody does.
    pub(crate) fn add_file(&mut self, text: &str) {
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            self.add(&words);
        }
    }

    /// Takes an address with its names in. Whether the first word is an address.
    pub(crate) fn add(&mut self, words: &[&str]) -> bool {
        let Some((first, names)) = words.split_first() else { return true };
        // The part behind a percent sign names a link.
        let Ok(address) = first.split('%').next().unwrap_or_default().parse::<IpAddr>() else { return false };
        for name in names.iter().filter_map(|name| Name::parse_lower(name).ok()) {
            let addresses = self.by_name.entry(name.wire().into()).or_default();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
            let names = self.by_address.entry(address).or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        true
    }

    /// Answers about a name, or the name of an address. `None` if it knows no such name.
    pub(crate) fn answer(
        &self,
        (name, kind, owner): (&[u8], u16, Option<&[u8]>),
        first: impl FnOnce(usize) -> usize,
        writer: &mut Writer<'_>,
    ) -> Option<bool> {
        if kind == kind::PTR {
            let address = crate::zone::reverse_address(name).filter(|_| self.has_reverse)?;
            let names = self.by_address.get(&address)?;
            for found in names {
                writer.record(Section::Answer, owner, (kind::PTR, self.ttl), &[found.wire()]);
            }
            return Some(!names.is_empty());
        }
        let addresses = self.by_name.get(name)?;
        let wanted = |address: &&IpAddr| match kind {
            kind::A => address.is_ipv4(),
            kind::AAAA => address.is_ipv6(),
            _ => false,
        };
        let count = addresses.iter().filter(wanted).count();
        let turned = addresses.iter().filter(wanted).cycle().skip(first(count)).take(count);
        for address in turned {
            writer.address(Section::Answer, owner, self.ttl, *address);
        }
        Some(count > 0)
    }
}
