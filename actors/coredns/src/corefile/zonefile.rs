//! The directive `file`: zones of one's own, looked up by the rules of RFC 1034, section 4.3.2.

use std::collections::{HashMap, HashSet};

use super::Fall;
use crate::wire::kind;
use crate::wire::message::{Record, target};
use crate::wire::name::{Name, below, label_count, without_labels};

/// Names that lead to names that lead to names.
const ALIASES_MAX: usize = 8;

/// A zone with its records.
#[derive(Clone, Debug)]
pub(crate) struct ZoneFile {
    pub(crate) origin: Name,
    pub(crate) fall: Fall,
    records: HashMap<Box<[u8]>, Vec<Record>>,
    /// Names that have records, or names below them that have.
    names: HashSet<Box<[u8]>>,
}

/// What a zone says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) answers: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    pub(crate) additional: Vec<Record>,
    /// There is no such name.
    pub(crate) no_name: bool,
    /// Somebody else is responsible.
    pub(crate) is_referral: bool,
}

impl ZoneFile {
    /// From the records of a zone; those that aren't in it are left out.
    pub(crate) fn new(origin: Name, fall: Fall, all: Vec<Record>) -> Self {
        let mut zone = Self { origin, fall, records: HashMap::new(), names: HashSet::new() };
        for record in all {
            let owner = record.owner.lower();
            let Some(front) = below(owner.wire(), zone.origin.wire()) else { continue };
            for skipped in 0..=label_count(front) {
                zone.names.insert(without_labels(owner.wire(), skipped).into());
            }
            zone.records.entry(owner.wire().into()).or_default().push(record);
        }
        zone
    }

    fn of_kind<'a>(&'a self, name: &[u8], kind: u16) -> impl Iterator<Item = &'a Record> {
        let found = self.records.get(name).into_iter().flatten();
        found.filter(move |record| record.kind == kind || kind == kind::ANY)
    }

    /// Looks a name up, in small letters. `None` if it isn't in this zone.
    pub(crate) fn look_up(&self, name: &[u8], kind: u16) -> Option<Reply> {
        below(name, self.origin.wire())?;
        let mut reply = Reply::default();
        let mut name: Box<[u8]> = name.into();
        for _ in 0..ALIASES_MAX {
            if let Some(cut) = self.cut(&name) {
                reply.is_referral = reply.answers.is_empty();
                reply.authority.extend(self.of_kind(cut, kind::NS).cloned());
                self.add_addresses(&mut reply);
                return Some(reply);
            }
            let found = self.at(&name);
            let wanted = found.iter().filter(|record| record.kind == kind || kind == kind::ANY);
            let before = reply.answers.len();
            reply.answers.extend(wanted.cloned());
            if reply.answers.len() > before {
                self.add_addresses(&mut reply);
                return Some(reply);
            }
            let Some(alias) = found.into_iter().find(|record| record.kind == kind::CNAME) else {
                reply.no_name = reply.answers.is_empty() && !self.exists(&name);
                reply.authority.extend(self.denial());
                return Some(reply);
            };
            let next: Box<[u8]> = target(&alias).unwrap_or_default().to_ascii_lowercase().into();
            reply.answers.push(alias);
            if below(&next, self.origin.wire()).is_none() {
                return Some(reply);
            }
            name = next;
        }
        Some(reply)
    }

    /// The records of a name, or what stands for it where there is an asterisk.
    fn at(&self, name: &[u8]) -> Vec<Record> {
        if let Some(found) = self.records.get(name) {
            return found.clone();
        }
        let Some(wild) = self.wildcard(name) else { return Vec::new() };
        let owner = Name::from_wire(name);
        wild.iter().map(|record| Record { owner: owner.clone(), ..record.clone() }).collect()
    }

    fn exists(&self, name: &[u8]) -> bool {
        self.names.contains(name) || self.wildcard(name).is_some()
    }

    fn wildcard(&self, name: &[u8]) -> Option<&Vec<Record>> {
        if self.names.contains(name) {
            return None;
        }
        let mut parent = without_labels(name, 1);
        // The closest name that there is decides; what is further up doesn't count.
        while parent != self.origin.wire() && !self.names.contains(parent) {
            parent = without_labels(parent, 1);
        }
        let star: Vec<u8> = b"\x01*".iter().chain(parent).copied().collect();
        self.records.get(&*star)
    }

    /// The name at or above this one where somebody else's responsibility begins.
    fn cut<'a>(&self, name: &'a [u8]) -> Option<&'a [u8]> {
        let front = below(name, self.origin.wire())?;
        let above = (0..label_count(front)).map(|skipped| without_labels(name, skipped));
        above.rev().find(|name| self.of_kind(name, kind::NS).any(|record| record.kind == kind::NS))
    }

    /// The record with which it is said that there is nothing.
    fn denial(&self) -> Option<Record> {
        let mut record = self.of_kind(self.origin.wire(), kind::SOA).next()?.clone();
        let end = record.data.len().checked_sub(4).and_then(|at| record.data.get(at..));
        let least = end.and_then(|end| end.try_into().ok()).map_or(record.ttl, u32::from_be_bytes);
        record.ttl = record.ttl.min(least);
        Some(record)
    }

    /// The addresses of servers that are named.
    fn add_addresses(&self, reply: &mut Reply) {
        let name = |record: &Record| -> Option<Box<[u8]>> {
            let at = match record.kind {
                kind::NS => 0,
                kind::MX => 2,
                kind::SRV => 6,
                _ => return None,
            };
            Some(record.data.get(at..)?.to_ascii_lowercase().into())
        };
        let mut named: Vec<_> = reply.answers.iter().chain(&reply.authority).filter_map(name).collect();
        named.sort_unstable();
        named.dedup();
        for name in named {
            let addresses = self.records.get(&name).into_iter().flatten();
            reply.additional.extend(addresses.filter(|record| matches!(record.kind, kind::A | kind::AAAA)).cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::primary::read;
    use super::*;

    const ZONE: &str = "$TTL 300\n@ SOA ns host 1 2 3 4 60\n@ NS ns\nns A 192.0.2.1\nwww CNAME web\nweb A 192.0.2.2\n\
        out CNAME elsewhere.example.net.\n*.wild TXT x\nreal.wild A 192.0.2.3\nsub NS ns.sub\nns.sub A 192.0.2.4\n\
        a.b.c A 192.0.2.5\nloop CNAME pool\npool CNAME loop\nmail MX 1 web\n";

    fn shown(name: &str, kind: u16) -> String {
        let origin = Name::parse("example.org").expect("a name");
        let zone = ZoneFile::new(origin.clone(), Fall::No, read("db", ZONE, &origin).expect("a zone"));
        let Some(reply) = zone.look_up(Name::parse(name).expect("a name").wire(), kind) else {
            return "not here".to_owned();
        };
        let list = |records: &[Record]| {
            let words = records.iter().map(|record| format!("{}{}", record.owner, kind::name(record.kind)));
            words.collect::<Vec<_>>().join(" ")
        };
        let what = if reply.no_name {
            "!"
        } else if reply.is_referral {
            ">"
        } else {
            ""
        };
        format!("{what}{}|{}|{}", list(&reply.answers), list(&reply.authority), list(&reply.additional))
    }

    #[test]
    fn names_are_looked_up_by_the_rules() {
        for (name, kind, expected) in [
            ("web.example.org", kind::A, "web.example.org.A||"),
            ("web.example.org", kind::AAAA, "|example.org.SOA|"),
            ("nothing.example.org", kind::A, "!|example.org.SOA|"),
            ("www.example.org", kind::A, "www.example.org.CNAME web.example.org.A||"),
            ("www.example.org", kind::CNAME, "www.example.org.CNAME||"),
            ("out.example.org", kind::A, "out.example.org.CNAME||"),
            ("x.wild.example.org", kind::TXT, "x.wild.example.org.TXT||"),
            ("x.y.wild.example.org", kind::TXT, "x.y.wild.example.org.TXT||"),
            ("x.wild.example.org", kind::A, "|example.org.SOA|"),
            ("real.wild.example.org", kind::TXT, "|example.org.SOA|"),
            ("x.real.wild.example.org", kind::TXT, "!|example.org.SOA|"),
            ("deep.sub.example.org", kind::A, ">|sub.example.org.NS|ns.sub.example.org.A"),
            ("b.c.example.org", kind::A, "|example.org.SOA|"),
            ("example.org", kind::NS, "example.org.NS||ns.example.org.A"),
            ("mail.example.org", kind::MX, "mail.example.org.MX||web.example.org.A"),
            ("example.net", kind::A, "not here"),
        ] {
            assert_eq!(shown(name, kind), expected, "{name}");
        }
        assert!(shown("loop.example.org", kind::A).starts_with("loop.example.org.CNAME pool"), "it ends");
    }
}
