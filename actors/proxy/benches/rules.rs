//! What ten thousand Services cost, and what one change does.
//!
//! `cargo bench -p k3sd-proxy`, as root. Everything happens in network namespaces of its own, at the kernel's own pace.
//! Budgets (issue 7): the first full round at most 500 ms, one endpoint changed at most 3 ms in the kernel, 10,000 changes in
//! a burst at most 2 s, the first packet with 30,000 services at most 1.2 times what it takes with one. Beside them the
//! same elements loaded by `nft -f`.

#[path = "../../../benches/table.rs"]
#[expect(dead_code, reason = "shared with benches that print other rows")]
mod table;

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use k3sd_client::informer::Change;
use k3sd_netlink::NetlinkError;
use k3sd_netlink::testkit::Space;
use k3sd_proxy::{Changes, Kernel, ProxyConfig};
use k3sd_runtime::Clock;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use table::{Row, Times};

const SERVICES: u32 = 10_000;
const MANY_SERVICES: u32 = 30_000;
const ENDPOINTS: u32 = 3;
const SINGLE_CHANGES: u32 = 300;
const CONNECTIONS: usize = 3000;
/// How long one change may take.
const CHANGE_MS: f64 = 3.0;

/// What is measured in a namespace.
trait Bench {
    fn kernel(&self) -> Kernel;
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T;
}

impl Bench for Space {
    fn kernel(&self) -> Kernel {
        let config = ProxyConfig {
            node_name: "n1".to_owned(),
            arguments: Vec::new(),
            cluster_cidrs: vec![("10.42.0.0".parse().expect("an address"), 16)],
            local_load_balancer: true,
            namespace: Some(self.path().to_owned()),
        };
        Kernel::new(&config).expect("the kernel has nftables")
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace().enter(|| Ok::<_, NetlinkError>(work())).expect("it can be entered")
    }
}

fn address(first: u8, number: u32) -> Ipv4Addr {
    let [_, b, c, d] = number.to_be_bytes();
    Ipv4Addr::new(first, 64 + b, c, d)
}

fn service(number: u32) -> Arc<Service> {
    let ip = address(10, number);
    let value = json!({"metadata": {"namespace": "shop", "name": format!("service-{number}")},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"name": "http", "port": 80}]}});
    Arc::new(serde_json::from_value(value).expect("a Service"))
}

/// The endpoints of a service; other ones for each `version`.
fn slice(number: u32, version: u32, count: u32) -> Arc<EndpointSlice> {
    let endpoint = |at: u32| json!({"addresses": [address(100 + u8::try_from(at).unwrap_or(0), number + version * 65_536)], "nodeName": "n2"});
    let endpoints: Vec<_> = (0..count).map(endpoint).collect();
    let value = json!({"metadata": {"namespace": "shop", "name": format!("service-{number}-x7k2p"),
        "labels": {"kubernetes.io/service-name": format!("service-{number}")}}, "addressType": "IPv4",
        "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}]});
    Arc::new(serde_json::from_value(value).expect("a slice"))
}

fn applied<K: k3sd_client::informer::Kind>(object: Arc<K>) -> Change<K> {
    Change::Applied { old: None, new: object }
}

fn everything(services: u32) -> Changes {
    Changes {
        services: (0..services).map(|number| applied(service(number))).collect(),
        slices: (0..services).map(|number| applied(slice(number, 0, ENDPOINTS))).collect(),
        nodes: Vec::new(),
    }
}

fn changed(slices: impl Iterator<Item = Arc<EndpointSlice>>) -> Changes {
    Changes { slices: slices.map(applied).collect(), ..Changes::default() }
}

struct Watch(Clock);

impl Watch {
    fn time<T>(&self, work: impl FnOnce() -> T) -> (T, Duration) {
        let began = self.0.now();
        let done = work();
        (done, self.0.now().since(began))
    }
}

/// A line that is only stated.
fn told(what: &str, ours: String, other: String) {
    Row { other, holds: None, ..Row::alone(what, "-", ours, true) }.print();
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The 99th percentile in milliseconds, and some others as a text.
fn quantiles(times: Vec<Duration>) -> (f64, String) {
    let mut all = Times::default();
    times.into_iter().for_each(|time| all.push(time));
    (all.at(990), format!("p50 {:.2}, p99 {:.2}, longest {:.2} ms", all.at(500), all.at(990), all.at(1000)))
}

/// A line with the times of many changes, of which 99 of 100 are to be within the bar.
fn change(name: &'static str, what: &str, times: Vec<Duration>) {
    let (most, ours) = quantiles(times);
    Row { ours, ..Row::at_most(what, CHANGE_MS, "ms", most) }.named(name).print();
}

/// A number of a file in /proc, in KiB.
fn kib(file: &str, name: &str) -> i64 {
    let text = std::fs::read_to_string(file).expect("/proc is mounted");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says it");
    line.split_ascii_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

fn costs(watch: &Watch) {
    let Some(space) = Space::with_loopback("costs") else { return };
    let mut kernel = space.kernel();
    let all = everything(SERVICES);
    let memory = || (kib("/proc/self/status", "VmRSS:"), kib("/proc/meminfo", "SUnreclaim:"));
    let before = memory();
    let (round, took) = watch.time(|| kernel.sync(all).expect("the kernel takes it"));
    let after = memory();
    let what = format!("{SERVICES} services, {ENDPOINTS} endpoints each: first round ({} elements)", round.elements);
    Row::at_most(what, 500.0, "ms", millis(took)).named("proxy-first").print();
    told("memory of the process, without the objects", format!("{} KiB", after.0 - before.0), "-".to_owned());
    told("memory of the kernel", format!("{} KiB", after.1 - before.1), "-".to_owned());
    let single = |kernel: &mut Kernel, version: u32, count: u32| {
        let one = |number: u32| {
            let change = changed([slice(number * 7, version, count)].into_iter());
            let (round, took) = watch.time(|| kernel.sync(change).expect("the kernel takes it"));
            assert!(!round.was_full && round.changes > 0, "{round:?}");
            took
        };
        (0..SINGLE_CHANGES).map(one).collect::<Vec<_>>()
    };
    let times = single(&mut kernel, 1, ENDPOINTS);
    change("proxy-change", "endpoints of one service replaced, p99", times);
    let times = single(&mut kernel, 1, ENDPOINTS - 1);
    change("proxy-gone", "an endpoint of one service gone, p99", times);
    let burst = changed((0..SERVICES).map(|number| slice(number, 2, ENDPOINTS)));
    let (round, took) = watch.time(|| kernel.sync(burst).expect("the kernel takes it"));
    let what = format!("endpoints of all services replaced, in one burst ({} elements)", round.changes);
    Row::at_most(what, 2000.0, "ms", millis(took)).named("proxy-burst").print();
    let mut successor = space.kernel();
    let mut all = everything(SERVICES);
    all.slices = (0..SERVICES).map(|number| applied(slice(number, 2, ENDPOINTS))).collect();
    let (round, took) = watch.time(|| successor.sync(all).expect("the kernel takes it"));
    told("after a restart: read, compared, left alone", format!("{:.2} ms", millis(took)), "-".to_owned());
    assert_eq!(round.changes, 0, "a restart changes nothing");
}

/// The same elements as text.
fn by_nft(watch: &Watch) {
    let Some(space) = Space::with_loopback("nft") else { return };
    let (mut services, mut endpoints, mut addresses) = (String::new(), String::new(), String::new());
    for number in 0..SERVICES {
        let ip = address(10, number);
        write!(addresses, "{ip},").expect("a string takes everything");
        write!(services, "tcp . {ip} . 80 : 0 . 8 . 3 . 0 . 0,").expect("a string takes everything");
        for at in 0..ENDPOINTS {
            let endpoint = address(100 + u8::try_from(at).unwrap_or(0), number);
            write!(endpoints, "tcp . {ip} . 80 . {at} : {endpoint} . 8080,").expect("a string takes everything");
        }
    }
    let script = format!(
        "table ip t {{
            map services {{ type inet_proto . ipv4_addr . inet_service : mark . mark . mark . mark . mark
                elements = {{ {services} }} }}
            map endpoints {{ typeof meta l4proto . ip daddr . th dport . numgen random mod 3 : ip daddr . th dport
                elements = {{ {endpoints} }} }}
            set addresses {{ type ipv4_addr
                elements = {{ {addresses} }} }}
            chain pre {{ type nat hook prerouting priority -100;
                dnat ip to meta l4proto . ip daddr . th dport . numgen random mod 3 map @endpoints
            }}
        }}\n"
    );
    let run = |script: &str| {
        let net = format!("--net={}", space.path().display());
        let mut nft =
            Command::new("nsenter").args([&net, "nft", "-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft runs");
        nft.stdin.take().expect("it is a pipe").write_all(script.as_bytes()).expect("nft reads");
        assert!(nft.wait().expect("nft ends").success());
    };
    let ((), took) = watch.time(|| run(&script));
    told("first round of nft -f", "-".to_owned(), format!("{:.2} ms", millis(took)));
    let one = |number: u32| {
        let ip = address(10, number * 7);
        let change = format!(
            "delete element ip t endpoints {{ tcp . {ip} . 80 . 0 }}\nadd element ip t endpoints {{ tcp . {ip} . 80 . 0 : 1.2.3.4 . 8080 }}\n"
        );
        watch.time(|| run(&change)).1
    };
    told("one endpoint replaced by nft -f", "-".to_owned(), quantiles((0..30).map(one).collect()).1);
}

/// How long it takes to connect to a service whose endpoint is in the next namespace.
fn first_packet(watch: &Watch) {
    let (Some(node), Some(pod)) = (Space::with_loopback("node"), Space::with_loopback("pod")) else { return };
    let path = pod.path().display().to_string();
    node.run(&["ip", "link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", &path]);
    for (space, link, ip) in [(&node, "v0", "10.42.0.1/24"), (&pod, "eth0", "10.42.0.2/24")] {
        space.run(&["ip", "addr", "add", ip, "dev", link]);
        space.run(&["ip", "link", "set", link, "up"]);
    }
    node.run(&["ip", "route", "add", "default", "via", "10.42.0.2"]);
    let server = pod.inside(|| TcpListener::bind("10.42.0.2:8080").expect("the port is free"));
    let to: SocketAddr = "10.43.0.5:80".parse().expect("an address");
    let mut kernel = node.kernel();
    let here = json!({"metadata": {"namespace": "a", "name": "here"},
        "spec": {"clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"], "ports": [{"port": 80}]}});
    let endpoint = json!({"metadata": {"namespace": "a", "name": "here", "labels": {"kubernetes.io/service-name": "here"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.42.0.2"]}], "ports": [{"port": 8080}]});
    let one = Changes {
        services: vec![applied(Arc::new(serde_json::from_value(here).expect("a Service")))],
        slices: vec![applied(Arc::new(serde_json::from_value(endpoint).expect("a slice")))],
        nodes: Vec::new(),
    };
    kernel.sync(one).expect("the kernel takes it");
    let measure = || {
        let connect = || {
            let (client, took) = watch.time(|| TcpStream::connect(to).expect("the service answers"));
            drop(server.accept().expect("it was connected"));
            drop(client);
            took
        };
        let mut times: Vec<_> = node.inside(|| (0..CONNECTIONS).map(|_| connect()).collect());
        times.sort();
        times[times.len() / 2]
    };
    measure();
    let few = measure();
    kernel.sync(everything(MANY_SERVICES)).expect("the kernel takes it");
    measure();
    let many = measure();
    let micros = |time: Duration| format!("{:.1} µs", time.as_secs_f64() * 1e6);
    let ratio = many.as_secs_f64() / few.as_secs_f64();
    let what = format!("a connection with {MANY_SERVICES} services, p50, beside one with one");
    let row = Row::at_most(what, 1.2, "x", ratio);
    Row { ours: micros(many), other: micros(few), ratio: format!("{ratio:.2} x"), ..row }.named("proxy-packet").print();
}

fn main() {
    let watch = Watch(Clock::system());
    Row::print_head("nft -f");
    costs(&watch);
    by_nft(&watch);
    first_packet(&watch);
}
