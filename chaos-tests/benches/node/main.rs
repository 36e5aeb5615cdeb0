//! A node beside the container runtime alone: `cargo bench -p chaos-tests --bench node`. Starts the release build of
//! `k3sd server`, agent and all, in namespaces of its own, and asks it for pods through the API. The peer is a client of
//! CRI that asks the same containerd for the same sandboxes and containers, in turns.
//!
//! ```text
//! cargo bench -p chaos-tests --bench node -- [--quick] [--rounds N] [--directory DIRECTORY] [ROW]...
//! ```
//!
//! `K3SD_BINARY` names a binary to measure; without it the release build is made. Needs root, containerd, runc and a static
//! busybox; without them it says so and measures nothing. Each job runs in a mount, network and process namespace, whose
//! end takes all with it that the job has started. A bar that is missed is printed, and no failure. `--quick` only shows
//! that everything works.

mod bare;
mod jobs;
mod node;
#[path = "../../../benches/order.rs"]
mod order;
mod place;
mod pods;
mod report;
#[path = "../../../benches/table.rs"]
#[expect(dead_code, reason = "shared with benches that print other rows")]
mod table;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use crate::order::{Order, binary, load_average};
use crate::place::Setting;
use crate::table::Row;

/// What goes wrong ends the run with its words.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// How often it starts, and how often all pods are started at once.
    pub(crate) rounds: usize,
    /// Pods that are started one after the other.
    pub(crate) single: usize,
    /// Pods that are started at once.
    pub(crate) many: usize,
    /// Seconds until what a start or a burst set off is over.
    pub(crate) settle: u64,
    /// Seconds for which an idle node is looked at.
    pub(crate) idle: u64,
}

const FULL: Scale = Scale { rounds: 5, single: 25, many: 100, settle: 20, idle: 30 };
const QUICK: Scale = Scale { rounds: 1, single: 3, many: 10, settle: 3, idle: 5 };

/// What can be measured by itself, in the order of the table.
const ROWS: &[&str] = &["start", "idle", "everything", "pod", "many"];

/// What stands first on the command line of this program where it is to do a job in namespaces of its own.
const INSIDE: &str = "--inside";

fn measure(row: &str, setting: &Setting, scale: &Scale) -> Result<Vec<Row>, Failure> {
    let run = |job: &str| setting.run(job, scale);
    match row {
        "start" => {
            let mut figures = run("start")?;
            for _ in 1..scale.rounds {
                figures.add(run("start")?);
            }
            Ok(report::start(&figures))
        }
        "idle" => Ok(report::idle(&run("idle")?, &run("server")?)),
        "everything" => Ok(report::everything(&run("everything")?)),
        "pod" => Ok(report::pod(&run("pod")?)),
        _ => Ok(report::many(&run("many")?, scale.many)),
    }
}

/// Why nothing can be measured here; nothing if something can.
fn missing() -> Option<&'static str> {
    let lacks = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_err();
    if !rustix::process::geteuid().is_root() {
        return Some("containers need root");
    }
    if lacks("containerd") || lacks("runc") || !Path::new(bare::BUSYBOX).exists() {
        return Some("containerd, runc and a static busybox are needed");
    }
    lacks("unshare").then_some("unshare is needed")
}

fn run() -> Result<(), Failure> {
    let order = Order::read(ROWS, |quick| if quick { QUICK } else { FULL }, |scale| &mut scale.rounds)?;
    if let Some(why) = missing() {
        println!("ignored: {why}");
        return Ok(());
    }
    let setting = Setting { binary: binary()?, directory: order.directory };
    println!("load at the start {}, {} rounds\n", load_average(), order.scale.rounds);
    Row::print_head("bare CRI");
    for name in order.rows {
        for row in measure(&name, &setting, &order.scale).map_err(|why| format!("{name}: {why}"))? {
            row.print();
        }
    }
    println!("\nload at the end {}", load_average());
    Ok(())
}

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match words.first() {
        Some(word) if word == INSIDE => jobs::run(words.split_off(1)),
        _ => run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("the measurement failed: {failure}");
            ExitCode::FAILURE
        }
    }
}
