//! A file that kine wrote opens and goes on, and one of ours has what kine reads.

use std::path::Path;

use k3sd_datastore::{Backend, KeyRange, Sqlite, SqliteOptions, StoreError, WatchRequest};
use rusqlite::Connection;

use crate::subject::{count, create, delete, events, get, keys, lines, put, rev, revision, text, update, watch};

/// As kine lays a file out, with the journal mode it uses.
const LAYOUT: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created INTEGER, deleted INTEGER,
        create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB);
    CREATE INDEX kine_name_index ON kine (name);
    CREATE UNIQUE INDEX kine_name_prev_revision_uindex ON kine (name, prev_revision);";

/// A life: a marker, updates, a delete and a new creation, a gap that was filled, a time to live, and a compaction up
/// to revision 4 whose rows are gone already (3 was replaced by 4).
const HISTORY: &str = "
    INSERT INTO kine (id, name, created, deleted, create_revision, prev_revision, lease, value, old_value) VALUES
        (1, 'compact_rev_key', 1, 0, 0, 4, 0, x'', NULL),
        (2, '/registry/health', 1, 0, 0, 0, 0, '{\"health\":\"true\"}', NULL),
        (4, '/registry/pods/a', 0, 0, 3, 3, 0, 'a2', 'a1'),
        (5, '/registry/pods/b', 1, 0, 0, 0, 0, 'b1', NULL),
        (6, 'gap-6', 0, 1, 0, 0, 0, NULL, NULL),
        (7, '/registry/pods/b', 0, 1, 0, 5, 0, NULL, 'b1'),
        (8, '/registry/events/e', 1, 0, 0, 0, 3600, 'e1', NULL),
        (9, '/registry/pods/b', 1, 0, 0, 7, 0, 'b2', NULL),
        (10, '/registry/pods/a', 0, 1, 3, 4, 0, 'a2', 'a2'),
        (11, '/registry/pods_x', 1, 0, 0, 0, 0, 'x1', NULL),
        (12, '/registry/pods/b', 0, 0, 9, 9, 0, 'b3', 'b2');";

fn fixture(path: &Path, extra: &str) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(LAYOUT).unwrap();
    connection.execute_batch(HISTORY).unwrap();
    connection.execute_batch(extra).unwrap();
}

fn open(path: &Path) -> Sqlite {
    Sqlite::open(SqliteOptions { retained_revisions_min: 0, ..SqliteOptions::new(path) }).unwrap()
}

#[tokio::test]
async fn a_file_of_kine_opens_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    fixture(&path, "");
    let store = open(&path);
    let status = store.status().await.unwrap();
    assert_eq!((status.revision, status.compacted), (rev(12), rev(4)));
    let all = ["/registry/events/e", "/registry/health", "/registry/pods/b", "/registry/pods_x"];
    assert_eq!(keys(&store, KeyRange::all(), None).await, all);
    assert_eq!(keys(&store, KeyRange::prefix("/registry/pods/"), Some(rev(8))).await, ["/registry/pods/a"]);
    assert_eq!(count(&store, KeyRange::prefix("/registry/pods/"), Some(rev(5))).await, 2);
    assert_eq!(get(&store, "/registry/events/e", None).await.unwrap().ttl.as_seconds(), 3600);
    let b = get(&store, "/registry/pods/b", None).await.unwrap();
    assert_eq!((b.create_revision, b.mod_revision), (rev(9), rev(12)));

    let mut watcher = watch(&store, "/registry/", Some(rev(5))).await;
    let expected = [
        "5 Create /registry/pods/b=b1",
        "7 Delete /registry/pods/b= was b1@5 of 5",
        "8 Create /registry/events/e=e1",
        "9 Create /registry/pods/b=b2",
        "10 Delete /registry/pods/a= was a2@4 of 3",
        "11 Create /registry/pods_x=x1",
        "12 Update /registry/pods/b=b3 was b2@9 of 9",
    ];
    assert_eq!(lines(&events(&mut watcher, 7).await), expected);
    let early = store.watch(WatchRequest::new(KeyRange::all(), Some(rev(4)))).await;
    assert!(matches!(early, Err(StoreError::Compacted { .. })), "{early:?}");

    assert_eq!(create(&store, "/registry/pods/a", "a3").await, rev(13));
    assert_eq!(update(&store, "/registry/pods/b", rev(12), "b4").await, rev(14));
    assert_eq!(lines(&events(&mut watcher, 2).await)[0], "13 Create /registry/pods/a=a3");
    store.compact(rev(14)).await.unwrap();
    drop(watcher);
    drop(store);
    let rows = dump(&path, "id, name, created, deleted, create_revision, prev_revision");
    let expected = [
        "1 compact_rev_key 1 0 0 14",
        "2 /registry/health 1 0 0 0",
        "8 /registry/events/e 1 0 0 0",
        "11 /registry/pods_x 1 0 0 0",
        "13 /registry/pods/a 1 0 0 10",
        "14 /registry/pods/b 0 0 9 12",
    ];
    assert_eq!(rows, expected);
}

/// A file with everything in it that a life leaves behind, its log not yet copied into it: kine was killed.
const STATE: &str = include_str!("../../../fixtures/kine/state.sql");

#[tokio::test]
async fn a_file_with_history_deleted_keys_and_gaps_opens_and_lists() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    {
        let kine = Connection::open(directory.path().join("kine.db")).unwrap();
        kine.execute_batch(STATE).unwrap();
        for ending in ["", "-wal"] {
            let beside = |name: &str| directory.path().join(format!("{name}{ending}"));
            std::fs::copy(beside("kine.db"), beside("state.db")).unwrap();
        }
    }
    assert!(std::fs::metadata(directory.path().join("state.db-wal")).unwrap().len() > 0, "kine leaves a log");
    let store = open(&path);
    let status = store.status().await.unwrap();
    assert_eq!((status.revision, status.compacted), (rev(34), rev(20)));
    let maps = || KeyRange::prefix("/registry/configmaps/default/");
    for (at, there) in [
        (20, &["a", "b", "c"][..]),
        (21, &["a", "b", "c", "d"]),
        (23, &["a", "b", "c", "d"]),
        (25, &["a", "c", "d"]),
        (27, &["a", "c"]),
        (29, &["a", "c", "d"]),
        (33, &["a", "d"]),
        (34, &["a", "d"]),
    ] {
        let names: Vec<_> = there.iter().map(|name| format!("/registry/configmaps/default/{name}")).collect();
        assert_eq!(keys(&store, maps(), Some(rev(at))).await, names, "at {at}");
        assert_eq!(count(&store, maps(), Some(rev(at))).await, names.len() as u64, "at {at}");
    }
    let all = [
        "/registry/configmaps/default-2/a",
        "/registry/configmaps/default/a",
        "/registry/configmaps/default/d",
        "/registry/events/default/e",
        "/registry/health",
        "/registry/masterleases/10.0.0.1",
        "/registry/namespaces/default",
    ];
    assert_eq!(keys(&store, KeyRange::all(), None).await, all);
    let d = get(&store, "/registry/configmaps/default/d", None).await.unwrap();
    assert_eq!((d.create_revision, d.mod_revision, &d.value[..]), (rev(28), rev(30), &b"d-3"[..]));
    assert_eq!(text(&store, "/registry/configmaps/default/d", Some(rev(26))).await.as_deref(), Some("d-1"));
    assert_eq!(get(&store, "/registry/masterleases/10.0.0.1", None).await.unwrap().ttl.as_seconds(), 15);

    let mut watcher = watch(&store, "/registry/configmaps/default/", Some(rev(21))).await;
    let expected = [
        "21 Create /registry/configmaps/default/d=d-1",
        "24 Update /registry/configmaps/default/a=a-3 was a-2@9 of 4",
        "25 Delete /registry/configmaps/default/b= was b-1@13 of 13",
        "27 Delete /registry/configmaps/default/d= was d-1@21 of 21",
        "28 Create /registry/configmaps/default/d=d-2",
        "30 Update /registry/configmaps/default/d=d-3 was d-2@28 of 28",
        "33 Delete /registry/configmaps/default/c= was c-3@20 of 16",
    ];
    assert_eq!(lines(&events(&mut watcher, 7).await), expected);
    assert_eq!(create(&store, "/registry/configmaps/default/b", "b-2").await, rev(35));
    assert_eq!(update(&store, "/registry/configmaps/default/a", rev(24), "a-4").await, rev(36));
    store.compact(rev(36)).await.unwrap();
    let left = keys(&store, maps(), None).await;
    assert_eq!(left, ["a", "b", "d"].map(|name| format!("/registry/configmaps/default/{name}")));
}

/// The rows of a file, a line each.
fn dump(path: &Path, columns: &str) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut select = connection.prepare(&format!("SELECT concat_ws(' ', {columns}) FROM kine ORDER BY id")).unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn our_rows_are_what_kine_writes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let store = open(&path);
    assert_eq!(revision(&store).await, rev(1));
    create(&store, "/a", "1").await;
    put(&store, "/a", "2").await;
    put(&store, "/a", "3").await;
    delete(&store, "/a").await;
    create(&store, "/a", "4").await;
    drop(store);
    let columns =
        "id, name, created, deleted, create_revision, prev_revision, lease, coalesce(CAST(value AS TEXT), 'NULL'),
        coalesce(CAST(old_value AS TEXT), 'NULL'), typeof(name)";
    let expected = [
        "1 compact_rev_key 1 0 0 0 0  NULL text",
        "2 /a 1 0 0 0 0 1 NULL text",
        "3 /a 0 0 2 2 0 2 NULL text",
        "4 /a 0 0 2 3 0 3 NULL text",
        "5 /a 0 1 0 4 0 NULL 3 text",
        "6 /a 1 0 0 5 0 4 NULL text",
    ];
    assert_eq!(dump(&path, columns), expected);
    let connection = Connection::open(&path).unwrap();
    let query = "SELECT count(*) FROM sqlite_schema WHERE type = 'index'";
    let indexes: i64 = connection.query_row(query, [], |row| row.get(0)).unwrap();
    assert_eq!(indexes, 0, "kine makes its own when it starts");
    let made = "CREATE INDEX IF NOT EXISTS kine_name_index ON kine (name);
        CREATE INDEX IF NOT EXISTS kine_name_id_index ON kine (name, id);
        CREATE INDEX IF NOT EXISTS kine_id_deleted_index ON kine (id, deleted);
        CREATE INDEX IF NOT EXISTS kine_prev_revision_index ON kine (prev_revision);
        CREATE UNIQUE INDEX IF NOT EXISTS kine_name_prev_revision_uindex ON kine (name, prev_revision);";
    assert_eq!(connection.execute_batch(made), Ok(()), "and nothing is in its way");
    let sequence: i64 = connection.query_row("SELECT seq FROM sqlite_sequence", [], |row| row.get(0)).unwrap();
    assert_eq!(sequence, 6);
}

#[tokio::test]
async fn two_markers_become_the_greater_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    fixture(
        &path,
        "INSERT INTO kine (id, name, created, deleted, prev_revision) VALUES (13, 'compact_rev_key', 1, 0, 3)",
    );
    let store = open(&path);
    let status = store.status().await.unwrap();
    assert_eq!(status.compacted, rev(4));
    assert_eq!(status.revision, rev(13), "no revision goes back, even if its row was a mistake");
    assert_eq!(create(&store, "/new", "").await, rev(14));
}

#[tokio::test]
async fn a_counter_ahead_of_the_rows_is_not_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    fixture(&path, "DELETE FROM kine WHERE id > 10; UPDATE sqlite_sequence SET seq = 20 WHERE name = 'kine'");
    let store = open(&path);
    assert_eq!(revision(&store).await, rev(20));
    assert_eq!(create(&store, "/new", "").await, rev(21));
    assert_eq!(dump(&path, "id, name")[9], "20 gap-20");
}

#[tokio::test]
async fn the_layout_before_kine_is_taken_over_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let old = "CREATE TABLE key_value (id INTEGER PRIMARY KEY, name TEXT, value BLOB, ttl INTEGER);
        INSERT INTO key_value (name, value, ttl) VALUES ('/a', 'a1', 0), ('/b', 'b1', 60), ('/a', 'a2', 0);";
    Connection::open(&path).unwrap().execute_batch(old).unwrap();
    for _ in 0..2 {
        let store = open(&path);
        assert_eq!(keys(&store, KeyRange::all(), None).await, ["/a", "/b"]);
        assert_eq!(text(&store, "/a", None).await.as_deref(), Some("a2"));
        assert_eq!(get(&store, "/b", None).await.unwrap().ttl.as_seconds(), 15);
        assert_eq!(revision(&store).await, rev(3));
    }
}

/// Nobody else should write to the file, but if somebody does, nobody misses it.
#[tokio::test]
async fn rows_of_another_process_are_noticed_with_the_next_write() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let store = open(&path);
    let mut watcher = watch(&store, "", None).await;
    create(&store, "/a", "1").await;
    let other = Connection::open(&path).unwrap();
    let insert = "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value)
        VALUES ('/b', 1, 0, 0, 0, 0, 'foreign')";
    other.execute_batch(insert).unwrap();
    assert_eq!(text(&store, "/b", None).await.as_deref(), Some("foreign"));
    assert_eq!(create(&store, "/c", "3").await, rev(4));
    let expected = ["2 Create /a=1", "3 Create /b=foreign", "4 Create /c=3"];
    assert_eq!(lines(&events(&mut watcher, 3).await), expected);
}
