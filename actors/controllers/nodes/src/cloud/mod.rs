//! `cloud-node`: introduces nodes as a cloud would, from what K3s's agents write into their annotations.
//!
//! Owns:    `spec.providerID`, addresses and labels of a machine's kind and place; the taint that keeps pods away before.
//! Needs:   nodes to look at.
//! Restart: permanent. It looks at every node again.
//! Fails:   never as a whole; a node that can't be written is tried again.

mod core;

use k3sd_client::controller::setup::Setup;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::events::Recorder;
use k3sd_client::informer::{Informer, ObjectKey};
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use self::core::plan;
use crate::node;

/// The user that stands for a cloud, as K3s names it.
const USER: &str = "k3s-cloud-controller-manager";
/// Who says what happened.
const COMPONENT: &str = "cloud-node-controller";

struct Cloud {
    api: kube::Client,
    nodes: Informer<Node>,
    recorder: Recorder,
}

/// The loop.
pub(crate) fn child(setup: &mut Setup<'_>) -> ChildSpec {
    let controller = Cloud {
        api: setup.identities.user(USER, &[]).client(),
        nodes: setup.informers.informer(),
        recorder: setup.recorder.component(COMPONENT),
    };
    let nodes = controller.nodes.clone();
    Loop::new(controller, setup.leading.clone())
        .watch(&nodes, |_, new, keys| keys.extend(new.map(ObjectKey::of)))
        .child("cloud-node")
}

impl Controller for Cloud {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let Some(nodes) = self.nodes.snapshot() else { return Ok(()) };
        let Some(node) = nodes.get("", &key.name) else { return Ok(()) };
        let plan = plan(node).map_err(Failure::other)?;
        let api: Api<Node> = Api::all(self.api.clone());
        if let Some(addresses) = plan.addresses {
            let patch = json!({"metadata": {"uid": node.metadata.uid}, "status": {"addresses": addresses}});
            let written = api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            turn.wrote(&self.nodes, &written);
            if plan.change.is_none() {
                return Ok(());
            }
            // The node is another by now, and so is its version.
            node::change(&api, &written, &plan.change, &self.nodes, turn).await?;
        } else if !plan.change.is_none() {
            node::change(&api, node, &plan.change, &self.nodes, turn).await?;
        }
        if plan.is_first {
            self.recorder.normal(&**node, "Synced", "Node synced successfully");
        }
        Ok(())
    }
}
