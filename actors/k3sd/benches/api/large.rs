//! Start, idleness and memory.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::server::{Server, Setting};
use crate::table::{Row, Times};
use crate::traffic::{PODS, make_pods, make_service_account};
use crate::{Failure, Scale};

/// How long an idle server is looked at.
const IDLE: Duration = Duration::from_secs(20);
/// What it does at its start is over by then.
const SETTLE: Duration = Duration::from_secs(5);

/// What the best of others took, without TLS, authentication and authorization: its start, and its resident memory.
const RIVAL_START_MS: f64 = 50.0;
const RIVAL_MIB: f64 = 34.3;

const MIB: f64 = (1 << 20) as f64;

/// Starts on an empty and on a warm directory, and what an idle server takes.
pub(crate) async fn start(setting: &Setting, scale: &Scale) -> Result<Vec<Row>, Failure> {
    let (mut cold, mut warm) = (Times::default(), Times::default());
    let mut last = None;
    for _ in 0..scale.rounds {
        drop(last.take());
        let directory = tempfile::tempdir_in(&setting.directory)?;
        cold.push(Server::start_in(setting, directory.path()).await?.took);
        let server = Server::start_in(setting, directory.path()).await?;
        warm.push(server.took);
        last = Some((server, directory));
    }
    let (server, _directory) = last.ok_or("at least one round")?;
    tokio::time::sleep(SETTLE).await;
    let (spent, begun) = (server.cpu_micros()?, Instant::now());
    tokio::time::sleep(IDLE).await;
    let share = (server.cpu_micros()? - spent) as f64 / begun.elapsed().as_micros() as f64 * 100.0;
    let (resident, _) = server.resident_bytes()?;
    let binary = stripped_bytes(&setting.binary)?;
    Ok(vec![
        Row::at_most("start to /readyz on an empty directory, median", 1000.0, "ms", cold.at(500))
            .named("api-start-empty"),
        Row::at_most("start to /readyz on a warm directory, median", 500.0, "ms", warm.at(500)).named("api-start-warm"),
        Row::at_most("resident memory, idle, nothing stored", 30.0, "MiB", resident as f64 / MIB).named("api-memory"),
        Row::at_most("processor, idle", 0.2, "% of a core", share).named("api-processor"),
        Row::at_most("start to /readyz beside the best rival's, warm", RIVAL_START_MS, "ms", warm.at(500))
            .named("rival-start"),
        Row::at_most("resident memory beside the best rival's", RIVAL_MIB, "MiB", resident as f64 / MIB)
            .named("rival-memory"),
        Row::at_most("stripped release binary", 40.0, "MiB", binary as f64 / MIB).named("binary"),
    ])
}

/// What a binary is without the names of its functions.
fn stripped_bytes(binary: &Path) -> Result<u64, Failure> {
    let stripped = tempfile::NamedTempFile::new()?;
    let done = Command::new("strip").arg("-o").arg(stripped.path()).arg(binary).status();
    if !done.map_err(|error| format!("strip (Debian: binutils) does not start: {error}"))?.success() {
        return Err(format!("{} can't be stripped", binary.display()).into());
    }
    Ok(std::fs::metadata(stripped.path())?.len())
}

/// Memory with many pods, and a start with them in the store.
pub(crate) async fn memory(setting: &Setting, scale: &Scale) -> Result<Vec<Row>, Failure> {
    let directory = tempfile::tempdir_in(&setting.directory)?;
    let server = Server::start_in(setting, directory.path()).await?;
    let client = server.connect(8).await?;
    make_service_account(&client).await?;
    make_pods(&client, scale.stored).await?;
    let bytes = client.fetch(PODS).await?.len() as f64;
    drop((client, server));
    let server = Server::start_in(setting, directory.path()).await?;
    tokio::time::sleep(SETTLE).await;
    let (resident, _) = server.resident_bytes()?;
    let pods = scale.stored;
    Ok(vec![
        Row::at_most(
            format!("start to /readyz with {pods} pods stored"),
            3000.0,
            "ms",
            server.took.as_secs_f64() * 1e3,
        )
        .named("api-start-stored"),
        Row::at_most(
            format!("resident memory with {pods} pods, beside their {:.0} MiB", bytes / MIB),
            1.5,
            "x",
            resident as f64 / bytes,
        )
        .named("api-memory-stored"),
    ])
}
