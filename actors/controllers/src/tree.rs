//! The subtree, as data.
//!
//! ```text
//! controllers            rest_for_one
//! ├─ events              writes Events
//! ├─ lease               where several servers can run: this process leads while it holds the lease
//! └─ loops               one_for_one: a child for each controller
//! ```
//!
//! Whoever loses the lease dies, and the loops behind it begin anew: they wait until this process leads again. The
//! process itself goes on.

use std::time::Duration;

use k3sd_client::api::Identities;
use k3sd_client::controller::setup::Setup;
use k3sd_client::election::{ElectionArgs, Leading, elector};
use k3sd_client::events::recorder;
use k3sd_client::informer::Shared;
use k3sd_runtime::{ChildSpec, Clock, Spec, Strategy, subtree};

use crate::config::ControllersConfig;
use crate::names::runs;

/// Where leases of the control plane are.
const NAMESPACE: &str = "kube-system";
/// The user that the controllers are where none of them speaks for itself.
const MANAGER: &str = "system:kube-controller-manager";
/// The user that stands for a cloud, as K3s names it, and its lease.
const CLOUD: &str = "k3s-cloud-controller-manager";
/// How many deaths of loops are borne: there are dozens, and none of them takes another along.
const LOOPS_BUDGET: (u32, Duration) = (40, Duration::from_secs(60));

/// What the controllers are made of.
#[derive(Clone, Debug)]
pub struct ControllersArgs {
    /// Settings.
    pub config: ControllersConfig,
    /// Ways to the API.
    pub identities: Identities,
    /// Time and randomness.
    pub clock: Clock,
}

/// The controllers that upstream's manager has. They read through `informers`, whose actors run elsewhere.
pub fn controllers(args: &ControllersArgs, informers: &mut Shared) -> Spec {
    manager(args, MANAGER, "kube-controller-manager", informers, |setup| {
        let mut loops = k3sd_controllers_workloads::loops(setup);
        loops.extend(k3sd_controllers_batch::loops(setup));
        loops.extend(k3sd_controllers_collection::loops(setup));
        loops.extend(k3sd_controllers_network::loops(setup));
        loops.extend(k3sd_controllers_nodes::loops(setup));
        loops.extend(k3sd_controllers_accounts::loops(setup));
        loops.extend(k3sd_controllers_volumes::loops(setup));
        loops
    })
}

/// The controllers that a cloud would bring, unless it has no say about nodes, and loops of others that act under the same lease.
pub fn cloud(
    args: &ControllersArgs,
    informers: &mut Shared,
    has_nodes: bool,
    others: impl FnOnce(&mut Setup<'_>) -> Vec<ChildSpec>,
) -> Spec {
    manager(args, CLOUD, CLOUD, informers, |setup| {
        let mut loops = if has_nodes { k3sd_controllers_nodes::cloud(setup) } else { Vec::new() };
        loops.extend(others(setup));
        loops
    })
}

/// One manager: who writes its Events and holds its lease, and its loops.
fn manager(
    args: &ControllersArgs,
    user: &str,
    lease: &str,
    informers: &mut Shared,
    loops: impl FnOnce(&mut Setup<'_>) -> Vec<ChildSpec>,
) -> Spec {
    let connect = args.identities.user(user, &[]);
    let (events, recorder) = recorder("events", connect.clone());
    let mut spec = Spec::new(Strategy::RestForOne).child(events);
    let leading = match &args.config.election {
        None => Leading::always(),
        Some(election) => {
            let mut args = ElectionArgs::new(connect, NAMESPACE, lease, &election.identity);
            args.terms = election.terms;
            let (child, leading) = elector("lease", args);
            spec = spec.child(child);
            leading
        }
    };
    let mut setup = Setup {
        identities: &args.identities,
        informers,
        recorder: &recorder,
        leading: &leading,
        clock: &args.clock,
        config: &args.config.loops,
    };
    let all = Spec::new(Strategy::OneForOne).budget(LOOPS_BUDGET.0, LOOPS_BUDGET.1);
    let wanted = loops(&mut setup).into_iter().filter(|child| runs(&args.config.controllers, child.name()));
    spec.child(subtree("loops", wanted.fold(all, Spec::child)))
}
