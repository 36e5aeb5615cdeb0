//! Keeps the key `NodeHosts` of the ConfigMap `coredns` in step with the nodes, so that nodes are found by their names.
//!
//! Owns:    that key; the rest of the ConfigMap is the manifest's.
//! Needs:   Nodes and the ConfigMap; acts while this process leads.
//! Restart: permanent. It compares again.
//! Fails:   never; what the API refuses is tried again.

mod core;

use k3sd_client::api::Connect;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::election::Leading;
use k3sd_client::informer::{Informer, InformerArgs, ObjectKey, informer};
use k3sd_runtime::{Spec, Strategy};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{Patch, PatchParams};
use serde_json::json;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "coredns";
const KEY: &str = "NodeHosts";

/// What the controller works with.
struct NodeHosts {
    connect: Connect,
    nodes: Informer<Node>,
    maps: Informer<ConfigMap>,
}

/// The controller, with the copy of the ConfigMap that it reads. `nodes` is an informer of all nodes, such as the one that
/// the loops of a server share; `connect` may list, watch and patch ConfigMaps in `kube-system`.
pub fn node_hosts(connect: &Connect, nodes: &Informer<Node>, leading: Leading) -> Spec {
    let args = InformerArgs::<ConfigMap>::at(connect.clone(), |client| kube::Api::namespaced(client, NAMESPACE));
    let (child, maps) = informer("configmap", args.fields("metadata.name=coredns"));
    let controller = NodeHosts { connect: connect.clone(), nodes: nodes.clone(), maps: maps.clone() };
    let the_only_one = || ObjectKey { namespace: NAMESPACE.to_owned(), name: NAME.to_owned() };
    let watching = Loop::new(controller, leading).watch(&maps, move |_, _, keys| keys.push(the_only_one())).watch(
        nodes,
        move |old, new, keys| {
            let lines = |node: Option<&Node>| core::lines(node);
            if lines(old) != lines(new) {
                keys.push(the_only_one());
            }
        },
    );
    Spec::new(Strategy::RestForOne).child(child).child(watching.workers(1).child("node-hosts"))
}

impl Controller for NodeHosts {
    type Key = ObjectKey;

    async fn reconcile(&self, _: &ObjectKey, turn: &mut Turn) -> Result<(), Failure> {
        let (Some(nodes), Some(maps)) = (self.nodes.snapshot(), self.maps.snapshot()) else { return Ok(()) };
        // Without the ConfigMap there is no DNS, and nothing to do until the manifest makes it.
        let Some(map) = maps.get(NAMESPACE, NAME) else { return Ok(()) };
        let wanted = core::lines(nodes.iter().map(AsRef::as_ref));
        let found = map.data.as_ref().and_then(|data| data.get(KEY)).map(String::as_str);
        if found == Some(wanted.as_str()) {
            return Ok(());
        }
        let api = kube::Api::<ConfigMap>::namespaced(self.connect.client(), NAMESPACE);
        let patch = json!({"data": {KEY: wanted}});
        match api.patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(written) => {
                turn.wrote(&self.maps, &written);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
