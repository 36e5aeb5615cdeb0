//! What happens to a packet for a service, apart from where it goes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// At which addresses a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    /// At one.
    Address,
    /// At those of the node where node ports are.
    NodePort,
    /// At each of the node, which is a load balancer itself.
    Balancer,
}

impl Place {
    pub(crate) const ALL: [Self; 3] = [Self::Address, Self::NodePort, Self::Balancer];

    /// The address under which ports that are at many stand in the maps. No packet is ever sent to one of these.
    pub(crate) fn stand_in(self, is_ipv6: bool) -> Option<IpAddr> {
        match (self, is_ipv6) {
            (Self::Address, _) => None,
            (Self::NodePort, false) => Some(Ipv4Addr::UNSPECIFIED.into()),
            (Self::NodePort, true) => Some(Ipv6Addr::UNSPECIFIED.into()),
            (Self::Balancer, false) => Some(Ipv4Addr::new(0, 0, 0, 1).into()),
            // Of the block for packets to discard, 100::/64.
            (Self::Balancer, true) => Some(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1).into()),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::NodePort => "node-port",
            Self::Balancer => "balancer",
        }
    }
}

/// Whose packets get the node's address as their source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Masquerade {
    /// Nobody's, but for a pod that reaches itself.
    Never,
    /// Those that don't come from a pod.
    FromOutside,
    /// All.
    Always,
}

/// What happens to a packet for a service, apart from where it goes. The kernel has a chain for each that is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Recipe {
    /// At which addresses the port is.
    pub(crate) place: Place,
    /// Whether only clients of some networks may come.
    pub(crate) checks_source: bool,
    /// Whose source is changed.
    pub(crate) masquerade: Masquerade,
    /// How many endpoints there are.
    pub(crate) endpoints: u32,
    /// Whether the packet is dropped when there are none; it is refused otherwise.
    pub(crate) drops: bool,
    /// How many endpoints clients from outside the cluster get, who get only those of this node.
    pub(crate) local: Option<u32>,
    /// For how many seconds a client goes to the same endpoint; 0 for no time at all.
    pub(crate) sticky_seconds: u32,
}

const PLACE_MASK: u32 = 3;
const CHECKS_SOURCE: u32 = 1 << 2;
const MASQUERADE_SHIFT: u32 = 3;
const HAS_LOCAL: u32 = 1 << 5;
const DROPS: u32 = 1 << 6;

impl Recipe {
    /// Bytes of its form in the kernel's maps.
    pub(crate) const BYTES: usize = 16;

    /// Its form in the kernel's maps.
    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut flags = self.place as u32 | (self.masquerade as u32) << MASQUERADE_SHIFT;
        for (is_set, flag) in
            [(self.checks_source, CHECKS_SOURCE), (self.local.is_some(), HAS_LOCAL), (self.drops, DROPS)]
        {
            flags |= if is_set { flag } else { 0 };
        }
        let words = [flags, self.endpoints, self.local.unwrap_or(0), self.sticky_seconds];
        let mut bytes = [0; Self::BYTES];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// What was encoded so; `None` for what wasn't.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let words = bytes.chunks_exact(4).map(|word| word.try_into().map(u32::from_ne_bytes));
        let words: Vec<u32> = words.collect::<Result<_, _>>().ok()?;
        let [flags, endpoints, local, sticky_seconds] = words[..] else { return None };
        let masquerades = [Masquerade::Never, Masquerade::FromOutside, Masquerade::Always];
        let recipe = Self {
            place: *Place::ALL.get((flags & PLACE_MASK) as usize)?,
            checks_source: flags & CHECKS_SOURCE != 0,
            masquerade: *masquerades.get((flags >> MASQUERADE_SHIFT & 3) as usize)?,
            endpoints,
            drops: flags & DROPS != 0,
            local: (flags & HAS_LOCAL != 0).then_some(local),
            sticky_seconds,
        };
        (recipe.encode() == bytes).then_some(recipe)
    }

    /// The name of its chain.
    pub(crate) fn chain(&self) -> String {
        let mut name = format!("{}-{}", self.place.word(), self.endpoints);
        if let Some(local) = self.local {
            name += &format!("-local-{local}");
        }
        match self.masquerade {
            Masquerade::Never => {}
            Masquerade::FromOutside => name += "-masquerade-outside",
            Masquerade::Always => name += "-masquerade",
        }
        if self.sticky_seconds > 0 {
            name += &format!("-sticky-{}", self.sticky_seconds);
        }
        if self.checks_source {
            name += "-checked";
        }
        if self.drops {
            name += "-drop";
        }
        name
    }

    /// The same for a client who came past the check of sources.
    pub(crate) fn unchecked(self) -> Self {
        Self { checks_source: false, ..self }
    }

    /// The same for a pod, and for the node itself: they get all endpoints there are.
    pub(crate) fn for_insider(self, masquerade: Masquerade) -> Self {
        Self { local: None, masquerade, checks_source: false, ..self }
    }

    /// The recipes that the chain of this one leads to.
    pub(crate) fn leads_to(self) -> Vec<Self> {
        if self.checks_source {
            vec![self.unchecked()]
        } else if self.local.is_some() {
            vec![self.for_insider(Masquerade::Never), self.for_insider(Masquerade::Always)]
        } else {
            Vec::new()
        }
    }

    /// This one and all that its chain leads to, whatever others lead to first.
    pub(crate) fn closure(self) -> Vec<Self> {
        let mut all: Vec<Self> = self.leads_to().into_iter().flat_map(Self::closure).collect();
        all.push(self);
        all
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// One of every kind.
    pub(crate) fn all() -> Vec<Recipe> {
        let mut all = Vec::new();
        for place in Place::ALL {
            for masquerade in [Masquerade::Never, Masquerade::FromOutside, Masquerade::Always] {
                for (endpoints, local) in [(0, None), (0, Some(0)), (1, None), (3, Some(0)), (3, Some(2))] {
                    for sticky_seconds in [0, 10_800] {
                        for (checks_source, drops) in [(false, false), (true, false), (false, true), (true, true)] {
                            let recipe =
                                Recipe { place, checks_source, masquerade, endpoints, drops, local, sticky_seconds };
                            all.push(recipe);
                        }
                    }
                }
            }
        }
        all
    }

    #[test]
    fn each_has_a_form_and_a_name_of_its_own() {
        let (mut forms, mut names) = (BTreeSet::new(), BTreeSet::new());
        for recipe in all() {
            assert_eq!(Recipe::decode(&recipe.encode()), Some(recipe));
            assert!(forms.insert(recipe.encode()) && names.insert(recipe.chain()), "{recipe:?}");
        }
        assert_eq!(Recipe::decode(&[0xff; 16]), None);
        assert_eq!(Recipe::decode(&[0; 12]), None);
    }

    #[test]
    fn a_chain_comes_behind_those_that_it_leads_to() {
        for recipe in all() {
            let closure = recipe.closure();
            assert_eq!(closure.last(), Some(&recipe));
            for (at, one) in closure.iter().enumerate() {
                assert!(one.leads_to().iter().all(|next| closure[..at].contains(next)), "{recipe:?}");
            }
        }
    }
}
