//! The store as the API server has it: without a socket, over memory and over a file.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use k3sd_client::storage::{
    Change, Event, Feed, FeedEnd, FeedMessage, List, Precondition, Revision, Storage, StorageError, Write,
};
use k3sd_kine::{KineConfig, SqliteOptions, StoreConfig, StoreHandle, StoreSettings, tree};
use k3sd_runtime::{Clock, Signal, Spec, Strategy, System, Tree, subtree};

use crate::support::LIMIT;

struct Subject {
    tree: Tree,
    store: StoreHandle,
    _folder: tempfile::TempDir,
}

async fn start(store: impl FnOnce(&Path) -> StoreConfig) -> Subject {
    let folder = tempfile::tempdir().expect("a directory");
    let kine = tree(KineConfig::new(store(folder.path())), Vec::new());
    let root = Spec::new(Strategy::OneForOne).child(subtree("kine", kine.spec.budget(1000, LIMIT)));
    let tree = System::new(Clock::system()).start(root);
    tree.ready().await.expect("it starts");
    Subject { tree, store: kine.store, _folder: folder }
}

fn memory(_: &Path) -> StoreConfig {
    let settings = StoreSettings { retained_revisions_min: 0, ..StoreSettings::default() };
    StoreConfig::new("memory://", &settings).expect("the endpoint is understood")
}

fn file(folder: &Path) -> StoreConfig {
    let options = SqliteOptions { retained_revisions_min: 0, ..SqliteOptions::new(folder.join("state.db")) };
    StoreConfig::Sqlite(options)
}

fn put(key: &str, value: &str, precondition: Precondition) -> Write {
    let value = Bytes::copy_from_slice(value.as_bytes());
    Write { key: Bytes::copy_from_slice(key.as_bytes()), change: Change::Put { value, ttl: None }, precondition }
}

fn delete(key: &str, precondition: Precondition) -> Write {
    Write { key: Bytes::copy_from_slice(key.as_bytes()), change: Change::Delete, precondition }
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// Long enough for a successor to open the store.
async fn pause() {
    let clock = Clock::system();
    clock.sleep_until(clock.now() + Duration::from_millis(5)).await;
}

/// The next events; progress on the way is no event.
async fn events(feed: &mut dyn Feed) -> Result<Vec<Event>, FeedEnd> {
    loop {
        match tokio::time::timeout(LIMIT, feed.next()).await.expect("something comes") {
            FeedMessage::Events(events) => return Ok(events),
            FeedMessage::Progress(_) => {}
            FeedMessage::Ended(end) => return Err(end),
        }
    }
}

async fn everyday(subject: &Subject) {
    let store: &dyn Storage = &subject.store;
    let mut feed = store.watch(bytes("/r/"), None).await.expect("a feed");
    let first = store.write(put("/r/a", "1", Precondition::Absent)).await.expect("created").revision;
    assert!(store.latest().is_some_and(|latest| latest >= first));
    let again = store.write(put("/r/a", "2", Precondition::Absent)).await.expect_err("it is there");
    let StorageError::Conflict { current: Some(current), .. } = again else { panic!("{again:?}") };
    assert_eq!((current.modified, &current.value[..]), (first, &b"1"[..]));
    let second = store.write(put("/r/a", "2", Precondition::At(first))).await.expect("updated");
    assert_eq!(second.previous.map(|previous| previous.modified), Some(first));
    store.write(put("/other", "x", Precondition::None)).await.expect("put");
    let gone = store.write(delete("/r/a", Precondition::At(second.revision))).await.expect("deleted").revision;

    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(events(&mut *feed).await.expect("it goes on"));
    }
    let shape: Vec<_> = seen.iter().map(|event| (event.revision, event.value.clone())).collect();
    assert_eq!(shape, [(first, Some(bytes("1"))), (second.revision, Some(bytes("2"))), (gone, None)]);
    assert_eq!(seen[2].previous.as_ref().map(|previous| previous.value.clone()), Some(bytes("2")));
    assert_eq!(seen[0].previous, None);

    let then = store.get(bytes("/r/a"), Some(first)).await.expect("history");
    assert_eq!(then.found.map(|found| found.value), Some(bytes("1")));
    assert_eq!(store.get(bytes("/r/a"), None).await.expect("an answer").found, None);
    for name in ["b", "c", "d"] {
        store.write(put(&format!("/r/{name}"), name, Precondition::Absent)).await.expect("created");
    }
    let page = List { prefix: bytes("/r/"), limit: Some(2), ..List::default() };
    let listed = store.list(page.clone()).await.expect("a page");
    assert!(listed.more && listed.found.len() == 2);
    let rest = List { at: Some(listed.revision), after: Some(listed.found[1].key.clone()), ..page };
    let rest = store.list(rest).await.expect("the rest");
    assert_eq!((rest.more, &rest.found[0].key[..]), (false, &b"/r/d"[..]));
    assert_eq!(store.count(bytes("/r/"), None).await.expect("a number"), 3);

    let newest = store.progress().await.expect("a revision");
    let future = store.get(bytes("/r/a"), Some(Revision::new(newest.get() + 5))).await.expect_err("not yet");
    assert!(matches!(future, StorageError::Future { current, .. } if current == newest), "{future:?}");
    let compacted = store.compact(newest).await.expect("compacted").compacted;
    let old = store.get(bytes("/r/a"), Some(first)).await.expect_err("gone");
    assert!(matches!(old, StorageError::Compacted { .. }), "{old:?}");
    assert!(compacted <= newest);
    let late = store.watch(bytes("/r/"), Some(first)).await.err().expect("gone");
    assert!(matches!(late, StorageError::Compacted { .. }), "{late:?}");
}

/// A feed ends with its store, and another goes on behind what was seen: nothing is missed, nothing comes twice.
async fn killed(subject: &Subject) {
    let store: &dyn Storage = &subject.store;
    let mut next = store.progress().await.expect("a revision").next();
    let mut feed = store.watch(bytes("/k/"), Some(next)).await.expect("a feed");
    let (mut written, mut seen) = (Vec::new(), Vec::new());
    for round in 0..30 {
        if round % 10 == 5 {
            assert!(subject.tree.system().signal("kine/store", Signal::Kill));
        }
        // What a kill leaves open is looked up, as a client has to.
        let key = format!("/k/{round}");
        loop {
            match store.write(put(&key, "v", Precondition::Absent)).await {
                Ok(done) => break written.push(done.revision),
                Err(StorageError::Conflict { current: Some(current), .. }) => break written.push(current.modified),
                Err(StorageError::Unknown(_) | StorageError::Unavailable(_)) => {
                    pause().await;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    while seen.len() < written.len() {
        match events(&mut *feed).await {
            Ok(events) => {
                seen.extend(events.iter().map(|event| event.revision));
                next = seen.last().copied().unwrap_or(next).next();
            }
            Err(FeedEnd::Resume) => {
                feed = loop {
                    match store.watch(bytes("/k/"), Some(next)).await {
                        Ok(feed) => break feed,
                        Err(StorageError::Unavailable(_)) => pause().await,
                        Err(error) => panic!("{error:?}"),
                    }
                };
            }
            Err(end) => panic!("{end:?}"),
        }
    }
    assert_eq!(seen, written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_reads_writes_and_follows_a_store_in_memory() {
    let subject = start(memory).await;
    everyday(&subject).await;
    killed(&subject).await;
    subject.tree.stop();
    subject.tree.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_reads_writes_and_follows_a_store_in_a_file() {
    let subject = start(file).await;
    everyday(&subject).await;
    killed(&subject).await;
    subject.tree.stop();
    subject.tree.ended().await;
}
