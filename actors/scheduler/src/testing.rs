//! Builders for tests: objects as people write them.

use std::sync::Arc;

use k3sd_runtime::Rng;
use serde_json::{Value, json};

use crate::config::Profile;
use crate::decide::{Decision, Turn, decide, prepare};
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

/// Puts fields of `more` into `into`, object by object.
pub(crate) fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

/// A pod, with what `more` says.
pub(crate) fn pod(name: &str, more: Value) -> Arc<PodInfo> {
    let mut object = json!({
        "metadata": { "name": name, "namespace": "default", "uid": name, "resourceVersion": "1" },
        "spec": { "containers": [{ "name": "c", "image": "app" }] },
    });
    merge(&mut object, more);
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(object).unwrap())))
}

/// A pod that asks for resources.
pub(crate) fn sized(name: &str, cpu: &str, memory: &str, more: Value) -> Arc<PodInfo> {
    let resources = json!({ "requests": { "cpu": cpu, "memory": memory } });
    let mut object = json!({ "spec": { "containers": [{ "name": "c", "image": "app", "resources": resources }] } });
    merge(&mut object, more);
    pod(name, object)
}

/// A node of four CPUs and 8 GiB for 110 pods, with what `more` says.
pub(crate) fn node(name: &str, more: Value) -> Arc<k8s_openapi::api::core::v1::Node> {
    let mut object = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "status": { "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "110" } },
    });
    merge(&mut object, more);
    Arc::new(serde_json::from_value(object).unwrap())
}

/// A snapshot to decide on.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) snapshot: Snapshot,
    pub(crate) profile: Profile,
}

impl World {
    /// Nodes by name, each with what is said of it.
    pub(crate) fn of(nodes: &[(&str, Value)]) -> Self {
        let mut world = Self::default();
        for (name, more) in nodes {
            world.snapshot.apply_node(node(name, more.clone()));
        }
        world.snapshot.settle();
        world
    }

    /// Nodes `n1` and so on, in zones by turns.
    pub(crate) fn zoned(nodes: usize, zones: usize) -> Self {
        let mut world = Self::default();
        for index in 0..nodes {
            let labels = json!({ "topology.kubernetes.io/zone": format!("z{}", index % zones + 1) });
            world.snapshot.apply_node(node(&format!("n{}", index + 1), json!({ "metadata": { "labels": labels } })));
        }
        world.snapshot.settle();
        world
    }

    /// With a pod on a node.
    pub(crate) fn with(mut self, node: &str, pod: Arc<PodInfo>) -> Self {
        self.snapshot.add_pod(node, pod);
        self
    }

    /// What is decided.
    pub(crate) fn decide(&self, pod: &PodInfo) -> Decision {
        decide(&self.snapshot, pod, &self.profile, &mut Turn::new(Rng::seeded(1)))
    }

    /// The node that is chosen, or why none is; the same whether or not the counts are kept.
    pub(crate) fn outcome(&self, pod: &PodInfo) -> String {
        let text = |snapshot: &Snapshot| match decide(snapshot, pod, &self.profile, &mut Turn::new(Rng::seeded(1))) {
            Decision::Node { slot, .. } => snapshot.node(slot).name.to_string(),
            Decision::Nowhere(diagnosis) => diagnosis.message(),
        };
        let mut prepared = self.snapshot.clone();
        prepare(&mut prepared, pod, &self.profile);
        let (plain, kept) = (text(&self.snapshot), text(&prepared));
        assert_eq!(plain, kept, "counts that are kept change nothing");
        plain
    }

    /// All nodes on which a pod can be, one after another, sorted by name.
    pub(crate) fn admitted(&self, pod: &PodInfo) -> Vec<String> {
        let (filters, _) = crate::filter::Filters::new(&self.snapshot, pod, &self.profile).expect("some node may do");
        let nodes = self.snapshot.order().iter().map(|slot| self.snapshot.node(*slot));
        let mut names: Vec<String> =
            nodes.filter(|node| filters.check(node).is_ok()).map(|node| node.name.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// What one part gives each node, by name.
    pub(crate) fn scores(&self, plugin: crate::plugin::Plugin, pod: &PodInfo) -> Option<Vec<(String, i64)>> {
        let feasible = self.snapshot.order();
        let (snapshot, profile) = (&self.snapshot, &self.profile);
        let scores = crate::score::one(plugin, crate::score::Subject { snapshot, pod, profile, feasible })?;
        let name = |slot: &u32| snapshot.node(*slot).name.to_string();
        let mut named: Vec<(String, i64)> = feasible.iter().map(name).zip(scores).collect();
        named.sort_unstable();
        Some(named)
    }
}
