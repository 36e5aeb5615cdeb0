//! The root of the tree, as data. `supervisor-tree.md` shows it; a test keeps the two equal.

use std::time::Duration;

use k3sd_apiserver::ApiServerTree;
use k3sd_kine::KineTree;
use k3sd_pki::PkiTree;
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
/// `parts` is what a server is made of; an agent has none of it.
#[must_use]
pub fn root(config: &RunConfig, inspector: InspectorArgs, parts: Option<ServerParts>) -> Spec {
    let drill = config.probe.actors > 0;
    let mut children = vec![subtree("inspector", inspect::tree(inspector))];
    match &config.role {
        RoleConfig::Server(_) => {
            let (server, agent) =
                parts.map_or_else(|| (Spec::new(Strategy::RestForOne), None), |parts| parts.trees(drill));
            children.push(subtree("server", server));
            children.extend(agent.map(|agent| subtree("agent", agent)));
        }
        // It can't join anybody yet, so it isn't started.
        RoleConfig::Agent(_) => {}
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

/// What a server is made of.
#[derive(Debug)]
pub struct ServerParts {
    /// Certificates, tokens and kubeconfigs.
    pub pki: PkiTree,
    /// The datastore.
    pub kine: KineTree,
    /// The API; none with `--disable-apiserver`.
    pub apiserver: Option<ApiServerTree>,
    /// The loops over the API, and what they read; none without an API.
    pub loops: Option<Spec>,
    /// The node on this machine.
    pub agent: Option<Spec>,
}

impl ServerParts {
    /// Later children hold what earlier ones handed out: certificates, then the store, then the caches over it,
    /// then those who act on what they read there.
    fn trees(self, drill: bool) -> (Spec, Option<Spec>) {
        let apiserver = self.apiserver.map(|apiserver| ("apiserver", apiserver.spec));
        let loops = self.loops.map(|loops| ("loops", loops));
        let parts = [("pki", self.pki.spec), ("kine", self.kine.spec)].into_iter().chain(apiserver).chain(loops);
        let tree = parts.fold(Spec::new(Strategy::RestForOne), |tree, (name, spec)| {
            tree.child(subtree(name, if drill { drilled(spec) } else { spec }))
        });
        if drill { (drilled(tree), self.agent.map(drilled)) } else { (tree, self.agent) }
    }
}
