//! The datastore beside etcd: `cargo bench -p k3sd-kine --bench etcd`. Starts the release build of `k3sd kine` and
//! Debian's etcd (package `etcd-server`) over directories on the same disk, drives both with the same client in turns,
//! and prints a table. Both wait for the disk with every commit. A bar that is missed is printed, and no failure.
//!
//! ```text
//! cargo bench -p k3sd-kine --bench etcd -- [--quick] [--rounds N] [--directory DIRECTORY] [ROW]...
//! ```
//!
//! `K3SD_BINARY` names a binary to measure; without it the release build is made. The directory is that of cargo's
//! target unless another is named. `--quick` only shows in seconds that everything works; its figures mean little.
#![expect(clippy::disallowed_methods, reason = "a measurement reads clocks and the environment, and supervises nobody")]

mod client;
mod growth;
mod http2;
mod load;
mod memory;
#[path = "../../../../benches/order.rs"]
mod order;
mod puts;
mod reads;
mod server;
#[path = "../../../../benches/table.rs"]
#[expect(dead_code, reason = "shared with benches that print other rows")]
mod table;
mod watching;
mod wire;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::order::{Order, binary, load_average};
use crate::server::Setting;
use crate::table::{Row, Times};

/// What goes wrong ends the run with its words.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// How often the servers take turns.
    pub(crate) rounds: usize,
    /// How long a turn of writes is.
    pub(crate) span: Duration,
    /// Keys of the lists and of the measurement of memory.
    pub(crate) keys: usize,
    /// Updates of the measurement of growth.
    pub(crate) updates: usize,
}

const FULL: Scale = Scale { rounds: 7, span: Duration::from_secs(2), keys: 100_000, updates: 1_000_000 };
const QUICK: Scale = Scale { rounds: 1, span: Duration::from_millis(300), keys: 2_000, updates: 20_000 };

/// What can be measured by itself, in the order of the table.
const ROWS: &[&str] = &["put-1", "put-64", "put-512", "range", "list", "watch", "growth", "memory"];

/// The magic number of a file system in memory, where waiting for the disk means nothing.
const TMPFS: u64 = 0x0102_1994;

/// What a reader has to know of the machine.
fn introduce(setting: &Setting, scale: &Scale) -> Result<(), Failure> {
    if u64::try_from(rustix::fs::statfs(&setting.directory)?.f_type) == Ok(TMPFS) {
        return Err(format!("{} is in memory; name a directory on a disk", setting.directory.display()).into());
    }
    let version = Command::new("etcd").arg("--version").output();
    let version = version.map_err(|error| format!("etcd (Debian: etcd-server) does not start: {error}"))?;
    let version = String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default().to_owned();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = std::thread::available_parallelism()?;
    println!("{version}, Linux {}, {cores} cores, load {}", kernel.trim(), load_average());
    println!("waiting for the disk after 4 KiB: {:.2} ms in the middle", fsync(&setting.directory)?);
    println!("{scale:?}\n");
    Ok(())
}

/// What the disk alone costs, in milliseconds.
fn fsync(directory: &Path) -> Result<f64, Failure> {
    use std::io::Write;
    let mut file = tempfile::tempfile_in(directory)?;
    let mut times = Times::default();
    for _ in 0..200 {
        file.write_all(&[b'x'; 4096])?;
        let begun = Instant::now();
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    Ok(times.at(500))
}

async fn measure(row: &str, setting: &Setting, scale: &Scale) -> Result<Vec<Row>, Failure> {
    match row {
        "put-1" => puts::measure(setting, scale, &puts::BARS[0]).await,
        "put-64" => puts::measure(setting, scale, &puts::BARS[1]).await,
        "put-512" => puts::measure(setting, scale, &puts::BARS[2]).await,
        "range" => reads::pages(setting, scale).await,
        "list" => reads::whole(setting, scale).await,
        "watch" => watching::measure(setting, scale).await,
        "growth" => growth::measure(setting, scale).await,
        _ => memory::measure(setting, scale).await,
    }
}

fn run() -> Result<(), Failure> {
    let scale = |quick| if quick { QUICK } else { FULL };
    let Order { scale, rows, directory } = Order::read(ROWS, scale, |scale| &mut scale.rounds)?;
    let setting = Setting { binary: binary()?, directory };
    introduce(&setting, &scale)?;
    Row::print_head("etcd");
    // One thread for the client. What is measured inside this process brings its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for name in rows {
        for row in runtime.block_on(measure(&name, &setting, &scale)).map_err(|why| format!("{name}: {why}"))? {
            row.print();
        }
    }
    println!("\nload at the end {}", load_average());
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("the measurement failed: {failure}");
            ExitCode::FAILURE
        }
    }
}
