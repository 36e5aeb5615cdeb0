//! `actors events`: starts, deaths and restarts in the tree, as they happen.

use std::io::Write;
use std::time::Duration;

use k3sd_runtime::inspect::Client;
use k3sd_runtime::inspect::wire::Event;
use tokio::time::timeout;

use super::text::{shown, span, time};
use super::{ActorsError, write};
use crate::cli::actors::{ActorsOutput, EventsWish};

/// Writes events until there were enough, the time is over, the daemon ends, or somebody interrupts.
pub(super) async fn run(
    client: &Client,
    output: ActorsOutput,
    wish: &EventsWish,
    out: &mut dyn Write,
) -> Result<(), ActorsError> {
    let listening = follow(client, output, wish, out);
    match wish.duration {
        // Having listened for as long as one was told to is no failure.
        Some(duration) => timeout(duration, listening).await.unwrap_or(Ok(())),
        None => listening.await,
    }
}

async fn follow(
    client: &Client,
    output: ActorsOutput,
    wish: &EventsWish,
    out: &mut dyn Write,
) -> Result<(), ActorsError> {
    let mut events = client.events().await?;
    let mut left = wish.limit.unwrap_or(u32::MAX);
    while left > 0
        && let Some(event) = events.next().await?
    {
        if !concerns(&event, wish.path.as_deref()) {
            continue;
        }
        // Only what names an actor counts: the first line, that somebody listens, is there at once.
        if event.path.is_some() && wish.limit.is_some() {
            left -= 1;
        }
        match output {
            ActorsOutput::Json => write(out, &(serde_json::to_string(&event)? + "\n"))?,
            ActorsOutput::Text => write(out, &line(&event))?,
        }
    }
    Ok(())
}

/// Whether the event is about the actor at `path` or one below it. What is about none is everybody's business.
fn concerns(event: &Event, path: Option<&str>) -> bool {
    let (Some(path), Some(subject)) = (path, &event.path) else { return true };
    let below = || subject.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    path == "/" || subject == path || below()
}

fn line(event: &Event) -> String {
    let mut facts = Vec::new();
    facts.extend(event.incarnation.map(|life| format!("life {life}")));
    facts.extend(event.exit.as_ref().map(|exit| shown(exit)));
    let wait = |millis| match millis {
        0 => "at once".to_owned(),
        millis => format!("in {}", span(Duration::from_millis(millis))),
    };
    facts.extend(event.delay_ms.map(wait));
    facts.extend(event.attempt.map(|deaths| format!("death {deaths} in a row")));
    facts.extend(event.count.map(|count| format!("{count} events; read faster, or listen to one actor")));
    let facts = facts.join(", ");
    let detail = event.detail.as_ref().map(|detail| format!(": {}", shown(detail))).unwrap_or_default();
    let path = event.path.as_deref().map(shown).unwrap_or_default();
    let line = format!("{}  {:<10}  {path:<32}  {facts}{detail}", time(event.at_unix_ms), shown(&event.event));
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(word: &'static str, path: &str) -> Event {
        let path = Some(path.to_owned()).filter(|path| !path.is_empty());
        let incarnation = path.as_ref().map(|_| 3);
        Event { at_unix_ms: 1_893_456_000_000, event: word.into(), path, incarnation, ..Event::default() }
    }

    #[test]
    fn an_event_is_a_line() {
        let died = Event {
            exit: Some("panic".into()),
            detail: Some("lost\u{1b}[2J".to_owned()),
            ..event("died", "server/kine/store")
        };
        let restarting = Event { delay_ms: Some(1250), attempt: Some(2), ..event("restarting", "server/kine/store") };
        let at_once = Event { delay_ms: Some(0), attempt: Some(1), ..event("restarting", "a") };
        let missed = Event { count: Some(7), ..event("missed", "") };
        let rows = [
            (event("listening", ""), "listening"),
            (event("started", "a"), "started     a                                 life 3"),
            (died, "died        server/kine/store                 life 3, panic: lost\\u{1b}[2J"),
            (restarting, "restarting  server/kine/store                 life 3, in 1.2s, death 2 in a row"),
            (at_once, "restarting  a                                 life 3, at once, death 1 in a row"),
            (missed, "missed                                        7 events; read faster, or listen to one actor"),
        ];
        for (event, expected) in rows {
            assert_eq!(line(&event), format!("2030-01-01T00:00:00.000Z  {expected}\n"));
        }
    }

    #[test]
    fn a_path_means_the_actor_and_those_below() {
        let rows = [
            ("server/kine", "server/kine", true),
            ("server/kine", "server/kine/store", true),
            ("server/kine", "server/kine-2", false),
            ("server/kine", "server", false),
            ("/", "server", true),
            ("server", "", true),
        ];
        for (path, subject, expected) in rows {
            assert_eq!(concerns(&event("died", subject), Some(path)), expected, "{path} {subject}");
        }
        assert!(concerns(&event("died", "server"), None));
    }
}
