//! Whole-process scenarios: the real binary, faults by signal and through the inspection socket, and checkers that only
//! use what anybody outside can see.
//!
//! [`daemon`] starts and watches the process, [`checks`] holds the invariants of its tree, each a function over
//! observations. The scenarios themselves are the tests of this crate. Everything random comes from one seed, which a
//! failure prints.
//!
//! For the datastore, clients and watchers ([`mod@load`], over [`etcd`]) keep a [`history`] of what they asked and saw.
//! Two checkers [`judge`](mod@judge) it: [`linearizability`] by the answers alone, [`log`] by comparing them with the log
//! that the watchers saw. For the API server, [`api`] has clients and checkers of its own.
//!
//! The loops, which are the scheduler and the controllers, run in this process instead, on a [`cluster`] without sockets:
//! there a paused clock makes hours short, and a seed replays a run. A [`simulation`] adds the node, over [`fakes`] of its
//! container runtime, disk and network, and makes everything go wrong; [`checkers`] judge it.

pub mod api;
pub mod budgets;
pub mod checkers;
pub mod checks;
pub mod cluster;
pub mod daemon;
pub mod etcd;
pub mod fakes;
pub mod faults;
pub mod history;
pub mod judge;
pub mod linearizability;
pub mod load;
pub mod log;
#[path = "../../actors/k3sd/tests/support/ports.rs"]
mod ports;
pub mod simulation;
mod streams;
#[cfg(test)]
mod testbed;

/// The seed of this run: `CHAOS_SEED`, or a fixed one, so that an ordinary run is the same each time.
///
/// # Panics
/// When `CHAOS_SEED` is no number.
#[must_use]
pub fn seed() -> u64 {
    match std::env::var("CHAOS_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("CHAOS_SEED={text} is not a number")),
        Err(_) => 20_260_101,
    }
}

/// Whether `./test.sh --long` asked for the long forms.
#[must_use]
pub fn is_long() -> bool {
    std::env::var_os("CHAOS_LONG").is_some()
}

/// Prints, when the test fails, how to run the same again.
#[derive(Debug)]
pub struct Replay {
    /// The seed in use.
    pub seed: u64,
    /// The name of the test.
    pub test: &'static str,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with: CHAOS_SEED={} cargo test -p chaos-tests {}", self.seed, self.test);
        }
    }
}
