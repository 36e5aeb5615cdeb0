//! The figures as Prometheus reads them, under the names that dashboards and the metrics server rely on: pure.

mod disks;

use std::collections::BTreeMap;

use k3sd_cri::v1;
use k3sd_kubelet_base::PodView;
use k3sd_kubelet_base::stats::{ContainerStats, FsStats, PodStats, Summary};
use k3sd_kubelet_cgroups::CgroupStats;
use k3sd_runtime::exposition::{head, line};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::measure::Snapshot;
use super::summary::running;

/// A value between quotes.
fn quoted(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are floating")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn pod_labels(pod: &PodStats) -> String {
    format!("namespace=\"{}\",pod=\"{}\"", quoted(&pod.pod_ref.namespace), quoted(&pod.pod_ref.name))
}

fn container_labels(pod: &PodStats, container: &ContainerStats) -> String {
    format!("container=\"{}\",{}", quoted(&container.name), pod_labels(pod))
}

/// Milliseconds since 1970, behind a value.
fn stamp(value: impl std::fmt::Display, time: Option<&Time>) -> String {
    time.map_or_else(|| value.to_string(), |time| format!("{value} {}", time.0.as_millisecond()))
}

/// One row of a metric: its labels and what stands behind them.
type Row = (String, String);

fn metric(text: &mut String, name: &str, kind: &str, help: &str, rows: impl IntoIterator<Item = Row>) {
    let mut rows = rows.into_iter().peekable();
    if rows.peek().is_none() {
        return;
    }
    head(text, name, kind, help);
    for (labels, value) in rows {
        line(text, name, &labels, value);
    }
}

/// `/metrics/resource`.
pub(super) fn resource(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let (node, pods) = (&snapshot.summary.node, &snapshot.summary.pods);
    let containers = || pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)));
    let cpu = |labels: String, cpu: Option<&k3sd_kubelet_base::stats::CpuStats>| {
        let cpu = cpu?;
        Some((labels, stamp(seconds(cpu.usage_core_nano_seconds?), cpu.time.as_ref())))
    };
    let memory = |labels: String, memory: Option<&k3sd_kubelet_base::stats::MemoryStats>| {
        let memory = memory?;
        Some((labels, stamp(memory.working_set_bytes?, memory.time.as_ref())))
    };
    metric(
        &mut text,
        "container_cpu_usage_seconds_total",
        "counter",
        "Processor time of the container, in seconds.",
        containers().filter_map(|(pod, one)| cpu(container_labels(pod, one), one.cpu.as_ref())),
    );
    metric(
        &mut text,
        "container_memory_working_set_bytes",
        "gauge",
        "Working set of the container, in bytes.",
        containers().filter_map(|(pod, one)| memory(container_labels(pod, one), one.memory.as_ref())),
    );
    metric(
        &mut text,
        "container_start_time_seconds",
        "gauge",
        "When the container was started, in seconds since 1970.",
        containers().filter_map(|(pod, one)| {
            Some((container_labels(pod, one), one.start_time.as_ref()?.0.as_second().to_string()))
        }),
    );
    metric(
        &mut text,
        "node_cpu_usage_seconds_total",
        "counter",
        "Processor time of the node, in seconds.",
        cpu(String::new(), node.cpu.as_ref()),
    );
    metric(
        &mut text,
        "node_memory_working_set_bytes",
        "gauge",
        "Working set of the node, in bytes.",
        memory(String::new(), node.memory.as_ref()),
    );
    metric(
        &mut text,
        "node_swap_usage_bytes",
        "gauge",
        "Swap in use on the node, in bytes.",
        node.swap.as_ref().and_then(|swap| Some((String::new(), stamp(swap.swap_usage_bytes?, swap.time.as_ref())))),
    );
    metric(
        &mut text,
        "pod_cpu_usage_seconds_total",
        "counter",
        "Processor time of the pod, in seconds.",
        pods.iter().filter_map(|pod| cpu(pod_labels(pod), pod.cpu.as_ref())),
    );
    metric(
        &mut text,
        "pod_memory_working_set_bytes",
        "gauge",
        "Working set of the pod, in bytes.",
        pods.iter().filter_map(|pod| memory(pod_labels(pod), pod.memory.as_ref())),
    );
    metric(
        &mut text,
        "pod_swap_usage_bytes",
        "gauge",
        "Swap in use by the pod, in bytes.",
        pods.iter().filter_map(|pod| {
            let swap = pod.swap.as_ref()?;
            Some((pod_labels(pod), stamp(swap.swap_usage_bytes?, swap.time.as_ref())))
        }),
    );
    head(&mut text, "resource_scrape_error", "gauge", "1 if something could not be measured, 0 otherwise.");
    line(&mut text, "resource_scrape_error", "", 0);
    text
}

/// Something with figures of its own in cAdvisor's text: a pod's cgroup, or a container.
#[derive(Default)]
struct Subject {
    labels: String,
    cpu_ns: Option<u64>,
    usage: Option<u64>,
    working_set: Option<u64>,
    rss: Option<u64>,
    faults: Option<u64>,
    major_faults: Option<u64>,
    layer: Option<u64>,
    started: Option<i64>,
    cgroup: Option<CgroupStats>,
    time: Option<Time>,
    limits: Option<(Option<u64>, Option<i64>)>,
    /// What it asked for, in thousandths of a CPU.
    requested_milli: Option<i64>,
    /// The size of the file system of its layer, in bytes.
    layer_max: Option<u64>,
}

fn identity(container: &str, id: &str, image: &str, name: &str, pod: &PodStats) -> String {
    format!(
        "container=\"{}\",id=\"{}\",image=\"{}\",name=\"{}\",{}",
        quoted(container),
        quoted(id),
        quoted(image),
        quoted(name),
        pod_labels(pod)
    )
}

/// A cgroup that is of no pod.
fn of_no_pod(id: &str) -> String {
    identity("", id, "", "", &PodStats::default())
}

/// The machine, and all pods together.
fn wholes(snapshot: &Snapshot) -> Vec<Subject> {
    let node = &snapshot.summary.node;
    let machine = ContainerStats { cpu: node.cpu.clone(), memory: node.memory.clone(), ..ContainerStats::default() };
    let mut all = vec![Subject { labels: of_no_pod("/"), ..of_container(&machine) }];
    if let (Some(stats), Some(path)) = (snapshot.all_pods, &snapshot.all_pods_cgroup) {
        let time = node.cpu.as_ref().and_then(|cpu| cpu.time.clone());
        let labels = of_no_pod(&format!("/{}", path.display()));
        all.push(Subject { labels, time, ..of_cgroup(stats) });
    }
    all
}

fn of_cgroup(stats: CgroupStats) -> Subject {
    Subject {
        cpu_ns: stats.cpu_usage_ns,
        usage: stats.memory_usage,
        working_set: stats.memory_working_set,
        rss: stats.memory_rss,
        faults: stats.page_faults,
        major_faults: stats.major_page_faults,
        cgroup: Some(stats),
        ..Subject::default()
    }
}

/// Bytes of memory and thousandths of a CPU that a container may have, or asks for.
fn container_amounts(view: &PodView, name: &str, limits: bool) -> (Option<u64>, Option<i64>) {
    let spec = view.pod.spec.iter();
    let mut all = spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let resources = all.find(|one| one.name == name).and_then(|one| one.resources.as_ref());
    let amounts = resources.and_then(|all| if limits { all.limits.as_ref() } else { all.requests.as_ref() });
    let quantity = |resource: &str| {
        let text = &amounts?.get(resource)?.0;
        text.parse::<k3sd_objects::quantity::Quantity>().ok()
    };
    let memory = quantity("memory").and_then(|amount| u64::try_from(amount.value()).ok());
    (memory, quantity("cpu").map(|amount| amount.milli_value()))
}

fn subjects(snapshot: &Snapshot) -> Vec<Subject> {
    let mut all = wholes(snapshot);
    for pod in &snapshot.summary.pods {
        let Some(view) = snapshot.pods.pods.get(&pod.pod_ref.uid) else { continue };
        let cgroup = view.cgroup.as_ref().map(|path| format!("/{}", path.display())).unwrap_or_default();
        if let Some(stats) = snapshot.cgroups.get(&pod.pod_ref.uid) {
            all.push(Subject {
                labels: identity("", &cgroup, "", "", pod),
                started: pod.start_time.as_ref().map(|time| time.0.as_second()),
                time: pod.cpu.as_ref().and_then(|cpu| cpu.time.clone()),
                ..of_cgroup(*stats)
            });
        }
        for container in running(view) {
            let found = snapshot.containers.get(&container.id);
            let Some(own) = pod.containers.iter().find(|one| one.name == container.name) else { continue };
            let id = format!("{cgroup}/{}", container.id);
            all.push(Subject {
                labels: identity(&container.name, &id, &container.image, &container.id, pod),
                layer: found.and_then(|found| value(found.writable_layer.as_ref()?.used_bytes.as_ref())),
                cgroup: snapshot.cgroups.get(&container.id).copied(),
                limits: Some(container_amounts(view, &container.name, true)),
                requested_milli: container_amounts(view, &container.name, false).1,
                ..of_container(own)
            });
        }
    }
    all
}

fn value(found: Option<&v1::UInt64Value>) -> Option<u64> {
    found.map(|found| found.value)
}

fn of_container(own: &ContainerStats) -> Subject {
    let memory = own.memory.clone().unwrap_or_default();
    Subject {
        layer_max: own.rootfs.as_ref().and_then(|fs| fs.capacity_bytes),
        cpu_ns: own.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds),
        usage: memory.usage_bytes,
        working_set: memory.working_set_bytes,
        rss: memory.rss_bytes,
        faults: memory.page_faults,
        major_faults: memory.major_page_faults,
        started: own.start_time.as_ref().map(|time| time.0.as_second()),
        time: own.cpu.as_ref().and_then(|cpu| cpu.time.clone()),
        ..Subject::default()
    }
}

/// What a metric of cAdvisor's says of a subject.
type Column = fn(&Subject) -> Option<String>;

/// Names, kinds, helps and values.
const COLUMNS: &[(&str, &str, &str, Column)] = &[
    ("container_cpu_usage_seconds_total", "counter", "Processor time, in seconds.", |one| {
        one.cpu_ns.map(|ns| seconds(ns).to_string())
    }),
    ("container_cpu_user_seconds_total", "counter", "Of it in user mode, in seconds.", |one| {
        one.cgroup?.cpu_user_ns.map(|ns| seconds(ns).to_string())
    }),
    ("container_cpu_system_seconds_total", "counter", "Of it in the kernel, in seconds.", |one| {
        one.cgroup?.cpu_system_ns.map(|ns| seconds(ns).to_string())
    }),
    ("container_cpu_cfs_periods_total", "counter", "Periods with a quota.", |one| text(one.cgroup?.cpu_periods)),
    ("container_cpu_cfs_throttled_periods_total", "counter", "Of them those in which it was spent.", |one| {
        text(one.cgroup?.cpu_throttled_periods)
    }),
    (
        "container_cpu_cfs_throttled_seconds_total",
        "counter",
        "Time spent waiting for the next one, in seconds.",
        |one| one.cgroup?.cpu_throttled_ns.map(|ns| seconds(ns).to_string()),
    ),
    ("container_memory_usage_bytes", "gauge", "Memory in use, caches too, in bytes.", |one| text(one.usage)),
    ("container_memory_working_set_bytes", "gauge", "Working set, in bytes.", |one| text(one.working_set)),
    ("container_memory_rss", "gauge", "Memory of no file, in bytes.", |one| text(one.rss)),
    ("container_memory_cache", "gauge", "Caches of files, in bytes.", |one| text(one.cgroup?.memory_cache)),
    ("container_memory_mapped_file", "gauge", "Files that are mapped, in bytes.", |one| {
        text(one.cgroup?.memory_mapped_file)
    }),
    ("container_memory_swap", "gauge", "Swap in use, in bytes.", |one| text(one.cgroup?.memory_swap)),
    ("container_memory_max_usage_bytes", "gauge", "The most memory ever in use, in bytes.", |one| {
        text(one.cgroup?.memory_peak)
    }),
    ("container_memory_failcnt", "counter", "How often the limit of memory was met.", |one| {
        text(one.cgroup?.memory_limit_hits)
    }),
    ("container_threads", "gauge", "Threads.", |one| text(one.cgroup?.pids)),
    ("container_last_seen", "gauge", "When it was measured, in seconds since 1970.", |one| {
        text(one.time.as_ref().map(|time| time.0.as_second()))
    }),
    ("container_spec_cpu_shares", "gauge", "Share of processors, 1024 for a whole one.", |one| {
        one.limits
            .map(|_| one.requested_milli.map_or(2, |milli| (milli.saturating_mul(1024) / 1000).max(2)).to_string())
    }),
    ("container_processes", "gauge", "Processes and threads.", |one| text(one.cgroup?.pids)),
    ("container_oom_events_total", "counter", "Kills for want of memory.", |one| text(one.cgroup?.oom_kills)),
    ("container_spec_memory_limit_bytes", "gauge", "Limit of memory, in bytes; 0 for none.", |one| {
        one.limits.map(|(memory, _)| memory.unwrap_or(0).to_string())
    }),
    ("container_spec_cpu_period", "gauge", "Period of the quota, in microseconds.", |one| {
        one.limits.map(|_| "100000".to_owned())
    }),
    ("container_spec_cpu_quota", "gauge", "Quota of a period, in microseconds.", |one| {
        one.limits?.1.map(|milli| milli.saturating_mul(100).to_string())
    }),
    ("container_start_time_seconds", "gauge", "When it was started, in seconds since 1970.", |one| text(one.started)),
];

fn text(number: Option<impl std::fmt::Display>) -> Option<String> {
    number.map(|number| number.to_string())
}

/// `/metrics/cadvisor`.
pub(super) fn cadvisor(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let all = subjects(snapshot);
    for (name, kind, help, column) in COLUMNS {
        let rows = all.iter().filter_map(|one| Some((one.labels.clone(), stamp(column(one)?, one.time.as_ref()))));
        metric(&mut text, name, kind, help, rows);
    }
    disks::write(&mut text, &all, snapshot);
    faults(&mut text, &all);
    network(&mut text, snapshot);
    machine(&mut text, snapshot);
    text
}

fn faults(text: &mut String, all: &[Subject]) {
    let row = |one: &Subject, kind: &str, count: Option<u64>| {
        let labels = format!("failure_type=\"{kind}\",{},scope=\"hierarchy\"", one.labels);
        Some((labels, stamp(count?, one.time.as_ref())))
    };
    let rows = all.iter().flat_map(|one| [row(one, "pgfault", one.faults), row(one, "pgmajfault", one.major_faults)]);
    metric(text, "container_memory_failures_total", "counter", "Page faults.", rows.flatten().collect::<Vec<_>>());
}

/// Networks belong to pods.
fn network(text: &mut String, snapshot: &Snapshot) {
    type Of = fn(&k3sd_kubelet_base::stats::InterfaceStats) -> Option<u64>;
    let columns: [(&str, &str, Of); 8] = [
        ("container_network_receive_bytes_total", "Bytes received.", |one| one.rx_bytes),
        ("container_network_receive_errors_total", "Errors while receiving.", |one| one.rx_errors),
        ("container_network_receive_packets_total", "Packets received.", |one| one.rx_packets[0]),
        ("container_network_receive_packets_dropped_total", "Of them dropped.", |one| one.rx_packets[1]),
        ("container_network_transmit_bytes_total", "Bytes sent.", |one| one.tx_bytes),
        ("container_network_transmit_errors_total", "Errors while sending.", |one| one.tx_errors),
        ("container_network_transmit_packets_total", "Packets sent.", |one| one.tx_packets[0]),
        ("container_network_transmit_packets_dropped_total", "Packets dropped instead.", |one| one.tx_packets[1]),
    ];
    let of_pods = snapshot.summary.pods.iter().filter_map(|pod| {
        let view = snapshot.pods.pods.get(&pod.pod_ref.uid)?;
        let cgroup = view.cgroup.as_ref().map(|path| format!("/{}", path.display())).unwrap_or_default();
        let labels = identity("", &cgroup, "", view.sandbox.as_deref().unwrap_or_default(), pod);
        Some((labels, pod.network.as_ref()?))
    });
    let of_machine = snapshot.summary.node.network.iter().map(|network| (of_no_pod("/"), network));
    let all: Vec<_> = of_machine.chain(of_pods).collect();
    for (name, help, of) in columns {
        let mut rows = Vec::new();
        for (labels, network) in &all {
            for interface in &network.interfaces {
                let labels = format!("interface=\"{}\",{labels}", quoted(&interface.name));
                rows.extend(of(interface).map(|count| (labels, stamp(count, network.time.as_ref()))));
            }
        }
        metric(text, name, "counter", help, rows);
    }
}

fn machine(text: &mut String, snapshot: &Snapshot) {
    let node = &snapshot.summary.node;
    let memory = node.memory.as_ref().and_then(|memory| Some(memory.available_bytes? + memory.working_set_bytes?));
    let row = |value: Option<u64>| value.map(|value| (String::new(), value.to_string()));
    metric(text, "machine_memory_bytes", "gauge", "Memory of the machine, in bytes.", row(memory));
    metric(text, "machine_cpu_cores", "gauge", "Processors of the machine.", row(snapshot.cpus));
    let swap = node.swap.as_ref();
    let swap = swap.and_then(|swap| Some(swap.swap_available_bytes? + swap.swap_usage_bytes?));
    metric(text, "machine_swap_bytes", "gauge", "Swap of the machine, in bytes.", row(swap));
    metric(text, "container_scrape_error", "gauge", "1 if something could not be measured, 0 otherwise.", row(Some(0)));
}

/// What `/metrics` says of volumes: each claim once, however many pods use it.
pub(super) fn volumes(summary: &Summary) -> String {
    type Of = fn(&FsStats) -> Option<u64>;
    let columns: [(&str, &str, Of); 6] = [
        ("kubelet_volume_stats_available_bytes", "Free, in bytes.", |fs| fs.available_bytes),
        ("kubelet_volume_stats_capacity_bytes", "Size, in bytes.", |fs| fs.capacity_bytes),
        ("kubelet_volume_stats_inodes", "Files that fit.", |fs| fs.inodes),
        ("kubelet_volume_stats_inodes_free", "Files that can still be made.", |fs| fs.inodes_free),
        ("kubelet_volume_stats_inodes_used", "Files.", |fs| fs.inodes_used),
        ("kubelet_volume_stats_used_bytes", "In use, in bytes.", |fs| fs.used_bytes),
    ];
    let mut claims = BTreeMap::new();
    for volume in summary.pods.iter().flat_map(|pod| &pod.volumes) {
        let Some(claim) = &volume.claim else { continue };
        let labels =
            format!("namespace=\"{}\",persistentvolumeclaim=\"{}\"", quoted(&claim.namespace), quoted(&claim.name));
        claims.entry(labels).or_insert(&volume.fs);
    }
    let mut text = String::new();
    for (name, help, of) in columns {
        let rows = claims.iter().filter_map(|(labels, fs)| Some((labels.clone(), of(fs)?.to_string())));
        metric(&mut text, name, "gauge", help, rows);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k3sd_kubelet_base::stats::{
        ClaimReference, CpuStats, MemoryStats, NetworkStats, NodeStats, PodReference, VolumeStats,
    };
    use k3sd_kubelet_base::{ContainerState, ContainerView, PodsSnapshot};

    use super::*;

    fn at(second: i64) -> Time {
        Time(jiff::Timestamp::from_second(second).unwrap())
    }

    pub(crate) fn snapshot() -> Snapshot {
        let cpu = |ns| CpuStats { time: Some(at(7)), usage_core_nano_seconds: Some(ns), ..CpuStats::default() };
        let memory =
            |bytes| MemoryStats { time: Some(at(7)), working_set_bytes: Some(bytes), ..MemoryStats::default() };
        let container = ContainerStats {
            name: "c".to_owned(),
            start_time: Some(at(3)),
            cpu: Some(cpu(1_500_000_000)),
            memory: Some(memory(10)),
            ..ContainerStats::default()
        };
        let reference = PodReference { name: "p".to_owned(), namespace: "n".to_owned(), uid: "u".to_owned() };
        let interface = k3sd_kubelet_base::stats::InterfaceStats {
            name: "eth0".to_owned(),
            rx_bytes: Some(5),
            ..Default::default()
        };
        let network = NetworkStats { time: Some(at(7)), main: interface.clone(), interfaces: vec![interface] };
        let pod = PodStats {
            pod_ref: reference,
            containers: vec![container],
            cpu: Some(cpu(2_000_000_000)),
            memory: Some(memory(20)),
            network: Some(network),
            ..PodStats::default()
        };
        let node = NodeStats { cpu: Some(cpu(9_000_000_000)), memory: Some(memory(90)), ..NodeStats::default() };
        let object = serde_json::json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "c", "resources": {"limits": {"cpu": "250m", "memory": "1Ki"}, "requests": {"cpu": "100m"}}},
        ]}});
        let view = PodView {
            pod: Arc::new(serde_json::from_value(object).unwrap()),
            uid: "u".to_owned(),
            sandbox: Some("s".to_owned()),
            addresses: Vec::new(),
            cgroup: Some("kubepods/podu".into()),
            containers: vec![ContainerView {
                name: "c".to_owned(),
                id: "id".to_owned(),
                attempt: 0,
                state: ContainerState::Running,
                log: "/log".into(),
                image: "image".to_owned(),
            }],
        };
        let pods = PodsSnapshot { pods: [("u".to_owned(), Arc::new(view))].into() };
        Snapshot {
            summary: Summary { node, pods: vec![pod] },
            cgroups: [("u".to_owned(), CgroupStats { pids: Some(3), ..CgroupStats::default() })].into(),
            containers: [("id".to_owned(), v1::ContainerStats::default())].into(),
            pods: Arc::new(pods),
            cpus: Some(2),
            ..Snapshot::default()
        }
    }

    #[test]
    fn the_metrics_server_finds_what_it_reads() {
        let text = resource(&snapshot());
        let expected = [
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1.5 7000",
            "container_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\"} 10 7000",
            "container_start_time_seconds{container=\"c\",namespace=\"n\",pod=\"p\"} 3",
            "node_cpu_usage_seconds_total 9 7000",
            "node_memory_working_set_bytes 90 7000",
            "pod_cpu_usage_seconds_total{namespace=\"n\",pod=\"p\"} 2 7000",
            "resource_scrape_error 0",
        ];
        for line in expected {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn dashboards_find_what_they_read() {
        let text = cadvisor(&snapshot());
        let expected = [
            "container_cpu_usage_seconds_total{container=\"c\",id=\"/kubepods/podu/id\",image=\"image\",name=\"id\",namespace=\"n\",pod=\"p\"} 1.5 7000",
            "container_processes{container=\"\",id=\"/kubepods/podu\",image=\"\",name=\"\",namespace=\"n\",pod=\"p\"} 3 7000",
            "container_network_receive_bytes_total{interface=\"eth0\",container=\"\",id=\"/kubepods/podu\",image=\"\",name=\"s\",namespace=\"n\",pod=\"p\"} 5 7000",
            "container_cpu_usage_seconds_total{container=\"\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\"} 9 7000",
            "container_spec_cpu_shares{container=\"c\",id=\"/kubepods/podu/id\",image=\"image\",name=\"id\",namespace=\"n\",pod=\"p\"} 102 7000",
            "container_spec_cpu_quota{container=\"c\",id=\"/kubepods/podu/id\",image=\"image\",name=\"id\",namespace=\"n\",pod=\"p\"} 25000 7000",
            "machine_cpu_cores 2",
        ];
        for line in expected {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_claim_is_told_once() {
        let volume = |claim: Option<&str>, used| VolumeStats {
            fs: FsStats { used_bytes: Some(used), ..FsStats::default() },
            name: "v".to_owned(),
            claim: claim.map(|name| ClaimReference { name: name.to_owned(), namespace: "n".to_owned() }),
            ..VolumeStats::default()
        };
        let pod = |volumes| PodStats { volumes, ..PodStats::default() };
        let pods = vec![pod(vec![volume(Some("c"), 5), volume(None, 6)]), pod(vec![volume(Some("c"), 5)])];
        let text = volumes(&Summary { pods, ..Summary::default() });
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines, ["kubelet_volume_stats_used_bytes{namespace=\"n\",persistentvolumeclaim=\"c\"} 5"]);
        assert_eq!(volumes(&Summary::default()), "");
    }

    #[test]
    fn labels_are_quoted() {
        assert_eq!(quoted("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
