//! A cluster with all that belongs to one: controllers, scheduler and fake nodes.

use chaos_tests::cluster::nodes::{FakeNodes, NodesArgs, fake_nodes};
use chaos_tests::cluster::{Cluster, Plane};
use k3sd_client::informer::Shared;
use k3sd_controllers::{ControllersArgs, ControllersConfig, controllers};
use k3sd_runtime::{Clock, subtree};
use k3sd_scheduler::SchedulerArgs;

/// Starts it. Its loops are `loops/informers`, `loops/controllers`, `loops/scheduler` and `loops/nodes`.
pub(crate) async fn start(clock: Clock, config: ControllersConfig, nodes: NodesArgs) -> (Cluster, FakeNodes) {
    let plane = Plane::new(clock.clone());
    let identities = plane.identities();
    let reader = identities.user("system:apiserver", &["system:masters"]);
    let mut informers = Shared::new(reader.clone());
    let args = ControllersArgs { config, identities: identities.clone(), clock };
    let controllers = controllers(&args, &mut informers);
    let args = SchedulerArgs::alone(identities, "server");
    let scheduler = k3sd_scheduler::tree(args, &mut informers).expect("the settings make sense");
    let (nodes, fake) = fake_nodes("nodes", &reader, nodes);
    let loops = vec![
        subtree("informers", informers.spec()),
        subtree("controllers", controllers),
        subtree("scheduler", scheduler),
        nodes,
    ];
    (plane.start(loops).await, fake)
}
