//! Has a history judged by all checkers, and keeps one that fails.

use std::fs;

use crate::history::{History, Outcome};
use crate::{linearizability, log};

/// How many findings are printed; one fault makes many.
const FINDINGS_MAX: usize = 8;

/// Judges a history, and prints how much it had in it.
///
/// # Panics
/// When it is wrong. It is then written to a file, which is named.
pub fn judge(history: &History, test: &str, seed: u64) {
    let mut findings: Vec<String> = linearizability::check(history).iter().map(ToString::to_string).collect();
    findings.extend(log::check(history));
    println!("{test}: {}", summary(history));
    if findings.is_empty() {
        return;
    }
    let path = std::env::temp_dir().join(format!("k3sd-{test}-{seed}.history"));
    let kept = match fs::write(&path, format!("{}\n\n{history}", findings.join("\n"))) {
        Ok(()) => format!("it is kept in {}", path.display()),
        Err(error) => format!("it could not be kept in {}: {error}", path.display()),
    };
    let count = findings.len();
    findings.truncate(FINDINGS_MAX);
    panic!("the history is wrong in {count} places, and {kept}:\n{}", findings.join("\n"));
}

fn summary(history: &History) -> String {
    let count =
        |wanted: fn(&Outcome) -> bool| history.operations.iter().filter(|operation| wanted(&operation.outcome)).count();
    let events: usize = history.watches.iter().map(|watch| watch.seen.len()).sum();
    format!(
        "{} writes, {} reads, {} refused, {} without an answer, {events} entries of {} watches, revisions {} to {}",
        count(|outcome| matches!(outcome, Outcome::Written { .. })),
        count(|outcome| {
            matches!(outcome, Outcome::Unchanged { .. } | Outcome::Read { .. } | Outcome::Listed { .. })
        }),
        count(|outcome| matches!(outcome, Outcome::Refused { .. })),
        count(|outcome| matches!(outcome, Outcome::Unknown { .. })),
        history.watches.len(),
        history.start_revision,
        history.end_revision,
    )
}
