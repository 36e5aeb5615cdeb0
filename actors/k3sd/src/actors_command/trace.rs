//! `actors trace PATH`: the messages one actor handles, as they come.

use std::io::Write;
use std::time::Duration;

use k3sd_runtime::inspect::Client;
use k3sd_runtime::inspect::wire::Trace;

use super::text::{shown, span, time};
use super::{ActorsError, write};
use crate::cli::actors::ActorsOutput;

pub(super) async fn run(
    client: &Client,
    output: ActorsOutput,
    path: &str,
    limit: u32,
    duration: Duration,
    out: &mut dyn Write,
) -> Result<(), ActorsError> {
    let mut records = client.trace(path, limit.into(), duration).await?;
    let mut count = 0_u64;
    while let Some(record) = records.next().await? {
        count += 1;
        match output {
            ActorsOutput::Json => write(out, &(serde_json::to_string(&record)? + "\n"))?,
            ActorsOutput::Text => write(out, &line(&record))?,
        }
    }
    match output {
        ActorsOutput::Json => Ok(()),
        ActorsOutput::Text => write(out, &format!("{count} messages\n")),
    }
}

fn line(record: &Trace) -> String {
    let Trace { at_unix_ms, message, took_us, waiting, failed } = record;
    let took = span(Duration::from_micros(*took_us));
    let failed = if *failed { "  failed" } else { "" };
    format!("{}  {:<24} {took:>8}  {waiting} waiting{failed}\n", time(*at_unix_ms), shown(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_line() {
        let record = Trace {
            at_unix_ms: 1_893_456_000_000,
            message: "RenewTick".into(),
            took_us: 1200,
            waiting: 3,
            failed: true,
        };
        assert_eq!(line(&record), "2030-01-01T00:00:00.000Z  RenewTick                   1.2ms  3 waiting  failed\n");
    }
}
