//! The root of the tree, as data. `supervisor-tree.md` shows it; a test keeps the two equal.

use std::time::Duration;

use k3sd_kine::KineTree;
use k3sd_runtime::inspect::{self, InspectorArgs};
use k3sd_runtime::{Backoff, Spec, Strategy, subtree};

use crate::config::{RoleConfig, RunConfig};
use crate::probe;

/// The root's children must not hurt each other: the inspector is how one looks at the other two, and the agent lives
/// through an absent API anyway.
///
/// Its budget is small, because it multiplies those below it; past it the process ends and the service manager starts
/// afresh. A drill with probes is the exception: it kills far more often than any fault would.
///
/// `kine` is the datastore of a server; an agent has none.
#[must_use]
pub fn root(config: &RunConfig, inspector: InspectorArgs, kine: Option<KineTree>) -> Spec {
    let drill = config.probe.actors > 0;
    let mut children = vec![subtree("inspector", inspect::tree(inspector))];
    match &config.role {
        RoleConfig::Server(server) => {
            let kine = kine.map(|kine| if drill { drilled(kine.spec) } else { kine.spec });
            let server_tree = server_tree(kine);
            children.push(subtree("server", if drill { drilled(server_tree) } else { server_tree }));
            children.extend(server.node.as_ref().map(|_| subtree("agent", agent_tree())));
        }
        RoleConfig::Agent(_) => children.push(subtree("agent", agent_tree())),
    }
    if drill {
        children.push(subtree("probes", probe::tree(config.probe)));
    }
    let root = Spec::new(Strategy::OneForOne).budget(5, Duration::from_secs(30));
    let root = children.into_iter().fold(root, Spec::child);
    if drill { drilled(root) } else { root }
}

/// Bears any number of deaths, and waits for none of them to be forgotten.
fn drilled(spec: Spec) -> Spec {
    spec.budget(probe::KILLS_BORNE, Duration::from_secs(1)).each_child(|child| child.backoff(Backoff::OFF))
}

/// Later children hold what earlier ones handed out: certificates, then the store, then the caches over it.
fn server_tree(kine: Option<Spec>) -> Spec {
    kine.into_iter().fold(Spec::new(Strategy::RestForOne), |spec, kine| spec.child(subtree("kine", kine)))
}

/// What a node does goes on side by side.
fn agent_tree() -> Spec {
    Spec::new(Strategy::OneForOne)
}
