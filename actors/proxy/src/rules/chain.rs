//! The chain of a recipe.

use std::net::IpAddr;

use k3sd_netlink::Cidr;
use k3sd_netlink::nft::{Base, Compare, Expression, FibResult, MetaKey, Nat, Refusal, Register, Rule, Verdict};

use super::LOCAL_INDEX;
use super::element::SetId;
use super::recipe::{Masquerade, Place, Recipe};

const TCP: u8 = 6;
/// The kind of address in the routing tables that is one of the machine's own.
const LOCAL_ADDRESS: u32 = 2;

/// What holds for all services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Where pods are.
    pub(crate) cluster_cidrs: Vec<Cidr>,
    /// The bit that says that a packet needs another source.
    pub(crate) mark: u32,
    /// At which addresses node ports are; at all of the node's without.
    pub(crate) node_port_cidrs: Option<Vec<Cidr>>,
    /// Whether node ports are at the loopback's addresses of IPv4 too.
    pub(crate) localhost_node_ports: bool,
}

impl Policy {
    pub(crate) fn cluster_cidrs(&self, is_ipv6: bool) -> impl Iterator<Item = &Cidr> {
        self.cluster_cidrs.iter().filter(move |cidr| cidr.is_ipv6() == is_ipv6)
    }
}

/// Where things are while a rule runs. The kernel forgets registers between rules.
///
/// The key of a service stands behind the client's address and in front of the endpoint, so that each map finds its key
/// in one row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) is_ipv6: bool,
}

pub(super) const SOURCE: Register = Register(0);
/// Free in both families.
pub(super) const SCRATCH: Register = Register(15);

impl Layout {
    fn words(self) -> u8 {
        if self.is_ipv6 { 4 } else { 1 }
    }

    pub(super) fn key(self) -> Register {
        Register(self.words())
    }

    fn address(self) -> Register {
        Register(self.words() + 1)
    }

    fn port(self) -> Register {
        Register(2 * self.words() + 1)
    }

    /// The endpoint's address. An index stands here as well, and a recipe.
    pub(super) fn endpoint(self) -> Register {
        Register(2 * self.words() + 2)
    }

    /// Behind an index, and behind what values begin with to please nft.
    pub(super) fn behind_pad(self) -> Register {
        Register(2 * self.words() + 3)
    }

    /// The port behind this address.
    fn port_of(self, address: Register) -> Register {
        Register(address.0 + self.words())
    }

    fn load(self, to: Register, v4: u32, v6: u32) -> Expression {
        let (offset, bytes) = if self.is_ipv6 { (v6, 16) } else { (v4, 4) };
        Expression::Payload { to, base: Base::Network, offset, bytes }
    }

    pub(super) fn load_source(self, to: Register) -> Expression {
        self.load(to, 12, 8)
    }

    pub(super) fn load_destination(self, to: Register) -> Expression {
        self.load(to, 16, 24)
    }

    /// The key under which what this packet is for stands in the maps.
    pub(super) fn load_key(self, place: Place) -> Vec<Expression> {
        let address = match place.stand_in(self.is_ipv6) {
            None => self.load_destination(self.address()),
            Some(address) => Expression::Immediate { to: self.address(), value: octets(address) },
        };
        vec![
            Expression::Meta { key: MetaKey::Protocol, to: self.key() },
            address,
            Expression::Payload { to: self.port(), base: Base::Transport, offset: 2, bytes: 2 },
        ]
    }

    /// Ends the rule unless what is in the register is in the network.
    pub(super) fn within(self, from: Register, how: Compare, cidr: &Cidr) -> [Expression; 2] {
        let mask = octets(cidr.mask());
        let xor = vec![0; mask.len()];
        let bitwise = Expression::Bitwise { from, to: from, mask, xor };
        [bitwise, Expression::Compare { from, how, with: octets(cidr.first()) }]
    }

    /// To the address here, and the port behind it.
    fn translate(self, address: Register) -> Expression {
        Expression::Nat(Nat { is_destination: true, is_ipv6: self.is_ipv6, address, port: Some(self.port_of(address)) })
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

pub(super) fn rule(expressions: Vec<Expression>) -> Rule {
    Rule { expressions }
}

/// Ends the rule unless the register, loaded before, names an address of the machine.
pub(super) fn is_local(from: Register) -> Expression {
    Expression::Compare { from, how: Compare::Equal, with: LOCAL_ADDRESS.to_ne_bytes().to_vec() }
}

fn mark(bit: u32) -> [Expression; 3] {
    [
        Expression::Meta { key: MetaKey::Mark, to: SCRATCH },
        Expression::Bitwise {
            from: SCRATCH,
            to: SCRATCH,
            mask: (!bit).to_ne_bytes().to_vec(),
            xor: bit.to_ne_bytes().to_vec(),
        },
        Expression::SetMeta { key: MetaKey::Mark, from: SCRATCH },
    ]
}

fn goto(recipe: Recipe) -> Expression {
    Expression::Verdict(Verdict::Goto(recipe.chain()))
}

/// Says that nobody is there.
pub(super) fn refuse(is_ipv6: bool) -> [Rule; 2] {
    let reset = vec![
        Expression::Meta { key: MetaKey::Protocol, to: SCRATCH },
        Expression::Compare { from: SCRATCH, how: Compare::Equal, with: vec![TCP] },
        Expression::Refuse(Refusal::TcpReset),
    ];
    [rule(reset), rule(vec![Expression::Refuse(Refusal::PortUnreachable { is_ipv6 })])]
}

/// The rules of a recipe's chain. `source_bits` are the lengths of networks that clients are checked by.
pub(super) fn rules(recipe: &Recipe, layout: Layout, policy: &Policy, source_bits: &[u8]) -> Vec<Rule> {
    if recipe.checks_source {
        return check_source(recipe, layout, source_bits);
    }
    if let Some(local) = recipe.local {
        return local_rules(recipe, local, layout, policy);
    }
    let mut rules = masquerade(recipe.masquerade, layout, policy);
    match recipe.endpoints {
        0 if recipe.drops => rules.push(rule(vec![Expression::Verdict(Verdict::Drop)])),
        0 => rules.extend(refuse(layout.is_ipv6)),
        count => rules.extend(picks(recipe, layout, 0, count)),
    }
    rules
}

/// One lookup for each length of network, and nobody else comes by.
fn check_source(recipe: &Recipe, layout: Layout, source_bits: &[u8]) -> Vec<Rule> {
    let look = |bits: &u8| {
        let everything = Cidr::everything(layout.is_ipv6).address();
        let cidr = Cidr::new(everything, *bits)?;
        let source = layout.behind_pad();
        let mask = octets(cidr.mask());
        let xor = vec![0; mask.len()];
        let mut steps = layout.load_key(recipe.place);
        steps.extend([
            Expression::Immediate { to: layout.endpoint(), value: u32::from(*bits).to_ne_bytes().to_vec() },
            layout.load_source(source),
            Expression::Bitwise { from: source, to: source, mask, xor },
            Expression::Lookup { set: SetId::Sources.name().to_owned(), key: layout.key(), inverted: false },
            goto(recipe.unchecked()),
        ]);
        Some(rule(steps))
    };
    let mut rules: Vec<_> = source_bits.iter().filter_map(look).collect();
    rules.push(rule(vec![Expression::Verdict(Verdict::Drop)]));
    rules
}

/// Pods and the node itself get all endpoints, everybody else those of this node, with his own address as the source.
fn local_rules(recipe: &Recipe, local: u32, layout: Layout, policy: &Policy) -> Vec<Rule> {
    let from_pod = policy.cluster_cidrs(layout.is_ipv6).map(|cidr| {
        let mut steps = vec![layout.load_source(SOURCE)];
        steps.extend(layout.within(SOURCE, Compare::Equal, cidr));
        steps.push(goto(recipe.for_insider(Masquerade::Never)));
        rule(steps)
    });
    let mut rules: Vec<_> = from_pod.collect();
    rules.push(rule(vec![
        Expression::FibSource { result: FibResult::AddressType, to: SCRATCH },
        is_local(SCRATCH),
        goto(recipe.for_insider(Masquerade::Always)),
    ]));
    match local {
        0 => rules.push(rule(vec![Expression::Verdict(Verdict::Drop)])),
        count => rules.extend(picks(recipe, layout, LOCAL_INDEX, count)),
    }
    rules
}

fn masquerade(whose: Masquerade, layout: Layout, policy: &Policy) -> Vec<Rule> {
    let mut steps = Vec::new();
    if whose == Masquerade::FromOutside {
        for cidr in policy.cluster_cidrs(layout.is_ipv6) {
            steps.push(layout.load_source(SOURCE));
            steps.extend(layout.within(SOURCE, Compare::NotEqual, cidr));
        }
    }
    // Without knowing where pods are nobody can be told to be outside.
    if whose == Masquerade::Never || (whose == Masquerade::FromOutside && steps.is_empty()) {
        return Vec::new();
    }
    steps.extend(mark(policy.mark));
    vec![rule(steps)]
}

/// The index of an endpoint, drawn at random, and the endpoint itself.
fn draw(layout: Layout, from: SetId, first: u32, count: u32) -> [Expression; 2] {
    let to = layout.endpoint();
    let index = match count {
        1 => Expression::Immediate { to, value: first.to_ne_bytes().to_vec() },
        modulus => Expression::Random { to, modulus, offset: first },
    };
    [index, Expression::LookupValue { map: from.name().to_owned(), key: layout.key(), to }]
}

fn picks(recipe: &Recipe, layout: Layout, first: u32, count: u32) -> Vec<Rule> {
    let mut steps = layout.load_key(recipe.place);
    if recipe.sticky_seconds == 0 {
        steps.extend(draw(layout, SetId::Endpoints, first, count));
        steps.push(layout.translate(layout.endpoint()));
        return vec![rule(steps)];
    }
    let blank = [Cidr::everything(layout.is_ipv6).address()].map(octets).into_iter().chain([vec![0; 4]]);
    let blank = [layout.behind_pad(), layout.port_of(layout.behind_pad())].into_iter().zip(blank);
    steps.push(layout.load_source(SOURCE));
    steps.extend(blank.map(|(to, value)| Expression::Immediate { to, value }));
    steps.extend(draw(layout, SetId::StickyEndpoints, first, count));
    let drawn = layout.translate(layout.behind_pad());
    let sticky = SetId::Sticky.name().to_owned();
    let timeout_ms = u64::from(recipe.sticky_seconds) * 1000;
    let mut remembered = steps.clone();
    remembered.extend([
        // What a client was given before stays what he is given, and what was drawn is for nothing then.
        Expression::Remember { map: sticky.clone(), key: SOURCE, value: layout.behind_pad(), timeout_ms },
        Expression::LookupValue { map: sticky, key: SOURCE, to: layout.endpoint() },
        layout.translate(layout.endpoint()),
    ]);
    // When no more clients can be remembered, they are served all the same.
    steps.push(drawn);
    vec![rule(remembered), rule(steps)]
}
