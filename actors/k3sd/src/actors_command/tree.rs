//! `actors tree`: the whole tree, drawn or as nested objects.

use std::io::Write;

use k3sd_runtime::inspect::Client;
use k3sd_runtime::inspect::wire::{Actor, Tree};
use serde::Serialize;

use super::text::{columns, role, shown};
use super::{ActorsError, write, write_json};
use crate::cli::actors::ActorsOutput;

/// The root with the frame around it in one object.
#[derive(Serialize)]
struct Flat<'a> {
    version: u32,
    at_unix_ms: u64,
    pid: u32,
    alive: usize,
    #[serde(flatten)]
    root: &'a Actor,
}

pub(super) async fn run(
    client: &Client,
    output: ActorsOutput,
    plain: bool,
    out: &mut dyn Write,
) -> Result<(), ActorsError> {
    let Tree { version, at_unix_ms, pid, alive, root } = &client.tree().await?;
    match output {
        ActorsOutput::Json => {
            write_json(out, &Flat { version: *version, at_unix_ms: *at_unix_ms, pid: *pid, alive: *alive, root })
        }
        ActorsOutput::Text if plain => write(out, &shape(root)),
        ActorsOutput::Text => write(out, &drawing(root)),
    }
}

/// Every actor with what it is and how it fares.
fn drawing(root: &Actor) -> String {
    let mut rows = vec![["ACTOR", "KIND", "STATE", "RESTARTS", "MAILBOX"].map(str::to_owned).to_vec()];
    let cells = |actor: &Actor| {
        let numbers = [actor.restarts.to_string(), actor.mailbox.depth.to_string()];
        [shown(role(actor)), shown(&actor.state)].into_iter().chain(numbers).collect()
    };
    branch(root, "", "", &mut rows, &|actor| &actor.children, &cells);
    columns(&rows, &[3, 4])
}

/// What stays the same while a tree runs: no counters, and no children of dynamic supervisors.
fn shape(root: &Actor) -> String {
    let fixed = |actor: &Actor| actor.strategy.as_deref() != Some("dynamic");
    let mut rows = Vec::new();
    branch(root, "", "", &mut rows, &|actor| if fixed(actor) { &actor.children } else { &[] }, &|actor| {
        vec![description(actor)]
    });
    columns(&rows, &[])
}

/// A supervisor's strategy and budget; of others when they come back and what they are.
fn description(actor: &Actor) -> String {
    let role = shown(role(actor));
    match (&actor.strategy, actor.intensity) {
        (Some(_), Some(intensity)) => {
            let period = match intensity.period_ms {
                whole if whole % 1000 == 0 => format!("{} s", whole / 1000),
                part => format!("{part} ms"),
            };
            format!("{role}, {} in {period}", intensity.restarts)
        }
        (Some(_), None) => role,
        (None, _) => format!("{}, {role}", shown(actor.restart.as_deref().unwrap_or("permanent"))),
    }
}

/// An actor's row and those below it, with the branches that lead there. As deep as the daemon's answer, which is bounded.
fn branch<'a>(
    actor: &'a Actor,
    lead: &str,
    below: &str,
    rows: &mut Vec<Vec<String>>,
    children: &impl Fn(&'a Actor) -> &'a [Actor],
    cells: &impl Fn(&'a Actor) -> Vec<String>,
) {
    let mut row = vec![format!("{lead}{}", shown(&actor.name))];
    row.extend(cells(actor));
    rows.push(row);
    let children_here = children(actor);
    for (at, child) in (1..).zip(children_here) {
        let (lead, deeper) = if at == children_here.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        branch(child, &format!("{below}{lead}"), &format!("{below}{deeper}"), rows, children, cells);
    }
}

#[cfg(test)]
mod tests {
    use k3sd_runtime::inspect::wire::{Intensity, Mailbox};

    use super::*;

    fn actor(name: &str, kind: &'static str) -> Actor {
        Actor { name: name.to_owned(), kind: kind.into(), state: "running".into(), ..Actor::default() }
    }

    fn supervisor(name: &str, strategy: &'static str, children: Vec<Actor>) -> Actor {
        let intensity = Some(Intensity { restarts: 5, period_ms: 30_000 });
        Actor { strategy: Some(strategy.into()), intensity, children, ..actor(name, "supervisor") }
    }

    fn sample() -> Actor {
        let worker = Actor {
            restart: Some("transient".into()),
            restarts: 12,
            mailbox: Mailbox { depth: 3, ..Mailbox::default() },
            ..actor("wri\u{1b}ter", "worker")
        };
        let guests = supervisor("guests", "dynamic", vec![actor("c1", "task")]);
        let server = supervisor("server", "rest_for_one", vec![worker, guests]);
        supervisor("/", "one_for_one", vec![server, actor("idle", "task")])
    }

    #[test]
    fn the_tree_is_drawn_with_its_counters() {
        let wanted = "\
ACTOR               KIND          STATE    RESTARTS  MAILBOX
/                   one_for_one   running         0        0
├─ server           rest_for_one  running         0        0
│  ├─ wri\\u{1b}ter  worker        running        12        3
│  └─ guests        dynamic       running         0        0
│     └─ c1         task          running         0        0
└─ idle             task          running         0        0
";
        assert_eq!(drawing(&sample()), wanted);
    }

    #[test]
    fn the_plain_shape_leaves_out_what_comes_and_goes() {
        let wanted = "\
/                   one_for_one, 5 in 30 s
├─ server           rest_for_one, 5 in 30 s
│  ├─ wri\\u{1b}ter  transient, worker
│  └─ guests        dynamic, 5 in 30 s
└─ idle             permanent, task
";
        assert_eq!(shape(&sample()), wanted);
    }
}
