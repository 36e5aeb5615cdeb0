//! What is missing. Pure.

use std::net::IpAddr;

use super::model::{Desired, Kind, Link, LinkChange, LinkSpec, Operation, RouteSpec, State};

/// The steps from what there is to what is wanted, in the order in which the kernel takes them. Empty when nothing is
/// missing.
#[must_use]
pub fn plan(state: &State, desired: &Desired) -> Vec<Operation> {
    let mut steps = Vec::new();
    for name in desired.absent.iter().filter(|name| state.link(name).is_some()) {
        steps.push(Operation::DeleteLink { name: name.clone() });
    }
    for spec in &desired.links {
        plan_link(state, spec, &mut steps);
        plan_addresses(state, spec, &mut steps);
    }
    let missing = desired.routes.iter().filter(|route| !has_route(state, route));
    steps.extend(missing.cloned().map(Operation::PutRoute));
    steps
}

fn plan_link(state: &State, spec: &LinkSpec, steps: &mut Vec<Operation>) {
    let name = spec.name.clone();
    let found = state.link(&name);
    match (found, &spec.kind) {
        (None, Some(kind)) => {
            let mut change = wanted(spec);
            // A bridge keeps a limit that it was told, but not one that it was born with: that goes by its ports.
            let later = if *kind == Kind::Bridge { change.mtu.take() } else { None };
            steps.push(Operation::AddLink { name: name.clone(), kind: kind.clone(), change });
            if later.is_some() {
                let change = LinkChange { mtu: later, ..LinkChange::default() };
                steps.push(Operation::ChangeLink { name: name.clone(), change });
            }
        }
        // A link that is not there and that nobody makes: the kernel says so better than we can.
        (None, None) => steps.push(Operation::ChangeLink { name: name.clone(), change: wanted(spec) }),
        (Some(link), _) => {
            let change = difference(state, link, spec);
            if change != LinkChange::default() {
                steps.push(Operation::ChangeLink { name: name.clone(), change });
            }
        }
    }
    // A port keeps its settings only as long as its master.
    let stays = found.is_some_and(|link| spec.master.is_none() || is_port_of(state, link, spec));
    let hairpin = found.filter(|_| stays).and_then(|link| link.hairpin);
    if let Some(wanted) = spec.hairpin
        && hairpin.unwrap_or(false) != wanted
    {
        steps.push(Operation::SetHairpin { name, hairpin: wanted });
    }
}

fn wanted(spec: &LinkSpec) -> LinkChange {
    LinkChange {
        up: spec.up,
        promiscuous: spec.promiscuous,
        mtu: spec.mtu,
        mac: spec.mac,
        master: spec.master.clone(),
        alias: spec.alias.clone(),
    }
}

fn is_port_of(state: &State, link: &Link, spec: &LinkSpec) -> bool {
    let master = spec.master.as_ref().and_then(|master| state.link(master));
    master.is_some_and(|master| link.master == Some(master.index))
}

fn difference(state: &State, link: &Link, spec: &LinkSpec) -> LinkChange {
    LinkChange {
        up: spec.up.filter(|up| *up != link.up),
        promiscuous: spec.promiscuous.filter(|promiscuous| *promiscuous != link.promiscuous),
        mtu: spec.mtu.filter(|mtu| *mtu != link.mtu),
        mac: spec.mac.filter(|mac| Some(*mac) != link.mac),
        master: spec.master.clone().filter(|_| !is_port_of(state, link, spec)),
        alias: spec.alias.clone().filter(|alias| link.alias.as_ref() != Some(alias)),
    }
}

fn plan_addresses(state: &State, spec: &LinkSpec, steps: &mut Vec<Operation>) {
    let index = state.link(&spec.name).map(|link| link.index);
    let found = || state.addresses.iter().filter(move |address| Some(address.index) == index);
    if spec.no_other_addresses {
        let surplus = found().filter(|address| {
            let same_family = spec.addresses.iter().any(|wanted| wanted.is_ipv6() == address.cidr.is_ipv6());
            same_family && !spec.addresses.contains(&address.cidr) && !is_link_local(address.cidr.address())
        });
        steps.extend(surplus.map(|address| Operation::DeleteAddress { link: spec.name.clone(), cidr: address.cidr }));
    }
    let missing = spec.addresses.iter().filter(|wanted| !found().any(|address| address.cidr == **wanted));
    steps.extend(missing.map(|cidr| Operation::AddAddress { link: spec.name.clone(), cidr: *cidr }));
}

/// Those that the kernel gives out itself.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn has_route(state: &State, wanted: &RouteSpec) -> bool {
    let index = state.link(&wanted.link).map(|link| link.index);
    state.routes.iter().any(|found| {
        found.destination == wanted.destination.network()
            && found.gateway == wanted.gateway
            && found.index.is_some()
            && found.index == index
            && found.table == wanted.table
            && found.metric == wanted.metric_shown()
            && (wanted.mtu.is_none() || found.mtu == wanted.mtu)
    })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
