//! A whole cluster in one process, with everything that can go wrong: a bounded number of seeds, each in a process of its
//! own. `cargo run -p chaos-tests -- soak --minutes N` goes on and on.

use std::path::Path;
use std::process::Output;
use std::sync::Mutex;

use chaos_tests::simulation::replay;
use chaos_tests::{is_long, seed};

/// Seeds that once found something.
const KEPT: [u64; 8] = [1, 2, 3, 102, 501, 1_032, 2_027, 20_260_104];
/// How many more of them are played, and how many in the long form.
const SEEDS: u64 = 3;
const SEEDS_LONG: u64 = 100;
/// A run has one thread.
const AT_A_TIME: usize = 2;

fn play(seed: u64) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_chaos-tests"));
    let Output { status, stdout, stderr } = replay::command(program, seed).output().expect("it runs");
    let (text, log) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{text}{log}\nreplay with: cargo run -p chaos-tests -- seed {seed}");
    text.lines().next_back().unwrap_or_default().to_owned()
}

#[test]
fn whatever_goes_wrong_nothing_is_lost_and_all_is_well_in_the_end() {
    let (first, count) = (seed(), if is_long() { SEEDS_LONG } else { SEEDS });
    let seeds = Mutex::new(KEPT.into_iter().chain(first..first + count));
    let next = || seeds.lock().expect("nobody panics with it").next();
    let work = || {
        while let Some(seed) = next() {
            println!("{}", play(seed));
        }
    };
    std::thread::scope(|scope| {
        (1..AT_A_TIME).for_each(|_| drop(scope.spawn(work)));
        work();
    });
}

#[test]
fn a_seed_goes_the_same_way_each_time() {
    if !replay::is_exact() {
        println!("ignored: libfaketime is missing");
        return;
    }
    let first = play(3);
    assert!(first.contains("hash "), "{first}");
    assert_eq!(first, play(3));
}
