//! Who gets which endpoints.

use std::io::ErrorKind::{ConnectionRefused, TimedOut};
use std::time::Duration;

use k3sd_runtime::Clock;
use serde_json::{Value, json};

use crate::ip;
use crate::support::{
    BOTH, BOTH_V6, Cluster, Space, answers, ask_from, eventually, names, node, on_cluster, service, slice, slice_of,
    stop,
};

/// Waits until just these answer.
async fn answer(space: &Space, at: &str, who: &[&str]) {
    eventually(&format!("{who:?} at {at}"), async || answers(16, async || space.ask(at).await).await == names(who))
        .await;
}

fn endpoint(address: &str, at: &str, further: &Value) -> Value {
    let mut endpoint = json!({"addresses": [address], "nodeName": at});
    for (name, value) in further.as_object().unwrap() {
        endpoint[name] = value.clone();
    }
    endpoint
}

#[test]
fn clients_inside_get_endpoints_of_this_node_if_so_asked() {
    on_cluster(|cluster| async move {
        let local = json!({"internalTrafficPolicy": "Local", "type": "NodePort", "nodePort": 30080});
        let far = [("10.42.0.2", "n1"), ("10.42.0.3", "n2")];
        cluster.api.put(&[service("web", "10.43.0.5", &local), slice("web", &far)]);
        let local = json!({"internalTrafficPolicy": "Local"});
        cluster.api.put(&[service("six", "fd43::5", &local), slice("six", &[("fd42::2", "n2"), ("fd42::3", "n1")])]);
        let tree = cluster.start(&[]).await;
        for space in [&cluster.pods[0], &cluster.pods[1], &cluster.node, &cluster.out] {
            assert_eq!(answers(16, async || space.ask("10.43.0.5:80").await).await, names(&["p1"]));
            assert_eq!(answers(16, async || space.ask_udp("10.43.0.5:80").await).await, names(&["p1"]));
            assert_eq!(answers(16, async || space.ask("[fd43::5]:80").await).await, names(&["p2"]));
        }
        assert_eq!(cluster.pods[1].ask("10.43.0.5:80").await.unwrap().from, ip("10.42.0.3"), "a pod keeps its address");
        let outside = answers(24, async || cluster.out.ask("192.0.2.1:30080").await).await;
        assert_eq!(outside, names(&["p1", "p2"]), "a node port has a policy of its own");
        stop(tree).await;
    });
}

#[test]
fn clients_outside_keep_their_address_in_either_family() {
    on_cluster(|cluster| async move {
        let local = json!({"type": "LoadBalancer", "nodePort": 30080, "externalTrafficPolicy": "Local",
            "externalIPs": ["2001:db8::9"], "ingress": [{"ip": "2001:db8::7"}], "loadBalancerSourceRanges": ["fd02::/64", "fd42::/64"]});
        cluster.api.put(&[service("six", "fd43::5", &local), slice("six", &[("fd42::2", "n2"), ("fd42::3", "n1")])]);
        let closed = json!({"type": "LoadBalancer", "ingress": [{"ip": "2001:db8::8"}], "loadBalancerSourceRanges": ["fd03::/64"]});
        cluster.api.put(&[service("closed", "fd43::6", &closed), slice("closed", &BOTH_V6)]);
        let outside = json!({"externalTrafficPolicy": "Local", "externalIPs": ["203.0.113.9"]});
        cluster
            .api
            .put(&[service("web", "10.43.0.5", &outside), slice("web", &[("10.42.0.2", "n2"), ("10.42.0.3", "n1")])]);
        let tree = cluster.start(&[]).await;
        for (at, from) in [
            ("[fd02::1]:30080", "fd02::2"),
            ("[2001:db8::7]:80", "fd02::2"),
            ("[2001:db8::9]:80", "fd02::2"),
            ("203.0.113.9:80", "192.0.2.2"),
        ] {
            for _ in 0..8 {
                let seen = [cluster.out.ask(at).await.unwrap(), cluster.out.ask_udp(at).await.unwrap()];
                assert!(seen.iter().all(|seen| seen.who == "p2" && seen.from == ip(from)), "{at}: {seen:?}");
            }
            assert_eq!(answers(24, async || cluster.pods[1].ask(at).await).await, names(&["p1", "p2"]), "{at}");
        }
        assert_eq!(cluster.out.ask("[2001:db8::8]:80").await, Err(TimedOut), "not from there");
        stop(tree).await;
    });
}

#[test]
fn endpoints_that_end_serve_while_there_are_no_others() {
    on_cluster(|cluster| async move {
        let local = json!({"type": "NodePort", "nodePort": 30080, "externalTrafficPolicy": "Local"});
        cluster.api.put(&[service("web", "10.43.0.5", &local)]);
        let ends = json!({"conditions": {"ready": false, "serving": true, "terminating": true}});
        let over = json!({"conditions": {"ready": false, "serving": false, "terminating": true}});
        let (ready, not_ready) = (json!({}), json!({"conditions": {"ready": false, "serving": false}}));
        let put = |first: &Value, second: &Value| {
            let endpoints = vec![endpoint("10.42.0.2", "n1", first), endpoint("10.42.0.3", "n2", second)];
            cluster.api.put(&[slice_of("web", false, endpoints)]);
        };
        put(&ends, &ready);
        let tree = cluster.start(&[]).await;
        answer(&cluster.pods[0], "10.43.0.5:80", &["p2"]).await;
        // Of this node there is only the one that ends.
        let seen = cluster.out.ask("192.0.2.1:30080").await.unwrap();
        assert_eq!((seen.who.as_str(), seen.from), ("p1", ip("192.0.2.2")));
        put(&ends, &not_ready);
        answer(&cluster.pods[1], "10.43.0.5:80", &["p1"]).await;
        answer(&cluster.out, "192.0.2.1:30080", &["p1"]).await;
        put(&over, &ends);
        answer(&cluster.pods[0], "10.43.0.5:80", &["p2"]).await;
        eventually("none is here", async || cluster.out.ask("192.0.2.1:30080").await == Err(TimedOut)).await;
        put(&over, &not_ready);
        for at in ["10.43.0.5:80", "192.0.2.1:30080"] {
            eventually("none is anywhere", async || cluster.out.ask(at).await == Err(ConnectionRefused)).await;
        }
        stop(tree).await;
    });
}

/// Endpoints that are meant for zones, and perhaps for nodes.
fn hinted(hints: [Value; 2]) -> Value {
    let [first, second] = hints.map(|hints| json!({"hints": hints}));
    slice_of("web", false, vec![endpoint("10.42.0.2", "n1", &first), endpoint("10.42.0.3", "n2", &second)])
}

#[test]
fn endpoints_that_are_near_come_first() {
    on_cluster(|cluster: Cluster| async move {
        let zones = |zone: &str| json!({"forZones": [{"name": zone}]});
        let nodes = |node: &str| json!({"forZones": [{"name": "z1"}], "forNodes": [{"name": node}]});
        let spread = json!({"trafficDistribution": "PreferClose", "type": "NodePort", "nodePort": 30080});
        cluster.api.put(&[node("z1"), service("web", "10.43.0.5", &spread), hinted([zones("z1"), zones("z2")])]);
        let local = json!({"internalTrafficPolicy": "Local"});
        let mut of_local = hinted([zones("z9"), zones("z1")]);
        of_local["metadata"] =
            json!({"namespace": "a", "name": "local", "labels": {"kubernetes.io/service-name": "local"}});
        cluster.api.put(&[service("local", "10.43.0.6", &local), of_local]);
        let tree = cluster.start(&[]).await;
        let at = "10.43.0.5:80";
        for (space, at) in
            [(&cluster.pods[1], at), (&cluster.node, at), (&cluster.out, at), (&cluster.out, "192.0.2.1:30080")]
        {
            assert_eq!(answers(16, async || space.ask(at).await).await, names(&["p1"]), "of the zone: {at}");
        }
        let local = answers(16, async || cluster.pods[1].ask("10.43.0.6:80").await).await;
        assert_eq!(local, names(&["p1"]), "whoever gets those of this node gets them wherever they are meant for");
        cluster.api.put(&[node("z2")]);
        answer(&cluster.node, at, &["p2"]).await;
        cluster.api.put(&[node("z3")]);
        answer(&cluster.node, at, &["p1", "p2"]).await;
        cluster.api.put(&[node("z1")]);
        answer(&cluster.node, at, &["p1"]).await;
        cluster.api.put(&[hinted([zones("z1"), json!(null)])]);
        answer(&cluster.node, at, &["p1", "p2"]).await;
        // Nodes go before zones, and zones before anywhere.
        cluster.api.put(&[hinted([nodes("n1"), nodes("n2")])]);
        answer(&cluster.node, at, &["p1"]).await;
        cluster.api.put(&[hinted([nodes("n7"), nodes("n1")])]);
        answer(&cluster.node, at, &["p2"]).await;
        let mut elsewhere = nodes("n2");
        elsewhere["forZones"] = json!([{"name": "z2"}]);
        cluster.api.put(&[hinted([nodes("n7"), elsewhere])]);
        answer(&cluster.node, at, &["p1"]).await;
        stop(tree).await;
    });
}

#[test]
fn some_services_are_nobodys_business() {
    on_cluster(|cluster| async move {
        let none = json!({"clusterIPs": ["None"]});
        let mut headless = service("headless", "None", &none);
        let mut of_headless = slice("headless", &BOTH);
        let mut of_others = service("others", "10.43.0.7", &json!({"type": "NodePort", "nodePort": 30081}));
        headless["metadata"]["labels"] = json!({"app": "web"});
        of_headless["metadata"]["labels"]["service.kubernetes.io/headless"] = json!("");
        of_others["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "another"});
        let name = json!({"type": "ExternalName", "externalName": "example.com"});
        let mut outside = service("outside", "", &name);
        outside["spec"].as_object_mut().unwrap().retain(|name, _| !name.starts_with("clusterIP"));
        cluster.api.put(&[headless, of_headless, of_others, slice("others", &BOTH), outside, slice("outside", &BOTH)]);
        let tree = cluster.start(&[]).await;
        for family in ["ip", "ip6"] {
            for set in ["services", "endpoints", "sticky-endpoints", "sources", "addresses", "hairpin"] {
                let listed = cluster.node.run(&format!("nft list table {family} k3sd-proxy"));
                let of_set = listed.split(&format!(" {set} {{")).nth(1).unwrap().split('}').next().unwrap();
                assert!(!of_set.contains("elements"), "{family} {set}: {of_set}");
            }
        }
        assert_eq!(
            cluster.pods[1].ask("10.42.0.2:8080").await.unwrap().from,
            ip("10.42.0.3"),
            "pods are reached directly"
        );
        // One that is ours from now on, and one that isn't any more.
        let ours = service("others", "10.43.0.7", &json!({"type": "NodePort", "nodePort": 30081}));
        cluster.api.put(std::slice::from_ref(&ours));
        answer(&cluster.out, "192.0.2.1:30081", &["p1", "p2"]).await;
        let mut given_up = ours;
        given_up["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "another"});
        cluster.api.put(&[given_up]);
        eventually("it is another's", async || cluster.out.ask("192.0.2.1:30081").await == Err(ConnectionRefused))
            .await;
        stop(tree).await;
    });
}

#[test]
fn types_come_and_go_while_clients_ask() {
    on_cluster(|cluster| async move {
        let cluster_ip = service("web", "10.43.0.5", &json!({"type": "ClusterIP"}));
        let node_port = service("web", "10.43.0.5", &json!({"type": "NodePort", "nodePort": 30080}));
        let mut name = service("web", "10.43.0.5", &json!({"type": "ExternalName", "externalName": "example.com"}));
        name["spec"].as_object_mut().unwrap().retain(|name, _| !name.starts_with("clusterIP"));
        cluster.api.put(&[cluster_ip.clone(), slice("web", &BOTH)]);
        let tree = cluster.start(&[]).await;
        // So that nobody waits for an answer that never comes.
        cluster.node.run("ip route add unreachable 10.43.0.0/16");
        let udp = cluster.pods[0].udp(false);
        for _ in 0..3 {
            cluster.api.put(std::slice::from_ref(&cluster_ip));
            answer(&cluster.pods[0], "10.43.0.5:80", &["p1", "p2"]).await;
            eventually("UDP goes there", async || ask_from(&udp, "10.43.0.5:80").await.is_ok()).await;
            let no_port = async || cluster.out.ask("192.0.2.1:30080").await == Err(ConnectionRefused);
            eventually("it has no port at the node", no_port).await;
            cluster.api.put(std::slice::from_ref(&name));
            eventually("it is a name", async || cluster.pods[0].ask("10.43.0.5:80").await.is_err()).await;
            eventually("for UDP too", async || ask_from(&udp, "10.43.0.5:80").await.is_err()).await;
            cluster.api.put(std::slice::from_ref(&node_port));
            answer(&cluster.out, "192.0.2.1:30080", &["p1", "p2"]).await;
        }
        stop(tree).await;
    });
}

#[test]
fn who_is_refused_hears_of_it_at_once() {
    on_cluster(|cluster| async move {
        let everywhere = json!({"type": "LoadBalancer", "nodePort": 30080, "externalIPs": ["203.0.113.9"],
            "ingress": [{"ip": "203.0.113.7"}], "externalTrafficPolicy": "Local"});
        let everywhere_v6 = json!({"type": "LoadBalancer", "nodePort": 30080, "externalIPs": ["2001:db8::9"],
            "ingress": [{"ip": "2001:db8::7"}]});
        cluster.api.put(&[service("none", "10.43.0.5", &everywhere), service("six", "fd43::5", &everywhere_v6)]);
        let tree = cluster.start(&[]).await;
        // The kernel says so only now and then, unless told otherwise.
        cluster.node.run("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0");
        let clock = Clock::system();
        for at in [
            "10.43.0.5:80",
            "10.43.0.5:79",
            "192.0.2.1:30080",
            "203.0.113.9:80",
            "203.0.113.7:80",
            "[fd43::5]:80",
            "[fd43::5]:79",
            "[fd02::1]:30080",
            "[2001:db8::9]:80",
            "[2001:db8::7]:80",
        ] {
            for space in [&cluster.out, &cluster.pods[0]] {
                let began = clock.now();
                assert_eq!(space.ask(at).await, Err(ConnectionRefused), "{at}");
                assert_eq!(space.ask_udp(at).await, Err(ConnectionRefused), "{at}");
                // A client that hears nothing asks again after a second.
                let took = clock.now().since(began);
                assert!(took < Duration::from_millis(900), "{at}: {took:?}");
            }
        }
        stop(tree).await;
    });
}
