//! What operators count, under the names that they know from kine.
//!
//! Every store is wrapped in [`Observed`], which times its operations; counting is two atomic additions. Whoever has a
//! [`Metrics`] can write all of it down as text, and [`metrics_tree`] serves that text to Prometheus.

mod numbers;
mod observed;
mod server;

use std::sync::Arc;

use k3sd_datastore::{Backend as _, Connections};
use k3sd_runtime::exposition::{head, line};

pub(crate) use self::numbers::Numbers;
pub(crate) use self::observed::Observed;
pub use self::server::metrics_tree;
use crate::store::StoreHandle;

/// The numbers of one datastore. Cloning it shares them.
#[derive(Clone, Debug)]
pub struct Metrics {
    numbers: Arc<Numbers>,
    store: StoreHandle,
}

impl Metrics {
    /// With nothing counted yet.
    pub(crate) fn new(store: StoreHandle) -> Self {
        Self { numbers: Arc::default(), store }
    }

    /// For whoever counts.
    pub(crate) fn numbers(&self) -> Arc<Numbers> {
        self.numbers.clone()
    }

    /// Everything, in Prometheus' text format 0.0.4. What is not the datastore's but the process's is left out: that is
    /// for whoever owns the process.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.numbers.write(&mut text);
        let Connections { open, max } = self.store.now().map(|backend| backend.connections()).unwrap_or_default();
        // What is under way has a connection, or stands in a queue behind those that have.
        let in_use = self.numbers.under_way().min(open);
        for (name, kind, help, value) in [
            ("max_open_connections", "gauge", "How many connections to the database there may be.", max),
            ("open_connections", "gauge", "How many connections to the database there are.", open),
            ("in_use_connections", "gauge", "How many of them are at work.", in_use),
            ("idle_connections", "gauge", "How many of them are not.", open - in_use),
            // Who waits does not wait for a connection but in the store's queues, and none is closed for its age.
            ("wait_count_total", "counter", "How often a connection was waited for.", 0),
            ("wait_duration_seconds_total", "counter", "For how long.", 0),
            ("max_idle_closed_total", "counter", "How many were closed because too many were idle.", 0),
            ("max_idle_time_closed_total", "counter", "How many were closed because they were idle too long.", 0),
            ("max_lifetime_closed_total", "counter", "How many were closed because of their age.", 0),
        ] {
            let name = format!("go_sql_{name}");
            head(&mut text, &name, kind, help);
            line(&mut text, &name, "db_name=\"kine\"", value);
        }
        text
    }
}
