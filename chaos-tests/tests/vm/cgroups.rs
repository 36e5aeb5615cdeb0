//! Cgroups v2 with all controllers: what pods may take is what the kernel holds them to, under both drivers, and what they
//! take is told.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::guest::{Guest, NODE, Said};

/// One of each class. One of them works all the time, so that it has something to show.
const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: guaranteed}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: IMAGE
    command: [sleep, '100000']
    resources: {limits: {cpu: 200m, memory: 64Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: burstable}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: IMAGE
    command: [sh, -c, 'head -c 8000000 /dev/zero >/memory/file; while :; do :; done']
    volumeMounts: [{name: memory, mountPath: /memory}]
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 300m, memory: 128Mi}}
  volumes:
  - {name: memory, emptyDir: {medium: Memory}}
---
apiVersion: v1
kind: Pod
metadata: {name: besteffort}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: IMAGE, command: [sleep, '100000']}
";
/// Takes memory until it gets no more.
const GREEDY: &str = "
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: IMAGE
    command: [tail, /dev/zero]
    resources: {limits: {memory: 32Mi}}
";
const NAMES: [&str; 3] = ["guaranteed", "burstable", "besteffort"];
/// How many processes a pod may have.
const PIDS: u64 = 300;

/// Where cgroups of pods are, as each driver names them.
struct Names {
    is_systemd: bool,
}

impl Names {
    /// A class's, which for guaranteed pods is that of all.
    fn class(&self, class: &str) -> String {
        match (self.is_systemd, class) {
            (true, "guaranteed") => "/sys/fs/cgroup/kubepods.slice".to_owned(),
            (true, class) => format!("/sys/fs/cgroup/kubepods.slice/kubepods-{class}.slice"),
            (false, "guaranteed") => "/sys/fs/cgroup/kubepods".to_owned(),
            (false, class) => format!("/sys/fs/cgroup/kubepods/{class}"),
        }
    }

    fn pod(&self, class: &str, pod: &Value) -> String {
        let uid = pod["metadata"]["uid"].as_str().expect("a uid");
        let part = if class == "guaranteed" { String::new() } else { format!("-{class}") };
        if self.is_systemd {
            format!("{}/kubepods{part}-pod{}.slice", self.class(class), uid.replace('-', "_"))
        } else {
            format!("{}/pod{uid}", self.class(class))
        }
    }

    fn container(&self, class: &str, pod: &Value) -> String {
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().expect("it runs");
        let id = id.trim_start_matches("containerd://");
        let name = if self.is_systemd { format!("cri-containerd-{id}.scope") } else { id.to_owned() };
        format!("{}/{name}", self.pod(class, pod))
    }
}

pub(crate) fn cgroups(driver: &str) {
    let Some(guest) = Guest::boot() else { return };
    let controllers = guest.told("cat /sys/fs/cgroup/cgroup.controllers");
    for wanted in ["cpuset", "cpu", "io", "memory", "pids"] {
        assert!(controllers.split_whitespace().any(|name| name == wanted), "{wanted}: {controllers}");
    }
    guest.install(&format!("server --kubelet-arg=cgroup-driver={driver} --kubelet-arg=pod-max-pids={PIDS}"));
    guest.node_ready();
    let names = Names { is_systemd: driver == "systemd" };
    guest.apply(PODS);
    let pods: BTreeMap<&str, Value> = NAMES.map(|name| (name, guest.ready(name))).into();

    limits(&guest, &names, &pods);
    // Whoever looks after units reads them again when asked to, and forgets nobody's limits over that.
    guest.told("systemctl daemon-reload");
    limits(&guest, &names, &pods);
    let path = names.container("burstable", &pods["burstable"]);
    let inside = guest.told(&format!("cat /proc/$(head -n 1 {path}/cgroup.procs)/cgroup"));
    assert_eq!(format!("/sys/fs/cgroup{}", inside.trim().trim_start_matches("0::")), path);

    killed(&guest);
    resized(&guest, &names, &pods["guaranteed"]);
    told(&guest);
    guest.told("systemctl restart k3s");
    guest.node_ready();
    guest.delete_pods(&[&NAMES[..], &["greedy"]].concat());
    let left = "find /sys/fs/cgroup -name '*pod[0-9a-f]*' -path '*kubepods*'; \
        systemctl list-units --all --plain --no-legend '*kubepods*pod*' 'cri-containerd*'";
    guest.until("nothing is left of them", left, |said| said.code == 0 && said.out.is_empty());
    guest.told("k3s-uninstall.sh");
    let left = "find /sys/fs/cgroup -name '*kubepods*'; systemctl list-units --all --plain --no-legend '*kubepods*'";
    assert_eq!(guest.told(left), "", "nothing is left of all pods");
}

/// What requests and limits say, in the kernel's words.
fn limits(guest: &Guest, names: &Names, pods: &BTreeMap<&str, Value>) {
    let (mebi, none) = (1 << 20, "max".to_owned());
    for (name, weight, cpu, memory) in [
        ("guaranteed", weight(204), "20000 100000", (64 * mebi).to_string()),
        ("burstable", weight(102), "30000 100000", (128 * mebi).to_string()),
        ("besteffort", weight(2), "max 100000", none),
    ] {
        let pod = names.pod(name, &pods[name]);
        let container = names.container(name, &pods[name]);
        for path in [&pod, &container] {
            expect(guest, path, "cpu.weight", &weight.to_string());
            expect(guest, path, "cpu.max", cpu);
            expect(guest, path, "memory.max", &memory);
        }
        expect(guest, &pod, "pids.max", &PIDS.to_string());
    }
    // By what the burstable request together, and two CPUs for all.
    for (class, weight) in [("guaranteed", weight(2048)), ("burstable", weight(102)), ("besteffort", weight(2))] {
        expect(guest, &names.class(class), "cpu.weight", &weight.to_string());
    }
    let allocatable = guest.get(&["node", NODE])["status"]["allocatable"]["memory"].clone();
    let kibi: u64 = allocatable.as_str().and_then(|text| text.strip_suffix("Ki")?.parse().ok()).expect("in Ki");
    let all = guest.told(&format!("cat {}/memory.max", names.class("guaranteed")));
    let all: u64 = all.trim().parse().unwrap_or_else(|_| panic!("all pods together may take {all}"));
    assert!(all >= kibi << 10 && all < 4096 << 20, "{all} bytes for all pods, of {kibi} Ki");
}

/// The kernel's weight of so many shares, by the formula that everybody uses.
fn weight(shares: u64) -> u64 {
    1 + (shares - 2) * 9999 / 262_142
}

fn expect(guest: &Guest, path: &str, file: &str, wanted: &str) {
    let found = guest.told(&format!("cat {path}/{file}"));
    assert_eq!(found.trim(), wanted, "{path}/{file}");
}

/// Who takes more than it may is killed, and it is said why.
fn killed(guest: &Guest) {
    guest.apply(GREEDY);
    let has_ended = |pod: &Value| pod["status"]["phase"] == "Failed";
    let pod = guest.wait("it is killed", &["pod", "greedy"], has_ended);
    let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&end["reason"], &end["exitCode"]), (&json!("OOMKilled"), &json!(137)), "{pod:#}");
}

/// More CPU for a container that runs.
fn resized(guest: &Guest, names: &Names, pod: &Value) {
    let life = guest.life("guaranteed");
    let amounts = json!({ "cpu": "400m", "memory": "96Mi" });
    let resources = json!({ "requests": amounts, "limits": amounts });
    let patch = json!({ "spec": { "containers": [{ "name": "c", "resources": resources }] } }).to_string();
    guest.asked(&["patch", "pod", "guaranteed", "--subresource=resize", "-p", &patch]);
    let (pod, container) = (names.pod("guaranteed", pod), names.container("guaranteed", pod));
    for (path, file, wanted) in [
        (&container, "cpu.max", "40000 100000"),
        (&container, "memory.max", "100663296"),
        (&pod, "cpu.max", "40000 100000"),
        (&pod, "memory.max", "100663296"),
    ] {
        let is_so = |said: &Said| said.out.trim() == wanted;
        guest.until(&format!("{file} is {wanted}"), &format!("cat {path}/{file}"), is_so);
    }
    let is_told = |pod: &Value| pod["status"]["containerStatuses"][0]["resources"]["limits"] == amounts;
    guest.wait("its status says so", &["pod", "guaranteed"], is_told);
    assert_eq!(guest.life("guaranteed"), life, "nothing was started again");
    expect(guest, &container, "cpu.weight", &weight(409).to_string());
}

/// What pods take is known to those who ask.
fn told(guest: &Guest) {
    let raw = |path: &str| format!("/api/v1/nodes/{NODE}/proxy/{path}");
    let summary = guest.asked(&["get", "--raw", &raw("stats/summary")]);
    let summary: Value = serde_json::from_str(&summary).expect("JSON");
    let pods = summary["pods"].as_array().expect("a list");
    let pod = pods.iter().find(|pod| pod["podRef"]["name"] == "burstable").expect("it is in the list");
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    for (what, of) in [("pod", pod), ("container", &pod["containers"][0]), ("node", &summary["node"])] {
        // What it has written is in memory.
        assert!(number(&of["memory"]["workingSetBytes"]) >= 8_000_000, "{what}: {of:#}");
        assert!(number(&of["cpu"]["usageCoreNanoSeconds"]) > 100_000_000, "{what}: {of:#}");
    }
    let metrics = guest.asked(&["get", "--raw", &raw("metrics/cadvisor")]);
    for name in ["container_memory_working_set_bytes", "container_cpu_usage_seconds_total"] {
        let rows = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        let own = rows.filter(|line| line.contains("pod=\"burstable\"") && line.contains("container=\"c\""));
        let values: Vec<f64> =
            own.filter_map(|line| line.split("} ").nth(1)?.split(' ').next()?.parse().ok()).collect();
        assert!(values.len() == 1 && values[0] > 0.0, "{name}: {values:?}");
    }
    let top = |words: &[&str], name: &str| {
        let said = guest.kubectl(&[&["top"], words, &["--no-headers"]].concat());
        let row = said.out.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        let mut words = row.split_whitespace().skip(1);
        let milli = words.next().and_then(|word| word.strip_suffix('m')?.parse::<u64>().ok());
        milli.is_some_and(|milli| milli > 50) && words.any(|word| word.ends_with("Mi"))
    };
    for (words, name) in [(&["pods"][..], "burstable"), (&["nodes"], NODE)] {
        let began = std::time::Instant::now();
        while !top(words, name) {
            assert!(began.elapsed() < crate::guest::PATIENCE, "{:?}", guest.kubectl(&[&["top"], words].concat()));
            std::thread::sleep(crate::guest::PAUSE);
        }
    }
}
