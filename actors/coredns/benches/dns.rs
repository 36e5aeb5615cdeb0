//! How many questions a core answers, how long each takes, and what ten thousand Services cost.
//!
//! `cargo bench -p k3sd-coredns`. The DNS runs on one thread, asked over loopback by another with a window of open
//! questions. Budgets (issue 7): 50,000 answers per second and core, the 99th percentile at most 1 ms, 10 MiB.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use k3sd_client::api::Connect;
use k3sd_coredns::{DnsConfig, DnsDeps, tree};
use k3sd_runtime::{Clock, Rng, System};
use kube::client::Body;

#[path = "../../../benches/table.rs"]
#[expect(dead_code, reason = "shared with benches that print other rows")]
mod table;

use table::Row;

const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 3;
const PAGE: u32 = 500;
/// Questions that are open at once.
const WINDOW: usize = 16;
const QUESTIONS: usize = 500_000;
/// Ticks per second in /proc.
const TICKS: f64 = 100.0;

/// An API server that makes up what it lists, and whose watches say nothing.
#[derive(Clone)]
struct Api;

fn page(path: &str, from: u32) -> String {
    let mut items = String::new();
    let end = match path {
        "/api/v1/services" | "/apis/discovery.k8s.io/v1/endpointslices" => SERVICES,
        "/api/v1/namespaces" => 1,
        _ => 0,
    };
    let to = (from + PAGE).min(end);
    for number in from..to {
        let comma = if number > from { "," } else { "" };
        let written = match path {
            "/api/v1/services" => {
                let cluster_ip = if number % 10 == 0 { "None".to_owned() } else { address(44, number).to_string() };
                write!(
                    items,
                    r#"{comma}{{"metadata":{{"name":"service-{number}","namespace":"shop","uid":"6f1c1c9a-0000-4000-8000-0000{number:08}","labels":{{"app":"service-{number}"}}}},"spec":{{"clusterIP":"{cluster_ip}","clusterIPs":["{cluster_ip}"],"type":"ClusterIP","ports":[{{"name":"http","protocol":"TCP","port":80,"targetPort":8080}}]}}}}"#
                )
            }
            "/api/v1/namespaces" => write!(items, r#"{{"metadata":{{"name":"shop"}}}}"#),
            _ => {
                let endpoint =
                    |at| format!(r#"{{"addresses":["{}"],"conditions":{{"ready":true}}}}"#, address(100 + at, number));
                let endpoints: Vec<String> = (0..ENDPOINTS).map(|at| endpoint(at as u8)).collect();
                write!(
                    items,
                    r#"{comma}{{"metadata":{{"name":"service-{number}-x7k2p","namespace":"shop","labels":{{"kubernetes.io/service-name":"service-{number}"}}}},"endpoints":[{}],"ports":[{{"name":"http","protocol":"TCP","port":8080}}]}}"#,
                    endpoints.join(",")
                )
            }
        };
        written.expect("a text has room");
    }
    let next = if to < end { format!(r#","continue":"{to}""#) } else { String::new() };
    format!(r#"{{"metadata":{{"resourceVersion":"1"{next}}},"items":[{items}]}}"#)
}

fn address(net: u8, number: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, net, (number / 250) as u8, (number % 250 + 1) as u8)
}

impl tower_service::Service<Request<Body>> for Api {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let query = request.uri().query().unwrap_or_default();
        if query.contains("watch=true") {
            return Box::pin(std::future::pending());
        }
        let from = query.split('&').find_map(|part| part.strip_prefix("continue=")).and_then(|text| text.parse().ok());
        let text = page(request.uri().path(), from.unwrap_or_default());
        Box::pin(async move { Ok(Response::new(Full::new(Bytes::from(text)))) })
    }
}

fn question(name: &str, kind: u8, id: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, kind, 0, 1]);
    bytes
}

/// What pods ask: mostly addresses, and names that their search path makes up.
fn mixed(rng: &mut Rng, id: u16) -> Vec<u8> {
    let number = rng.below(u64::from(SERVICES));
    match rng.below(10) {
        0..5 => question(&format!("service-{number}.shop.svc.cluster.local"), 1, id),
        5..7 => question(&format!("www.example.org.{number}.svc.cluster.local"), 1, id),
        7 => question(&format!("service-{number}.shop.svc.cluster.local"), 28, id),
        8 => question(&format!("_http._tcp.service-{number}.shop.svc.cluster.local"), 33, id),
        _ => question(&format!("service-{}.shop.svc.cluster.local", number / 10 * 10), 1, id),
    }
}

/// Kilobytes of memory that this process has.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is listed");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Seconds of a processor that a thread of ours has had.
fn thread_seconds(thread: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).expect("the thread is there");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|text| text.parse::<f64>().expect("a number")).sum();
    ticks / TICKS
}

fn this_thread() -> u32 {
    let link = std::fs::read_link("/proc/thread-self").expect("/proc is there");
    link.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()).expect("a number")
}

fn serve(port: u16, thread: &AtomicU32, over: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let clock = Clock::system();
        let own = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
        let mut config = DnsConfig::new(own, "cluster.local", "/dev/null".into(), "node");
        (config.port, config.adds_addresses, config.workers) = (port, false, 1);
        let spec =
            tree(config, DnsDeps { connect: Connect::over(Api), clock: clock.clone() }).await.expect("it starts").spec;
        let tree = System::new(clock.clone()).start(spec);
        tree.ready().await.expect("it starts");
        thread.store(this_thread(), Ordering::Release);
        while !over.load(Ordering::Acquire) {
            clock.sleep_until(clock.now() + Duration::from_millis(100)).await;
        }
    });
}

/// Asks until all is answered; the time of each, in nanoseconds.
fn load(socket: &UdpSocket, clock: &Clock, count: usize) -> Vec<u64> {
    let mut rng = Rng::seeded(1);
    let mut sent = vec![clock.now(); 1 << 16];
    let mut times = Vec::with_capacity(count);
    let mut buffer = [0; 2048];
    let mut next = 0;
    while times.len() < count {
        while next < count && next - times.len() < WINDOW {
            let id = next as u16;
            let bytes = mixed(&mut rng, id);
            sent[usize::from(id)] = clock.now();
            socket.send(&bytes).expect("it is sent");
            next += 1;
        }
        socket.recv(&mut buffer).expect("an answer in time");
        let id = u16::from_be_bytes([buffer[0], buffer[1]]);
        times.push(u64::try_from(clock.now().since(sent[usize::from(id)]).as_nanos()).unwrap_or(u64::MAX));
    }
    times
}

fn main() {
    let clock = Clock::system();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let free = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let (thread, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let before = resident_kib();
    std::thread::scope(|scope| {
        scope.spawn(|| serve(free, &thread, &over));
        socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, free))).expect("it connects");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("it is set");
        let last = question(&format!("service-{}.shop.svc.cluster.local", SERVICES - 1), 1, 7);
        let denied = question("nothing.shop.svc.cluster.local", 1, 7);
        let mut buffer = [0; 512];
        // Known, and known to be all: what isn't there is denied then.
        for (asked, rcode) in [(last, 0), (denied, 3)] {
            loop {
                socket.send(&asked).ok();
                if socket.recv(&mut buffer).is_ok() && buffer[3] & 0xf == rcode {
                    break;
                }
            }
        }
        while socket.recv(&mut buffer).is_ok() {}
        let grown = resident_kib().saturating_sub(before);
        Row::print_head("-");
        let what = format!("{SERVICES} services with {ENDPOINTS} endpoints each: resident memory more than before");
        Row::at_most(what, 10.0, "MiB", grown as f64 / 1024.0).named("dns-memory").print();
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("it is set");
        let thread = thread.load(Ordering::Acquire);
        load(&socket, &clock, QUESTIONS / 10);
        let (begun, spent) = (clock.now(), thread_seconds(thread));
        let mut times = load(&socket, &clock, QUESTIONS);
        let (took, spent) = (clock.now().since(begun).as_secs_f64(), thread_seconds(thread) - spent);
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize] as f64 / 1e6;
        let what = format!("answers of a core, {WINDOW} questions open ({:.0}/s meanwhile)", QUESTIONS as f64 / took);
        Row::at_least(what, 50_000.0, "/s", QUESTIONS as f64 / spent).named("dns-rate").print();
        let others = format!("median {:.2}, p99.9 {:.2}, longest {:.2} ms", at(0.5), at(0.999), at(1.0));
        Row::at_most(format!("time of an answer, p99 ({others})"), 1.0, "ms", at(0.99)).named("dns-p99").print();
        over.store(true, Ordering::Release);
    });
}
