//! `nodelifecycle`: tells which nodes answer, and taints those that don't.
//!
//! Owns:    the taints by condition, and by failure; conditions of nodes that don't report them any more.
//! Needs:   nodes, their leases and their pods to look at.
//! Restart: permanent. When nodes last gave a sign of life is kept beside the loop; a new process gives each its grace
//!          period anew, as nobody listened meanwhile.
//! Fails:   never as a whole; a node that can't be written is tried again.

mod core;
#[cfg(test)]
mod tests;
mod zones;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k3sd_client::controller::fan_out::each;
use k3sd_client::controller::indexes::{BY_NODE, by_node};
use k3sd_client::controller::pods::{is_ready, node as node_of};
use k3sd_client::controller::setup::{NodesConfig, Setup};
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, Snapshot};
use k3sd_runtime::{ChildSpec, Moment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource as _};
use serde_json::json;
use tokio::sync::watch;

use self::core::{Health, Sign, change, evicting, outdated};
use self::zones::{Zone, zone_of};
use crate::node::{self, Change, NO_EXECUTE, record_event, record_status, seconds, taints};

/// Where nodes renew their leases.
const LEASES: &str = "kube-node-lease";
/// Who says what happened.
const COMPONENT: &str = "node-controller";

struct Lifecycle {
    api: kube::Client,
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Informer<Pod>,
    recorder: Recorder,
    config: NodesConfig,
    /// The last signs of life, by our clock. Nothing in the API says when they came.
    signs: watch::Sender<BTreeMap<String, (Health, Arc<Node>)>>,
    /// When pods of a zone's node were last evicted.
    chosen: watch::Sender<BTreeMap<Zone, Moment>>,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    /// A node.
    Node(String),
    /// From which nodes pods are evicted.
    Zones,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => f.write_str(name),
            Self::Zones => f.write_str("all zones"),
        }
    }
}

/// The loop.
pub(crate) fn child(setup: &mut Setup<'_>) -> ChildSpec {
    let controller = Lifecycle {
        api: setup.connect("node-controller").client(),
        nodes: setup.informers.informer(),
        leases: setup.informers.informer(),
        pods: setup.informers.indexed(vec![by_node()]),
        recorder: setup.recorder.component(COMPONENT),
        config: setup.config.nodes.clone(),
        signs: watch::channel(BTreeMap::new()).0,
        chosen: watch::channel(BTreeMap::new()).0,
    };
    let (nodes, leases, pods) = (controller.nodes.clone(), controller.leases.clone(), controller.pods.clone());
    let (known, quarantine) = (nodes.clone(), nodes.clone());
    Loop::new(controller, setup.leading.clone())
        .watch(&nodes, node_changed)
        .watch(&leases, |old, new, keys| {
            let lease = new.or(old).map(|lease| &lease.metadata);
            let of_node = lease.filter(|lease| lease.namespace.as_deref() == Some(LEASES));
            keys.extend(of_node.and_then(|lease| lease.name.clone()).map(Key::Node));
        })
        .watch(&pods, move |old, new, keys| pod_changed(&known, old, new, keys))
        .quarantine(setup.recorder.component(COMPONENT), move |key| match key {
            Key::Node(name) => Some(quarantine.snapshot()?.get("", name)?.object_ref(&())),
            Key::Zones => None,
        })
        .child("nodelifecycle")
}

fn node_changed(old: Option<&Node>, new: Option<&Node>, keys: &mut Vec<Key>) {
    keys.extend(new.or(old).map(|node| Key::Node(node::name(node).to_owned())));
    let aspect = |node: &Node| {
        let evicting = taints(node).iter().filter(|taint| taint.effect == NO_EXECUTE);
        let evicting: Vec<_> = evicting.map(|taint| taint.key.clone()).collect();
        (zone_of(node), node::ready(node).map(str::to_owned), evicting, node.metadata.labels.clone())
    };
    if old.map(aspect) != new.map(aspect) {
        keys.push(Key::Zones);
    }
}

/// A pod that is ready on a node of which nothing is known: it has to be marked.
fn pod_changed(nodes: &Informer<Node>, old: Option<&Pod>, new: Option<&Pod>, keys: &mut Vec<Key>) {
    let Some(pod) = new.filter(|pod| is_ready(pod) && !node_of(pod).is_empty()) else { return };
    let is_old = old.is_some_and(|old| is_ready(old) && node_of(old) == node_of(pod));
    let is_unknown = |nodes: &Arc<Snapshot<Node>>| {
        nodes.get("", node_of(pod)).is_some_and(|node| node::ready(node) == Some("Unknown"))
    };
    if !is_old && nodes.snapshot().as_ref().is_some_and(is_unknown) {
        keys.push(Key::Node(node_of(pod).to_owned()));
    }
}

impl Controller for Lifecycle {
    type Key = Key;

    async fn reconcile(&self, key: &Key, turn: &mut Turn) -> Result<(), Failure> {
        let Some(nodes) = self.nodes.snapshot() else { return Ok(()) };
        match key {
            Key::Node(name) => match nodes.get("", name) {
                Some(node) => self.look(node, turn).await,
                None => {
                    self.forget(name);
                    Ok(())
                }
            },
            Key::Zones => self.evict(&nodes, turn).await,
        }
    }
}

impl Lifecycle {
    fn api(&self) -> Api<Node> {
        Api::all(self.api.clone())
    }

    async fn look(&self, node: &Arc<Node>, turn: &mut Turn) -> Result<(), Failure> {
        let due = self.observe(node, turn);
        if turn.moment() <= due {
            turn.again(due.since(turn.moment()) + std::time::Duration::from_nanos(1));
        } else if let Some(conditions) = outdated(node, turn.now()) {
            let was_ready = node::ready(node) == Some("True");
            let patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version},
                "status": {"conditions": conditions}});
            let written =
                self.api().patch_status(node::name(node), &PatchParams::default(), &Patch::Merge(patch)).await;
            let written = written.map_err(Failure::from).inspect_err(|failure| self.excuse(failure, turn.moment()))?;
            turn.wrote(&self.nodes, &written);
            if was_ready {
                record_status(&self.recorder, node, "NodeNotReady");
            }
            // What follows from it is for the look that this change leads to.
            return Ok(());
        }
        if node::ready(node) == Some("Unknown") {
            self.mark_pods(node, turn).await?;
        }
        let wanted = change(node, turn.now());
        if !wanted.is_none() {
            node::change(&self.api(), node, &wanted, &self.nodes, turn).await?;
        }
        Ok(())
    }

    /// Notes the last sign of life, and says until when it is good.
    fn observe(&self, node: &Arc<Node>, turn: &Turn) -> Moment {
        let name = node::name(node);
        let lease = self.leases.snapshot().and_then(|leases| leases.get(LEASES, name).cloned());
        let sign = Sign::of(node, lease.as_deref());
        let created = node.metadata.creation_timestamp.as_ref().map(|created| created.0);
        let known = self.signs.borrow().get(name).map(|(health, _)| health.clone());
        let now = (turn.moment(), turn.now());
        let (health, is_new) = Health::observe(known.as_ref(), sign, created, now, &self.config);
        let due = health.due;
        self.signs.send_modify(|signs| _ = signs.insert(name.to_owned(), (health, node.clone())));
        if is_new {
            record_event(&self.recorder, node, "RegisteredNode", &format!("Registered Node {name} in Controller"));
        }
        due
    }

    /// When the API is away, no node can give a sign of life: all of them get their time anew.
    fn excuse(&self, failure: &Failure, now: Moment) {
        if failure.code().is_none_or(|code| code >= 500) {
            let due = now + self.config.monitor_grace_period;
            self.signs.send_modify(|signs| signs.values_mut().for_each(|(health, _)| health.due = health.due.max(due)));
        }
    }

    fn forget(&self, name: &str) {
        let mut known = None;
        self.signs.send_modify(|signs| known = signs.remove(name));
        if let Some((_, node)) = known {
            record_event(&self.recorder, &node, "RemovingNode", &format!("Removing Node {name} from Controller"));
        }
    }

    /// Nobody knows whether the node's pods are ready, so they count as not ready.
    async fn mark_pods(&self, node: &Node, turn: &Turn) -> Result<(), Failure> {
        let Some(pods) = self.pods.snapshot() else { return Ok(()) };
        let ready: Vec<_> = pods.by(BY_NODE, node::name(node)).filter(|pod| is_ready(pod)).cloned().collect();
        let now = seconds(turn.now());
        let mark = async |pod: Arc<Pod>| {
            let api: Api<Pod> =
                Api::namespaced(self.api.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
            let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": now});
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map_err(Failure::from)
            {
                Ok(_) => self.recorder.warning(&*pod, "NodeNotReady", "Node is not ready"),
                Err(failure) if failure.is_stale() => {}
                Err(failure) => return Err(failure),
            }
            Ok(())
        };
        each(ready, mark).await.1.map_or(Ok(()), Err)
    }

    async fn evict(&self, nodes: &Snapshot<Node>, turn: &mut Turn) -> Result<(), Failure> {
        let (now, wall) = (turn.moment(), turn.now());
        let last = self.chosen.borrow().clone();
        let plan = zones::plan(nodes.iter().map(|node| &**node), &last, now, &self.config);
        if let Some(again) = plan.again {
            turn.again(again.since(now));
        }
        for node in plan.spare {
            let wanted = Change { taints: evicting(node, false, wall), ..Change::default() };
            node::change(&self.api(), node, &wanted, &self.nodes, turn).await?;
        }
        for (zone, node) in plan.evict {
            let wanted = Change { taints: evicting(node, true, wall), ..Change::default() };
            node::change(&self.api(), node, &wanted, &self.nodes, turn).await?;
            self.chosen.send_modify(|chosen| _ = chosen.insert(zone, now));
        }
        Ok(())
    }
}
