//! The generated table of `supervisor-tree.md`: what the death of each actor costs. Here is what its form is and whether it
//! fits a tree; `chaos-tests` measures and writes it, and the tidy test and `chaos-tests` both look whether it still fits.

use std::collections::BTreeMap;

/// The line above the table.
pub(crate) const BEGIN: &str =
    "<!-- Measured by chaos-tests/tests/node_chaos, which writes what is between these lines. -->";
/// The line below it.
pub(crate) const END: &str = "<!-- The end of what is measured. -->";
/// What is done about a table that doesn't fit.
pub(crate) const REMEDY: &str = "CHAOS_COSTS=missing cargo test --workspace --test node_chaos deaths_cost";
/// How many cells a row has: path, strategy and budget, four measurements, words.
const CELLS: usize = 7;

/// What a row, or the tree, says of one place: a supervisor's strategy and budget, or what else it is.
pub(crate) type Places = BTreeMap<String, String>;

/// The page without the table, and the rows of the table by path.
pub(crate) fn split(page: &str) -> (String, BTreeMap<String, Vec<String>>) {
    let (mut rest, mut rows, mut is_table) = (String::new(), BTreeMap::new(), false);
    for line in page.lines() {
        is_table = (is_table || line == BEGIN) && line != END;
        if !is_table {
            rest.push_str(line);
            rest.push('\n');
        } else if line.starts_with("| `") {
            let cells: Vec<String> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
            rows.insert(cells[0].trim_matches('`').to_owned(), cells);
        }
    }
    (rest, rows)
}

/// Where table and tree differ. Rows below those that `is_looked_at` refuses are left alone: that part does not run here.
pub(crate) fn findings(page: &str, tree: &Places, is_looked_at: impl Fn(&str) -> bool) -> Vec<String> {
    let (_, rows) = split(page);
    let mut findings = Vec::new();
    for (path, cells) in rows.iter().filter(|(path, _)| is_looked_at(path)) {
        // What a dynamic supervisor has depends on what there is to do.
        let dynamic = path.split_once("/*").map(|(above, _)| above);
        let above = dynamic.map(|above| tree.get(above).is_some_and(|found| found.starts_with("dynamic")));
        match (tree.get(path), above) {
            (None, None | Some(false)) => findings.push(format!("costs of {path}: there is no such actor")),
            (Some(found), _) if cells.get(1) != Some(found) => {
                findings.push(format!("costs of {path}: says {:?}, the tree says {found:?}", cells.get(1)));
            }
            _ if cells.len() != CELLS || cells.iter().any(String::is_empty) => {
                findings.push(format!("costs of {path}: has {CELLS} cells, none of them empty"));
            }
            _ => {}
        }
    }
    for (path, found) in tree.iter().filter(|(path, _)| !rows.contains_key(*path)) {
        findings.push(format!("costs of {path} ({found}) are missing"));
    }
    if !findings.is_empty() {
        findings.push(format!("to measure what is missing: {REMEDY}"));
    }
    findings
}

/// What the page says of an actor: of a supervisor its strategy and budget (restarts and milliseconds), of others what
/// they are.
pub(crate) fn description(
    strategy: Option<&str>,
    budget: Option<(u32, u64)>,
    restart: Option<&str>,
    kind: &str,
) -> String {
    match (strategy, budget) {
        (Some(strategy), Some((restarts, millis))) => format!("{strategy}, {restarts} in {}", seconds(millis)),
        (Some(strategy), None) => strategy.to_owned(),
        (None, _) => format!("{}, {kind}", restart.unwrap_or("permanent")),
    }
}

fn seconds(millis: u64) -> String {
    if millis.is_multiple_of(1000) { format!("{} s", millis / 1000) } else { format!("{millis} ms") }
}
