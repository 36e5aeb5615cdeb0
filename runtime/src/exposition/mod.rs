//! Numbers as Prometheus reads them: its text format, and what the kernel knows of the process.

mod histogram;
mod process;
mod sizes;

use std::fmt::Write as _;

pub use histogram::Histogram;
pub use process::write as write_process;
pub use sizes::Sizes;

/// The lines before those of a metric. `kind` is `counter`, `gauge` or `histogram`.
pub fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes everything");
}

/// One value. Labels are written as they are, `name="value"` with commas between them; one at either end does no harm.
pub fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let labels = labels.trim_matches(',');
    let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
    writeln!(text, "{name}{open}{labels}{close} {value}").expect("a string takes everything");
}
