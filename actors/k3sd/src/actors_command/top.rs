//! `actors top`: the actors with their counters, live on a terminal, once elsewhere.

use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use crossterm::event::EventStream;
use futures_util::StreamExt as _;
use k3sd_runtime::inspect::wire::Tree;
use k3sd_runtime::inspect::{Client, ClientError};
use k3sd_runtime::{Clock, Moment};
use ratatui::DefaultTerminal;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::rates::{self, Rates, Row};
use super::view::View;
use super::{ActorsError, write, write_json};
use crate::cli::actors::{ActorsOutput, TopSort};

/// One snapshot.
#[derive(Serialize)]
struct Snapshot {
    version: u32,
    at_unix_ms: u64,
    pid: u32,
    actors: Vec<Row>,
}

pub(super) async fn run(
    client: &Client,
    clock: &Clock,
    output: ActorsOutput,
    sort: TopSort,
    interval: Duration,
    out: &mut dyn Write,
) -> Result<(), ActorsError> {
    let watched = !cfg!(test) && io::stdout().is_terminal() && io::stdin().is_terminal();
    if watched && output == ActorsOutput::Text {
        return watch(client, clock, sort, interval).await;
    }
    let (tree, actors) = snapshot(client, clock, sort, interval).await?;
    match output {
        ActorsOutput::Text => write(out, &rates::table(&actors)),
        ActorsOutput::Json => {
            write_json(out, &Snapshot { version: tree.version, at_unix_ms: tree.at_unix_ms, pid: tree.pid, actors })
        }
    }
}

/// Two looks, as rates need them.
async fn snapshot(
    client: &Client,
    clock: &Clock,
    sort: TopSort,
    interval: Duration,
) -> Result<(Tree, Vec<Row>), ActorsError> {
    let mut rates = Rates::default();
    let tree = client.tree().await?;
    let at = clock.now();
    rates.take_in(at, &tree);
    let (at, tree) = look(client, clock, at + interval).await;
    let tree = tree?;
    let mut rows = rates.take_in(at, &tree);
    rates::sort(&mut rows, sort);
    Ok((tree, rows))
}

async fn look(client: &Client, clock: &Clock, due: Moment) -> (Moment, Result<Tree, ClientError>) {
    clock.sleep_until(due).await;
    let tree = client.tree().await;
    (clock.now(), tree)
}

/// The terminal while it is ours. It is given back however this ends; after a panic the hook of ratatui does so first.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> Result<Self, ActorsError> {
        ratatui::try_init().map(Self).map_err(|error| {
            ratatui::try_restore().ok(); // It may have failed half-way; the first error is the one to tell.
            ActorsError::Terminal(error)
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Without a terminal there is nothing to give back.
        ratatui::try_restore().ok();
    }
}

/// Redraws on every look and every key, until a key or a signal ends it.
async fn watch(client: &Client, clock: &Clock, sort: TopSort, interval: Duration) -> Result<(), ActorsError> {
    let ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [mut interrupt, mut terminate, mut hangup] = {
        let [interrupt, terminate, hangup] = ends;
        let failed = ActorsError::Runtime;
        [interrupt.map_err(failed)?, terminate.map_err(failed)?, hangup.map_err(failed)?]
    };
    let mut screen = Screen::open()?;
    let mut keys = EventStream::new();
    let mut view = View::new(sort, interval);
    let mut looking = std::pin::pin!(look(client, clock, clock.now()));
    loop {
        screen.0.draw(|frame| view.draw(frame)).map_err(ActorsError::Terminal)?;
        tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            key = keys.next() => match key {
                Some(Ok(event)) if view.input(&event) => {}
                Some(Err(error)) => return Err(ActorsError::Terminal(error)),
                Some(Ok(_)) | None => return Ok(()),
            },
            (at, tree) = looking.as_mut() => {
                match tree {
                    Ok(tree) => view.take_in(at, &tree),
                    Err(error) => view.trouble(&error.to_string()),
                }
                looking.set(look(client, clock, at + interval));
            }
        }
    }
}
