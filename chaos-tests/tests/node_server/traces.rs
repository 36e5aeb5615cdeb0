//! What pods leave on a machine, in every place where something of them can be.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k3sd_cri::v1;

use crate::kubectl::ran;
use crate::machine::Machine;

/// The places in which there is nothing without pods.
const PODS_ALONE: [&str; 8] =
    ["sandboxes", "containers", "cgroups", "network namespaces", "addresses", "volumes", "logs", "links to logs"];

/// By place: what is there, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Traces(BTreeMap<&'static str, Vec<String>>);

impl Traces {
    /// What is there now.
    pub(crate) async fn of(machine: &Machine) -> Self {
        let cri = machine.cri();
        let sandboxes = cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await;
        let sandboxes = match sandboxes {
            Ok(all) => all.items.into_iter().map(|one| one.id).collect(),
            Err(error) => vec![error.to_string()],
        };
        let containers = cri.list_containers(v1::ListContainersRequest::default()).await;
        let containers = match containers {
            Ok(all) => all.containers.into_iter().map(|one| one.id).collect(),
            Err(error) => vec![error.to_string()],
        };
        let address = "/run/k3s/containerd/containerd.sock";
        let places = [
            ("processes", processes(machine)),
            ("mounts", mounts(machine)),
            ("cgroups", cgroups(machine)),
            ("links", lines(machine, &["ip", "-brief", "link"]).await.iter().map(|line| first(line)).collect()),
            ("rules", rules(machine).await),
            ("network namespaces", names(&machine.seen("/run/netns"))),
            ("addresses", addresses(&machine.seen("/var/lib/cni/networks"))),
            ("volumes", names(&machine.seen("/var/lib/kubelet/pods"))),
            ("logs", names(&machine.seen("/var/log/pods"))),
            ("links to logs", names(&machine.seen("/var/log/containers"))),
            ("sandboxes", sandboxes),
            ("containers", containers),
            ("snapshots", lines(machine, &["ctr", "-a", address, "-n", "k8s.io", "snapshots", "list"]).await),
            ("tasks", lines(machine, &["ctr", "-a", address, "-n", "k8s.io", "tasks", "list"]).await),
        ];
        let sorted = |(place, mut found): (&'static str, Vec<String>)| {
            found.sort();
            (place, found)
        };
        Self(places.into_iter().map(sorted).collect())
    }

    /// Waits until there is nothing more and nothing less.
    ///
    /// # Panics
    /// When something stays.
    pub(crate) async fn come_back(&self, machine: &Machine, patience: Duration) -> Duration {
        let began = Instant::now();
        loop {
            let found = Self::of(machine).await;
            if found == *self {
                return began.elapsed();
            }
            assert!(began.elapsed() < patience, "left behind: {:#?}", self.difference(&found));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What of it is a pod's without doubt.
    pub(crate) fn of_pods(&self) -> Vec<String> {
        let lists = PODS_ALONE.iter().map(|place| (*place, self.0[place].clone()));
        let links = self.0["links"].iter().filter(|name| name.starts_with("veth")).cloned().collect();
        let shims = self.0["processes"].iter().filter(|line| line.contains("containerd-shim")).cloned().collect();
        let all = lists.chain([("links", links), ("processes", shims)]);
        all.flat_map(|(place, found)| found.into_iter().map(move |one| format!("{place}: {one}"))).collect()
    }

    /// What is more and what is less in `found`, for people.
    fn difference(&self, found: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (place, wanted) in &self.0 {
            let found = &found.0[place];
            let more = found.iter().filter(|one| !wanted.contains(one)).map(|one| format!("{place}: {one}"));
            let less = wanted.iter().filter(|one| !found.contains(one)).map(|one| format!("{place}: no {one}"));
            differences.extend(more.chain(less));
            if wanted.len() != found.len() {
                differences.push(format!("{place}: {} instead of {}", found.len(), wanted.len()));
            }
        }
        differences
    }
}

fn first(line: &str) -> String {
    line.split([' ', '@']).next().unwrap_or_default().to_owned()
}

async fn lines(machine: &Machine, words: &[&str]) -> Vec<String> {
    let said = ran(machine.command(words)).await;
    said.out.lines().chain(said.err.lines()).map(|line| line.trim().to_owned()).collect()
}

/// The rules of the kernel. Tables that end with a socket have its number in their name.
async fn rules(machine: &Machine) -> Vec<String> {
    let numbered = |line: &String| {
        line.split_once("inet k3sd-proxy-")
            .is_some_and(|(_, name)| name.starts_with(|first: char| first.is_ascii_digit()))
    };
    let mut all = lines(machine, &["nft", "--stateless", "list", "ruleset"]).await;
    all.iter_mut().filter(|line| numbered(line)).for_each(|line| "table of a socket".clone_into(line));
    all
}

fn processes(machine: &Machine) -> Vec<String> {
    // The first one's sleep comes and goes, and so does what the application's scripts start.
    let passes = |line: &str| {
        matches!(line, "sleep 1000" | "sleep 1") || line.starts_with("wget ") || line.contains("/cgi-bin/")
    };
    machine.processes().into_iter().map(|(_, line)| line).filter(|line| !passes(line)).collect()
}

fn mounts(machine: &Machine) -> Vec<String> {
    let text = fs::read_to_string(machine.seen("/proc/1/mounts")).unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect()
}

/// Those of pods: the ones above them stay.
fn cgroups(machine: &Machine) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = machine.hierarchies();
    while let Some(folder) = waiting.pop() {
        let is_pods = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pod"));
        let below = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir());
        let (pods, others): (Vec<PathBuf>, Vec<PathBuf>) = below.partition(|path| is_pods(path));
        found.extend(pods.iter().map(|path| path.display().to_string()));
        waiting.extend(others);
    }
    found
}

fn names(folder: &Path) -> Vec<String> {
    let listed = fs::read_dir(folder).into_iter().flatten().flatten();
    listed.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Those that the network's plugin has given away.
fn addresses(folder: &Path) -> Vec<String> {
    let all = names(folder).into_iter().flat_map(|network| names(&folder.join(network)));
    all.filter(|name| name.parse::<IpAddr>().is_ok()).collect()
}
