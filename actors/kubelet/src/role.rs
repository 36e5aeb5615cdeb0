//! Says on the Node that it is one of the control plane. The kubelet may not: only the server knows.

use k3sd_client::api::Connect;
use k3sd_client::informer::{Change, InformerArgs, informer};
use k3sd_runtime::{Spec, Strategy, task};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

const LABEL: &str = "node-role.kubernetes.io/control-plane";
/// Changes of the Node that may wait.
const CHANGES_MAX: usize = 16;

/// Watches the Node of this name, and gives it the label whenever it has none. Its death costs a user a label that
/// comes a moment later.
pub fn role(connect: Connect, name: &str) -> Spec {
    let fields = format!("metadata.name={name}");
    let (child, node) = informer("node", InformerArgs::<Node>::all(connect.clone()).fields(&fields));
    let name = name.to_owned();
    let label = task("label", move |_| {
        let (mut node, connect, name) = (node.clone(), connect.clone(), name.clone());
        async move {
            let api: Api<Node> = Api::all(connect.client());
            let mut changes = node.subscribe(CHANGES_MAX).await?;
            while let Some(change) = changes.next().await {
                let lacks_it = |node: &Node| !node.metadata.labels.iter().flatten().any(|(label, _)| label == LABEL);
                let is_due = match change {
                    Change::Applied { new, .. } => lacks_it(&new),
                    Change::Replaced(all) => all.iter().any(|node| lacks_it(node)),
                    Change::Deleted(_) => false,
                };
                if is_due {
                    let patch = json!({ "metadata": { "labels": { (LABEL): "true" } } });
                    api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
                }
            }
            Ok(())
        }
    });
    Spec::new(Strategy::RestForOne).child(child).child(label)
}
