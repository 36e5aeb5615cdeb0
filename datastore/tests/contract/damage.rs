//! Files that are not what we wrote are refused, with the reason, and left alone.

use std::fs;
use std::path::Path;

use k3sd_datastore::{Remedy, Sqlite, SqliteOptions, StoreError};

use crate::subject::{Random, create};

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
    assert!(error.to_string().ends_with("table kine has no column name"), "{error}");
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
