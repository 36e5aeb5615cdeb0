//! The table of `supervisor-tree.md` that says what each death costs: whether it fits the tree, and how it is written.
//!
//! What is measured stands in it as a number; the words are those that the page has already.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use k3sd_runtime::inspect::wire::Actor;

use crate::costs::{self, BEGIN, END};
use crate::drill::Struck;
use crate::turns::TIMES;

/// What stands in the place of a measurement that is still to be made.
const NOT_YET: &str = "not yet";

/// What is measured for the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Costs {
    /// Nothing: the table is only looked at.
    Unmeasured,
    /// What the table has nothing about, or what has another strategy or budget since.
    Missing,
    /// All of it.
    All,
}

impl Costs {
    /// What `CHAOS_COSTS` asks for.
    ///
    /// # Panics
    /// When nobody knows what it asks for.
    pub(crate) fn wanted() -> Self {
        match std::env::var("CHAOS_COSTS").as_deref() {
            Err(_) => Self::Unmeasured,
            Ok("missing") => Self::Missing,
            Ok("all") => Self::All,
            Ok(other) => panic!("CHAOS_COSTS={other} is neither missing nor all"),
        }
    }
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../supervisor-tree.md")
}

fn read() -> String {
    fs::read_to_string(file()).expect("the page is at the root of the repository")
}

/// Where table and tree differ.
pub(crate) fn findings(root: &Actor) -> Vec<String> {
    costs::findings(&read(), &places(root).into_iter().collect(), |_| true)
}

/// The row that an actor belongs to: those of a dynamic supervisor share one.
pub(crate) fn fold(root: &Actor, path: &str) -> String {
    let (mut folded, mut here) = (Vec::new(), Some(root));
    let mut is_dynamic = false;
    let mut real = String::new();
    for name in path.split('/') {
        if !real.is_empty() {
            real.push('/');
        }
        real.push_str(name);
        folded.push(if is_dynamic { "*" } else { name });
        here = here.and_then(|above| above.children.iter().find(|child| child.path == real));
        is_dynamic = here.is_some_and(|found| found.strategy.as_deref() == Some("dynamic"));
    }
    folded.join("/")
}

/// The rows that the tree asks for, in its order, each with what it is.
fn places(root: &Actor) -> Vec<(String, String)> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    let mut waiting = vec![(root, root.path.clone())];
    while let Some((actor, row)) = waiting.pop() {
        let budget = actor.intensity.map(|intensity| (intensity.restarts, intensity.period_ms));
        let (strategy, restart) = (actor.strategy.as_deref(), actor.restart.as_deref());
        if seen.insert(row.clone()) {
            found.push((row.clone(), costs::description(strategy, budget, restart, &actor.kind)));
        }
        // Connections are whose guests they are.
        if actor.path.ends_with("/connections") {
            continue;
        }
        let is_dynamic = strategy == Some("dynamic");
        for child in actor.children.iter().rev() {
            let name = if is_dynamic { "*" } else { &child.name };
            let below = if row == "/" { name.to_owned() } else { format!("{row}/{name}") };
            waiting.push((child, below));
        }
    }
    found
}

/// The rows that are to be measured.
pub(crate) fn unmeasured(root: &Actor, costs: Costs) -> BTreeSet<String> {
    let (_, rows) = costs::split(&read());
    let is_known = |row: &str, found: &String| {
        rows.get(row).is_some_and(|cells| cells.get(1) == Some(found) && cells.iter().all(|cell| cell != NOT_YET))
    };
    let wanted = places(root).into_iter().filter(|(row, found)| costs == Costs::All || !is_known(row, found));
    wanted.map(|(row, _)| row).collect()
}

/// What was seen of the deaths of a row.
#[derive(Default)]
struct Seen {
    healed: Vec<Duration>,
    requests: usize,
    streams: usize,
    others: usize,
}

/// Writes the table anew, with what was measured and what it had before about the rest.
///
/// # Panics
/// When a row is left without a measurement, or without words.
pub(crate) fn write(root: &Actor, strikes: &[Struck]) {
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    for struck in strikes {
        let row = if struck.victim == "/" { "/".to_owned() } else { fold(root, &struck.victim) };
        let seen = seen.entry(row).or_default();
        seen.healed.extend(struck.healed);
        seen.requests += struck.requests;
        seen.streams += struck.streams;
        seen.others += struck.others;
    }
    // Somebody may have written to it since.
    let page = read();
    let (rest, mut rows) = costs::split(&page);
    let mut table = String::from(HEAD);
    for (row, description) in places(root) {
        let cells = match (seen.remove(&row), rows.remove(&row)) {
            (Some(seen), _) => seen.cells(),
            (None, Some(cells)) => cells[2..6].join(" | "),
            (None, None) => panic!("{row} was not measured"),
        };
        let words = words(&rest, &row).unwrap_or_else(|| panic!("nothing says what the death of {row} costs"));
        writeln!(table, "| `{row}` | {description} | {cells} | {words} |").expect("a string takes everything");
    }
    let at = rest.find(END).expect("the page says where the table belongs");
    fs::write(file(), format!("{}{BEGIN}\n{table}\n{}", &rest[..at], &rest[at..])).expect("the page can be written");
}

const HEAD: &str = "
| Actor | Strategy | Whole again after | Requests failed | Streams cut | Others failed | What a user loses |
|---|---|---|---|---|---|---|
";

impl Seen {
    fn cells(mut self) -> String {
        self.healed.sort();
        let median = self.healed.get(self.healed.len() / 2).expect("somebody waited until all was back");
        let deaths = self.healed.len().max(1);
        assert!(deaths >= TIMES, "only {deaths} deaths were measured");
        // One digit after the point, as there are few deaths.
        let each = |count: usize| match (count * 10).div_ceil(deaths) {
            0 => "0".to_owned(),
            tenths => format!("{}.{}", tenths / 10, tenths % 10),
        };
        let (requests, streams, others) = (each(self.requests), each(self.streams), each(self.others));
        format!("{} ms | {requests} | {streams} | {others}", median.as_millis().max(1))
    }
}

/// What the page says that a death costs: of the actor itself, or of the nearest one above that it says something about.
fn words(page: &str, row: &str) -> Option<String> {
    let said = said(page);
    let mut above = row;
    loop {
        if let Some(words) = said.get(above) {
            return Some(words.clone());
        }
        above = above.rsplit_once('/')?.0;
    }
}

/// What the page says by path: in the last cell of the table's rows, and after "A restart costs:" in the list.
fn said(page: &str) -> BTreeMap<String, String> {
    let mut said = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        if let ([path, ..], Some(words)) = (cells.as_slice(), cells.last()) {
            said.insert(path.trim_matches('`').to_owned(), (*words).to_owned());
        }
    }
    for item in items(page) {
        let Some((who, words)) = item.split_once("A restart costs: ") else { continue };
        let mut names = who.split('`').skip(1).step_by(2);
        let Some(first) = names.next() else { continue };
        said.insert(first.to_owned(), sentence(words));
        // Those beside it, which come before anything is said of them.
        let list = who.split([':', '(', '.']).next().unwrap_or_default();
        let siblings = list.split('`').skip(1).step_by(2).skip(1);
        if let Some((above, _)) = first.rsplit_once('/') {
            said.extend(siblings.map(|name| (format!("{above}/{name}"), sentence(words))));
        }
    }
    said
}

fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().collect::<String>() + letters.as_str()).unwrap_or_default()
}

/// The items of lists, each on one line.
fn items(page: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    let mut is_item = false;
    for line in page.lines() {
        if let Some(text) = line.strip_prefix("- ") {
            items.push(text.to_owned());
            is_item = true;
        } else if let (Some(text), true, Some(item)) = (line.strip_prefix("  "), is_item, items.last_mut()) {
            item.push(' ');
            item.push_str(text);
        } else {
            is_item = false;
        }
    }
    items
}
