//! What `top` shows of each actor: its counters, and how fast they grew since the last look. Pure.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use k3sd_runtime::Moment;
use k3sd_runtime::inspect::wire::{Actor, Tree};
use serde::Serialize;

use super::text::{columns, role, shown, span};
use crate::cli::actors::TopSort;

/// One actor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) path: String,
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) mailbox: usize,
    pub(super) mailbox_high_water: usize,
    pub(super) restarts: u64,
    pub(super) handled_per_second: f64,
    pub(super) busy_percent: f64,
    pub(super) uptime_ms: u64,
    /// The message in hand, and for how long.
    pub(super) handling: Option<String>,
    pub(super) handling_us: Option<u64>,
}

/// Remembers one look to compare the next with.
#[derive(Debug, Default)]
pub(super) struct Rates {
    at: Option<Moment>,
    counters: HashMap<String, (u64, u64)>,
}

impl Rates {
    /// The rows of a look, in the order of the tree. Rates are zero in the first, and for actors that are new.
    pub(super) fn take_in(&mut self, at: Moment, tree: &Tree) -> Vec<Row> {
        let passed = self.at.replace(at).map(|before| at.since(before).as_secs_f64()).filter(|passed| *passed > 0.0);
        let per_second = |grown: u64| passed.map_or(0.0, |passed| grown as f64 / passed);
        let before = std::mem::take(&mut self.counters);
        let mut rows = Vec::new();
        let mut waiting = vec![&tree.root];
        while let Some(actor) = waiting.pop() {
            let now = (actor.handled, actor.busy_us);
            let (handled, busy_us) = before.get(&actor.path).copied().unwrap_or(now);
            rows.push(Row {
                handled_per_second: per_second(actor.handled.saturating_sub(handled)),
                busy_percent: (per_second(actor.busy_us.saturating_sub(busy_us)) / 10_000.0).min(100.0),
                ..row(actor)
            });
            self.counters.insert(actor.path.clone(), now);
            waiting.extend(actor.children.iter().rev());
        }
        rows
    }
}

fn row(actor: &Actor) -> Row {
    Row {
        path: actor.path.clone(),
        kind: role(actor).to_owned(),
        state: actor.state.to_string(),
        mailbox: actor.mailbox.depth,
        mailbox_high_water: actor.mailbox.high_water,
        restarts: actor.restarts,
        handled_per_second: 0.0,
        busy_percent: 0.0,
        uptime_ms: actor.uptime_ms,
        handling: actor.handling.as_ref().map(|handling| handling.message.to_string()),
        handling_us: actor.handling.as_ref().map(|handling| handling.age_us),
    }
}

/// Puts what is largest first, and equal ones in the order of their paths.
pub(super) fn sort(rows: &mut [Row], by: TopSort) {
    rows.sort_by(|a, b| {
        let larger = match by {
            TopSort::Path => std::cmp::Ordering::Equal,
            TopSort::Mailbox => b.mailbox.cmp(&a.mailbox),
            TopSort::Messages => b.handled_per_second.total_cmp(&a.handled_per_second),
            TopSort::Busy => b.busy_percent.total_cmp(&a.busy_percent),
            TopSort::Restarts => b.restarts.cmp(&a.restarts),
            TopSort::Uptime => Reverse(a.uptime_ms).cmp(&Reverse(b.uptime_ms)),
        };
        larger.then_with(|| a.path.cmp(&b.path))
    });
}

/// The columns' titles.
pub(super) const TITLES: [&str; 9] =
    ["PATH", "KIND", "STATE", "MAILBOX", "MOST", "MSG/S", "BUSY%", "RESTARTS", "UPTIME  HANDLING"];

/// The columns that hold numbers.
pub(super) const NUMBERS: [usize; 5] = [3, 4, 5, 6, 7];

impl Row {
    /// The cells under [`TITLES`].
    pub(super) fn cells(&self) -> Vec<String> {
        let age = |micros| span(Duration::from_micros(micros));
        let handling = match (&self.handling, self.handling_us) {
            (Some(message), Some(micros)) => format!("  {} {}", shown(message), age(micros)),
            _ => String::new(),
        };
        vec![
            shown(&self.path),
            shown(&self.kind),
            shown(&self.state),
            self.mailbox.to_string(),
            self.mailbox_high_water.to_string(),
            format!("{:.1}", self.handled_per_second),
            format!("{:.1}", self.busy_percent),
            self.restarts.to_string(),
            format!("{:<6}{handling}", span(Duration::from_millis(self.uptime_ms))),
        ]
    }
}

/// All rows as text, for output that nobody watches.
pub(super) fn table(rows: &[Row]) -> String {
    let titles = TITLES.map(str::to_owned).to_vec();
    let lines: Vec<Vec<String>> = std::iter::once(titles).chain(rows.iter().map(Row::cells)).collect();
    columns(&lines, &NUMBERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn tree(counters: &[(&str, u64, u64, usize)]) -> Tree {
        let actor = |(path, handled, busy_us, depth): &(&str, u64, u64, usize)| {
            let mut actor =
                Actor { path: (*path).to_owned(), handled: *handled, busy_us: *busy_us, ..Actor::default() };
            actor.mailbox.depth = *depth;
            actor
        };
        let root = Actor { path: "/".to_owned(), children: counters.iter().map(actor).collect(), ..Actor::default() };
        Tree { version: 1, at_unix_ms: 0, pid: 1, alive: 1, root }
    }

    #[test]
    fn rates_come_from_two_looks() {
        let mut rates = Rates::default();
        let second = Duration::from_secs(1);
        let first = rates.take_in(Moment::START + second, &tree(&[("a", 100, 0, 0)]));
        assert!(first.iter().all(|row| row.handled_per_second == 0.0), "nothing to compare with yet");
        let rows = rates.take_in(Moment::START + second * 3, &tree(&[("a", 150, 1_000_000, 0), ("b", 9, 9, 0)]));
        let found: Vec<(&str, f64, f64)> =
            rows.iter().map(|row| (&*row.path, row.handled_per_second, row.busy_percent)).collect();
        assert_eq!(found, [("/", 0.0, 0.0), ("a", 25.0, 50.0), ("b", 0.0, 0.0)]);
        // Another daemon with smaller counters, in no time at all.
        let rows = rates.take_in(Moment::START + second * 3, &tree(&[("a", 1, 1, 0)]));
        assert_eq!(rows[1].handled_per_second, 0.0);
    }

    #[test]
    fn the_largest_comes_first_and_equals_by_path() {
        let mut rates = Rates::default();
        rates.take_in(Moment::START, &tree(&[("b", 0, 0, 0), ("a", 0, 0, 0), ("c", 0, 0, 0)]));
        let later = Moment::START + Duration::from_secs(1);
        let mut rows = rates.take_in(later, &tree(&[("b", 5, 9, 2), ("a", 5, 1, 2), ("c", 1, 5, 9)]));
        for (by, wanted) in [
            (TopSort::Path, ["/", "a", "b", "c"]),
            (TopSort::Mailbox, ["c", "a", "b", "/"]),
            (TopSort::Messages, ["a", "b", "c", "/"]),
            (TopSort::Busy, ["b", "c", "a", "/"]),
            (TopSort::Restarts, ["/", "a", "b", "c"]),
            (TopSort::Uptime, ["/", "a", "b", "c"]),
        ] {
            sort(&mut rows, by);
            assert_eq!(rows.iter().map(|row| &*row.path).collect::<Vec<_>>(), wanted, "{by:?}");
        }
    }
}
