//! What is known of flows, under the names that dashboards know.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use k3sd_runtime::exposition::{head, line};

use super::InForce;
use super::levels::{LevelSpec, Levels, Limits, Refusal};

/// A number of each level.
type LevelRow = (&'static str, &'static str, fn(&Limits, usize) -> usize);

const LEVELS: [LevelRow; 4] = [
    ("nominal_limit_seats", "Seats that a level has of its own.", |limits, _| limits.nominal),
    ("lower_limit_seats", "Seats that a level never lends.", |limits, _| limits.lower),
    ("upper_limit_seats", "Seats that a level may have with those it borrows.", |limits, _| limits.upper),
    ("current_executing_seats", "Seats that are taken.", |_, taken| taken),
];

/// Writes everything.
pub(super) fn write<W>(text: &mut String, schemas: &[Arc<InForce>], levels: &Levels<W>) {
    for (name, help, number) in LEVELS {
        let name = format!("apiserver_flowcontrol_{name}");
        head(text, &name, "gauge", help);
        for (LevelSpec { name: level, exempt, .. }, limits, taken, _) in levels.all() {
            // Of those that wait for nobody seats aren't counted.
            if !exempt {
                line(text, &name, &format!("priority_level=\"{level}\""), number(&limits, taken));
            }
        }
    }
    let rows = || schemas.iter().map(|row| (labels(row), &row.counts));
    for (name, help) in [("executing", "Requests that are worked on."), ("inqueue", "Requests that wait.")] {
        let full = format!("apiserver_flowcontrol_current_{name}_requests");
        head(text, &full, "gauge", help);
        for (labels, counts) in rows() {
            let number = if name == "inqueue" { &counts.waiting } else { &counts.working };
            line(text, &full, &labels, number.load(Relaxed));
        }
    }
    let name = "apiserver_flowcontrol_dispatched_requests_total";
    head(text, name, "counter", "Requests that got their seat.");
    rows().for_each(|(labels, counts)| line(text, name, &labels, counts.dispatched.load(Relaxed)));
    let name = "apiserver_flowcontrol_rejected_requests_total";
    head(text, name, "counter", "Requests that got none.");
    for (labels, counts) in rows() {
        for (reason, count) in Refusal::ALL.iter().zip(&counts.rejected) {
            let count = count.load(Relaxed);
            if count > 0 {
                line(text, name, &format!("{labels},reason=\"{reason}\""), count);
            }
        }
    }
    let name = "apiserver_flowcontrol_work_estimated_seats";
    head(text, name, "histogram", "How many seats requests took.");
    for (labels, counts) in rows().filter(|(_, counts)| counts.widths.count() > 0) {
        counts.widths.write(text, name, &labels);
    }
    let name = "apiserver_flowcontrol_request_wait_duration_seconds";
    head(text, name, "histogram", "How long requests waited for their seat.");
    for (labels, counts) in rows() {
        counts.waits.write(text, name, &format!("execute=\"true\",{labels}"));
    }
}

fn labels(row: &InForce) -> String {
    format!("flow_schema=\"{}\",priority_level=\"{}\"", row.schema.name, row.schema.level)
}
