//! Death on the real binary: a machine with a node, an application that is used all the time, clients of the API that
//! write, list and watch; and then every actor dies, the process, the engine, the room on the disk and its speed.
//!
//! All clients stand on the machine: the thread of a test is in its network namespace. What they noted is judged by
//! checkers that know nothing of the inside: [`chaos_tests::api::judge`] for what was written and watched, [`facts`] for
//! containers that nobody asked to restart, [`traffic`] for requests and connections, [`leaks`] for what is left on the
//! machine, [`chaos_tests::checks`] for the shape of the tree.

#[path = "../../../actors/k3sd/tests/support/costs.rs"]
mod costs;
mod deaths;
mod disk;
mod drill;
#[path = "../node_server/facts.rs"]
#[expect(dead_code, reason = "the other user of this file needs more of it")]
mod facts;
#[path = "../node_server/kubectl.rs"]
#[expect(dead_code, reason = "the other user of this file needs more of it")]
mod kubectl;
mod leaks;
#[path = "../node_server/machine.rs"]
#[expect(dead_code, reason = "the other user of this file needs more of it")]
mod machine;
mod page;
mod shop;
mod slow;
#[path = "../node_server/traces.rs"]
#[expect(dead_code, reason = "the other user of this file needs more of it")]
mod traces;
mod traffic;
mod turns;

use std::sync::{Mutex, PoisonError};

use k3sd_netlink::{Namespace, NetlinkError};

use crate::machine::Machine;

/// One machine at a time: each has a whole cluster on it.
static TURN: Mutex<()> = Mutex::new(());

/// Makes a machine, and runs a test with its thread in the machine's network. Where there can be no machine it says so.
fn on_a_machine(test: impl AsyncFnOnce(&mut Machine) + Send) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut machine) = Machine::new() else { return };
    let network = Namespace::open(&machine.network()).expect("it has a network");
    let inside = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(test(&mut machine));
        Ok::<(), NetlinkError>(())
    };
    network.enter(inside).expect("its network can be entered");
}

#[test]
fn deaths_cost_what_the_page_says() {
    on_a_machine(turns::turns);
}

#[test]
fn daemon_and_engine_die_at_random_moments() {
    on_a_machine(deaths::deaths);
}

#[test]
fn a_full_disk_refuses_writes_and_heals() {
    on_a_machine(disk::full);
}

#[test]
fn a_slow_disk_only_slows() {
    on_a_machine(slow::slow);
}
