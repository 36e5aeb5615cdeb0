//! The controllers of work that ends.
//!
//! * [`job`]: pods that run to their end, each counted once.
//! * [`cron`]: Jobs at certain times.

pub mod cron;
pub mod job;

use k3sd_client::controller::setup::Setup;
use k3sd_runtime::ChildSpec;

/// The loops, each a child of its own.
pub fn loops(setup: &mut Setup<'_>) -> Vec<ChildSpec> {
    vec![job::runner(setup), cron::runner(setup)]
}
