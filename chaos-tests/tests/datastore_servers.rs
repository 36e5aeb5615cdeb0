//! The datastore in front of database servers, under load: its actors and its process are killed, and so are the servers.
//! They are those of the Debian packages, started here on loopback. What can't be started is reported as ignored, with
//! the reason, which is why this brings its own runner.

#[path = "../../datastore/tests/servers/etcd/server.rs"]
#[expect(dead_code, reason = "shared with the contract suite, which needs more of it")]
mod etcd;
#[path = "../../datastore/tests/servers/mariadb/server.rs"]
#[expect(dead_code, reason = "shared with the contract suite, which needs more of it")]
mod mariadb;
#[path = "../../datastore/tests/servers/postgres/server.rs"]
mod postgres;
#[path = "../../datastore/tests/servers/process.rs"]
mod process;
#[path = "../../datastore/tests/servers/runner.rs"]
mod runner;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use chaos_tests::daemon::Daemon;
use chaos_tests::faults::{Database, Fault, Torment};
use chaos_tests::judge::judge;
use chaos_tests::load::{Load, LoadOptions};
use chaos_tests::{Replay, is_long, seed};
use k3sd_runtime::Rng;
use rustix::process::Signal;

use self::etcd::{EtcdCluster, Setup};
use self::mariadb::MariaDbServer;
use self::postgres::PostgresServer;
use self::runner::{Runner, Trial};

/// Options of the process: history that is dropped early, and watchers that are often told how far they are.
const ARGUMENTS: &[&str] = &["--compact-min-retain", "100", "--watch-progress-notify-interval", "100ms"];

/// All that is done in one round.
const FAULTS: &[(Fault, usize)] =
    &[(Fault::KillActor, 16), (Fault::KillProcess, 4), (Fault::StopProcess, 2), (Fault::RestartDatabase, 5)];

/// Rounds of a long run, on one database.
const ROUNDS_LONG: usize = 15;

impl Database for PostgresServer {
    fn crash(&mut self) {
        PostgresServer::crash(self);
    }

    fn resume(&mut self) {
        PostgresServer::resume(self);
    }
}

impl Database for MariaDbServer {
    fn crash(&mut self) {
        MariaDbServer::crash(self);
    }

    fn resume(&mut self) {
        MariaDbServer::resume(self);
    }
}

/// A cluster, and the member that is down.
struct Cluster {
    members: EtcdCluster,
    rng: Rng,
    down: usize,
}

/// One after the other, the leader as likely as the rest.
impl Database for Cluster {
    fn crash(&mut self) {
        let count = self.members.endpoints().len() as u64;
        self.down = usize::try_from(self.rng.below(count)).expect("a small number");
        self.members.kill(self.down);
    }

    fn resume(&mut self) {
        self.members.resume(self.down);
    }
}

/// A server of one kind, once it runs.
type Slot<D> = Arc<Mutex<Option<D>>>;

/// One trial on one kind of server.
fn group<D: Database + 'static>(
    runner: &mut Runner,
    name: &'static str,
    options: LoadOptions,
    start: impl FnOnce() -> Result<D, String>,
    endpoint: impl FnOnce(&D) -> String + Send + 'static,
) {
    let slot: Slot<D> = Slot::default();
    let mine = slot.clone();
    let trial = Trial::new("survives_kills_on_either_side", move || async move {
        let mut server = mine.lock().expect("nobody panics with it").take().expect("it was started");
        let dsn = endpoint(&server);
        torment(name, &dsn, &mut server, options).await;
    });
    runner.run_group(name, vec![trial], || {
        *slot.lock().expect("nobody panics with it") = Some(start()?);
        Ok(())
    });
}

async fn torment(test: &'static str, dsn: &str, server: &mut dyn Database, options: LoadOptions) {
    let seed = seed();
    let _replay = Replay { seed, test };
    let mut rng = Rng::seeded(seed);
    let daemon = Daemon::start_kine(tempfile::tempdir().expect("a directory"), Some(dsn), ARGUMENTS).await;
    let mut torment = Torment::new(daemon, Some(server), Rng::seeded(rng.next_u64())).await;
    let mut next_value = 1;
    for _ in 0..if is_long() { ROUNDS_LONG } else { 1 } {
        let load = Load::begin(torment.daemon.endpoint(), options.clone(), next_value, rng.next_u64()).await;
        load.wait_for_writes(50).await.expect("it begins");
        torment.carry_out(FAULTS, &load).await;
        next_value = load.next_value() + 1_000;
        let history = load.end().await;
        judge(&history, test, seed);
    }
    println!("{test}: {} faults, the process gave up {} times", torment.done().len(), torment.gave_up);
    assert!(torment.daemon.end_with(Signal::TERM).await.success());
}

fn main() -> ExitCode {
    let mut runner = Runner::from_arguments();
    // A row that was not committed has used its number, which is then filled: not every revision is a change.
    let sparse = LoadOptions { is_dense: false, ..LoadOptions::default() };
    group(&mut runner, "postgres", sparse.clone(), PostgresServer::start, |server| {
        let password = postgres::PASSWORD.replace('@', "%40").replace('/', "%2F");
        format!("postgres://postgres:{password}@localhost:{}/chaos", server.port)
    });
    group(&mut runner, "mariadb", sparse, MariaDbServer::start, |server| {
        format!("mysql://k3sd:{}@tcp(127.0.0.1:{})/chaos", mariadb::PASSWORD, server.port)
    });
    for (name, members) in [("etcd", 1), ("etcd_cluster", 3)] {
        let start = move || {
            etcd::available()?;
            let members = EtcdCluster::start(Setup { members, ..Setup::single() })?;
            Ok(Cluster { members, rng: Rng::seeded(seed()), down: 0 })
        };
        group(&mut runner, name, LoadOptions::default(), start, |cluster| cluster.members.endpoints().join(","));
    }
    runner.finish()
}
