//! What the kernel makes of it, each test in a network namespace of its own, checked with `ip` and `nft`.

use k3sd_netlink::nft::{
    Base, Chain, ChainBase, ChainKind, Change, Compare, Contents, CtKey, Data, DataKind, Element, Expression, Family,
    FibResult, Hook, MetaKey, Nat, Netfilter, News, Refusal, Register, Rule, Set, Table, TypeId, Verdict,
};
use k3sd_netlink::route::{Desired, Kind, LinkSpec, Peer, Route, RouteSpec, TABLE_MAIN};
use k3sd_netlink::testkit::Space;
use k3sd_netlink::traffic::{self, Limit};
use k3sd_netlink::{Cidr, NetlinkError, read_sysctl, write_sysctl};
use serde_json::Value;

/// A namespace that goes away with the test, and its sockets.
struct TestSpace(Space);

impl TestSpace {
    fn new() -> Option<Self> {
        Space::new("nl").map(Self)
    }

    fn run(&self, command: &[&str]) -> String {
        self.0.run(command)
    }

    fn json(&self, command: &[&str]) -> Value {
        serde_json::from_str(&self.run(command)).unwrap()
    }

    fn route(&self) -> Route {
        Route::open_in(self.0.namespace()).unwrap()
    }

    fn netfilter(&self) -> Netfilter {
        Netfilter::open_in(self.0.namespace()).unwrap()
    }
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn bridge() -> LinkSpec {
    LinkSpec {
        name: "br0".to_owned(),
        kind: Some(Kind::Bridge),
        up: Some(true),
        mtu: Some(1400),
        mac: Some("0a:58:0a:2a:00:01".parse().unwrap()),
        promiscuous: Some(true),
        addresses: vec![cidr("10.42.0.1/24"), cidr("fd42::1/64")],
        ..LinkSpec::default()
    }
}

fn port(peer: Peer) -> LinkSpec {
    LinkSpec {
        name: "vethx".to_owned(),
        kind: Some(Kind::Veth(peer)),
        up: Some(true),
        mtu: Some(1400),
        master: Some("br0".to_owned()),
        hairpin: Some(true),
        alias: Some("pod 1".to_owned()),
        ..LinkSpec::default()
    }
}

#[test]
fn a_bridge_and_a_pair_into_another_namespace() {
    let (Some(host), Some(pod)) = (TestSpace::new(), TestSpace::new()) else { return };
    let peer = Peer { name: "eth0".to_owned(), namespace: Some(pod.0.namespace().clone()), mac: None };
    let desired = Desired { links: vec![bridge(), port(peer)], ..Desired::default() };
    let mut route = host.route();
    assert!(route.converge(&desired).unwrap() > 0);
    assert_eq!(route.converge(&desired).unwrap(), 0, "a second look finds nothing to do");

    let shown = host.json(&["ip", "-d", "-j", "addr", "show", "br0"]);
    assert_eq!(shown[0]["mtu"], 1400);
    assert_eq!(shown[0]["address"], "0a:58:0a:2a:00:01");
    assert!(shown[0]["flags"].as_array().unwrap().contains(&"PROMISC".into()));
    let addresses: Vec<_> = shown[0]["addr_info"].as_array().unwrap().iter().map(|info| &info["local"]).collect();
    assert!(addresses.contains(&&"10.42.0.1".into()) && addresses.contains(&&"fd42::1".into()), "{addresses:?}");
    let shown = host.json(&["ip", "-d", "-j", "link", "show", "vethx"]);
    assert_eq!(shown[0]["master"], "br0");
    assert_eq!(shown[0]["ifalias"], "pod 1");
    assert_eq!(shown[0]["linkinfo"]["info_slave_data"]["hairpin"], true);
    let shown = pod.json(&["ip", "-j", "link", "show", "eth0"]);
    assert_eq!(shown[0]["mtu"], 1400);

    // Somebody else breaks it, and only that is mended.
    host.run(&["ip", "addr", "del", "10.42.0.1/24", "dev", "br0"]);
    host.run(&["ip", "addr", "add", "10.9.0.1/24", "dev", "br0"]);
    assert_eq!(route.converge(&desired).unwrap(), 1);
    let mut alone = bridge();
    alone.no_other_addresses = true;
    let desired = Desired { links: vec![alone], absent: vec!["vethx".to_owned()], ..Desired::default() };
    assert_eq!(route.converge(&desired).unwrap(), 2);
    assert!(!host.run(&["ip", "addr"]).contains("10.9.0.1"));
    assert!(pod.route().link("eth0").unwrap().is_none(), "the other end goes too");
}

#[test]
fn routes_of_both_families() {
    let Some(space) = TestSpace::new() else { return };
    let mut route = space.route();
    let to = |destination: &str, gateway: Option<&str>| RouteSpec {
        destination: cidr(destination),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        link: "br0".to_owned(),
        metric: None,
        table: TABLE_MAIN,
        mtu: Some(1300),
    };
    let mut desired = Desired { links: vec![bridge()], ..Desired::default() };
    desired.routes = vec![
        to("0.0.0.0/0", Some("10.42.0.254")),
        to("10.43.0.0/16", None),
        to("::/0", Some("fd42::fe")),
        to("fd43::/112", None),
    ];
    route.converge(&desired).unwrap();
    assert_eq!(route.converge(&desired).unwrap(), 0);
    let shown = space.run(&["ip", "route"]) + &space.run(&["ip", "-6", "route"]);
    for line in ["default via 10.42.0.254", "10.43.0.0/16 dev br0", "default via fd42::fe", "fd43::/112 dev br0"] {
        assert!(shown.contains(line), "{line} is missing in\n{shown}");
    }
    desired.routes[0].gateway = Some("10.42.0.253".parse().unwrap());
    assert_eq!(route.converge(&desired).unwrap(), 1);
    assert_eq!(space.run(&["ip", "route", "show", "default"]).lines().count(), 1, "replaced, not added");
}

#[test]
fn renaming_and_moving() {
    let (Some(host), Some(pod)) = (TestSpace::new(), TestSpace::new()) else { return };
    let mut route = host.route();
    let peer = Peer { name: "b".to_owned(), namespace: None, mac: Some("02:00:00:00:00:07".parse().unwrap()) };
    let spec = LinkSpec { name: "a".to_owned(), kind: Some(Kind::Veth(peer)), ..LinkSpec::default() };
    route.converge(&Desired { links: vec![spec], ..Desired::default() }).unwrap();
    route.rename("b", "eth7").unwrap();
    route.move_to("eth7", pod.0.namespace()).unwrap();
    assert!(route.link("eth7").unwrap().is_none());
    let moved = pod.route().link("eth7").unwrap().unwrap();
    assert_eq!(moved.mac.unwrap().to_string(), "02:00:00:00:00:07");
    assert!(route.delete_link("a").unwrap());
    assert!(!route.delete_link("a").unwrap(), "it was gone already");
    assert!(matches!(route.link("a-name-that-is-too-long"), Err(NetlinkError::Invalid(_))));
}

#[test]
fn sysctls_are_the_namespaces_own() {
    let Some(space) = TestSpace::new() else { return };
    let key = "net/ipv4/conf/lo/route_localnet";
    let before = read_sysctl(key).unwrap();
    let inside = space.0.namespace().enter(|| {
        assert!(write_sysctl(key, "1")?);
        assert!(!write_sysctl(key, "1")?, "it has the value already");
        read_sysctl(key)
    });
    assert_eq!(inside.unwrap().as_deref(), Some("1"));
    assert_eq!(read_sysctl(key).unwrap(), before);
    assert!(matches!(write_sysctl("net/../kernel/x", "1"), Err(NetlinkError::Invalid(_))));
}

fn elements(some: &[(&[u8], Option<Data>, &str)]) -> Contents {
    let element = |data: &Option<Data>, comment: &str| Element {
        data: data.clone(),
        comment: (!comment.is_empty()).then(|| comment.to_owned()),
    };
    some.iter().map(|(key, data, comment)| (key.to_vec(), element(data, comment))).collect()
}

/// One table with every expression that there is.
fn table() -> Table {
    let (a, b, c, d) = (Register(0), Register(4), Register(5), Register(6));
    let ports = Set {
        name: "ports".to_owned(),
        key_type: TypeId::PROTOCOL.then(TypeId::PORT),
        key_bytes: 8,
        data: Some(DataKind::Value { type_id: TypeId::IPV4.then(TypeId::PORT), bytes: 8 }),
        from_packets: None,
        elements: Some(elements(&[(
            &[6, 0, 0, 0, 0x1f, 0x90, 0, 0],
            Some(Data::Value(vec![10, 42, 0, 2, 0, 80, 0, 0])),
            "pod-1/eth0",
        )])),
    };
    let sources = Set {
        name: "sources".to_owned(),
        key_type: TypeId::IPV4,
        key_bytes: 4,
        data: Some(DataKind::Verdict),
        from_packets: None,
        elements: Some(elements(&[
            (&[10, 42, 0, 2], Some(Data::Verdict(Verdict::Goto("masquerade".to_owned()))), ""),
            (&[10, 42, 0, 3], Some(Data::Verdict(Verdict::Drop)), ""),
        ])),
    };
    let plain = Set {
        name: "plain".to_owned(),
        key_type: TypeId::IPV6,
        key_bytes: 16,
        data: None,
        from_packets: None,
        elements: Some(elements(&[(&[0xfd; 16], None, "")])),
    };
    let compare = |from, how, with: &[u8]| Expression::Compare { from, how, with: with.to_vec() };
    let address = |to, offset| Expression::Payload { to, base: Base::Network, offset, bytes: 4 };
    let nat = Nat { is_destination: true, is_ipv6: false, address: b, port: Some(c) };
    let translate = vec![
        Expression::Meta { key: MetaKey::Family, to: a },
        compare(a, Compare::Equal, &[2]),
        Expression::FibDestination { result: FibResult::AddressType, to: a },
        compare(a, Compare::Equal, &2_u32.to_ne_bytes()),
        Expression::Meta { key: MetaKey::Protocol, to: b },
        Expression::Payload { to: c, base: Base::Transport, offset: 2, bytes: 2 },
        Expression::LookupValue { map: "ports".to_owned(), key: b, to: b },
        Expression::Nat(nat),
    ];
    let by_source = vec![
        Expression::Meta { key: MetaKey::Family, to: a },
        compare(a, Compare::Equal, &[2]),
        address(a, 12),
        Expression::LookupVerdict { map: "sources".to_owned(), key: a },
    ];
    let masquerade = vec![
        Expression::Ct { key: CtKey::Status, to: a },
        Expression::Bitwise { from: a, to: a, mask: 32_u32.to_ne_bytes().to_vec(), xor: vec![0; 4] },
        compare(a, Compare::NotEqual, &[0; 4]),
        Expression::Masquerade,
    ];
    let marked = vec![
        Expression::Immediate { to: d, value: 0x4000_u32.to_ne_bytes().to_vec() },
        Expression::SetMeta { key: MetaKey::Mark, from: d },
        Expression::Payload { to: a, base: Base::Network, offset: 24, bytes: 16 },
        Expression::Lookup { set: "plain".to_owned(), key: a, inverted: true },
        Expression::Verdict(Verdict::Jump("masquerade".to_owned())),
    ];
    let base = |kind, hook, priority| Some(ChainBase { kind, hook, priority, drops: false });
    let rule = |expressions| Rule { expressions };
    let chain = |name: &str, base, rules| Chain { name: name.to_owned(), base, rules };
    Table {
        family: Family::Inet,
        name: "k3sd-test".to_owned(),
        sets: vec![ports, sources, plain],
        chains: vec![
            chain("pre", base(ChainKind::Nat, Hook::Prerouting, -100), vec![rule(translate)]),
            chain("post", base(ChainKind::Nat, Hook::Postrouting, 100), vec![rule(by_source), rule(marked)]),
            chain("masquerade", None, vec![rule(masquerade)]),
        ],
    }
}

#[test]
fn whoever_flushes_tables_leaves_that_which_is_ours_alone() {
    let Some(space) = TestSpace::new() else { return };
    let mut netfilter = space.netfilter();
    if let Err(error) = netfilter.keep_translating(Family::Inet, "k3sd-test-own") {
        println!("ignored: this kernel has no tables that belong to somebody: {error}");
        return;
    }
    let own = vec![(Family::Inet, "k3sd-test-own".to_owned())];
    netfilter.converge(&table()).unwrap();
    assert_eq!(netfilter.tables().unwrap().len(), 2, "other tables are as they always were");
    space.run(&["nft", "flush", "ruleset"]);
    let mut other = space.netfilter();
    assert_eq!(other.tables().unwrap(), own);
    assert!(other.delete_table(Family::Inet, "k3sd-test-own").is_err());
    assert!(other.keep_translating(Family::Inet, "k3sd-test-own").is_err());
    assert_eq!(other.tables().unwrap(), own);
    drop(netfilter);
    assert_eq!(other.tables().unwrap(), []);
}

#[test]
fn a_table_with_everything() {
    let Some(space) = TestSpace::new() else { return };
    let mut netfilter = space.netfilter();
    let wanted = table();
    assert!(netfilter.converge(&wanted).unwrap() > 0);
    assert_eq!(netfilter.converge(&wanted).unwrap(), 0, "it is read as it was written");
    let shown = space.run(&["nft", "list", "ruleset"]);
    for line in [
        "tcp . 8080 comment \"pod-1/eth0\" : 10.42.0.2 . 80",
        "10.42.0.2 : goto masquerade",
        "fib daddr type local",
        "ip saddr vmap @sources",
        "masquerade fully-random",
        "type nat hook postrouting priority srcnat",
    ] {
        assert!(shown.contains(line), "{line:?} is missing in\n{shown}");
    }
    assert_eq!(netfilter.tables().unwrap(), [(Family::Inet, "k3sd-test".to_owned())]);

    // Others' work is mended, others' tables are left alone.
    space.run(&["nft", "add table inet foreign"]);
    space.run(&["nft", "flush chain inet k3sd-test post"]);
    space.run(&["nft", "add element inet k3sd-test sources { 10.42.0.9 : accept }"]);
    assert_eq!(netfilter.converge(&wanted).unwrap(), 3);
    space.run(&["nft", "delete table inet k3sd-test"]);
    assert!(netfilter.converge(&wanted).unwrap() > 0);
    assert!(netfilter.table(Family::Inet, "foreign").unwrap().is_some());

    // A chain and a map that lead to each other's go in one batch; a base chain that moves makes the table anew.
    let mut less = wanted.clone();
    less.sets.retain(|set| set.name == "ports");
    less.chains.retain(|chain| chain.name == "pre");
    netfilter.converge(&less).unwrap();
    assert_eq!(netfilter.table(Family::Inet, "k3sd-test").unwrap().as_ref(), Some(&less));
    less.chains[0].base = Some(ChainBase { priority: -90, ..less.chains[0].base.unwrap() });
    less.sets[0].elements = None;
    netfilter.converge(&less).unwrap();
    let made = netfilter.table(Family::Inet, "k3sd-test").unwrap().unwrap();
    assert_eq!(made.chains[0].base, less.chains[0].base);
    assert_eq!(made.sets[0].elements.as_ref().map(Contents::len), Some(1), "elements are carried over");
    assert!(netfilter.delete_table(Family::Inet, "k3sd-test").unwrap());
    assert!(!netfilter.delete_table(Family::Inet, "k3sd-test").unwrap());
}

#[test]
fn a_batch_is_refused_as_a_whole() {
    let Some(space) = TestSpace::new() else { return };
    let mut netfilter = space.netfilter();
    netfilter.converge(&table()).unwrap();
    let changes = [
        Change::AddChain { name: "fine".to_owned(), base: None },
        Change::FlushChain("nowhere".to_owned()),
        Change::AddChain { name: "fine too".to_owned(), base: None },
    ];
    let error = netfilter.apply(Family::Inet, "k3sd-test", &changes, None).unwrap_err();
    assert!(error.is_gone() && error.to_string().contains("flush chain nowhere"), "{error}");
    assert_eq!(netfilter.table(Family::Inet, "k3sd-test").unwrap(), Some(table()));
    let error = netfilter.apply(Family::Inet, "k3sd-test", &changes[..1], Some(1)).unwrap_err();
    assert_eq!(error.errno(), Some(rustix::io::Errno::RESTART), "the generation has passed");
    netfilter.apply(Family::Inet, "k3sd-test", &changes[..1], None).unwrap();
}

#[test]
fn others_chains_that_drop() {
    let Some(space) = TestSpace::new() else { return };
    let mut netfilter = space.netfilter();
    netfilter.converge(&table()).unwrap();
    assert_eq!(netfilter.dropping(Hook::Forward).unwrap(), [""; 0]);
    space.run(&["nft", "add table ip filter"]);
    space.run(&["nft", "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"]);
    space.run(&["nft", "add chain ip filter INPUT { type filter hook input priority 0; policy accept; }"]);
    assert_eq!(netfilter.dropping(Hook::Forward).unwrap(), ["filter/FORWARD"]);
    assert_eq!(netfilter.dropping(Hook::Input).unwrap(), [""; 0]);
}

#[test]
fn many_elements_fit() {
    let Some(space) = TestSpace::new() else { return };
    let mut netfilter = space.netfilter();
    let mut wanted = table();
    let drop = Element { data: Some(Data::Verdict(Verdict::Drop)), comment: None };
    wanted.sets[1].elements = Some((0..20_000_u32).map(|n| (n.to_be_bytes().to_vec(), drop.clone())).collect());
    netfilter.converge(&wanted).unwrap();
    assert_eq!(netfilter.converge(&wanted).unwrap(), 0);
    let elements = wanted.sets[1].elements.as_mut().unwrap();
    elements.remove(&7_u32.to_be_bytes().to_vec());
    assert_eq!(netfilter.converge(&wanted).unwrap(), 1);
}

#[test]
fn news_of_our_table_and_of_no_other() {
    let Some(space) = TestSpace::new() else { return };
    space.netfilter().converge(&table()).unwrap();
    let news = space.0.namespace().enter(News::open).unwrap();
    let heard = || news.drain(Family::Inet, "k3sd-test").unwrap();
    assert!(!heard());
    space.run(&["nft", "add table inet foreign"]);
    space.run(&["nft", "add element inet k3sd-test sources { 10.42.0.9 : accept }"]);
    assert!(!heard());
    space.run(&["nft", "flush ruleset"]);
    assert!(heard());
    assert!(!heard());
}

/// A table that spreads connections over two places, and remembers who went where.
fn spreading_table() -> Table {
    let (source, key, value) = (Register(0), Register(1), Register(2));
    let number = DataKind::Value { type_id: TypeId::NUMBER, bytes: 4 };
    let set = |name: &str, key_type, from_packets| Set {
        name: name.to_owned(),
        key_type,
        key_bytes: 4,
        data: Some(number),
        from_packets,
        elements: from_packets.is_none().then(Contents::new),
    };
    let load = Expression::Payload { to: source, base: Base::Network, offset: 12, bytes: 4 };
    let remember = Expression::Remember { map: "seen".to_owned(), key: source, value, timeout_ms: 10_800_000 };
    let known = vec![
        load.clone(),
        Expression::FibSource { result: FibResult::AddressType, to: key },
        Expression::LookupValue { map: "seen".to_owned(), key: source, to: value },
        remember.clone(),
    ];
    let new = vec![
        load.clone(),
        Expression::Random { to: key, modulus: 2, offset: 7 },
        Expression::LookupValue { map: "places".to_owned(), key, to: value },
        remember,
    ];
    let forget = vec![
        load,
        Expression::Immediate { to: value, value: vec![0; 4] },
        Expression::Forget { map: "seen".to_owned(), key: source, value },
    ];
    let refuse = |refusal| Rule { expressions: vec![Expression::Refuse(refusal)] };
    let rule = |expressions| Rule { expressions };
    let base = ChainBase { kind: ChainKind::Filter, hook: Hook::Output, priority: 0, drops: false };
    let refusing = vec![refuse(Refusal::TcpReset), refuse(Refusal::PortUnreachable { is_ipv6: false })];
    let chains = vec![
        Chain { name: "out".to_owned(), base: Some(base), rules: vec![rule(known), rule(new), rule(forget)] },
        Chain { name: "refusing".to_owned(), base: None, rules: refusing },
    ];
    let sets = vec![set("seen", TypeId::IPV4, Some(1 << 18)), set("places", TypeId::NUMBER, None)];
    Table { family: Family::Ip, name: "k3sd-test".to_owned(), sets, chains }
}

#[test]
fn what_packets_leave_behind_is_not_ours_to_mend() {
    let Some(space) = TestSpace::new() else { return };
    let mut netfilter = space.netfilter();
    let mut wanted = spreading_table();
    let place = |number: u32| {
        let data = Some(Data::Value(number.to_be_bytes().to_vec()));
        (number.to_ne_bytes().to_vec(), Element { data, comment: None })
    };
    wanted.sets[1].elements = Some([place(7), place(8)].into());
    assert!(netfilter.converge(&wanted).unwrap() > 0);
    assert_eq!(netfilter.converge(&wanted).unwrap(), 0, "it is read as it was written");
    space.run(&["ip", "link", "set", "lo", "up"]);
    space.run(&["busybox", "ping", "-c", "1", "127.0.0.1"]);
    let seen = || space.run(&["nft", "list", "map", "ip", "k3sd-test", "seen"]);
    assert!(!seen().contains("127.0.0.1"), "the last rule forgets it: {}", seen());
    wanted.chains[0].rules.pop();
    netfilter.converge(&wanted).unwrap();
    space.run(&["busybox", "ping", "-c", "1", "127.0.0.1"]);
    assert!(seen().contains("127.0.0.1 timeout 3h"), "{}", seen());
    assert_eq!(netfilter.converge(&wanted).unwrap(), 0, "what packets left there is no difference");
}

#[test]
fn news_of_what_others_did() {
    let Some(space) = TestSpace::new() else { return };
    let mut netfilter = space.netfilter();
    netfilter.converge(&table()).unwrap();
    let news = space.0.namespace().enter(News::open).unwrap();
    let own = netfilter.port().unwrap();
    let heard = || news.drain_foreign(&[Family::Ip, Family::Inet], "k3sd-test", own).unwrap();
    let mut less = table();
    less.sets.retain(|set| set.name == "ports");
    less.chains.retain(|chain| chain.name == "pre");
    netfilter.converge(&less).unwrap();
    assert!(!heard(), "we know of what we do");
    space.run(&["nft", "flush chain inet k3sd-test pre"]);
    assert!(heard() && !heard());
    space.netfilter().delete_table(Family::Inet, "k3sd-test").unwrap();
    assert!(heard() && !heard());
}

#[test]
fn limits_by_token_bucket() {
    let Some(space) = TestSpace::new() else { return };
    let mut route = space.route();
    let peer = Peer { name: "b".to_owned(), namespace: None, mac: None };
    let link =
        |name: &str, kind| LinkSpec { name: name.to_owned(), kind: Some(kind), up: Some(true), ..LinkSpec::default() };
    let links = vec![link("a", Kind::Veth(peer)), link("ifb7", Kind::Ifb)];
    route.converge(&Desired { links, ..Desired::default() }).unwrap();
    let index = |route: &mut Route, name| route.link(name).unwrap().unwrap().index;
    let (a, ifb) = (index(&mut route, "a"), index(&mut route, "ifb7"));
    let limit = Limit { bytes_per_second: 1_000_000, burst_bytes: 100_000 };
    traffic::limit(&mut route, "a", a, limit).unwrap();
    traffic::limit(&mut route, "a", a, limit).unwrap();
    assert_eq!(traffic::limit_of(&mut route, a).unwrap(), Some(1_000_000));
    let shown = space.run(&["tc", "qdisc", "show", "dev", "a"]);
    assert!(shown.contains("tbf") && shown.contains("rate 8Mbit") && shown.contains("100000b"), "{shown}");
    traffic::redirect_received(&mut route, "a", a, ifb).unwrap();
    traffic::redirect_received(&mut route, "a", a, ifb).unwrap();
    let shown = space.run(&["tc", "filter", "show", "dev", "a", "ingress"]);
    assert_eq!(shown.matches("mirred (Egress Redirect to device ifb7)").count(), 1, "{shown}");
    traffic::unlimit(&mut route, a).unwrap();
    traffic::unlimit(&mut route, a).unwrap();
    assert_eq!(traffic::limit_of(&mut route, a).unwrap(), None);
}
