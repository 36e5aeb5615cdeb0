//! The node's network as an actor, in a network namespace of its own, with pods that the plugins connect.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k3sd_kubelet_cni::{Backend, Cidr, NetworkConfig, collect, tree};
use k3sd_runtime::{Clock, Signal, System, Tree, testkit};
use serde_json::Value;
use tokio::sync::watch;

/// A namespace that goes away with the test.
struct Space(String);

impl Space {
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("k3sd-net-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        match Command::new("ip").args(["netns", "add", &name]).output() {
            Ok(output) if output.status.success() => Some(Self(name)),
            other => {
                println!("ignored: no network namespace can be made: {other:?}");
                None
            }
        }
    }

    fn run(&self, command: &[&str]) -> String {
        let net = format!("--net=/run/netns/{}", self.0);
        let output = Command::new("nsenter").arg(net).args(command).output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn pings(&self, address: &str) -> bool {
        let net = format!("--net=/run/netns/{}", self.0);
        let ping = ["busybox", "ping", "-c", "1", "-W", "2", address];
        Command::new("nsenter").arg(net).args(ping).output().unwrap().status.success()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", &self.0]).output().ok();
    }
}

/// A node: its namespace, its directories, and what is published to it.
struct Node {
    space: Space,
    dir: tempfile::TempDir,
    cidrs: watch::Sender<Vec<Cidr>>,
    live: watch::Sender<Option<Arc<BTreeSet<String>>>>,
}

impl Node {
    fn new() -> Option<Self> {
        let (cidrs, live) = (watch::Sender::new(Vec::new()), watch::Sender::new(None));
        Some(Self { space: Space::new()?, dir: tempfile::tempdir().unwrap(), cidrs, live })
    }

    fn config(&self) -> NetworkConfig {
        let path = |name: &str| self.dir.path().join(name);
        let mut config = NetworkConfig::new("/bin/false".into(), path("conf"), path("bin"));
        config.subnet_env = path("run/subnet.env");
        config.networks_dir = path("networks");
        config.flannel_dir = path("flannel");
        config.cluster_cidrs = vec!["10.42.0.0/16".parse().unwrap(), "fd42::/56".parse().unwrap()];
        config.masquerade_ipv6 = true;
        config.namespace = Some(Path::new("/run/netns").join(&self.space.0));
        config
    }

    async fn start(&self, config: NetworkConfig) -> Tree {
        let system = System::new(Clock::system());
        let tree = system.start(tree(config, self.cidrs.subscribe(), self.live.subscribe()));
        tree.ready().await.unwrap();
        tree
    }

    fn publish(&self, cidrs: &[&str]) {
        self.cidrs.send_replace(cidrs.iter().map(|text| text.parse().unwrap()).collect());
    }

    fn list(&self) -> std::path::PathBuf {
        self.dir.path().join("conf/10-flannel.conflist")
    }

    fn rules(&self) -> String {
        self.space.run(&["nft", "-a", "list", "ruleset"])
    }
}

/// Waits until it holds; the test's own limit is far away.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let clock = Clock::system();
    for _ in 0..500 {
        if holds() {
            return;
        }
        clock.sleep_until(clock.now() + Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

async fn stop(tree: Tree) {
    tree.stop();
    tree.ended().await;
}

fn on_node<F: Future<Output = ()>>(test: impl FnOnce(Node) -> F) {
    let Some(node) = Node::new() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(test(node));
}

const BOTH: [&str; 2] = ["10.42.3.0/24", "fd42:0:0:3::/64"];

#[test]
fn everything_is_there_when_the_networks_are_known() {
    on_node(|node| async move {
        node.space.run(&["ip", "link", "add", "up0", "mtu", "1390", "type", "veth", "peer", "name", "up1"]);
        node.space.run(&["ip", "addr", "add", "192.0.2.1/24", "dev", "up0"]);
        node.space.run(&["ip", "link", "set", "up0", "up"]);
        node.space.run(&["ip", "route", "add", "default", "via", "192.0.2.2"]);
        let tree = node.start(node.config()).await;
        assert!(!node.list().exists(), "before that the runtime must not start pods");
        assert!(node.dir.path().join("bin/bridge").is_symlink());
        node.publish(&BOTH);
        eventually("the list is written", || node.list().exists()).await;
        let list: Value = serde_json::from_slice(&std::fs::read(node.list()).unwrap()).unwrap();
        assert_eq!(list["plugins"][1]["type"], "portmap");
        let env = std::fs::read_to_string(node.dir.path().join("run/subnet.env")).unwrap();
        assert!(env.contains("FLANNEL_SUBNET=10.42.3.1/24\n") && env.contains("FLANNEL_MTU=1390\n"), "{env}");
        for key in ["net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding"] {
            assert_eq!(node.space.run(&["sysctl", "-n", key]).trim(), "1", "{key}");
        }
        stop(tree).await;
    });
}

#[test]
fn a_restart_and_a_kill_change_nothing() {
    on_node(|node| async move {
        node.publish(&BOTH);
        let tree = node.start(node.config()).await;
        let (rules, written) = (node.rules(), std::fs::metadata(node.list()).unwrap().modified().unwrap());
        assert!(rules.contains("masquerade"));
        let born = tree.system().born();
        assert!(tree.system().signal("network", Signal::Kill));
        eventually("it is back", || tree.system().born() > born && tree.system().is_occupied("network")).await;
        stop(tree).await;
        let tree = node.start(node.config()).await;
        assert_eq!(node.rules(), rules, "not even a handle is another");
        assert_eq!(std::fs::metadata(node.list()).unwrap().modified().unwrap(), written);
        stop(tree).await;
    });
}

#[test]
fn a_foreign_flush_is_mended() {
    on_node(|node| async move {
        node.publish(&BOTH);
        let tree = node.start(node.config()).await;
        for _ in 0..3 {
            node.space.run(&["nft", "flush", "ruleset"]);
            eventually("the table is back", || node.rules().contains("masquerade")).await;
        }
        // Networks of the node can change, as long as it has no pods.
        node.publish(&["10.42.9.0/24"]);
        eventually("other networks", || node.rules().contains("10.42.9.0/24") && !node.rules().contains("10.42.3.0"))
            .await;
        stop(tree).await;
    });
}

#[test]
fn pods_get_out_as_the_node() {
    on_node(|node| async move {
        let (pod, outside) = (Space::new().unwrap(), Space::new().unwrap());
        for (space, link, host, own, gateway) in [
            (&pod, "pod0", ["10.42.3.1/24", "fd42:0:0:3::1/64"], ["10.42.3.2/24", "fd42:0:0:3::2/64"], true),
            (&outside, "up0", ["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"], false),
        ] {
            node.space.run(&["ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", &space.0]);
            for (side, device, addresses) in [(&node.space, link, host), (space, "eth0", own)] {
                side.run(&["ip", "addr", "add", addresses[0], "dev", device]);
                side.run(&["ip", "-6", "addr", "add", addresses[1], "dev", device, "nodad"]);
                side.run(&["ip", "link", "set", device, "up"]);
            }
            if gateway {
                space.run(&["ip", "route", "add", "default", "via", "10.42.3.1"]);
                space.run(&["ip", "-6", "route", "add", "default", "via", "fd42:0:0:3::1"]);
            }
        }
        assert!(!pod.pings("192.0.2.2"));
        node.publish(&BOTH);
        let tree = node.start(node.config()).await;
        assert!(pod.pings("192.0.2.2") && pod.pings("2001:db8::2"), "outside knows only the node");
        let shown = node.space.run(&["nft", "list", "chain", "inet", "k3sd-pods", "masquerade4"]);
        assert!(shown.contains("ip daddr 10.42.0.0/16 return"), "{shown}");
        stop(tree).await;
    });
}

#[test]
fn a_chain_of_others_that_drops_is_named() {
    on_node(|node| async move {
        node.publish(&BOTH);
        node.space.run(&["nft", "add table ip filter"]);
        node.space.run(&["nft", "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"]);
        let tree = node.start(node.config()).await;
        let notes = testkit::notes(tree.system(), "network").join("\n");
        assert!(notes.contains("the nftables chain filter/FORWARD drops what is forwarded"), "{notes}");
        stop(tree).await;
    });
}

#[test]
fn no_backend_installs_and_nothing_else() {
    on_node(|node| async move {
        node.publish(&BOTH);
        let mut config = node.config();
        config.backend = Backend::None;
        let tree = node.start(config).await;
        assert!(node.dir.path().join("bin/bridge").is_symlink());
        assert!(!node.list().exists() && node.rules().is_empty());
        stop(tree).await;
    });
}

#[test]
fn what_the_kernel_or_the_disk_refuses_is_tried_again() {
    on_node(|node| async move {
        node.publish(&BOTH);
        std::fs::write(node.dir.path().join("run"), "not a directory").unwrap();
        let tree = node.start(node.config()).await;
        assert!(!node.list().exists(), "without subnet.env the plugins would fail");
        std::fs::remove_file(node.dir.path().join("run")).unwrap();
        eventually("it succeeds", || node.list().exists()).await;
        stop(tree).await;
    });
}

#[test]
fn leaked_addresses_are_freed() {
    let dir = tempfile::tempdir().unwrap();
    let network = dir.path().join("cbr0");
    let live = BTreeSet::from(["lives".to_owned()]);
    assert!(collect(dir.path(), "cbr0", &live).unwrap().is_empty(), "no directory, nothing to free");
    std::fs::create_dir(&network).unwrap();
    for (address, text) in
        [("10.42.3.2", "lives\r\neth0"), ("10.42.3.3", "gone\r\neth0"), ("fd42::3", "gone\r\neth0"), ("10.42.3.4", "")]
    {
        std::fs::write(network.join(address), text).unwrap();
    }
    std::fs::write(network.join("last_reserved_ip.0"), "10.42.3.4").unwrap();
    let mut freed: Vec<String> = collect(dir.path(), "cbr0", &live).unwrap().iter().map(ToString::to_string).collect();
    freed.sort();
    assert_eq!(freed, ["10.42.3.3", "fd42::3"]);
    let mut left: Vec<_> = std::fs::read_dir(&network).unwrap().map(|file| file.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["10.42.3.2", "last_reserved_ip.0", "lock"]);
}
