//! The API server beside a bare server that sends the same bytes: `cargo bench -p k3sd --bench api`. Starts the release
//! build of `k3sd server --disable-agent` over a directory on a disk, with TLS, authentication, RBAC and fsync on, and
//! drives it, and the peer, with the same client over the same kind of connections, in turns.
//!
//! ```text
//! cargo bench -p k3sd --bench api -- [--quick] [--rounds N] [--directory DIRECTORY] [ROW]...
//! ```
//!
//! `K3SD_BINARY` names a binary to measure; without it the release build is made. The peer is hyper with rustls and
//! nothing else, in a process of its own: this program, started as `--bare`. A bar that is missed is printed, and no
//! failure. `--quick` only shows that everything works.
#![expect(clippy::disallowed_methods, reason = "a measurement reads clocks and the environment, and supervises nobody")]

mod bare;
mod client;
mod large;
mod server;
#[path = "../../../kine/benches/etcd/table.rs"]
mod table;
mod traffic;
mod watching;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::server::Setting;
use crate::table::Row;

/// What goes wrong ends the run with its words.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// How often the servers take turns.
    pub(crate) rounds: usize,
    /// How long a turn is.
    pub(crate) span: Duration,
    /// Pods of the list that is measured.
    pub(crate) pods: usize,
    /// Pods of the measurement of memory.
    pub(crate) stored: usize,
    /// Watchers of one resource.
    pub(crate) watchers: usize,
    /// Watchers that select other nodes.
    pub(crate) others: usize,
}

const FULL: Scale =
    Scale { rounds: 5, span: Duration::from_secs(2), pods: 10_000, stored: 100_000, watchers: 1000, others: 5000 };
const QUICK: Scale =
    Scale { rounds: 1, span: Duration::from_millis(300), pods: 500, stored: 2000, watchers: 50, others: 100 };

/// What can be measured by itself, in the order of the table.
const ROWS: &[&str] = &["start", "get", "list", "create", "put", "watch", "others", "memory"];

struct Order {
    scale: Scale,
    rows: Vec<String>,
    directory: Option<PathBuf>,
}

fn order() -> Result<Order, Failure> {
    let mut order = Order { scale: FULL, rows: Vec::new(), directory: None };
    let mut rounds = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => {} // cargo says so to every bench.
            "--quick" => order.scale = QUICK,
            "--rounds" => rounds = Some(words.next().ok_or("--rounds needs a number")?.parse()?),
            "--directory" => order.directory = Some(words.next().ok_or("--directory needs a path")?.into()),
            row if ROWS.contains(&row) => order.rows.push(word),
            _ => return Err(format!("unknown: {word}; rows: {}", ROWS.join(", ")).into()),
        }
    }
    if order.rows.is_empty() {
        order.rows = ROWS.iter().map(ToString::to_string).collect();
    }
    order.scale.rounds = rounds.unwrap_or(order.scale.rounds).max(1);
    Ok(order)
}

/// The binary to measure: the one that is named, or the release build.
fn binary() -> Result<PathBuf, Failure> {
    if let Some(named) = std::env::var_os("K3SD_BINARY") {
        return Ok(PathBuf::from(named));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("the target directory has a parent")?;
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--package", "k3sd", "--manifest-path"]).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"));
    if !build.env("CARGO_TARGET_DIR", target).status()?.success() {
        return Err("the release build failed".into());
    }
    Ok(target.join("release/k3sd"))
}

async fn measure(row: &str, setting: &Setting, scale: &Scale) -> Result<Vec<Row>, Failure> {
    match row {
        "start" => large::start(setting, scale).await,
        "get" => traffic::get(setting, scale).await,
        "list" => traffic::list(setting, scale).await,
        "create" => traffic::create(setting, scale).await,
        "put" => traffic::put(setting, scale).await,
        "watch" => watching::one_resource(setting, scale).await,
        "others" => watching::other_nodes(setting, scale).await,
        _ => large::memory(setting, scale).await,
    }
}

fn run() -> Result<(), Failure> {
    let Order { scale, rows, directory } = order()?;
    let directory = directory.unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    std::fs::create_dir_all(&directory)?;
    let setting = Setting { binary: binary()?, directory };
    let load = || std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{scale:?}\nload {}", load().trim());
    Row::print_head("other");
    // One thread for the client, so that the other core is the server's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for name in rows {
        for row in runtime.block_on(measure(&name, &setting, &scale)).map_err(|why| format!("{name}: {why}"))? {
            row.print();
        }
    }
    println!("\nload at the end {}", load().trim());
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome =
        if arguments.first().is_some_and(|word| word == "--bare") { bare::run(&arguments[1..]) } else { run() };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("the measurement failed: {failure}");
            ExitCode::FAILURE
        }
    }
}
