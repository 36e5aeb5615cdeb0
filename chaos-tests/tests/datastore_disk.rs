//! The datastore on a disk that is full or damaged. What needs the right to mount is reported as ignored where there is
//! none, which is why this brings its own runner.

#[path = "../../datastore/tests/servers/runner.rs"]
mod runner;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use chaos_tests::daemon::{Daemon, PATIENCE};
use chaos_tests::etcd::Encoding;
use chaos_tests::history::Outcome;
use chaos_tests::judge::judge;
use chaos_tests::load::{Load, LoadOptions, Progress};
use chaos_tests::{Replay, seed};
use k3sd_runtime::Rng;
use rustix::process::Signal;
use tempfile::TempDir;

use self::runner::{Runner, Trial};

/// The size of the small file system: enough for the history that is kept, and for the log.
const DISK: &str = "size=48m";
/// What is taken of it at first: the rest is too little for the history that is kept.
const BALLAST_BYTES: usize = 44 << 20;
/// Options of the process: history that is dropped early.
const ARGUMENTS: &[&str] = &["--compact-min-retain", "100", "--watch-progress-notify-interval", "100ms"];

/// A small file system in memory, for as long as it is kept.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path) -> Result<Self, String> {
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(at).output();
        let output = output.map_err(|error| format!("no mount: {error}"))?;
        let complaint = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        if output.status.success() { Ok(Self(at.to_owned())) } else { Err(complaint) }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: the process may be on its way out.
        if let Err(error) = Command::new("umount").arg("--lazy").arg(&self.0).status() {
            println!("{} stays mounted: {error}", self.0.display());
        }
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("there is room for a directory")
}

async fn wait_until(load: &Load, what: &str, holds: impl Fn(Progress) -> bool) {
    let began = Instant::now();
    while !holds(load.progress()) {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}; {:?}", load.progress());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Clients that write until nothing is left are told so, and nothing that they were told turns out to be wrong. Reads go
/// on, and when there is room again, so do writes, without anybody's help.
async fn a_full_disk_stops_writes_and_heals() {
    let seed = seed();
    let _replay = Replay { seed, test: "full_disk" };
    let (disk, mut rng) = (directory(), Rng::seeded(seed));
    let _mounted = Tmpfs::mount(disk.path()).expect("it could be mounted before");
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![1; BALLAST_BYTES]).expect("there is room");
    let mut daemon = Daemon::start_kine(disk, None, ARGUMENTS).await;
    let options = LoadOptions { encoding: Encoding { value_bytes: 8_000 }, ..LoadOptions::default() };
    let load = Load::begin(daemon.endpoint(), options, 1, rng.next_u64()).await;
    wait_until(&load, "the disk is full", |progress| progress.refused >= 20).await;
    let full = load.progress();
    wait_until(&load, "reads go on", |progress| progress.read >= full.read + 100).await;
    wait_until(&load, "writes are refused", |progress| progress.refused >= full.refused + 20).await;
    fs::remove_file(&ballast).expect("it is there");
    load.wait_for_writes(200).await.expect("there is room again");
    // A new process finds everything, too.
    daemon.end_with(Signal::KILL).await;
    daemon.start_again().await;
    load.wait_for_writes(20).await.expect("writes go on");
    let history = load.end().await;
    for operation in &history.operations {
        if let Outcome::Refused { reason } = &operation.outcome {
            let words = ["database space exceeded", "revision has been compacted"];
            assert!(words.iter().any(|word| reason.contains(word)), "{operation}");
        }
    }
    judge(&history, "full_disk", seed);
    assert!(daemon.end_with(Signal::TERM).await.success());
}

/// Cut to half, the file is refused by name, with what to do about it, and left as it is.
async fn a_damaged_file_is_refused_with_advice() {
    let mut daemon = Daemon::start_kine(directory(), None, ARGUMENTS).await;
    let load = Load::begin(daemon.endpoint(), LoadOptions::default(), 1, seed()).await;
    load.wait_for_writes(200).await.expect("it begins");
    load.end().await;
    assert!(daemon.end_with(Signal::TERM).await.success());
    let file = daemon.database_file();
    let whole = fs::read(&file).expect("it is there");
    fs::write(&file, &whole[..whole.len() / 2]).expect("it can be written");
    let log = daemon.start_in_vain().await;
    let words = format!("{} is damaged: ", file.display());
    assert!(log.contains(&words) && log.contains("; restore it from a backup"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(fs::read(&file).expect("it is there"), whole[..whole.len() / 2]);
    // The backup does it.
    fs::write(&file, &whole).expect("it can be written");
    daemon.start_again().await;
    assert!(daemon.end_with(Signal::TERM).await.success());
}

fn main() -> ExitCode {
    let mut runner = Runner::from_arguments();
    let full = Trial::new("a_full_disk_stops_writes_and_heals", a_full_disk_stops_writes_and_heals);
    runner.run_group("full", vec![full], || Tmpfs::mount(directory().path()).map(drop));
    let damaged = Trial::new("a_damaged_file_is_refused_with_advice", a_damaged_file_is_refused_with_advice);
    runner.run_group("damaged", vec![damaged], || Ok(()));
    runner.finish()
}
