//! From what the jobs measured to the lines of the table.

use crate::place::Figures;
use crate::table::{Row, Spread};

/// Of the time of the bare runtime, a single pod may take so much, and so many milliseconds more.
const SINGLE: (f64, f64) = (1.3, 50.0);
/// The same of the last but one of a hundred.
const MANY: f64 = 1.2;

/// A line with the median of some numbers, of which it is demanded that it be at most `bar`.
fn median(what: &str, bar: f64, unit: &str, spread: Spread) -> Row {
    Row { ours: format!("{spread} {unit}"), ..Row::at_most(what, bar, unit, spread.median) }
}

/// A line that is only stated.
fn told(what: impl Into<String>, ours: String) -> Row {
    Row { holds: None, ..Row::alone(what, "-", ours, true) }
}

/// A line with a number that is only stated.
fn stated(what: &str, unit: &str, spread: Spread) -> Row {
    told(what, format!("{spread} {unit}"))
}

pub(crate) fn start(figures: &Figures) -> Vec<Row> {
    vec![
        median("start to node Ready on an empty directory", 4000.0, "ms", figures.spread("cold_ms"))
            .named("node-start-empty"),
        median("start to node Ready on a warm directory, containerd too", 2000.0, "ms", figures.spread("warm_ms"))
            .named("node-start-warm"),
    ]
}

fn of_idle(figures: &Figures, when: &str, bar: &'static str) -> Vec<Row> {
    let value = |name| figures.spread(name).median;
    vec![
        Row::at_most(format!("processor, idle {when}"), 1.0, "% of a core", value("idle_percent")).named(bar),
        told(format!("wake-ups, idle {when}"), format!("{:.1}/s", value("sleeps"))),
    ]
}

pub(crate) fn idle(whole: &Figures, server: &Figures) -> Vec<Row> {
    let value = |figures: &Figures, name| figures.spread(name).median;
    let (all, own) = (value(whole, "resident_mib"), value(whole, "anonymous_mib"));
    let (server_all, server_own) = (value(server, "resident_mib"), value(server, "anonymous_mib"));
    let mut rows = vec![
        Row::at_most(format!("resident memory, idle ({own:.1} MiB not of files)"), 50.0, "MiB", all)
            .named("node-memory"),
        Row::at_most(
            format!("the agent's part of it ({:.1} MiB not of files)", own - server_own),
            20.0,
            "MiB",
            all - server_all,
        )
        .named("agent-memory"),
    ];
    rows.extend(of_idle(whole, "without pods", "node-processor"));
    let (percent, sleeps) = (value(server, "idle_percent"), value(server, "sleeps"));
    rows.push(told("the same without an agent", format!("{percent:.2} % of a core, {sleeps:.1}/s")));
    rows
}

/// With the service proxy and all packaged components.
pub(crate) fn everything(figures: &Figures) -> Vec<Row> {
    let value = |name| figures.spread(name).median;
    let (all, own) = (value("resident_mib"), value("anonymous_mib"));
    vec![
        Row::at_most(format!("everything on: resident memory, idle ({own:.1} MiB not of files)"), 64.0, "MiB", all)
            .named("everything-memory"),
        Row::at_most("everything on: processor, idle", 0.5, "% of a core", value("idle_percent"))
            .named("everything-processor"),
        told("everything on: wake-ups, idle", format!("{:.1}/s", value("sleeps"))),
    ]
}

pub(crate) fn pod(figures: &Figures) -> Vec<Row> {
    let (ours, bare) = (figures.spread("ours_ms"), figures.spread("bare_ms"));
    let (times, more) = SINGLE;
    let limit = bare.median * times + more;
    let compared = Row {
        name: Some("pod"),
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
        name: Some("pods-at-once"),
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
    rows.extend(of_idle(figures, &format!("with {count} running pods"), "node-processor-pods"));
    rows.push(stated("resident memory with them", "MiB", figures.spread("resident_mib")));
    rows
}
