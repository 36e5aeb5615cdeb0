//! The daemon and the container runtime are killed from outside, at moments that a seed says: the application and who uses
//! it notice nothing, and what the API acknowledged is there.

use std::time::{Duration, Instant};

use chaos_tests::{Replay, is_long, seed};
use k3sd_runtime::Rng;

use crate::drill::Drill;
use crate::machine::Machine;

/// Deaths of a short run, and of a long one.
const DEATHS: usize = 10;
const DEATHS_LONG: usize = 120;
/// The longest pause between two. A daemon that starts is struck, too.
const PAUSE_MS: u64 = 2000;

pub(crate) async fn deaths(machine: &mut Machine) {
    let seed = seed();
    let _replay = Replay { seed, test: "daemon_and_engine_die_at_random_moments" };
    println!("seed {seed}");
    let mut rng = Rng::seeded(seed);
    let mut drill = Drill::begin(machine, &mut rng).await;
    let (mut daemons, mut engines) = (0, 0);
    let began = Instant::now();
    for _ in 0..if is_long() { DEATHS_LONG } else { DEATHS } {
        tokio::time::sleep(Duration::from_millis(rng.below(PAUSE_MS))).await;
        if rng.below(2) == 0 {
            drill.kill_daemon().await;
            daemons += 1;
        } else {
            drill.strike_engine();
            engines += 1;
        }
    }
    assert!(daemons > 0 && engines > 0, "{daemons} daemons, {engines} engines");
    println!("{daemons} daemons and {engines} engines died in {:?}", began.elapsed());
    let began = Instant::now();
    drill.heal_anew().await;
    drill.machine.node_ready().await;
    println!("all was back {:?} after the last death", began.elapsed());
    drill.end().await;
}
