//! From what the jobs measured to the lines of the table.

use crate::place::Figures;
use crate::table::{Row, Spread};

/// Of the time of the bare runtime, a single pod may take so much, and so many milliseconds more.
const SINGLE: (f64, f64) = (1.3, 50.0);
/// The same of the last but one of a hundred.
const MANY: f64 = 1.2;

fn row(what: impl Into<String>, bar: Option<String>, ours: String, holds: Option<bool>) -> Row {
    let none = || "-".to_owned();
    Row { what: what.into(), bar: bar.unwrap_or_else(none), ours, other: none(), ratio: none(), holds }
}

/// A line with the median of some numbers, of which it is demanded that it be at most `bar`.
fn median(what: &str, bar: f64, unit: &str, spread: Spread) -> Row {
    row(what, Some(format!("at most {bar} {unit}")), format!("{spread} {unit}"), Some(spread.median <= bar))
}

/// A line with a number that is only stated.
fn stated(what: &str, unit: &str, spread: Spread) -> Row {
    row(what, None, format!("{spread} {unit}"), None)
}

pub(crate) fn start(figures: &Figures) -> Vec<Row> {
    vec![
        median("start to node Ready on an empty directory", 4000.0, "ms", figures.spread("cold_ms")),
        median("start to node Ready on a warm directory, containerd too", 2000.0, "ms", figures.spread("warm_ms")),
    ]
}

fn of_idle(figures: &Figures, when: &str) -> Vec<Row> {
    let value = |name| figures.spread(name).median;
    vec![
        Row::at_most(format!("processor, idle {when}"), 1.0, "% of a core", value("idle_percent")),
        row(format!("wake-ups, idle {when}"), None, format!("{:.1}/s", value("sleeps")), None),
    ]
}

pub(crate) fn idle(whole: &Figures, server: &Figures) -> Vec<Row> {
    let value = |figures: &Figures, name| figures.spread(name).median;
    let (all, own) = (value(whole, "resident_mib"), value(whole, "anonymous_mib"));
    let (server_all, server_own) = (value(server, "resident_mib"), value(server, "anonymous_mib"));
    let mut rows = vec![
        Row::at_most(format!("resident memory, idle ({own:.1} MiB not of files)"), 50.0, "MiB", all),
        Row::at_most(
            format!("the agent's part of it ({:.1} MiB not of files)", own - server_own),
            20.0,
            "MiB",
            all - server_all,
        ),
    ];
    rows.extend(of_idle(whole, "without pods"));
    let (percent, sleeps) = (value(server, "idle_percent"), value(server, "sleeps"));
    rows.push(row("the same without an agent", None, format!("{percent:.2} % of a core, {sleeps:.1}/s"), None));
    rows
}

pub(crate) fn pod(figures: &Figures) -> Vec<Row> {
    let (ours, bare) = (figures.spread("ours_ms"), figures.spread("bare_ms"));
    let (times, more) = SINGLE;
    let limit = bare.median * times + more;
    let compared = Row {
        what: format!("create to Running seen by a watcher, median of {}", figures.of("ours_ms").len()),
        bar: format!("at most {times} x + {more} ms = {limit:.0} ms"),
        ours: format!("{ours} ms"),
        other: format!("{bare} ms"),
        ratio: format!("{:.2} x", ours.median / bare.median),
        holds: Some(ours.median <= limit),
    };
    vec![compared, stated("k3sd's own processor time for it", "ms", figures.spread("cpu_ms"))]
}

pub(crate) fn many(figures: &Figures, count: usize) -> Vec<Row> {
    let (ours, bare) = (figures.spread("ours_ms"), figures.spread("bare_ms"));
    let pairs = figures.of("ours_ms").iter().zip(figures.of("bare_ms"));
    let ratio = Spread::of(pairs.map(|(ours, bare)| ours / bare).collect());
    let compared = Row {
        what: format!("{count} pods at once, p99"),
        bar: format!("at most {MANY} x"),
        ours: format!("{ours} ms"),
        other: format!("{bare} ms"),
        ratio: format!("{ratio} x"),
        holds: Some(ratio.median <= MANY),
    };
    let mut rows = vec![
        compared,
        stated("k3sd's own processor time for each", "ms", figures.spread("cpu_ms")),
        stated("all of them removed", "ms", figures.spread("gone_ms")),
    ];
    rows.extend(of_idle(figures, &format!("with {count} running pods")));
    rows.push(stated("resident memory with them", "MiB", figures.spread("resident_mib")));
    rows
}
