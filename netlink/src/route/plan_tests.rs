use proptest::prelude::*;

use super::super::model::{Address, Kind, Peer, RouteEntry, TABLE_MAIN};
use super::*;
use crate::cidr::Cidr;

/// What the kernel would make of a step, as far as the plan cares.
fn carry_out(state: &mut State, step: &Operation) {
    let index_of = |state: &State, name: &str| state.link(name).map(|link| link.index).expect("the link is there");
    match step {
        Operation::DeleteLink { name } => {
            let index = index_of(state, name);
            state.links.retain(|link| link.index != index);
            state.addresses.retain(|address| address.index != index);
            state.routes.retain(|route| route.index != Some(index));
        }
        Operation::AddLink { name, kind, change } => {
            assert!(state.link(name).is_none(), "{name} is there already");
            let index = state.links.iter().map(|link| link.index).max().unwrap_or(0) + 1;
            state.links.push(link(index, name, kind.word()));
            change_link(state, name, change);
        }
        Operation::ChangeLink { name, change } => change_link(state, name, change),
        Operation::SetHairpin { name, hairpin } => {
            let link = state.links.iter_mut().find(|link| link.name == *name).expect("the link is there");
            assert!(link.master.is_some(), "only ports have a hairpin mode");
            link.hairpin = Some(*hairpin);
        }
        Operation::AddAddress { link, cidr } => {
            let address = Address { index: index_of(state, link), cidr: *cidr };
            assert!(!state.addresses.contains(&address), "{cidr} is there already");
            state.addresses.push(address);
        }
        Operation::DeleteAddress { link, cidr } => {
            let gone = Address { index: index_of(state, link), cidr: *cidr };
            state.addresses.retain(|address| *address != gone);
        }
        Operation::PutRoute(route) => {
            let entry = RouteEntry {
                destination: route.destination.network(),
                gateway: route.gateway,
                index: Some(index_of(state, &route.link)),
                metric: route.metric_shown(),
                table: route.table,
                mtu: route.mtu,
            };
            let key = |entry: &RouteEntry| (entry.destination, entry.metric, entry.table);
            state.routes.retain(|found| key(found) != key(&entry));
            state.routes.push(entry);
        }
    }
}

fn change_link(state: &mut State, name: &str, change: &LinkChange) {
    let master = change.master.as_ref().map(|master| state.link(master).expect("the master is there").index);
    let link = state.links.iter_mut().find(|link| link.name == name).expect("the link is there");
    link.up = change.up.unwrap_or(link.up);
    link.promiscuous = change.promiscuous.unwrap_or(link.promiscuous);
    link.mtu = change.mtu.unwrap_or(link.mtu);
    link.mac = change.mac.or(link.mac);
    link.alias = change.alias.clone().or(link.alias.take());
    if let Some(master) = master {
        (link.master, link.hairpin) = (Some(master), Some(false));
    }
}

fn link(index: u32, name: &str, kind: &str) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind: kind.to_owned(),
        up: false,
        promiscuous: false,
        mtu: 1500,
        mac: None,
        master: None,
        hairpin: None,
        alias: None,
    }
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn bridge() -> LinkSpec {
    LinkSpec {
        name: "cni0".to_owned(),
        kind: Some(Kind::Bridge),
        up: Some(true),
        addresses: vec![cidr("10.42.0.1/24"), cidr("fd42::1/64")],
        ..LinkSpec::default()
    }
}

fn port() -> LinkSpec {
    let peer = Peer { name: "eth0".to_owned(), namespace: None, mac: None };
    LinkSpec {
        name: "veth1".to_owned(),
        kind: Some(Kind::Veth(peer)),
        up: Some(true),
        master: Some("cni0".to_owned()),
        hairpin: Some(true),
        ..LinkSpec::default()
    }
}

fn words(steps: &[Operation]) -> Vec<String> {
    steps.iter().map(ToString::to_string).collect()
}

#[test]
fn from_nothing_to_a_port_of_a_bridge() {
    let desired = Desired { links: vec![bridge(), port()], ..Desired::default() };
    let mut state = State::default();
    let steps = plan(&state, &desired);
    let expected = [
        "add bridge cni0",
        "add address 10.42.0.1/24 to cni0",
        "add address fd42::1/64 to cni0",
        "add veth veth1",
        "set hairpin mode of veth1 to true",
    ];
    assert_eq!(words(&steps), expected);
    steps.iter().for_each(|step| carry_out(&mut state, step));
    assert_eq!(plan(&state, &desired), []);
}

#[test]
fn only_what_differs_is_touched() {
    let desired = Desired { links: vec![bridge(), port()], absent: vec!["old".to_owned()], ..Desired::default() };
    let mut state = State::default();
    plan(&state, &desired).iter().for_each(|step| carry_out(&mut state, step));
    state.links.push(link(7, "old", "veth"));
    state.links[1].hairpin = Some(false);
    state.links[0].up = false;
    state.addresses.remove(0);
    let steps = plan(&state, &desired);
    let expected = [
        "delete link old",
        "change link cni0",
        "add address 10.42.0.1/24 to cni0",
        "set hairpin mode of veth1 to true",
    ];
    assert_eq!(words(&steps), expected);
}

#[test]
fn a_port_of_another_bridge_moves_and_is_set_up_again() {
    let desired = Desired { links: vec![bridge(), port()], ..Desired::default() };
    let mut state = State::default();
    plan(&state, &desired).iter().for_each(|step| carry_out(&mut state, step));
    state.links.push(link(9, "br1", "bridge"));
    state.links[1].master = Some(9);
    assert_eq!(words(&plan(&state, &desired)), ["change link veth1", "set hairpin mode of veth1 to true"]);
}

#[test]
fn surplus_addresses_go_only_when_asked_and_never_link_local_ones() {
    let mut spec = bridge();
    spec.kind = None;
    let mut state = State { links: vec![link(3, "cni0", "bridge")], ..State::default() };
    state.links[0].up = true;
    for (index, text) in
        [(3, "10.9.0.1/24"), (3, "fe80::1/64"), (3, "10.42.0.1/24"), (3, "fd42::1/64"), (4, "1.1.1.1/8")]
    {
        state.addresses.push(Address { index, cidr: cidr(text) });
    }
    let desired = Desired { links: vec![spec.clone()], ..Desired::default() };
    assert_eq!(plan(&state, &desired), []);
    spec.no_other_addresses = true;
    let desired = Desired { links: vec![spec], ..Desired::default() };
    assert_eq!(words(&plan(&state, &desired)), ["delete address 10.9.0.1/24 of cni0"]);
}

fn any_state() -> impl Strategy<Value = State> {
    let names = ["cni0", "veth1", "old", "eth0"];
    let one = (0..4_usize, any::<bool>(), any::<bool>(), 1400_u32..1402, proptest::option::of(1_u32..5), any::<bool>());
    let address = (1_u32..5, 0..4_usize);
    let route = (1_u32..5, 0..2_usize, 0_u32..2);
    let links = proptest::collection::vec(one, 0..5);
    let rest = (proptest::collection::vec(address, 0..6), proptest::collection::vec(route, 0..4));
    (links, rest).prop_map(move |(links, (addresses, routes))| {
        let mut state = State::default();
        for (name, up, promiscuous, mtu, master, hairpin) in links {
            if state.link(names[name]).is_none() {
                let index = u32::try_from(name).unwrap() + 1;
                let mut made = link(index, names[name], "veth");
                (made.up, made.promiscuous, made.mtu) = (up, promiscuous, mtu);
                made.master = master.filter(|master| *master != index);
                made.hairpin = made.master.map(|_| hairpin);
                state.links.push(made);
            }
        }
        let known: Vec<u32> = state.links.iter().map(|link| link.index).collect();
        for (index, which) in addresses {
            let address = Address { index, cidr: some_cidr(which) };
            if known.contains(&index) && !state.addresses.contains(&address) {
                state.addresses.push(address);
            }
        }
        for (index, which, metric) in routes.into_iter().filter(|(index, ..)| known.contains(index)) {
            let destination = some_cidr(which).network();
            let entry =
                RouteEntry { destination, gateway: None, index: Some(index), metric, table: TABLE_MAIN, mtu: None };
            state.routes.push(entry);
        }
        state
    })
}

fn some_cidr(which: usize) -> Cidr {
    cidr(["10.42.0.1/24", "10.9.0.1/24", "fd42::1/64", "fe80::1/64"][which])
}

fn any_desired() -> impl Strategy<Value = Desired> {
    let addresses = proptest::collection::vec(0..3_usize, 0..3);
    let one = (any::<bool>(), proptest::option::of(any::<bool>()), proptest::option::of(1400_u32..1402), addresses);
    (one, any::<[bool; 4]>()).prop_map(|((up, promiscuous, mtu, addresses), [only, with_port, no_old, routed])| {
        let mut first = bridge();
        first.up = Some(up);
        (first.promiscuous, first.mtu, first.no_other_addresses) = (promiscuous, mtu, only);
        first.addresses = addresses.into_iter().map(some_cidr).collect();
        first.addresses.sort();
        first.addresses.dedup();
        let mut desired = Desired { links: vec![first], ..Desired::default() };
        if with_port {
            desired.links.push(port());
        }
        if no_old {
            desired.absent.push("old".to_owned());
        }
        if routed {
            desired.routes.push(RouteSpec {
                destination: cidr("10.9.0.0/24"),
                gateway: None,
                link: "cni0".to_owned(),
                metric: None,
                table: TABLE_MAIN,
                mtu: None,
            });
        }
        desired
    })
}

proptest! {
    /// From wherever: after the plan there is nothing left to do, and nothing was asked that the kernel would refuse.
    #[test]
    fn the_plan_leads_there(state in any_state(), desired in any_desired()) {
        let mut state = state;
        for step in plan(&state.clone(), &desired) {
            carry_out(&mut state, &step);
        }
        prop_assert_eq!(plan(&state, &desired), vec![]);
    }
}
