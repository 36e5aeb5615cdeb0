//! Files that are not what we wrote are refused, with the reason, and left alone. What is not refused serves a state
//! that there was.

use std::fs;
use std::path::{Path, PathBuf};

use k3sd_datastore::{
    Backend, GetRequest, KeyRange, ListRequest, Remedy, Sqlite, SqliteOptions, StoreError, WatchMessage,
};

use crate::subject::{Random, create, delete, events, lines, name, put, rev, watch};

fn refusal(path: &Path) -> StoreError {
    let before = fs::read(path).unwrap();
    let error = Sqlite::open(SqliteOptions::new(path))
        .map(drop)
        .expect_err(&format!("a file of {} bytes is accepted", before.len()));
    assert_eq!(fs::read(path).unwrap(), before, "a refused file is left as it was");
    error
}

#[tokio::test]
async fn a_truncated_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let store = Sqlite::open(SqliteOptions::new(&path)).unwrap();
    for number in 0..300 {
        create(&store, &format!("/k/{number}"), &"x".repeat(1000)).await;
    }
    drop(store);
    let whole = fs::read(&path).unwrap();
    let mut random = Random::new(2);
    for point in 0..20 {
        // Small ones, whole pages, and anything.
        let length = match point {
            0 => 1,
            1 => 99,
            2 => 4096,
            3 => whole.len() - 1,
            _ => 1 + usize::try_from(random.below(whole.len() as u64 - 2)).unwrap(),
        };
        fs::write(&path, &whole[..length]).unwrap();
        let error = refusal(&path);
        assert_eq!(error.remedy(), Remedy::Restore, "{length} of {} bytes: {error:?}", whole.len());
        assert!(error.to_string().contains("state.db is damaged: "), "{error}");
    }
    fs::write(&path, &whole).unwrap();
    Sqlite::open(SqliteOptions::new(&path)).unwrap();
}

#[tokio::test]
async fn a_flipped_page_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    let store = Sqlite::open(SqliteOptions::new(&path)).unwrap();
    for number in 0..200 {
        create(&store, &format!("/k/{number}"), &"x".repeat(100)).await;
    }
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    // The third page is the root of the table; a page that happens to be free may hold anything.
    bytes[2 * 4096..2 * 4096 + 64].fill(0xa5);
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(refusal(&path), StoreError::Damaged { .. }));
}

#[test]
fn a_file_of_something_else_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.db");
    fs::write(&path, "a text that is longer than the header of a database".repeat(20)).unwrap();
    assert!(matches!(refusal(&path), StoreError::Damaged { .. }));
    fs::remove_file(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE kine (id INTEGER PRIMARY KEY, title TEXT)").unwrap();
    drop(other);
    let error = Sqlite::open(SqliteOptions { convert: false, ..SqliteOptions::new(&path) }).map(drop).unwrap_err();
    assert!(error.to_string().contains("table kine has no column name; restore it from a backup"), "{error}");
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Sqlite::open(SqliteOptions::new(file.join("state.db"))).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Database { .. }), "{error:?}");
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db/state.db");
    let store = Sqlite::open(SqliteOptions::new(&path)).unwrap();
    for (path, mode) in
        [(path.clone(), 0o600), (path.with_extension("db-wal"), 0o600), (directory.path().join("db"), 0o700)]
    {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
    drop(store);
}

/// A directory in memory, where the machine has that: what is tried so often is not about the speed of the disk.
fn memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// What a store was told to do, so that it can be compared with what is left of it.
struct Past {
    /// An event for each revision from 2 on, as [`lines`] writes it.
    events: Vec<String>,
    /// The keys and values after each of them.
    states: Vec<Vec<(String, String)>>,
}

/// A file and its log as a process leaves them that is killed, after so many writes: part of the log is in the file
/// already.
async fn crashed(directory: &Path, random: &mut Random, writes: usize, value_bytes_max: u64) -> Past {
    let path = directory.join("living.db");
    let store = Sqlite::open(SqliteOptions { retained_revisions_min: 0, ..SqliteOptions::new(&path) }).unwrap();
    let mut watcher = watch(&store, "", None).await;
    let mut past = Past { events: Vec::new(), states: Vec::new() };
    let mut state = std::collections::BTreeMap::new();
    for number in 0..writes {
        let key = format!("/k/{:03}", random.below(200));
        let text = format!("{number}:{}", "x".repeat(usize::try_from(random.below(value_bytes_max)).unwrap()));
        if random.below(5) == 0 && state.remove(&key).is_some() {
            delete(&store, &key).await;
        } else {
            put(&store, &key, &text).await;
            state.insert(key, text);
        }
        past.states.push(state.clone().into_iter().collect());
        // Read while it goes on, or the watcher is cut off for being slow.
        past.events.extend(lines(&events(&mut watcher, 1).await));
    }
    for ending in ["", "-wal"] {
        fs::copy(with(&path, ending), with(&directory.join("state.db"), ending)).unwrap();
    }
    drop((watcher, store));
    fs::copy(&path, directory.join("whole.db")).unwrap();
    past
}

fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Whether a store says what it once was: all of it as of its revision, and every event up to there.
async fn is_past(store: &Sqlite, past: &Past) -> Result<i64, String> {
    let fault = |error: StoreError| {
        assert_eq!(error.remedy(), Remedy::Restore, "{error:?}");
        error.to_string()
    };
    let status = store.status().await.map_err(fault)?;
    let now = status.revision.get();
    let count = usize::try_from(now - 1).map_err(|error| error.to_string())?;
    let listed = store.list(ListRequest::new(KeyRange::all())).await.map_err(fault)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let found: Vec<_> = listed.kvs.iter().map(|kv| (name(&kv.key), text(&kv.value))).collect();
    let there = count.checked_sub(1).map_or(Vec::new(), |last| past.states.get(last).cloned().unwrap_or_default());
    if found != there {
        return Err(format!("at revision {now} there are {} keys instead of {}", found.len(), there.len()));
    }
    for (key, value) in &there {
        let got = store.get(GetRequest { key: key.as_str().into(), at: None }).await.map_err(fault)?;
        if got.kv.as_ref().map(|kv| text(&kv.value)).as_ref() != Some(value) {
            return Err(format!("{key} is not what it was at revision {now}"));
        }
    }
    if count > 0 {
        let mut watcher = watch(store, "", Some(rev(2))).await;
        let told = lines(&events(&mut watcher, count).await);
        if told != past.events[..count] {
            return Err(format!("the events up to {now} are others"));
        }
    }
    Ok(now)
}

/// One way to lose what was written.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Truncate,
    /// One bit.
    Flip,
    /// Half a kilobyte, as a disk loses it.
    Zero,
}

fn do_harm(path: &Path, harm: Harm, random: &mut Random) -> usize {
    let mut bytes = fs::read(path).unwrap();
    let place = usize::try_from(random.below(bytes.len() as u64)).unwrap();
    match harm {
        Harm::Truncate => bytes.truncate(place),
        Harm::Flip => bytes[place] ^= 1 << random.below(8),
        Harm::Zero => {
            let end = (place + 512).min(bytes.len());
            bytes[place..end].fill(0);
        }
    }
    fs::write(path, bytes).unwrap();
    place
}

/// A log that is cut or damaged anywhere, and a file that is cut anywhere: what opens is the past, whole and in order.
#[tokio::test]
async fn what_is_left_of_a_crashed_store_is_its_past_or_refused() {
    let mut random = Random::new(3);
    let (images, points) = if std::env::var_os("CHAOS_LONG").is_some() { (16, 20) } else { (3, 5) };
    for image in 0..images {
        let directory = memory();
        // The log begins anew after some six hundred of these, and is copied into the file from two hundred on.
        let writes = 60 + usize::try_from(random.below(400 + image * 50)).unwrap();
        let past = crashed(directory.path(), &mut random, writes, 20_000).await;
        let (mut refused, mut older, mut whole) = (0, 0, 0);
        for point in 0..points {
            match harmed(directory.path(), &past, point, &mut random).await {
                None => refused += 1,
                Some(revision) if revision < past.events.len() as i64 + 1 => older += 1,
                Some(_) => whole += 1,
            }
        }
        println!("{writes} writes: {refused} refused, {older} served as they once were, {whole} whole");
    }
}

/// Harms a copy, and opens it. Returns the revision that it serves, unless it is refused.
async fn harmed(directory: &Path, past: &Past, point: usize, random: &mut Random) -> Option<i64> {
    let copy = memory();
    let path = copy.path().join("state.db");
    for ending in ["", "-wal"] {
        fs::copy(with(&directory.join("state.db"), ending), with(&path, ending)).unwrap();
    }
    let (ending, harm) =
        [("-wal", Harm::Truncate), ("-wal", Harm::Flip), ("-wal", Harm::Zero), ("", Harm::Truncate)][point % 4];
    let place = do_harm(&with(&path, ending), harm, random);
    let what = format!("{harm:?} of state.db{ending} at {place} after {} writes", past.events.len());
    match Sqlite::open(SqliteOptions::new(&path)) {
        Ok(store) => {
            let now = is_past(&store, past).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            // And it goes on from there.
            assert_eq!(create(&store, "/new", "1").await, rev(now + 1), "{what}");
            Some(now)
        }
        Err(error) => {
            assert_eq!(error.remedy(), Remedy::Restore, "{what}: {error:?}");
            assert!(error.to_string().contains("state.db is damaged: "), "{what}: {error}");
            None
        }
    }
}

/// Nothing guards the bytes of a value, so a flipped bit may go unnoticed. But whatever the file says, everything that is
/// asked is answered, and the store's threads live.
#[tokio::test]
async fn a_flipped_bit_anywhere_stops_no_thread() {
    let mut random = Random::new(4);
    let directory = memory();
    let past = crashed(directory.path(), &mut random, 120, 10).await;
    let points = if std::env::var_os("CHAOS_LONG").is_some() { 500 } else { 40 };
    let (mut refused, mut failed) = (0, 0);
    for _ in 0..points {
        let copy = memory();
        let path = copy.path().join("state.db");
        fs::copy(directory.path().join("whole.db"), &path).unwrap();
        let place = do_harm(&path, Harm::Flip, &mut random);
        let Ok(store) = Sqlite::open(SqliteOptions::new(&path)) else {
            refused += 1;
            continue;
        };
        let answered = tokio::time::timeout(std::time::Duration::from_secs(30), ask_everything(&store, &past));
        let errors = answered.await.unwrap_or_else(|_| panic!("no answer after a flip at {place}"));
        failed += usize::from(!errors.is_empty());
        for error in errors {
            let gone = matches!(error, StoreError::Closed | StoreError::Unknown { .. });
            assert!(!gone, "a thread ended after a flip at {place}: {error:?}");
        }
    }
    println!("{refused} of {points} refused, {failed} found out by a question");
}

/// Asks for all there is, in each way, and writes. Returns what went wrong.
async fn ask_everything(store: &Sqlite, past: &Past) -> Vec<StoreError> {
    let mut errors = Vec::new();
    let keys = past.states.last().into_iter().flatten().map(|(key, _)| key.as_str());
    for key in keys.clone().chain(["/none"]) {
        errors.extend(store.get(GetRequest { key: key.into(), at: None }).await.err());
    }
    for key in keys.take(5).chain(["/none"]) {
        errors.extend(store.delete(key.into(), None).await.err());
        errors.extend(store.create(key.into(), "new".into(), k3sd_datastore::Ttl::NONE).await.err());
    }
    for at in [None, Some(rev(60))] {
        errors.extend(store.list(ListRequest { at, ..ListRequest::new(KeyRange::all()) }).await.err());
    }
    match store.watch(k3sd_datastore::WatchRequest::new(KeyRange::all(), Some(rev(2)))).await {
        // It ends, or has told everything there is when the last one is told.
        Ok(mut watcher) => {
            let asked = store.progress().await;
            let until = asked.as_ref().map_or(0, |revision| revision.get());
            errors.extend(asked.err());
            while let Ok(message) = watcher.next().await {
                let told = match message {
                    WatchMessage::Events(events) => events.last().map_or(0, |event| event.revision().get()),
                    WatchMessage::Progress(revision) => revision.get(),
                };
                if told >= until {
                    break;
                }
                errors.extend(store.progress().await.err());
            }
        }
        Err(error) => errors.push(error),
    }
    errors.extend(store.compact(rev(80)).await.err());
    errors.extend(store.status().await.err());
    errors
}
