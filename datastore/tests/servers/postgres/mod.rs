//! What is PostgreSQL's alone: other servers on the same table, gaps, restarts, TLS, and names that must be text.

mod server;

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k3sd_datastore::{
    AnyBackend, Backend, Dsn, GetRequest, Key, KeyRange, Postgres, PostgresDsn, PostgresOptions, Remedy, StoreError,
    Ttl,
};
use tokio_postgres::NoTls;

use self::server::{PASSWORD, PostgresServer};
use crate::runner::{Runner, Trial};
use crate::shared::{self, chain};
use crate::subject::{Subject, create, events, get, keys, put, value, watch};

/// The port of the server that all trials use, and how many databases there are on it.
static PORT: AtomicU16 = AtomicU16::new(0);
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// Keys are text here; what is refused instead is a trial of its own.
const NOT_HERE: &str = "keys_and_values_are_any_bytes";

pub(crate) fn run(runner: &mut Runner) {
    let server = Arc::new(Mutex::new(None));
    let mut trials = super::contract(|| Box::pin(async { subject(&fresh("")).await }));
    trials.retain(|trial| trial.name != NOT_HERE);
    trials.push(Trial::new("names_that_are_no_text_are_refused", names_that_are_no_text_are_refused));
    trials.push(Trial::new("values_are_any_bytes", values_are_any_bytes));
    trials.push(Trial::new("two_servers_share_a_table", two_servers_share_a_table));
    trials.push(Trial::new("rows_of_others_are_noticed_and_gaps_filled", rows_of_others_are_noticed_and_gaps_filled));
    trials.push(Trial::new("an_insert_under_way_is_waited_for", an_insert_under_way_is_waited_for));
    trials.push(Trial::new("tls_is_as_strict_as_it_is_told", {
        let server = server.clone();
        move || tls_is_as_strict_as_it_is_told(server)
    }));
    trials.push(Trial::new("a_wrong_password_fails_at_once", a_wrong_password_fails_at_once));
    trials.push(Trial::new("a_crash_in_the_middle_of_load_loses_nothing", {
        let server = server.clone();
        move || a_crash_in_the_middle_of_load_loses_nothing(server)
    }));
    runner.run_group("postgres", trials, || {
        let started = PostgresServer::start()?;
        PORT.store(started.port, Ordering::Relaxed);
        *server.lock().unwrap() = Some(started);
        Ok(())
    });
    // The clones are gone with the trials; this stops the server.
    drop(server.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
}

/// An endpoint with a database that is not there yet.
fn fresh(options: &str) -> String {
    let number = DATABASES.fetch_add(1, Ordering::Relaxed);
    let password = PASSWORD.replace('@', "%40").replace('/', "%2F");
    let port = PORT.load(Ordering::Relaxed);
    format!("postgres://postgres:{password}@localhost:{port}/trial_{number}{options}")
}

fn dsn(endpoint: &str) -> PostgresDsn {
    match Dsn::parse(endpoint, false).unwrap() {
        Dsn::Postgres(dsn) => dsn,
        other => panic!("{other:?}"),
    }
}

async fn try_open(endpoint: &str) -> Result<AnyBackend, StoreError> {
    let options = PostgresOptions { retained_revisions_min: 0, ..PostgresOptions::new(dsn(endpoint)) };
    Ok(AnyBackend::new(Postgres::open(options).await?))
}

async fn subject(endpoint: &str) -> Subject {
    let store = try_open(endpoint).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    Subject { store, directory: None }
}

/// A connection that knows nothing of the store, as kine's.
async fn stranger(endpoint: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(endpoint, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn names_that_are_no_text_are_refused() {
    let Subject { store, .. } = subject(&fresh("")).await;
    let now = create(&store, "a", "1").await;
    for key in [&b"a\0"[..], b"\0", b"\xff", b"a\xc3"] {
        let key = Key::new(key.to_vec());
        let error = store.create(key.clone(), value("1"), Ttl::NONE).await.unwrap_err();
        assert_eq!(error.remedy(), Remedy::Correct, "{key:?}");
        let read = store.get(GetRequest { key, at: None }).await.unwrap();
        assert_eq!((read.kv, read.revision), (None, now));
    }
    // As bounds of ranges they are as good as any.
    for range in [KeyRange::from(Key::new(&b"a\0"[..])), KeyRange::half_open(Key::new(&b"\xff"[..]), "b".into())] {
        assert_eq!(keys(&store, range.clone(), None).await, Vec::<String>::new(), "{range:?}");
    }
    assert_eq!(keys(&store, KeyRange::half_open("a".into(), Key::new(&b"\xff"[..])), None).await, ["a"]);
}

async fn values_are_any_bytes() {
    let Subject { store, .. } = subject(&fresh("")).await;
    let bytes: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    store.create("/ü/😀".into(), bytes.clone().into(), Ttl::seconds(7)).await.unwrap();
    let kv = get(&store, "/ü/😀", None).await.unwrap();
    assert!(kv.value == bytes && kv.ttl == Ttl::seconds(7));
}

async fn two_servers_share_a_table() {
    let endpoint = fresh("");
    // Both create the database and the table at once.
    let (one, other) = tokio::join!(subject(&endpoint), subject(&endpoint));
    shared::two_servers_count_together([one.store, other.store]).await;
}

const INSERT: &str = "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value)
    VALUES ($1, 1, 0, 0, 0, 0, 'kine')";

async fn rows_of_others_are_noticed_and_gaps_filled() {
    let endpoint = fresh("?sslmode=disable");
    let Subject { store, .. } = subject(&endpoint).await;
    let mut watcher = watch(&store, "", None).await;
    let kine = stranger(&endpoint).await;
    let last = create(&store, "ours", "1").await.get();
    kine.execute(INSERT, &[&"theirs"]).await.unwrap();
    kine.batch_execute("SELECT nextval('kine_id_seq'), nextval('kine_id_seq')").await.unwrap();
    kine.execute(INSERT, &[&"behind the gap"]).await.unwrap();
    let seen: Vec<_> = events(&mut watcher, 3).await.iter().map(|event| event.revision().get()).collect();
    assert_eq!(seen, [last, last + 1, last + 4]);
    // A write finds a gap in front of it as well, by drawing a number that then is missing, too.
    kine.batch_execute("SELECT nextval('kine_id_seq')").await.unwrap();
    assert_eq!(create(&store, "ours too", "1").await.get(), last + 7);
    let rows = kine.query("SELECT name FROM kine WHERE name LIKE 'gap-%' ORDER BY id", &[]).await.unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, [last + 2, last + 3, last + 5, last + 6].map(|id| format!("gap-{id}")));
    assert_eq!(keys(&store, KeyRange::all(), None).await, ["behind the gap", "ours", "ours too", "theirs"]);
}

async fn an_insert_under_way_is_waited_for() {
    let endpoint = fresh("?sslmode=disable");
    let Subject { store, .. } = subject(&endpoint).await;
    let mut watcher = watch(&store, "", None).await;
    let kine = stranger(&endpoint).await;
    kine.batch_execute("BEGIN").await.unwrap();
    kine.execute(INSERT, &[&"slow"]).await.unwrap();
    let writing = tokio::spawn({
        let store = store.clone();
        async move { put(&store, "ours", "1").await }
    });
    let looking = stranger(&endpoint).await;
    let waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'ShareRowExclusiveLock'";
    while looking.query(waits, &[]).await.unwrap().is_empty() {
        assert!(!writing.is_finished(), "it must not overtake");
        tokio::task::yield_now().await;
    }
    kine.batch_execute("COMMIT").await.unwrap();
    let ours = writing.await.unwrap();
    let seen: Vec<_> = events(&mut watcher, 2).await.iter().map(|event| event.kv.key.to_string()).collect();
    assert_eq!(seen, ["slow", "ours"]);
    assert_eq!(get(&store, "ours", None).await.unwrap().mod_revision, ours);
}

async fn tls_is_as_strict_as_it_is_told(server: Arc<Mutex<Option<PostgresServer>>>) {
    let ca = server.lock().unwrap().as_ref().unwrap().path("ca.crt").display().to_string();
    for (mode, host, works) in [
        ("require", "localhost", true),
        ("verify-full", "localhost", false),
        (&format!("verify-full&sslrootcert={ca}"), "localhost", true),
        (&format!("verify-full&sslrootcert={ca}"), "127.0.0.1", false),
        (&format!("verify-ca&sslrootcert={ca}"), "127.0.0.1", true),
    ] {
        let endpoint = fresh(&format!("?sslmode={mode}")).replace("localhost", host);
        let opened = try_open(&endpoint).await;
        assert_eq!(opened.is_ok(), works, "{mode} to {host}: {:?}", opened.err().map(|error| chain(&error)));
        if let Ok(store) = opened {
            create(&store, "a", "1").await;
            let encrypted = "SELECT count(*) FROM pg_stat_ssl AS s JOIN pg_stat_activity AS a USING (pid)
                WHERE a.application_name = 'k3sd' AND a.datname = current_database() AND NOT s.ssl";
            let plain = endpoint.replace(mode, "disable");
            let row = stranger(&plain).await.query_one(encrypted, &[]).await.unwrap();
            assert_eq!(row.get::<_, i64>(0), 0, "{mode}");
        }
    }
}

async fn a_wrong_password_fails_at_once() {
    let endpoint = fresh("").replace("p%40ss", "hunter2");
    let error = tokio::time::timeout(Duration::from_secs(10), try_open(&endpoint)).await.unwrap().unwrap_err();
    assert!(!chain(&error).contains("hunter2"), "{}", chain(&error));
}

async fn a_crash_in_the_middle_of_load_loses_nothing(server: Arc<Mutex<Option<PostgresServer>>>) {
    let Subject { store, .. } = subject(&fresh("")).await;
    let restart = move || {
        let mut server = server.lock().unwrap();
        let server = server.as_mut().unwrap();
        server.crash();
        server.resume();
    };
    shared::crashes_lose_nothing(&store, restart).await;
}
