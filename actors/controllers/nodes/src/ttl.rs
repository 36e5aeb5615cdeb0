//! `ttl`: tells kubelets for how long they may keep Secrets and ConfigMaps, by the size of the cluster.
//!
//! Owns:    one annotation of each node.
//! Needs:   nodes to look at.
//! Restart: permanent. It looks at every node again.
//! Fails:   never as a whole; a node that can't be written is tried again.

use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::node::{annotation, name};

/// Seconds.
const TTL: &str = "node.alpha.kubernetes.io/ttl";
/// From and up to how many nodes there are how many seconds. They overlap, so that a node more or less changes nothing.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

/// The seconds for so many nodes; what a node has stays while it fits.
fn ttl(nodes: usize, known: Option<u32>) -> u32 {
    let fits = |(min, max, _): &&(usize, usize, u32)| (*min..=*max).contains(&nodes);
    let kept = STEPS.iter().filter(fits).find(|(.., seconds)| Some(*seconds) == known);
    kept.or_else(|| STEPS.iter().find(fits)).map_or(0, |(.., seconds)| *seconds)
}

fn known(node: &Node) -> Option<u32> {
    annotation(node, TTL).parse().ok()
}

struct Ttl {
    api: kube::Client,
    nodes: Informer<Node>,
}

/// The loop.
pub(crate) fn child(setup: &mut Setup<'_>) -> ChildSpec {
    let controller = Ttl { api: setup.connect("ttl-controller").client(), nodes: setup.informers.informer() };
    let nodes = controller.nodes.clone();
    let all = nodes.clone();
    Loop::new(controller, setup.leading.clone())
        .watch(&nodes, move |old, new, keys| {
            keys.extend(new.map(ObjectKey::of));
            // What one node shows of a step that is over holds for all.
            let Some(all) = all.snapshot().filter(|_| old.is_none() || new.is_none()) else { return };
            let is_over = |node: &Node| known(node) != Some(ttl(all.len(), known(node)));
            if all.iter().next().is_some_and(|node| is_over(node)) {
                keys.extend(all.keys().cloned());
            }
        })
        .child("ttl")
}

impl Controller for Ttl {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let Some(nodes) = self.nodes.snapshot() else { return Ok(()) };
        let Some(node) = nodes.get("", &key.name) else { return Ok(()) };
        let wanted = ttl(nodes.len(), known(node));
        if known(node) == Some(wanted) {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": node.metadata.uid, "annotations": {TTL: wanted.to_string()}}});
        let api: Api<Node> = Api::all(self.api.clone());
        let written = api.patch(name(node), &PatchParams::default(), &Patch::Merge(patch)).await?;
        turn.wrote(&self.nodes, &written);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_overlap() {
        for (nodes, known, expected) in [
            (1, None, 0),
            (100, Some(0), 0),
            (101, Some(0), 15),
            (95, Some(15), 15),
            (89, Some(15), 0),
            (95, None, 0),
            (460, Some(30), 30),
            (1000, Some(30), 30),
            (1001, Some(30), 60),
            (5000, Some(60), 300),
            (50, Some(7), 0),
        ] {
            assert_eq!(ttl(nodes, known), expected, "{nodes} nodes, {known:?}");
        }
    }
}
