//! What is MySQL's alone: names that a column holds, kine's own table, others that tell nobody, gaps, restarts, TLS.

mod others;
mod outages;
mod server;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k3sd_datastore::{
    AnyBackend, Backend, Dsn, GetRequest, Key, KeyRange, ListRequest, MySql, MySqlDsn, MySqlOptions, Remedy,
    StoreError, TlsFiles, Ttl,
};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};

use self::others::*;
use self::outages::*;
use self::server::{MariaDbServer, PASSWORD};
use crate::runner::{Runner, Trial};
use crate::shared::chain;
use crate::subject::{PATIENCE, Subject, count, create, delete, get, keys, revision, text, value, watch};

/// The port of the server that all trials use, and how many databases there are on it.
static PORT: AtomicU16 = AtomicU16::new(0);
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// Keys are printable ASCII here; what is refused instead is a trial of its own.
const NOT_HERE: &str = "keys_and_values_are_any_bytes";

type Server = Arc<Mutex<Option<MariaDbServer>>>;

pub(crate) fn run(runner: &mut Runner) {
    let server: Server = Arc::default();
    let mut trials = super::contract(|| Box::pin(async { subject(&fresh("")).await }));
    trials.retain(|trial| trial.name != NOT_HERE);
    macro_rules! add {
        ($($trial:ident $(($server:ident))?),* $(,)?) => {
            $(trials.push(Trial::new(stringify!($trial), {
                $(let $server = $server.clone();)?
                move || $trial($($server)?)
            }));)*
        };
    }
    add!(
        keys_that_the_column_can_not_hold_are_refused,
        values_are_any_bytes_up_to_what_the_server_takes,
        case_and_signs_of_keys_count,
        two_servers_share_a_table,
        rows_of_others_are_noticed_and_gaps_filled,
        an_insert_under_way_is_waited_for,
        a_kine_that_writes_at_the_same_time_loses_nothing_and_costs_nothing,
        a_commit_that_is_cut_off_has_an_unknown_outcome,
        a_lock_of_somebody_else_is_waited_for,
        history_that_others_have_compacted_is_no_gap,
        a_server_that_logs_statements_will_do,
        a_store_that_nobody_watches_asks_nothing,
        a_table_of_kine_is_taken_over_and_kine_goes_on,
        tls_is_as_strict_as_it_is_told(server),
        a_socket_serves(server),
        a_wrong_password_fails_at_once,
        a_server_that_says_nothing_is_given_up(server),
        a_server_that_is_away_is_waited_for_within_the_patience(server),
        a_connection_that_is_killed_is_made_anew,
        a_crash_in_the_middle_of_load_loses_nothing(server),
    );
    runner.run_group("mariadb", trials, || {
        let started = MariaDbServer::start()?;
        PORT.store(started.port, Ordering::Relaxed);
        *server.lock().unwrap() = Some(started);
        Ok(())
    });
    // The clones are gone with the trials; this stops the server.
    drop(server.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// An endpoint with a database that is not there yet.
fn fresh(options: &str) -> String {
    let (number, port) = (DATABASES.fetch_add(1, Ordering::Relaxed), PORT.load(Ordering::Relaxed));
    format!("mysql://k3sd:{PASSWORD}@tcp(127.0.0.1:{port})/trial_{number}{options}")
}

fn dsn(endpoint: &str) -> MySqlDsn {
    match Dsn::parse(endpoint, false).unwrap() {
        Dsn::MySql(dsn) => dsn,
        other => panic!("{other:?}"),
    }
}

fn options(endpoint: &str) -> MySqlOptions {
    MySqlOptions { retained_revisions_min: 0, ..MySqlOptions::new(dsn(endpoint)) }
}

async fn try_open(options: MySqlOptions) -> Result<AnyBackend, StoreError> {
    Ok(AnyBackend::new(MySql::open(options).await?))
}

async fn subject(endpoint: &str) -> Subject {
    let store = try_open(options(endpoint)).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    Subject { store, directory: None }
}

/// A connection that knows nothing of the store, as kine's.
async fn stranger(endpoint: &str) -> Conn {
    let MySqlDsn { database, .. } = dsn(endpoint);
    let opts = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(PORT.load(Ordering::Relaxed));
    let opts = opts.user(Some("k3sd")).pass(Some(PASSWORD)).prefer_socket(false);
    let mut connection = Conn::new(opts).await.unwrap();
    connection.query_drop(format!("CREATE DATABASE IF NOT EXISTS {database}; USE {database}")).await.unwrap();
    connection
}

async fn keys_that_the_column_can_not_hold_are_refused() {
    let Subject { store, .. } = subject(&fresh("")).await;
    let longest = "x".repeat(630);
    let now = create(&store, &longest, "1").await;
    assert_eq!(keys(&store, KeyRange::all(), None).await, std::slice::from_ref(&longest));
    let long = (longest + "x").into_bytes();
    for key in [&b"a\0"[..], b"\0", b"\xff", "ü".as_bytes(), b"a ", b"a\n", &long] {
        let key = Key::new(key.to_vec());
        let error = store.create(key.clone(), value("1"), Ttl::NONE).await.unwrap_err();
        assert_eq!(error.remedy(), Remedy::Correct, "{key:?}: {error}");
        let read = store.get(GetRequest { key, at: None }).await.unwrap();
        assert_eq!((read.kv, read.revision), (None, now));
    }
    // As bounds of ranges they are as good as any.
    create(&store, "a", "1").await;
    create(&store, "a !", "1").await;
    let key = |bytes: &'static [u8]| Key::new(bytes);
    for (range, expected) in [
        (KeyRange::half_open(key(b"a\0"), key(b"a\xff")), vec!["a !"]),
        (KeyRange::half_open(key(b"a "), key(b"b")), vec!["a !"]),
        (KeyRange::half_open(key(b"a"), key(b"a ")), vec!["a"]),
        (KeyRange::half_open(key(b"a\xc3"), key(b"b")), vec![]),
        (KeyRange::half_open(key(b"\0"), key(b"b")), vec!["a", "a !"]),
        (KeyRange::one(key(b"a")), vec!["a"]),
    ] {
        assert_eq!(keys(&store, range.clone(), None).await, expected, "{range:?}");
        assert_eq!(count(&store, range.clone(), None).await, expected.len() as u64, "{range:?}");
        // A limit makes it another question.
        let request = ListRequest { limit: Some(9), ..ListRequest::new(range.clone()) };
        let names: Vec<_> = store.list(request).await.unwrap().kvs.iter().map(|kv| kv.key.to_string()).collect();
        assert_eq!(names, expected, "{range:?}");
    }
}

async fn values_are_any_bytes_up_to_what_the_server_takes() {
    let Subject { store, .. } = subject(&fresh("")).await;
    let bytes: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    for (number, ttl) in [(1, 7), (2, 0)] {
        // The second one has the first as the value before.
        let kv = get(&store, "k", None).await;
        let value = [&[number], &bytes[..]].concat();
        match kv {
            None => store.create("k".into(), value.clone().into(), Ttl::seconds(ttl)).await.unwrap(),
            Some(kv) => {
                store.update("k".into(), kv.mod_revision, value.clone().into(), Ttl::seconds(ttl)).await.unwrap()
            }
        };
        let kv = get(&store, "k", None).await.unwrap();
        assert!(kv.value == value && kv.ttl == Ttl::seconds(ttl));
    }
    let now = revision(&store).await;
    let error = store.create("larger".into(), vec![0; 9_000_000].into(), Ttl::NONE).await.unwrap_err();
    assert!(error.remedy() == Remedy::Correct && error.to_string().contains("9000000 bytes"), "{error}");
    assert_eq!(create(&store, "goes on", "1").await, now.next());
}

async fn case_and_signs_of_keys_count() {
    let Subject { store, .. } = subject(&fresh("")).await;
    let names = ["/A", "/B", "/Z", "/[", "/_", "/`", "/a", "/b", "/b'\\%", "/z", "/{"];
    for name in names.iter().rev() {
        create(&store, name, name).await;
    }
    assert_eq!(keys(&store, KeyRange::prefix("/"), None).await, names);
    assert_eq!(keys(&store, KeyRange::prefix("/b"), None).await, ["/b", "/b'\\%"]);
    for name in names {
        assert_eq!(text(&store, name, None).await.as_deref(), Some(name));
    }
    delete(&store, "/A").await;
    assert_eq!(text(&store, "/a", None).await.as_deref(), Some("/a"));
}

async fn a_store_that_nobody_watches_asks_nothing() {
    let endpoint = fresh("");
    let Subject { store, .. } = subject(&endpoint).await;
    let mut other = stranger(&endpoint).await;
    async fn questions(connection: &mut Conn) -> u64 {
        let row: Option<(String, u64)> = connection.query_first("SHOW GLOBAL STATUS LIKE 'Questions'").await.unwrap();
        row.unwrap().1
    }
    let watcher = watch(&store, "", None).await;
    let (started, before) = (Instant::now(), questions(&mut other).await);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let watched = questions(&mut other).await - before - 1;
    let seconds = started.elapsed().as_secs();
    assert!((1..=seconds + 1).contains(&watched), "{watched} questions in {seconds} s while somebody watches");
    drop(watcher);
    // One last look may be under way; then there is silence for longer than the time between two of them.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = questions(&mut other).await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        if questions(&mut other).await - before == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "it goes on to ask");
    }
    create(&store, "a", "1").await;
}

async fn tls_is_as_strict_as_it_is_told(server: Server) {
    let path = |name: &str| -> Option<PathBuf> { Some(server.lock().unwrap().as_ref().unwrap().path(name)) };
    let none = TlsFiles::default();
    let authority = TlsFiles { ca: path("ca.crt"), ..TlsFiles::default() };
    let identity = TlsFiles { cert: path("client.crt"), key: path("client.key"), ..authority.clone() };
    let stranger = TlsFiles { ca: path("client.crt"), ..TlsFiles::default() };
    for (user, host, options, tls, works) in [
        ("encrypted", "localhost", "", &none, false),
        ("encrypted", "localhost", "?tls=false", &none, false),
        ("encrypted", "localhost", "?tls=skip-verify", &none, true),
        ("encrypted", "localhost", "?tls=preferred", &none, true),
        ("encrypted", "localhost", "?tls=true", &none, false),
        ("encrypted", "localhost", "", &authority, true),
        ("encrypted", "127.0.0.1", "", &authority, false),
        ("encrypted", "127.0.0.1", "?tls=skip-verify", &authority, false),
        ("encrypted", "localhost", "", &stranger, false),
        ("certified", "localhost", "", &authority, false),
        ("certified", "localhost", "", &identity, true),
    ] {
        let endpoint = fresh(options).replace("k3sd:", &format!("{user}:")).replace("127.0.0.1", host);
        let opening = try_open(MySqlOptions { tls: tls.clone(), ..self::options(&endpoint) });
        let opened =
            tokio::time::timeout(Duration::from_secs(10), opening).await.expect("no demand of TLS is waited for");
        let error = opened.as_ref().err().map(|error| chain(error));
        assert_eq!(opened.is_ok(), works, "{user} at {host} with {options} and {tls:?}: {error:?}");
        if let Ok(store) = opened {
            create(&store, "a", "1").await;
        }
    }
    let broken = TlsFiles { ca: path("users.sql"), ..TlsFiles::default() };
    let error = try_open(MySqlOptions { tls: broken, ..options(&fresh("")) }).await.unwrap_err();
    assert!(chain(&error).contains("users.sql"), "{}", chain(&error));
}

async fn a_socket_serves(server: Server) {
    let socket = server.lock().unwrap().as_ref().unwrap().path("mysqld.sock");
    let (before, database) = fresh("").split_once(")/").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let login = before.split_once("tcp(").unwrap().0;
    let Subject { store, .. } = subject(&format!("{login}unix({})/{database}", socket.display())).await;
    create(&store, "a", "1").await;
    assert_eq!(text(&store, "a", None).await.as_deref(), Some("1"));
    assert!(store.status().await.unwrap().size_bytes > 0);
}

async fn a_wrong_password_fails_at_once() {
    let endpoint = fresh("").replace(PASSWORD, "hunter2");
    let opening = try_open(options(&endpoint));
    let error = tokio::time::timeout(Duration::from_secs(10), opening).await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Database { .. }), "{error:?}");
    assert!(!format!("{error:?} {}", chain(&error)).contains("hunter2"), "{}", chain(&error));
}
