//! The daemon under measurement, and what it costs.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chaos_tests::cluster::kubeconfig;
use k3sd_client::api::Connect;
use k3sd_cri::Cri;
use k3sd_runtime::{Clock, Spec, Strategy, System, Tree};
use k8s_openapi::api::core::v1::Node as Object;
use kube::Api;
use kube::api::ListParams;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::Failure;

/// How long a start may take.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often a daemon is asked whether it is ready.
const START_LOOK: Duration = Duration::from_millis(5);
/// Where it writes how to reach its API, in the mount namespace of the job.
const ADMIN: &str = "/etc/rancher/k3s/k3s.yaml";
/// Where the API is, in the network namespace of the job.
const API: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 6443);
/// Where its containerd is, in the mount namespace of the job.
pub(crate) const CONTAINERD: &str = "/run/k3s/containerd/containerd.sock";

/// Leaves out what comes on top of a server and its node.
const PLAIN: [&str; 2] = ["--disable=coredns,servicelb,local-storage,metrics-server", "--disable-kube-proxy"];

/// Linux tells times in hundredths of a second.
const MILLIS_PER_TICK: f64 = 10.0;
const KIB_PER_MIB: f64 = 1024.0;

/// What of a daemon is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A server that is a node as well, with the service proxy and all packaged components.
    Everything,
    /// A server that is a node as well, and nothing beside them.
    Whole,
    /// Without a node.
    Server,
}

/// How a daemon is started.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) binary: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) cgroup: String,
}

/// A running daemon. Whoever drops it has to be the namespace's first process, whose end takes all with it.
pub(crate) struct Node {
    child: Child,
    /// Keeps the connection to its API.
    _link: Tree,
    pub(crate) connect: Connect,
    /// From the start of the process until the node is ready, or the API answers where there is no node.
    pub(crate) took: Duration,
}

/// What a process has taken so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    at: Instant,
    cpu_ms: f64,
    /// How often a thread of it went to sleep, which is as often as one was woken.
    sleeps: u64,
}

impl Cost {
    /// Of the time between two looks: percent of a core, and sleeps in a second.
    pub(crate) fn between(self, later: Self) -> (f64, f64) {
        let span = later.at.duration_since(self.at);
        let percent = self.cpu_ms_until(later) / (span.as_secs_f64() * 1e3) * 100.0;
        (percent, later.sleeps.saturating_sub(self.sleeps) as f64 / span.as_secs_f64())
    }

    /// Processor time between two looks.
    pub(crate) fn cpu_ms_until(self, later: Self) -> f64 {
        later.cpu_ms - self.cpu_ms
    }
}

impl Start {
    /// Starts a daemon, and waits until it is ready.
    pub(crate) async fn run(&self, part: Part) -> Result<Node, Failure> {
        let admin = PathBuf::from(ADMIN);
        // What an earlier one has written would be taken for this one's.
        fs::remove_file(&admin).ok();
        let log = fs::File::create(self.directory.join("log"))?;
        let mut command = Command::new(&self.binary);
        command.arg("server").arg("--data-dir").arg(self.directory.join("data"));
        command.arg(format!("--kubelet-arg=cgroup-root=/{}", self.cgroup));
        // How full the disk of the machine is, is not what is measured.
        command.arg("--kubelet-arg=eviction-hard=nodefs.available<1%");
        if part != Part::Everything {
            command.args(PLAIN);
        }
        if part == Part::Server {
            command.arg("--disable-agent");
        }
        let begun = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut look = || -> Result<(), Failure> {
            let ended = child.try_wait()?;
            if ended.is_some() || begun.elapsed() > START_LIMIT {
                return Err(format!("not ready, {ended:?}: {}", self.says()).into());
            }
            Ok(())
        };
        while !admin.exists() || TcpStream::connect(API).is_err() {
            look()?;
            tokio::time::sleep(START_LOOK).await;
        }
        let (link, connect) = kubeconfig::connect("link", &admin)?;
        let link = System::new(Clock::system()).start(Spec::new(Strategy::OneForOne).child(link));
        let nodes: Api<Object> = Api::all(connect.client());
        loop {
            let found = nodes.list(&ListParams::default()).await;
            if found.is_ok_and(|found| part == Part::Server || found.items.iter().any(is_ready)) {
                break;
            }
            look()?;
            tokio::time::sleep(START_LOOK).await;
        }
        Ok(Node { child, _link: link, connect, took: begun.elapsed() })
    }

    /// What the daemon has logged.
    pub(crate) fn says(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

fn is_ready(node: &Object) -> bool {
    let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

impl Node {
    /// Asks it to end, and waits until it has. Its containerd goes on.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }

    /// What it has taken so far; what runs in other processes is not counted.
    pub(crate) fn cost(&self) -> Result<Cost, Failure> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let stat = fs::read_to_string(process.join("stat"))?;
        // Behind the name, which may hold anything, fields 12 and 13 are ticks as a user and in the kernel.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u32 = fields.skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
        let mut sleeps = 0;
        for thread in fs::read_dir(process.join("task"))?.flatten() {
            // A thread that has ended meanwhile has nothing to tell.
            sleeps += field(&thread.path(), "voluntary_ctxt_switches:").unwrap_or(0);
        }
        Ok(Cost { at: Instant::now(), cpu_ms: f64::from(ticks) * MILLIS_PER_TICK, sleeps })
    }

    /// Its resident memory in MiB: all of it, and that which is not a mapped file.
    pub(crate) fn resident_mib(&self) -> Result<(f64, f64), Failure> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let mib = |name| Ok::<_, Failure>(field(&process, name)? as f64 / KIB_PER_MIB);
        Ok((mib("VmRSS:")?, mib("RssAnon:")?))
    }
}

/// A number of a process's or a thread's status.
fn field(process: &Path, name: &str) -> Result<u64, Failure> {
    let status = fs::read_to_string(process.join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("the kernel tells")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The way to the node's containerd.
pub(crate) fn cri() -> Cri {
    Cri::new(CONTAINERD)
}

/// Ends the containerd that a daemon has left behind, as the machine's own end would.
pub(crate) fn end_containerd() -> Result<(), Failure> {
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| OsStr::new(name.trim_end()) == "containerd") {
            kill_process(pid, Signal::KILL)?;
            // Its parent has ended, so that it is a child of the first process, which this is.
            waitpid(Some(pid), WaitOptions::empty())?;
        }
    }
    Ok(())
}
