//! `local-volumes`: deletes volumes whose node is gone. Everything else about a volume is its node's own business, but
//! there nobody is left who would; its directory went with the node.
//!
//! Owns:    released volumes of nodes that aren't there, to be deleted.
//! Needs:   volumes and nodes to look at; acts while this process leads.
//! Restart: permanent. It looks at all volumes again.
//! Fails:   never as a whole; a volume that can't be deleted is tried again.

use k3sd_client::api::Connect;
use k3sd_client::controller::{Controller, Failure, Loop, Turn};
use k3sd_client::election::Leading;
use k3sd_client::informer::Informer;
use k3sd_runtime::ChildSpec;
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use crate::plan::{homeless, is_released};

struct Gone {
    connect: Connect,
    nodes: Informer<Node>,
    volumes: Informer<PersistentVolume>,
}

/// The loop, for a server. `connect` is somebody with the rights that [`MANIFEST`](crate::MANIFEST) gives to the service
/// account [`SERVICE_ACCOUNT`](crate::SERVICE_ACCOUNT); the informers are of all nodes and of all volumes.
pub fn gone(
    connect: Connect,
    nodes: &Informer<Node>,
    volumes: &Informer<PersistentVolume>,
    leading: Leading,
) -> ChildSpec {
    let controller = Gone { connect, nodes: nodes.clone(), volumes: volumes.clone() };
    let all = volumes.clone();
    let name = |volume: &PersistentVolume| volume.metadata.name.clone();
    Loop::new(controller, leading)
        .workers(1)
        .watch(volumes, move |_, new, keys| keys.extend(new.filter(|volume| is_released(volume)).and_then(name)))
        .watch(nodes, move |_, new, keys| {
            if new.is_none() {
                let known = all.snapshot();
                let released = known.iter().flat_map(|all| all.iter()).filter(|volume| is_released(volume));
                keys.extend(released.filter_map(|volume| name(volume)));
            }
        })
        .child("local-volumes")
}

impl Controller for Gone {
    type Key = String;

    async fn reconcile(&self, key: &String, turn: &mut Turn) -> Result<(), Failure> {
        let (Some(volumes), Some(nodes)) = (self.volumes.snapshot(), self.nodes.snapshot()) else { return Ok(()) };
        let Some(volume) = volumes.get("", key) else { return Ok(()) };
        if homeless(volume, nodes.iter().map(|node| &**node)).is_none() {
            return Ok(());
        }
        // The copies may be old: the node may have come back a moment ago, and the volume may be bound again.
        let client = self.connect.client();
        let (all, api) = (Api::<Node>::all(client.clone()), Api::<PersistentVolume>::all(client));
        let Some(now) = api.get_opt(key).await.map_err(Failure::from)? else { return Ok(()) };
        let Some(node) = homeless(&now, nodes.iter().map(|node| &**node)) else { return Ok(()) };
        if now.metadata.uid != volume.metadata.uid || all.get_opt(node).await.map_err(Failure::from)?.is_some() {
            return Ok(());
        }
        tracing::info!(volume = key, node, "a volume is deleted whose node is gone");
        let uid = now.metadata.uid.clone();
        let params = DeleteParams::default().preconditions(Preconditions { uid, ..Preconditions::default() });
        match api.delete(key, &params).await.map_err(Failure::from) {
            Err(failure) if !failure.is_stale() => Err(failure),
            _ => {
                turn.deleted(&self.volumes, volume);
                Ok(())
            }
        }
    }
}
