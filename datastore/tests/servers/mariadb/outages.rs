//! Servers that go away, keep silent, hold a lock, and crash.

use std::time::Duration;

use k3sd_datastore::{
    Backend, GetRequest, KeyRange, ListRequest, MySqlDsn, MySqlOptions, Remedy, Revision, StoreError, Ttl, WatchRequest,
};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::{Server, dsn, fresh, options, stranger, subject, try_open};
use crate::shared;
use crate::subject::{PATIENCE, Subject, create, events, get, keys, put, text, update, value, watch};

pub(super) async fn a_commit_that_is_cut_off_has_an_unknown_outcome() {
    let endpoint = fresh("");
    let Subject { store, .. } = subject(&endpoint).await;
    let MySqlDsn { database, .. } = dsn(&endpoint);
    let created = create(&store, "a", "1").await;
    let mut watcher = watch(&store, "", None).await;
    let mut other = stranger(&endpoint).await;
    // Rows may be added from here on, and not committed.
    for stage in ["START", "FLUSH", "BLOCK_DDL", "BLOCK_COMMIT"] {
        other.query_drop(format!("BACKUP STAGE {stage}")).await.unwrap();
    }
    let writing = tokio::spawn({
        let store = store.clone();
        async move { store.update("a".into(), created, value("2"), Ttl::NONE).await }
    });
    let committing =
        format!("SELECT id FROM information_schema.processlist WHERE db = '{database}' AND info = 'COMMIT'");
    let id = loop {
        if let Some(id) = other.query_first::<u64, _>(committing.as_str()).await.unwrap() {
            break id;
        }
    };
    other.query_drop(format!("KILL {id}")).await.unwrap();
    let error = writing.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }) && error.remedy() == Remedy::Find, "{error:?}");
    other.query_drop("BACKUP STAGE END").await.unwrap();
    let kv = get(&store, "a", None).await.unwrap();
    assert!(kv.mod_revision == created || kv.value == value("2"), "one or the other: {kv:?}");
    let last = update(&store, "a", kv.mod_revision, "3").await;
    while events(&mut watcher, 1).await.last().unwrap().revision() != last {}
}

/// Until some transaction waits for another one.
pub(super) async fn wait_for_a_lock(looking: &mut Conn, check: impl Fn()) {
    let waits = "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
    while looking.query_first::<i64, _>(waits).await.unwrap() == Some(0) {
        check();
        // The server makes its list anew only for somebody who has not asked for a tenth of a second.
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
}

pub(super) async fn a_lock_of_somebody_else_is_waited_for() {
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

pub(super) async fn a_server_that_is_away_is_waited_for_within_the_patience(server: Server) {
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

pub(super) async fn a_server_that_says_nothing_is_given_up(server: Server) {
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

pub(super) async fn a_connection_that_is_killed_is_made_anew() {
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

pub(super) async fn a_crash_in_the_middle_of_load_loses_nothing(server: Server) {
    let Subject { store, .. } = subject(&fresh("")).await;
    let restart = move || {
        let mut server = server.lock().unwrap();
        let server = server.as_mut().unwrap();
        server.crash();
        server.resume();
    };
    shared::crashes_lose_nothing(&store, restart).await;
}
