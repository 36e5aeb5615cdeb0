//! A file system without space: writes say so, reads go on, and nothing has to be done when space returns.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use k3sd_datastore::{Backend, KeyRange, Remedy, Sqlite, SqliteOptions, StoreError, Ttl};

use crate::subject::{count, create, get, revision, text, value};

/// A small file system in memory, for as long as it is kept.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path, size: &str) -> Result<Self, String> {
        let output =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).output();
        let output = output.map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(Self(at.to_owned()))
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

#[tokio::test]
#[ignore = "mounts a small file system, which needs root; test.sh runs it when it may"]
async fn a_full_disk_stops_writes_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let _mounted = Tmpfs::mount(directory.path(), "6m").unwrap();
    let ballast = directory.path().join("ballast");
    fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    let store = Sqlite::open(SqliteOptions::new(directory.path().join("state.db"))).unwrap();
    let big = "x".repeat(64 << 10);
    let mut written = 0;
    let error = loop {
        match store.create(format!("/k/{written:03}").into(), value(&big), Ttl::NONE).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1000, "the disk is never full");
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert_eq!(error.remedy(), Remedy::Retry);
    assert!(written > 5, "{written}");
    let before = revision(&store).await;
    for _ in 0..3 {
        assert!(matches!(store.create("/more".into(), value(&big), Ttl::NONE).await, Err(StoreError::Full { .. })));
        assert_eq!(count(&store, KeyRange::prefix("/k/"), None).await, written);
        assert_eq!(text(&store, "/k/000", None).await.as_deref(), Some(big.as_str()));
    }
    assert_eq!(get(&store, "/more", None).await, None);
    assert_eq!(revision(&store).await, before);

    fs::remove_file(&ballast).unwrap();
    assert_eq!(create(&store, "/more", &big).await, before.next(), "no revision was lost");
    drop(store);
    let store = Sqlite::open(SqliteOptions::new(directory.path().join("state.db"))).unwrap();
    assert_eq!(count(&store, KeyRange::all(), None).await, written + 1);
}
