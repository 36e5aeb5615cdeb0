//! The runtime against a reference: random trees and random misfortune, the same for both, compared after every event.
//!
//! `K3SD_MODEL_SEED=<seed>` replays one schedule, `K3SD_MODEL_SCHEDULES=<n>` tries more of them.

mod model;
mod support;

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::model::reference::Twist;
use crate::model::schedule::Schedule;
use crate::model::{lockstep, storm};

/// How many schedules a run tries, unless the environment says otherwise.
const SCHEDULES: u64 = 20_000;

/// With `CHAOS_LONG` set, as `./test.sh --long` does.
const SCHEDULES_LONG: u64 = 1_000_000;

/// Seeds count up from here, so that every run tries the same ones.
const FIRST_SEED: u64 = 1_000_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text:?}")))
}

fn schedules() -> u64 {
    let usual = if std::env::var_os("CHAOS_LONG").is_some() { SCHEDULES_LONG } else { SCHEDULES };
    number("K3SD_MODEL_SCHEDULES").unwrap_or(usual)
}

type Check = fn(&Schedule) -> Result<bool, String>;

/// Tries all schedules on all cores. Returns how many were followed to their end.
fn explore(test: &str, share: u64, check: Check) -> u64 {
    let replayed = number("K3SD_MODEL_SEED");
    let wanted = schedules().div_ceil(share);
    let seeds = replayed.map_or(FIRST_SEED..FIRST_SEED + wanted, |seed| seed..seed + 1);
    let (next, whole, failure) = (AtomicU64::new(seeds.start), AtomicU64::new(0), Mutex::new(None));
    let work = || {
        while failure.lock().expect("no check panics under this lock").is_none() {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= seeds.end {
                return;
            }
            match check(&Schedule::random(seed)) {
                Ok(true) => drop(whole.fetch_add(1, Relaxed)),
                Ok(false) => {}
                Err(_) => drop(failure.lock().expect("as above").get_or_insert(seed)),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    if let Some(seed) = failure.into_inner().expect("as above") {
        let smallest = Schedule::random(seed).shrunk(|schedule| check(schedule).is_err());
        let reason = check(&smallest).expect_err("it was shrunk to one that fails");
        panic!(
            "seed {seed}: {reason}\n\nsmallest schedule found:\n{smallest}\nreplay it with:\n  \
             K3SD_MODEL_SEED={seed} cargo test -p k3sd-runtime --test otp_model {test}\n"
        );
    }
    whole.into_inner()
}

#[test]
fn the_runtime_and_the_reference_agree_after_every_event() {
    let whole = explore("the_runtime_and_the_reference_agree", 1, |schedule| lockstep::compare(schedule, Twist::None));
    let tried = schedules();
    if number("K3SD_MODEL_SEED").is_none() {
        assert!(whole >= tried / 10 * 9, "only {whole} of {tried} schedules were followed to their end");
    }
}

#[test]
fn after_a_storm_every_tree_has_its_shape_again() {
    explore("after_a_storm", 4, storm::survive);
}

#[test]
fn a_reference_with_a_wrong_rule_is_caught() {
    const WITHIN: u64 = 1000;
    for twist in Twist::WRONG {
        let caught =
            (FIRST_SEED..FIRST_SEED + WITHIN).find(|&seed| lockstep::compare(&Schedule::random(seed), twist).is_err());
        assert!(caught.is_some(), "{twist:?} went unnoticed for {WITHIN} schedules");
    }
}
