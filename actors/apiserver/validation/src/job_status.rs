//! What is reported of a Job: it ends once, and what it reports fits together.
//!
//! Anybody may report who manages a Job, so that its readers are protected here. A rule is asked only of what changes:
//! what was reported before may stay wrong until it is touched.

use std::collections::BTreeSet;

use k3sd_objects::status::field::Error;

use super::Context;
use super::job_policies::count_indexes;
use super::read::{At, Errors, same};

/// A report with the Job that it is about.
struct Report<'a> {
    spec: At<'a>,
    status: At<'a>,
    complete: bool,
    failed: bool,
    target: bool,
    met: bool,
}

impl<'a> Report<'a> {
    fn of(object: &At<'a>) -> Self {
        let status = object.field("status");
        let holds = |kind: &str| {
            let mut conditions = status.items("conditions");
            conditions.any(|condition| condition.text("type") == kind && condition.text("status") == "True")
        };
        let (complete, failed) = (holds("Complete"), holds("Failed"));
        let (target, met) = (holds("FailureTarget"), holds("SuccessCriteriaMet"));
        Self { spec: object.field("spec"), complete, failed, target, met, status }
    }

    fn finished(&self) -> bool {
        self.complete || self.failed
    }

    fn number(&self, name: &str) -> i64 {
        self.status.number(name).unwrap_or_default()
    }

    /// Conditions that don't go together.
    fn wrong_conditions(&self, detail: &str, out: &mut Errors) {
        out.push(Error::invalid_unshown(&self.status.place("conditions"), detail));
    }
}

/// The status of a Job.
pub(super) fn update(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    let (report, before) = (Report::of(new), Report::of(old));
    for name in ["active", "succeeded", "failed", "ready", "terminating"] {
        report.status.not_negative(name, out);
    }
    check_uncounted(&report.status, out);
    check_end(&report, &before, out);
    check_finished(&report, &before, out);
    check_indexes(&report, &before, out);
    check_success(&report, out);
    check_transition(&report, &before, out);
}

/// Pods that ended and are not counted yet, each once.
fn check_uncounted(status: &At<'_>, out: &mut Errors) {
    let uncounted = status.field("uncountedTerminatedPods");
    let mut seen = BTreeSet::new();
    for pod in uncounted.items("succeeded").chain(uncounted.items("failed")) {
        if pod.text("").is_empty() {
            out.push(pod.invalid("", "must not be empty"));
        } else if !seen.insert(pod.text("")) {
            out.push(pod.duplicate(""));
        }
    }
}

/// Which fields changed.
fn changed(report: &Report<'_>, before: &Report<'_>, name: &str) -> bool {
    !same(report.status.get(name), before.status.get(name))
}

/// How and when a Job ended.
fn check_end(report: &Report<'_>, before: &Report<'_>, out: &mut Errors) {
    const TIME: &str = "completionTime";
    let status = &report.status;
    let (complete, failed) = (report.complete != before.complete, report.failed != before.failed);
    let (target, met) = (report.target != before.target, report.met != before.met);
    let time = changed(report, before, TIME);
    if (complete || failed) && report.complete && report.failed {
        report.wrong_conditions("cannot set Complete=True and Failed=true conditions", out);
    }
    if (complete || target) && report.complete && report.target {
        report.wrong_conditions("cannot set Complete=True and FailureTarget=true conditions", out);
    }
    if (complete || time) && status.has(TIME) && !report.complete {
        out.push(status.invalid(TIME, "cannot set completionTime when there is no Complete=True condition"));
    }
    if (complete || time) && !status.has(TIME) && report.complete {
        out.push(status.required(TIME, "completionTime is required for Complete jobs"));
    }
    // Both are in the one form of RFC 3339 that is kept, so that their text has the order of the times.
    let early = status.has(TIME) && status.has("startTime") && status.text(TIME) < status.text("startTime");
    if (time || changed(report, before, "startTime")) && early {
        out.push(status.invalid(TIME, "completionTime cannot be set before startTime"));
    }
    if (failed || target) && report.failed && !report.target {
        let detail = "cannot set Failed=True condition without the FailureTarget=true condition";
        report.wrong_conditions(detail, out);
    }
    if (complete || met) && report.complete && !report.met {
        let detail = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        report.wrong_conditions(detail, out);
    }
}

/// What can't be of a Job that ended.
fn check_finished(report: &Report<'_>, before: &Report<'_>, out: &mut Errors) {
    if !report.finished() {
        return;
    }
    let (status, ended) = (&report.status, !before.finished());
    let asked = |name: &str| ended || changed(report, before, name);
    if asked("active") && report.number("active") > 0 {
        out.push(status.invalid_number("active", "active>0 is invalid for finished job"));
    }
    if asked("startTime") && !status.has("startTime") {
        out.push(status.required("startTime", "startTime is required for finished job"));
    }
    let uncounted = status.field("uncountedTerminatedPods");
    if asked("uncountedTerminatedPods") && uncounted.count("succeeded") + uncounted.count("failed") > 0 {
        let detail = "uncountedTerminatedPods needs to be empty for finished job";
        out.push(status.invalid("uncountedTerminatedPods", detail));
    }
    if asked("terminating") && report.number("terminating") > 0 {
        out.push(status.invalid_number("terminating", "terminating>0 is invalid for finished job"));
    }
}

/// Indexes that succeeded, and those that failed.
fn check_indexes(report: &Report<'_>, before: &Report<'_>, out: &mut Errors) {
    const COMPLETED: &str = "completedIndexes";
    const FAILED: &str = "failedIndexes";
    let (spec, status) = (&report.spec, &report.status);
    let (completed, failed) = (changed(report, before, COMPLETED), changed(report, before, FAILED));
    let (limited, completions) = (spec.has("backoffLimitPerIndex"), spec.number("completions"));
    for (name, asked) in [(COMPLETED, completed), (FAILED, failed && limited && status.has(FAILED))] {
        let (true, Some(completions)) = (asked, completions) else { continue };
        if let Err(fault) = count_indexes(status.text(name), completions) {
            out.push(status.invalid(name, format!("error parsing {name}: {fault}")));
        }
    }
    if completed && !status.text(COMPLETED).is_empty() && spec.text("completionMode") != "Indexed" {
        out.push(status.invalid(COMPLETED, "cannot set non-empty completedIndexes when non-indexed completion mode"));
    }
    if failed && status.has(FAILED) && !limited {
        out.push(status.invalid(FAILED, "cannot set non-null failedIndexes when backoffLimitPerIndex is null"));
    }
    if (completed || failed)
        && let Some(index) = overlap(status.text(COMPLETED), status.text(FAILED))
    {
        let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
        out.push(status.invalid(FAILED, detail));
    }
    let asked = changed(report, before, "ready") || changed(report, before, "active");
    if asked && status.has("ready") && report.number("ready") > report.number("active") {
        out.push(status.invalid_number("ready", "cannot set more ready pods than active"));
    }
}

/// The first index that is in both of two lists; what is malformed is in none.
fn overlap(left: &str, right: &str) -> Option<i64> {
    let intervals = |text: &str| -> Vec<(i64, i64)> {
        let read = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        text.split(',').filter_map(read).collect()
    };
    let (left, right) = (intervals(left), intervals(right));
    let (mut a, mut b) = (left.iter().peekable(), right.iter().peekable());
    // Both are in order, so that the one that ends first meets nothing more.
    while let (Some(one), Some(other)) = (a.peek(), b.peek()) {
        let first = one.0.max(other.0);
        if first <= one.1.min(other.1) {
            return Some(first);
        }
        if one.1 < other.1 {
            a.next();
        } else {
            b.next();
        }
    }
    None
}

/// Success and failure exclude each other.
fn check_success(report: &Report<'_>, out: &mut Errors) {
    if report.met && report.failed {
        report.wrong_conditions("cannot set SuccessCriteriaMet=True and Failed=true conditions", out);
    }
    if report.met && report.target {
        report.wrong_conditions("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions", out);
    }
    if report.spec.has("successPolicy") && !report.met && report.complete {
        let detail = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        report.wrong_conditions(detail, out);
    }
}

/// What may not be taken back.
fn check_transition(report: &Report<'_>, before: &Report<'_>, out: &mut Errors) {
    let (spec, status) = (&report.spec, &report.status);
    for (name, was, is) in [
        ("Failed", before.failed, report.failed),
        ("Complete", before.complete, report.complete),
        ("FailureTarget", before.target, report.target),
    ] {
        if was && !is {
            report.wrong_conditions(&format!("cannot disable the terminal {name}=True condition"), out);
        }
    }
    if report.number("failed") < before.number("failed") {
        out.push(status.invalid_number("failed", "cannot decrease the failed counter"));
    }
    // A Job with as many pods at once as in all can be scaled down.
    let elastic = spec.text("completionMode") == "Indexed" && same(spec.get("completions"), spec.get("parallelism"));
    if !elastic && report.number("succeeded") < before.number("succeeded") {
        out.push(status.invalid_number("succeeded", "cannot decrease the succeeded counter"));
    }
    let both = status.has("completionTime") && before.status.has("completionTime");
    if both && changed(report, before, "completionTime") {
        out.push(status.invalid("completionTime", "completionTime cannot be mutated"));
    }
    if before.status.has("startTime") && changed(report, before, "startTime") && !spec.flag("suspend") {
        out.push(status.required("startTime", "startTime cannot be removed for unsuspended job"));
    }
    if before.met && !report.met {
        report.wrong_conditions("cannot disable the SuccessCriteriaMet=True condition", out);
    }
    if before.complete && !before.met && report.met {
        let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        report.wrong_conditions(detail, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_common_index_is_found() {
        for (left, right, expected) in [
            ("", "", None),
            ("0-3,7", "4-6,8", None),
            ("0-3,7", "4-7", Some(7)),
            ("1,3,5", "5-9", Some(5)),
            ("0-9", "3", Some(3)),
            ("x", "1", None),
        ] {
            assert_eq!(overlap(left, right), expected, "{left} {right}");
        }
    }
}
