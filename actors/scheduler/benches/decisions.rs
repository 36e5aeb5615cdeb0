//! How many decisions a second one thread makes: pods per second into a cluster that fills up.
//!
//! Bar: 2,500 a second plain and 800 with spreading, on 5,000 nodes with 50,000 pods, of which this is only the deciding;
//! what the API needs for each binding comes on top. Run it with `cargo bench -p k3sd-scheduler`.

use std::sync::Arc;

use k3sd_runtime::Rng;
use k3sd_scheduler::config::Profile;
use k3sd_scheduler::decide::{Decision, Turn, decide, prepare};
use k3sd_scheduler::pod::PodInfo;
use k3sd_scheduler::snapshot::Snapshot;
use serde_json::{Value, json};

/// Zones that the nodes are in, by turns.
const ZONES: usize = 3;
/// Pods that belong together, in the cases where they do.
const GROUP_PODS: usize = 100;

/// What the pods of a case are like.
#[derive(Clone, Copy)]
enum Case {
    Plain,
    Spread,
    AntiAffinity,
}

impl Case {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Spread => "topology spread",
            Self::AntiAffinity => "anti-affinity",
        }
    }

    fn pod(self, index: usize) -> Arc<PodInfo> {
        let app = format!("app{}", index / GROUP_PODS);
        let selector = json!({ "matchLabels": { "app": app } });
        let mut spec = json!({
            "containers": [{ "name": "c", "image": "app", "resources": { "requests": { "cpu": "100m", "memory": "64Mi" } } }],
        });
        match self {
            Self::Plain => {}
            Self::Spread => {
                let constraint = |key: &str, skew: i32, when: &str| json!({ "maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": selector });
                spec["topologySpreadConstraints"] = json!([
                    constraint("topology.kubernetes.io/zone", 5, "DoNotSchedule"),
                    constraint("kubernetes.io/hostname", 1, "ScheduleAnyway"),
                ]);
            }
            Self::AntiAffinity => {
                let term = json!({ "topologyKey": "kubernetes.io/hostname", "labelSelector": selector });
                spec["affinity"] =
                    json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } });
            }
        }
        let name = format!("p{index}");
        let metadata = json!({ "name": name, "namespace": "bench", "uid": name, "labels": { "app": app } });
        info(json!({ "metadata": metadata, "spec": spec }))
    }
}

fn info(object: Value) -> Arc<PodInfo> {
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(object).expect("a pod"))))
}

fn cluster(nodes: usize) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for index in 0..nodes {
        let name = format!("n{index}");
        let labels = json!({
            "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("z{}", index % ZONES),
        });
        let node = json!({
            "metadata": { "name": name, "labels": labels },
            "status": { "allocatable": { "cpu": "32", "memory": "128Gi", "pods": "110" } },
        });
        snapshot.apply_node(Arc::new(serde_json::from_value(node).expect("a node")));
    }
    snapshot
}

#[expect(clippy::disallowed_methods, reason = "a bench measures the machine's own time")]
fn run(nodes: usize, pods: usize, case: Case) {
    let mut snapshot = cluster(nodes);
    let profile = Profile::default();
    let mut turn = Turn::new(Rng::seeded(1));
    let waiting: Vec<_> = (0..pods).map(|index| case.pod(index)).collect();
    let began = std::time::Instant::now();
    let mut slowest = std::time::Duration::ZERO;
    for pod in waiting {
        let one = std::time::Instant::now();
        prepare(&mut snapshot, &pod, &profile);
        match decide(&snapshot, &pod, &profile, &mut turn) {
            Decision::Node { slot, .. } => {
                let name = snapshot.node(slot).name.clone();
                snapshot.add_pod(&name, pod);
            }
            Decision::Nowhere(diagnosis) => panic!("{}", diagnosis.message()),
        }
        slowest = slowest.max(one.elapsed());
    }
    let took = began.elapsed();
    let rate = pods as f64 / took.as_secs_f64();
    println!("{nodes:>5} nodes {pods:>6} pods  {:<16} {rate:>9.0} pods/s  slowest {slowest:?}", case.name());
}

fn main() {
    for (nodes, pods) in [(1_000, 10_000), (5_000, 50_000)] {
        for case in [Case::Plain, Case::Spread, Case::AntiAffinity] {
            run(nodes, pods, case);
        }
    }
}
