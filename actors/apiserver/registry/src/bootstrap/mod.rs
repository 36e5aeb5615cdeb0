//! What a server does once it is up: the objects that every cluster starts with, its own entry among the servers, and the
//! repair of what allocation left behind.
//!
//! ```text
//! bootstrap (one_for_one: each looks after one thing)
//! ├─ namespaces, ranges, roles, …     keepers, see `keeper` and `duties`
//! └─ repair                           addresses and ports of Services
//! ```
//!
//! Each begins at once and tries until the caches and the verbs are up; [`Hooks`] says what is done.

mod duties;
mod flow_control;
mod hooks;
mod keeper;
mod objects;
mod repair;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k3sd_runtime::{ChildSpec, Spec, Strategy, worker};

use self::duties::{
    Aggregation, Authentication, DefaultRange, FlowControl, Identity, Kubernetes, Namespaces, PriorityClasses, Ranges,
    Roles, Tracking,
};
pub use self::hooks::Hooks;
use self::keeper::{Duty, Keeper, KeeperArgs};
pub use self::objects::RequestAuthentication;
use self::repair::{Repair, RepairArgs};
use crate::api::Api;

/// A server as others reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPlace {
    /// The name of the machine.
    pub host: String,
    /// The address that clients in the cluster use.
    pub address: IpAddr,
    /// The port there.
    pub port: u16,
    /// The port of the Service `kubernetes`; 443 unless somebody wants another.
    pub service_port: u16,
}

/// What the subtree is made of.
#[derive(Clone)]
pub struct BootstrapArgs {
    /// The way to the objects.
    pub api: Arc<Api>,
    /// This server.
    pub place: ServerPlace,
    /// Whom the server believes; asked about every minute, for certificates are renewed.
    pub authentication: Arc<dyn Fn() -> RequestAuthentication + Send + Sync>,
}

impl fmt::Debug for BootstrapArgs {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BootstrapArgs").field("place", &self.place).finish_non_exhaustive()
    }
}

/// The subtree, and what it says of itself.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// What to start, behind the caches. It is up at once; what it does takes its time.
    pub spec: Spec,
    /// What is done.
    pub hooks: Hooks,
}

/// The subtree of this server.
#[must_use]
pub fn tree(args: &BootstrapArgs) -> Bootstrap {
    let hooks = Hooks::new(&[
        Namespaces::HOOK,
        DefaultRange::HOOK,
        Ranges::HOOK,
        Roles::HOOK,
        Aggregation::HOOK,
        PriorityClasses::HOOK,
        FlowControl::HOOK,
        Authentication::HOOK,
        Tracking::HOOK,
        Identity::HOOK,
        Kubernetes::HOOK,
        repair::HOOK,
    ]);
    let special = args.api.special();
    let life = crate::verbs::new_uid(&args.api);
    let kubernetes = Kubernetes {
        advertised: args.place.address,
        port: args.place.port,
        service_port: args.place.service_port,
        service_address: special.service_ranges.first().and_then(|range| range.first()),
    };
    let ranges = special.service_ranges.iter().map(ToString::to_string).collect();
    let spec = Spec::new(Strategy::OneForOne)
        .budget(20, Duration::from_secs(60))
        .child(keeper("namespaces", args, &hooks, Namespaces))
        .child(keeper("default-range", args, &hooks, DefaultRange { ranges }))
        .child(keeper("ranges", args, &hooks, Ranges))
        .child(keeper("roles", args, &hooks, Roles))
        .child(keeper("aggregation", args, &hooks, Aggregation))
        .child(keeper("priority-classes", args, &hooks, PriorityClasses))
        .child(keeper("flow-control", args, &hooks, FlowControl))
        .child(keeper("authentication", args, &hooks, Authentication { source: args.authentication.clone() }))
        .child(keeper("token-tracking", args, &hooks, Tracking))
        .child(keeper("identity", args, &hooks, Identity { host: args.place.host.clone(), life }))
        .child(keeper("kubernetes", args, &hooks, kubernetes))
        .child(worker::<Repair>(
            "repair",
            RepairArgs { api: args.api.clone(), hooks: hooks.clone(), host: args.place.host.as_str().into() },
        ));
    Bootstrap { spec, hooks }
}

fn keeper<D: Duty>(name: &str, args: &BootstrapArgs, hooks: &Hooks, duty: D) -> ChildSpec {
    worker::<Keeper<D>>(name, KeeperArgs { api: args.api.clone(), duty, hooks: hooks.clone() })
}
