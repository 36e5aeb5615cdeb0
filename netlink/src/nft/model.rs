//! Tables, and changes to them, as data.

use std::collections::BTreeMap;
use std::fmt;

use super::expression::Expression;

/// Whose packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

impl Family {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }

    pub(super) fn of(number: u8) -> Option<Self> {
        [Self::Inet, Self::Ip, Self::Ip6].into_iter().find(|family| family.number() == number)
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// This hook's chains of the same priority let it pass; others may not.
    Accept,
    /// It is gone.
    Drop,
    /// On with the next rule.
    Continue,
    /// Back to the calling chain, or to the base chain's policy.
    Return,
    /// On in that chain, and back.
    Jump(String),
    /// On in that chain, and back to our own caller.
    Goto(String),
}

/// What a base chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of each connection.
    Nat,
    /// Sees every packet, and has it routed again when it changes it.
    Route,
}

impl ChainKind {
    pub(super) const ALL: [Self; 3] = [Self::Filter, Self::Nat, Self::Route];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

/// Where on a packet's way a base chain sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// It came in, and is not routed yet.
    Prerouting,
    /// It is for this machine.
    Input,
    /// It is for another one.
    Forward,
    /// It was made here.
    Output,
    /// It leaves.
    Postrouting,
}

impl Hook {
    pub(super) const ALL: [Self; 5] = [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting];

    pub(super) fn number(self) -> u32 {
        self as u32
    }
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainBase {
    /// What it is for.
    pub kind: ChainKind,
    /// Where it sits.
    pub hook: Hook,
    /// The lowest goes first. Destinations are translated at -100, sources at 100.
    pub priority: i32,
    /// Whether what reaches the end is dropped; it passes otherwise.
    pub drops: bool,
}

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Evaluated in turn, until one of them says no or gives a verdict.
    pub expressions: Vec<Expression>,
}

/// A row of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name within the table.
    pub name: String,
    /// Where it is attached; chains without are jumped to.
    pub base: Option<ChainBase>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// nft's number for the type of a key or a value, so that `nft list` shows it well. The kernel doesn't care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeId(pub u32);

impl TypeId {
    /// An IPv4 address.
    pub const IPV4: Self = Self(7);
    /// An IPv6 address.
    pub const IPV6: Self = Self(8);
    /// A protocol above IP.
    pub const PROTOCOL: Self = Self(12);
    /// A port.
    pub const PORT: Self = Self(13);
    /// Four bytes, shown as a number in the machine's order.
    pub const NUMBER: Self = Self(19);

    /// The type of an address of this family.
    #[must_use]
    pub fn address(is_ipv6: bool) -> Self {
        if is_ipv6 { Self::IPV6 } else { Self::IPV4 }
    }

    /// This and that one, one behind the other.
    #[must_use]
    pub fn then(self, other: Self) -> Self {
        Self(self.0 << 6 | other.0)
    }
}

/// What a map leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataKind {
    /// A value of so many bytes.
    Value {
        /// What it is.
        type_id: TypeId,
        /// How long it is.
        bytes: u32,
    },
    /// A verdict.
    Verdict,
}

/// What one element of a map leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A value.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

/// The rest of an element beside its key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// What it leads to, in a map.
    pub data: Option<Data>,
    /// Free text, at most 250 bytes.
    pub comment: Option<String>,
}

/// The elements of a set by key. Parts of a key are padded to four bytes each.
pub type Contents = BTreeMap<Vec<u8>, Element>;

/// A set or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name within the table.
    pub name: String,
    /// What its keys are.
    pub key_type: TypeId,
    /// How long they are.
    pub key_bytes: u32,
    /// What they lead to, in a map.
    pub data: Option<DataKind>,
    /// Its elements come from packets and time out, and there are at most so many. They are not read, and are lost when
    /// the set is made anew.
    pub from_packets: Option<u32>,
    /// Its elements. `None` in what is wanted leaves those that are there alone.
    pub elements: Option<Contents>,
}

/// A table with all that is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Whose packets it sees.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// Sets and maps.
    pub sets: Vec<Set>,
    /// Chains.
    pub chains: Vec<Chain>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(family: Family, name: &str) -> Self {
        Self { family, name: name.to_owned(), sets: Vec::new(), chains: Vec::new() }
    }

    /// The set or map of this name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }

    /// The chain of this name.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }
}

/// One change to a table. Those of a batch happen at the same moment, or none does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Makes the table, if there is none.
    AddTable,
    /// Makes a table that nobody else can touch, and that is gone with the socket by which it was made. Needs Linux 5.12.
    OwnTable,
    /// Takes the table away with all that is in it.
    DeleteTable,
    /// Makes a set without its elements.
    AddSet(Set),
    /// Takes a set away that no rule uses.
    DeleteSet(String),
    /// Makes a chain without its rules.
    AddChain {
        /// Its name.
        name: String,
        /// Where it is attached.
        base: Option<ChainBase>,
    },
    /// Takes all rules from a chain.
    FlushChain(String),
    /// Takes an empty chain away that nothing leads to.
    DeleteChain(String),
    /// Appends a rule.
    AddRule {
        /// The chain.
        chain: String,
        /// The rule.
        rule: Rule,
    },
    /// Adds elements to a set. Those that are there with the same data are no error.
    AddElements {
        /// The set.
        set: String,
        /// The elements.
        elements: Contents,
    },
    /// Takes elements from a set.
    DeleteElements {
        /// The set.
        set: String,
        /// The elements; their data doesn't matter.
        elements: Contents,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable => write!(f, "add the table"),
            Self::OwnTable => write!(f, "add the table for ourselves alone"),
            Self::DeleteTable => write!(f, "delete the table"),
            Self::AddSet(set) => write!(f, "add set {}", set.name),
            Self::DeleteSet(name) => write!(f, "delete set {name}"),
            Self::AddChain { name, .. } => write!(f, "add chain {name}"),
            Self::FlushChain(name) => write!(f, "flush chain {name}"),
            Self::DeleteChain(name) => write!(f, "delete chain {name}"),
            Self::AddRule { chain, .. } => write!(f, "add a rule to chain {chain}"),
            Self::AddElements { set, elements } => write!(f, "add {} elements to set {set}", elements.len()),
            Self::DeleteElements { set, elements } => write!(f, "delete {} elements of set {set}", elements.len()),
        }
    }
}
