//! Volumes in directories of a node: the provisioner `rancher.io/local-path`, without pods that help it.
//!
//! ```text
//! claim, bound to this node by the scheduler ─▶ plan (pure) ─▶ directory ─▶ PersistentVolume
//! volume that was released here ─────────────▶ plan (pure) ─▶ directory is removed ─▶ volume is deleted
//! ```
//!
//! Each node runs one and looks after itself: after claims whose annotation names it as the selected node, and after
//! volumes whose affinity names it. So making and removing need no way to other nodes. Claims of a shared file system
//! belong to no node: whoever is first makes the volume, and the others find it.
//!
//! Directories are made and removed below the roots that the ConfigMap `local-path-config` names, and nowhere else; on the
//! way there no link is followed, because whoever may write into a volume could have put it there.
//!
//! The scripts `setup` and `teardown` that K3s has in the ConfigMap do what is done here, so they aren't run. Where an
//! operator wrote others, or named commands, they run in the pod of the ConfigMap's `helperPod.yaml`, as they do upstream.
//!
//! A server deletes what is left of volumes whose node is gone: see [`gone()`].

mod config;
mod directories;
mod gone;
mod helper;
mod helping;
mod manifest;
mod pattern;
mod plan;
mod provisioner;

use std::sync::Arc;
use std::time::Duration;

use k3sd_client::api::Connect;
use k3sd_client::controller::Loop;
use k3sd_client::election::Leading;
use k3sd_client::events::recorder;
use k3sd_client::informer::{InformerArgs, ObjectKey, informer};
use k3sd_runtime::{ChildSpec, Clock, Spec, Strategy, subtree, worker};
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use tokio::sync::watch;

use self::directories::{Directories, Keeper};
pub use self::gone::gone;
pub use self::manifest::{MANIFEST, SERVICE_ACCOUNT};
use self::provisioner::{Key, Provisioner};

/// The namespace of what belongs to the provisioner.
const NAMESPACE: &str = "kube-system";
/// The name of the ConfigMap.
const CONFIG: &str = "local-path-config";
/// Who says what happened.
const COMPONENT: &str = "rancher.io/local-path";
/// How many deaths are borne.
const BUDGET: (u32, Duration) = (20, Duration::from_secs(60));

/// What the provisioner of a node is made of.
#[derive(Clone, Debug)]
pub struct LocalStorageArgs {
    /// The API, as somebody with the rights that [`MANIFEST`] gives to the service account [`SERVICE_ACCOUNT`].
    pub connect: Connect,
    /// The name of this node.
    pub node: String,
    /// Time.
    pub clock: Clock,
}

/// The subtree of a node: it belongs to the agent, and stops with it. Volumes stay.
#[must_use]
pub fn tree(args: &LocalStorageArgs) -> Spec {
    let LocalStorageArgs { connect, node, clock } = args;
    let all = || InformerArgs::all(connect.clone());
    let (claims_child, claims) = informer::<PersistentVolumeClaim>("persistentvolumeclaims", all());
    let (volumes_child, volumes) =
        informer::<PersistentVolume>("persistentvolumes", InformerArgs::all(connect.clone()));
    let (classes_child, classes) = informer::<StorageClass>("storageclasses", InformerArgs::all(connect.clone()));
    let own = InformerArgs::all(connect.clone()).fields(&format!("metadata.name={node}"));
    let (nodes_child, nodes) = informer::<Node>("node", own);
    let config = InformerArgs::at(connect.clone(), |client| Api::namespaced(client, NAMESPACE));
    let (config_child, config) = informer::<ConfigMap>("config", config.fields(&format!("metadata.name={CONFIG}")));
    let (events, recorder) = recorder("events", connect.clone());
    let (place, address) = watch::channel(None);
    let provisioner = Provisioner {
        connect: connect.clone(),
        node: node.clone(),
        claims: claims.clone(),
        volumes: volumes.clone(),
        classes: classes.clone(),
        nodes: nodes.clone(),
        config: config.clone(),
        recorder: recorder.component(COMPONENT),
        directories: Directories::new(address),
        clock: clock.clone(),
    };
    let informers = [claims_child, volumes_child, classes_child, nodes_child, config_child];
    let informers = informers.into_iter().fold(Spec::new(Strategy::OneForOne).budget(BUDGET.0, BUDGET.1), Spec::child);
    let (unbound, released) = (claims.clone(), volumes.clone());
    let everything = move |keys: &mut Vec<Key>| {
        let (claims, volumes) = (unbound.snapshot(), released.snapshot());
        keys.extend(claims.iter().flat_map(|all| all.iter()).map(|claim| Key::Claim(ObjectKey::of(&**claim))));
        let names = volumes.iter().flat_map(|all| all.iter()).filter_map(|volume| volume.metadata.name.clone());
        keys.extend(names.map(Key::Volume));
    };
    let (on_class, on_config) = (everything.clone(), everything);
    let looper: ChildSpec = Loop::new(provisioner, Leading::always())
        .workers(4)
        .watch(&claims, |_, new, keys| keys.extend(new.map(|claim| Key::Claim(ObjectKey::of(claim)))))
        .watch(&volumes, |_, new, keys| {
            keys.extend(new.and_then(|volume| volume.metadata.name.clone()).map(Key::Volume));
        })
        .watch(&classes, move |_, _, keys| on_class(keys))
        .watch(&config, move |_, _, keys| on_config(keys))
        .needs(&nodes)
        .child("provisioner");
    Spec::new(Strategy::OneForOne)
        .budget(BUDGET.0, BUDGET.1)
        .child(events)
        .child(subtree("informers", informers))
        .child(worker::<Keeper>("directories", Arc::new(place)))
        .child(looper)
}
