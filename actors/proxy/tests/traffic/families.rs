//! Services of both IP families, and of all three protocols.

use std::io::ErrorKind::ConnectionRefused;

use serde_json::{Value, json};

use crate::ip;
use crate::support::{
    BOTH, BOTH_V6, Cluster, answers, ask_from, eventually, names, on_cluster, service, slice, slice_of, stop,
};

#[test]
fn one_service_in_both_families() {
    on_cluster(|cluster| async move {
        let spec = json!({"clusterIPs": ["10.43.0.5", "fd43::5"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack",
            "type": "LoadBalancer", "nodePort": 30080, "externalTrafficPolicy": "Local", "healthCheckNodePort": 30999,
            "externalIPs": ["203.0.113.9", "2001:db8::9"], "ingress": [{"ip": "203.0.113.7"}, {"ip": "2001:db8::7"}],
            "loadBalancerSourceRanges": ["192.0.2.2/32", "fd02::2/128"]});
        cluster.api.put(&[service("web", "10.43.0.5", &spec), slice("web", &BOTH), slice("web", &BOTH_V6)]);
        let tree = cluster.start(&[]).await;
        for at in ["10.43.0.5:80", "[fd43::5]:80"] {
            for space in [&cluster.pods[0], &cluster.node, &cluster.out] {
                assert_eq!(answers(16, async || space.ask(at).await).await, names(&["p1", "p2"]), "{at}");
                assert_eq!(answers(16, async || space.ask_udp(at).await).await, names(&["p1", "p2"]), "{at}");
            }
        }
        for (all, from) in [
            (["192.0.2.1:30080", "203.0.113.9:80", "203.0.113.7:80"], "192.0.2.2"),
            (["[fd02::1]:30080", "[2001:db8::9]:80", "[2001:db8::7]:80"], "fd02::2"),
        ] {
            for at in all {
                assert_eq!(cluster.out.ask(at).await.unwrap().from, ip(from), "{at}");
                assert_eq!(answers(16, async || cluster.out.ask(at).await).await, names(&["p1", "p2"]), "{at}");
            }
        }
        let (_, text) = cluster.get("192.0.2.1:30999", "/").await;
        assert!(text.contains(r#""localEndpoints":2,"#), "pods are counted, not addresses: {text}");
        assert_eq!(cluster.get("[fd02::1]:30999", "/").await.0, 200, "in either family");
        // One family loses its endpoints; the other doesn't notice.
        let mut without = slice("web", &BOTH_V6);
        without["endpoints"] = json!([]);
        cluster.api.put(&[without]);
        eventually("IPv6 is refused", async || cluster.pods[0].ask("[fd43::5]:80").await == Err(ConnectionRefused))
            .await;
        assert_eq!(answers(16, async || cluster.pods[0].ask("10.43.0.5:80").await).await, names(&["p1", "p2"]));
        // From two families to one.
        let single = service("web", "10.43.0.5", &json!({}));
        cluster.api.put(&[single]);
        eventually("IPv6 is gone", async || {
            !cluster.node.run("nft list map ip6 k3sd-proxy services").contains("elements")
        })
        .await;
        assert!(cluster.pods[0].ask("10.43.0.5:80").await.is_ok());
        stop(tree).await;
    });
}

#[test]
fn exchanges_of_ipv6_go_on_with_endpoints_that_are_there() {
    on_cluster(|cluster| async move {
        cluster.api.put(&[service("dns", "fd43::a", &json!({"nodePort": 30053})), slice("dns", &BOTH_V6[..1])]);
        let tree = cluster.start(&[]).await;
        let (pod, out) = (cluster.pods[1].udp(true), cluster.out.udp(true));
        for (socket, at) in [(&pod, "[fd43::a]:80"), (&out, "[fd02::1]:30053")] {
            assert_eq!(ask_from(socket, at).await.unwrap().who, "p1", "{at}");
        }
        cluster.api.put(&[slice("dns", &BOTH_V6[1..])]);
        for (socket, at) in [(&pod, "[fd43::a]:80"), (&out, "[fd02::1]:30053")] {
            let other = async || ask_from(socket, at).await.is_ok_and(|seen| seen.who == "p2");
            eventually("the same socket reaches the other", other).await;
        }
        // The way is free before the round is counted.
        eventually("both exchanges are counted", async || {
            let (_, text) = cluster.get("127.0.0.1:10249", "/metrics").await;
            let deleted = |family: &str| {
                let name = format!("kubeproxy_conntrack_reconciler_deleted_entries_total{{ip_family=\"{family}\"}} ");
                text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse::<u64>().unwrap()
            };
            deleted("IPv6") >= 2 && deleted("IPv4") == 0
        })
        .await;
        stop(tree).await;
    });
}

/// Whether what is listed as JSON has this in it.
fn has(listed: &Value, part: &Value) -> bool {
    listed == part
        || match listed {
            Value::Array(all) => all.iter().any(|one| has(one, part)),
            Value::Object(all) => all.values().any(|one| has(one, part)),
            _ => false,
        }
}

fn map(cluster: &Cluster, family: &str, name: &str) -> Value {
    serde_json::from_str(&cluster.node.run(&format!("nft -j list map {family} k3sd-proxy {name}"))).unwrap()
}

#[test]
fn sctp_has_its_rules() {
    on_cluster(|cluster| async move {
        for (name, at, endpoints) in [("four", "10.43.0.5", &BOTH[..]), ("six", "fd43::5", &BOTH_V6[..])] {
            let ports = json!([{"name": "sctp", "port": 3868, "protocol": "SCTP", "nodePort": 30868},
                {"name": "tcp", "port": 3868, "protocol": "TCP"}]);
            let listed = endpoints.iter().map(|(address, node)| json!({"addresses": [address], "nodeName": node}));
            let mut slice = slice_of(name, at.contains(':'), listed.collect());
            slice["ports"] = json!([{"name": "sctp", "port": 9999, "protocol": "SCTP"}, {"name": "tcp", "port": 8080, "protocol": "TCP"}]);
            cluster.api.put(&[service(name, at, &json!({"ports": ports})), slice]);
        }
        let tree = cluster.start(&[]).await;
        for (family, at, nowhere, endpoints) in
            [("ip", "10.43.0.5", "0.0.0.0", BOTH), ("ip6", "fd43::5", "::", BOTH_V6)]
        {
            let (services, all) = (map(&cluster, family, "services"), map(&cluster, family, "endpoints"));
            for (address, port) in [(at, 3868), (nowhere, 30868)] {
                let key = json!({"concat": ["sctp", address, port]});
                assert!(has(&services, &key), "{key}: {services}");
            }
            for (endpoint, _) in endpoints {
                for port in [9999, 8080] {
                    let place = json!({"concat": [endpoint, port]});
                    assert!(has(&all, &place), "{place}: {all}");
                }
            }
        }
        // One port, two protocols, which don't mix.
        assert_eq!(answers(16, async || cluster.out.ask("10.43.0.5:3868").await).await, names(&["p1", "p2"]));
        println!("ignored: traffic of SCTP, as these kernels rarely have it: its rules are looked at instead");
        stop(tree).await;
    });
}
