//! The datastore's process is killed with SIGKILL at random moments under load, and started again on the same file:
//! what was acknowledged is there, no revision is given twice, and watchers miss nothing.

use std::time::{Duration, Instant};

use chaos_tests::daemon::Daemon;
use chaos_tests::judge::judge;
use chaos_tests::load::{Load, LoadOptions};
use chaos_tests::{Replay, is_long, seed};
use k3sd_runtime::Rng;
use rustix::process::Signal;

/// Crashes in one history. Longer ones only take longer to judge.
const CRASHES: u64 = 25;
/// Histories of a long run: two hundred crashes and some.
const ROUNDS_LONG: u64 = 9;
/// How long a start on a file of this size may take, until clients are served.
const RESTART_MAX: Duration = Duration::from_secs(5);

/// Options of the process: history that is dropped early, and watchers that are often told how far they are.
const ARGUMENTS: &[&str] = &["--compact-min-retain", "100", "--watch-progress-notify-interval", "100ms"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_keeps_what_it_acknowledged() {
    let seed = seed();
    let _replay = Replay { seed, test: "a_process_that_is_killed_keeps_what_it_acknowledged" };
    let mut rng = Rng::seeded(seed);
    let mut daemon = Daemon::start_kine(tempfile::tempdir().expect("a directory"), None, ARGUMENTS).await;
    let mut slowest = Duration::ZERO;
    let mut next_value = 1;
    for _ in 0..if is_long() { ROUNDS_LONG } else { 1 } {
        let load = Load::begin(daemon.endpoint(), LoadOptions::default(), next_value, rng.next_u64()).await;
        for _ in 0..CRASHES {
            // At once after the start, in the middle of the first writes, or later.
            tokio::time::sleep(Duration::from_micros(rng.below(300_000))).await;
            daemon.end_with(Signal::KILL).await;
            let began = Instant::now();
            daemon.start_again().await;
            slowest = slowest.max(began.elapsed());
            load.wait_for_writes(1 + rng.below(100)).await.expect("writes go on");
        }
        next_value = load.next_value() + 1_000;
        let history = load.end().await;
        let acknowledged = history.operations.iter().filter(|operation| operation.revision().is_some()).count();
        assert!(acknowledged > 1_000, "{acknowledged} answers are too few to tell");
        judge(&history, "a_process_that_is_killed_keeps_what_it_acknowledged", seed);
    }
    println!("the slowest of the starts took {slowest:?}");
    assert!(slowest < RESTART_MAX, "a start took {slowest:?}");
    assert!(daemon.end_with(Signal::TERM).await.success());
}
