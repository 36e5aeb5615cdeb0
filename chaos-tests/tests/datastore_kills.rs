//! Every actor of the datastore is killed in any order while clients write, read and watch through the etcd endpoint, and
//! its process is stopped and killed in between: what clients were told stays true.

use chaos_tests::daemon::Daemon;
use chaos_tests::faults::{Fault, Torment};
use chaos_tests::judge::judge;
use chaos_tests::load::{Load, LoadOptions};
use chaos_tests::{Replay, is_long, seed};
use k3sd_runtime::Rng;
use rustix::process::Signal;

/// Options of the process: history that is dropped early, and watchers that are often told how far they are.
const ARGUMENTS: &[&str] = &["--compact-min-retain", "100", "--watch-progress-notify-interval", "100ms"];

/// How often all of it is done, on one store.
fn rounds() -> usize {
    if is_long() { 15 } else { 1 }
}

async fn torment(test: &'static str, database: Option<&str>, rounds: usize, faults: &[(Fault, usize)]) {
    let seed = seed();
    let _replay = Replay { seed, test };
    let mut rng = Rng::seeded(seed);
    let daemon = Daemon::start_kine(tempfile::tempdir().expect("a directory"), database, ARGUMENTS).await;
    let mut torment = Torment::new(daemon, None, Rng::seeded(rng.next_u64())).await;
    let mut next_value = 1;
    for _ in 0..rounds {
        let endpoint = torment.daemon.endpoint();
        let load = Load::begin(endpoint, LoadOptions::default(), next_value, rng.next_u64()).await;
        load.wait_for_writes(50).await.expect("it begins");
        torment.carry_out(faults, &load).await;
        next_value = load.next_value() + 1_000;
        let history = load.end().await;
        judge(&history, test, seed);
    }
    println!("{test}: {} faults, the process gave up {} times", torment.done().len(), torment.gave_up);
    assert!(torment.daemon.end_with(Signal::TERM).await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_survives_kills_of_actors() {
    torment("a_file_survives_kills_of_actors", None, rounds(), &[(Fault::KillActor, 40), (Fault::StopProcess, 3)])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_survives_kills_of_actors_and_of_their_process() {
    let faults = &[(Fault::KillWorker, 15), (Fault::KillProcess, 6), (Fault::StopProcess, 3)];
    torment("a_file_survives_kills_of_actors_and_of_their_process", None, rounds(), faults).await;
}

/// Nothing outlives the process here, so it has to live: there are too few kills for the supervisors to give up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_survives_kills_of_actors() {
    let faults = &[(Fault::KillWorker, 20), (Fault::StopProcess, 2)];
    torment("memory_survives_kills_of_actors", Some("memory://"), 1, faults).await;
}
