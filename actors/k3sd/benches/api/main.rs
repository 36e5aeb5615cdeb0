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
#[path = "../../../../benches/order.rs"]
mod order;
mod server;
#[path = "../../../../benches/table.rs"]
#[expect(dead_code, reason = "shared with benches that print other rows")]
mod table;
mod traffic;
mod watching;

use std::process::ExitCode;
use std::time::Duration;

use crate::order::{Order, binary, load_average};
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
    let scale = |quick| if quick { QUICK } else { FULL };
    let Order { scale, rows, directory } = Order::read(ROWS, scale, |scale| &mut scale.rounds)?;
    let setting = Setting { binary: binary()?, directory };
    println!("{scale:?}\nload {}", load_average());
    Row::print_head("other");
    // One thread for the client, so that the other core is the server's.
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
