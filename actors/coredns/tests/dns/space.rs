//! A network namespace for each test, with a DNS inside.

use std::future::Future;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use k3sd_coredns::{DnsConfig, DnsDeps, tree};
use k3sd_netlink::NetlinkError;
use k3sd_netlink::testkit::Space;
use k3sd_runtime::{Clock, System, Tree};
use tokio::process::Command;

use crate::api::Api;

/// Where the DNS is; the address is its own business.
pub(crate) const DNS: &str = "10.43.0.10";
/// Longest wait for a condition.
const LIMIT: Duration = Duration::from_secs(15);

/// Runs a test on a thread inside a namespace of its own, whose loopback link is up. What it starts is inside too.
pub(crate) fn inside<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    let Some(space) = Space::with_loopback("dns") else { return };
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test());
        Ok::<_, NetlinkError>(())
    };
    space.namespace().enter(work).expect("it may be entered");
}

/// A command inside, and what it says.
pub(crate) async fn output(program: &str, args: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(args).stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// The same, of one that has to succeed.
pub(crate) async fn run(program: &str, args: &[&str]) -> String {
    let (succeeded, text) = output(program, args).await;
    assert!(succeeded, "{program} {args:?}: {text}");
    text
}

/// A DNS that runs.
pub(crate) struct Dns {
    pub(crate) system: System,
    tree: Tree,
    directory: tempfile::TempDir,
}

impl Dns {
    /// Starts one, with these upstream servers.
    pub(crate) async fn start(api: &Api, upstreams: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let resolv_conf = directory.path().join("resolv.conf");
        std::fs::write(&resolv_conf, upstreams).unwrap();
        let clock = Clock::system();
        let mut config = DnsConfig::new(vec![DNS.parse::<IpAddr>().unwrap()], "cluster.local", resolv_conf, "node");
        config.workers = 2;
        let spec = tree(config, DnsDeps { connect: api.connect(), clock: clock.clone() }).await.unwrap().spec;
        let system = System::new(clock);
        let tree = system.start(spec);
        tree.ready().await.unwrap();
        Self { system, tree, directory }
    }

    /// Stops it, and waits for that.
    pub(crate) async fn stop(self) {
        self.tree.stop();
        self.tree.ended().await;
    }

    /// A resolv.conf for clients, as pods have it.
    pub(crate) fn client_conf(&self, options: &str) -> String {
        let path = self.directory.path().join("client.conf");
        let text = format!(
            "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver {DNS}\noptions {options}\n"
        );
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    }
}

/// What `dig +short` says.
pub(crate) async fn dig(args: &[&str]) -> String {
    let server = format!("@{DNS}");
    let mut all = vec![server.as_str(), "+short", "+time=6", "+tries=1"];
    all.extend(args);
    let mut lines: Vec<String> = output("dig", &all).await.1.lines().map(str::to_owned).collect();
    lines.sort();
    lines.join(" ")
}

/// What `dig` says in full.
pub(crate) async fn dig_all(args: &[&str]) -> String {
    let server = format!("@{DNS}");
    let mut all = vec![server.as_str(), "+time=6", "+tries=1"];
    all.extend(args);
    output("dig", &all).await.1
}

/// Waits until something is so.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let wait = async {
        while !holds().await {
            // A process has just run; this is no busy loop.
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, wait).await.is_ok(), "never: {what}");
}
