//! `actors show PATH`: everything known about one actor.

use std::io::Write;
use std::time::Duration;

use k3sd_runtime::inspect::Client;
use k3sd_runtime::inspect::wire::{Actor, Show};
use serde::Serialize;

use super::text::{columns, role, shown, span, time};
use super::{ActorsError, write, write_json};
use crate::cli::actors::ActorsOutput;

#[derive(Serialize)]
struct Flat<'a> {
    version: u32,
    at_unix_ms: u64,
    #[serde(flatten)]
    actor: &'a Actor,
}

pub(super) async fn run(
    client: &Client,
    output: ActorsOutput,
    path: &str,
    out: &mut dyn Write,
) -> Result<(), ActorsError> {
    let Show { version, at_unix_ms, actor } = &client.actor(path).await?;
    match output {
        ActorsOutput::Json => write_json(out, &Flat { version: *version, at_unix_ms: *at_unix_ms, actor }),
        ActorsOutput::Text => write(out, &page(actor)),
    }
}

fn page(actor: &Actor) -> String {
    let mut facts: Vec<(&str, String)> = vec![("path", shown(&actor.path))];
    let restart = actor.restart.as_deref().map(|restart| format!(", {}", shown(restart)));
    facts.push(("kind", format!("{}{}", shown(&actor.kind), restart.unwrap_or_default())));
    if let (Some(strategy), Some(budget)) = (&actor.strategy, actor.intensity) {
        let period = span(Duration::from_millis(budget.period_ms));
        facts.push(("strategy", format!("{}, bears {} restarts in {period}", shown(strategy), budget.restarts)));
    }
    let uptime = span(Duration::from_millis(actor.uptime_ms));
    let life = if actor.uptime_ms > 0 { format!(", for {uptime}") } else { String::new() };
    facts.push(("state", format!("{}, life {}{life}", shown(&actor.state), actor.incarnation)));
    facts.push(("restarts", actor.restarts.to_string()));
    let mailbox = &actor.mailbox;
    facts.push(("mailbox", format!("{} of {}, once {}", mailbox.depth, mailbox.capacity, mailbox.high_water)));
    facts.push((
        "messages",
        format!("{} received, {} refused, {} handled", mailbox.received, mailbox.refused, actor.handled),
    ));
    facts.push(("busy", span(Duration::from_micros(actor.busy_us))));
    if let Some(handling) = &actor.handling {
        facts.push((
            "handling",
            format!("{} for {}", shown(&handling.message), span(Duration::from_micros(handling.age_us))),
        ));
    }
    for note in &actor.notes {
        facts.push(("note", shown(note)));
    }
    for death in &actor.deaths {
        let detail = death.detail.as_deref().map(|detail| format!(": {}", shown(detail))).unwrap_or_default();
        let asked = if death.asked { ", as asked" } else { "" };
        let text =
            format!("{}, life {}: {}{asked}{detail}", time(death.at_unix_ms), death.incarnation, shown(&death.exit));
        facts.push(("death", text));
    }
    for child in &actor.children {
        facts.push(("child", format!("{}, {}, {}", shown(&child.name), shown(role(child)), shown(&child.state))));
    }
    if actor.children_total > actor.children.len() {
        facts.push(("children", format!("{}, not all of them shown", actor.children_total)));
    }
    let rows: Vec<Vec<String>> = facts.into_iter().map(|(key, fact)| vec![key.to_owned(), fact]).collect();
    columns(&rows, &[])
}

#[cfg(test)]
mod tests {
    use k3sd_runtime::inspect::wire::{Death, Handling, Mailbox};

    use super::*;

    #[test]
    fn a_page_tells_all() {
        let death = Death {
            at_unix_ms: 1_893_456_000_000,
            incarnation: 1,
            exit: "panic".into(),
            detail: Some("dri\u{7}ll".to_owned()),
            asked: false,
        };
        let actor = Actor {
            path: "server/kine".to_owned(),
            kind: "worker".into(),
            restart: Some("permanent".into()),
            state: "running".into(),
            incarnation: 2,
            restarts: 1,
            uptime_ms: 61_000,
            handled: 7,
            busy_us: 2500,
            mailbox: Mailbox { depth: 1, high_water: 4, capacity: 16, received: 8, refused: 0 },
            handling: Some(Handling { message: "Write".into(), age_us: 900 }),
            notes: vec!["quarantined a/b: panicked".to_owned()],
            deaths: vec![death],
            ..Actor::default()
        };
        let wanted = "\
path      server/kine
kind      worker, permanent
state     running, life 2, for 1m01s
restarts  1
mailbox   1 of 16, once 4
messages  8 received, 0 refused, 7 handled
busy      2.5ms
handling  Write for 900us
note      quarantined a/b: panicked
death     2030-01-01T00:00:00.000Z, life 1: panic: dri\\u{7}ll
";
        assert_eq!(page(&actor), wanted);
    }
}
