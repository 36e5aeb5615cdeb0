//! The subtree, as data.

use k3sd_datastore::Memory;
use k3sd_runtime::lend::Lend;
use k3sd_runtime::{Shutdown, Spec, Strategy, subtree, task, worker};

use crate::compactor::{Compactor, CompactorArgs};
use crate::config::KineConfig;
use crate::endpoint::desk::Desk;
use crate::endpoint::listener::{Socket, listen, progress};
use crate::expiry::{Expiry, ExpiryArgs, Leases};
use crate::metrics::Metrics;
use crate::store::{Store, StoreArgs, StoreHandle};

/// The subtree, and the way past the endpoint for those in the same process.
#[derive(Clone, Debug)]
pub struct KineTree {
    /// What to start.
    pub spec: Spec,
    /// The store that it opens.
    pub store: StoreHandle,
    /// What is counted there.
    pub metrics: Metrics,
}

/// Later children use the store that the first one opens; none of them holds on to it. The sockets belong to whoever
/// calls this, and are lent, so that no restart refuses a connection.
pub fn tree(config: KineConfig, sockets: Vec<Lend<Socket>>) -> KineTree {
    let (place, store) = StoreHandle::place();
    let metrics = Metrics::new(store.clone());
    let desk = Desk::new(store.clone(), config.advertised);
    let compactor = CompactorArgs { store: store.clone(), config: config.compact };
    let expiry = ExpiryArgs {
        store: store.clone(),
        keys_end_by_themselves: config.store.ends_keys(),
        leases: Lend::new(Leases::default()),
    };
    let (interval, handle) = (config.progress_interval, store.clone());
    let mut spec = Spec::new(Strategy::RestForOne)
        // Opening looks through the whole file; closing waits for the requests in hand.
        .child(
            worker::<Store>(
                "store",
                StoreArgs {
                    config: config.store,
                    memory: Memory::new(),
                    numbers: metrics.numbers(),
                    slow: config.slow,
                    place,
                },
            )
            .start_within(None)
            .shutdown(Shutdown::Unlimited),
        )
        .child(worker::<Compactor>("compactor", compactor))
        .child(worker::<Expiry>("expiry", expiry))
        .child(subtree("connections", Spec::new(Strategy::Dynamic)))
        .child(task("progress", move |task| progress(task, handle.clone(), interval)));
    for (number, socket) in sockets.into_iter().enumerate() {
        let desk = desk.clone();
        let name = format!("listener-{number}");
        spec = spec.child(task(&name, move |task| listen(task, socket.clone(), desk.clone())));
    }
    KineTree { spec, store, metrics }
}
