//! What is MySQL's alone: names that a column holds, kine's own table, others that tell nobody, gaps, restarts, TLS.

mod server;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k3sd_datastore::{
    AnyBackend, Backend, Dsn, GetRequest, Key, KeyRange, ListRequest, MySql, MySqlDsn, MySqlOptions, Remedy, Revision,
    StoreError, TlsFiles, Ttl, WatchRequest,
};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};

use self::server::{MariaDbServer, PASSWORD};
use crate::runner::{Runner, Trial};
use crate::shared::{self, chain};
use crate::subject::{
    PATIENCE, Subject, count, create, delete, events, get, keys, put, revision, text, update, value, watch,
};

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

/// As kine creates a key that was never there.
fn insert(name: &str) -> String {
    format!(
        "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value)
         VALUES ('{name}', 1, 0, 0, 0, 0, 'kine')"
    )
}

/// Draws a number that no row gets.
async fn lose_a_number(kine: &mut Conn) {
    kine.query_drop(format!("START TRANSACTION; {}; ROLLBACK", insert("lost"))).await.unwrap();
}

async fn gaps(kine: &mut Conn) -> Vec<String> {
    kine.query("SELECT name FROM kine WHERE name LIKE 'gap-%' ORDER BY id").await.unwrap()
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

async fn two_servers_share_a_table() {
    let endpoint = fresh("");
    // Both create the database and the table at once.
    let (one, other) = tokio::join!(subject(&endpoint), subject(&endpoint));
    shared::two_servers_count_together([one.store, other.store]).await;
}

async fn rows_of_others_are_noticed_and_gaps_filled() {
    let endpoint = fresh("");
    let Subject { store, .. } = subject(&endpoint).await;
    let mut watcher = watch(&store, "", None).await;
    let mut kine = stranger(&endpoint).await;
    let last = create(&store, "ours", "1").await.get();
    kine.query_drop(insert("theirs")).await.unwrap();
    lose_a_number(&mut kine).await;
    lose_a_number(&mut kine).await;
    kine.query_drop(insert("behind the gap")).await.unwrap();
    // Nobody asks, so this is found by looking for it.
    let seen: Vec<_> = events(&mut watcher, 3).await.iter().map(|event| event.revision().get()).collect();
    assert_eq!(seen, [last, last + 1, last + 4]);
    // A number that was lost behind the newest row is ours.
    lose_a_number(&mut kine).await;
    assert_eq!(create(&store, "ours too", "1").await.get(), last + 5);
    // A read shows what was written just before, and the watcher learns of it at once.
    kine.query_drop(insert("read")).await.unwrap();
    assert!(get(&store, "read", None).await.is_some());
    let seen = tokio::time::timeout(Duration::from_millis(700), events(&mut watcher, 2)).await.expect("at once");
    assert_eq!(seen.last().unwrap().kv.key, Key::from("read"));
    // A write finds a gap in front of it as well.
    lose_a_number(&mut kine).await;
    kine.query_drop(insert("one more")).await.unwrap();
    let written = create(&store, "ours again", "1").await;
    let all: i64 = kine.query_first("SELECT count(*) FROM kine").await.unwrap().unwrap();
    assert_eq!(all, written.get(), "there is a row for each number");
    let names = gaps(&mut kine).await;
    assert_eq!(names[..2], [last + 2, last + 3].map(|id| format!("gap-{id}")));
    let all = ["behind the gap", "one more", "ours", "ours again", "ours too", "read", "theirs"];
    assert_eq!(keys(&store, KeyRange::all(), None).await, all);
}

async fn an_insert_under_way_is_waited_for() {
    let endpoint = fresh("");
    let Subject { store, .. } = subject(&endpoint).await;
    let mut watcher = watch(&store, "", None).await;
    let mut kine = stranger(&endpoint).await;
    kine.query_drop(format!("START TRANSACTION; {}", insert("slow"))).await.unwrap();
    let mut other = stranger(&endpoint).await;
    other.query_drop(insert("quick")).await.unwrap();
    let writing = tokio::spawn({
        let store = store.clone();
        async move { put(&store, "ours", "1").await }
    });
    wait_for_a_lock(&mut other, || assert!(!writing.is_finished(), "it must not overtake")).await;
    // Meanwhile it is the turn of nobody else, or another server would not see what this one is about to commit.
    let turn = "SELECT id FROM kine WHERE name = 'compact_rev_key' FOR UPDATE NOWAIT";
    other.query_drop(turn).await.expect_err("the transaction goes on");
    kine.query_drop("COMMIT").await.unwrap();
    let ours = writing.await.unwrap();
    let seen: Vec<_> = events(&mut watcher, 3).await.iter().map(|event| event.kv.key.to_string()).collect();
    assert_eq!(seen, ["slow", "quick", "ours"]);
    assert_eq!(get(&store, "ours", None).await.unwrap().mod_revision, ours);
    assert_eq!(gaps(&mut other).await, Vec::<String>::new());
}

/// Until some transaction waits for another one.
async fn wait_for_a_lock(looking: &mut Conn, check: impl Fn()) {
    let waits = "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
    while looking.query_first::<i64, _>(waits).await.unwrap() == Some(0) {
        check();
        // The server makes its list anew only for somebody who has not asked for a tenth of a second.
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
}

async fn a_lock_of_somebody_else_is_waited_for() {
    let endpoint = fresh("");
    let Subject { store, .. } = subject(&endpoint).await;
    let mut other = stranger(&endpoint).await;
    // As a kine that compacts, and takes longer than the store waits for a lock.
    let hold =
        "START TRANSACTION; UPDATE kine SET lease = 0 WHERE name = 'compact_rev_key'; SELECT 1 FROM kine FOR UPDATE";
    other.query_drop(hold).await.unwrap();
    let writing = tokio::spawn({
        let store = store.clone();
        async move { create(&store, "a", "1").await }
    });
    let mut looking = stranger(&endpoint).await;
    wait_for_a_lock(&mut looking, || ()).await;
    tokio::time::sleep(Duration::from_millis(5200)).await;
    assert!(!writing.is_finished());
    other.query_drop("ROLLBACK").await.unwrap();
    assert_eq!(writing.await.unwrap(), Revision::new(2));
}

async fn history_that_others_have_compacted_is_no_gap() {
    let endpoint = fresh("");
    let (one, other) = (subject(&endpoint).await.store, subject(&endpoint).await.store);
    create(&other, "b", "1").await;
    for number in 0..700 {
        put(&one, "a", &number.to_string()).await;
    }
    // Far behind: the other one has not looked since its own write, because nobody watches there.
    let last = put(&one, "c", "1").await;
    assert_eq!(put(&other, "b", "2").await, last.next());
    for number in 0..20 {
        put(&one, "a", &number.to_string()).await;
    }
    let last = revision(&one).await;
    one.compact(last).await.unwrap();
    assert_eq!(put(&other, "b", "3").await, last.next());
    assert_eq!(gaps(&mut stranger(&endpoint).await).await, Vec::<String>::new());
    // Who watched all the time has it all.
    let mut watcher = watch(&other, "a", Some(last.next())).await;
    put(&one, "a", "new").await;
    assert_eq!(events(&mut watcher, 1).await[0].kv.value, value("new"));
}

async fn a_server_that_logs_statements_will_do() {
    let endpoint = fresh("");
    let mut other = stranger(&endpoint).await;
    other.query_drop("SET GLOBAL binlog_format = 'STATEMENT'").await.unwrap();
    let Subject { store, .. } = subject(&endpoint).await;
    let created = create(&store, "a", "1").await;
    update(&store, "a", created, "2").await;
    other.query_drop(insert("theirs")).await.unwrap();
    let last = delete(&store, "a").await;
    store.compact(last).await.unwrap();
    assert_eq!(keys(&store, KeyRange::all(), None).await, ["theirs"]);
    other.query_drop("SET GLOBAL binlog_format = 'MIXED'").await.unwrap();
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
    let before = questions(&mut other).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let watched = questions(&mut other).await - before - 1;
    assert!((2..=3).contains(&watched), "one each second while somebody watches, not {watched}");
    drop(watcher);
    // One last look may be under way.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let before = questions(&mut other).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(questions(&mut other).await - before - 1, 0);
    create(&store, "a", "1").await;
}

/// The table as kine makes it, and some rows of a kine.
const KINE_TABLE: &str = "CREATE TABLE IF NOT EXISTS kine (id BIGINT UNSIGNED AUTO_INCREMENT,
        name VARCHAR(630) CHARACTER SET ascii, created INTEGER, deleted INTEGER, create_revision BIGINT UNSIGNED,
        prev_revision BIGINT UNSIGNED, lease INTEGER, value MEDIUMBLOB, old_value MEDIUMBLOB, PRIMARY KEY (id));
    CREATE INDEX kine_name_index ON kine (name);
    CREATE INDEX kine_name_id_index ON kine (name, id);
    CREATE INDEX kine_id_deleted_index ON kine (id, deleted);
    CREATE UNIQUE INDEX kine_name_prev_revision_uindex ON kine (name, prev_revision);
    INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value, old_value) VALUES
        ('compact_rev_key', 1, 0, 0, 0, 0, '', NULL),
        ('/registry/health', 1, 0, 0, 0, 0, '{\"health\":\"true\"}', NULL),
        ('/registry/a', 1, 0, 0, 0, 30, 'one', NULL),
        ('/registry/a', 0, 0, 3, 3, 0, 'two', 'one'),
        ('gap-5', 0, 1, 0, 0, 0, NULL, NULL),
        ('/registry/b', 1, 0, 0, 0, 0, 'one', NULL),
        ('/registry/b', 0, 1, 0, 6, 0, NULL, 'one'),
        ('/registry/Z', 1, 0, 0, 0, 0, 'upper', NULL)";

async fn a_table_of_kine_is_taken_over_and_kine_goes_on() {
    let endpoint = fresh("");
    let mut kine = stranger(&endpoint).await;
    kine.query_drop(KINE_TABLE).await.unwrap();
    let Subject { store, .. } = subject(&endpoint).await;
    assert_eq!(revision(&store).await, Revision::new(8));
    assert_eq!(
        keys(&store, KeyRange::prefix("/registry/"), None).await,
        ["/registry/Z", "/registry/a", "/registry/health"]
    );
    let kv = get(&store, "/registry/a", None).await.unwrap();
    assert_eq!((kv.create_revision.get(), kv.mod_revision.get(), &kv.value[..]), (3, 4, &b"two"[..]));
    let mut watcher = watch(&store, "", Some(Revision::new(2))).await;
    let past: Vec<_> = events(&mut watcher, 6).await.iter().map(|event| event.revision().get()).collect();
    assert_eq!(past, [2, 3, 4, 6, 7, 8]);
    // What differs in case only is another key now.
    create(&store, "/registry/z", "lower").await;
    assert_eq!(text(&store, "/registry/Z", None).await.as_deref(), Some("upper"));
    let indexes: Vec<String> = kine
        .query(
            "SELECT DISTINCT index_name FROM information_schema.statistics
            WHERE table_schema = database() AND table_name = 'kine' ORDER BY 1",
        )
        .await
        .unwrap();
    assert!(indexes.contains(&"kine_prev_revision_index".to_owned()), "{indexes:?}");
    // The same statements that kine runs when it opens the table, and the way it updates, deletes and creates anew.
    kine.query_drop("CREATE TABLE IF NOT EXISTS kine (id BIGINT UNSIGNED AUTO_INCREMENT, PRIMARY KEY (id))")
        .await
        .unwrap();
    let change = |name: &str, created: i32, deleted: i32, creation: i64, prev: i64| {
        format!(
            "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value, old_value)
             SELECT '{name}', {created}, {deleted}, {creation}, {prev}, 0, 'kine', (SELECT value FROM kine WHERE id = {prev})"
        )
    };
    let ours = update(&store, "/registry/a", kv.mod_revision, "three").await;
    kine.query_drop(change("/registry/a", 0, 0, 3, ours.get())).await.unwrap();
    kine.query_drop(change("/registry/a", 0, 1, 0, ours.get() + 1)).await.unwrap();
    kine.query_drop(change("/registry/a", 1, 0, 0, ours.get() + 2)).await.unwrap();
    let seen = events(&mut watcher, 5).await;
    let kinds: Vec<_> = seen.iter().map(|event| (format!("{:?}", event.kind), event.prev.is_some())).collect();
    let expected = [("Create", false), ("Update", true), ("Update", true), ("Delete", true), ("Create", false)];
    assert_eq!(kinds, expected.map(|(kind, prev)| (kind.to_owned(), prev)));
    // Whoever was quicker has won: kine's guard holds for us, too.
    let stale = store.update("/registry/a".into(), ours, value("stale"), Ttl::NONE).await.unwrap_err();
    assert_eq!(stale.remedy(), Remedy::Reread);
    assert!(kine.query_drop(change("/registry/a", 0, 0, 3, ours.get())).await.is_err());
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

async fn a_server_that_is_away_is_waited_for_within_the_patience(server: Server) {
    let impatient = |endpoint: &str| MySqlOptions { patience: Duration::from_millis(300), ..options(endpoint) };
    let (endpoint, patient) = (fresh(""), subject(&fresh("")).await.store);
    let hasty = try_open(impatient(&endpoint)).await.unwrap();
    create(&patient, "a", "1").await;
    tokio::task::spawn_blocking({
        let server = server.clone();
        move || server.lock().unwrap().as_mut().unwrap().stop()
    })
    .await
    .unwrap();
    let reading = tokio::spawn({
        let patient = patient.clone();
        async move { text(&patient, "a", None).await }
    });
    let writing = tokio::spawn({
        let patient = patient.clone();
        async move { create(&patient, "b", "1").await }
    });
    let error = hasty.create("a".into(), value("1"), Ttl::NONE).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    let error = hasty.get(GetRequest { key: "a".into(), at: None }).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    assert!(matches!(try_open(impatient(&endpoint)).await, Err(StoreError::Unreachable { .. })));
    assert!(!reading.is_finished() && !writing.is_finished());
    server.lock().unwrap().as_mut().unwrap().resume();
    assert_eq!(reading.await.unwrap().as_deref(), Some("1"));
    assert_eq!(writing.await.unwrap(), Revision::new(3));
}

async fn a_server_that_says_nothing_is_given_up(server: Server) {
    let endpoint = fresh("?timeout=300ms&readTimeout=300ms");
    let hasty = try_open(MySqlOptions { patience: Duration::from_millis(500), ..options(&endpoint) }).await.unwrap();
    let patient = subject(&endpoint).await.store;
    let now = create(&hasty, "a", "1").await;
    let signal = |signal: &str| server.lock().unwrap().as_mut().unwrap().signal_only(signal);
    signal("-STOP");
    let writing = tokio::spawn({
        let patient = patient.clone();
        async move { patient.create("b".into(), value("1"), Ttl::NONE).await }
    });
    let error = hasty.get(GetRequest { key: "a".into(), at: None }).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    let error = hasty.create("c".into(), value("1"), Ttl::NONE).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    signal("-CONT");
    assert_eq!(writing.await.unwrap().unwrap(), now.next());
    assert_eq!(keys(&hasty, KeyRange::all(), None).await, ["a", "b"]);
}

async fn a_connection_that_is_killed_is_made_anew() {
    let endpoint = fresh("");
    let Subject { store, .. } = subject(&endpoint).await;
    let MySqlDsn { database, .. } = dsn(&endpoint);
    let mut watcher = watch(&store, "", None).await;
    let mut other = stranger(&endpoint).await;
    for number in 0..5 {
        let open =
            format!("SELECT id FROM information_schema.processlist WHERE db = '{database}' AND id <> connection_id()");
        for id in other.query::<u64, _>(open).await.unwrap() {
            other.query_drop(format!("KILL {id}")).await.unwrap();
        }
        let written = put(&store, "a", &number.to_string()).await;
        assert_eq!(get(&store, "a", None).await.unwrap().mod_revision, written);
        assert_eq!(events(&mut watcher, 1).await[0].revision(), written);
    }
    let page = store.list(ListRequest::new(KeyRange::all())).await.unwrap();
    assert_eq!(page.kvs.len(), 1);
    // A wait that is given up leaves nothing behind.
    let request = WatchRequest::new(KeyRange::all(), None);
    drop(tokio::time::timeout(Duration::ZERO, store.watch(request)).await);
    drop(tokio::time::timeout(Duration::from_micros(200), get(&store, "a", None)).await);
    let reading = tokio::time::timeout(PATIENCE, text(&store, "a", None)).await.unwrap();
    assert_eq!(reading.as_deref(), Some("4"));
}

async fn a_crash_in_the_middle_of_load_loses_nothing(server: Server) {
    let Subject { store, .. } = subject(&fresh("")).await;
    let restart = move || {
        let mut server = server.lock().unwrap();
        let server = server.as_mut().unwrap();
        server.crash();
        server.resume();
    };
    shared::crashes_lose_nothing(&store, restart).await;
}
