//! The root of the tree, as data. `supervisor-tree.md` shows it; a test keeps the two equal.

use std::time::Duration;

use k3sd_runtime::inspect::{self, InspectorArgs};
use k3sd_runtime::{Backoff, Spec, Strategy, subtree};

use crate::config::{RoleConfig, RunConfig};
use crate::probe;

/// The root's children must not hurt each other: the inspector is how one looks at the other two, and the agent lives
/// through an absent API anyway.
///
/// Its budget is small, because it multiplies those below it; past it the process ends and the service manager starts
/// afresh. A drill with probes is the exception: it kills far more often than any fault would.
#[must_use]
pub fn root(config: &RunConfig, inspector: InspectorArgs) -> Spec {
    let mut children = vec![subtree("inspector", inspect::tree(inspector))];
    match &config.role {
        RoleConfig::Server(server) => {
            children.push(subtree("server", server_tree()));
            children.extend(server.node.as_ref().map(|_| subtree("agent", agent_tree())));
        }
        RoleConfig::Agent(_) => children.push(subtree("agent", agent_tree())),
    }
    if config.probe.actors == 0 {
        return children
            .into_iter()
            .fold(Spec::new(Strategy::OneForOne).budget(5, Duration::from_secs(30)), Spec::child);
    }
    children.push(subtree("probes", probe::tree(config.probe)));
    let drilled = Spec::new(Strategy::OneForOne).budget(probe::KILLS_BORNE, Duration::from_secs(1));
    children.into_iter().map(|child| child.backoff(Backoff::OFF)).fold(drilled, Spec::child)
}

/// Later children hold what earlier ones handed out: certificates, then the store, then the caches over it.
fn server_tree() -> Spec {
    Spec::new(Strategy::RestForOne)
}

/// What a node does goes on side by side.
fn agent_tree() -> Spec {
    Spec::new(Strategy::OneForOne)
}
