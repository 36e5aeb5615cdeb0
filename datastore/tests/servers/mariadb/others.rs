//! Others on the same table: another server of ours, and kine.

use std::time::Duration;

use k3sd_datastore::{Backend, Key, KeyRange, Remedy, Revision, Ttl};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use tokio::task::JoinSet;

use super::outages::wait_for_a_lock;
use super::{fresh, stranger, subject};
use crate::shared;
use crate::subject::{Subject, count, create, delete, events, get, keys, put, revision, text, update, value, watch};

/// As kine creates a key that was never there.
pub(super) fn insert(name: &str) -> String {
    format!(
        "INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value)
         VALUES ('{name}', 1, 0, 0, 0, 0, 'kine')"
    )
}

/// Draws a number that no row gets.
pub(super) async fn lose_a_number(kine: &mut Conn) {
    kine.query_drop(format!("START TRANSACTION; {}; ROLLBACK", insert("lost"))).await.unwrap();
}

pub(super) async fn gaps(kine: &mut Conn) -> Vec<String> {
    kine.query("SELECT name FROM kine WHERE name LIKE 'gap-%' ORDER BY id").await.unwrap()
}

pub(super) async fn two_servers_share_a_table() {
    let endpoint = fresh("");
    // Both create the database and the table at once.
    let (one, other) = tokio::join!(subject(&endpoint), subject(&endpoint));
    shared::two_servers_count_together([one.store, other.store]).await;
}

pub(super) async fn rows_of_others_are_noticed_and_gaps_filled() {
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

pub(super) async fn an_insert_under_way_is_waited_for() {
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

pub(super) async fn a_kine_that_writes_at_the_same_time_loses_nothing_and_costs_nothing() {
    const EACH: usize = 100;
    let endpoint = fresh("");
    let Subject { store, .. } = subject(&endpoint).await;
    let start = revision(&store).await;
    let mut watcher = watch(&store, "", Some(start.next())).await;
    let mut writers = JoinSet::new();
    for number in 0..2 {
        let mut kine = stranger(&endpoint).await;
        writers.spawn(async move {
            for key in 0..EACH {
                if key % 10 == 0 {
                    // It may lose the race for the number as well, and then has nothing to roll back.
                    drop(kine.query_drop(format!("START TRANSACTION; {}; ROLLBACK", insert("lost"))).await);
                    kine.query_drop("ROLLBACK").await.unwrap();
                }
                // Told that the number or the row is taken, kine's clients try again.
                while let Err(error) = kine.query_drop(insert(&format!("/kine/{number}/{key:03}"))).await {
                    assert!(matches!(&error, Error::Server(error) if [1062, 1213].contains(&error.code)), "{error}");
                }
            }
        });
    }
    for number in 0..4 {
        let store = store.clone();
        writers.spawn(async move {
            for key in 0..EACH {
                create(&store, &format!("/ours/{number}/{key:03}"), "1").await;
            }
        });
    }
    writers.join_all().await;
    let last = create(&store, "/end", "1").await;
    let mut seen: Vec<Revision> = Vec::new();
    while seen.last() != Some(&last) {
        seen.extend(events(&mut watcher, 1).await.iter().map(|event| event.revision()));
    }
    assert!(seen.is_sorted_by(|one, next| one < next));
    let mut kine = stranger(&endpoint).await;
    let rows: Vec<i64> = kine.query("SELECT id FROM kine ORDER BY id").await.unwrap();
    assert_eq!(rows, (1..=last.get()).collect::<Vec<_>>(), "there is a row for each number");
    let filled = gaps(&mut kine).await.len();
    assert_eq!(seen.len() + filled + 1, rows.len(), "the marker and the gaps are told to nobody");
    assert_eq!(count(&store, KeyRange::all(), None).await, 6 * EACH as u64 + 1);
}

pub(super) async fn history_that_others_have_compacted_is_no_gap() {
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

pub(super) async fn a_server_that_logs_statements_will_do() {
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

pub(super) async fn a_table_of_kine_is_taken_over_and_kine_goes_on() {
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
