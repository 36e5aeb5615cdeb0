//! What happens to rules while clients use them, and to the proxy.

use std::time::Duration;

use jiff::Timestamp;
use k3sd_runtime::{Clock, Signal, Tree};
use serde_json::json;

use crate::support::{
    BOTH, BOTH_V6, Cluster, answers, ask_from, eventually, is_touched, names, on_cluster, service, slice, stop,
};
use crate::transfer::{Transfer, count_resets, resets};
use crate::{echo, listed};

/// Nobody waits for longer while rules are away: packets of connections don't meet them.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// Services of every sort, and a transfer through each.
async fn transfers(cluster: &Cluster) -> Vec<Transfer> {
    let mut all = Vec::new();
    for (space, at) in [
        (&cluster.pods[0], "10.43.0.5:80"),
        (&cluster.pods[1], "10.43.0.5:80"),
        (&cluster.node, "10.43.0.5:80"),
        (&cluster.node, "127.0.0.1:30080"),
        (&cluster.out, "192.0.2.1:30080"),
        (&cluster.out, "203.0.113.7:80"),
        (&cluster.out, "192.0.2.1:30081"),
        (&cluster.pods[0], "[fd43::5]:80"),
        (&cluster.out, "[fd02::1]:30080"),
    ] {
        all.push(Transfer::begin(space, at).await);
    }
    all
}

fn services() -> Vec<serde_json::Value> {
    let balanced = json!({"type": "LoadBalancer", "nodePort": 30080, "ingress": [{"ip": "203.0.113.7"}]});
    let local = json!({"type": "NodePort", "nodePort": 30081, "externalTrafficPolicy": "Local"});
    let six = json!({"type": "NodePort", "nodePort": 30080});
    vec![
        service("web", "10.43.0.5", &balanced),
        slice("web", &BOTH),
        service("near", "10.43.0.6", &local),
        slice("near", &BOTH),
        service("six", "fd43::5", &six),
        slice("six", &BOTH_V6),
    ]
}

async fn go_on(all: &[Transfer]) {
    for transfer in all {
        transfer.goes_on().await;
    }
}

/// Ends all transfers. Nobody was reset, as the kernels of their clients count; there were no other connections, of which
/// one that is closed already may be.
async fn end(cluster: &Cluster, all: Vec<Transfer>) {
    for transfer in all {
        transfer.end(SILENCE_MAX).await;
    }
    for space in [&cluster.out, &cluster.pods[0], &cluster.pods[1]] {
        assert_eq!(resets(space), 0);
    }
}

fn watch_resets(cluster: &Cluster) {
    [&cluster.out, &cluster.pods[0], &cluster.pods[1]].into_iter().for_each(count_resets);
}

#[test]
fn no_transfer_notices_that_rules_are_taken_away() {
    on_cluster(|cluster| async move {
        cluster.api.put(&services());
        let tree = cluster.start(&[]).await;
        watch_resets(&cluster);
        let all = transfers(&cluster).await;
        let udp = cluster.pods[0].udp(false);
        let first = ask_from(&udp, "10.43.0.5:80").await.unwrap();
        let clock = Clock::system();
        for damage in [
            "nft flush ruleset",
            "nft delete table ip k3sd-proxy",
            "nft delete table ip6 k3sd-proxy",
            "nft flush table ip k3sd-proxy",
            "nft flush ruleset",
        ] {
            let before = listed(&cluster);
            go_on(&all).await;
            let broken = clock.now();
            cluster.node.run(damage);
            eventually(damage, async || listed(&cluster) == before).await;
            let took = clock.now().since(broken);
            assert!(took < Duration::from_secs(1), "{damage}: mended after {took:?}");
            go_on(&all).await;
            assert_eq!(ask_from(&udp, "10.43.0.5:80").await.unwrap(), first, "UDP goes on where it went: {damage}");
        }
        end(&cluster, all).await;
        for (space, at) in [(&cluster.pods[0], "10.43.0.5:80"), (&cluster.out, "[fd02::1]:30080")] {
            assert_eq!(answers(16, async || space.ask(at).await).await, names(&["p1", "p2"]), "{at}");
        }
        stop(tree).await;
    });
}

#[test]
fn what_is_asked_while_rules_are_away_finds_its_way_later() {
    on_cluster(|cluster| async move {
        cluster.api.put(&services());
        let tree = cluster.start(&[]).await;
        // Nobody is there to mend anything.
        stop(tree).await;
        cluster.node.run("nft flush ruleset");
        // What goes astray gets lost outside, instead of coming back until it is too old.
        cluster.out.run("sysctl -qw net.ipv4.ip_forward=0");
        let (pod, pod_v6, out) = (cluster.pods[0].udp(false), cluster.pods[0].udp(true), cluster.out.udp(false));
        for (socket, at) in [(&pod, "10.43.0.5:80"), (&pod_v6, "[fd43::5]:80"), (&out, "192.0.2.1:30080")] {
            assert!(ask_from(socket, at).await.is_err(), "{at}");
        }
        let connecting = cluster.pods[1].begin_to_connect("10.43.0.5:80");
        let tree = cluster.start(&[]).await;
        // The kernel asks again after a second, and again after three.
        let outcome = connecting.await;
        assert!(outcome.is_ok(), "who began to connect gets there: {outcome:?}");
        // The kernel remembers that these go nowhere, and has to be told.
        for (socket, at) in [(&pod, "10.43.0.5:80"), (&pod_v6, "[fd43::5]:80"), (&out, "192.0.2.1:30080")] {
            assert!(ask_from(socket, at).await.is_ok(), "{at}");
        }
        stop(tree).await;
    });
}

#[test]
fn tables_of_others_are_left_alone() {
    on_cluster(|cluster| async move {
        for line in [
            "table ip k3sd-proxy-of-another",
            "table inet k3sd-proxy",
            "chain inet k3sd-proxy forward { type filter hook forward priority 0 ; }",
            "rule inet k3sd-proxy forward counter",
            "set ip k3sd-proxy-of-another known { type ipv4_addr ; }",
            "element ip k3sd-proxy-of-another known { 192.0.2.77 }",
        ] {
            cluster.node.run(&format!("nft add {line}"));
        }
        let theirs = || {
            let one = cluster.node.run("nft list table ip k3sd-proxy-of-another");
            let two = cluster.node.run("nft list table inet k3sd-proxy");
            let counted =
                two.split("counter packets ").nth(1).unwrap().split(' ').next().unwrap().parse::<u64>().unwrap();
            (one, counted)
        };
        let (before, packets) = theirs();
        cluster.api.put(&services());
        let tree = cluster.start(&[]).await;
        assert!(cluster.out.ask("192.0.2.1:30080").await.is_ok());
        let (after, more_packets) = theirs();
        assert!(after == before && more_packets > packets, "their counter counts on: {packets}, {more_packets}");
        cluster.node.run("nft delete table ip k3sd-proxy");
        eventually("mended", async || cluster.out.ask("192.0.2.1:30080").await.is_ok()).await;
        let (after, even_more) = theirs();
        assert!(after == before && even_more > more_packets);
        stop(tree).await;
        assert_eq!(theirs().0, before);
    });
}

/// Ends an actor from outside, and waits until the proxy is well again.
async fn kill(cluster: &Cluster, tree: &Tree, paths: &[&str]) {
    for path in paths {
        assert!(tree.system().signal(path, Signal::Kill), "{path}");
    }
    cluster.is_in_order().await;
}

#[test]
fn no_transfer_notices_a_death() {
    on_cluster(|cluster| async move {
        cluster.api.put(&services());
        let tree = cluster.start(&[]).await;
        watch_resets(&cluster);
        let all = transfers(&cluster).await;
        go_on(&all).await;
        let news = cluster.news();
        for path in ["rules", "services", "endpointslices", "node", "health-ports", "healthz", "metrics"] {
            kill(&cluster, &tree, &[path]).await;
            go_on(&all).await;
        }
        kill(&cluster, &tree, &["rules", "services", "endpointslices", "node"]).await;
        go_on(&all).await;
        assert!(!is_touched(&news), "deaths change nothing");
        // The last incarnation has looked at everything by the time it hears of this.
        cluster.api.put(&[service("late", "10.43.0.9", &json!({})), slice("late", &BOTH)]);
        eventually("the late one is there", async || cluster.node.ask("10.43.0.9:80").await.is_ok()).await;
        assert!(is_touched(&news));
        stop(tree).await;
        go_on(&all).await;
        let tree = cluster.start(&[]).await;
        go_on(&all).await;
        assert!(!is_touched(&news), "what is there is adopted");
        end(&cluster, all).await;
        stop(tree).await;
    });
}

#[test]
fn changes_are_heard_of_whoever_has_died() {
    on_cluster(|cluster| async move {
        cluster.api.put(&[service("web", "10.43.0.5", &json!({})), slice("web", &BOTH)]);
        let tree = cluster.start(&[]).await;
        let deaths: [&[&str]; 5] = [
            &["services"],
            &["endpointslices"],
            &["rules"],
            &["services", "rules"],
            &["rules", "endpointslices", "node"],
        ];
        for (at, paths) in deaths.into_iter().enumerate() {
            for path in paths {
                assert!(tree.system().signal(path, Signal::Kill), "{path}");
            }
            // At once, while whoever died is away.
            let (name, address) = (format!("late-{at}"), format!("10.43.1.{at}"));
            cluster.api.put(&[service(&name, &address, &json!({})), slice(&name, &BOTH[..1])]);
            let to = format!("{address}:80");
            eventually(&format!("heard after {paths:?}"), async || cluster.pods[1].ask(&to).await.is_ok()).await;
            cluster.api.put(&[slice(&name, &BOTH[1..])]);
            let moved = async || cluster.pods[0].ask(&to).await.is_ok_and(|seen| seen.who == "p2");
            eventually(&format!("heard again after {paths:?}"), moved).await;
        }
        stop(tree).await;
    });
}

#[test]
fn an_old_connection_outlives_its_service() {
    on_cluster(|cluster| async move {
        let web = service("web", "10.43.0.5", &json!({}));
        cluster.api.put(&[web.clone(), slice("web", &BOTH)]);
        let tree = cluster.start(&[]).await;
        let mut stream = cluster.pods[0].connect("10.43.0.5:80").await.unwrap();
        crate::support::read_line(&mut stream).await;
        cluster.api.put(&[slice("web", &[])]);
        eventually("nobody is there", async || cluster.pods[0].ask("10.43.0.5:80").await.is_err()).await;
        echo(&mut stream, b"here").await;
        cluster.api.delete(&web);
        eventually("it is gone", async || {
            !cluster.node.run("nft list map ip k3sd-proxy services").contains("elements")
        })
        .await;
        echo(&mut stream, b"more").await;
        stop(tree).await;
    });
}

#[test]
fn the_way_of_a_change_into_the_kernel_is_timed() {
    on_cluster(|cluster| async move {
        let stamped = |endpoints: &[(&str, &str)], ago: Duration| {
            let wall = Clock::system().wall() - ago;
            let then = Timestamp::new(i64::try_from(wall.as_secs()).unwrap(), 0).unwrap();
            let mut slice = slice("web", endpoints);
            slice["metadata"]["annotations"] =
                json!({"endpoints.kubernetes.io/last-change-trigger-time": then.to_string()});
            slice
        };
        let hour = Duration::from_secs(3600);
        cluster.api.put(&[service("web", "10.43.0.5", &json!({})), stamped(&BOTH, hour)]);
        let tree = cluster.start(&[]).await;
        let value = async |name: &str| -> f64 {
            let (_, text) = cluster.get("127.0.0.1:10249", "/metrics").await;
            let name = format!("kubeproxy_{name} ");
            let found = text.lines().find_map(|line| line.strip_prefix(&name));
            found.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
        };
        let counted = "network_programming_duration_seconds_count{ip_family=\"IPv4\"}";
        assert_eq!(value(counted).await, 0.0, "what happened before the proxy began says nothing of it");
        let clock = Clock::system();
        // The annotation has whole seconds; one that is surely after the beginning is waited for.
        clock.sleep_until(clock.now() + Duration::from_millis(1100)).await;
        cluster.api.put(&[stamped(&BOTH[..1], Duration::ZERO)]);
        eventually("it is counted", async || value(counted).await == 1.0).await;
        let sum = value("network_programming_duration_seconds_sum{ip_family=\"IPv4\"}").await;
        assert!((0.0..10.0).contains(&sum), "{sum}");
        assert_eq!(value("network_programming_duration_seconds_count{ip_family=\"IPv6\"}").await, 0.0);
        let bucket = "network_programming_duration_seconds_bucket{ip_family=\"IPv4\",le=\"300\"}";
        assert_eq!(value(bucket).await, 1.0);
        assert!(value("sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv4\"}").await > 1e9);
        assert_eq!(value("sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"}").await, 0.0);
        stop(tree).await;
    });
}
