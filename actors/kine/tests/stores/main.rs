//! The endpoint over each kind of store, with `etcdctl`, and with servers of the Debian packages that are started here.
//! What can't be started is reported as ignored, with the reason, which is why this brings its own runner.

mod etcd;
#[path = "../../../../datastore/tests/servers/mariadb/server.rs"]
#[expect(dead_code, reason = "shared with the contract's suite, which does more to it")]
mod mariadb;
#[path = "../../../../datastore/tests/servers/postgres/server.rs"]
mod postgres;
#[path = "../../../../datastore/tests/servers/process.rs"]
mod process;
#[path = "../endpoint/support.rs"]
#[expect(dead_code, reason = "shared with the tests of the endpoint itself")]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use k3sd_kine::{StoreConfig, StoreSettings, StoreTls};
use k3sd_runtime::Signal;

use self::etcd::EtcdServer;
use self::mariadb::MariaDbServer;
use self::postgres::PostgresServer;
use self::support::{Server, etcdctl, lines, pause, wait_until};

/// Passed, or the reason why it can't be tried here.
type Outcome = Result<(), String>;

type Trial = (&'static str, fn() -> Outcome);

const TRIALS: &[Trial] =
    &[("memory", memory), ("sqlite", sqlite), ("postgres", over_postgres), ("mysql", over_mysql), ("etcd", over_etcd)];

fn main() -> ExitCode {
    let (switches, filters): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word.starts_with('-'));
    let wanted = TRIALS.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|word| name.contains(word)));
    if switches.iter().any(|switch| switch == "--list") {
        wanted.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut ignored, mut failed) = (0, 0, 0);
    for (name, trial) in wanted {
        let (count, word) = match catch_unwind(AssertUnwindSafe(trial)) {
            Ok(Ok(())) => (&mut passed, "ok".to_owned()),
            Ok(Err(reason)) => (&mut ignored, format!("ignored, {reason}")),
            Err(_) => (&mut failed, "FAILED".to_owned()),
        };
        *count += 1;
        println!("test stores::{name} ... {word}");
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn store(endpoint: &str, tls: StoreTls) -> StoreConfig {
    let settings = StoreSettings { tls, retained_revisions_min: 0, ..StoreSettings::default() };
    StoreConfig::new(endpoint, &settings).expect("the endpoint is understood")
}

fn memory() -> Outcome {
    let server = Server::over(|_| store("memory://", StoreTls::default()));
    everyday(&server);
    keys_expire(&server);
    survives_its_owner(&server);
    Ok(())
}

fn sqlite() -> Outcome {
    let server = Server::over(|folder| store(&format!("sqlite://{}/x.db", folder.display()), StoreTls::default()));
    everyday(&server);
    keys_expire(&server);
    survives_its_owner(&server);
    Ok(())
}

fn over_postgres() -> Outcome {
    let mut database = PostgresServer::start()?;
    let password = postgres::PASSWORD.replace('@', "%40").replace('/', "%2f");
    let endpoint = format!("postgres://postgres:{password}@localhost:{}/k3sd", database.port);
    let tls = StoreTls { ca: Some(database.path("ca.crt")), ..StoreTls::default() };
    // The server comes up while the store tries to reach it.
    let server = Server::over(|_| store(&endpoint, tls));
    everyday(&server);
    keys_expire(&server);
    survives_its_owner(&server);
    server.ok(&["put", "before", "the crash"]);
    database.crash();
    database.resume();
    wait_until("the database is back", || server.run(&["put", "after", "the crash"]).status.success());
    assert_eq!(server.ok(&["get", "before"]), ["before", "the crash"]);
    Ok(())
}

fn over_mysql() -> Outcome {
    let mut database = MariaDbServer::start()?;
    let endpoint = format!("mysql://k3sd:{}@tcp(localhost:{})/k3sd", mariadb::PASSWORD, database.port);
    let tls = StoreTls { ca: Some(database.path("ca.crt")), ..StoreTls::default() };
    // The server comes up while the store tries to reach it.
    let server = Server::over(|_| store(&endpoint, tls));
    everyday(&server);
    keys_expire(&server);
    survives_its_owner(&server);
    server.ok(&["put", "before", "the crash"]);
    database.crash();
    database.resume();
    wait_until("the database is back", || server.run(&["put", "after", "the crash"]).status.success());
    assert_eq!(server.ok(&["get", "before"]), ["before", "the crash"]);
    Ok(())
}

fn over_etcd() -> Outcome {
    let cluster = EtcdServer::start()?;
    // The cluster comes up while the store tries to reach it.
    let server = Server::over(|_| store(&cluster.endpoint, StoreTls::default()));
    everyday(&server);
    keys_expire(&server);
    survives_its_owner(&server);
    // The cluster itself has it, for all its clients.
    let direct = etcdctl(&cluster.endpoint, &["get", "kept", "--print-value-only"]).output();
    assert_eq!(lines(&direct.expect("etcdctl runs").stdout), ["v"]);
    Ok(())
}

/// What every store does alike.
fn everyday(server: &Server) {
    for (key, value) in [("a/1", "one"), ("a/2", "two"), ("b", "three")] {
        assert_eq!(server.ok(&["put", key, value]), ["OK"]);
    }
    let first = server.revision();
    let (mut child, path) = server.watch("watch", &["watch", "--prefix", "a/", "--rev", &first.to_string()]);
    assert_eq!(server.ok(&["get", "--prefix", "a/", "--print-value-only"]), ["one", "two"]);
    let create = "create(\"t\") = \"0\"\n\nput t 1\n\nget t\n\n";
    assert_eq!(server.stdin(&["txn"], create), ["SUCCESS", "", "OK"]);
    assert_eq!(server.stdin(&["txn"], create), ["FAILURE", "", "t", "1"]);
    server.ok(&["put", "a/1", "again"]);
    assert_eq!(server.ok(&["get", "a/1", "--rev", &first.to_string()]), ["a/1", "one"]);
    assert_eq!(server.ok(&["del", "a/2"]), ["1"]);
    let told = || lines(&std::fs::read(&path).expect("the output")).join(" ");
    wait_until("the watch has told all", || told().trim_end() == "PUT a/1 again DELETE a/2");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    server.ok(&["compaction", &(server.revision() - 1).to_string()]);
    let gone = server.fails(&["get", "a/1", "--rev", &first.to_string()]);
    assert!(gone.contains("required revision has been compacted"), "{gone}");
    server.ok(&["endpoint", "status"]);
}

fn keys_expire(server: &Server) {
    let granted = server.ok(&["lease", "grant", "2"]).join("");
    let id = granted.split(' ').nth(1).expect("lease ID granted ...").to_owned();
    let (mut keeper, _) = server.watch("keeper", &["lease", "keep-alive", &id]);
    server.ok(&["put", "--lease", &id, "mortal", "v"]);
    server.ok(&["put", "immortal", "v"]);
    pause(Duration::from_millis(4500));
    assert_eq!(server.ok(&["get", "mortal"]), ["mortal", "v"], "the lease is kept alive");
    keeper.kill().expect("it runs");
    keeper.wait().expect("it ends");
    wait_until("the key ends", || server.ok(&["get", "mortal"]).is_empty());
    assert_eq!(server.ok(&["get", "immortal"]), ["immortal", "v"]);
}

fn survives_its_owner(server: &Server) {
    server.ok(&["put", "kept", "v"]);
    assert!(server.tree.system().signal("kine/store", Signal::Kill));
    wait_until("the store is back", || server.run(&["put", "after", "v"]).status.success());
    assert_eq!(server.ok(&["get", "kept"]), ["kept", "v"]);
}
