//! `actors kill`, `suspend` and `resume`. They only pass a wish on; the events tell what came of it.

use std::io::Write;

use k3sd_runtime::inspect::wire::Done;
use k3sd_runtime::inspect::{Client, Kill};

use super::text::shown;
use super::{ActorsError, write, write_json};
use crate::cli::actors::{ActorsOutput, KillHow};

pub(super) async fn kill(
    client: &Client,
    output: ActorsOutput,
    path: &str,
    how: KillHow,
    out: &mut dyn Write,
) -> Result<(), ActorsError> {
    let (how, wish) = match how {
        KillHow::Kill => (Kill::Kill, "killed"),
        KillHow::Panic => (Kill::Panic, "asked to panic"),
        KillHow::Stop => (Kill::Stop, "asked to stop"),
    };
    tell(&client.kill(path, how).await?, wish, output, out)
}

pub(super) async fn suspend(
    client: &Client,
    output: ActorsOutput,
    path: &str,
    out: &mut dyn Write,
) -> Result<(), ActorsError> {
    tell(&client.suspend(path).await?, "suspended", output, out)
}

pub(super) async fn resume(
    client: &Client,
    output: ActorsOutput,
    path: &str,
    out: &mut dyn Write,
) -> Result<(), ActorsError> {
    tell(&client.resume(path).await?, "resumed", output, out)
}

fn tell(done: &Done, wish: &str, output: ActorsOutput, out: &mut dyn Write) -> Result<(), ActorsError> {
    match output {
        ActorsOutput::Json => write_json(out, done),
        ActorsOutput::Text => write(out, &format!("{}: {wish} in its life {}\n", shown(&done.path), done.incarnation)),
    }
}
