//! The garbage collector: deletes objects whose owners are gone, lets dependents go, and ends foreground deletions.
//!
//! ```text
//! garbage-collector   rest_for_one
//! ├─ collector        the graph of owners, and 20 workers
//! ├─ monitors         dynamic: for each resource that can be deleted a list and a watch of its metadata
//! ├─ census           starts and stops monitors
//! └─ resources        asks which resources there are when definitions or API services change
//! ```

mod census;
mod collector;
pub mod graph;
#[cfg(test)]
mod graph_tests;
pub mod judge;
mod monitor;
mod work;

use std::sync::Arc;
use std::time::Duration;

use k3sd_client::controller::setup::Setup;
use k3sd_runtime::{ChildSpec, Spec, Strategy, subtree, task};
use tokio::sync::{broadcast, watch};

use crate::resources::Resource;

/// Deaths of monitors that are borne: there are dozens, and each may meet the same trouble.
const RESTARTS: u32 = 200;
const PERIOD: Duration = Duration::from_secs(60);

/// Names of monitors begin with that, so that a resource of any name makes one.
const COLLECTED: &str = "of-";

/// Whether objects of a resource may be garbage. Events are made by the thousand, and own nothing.
fn is_collected(resource: &Resource) -> bool {
    resource.can(&["delete", "list", "watch"]) && resource.api.plural != "events"
}

/// The subtree. It tells `gone` of namespaces that something is gone from.
pub fn collector(setup: &mut Setup<'_>, gone: &broadcast::Sender<Arc<str>>) -> ChildSpec {
    let connect = setup.connect("generic-garbage-collector");
    let (found, resources) = watch::channel(None);
    let (mouth, ear) = watch::channel(None);
    let args = collector::Args {
        connect: connect.clone(),
        leading: setup.leading.clone(),
        recorder: setup.recorder.clone(),
        resources: resources.clone(),
        mouth: Arc::new(mouth),
        gone: gone.clone(),
    };
    let found = Arc::new(found);
    let (definitions, services) = (setup.informers.informer(), setup.informers.informer());
    let leading = setup.leading.clone();
    let follow = census::Follow { connect: connect.clone(), leading, definitions, services, found };
    let count = census::Count { connect, resources, mouth: ear };
    let spec = Spec::new(Strategy::RestForOne)
        .child(task("collector", move |handle| collector::run(args.clone(), handle)))
        .child(subtree("monitors", Spec::new(Strategy::Dynamic).budget(RESTARTS, PERIOD)))
        .child(task("census", move |handle| count.clone().run(handle)))
        .child(task("resources", move |handle| follow.clone().run(handle)));
    subtree("garbage-collector", spec)
}
