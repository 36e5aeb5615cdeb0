//! What the proxy promises, in network namespaces, with real clients and servers.

mod api;
mod families;
mod faults;
mod policies;
mod support;
mod transfer;

use std::io::ErrorKind::{ConnectionRefused, PermissionDenied, TimedOut};
use std::net::IpAddr;
use std::time::Duration;

use k3sd_runtime::{Clock, Signal};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use support::{BOTH, answers, ask_from, eventually, names, on_cluster, read_line, service, slice, stop};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The words of our table as it is listed; elements stand in no order.
fn listed(cluster: &support::Cluster) -> Vec<String> {
    let tables = cluster.node.run("nft list ruleset");
    let mut words: Vec<_> = tables.split_whitespace().map(|word| word.trim_end_matches(',').to_owned()).collect();
    words.sort();
    words
}

/// Says something, and hears it again.
async fn echo(stream: &mut TcpStream, word: &[u8; 4]) {
    stream.write_all(word).await.unwrap();
    let mut heard = [0; 4];
    let reading = stream.read_exact(&mut heard);
    tokio::time::timeout(Duration::from_secs(5), reading).await.expect("the connection lives").unwrap();
    assert_eq!(&heard, word);
}

#[test]
fn cluster_addresses_from_everywhere() {
    on_cluster(|cluster| async move {
        cluster.api.put(&[service("web", "10.43.0.5", &json!({})), slice("web", &BOTH)]);
        let both = json!({"clusterIPs": ["fd43::5"]});
        cluster.api.put(&[service("six", "fd43::5", &both), slice("six", &[("fd42::2", "n1"), ("fd42::3", "n1")])]);
        let tree = cluster.start(&[]).await;
        for at in ["10.43.0.5:80", "[fd43::5]:80"] {
            for space in [&cluster.pods[0], &cluster.node, &cluster.out] {
                assert_eq!(answers(24, async || space.ask(at).await).await, names(&["p1", "p2"]), "{at}");
                assert_eq!(answers(24, async || space.ask_udp(at).await).await, names(&["p1", "p2"]), "{at}");
            }
        }
        // Pods keep their address, clients from outside get the node's, so that answers come back this way.
        let from = async |space: &support::Space, at: &str| space.ask(at).await.unwrap().from;
        assert_eq!(from(&cluster.out, "10.43.0.5:80").await, ip("10.42.0.1"));
        assert_eq!(from(&cluster.out, "[fd43::5]:80").await, ip("fd42::1"));
        cluster.api.put(&[slice("web", &[("10.42.0.3", "n1")]), slice("six", &[("fd42::3", "n1")])]);
        eventually("the first is out", async || {
            answers(8, async || cluster.pods[0].ask("10.43.0.5:80").await).await == names(&["p2"])
        })
        .await;
        assert_eq!(from(&cluster.pods[0], "10.43.0.5:80").await, ip("10.42.0.2"));
        // A pod that reaches itself sees somebody else.
        assert_eq!(from(&cluster.pods[1], "10.43.0.5:80").await, ip("10.42.0.1"));
        assert_eq!(from(&cluster.pods[1], "[fd43::5]:80").await, ip("fd42::1"));
        stop(tree).await;
    });
}

#[test]
fn nobody_is_there_at_once() {
    on_cluster(|cluster| async move {
        let local = json!({"internalTrafficPolicy": "Local"});
        cluster.api.put(&[service("none", "10.43.0.5", &json!({"nodePort": 30080})), slice("none", &[])]);
        cluster.api.put(&[service("six", "fd43::5", &json!({}))]);
        cluster.api.put(&[service("far", "10.43.0.6", &local), slice("far", &[("10.42.1.2", "n2")])]);
        let tree = cluster.start(&[]).await;
        for (at, at_udp) in
            [("10.43.0.5:80", true), ("10.43.0.5:81", true), ("[fd43::5]:80", true), ("192.0.2.1:30080", true)]
        {
            for space in [&cluster.pods[0], &cluster.out] {
                assert_eq!(space.ask(at).await.unwrap_err(), ConnectionRefused, "{at}");
                assert_eq!(space.ask_udp(at).await.is_err_and(|error| error == ConnectionRefused), at_udp, "{at}");
            }
            assert_eq!(cluster.node.ask(at).await.unwrap_err(), ConnectionRefused, "{at}");
            assert_eq!(cluster.node.ask_udp(at).await.unwrap_err(), PermissionDenied, "{at}");
        }
        assert_eq!(cluster.pods[0].ask("10.43.0.6:80").await.unwrap_err(), TimedOut, "there are some, but not for us");
        let text = cluster.get("127.0.0.1:10249", "/metrics").await.1;
        let metric =
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family=\"IPv4\",traffic_policy=\"internal\"} 2";
        assert!(text.contains(metric), "{text}");
        stop(tree).await;
    });
}

#[test]
fn node_ports_at_every_address() {
    on_cluster(|cluster| async move {
        let cluster_wide = json!({"type": "NodePort", "nodePort": 30080});
        let local = json!({"type": "NodePort", "nodePort": 30081, "externalTrafficPolicy": "Local"});
        cluster.api.put(&[service("web", "10.43.0.5", &cluster_wide), slice("web", &BOTH)]);
        cluster
            .api
            .put(&[service("near", "10.43.0.6", &local), slice("near", &[("10.42.0.3", "n1"), ("10.42.1.2", "n2")])]);
        let six = service("six", "fd43::5", &json!({"type": "NodePort", "nodePort": 30080}));
        cluster.api.put(&[six, slice("six", &[("fd42::2", "n1")])]);
        let tree = cluster.start(&[]).await;
        for at in ["192.0.2.1:30080", "10.42.0.1:30080", "127.0.0.1:30080", "127.0.0.7:30080"] {
            assert_eq!(answers(24, async || cluster.node.ask(at).await).await, names(&["p1", "p2"]), "{at}");
            assert_eq!(answers(24, async || cluster.node.ask_udp(at).await).await, names(&["p1", "p2"]), "{at}");
        }
        let seen = cluster.out.ask("192.0.2.1:30080").await.unwrap();
        assert_eq!(seen.from, ip("10.42.0.1"), "everybody's answers come back this way");
        assert_eq!(cluster.out.ask("[fd02::1]:30080").await.unwrap().from, ip("fd42::1"));
        assert!(cluster.pods[0].ask("192.0.2.1:30080").await.is_ok());
        // Local keeps the client's address, and shows only endpoints of this node.
        for _ in 0..16 {
            let seen = cluster.out.ask("192.0.2.1:30081").await.unwrap();
            assert_eq!((seen.who.as_str(), seen.from), ("p2", ip("192.0.2.2")));
        }
        let seen = cluster.out.ask_udp("192.0.2.1:30081").await.unwrap();
        assert_eq!((seen.who.as_str(), seen.from), ("p2", ip("192.0.2.2")));
        cluster.api.put(&[slice("near", &[("10.42.1.2", "n2")])]);
        eventually("nothing is here", async || cluster.out.ask("192.0.2.1:30081").await == Err(TimedOut)).await;
        // What somebody else sends to the loopback is not let in, though it is routed now.
        cluster.out.run("ip addr del 127.0.0.1/8 dev lo");
        cluster.out.run("ip route add 127.0.0.1/32 via 192.0.2.1 src 192.0.2.2");
        assert_eq!(cluster.out.ask("127.0.0.1:10249").await.unwrap_err(), TimedOut);
        assert_eq!(cluster.get("127.0.0.1:10249", "/proxyMode").await.0, 200);
        stop(tree).await;
    });
}

#[test]
fn node_ports_at_chosen_addresses() {
    on_cluster(|cluster| async move {
        cluster
            .api
            .put(&[service("web", "10.43.0.5", &json!({"type": "NodePort", "nodePort": 30080})), slice("web", &BOTH)]);
        let tree = cluster.start(&["nodeport-addresses=192.0.2.0/24"]).await;
        assert!(cluster.out.ask("192.0.2.1:30080").await.is_ok());
        assert_eq!(cluster.out.ask("10.42.0.1:30080").await.unwrap_err(), ConnectionRefused);
        assert_eq!(cluster.node.ask("127.0.0.1:30080").await.unwrap_err(), ConnectionRefused);
        stop(tree).await;
        let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.42.0.1"}]}});
        cluster.api.put(&[node]);
        let tree = cluster.start(&["nodeport-addresses=primary"]).await;
        assert!(cluster.out.ask("10.42.0.1:30080").await.is_ok());
        assert_eq!(cluster.out.ask("192.0.2.1:30080").await.unwrap_err(), ConnectionRefused);
        stop(tree).await;
    });
}

#[test]
fn load_balancers_and_external_addresses() {
    on_cluster(|cluster| async move {
        let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
        let here = json!({"type": "LoadBalancer", "ingress": [{"ip": "192.0.2.1"}], "externalIPs": ["203.0.113.9"]});
        let ranges = json!({"type": "LoadBalancer", "ingress": [{"ip": "203.0.113.7"}, {"ip": "203.0.113.8", "ipMode": "Proxy"}],
            "loadBalancerSourceRanges": ["192.0.2.0/25", "10.0.0.0/8"]});
        let closed = json!({"type": "LoadBalancer", "ingress": [{"ip": "203.0.113.6"}], "loadBalancerSourceRanges": ["192.0.2.128/25"]});
        let local = json!({"type": "LoadBalancer", "ingress": [{"ip": "203.0.113.5"}], "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 30999});
        cluster.api.put(&[node, service("here", "10.43.0.5", &here), slice("here", &BOTH)]);
        cluster.api.put(&[service("ranges", "10.43.0.6", &ranges), slice("ranges", &BOTH)]);
        cluster.api.put(&[service("closed", "10.43.0.7", &closed), slice("closed", &BOTH)]);
        cluster
            .api
            .put(&[service("local", "10.43.0.8", &local), slice("local", &[("10.42.0.3", "n1"), ("10.42.0.2", "n2")])]);
        let tree = cluster.start(&[]).await;
        for at in ["192.0.2.1:80", "203.0.113.9:80", "203.0.113.7:80"] {
            assert_eq!(answers(24, async || cluster.out.ask(at).await).await, names(&["p1", "p2"]), "{at}");
            assert!(cluster.pods[0].ask_udp(at).await.is_ok(), "{at}");
        }
        // This node is a load balancer itself, at all of its addresses.
        assert!(cluster.out.ask("10.42.0.1:80").await.is_ok());
        assert!(cluster.node.ask("127.0.0.1:80").await.is_ok());
        assert_eq!(cluster.out.ask("203.0.113.6:80").await.unwrap_err(), TimedOut, "not from there");
        assert!(cluster.pods[0].ask("10.43.0.7:80").await.is_ok(), "ranges are for load balancers alone");
        // One behind a proxy goes its way, which here leads nowhere.
        assert!(cluster.out.ask("203.0.113.8:80").await.is_err());
        for _ in 0..8 {
            let seen = cluster.out.ask("203.0.113.5:80").await.unwrap();
            assert_eq!((seen.who.as_str(), seen.from), ("p2", ip("192.0.2.2")));
        }
        let inside = answers(24, async || cluster.pods[0].ask("203.0.113.5:80").await).await;
        assert_eq!(inside, names(&["p1", "p2"]), "pods get all endpoints");
        let (status, text) = cluster.get("192.0.2.1:30999", "/").await;
        let body = r#"{"localEndpoints":1,"service":{"name":"local","namespace":"a"},"serviceProxyHealthy":true}"#;
        assert!(
            status == 200 && text.ends_with(body) && text.contains("x-load-balancing-endpoint-weight: 1"),
            "{text}"
        );
        cluster.api.put(&[slice("local", &[("10.42.0.2", "n2")])]);
        eventually("nothing is here", async || cluster.get("192.0.2.1:30999", "/").await.0 == 503).await;
        assert_eq!(cluster.out.ask("203.0.113.5:80").await.unwrap_err(), TimedOut);
        // Other ranges make other rules.
        let open = json!({"type": "LoadBalancer", "ingress": [{"ip": "203.0.113.6"}], "loadBalancerSourceRanges": ["192.0.2.2/32"]});
        cluster.api.put(&[service("closed", "10.43.0.7", &open)]);
        eventually("it is open", async || cluster.out.ask("203.0.113.6:80").await.is_ok()).await;
        cluster.api.delete(&service("local", "10.43.0.8", &local));
        eventually("nobody is asked any more", async || cluster.get("192.0.2.1:30999", "/").await.0 == 0).await;
        stop(tree).await;
    });
}

#[test]
fn clients_stay_where_they_are() {
    on_cluster(|cluster| async move {
        let sticky = |seconds: u32| json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}});
        cluster.api.put(&[service("web", "10.43.0.5", &sticky(600)), slice("web", &BOTH)]);
        let six = service("six", "fd43::5", &sticky(600));
        cluster.api.put(&[six, slice("six", &[("fd42::2", "n1"), ("fd42::3", "n1")])]);
        cluster.api.put(&[service("short", "10.43.0.6", &sticky(1)), slice("short", &BOTH)]);
        let tree = cluster.start(&[]).await;
        for at in ["10.43.0.5:80", "[fd43::5]:80"] {
            let first = cluster.out.ask(at).await.unwrap().who;
            assert_eq!(answers(24, async || cluster.out.ask(at).await).await, names(&[&first]));
        }
        // Its endpoint goes: another one, and there it stays, though the first comes back.
        let first = cluster.out.ask("10.43.0.5:80").await.unwrap().who;
        let (gone, left) = if first == "p1" { (0, 1) } else { (1, 0) };
        let other = if first == "p1" { "p2" } else { "p1" };
        cluster.api.put(&[slice("web", &BOTH[left..=left])]);
        eventually("it goes to the other", async || cluster.out.ask("10.43.0.5:80").await.unwrap().who == other).await;
        assert_eq!(gone + left, 1);
        cluster.api.put(&[slice("web", &BOTH)]);
        eventually("both are there", async || {
            cluster.node.run("nft list map ip k3sd-proxy sticky-endpoints").matches(": 0x00000000 . 10.42.0").count()
                == 8
        })
        .await;
        assert_eq!(answers(24, async || cluster.out.ask("10.43.0.5:80").await).await, names(&[other]));
        // A restart of the proxy forgets nobody.
        stop(tree).await;
        let tree = cluster.start(&[]).await;
        assert_eq!(answers(24, async || cluster.out.ask("10.43.0.5:80").await).await, names(&[other]));
        let clock = Clock::system();
        let mut seen = names(&[]);
        for _ in 0..8 {
            seen.extend(cluster.out.ask("10.43.0.6:80").await.map(|seen| seen.who));
            clock.sleep_until(clock.now() + Duration::from_millis(1200)).await;
        }
        assert_eq!(seen, names(&["p1", "p2"]), "after its time a client is a new one");
        stop(tree).await;
    });
}

#[test]
fn an_exchange_goes_on_with_an_endpoint_that_is_there() {
    on_cluster(|cluster| async move {
        cluster.api.put(&[service("dns", "10.43.0.10", &json!({"nodePort": 30053})), slice("dns", &BOTH[..1])]);
        let tree = cluster.start(&[]).await;
        let (pod, out) = (cluster.pods[1].udp(false), cluster.out.udp(false));
        assert_eq!(ask_from(&pod, "10.43.0.10:80").await.unwrap().who, "p1");
        assert_eq!(ask_from(&out, "192.0.2.1:30053").await.unwrap().who, "p1");
        cluster.api.put(&[slice("dns", &BOTH[1..])]);
        eventually("the same socket reaches the other", async || {
            ask_from(&pod, "10.43.0.10:80").await.is_ok_and(|seen| seen.who == "p2")
        })
        .await;
        eventually("so does one outside", async || {
            ask_from(&out, "192.0.2.1:30053").await.is_ok_and(|seen| seen.who == "p2")
        })
        .await;
        cluster.api.put(&[slice("dns", &[])]);
        eventually("nobody is there", async || ask_from(&pod, "10.43.0.10:80").await == Err(ConnectionRefused)).await;
        cluster.api.put(&[slice("dns", &BOTH[..1])]);
        eventually("somebody is", async || ask_from(&pod, "10.43.0.10:80").await.is_ok()).await;
        stop(tree).await;
    });
}

#[test]
fn no_connection_notices_a_flush_a_kill_or_a_restart() {
    on_cluster(|cluster| async move {
        let port = json!({"type": "NodePort", "nodePort": 30080});
        cluster.api.put(&[service("web", "10.43.0.5", &port), slice("web", &BOTH)]);
        let tree = cluster.start(&[]).await;
        let mut inside = cluster.pods[0].connect("10.43.0.5:80").await.unwrap();
        let mut outside = cluster.out.connect("192.0.2.1:30080").await.unwrap();
        read_line(&mut inside).await;
        read_line(&mut outside).await;
        let clock = Clock::system();
        for damage in [
            "nft flush ruleset",
            "nft flush chain ip k3sd-proxy services",
            "nft delete element ip k3sd-proxy services { tcp . 10.43.0.5 . 80 }",
            "nft flush map ip k3sd-proxy endpoints",
            "nft add element ip k3sd-proxy addresses { 192.0.2.9 }",
            "nft insert rule ip k3sd-proxy services drop",
        ] {
            let before = listed(&cluster);
            let broken = clock.now();
            cluster.node.run(damage);
            eventually(damage, async || listed(&cluster) == before).await;
            assert!(clock.now().since(broken) < Duration::from_secs(1), "mended within a second: {damage}");
            assert!(cluster.pods[0].ask("10.43.0.5:80").await.is_ok(), "{damage}");
            echo(&mut inside, b"more").await;
            echo(&mut outside, b"more").await;
        }
        let news = cluster.news();
        for path in ["rules", "services", "endpointslices", "health-ports", "healthz", "metrics"] {
            assert!(tree.system().signal(path, Signal::Kill), "{path}");
            echo(&mut inside, b"kill").await;
            cluster.is_in_order().await;
            assert!(cluster.pods[0].ask("10.43.0.5:80").await.is_ok());
        }
        clock.sleep_until(clock.now() + Duration::from_millis(300)).await;
        stop(tree).await;
        echo(&mut outside, b"gone").await;
        assert!(cluster.pods[0].ask("10.43.0.5:80").await.is_ok(), "the kernel goes on alone");
        let tree = cluster.start(&[]).await;
        assert!(!support::is_touched(&news), "what is there is adopted, untouched");
        // What changed while nobody looked is made up for.
        stop(tree).await;
        cluster.api.put(&[slice("web", &BOTH[1..])]);
        let tree = cluster.start(&[]).await;
        assert_eq!(answers(8, async || cluster.pods[0].ask("10.43.0.5:80").await).await, names(&["p2"]));
        echo(&mut inside, b"last").await;
        stop(tree).await;
    });
}

#[test]
fn health_and_numbers() {
    on_cluster(|cluster| async move {
        cluster.api.put(&[service("web", "10.43.0.5", &json!({})), slice("web", &BOTH)]);
        let tree = cluster.start(&[]).await;
        let (status, text) = cluster.get("127.0.0.1:10256", "/healthz").await;
        assert!(status == 200 && text.contains("\"nodeEligible\":true"), "{text}");
        assert_eq!(cluster.get("127.0.0.1:10256", "/livez").await.0, 200);
        let (_, mode) = cluster.get("127.0.0.1:10249", "/proxyMode").await;
        assert!(mode.ends_with("\r\n\r\nnftables"), "{mode}");
        let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"},
            "spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}});
        cluster.api.put(&[node]);
        eventually("the node goes", async || cluster.get("127.0.0.1:10256", "/healthz").await.0 == 503).await;
        assert_eq!(cluster.get("127.0.0.1:10256", "/livez").await.0, 200);
        let (_, text) = cluster.get("127.0.0.1:10249", "/metrics").await;
        for metric in
            ["kubeproxy_sync_proxy_rules_duration_seconds_count", "kubeproxy_sync_proxy_rules_service_changes_total 1"]
        {
            assert!(text.contains(metric), "{metric}: {text}");
        }
        stop(tree).await;
    });
}

#[test]
fn everybody_is_masqueraded_if_so_asked() {
    on_cluster(|cluster| async move {
        cluster.api.put(&[service("web", "10.43.0.5", &json!({})), slice("web", &BOTH[1..])]);
        let tree = cluster.start(&["masquerade-all", "iptables-masquerade-bit=20"]).await;
        assert_eq!(cluster.pods[0].ask("10.43.0.5:80").await.unwrap().from, ip("10.42.0.1"));
        let shown = cluster.node.run("nft list table ip k3sd-proxy");
        assert!(shown.contains("0x00100000"), "{shown}");
        stop(tree).await;
    });
}
