//! What is supervised, and why so.

use std::sync::Arc;
use std::time::Duration;

use k3sd_client::api::Connect;
use k3sd_client::informer::Informer;
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{Spec, Strategy, subtree, worker};
use k8s_openapi::api::core::v1::Node;
use tokio::sync::watch;

use crate::config::VolumesConfig;
use crate::csi::{self, Csi};
use crate::disk::disks;
use crate::keeper::{Keeper, KeeperActor, KeeperArgs};
use crate::objects::{Objects, ObjectsActor, ObjectsArgs, WATCHES};
use crate::paths::Paths;
use crate::plan::Maker;
use crate::tokens::{Tokens, TokensActor, TokensArgs};
use crate::volumes::Volumes;

/// Watches may be hundreds, and die together when the API goes away in some new way.
const WATCH_RESTARTS: u32 = 50;
const WATCH_PERIOD: Duration = Duration::from_secs(60);

/// The actors, to be a subtree of the node's, and the way to them.
#[derive(Debug)]
pub struct VolumesTree {
    /// What to supervise.
    pub spec: Spec,
    /// The way there.
    pub volumes: Volumes,
}

/// Puts a node's volumes together. `connect` reaches the API as the node; `own_node` follows the node's own object, and
/// without it nobody waits for volumes to be attached: pods try again.
///
/// ```text
/// volumes           one_for_one
/// ├─ files          rest_for_one    who holds what earlier ones hand out starts again with them
/// │  ├─ watches     dynamic         an informer per object that pods name
/// │  ├─ objects                     which pod names which object
/// │  └─ keeper                      writes files again; which pods it follows outlives it
/// ├─ tokens                         asks for tokens, in time
/// ├─ plugins                        storage drivers that come and go
/// └─ disk-1 …                       threads that mount, write and delete
/// ```
#[must_use]
pub fn tree(config: VolumesConfig, connect: Connect, own_node: Option<Informer<Node>>) -> VolumesTree {
    let paths = Paths::new(&config.root);
    let (objects_place, objects) = watch::channel(None);
    let (keeper_place, keeper) = watch::channel(None);
    let (tokens_place, tokens) = watch::channel(None);
    let (disk_children, disks) = disks(&paths);
    let (drivers_place, drivers) = watch::channel(Arc::default());
    let config = Arc::new(config);
    let csi = Csi::new(drivers, &config, &paths, connect.clone(), own_node);
    let maker = Maker {
        config: config.clone(),
        paths: paths.clone(),
        connect: connect.clone(),
        objects: Objects(objects),
        tokens: Tokens(tokens),
        disks,
        csi,
    };
    let objects_args = ObjectsArgs { connect: connect.clone(), place: Arc::new(objects_place), keeper: keeper.clone() };
    let keeper_args =
        KeeperArgs { maker: maker.clone(), registry: Lend::new(Default::default()), place: Arc::new(keeper_place) };
    let files = Spec::new(Strategy::RestForOne)
        .child(subtree(WATCHES, Spec::new(Strategy::Dynamic).budget(WATCH_RESTARTS, WATCH_PERIOD)))
        .child(worker::<ObjectsActor>("objects", objects_args))
        .child(worker::<KeeperActor>("keeper", keeper_args));
    let spec = Spec::new(Strategy::OneForOne)
        .child(subtree("files", files))
        .child(worker::<TokensActor>("tokens", TokensArgs { connect: connect.clone(), place: Arc::new(tokens_place) }))
        .child(csi::plugins(&config, &paths, connect, drivers_place));
    let spec = disk_children.into_iter().fold(spec, Spec::child);
    VolumesTree { spec, volumes: Volumes { maker, keeper: Keeper(keeper) } }
}
