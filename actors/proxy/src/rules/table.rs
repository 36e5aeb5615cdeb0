//! The tables, put together.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use k3sd_netlink::Cidr;
use k3sd_netlink::nft;
use k3sd_netlink::nft::{
    Chain, ChainBase, ChainKind, Change, Compare, Contents, CtKey, Data, Expression, Family, FibResult, Hook, MetaKey,
    Rule, Set, Table, Verdict,
};

use super::chain::{self, Layout, Policy, SCRATCH, SOURCE, is_local, rule};
use super::element::{SetId, filled};
use super::recipe::{Place, Recipe};

/// The name of our table in each family.
pub(crate) const TABLE: &str = "k3sd-proxy";
/// The chain that finds out what a packet is for.
const SERVICES: &str = "services";
/// The bit of a connection's status that says that its destination was translated.
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// Where the kernel translates destinations, and sources.
const DESTINATION_PRIORITY: i32 = -100;
const SOURCE_PRIORITY: i32 = 100;
/// Bytes of a link's name.
const LINK_NAME_BYTES: usize = 16;

/// The family of our tables.
pub(crate) fn family(is_ipv6: bool) -> Family {
    if is_ipv6 { Family::Ip6 } else { Family::Ip }
}

/// A family's table. `elements` are those of a set, `recipes` those that are in use, with all that they lead to;
/// `source_bits` the lengths of networks by which clients are checked.
pub(crate) fn table(
    is_ipv6: bool,
    policy: &Policy,
    recipes: &BTreeSet<Recipe>,
    source_bits: &[u8],
    mut elements: impl FnMut(SetId) -> Contents,
) -> Table {
    let mut table = Table::new(family(is_ipv6), TABLE);
    let layout = Layout { is_ipv6 };
    for id in filled() {
        table.sets.push(Set { elements: Some(elements(*id)), ..id.set(is_ipv6) });
    }
    let known: Contents = recipes.iter().map(recipe_element).collect();
    table.sets.push(Set { elements: Some(known), ..SetId::Recipes.set(is_ipv6) });
    table.sets.push(SetId::Sticky.set(is_ipv6));
    let chain = |recipe: &Recipe| Chain {
        name: recipe.chain(),
        base: None,
        rules: chain::rules(recipe, layout, policy, source_bits),
    };
    table.chains.extend(recipes.iter().map(chain));
    table.chains.push(Chain { name: SERVICES.to_owned(), base: None, rules: services(layout, policy) });
    let jump = || vec![rule(vec![Expression::Verdict(Verdict::Jump(SERVICES.to_owned()))])];
    let base = |kind, hook, priority| Some(ChainBase { kind, hook, priority, drops: false });
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        let base = base(ChainKind::Nat, hook, DESTINATION_PRIORITY);
        table.chains.push(Chain { name: name.to_owned(), base, rules: jump() });
    }
    let at = base(ChainKind::Nat, Hook::Postrouting, SOURCE_PRIORITY);
    table.chains.push(Chain { name: "postrouting".to_owned(), base: at, rules: postrouting(layout, policy) });
    if !is_ipv6 && policy.localhost_node_ports {
        let at = base(ChainKind::Filter, Hook::Input, 0);
        table.chains.push(Chain { name: "localhost".to_owned(), base: at, rules: guard_localhost(layout) });
    }
    table
}

fn recipe_element(recipe: &Recipe) -> (Vec<u8>, nft::Element) {
    let data = Some(Data::Verdict(Verdict::Goto(recipe.chain())));
    (recipe.encode().to_vec(), nft::Element { data, comment: None })
}

/// Adds the chain of a recipe to a table that has those it leads to.
pub(crate) fn add_chain(recipe: &Recipe, is_ipv6: bool, policy: &Policy, source_bits: &[u8]) -> Vec<Change> {
    let name = recipe.chain();
    let rules = chain::rules(recipe, Layout { is_ipv6 }, policy, source_bits);
    let mut changes = vec![Change::AddChain { name: name.clone(), base: None }];
    changes.extend(rules.into_iter().map(|rule| Change::AddRule { chain: name.clone(), rule }));
    let elements = [recipe_element(recipe)].into();
    changes.push(Change::AddElements { set: SetId::Recipes.name().to_owned(), elements });
    changes
}

/// To the chain of what the packet is for, if it is for anything.
fn dispatch(layout: Layout, before: Vec<Expression>, place: Place) -> Rule {
    let mut steps = before;
    steps.extend(layout.load_key(place));
    let (to, key) = (layout.endpoint(), layout.behind_pad());
    steps.extend([
        Expression::Immediate { to: key, value: vec![0; Recipe::BYTES] },
        Expression::LookupValue { map: SetId::Services.name().to_owned(), key: layout.key(), to },
        Expression::LookupVerdict { map: SetId::Recipes.name().to_owned(), key },
    ]);
    rule(steps)
}

fn to_this_machine() -> Vec<Expression> {
    vec![Expression::FibDestination { result: FibResult::AddressType, to: SCRATCH }, is_local(SCRATCH)]
}

/// The addresses of the loopback.
fn loopback(is_ipv6: bool) -> Option<Cidr> {
    if is_ipv6 {
        Some(Cidr::host(Ipv6Addr::LOCALHOST.into()))
    } else {
        Cidr::new(Ipv4Addr::new(127, 0, 0, 0).into(), 8)
    }
}

/// An address of its own first; then what is at many of the node's; then what services could have, but don't.
fn services(layout: Layout, policy: &Policy) -> Vec<Rule> {
    let mut rules = vec![dispatch(layout, Vec::new(), Place::Address)];
    let loopback = loopback(layout.is_ipv6);
    // IPv6 has no way from there to anywhere else.
    let leaves_loopback_out = layout.is_ipv6 || !policy.localhost_node_ports;
    let node_ports = |cidr: Option<&Cidr>| {
        let mut steps = to_this_machine();
        let without = loopback.as_ref().filter(|_| leaves_loopback_out).map(|cidr| (cidr, Compare::NotEqual));
        for (cidr, how) in cidr.map(|cidr| (cidr, Compare::Equal)).into_iter().chain(without) {
            steps.push(layout.load_destination(SOURCE));
            steps.extend(layout.within(SOURCE, how, cidr));
        }
        dispatch(layout, steps, Place::NodePort)
    };
    match &policy.node_port_cidrs {
        None => rules.push(node_ports(None)),
        Some(cidrs) => {
            let cidrs = cidrs.iter().filter(|cidr| cidr.is_ipv6() == layout.is_ipv6);
            rules.extend(cidrs.map(|cidr| node_ports(Some(cidr))));
        }
    }
    rules.push(dispatch(layout, to_this_machine(), Place::Balancer));
    for mut refusal in chain::refuse(layout.is_ipv6) {
        let of_service = Expression::Lookup { set: SetId::Addresses.name().to_owned(), key: SOURCE, inverted: false };
        refusal.expressions.splice(..0, [layout.load_destination(SOURCE), of_service]);
        rules.push(refusal);
    }
    rules
}

/// Another source for packets that are marked so, and for those of a pod that reached itself.
fn postrouting(layout: Layout, policy: &Policy) -> Vec<Rule> {
    let bit = policy.mark;
    let bitwise = |mask: u32| Expression::Bitwise {
        from: SCRATCH,
        to: SCRATCH,
        mask: mask.to_ne_bytes().to_vec(),
        xor: vec![0; 4],
    };
    let is_set =
        |with: u32| Expression::Compare { from: SCRATCH, how: Compare::Equal, with: with.to_ne_bytes().to_vec() };
    let marked = vec![
        Expression::Meta { key: MetaKey::Mark, to: SCRATCH },
        bitwise(bit),
        is_set(bit),
        Expression::Meta { key: MetaKey::Mark, to: SCRATCH },
        bitwise(!bit),
        Expression::SetMeta { key: MetaKey::Mark, from: SCRATCH },
        Expression::Masquerade,
    ];
    let to_itself = vec![
        Expression::Ct { key: CtKey::Status, to: SCRATCH },
        bitwise(DESTINATION_TRANSLATED),
        is_set(DESTINATION_TRANSLATED),
        layout.load_source(SOURCE),
        layout.load_destination(layout.key()),
        Expression::Lookup { set: SetId::Hairpin.name().to_owned(), key: SOURCE, inverted: false },
        Expression::Masquerade,
    ];
    vec![rule(marked), rule(to_itself)]
}

/// Node ports at the loopback's addresses need a kernel that routes those; what came from elsewhere must not reach them
/// for that.
fn guard_localhost(layout: Layout) -> Vec<Rule> {
    let mut name = b"lo".to_vec();
    name.resize(LINK_NAME_BYTES, 0);
    let mut steps = vec![layout.load_destination(SOURCE)];
    steps.extend(loopback(false).iter().flat_map(|cidr| layout.within(SOURCE, Compare::Equal, cidr)));
    steps.extend([
        Expression::Meta { key: MetaKey::InputName, to: SOURCE },
        Expression::Compare { from: SOURCE, how: Compare::NotEqual, with: name },
        Expression::Ct { key: CtKey::Status, to: SCRATCH },
        Expression::Bitwise {
            from: SCRATCH,
            to: SCRATCH,
            mask: DESTINATION_TRANSLATED.to_ne_bytes().to_vec(),
            xor: vec![0; 4],
        },
        Expression::Compare { from: SCRATCH, how: Compare::Equal, with: vec![0; 4] },
        Expression::Verdict(Verdict::Drop),
    ]);
    vec![rule(steps)]
}
