use std::path::PathBuf;

use k3sd_netlink::route::{Link, RouteEntry};

use super::*;

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn config() -> NetworkConfig {
    let mut config = NetworkConfig::new("/bin/k3sd".into(), PathBuf::from("/conf"), PathBuf::from("/bin"));
    config.cluster_cidrs = vec![cidr("10.42.0.0/16"), cidr("fd42::/56")];
    config
}

#[test]
fn subnets_as_flannel_writes_them() {
    let both = [cidr("10.42.3.0/24"), cidr("fd42:0:0:3::/64")];
    let expected = "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.3.1/24\nFLANNEL_IPV6_NETWORK=fd42::/56\n\
        FLANNEL_IPV6_SUBNET=fd42:0:0:3::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
    assert_eq!(subnet_env(&config(), &both, 1450), expected);
    let alone =
        "FLANNEL_IPV6_NETWORK=fd42::/56\nFLANNEL_IPV6_SUBNET=fd42:0:0:3::1/64\nFLANNEL_MTU=1\nFLANNEL_IPMASQ=true\n";
    assert_eq!(subnet_env(&config(), &both[1..], 1), alone);
}

#[test]
fn the_list_that_k3s_writes() {
    let list: Value = serde_json::from_str(&conflist(&config())).unwrap();
    let expected = json!({"name": "cbr0", "cniVersion": "1.0.0", "plugins": [
        {"type": "flannel", "delegate": {"hairpinMode": true, "forceAddress": true, "isDefaultGateway": true}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
        {"type": "bandwidth", "capabilities": {"bandwidth": true}},
    ]});
    assert_eq!(list, expected);
    let mut elsewhere = config();
    (elsewhere.bridge, elsewhere.networks_dir) = ("cni7".to_owned(), "/elsewhere".into());
    let list: Value = serde_json::from_str(&conflist(&elsewhere)).unwrap();
    assert_eq!(list["plugins"][0]["delegate"]["bridge"], "cni7");
    assert_eq!(list["plugins"][0]["ipam"]["dataDir"], "/elsewhere");
    assert_eq!(network_name(&conflist(&elsewhere)).as_deref(), Some("cbr0"));
    assert_eq!(network_name(r#"{"name": "../x"}"#), None);
}

#[test]
fn the_way_out_decides_how_long_packets_are() {
    let link = |index, mtu| Link {
        index,
        name: format!("eth{index}"),
        kind: String::new(),
        up: true,
        promiscuous: false,
        mtu,
        mac: None,
        master: None,
        hairpin: None,
        alias: None,
    };
    let route = |to: &str, index, metric| RouteEntry {
        destination: cidr(to),
        gateway: None,
        index: Some(index),
        metric,
        table: TABLE_MAIN,
        mtu: None,
    };
    let links = vec![link(1, 9000), link(2, 1400), link(3, 1280)];
    let with = |routes| State { links: links.clone(), addresses: Vec::new(), routes };
    assert_eq!(mtu(&with(vec![route("0.0.0.0/0", 1, 100), route("0.0.0.0/0", 2, 50)])), 1400);
    assert_eq!(mtu(&with(vec![route("::/0", 3, 1), route("0.0.0.0/0", 1, 100)])), 9000);
    assert_eq!(mtu(&with(vec![route("::/0", 3, 1)])), 1280);
    assert_eq!(mtu(&with(vec![route("10.0.0.0/8", 2, 0)])), 1500);
}

#[test]
fn masquerading_by_family() {
    let both = [cidr("10.42.3.0/24"), cidr("fd42:0:0:3::/64")];
    let names = |config: &NetworkConfig| {
        let chains = table(config, &both).chains.into_iter();
        chains.map(|chain| (chain.name, chain.rules.len())).collect::<Vec<_>>()
    };
    let mut config = config();
    let owned =
        |rows: &[(&str, usize)]| rows.iter().map(|(name, rules)| ((*name).to_owned(), *rules)).collect::<Vec<_>>();
    assert_eq!(names(&config), owned(&[("masquerade4", 3), ("postrouting", 1), ("forward", 4)]));
    config.masquerade_ipv6 = true;
    let expected = [("masquerade4", 3), ("masquerade6", 3), ("postrouting", 2), ("forward", 4)];
    assert_eq!(names(&config), owned(&expected));
}

#[test]
fn who_is_missing_for_long_is_gone() {
    let ids = |text: &str| text.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    let (start, mut suspects) = (Moment::START, Suspects::default());
    assert_eq!(suspects.next(), None);
    assert_eq!(suspects.look(&ids("a b c"), &ids("a"), start), ids(""));
    assert_eq!(suspects.next(), Some(start + Suspects::GRACE));
    let later = start + Suspects::GRACE - Duration::from_secs(1);
    assert_eq!(suspects.look(&ids("a b c d"), &ids("a b"), later), ids(""), "b was only young");
    assert_eq!(suspects.look(&ids("a b c d"), &ids("a"), start + Suspects::GRACE), ids("c"));
    assert_eq!(suspects.look(&ids("a"), &ids("a"), start + Suspects::GRACE), ids(""));
    assert_eq!(suspects.next(), None, "nothing to look for");
}
