//! A node with pods and a client outside, each in a network namespace of its own.
//!
//! ```text
//! out 192.0.2.2, fd02::2 ── node 192.0.2.1, fd02::1 ── cni0 10.42.0.1, fd42::1 ─┬ p1 10.42.0.2, fd42::2
//!                                                                              └ p2 10.42.0.3, fd42::3
//! ```

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use k3sd_netlink::nft::{Family, News};
use k3sd_netlink::{Namespace, NetlinkError, testkit};
use k3sd_proxy::{ProxyConfig, ProxyDeps, tree};
use k3sd_runtime::{Clock, System, Tree};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use crate::api::Api;

/// How long an answer may take that comes, and how long is waited for one that doesn't.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(1500);

/// A namespace that goes away with the test.
pub(crate) struct Space(testkit::Space);

impl Space {
    /// `None`, and a line that says why, where namespaces can't be made.
    pub(crate) fn new() -> Option<Self> {
        testkit::Space::with_loopback("px").map(Self)
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        self.0.namespace()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Runs a command whose words have no spaces in them.
    pub(crate) fn run(&self, command: &str) -> String {
        self.0.run(&command.split(' ').collect::<Vec<_>>())
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        self.namespace().enter(|| Ok::<_, NetlinkError>(work())).unwrap()
    }

    /// Opens a connection from here.
    pub(crate) async fn connect(&self, to: &str) -> io::Result<TcpStream> {
        let to: SocketAddr = to.parse().unwrap();
        let socket = self.inside(|| if to.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() })?;
        match tokio::time::timeout(SILENCE, socket.connect(to)).await {
            Ok(connected) => connected,
            Err(_) => Err(ErrorKind::TimedOut.into()),
        }
    }

    /// Sends the first packet of a connection at once; comes back when it stands, or when nobody answers for long.
    pub(crate) fn begin_to_connect(&self, to: &str) -> impl Future<Output = io::Result<TcpStream>> + use<> {
        let to: SocketAddr = to.parse().unwrap();
        let socket = self.inside(TcpSocket::new_v4).unwrap();
        let mut task = JoinSet::new();
        task.spawn(socket.connect(to));
        async move {
            let connected = tokio::time::timeout(ANSWER_LIMIT, task.join_next()).await;
            connected.map_err(|_| ErrorKind::TimedOut)?.unwrap().unwrap()
        }
    }

    /// Who answers a connection from here, and whom he sees.
    pub(crate) async fn ask(&self, to: &str) -> Result<Seen, ErrorKind> {
        let mut stream = self.connect(to).await.map_err(|error| error.kind())?;
        Ok(read_line(&mut stream).await)
    }

    /// A UDP socket here.
    pub(crate) fn udp(&self, is_ipv6: bool) -> UdpSocket {
        let any = if is_ipv6 { "[::]:0" } else { "0.0.0.0:0" };
        let socket = self.inside(|| {
            let socket = std::net::UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        UdpSocket::from_std(socket.unwrap()).unwrap()
    }

    /// Who answers a packet from here, and whom he sees.
    pub(crate) async fn ask_udp(&self, to: &str) -> Result<Seen, ErrorKind> {
        let socket = self.udp(to.starts_with('['));
        ask_from(&socket, to).await
    }
}

/// Who answers a packet from this socket.
pub(crate) async fn ask_from(socket: &UdpSocket, to: &str) -> Result<Seen, ErrorKind> {
    let exchange = async {
        socket.connect(to).await?;
        socket.send(b"who").await?;
        let mut answer = [0; 100];
        let length = socket.recv(&mut answer).await?;
        Ok(Seen::of(std::str::from_utf8(&answer[..length]).unwrap()))
    };
    match tokio::time::timeout(SILENCE, exchange).await {
        Ok(outcome) => outcome.map_err(|error: io::Error| error.kind()),
        Err(_) => Err(ErrorKind::TimedOut),
    }
}

/// Who answered, and where the question came from in his eyes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) who: String,
    pub(crate) from: IpAddr,
}

impl Seen {
    fn of(line: &str) -> Self {
        let (who, from) = line.trim().split_once(' ').unwrap();
        let from: SocketAddr = from.parse().unwrap();
        Self { who: who.to_owned(), from: from.ip().to_canonical() }
    }
}

pub(crate) async fn read_line(stream: &mut TcpStream) -> Seen {
    let mut line = Vec::new();
    let reading = async {
        while line.last() != Some(&b'\n') {
            line.push(stream.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(ANSWER_LIMIT, reading).await.expect("an answer in time");
    Seen::of(std::str::from_utf8(&line).unwrap())
}

/// Says who it is, and then what it is told.
async fn tcp_server(name: &'static str, listener: TcpListener) {
    let mut clients = JoinSet::new();
    loop {
        let (mut stream, from) = listener.accept().await.unwrap();
        clients.spawn(async move {
            stream.write_all(format!("{name} {from}\n").as_bytes()).await?;
            let (mut input, mut output) = stream.split();
            tokio::io::copy(&mut input, &mut output).await
        });
    }
}

async fn udp_server(name: &'static str, socket: UdpSocket) {
    let mut question = [0; 100];
    loop {
        if let Ok((_, from)) = socket.recv_from(&mut question).await {
            socket.send_to(format!("{name} {from}").as_bytes(), from).await.ok();
        }
    }
}

/// The picture on the module's page, with an API and a proxy.
pub(crate) struct Cluster {
    pub(crate) node: Space,
    pub(crate) out: Space,
    pub(crate) pods: Vec<Space>,
    pub(crate) api: Api,
    servers: JoinSet<()>,
}

impl Cluster {
    fn new() -> Option<Self> {
        let (node, out) = (Space::new()?, Space::new()?);
        let connect = |link: &str, inner: &str, to: &Space| {
            let path = to.path();
            node.run(&format!("ip link add {link} type veth peer name {inner} netns {}", path.display()));
            node.run(&format!("ip link set {link} up"));
            to.run(&format!("ip link set {inner} up"));
        };
        node.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        connect("out", "eth0", &out);
        let address = |space: &Space, link: &str, v4: &str, v6: &str| {
            space.run(&format!("ip addr add {v4} dev {link}"));
            space.run(&format!("ip -6 addr add {v6} dev {link} nodad"));
        };
        let default = |space: &Space, v4: &str, v6: &str| {
            space.run(&format!("ip route add default via {v4}"));
            space.run(&format!("ip -6 route add default via {v6}"));
        };
        address(&node, "out", "192.0.2.1/24", "fd02::1/64");
        address(&out, "eth0", "192.0.2.2/24", "fd02::2/64");
        default(&out, "192.0.2.1", "fd02::1");
        default(&node, "192.0.2.2", "fd02::2");
        node.run("ip link add cni0 type bridge");
        node.run("ip link set cni0 up");
        address(&node, "cni0", "10.42.0.1/24", "fd42::1/64");
        let mut cluster = Self { node, out, pods: Vec::new(), api: Api::new(), servers: JoinSet::new() };
        for (at, name) in ["p1", "p2"].into_iter().enumerate() {
            let pod = Space::new()?;
            let link = format!("v{name}");
            let path = pod.path();
            cluster.node.run(&format!("ip link add {link} type veth peer name eth0 netns {}", path.display()));
            cluster.node.run(&format!("ip link set {link} master cni0"));
            cluster.node.run(&format!("bridge link set dev {link} hairpin on"));
            cluster.node.run(&format!("ip link set {link} up"));
            pod.run("ip link set eth0 up");
            address(&pod, "eth0", &format!("10.42.0.{}/24", at + 2), &format!("fd42::{}/64", at + 2));
            default(&pod, "10.42.0.1", "fd42::1");
            cluster.serve(&pod, name);
            cluster.pods.push(pod);
        }
        Some(cluster)
    }

    fn serve(&mut self, space: &Space, name: &'static str) {
        let sockets = space.inside(|| {
            let tcp = std::net::TcpListener::bind("[::]:8080")?;
            let udp = std::net::UdpSocket::bind("[::]:8080")?;
            tcp.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            Ok((tcp, udp))
        });
        let (tcp, udp) = sockets.unwrap();
        self.servers.spawn(tcp_server(name, TcpListener::from_std(tcp).unwrap()));
        self.servers.spawn(udp_server(name, UdpSocket::from_std(udp).unwrap()));
    }

    /// Waits until everybody knows everybody's link address: the kernel takes its time with new links.
    async fn is_connected(&self) {
        for pod in ["10.42.0.2:8080", "10.42.0.3:8080", "[fd42::2]:8080", "[fd42::3]:8080"] {
            for space in [&self.node, &self.out, &self.pods[0], &self.pods[1]] {
                eventually("links work", async || space.ask(pod).await.is_ok()).await;
            }
        }
    }

    /// Starts the proxy, and waits until the kernel is in order.
    pub(crate) async fn start(&self, arguments: &[&str]) -> Tree {
        let config = ProxyConfig {
            node_name: "n1".to_owned(),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            cluster_cidrs: vec![("10.42.0.0".parse().unwrap(), 16), ("fd42::".parse().unwrap(), 56)],
            local_load_balancer: true,
            namespace: Some(self.node.path()),
        };
        let system = System::new(Clock::system());
        let deps = ProxyDeps { connect: self.api.connect(), clock: system.clock().clone() };
        let tree = system.start(tree(config, deps).await.unwrap().spec);
        tree.ready().await.unwrap();
        self.is_in_order().await;
        tree
    }

    /// Waits until the kernel is as the API says.
    pub(crate) async fn is_in_order(&self) {
        eventually("the rules are in order", async || self.get("127.0.0.1:10256", "/healthz").await.0 == 200).await;
    }

    /// Status and whole text of a page on the node.
    pub(crate) async fn get(&self, at: &str, page: &str) -> (u16, String) {
        let Ok(mut stream) = self.node.connect(at).await else { return (0, String::new()) };
        let request = format!("GET {page} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        (text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0), text)
    }

    /// Hears from now on of every change to tables, whoever makes it.
    pub(crate) fn news(&self) -> News {
        self.node.namespace().enter(News::open).unwrap()
    }
}

/// Whether anything in the proxy's tables is another than when this was last asked.
pub(crate) fn is_touched(news: &News) -> bool {
    // No socket has the port zero, so nobody's changes are left out.
    news.drain_foreign(&[Family::Ip, Family::Ip6], "k3sd-proxy", 0).unwrap()
}

/// Runs a test on a cluster of its own.
pub(crate) fn on_cluster<F: Future<Output = ()>>(test: impl FnOnce(Cluster) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        if let Some(cluster) = Cluster::new() {
            cluster.is_connected().await;
            test(cluster).await;
        }
    });
}

pub(crate) async fn stop(tree: Tree) {
    tree.stop();
    tree.ended().await;
}

/// Waits until it holds; the limit is far away.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let clock = Clock::system();
    for _ in 0..500 {
        if holds().await {
            return;
        }
        clock.sleep_until(clock.now() + Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// Everybody who answers, of many questions.
pub(crate) async fn answers(of: usize, ask: impl AsyncFn() -> Result<Seen, ErrorKind>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for _ in 0..of {
        all.insert(ask().await.map_or_else(|error| error.to_string(), |seen| seen.who));
    }
    all
}

pub(crate) fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A Service with TCP and UDP at port 80.
pub(crate) fn service(name: &str, address: &str, spec: &Value) -> Value {
    let mut all = json!({"clusterIP": address, "clusterIPs": [address], "ports": [
        {"name": "tcp", "port": 80, "protocol": "TCP"}, {"name": "udp", "port": 80, "protocol": "UDP"}]});
    let mut status = json!({});
    for (key, value) in spec.as_object().unwrap() {
        match key.as_str() {
            "ingress" => status = json!({"loadBalancer": {"ingress": value}}),
            "nodePort" => {
                all["ports"][0]["nodePort"] = value.clone();
                all["ports"][1]["nodePort"] = value.clone();
            }
            _ => all[key] = value.clone(),
        }
    }
    json!({"kind": "Service", "apiVersion": "v1", "metadata": {"namespace": "a", "name": name}, "spec": all, "status": status})
}

/// The endpoints of a Service, as addresses and their nodes.
pub(crate) fn slice(of: &str, endpoints: &[(&str, &str)]) -> Value {
    let is_ipv6 = endpoints.iter().any(|(address, _)| address.contains(':'));
    let endpoints = endpoints.iter().map(|(address, node)| json!({"addresses": [address], "nodeName": node}));
    slice_of(of, is_ipv6, endpoints.collect())
}

/// The endpoints of a Service in one family, said in full.
pub(crate) fn slice_of(of: &str, is_ipv6: bool, endpoints: Vec<Value>) -> Value {
    json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"namespace": "a", "name": format!("{of}-{is_ipv6}"), "labels": {"kubernetes.io/service-name": of}},
        "addressType": if is_ipv6 { "IPv6" } else { "IPv4" }, "endpoints": endpoints, "ports": [
            {"name": "tcp", "port": 8080, "protocol": "TCP"}, {"name": "udp", "port": 8080, "protocol": "UDP"}]})
}

/// The node itself, in a zone.
pub(crate) fn node(zone: &str) -> Value {
    json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": zone}},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}})
}

pub(crate) const BOTH: [(&str, &str); 2] = [("10.42.0.2", "n1"), ("10.42.0.3", "n1")];
pub(crate) const BOTH_V6: [(&str, &str); 2] = [("fd42::2", "n1"), ("fd42::3", "n1")];
